# SPDX-License-Identifier: MIT
"""ICMP: what is answered, what may be sent and how often, what errors do."""

import errno
import struct
from collections.abc import Callable

import pytest

from skbus.core.abi import (
    ErrHandler,
    GetPort,
    IcmpSendCb,
    InitSock,
    IpRouteOutputKey,
    Setsockopt,
    UpdatePmtu,
    XmitCb,
)
from skbus.core.interfaces import (
    InetTransport,
    Ip,
    NetifReceive,
    SkCallbacks,
    TransportProto,
    UdpProtocol,
)
from skbus.core.skbuff import PACKET_BROADCAST, SkBuff
from skbus.core.uapi import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_INTERFACE,
    IP_PMTUDISC_OMIT,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
    SOCK_DGRAM,
    SOCK_RAW,
)
from skbus.inet.headers import icmp, ipv4, udp
from skbustest.iphost import FAR, GW, PEER, US, IpHost
from skbustest.packets import MAC, inet_aton, ip_skb

MakeHost = Callable[..., IpHost]
ECHO = icmp.build_message(icmp.ICMP_ECHO, 0, 1, b"")


def answers(host: IpHost) -> list[tuple[int, int]]:
    """(type, code) of the ICMP messages that went out."""
    return [
        (icmp.parse(m).type, icmp.parse(m).code) for iph, m in host.packets() if iph.protocol == 1
    ]


def error_about(
    host: IpHost,
    type_: int,
    code: int,
    rest: int = 0,
    *,
    inner: bytes | None = None,
    saddr: bytes = GW,
) -> None:
    """An ICMP error about a UDP datagram of ours arrives."""
    if inner is None:
        inner = ipv4.build(US, FAR, 17, 1500, frag_off=0x4000) + udp.build(4000, 53, 1480)
    host.rcv(
        NetifReceive.ip_rcv, ip_skb(icmp.build_message(type_, code, rest, inner), saddr, US, 1)
    )


# ---- answering ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 56, 1471, 1472])
def test_echo(host: IpHost, size: int) -> None:
    host.learn()
    data = bytes(n & 0xFF for n in range(size))
    host.rcv(
        NetifReceive.ip_rcv,
        ip_skb(icmp.build_message(icmp.ICMP_ECHO, 0, 0xABCD0001, data), PEER, US, 1),
    )
    ((_, message),) = host.packets()
    assert message == icmp.build_message(icmp.ICMP_ECHOREPLY, 0, 0xABCD0001, data)


def test_echo_with_its_data_in_the_pool(host: IpHost) -> None:
    host.learn()
    skb = ip_skb(icmp.build_message(icmp.ICMP_ECHO, 0, 5, b"d" * 1000), PEER, US, 1)
    place = host.alloc.put(skb.head[42:])
    assert place is not None
    skb.head, skb.frags, skb.data_len = skb.head[:42], (place,), place[4]
    host.rcv(NetifReceive.ip_rcv, skb)
    (out,) = host.frames()
    assert out.frags == (place,)
    assert host.net.skb_bytes(out)[34:] == icmp.build_message(0, 0, 5, b"d" * 1000)


def test_echo_with_a_recorded_route(host: IpHost) -> None:
    host.learn()
    rr = b"\x07\x0f\x08" + GW + bytes(8) + b"\0"
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO, PEER, US, 1, options=rr))
    ((iph, message),) = host.packets()
    assert iph.options == b"\x07\x0f\x10" + GW + US + US + b"\0"
    assert icmp.parse(message).type == icmp.ICMP_ECHOREPLY
    stamps = b"\x44\x0c\x05\x00" + bytes(8)
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO, PEER, US, 1, options=stamps))
    ((iph, _),) = host.packets()
    assert iph.options[:4] == b"\x44\x0c\x0d\x00"
    assert iph.options[4:8] == iph.options[8:12] != bytes(4)
    prespec = b"\x44\x0c\x05\x03" + FAR + bytes(4)
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO, PEER, US, 1, options=prespec))
    ((iph, _),) = host.packets()
    assert iph.options == prespec


def test_a_bad_checksum(host: IpHost) -> None:
    host.learn()
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO[:-1] + b"!", PEER, US, 1))
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO[:5], PEER, US, 1))
    assert answers(host) == []
    assert host.net.mib["IcmpInCsumErrors"] == 1
    assert host.net.mib["IcmpInErrors"] == 2
    assert host.dropped("ICMP_CSUM") == host.dropped("PKT_TOO_SMALL") == 1


def test_echo_may_be_ignored(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.icmp_echo_ignore_all": 1})
    host.learn()
    host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO, PEER, US, 1))
    assert answers(host) == []


@pytest.mark.parametrize(("ignore", "replies"), [(1, 0), (0, 1)])
def test_broadcast_echo(make_host: MakeHost, ignore: int, replies: int) -> None:
    host = make_host(sysctl={"net.ipv4.icmp_echo_ignore_broadcasts": ignore})
    host.learn()
    skb = ip_skb(ECHO, PEER, inet_aton("10.0.0.255"), 1, pkt_type=PACKET_BROADCAST)
    host.rcv(NetifReceive.ip_rcv, skb)
    got = host.packets()
    assert len(got) == replies
    assert all(iph.saddr == US for iph, _ in got)


def test_timestamp(host: IpHost) -> None:
    host.learn()
    ask = icmp.build_message(icmp.ICMP_TIMESTAMP, 0, 9, struct.pack("!III", 123, 0, 0))
    host.rcv(NetifReceive.ip_rcv, ip_skb(ask, PEER, US, 1))
    ((_, message),) = host.packets()
    assert icmp.parse(message).type == icmp.ICMP_TIMESTAMPREPLY
    originate, receive, transmit = struct.unpack_from("!III", message, 8)
    assert originate == 123
    assert receive == transmit == 1_000_000 | 0x80000000
    host.rcv(NetifReceive.ip_rcv, ip_skb(icmp.build_message(13, 0, 9, b"time"), PEER, US, 1))
    ((_, message),) = host.packets()
    assert (message[8:12], len(message)) == (b"time", 20)
    host.rcv(NetifReceive.ip_rcv, ip_skb(icmp.build_message(13, 0, 9, b"sho"), PEER, US, 1))
    assert host.net.mib["IcmpInErrors"] == 1


NOW, TIME = (1_000_000 | 0x80000000).to_bytes(4, "big"), bytes(4)
RR1, RR2 = bytes([7, 7, 4]) + bytes(4), bytes([7, 11, 4]) + bytes(8)


@pytest.mark.parametrize(
    ("options", "echoed"),
    [
        (b"", b""),
        (b"\x01" * 4, b""),
        (RR1 + b"\0", bytes([7, 7, 8]) + US),
        (RR2 + b"\0", bytes([7, 11, 12]) + US + US),
        (bytes([7, 7, 8]) + PEER + b"\0", bytes([7, 7, 8]) + PEER),  # full
        (RR1 + RR1, bytes([7, 7, 8]) + US),  # twice: a parameter problem
        (bytes([68, 8, 5, 0]) + TIME, bytes([68, 8, 9, 0]) + NOW),
        (bytes([68, 12, 5, 0]) + TIME * 2, bytes([68, 12, 13, 0]) + NOW * 2),
        (bytes([68, 8, 9, 0]) + TIME, bytes([68, 8, 9, 0x10]) + TIME),  # full: counted, once
        (bytes([68, 8, 9, 0xE0]) + TIME, bytes([68, 8, 9, 0xF0]) + TIME),
        (bytes([68, 12, 13, 0xF3]) + PEER + TIME, bytes([68, 12, 13, 0xF3]) + PEER + TIME),
        (bytes([68, 12, 5, 1]) + TIME * 2, bytes([68, 12, 13, 1]) + US + NOW),
        (bytes([68, 12, 5, 3]) + PEER + TIME, bytes([68, 12, 5, 3]) + PEER + TIME),
        (bytes([68, 12, 5, 2]) + TIME * 2, bytes([68, 12, 5, 2]) + TIME * 2),  # no such kind
        (bytes([7, 7, 3]) + bytes(5), b""),  # bad
    ],
)
@pytest.mark.parametrize("error", [False, True])
def test_record_route_and_timestamp_go_back(
    host: IpHost, options: bytes, echoed: bytes, error: bool
) -> None:
    """With a reply, and with an error; as Linux 6.18 sends them."""
    host.learn()
    packet = ip_skb(ECHO, PEER, US, 99 if error else 1, options=options)
    host.rcv(NetifReceive.ip_rcv, packet)
    ((iph, message),) = host.packets()
    assert iph.options == echoed + bytes(-len(echoed) & 3)
    bad = options in (RR1 + RR1, bytes([7, 7, 3]) + bytes(5))
    assert message[0] == (12 if bad else 3 if error else 0)


def test_an_error_with_options_fits_576_bytes(host: IpHost) -> None:
    host.learn()
    options = bytes([7, 39, 4]) + bytes(37)
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(1000), PEER, US, 99, options=options))
    ((iph, message),) = host.packets()
    assert iph.tot_len == 576
    assert len(message) == 576 - 60


def test_unknown_and_unanswered_types(host: IpHost) -> None:
    host.learn()
    for type_ in (0, 4, 5, 17, 18, 40, 255):
        host.rcv(
            NetifReceive.ip_rcv, ip_skb(icmp.build_message(type_, 0, 0, bytes(28)), PEER, US, 1)
        )
    assert answers(host) == []
    assert host.dropped("UNHANDLED_PROTO") == 2
    assert host.net.mib["IcmpInRedirects"] == host.net.mib["IcmpInEchoReps"] == 1


# ---- sending errors ----------------------------------------------------------------------


def refuse(host: IpHost, skb: SkBuff) -> list[tuple[int, int]]:
    """Deliver to a protocol that nobody has."""
    host.rcv(NetifReceive.ip_rcv, skb)
    return answers(host)


def test_when_no_error_may_be_sent(host: IpHost) -> None:
    host.learn()
    assert refuse(host, ip_skb(bytes(8), PEER, US, 99)) == [(3, 2)]
    broadcast = inet_aton("10.0.0.255")
    assert refuse(host, ip_skb(bytes(8), PEER, broadcast, 99)) == []
    assert refuse(host, ip_skb(bytes(8), PEER, b"\xe0\0\0\x01", 99)) == []
    assert refuse(host, ip_skb(bytes(8), PEER, US, 99, pkt_type=PACKET_BROADCAST)) == []


@pytest.mark.parametrize(("type_", "sent"), [(8, 1), (3, 0), (11, 0), (12, 0), (5, 0), (99, 0)])
def test_no_error_about_an_error(host: IpHost, type_: int, sent: int) -> None:
    host.learn()
    skb = ip_skb(icmp.build_message(type_, 0, 0, b""), PEER, US, 1)
    skb.transport_header = 34
    skb.cb = IcmpSendCb(3, 3, 0)
    host.rcv(Ip.icmp_send, skb)
    assert len(answers(host)) == sent


def test_no_error_about_a_later_fragment(host: IpHost) -> None:
    host.learn()
    skb = ip_skb(bytes(8), PEER, US, 17, frag_off=5)
    skb.cb = IcmpSendCb(11, 1, 0)
    host.rcv(Ip.icmp_send, skb)
    assert answers(host) == []


def test_a_quote_is_as_long_as_fits(host: IpHost) -> None:
    host.learn()
    data = bytes(n & 0xFF for n in range(1400))
    skb = ip_skb(data, PEER, US, 17)
    skb.data = skb.transport_header = 34
    skb.cb = IcmpSendCb(3, 3, 0)
    host.rcv(Ip.icmp_send, skb)
    ((iph, message),) = host.packets()
    assert iph.tot_len == 576
    assert message[28:] == data[: 576 - 20 - 8 - 20]
    assert (iph.saddr, iph.daddr) == (US, PEER)


def test_one_host_is_told_at_a_bounded_rate(host: IpHost) -> None:
    host.learn()
    for _ in range(20):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, 99))
    assert len(answers(host)) == 6
    assert host.net.mib["IcmpOutRateLimitHost"] == 14
    host.run_for(2)
    for _ in range(20):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, 99))
    assert len(answers(host)) == 2


def test_all_hosts_are_told_at_a_bounded_rate(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.icmp_msgs_burst": 10})
    host.learn(GW)
    for n in range(100):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), bytes((198, 51, 100, n)), US, 99))
    assert len(answers(host)) == 10
    assert host.net.mib["IcmpOutRateLimitGlobal"] == 90


def test_echo_replies_are_not_limited(host: IpHost) -> None:
    host.learn()
    for _ in range(100):
        host.rcv(NetifReceive.ip_rcv, ip_skb(ECHO, PEER, US, 1))
    assert len(answers(host)) == 100


# ---- taking errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "code"), [(3, 0), (3, 1), (3, 3), (3, 5), (3, 13), (11, 0), (12, 0)]
)
def test_an_error_reaches_its_transport(host: IpHost, type_: int, code: int) -> None:
    error_about(host, type_, code)
    (item,) = host.out("udp", UdpProtocol.udp_err)
    assert item == ErrHandler(type_, code, 0, GW, US, FAR, udp.build(4000, 53, 1480), 2)


@pytest.mark.parametrize(
    "inner",
    [
        b"",
        bytes(28),
        ipv4.build(PEER, FAR, 17, 1500) + bytes(8),  # not ours
        ipv4.build(US, FAR, 17, 1500) + bytes(7),
        ipv4.build(US, inet_aton("10.0.0.255"), 17, 1500) + bytes(8),
    ],
)
def test_errors_about_nothing_of_ours(host: IpHost, inner: bytes) -> None:
    error_about(host, 3, 3, inner=inner)
    assert host.out("udp") == []
    assert host.net.mib["IcmpInErrors"] == 1


def test_codes_that_mean_nothing(host: IpHost) -> None:
    error_about(host, 3, 16)
    error_about(host, 11, icmp.ICMP_EXC_FRAGTIME)
    assert host.out("udp") == []


def route_mtu(host: IpHost, daddr: bytes = FAR) -> int:
    host.call(Ip.ip_route_output_key, IpRouteOutputKey(1, "udp", daddr, b"", 0, 0))
    (ret,) = host.out("udp", InetTransport.ip_route_output_ret)
    assert ret.err == 0
    return int(ret.mtu)


def learn_mtu(host: IpHost, mtu: int, *, daddr: bytes = FAR) -> None:
    """A router's message comes, and udp finds that it is about a datagram of its own."""
    inner = ipv4.build(US, daddr, 17, 1500, frag_off=0x4000) + udp.build(4000, 53, 1480)
    error_about(host, 3, 4, mtu, inner=inner)
    for item in host.out("udp", UdpProtocol.udp_err):
        host.call(Ip.ipv4_update_pmtu, UpdatePmtu(item.daddr, item.info))


def test_a_path_mtu_is_learned_and_forgotten(host: IpHost) -> None:
    assert route_mtu(host) == 1500
    learn_mtu(host, 1280)
    assert route_mtu(host) == 1280
    assert route_mtu(host, PEER) == 1500
    learn_mtu(host, 1400)  # it does not grow by a packet
    assert route_mtu(host) == 1280
    host.run_for(601)
    assert route_mtu(host) == 1500
    assert not host.ip.fnhe


def test_the_way_back_knows_the_path_mtu_and_forgets_it(host: IpHost) -> None:
    def way_back() -> int:
        host.rcv(NetifReceive.ip_rcv, ip_skb(udp.build(53, 4000, 8), FAR, US, 17))
        (skb,) = host.out("udp", UdpProtocol.udp_rcv)
        return int(skb.cb.mtu)

    assert way_back() == 1500
    learn_mtu(host, 1280)
    assert way_back() == 1280
    host.run_for(601)
    assert way_back() == 1500


def test_what_is_heard_again_is_believed_for_longer(host: IpHost) -> None:
    learn_mtu(host, 1280)
    host.run_for(200)
    learn_mtu(host, 1280)  # less than half of its time is over
    host.run_for(399)
    assert route_mtu(host) == 1280
    learn_mtu(host, 1280)
    host.run_for(599)
    assert route_mtu(host) == 1280
    host.run_for(2)
    assert route_mtu(host) == 1500


@pytest.mark.parametrize("protocol", [1, 6, 17, 47, 132])
def test_who_has_no_such_packet_learns_nothing(host: IpHost, protocol: int) -> None:
    """RFC 5927 7.2: that a packet is quoted proves nothing; its transport must know it."""
    for payload in (bytes(64), icmp.build(8, 0, 77, 0), icmp.build(0, 0, 77, 0)):
        inner = ipv4.build(US, FAR, protocol, 1500, frag_off=0x4000) + payload
        error_about(host, 3, 4, 600, inner=inner)
    assert route_mtu(host) == 1500
    assert not host.ip.fnhe


@pytest.mark.parametrize(("type_", "protocol"), [(SOCK_RAW, 17), (SOCK_DGRAM, 1)])
@pytest.mark.parametrize("mode", range(6))
def test_raw_and_ping_sockets_know_their_own(
    host: IpHost, type_: int, protocol: int, mode: int
) -> None:
    host.call(TransportProto.init, InitSock(9, 2, protocol, type_))
    host.call(TransportProto.bind, GetPort(9, 1, bytes(4), 1234, 0, 0))
    host.call(
        TransportProto.setsockopt, Setsockopt(9, 2, 0, IP_MTU_DISCOVER, struct.pack("=i", mode))
    )
    assert [ret.err for ret in host.out("socket", SkCallbacks.sk_ret)] == [0, 0]
    quoted = icmp.build(8, 0, 1234 << 16, 0) if protocol == 1 else udp.build(4000, 53, 1480)
    inner = ipv4.build(US, FAR, protocol, 1500, frag_off=0x4000) + quoted
    error_about(host, 3, 4, 1000, inner=inner)
    accepts = mode not in (IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT)
    assert route_mtu(host) == (1000 if accepts else 1500)


@pytest.mark.parametrize(
    ("told", "learned"), [(0, 1492), (10, 1492), (1500, 1492), (300, 552), (68, 552)]
)
def test_odd_path_mtus(host: IpHost, told: int, learned: int) -> None:
    learn_mtu(host, told)
    assert route_mtu(host) == learned
    host.run_for(601)
    assert route_mtu(host) == 1500


def test_path_mtus_are_bounded(host: IpHost) -> None:
    for n in range(2100):
        far = bytes((198, 18, n >> 8, n & 255))
        learn_mtu(host, 1000, daddr=far)
    assert len(host.ip.fnhe) == 2048


def test_the_learned_mtu_cuts_our_packets(host: IpHost) -> None:
    host.learn(GW)
    learn_mtu(host, 1000)
    assert send(host, 1200, 17, df=False) == [(996, 0x2000), (244, 0x007A)]
    assert send(host, 1200, 17, df=True, mode=IP_PMTUDISC_DO) == []
    (item,) = host.out("udp", UdpProtocol.udp_err)
    assert item.info == 1000
    # udp had not heard of it, and would not have asked for DF
    assert send(host, 1200, 17, df=True) == [(996, 0x2000), (244, 0x007A)]
    # not the path's MTU counts, but the device's
    assert send(host, 1200, 17, df=True, mode=IP_PMTUDISC_PROBE) == [(1220, 0x4000)]
    assert send(host, 1200, 17, df=False, mode=IP_PMTUDISC_INTERFACE) == [(1220, 0)]


def send(
    host: IpHost, size: int, protocol: int, *, df: bool, mode: int = IP_PMTUDISC_WANT
) -> list[tuple[int, int]]:
    """A transport sends to FAR: length and `frag_off` of what leaves."""
    entry = Ip.ip_queue_xmit if protocol == 6 else Ip.ip_send_skb
    cb = XmitCb(US, FAR, protocol, 0, 0, df, 0, b"", pmtudisc=mode)
    host.rcv(entry, SkBuff(bytes(size), cb=cb))
    return [(iph.tot_len, iph.frag_off) for iph, _ in host.packets()]


@pytest.mark.parametrize("protocol", [6, 17])
def test_below_the_least_mtu_routers_may_fragment(host: IpHost, protocol: int) -> None:
    """`ip_dont_fragment`: what is less than min_pmtu is not believed, but DF goes."""
    host.learn(GW)
    assert send(host, 500, protocol, df=True) == [(520, 0x4000)]
    learn_mtu(host, 400)
    assert route_mtu(host) == 552
    assert send(host, 500, protocol, df=True) == [(520, 0)]
    assert send(host, 500, protocol, df=True, mode=IP_PMTUDISC_DO) == [(520, 0x4000)]
    learn_mtu(host, 1000)  # it stays locked
    assert send(host, 500, protocol, df=True) == [(520, 0)]
    host.run_for(601)
    host.learn(GW)
    assert send(host, 500, protocol, df=True) == [(520, 0x4000)]


def test_a_link_below_the_least_mtu_keeps_its_own(make_host: MakeHost) -> None:
    host = make_host(register=False)
    host.add_protocol(17, "udp", UdpProtocol.udp_rcv, UdpProtocol.udp_err)
    host.register("eth0", 2, MAC, mtu=296)
    learn_mtu(host, 68)
    assert route_mtu(host) == 296


def test_no_pmtu_disc(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.ip_no_pmtu_disc": 1})
    error_about(host, 3, 4, 1280)
    assert host.out("udp") == []
    assert route_mtu(host) == 1500


def test_unreachable_routes_have_their_errno(host: IpHost) -> None:
    host.call(Ip.ip_route_output_key, IpRouteOutputKey(1, "udp", b"bad", b"", 0, 0))
    host.call(Ip.ip_route_output_key, IpRouteOutputKey(2, "udp", PEER, FAR, 0, 0))
    host.call(Ip.ip_route_output_key, IpRouteOutputKey(3, "udp", PEER, b"", 99, 0))
    rets = host.out("udp", InetTransport.ip_route_output_ret)
    assert [r.err for r in rets] == [errno.EINVAL, errno.EINVAL, errno.ENODEV]
