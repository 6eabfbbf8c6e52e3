# SPDX-License-Identifier: MIT
"""Control messages, error queues and urgent data between our sockets and Linux's, both ways round,
and between Linux's alone."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_msg")]


@pytest.fixture(params=["ours", "linux"])
def pair(request: pytest.FixtureRequest, cable: Cable) -> Any:
    """(this end, its address, the other end, its address), both ways round."""
    here = (cable.ours, cable.address, cable.linux, cable.peer_address)
    there = (cable.linux, cable.peer_address, cable.ours, cable.address)
    return here if request.param == "ours" else there


def test_a_datagram_and_what_came_with_it(pair: Any) -> None:
    here, own, there, host = pair
    receiver = there("receive", port=5301)
    receiver.heard("ready")
    assert here("send", host=host, port=5301).result() == 8
    daddr = socket.inet_aton(host).hex()
    assert receiver.result() == [
        "with all",
        {
            "1": "28",  # IP_TOS
            "2": "21000000",  # IP_TTL
            "6": "070708" + socket.inet_aton(own).hex() + "00",  # IP_RECVOPTS
            "8": daddr + daddr,  # IP_PKTINFO
        },
        0,
    ]


def test_the_error_queue(pair: Any) -> None:
    here, _, _, host = pair
    assert here("errors", host=host, port=5399).result() == [
        "anybody?", 0, 11, socket.MSG_ERRQUEUE, [host, 5399], errno.ECONNREFUSED, 2, 3, 3, host, 0,
    ]  # fmt: skip


def test_an_urgent_byte(pair: Any) -> None:
    here, _, there, host = pair
    server = there("urgent_serve", port=5302)
    server.heard("ready")
    client = here("urgent_send", host=host, port=5302)
    assert server.result() == ["one", "!", "two"]
    assert client.result() == [3, 1, 3]
