# SPDX-License-Identifier: MIT
"""BIG TCP: frames of up to 512 KB to an interface that takes them (`gso_ipv4_max_size`), and the
kernel at the other end, which gets them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

SIZE = 200_000_000


def test_long_frames_arrive_whole(big_lab: Lab, port: int) -> None:
    assert big_lab.layer_status("nic.eth0")["core"]["gso_max_size"] == 524280
    before = big_lab.counters("nic.eth0")
    server = big_lab.ours("serve_send", port=port, size=SIZE, seed=1)
    server.heard("ready")
    client = big_lab.linux("receive", host=big_lab.address, port=port)
    got = client.result()
    assert got["size"] == SIZE
    assert got["sha256"] == server.result()["sha256"]
    after = big_lab.counters("nic.eth0")
    frames = after["DevTxPackets"] - before["DevTxPackets"]
    assert SIZE / frames > 100_000
    assert after.get("DevTxDropped", 0) == before.get("DevTxDropped", 0)
