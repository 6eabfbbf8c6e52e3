# SPDX-License-Identifier: MIT
"""Datagrams that travel as one skb (SKB_GSO_BATCH), in ip: counted each, and taken apart where
each goes its own way."""

import struct
from collections.abc import Callable

import pytest

from skbus.core.abi import InitSock, UpdatePmtu, XmitCb
from skbus.core.interfaces import Ip, NetifReceive, SkCallbacks, TransportProto, UdpProtocol
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.core.uapi import IP_PMTUDISC_DO, IP_PMTUDISC_DONT, SOCK_RAW
from skbus.inet.headers import ipv4
from skbustest.iphost import PEER, PEER2, US, IpHost
from skbustest.packets import MAC, ip_skb, udp_datagram

MakeHost = Callable[..., IpHost]
DATA = b"0123456789"
SINGLES = [b"012", b"345", b"678", b"9"]


def batch(skb: SkBuff, flags: int = 0, size: int = 3) -> SkBuff:
    """Four datagrams of that size, the last of which may be shorter."""
    skb.gso_size, skb.gso_segs = size, 4
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH | flags
    skb.ip_summed = CHECKSUM_PARTIAL
    return skb


def arriving(daddr: bytes = US, **fields: int) -> SkBuff:
    return batch(ip_skb(udp_datagram(DATA, PEER, 5000, daddr, 53), PEER, daddr, **fields))


def xmit(
    host: IpHost, daddr: bytes = PEER, df: bool = True, data: bytes = DATA, size: int = 3
) -> None:
    head = struct.pack("!HHHH", 53, 5000, 8 + len(data), 0)
    skb = batch(SkBuff(head + data), SKB_GSO_TCP_FIXEDID if df else 0, size)
    skb.transport_header = skb.csum_start = 0
    skb.csum_offset = 6
    mode = IP_PMTUDISC_DO if df else IP_PMTUDISC_DONT
    skb.cb = XmitCb(US, daddr, 17, 0, 0, df, 0, b"", pmtudisc=mode)
    host.rcv(Ip.ip_send_skb, skb)


def payloads(host: IpHost, skbs: list[SkBuff], skip: int) -> list[bytes]:
    return [host.net.skb_bytes(skb)[skip:] for skb in skbs]


def test_it_stays_one_both_ways(host: IpHost) -> None:
    host.learn()
    mib = host.net.mib
    before = mib["IpInReceives"], mib["IpExtInOctets"]
    host.rcv(NetifReceive.ip_rcv, arriving())
    (up,) = host.out("udp", UdpProtocol.udp_rcv)
    assert (up.gso_segs, up.len) == (4, 18)
    assert mib["IpInDelivers"] == mib["IpInReceives"] - before[0] == 4
    assert mib["IpExtInOctets"] - before[1] == 4 * 28 + 10
    xmit(host)
    (down,) = host.frames()
    assert (down.gso_segs, down.len) == (4, 14 + 28 + 10)
    assert (mib["IpOutRequests"], mib["IpExtOutOctets"]) == (4, 4 * 28 + 10)


def test_with_a_raw_socket_each_is_seen(host: IpHost) -> None:
    host.call(TransportProto.init, InitSock(2, 2, 17, SOCK_RAW))
    host.rcv(NetifReceive.ip_rcv, arriving())
    skbs = host.out("udp", UdpProtocol.udp_rcv)
    assert payloads(host, skbs, 8) == SINGLES
    raw = host.out("socket", SkCallbacks.sk_data_ready)
    assert payloads(host, raw, 28) == SINGLES
    for i, skb in enumerate(raw):
        iph = ipv4.parse(host.net.skb_bytes(skb))
        assert (iph.tot_len, iph.id) == (28 + len(SINGLES[i]), i)
    assert host.net.mib["IpInDelivers"] == host.net.mib["IpInReceives"] == 4


def test_forwarded_each_is_for_itself(make_host: MakeHost) -> None:
    host = make_host(two=True, sysctl={"net.ipv4.ip_forward": 1})
    host.learn(PEER2, dev=3)
    before = host.net.mib["IpInReceives"]
    host.rcv(NetifReceive.ip_rcv, arriving(PEER2, id=65534))
    sent = host.packets("eth1")
    assert [(iph.id, iph.ttl, data[8:]) for iph, data in sent] == [
        (65534, 63, b"012"), (65535, 63, b"345"), (0, 63, b"678"), (1, 63, b"9")
    ]  # fmt: skip
    assert host.net.mib["IpForwDatagrams"] == 4
    assert host.net.mib["IpInReceives"] - before == 4


@pytest.mark.parametrize("df", [True, False])
def test_a_link_that_has_become_narrow(host: IpHost, df: bool) -> None:
    """udp did not know it yet."""
    host.register("eth0", 2, MAC, mtu=228)
    host.learn()
    data = bytes(range(201)) * 3 + b"last"
    xmit(host, df=df, data=data, size=201)
    sent = host.packets()
    if df:
        assert [data[8:] for _, data in sent] == [b"last"]
        assert host.net.mib["IpFragFails"] == host.dropped("PKT_TOO_BIG") == 3
    else:
        assert host.net.mib["IpFragOKs"] == 3
        assert len(sent) == 7
        assert b"".join(data for _, data in sent)[8:209] == data[:201]


def test_a_path_that_is_narrower_than_is_believed(host: IpHost) -> None:
    """Locked: datagrams of a batch go without DF, and so each with an identification."""
    host.learn()
    host.call(Ip.ipv4_update_pmtu, UpdatePmtu(PEER, 400))
    head = struct.pack("!HHHH", 53, 5000, 8 + len(DATA), 0)
    skb = batch(SkBuff(head + DATA), SKB_GSO_TCP_FIXEDID, 3)
    skb.transport_header = skb.csum_start = 0
    skb.csum_offset = 6
    skb.cb = XmitCb(US, PEER, 17, 0, 0, True, 0, b"")
    host.rcv(Ip.ip_send_skb, skb)
    (down,) = host.frames()
    assert not down.gso_type & SKB_GSO_TCP_FIXEDID
    iph = ipv4.parse(down.head, 14)
    assert iph.frag_off == 0
    assert iph.id


def test_over_the_loopback(host: IpHost) -> None:
    xmit(host, US)
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert (skb.gso_segs, host.net.skb_bytes(skb)[8:]) == (4, DATA)
    assert host.net.mib["IpOutRequests"] == host.net.mib["IpInReceives"] == 4


def test_bytes_that_went_away(host: IpHost) -> None:
    host.call(TransportProto.init, InitSock(2, 2, 17, SOCK_RAW))
    place = host.alloc.put(b"x" * 100)
    assert place is not None
    skb = arriving()
    skb.head, skb.frags, skb.data_len = skb.head[:42], (place,), 10
    skb.frags = ((*place[:4], 10),)
    host.pool.free(place)
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.dropped("SKBUS_STALE_PLACE") == 1
    assert not host.out("udp", UdpProtocol.udp_rcv)
