# SPDX-License-Identifier: MIT
"""The batch codec: messages between processes to and from the two frames of `skbus.core.abi`.

`encode` takes the items that a core put into its outbox for one process. `decode` refuses a whole
message with another ABI or shape (`CodecError`). Single items with wrong fields are counted and
left out, so one bad item does not cost its batch.
"""

from typing import Any, Final, NamedTuple

import msgpack

from skbus.core.abi import ABI
from skbus.core.entry import BY_NAME, AnyEntry, fits
from skbus.core.skbuff import Frag, SkBuff

MAX_META: Final = 4 << 20
MAX_DATA: Final = 64 << 20
MAX_HEAD: Final = 65600
MAX_FRAGS: Final = 64

SKB_FIELDS: Final = (
    "id", "head", "frags", "data", "protocol", "dev", "skb_iif", "pkt_type", "mac_header",
    "network_header", "transport_header", "ip_summed", "csum", "csum_start", "csum_offset",
    "gso_size", "gso_segs", "gso_type", "hash", "mark", "priority", "vlan_tci", "tstamp", "lent",
    "cb",
)  # fmt: skip
"""The positional tuple of an skb. In `frags` a place is its 5-tuple. Inline payload is its length:
the bytes come next in the data frame."""

Item = Any
Batch = list[tuple[AnyEntry, Item]]


class CodecError(ValueError):
    """A message against the ABI; the text names what is wrong."""


class Message(NamedTuple):
    """One decoded message."""

    sender: str
    epoch: int
    batch: Batch
    bad: int
    """How many items were left out because they do not fit the ABI's table."""


_packer = msgpack.Packer(use_bin_type=True, autoreset=True, buf_size=1 << 16)


def encode(sender: str, epoch: int, batch: Batch) -> tuple[bytes, bytes]:
    """(meta, data) of a batch."""
    runs: list[Any] = []
    chunks: list[bytes] = []
    last: AnyEntry | None = None
    items: list[Any] = []
    for entry, item in batch:
        if type(item) is SkBuff:
            frags: Any = item.frags
            if frags:
                for frag in frags:
                    if type(frag) is not tuple:
                        chunks += [f for f in frags if type(f) is not tuple]
                        frags = [f if type(f) is tuple else len(f) for f in frags]
                        break
            item = (
                item.id, item.head, frags, item.data, item.protocol, item.dev, item.skb_iif,
                item.pkt_type, item.mac_header, item.network_header, item.transport_header,
                item.ip_summed, item.csum, item.csum_start, item.csum_offset, item.gso_size,
                item.gso_segs, item.gso_type, item.hash, item.mark, item.priority, item.vlan_tci,
                item.tstamp, item.lent, item.cb,
            )  # fmt: skip
        if entry is not last:
            items = []
            runs.append(entry.name)
            runs.append(items)
            last = entry
        items.append(item)
    return _packer.pack((ABI, sender, epoch, runs)), b"".join(chunks)


def decode(meta: bytes | memoryview, data: bytes | memoryview = b"") -> Message:
    """A message from its two frames. CodecError where they are no message."""
    if len(meta) > MAX_META or len(data) > MAX_DATA:
        raise CodecError(f"message of {len(meta)}+{len(data)} bytes is over the limit")
    try:
        message = msgpack.unpackb(meta, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise CodecError(f"not msgpack: {e}") from e
    if type(message) is not tuple or not message:
        raise CodecError("not an array")
    if message[0] != ABI:
        raise CodecError(f"the message has ABI {message[0]!r}, this process has ABI {ABI}")
    if (
        len(message) != 4
        or type(message[1]) is not str
        or type(message[2]) is not int
        or type(message[3]) is not tuple
        or len(message[3]) % 2
    ):
        raise CodecError("not [ABI, sender, epoch, [entry, items, ...]]")
    batch: Batch = []
    bad = 0
    at = 0
    runs = message[3]
    for i in range(0, len(runs), 2):
        name, items = runs[i], runs[i + 1]
        if type(name) is not str or type(items) is not tuple:
            raise CodecError(f"run {i // 2} is not an entry and its items")
        entry = BY_NAME.get(name)
        if entry is None:
            bad += len(items)
        elif entry.is_skb:
            for item in items:
                skb, at = _decode_skb(item, entry, data, at)
                if skb is None:
                    bad += 1
                else:
                    batch.append((entry, skb))
        else:
            kind, want = entry.kind, entry.signature
            for item in items:
                if type(item) is tuple and (tuple(map(type, item)) == want or fits(item, want)):
                    batch.append((entry, _new_tuple(kind, item)))
                else:
                    bad += 1
    return Message(message[1], message[2], batch, bad)


_Signature = tuple[Any, ...]
_SKB_SIGNATURE: Final[_Signature] = (
    int, bytes, tuple, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int,
    int, int, int, int, int, bool, tuple,
)  # fmt: skip
_PLACE_SIGNATURE: Final[_Signature] = (int, int, int, int, int)
_new = SkBuff.__new__
_new_tuple: Final[Any] = tuple.__new__


def _decode_skb(
    item: Any, entry: AnyEntry, data: bytes | memoryview, at: int
) -> tuple[SkBuff | None, int]:
    """The skb of an item, or None where the item is none; and how far `data` is used up."""
    if type(item) is not tuple or tuple(map(type, item)) != _SKB_SIGNATURE:
        return None, at
    skb = _new(SkBuff)
    (
        skb.id, head, frags, start, skb.protocol, skb.dev, skb.skb_iif, skb.pkt_type, mac,
        network, transport, skb.ip_summed, skb.csum, csum_start, skb.csum_offset, skb.gso_size,
        skb.gso_segs, skb.gso_type, skb.hash, skb.mark, skb.priority, skb.vlan_tci,
        skb.tstamp, skb.lent, cb,
    ) = item  # fmt: skip
    size = len(head)
    if (
        not 0 <= start <= size <= MAX_HEAD
        or not -1 <= mac <= size
        or not -1 <= network <= size
        or not -1 <= transport <= size
        or not -1 <= csum_start <= size
    ):
        return None, at
    skb.data = start
    skb.mac_header = mac
    skb.network_header = network
    skb.transport_header = transport
    skb.csum_start = csum_start
    skb.head = head
    skb.data_len = 0
    if frags:
        kept, at = _decode_frags(frags, data, at)
        if kept is None:
            return None, at
        for frag in kept:
            skb.data_len += len(frag) if type(frag) is bytes else frag[4]
        frags = kept
    skb.frags = frags
    kind = entry.kind
    if kind is None:
        skb.cb = cb
    elif tuple(map(type, cb)) == entry.signature or fits(cb, entry.signature):
        skb.cb = _new_tuple(kind, cb)
    else:
        return None, at
    return skb, at


def _decode_frags(
    frags: tuple[Any, ...], data: bytes | memoryview, at: int
) -> tuple[tuple[Frag, ...] | None, int]:
    """The frags of an item, or None if they are none; and how far `data` is used up."""
    if len(frags) > MAX_FRAGS:
        return None, at
    inline = False
    for frag in frags:
        if type(frag) is int:
            inline = True
        elif type(frag) is not tuple or tuple(map(type, frag)) != _PLACE_SIGNATURE or min(frag) < 0:
            return None, at
    if not inline:
        return frags, at
    out: list[Frag] = []
    for frag in frags:
        if type(frag) is tuple:
            out.append(frag)
        elif 0 <= frag <= len(data) - at:
            out.append(bytes(data[at : at + frag]))
            at += frag
        else:
            return None, at
    return tuple(out), at
