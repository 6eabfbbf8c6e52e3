# SPDX-License-Identifier: MIT
"""Items that have the right types and nothing else: hypothesis strategies for every entry.

The codec lets only right types through. The cores judge the values, and no value may raise an
exception out of a core.
"""

import typing

from hypothesis import strategies as st

from skbus.core.entry import AnyEntry
from skbus.core.skbuff import Frag, SkBuff

_INTS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 3, 17, 53, 4000, 65535, 65536, 1 << 32]),
    st.integers(-(1 << 33), 1 << 63),
)
_BYTES = st.one_of(
    st.sampled_from([b"", bytes(4), b"\x0a\0\0\x02", b"\x0a\0\0\x09", b"\xff" * 4, b"\xe0\0\0\1"]),
    st.binary(max_size=40),
)
_FIELDS: dict[type, st.SearchStrategy[object]] = {
    int: _INTS,
    bytes: _BYTES,
    bool: st.booleans(),
    str: st.sampled_from(["", "eth0", "lo", "tcp", "udp", "nic.eth0", "udp_rcv", "udp_err"]),
    object: st.none(),
}


def _tuple_of(kind: type) -> st.SearchStrategy[tuple[object, ...]]:
    hints = typing.get_type_hints(kind)
    fields = [_FIELDS[hints[name]] for name in kind._fields]  # type: ignore[attr-defined]
    return st.tuples(*fields).map(kind._make)  # type: ignore[attr-defined]


@st.composite
def _skb_of(draw: st.DrawFn, kind: type | None) -> SkBuff:
    head = draw(st.binary(max_size=120))
    place: st.SearchStrategy[Frag] = st.tuples(*[st.integers(0, 1 << 16)] * 5)
    frags = draw(st.lists(st.one_of(st.binary(max_size=60), place), max_size=3))
    size = len(head)
    skb = SkBuff(head, tuple(frags), id=1, data=draw(st.integers(0, size)))
    for name in ("mac_header", "network_header", "transport_header", "csum_start"):
        setattr(skb, name, draw(st.integers(-1, size)))
    for name in ("dev", "skb_iif", "pkt_type", "ip_summed", "csum_offset", "gso_size", "gso_type"):
        setattr(skb, name, draw(st.one_of(st.integers(0, 3), _INTS)))
    skb.lent = draw(st.booleans())
    if kind is not None:
        skb.cb = draw(_tuple_of(kind))
    return skb


def items(entry: AnyEntry) -> st.SearchStrategy[object]:
    """Items of one entry."""
    return _skb_of(entry.kind) if entry.is_skb else _tuple_of(entry.kind)


def calls(entries: typing.Iterable[AnyEntry]) -> st.SearchStrategy[tuple[AnyEntry, object]]:
    """(entry, item) of some entries."""
    return st.one_of(*[st.tuples(st.just(entry), items(entry)) for entry in entries])
