# SPDX-License-Identifier: MIT
"""Ports: who may bind what, and which are chosen (RFC 6056)."""

import errno
import ipaddress

import pytest

from skbus.core.abi import InetdevEvent, ListenStart
from skbus.core.interfaces import InetTransport, TransportProto
from skbusd.tcp.core import TcpCore
from skbustest.tcphost import ACK, FIN, PEER, US, Conn, TcpHost

ANY = bytes(4)
OTHER = b"\x0a\0\0\x03"
R, RP = 1, 2


@pytest.fixture
def two(host: TcpHost) -> TcpHost:
    """A host with two addresses and four sockets."""
    host.call(
        InetTransport.inetdev_event, InetdevEvent(2, "eth0", OTHER, 24, ANY, 1500, 0, 65536, True)
    )
    for sk in (2, 4, 6, 8):
        host.socket(sk)
    return host


def test_without_addresses_tcp_is_not_ready(host: TcpHost) -> None:
    """ip sends them when it has registered us, before which nobody can connect or listen."""
    core = host.core
    assert isinstance(core, TcpCore)
    assert core.missing(("ip", "socket")) == []
    host.call(
        InetTransport.inetdev_event, InetdevEvent(2, "eth0", US, 24, ANY, 1500, 0, 65536, False)
    )
    assert core.missing(("ip", "socket")) == ["addresses"]
    assert core.missing(("socket",)) == []


def listen(host: TcpHost, sk: int) -> int:
    """listen(2): an errno."""
    host.call(TransportProto.listen, ListenStart(sk, 900 + sk, 10))
    return host.answer(900 + sk).err


@pytest.mark.parametrize(
    ("first", "r1", "second", "r2", "err"),
    [
        (ANY, 0, ANY, 0, errno.EADDRINUSE),
        (ANY, 0, US, 0, errno.EADDRINUSE),
        (US, 0, ANY, 0, errno.EADDRINUSE),
        (US, 0, OTHER, 0, 0),
        (ANY, R, ANY, R, 0),
        (ANY, R, ANY, 0, errno.EADDRINUSE),
        (ANY, 0, ANY, R, errno.EADDRINUSE),
        (ANY, RP, ANY, RP, 0),
        (ANY, RP, ANY, R, errno.EADDRINUSE),
    ],
)
def test_bind_conflicts(
    two: TcpHost, first: bytes, r1: int, second: bytes, r2: int, err: int
) -> None:
    assert two.bind(2, 80, first, r1) == 0
    assert two.bind(4, 80, second, r2) == err


def test_reuseaddr_does_not_share_a_listener(two: TcpHost) -> None:
    assert two.bind(2, 80, reuse=R) == 0
    assert two.bind(4, 80, reuse=R) == 0
    assert listen(two, 2) == 0
    assert listen(two, 4) == errno.EADDRINUSE
    assert two.bind(6, 80, reuse=R) == errno.EADDRINUSE
    two.close(2)
    assert listen(two, 4) == 0


def test_an_address_that_is_not_ours(two: TcpHost) -> None:
    assert two.bind(2, 80, PEER) == errno.EADDRNOTAVAIL
    two.net.sysctl.set("net.ipv4.ip_nonlocal_bind", 1)
    assert two.bind(2, 80, PEER) == 0
    assert two.bind(2, 81) == errno.EINVAL


@pytest.mark.parametrize(
    "addr", ["224.0.0.1", "239.1.2.3", "255.255.255.255", "10.0.0.255", "127.255.255.255"]
)
def test_a_group_or_a_broadcast_may_be_bound_to(two: TcpHost, addr: str) -> None:
    """As on Linux 6.18: nobody gets in there, and a connection has the route's address."""
    broadcast = ipaddress.IPv4Address("10.0.0.255").packed
    two.call(
        InetTransport.inetdev_event,
        InetdevEvent(2, "eth0", US, 24, broadcast, 1500, 0, 65536, True),
    )
    packed = ipaddress.IPv4Address(addr).packed
    assert two.bind(2, 80, packed) == 0
    assert listen(two, 2) == 0
    assert two.bind(4, 80, packed) == errno.EADDRINUSE
    assert two.bind(4, 81, packed) == 0
    two.connect(4, 5000)
    tp = two.net.socks[4]
    assert (tp.saddr, tp.bound_addr, tp.sport) == (US, packed, 81)


@pytest.mark.parametrize("addr", ["10.99.99.99", "240.0.0.1", "0.1.2.3"])
def test_what_is_nobodys_is_no_address_to_bind_to(two: TcpHost, addr: str) -> None:
    assert two.bind(2, 80, ipaddress.IPv4Address(addr).packed) == errno.EADDRNOTAVAIL


def test_automatic_ports(two: TcpHost) -> None:
    two.net.sysctl.set("net.ipv4.ip_local_port_range", "40000 40009")
    two.net.sysctl.set("net.ipv4.ip_local_reserved_ports", "40000-40006 40008")
    ports = []
    for sk in (2, 4):
        assert two.bind(sk, 0) == 0
        ports.append(two.net.socks[sk].sport)
    assert sorted(ports) == [40007, 40009]
    assert two.bind(6, 0) == errno.EADDRINUSE
    two.close(2)
    assert two.bind(6, 0) == 0


def test_connections_to_different_peers_share_ports(two: TcpHost) -> None:
    two.net.sysctl.set("net.ipv4.ip_local_port_range", "40000 40001")
    ports = {}
    for sk, port in ((2, 80), (4, 80), (6, 81), (8, 81)):
        assert two.connect(sk, port).err == 0
        ports[sk] = two.net.socks[sk].sport
    assert ports[2] != ports[4]
    assert ports[6] != ports[8]
    two.socket(10)
    assert two.connect(10, 80).err == errno.EADDRNOTAVAIL
    assert two.net.socks[10].state == 7
    for sk in (2, 4, 6, 8, 10):
        two.close(sk)
    assert not two.net.bhash
    assert not two.net.ehash


def test_automatic_ports_spread(host: TcpHost) -> None:
    seen = []
    for sk in range(2, 42, 2):
        host.socket(sk)
        host.connect(sk, 80, bytes([10, 0, 0, sk]))
        seen.append(host.net.socks[sk].sport)
    assert len(set(seen)) == 20
    assert max(seen) - min(seen) > 5000
    assert all(port % 2 == 0 for port in seen)  # odd ones are bind(2)'s


def test_a_bound_port_is_kept_through_a_failed_connect(two: TcpHost) -> None:
    assert two.bind(2, 5555) == 0
    assert two.connect(2, 80).err == 0
    assert two.net.socks[2].sport == 5555
    assert two.disconnect(2) == 0
    assert two.net.socks[2].sport == 5555
    assert two.bind(4, 5555) == errno.EADDRINUSE
    two.close(2)
    assert two.bind(4, 5555) == 0


def test_timewait_keeps_the_port_from_others(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    conn.rcv(FIN | ACK, 0, 1)
    host.close(2)
    host.sent()
    assert host.net.tw_count == 1
    host.socket(20)
    assert host.bind(20, 80) == errno.EADDRINUSE
    assert host.bind(20, 80, reuse=R) == 0
    host.close(20)
    host.run_for(61)
    assert not host.net.bhash


def test_timewait_is_reused_when_timestamps_make_it_safe(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_tw_reuse", 1)
    host.net.sysctl.set("net.ipv4.ip_local_port_range", "40000 40001")
    host.net.sysctl.set("net.ipv4.ip_local_reserved_ports", "40001")
    conn = Conn(host, active=True, ts=True)
    host.close(conn.sk)
    conn.rcv(FIN | ACK, 0, 1)
    host.sent()
    host.socket(4)
    assert host.connect(4, 5000).err == errno.EADDRNOTAVAIL  # in the same second
    host.run_for(1.5)
    assert host.connect(4, 5000).err == 0
    syn = host.one()
    assert syn.th.seq == (conn.iss + 2 + 65537) & 0xFFFFFFFF
    assert host.net.tw_count == 0


def test_thousands_of_connections_are_found_without_a_walk(host: TcpHost) -> None:
    host.listen(2, 80, 4096)
    for port in range(1000, 3000):
        host.arrive(2, 5, sport=port)
        (seg,) = host.sent()
        host.arrive(16, 6, seg.th.seq + 1, sport=port)
    assert len(host.net.ehash) == 2000
    assert len(host.net.bhash) == 1
    assert sum(host.net.bhash[80].owners[b""]) == 2001
    host.close(2)
    assert not host.net.ehash
    assert not host.net.bhash
