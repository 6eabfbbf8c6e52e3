# SPDX-License-Identifier: MIT
"""The end of a write that fills no segment waits for the next one, while enough is under way."""

from collections.abc import Iterator

import pytest

from skbus.core import uapi
from skbusd.tcp.const import MSG_EOR, MSG_OOB
from skbusd.tcp.tcp_autocork import TCP_AUTOCORK_MAX
from skbusd.tcp.tcp_window import tcp_xmit_size_goal
from skbustest.tcphost import ACK, Conn, TcpHost

MSS = 1460
GOAL = 44 * MSS
"""A full super-segment."""
BIG = 2 * GOAL
"""More than 64 KB: enough for the rest to wait behind."""


@pytest.fixture
def conn(host: TcpHost) -> Iterator[Conn]:
    """A peer with a window of 280 KB; two full super-segments are under way."""
    conn = Conn(host, win=2200)
    conn.tp.snd_cwnd = 1000
    conn.rcv(ACK)
    conn.send(BIG)
    assert sum(size for _, _, size, _ in conn.sent()) == BIG
    assert tcp_xmit_size_goal(conn.tp, MSS) == GOAL
    yield conn
    host.check()


def lengths(conn: Conn) -> list[int]:
    return [size for _, _, size, _ in conn.sent() if size]


def test_the_end_of_a_write_waits_for_the_next_one(host: TcpHost, conn: Conn) -> None:
    conn.send(5000)
    assert lengths(conn) == []
    assert conn.mib("TcpExtTCPAutoCorking") == 1
    conn.send(GOAL - 5000)
    assert sum(lengths(conn)) == GOAL
    conn.send(5000)
    conn.rcv(ACK, ack=GOAL)  # which leaves enough under way
    assert lengths(conn) == []


def test_acks_release_it(host: TcpHost, conn: Conn) -> None:
    conn.send(5000)
    assert lengths(conn) == []
    conn.rcv(ACK, ack=BIG - 2 * MSS)
    assert sum(lengths(conn)) == 5000
    conn.send(5000)  # too little is under way: Nagle alone decides
    assert sum(lengths(conn)) >= 3 * MSS


def test_it_waits_for_some_milliseconds_at_most(host: TcpHost, conn: Conn) -> None:
    conn.send(5000)
    host.run_for(0.6 * TCP_AUTOCORK_MAX / 1e9)
    assert lengths(conn) == []
    host.run_for(0.6 * TCP_AUTOCORK_MAX / 1e9)
    assert sum(lengths(conn)) >= 3 * MSS  # Nagle may keep the part of a segment
    assert not host.net.autocorked


def test_small_writes_do_not_make_it_wait_for_longer(host: TcpHost, conn: Conn) -> None:
    for _ in range(4):
        conn.send(5000)
        host.run_for(0.3 * TCP_AUTOCORK_MAX / 1e9)
    assert sum(lengths(conn)) >= 15000 - MSS


def test_each_socket_waits_for_its_own_time(host: TcpHost, conn: Conn) -> None:
    other = Conn(host, win=2200, rport=5001)
    other.tp.snd_cwnd = 1000
    other.rcv(ACK)
    other.send(BIG)
    other.sent()
    conn.send(5000)
    host.run_for(0.6 * TCP_AUTOCORK_MAX / 1e9)
    other.send(5000)
    host.run_for(0.6 * TCP_AUTOCORK_MAX / 1e9)
    assert list(host.net.autocorked) == [other.tp]
    host.run_for(0.6 * TCP_AUTOCORK_MAX / 1e9)
    assert not host.net.autocorked
    assert not host.net.autocork_timer or not host.net.autocork_timer.pending()


@pytest.mark.parametrize("flags", [MSG_EOR, MSG_OOB])
def test_what_ends_or_hurries_does_not_wait(host: TcpHost, conn: Conn, flags: int) -> None:
    conn.send(5000, flags)
    assert sum(lengths(conn)) >= 3 * MSS


def test_a_socket_that_wants_no_delay_has_none(host: TcpHost, conn: Conn) -> None:
    assert host.setsockopt(conn.sk, uapi.SOL_TCP, uapi.TCP_NODELAY, 1) == 0
    conn.send(5000)
    assert sum(lengths(conn)) == 5000


def test_nor_where_corking_is_off(host: TcpHost, conn: Conn) -> None:
    host.net.sysctl.set("net.ipv4.tcp_autocorking", "0")
    conn.send(5000)
    assert sum(lengths(conn)) >= 3 * MSS


def test_closing_sends_it(host: TcpHost, conn: Conn) -> None:
    conn.send(5000)
    host.shutdown(conn.sk)
    assert sum(lengths(conn)) == 5000
    host.run_for(2 * TCP_AUTOCORK_MAX / 1e9)
    assert not host.net.autocorked


def test_a_socket_that_ends_meanwhile_is_forgotten(host: TcpHost, conn: Conn) -> None:
    conn.send(5000)
    assert host.disconnect(conn.sk) == 0
    conn.host.sent()
    host.run_for(2 * TCP_AUTOCORK_MAX / 1e9)
    assert not host.net.autocorked
    assert not host.sent()


def test_little_under_way_lets_all_go(host: TcpHost) -> None:
    conn = Conn(host, win=2200)
    conn.rcv(ACK)
    conn.send(4 * MSS)
    conn.sent()
    conn.send(5000)
    assert sum(lengths(conn)) >= 3 * MSS
