# SPDX-License-Identifier: MIT
"""sk_buff operations against plain bytes."""

from hypothesis import given
from hypothesis import strategies as st

from skbus.core.compiled import field_names
from skbus.core.skbuff import SkBuff, frags_slice

parts = st.lists(st.binary(max_size=20), max_size=6)


def content(skb: SkBuff) -> bytes:
    return skb.head[skb.data :] + b"".join(f for f in skb.frags if isinstance(f, bytes))


@given(st.binary(max_size=30), parts, st.integers(0, 40), st.integers(0, 200))
def test_eat_and_trim_are_slices(head: bytes, frags: list[bytes], n: int, keep: int) -> None:
    skb = SkBuff(head, tuple(frags))
    whole = content(skb)
    assert skb.len == len(whole)
    n = min(n, len(whole))
    skb.eat(n)
    assert content(skb) == whole[n:]
    skb.trim(keep)
    assert content(skb) == whole[n:][:keep]
    assert skb.len == len(content(skb))
    assert len(skb.frags) == len(frags), "every slot must still be given back"


@given(parts, st.integers(0, 60), st.integers(0, 60))
def test_frags_slice_is_a_slice(frags: list[bytes], offset: int, length: int) -> None:
    got = frags_slice(tuple(frags), offset, length)
    joined = b"".join(f for f in got if isinstance(f, bytes))
    assert joined == b"".join(frags)[offset : offset + length]


def test_frags_slice_of_places_moves_the_offset_only() -> None:
    frags = ((1, 2, 3, 100, 50), (1, 4, 5, 0, 50))
    assert frags_slice(frags, 40, 20) == ((1, 2, 3, 140, 10), (1, 4, 5, 0, 10))


def test_push_moves_the_offsets_with_their_bytes() -> None:
    skb = SkBuff(b"OLDETHtcppayload", data=6)
    skb.transport_header = 6
    skb.csum_start = 6
    skb.push(b"IPHEADER")
    assert skb.head == b"IPHEADERtcppayload"
    assert skb.data == 0
    assert skb.head[skb.transport_header :].startswith(b"tcp")
    assert skb.csum_start == 8


def test_a_clone_has_every_field_of_its_skb() -> None:
    skb = SkBuff(b"head", (b"payload",), id=1)
    names = field_names(SkBuff)
    for number, name in enumerate(names):
        if name not in ("head", "frags", "data_len", "lent", "cb"):
            setattr(skb, name, 1000 + number)
    clone = skb.clone()
    assert clone.lent
    assert not skb.lent
    for name in names:
        if name != "lent":
            assert getattr(clone, name) == getattr(skb, name), name
