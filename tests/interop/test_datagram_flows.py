# SPDX-License-Identifier: MIT
"""Many small datagrams: read ahead and posted, none is lost, changed or out of order; and what
others than the reader may see of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = pytest.mark.lab

COUNT = 10_000


@pytest.fixture
def ends(cable: Cable) -> Iterator[Cable]:
    """The ends are those of `endpoints_datagrams.py`."""
    before = cable.script
    cable.script = "endpoints_datagrams.py"
    try:
        yield cable
    finally:
        cable.script = before


def test_we_receive_a_flow(ends: Cable, port: int) -> None:
    ours = ends.ours("serve_numbered", port=port, count=COUNT)
    ours.heard("ready")
    linux = ends.linux("send_numbered", host=ends.address, port=port, count=COUNT)
    assert ours.result(120) == {"received": COUNT, "wrong": -1}
    assert linux.result(60) == {"sent": COUNT, "acked": COUNT}


def test_we_send_a_flow(ends: Cable, port: int) -> None:
    linux = ends.linux("serve_numbered", port=port, count=COUNT)
    linux.heard("ready")
    ours = ends.ours("send_numbered", host=ends.peer_address, port=port, count=COUNT)
    assert linux.result(120) == {"received": COUNT, "wrong": -1}
    assert ours.result(60) == {"sent": COUNT, "acked": COUNT}


@pytest.mark.parametrize("close", [False, True])
def test_who_sends_and_ends_loses_nothing(ends: Cable, port: int, close: bool) -> None:
    linux = ends.linux("serve_numbered", port=port, count=60)
    linux.heard("ready")
    ours = ends.ours("send_and_exit", host=ends.peer_address, port=port, count=60, close=close)
    assert ours.result(60) == {"sent": 60}
    assert linux.result(60) == {"received": 60, "wrong": -1}


@pytest.mark.parametrize("under_test", ["ours", "linux"])
def test_select_shows_what_was_read_ahead(ends: Cable, port: int, under_test: str) -> None:
    """The same on both stacks, with datagrams that do not fit."""
    if under_test == "ours":
        reader = ends.ours("serve_with_select", port=port, count=20)
        other, where = ends.linux, ends.address
    else:
        reader = ends.linux("serve_with_select", port=port, count=20)
        other, where = ends.ours, ends.peer_address
    reader.heard("ready")
    sender = other("send_and_exit", host=where, port=port, count=20, close=True)
    assert sender.result(60) == {"sent": 20}
    reader.go_on()
    found = reader.result(60)
    shown = [[i, True] for i in range(10, 20)]
    assert found == {"plain": list(range(10)), "shown": shown}


def test_a_closed_port_is_told_by_the_next_call(ends: Cable, port: int) -> None:
    refused = ["ConnectionRefusedError", "ConnectionRefusedError"]
    ours = ends.ours("send_refused", host=ends.peer_address, port=port)
    assert ours.result(60) == refused
    linux = ends.linux("send_refused", host=ends.address, port=port)
    assert linux.result(60) == refused
