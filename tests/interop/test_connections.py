# SPDX-License-Identifier: MIT
"""Many connections: at once, and one after the other; and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab

pytestmark = pytest.mark.lab

Poll = Callable[[Callable[[], bool], float, str], None]

GROWTH = 1024
"""KiB that a process may grow by in 10,000 connections: 100 bytes each, less than any object
that were kept for a connection"""


def test_linux_opens_100_connections_at_once(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_many", port=port, count=100)
    ours.heard("ready")
    linux = cable.linux("connect_many", host=cable.address, port=port, count=100)
    assert ours.heard("accepted") == 100
    assert linux.result() == {"right": 100}
    assert ours.result() == {"ends": 100}


def test_we_open_100_connections_at_once(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_many", port=port, count=100)
    linux.heard("ready")
    ours = cable.ours("connect_many", host=cable.peer_address, port=port, count=100)
    assert linux.heard("accepted") == 100
    assert ours.result() == {"right": 100}
    assert linux.result() == {"ends": 100}


def _short(lab: Cable, port: int, count: int) -> None:
    linux = lab.linux("short_connections", host=lab.address, port=port, count=count)
    assert linux.result(180) == {"right": count}


@pytest.mark.slow
def test_a_listener_survives_10000_short_connections(lab: Lab, port: int, poll: Poll) -> None:
    poll(lab.empty, 60, "nothing is left of earlier tests")
    lab.serve("echo", port)
    _short(lab, port, 3000)
    before = lab.memory()
    _short(lab, port, 10_000)
    after = lab.memory()
    grown = {name: after[name] - before[name] for name in after}
    assert max(grown.values()) <= GROWTH, f"grown by KiB: {grown}"
    lab.ends.close()
    poll(lab.empty, 60, "no sockets, nothing in the pool, once the server has gone")


@pytest.mark.slow
def test_we_open_3000_short_connections(lab: Lab, port: int, poll: Poll) -> None:
    # Our end closes first, so that each stays in TIME_WAIT with us.
    linux = lab.linux("serve_short_connections", port=port, count=3000)
    linux.heard("ready")
    ours = lab.ours("short_connections", host=lab.peer_address, port=port, count=3000)
    assert ours.result(180) == {"right": 3000}
    assert linux.result(60) == {"right": 3000}
    poll(lab.empty, 60, "no sockets, nothing in the pool, once the client has gone")
    assert lab.layer_status("tcp")["core"]["timewait"] > 0
