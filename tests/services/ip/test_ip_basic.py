# SPDX-License-Identifier: MIT
"""The shortest ways through ip: ARP, ping, delivery to a transport, sending."""

from collections.abc import Callable

from skbus.core.abi import RcvCb, XmitCb
from skbus.core.checksum import ip_compute_csum
from skbus.core.interfaces import Ip, NetifReceive, TcpProtocol
from skbus.core.skbuff import SkBuff
from skbus.inet.headers import arp, ethernet, icmp
from skbustest.iphost import MAC2, PEER, US, IpHost
from skbustest.packets import MAC, PEER_MAC, arp_skb, ip_skb


def test_arp_request_is_answered(host: IpHost) -> None:
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, PEER, US))
    (skb,) = host.frames()
    eth = ethernet.parse(skb.head)
    assert (eth.h_dest, eth.h_source, eth.h_proto) == (PEER_MAC, MAC, 0x0806)
    reply = arp.parse(skb.head, 14)
    assert reply.ar_op == arp.ARPOP_REPLY
    assert (reply.ar_sha, reply.ar_sip, reply.ar_tha, reply.ar_tip) == (MAC, US, PEER_MAC, PEER)
    assert host.net.mib["ArpRcvdRequests"] == host.net.mib["ArpSentReplies"] == 1
    (neigh,) = host.ipcore.neighbours()
    assert neigh["state"] == "STALE"


def test_until_all_have_registered_ip_tells_who_is_missing(
    make_host: Callable[..., IpHost],
) -> None:
    """`skbus up` is ready when nobody is: a router with one of its two devices answers for the
    other's network that it is unreachable."""
    host = make_host(two=True, register=False)
    neighbours = ("nic.eth0", "nic.eth1", "tcp", "udp", "socket", "a_plug_in")

    def missing() -> list[str]:
        return host.ipcore.missing(neighbours)

    assert missing() == ["eth0", "eth1", "tcp", "udp", "socket"]
    host.register("eth0", 2, MAC)
    assert missing() == ["eth1", "tcp", "udp", "socket"]
    host.add_protocol(17, "udp", "udp_rcv", "udp_err")
    host.ipcore.peer_up("socket")
    assert missing() == ["eth1", "tcp"]
    host.add_protocol(6, "tcp", "tcp_v4_rcv", "tcp_v4_err")
    assert missing() == ["eth1"]
    host.register("eth1", 3, MAC2, up=False)  # no link: that is no reason to wait
    assert missing() == []
    host.ip.outbox.clear()


def test_ping_is_answered(host: IpHost) -> None:
    host.learn()
    ping = icmp.build_message(icmp.ICMP_ECHO, 0, 0x12340001, b"abcdefgh")
    host.rcv(NetifReceive.ip_rcv, ip_skb(ping, PEER, US, 1, tos=0x10))
    ((iph, message),) = host.packets()
    assert (iph.saddr, iph.daddr, iph.ttl, iph.tos) == (US, PEER, 64, 0x10)
    assert ip_compute_csum(message) == 0
    hdr = icmp.parse(message)
    assert (hdr.type, hdr.rest, message[8:]) == (icmp.ICMP_ECHOREPLY, 0x12340001, b"abcdefgh")
    assert host.net.mib["IcmpInEchos"] == host.net.mib["IcmpOutEchoReps"] == 1


def test_a_packet_goes_to_its_transport(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"\x01" * 30 + b"payload", PEER, US, 6, tos=2, ttl=55))
    (skb,) = host.out("tcp", TcpProtocol.tcp_v4_rcv)
    assert skb.cb == RcvCb(PEER, US, 2, 55, 1500)
    assert host.net.skb_bytes(skb) == b"\x01" * 30 + b"payload"
    assert (skb.data, skb.network_header, skb.transport_header) == (34, 14, 34)
    mib = host.net.mib
    assert mib["IpInReceives"] == mib["IpInDelivers"] == mib["IpExtInECT0Pkts"] == 1
    assert mib["IpExtInOctets"] == 57


def test_a_segment_goes_out_when_arp_is_answered(host: IpHost) -> None:
    skb = SkBuff(b"T" * 20 + b"hello", cb=XmitCb(US, PEER, 6, 0, 0, True, 0, b""))
    host.rcv(Ip.ip_queue_xmit, skb)
    (request,) = host.frames()
    assert arp.parse(request.head, 14).ar_tip == PEER
    host.rcv(NetifReceive.arp_rcv, arp_skb(2, PEER_MAC, PEER, US, tha=MAC, pkt_type=0))
    (sent,) = host.frames()
    assert ethernet.parse(sent.head) == (PEER_MAC, MAC, 0x0800)
    assert sent.dev == 2
    assert (sent.mac_header, sent.network_header, sent.transport_header) == (0, 14, 34)
    assert sent.head[34:] == b"T" * 20 + b"hello"
    assert host.net.mib["IpOutRequests"] == 1
    (neigh,) = host.ipcore.neighbours()
    assert neigh["state"] == "REACHABLE"
