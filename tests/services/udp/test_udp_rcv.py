# SPDX-License-Identifier: MIT
"""Receiving: checks, the look-up and its order, receive buffers, copies, port unreachable."""

import struct
from errno import EADDRINUSE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.abi import Close, IcmpSendCb, RcvCb, Recvmsg, Setsockopt
from skbus.core.interfaces import Ip, SkCallbacks, TransportProto, UdpProtocol
from skbus.core.pool import PoolError
from skbus.core.skbuff import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, SKB_GSO_UDP_L4, SkBuff
from skbusd.udp.netns import UdpNet
from skbustest.packets import inet_aton, udp_datagram
from skbustest.udphost import ANY, PEER, US, UdpHost

OTHER = inet_aton("10.0.0.77")


def test_a_datagram_reaches_its_socket(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.arrive(b"hello", 4000)
    ((cb, data),) = host.delivered()
    assert (cb.sk, cb.saddr, cb.sport, cb.daddr, cb.dport, cb.ifindex) == (
        1, PEER, 5000, US, 4000, 2,
    )  # fmt: skip
    assert data == b"hello"
    host.call(TransportProto.recvmsg, Recvmsg(1, 5))
    assert host.net.mib["UdpInDatagrams"] == 1


def test_the_closest_socket_wins(host: UdpHost) -> None:
    host.socket(1, ANY, 4000, reuse=1)
    host.socket(2, US, 4000, reuse=1)
    host.socket(3, US, 4000, reuse=1)
    assert host.connect(3, PEER, 5000).err == 0
    host.arrive(b"a", 4000)
    host.arrive(b"b", 4000, sport=5001)
    host.arrive(b"c", 4000, daddr=inet_aton("127.0.0.1"))
    assert [(cb.sk, data) for cb, data in host.delivered()] == [(3, b"a"), (2, b"b"), (1, b"c")]


def test_nobody_there_is_port_unreachable(host: UdpHost) -> None:
    host.arrive(b"knock", 9)
    (skb,) = host.out("ip", Ip.icmp_send)
    assert skb.cb == IcmpSendCb(3, 3, 0)
    assert skb.network_header == 14
    assert skb.head[skb.data + 8 :] == b"knock"
    assert host.net.mib["UdpNoPorts"] == 1
    assert host.dropped("NO_SOCKET") == 1


def test_a_broadcast_to_nobody_is_silent(host: UdpHost) -> None:
    for daddr in ("10.0.0.255", "255.255.255.255", "224.0.0.1"):
        host.arrive(b"x", 9, daddr=inet_aton(daddr))
    assert host.out("ip", Ip.icmp_send) == []
    assert host.net.mib["UdpNoPorts"] == 0
    assert host.net.mib["UdpIgnoredMulti"] == 3


def test_a_broadcast_goes_to_all_that_fit(host: UdpHost) -> None:
    host.socket(1, ANY, 4000, reuse=1)
    host.socket(2, ANY, 4000, reuse=1)
    host.socket(3, US, 4000, reuse=1)
    host.socket(4, inet_aton("10.0.0.255"), 4000, reuse=1)
    host.arrive(b"all", 4000, daddr=inet_aton("10.0.0.255"))
    assert sorted((cb.sk, data) for cb, data in host.delivered()) == [
        (1, b"all"), (2, b"all"), (4, b"all"),
    ]  # fmt: skip


def test_copies_of_a_broadcast_share_no_slot(host: UdpHost) -> None:
    host.socket(1, ANY, 4000, reuse=1)
    host.socket(2, ANY, 4000, reuse=1)
    daddr = inet_aton("10.0.0.255")
    datagram = udp_datagram(b"p" * 1000, PEER, 5000, daddr, 4000)
    place = host.alloc.put(datagram[8:])
    assert place is not None
    skb = SkBuff(datagram[:8], (place,), id=1)
    skb.skb_iif = skb.dev = 2
    skb.cb = RcvCb(PEER, daddr, 0, 64, 1500)
    host.rcv(UdpProtocol.udp_rcv, skb)
    first, second = host.out("socket", SkCallbacks.sk_data_ready)
    assert host.net.skb_bytes(first) == host.net.skb_bytes(second) == b"p" * 1000
    host.pool.free_frags(second.frags)
    assert host.net.skb_bytes(first) == b"p" * 1000
    assert host.alloc.in_use() == 0
    with pytest.raises(PoolError):
        host.net.skb_bytes(second)


@pytest.mark.parametrize(
    ("ulen", "reason"), [(7, "PKT_TOO_SMALL"), (14, "PKT_TOO_SMALL"), (0, "PKT_TOO_SMALL")]
)
def test_bad_lengths(host: UdpHost, ulen: int, reason: str) -> None:
    host.socket(1, ANY, 4000)
    host.arrive(b"", 4000, raw=struct.pack("!HHHH", 5000, 4000, ulen, 0) + b"hello")
    assert host.dropped(reason) == 1
    assert host.net.mib["UdpInErrors"] == 1
    assert host.delivered() == []


def test_padding_is_trimmed(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.arrive(b"", 4000, raw=udp_datagram(b"hi", PEER, 5000, US, 4000) + b"padding")
    assert [data for _, data in host.delivered()] == [b"hi"]


def test_a_bad_checksum_is_dropped_and_none_is_taken(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    good = udp_datagram(b"hello", PEER, 5000, US, 4000)
    host.arrive(b"", 4000, raw=good[:-1] + b"!")
    assert host.dropped("UDP_CSUM") == 1
    assert host.net.mib["UdpInCsumErrors"] == host.net.mib["UdpInErrors"] == 1
    host.arrive(b"", 4000, raw=udp_datagram(b"nosum", PEER, 5000, US, 4000, csum=False))
    assert [data for _, data in host.delivered()] == [b"nosum"]


@pytest.mark.parametrize("summed", [CHECKSUM_UNNECESSARY, CHECKSUM_PARTIAL])
def test_what_the_device_vouches_for_is_not_summed(host: UdpHost, summed: int) -> None:
    host.socket(1, ANY, 4000)
    skb = SkBuff(udp_datagram(b"hello", PEER, 5000, US, 4000)[:-1] + b"!", id=1)
    skb.ip_summed = summed
    skb.cb = RcvCb(PEER, US, 0, 64, 1500)
    host.rcv(UdpProtocol.udp_rcv, skb)
    assert [data for _, data in host.delivered()] == [b"hell!"]


def test_the_receive_buffer_is_bounded(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.call(TransportProto.setsockopt, Setsockopt(1, 0, 1, 8, struct.pack("=i", 2304)))
    for _ in range(5):
        host.arrive(b"x" * 1000, 4000)
    assert len(host.delivered()) == 3
    assert host.dropped("SOCKET_RCVBUFF") == 2
    assert host.net.mib["UdpRcvbufErrors"] == 2
    host.call(TransportProto.recvmsg, Recvmsg(1, 1000))
    host.arrive(b"y", 4000)
    assert [data for _, data in host.delivered()] == [b"y"]


def test_reuseport_shares_by_flow(host: UdpHost) -> None:
    for sk in (1, 2, 3, 4):
        host.socket(sk, ANY, 4000, reuse=2)
    for sport in range(2000, 2400):
        host.arrive(b"", 4000, sport=sport)
        host.arrive(b"", 4000, sport=sport)
    got = host.delivered()
    assert all(a[0].sk == b[0].sk for a, b in zip(got[::2], got[1::2], strict=True))
    shares = [sum(cb.sk == sk for cb, _ in got) for sk in (1, 2, 3, 4)]
    assert all(share > 100 for share in shares)
    host.socket(9)
    assert host.bind(9, ANY, 4000).err == EADDRINUSE


def test_a_super_segment_is_datagrams_again(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    skb = SkBuff(struct.pack("!HHHH", 5000, 4000, 8 + 2500, 0) + b"s" * 2500, id=1)
    skb.gso_size, skb.gso_segs, skb.gso_type = 1000, 3, SKB_GSO_UDP_L4
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.cb = RcvCb(PEER, US, 0, 64, 1500)
    host.rcv(UdpProtocol.udp_rcv, skb)
    assert [len(data) for _, data in host.delivered()] == [1000, 1000, 500]


def test_a_closed_socket_gets_nothing(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.call(TransportProto.close, Close(1, 0, -1))
    host.arrive(b"late", 4000)
    assert host.delivered() == []
    assert host.net.mib["UdpNoPorts"] == 1
    assert (host.udp.ports, host.udp.hash2, host.udp.socks) == ({}, {}, {})


def test_bytes_that_went_away_are_a_drop(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    place = host.alloc.put(b"x" * 100)
    assert place is not None
    skb = SkBuff(struct.pack("!HHHH", 5000, 4000, 108, 77), (place,), id=1)
    skb.cb = RcvCb(PEER, US, 0, 64, 1500)
    host.pool.free(place)
    host.rcv(UdpProtocol.udp_rcv, skb)
    assert host.dropped("SKBUS_STALE_PLACE") == 1


@given(st.binary(max_size=80), st.integers(0, 3), st.booleans())
def test_arbitrary_bytes_raise_nothing(data: bytes, summed: int, gso: bool) -> None:
    host = UdpHost()
    host.socket(1, ANY, 4000)
    skb = SkBuff(data[:10], (data[10:],) if data[10:] else (), id=1)
    skb.ip_summed = summed
    if gso:
        skb.gso_size, skb.gso_type = 7, SKB_GSO_UDP_L4
    skb.cb = RcvCb(PEER, US, 0, 64, 1500)
    host.rcv(UdpProtocol.udp_rcv, skb)


def test_all_sockets_together_are_bounded_by_udp_mem() -> None:
    host = UdpHost({"net.ipv4.udp_mem": (1, 1, 1)})  # pages
    host.socket(1, ANY, 4000)
    host.socket(2, ANY, 4001)
    for port in (4000, 4001, 4000, 4001):
        host.arrive(b"x" * 1000, port)
    assert len(host.delivered()) == 3
    assert host.dropped("PROTO_MEM") == 1
    assert host.net.mib["UdpMemErrors"] == host.net.mib["UdpInErrors"] == 1
    host.call(TransportProto.recvmsg, Recvmsg(1, 1000))
    host.arrive(b"y", 4001)
    assert len(host.delivered()) == 1
    host.call(TransportProto.close, Close(1, 0, -1))
    host.call(TransportProto.close, Close(2, 0, -1))
    assert isinstance(host.net, UdpNet)
    assert not host.net.udp_memory_allocated
