# SPDX-License-Identifier: MIT
"""UDP-Lite in udp, and groups of UDP sockets as ip tells them."""

import struct
from errno import EADDRINUSE, EINVAL, ENETDOWN, ENOPROTOOPT

import pytest

from skbus.core.abi import Close, InitSock, McRet, RcvCb, Setsockopt
from skbus.core.checksum import csum_fold, csum_partial, csum_tcpudp_nofold
from skbus.core.interfaces import InetTransport, Ip, TransportProto, UdpProtocol
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import SOCK_DGRAM
from skbus.inet.headers import ipv4
from skbustest.udphost import ANY, PEER, US, UdpHost

LITE = 136
SEND, RECV = 10, 11
GROUP = b"\xef\1\2\3"


def socket(host: UdpHost, sk: int, port: int) -> None:
    host.call(TransportProto.init, InitSock(sk, 2, LITE, SOCK_DGRAM))
    assert host.bind(sk, ANY, port).err == 0


def option(host: UdpHost, sk: int, name: int, value: bytes, level: int = LITE) -> int:
    return host.setsockopt(sk, level, name, value)


def cscov(value: int) -> bytes:
    return struct.pack("=i", value)


def datagram(text: bytes, field: int, port: int = 4000) -> bytes:
    """A UDP-Lite datagram from the peer whose length field says `field`."""
    length = 8 + len(text)
    bare = struct.pack("!HHHH", 5000, port, field, 0)
    pseudo = csum_tcpudp_nofold(PEER, US, length, LITE)
    check = csum_fold(csum_partial((bare + text)[: field or length], pseudo)) or 0xFFFF
    return struct.pack("!HHHH", 5000, port, field, check) + text


def arrive(host: UdpHost, wire: bytes) -> list[bytes]:
    """What is delivered of it."""
    header = ipv4.build(PEER, US, LITE, 20 + len(wire))
    skb = SkBuff(bytes(14) + header + wire, data=34, id=1)
    skb.skb_iif = skb.dev = 2
    skb.mac_header, skb.network_header, skb.transport_header = 0, 14, 34
    skb.cb = RcvCb(PEER, US, 0, 64, 1500)
    host.rcv(UdpProtocol.udplite_rcv, skb)
    return [data for _, data in host.delivered()]


@pytest.mark.parametrize("field", [0, 18, 8, 12])
def test_any_coverage_is_right_that_covers_the_header(host: UdpHost, field: int) -> None:
    socket(host, 1, 4000)
    assert arrive(host, datagram(b"ten bytes.", field)) == [b"ten bytes."]
    assert host.net.mib["UdpLiteInErrors"] == 0


def test_damage_matters_within_the_coverage_alone(host: UdpHost) -> None:
    socket(host, 1, 4000)
    wire = datagram(b"ten bytes.", 12)
    assert arrive(host, wire[:-1] + b"!") == [b"ten bytes!"]
    assert arrive(host, wire[:9] + b"!" + wire[10:]) == []
    assert host.dropped("UDP_CSUM") == 1


@pytest.mark.parametrize("field", [1, 7, 19, 65535])
def test_impossible_coverage_is_dropped(host: UdpHost, field: int) -> None:
    socket(host, 1, 4000)
    assert arrive(host, datagram(b"ten bytes.", field)) == []
    assert host.net.mib["UdpLiteInCsumErrors"] == host.dropped("UDP_CSUM") == 1


def test_a_checksum_is_a_must(host: UdpHost) -> None:
    socket(host, 1, 4000)
    wire = datagram(b"x", 0)
    assert arrive(host, wire[:6] + b"\0\0" + wire[8:]) == []


def test_a_socket_that_wants_more_gets_no_less(host: UdpHost) -> None:
    socket(host, 1, 4000)
    assert option(host, 1, RECV, cscov(12)) == 0
    assert arrive(host, datagram(b"ten bytes.", 11)) == []
    assert arrive(host, datagram(b"ten bytes.", 12)) == [b"ten bytes."]
    assert option(host, 1, RECV, cscov(0)) == 0
    assert arrive(host, datagram(b"ten bytes.", 17)) == []
    assert arrive(host, datagram(b"ten bytes.", 0)) == [b"ten bytes."]


@pytest.mark.parametrize(
    ("value", "field"), [(None, 12), (0, 0), (3, 8), (10, 10), (12, 12), (5000, 12)]
)
def test_what_is_sent_says_what_is_covered(host: UdpHost, value: int | None, field: int) -> None:
    socket(host, 1, 4000)
    if value is not None:
        assert option(host, 1, SEND, cscov(value)) == 0
    host.sendto(1, b"data", PEER, 53)
    host.answer_route()
    (skb,) = host.sent()
    assert skb.cb.protocol == LITE  # type: ignore[attr-defined]
    sport, dport, length, _ = struct.unpack_from("!HHHH", skb.head)
    assert (sport, dport, length) == (4000, 53, field)
    pseudo = csum_tcpudp_nofold(US, PEER, 12, LITE)
    assert csum_partial(skb.head[: field or 12], pseudo) % 0xFFFF == 0
    assert host.net.mib["UdpLiteOutDatagrams"] == 1


def test_ports_of_udp_are_others(host: UdpHost) -> None:
    socket(host, 1, 4000)
    host.socket(2, ANY, 4000)
    assert arrive(host, datagram(b"lite", 0)) == [b"lite"]
    host.arrive(b"plain", 4000)
    assert [(cb.sk, data) for cb, data in host.delivered()] == [(2, b"plain")]
    assert option(host, 2, SEND, cscov(8)) == ENOPROTOOPT
    assert option(host, 1, SEND, b"\x08") == EINVAL
    assert arrive(host, datagram(b"nobody", 0, port=4001)) == []
    assert host.net.mib["UdpLiteNoPorts"] == 1


# ---- groups ----------------------------------------------------------------------------------


def join(host: UdpHost, sk: int, *, err: int = 0, sources: tuple[bytes, ...] = ()) -> int:
    """IP_ADD_MEMBERSHIP, which ip answers with an errno and the list of groups."""
    host.req += 1
    item = Setsockopt(sk, host.req, 0, 35, GROUP + US)
    host.call(TransportProto.setsockopt, item)
    (ask,) = host.out("ip", Ip.ip_mc_setsockopt)
    assert (ask.process, ask.sk, ask.optname, ask.value) == ("udp", sk, 35, GROUP + US)
    groups = () if err else ((GROUP, 2, US, 0, sources, bool(sources)),)
    host.call(InetTransport.ip_mc_ret, McRet(sk, ask.req, err, groups))
    return host.ret(sk).err


def heard(host: UdpHost) -> list[int]:
    host.arrive(b"to all", 4000, daddr=GROUP)
    return [cb.sk for cb, _ in host.delivered()]


def test_a_socket_hears_its_groups_and_with_multicast_all_others(host: UdpHost) -> None:
    for sk in (1, 2, 3):
        host.socket(sk, ANY, 4000, reuse=1)
    assert option(host, 2, 49, cscov(0), level=0) == 0
    assert option(host, 2, 49, cscov(2), level=0) == EINVAL
    assert sorted(heard(host)) == [1, 3]
    assert join(host, 2) == 0
    assert join(host, 3, sources=(PEER,)) == 0
    assert sorted(heard(host)) == [1, 2]
    assert join(host, 1, err=EADDRINUSE) == EADDRINUSE


def test_groups_are_left_and_told_again(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    join(host, 1, sources=(PEER,))
    host.core.peer_up("ip")
    again = host.out("ip", Ip.ip_mc_setsockopt)
    assert [(item.req, item.optname) for item in again] == [(0, 42), (0, 48)]
    host.call(TransportProto.close, Close(1, 0, -1))
    assert host.out("ip", Ip.ip_mc_drop_socket) == [("udp", 1)]


def test_who_waits_for_ip_is_told_that_it_went_away(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.req += 1
    host.call(TransportProto.setsockopt, Setsockopt(1, host.req, 0, 35, GROUP + US))
    host.core.peer_up("ip")
    assert host.ret(1).err == ENETDOWN


def test_multicast_loop_and_ttl_go_to_ip(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    assert option(host, 1, 34, cscov(0), level=0) == 0
    assert option(host, 1, 33, cscov(0), level=0) == 0
    host.sendto(1, b"x", GROUP, 53)
    host.answer_route(rt_type=5)
    (skb,) = host.sent()
    cb = skb.cb
    assert (cb.ttl, cb.mc_loop) == (-1, False)  # type: ignore[attr-defined]
