# SPDX-License-Identifier: MIT
"""Two Linux hosts talk through our stack as their router, and through Linux in its place: what is
passed on, and what each of the two is told where something is not."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skbus.bus.ctl import ctl_call

if TYPE_CHECKING:
    from tests.interop.conftest import OurRouter, Router

pytestmark = pytest.mark.lab

Need = Callable[..., None]

PMTUDISC_DONT, PMTUDISC_DO = 0, 2


def counters(router: OurRouter, process: str = "ip") -> dict[str, int]:
    found: dict[str, int] = ctl_call(router.run, process, "counters", seconds=60.0)
    return found


# ---- what is passed on -----------------------------------------------------------------------


def test_a_ping_goes_through(router: Router) -> None:
    said = router.pings(3, "-i", "0.05", "-W", "20", to=router.RIGHT)
    assert " 3 received" in said, said
    assert "nreachable" not in said
    assert "ttl=63" in said  # right's 64, less one


@pytest.mark.parametrize("narrow", [False, True], ids=["1500", "1300"])
@pytest.mark.parametrize("upload", [True, False], ids=["to the right", "to the left"])
def test_tcp_goes_through_whole(router: Router, port: int, narrow: bool, upload: bool) -> None:
    """A path of 1300 bytes is unknown to both ends: the sender has to hear of it by ICMP."""
    size = 5_000_000
    there = router.narrow() if narrow else router.RIGHT
    if upload:
        server = router.right("serve_receive", port=port)
        server.heard("ready")
        client = router.linux("send", host=there, port=port, size=size, seed=1)
    else:
        server = router.right("serve_send", port=port, size=size, seed=1)
        server.heard("ready")
        client = router.linux("receive", host=there, port=port)
    sent, got = (client, server) if upload else (server, client)
    assert sent.result(60)["sha256"] == got.result(60)["sha256"]


def test_tcp_without_path_mtu_discovery_goes_through(router: Router, port: int) -> None:
    """Its segments may be fragmented, and super-segments of them are."""
    switch = [*router.peer, "sysctl", "-q", "-w"]
    subprocess.run([*switch, "net.ipv4.ip_no_pmtu_disc=1"], check=True)
    try:
        server = router.right("serve_receive", port=port)
        server.heard("ready")
        client = router.linux("send", host=router.narrow(), port=port, size=1_000_000, seed=2)
        assert client.result(60)["sha256"] == server.result(60)["sha256"]
    finally:
        subprocess.run([*switch, "net.ipv4.ip_no_pmtu_disc=0"], check=True)


def test_many_connections_go_through(router: Router, port: int) -> None:
    server = router.right("serve_many", port=port, count=50)
    server.heard("ready")
    client = router.linux("connect_many", host=router.RIGHT, port=port, count=50)
    assert client.result(60) == {"right": 50}
    assert server.result(60) == {"ends": 50}


def test_datagrams_and_fragments_go_through(router: Router, port: int) -> None:
    sizes = [0, 1, 1472, 1473, 5000, 40_000, 65_507]
    server = router.right("serve_datagrams", port=port, count=len(sizes))
    server.heard("ready")
    client = router.linux("datagrams", host=router.RIGHT, port=port, sizes=sizes)
    assert client.result(60) == {"right": sizes}


def test_fragments_are_cut_again_for_a_narrow_path(router: Router, port: int) -> None:
    sizes = [1272, 1273, 1400, 1472, 3000, 9000]
    there = router.narrow()
    server = router.right("serve_datagrams", port=port, count=len(sizes), own=there)
    server.heard("ready")
    client = router.linux("datagrams", host=there, port=port, sizes=sizes, pmtudisc=PMTUDISC_DONT)
    assert client.result(60) == {"right": sizes}
    assert server.result(60) == {"sizes": sizes}


def test_curl_fetches_through_us(router: Router, port: int, need: Need, tmp_path: Path) -> None:
    need("curl")
    body = bytes(range(256)) * 4096
    (tmp_path / "page").write_bytes(body)
    server = router.right("serve_files", port=port, directory=str(tmp_path))
    server.heard("ready")
    url = f"http://{router.RIGHT}:{port}/page"
    done = router.tool("curl", "-sS", "--max-time", "50", "-o", str(tmp_path / "got"), url)
    assert done.returncode == 0, done.stderr
    got = (tmp_path / "got").read_bytes()
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(body).hexdigest()
    server.go_on()


# ---- what is not, and who is told ------------------------------------------------------------


def test_a_ttl_of_one_ends_at_the_router(router: Router) -> None:
    done = router.tool("ping", "-c", "1", "-t", "1", "-W", "20", router.RIGHT)
    assert f"From {router.NEAR} icmp_seq=1 Time to live exceeded" in done.stdout
    assert "0 received" in done.stdout


@pytest.mark.parametrize("by", ["-U", "-I", "-T"], ids=["udp", "icmp", "tcp"])
def test_traceroute_shows_the_router_and_the_host(router: Router, need: Need, by: str) -> None:
    need("traceroute")
    done = router.tool("traceroute", "-n", by, "-q", "1", "-N", "1", "-w", "20", router.RIGHT)
    hops = re.findall(r"^ *(\d+)  ([\d.]+) ", done.stdout, re.MULTILINE)
    assert hops == [("1", router.NEAR), ("2", router.RIGHT)], done.stdout


def test_too_long_and_not_to_be_fragmented(router: Router) -> None:
    done = router.tool("ping", "-c", "1", "-M", "do", "-s", "1300", "-W", "20", router.narrow())
    assert f"From {router.NEAR} icmp_seq=1 Frag needed and DF set (mtu = 1300)" in done.stdout


def test_a_socket_learns_the_path_mtu(router: Router, port: int) -> None:
    end = router.linux("path_mtu", host=router.narrow(), port=port, size=1400, pmtudisc=PMTUDISC_DO)
    told = end.result()
    assert (told["outcome"], told["after"]) == ("EMSGSIZE", 1300)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("192.0.2.9", "Destination Net Unreachable"),
        ("10.82.0.77", "Destination Host Unreachable"),
        ("198.51.100.9", "Packet filtered"),
    ],
    ids=["no route", "no neighbour", "forbidden"],
)
def test_nowhere_to_go(router: Router, where: str, said: str) -> None:
    done = router.tool("ping", "-c", "1", "-W", "20", where)
    assert f"From {router.NEAR} icmp_seq=1 {said}" in done.stdout, done.stdout


def test_a_redirect_names_the_nearer_gateway(router: Router) -> None:
    for seconds, there in (("1", "203.0.113.5"), ("20", "203.0.113.6")):
        said = router.tool("ping", "-c", "1", "-W", seconds, there).stdout
        if "Redirect" in said:
            break
    assert re.search(rf"From {router.NEAR}:? icmp_seq=1 Redirect Host", said), said
    assert "10.81.0.3" in said


def test_a_closed_port_behind_the_router_refuses(router: Router, port: int) -> None:
    end = router.linux("connect_outcome", host=router.RIGHT, port=port, timeout=None)
    assert end.result() == {"outcome": "ECONNREFUSED"}


def test_the_routers_far_address_is_its_own(router: Router, port: int) -> None:
    server = router.ours("serve_receive", port=port)
    server.heard("ready")
    client = router.linux("send", host=router.FAR, port=port, size=300_000, seed=3)
    assert client.result()["sha256"] == server.result()["sha256"]


# ---- our router alone ------------------------------------------------------------------------


def test_what_is_passed_on_is_counted(our_router: OurRouter) -> None:
    before = counters(our_router)
    for _ in range(5):
        done = our_router.tool("ping", "-c", "1", "-W", "20", our_router.RIGHT)
        assert "1 received" in done.stdout
    our_router.tool("ping", "-c", "1", "-t", "1", "-W", "20", our_router.RIGHT)
    after = counters(our_router)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["IpForwDatagrams"] == 10
    assert grown["IpInHdrErrors"] == grown["IcmpOutTimeExcds"] == 1
    assert grown.get("IpInDelivers", 0) == 0


def test_forwarding_is_switched_at_run_time(our_router: OurRouter) -> None:
    ask = ("ping", "-c", "1", "-W", "1", our_router.RIGHT)
    try:
        ctl_call(our_router.run, "ip", "sysctl_set", ("net.ipv4.ip_forward", 0), 60)
        assert "0 received" in our_router.tool(*ask).stdout
    finally:
        ctl_call(our_router.run, "ip", "sysctl_set", ("net.ipv4.ip_forward", 1), 60)
    assert "1 received" in our_router.tool(*ask[:3], "-W", "20", our_router.RIGHT).stdout
