# SPDX-License-Identifier: MIT
"""Redirects: a packet goes out where it came in, and its sender could ask the next hop itself."""

from collections.abc import Callable
from typing import Any

import pytest

from skbus.core.abi import GetPort, InitSock, Redirect, UpdatePmtu, XmitCb
from skbus.core.interfaces import Ip, NetifReceive, TransportProto, UdpProtocol
from skbus.core.net import MSEC
from skbus.core.skbuff import ETH_P_IP, SkBuff
from skbus.core.uapi import SOCK_DGRAM, SOCK_RAW
from skbus.inet.headers import arp, icmp, ipv4
from skbustest.iphost import FAR, GW, MAC2, PEER, PEER2, US, IpHost
from skbustest.packets import MAC, PEER_MAC, arp_skb, inet_aton, ip_skb

MakeHost = Callable[..., IpHost]
GW_MAC = bytes.fromhex("02000000ee01")


@pytest.fixture
def router(make_host: MakeHost) -> IpHost:
    """Its own gateway is on the network of those who send to it."""
    host = make_host(sysctl={"net.ipv4.ip_forward": 1}, two=True)
    host.learn()
    host.learn(GW, GW_MAC)
    host.learn(PEER2, PEER_MAC, dev=3)
    return host


def sent(host: IpHost, src: bytes = PEER, dst: bytes = FAR) -> list[tuple[ipv4.IpHdr, bytes]]:
    """What the router sends for one packet."""
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"12345678", src, dst, 17, ttl=9))
    return host.packets()


def redirects(host: IpHost) -> int:
    return host.net.mib["IcmpOutRedirects"]


def test_a_redirect_names_the_gateway_and_the_packet_goes_on(router: IpHost) -> None:
    told, passed = sent(router)
    iph, message = told
    hdr = icmp.parse(message)
    assert (iph.saddr, iph.daddr) == (US, PEER)
    assert (hdr.type, hdr.code, hdr.gateway) == (5, icmp.ICMP_REDIR_HOST, GW)
    quoted = ipv4.parse(message, 8)
    assert (quoted.saddr, quoted.daddr, quoted.ttl) == (PEER, FAR, 8)
    assert (passed[0].daddr, passed[0].ttl) == (FAR, 8)
    assert redirects(router) == router.net.mib["IpForwDatagrams"] == 1


def test_a_neighbour_is_its_own_gateway(router: IpHost) -> None:
    router.rcv(NetifReceive.ip_rcv, ip_skb(b"12345678", PEER, GW, 17))
    (_, message), _ = router.packets()
    assert icmp.parse(message).gateway == GW


def test_none_from_one_network_to_the_other(router: IpHost) -> None:
    sent(router, PEER, PEER2)
    router.rcv(NetifReceive.ip_rcv, ip_skb(b"12345678", PEER2, FAR, 17, dev=3))
    assert router.net.mib["IpForwDatagrams"] == 2
    assert redirects(router) == 0


def test_none_to_one_who_is_behind_another_router(router: IpHost) -> None:
    assert len(sent(router, src=bytes([198, 51, 100, 7]))) == 1
    assert redirects(router) == 0


def test_none_where_they_are_switched_off(router: IpHost) -> None:
    router.ip.sysctl.set("net.ipv4.conf.all.send_redirects", 0)
    assert len(sent(router)) == 1


def test_who_does_not_heed_them_hears_them_less_and_less_often(router: IpHost) -> None:
    """20 ms doubled with each, nine at most, and anew after 20.48 s without one."""
    times = []
    for ms in range(0, 12_000, 10):
        router.net.now = ms * MSEC
        if len(sent(router)) == 2:
            times.append(ms)
    assert times == [0, 50, 140, 310, 640, 1290, 2580, 5150, 10280]
    router.net.now += 20_470 * MSEC
    assert len(sent(router)) == 1
    router.net.now += 20_490 * MSEC
    assert len(sent(router)) == 2


def test_a_super_segment_for_a_narrower_link_is_cut_finer(router: IpHost) -> None:
    """Where it may be fragmented; its sender has path MTU discovery switched off."""
    router.register("eth1", 3, MAC2, mtu=1000)
    router.learn(PEER2, PEER_MAC, dev=3)
    for frag_off, sizes in ((0, [(960, 11)]), (ipv4.IP_DF, [])):
        skb = ip_skb(bytes(12) + b"\x50" + bytes(7 + 10_000), PEER, PEER2, 6, frag_off=frag_off)
        skb.gso_size, skb.gso_segs, skb.gso_type = 1460, 7, 1
        router.rcv(NetifReceive.ip_rcv, skb)
        out = [s for s in router.frames("eth1") if s.protocol == ETH_P_IP]
        assert [(s.gso_size, s.gso_segs) for s in out] == sizes
    assert router.net.mib["IpFragFails"] == 1


def test_each_host_has_its_own_rate(router: IpHost) -> None:
    other = bytes([10, 0, 0, 8])
    router.learn(other)
    assert [len(sent(router)), len(sent(router)), len(sent(router, other))] == [2, 1, 2]


# ---- taking them -------------------------------------------------------------------------

NEAR = PEER
"""The gateway that a redirect names: a neighbour."""


def redirected(
    host: IpHost,
    *,
    gateway: bytes = NEAR,
    source: bytes = GW,
    code: int = 1,
    protocol: int = 17,
    known: bool = True,
) -> None:
    """A redirect comes, and the transport finds (or does not) that it is about its packet."""
    quoted = ipv4.build(US, FAR, protocol, 40) + bytes(8)
    message = icmp.build_message(5, code, int.from_bytes(gateway, "big"), quoted)
    host.rcv(NetifReceive.ip_rcv, ip_skb(message, source, US, 1))
    for item in host.out("udp", UdpProtocol.udp_err):
        assert item.info.to_bytes(4, "big") == gateway
        if known:
            told = Redirect(item.daddr, gateway, item.offender, item.ifindex)
            host.call(Ip.ipv4_redirect, told)


def next_hop(host: IpHost) -> bytes:
    """The hardware address that a packet to FAR goes to."""
    host.rcv(Ip.ip_send_skb, SkBuff(bytes(20), cb=XmitCb(US, FAR, 17, 0, 0, True, 0, b"")))
    skb = host.frames()[-1]
    return skb.head[:6]


def accepting(make_host: MakeHost, **sysctl: object) -> IpHost:
    host = make_host(sysctl={"net.ipv4.conf.all.accept_redirects": 1, **sysctl})
    host.learn(GW, GW_MAC)
    host.learn(NEAR, PEER_MAC)
    assert next_hop(host) == GW_MAC
    return host


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_nearer_gateway_is_used_and_forgotten(make_host: MakeHost, code: int) -> None:
    host = accepting(make_host)
    redirected(host, code=code)
    assert next_hop(host) == PEER_MAC
    host.run_for(301)
    host.learn(GW, GW_MAC)
    assert next_hop(host) == GW_MAC


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": inet_aton("10.0.0.77")},  # not the gateway that we use
        {"gateway": inet_aton("10.9.9.9")},  # not on our network
        {"gateway": US},
        {"gateway": GW},
        {"gateway": inet_aton("10.0.0.255")},
        {"gateway": inet_aton("224.0.0.1")},
        {"gateway": bytes(4)},
        {"code": 4},
        {"protocol": 6},  # tcp has no such connection
        {"protocol": 1},  # nobody pings
        {"known": False},
    ],
)
def test_whose_word_is_not_taken(make_host: MakeHost, wrong: dict[str, Any]) -> None:
    host = accepting(make_host)
    redirected(host, **wrong)
    assert next_hop(host) == GW_MAC
    assert not host.ip.fnhe


def test_a_router_and_whoever_did_not_ask_for_it_takes_none(make_host: MakeHost) -> None:
    for sysctl in (
        {"net.ipv4.conf.all.accept_redirects": 0},
        {"net.ipv4.ip_forward": 1},
    ):
        host = accepting(make_host, **sysctl)
        redirected(host)
        assert next_hop(host) == GW_MAC


def test_the_new_gateway_must_be_there(make_host: MakeHost) -> None:
    """It is asked for first; the next redirect counts."""
    host = accepting(make_host)
    other = inet_aton("10.0.0.88")
    redirected(host, gateway=other)
    request = arp.parse(host.frames()[-1].head, 14)
    assert request.ar_tip == other
    assert next_hop(host) == GW_MAC
    host.rcv(NetifReceive.arp_rcv, arp_skb(2, MAC2, other, US, tha=MAC, pkt_type=0))
    redirected(host, gateway=other)
    assert next_hop(host) == MAC2


def test_what_is_known_of_the_mtu_stays(make_host: MakeHost) -> None:
    host = accepting(make_host)
    host.call(Ip.ipv4_update_pmtu, UpdatePmtu(FAR, 1000))
    redirected(host)
    host.call(Ip.ipv4_update_pmtu, UpdatePmtu(FAR, 900))
    assert host.ip.fnhe[FAR][:2] == (900, False)
    assert next_hop(host) == PEER_MAC


@pytest.mark.parametrize(("type_", "protocol"), [(SOCK_RAW, 17), (SOCK_DGRAM, 1)])
def test_raw_and_ping_sockets_take_redirects(
    make_host: MakeHost, type_: int, protocol: int
) -> None:
    host = accepting(make_host)
    host.call(TransportProto.init, InitSock(9, 2, protocol, type_))
    host.call(TransportProto.bind, GetPort(9, 1, bytes(4), 1234, 0, 0))
    quoted = ipv4.build(US, FAR, protocol, 40) + icmp.build(8, 0, 1234 << 16, 0)
    message = icmp.build_message(5, 1, int.from_bytes(NEAR, "big"), quoted)
    host.rcv(NetifReceive.ip_rcv, ip_skb(message, GW, US, 1))
    assert next_hop(host) == PEER_MAC
