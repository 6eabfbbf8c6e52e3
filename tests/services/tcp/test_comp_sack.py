# SPDX-License-Identifier: MIT
"""ACKs of out-of-order data are compressed (`tcp_comp_sack_nr`, `tcp_comp_sack_delay_ns`)."""

import pytest

from skbustest.tcphost import ACK, Conn, TcpHost

MSS = 1460


@pytest.fixture
def conn(host: TcpHost) -> Conn:
    """A receiver with an RTT of 100 ms and a hole in front of what comes."""
    conn = Conn(host)
    conn.rcv(ACK, 0, 0, bytes(MSS))
    host.run_for(0.1)
    conn.sent()
    conn.tp.rcv_rtt_us = 800_000
    conn.tp.ack_quick = 0
    return conn


def beyond(conn: Conn, first: int, count: int) -> int:
    """Segments beyond the hole; returns how many ACKs they caused."""
    for i in range(first, first + count):
        conn.rcv(ACK, (2 + i) * MSS, 0, bytes(MSS))
    return len(conn.sent())


def test_three_go_at_once_and_of_the_others_several_make_one(conn: Conn) -> None:
    host = conn.host
    assert beyond(conn, 0, 3) == 3
    assert beyond(conn, 3, 5) == 0
    assert conn.tp.compressed_ack == 5
    host.run_for(0.0009)
    assert conn.sent() == []
    host.run_for(0.0005)
    (ack,) = host.sent()
    assert [(b - a) & 0xFFFFFFFF for a, b in ack.opt.sacks] == [8 * MSS]
    assert conn.mib("TcpExtTCPAckCompressed") == 4


def test_the_filled_hole_is_acknowledged_at_once(conn: Conn) -> None:
    beyond(conn, 0, 6)
    conn.rcv(ACK, MSS, 0, bytes(MSS))
    assert [a for _, _, _, a in conn.sent()] == [8 * MSS]
    conn.host.run_for(0.01)
    assert conn.sent() == []


def test_no_more_than_the_sysctl_allows_are_held_back(conn: Conn) -> None:
    conn.host.net.sysctl.set("net.ipv4.tcp_comp_sack_nr", 4)
    assert beyond(conn, 0, 3) == 3
    assert beyond(conn, 3, 4) == 0
    assert beyond(conn, 7, 1) == 1
    conn.host.net.sysctl.set("net.ipv4.tcp_comp_sack_nr", 0)
    assert beyond(conn, 8, 5) == 5


def test_a_fifth_hole_tells_of_the_first(conn: Conn) -> None:
    """Four blocks fit: what falls out must have been told before."""
    beyond(conn, 0, 4)
    assert conn.tp.compressed_ack == 1
    for i in range(4):
        conn.rcv(ACK, (20 + 2 * i) * MSS, 0, bytes(MSS))
    acks = conn.host.sent()
    assert acks
    seen = {(a, b) for ack in acks for a, b in ack.opt.sacks}
    assert any((b - a) & 0xFFFFFFFF == 4 * MSS for a, b in seen)
