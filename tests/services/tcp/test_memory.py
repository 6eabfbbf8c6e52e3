# SPDX-License-Identifier: MIT
"""Memory accounting: what is charged, pressure, pruning, orphans."""

from typing import Any

import pytest

from skbus.core.abi import SkWriteSpace
from skbusd.tcp.tcp_memory import (
    SK_MEM_QUANTUM,
    SK_RECLAIM_THRESHOLD,
    SOCK_MIN_SNDBUF,
    sk_mem_used,
)
from skbustest.tcphost import ACK, PSH, Conn, TcpHost

MSS = 1460


def small(low: int, pressure: int, hard: int) -> TcpHost:
    return TcpHost(sysctl={"net.ipv4.tcp_mem": (low, pressure, hard)})


def charged(host: TcpHost) -> int:
    """The invariant: the sum of what is charged; each socket holds no more than that."""
    total = 0
    for tp in host.net.socks.values():
        assert tp.rmem_charged >= tp.rmem_alloc + tp.ofo_bytes
        assert not tp.rmem_charged % SK_MEM_QUANTUM
        assert not tp.wmem_charged % SK_MEM_QUANTUM
        total += tp.rmem_charged + tp.wmem_charged
    assert host.net.tcp_memory_allocated * SK_MEM_QUANTUM == total
    return total


def status(host: TcpHost) -> Any:
    return host.core.status()["memory"]


def test_what_is_held_is_charged_and_given_back(host: TcpHost) -> None:
    conn = Conn(host)
    assert charged(host) == 0
    for n in range(10):
        conn.rcv(ACK | PSH, n * MSS, 0, b"x" * MSS)
    conn.rcv(ACK, 20 * MSS, 0, b"y" * MSS)
    conn.send(50_000)
    assert charged(host) >= sk_mem_used(conn.tp) == 11 * MSS + 50_000
    assert status(host)["pages"] == host.net.tcp_memory_allocated
    host.recvmsg(conn.sk, 10 * MSS)
    conn.rcv(ACK, 10 * MSS, 10_000)
    charged(host)
    host.close(conn.sk, unread=1)
    assert charged(host) == 0
    assert host.net.tcp_memory_allocated == 0


def test_what_is_not_used_goes_back(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_rmem", "4096 4000000 6291456")
    conn = Conn(host, mss=65000)
    size = 60_000
    for n in range(6):
        conn.rcv(ACK | PSH, n * size, 0, b"x" * size)
    assert charged(host) >= 6 * size > SK_RECLAIM_THRESHOLD
    host.recvmsg(conn.sk, 6 * size)
    assert charged(host) < SK_MEM_QUANTUM


def test_pressure_begins_and_ends() -> None:
    host = small(4, 8, 1000)
    conn = Conn(host)
    host.net.tracing = True
    for n in range(24):
        conn.rcv(ACK | PSH, n * MSS, 0, b"x" * MSS)
    assert host.net.tcp_memory_pressure
    assert status(host)["pressure"]
    assert conn.mib("TcpExtTCPMemoryPressures") == 1
    host.net.now += 5_000_000
    before = conn.tp.rcv_ssthresh
    conn.rcv(ACK | PSH, 24 * MSS, 0, b"x" * MSS)
    assert conn.tp.rcv_ssthresh <= before  # the window does not grow
    host.recvmsg(conn.sk, 25 * MSS)
    assert not host.net.tcp_memory_pressure
    assert conn.mib("TcpExtTCPMemoryPressuresChrono") == 5
    charged(host)


def test_beyond_the_limit_data_is_dropped_but_for_who_has_none() -> None:
    host = small(4, 8, 12)  # 48 KB
    full, empty = Conn(host, rport=5000), Conn(host, rport=5001)
    seq = 0
    while not full.mib("TcpExtTCPRcvQDrop"):
        full.rcv(ACK | PSH, seq, 0, b"x" * MSS)
        seq += MSS
        assert seq < 20 * SK_MEM_QUANTUM
    assert full.tp.rmem_alloc == seq - MSS  # what was dropped was not acknowledged
    assert host.dropped("PROTO_MEM") == 1
    assert full.mib("TcpExtPruneCalled") >= 1
    assert full.mib("TcpExtRcvPruned") == 1
    empty.rcv(ACK | PSH, 0, 0, b"y" * MSS)
    assert empty.tp.rmem_alloc == MSS
    host.delivered()
    host.recvmsg(full.sk, seq - MSS)
    full.rcv(ACK | PSH, seq - MSS, 0, b"x" * MSS)  # sent again
    assert full.tp.rmem_alloc == MSS
    charged(host)


def test_out_of_order_data_is_pruned_first() -> None:
    host = small(4, 8, 12)
    conn = Conn(host)
    conn.rcv(ACK | PSH, 0, 0, b"x" * MSS)
    at = 2 * MSS
    while not host.dropped("PROTO_MEM") and not host.dropped("TCP_OFO_QUEUE_PRUNE"):
        conn.rcv(ACK, at, 0, b"o" * MSS)
        at += MSS
        assert at < 30 * SK_MEM_QUANTUM
    for n in range(1, 40):
        conn.rcv(ACK | PSH, n * MSS, 0, b"x" * MSS)
    assert host.dropped("TCP_OFO_QUEUE_PRUNE") > 0
    assert conn.mib("TcpExtOfoPruned") > 0
    assert charged(host) <= 13 * SK_MEM_QUANTUM


def test_a_sender_s_buffer_shrinks() -> None:
    host = small(4, 8, 12)
    conn = Conn(host)
    conn.send(40_000)
    host.events()
    conn.send(60_000)
    assert charged(host) >= 100_000  # it has been accepted already
    told = [e for e in host.events() if isinstance(e, SkWriteSpace)]
    assert told
    assert told[-1].sndbuf < 0
    assert SOCK_MIN_SNDBUF <= -told[-1].sndbuf <= 50_000


@pytest.mark.parametrize("hard", [12, 1_000_000])
def test_an_orphan_goes_where_memory_is_short(hard: int) -> None:
    host = small(4, 8, hard)
    conn = Conn(host)
    conn.send(100_000)
    conn.sent()
    host.close(conn.sk)
    gone = hard == 12
    assert conn.mib("TcpExtTCPAbortOnMemory") == gone
    assert any("R" in flags for flags, _, _, _ in conn.sent()) == gone
    assert (conn.sk in host.net.socks) != gone
    charged(host)


def test_an_orphan_that_does_not_get_on_goes_at_its_timeout() -> None:
    host = small(4, 8, 1_000_000)
    conn = Conn(host)
    conn.send(100_000)
    host.close(conn.sk)
    host.net.sysctl.set("net.ipv4.tcp_mem", (4, 8, 12))
    conn.sent()
    host.run_for(10)
    assert conn.mib("TcpExtTCPAbortOnMemory") == 1
    assert any("R" in flags for flags, _, _, _ in conn.sent())
    assert host.net.tcp_memory_allocated == 0
