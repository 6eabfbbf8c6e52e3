# SPDX-License-Identifier: MIT
"""Cutting and putting together; who owns the slots meanwhile; bounds."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.abi import XmitCb
from skbus.core.checksum import csum_partial, csum_tcpudp_magic, csum_tcpudp_nofold
from skbus.core.interfaces import Ip, NetifReceive, TcpProtocol, UdpProtocol
from skbus.core.skbuff import CHECKSUM_PARTIAL, SkBuff
from skbus.inet.headers import icmp, ipv4, udp
from skbus.inet.headers.ipv4 import IP_DF, IP_MF
from skbustest.iphost import PEER, US, IpHost
from skbustest.packets import frame_skb, ip_skb

MakeHost = Callable[..., IpHost]


def big(host: IpHost, data: bytes, *, pieces: int = 1, lent: bool = False) -> SkBuff:
    """A UDP datagram with its payload in pool slots and its checksum left to the device."""
    header = udp.build(1, 2, 8 + len(data), csum_tcpudp_nofold(US, PEER, 8 + len(data), 17))
    size = -(-len(data) // pieces)
    places = tuple(host.alloc.put(data[i : i + size]) for i in range(0, len(data), size))
    assert all(places)
    skb = SkBuff(header, places, lent=lent)  # type: ignore[arg-type]
    skb.ip_summed, skb.csum_start, skb.csum_offset = CHECKSUM_PARTIAL, 0, 6
    skb.cb = XmitCb(US, PEER, 17, 0, 0, False, 0, b"")
    return skb


def fragment(
    data: bytes, at: int, size: int, *, id: int = 7, protocol: int = 17, last: bool | None = None
) -> SkBuff:
    """Bytes at..at+size of a datagram's payload, as a fragment that arrives."""
    more = at + size < len(data) if last is None else not last
    return ip_skb(
        data[at : at + size], PEER, US, protocol, id=id, frag_off=at >> 3 | (IP_MF if more else 0)
    )


# ---- cutting -----------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_long_datagram_is_cut(host: IpHost, pieces: int) -> None:
    host.learn()
    data = Random(1).randbytes(6000)
    host.rcv(Ip.ip_send_skb, big(host, data, pieces=pieces))
    frames = host.frames()
    assert [skb.lent for skb in frames] == [True] * 4 + [False]
    assert len({skb.id for skb in frames}) == 1
    whole = b""
    for skb in frames:
        raw = host.net.skb_bytes(skb)[14:]
        iph = ipv4.parse(raw)
        assert ipv4.ip_fast_csum_ok(raw, 0, 20)
        assert len(raw) == iph.tot_len <= 1500
        assert (iph.frag_off & 0x1FFF) << 3 == len(whole)
        assert bool(iph.frag_off & IP_MF) == (skb is not frames[-1])
        whole += raw[20:]
    assert whole[8:] == data
    assert csum_tcpudp_magic(US, PEER, len(whole), 17, csum_partial(whole)) == 0
    assert host.net.mib["IpFragOKs"] == 1
    assert host.net.mib["IpFragCreates"] == 5
    host.pool.free_frags(frames[-1].frags)
    assert host.alloc.in_use() == 0
    assert host.pool.late == 0


def test_fragments_of_a_lent_packet_are_lent(host: IpHost) -> None:
    host.learn()
    host.rcv(Ip.ip_send_skb, big(host, bytes(4000), lent=True))
    assert [skb.lent for skb in host.frames()] == [True] * 3


def test_fragments_that_wait_for_arp_free_all_when_it_fails(host: IpHost) -> None:
    host.rcv(Ip.ip_send_skb, big(host, bytes(4000), pieces=2))
    assert host.core.held() == 3
    host.run_for(5)
    assert host.dropped("NEIGH_FAILED") == 3
    assert host.alloc.in_use() == 0


def test_df_is_not_cut(host: IpHost) -> None:
    host.learn()
    skb = SkBuff(bytes(2000), cb=XmitCb(US, PEER, 6, 0, 0, True, 0, b""))
    host.rcv(Ip.ip_queue_xmit, skb)
    (error,) = host.out("tcp", TcpProtocol.tcp_v4_err)
    assert (error.type, error.code, error.info) == (3, icmp.ICMP_FRAG_NEEDED, 1500)
    assert host.dropped("PKT_TOO_BIG") == 1
    assert host.net.mib["IpFragFails"] == 1


def test_options_of_later_fragments(host: IpHost) -> None:
    host.learn()
    rr_and_ra = b"\x07\x07\x04\0\0\0\0\x94\x04\0\0"
    skb = SkBuff(bytes(2000), cb=XmitCb(US, PEER, 17, 0, 0, False, 0, rr_and_ra))
    host.rcv(Ip.ip_send_skb, skb)
    first, second = host.packets()
    # we are the first of the recorded route (ip_options_build)
    assert first[0].options == b"\x07\x07\x08" + US + b"\x94\x04\0\0\0"
    assert second[0].options == b"\x01" * 7 + b"\x94\x04\0\0" + b"\0"


def test_a_gso_packet_is_not_cut(host: IpHost) -> None:
    host.learn()
    skb = SkBuff(bytes(12) + b"\x50" + bytes(7) + bytes(40000))
    skb.gso_size, skb.gso_segs, skb.gso_type = 1460, 28, 1
    skb.cb = XmitCb(US, PEER, 6, 0, 0, True, 0, b"")
    host.rcv(Ip.ip_queue_xmit, skb)
    ((iph, _),) = host.packets()
    assert iph.tot_len == 40040
    skb = SkBuff(bytes(12) + b"\x50" + bytes(7) + bytes(40000))
    skb.gso_size, skb.gso_segs, skb.gso_type = 1461, 28, 1
    skb.cb = XmitCb(US, PEER, 6, 0, 0, True, 0, b"")
    host.rcv(Ip.ip_queue_xmit, skb)
    assert host.packets() == []
    assert host.net.mib["IpFragFails"] == 1


# ---- putting together --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_any_order(host: IpHost, seed: int) -> None:
    data = Random(99).randbytes(9000)
    parts = [(at, min(1480, len(data) - at)) for at in range(0, len(data), 1480)]
    Random(seed).shuffle(parts)
    for at, size in parts:
        assert host.out("udp") == []
        host.rcv(NetifReceive.ip_rcv, fragment(data, at, size))
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert host.net.skb_bytes(skb) == data
    iph = ipv4.parse(skb.head, skb.network_header)
    assert (iph.tot_len, iph.frag_off, skb.len) == (9020, 0, 9000)
    assert ipv4.ip_fast_csum_ok(skb.head, skb.network_header, 20)
    assert skb.cb.saddr == PEER
    assert host.net.mib["IpReasmOKs"] == 1
    assert host.net.mib["IpReasmReqds"] == 7
    assert host.core.held() == host.ip.frag_mem == 0


def test_pool_places_are_not_copied(host: IpHost) -> None:
    data = Random(3).randbytes(4000)
    for at in (0, 1480, 2960):
        whole = fragment(data, at, min(1480, 4000 - at))
        place = host.alloc.put(whole.head[34:])
        assert place is not None
        skb = frame_skb(whole.head[:34])
        skb.frags, skb.data_len = (place,), place[4]
        host.rcv(NetifReceive.ip_rcv, skb)
    (got,) = host.out("udp", UdpProtocol.udp_rcv)
    assert [type(f) for f in got.frags] == [tuple] * 3
    assert host.net.skb_bytes(got) == data
    host.pool.free_frags(got.frags)
    assert host.alloc.in_use() == 0


def test_many_pieces_become_one(host: IpHost) -> None:
    data = Random(3).randbytes(800)
    for at in range(0, 800, 16):
        host.rcv(NetifReceive.ip_rcv, fragment(data, at, 16))
    (got,) = host.out("udp", UdpProtocol.udp_rcv)
    assert len(got.frags) == 1
    assert host.net.skb_bytes(got) == data
    host.pool.free_frags(got.frags)
    assert host.alloc.in_use() == 0


def test_a_small_fragment_does_not_keep_a_big_slot(host: IpHost) -> None:
    slot = host.alloc.alloc(60000)
    assert slot is not None
    skb = frame_skb(fragment(bytes(64), 0, 16, last=False).head[:34])
    skb.frags, skb.data_len = ((7, slot[0], slot[1], 0, 16),), 16
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.core.held() == 1
    assert host.alloc.in_use() == 0


def test_duplicates_are_dropped(host: IpHost) -> None:
    data = bytes(3000)
    host.rcv(NetifReceive.ip_rcv, fragment(data, 0, 1480))
    host.rcv(NetifReceive.ip_rcv, fragment(data, 0, 1480))
    assert host.dropped("DUP_FRAG") == 1
    host.rcv(NetifReceive.ip_rcv, fragment(data, 1480, 1480))
    host.rcv(NetifReceive.ip_rcv, fragment(data, 2960, 40))
    assert len(host.out("udp", UdpProtocol.udp_rcv)) == 1


WHOLE = [(0, 16), (16, 16), (32, 16), (48, 16)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "again", [(0, 32), (8, 16), (0, 64), (16, 48), (32, 32), (40, 8), (8, 56), (24, 16)]
)
def test_what_has_all_come_is_a_duplicate_in_any_cut(
    host: IpHost, seed: int, again: tuple[int, int]
) -> None:
    """Compared with the run of adjacent fragments, not with one: RFC 5722, erratum 3089."""
    data = bytes(range(72))
    order = [*WHOLE]
    Random(seed).shuffle(order)
    for at, size in order:
        host.rcv(NetifReceive.ip_rcv, fragment(data, at, size))
    host.rcv(NetifReceive.ip_rcv, fragment(data, *again))
    assert host.dropped("DUP_FRAG") == 1
    host.rcv(NetifReceive.ip_rcv, fragment(data, 64, 8))
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert host.net.skb_bytes(skb) == data
    assert not host.net.mib["IpReasmFails"]


def test_a_tail_in_another_cut(host: IpHost) -> None:
    data = bytes(range(64))
    for at, size in ((32, 16), (48, 16), (32, 32), (48, 16), (0, 32)):
        host.rcv(NetifReceive.ip_rcv, fragment(data, at, size))
    assert host.dropped("DUP_FRAG") == 2
    assert len(host.out("udp", UdpProtocol.udp_rcv)) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 16), (24, 8), (0, 32)],  # over a gap
        [(0, 16), (16, 16), (8, 32)],  # beyond the run
        [(8, 16), (24, 8), (0, 16)],
        [(0, 16), (24, 8), (16, 16)],
    ],
)
def test_what_is_partly_new_is_an_overlap(host: IpHost, parts: list[tuple[int, int]]) -> None:
    for at, size in parts:
        host.rcv(NetifReceive.ip_rcv, fragment(bytes(100), at, size))
    assert host.net.mib["IpExtReasmOverlaps"] == host.net.mib["IpReasmFails"] == 1
    assert host.ip.ip4_frags == {}


def test_an_empty_fragment_ends_the_datagram(host: IpHost) -> None:
    """As in Linux, whether others wait or not."""
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(64), 0, 0, last=False))
    assert host.ip.ip4_frags == {}
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(64), 0, 32))
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(64), 32, 0, last=False))
    assert host.ip.ip4_frags == {}
    assert host.net.mib["IpReasmFails"] == 2
    assert host.dropped("IP_INHDR") == 3


@pytest.mark.parametrize(("between", "far"), [(64, 64), (65, 64), (9, 8), (8, 8), (900, 0)])
def test_an_identification_that_comes_back_is_not_mixed_up(
    make_host: MakeHost, between: int, far: int
) -> None:
    """`ipfrag_max_dist`: with so many fragments of others between (RFC 4963)."""
    host = make_host(sysctl={"net.ipv4.ipfrag_max_dist": far})
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(64), 0, 32, id=7))
    for n in range(between - 1):
        host.rcv(NetifReceive.ip_rcv, fragment(bytes(64), 0, 32, id=100 + n))
    host.rcv(NetifReceive.ip_rcv, fragment(b"x" * 64, 32, 32, id=7))
    mixed = not far or between <= far
    assert len(host.out("udp", UdpProtocol.udp_rcv)) == mixed
    assert host.dropped("FRAG_TOO_FAR") == host.net.mib["IpReasmFails"] == (not mixed)
    if not mixed:
        host.rcv(NetifReceive.ip_rcv, fragment(b"x" * 64, 0, 32, id=7))
        (skb,) = host.out("udp", UdpProtocol.udp_rcv)
        assert host.net.skb_bytes(skb) == b"x" * 64


@pytest.mark.parametrize(
    "parts", [[(0, 1480), (1472, 800)], [(1480, 800), (0, 1488)], [(8, 800), (0, 816)]]
)
def test_an_overlap_ends_the_datagram(host: IpHost, parts: list[tuple[int, int]]) -> None:
    data = bytes(3000)
    for at, size in parts:
        host.rcv(NetifReceive.ip_rcv, fragment(data, at, size))
    assert host.dropped("DUP_FRAG") == 2
    assert host.net.mib["IpExtReasmOverlaps"] == 1
    assert host.ip.ip4_frags == {}


def test_contradictory_ends(host: IpHost) -> None:
    data = bytes(3000)
    host.rcv(NetifReceive.ip_rcv, fragment(data, 800, 80, last=True))
    host.rcv(NetifReceive.ip_rcv, fragment(data, 1600, 80, last=False))  # beyond the end
    assert host.dropped("IP_INHDR") == 2
    assert host.net.mib["IpReasmFails"] == 1
    assert host.ip.ip4_frags == {}


def test_too_long(host: IpHost) -> None:
    skb = ip_skb(bytes(800), PEER, US, 17, id=7, frag_off=0x1FFF)
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.dropped("IP_INHDR") == 1
    assert host.ip.ip4_frags == {}


def test_what_is_missing_is_not_waited_for_for_ever(host: IpHost) -> None:
    host.learn()
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(3000), 0, 1480))
    host.rcv(NetifReceive.ip_rcv, fragment(bytes(3000), 1480, 1480, id=8))  # without its beginning
    host.run_for(32)
    assert host.core.held() == 0
    assert host.dropped("FRAG_REASM_TIMEOUT") == 2
    assert host.net.mib["IpReasmTimeout"] == 2
    host.run_for(5)
    messages = [m for iph, m in host.packets() if iph.protocol == 1]
    assert len(messages) == 1
    hdr = icmp.parse(messages[0])
    assert (hdr.type, hdr.code) == (icmp.ICMP_TIME_EXCEEDED, icmp.ICMP_EXC_FRAGTIME)


def test_memory_is_bounded(make_host: MakeHost) -> None:
    host = make_host(
        sysctl={"net.ipv4.ipfrag_high_thresh": 100_000, "net.ipv4.ipfrag_low_thresh": 75_000}
    )
    for n in range(500):
        host.rcv(NetifReceive.ip_rcv, fragment(bytes(3000), 0, 1480, id=n))
        assert host.ip.frag_mem <= 102_100
    assert host.dropped("NOMEM") == host.net.mib["IpReasmFails"] > 400
    assert min(key[2] for key in host.ip.ip4_frags) > 400  # the oldest went


def test_ecn_of_the_whole(host: IpHost) -> None:
    def two(first: int, second: int) -> list[SkBuff]:
        data = bytes(24)
        for n, (at, tos) in enumerate(((0, first), (16, second))):
            skb = ip_skb(
                data[at : at + 16],
                PEER,
                US,
                17,
                id=9,
                tos=tos,
                frag_off=at >> 3 | (0 if n else IP_MF),
            )
            host.rcv(NetifReceive.ip_rcv, skb)
        return host.out("udp", UdpProtocol.udp_rcv)

    assert two(2, 3)[0].cb[2] == 3
    assert two(0, 3) == []  # RFC 3168 5.3
    assert host.net.mib["IpReasmFails"] == 1


def test_a_fragmented_ping_is_answered_in_fragments(host: IpHost) -> None:
    host.learn()
    data = Random(5).randbytes(20000)
    ping = icmp.build_message(icmp.ICMP_ECHO, 0, 0x00010002, data)
    for at in range(0, len(ping), 1480):
        host.rcv(NetifReceive.ip_rcv, fragment(ping, at, min(1480, len(ping) - at), protocol=1))
    got = host.packets()
    assert len(got) == 14
    message = b"".join(payload for _, payload in got)
    assert csum_partial(message) == 0xFFFF
    assert icmp.parse(message).type == icmp.ICMP_ECHOREPLY
    assert message[8:] == data
    assert host.alloc.in_use() == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), max_size=30))
def test_arbitrary_fragments_never_make_a_wrong_datagram(
    parts: list[tuple[int, int, bool]],
) -> None:
    host = IpHost()
    data = bytes(range(1, 256)) * 3
    for at, size, last in parts:
        host.rcv(NetifReceive.ip_rcv, fragment(data, at * 8, size * 8, last=last))
    for skb in host.out("udp", UdpProtocol.udp_rcv):
        assert data.startswith(host.net.skb_bytes(skb))
    host.run_for(40)
    assert host.core.held() == host.ip.frag_mem == 0


def test_df_fragments_are_put_together(host: IpHost) -> None:
    for at, flags in ((0, IP_MF | IP_DF), (16, IP_DF)):
        host.rcv(
            NetifReceive.ip_rcv, ip_skb(bytes(16), PEER, US, 17, id=3, frag_off=at >> 3 | flags)
        )
    (skb,) = host.out("udp", UdpProtocol.udp_rcv)
    assert ipv4.parse(skb.head, skb.network_header).frag_off == IP_DF
