# SPDX-License-Identifier: MIT
"""Requests to rtnetlink, as `ip` reads what they made."""

import json
import subprocess
import sys

import pytest

from skbus.bus.rtnetlink import attribute

PROGRAM = """
import os, socket, subprocess
from skbus.bus import rtnetlink
from skbus.bus.gso_size import gso_ipv4_max_size, set_gso_ipv4_max_size
from skbus.stack.holder import make_namespaces
make_namespaces()
ours = os.open("/proc/self/ns/net", os.O_RDONLY)
rtnetlink.add_veth("one", "two", ours)
one, two = map(socket.if_nametoindex, ("one", "two"))
rtnetlink.set_mtu(one, 9000)
rtnetlink.add_address(one, "192.0.2.1", 24)
for index in (1, one, two):
    rtnetlink.set_up(index)
set_gso_ipv4_max_size(two, 100_000)
assert gso_ipv4_max_size(two) == 100_000
for wrong in (
    lambda: rtnetlink.add_veth("one", "three", ours),
    lambda: rtnetlink.set_mtu(9999, 1500),
    lambda: rtnetlink.add_address(one, "192.0.2.1", 24),
    lambda: gso_ipv4_max_size(9999),
):
    try:
        wrong()
    except OSError as e:
        print(e.strerror)
subprocess.run(["ip", "-j", "address"], check=True)
"""


@pytest.mark.lab
def test_links_and_addresses() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    *errors, shown = done.stdout.splitlines()
    assert errors == ["File exists", "No such device", "File exists", "No such device"]
    links = {link["ifname"]: link for link in json.loads(shown)}
    assert set(links) == {"lo", "one", "two"}
    assert links["one"]["mtu"] == 9000
    assert links["two"]["mtu"] == 1500
    assert all("UP" in link["flags"] for link in links.values())
    (address,) = (a for a in links["one"]["addr_info"] if a["family"] == "inet")
    assert (address["local"], address["prefixlen"], address["scope"]) == (
        "192.0.2.1", 24, "global",
    )  # fmt: skip


def test_attributes_are_padded() -> None:
    assert attribute(3, b"a\0").hex() == "0600030061000000"
    assert attribute(4, 1500)[4:] == (1500).to_bytes(4, sys.byteorder)
