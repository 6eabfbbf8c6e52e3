# SPDX-License-Identifier: MIT
"""Fragments at their limits, one function at a time: what `make mutants` found that no other test
noticed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from skbus.core.interfaces import NetifReceive, UdpProtocol
from skbus.core.pool import Allocator
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    ETH_P_IP,
    PACKET_BROADCAST,
    Frag,
    SkBuff,
)
from skbus.inet.headers import icmp, ipv4
from skbus.inet.headers.ipv4 import IP_DF, IP_MF, IpHdr
from skbusd.ip import ip_fragment
from skbusd.ip.netns import Ipq
from skbusd.ip.route import ip_route_output
from skbustest.iphost import PEER, US, IpHost
from skbustest.packets import frame_skb, inet_aton, ip_skb

MakeHost = Callable[..., IpHost]
OVERHEAD = 512


def cut(host: IpHost, skb: SkBuff, mtu: int) -> None:
    """`ip_fragment` alone, on a packet for PEER."""
    rt = ip_route_output(host.ip, PEER, b"", 0)
    assert not isinstance(rt, int)
    host.net.skb_received += 1
    ip_fragment.ip_fragment(host.ip, skb, rt, mtu)
    host.core.idle()
    host.check()


def headers(host: IpHost) -> list[IpHdr]:
    return [iph for iph, _ in host.packets()]


def traced(host: IpHost, function: str) -> Any:
    """The one event of a function."""
    (event,) = (event for event in host.net.trace_events if event.function == function)
    return event


def piece(at: int, size: int, *, more: bool = True, saddr: bytes = PEER, **fields: Any) -> SkBuff:
    """A fragment that arrives: bytes at..at+size of a datagram."""
    data = bytes((at + i) & 0xFF for i in range(size))
    fields = {"id": 7, "frag_off": at >> 3 | (IP_MF if more else 0), **fields}
    return ip_skb(data, saddr, US, 17, **fields)


def in_pool(host: IpHost, skb: SkBuff) -> SkBuff:
    """The same fragment, with its payload in the pool."""
    head, data = skb.head[:34], skb.head[34:]
    place = host.alloc.put(data)
    assert place is not None
    moved = frame_skb(head)
    moved.frags, moved.data_len = (place,), len(data)
    return moved


def stale(host: IpHost, skb: SkBuff) -> SkBuff:
    """The same fragment, with its payload in a slot that was given back."""
    moved = in_pool(host, skb)
    host.pool.free_frags(moved.frags)
    return moved


def defrag(host: IpHost, skb: SkBuff) -> tuple[SkBuff, IpHdr] | None:
    """`ip_defrag` alone."""
    iph = ipv4.parse(skb.head, skb.network_header)
    skb.transport_header = skb.network_header + iph.ihl
    skb.data = skb.network_header
    host.net.skb_received += 1
    return ip_fragment.ip_defrag(host.ip, skb, iph)


def received(host: IpHost) -> bytes:
    """The one datagram that was put together."""
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    data: bytes = host.net.skb_bytes(skb)
    host.pool.free_frags(skb.frags)
    return data


# ---- cutting -----------------------------------------------------------------------------


def test_a_fragment_is_cut_into_fragments_of_the_same_datagram(host: IpHost) -> None:
    host.learn()
    skb = piece(40, 4000, id=0x1234, ttl=9, tos=0x28)
    skb.data = skb.network_header
    cut(host, skb, 1503)  # 1480 bytes of payload: multiples of 8
    found = headers(host)
    assert [iph.frag_off for iph in found] == [5 | IP_MF, 190 | IP_MF, 375 | IP_MF]
    assert {(iph.id, iph.ttl, iph.tos) for iph in found} == {(0x1234, 9, 0x28)}


def test_a_fragment_knows_what_the_packet_knew(host: IpHost) -> None:
    host.learn()
    skb = piece(0, 2000, more=False)
    skb.data = skb.network_header
    skb.id, skb.mark, skb.priority, skb.tstamp, skb.pkt_type = 0xABC, 5, 6, 77, 3
    cut(host, skb, 1500)
    frames = host.frames()
    assert len(frames) == 2
    for part in frames:
        known = (part.id, part.mark, part.priority, part.tstamp, part.pkt_type, part.skb_iif)
        assert known == (0xABC, 5, 6, 77, 3, 2)
        assert (part.protocol, part.network_header, part.transport_header) == (ETH_P_IP, 14, 34)


def test_room_for_eight_bytes_is_the_least(host: IpHost) -> None:
    host.learn()
    skb = piece(0, 16, more=False)
    skb.data = skb.network_header
    cut(host, skb, 28)
    assert [iph.frag_off for iph in headers(host)] == [IP_MF, 1]
    for _ in range(2):
        skb = in_pool(host, piece(0, 16, more=False))
        skb.data = skb.network_header
        cut(host, skb, 27)
    assert host.dropped("PKT_TOO_BIG") == host.net.mib["IpFragFails"] == 2
    assert host.alloc.in_use() == 0


def test_a_header_that_is_none_is_not_cut(host: IpHost) -> None:
    for _ in range(2):
        skb = in_pool(host, piece(0, 2000, more=False))
        skb.data = skb.network_header
        skb.head = skb.head[:14] + b"\x41" + skb.head[15:]  # of four bytes, it says
        cut(host, skb, 1500)
    assert host.dropped("IP_INHDR") == host.net.mib["IpFragFails"] == 2
    assert host.alloc.in_use() == 0


def test_bytes_that_are_gone_have_no_checksum(host: IpHost) -> None:
    for _ in range(2):
        skb = stale(host, piece(0, 2000, more=False))
        skb.data = skb.network_header
        skb.head += bytes(8)
        skb.ip_summed, skb.csum_start, skb.csum_offset = CHECKSUM_PARTIAL, 34, 6
        cut(host, skb, 1500)
    assert host.dropped("SKBUS_STALE_PLACE") == host.net.mib["IpFragFails"] == 2


def test_each_cut_is_counted_and_traced(host: IpHost) -> None:
    host.learn()
    for _ in range(2):
        skb = piece(0, 2000, more=False)
        skb.data, skb.id = skb.network_header, 0xABC
        host.net.trace_events.clear()
        host.net.tracing = True
        cut(host, skb, 1500)
    assert host.net.mib["IpFragOKs"] == 2
    event = traced(host, "ip_fragment")
    assert event.skb == 0xABC
    assert event.details == {"mtu": 1500, "len": 2020}


# ---- putting together --------------------------------------------------------------------


def test_arrival_and_whole_are_traced(host: IpHost) -> None:
    first, last = piece(0, 16), piece(16, 16, more=False)
    first.id, last.id = 0xA, 0xB
    host.net.tracing = True
    host.rcv(NetifReceive.ip_rcv, last)
    event = traced(host, "ip_defrag")
    assert event.skb == 0xB
    assert event.details == {"id": 7, "offset": 16, "more": False}
    host.net.trace_events.clear()
    host.rcv(NetifReceive.ip_rcv, first)
    assert traced(host, "ip_defrag").details["more"] is True
    event = traced(host, "ip_frag_reasm")
    assert event.skb == 0xA
    assert event.details == {"len": 52, "fragments": ["a", "b"]}


def test_the_high_threshold_is_not_too_much(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=1))
    one = host.ip.frag_mem
    assert one > OVERHEAD
    host.ip.sysctl.set("net.ipv4.ipfrag_high_thresh", 2 * one)
    host.ip.sysctl.set("net.ipv4.ipfrag_low_thresh", one)
    host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=2))
    host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=3))  # 2 * one wait: as much as may be
    assert host.dropped("NOMEM") == 0
    host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=4))
    assert host.dropped("NOMEM") == 2  # the oldest; what is left is at the low threshold
    assert sorted(key[2] for key in host.ip.ip4_frags) == [3, 4]


def test_a_lent_fragment_is_copied(host: IpHost) -> None:
    skb = in_pool(host, piece(0, 16))
    (lent,) = skb.frags
    skb.lent = True
    host.rcv(NetifReceive.ip_rcv, skb)
    host.pool.free_frags((lent,))
    host.rcv(NetifReceive.ip_rcv, piece(16, 16, more=False))
    assert received(host) == bytes(range(32))
    assert host.alloc.in_use() == 0


def test_a_lent_fragment_whose_bytes_are_gone(host: IpHost) -> None:
    for _ in range(2):
        skb = stale(host, piece(0, 16))
        skb.lent = True
        host.rcv(NetifReceive.ip_rcv, skb)
    assert host.dropped("SKBUS_STALE_PLACE") == host.net.mib["IpReasmFails"] == 2
    assert host.ip.ip4_frags == {}


def test_what_has_no_device_goes_by_where_it_came_in(host: IpHost) -> None:
    for iif in (1, 3):
        skb = piece(0, 16)
        skb.dev, skb.skb_iif = 0, iif
        assert defrag(host, skb) is None
    skb = piece(16, 16, more=False)
    skb.dev, skb.skb_iif = 0, 4
    assert defrag(host, skb) is None
    assert [key[4] for key in host.ip.ip4_frags] == [1, 3, 4]


def test_fragments_wait_for_thirty_seconds(host: IpHost) -> None:
    host.learn()
    for id in (1, 2):
        host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=id))
    host.run_for(29.9)
    assert host.core.held() == 2
    host.run_for(0.2)
    assert host.core.held() == 0
    assert host.net.mib["IpReasmFails"] == host.net.mib["IpReasmTimeout"] == 2


def test_the_message_about_it_is_empty(host: IpHost) -> None:
    host.learn()
    host.rcv(NetifReceive.ip_rcv, piece(0, 16))
    host.run_for(31)
    host.run_for(5)
    (message,) = [m for iph, m in host.packets() if iph.protocol == 1]
    hdr = icmp.parse(message)
    assert (hdr.type, hdr.rest) == (icmp.ICMP_TIME_EXCEEDED, 0)


@pytest.mark.parametrize("end", ["whole", "discarded"])
def test_the_time_of_a_datagram_ends_with_it(host: IpHost, end: str) -> None:
    """The next one of the same identification has all of its own."""
    host.rcv(NetifReceive.ip_rcv, piece(0, 16))
    host.run_for(20)
    host.rcv(NetifReceive.ip_rcv, piece(16, 16, more=False) if end == "whole" else piece(8, 16))
    assert host.ip.ip4_frags == {}
    host.out("udp")
    host.rcv(NetifReceive.ip_rcv, piece(0, 16))
    host.run_for(20)
    assert host.core.held() == 1


def test_a_fragment_that_is_not_the_last_is_cut_to_words(host: IpHost) -> None:
    """As in Linux: bytes that no other fragment could follow are not taken."""
    host.rcv(NetifReceive.ip_rcv, piece(32, 20))
    host.rcv(NetifReceive.ip_rcv, piece(48, 13, more=False))
    host.rcv(NetifReceive.ip_rcv, piece(0, 32))
    assert received(host) == bytes(range(61))


def test_the_end_once_more_but_not_as_the_last_one(host: IpHost) -> None:
    """Nothing contradicts: its bytes have all come."""
    host.rcv(NetifReceive.ip_rcv, piece(16, 16, more=False))
    host.rcv(NetifReceive.ip_rcv, piece(16, 16))
    assert host.dropped("DUP_FRAG") == 1
    assert host.dropped("IP_INHDR") == 0
    host.rcv(NetifReceive.ip_rcv, piece(0, 16))
    assert received(host) == bytes(range(32))


@pytest.mark.parametrize(
    "parts",
    [
        [(64, 16, True), (16, 16, False)],  # the end before what has come
        [(64, 16, False), (96, 16, False)],  # two ends
        [(64, 16, False), (16, 16, False)],
        [(64, 16, False), (96, 16, True)],
    ],
)
def test_ends_that_contradict(host: IpHost, parts: list[tuple[int, int, bool]]) -> None:
    for at, size, more in parts:
        host.rcv(NetifReceive.ip_rcv, piece(at, size, more=more))
    assert host.dropped("IP_INHDR") == 2
    assert host.ip.ip4_frags == {}


def test_the_longest_packet_has_65535_bytes(host: IpHost) -> None:
    host.rcv(
        NetifReceive.ip_rcv, piece(0xFFE8, 3, more=False, id=1)
    )  # ends at 65515, with its header 65535
    assert host.core.held() == 1
    host.rcv(NetifReceive.ip_rcv, piece(0xFFE8, 4, more=False, id=2))
    assert host.core.held() == 1
    assert host.dropped("IP_INHDR") == 1


def test_each_overlap_is_counted(host: IpHost) -> None:
    for parts in ([(0, 16), (8, 16)], [(8, 16), (0, 16)]) * 2:
        for at, size in parts:
            host.rcv(NetifReceive.ip_rcv, piece(at, size))
    assert host.net.mib["IpExtReasmOverlaps"] == host.net.mib["IpReasmFails"] == 4


def test_a_duplicate_of_bytes_in_the_pool(host: IpHost) -> None:
    for at in (0, 16, 32):
        host.rcv(NetifReceive.ip_rcv, in_pool(host, piece(at, 16)))
    host.rcv(NetifReceive.ip_rcv, in_pool(host, piece(8, 32)))
    assert host.dropped("DUP_FRAG") == 1
    host.rcv(NetifReceive.ip_rcv, in_pool(host, piece(48, 8, more=False)))
    assert received(host) == bytes(range(56))
    assert host.alloc.in_use() == 0


def test_only_the_sender_s_own_fragments_are_between(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, piece(0, 16))
    for n in range(100):
        host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=n, saddr=inet_aton("10.0.0.77")))
    host.rcv(NetifReceive.ip_rcv, piece(16, 16, more=False))
    assert received(host) == bytes(range(32))


def test_senders_are_counted_to_some_number(host: IpHost) -> None:
    def seen(n: int) -> None:
        key = (n.to_bytes(4, "big"), US, 7, 17, 2)
        assert not ip_fragment.ip_frag_too_far(host.ip, Ipq(key))

    for n in range(4096):
        seen(n)
    seen(0)
    assert len(host.ip.frag_rid) == 4096
    seen(4096)
    assert len(host.ip.frag_rid) == 4096
    assert bytes(4) not in host.ip.frag_rid  # the one that was seen first
    seen(4096)
    assert (1).to_bytes(4, "big") in host.ip.frag_rid


def test_beginning_anew(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.ipfrag_max_dist": 1})
    for id in (7, 9):
        host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=id))
    one = host.ip.frag_mem // 2
    host.run_for(20)
    for id in (7, 9):
        host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=50))
        host.rcv(NetifReceive.ip_rcv, piece(0, 16, id=51))
        host.rcv(NetifReceive.ip_rcv, piece(16, 16, id=id, more=False))
    assert host.dropped("FRAG_TOO_FAR") >= 2
    assert host.net.mib["IpReasmFails"] == host.dropped("FRAG_TOO_FAR")
    assert host.ip.frag_mem == one * len(host.ip.ip4_frags)
    host.run_for(20)  # 30 s are over for what came first, and not for what came instead
    assert {key[2] for key in host.ip.ip4_frags} >= {7, 9}
    host.run_for(20)
    assert host.core.held() == host.ip.frag_mem == 0


@pytest.fixture
def sizes(host: IpHost) -> Iterator[Allocator]:
    """A further region, with slots of 4096, 4097 and 8192 bytes."""
    region = Allocator.format(8, bytearray(1 << 18), [(4096, 4), (4097, 4), (8192, 4)])
    host.pool.regions[8] = region
    yield region
    assert region.in_use() == 0


@pytest.mark.parametrize(
    ("slot", "used", "copied"),
    [
        (4096, 16, False),  # no larger than a page
        (4097, 16, True),
        (8192, 2048, False),  # a quarter is used
        (8192, 2047, True),
    ],
)
def test_what_a_waiting_fragment_costs(
    host: IpHost, sizes: Allocator, slot: int, used: int, copied: bool
) -> None:
    got = sizes.alloc(slot)
    assert got is not None
    skb = frame_skb(bytes(34))
    place = (8, got[0], got[1], 0, used)
    skb.frags, skb.data_len = (place,), used
    cost = ip_fragment._truesize(host.ip, skb)
    assert cost == 34 + OVERHEAD + (used if copied else slot)
    assert skb.frags == ((bytes(used),) if copied else (place,))
    host.pool.free_frags(skb.frags)


def test_what_several_pieces_cost(host: IpHost, sizes: Allocator) -> None:
    frags: list[Frag] = [b"a" * 10, b"b" * 20]
    for _ in range(2):
        got = sizes.alloc(4096)
        assert got is not None
        frags.append((8, got[0], got[1], 0, 2000))
    skb = frame_skb(bytes(34))
    skb.frags, skb.data_len = tuple(frags), 4030
    assert ip_fragment._truesize(host.ip, skb) == 34 + OVERHEAD + 30 + 2 * 4096
    host.pool.free_frags(skb.frags)


def test_what_a_place_costs_that_no_region_has(host: IpHost, sizes: Allocator) -> None:
    for region, slot in ((99, 0), (8, sizes.nslots)):
        skb = frame_skb(bytes(34))
        skb.frags, skb.data_len = ((region, slot, 1, 0, 300),), 300
        assert ip_fragment._truesize(host.ip, skb) == 34 + OVERHEAD + 300


def test_what_a_place_costs_whose_bytes_are_gone(host: IpHost, sizes: Allocator) -> None:
    got = sizes.alloc(8192)
    assert got is not None
    sizes.free(got[0], got[1])
    skb = frame_skb(bytes(34))
    skb.frags, skb.data_len = ((8, got[0], got[1], 0, 16),), 16
    assert ip_fragment._truesize(host.ip, skb) == 34 + OVERHEAD + 8192


NOT_ECT, ECT_1, ECT_0, CE = 1, 2, 4, 8


def test_ecn_of_each_combination() -> None:
    """RFC 3168 5.3: CE where there was one; nothing where ECN was and was not spoken."""
    expected = {NOT_ECT: 0, ECT_1: 1, ECT_0: 2, ECT_0 | ECT_1: 2}
    expected |= {CE | others: 3 for others in (0, ECT_0, ECT_1, ECT_0 | ECT_1)}
    for bits in range(1, 16):
        assert ip_fragment._ecn(bits) == expected.get(bits), bits


def arrive(host: IpHost, total: int, **first: Any) -> None:
    """A datagram of so many bytes, in fragments; `first` is of the first one alone."""
    for at in range(0, total, 1480):
        size = min(1480, total - at)
        host.rcv(
            NetifReceive.ip_rcv,
            piece(at, size, more=at + size < total, **(first if not at else {})),
        )


NOP_4 = b"\x01" * 4


def test_the_longest_datagram(host: IpHost) -> None:
    arrive(host, 65515)
    assert len(received(host)) == 65515
    for _ in range(2):
        arrive(host, 65512, options=NOP_4)  # with a header of 24 bytes, 65536
    assert host.dropped("PKT_TOO_BIG") == 2 * 45
    assert host.net.mib["IpReasmFails"] == 2
    assert host.ip.ip4_frags == {}


def test_fragments_that_do_not_agree_about_ecn(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, piece(0, 16, tos=0))
    host.rcv(NetifReceive.ip_rcv, piece(16, 16, more=False, tos=3))
    assert host.dropped("IP_INHDR") == 2


def test_the_header_of_the_whole_is_the_first_one_s(host: IpHost) -> None:
    first = piece(0, 16, id=0x1234, ttl=9, tos=0xBD, options=NOP_4)
    assert defrag(host, first) is None
    whole = defrag(host, piece(16, 16, more=False, id=0x1234, ttl=4, tos=0xBD))
    assert whole is not None
    skb, iph = whole
    assert (iph.id, iph.ttl, iph.tos, iph.options) == (0x1234, 9, 0xBD, NOP_4)
    assert (iph.frag_off, iph.tot_len) == (0, 56)
    assert skb.ip_summed == CHECKSUM_NONE
    assert host.net.mib["IpReasmOKs"] == 1
    host.net.consume_skb(skb)


def test_each_whole_is_counted(host: IpHost) -> None:
    for _ in range(2):
        arrive(host, 3000)
    assert host.net.mib["IpReasmOKs"] == 2


@pytest.mark.parametrize(("fragments", "frags"), [(18, 17), (19, 1)])
def test_seventeen_pieces_stay_pieces(host: IpHost, fragments: int, frags: int) -> None:
    for n in range(fragments):
        host.rcv(NetifReceive.ip_rcv, piece(8 * n, 8, more=n < fragments - 1))
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert len(skb.frags) == frags
    assert host.net.skb_bytes(skb) == bytes(range(8 * fragments))
    host.pool.free_frags(skb.frags)


def test_a_whole_with_bytes_that_are_gone(host: IpHost) -> None:
    for _ in range(2):
        for n in range(40):
            skb = piece(8 * n, 8, more=n < 39)
            host.rcv(NetifReceive.ip_rcv, stale(host, skb) if n == 20 else skb)
    assert host.dropped("SKBUS_STALE_PLACE") == host.net.mib["IpReasmFails"] == 2
    assert host.net.mib["IpReasmOKs"] == 0


def test_a_broadcast_is_not_told_of(host: IpHost) -> None:
    host.learn()
    skb = piece(0, 16)
    skb.pkt_type = PACKET_BROADCAST
    assert defrag(host, skb) is None
    host.run_for(31)
    assert host.packets() == []


def test_df_stays_with_each_fragment(host: IpHost) -> None:
    host.learn()
    skb = piece(0, 2000, frag_off=IP_DF)
    skb.data = skb.network_header
    cut(host, skb, 1500)
    assert [iph.frag_off for iph in headers(host)] == [IP_DF | IP_MF, IP_DF | 185]
