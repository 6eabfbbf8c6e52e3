# SPDX-License-Identifier: MIT
"""Redirects: a packet goes out where it came in, and its sender could ask the next hop itself."""

from collections.abc import Callable

import pytest

from skbus.headers import icmp, ipv4
from skbus.net import MSEC
from skbus.skbuff import ETH_P_IP
from skbus.testing.iphost import FAR, GW, MAC2, PEER, PEER2, US, IpHost
from skbus.testing.packets import PEER_MAC, ip_skb

MakeHost = Callable[..., IpHost]
GW_MAC = bytes.fromhex("02000000bb01")


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
    host.rcv("ip_rcv", ip_skb(b"12345678", src, dst, 17, ttl=9))
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
    router.rcv("ip_rcv", ip_skb(b"12345678", PEER, GW, 17))
    (_, message), _ = router.packets()
    assert icmp.parse(message).gateway == GW


def test_none_from_one_network_to_the_other(router: IpHost) -> None:
    sent(router, PEER, PEER2)
    router.rcv("ip_rcv", ip_skb(b"12345678", PEER2, FAR, 17, dev=3))
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
        router.rcv("ip_rcv", skb)
        out = [s for s in router.frames("eth1") if s.protocol == ETH_P_IP]
        assert [(s.gso_size, s.gso_segs) for s in out] == sizes
    assert router.net.mib["IpFragFails"] == 1


def test_each_host_has_its_own_rate(router: IpHost) -> None:
    other = bytes([10, 0, 0, 8])
    router.learn(other)
    assert [len(sent(router)), len(sent(router)), len(sent(router, other))] == [2, 1, 2]
