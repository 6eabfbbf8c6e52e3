# SPDX-License-Identifier: MIT
"""Sending: routes asked once, checksums left to the device, limits, errors from ICMP."""

import errno
import struct

import pytest

from skbus.core import uapi
from skbus.core.abi import (
    Close,
    Connect,
    Disconnect,
    ErrHandler,
    GetPort,
    Getsockopt,
    InitSock,
    RouteRet,
    RtCacheFlush,
    Shutdown,
    XmitCb,
)
from skbus.core.checksum import csum_tcpudp_nofold
from skbus.core.interfaces import InetTransport, Ip, SkCallbacks, TransportProto, UdpProtocol
from skbus.core.skbuff import CHECKSUM_NONE, CHECKSUM_PARTIAL, SKB_GSO_UDP_L4
from skbus.core.uapi import SOCK_DGRAM
from skbus.inet import mcast
from skbus.inet.headers import udp
from skbustest.packets import inet_aton
from skbustest.udphost import ANY, PEER, US, UdpHost

BROADCAST = inet_aton("10.0.0.255")


def getsockopt(host: UdpHost, sk: int, level: int, optname: int, optlen: int = 4) -> bytes | int:
    host.call(TransportProto.getsockopt, Getsockopt(sk, 5, level, optname, optlen))
    ret = host.ret(sk)
    if ret.err:
        return ret.err
    assert isinstance(ret.val, bytes)
    return ret.val


def error(host: UdpHost, type_: int, code: int, sport: int, dport: int, info: int = 0) -> None:
    payload = udp.build(sport, dport, 13)
    host.call(UdpProtocol.udp_err, ErrHandler(type_, code, info, PEER, US, PEER, payload))


def test_the_first_datagram_waits_for_the_route(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    req = host.sendto(1, b"hello", PEER, 53, tos=0x10)
    assert host.sent() == []
    assert host.core.held() == 1
    (ask,) = host.answer_route()
    assert (ask.daddr, ask.saddr, ask.oif, ask.process) == (PEER, b"", 0, "udp")
    (skb,) = host.sent()
    assert skb.cb == XmitCb(US, PEER, 17, 0x10, 0, True, 0, b"")
    assert skb.head[8:] == b"hello"
    hdr = udp.parse(skb.head)
    assert (hdr.source, hdr.dest, hdr.len) == (4000, 53, 13)
    assert hdr.check == csum_tcpudp_nofold(US, PEER, 13, 17)
    assert (skb.ip_summed, skb.csum_start, skb.csum_offset) == (CHECKSUM_PARTIAL, 0, 6)
    ret = host.ret(1)
    assert (ret.req, ret.err) == (req, 0)
    assert host.net.mib["UdpOutDatagrams"] == 1
    host.sendto(1, b"again", PEER, 53)
    assert len(host.sent()) == 1  # nobody was asked


def test_payload_in_the_pool_goes_along(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    host.sendto(1, b"p" * 1200, pool=True)
    (skb,) = host.sent()
    assert len(skb.head) == 8
    assert not skb.lent
    assert host.net.skb_bytes(skb)[8:] == b"p" * 1200
    assert host.alloc.in_use() == 1


def test_a_flush_makes_it_ask_again(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    host.call(InetTransport.rt_cache_flush, RtCacheFlush(2))
    host.sendto(1, b"x")
    (ask,) = host.out("ip", Ip.ip_route_output_key)
    stale = RouteRet(ask.req, 0, US, PEER, 2, 1500, 1, 1)
    host.call(InetTransport.ip_route_output_ret, stale)
    assert host.sent() == []  # an answer from before the flush
    host.answer_route(genid=2)
    assert len(host.sent()) == 1


def test_no_route_is_an_error(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, b"x", PEER, 53)
    host.answer_route(err=errno.EHOSTUNREACH)
    assert host.ret(1).err == errno.EHOSTUNREACH
    assert host.dropped("IP_OUTNOROUTES") == 1


def test_ip_that_is_away_is_not_waited_for_for_ever(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, b"x", PEER, 53)
    host.run_for(6)
    assert host.ret(1).err == errno.ENETUNREACH
    assert host.core.held() == 0


def test_ip_reborn_is_asked_again(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, b"x", PEER, 53)
    host.udp.outbox.clear()
    host.core.peer_up("ip")
    assert [entry for entry, _ in host.udp.outbox["ip"]] == [
        Ip.inet_add_protocol,
        Ip.inet_add_protocol,
        Ip.ip_route_output_key,
    ]
    host.answer_route()
    assert len(host.sent()) == 1


def test_waiters_are_bounded(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    for _ in range(70):
        host.sendto(1, b"x", PEER, 53)
    refused = host.out("socket", SkCallbacks.sk_ret)
    assert [ret.err for ret in refused] == [errno.ENOBUFS] * 6
    assert host.net.mib["UdpSndbufErrors"] == 6
    host.answer_route()
    assert len(host.sent()) == 64


def test_a_socket_closed_while_its_datagram_waits(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, b"x" * 100, PEER, 53, pool=True)
    host.call(TransportProto.close, Close(1, 0, -1))
    host.answer_route()
    assert host.sent() == []
    assert host.alloc.in_use() == 0


@pytest.mark.parametrize(
    ("data", "addr", "port", "flags", "err"),
    [
        (b"x", b"", 0, 0, errno.EDESTADDRREQ),
        (b"x", PEER, 0, 0, errno.EINVAL),
        (b"x", b"abc", 53, 0, errno.EINVAL),
        (b"x" * 65508, PEER, 53, 0, errno.EMSGSIZE),
        (b"x", PEER, 53, 1, errno.EOPNOTSUPP),
    ],
)
def test_refused(host: UdpHost, data: bytes, addr: bytes, port: int, flags: int, err: int) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, data, addr, port, flags=flags)
    assert host.ret(1).err == err
    assert host.sent() == []


def test_the_biggest_datagram_goes_without_df(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    host.sendto(1, b"x" * 65507)
    (skb,) = host.sent()
    assert skb.cb[5] is False
    assert skb.len == 65515


def test_mtu_discovery_decides_on_df(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    assert host.setsockopt(1, uapi.SOL_IP, uapi.IP_MTU_DISCOVER, 2) == 0  # IP_PMTUDISC_DO
    host.sendto(1, b"x" * 1473)
    assert host.ret(1).err == errno.EMSGSIZE
    host.sendto(1, b"x" * 1472)
    assert host.sent()[0].cb[5] is True
    assert host.setsockopt(1, uapi.SOL_IP, uapi.IP_MTU_DISCOVER, 0) == 0  # IP_PMTUDISC_DONT
    host.sendto(1, b"x")
    assert host.sent()[0].cb[5] is False


def test_broadcast_needs_permission(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.sendto(1, b"x", BROADCAST, 9)
    host.answer_route(rt_type=3)
    assert host.ret(1).err == errno.EACCES
    host.setsockopt(1, uapi.SOL_SOCKET, uapi.SO_BROADCAST, 1)
    host.sendto(1, b"x", BROADCAST, 9)
    assert len(host.sent()) == 1


def test_connect_settles_both_addresses(host: UdpHost) -> None:
    host.socket(1)
    ret = host.connect(1, PEER, 53)
    assert ret.err == 0
    assert isinstance(ret.val, tuple)
    addr, port = ret.val[:2]
    assert addr == US
    assert 32768 <= port <= 60999
    host.arrive(b"yes", port, sport=53)
    host.arrive(b"no", port, sport=54)
    assert [data for _, data in host.delivered()] == [b"yes"]
    assert host.net.mib["UdpNoPorts"] == 1
    host.call(TransportProto.disconnect, Disconnect(1, 7))
    assert host.ret(1).err == 0
    host.sendto(1, b"x")
    assert host.ret(1).err == errno.EDESTADDRREQ
    assert host.udp.ports == {}  # the port was not bound by name, so it is free again


def test_a_socket_of_an_earlier_life_is_connected_before_the_route_is_known(host: UdpHost) -> None:
    """The socket layer tells a udp that was restarted of its sockets; they send at once."""
    host.socket(1)
    host.call(TransportProto.bind, GetPort(1, 0, US, 40000, 0, 0))
    host.call(TransportProto.connect, Connect(1, 0, PEER, 53))
    host.sendto(1, b"question")
    host.arrive(b"answer", 40000, sport=53)
    host.arrive(b"not for us", 40000, sport=54)
    assert [data for _, data in host.delivered()] == [b"answer"]
    host.answer_route()
    (skb,) = host.sent()
    assert host.net.skb_bytes(skb).endswith(b"question")
    assert host.ret(1).err == 0


def test_connect_without_a_route(host: UdpHost) -> None:
    host.socket(1)
    host.call(TransportProto.connect, Connect(1, 9, PEER, 53))
    host.answer_route(err=errno.ENETUNREACH)
    assert host.ret(1).err == errno.ENETUNREACH


def test_port_unreachable_reaches_the_connected(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    error(host, 3, 3, 4000, 53)
    (report,) = host.out("socket", SkCallbacks.sk_error_report)
    assert (report.sk, report.err, report.hard) == (1, errno.ECONNREFUSED, False)
    error(host, 3, 1, 4000, 53)  # host unreachable is soft
    error(host, 3, 3, 4001, 53)  # another port
    assert host.out("socket", SkCallbacks.sk_error_report) == []
    assert host.net.mib["IcmpInErrors"] == 1


def test_errors_reach_the_unconnected_only_by_recverr(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    error(host, 3, 3, 4000, 53)
    assert host.out("socket", SkCallbacks.sk_error_report) == []
    host.setsockopt(1, uapi.SOL_IP, uapi.IP_RECVERR, 1)
    error(host, 3, 1, 4000, 53)
    error(host, 11, 0, 4000, 53)
    error(host, 12, 0, 4000, 53)
    assert [r.err for r in host.out("socket", SkCallbacks.sk_error_report)] == [
        errno.EHOSTUNREACH, errno.EHOSTUNREACH, errno.EPROTO,
    ]  # fmt: skip


def test_a_learned_mtu_is_kept(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    error(host, 3, 4, 4000, 53, info=1300)
    (report,) = host.out("socket", SkCallbacks.sk_error_report)
    assert report.err == errno.EMSGSIZE
    assert getsockopt(host, 1, uapi.SOL_IP, uapi.IP_MTU) == struct.pack("=i", 1300)
    host.sendto(1, b"x" * 1400)
    assert host.sent()[0].cb[5] is False


def test_segments_come_free(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    assert host.setsockopt(1, uapi.SOL_UDP, uapi.UDP_SEGMENT, 1000) == 0
    host.sendto(1, b"x" * 4500)
    (skb,) = host.sent()
    assert (skb.gso_size, skb.gso_segs, skb.gso_type) == (1000, 5, SKB_GSO_UDP_L4)
    assert host.net.mib["UdpOutDatagrams"] == 5
    host.setsockopt(1, uapi.SOL_UDP, uapi.UDP_SEGMENT, 1473)
    host.out("socket")
    host.sendto(1, b"x" * 4500)
    assert host.ret(1).err == errno.EINVAL


def test_no_checksum_on_demand(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    host.setsockopt(1, uapi.SOL_SOCKET, uapi.SO_NO_CHECK, 1)
    host.sendto(1, b"x")
    (skb,) = host.sent()
    assert (skb.ip_summed, udp.parse(skb.head).check) == (CHECKSUM_NONE, 0)


def test_shutdown_ends_sending(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    host.call(TransportProto.shutdown, Shutdown(1, 2))
    host.sendto(1, b"x")
    assert host.ret(1).err == errno.EPIPE


@pytest.mark.parametrize(
    ("level", "optname", "good", "bad"),
    [
        (uapi.SOL_IP, uapi.IP_TOS, 0x10, None),
        (uapi.SOL_IP, uapi.IP_TTL, 77, 256),
        (uapi.SOL_IP, uapi.IP_MTU_DISCOVER, 3, 6),
        (uapi.SOL_IP, uapi.IP_RECVERR, 1, None),
        (uapi.SOL_IP, mcast.IP_MULTICAST_TTL, 9, 300),
        (uapi.SOL_IP, mcast.IP_MULTICAST_LOOP, 0, None),
        (uapi.SOL_IP, uapi.IP_MINTTL, 5, 256),
        (uapi.SOL_UDP, uapi.UDP_SEGMENT, 900, 70000),
        (uapi.SOL_UDP, uapi.UDP_CORK, 1, None),
    ],
)
def test_options(host: UdpHost, level: int, optname: int, good: int, bad: int | None) -> None:
    host.socket(1)
    assert host.setsockopt(1, level, optname, good) == 0
    assert getsockopt(host, 1, level, optname) == struct.pack("=i", good)
    if level == uapi.SOL_IP:
        assert getsockopt(host, 1, level, optname, 1) == bytes((good,))
    if bad is not None:
        assert host.setsockopt(1, level, optname, bad) == errno.EINVAL
    takes_nothing = (uapi.IP_TOS, uapi.IP_MTU_DISCOVER, uapi.IP_RECVERR)
    nothing_is_zero = level == uapi.SOL_IP and optname in takes_nothing
    assert host.setsockopt(1, level, optname, b"") == (0 if nothing_is_zero else errno.EINVAL)


def test_unknown_options(host: UdpHost) -> None:
    host.socket(1)
    assert host.setsockopt(1, uapi.SOL_IP, 200, 1) == errno.ENOPROTOOPT
    assert host.setsockopt(1, uapi.SOL_TCP, uapi.TCP_NODELAY, 1) == errno.ENOPROTOOPT
    assert getsockopt(host, 1, uapi.SOL_UDP, 200) == errno.ENOPROTOOPT
    assert getsockopt(host, 1, uapi.SOL_IP, uapi.IP_MTU) == errno.ENOTCONN
    assert host.setsockopt(99, uapi.SOL_IP, uapi.IP_TOS, 1) == errno.EBADF
    assert getsockopt(host, 1, uapi.SOL_IP, uapi.IP_TTL) == struct.pack("=i", 64)
    assert host.setsockopt(1, uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"nope\0") == errno.ENODEV
    assert host.setsockopt(1, uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"eth0\0") == 0


def test_bind_rules(host: UdpHost) -> None:
    host.socket(1, US, 4000)
    for sk in range(2, 9):
        host.socket(sk)
    assert host.bind(2, US, 4000).err == errno.EADDRINUSE
    assert host.bind(2, ANY, 4000).err == errno.EADDRINUSE
    assert host.bind(2, inet_aton("127.0.0.1"), 4000).err == 0
    assert host.bind(2, ANY, 4001).err == errno.EINVAL  # it is bound already
    assert host.bind(3, inet_aton("10.0.0.3"), 4000).err == errno.EADDRNOTAVAIL
    assert host.bind(3, ANY, 0).val is not None
    assert host.bind(4, ANY, 4500, reuse=1).err == 0
    assert host.bind(5, ANY, 4500, reuse=1).err == 0
    assert host.bind(6, ANY, 4500, reuse=2).err == errno.EADDRINUSE
    assert host.bind(6, ANY, 4600, reuse=2).err == 0
    assert host.bind(7, ANY, 4600, reuse=2).err == 0
    assert host.bind(8, ANY, 4600, reuse=1).err == errno.EADDRINUSE


def test_automatic_ports_run_out() -> None:
    host = UdpHost(
        {
            "net.ipv4.ip_local_port_range": (40000, 40003),
            "net.ipv4.ip_local_reserved_ports": "40001,40003-40010",
        }
    )
    ports = []
    for sk in (1, 2):
        host.socket(sk)
        val = host.bind(sk, ANY, 0).val
        assert isinstance(val, tuple)
        ports.append(val[1])
    assert sorted(ports) == [40000, 40002]
    host.socket(3)
    assert host.bind(3, ANY, 0).err == errno.EADDRINUSE


def test_an_address_that_goes_is_not_ours(host: UdpHost) -> None:
    host.addr("10.0.0.3", "10.0.0.255")
    host.addr("10.0.0.3", "10.0.0.255", up=False)
    host.socket(1)
    assert host.bind(1, inet_aton("10.0.0.3"), 4000).err == errno.EADDRNOTAVAIL
    assert BROADCAST in host.udp.broadcasts


def test_a_new_socket_layer_has_no_sockets(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.core.peer_up("socket")
    assert (host.udp.socks, host.udp.ports, host.udp.hash2) == ({}, {}, {})
    host.call(TransportProto.init, InitSock(1, 2, 17, SOCK_DGRAM))
    assert host.bind(1, ANY, 4000).err == 0


def test_sending_from_an_unknown_socket(host: UdpHost) -> None:
    host.sendto(77, b"x", PEER, 53)
    assert host.ret(77).err == errno.EBADF
