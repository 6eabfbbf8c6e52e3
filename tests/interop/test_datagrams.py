# SPDX-License-Identifier: MIT
"""UDP both ways: whole, in fragments, and to a port where nobody is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = pytest.mark.lab

SIZES = [1, 64, 1471, 1472, 1473, 2960, 2961, 8000, 20_000, 60_000, 65_507]
"""1,472 bytes fill a packet of 1,500; 65,507 are all that IPv4 can carry"""


def test_linux_asks_our_echo(cable: Cable, port: int) -> None:
    ours = cable.ours("serve_datagrams", port=port, count=len(SIZES))
    ours.heard("ready")
    linux = cable.linux("datagrams", host=cable.address, port=port, sizes=SIZES)
    assert linux.result(60) == {"right": SIZES}
    assert ours.result() == {"sizes": SIZES}


def test_we_ask_the_echo_of_linux(cable: Cable, port: int) -> None:
    linux = cable.linux("serve_datagrams", port=port, count=len(SIZES))
    linux.heard("ready")
    ours = cable.ours("datagrams", host=cable.peer_address, port=port, sizes=SIZES)
    assert ours.result(60) == {"right": SIZES}
    assert linux.result() == {"sizes": SIZES}


def test_linux_hears_of_our_closed_port(cable: Cable, port: int) -> None:
    linux = cable.linux("datagram_refused", host=cable.address, port=port)
    assert linux.result() == {"outcome": "ConnectionRefusedError"}


def test_we_hear_of_a_closed_port_of_linux(cable: Cable, port: int) -> None:
    ours = cable.ours("datagram_refused", host=cable.peer_address, port=port)
    assert ours.result() == {"outcome": "ConnectionRefusedError"}


@pytest.mark.parametrize("connected", [True, False])
def test_bursts_to_linux(cable: Cable, port: int, connected: bool) -> None:
    """Most are posted, and travel many in one skb; sizes, order and content are as they were."""
    arguments = {"port": port, "seed": 1 + connected, "count": 1500}
    linux = cable.linux("receive_bursts", **arguments)
    linux.heard("ready")
    ours = cable.ours("send_bursts", host=cable.peer_address, connected=connected, **arguments)
    assert linux.result(120) == {"right": 1500}
    assert ours.result(60) == {"sent": 1500}


def test_bursts_from_linux(cable: Cable, port: int) -> None:
    arguments = {"port": port, "seed": 3, "count": 1500}
    ours = cable.ours("receive_bursts", **arguments)
    ours.heard("ready")
    linux = cable.linux("send_bursts", host=cable.address, **arguments)
    assert ours.result(120) == {"right": 1500}
    assert linux.result(60) == {"sent": 1500}
