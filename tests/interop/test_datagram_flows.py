# SPDX-License-Identifier: MIT
"""Many small datagrams: read ahead and posted, none is lost, changed or out of order; and what
others than the reader may see of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_datagrams")]

COUNT = 10_000


def test_we_receive_a_flow(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_numbered", port=port, count=COUNT)
    ours.heard("ready")
    linux = cable.linux("send_numbered", host=cable.address, port=port, count=COUNT)
    assert ours.result(120) == {"received": COUNT, "wrong": -1}
    assert linux.result(60) == {"sent": COUNT, "acked": COUNT}


def test_we_send_a_flow(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_numbered", port=port, count=COUNT)
    linux.heard("ready")
    ours = cable.ours("send_numbered", host=cable.peer_address, port=port, count=COUNT)
    assert linux.result(120) == {"received": COUNT, "wrong": -1}
    assert ours.result(60) == {"sent": COUNT, "acked": COUNT}


@pytest.mark.parametrize("close", [False, True])
def test_who_sends_and_ends_loses_nothing(cable: Cable, port: int, close: bool) -> None:
    linux = cable.linux("serve_numbered", port=port, count=60)
    linux.heard("ready")
    ours = cable.ours("send_and_exit", host=cable.peer_address, port=port, count=60, close=close)
    assert ours.result(60) == {"sent": 60}
    assert linux.result(60) == {"received": 60, "wrong": -1}


@pytest.mark.parametrize("under_test", ["ours", "linux"])
def test_select_shows_what_was_read_ahead(cable: Cable, port: int, under_test: str) -> None:
    """The same on both stacks, with datagrams that do not fit."""
    if under_test == "ours":
        reader = cable.ours("serve_with_select", port=port, count=20)
        other, where = cable.linux, cable.address
    else:
        reader = cable.linux("serve_with_select", port=port, count=20)
        other, where = cable.ours, cable.peer_address
    reader.heard("ready")
    sender = other("send_and_exit", host=where, port=port, count=20, close=True)
    assert sender.result(60) == {"sent": 20}
    reader.go_on()
    found = reader.result(60)
    shown = [[i, True] for i in range(10, 20)]
    assert found == {"plain": list(range(10)), "shown": shown}


def test_a_closed_port_is_told_by_the_next_call(cable: Cable, port: int) -> None:
    refused = ["ConnectionRefusedError", "ConnectionRefusedError"]
    ours = cable.ours("send_refused", host=cable.peer_address, port=port)
    assert ours.result(60) == refused
    linux = cable.linux("send_refused", host=cable.address, port=port)
    assert linux.result(60) == refused
