# SPDX-License-Identifier: MIT
"""64 MiB each way against the Linux kernel, on a clean and on a rough cable: every byte right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab

pytestmark = pytest.mark.lab

SIZE = 64 << 20
SECONDS = 240.0
"""a limit against hanging, not a measure: the rough cable retransmits one packet in twenty"""


@pytest.mark.slow
def test_linux_sends_64_mib_to_us(any_lab: Lab, port: int) -> None:
    ours = any_lab.ours("serve_receive", port=port)
    ours.heard("ready")
    linux = any_lab.linux("send", host=any_lab.address, port=port, size=SIZE, seed=1)
    sent = linux.result(SECONDS)
    received = ours.result(SECONDS)
    assert received["size"] == SIZE
    assert received["sha256"] == sent["sha256"]
    assert sent["rest"] == 0


@pytest.mark.slow
def test_we_send_64_mib_to_linux(any_lab: Lab, port: int) -> None:
    linux = any_lab.linux("serve_receive", port=port)
    linux.heard("ready")
    ours = any_lab.ours("send", host=any_lab.peer_address, port=port, size=SIZE, seed=2)
    sent = ours.result(SECONDS)
    received = linux.result(SECONDS)
    assert received["size"] == SIZE
    assert received["sha256"] == sent["sha256"]
    assert sent["rest"] == 0


@pytest.mark.slow
def test_our_server_sends_64_mib(lab: Lab, port: int) -> None:
    ours = lab.ours("serve_send", port=port, size=SIZE, seed=3)
    ours.heard("ready")
    linux = lab.linux("receive", host=lab.address, port=port)
    received = linux.result(SECONDS)
    sent = ours.result(SECONDS)
    assert received == {"size": SIZE, "sha256": sent["sha256"]}


def test_both_ways_at_once(cable: Cable, port: int) -> None:
    size = 8 << 20
    ours = cable.ours("serve_both_ways", port=port, size=size, seed=4)
    ours.heard("ready")
    linux = cable.linux("connect_both_ways", host=cable.address, port=port, size=size, seed=5)
    there = linux.result(SECONDS)
    here = ours.result(SECONDS)
    assert (here["size"], there["size"]) == (size, size)
    assert here["received"] == there["sent"]
    assert there["received"] == here["sent"]
