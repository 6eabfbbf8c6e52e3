# SPDX-License-Identifier: MIT
"""lock_sock and release_sock, the backlog, the prequeue: each path, its bounds and counters."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from skbus.core.abi import Recvmsg
from skbus.core.interfaces import TransportProto
from skbusd.tcp.const import MSG_MORE
from skbusd.tcp.sk_lock import (
    SENDMSG_SLICE,
    SK_OWNED,
    SK_READER,
    SKB_OVERHEAD,
    tcp_release_all,
    tcp_release_slices,
)
from skbustest.tcphost import ACK, FIN, PSH, Conn, TcpHost

pytestmark = pytest.mark.interpreted  # `batch` puts another `idle` into the core

CHUNK = 65536
SLICE_CHUNKS = SENDMSG_SLICE // CHUNK
MSS = 1460


@contextmanager
def batch(host: TcpHost) -> Iterator[None]:
    """All that happens within is one batch: the core is idle only at its end."""
    idle = host.core.idle
    host.core.idle = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        host.core.idle = idle  # type: ignore[method-assign]
        idle()


def traced(host: TcpHost) -> list[str]:
    events, host.net.trace_events = host.net.trace_events, []
    return [e[2] for e in events]


def big_send(host: TcpHost, conn: Conn, chunks: int, flags: int = 0) -> None:
    """One send(2) of so many chunks: all but the last say that more follows."""
    for n in range(chunks):
        host.send(conn.sk, bytes((n,)) * CHUNK, flags | (MSG_MORE if n < chunks - 1 else 0))


def one_pass(host: TcpHost) -> None:
    """The next batch, in which nothing comes."""
    host.net.now += 200_000
    host.net.timers.run(host.net, host.net.now)
    host.core.idle()
    host.check()


def owned(host: TcpHost) -> tuple[Conn, Conn]:
    """(a connection whose big send is put off, another)"""
    first, second = Conn(host, rport=5000), Conn(host, rport=5001)
    host.net.tracing = True
    with batch(host):
        big_send(host, first, 3 * SLICE_CHUNKS)
    assert first.tp.sk_lock & SK_OWNED
    return first, second


# ---- the owner ----------------------------------------------------------------------------


def test_a_send_of_one_chunk_never_locks(host: TcpHost) -> None:
    conn = Conn(host)
    with batch(host):
        for _ in range(4 * SLICE_CHUNKS):
            big_send(host, conn, 1)
    assert not host.net.sk_owned
    assert not conn.tp.sk_lock


def test_a_big_send_goes_on_in_the_next_batches(host: TcpHost) -> None:
    conn, other = owned(host)
    start = conn.iss + 1
    assert (conn.tp.write_seq - start) & 0xFFFFFFFF == SENDMSG_SLICE
    assert "lock_sock" in traced(host)
    assert host.core.held() == 2 * SLICE_CHUNKS
    other.send(100)  # is not behind it
    assert ("PA", 0, 100, 0) in other.sent()
    for n in (2, 3):
        one_pass(host)
        assert (conn.tp.write_seq - start) & 0xFFFFFFFF == n * SENDMSG_SLICE
        assert "release_sock" in traced(host)
    assert not host.net.sk_owned
    assert not host.core.held()


def test_requests_wait_in_their_order(host: TcpHost) -> None:
    conn, _ = owned(host)
    host.close(conn.sk)
    assert conn.tp.state == 1
    assert "__lock_sock" in traced(host)
    tcp_release_all(host.net)
    host.core.idle()
    assert (conn.tp.write_seq - conn.iss - 1) & 0xFFFFFFFF == 3 * SENDMSG_SLICE + 1  # and FIN
    assert conn.tp.dead
    assert conn.tp.state == 4  # FIN_WAIT1


def test_a_barrier_comes_behind_a_send_that_was_put_off(host: TcpHost) -> None:
    owned(host)
    assert host.core.barrier_edges() == (["socket"], ["ip"])
    assert not host.net.sk_owned


def test_timers_and_icmp_errors_wait_for_the_owner(host: TcpHost) -> None:
    conn, _ = owned(host)
    tp = conn.tp
    host.sent()
    host.icmp(3, 1, tp.snd_una, sport=80, dport=5000)
    assert conn.mib("TcpExtLockDroppedIcmps") == 1
    tp.ack_pending |= 2 | 1  # ICSK_ACK_TIMER, ICSK_ACK_SCHED
    tp.ack_timeout = host.net.now
    host.net.tcp_delack_timer(host.net, tp.number)
    assert conn.mib("TcpExtDelayedACKLocked") == 1
    host.icmp(3, 4, tp.snd_una, info=1000, sport=80, dport=5000)
    assert tp.pmtu == 1500
    assert not conn.sent()
    tcp_release_slices(host.net)
    assert tp.pmtu == 1000
    assert conn.mib("TcpExtDelayedACKs") == 1


# ---- the backlog --------------------------------------------------------------------------


def test_packets_for_an_owned_socket_wait_in_the_backlog(host: TcpHost) -> None:
    conn, _ = owned(host)
    conn.sent()
    traced(host)
    conn.rcv(ACK, 0, MSS)
    conn.rcv(ACK | PSH, 0, MSS, b"hello")
    events = traced(host)
    assert events.count("sk_add_backlog") == 2
    assert "tcp_rcv_established" not in events
    assert host.delivered() == b""
    assert not conn.tp.bytes_acked
    host.run_for(0.001)
    events = traced(host)
    assert events.index("release_sock") < events.index("tcp_rcv_established")
    assert host.delivered() == b"hello"
    assert conn.tp.bytes_acked == MSS


def test_the_backlog_is_bounded(host: TcpHost) -> None:
    conn, _ = owned(host)
    tp = conn.tp
    limit = tp.rcvbuf + tp.sndbuf
    taken = 0
    while not conn.mib("TcpExtTCPBacklogDrop"):
        conn.rcv(ACK, 0, 0, b"x" * 1000)
        taken += 1
        assert taken < 10_000
    each = 1020 + SKB_OVERHEAD
    assert (taken - 2) * each <= limit < taken * each
    assert host.dropped("SOCKET_BACKLOG") == 1
    tcp_release_all(host.net)
    assert not host.core.held()


def test_what_waits_for_a_socket_that_ends_is_dropped(host: TcpHost) -> None:
    conn, _ = owned(host)
    conn.rcv(4, 0)  # RST
    conn.rcv(ACK, 0, 0, b"late")
    tcp_release_all(host.net)
    assert host.dropped("TCP_RESET") == 1
    assert host.dropped("TCP_CLOSE") == 1 + 2 * SLICE_CHUNKS
    assert not host.core.held()


# ---- the prequeue -------------------------------------------------------------------------


def reader(host: TcpHost, **options: object) -> Conn:
    conn = Conn(host, **options)  # type: ignore[arg-type]
    host.call(TransportProto.recvmsg, Recvmsg(conn.sk, 0, True))
    assert conn.tp.sk_lock & SK_READER
    host.net.tracing = True
    return conn


def test_a_waiting_reader_s_segments_go_through_the_prequeue(host: TcpHost) -> None:
    conn = reader(host)
    with batch(host):
        conn.rcv(ACK | PSH, 0, 0, b"one")
        conn.rcv(ACK | PSH, 3, 0, b"two")
        conn.rcv(ACK, 6, 0)  # is not before the data
        assert host.delivered() == b""
        assert host.core.held() == 3
        assert traced(host).count("tcp_prequeue") == 3
    events = traced(host)
    assert events.index("tcp_prequeue_process") < events.index("tcp_rcv_established")
    assert host.delivered() == b"onetwo"
    assert conn.mib("TcpExtTCPPrequeued") == 1
    assert not conn.mib("TcpExtTCPPrequeueDropped")
    assert not host.core.held()


def test_a_pure_ack_or_low_latency_does_not_wait(host: TcpHost) -> None:
    conn = reader(host)
    with batch(host):
        conn.rcv(ACK, 0, 0)
        assert not host.net.tcp_prequeues
        host.net.sysctl.set("net.ipv4.tcp_low_latency", 1)
        conn.rcv(ACK | PSH, 0, 0, b"now")
        assert host.delivered() == b"now"
    assert not conn.mib("TcpExtTCPPrequeued")


def test_the_prequeue_is_bounded_by_the_receive_buffer(host: TcpHost) -> None:
    conn = reader(host)
    size, seq = 8000, 0
    with batch(host):
        while not conn.mib("TcpExtTCPPrequeueDropped"):
            conn.rcv(ACK, seq, 0, b"x" * size)
            seq += size
            assert seq < 10 * conn.tp.rcvbuf
        assert not host.net.tcp_prequeues
        assert len(host.delivered()) > conn.tp.rcvbuf // 4
    assert seq // (size + SKB_OVERHEAD + 20) * (size + SKB_OVERHEAD) <= conn.tp.rcvbuf + size


def test_who_reads_is_the_one_who_processes(host: TcpHost) -> None:
    conn = reader(host)
    with batch(host):
        conn.rcv(ACK | PSH, 0, 0, b"data")
        host.call(TransportProto.recvmsg, Recvmsg(conn.sk, 0, False))
        assert host.delivered() == b"data"
    assert not conn.tp.sk_lock
    conn.rcv(ACK | PSH, 4, 0, b"more")
    assert host.delivered() == b"more"
    assert conn.mib("TcpExtTCPPrequeued") == 1


def test_a_reader_that_goes_leaves_nothing_in_the_prequeue(host: TcpHost) -> None:
    conn = reader(host)
    with batch(host):
        conn.rcv(ACK | PSH, 0, 0, b"data")
        conn.rcv(ACK | FIN, 4, 0)
        host.close(conn.sk, linger=0)
    assert not host.core.held()
    assert host.dropped("TCP_CLOSE") == 2
