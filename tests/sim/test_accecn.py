# SPDX-License-Identifier: MIT
"""Accurate ECN over a link whose queue marks: sender and receiver agree on the number of marks."""

from typing import Any

import pytest

from skbus.core.net import MSEC, SEC
from skbus.testing import Future, World

PORT = 5001


def through(client_ecn: int, server_ecn: int, loss: float = 0) -> tuple[int, Any, Any, Any]:
    """A bulk transfer of 3 s over 2 Mbit/s and 5 ms; what has more than 8 frames before it is
    marked. (bytes delivered, sender, receiver, link)"""
    with World(9) as world:
        name = "net.ipv4.tcp_ecn"
        a = world.host("a", "10.0.0.1/24", sysctl={name: client_ecn})
        b = world.host("b", "10.0.0.2/24", sysctl={name: server_ecn})
        link = world.link(a, b, rate=2_000_000, delay=5 * MSEC, mark=8, limit=100, loss=loss)
        got = [0]
        ready: Future[None] = Future()

        async def server() -> None:
            listener = await b.listen(PORT)
            ready.set(None)
            peer, _ = await listener.accept()
            while data := await peer.recv(1 << 20):
                got[0] += len(data)

        async def client() -> None:
            await ready
            sock = await a.connect("10.0.0.2", PORT)
            while True:
                await sock.send(bytes(1 << 16))

        world.start(server())
        world.start(client())
        world.advance(3 * SEC)
        (tp,) = (tp for tp in a.net("tcp").socks.values() if tp.dport == PORT)
        (peer,) = (tp for tp in b.net("tcp").socks.values() if tp.sport == PORT and tp.dport)
        world.check_conservation()
        return got[0], tp, peer, link


def test_both_ends_count_the_same_marks_and_the_queue_stays_short() -> None:
    delivered, tp, peer, _ = through(3, 3)
    assert tp.accecn is not None
    received = peer.accecn.received_ce
    assert received > 10
    assert 0 <= received - tp.delivered_ce <= 8, "but for what is on its way"
    assert delivered * 8 / 3 >= 0.8 * 2_000_000
    unmarked, deaf, *_ = through(0, 0)
    assert deaf.srtt_us > 1.5 * tp.srtt_us
    assert delivered >= 0.9 * unmarked


def test_lost_acks_and_data_lose_no_mark() -> None:
    _, tp, peer, _ = through(3, 3, loss=0.02)
    assert peer.accecn.received_ce > 0
    # a mark on what is sent twice, or an ACK for many, may be told late, and a wrap be assumed
    assert abs(peer.accecn.received_ce - tp.delivered_ce) <= 8
    assert tp.total_retrans > 0


@pytest.mark.parametrize(("client", "server"), [(3, 2), (4, 5), (1, 3)])
def test_the_older_one_where_one_end_has_no_more(client: int, server: int) -> None:
    delivered, tp, peer, _ = through(client, server)
    assert (tp.accecn, peer.accecn) == (None, None)
    assert tp.ecn_flags & 1
    assert tp.delivered_ce > 0
    assert delivered * 8 / 3 >= 0.8 * 2_000_000
