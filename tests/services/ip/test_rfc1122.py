# SPDX-License-Identifier: MIT
"""Requirements of RFC 1122's internet layer that no other test is about, by their sections.
`docs/rfc.md` has all of them."""

from skbus.core.interfaces import NetifReceive, TcpProtocol, UdpProtocol
from skbus.core.skbuff import PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST
from skbus.inet.headers import icmp, ipv4
from skbusd.ip.netns import IpNet
from skbustest.iphost import FAR, GW, PEER, US, IpHost
from skbustest.packets import inet_aton, ip_skb


def test_3_2_1_1_another_version_is_silently_dropped(host: IpHost) -> None:
    host.learn()
    skb = ip_skb(bytes(8), PEER, US)
    skb.head = skb.head[:14] + b"\x65" + skb.head[15:]
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.dropped("IP_INHDR") == 1
    assert host.packets() == []


def test_3_2_1_7_a_ttl_of_one_or_none_is_for_us_all_the_same(host: IpHost) -> None:
    for ttl in (1, 0):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, ttl=ttl))
        assert len(host.out("udp", UdpProtocol.udp_rcv)) == 1


def test_3_2_1_8_options_are_passed_up_and_unknown_ones_ignored(host: IpHost) -> None:
    raw = b"\x88\x04\x12\x34" + b"\xdd\x04\xab\xcd"  # stream identifier, and one of nobody's
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, options=raw))
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert skb.head[skb.network_header + 20 : skb.data] == raw


def test_3_2_2_unknown_types_are_silently_dropped(host: IpHost) -> None:
    host.learn()
    for kind in (1, 2, 7, 15, 16, 17, 18, 42, 255):
        host.rcv(NetifReceive.ip_rcv, ip_skb(icmp.build_message(kind, 0, 0, b"data"), PEER, US, 1))
    assert host.packets() == []


def test_3_2_2_2_redirects_change_nothing(host: IpHost) -> None:
    quoted = ipv4.build(US, FAR, 6, 40) + bytes(8)
    message = icmp.build_message(5, 1, int.from_bytes(PEER, "big"), quoted)
    host.rcv(NetifReceive.ip_rcv, ip_skb(message, GW, US, 1))
    assert host.packets() == []
    assert isinstance(host.net, IpNet)
    assert all(daddr != FAR for daddr, _, _ in host.net.rt_out)


def test_3_2_2_6_the_reply_comes_from_the_address_that_was_asked(host: IpHost) -> None:
    host.learn()
    payload = bytes(range(200))
    host.rcv(
        NetifReceive.ip_rcv, ip_skb(icmp.build_message(8, 9, 7 << 16 | 1, payload), PEER, US, 1)
    )
    ((iph, message),) = host.packets()
    assert message[1] == 9  # as Linux does
    assert (iph.saddr, iph.daddr) == (US, PEER)
    assert message[8:] == payload
    assert icmp.parse(message).type == icmp.ICMP_ECHOREPLY


def test_3_3_6_a_segment_to_all_does_not_reach_tcp_as_one_for_us(host: IpHost) -> None:
    # In a frame for us alone, as an attacker may send it (RFC 9293 MUST-57).
    for daddr, kind in (("10.0.0.255", PACKET_BROADCAST), ("255.255.255.255", PACKET_BROADCAST),
                        ("224.0.0.1", PACKET_MULTICAST)):  # fmt: skip
        skb = ip_skb(bytes(20), PEER, inet_aton(daddr), 6, pkt_type=PACKET_HOST)
        host.rcv(NetifReceive.ip_rcv, skb)
        for out in host.out("tcp", TcpProtocol.tcp_v4_rcv):
            assert out.pkt_type == kind
