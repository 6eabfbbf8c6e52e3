# SPDX-License-Identifier: MIT
"""A stream's super-segments are read to one place; whatever else comes in between is unharmed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.skbuff import GRO_MAX_SIZE, SkBuff
from skbusd.nic.rx_buffer import BIG_SLOT, SLOT_SIZE
from skbustest.nicrig import NicRig, data, segment, vnet

MSS = 1000
SIZE = 40 * MSS
SUPER = vnet(flags=1, gso_type=1, gso_size=MSS)


def rig(big: int = 4) -> NicRig:
    return NicRig(classes=((2048, 64), (16384, 4), (SLOT_SIZE, 32), (BIG_SLOT, big)))


def super_segment(n: int, size: int = SIZE, **fields: Any) -> bytes:
    """The n-th of a stream."""
    return segment(data(size, n), **({"seq": 1000 + n * SIZE, "id": n} | fields))


def warm(nic: NicRig) -> None:
    """A batch that shows that super-segments come in a row."""
    for skb in nic.receive(*[super_segment(n) for n in range(4)], vnet=SUPER):
        nic.net.pool.free_frags(skb.frags)


def payload(nic: NicRig, skbs: list[SkBuff]) -> bytes:
    return b"".join(nic.net.skb_bytes(skb)[52:] for skb in skbs)


def test_a_streams_payload_is_one_place() -> None:
    nic = rig()
    (first,) = nic.receive(*[super_segment(n) for n in range(4)], vnet=SUPER)
    assert len(first.frags) == 4  # as ever; but now a row is expected
    (skb,) = nic.receive(*[super_segment(n) for n in range(4, 12)], vnet=SUPER)
    assert len(skb.frags) == 1
    assert nic.net.pool.gather(skb.frags) == b"".join(data(SIZE, n) for n in range(4, 12))
    assert (skb.data_len, skb.gso_segs) == (8 * SIZE, 8 * 40)
    nic.net.pool.free_frags((*first.frags, *skb.frags))
    assert nic.alloc.in_use() == (1 if nic.net.rx_buffer.slot else 0)
    assert nic.conserved()


def test_what_is_too_much_for_one_skb_begins_the_next_one() -> None:
    nic = rig()
    warm(nic)
    most = (GRO_MAX_SIZE - 66) // SIZE
    skbs = nic.receive(*[super_segment(n) for n in range(2 * most)], vnet=SUPER)
    assert [(len(skb.frags), skb.data_len) for skb in skbs] == [(1, most * SIZE)] * 2
    assert payload(nic, skbs) == b"".join(data(SIZE, n) for n in range(2 * most))


@pytest.mark.parametrize(
    "odd",
    [
        {"sport": 5001},
        {"seq": 7},
        {"ack": 2},
        {"window": 501},
        {"flags": 0x11},
        {"flags": 0x50},
        {"tos": 2},
        {"ttl": 63},
        {"options": b""},
        {"options": b"\x01\x01\x08\x0a\0\0\0\0\0\0\0\x02"},  # earlier
        {"options": b"\x01\x01\x08\x0a\0\0\0\x01\0\0\0\x03"},
        {"size": 100},
        {"size": 5000},
        {"size": 39 * MSS + 500},
    ],
)
def test_what_does_not_continue_it_is_moved_and_harms_nothing(odd: dict[str, Any]) -> None:
    nic = rig()
    warm(nic)
    frames = [super_segment(n) for n in range(6)]
    frames[3] = super_segment(3, **odd)
    skbs = nic.receive(*frames, vnet=SUPER)
    assert len(skbs[0].frags) == (1 if skbs[0].data_len == 3 * SIZE else 2)
    size = odd.get("size", SIZE)
    want = [data(SIZE, n) for n in range(6)]
    want[3] = data(size, 3)
    assert sorted(_pieces(nic, skbs)) == sorted(want)
    assert nic.conserved()


def _pieces(nic: NicRig, skbs: list[SkBuff]) -> list[bytes]:
    """The payloads of the frames that the skbs were made of: all of SIZE but the last of each."""
    out = []
    for skb in skbs:
        whole = nic.net.skb_bytes(skb)[20 + 4 * (skb.head[46] >> 4) :]
        out += [whole[at : at + SIZE] for at in range(0, len(whole), SIZE)]
    return out


def test_a_later_timestamp_continues_it() -> None:
    nic = rig()
    warm(nic)
    later = b"\x01\x01\x08\x0a\0\0\0\x05\0\0\0\x02"
    frames = [super_segment(n, options=later) if n == 2 else super_segment(n) for n in range(3)]
    (skb,) = nic.receive(*frames, vnet=SUPER)
    assert len(skb.frags) == 1
    nic.net.sysctl["net.ipv4.ip_forward"] = 1
    assert len(nic.receive(*frames, vnet=SUPER)) == 2


def test_another_vlan_does_not_continue_it() -> None:
    nic = rig()
    warm(nic)
    frames = [super_segment(n) for n in range(3)]
    nic.device.deliver(frames, SUPER)
    read = nic.device.recv

    def tagged(room: memoryview) -> int:
        size = read(room)
        nic.device.rx_vlan_tci = -1 if nic.net.gro_hash == {} else 5
        return size

    nic.device.recv = tagged  # type: ignore[method-assign]
    nic.core.poll_rx(64)
    assert [skb.data_len for skb in nic.up()] != [3 * SIZE]


def test_flows_that_take_turns_need_no_big_slots() -> None:
    nic = rig()
    frames = [super_segment(n // 2, sport=5000 + n % 2) for n in range(8)]
    for _ in range(3):
        skbs = nic.receive(*frames, vnet=SUPER)
        assert [skb.data_len for skb in skbs] == [4 * SIZE, 4 * SIZE]
        assert [payload(nic, [skb]) for skb in skbs] == [
            b"".join(data(SIZE, n) for n in range(4))
        ] * 2
        for skb in skbs:
            nic.net.pool.free_frags(skb.frags)
    assert nic.alloc.in_use_of(BIG_SLOT) == 0


def test_without_a_big_slot_it_goes_on_in_others() -> None:
    nic = rig(big=1)
    warm(nic)
    first = nic.receive(*[super_segment(n) for n in range(4)], vnet=SUPER)
    second = nic.receive(*[super_segment(n) for n in range(4)], vnet=SUPER)
    assert [len(skb.frags) for skb in first + second] == [1, 4]
    assert payload(nic, first) == payload(nic, second)
    assert nic.alloc.exhausted == 0


def test_a_full_pool_costs_frames_and_nothing_else() -> None:
    nic = NicRig(classes=((2048, 64), (SLOT_SIZE, 2), (BIG_SLOT, 1)))
    frames = [super_segment(n) for n in range(4)]
    held = []
    for _ in range(8):
        held += nic.receive(*frames, vnet=SUPER)
    assert nic.drops()["NOMEM"] > 0
    for skb in held:
        nic.net.pool.free_frags(skb.frags)
    assert payload(nic, nic.receive(*frames[:1], vnet=SUPER)) == data(SIZE, 0)
    assert nic.conserved()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from((SIZE, SIZE, SIZE, 5000, 0))), max_size=40
    )
)
def test_no_byte_is_lost_or_moved(order: list[tuple[int, int]]) -> None:
    nic = rig(big=2)
    warm(nic)
    at = [0, 0, 0]
    sent: list[list[bytes]] = [[], [], []]
    frames: list[bytes] = []
    for flow, size in order:
        piece = data(size, len(frames))
        frames.append(segment(piece, seq=1000 + at[flow], sport=5000 + flow, id=len(frames)))
        at[flow] += size
        sent[flow].append(piece)
    got: list[list[bytes]] = [[], [], []]
    for skb in nic.receive(*frames, vnet=SUPER):
        flow = int.from_bytes(skb.head[34:36], "big") - 5000
        got[flow].append(nic.net.skb_bytes(skb)[52:])
    assert [b"".join(pieces) for pieces in got] == [b"".join(pieces) for pieces in sent]
    assert nic.conserved()
