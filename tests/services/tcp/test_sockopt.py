# SPDX-License-Identifier: MIT
"""Options of sockets, TCP_INFO, and congestion control by name."""

import errno
import socket as stdlib
import struct

import pytest

from skbus.core import uapi
from skbusd.tcp import const as c
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import (
    TcpCongestionOps,
    tcp_register_congestion_control,
    tcp_slow_start,
)
from skbustest.tcphost import ACK, Conn, TcpHost


@pytest.mark.parametrize(
    ("level", "name", "value", "back"),
    [
        (uapi.SOL_TCP, c.TCP_NODELAY, 5, 1),
        (uapi.SOL_TCP, c.TCP_CORK, 1, 1),
        (uapi.SOL_TCP, c.TCP_KEEPIDLE, 10, 10),
        (uapi.SOL_TCP, c.TCP_KEEPINTVL, 11, 11),
        (uapi.SOL_TCP, c.TCP_KEEPCNT, 12, 12),
        (uapi.SOL_TCP, c.TCP_SYNCNT, 3, 3),
        (uapi.SOL_TCP, c.TCP_LINGER2, 7, 7),
        (uapi.SOL_TCP, c.TCP_USER_TIMEOUT, 5000, 5000),
        (uapi.SOL_TCP, c.TCP_MAXSEG, 1000, 1000),
        (uapi.SOL_TCP, c.TCP_DEFER_ACCEPT, 3, 3),
        (uapi.SOL_TCP, c.TCP_QUICKACK, 0, 0),
        (uapi.SOL_TCP, c.TCP_NOTSENT_LOWAT, 100, 100),
        (uapi.SOL_SOCKET, c.SO_RCVBUF, 10000, 20000),
        (uapi.SOL_SOCKET, c.SO_SNDBUF, 10000, 20000),
        (uapi.SOL_SOCKET, c.SO_KEEPALIVE, 1, 1),
        (uapi.SOL_SOCKET, c.SO_REUSEADDR, 1, 1),
        (uapi.SOL_SOCKET, c.SO_REUSEPORT, 1, 1),
        (uapi.SOL_SOCKET, c.SO_RCVLOWAT, 9, 9),
        (uapi.SOL_SOCKET, c.SO_PRIORITY, 3, 3),
        (uapi.SOL_SOCKET, c.SO_MARK, 4, 4),
        (uapi.SOL_IP, c.IP_TOS, 0x10, 0x10),
        (uapi.SOL_IP, c.IP_TTL, 9, 9),
        (uapi.SOL_IP, c.IP_MTU_DISCOVER, 2, 2),
    ],
)
def test_set_and_get(host: TcpHost, level: int, name: int, value: int, back: int) -> None:
    host.socket(2)
    assert host.setsockopt(2, level, name, value) == 0
    assert host.getsockopt(2, level, name) == back


@pytest.mark.parametrize(
    ("level", "name", "value", "err"),
    [
        (uapi.SOL_TCP, c.TCP_KEEPIDLE, 0, errno.EINVAL),
        (uapi.SOL_TCP, c.TCP_KEEPCNT, 200, errno.EINVAL),
        (uapi.SOL_TCP, c.TCP_MAXSEG, 5, errno.EINVAL),
        (uapi.SOL_TCP, 999, 1, errno.ENOPROTOOPT),
        (99, 1, 1, errno.ENOPROTOOPT),
        (uapi.SOL_IP, c.IP_TTL, 300, errno.EINVAL),
        (uapi.SOL_IP, 999, 1, errno.ENOPROTOOPT),
        (uapi.SOL_TCP, c.TCP_NODELAY, b"x", errno.EINVAL),
        (uapi.SOL_TCP, c.TCP_CONGESTION, b"no such\0", errno.ENOENT),
        (uapi.SOL_SOCKET, c.SO_LINGER, b"\1\0\0\0", errno.EINVAL),
    ],
)
def test_bad_options(host: TcpHost, level: int, name: int, value: int | bytes, err: int) -> None:
    host.socket(2)
    assert host.setsockopt(2, level, name, value) == err


def test_unknown_options_to_get(host: TcpHost) -> None:
    host.socket(2)
    for level, name in ((uapi.SOL_TCP, 999), (uapi.SOL_SOCKET, 999), (uapi.SOL_IP, 999)):
        assert host.getsockopt(2, level, name) == -errno.ENOPROTOOPT
    assert host.getsockopt(2, 99, 1) == -errno.EOPNOTSUPP


def test_tos_and_ttl_go_with_every_packet(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_IP, c.IP_TOS, 0x10)
    host.setsockopt(conn.sk, uapi.SOL_IP, c.IP_TTL, 3)
    conn.send(5)
    cb = host.one().cb
    assert (cb.tos, cb.ttl) == (0x10, 3)


def test_maxseg_limits_both_directions(host: TcpHost) -> None:
    host.listen()
    host.setsockopt(2, uapi.SOL_TCP, c.TCP_MAXSEG, 1000)
    conn = Conn(host)
    assert conn.syn.opt.mss == 1000
    assert conn.tp.mss_cache == 1000


def test_the_receive_buffer_sets_the_window(host: TcpHost) -> None:
    host.listen()
    host.setsockopt(2, uapi.SOL_SOCKET, c.SO_RCVBUF, 10000)
    conn = Conn(host)
    assert conn.syn.th.window <= 10000
    assert conn.tp.rcvbuf == 20000


def test_tcp_info(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.send(3000)
    host.run_for(0.05)
    conn.sent()
    raw = host.getsockopt(conn.sk, uapi.SOL_TCP, c.TCP_INFO)
    assert len(raw) == 280
    state, ca, _, _, _, options, wscale, _ = struct.unpack_from("=8B", raw)
    assert (state, ca, options, wscale) == (1, 0, 7, 0x77)
    u32 = struct.unpack_from("=24I", raw, 8)
    rto, _, mss, _, unacked = u32[:5]
    assert rto >= 200_000
    assert mss == 1448
    assert unacked == 3
    assert u32[13] == 1500  # pmtu
    assert u32[15] == pytest.approx(100_000, rel=0.02)  # rtt
    assert u32[18] == 10  # cwnd
    (bytes_sent,) = struct.unpack_from("=Q", raw, 200)
    assert bytes_sent == 3000
    assert host.getsockopt(conn.sk, uapi.SOL_TCP, c.TCP_INFO, 8) == raw[:8]


def test_tcp_info_is_as_long_as_this_kernels(host: TcpHost) -> None:
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        theirs = len(listener.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, 1000))
    host.listen()
    ours = len(host.getsockopt(2, uapi.SOL_TCP, c.TCP_INFO, 1000))
    assert ours >= min(theirs, 280), "a program asks for as much as its kernel has"


def _ms(host: TcpHost) -> int:
    return host.net.now // 1_000_000


def _rto(host: TcpHost, sk: int) -> tuple[int, ...]:
    """total_rto, total_rto_recoveries, total_rto_time"""
    return struct.unpack_from("=HHI", host.getsockopt(sk, uapi.SOL_TCP, c.TCP_INFO), 240)


def test_tcp_info_counts_timeouts(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    assert _rto(host, conn.sk) == (0, 0, 0)
    conn.send(100)
    while conn.tp.total_rto < 2:
        host.run_for(0.01)
    began = conn.tp.rto_stamp
    host.run_for(0.05)
    assert _rto(host, conn.sk) == (2, 1, _ms(host) - began), "it goes on"
    conn.sent()
    conn.rcv(ACK, ack=100)
    took = _ms(host) - began
    host.run_for(1)
    assert _rto(host, conn.sk) == (2, 1, took), "it is over"


def test_congestion_control_by_name(host: TcpHost) -> None:
    host.socket(2)
    assert host.getsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION)[:6] == b"cubic\0"
    assert host.setsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION, b"reno") == 0
    assert host.getsockopt(2, uapi.SOL_TCP, c.TCP_CONGESTION)[:5] == b"reno\0"


class Careful(TcpCongestionOps):
    """Never more than four segments."""

    name = "careful"

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        tp.snd_cwnd = 2

    def cong_avoid(self, net: TcpNet, tp: TcpSock, ack: int, acked: int) -> None:
        tcp_slow_start(tp, acked)
        tp.snd_cwnd = min(tp.snd_cwnd, 4)


def test_a_users_own_congestion_control() -> None:
    host = TcpHost()
    assert tcp_register_congestion_control(host.net, Careful()) == 0
    assert tcp_register_congestion_control(host.net, Careful()) == errno.EEXIST
    assert tcp_register_congestion_control(host.net, TcpCongestionOps()) == errno.EINVAL
    host.net.sysctl.set("net.ipv4.tcp_congestion_control", "careful")
    conn = Conn(host)
    conn.send(50000)
    assert sum(n for _, _, n, _ in conn.sent()) == 2 * 1460
    at = 2 * 1460
    for _ in range(4):
        conn.rcv(ACK, 0, at)
        at += sum(n for _, _, n, _ in conn.sent())
    assert conn.tp.snd_cwnd == 4


def test_reno_grows_by_one_a_round_trip(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_congestion_control", "reno")
    conn = Conn(host)
    conn.tp.snd_ssthresh = 10
    at = 0
    sizes = []
    for _ in range(4):
        conn.send(100_000)
        at += sum(n for _, _, n, _ in conn.sent())
        host.run_for(0.1)
        conn.rcv(ACK, 0, at)
        sizes.append(conn.tp.snd_cwnd)
        at += sum(n for _, _, n, _ in conn.sent())
    assert sizes == [11, 12, 13, 14]
