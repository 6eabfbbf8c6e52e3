# SPDX-License-Identifier: MIT
"""The way in: header checks with Linux's counters and reasons, routes, delivery."""

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.abi import InetDelProtocol, InetProtocolRet
from skbus.core.interfaces import (
    InetTransport,
    Ip,
    NetifReceive,
    NetProtocol,
    TcpProtocol,
    UdpProtocol,
)
from skbus.core.skbuff import PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST, SkBuff
from skbus.inet.headers import icmp, ipv4
from skbustest.iphost import FAR, PEER, US, IpHost
from skbustest.packets import arp_skb, frame_skb, inet_aton, ip_skb

MakeHost = Callable[..., IpHost]


def patched(skb: SkBuff, at: int, data: bytes, *, sum_again: bool = True) -> SkBuff:
    """The packet with bytes of its IP header replaced, its header checksum made right again."""
    head = bytearray(skb.head)
    head[14 + at : 14 + at + len(data)] = data
    if sum_again:
        ihl = max(20, (head[14] & 0xF) * 4)
        head[24:26] = b"\0\0"
        total = int.from_bytes(head[14 : 14 + ihl], "big") % 0xFFFF
        head[24:26] = (0xFFFF - total).to_bytes(2, "big")
    skb.head = bytes(head)
    return skb


@pytest.mark.parametrize(
    ("at", "data", "reason", "counter"),
    [
        (0, b"\x65", "IP_INHDR", "IpInHdrErrors"),  # version 6
        (0, b"\x44", "IP_INHDR", "IpInHdrErrors"),  # ihl 16
        (2, b"\x00\x13", "IP_INHDR", "IpInHdrErrors"),  # tot_len 19
        (2, b"\x01\x00", "PKT_TOO_SMALL", "IpExtInTruncatedPkts"),  # tot_len beyond the packet
    ],
)
def test_bad_headers(host: IpHost, at: int, data: bytes, reason: str, counter: str) -> None:
    host.rcv(NetifReceive.ip_rcv, patched(ip_skb(bytes(20), PEER, US), at, data))
    assert host.dropped(reason) == 1
    assert host.net.mib[counter] == 1
    assert host.out("udp") == []


def test_a_bad_checksum(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, patched(ip_skb(bytes(20), PEER, US), 8, b"\x01", sum_again=False))
    assert host.dropped("IP_CSUM") == 1
    assert host.net.mib["IpExtInCsumErrors"] == host.net.mib["IpInHdrErrors"] == 1


def test_a_runt(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, frame_skb(bytes(14) + b"\x45\0\0"))
    host.rcv(NetifReceive.ip_rcv, frame_skb(bytes(14) + b"\x4f" + bytes(25)))
    assert host.dropped("IP_INHDR") == 2
    assert host.net.mib["IpInHdrErrors"] == 2


def test_padding_is_trimmed(host: IpHost) -> None:
    skb = ip_skb(b"12345678", PEER, US)
    skb.head += bytes(18)
    host.rcv(NetifReceive.ip_rcv, skb)
    (out,) = host.out("udp", UdpProtocol.udp_rcv)
    assert host.net.skb_bytes(out) == b"12345678"


def test_a_header_in_the_pool_is_fetched(host: IpHost) -> None:
    whole = ip_skb(b"12345678", PEER, US, options=b"\x01" * 4)
    place = host.alloc.put(whole.head[20:])
    assert place is not None
    skb = frame_skb(whole.head[:20])
    skb.frags, skb.data_len = (place,), place[4]
    host.rcv(NetifReceive.ip_rcv, skb)
    (out,) = host.out("udp", UdpProtocol.udp_rcv)
    assert host.net.skb_bytes(out) == b"12345678"
    host.pool.free_frags(out.frags)
    assert host.alloc.in_use() == 0


def test_what_is_for_another_host(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"", PEER, US, pkt_type=PACKET_OTHERHOST))
    assert host.dropped("OTHERHOST") == 1
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, FAR))
    assert host.dropped("IP_INADDRERRORS") == 1
    assert host.net.mib["IpInAddrErrors"] == 1
    assert host.packets() == []  # a host says nothing


@pytest.mark.parametrize(
    ("saddr", "daddr", "reason"),
    [
        ("224.0.0.9", "10.0.0.2", "IP_INVALID_SOURCE"),
        ("255.255.255.255", "10.0.0.2", "IP_INVALID_SOURCE"),
        ("10.0.0.255", "10.0.0.2", "IP_INVALID_SOURCE"),
        ("0.0.0.0", "10.0.0.2", "IP_INVALID_SOURCE"),
        ("127.0.0.1", "10.0.0.2", "IP_LOCALNET"),
        ("10.0.0.9", "127.0.0.1", "IP_LOCALNET"),
        ("10.0.0.2", "10.0.0.2", "IP_LOCAL_SOURCE"),
        ("10.0.0.9", "0.0.0.1", "IP_INVALID_DEST"),
        ("10.0.0.9", "224.0.0.99", "NOT_SPECIFIED"),
    ],
)
def test_martians(host: IpHost, saddr: str, daddr: str, reason: str) -> None:
    for _ in range(2):  # and what is cached of the first does not let the second in
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), inet_aton(saddr), inet_aton(daddr)))
    assert host.dropped(reason) == 2
    assert host.out("udp") == []


@pytest.mark.parametrize("on", [0, 1])
def test_martians_are_logged_if_that_is_asked_for(make_host: MakeHost, on: int) -> None:
    """The first ten of each five seconds."""
    host = make_host(sysctl={"net.ipv4.conf.all.log_martians": on})
    host.net.log_events.clear()
    for n in range(30):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), bytes((127, 0, 0, n)), US))
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, inet_aton("224.0.0.99")))  # not one
    assert len(host.net.log_events) == 10 * on
    host.run_for(6)
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), bytes((127, 0, 0, 1)), US))
    assert len(host.net.log_events) == 11 * on
    if on:
        level, event, details, *_ = host.net.log_events[0]
        assert (level, event) == ("warning", "ip_handle_martian_source")
        assert (details["saddr"], details["reason"]) == ("127.0.0.0", "IP_LOCALNET")


@pytest.mark.parametrize(
    ("mode", "saddr", "reason"),
    [(0, FAR, ""), (1, inet_aton("10.1.0.7"), "IP_RPFILTER"), (2, inet_aton("10.1.0.7"), "")],
)
def test_rp_filter(make_host: MakeHost, mode: int, saddr: bytes, reason: str) -> None:
    host = make_host(sysctl={"net.ipv4.conf.all.rp_filter": mode}, two=True)
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), saddr, US))
    assert len(host.out("udp")) == (0 if reason else 1)
    assert host.net.mib["TcpExtIPReversePathFilter"] == bool(reason)


@pytest.mark.parametrize(
    ("daddr", "pkt_type"),
    [
        ("10.0.0.255", PACKET_BROADCAST),
        ("255.255.255.255", PACKET_BROADCAST),
        ("224.0.0.1", PACKET_MULTICAST),
    ],
)
def test_broadcast_and_all_hosts(host: IpHost, daddr: str, pkt_type: int) -> None:
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, inet_aton(daddr), pkt_type=pkt_type))
    assert len(host.out("udp", UdpProtocol.udp_rcv)) == 1
    name = "Mcast" if pkt_type == PACKET_MULTICAST else "Bcast"
    assert host.net.mib[f"IpExtIn{name}Pkts"] == 1
    assert host.net.mib[f"IpExtIn{name}Octets"] == 28


def test_dhcp_replies_to_no_address_yet(host: IpHost) -> None:
    host.rcv(
        NetifReceive.ip_rcv, ip_skb(bytes(8), b"\0" * 4, b"\xff" * 4, pkt_type=PACKET_BROADCAST)
    )
    assert len(host.out("udp", UdpProtocol.udp_rcv)) == 1


def test_an_unknown_protocol_is_answered(host: IpHost) -> None:
    host.learn()
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"what?", PEER, US, 99))
    ((iph, message),) = host.packets()
    assert (iph.daddr, iph.protocol, iph.tos) == (PEER, 1, 0xC0)
    hdr = icmp.parse(message)
    assert (hdr.type, hdr.code) == (icmp.ICMP_DEST_UNREACH, icmp.ICMP_PROT_UNREACH)
    assert message[8 + 20 :] == b"what?"
    assert host.dropped("IP_NOPROTO") == 1
    assert host.net.mib["IpInUnknownProtos"] == 1


def test_silence_while_a_transport_is_away(make_host: MakeHost) -> None:
    host = make_host(register=False)
    host.register("eth0", 2, b"\x02" + bytes(5))
    host.learn()
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(20), PEER, US, 6))
    assert host.dropped("SKBUS_NO_PEER") == 1
    assert host.packets() == []
    host.add_protocol(6, "tcp", TcpProtocol.tcp_v4_rcv, TcpProtocol.tcp_v4_err)
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(20), PEER, US, 6))
    assert len(host.out("tcp", TcpProtocol.tcp_v4_rcv)) == 1
    host.call(Ip.inet_del_protocol, InetDelProtocol(6, "tcp"))
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(20), PEER, US, 6))
    assert len(host.packets()) == 1  # gone for good: protocol unreachable


def test_registering(make_host: MakeHost) -> None:
    host = make_host()
    host.out("tcp")
    host.add_protocol(6, "tcp", TcpProtocol.tcp_v4_rcv, TcpProtocol.tcp_v4_err)  # tcp was restarted
    events = host.out("tcp", InetTransport.inetdev_event)
    assert [(e.dev, e.addr, e.prefixlen, e.up) for e in events] == [
        ("lo", b"\x7f\0\0\x01", 8, True),
        ("eth0", US, 24, True),
    ]
    assert events[1].broadcast == inet_aton("10.0.0.255")
    host.add_protocol(6, "impostor", TcpProtocol.tcp_v4_rcv, TcpProtocol.tcp_v4_err)
    host.add_protocol(1, "icmp", UdpProtocol.udp_rcv, UdpProtocol.udp_err)
    host.add_protocol(50, "esp", "no_such_entry", "")
    host.add_protocol(256, "odd", NetProtocol.handler, NetProtocol.err_handler)
    ret = InetTransport.inet_add_protocol_ret
    assert host.out("impostor") == [(ret, InetProtocolRet(6, errno.EEXIST))]
    assert host.out("icmp") == [(ret, InetProtocolRet(1, errno.EEXIST))]
    assert host.out("esp") == [(ret, InetProtocolRet(50, errno.EINVAL))]
    assert host.out("odd") == [(ret, InetProtocolRet(256, errno.EINVAL))]
    assert host.ip.inet_protos[6].process == "tcp"


def test_options(host: IpHost) -> None:
    host.learn()
    host.rcv(
        NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, options=b"\x94\x04\0\0")
    )  # router alert
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert (skb.network_header, skb.data) == (14, 38)
    host.rcv(
        NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, options=b"\x07\x27\x04\x00")
    )  # RR too long
    ((_, message),) = host.packets()
    hdr = icmp.parse(message)
    assert (hdr.type, hdr.pointer) == (icmp.ICMP_PARAMETERPROB, 20)
    srr = b"\x83\x07\x04" + FAR + b"\x01"
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, options=srr))
    assert host.packets() == []
    assert host.dropped("IP_INHDR") == 2


def test_a_device_that_is_not_there(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US, dev=77))
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, b"\x02" + bytes(5), PEER, US, dev=77))
    assert host.dropped("DEV_READY") == 2


@given(st.data())
def test_arbitrary_packets_raise_nothing(data: st.DataObject) -> None:
    host = IpHost(sysctl={"net.ipv4.ip_forward": data.draw(st.integers(0, 1))}, two=True)
    host.learn()
    for _ in range(4):
        payload = data.draw(st.binary(max_size=120))
        if data.draw(st.booleans()):
            # A good header, so that the bytes reach what lies behind it.
            protocol = data.draw(st.sampled_from([1, 1, 2, 6, 17, 99]))
            daddr = data.draw(st.sampled_from([US, PEER, FAR, b"\xff" * 4, b"\xe0\0\0\x01"]))
            options = data.draw(st.binary(max_size=8).map(lambda o: o + bytes(-len(o) % 4)))
            frag_off = data.draw(st.sampled_from([0, 0, 0x2000, 0x2001, 1, 0x4000, 0x1FFF]))
            if protocol == 1 and len(payload) > 4 and data.draw(st.booleans()):
                payload = payload[:2] + b"\0\0" + payload[4:]
                total = int.from_bytes(payload + bytes(len(payload) % 2), "big") % 0xFFFF
                payload = payload[:2] + (0xFFFF - total).to_bytes(2, "big") + payload[4:]
            skb = ip_skb(
                payload, PEER, daddr, protocol, options=options, frag_off=frag_off,
                ttl=data.draw(st.integers(0, 255)), id=data.draw(st.integers(0, 2)),
            )  # fmt: skip
        else:
            skb = frame_skb(bytes(14) + payload)
        cut = data.draw(st.integers(14, len(skb.head)))
        if cut < len(skb.head):
            place = host.alloc.put(skb.head[cut:])
            assert place is not None
            skb.head, skb.frags, skb.data_len = skb.head[:cut], (place,), place[4]
            if data.draw(st.integers(0, 9)) == 0:
                host.pool.free(place)
        entry = data.draw(
            st.sampled_from(
                [
                    NetifReceive.ip_rcv,
                    NetifReceive.ip_rcv,
                    NetifReceive.ip_rcv,
                    NetifReceive.arp_rcv,
                ]
            )
        )
        host.rcv(entry, skb)
    host.run_for(40)
    assert host.core.held() == 0
    for process in ("nic.eth0", "nic.eth1", "tcp", "udp"):
        for _, item in host.out(process):
            if isinstance(item, SkBuff) and not item.lent:
                host.pool.free_frags(item.frags)
    assert host.alloc.in_use() == 0


def test_the_checksum_of_what_we_build(host: IpHost) -> None:
    for saddr in (US, b"\xff\xff\xff\xfe", b"\0\0\0\x01"):
        header = ipv4.build(saddr, PEER, 6, 40, id=0xFFFF, ttl=1)
        assert ipv4.ip_fast_csum_ok(header, 0, 20)
