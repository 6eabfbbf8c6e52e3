# SPDX-License-Identifier: MIT
"""Half closes, resets, refusals, time-outs: the same ends alike on our stack and on Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = pytest.mark.lab


def test_linux_closes_its_half_first(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_half_close", port=port)
    ours.heard("ready")
    linux = cable.linux("half_close", host=cable.address, port=port)
    asked, answered = linux.result(), ours.result()
    assert (answered["size"], answered["sha256"]) == (100_000, asked["sent"])
    assert (asked["size"], asked["sha256"]) == (200_000, answered["sent"])


def test_we_close_our_half_first(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_half_close", port=port)
    linux.heard("ready")
    ours = cable.ours("half_close", host=cable.peer_address, port=port)
    asked, answered = ours.result(), linux.result()
    assert (answered["size"], answered["sha256"]) == (100_000, asked["sent"])
    assert (asked["size"], asked["sha256"]) == (200_000, answered["sent"])
    assert asked["send_after_shutdown"] == "EPIPE"


def test_we_reset(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_reset", port=port)
    ours.heard("ready")
    linux = cable.linux("be_reset", host=cable.address, port=port)
    assert ours.result() == {"got": "hello"}
    assert linux.result() == {"read": "ConnectionResetError", "write": "BrokenPipeError"}


def test_linux_resets(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_reset", port=port)
    linux.heard("ready")
    ours = cable.ours("be_reset", host=cable.peer_address, port=port)
    assert linux.result() == {"got": "hello"}
    assert ours.result() == {"read": "ConnectionResetError", "write": "BrokenPipeError"}


def test_we_connect_and_reset(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_be_reset", port=port)
    linux.heard("ready")
    ours = cable.ours("reset", host=cable.peer_address, port=port)
    assert linux.heard("got") == "hello"
    ours.go_on()
    assert linux.result()["read"] == "ConnectionResetError"


def test_linux_connects_and_resets(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_be_reset", port=port)
    ours.heard("ready")
    linux = cable.linux("reset", host=cable.address, port=port)
    assert ours.heard("got") == "hello"
    linux.go_on()
    assert ours.result()["read"] == "ConnectionResetError"


def test_a_close_with_unread_data_resets(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_answer_then_read", port=port)
    linux.heard("ready")
    ours = cable.ours("close_unread", host=cable.peer_address, port=port)
    assert ours.result() == {"peeked": 1}
    assert linux.result()["read"] == "ConnectionResetError"


def test_our_connect_is_refused(cable: Cable, port: int) -> None:
    ours = cable.ours("connect_outcome", host=cable.peer_address, port=port, timeout=None)
    assert ours.result() == {"outcome": "ECONNREFUSED"}


def test_the_connect_of_linux_is_refused(cable: Cable, port: int) -> None:
    linux = cable.linux("connect_outcome", host=cable.address, port=port, timeout=None)
    assert linux.result() == {"outcome": "ECONNREFUSED"}


def test_our_connect_to_nobody_times_out(cable: Cable, port: int) -> None:
    ours = cable.ours("connect_outcome", host="10.77.0.99", port=port, timeout=0.3)
    assert ours.result() == {"outcome": "TimeoutError"}


def test_our_connect_to_nobody_ends_with_no_route(cable: Cable, port: int) -> None:
    # ARP asks three times, a second apart; then the host is unreachable (RFC 1122 2.3.2.2).
    ours = cable.ours("connect_outcome", host="10.77.0.98", port=port, timeout=None)
    assert ours.result() == {"outcome": "EHOSTUNREACH"}
