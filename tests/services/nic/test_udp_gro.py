# SPDX-License-Identifier: MIT
"""Datagrams of one flow that go up as one skb, and come apart as they came."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.inet.headers import ipv4, udp
from skbus.inet.udp_offload import udp_gso_segment
from skbusd.nic.gso import skb_gso_segment
from skbustest.nicrig import OUR_MAC, NicRig, checksums_right, data, datagram, eth_ip, vnet

BATCH = SKB_GSO_UDP_L4 | SKB_GSO_BATCH


def train(sizes: list[int], **fields: Any) -> list[bytes]:
    return [datagram(data(size, i), id=i + 1, **fields) for i, size in enumerate(sizes)]


def apart(rig: NicRig, skbs: list[SkBuff]) -> list[bytes]:
    """The frames again: cut by nic; and by what ip and udp do, which must be the same."""
    frames = []
    for skb in skbs:
        skb.data = 0
        if not skb.gso_size:
            frames.append(rig.net.skb_bytes(skb))
            continue
        mine = [seg.head for seg in skb_gso_segment(rig.net, skb)]
        assert skb.gso_segs == len(mine)
        skb.transport_header = 34
        rig.net.skb_received += 1
        theirs = udp_gso_segment(rig.net, skb)
        assert [s.head for s in theirs] == mine
        rig.net.skb_consumed += len(mine) + len(theirs)
        frames += mine
    return frames


@pytest.mark.parametrize("tracing", [False, True])
@pytest.mark.parametrize(("size", "last"), [(64, 64), (64, 3), (256, 255), (1000, 1000), (1472, 1)])
def test_a_train_becomes_one(tracing: bool, size: int, last: int) -> None:
    """With tracing, every frame becomes an skb first."""
    rig = NicRig()
    rig.net.tracing = tracing
    frames = train([size] * 9 + [last])
    (skb,) = rig.receive(*frames)
    assert (skb.gso_size, skb.gso_segs, skb.gso_type) == (size, 10, BATCH)
    assert (skb.ip_summed, skb.csum_start, skb.csum_offset) == (CHECKSUM_PARTIAL, 34, 6)
    assert ipv4.ip_fast_csum_ok(skb.head, 14, 20)
    total = 9 * size + last
    assert ipv4.parse(skb.head, 14).tot_len == 28 + total
    assert udp.parse(skb.head, 34).len == 8 + total
    assert skb.len == 28 + total
    assert (rig.net.mib["DevGroPackets"], rig.net.mib["DevGroMerged"]) == (1, 9)
    assert rig.net.mib["DevRxPackets"] == 10
    assert rig.net.mib["DevRxBytes"] == sum(map(len, frames))
    assert apart(rig, [skb]) == frames
    assert rig.conserved()
    assert rig.alloc.in_use() <= 1  # the slot for the next frame


def test_one_is_left_alone() -> None:
    rig = NicRig()
    (skb,) = rig.receive(datagram(data(100)))
    assert (skb.gso_size, skb.gso_type, skb.len) == (0, 0, 128)
    assert not rig.net.mib["DevGroPackets"]


BAD = bytearray(datagram(data(100, 1), id=2))
BAD[60] ^= 1
NO_CHECK = datagram(data(100, 1), id=2)
NO_CHECK = NO_CHECK[:40] + b"\0\0" + NO_CHECK[42:]
BAD_IP = bytearray(datagram(data(100, 1), id=2))
BAD_IP[24] ^= 1
SHORT = datagram(data(100, 1), id=2)
SHORT = SHORT[:38] + (50).to_bytes(2, "big") + SHORT[40:]


@pytest.mark.parametrize(
    "middle",
    [
        datagram(data(100, 1), id=2, ttl=63),
        datagram(data(100, 1), id=2, tos=4),
        datagram(data(100, 1), id=2, frag_off=0),
        datagram(data(100, 1), id=7),
        datagram(b"", id=2),
        bytes(BAD),
        NO_CHECK,
        bytes(BAD_IP),
        SHORT,
        datagram(data(100, 1), id=2, options=b"\1\1\1\0"),
        datagram(data(100, 1), id=2, frag_off=ipv4.IP_MF),
        datagram(data(100, 1), id=2)[:-1],
    ],
    ids="ttl tos df id empty sum zero ipsum ulen options fragment cut".split(),
)
def test_what_is_different_is_single_and_overtakes_nothing(middle: bytes) -> None:
    for tracing in (False, True):
        rig = NicRig()
        rig.net.tracing = tracing
        first, _, last = train([100] * 3)
        got = rig.receive(first, middle, last)
        assert [skb.gso_size for skb in got] == [0, 0, 0]
        assert apart(rig, got) == [first, middle, last]
        assert rig.conserved()


def test_a_shorter_one_is_the_last() -> None:
    rig = NicRig()
    frames = train([100, 100, 50, 50, 50, 100])
    got = rig.receive(*frames)
    assert [skb.gso_segs or 1 for skb in got] == [3, 2, 1]
    assert apart(rig, got) == frames


def test_identifications_are_as_they_were() -> None:
    """All the same, where they may not be fragmented; or counting up, also over the end."""
    rig = NicRig()
    same = [datagram(data(80, i), id=0) for i in range(5)]
    counting = [datagram(data(80, i), id=i & 0xFFFF, frag_off=0) for i in range(65533, 65540)]
    (skb,) = rig.receive(*same)
    assert skb.gso_type == BATCH | SKB_GSO_TCP_FIXEDID
    assert apart(rig, [skb]) == same
    (skb,) = rig.receive(*counting)
    assert skb.gso_type == BATCH
    assert apart(rig, [skb]) == counting
    may_be_cut = [datagram(data(80, i), id=5, frag_off=0) for i in range(3)]
    assert len(rig.receive(*may_be_cut)) == 3


def test_flows_do_not_mix() -> None:
    rig = NicRig()
    one = train([100] * 3)
    two = [frame[:34] + b"\x99\x99" + frame[36:] for frame in train([100] * 3)]
    valid = vnet(flags=2)
    mixed = [frame for pair in zip(one, two, strict=True) for frame in pair]
    got = rig.receive(*mixed, vnet=valid)
    assert [skb.gso_segs for skb in got] == [3, 3]
    assert rig.receive(one[0], eth_ip(b"x" * 30, 1), one[1])[0].gso_size == 0, "another protocol"
    multicast = [b"\x01\0\x5e\0\0\1" + frame[6:] for frame in one]
    assert [skb.gso_size for skb in rig.receive(*multicast)] == [0, 0, 0]


def test_as_much_as_an_ip_packet_holds() -> None:
    rig = NicRig()
    frames = train([1472] * 50)
    got = rig.receive(*frames)
    assert [skb.gso_segs for skb in got] == [44, 6]
    assert apart(rig, got) == frames


def test_padding_is_not_payload() -> None:
    rig = NicRig()
    frames = [frame + bytes(60 - len(frame)) for frame in train([3, 3, 3, 2])]
    (skb,) = rig.receive(*frames)
    assert (skb.gso_segs, skb.len) == (4, 28 + 11)


def test_a_full_pool() -> None:
    """Then the payload travels in the message."""
    rig = NicRig(classes=((2048, 1), (16384, 1), (66560, 1)))
    frames = train([250] * 20)
    while rig.alloc.alloc(1) is not None:
        pass
    (skb,) = rig.receive(*frames)
    assert (skb.gso_segs, skb.frags, skb.len) == (20, (), 5028)
    assert apart(rig, [skb]) == frames


def test_a_local_senders_super_packet_stays_one() -> None:
    rig = NicRig()
    super_packet = vnet(flags=1, gso_type=5, gso_size=1000, offset=6)
    (skb,) = rig.receive(datagram(data(2500)), vnet=super_packet)
    assert (skb.gso_size, skb.gso_segs, skb.gso_type & BATCH) == (1000, 3, BATCH)
    small = vnet(flags=1, gso_type=5, gso_size=10, offset=6)
    (skb,) = rig.receive(datagram(data(95)), vnet=small)
    assert (skb.gso_size, skb.gso_segs) == (10, 10)
    (skb,) = rig.receive(datagram(data(10)), vnet=small)
    assert (skb.gso_size, skb.gso_segs, skb.gso_type) == (0, 0, 0)
    assert rig.conserved()


SIZES = st.lists(st.sampled_from([0, 1, 50, 100, 101, 257, 900]), min_size=1, max_size=20)


@given(SIZES, st.lists(st.booleans(), min_size=20, max_size=20), st.booleans())
def test_no_datagram_is_lost_or_moved(sizes: list[int], flows: list[bool], tracing: bool) -> None:
    rig = NicRig()
    rig.net.tracing = tracing
    frames = train(sizes)
    frames = [
        frame[:34] + b"\x99\x99" + frame[36:] if flow else frame
        for frame, flow in zip(frames, flows, strict=False)
    ]
    got = rig.receive(*frames, vnet=vnet(flags=2))
    out = apart(rig, got)
    for flow in (b"\x99\x99", b"\x13\x88"):
        mine = [f[:40] + f[42:] for f in out if f[34:36] == flow]
        assert mine == [f[:40] + f[42:] for f in frames if f[34:36] == flow]
    assert rig.conserved()
    assert out[0][:6] == OUR_MAC


def test_a_batch_goes_out_as_its_datagrams() -> None:
    """Where the device takes no super-packets."""
    for fixed in (0, SKB_GSO_TCP_FIXEDID):
        rig = NicRig(vnet_hdr=False)
        same = [datagram(data(80, i), id=3 if fixed else 3 + i) for i in range(5)]
        (skb,) = rig.receive(*same)
        skb.data = 0
        assert rig.xmit(skb) == same
        assert all(map(checksums_right, same))
