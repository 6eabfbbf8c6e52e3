# SPDX-License-Identifier: MIT
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    MAX_SKB_FRAGS,
    SKB_GSO_TCPV4,
    SkBuff,
)
from skbus.inet.headers import ipv4, tcp
from skbusd.nic.eth import VIRTIO_NET_HDR, napi_build_skb
from skbusd.nic.gro import INET_OFFLOADS, napi_gro_flush, napi_gro_receive
from skbusd.nic.gso import skb_gso_segment
from skbustest.nicrig import NicRig, checksums_right, data, datagram, eth_ip, segment, vnet

MSS = 1000


def train(n: int, last: int = MSS, seq: int = 1000, **fields: Any) -> list[bytes]:
    """n segments of MSS bytes, the last of `last`."""
    return [
        segment(
            data(MSS if i < n - 1 else last, i),
            seq=(seq + i * MSS) & 0xFFFFFFFF,
            id=i + 1,
            **fields,
        )
        for i in range(n)
    ]


def test_a_train_becomes_one_super_segment() -> None:
    rig = NicRig()
    (skb,) = rig.receive(*train(10, last=300))
    assert skb.data_len == 9300
    assert (skb.gso_size, skb.gso_segs, skb.gso_type) == (MSS, 10, SKB_GSO_TCPV4)
    assert (skb.ip_summed, skb.csum_start, skb.csum_offset) == (CHECKSUM_PARTIAL, 34, 16)
    assert rig.net.pool.gather(skb.frags) == b"".join(data(MSS, i) for i in range(9)) + data(300, 9)
    ip = ipv4.parse(skb.head, 14)
    assert ip.tot_len == 52 + 9300
    assert ipv4.ip_fast_csum_ok(skb.head, 14, 20)
    assert tcp.parse(skb.head, 34).seq == 1000
    assert rig.net.mib["DevGroPackets"] == 1
    assert rig.net.mib["DevGroMerged"] == 9
    assert rig.net.skb_consumed == 9
    assert rig.conserved()


def test_cut_again_it_is_the_train_that_came() -> None:
    rig = NicRig()
    frames = train(10, last=300)
    frames[-1] = segment(data(300, 9), seq=1000 + 9 * MSS, id=10, flags=0x18)
    (skb,) = rig.receive(*frames)
    skb.data = 0
    segments = [seg.head for seg in skb_gso_segment(rig.net, skb)]
    assert segments == frames
    assert all(checksums_right(frame) for frame in segments)


def test_sequence_numbers_wrap() -> None:
    rig = NicRig()
    (skb,) = rig.receive(*train(4, seq=2**32 - 1500))
    assert skb.gso_segs == 4


def test_fin_and_psh_of_the_last_are_kept() -> None:
    rig = NicRig()
    frames = train(2)
    frames.append(segment(data(10), seq=1000 + 2 * MSS, flags=0x19))
    (skb,) = rig.receive(*frames)
    assert tcp.parse(skb.head, 34).flags == 0x19
    assert skb.gso_segs == 3


def test_psh_ends_a_super_segment() -> None:
    rig = NicRig()
    frames = train(6)
    frames[2] = segment(data(MSS, 2), seq=1000 + 2 * MSS, flags=0x18)
    assert [skb.gso_segs for skb in rig.receive(*frames)] == [3, 3]


def test_a_short_segment_ends_a_super_segment() -> None:
    rig = NicRig()
    frames = [segment(data(n), seq=seq) for n, seq in ((1000, 0), (500, 1000), (1000, 1500))]
    assert [skb.data_len for skb in rig.receive(*frames)] == [1500, 1000]


def test_a_longer_segment_is_not_joined() -> None:
    rig = NicRig()
    frames = [segment(data(1000), seq=0), segment(data(1400), seq=1000)]
    assert [skb.data_len for skb in rig.receive(*frames)] == [1000, 1400]


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 1000 + MSS + 1},
        {"ack": 2},
        {"window": 501},
        {"tos": 3},
        {"ttl": 63},
        {"frag_off": 0, "id": 1},
        {"flags": 0x90},
        {"flags": 0x50},
        {"options": b"\x01\x01\x08\x0a\0\0\0\5\0\0\0\2"},
        {"options": b""},
        {"sport": 5001},
    ],
)
def test_what_differs_is_not_joined(fields: dict[str, Any]) -> None:
    rig = NicRig()
    second = segment(data(MSS), **{"seq": 1000 + MSS, **fields})
    got = rig.receive(segment(data(MSS), seq=1000), second)
    assert [skb.data_len for skb in got] == [MSS, MSS]
    assert rig.net.mib["DevGroMerged"] == 0


@pytest.mark.parametrize("frag_off", [0, ipv4.IP_DF])
def test_without_df_the_id_must_go_on(frag_off: int) -> None:
    rig = NicRig()
    frames = [segment(data(MSS, i), seq=i * MSS, id=7, frag_off=frag_off) for i in range(2)]
    assert len(rig.receive(*frames)) == (1 if frag_off else 2)
    frames = [segment(data(MSS, i), seq=i * MSS, id=7 + i, frag_off=frag_off) for i in range(2)]
    assert len(rig.receive(*frames)) == 1


def test_duplicate_acks_and_syns_are_passed_one_by_one_and_do_not_overtake() -> None:
    rig = NicRig()
    frames = [
        segment(data(MSS), seq=1000),
        segment(seq=2000, ack=6),
        segment(seq=2000, ack=6),
        segment(data(MSS), seq=2000, ack=6),
        segment(seq=3000, flags=0x02),
    ]
    got = rig.receive(*frames)
    assert [tcp.parse(skb.head, 34).ack_seq for skb in got] == [1, 6, 6, 6, 1]


def test_flows_are_kept_apart_and_in_the_order_of_their_beginning() -> None:
    rig = NicRig()
    frames = []
    for i in range(4):
        frames += [
            segment(data(MSS, i), seq=i * MSS, sport=1),
            segment(data(MSS, 9 + i), seq=i * MSS, sport=2),
        ]
    a, b = rig.receive(*frames)
    assert (a.gso_segs, b.gso_segs) == (4, 4)
    assert tcp.parse(a.head, 34).source == 1
    assert rig.net.pool.gather(b.frags) == b"".join(data(MSS, 9 + i) for i in range(4))


def test_nothing_is_held_beyond_the_batch() -> None:
    rig = NicRig()
    assert len(rig.receive(segment(data(MSS), seq=1000))) == 1
    assert rig.core.held() == 0
    assert len(rig.receive(segment(data(MSS), seq=2000))) == 1


def test_limits_of_frags_and_of_length() -> None:
    rig = NicRig()
    got = rig.receive(*train(MAX_SKB_FRAGS + 3))
    assert [len(skb.frags) for skb in got] == [MAX_SKB_FRAGS, 3]
    rig = NicRig(classes=((66560, 16),))
    frames = [segment(data(64000, i), seq=1000 + i * 64000, id=i + 1) for i in range(9)]
    got = rig.receive(*frames)
    assert [skb.data_len for skb in got] == [8 * 64000, 64000]
    # BIG TCP: IPv4's total length cannot tell, and says 0; the header's checksum is right
    whole, rest = (skb.head[14:34] for skb in got)
    assert (whole[2:4], rest[2:4]) == (b"\0\0", (64000 + 52).to_bytes(2, "big"))
    assert int.from_bytes(whole, "big") % 0xFFFF == 0
    assert ipv4.parse(whole, 0, got[0].len).tot_len == got[0].len


def test_a_push_ends_small_segments_but_not_a_senders_super_segments() -> None:
    for size, want in ((1000, [2000, 1000]), (60000, [180000])):
        rig = NicRig()
        frames = [
            segment(data(size, i), seq=1000 + i * size, id=i + 1, flags=0x18 if i == 1 else 0x10)
            for i in range(3)
        ]
        got = rig.receive(*frames)
        assert [skb.data_len for skb in got] == want
        assert got[0].head[47] == 0x18


def test_super_segments_of_the_sender_are_joined() -> None:
    rig = NicRig()
    frames = [segment(data(4 * MSS, i), seq=1000 + i * 4 * MSS) for i in range(3)]
    (skb,) = rig.receive(*frames, vnet=vnet(flags=1, gso_type=1, gso_size=MSS))
    assert (skb.gso_segs, skb.data_len, len(skb.frags)) == (12, 12 * MSS, 3)
    assert rig.conserved()


def test_a_super_segment_with_a_short_tail_is_the_end() -> None:
    rig = NicRig()
    frames = [segment(data(4500), seq=1000), segment(data(4000), seq=5500)]
    got = rig.receive(*frames, vnet=vnet(flags=1, gso_type=1, gso_size=MSS))
    assert [skb.data_len for skb in got] == [4500, 4000]


def test_small_linear_segments_are_joined() -> None:
    rig = NicRig()
    frames = [segment(data(100, i), seq=1000 + i * 100) for i in range(5)]
    (skb,) = rig.receive(*frames)
    assert len(skb.head) == 66
    assert rig.net.pool.gather(skb.frags) == b"".join(data(100, i) for i in range(5))
    assert skb.data_len == 500


@pytest.mark.parametrize("at", [24, 40, 60, 400])
def test_damaged_segments_stay_single(at: int) -> None:
    rig = NicRig()
    frames = train(3)
    damaged = bytearray(frames[1])
    damaged[at] ^= 4
    got = rig.receive(frames[0], bytes(damaged), frames[2])
    assert len(got) == 3
    assert got[1].ip_summed == CHECKSUM_NONE


def test_padding_is_not_payload() -> None:
    rig = NicRig()
    short = segment(b"abc", seq=1000, options=b"") + bytes(3)
    got = rig.receive(short, segment(b"defghi", seq=1003, options=b""))
    assert len(got) == 2


def test_other_protocols_pass_untouched() -> None:
    rig = NicRig()
    got = rig.receive(eth_ip(data(MSS), 132), eth_ip(data(MSS), 132))
    assert [skb.gso_size for skb in got] == [0, 0]


@given(st.lists(st.integers(1, 3 * MSS), min_size=1, max_size=12), st.data())
def test_no_byte_is_lost_or_moved(sizes: list[int], draw: st.DataObject) -> None:
    rig = NicRig()
    frames, seq = [], 2**32 - 2000
    stream = data(sum(sizes))
    at = 0
    for size in sizes:
        flags = draw.draw(st.sampled_from([0x10, 0x18]))
        frames.append(segment(stream[at : at + size], seq=(seq + at) & 0xFFFFFFFF, flags=flags))
        at += size
    got = rig.receive(*frames)
    out = b""
    for skb in got:
        hdr = tcp.parse(skb.head, 34)
        assert hdr.seq == (seq + len(out)) & 0xFFFFFFFF
        skb.data = 34 + hdr.doff
        out += rig.net.skb_bytes(skb)
        assert len(skb.frags) <= MAX_SKB_FRAGS
    assert out == stream
    assert rig.conserved()


# ---- ACKs ------------------------------------------------------------------------------------

SACK = b"\x01\x01\x05\x0a\0\0\0\x01\0\0\0\x02"
FILLED = b"\x01\x01\x08\x0a\0\0\0\x05\0\0\0\x09"


def test_acks_in_a_row_become_the_last_of_them() -> None:
    rig = NicRig()
    acks = [segment(ack=ack, window=ack & 0xFF) for ack in (0xFFFFFF00, 0xFFFFFFF0, 5, 2000)]
    acks.append(segment(ack=3000, options=FILLED))
    (skb,) = rig.receive(*acks)
    th = tcp.parse(skb.head, 34)
    assert (th.ack_seq, th.window) == (3000, 500)
    assert skb.head[54:66] == FILLED
    assert skb.gso_segs == 5
    assert rig.net.mib["DevGroMerged"] == 4
    assert rig.net.skb_consumed == 4
    assert rig.conserved()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ack": 9}, {"ack": 9}),  # a duplicate, or news of the window
        ({"ack": 9}, {"ack": 8}),
        ({"ack": 9}, {"ack": 0x80000009}),
        ({"ack": 9}, {"ack": 10, "flags": 0x11}),
        ({"ack": 9}, {"ack": 10, "flags": 0x50}),
        ({"ack": 9, "flags": 0x50}, {"ack": 10, "flags": 0x50}),
        ({"ack": 9}, {"ack": 10, "options": SACK}),
        ({"ack": 9, "options": SACK}, {"ack": 10}),
        ({"ack": 9, "options": b""}, {"ack": 10}),
        ({"ack": 9}, {"ack": 10, "seq": 1001}),
        ({"ack": 9}, {"ack": 10, "sport": 5001}),
        ({"ack": 9}, {"ack": 10, "tos": 3}),
        ({"ack": 9}, {"ack": 10, "check": 1}),
    ],
)
def test_acks_that_each_say_something_stay(before: dict[str, Any], after: dict[str, Any]) -> None:
    rig = NicRig()
    skbs = rig.receive(segment(**before), segment(**after))
    assert [skb.gso_segs for skb in skbs] == [0, 0]
    assert rig.conserved()


def test_acks_do_not_pass_data_and_stay_where_they_are_forwarded() -> None:
    rig = NicRig()
    skbs = rig.receive(segment(ack=9), segment(data(100)), segment(ack=10, seq=1100))
    assert [skb.len - 52 for skb in skbs] == [0, 100, 0]
    rig.net.sysctl["net.ipv4.ip_forward"] = 1
    assert len(rig.receive(segment(ack=11), segment(ack=12))) == 2


# ---- without an skb for each frame -----------------------------------------------------------

SUPER = vnet(flags=1, gso_type=1, gso_size=MSS)
LATER = b"\x01\x01\x08\x0a\0\0\0\x05\0\0\0\x02"
EARLIER = b"\x01\x01\x08\x0a\0\0\0\0\0\0\0\x02"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"flags": 0x18},
        {"flags": 0x11},
        {"flags": 0x50},
        {"ack": 2},
        {"window": 501},
        {"options": FILLED},
        {"tos": 2},
        {"ttl": 63},
        {"seq": 7},
        {"sport": 5001},
        {"options": LATER},
        {"options": EARLIER},
    ],
)
def test_a_frame_that_is_joined_without_an_skb_gives_what_one_with_an_skb_gives(
    odd: dict[str, Any],
) -> None:
    """While somebody traces, each frame is an skb first."""
    found = []
    for tracing in (False, True):
        rig = NicRig()
        rig.net.tracing = tracing
        frames = [segment(data(40 * MSS, i), seq=1000 + i * 40 * MSS, id=i) for i in range(6)]
        frames[3] = segment(data(40 * MSS, 3), **({"seq": 1000 + 120 * MSS, "id": 3} | odd))
        skbs = rig.receive(*frames, vnet=SUPER)
        found.append(
            [
                (
                    skb.head, rig.net.pool.gather(skb.frags), skb.data_len, skb.gso_size,
                    skb.gso_segs, skb.gso_type, skb.ip_summed, skb.csum_start, skb.csum_offset,
                    skb.pkt_type, skb.protocol, skb.vlan_tci,
                )
                for skb in skbs
            ]
        )  # fmt: skip
        assert rig.conserved()
        assert rig.net.mib["DevRxPackets"] == 6
        assert rig.net.skb_born == 6 if tracing else rig.net.skb_born < 6
    assert found[0] == found[1]
    joined: tuple[dict[str, Any], ...] = ({}, {"flags": 0x18}, {"options": LATER})
    assert (len(found[0]) == 1) == (odd in joined)


def test_where_packets_are_forwarded_each_timestamp_is_kept() -> None:
    rig = NicRig()
    frames = [
        segment(data(40 * MSS), seq=1000, id=0),
        segment(data(40 * MSS), seq=1000 + 40 * MSS, id=1, options=LATER),
    ]
    assert [skb.gso_segs for skb in rig.receive(*frames, vnet=SUPER)] == [80]
    rig.net.sysctl["net.ipv4.ip_forward"] = 1
    assert len(rig.receive(*frames, vnet=SUPER)) == 2


VERIFIED = vnet(flags=2)
STRANGERS = (
    eth_ip(bytes(64), 1),  # ICMP
    eth_ip(bytes(64), 47),
    eth_ip(bytes(64), 6, frag_off=ipv4.IP_MF),
    eth_ip(bytes(64), 17, frag_off=3),
    eth_ip(bytes(64), 6, options=bytes((1, 1, 1, 0))),
    segment(data(64))[:12] + b"\x81\0\0\1" + segment(data(64))[12:],
    segment(data(64))[:12] + b"\x86\xdd" + segment(data(64))[14:],
    segment(data(64))[:40],
    bytes(64),
)


@pytest.mark.parametrize("frame", STRANGERS)
@pytest.mark.parametrize("protocol", INET_OFFLOADS)
def test_the_table_of_offloads(protocol: int, frame: bytes) -> None:
    """Whoever is asked, in whatever state: a frame that is none of its flows' is not claimed."""
    claim = INET_OFFLOADS[protocol].gro_frame
    fields = VIRTIO_NET_HDR.unpack(VERIFIED)
    for before in ((), (segment(ack=7),), tuple(train(2)), (datagram(data(64)),)):
        rig = NicRig()
        deliver: list[SkBuff] = []
        for held in before:
            skb, _ = napi_build_skb(rig.net, held, len(held), fields, None)
            napi_gro_receive(rig.net, skb, deliver)
        room = memoryview(bytearray(2048))
        room[: len(frame)] = frame
        count = (len(deliver), len(rig.net.gro_hash), len(rig.net.udp_gro))
        assert not claim(rig.net, room, len(frame), fields, None, -1, deliver)
        assert (len(deliver), len(rig.net.gro_hash), len(rig.net.udp_gro)) == count
        # an skb of it is delivered, and what is held goes up at the batch's end
        skb, _ = napi_build_skb(rig.net, frame, len(frame), fields, None)
        napi_gro_receive(rig.net, skb, deliver)
        napi_gro_flush(rig.net, deliver)
        assert (rig.net.gro_hash, rig.net.udp_gro) == ({}, {})
        assert skb in deliver
