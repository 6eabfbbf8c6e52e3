# SPDX-License-Identifier: MIT
"""The batch codec: messages between processes to and from the two frames of `skbus.core.abi`.

`encode` takes the items that a core put into its outbox for one process. `decode` refuses a whole
message with another ABI or shape (`CodecError`). Single items with wrong fields are counted and
left out, so one bad item does not cost its batch.

What is the same in all messages by an entry, the head, is made and read once (`skbus.core.entry`).
Most messages have one item. They are a head and this item, and have no part of a batch.
"""

import struct
from typing import Any, Final, NamedTuple

from skbus.core.abi import ABI
from skbus.core.entry import BY_NAME, HEADS, AnyEntry, Head
from skbus.core.layout import UnfitError, unfit_field
from skbus.core.skbuff import COMPILED, Frag, SkBuff

MAX_META: Final = 4 << 20
MAX_DATA: Final = 64 << 20
MAX_HEAD: Final = 65600
MAX_FRAGS: Final = 64

SKB_STRUCT: Final = (
    ("id", "Q"), ("tstamp", "q"), ("head", "I"), ("data", "I"), ("mac_header", "i"),
    ("network_header", "i"), ("transport_header", "i"), ("csum_start", "i"), ("csum_offset", "I"),
    ("csum", "I"), ("protocol", "I"), ("dev", "i"), ("skb_iif", "i"), ("gso_size", "I"),
    ("gso_segs", "I"), ("gso_type", "I"), ("hash", "I"), ("mark", "I"), ("priority", "i"),
    ("vlan_tci", "i"), ("pkt_type", "B"), ("ip_summed", "B"), ("lent", "?"), ("frags", "B"),
    ("inline", "?"),
)  # fmt: skip
"""The struct of an skb: its fields and their codes of Python's `struct`, little-endian. head and
frags are lengths; what they count comes behind. inline: some frags are bytes."""

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


_MARK: Final = 0x94
"""The first byte of a message; up to ABI 3 a msgpack array of four, whose first was the ABI."""
_MANY: Final = 1
"""Flag of a head: items with their sizes follow, up to the one with `_LAST`."""
_HEAD: Final = struct.Struct("<BBBBqB")
"""Mark, ABI, flags, bytes of the head, epoch, bytes of the sender's name."""
_HEAD_SIZE: Final = 13
_SIZE_AT: Final = 3
_MAX_HEADS: Final = 1024
"""Heads that are remembered."""
_WORD: Final = struct.Struct("<I")
_WORD_SIZE: Final = 4
_LAST: Final = 1 << 31
"""In the size of the last item of a run."""

_SKB: Final = struct.Struct("<" + "".join([code for _, code in SKB_STRUCT]))
_SKB_SIZE: Final[int] = _SKB.size
_pack_skb: Final[Any] = _SKB.pack
_unpack_skb: Final[Any] = _SKB.unpack_from
_PLACE: Final = struct.Struct("<5I")
_PLACE_SIZE: Final = 20
_pack_place: Final[Any] = _PLACE.pack
_unpack_place: Final[Any] = _PLACE.unpack_from
_INLINE: Final = struct.Struct("<?5I")
"""A frag where some are bytes: is this one? Then its last number is their length, and the bytes
come next in the data frame."""
_SkbTuple = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int,
    int, int, int, bool, int, bool,
]  # fmt: skip
_new: Final[Any] = SkBuff.__new__
_new_tuple: Final[Any] = tuple.__new__


# ---- to bytes -------------------------------------------------------------------------------


def encode(sender: str, epoch: int, batch: Batch) -> tuple[bytes, bytes]:
    """(meta, data) of a batch. CodecError names a field that cannot hold its value."""
    if len(batch) == 1:
        entry, item = batch[0]
        head = entry.head
        if head is None or head.epoch != epoch or head.sender != sender:
            head = entry.head = _head_of(sender, epoch, entry.name, entry)
        if entry.is_skb:
            if not item.frags:
                return head.one + _skb_bytes(entry, item, b"", 0, False), b""
            chunks: list[bytes] = []
            return head.one + _skb_with_frags(entry, item, chunks), b"".join(chunks)
        try:
            return head.one + entry.layout.pack(item), b""  # type: ignore[union-attr]
        except UnfitError as e:
            raise CodecError(f"{entry!r}: {e}") from e
    return _encode_runs(sender, epoch, batch)


def _encode_runs(sender: str, epoch: int, batch: Batch) -> tuple[bytes, bytes]:
    """The same for any number of items."""
    if not batch:
        return _head_of(sender, epoch, "", None).many, b""
    out: list[bytes] = []
    chunks: list[bytes] = []
    last: AnyEntry | None = None
    size = 0
    for entry, item in batch:
        if entry is not last:
            if last is not None:
                out[-2] = _WORD.pack(size | _LAST)
            head = entry.head
            if head is None or head.epoch != epoch or head.sender != sender:
                head = entry.head = _head_of(sender, epoch, entry.name, entry)
            out.append(head.many)
            last = entry
        if entry.is_skb:
            if item.frags:
                raw = _skb_with_frags(entry, item, chunks)
            else:
                raw = _skb_bytes(entry, item, b"", 0, False)
        else:
            try:
                raw = entry.layout.pack(item)  # type: ignore[union-attr]
            except UnfitError as e:
                raise CodecError(f"{entry!r}: {e}") from e
        size = len(raw)
        out.append(_WORD.pack(size))
        out.append(raw)
    out[-2] = _WORD.pack(size | _LAST)
    return b"".join(out), b"".join(chunks)


def _skb_bytes(entry: AnyEntry, skb: SkBuff, frags: bytes, count: int, inline: bool) -> bytes:
    """An skb, whose frags are bytes already."""
    layout = entry.layout
    head = skb.head
    try:
        fixed: bytes = _pack_skb(
            skb.id, skb.tstamp, len(head), skb.data, skb.mac_header, skb.network_header,
            skb.transport_header, skb.csum_start, skb.csum_offset, skb.csum, skb.protocol, skb.dev,
            skb.skb_iif, skb.gso_size, skb.gso_segs, skb.gso_type, skb.hash, skb.mark,
            skb.priority, skb.vlan_tci, skb.pkt_type, skb.ip_summed, skb.lent, count, inline,
        )  # fmt: skip
        if layout is None:
            return fixed + head + frags
        return fixed + head + frags + layout.pack(skb.cb)
    except UnfitError as e:
        raise CodecError(f"{entry!r}: {e}") from e
    except struct.error as why:  # compiled, a name has one type in a function
        names = [name for name, _ in SKB_STRUCT]
        values = [getattr(skb, name, 0) for name in names]
        values[names.index("head")] = len(head)
        values[names.index("frags")] = count
        what = unfit_field(names, [code for _, code in SKB_STRUCT], values)
        raise CodecError(f"{entry!r}: sk_buff.{what}") from why


def _skb_with_frags(entry: AnyEntry, skb: SkBuff, chunks: list[bytes]) -> bytes:
    """An skb; what is inline is appended to `chunks`."""
    frags = skb.frags
    inline = False
    for frag in frags:
        if isinstance(frag, bytes):
            inline = True
            break
    try:
        if inline:
            rows = []
            for frag in frags:
                if isinstance(frag, bytes):
                    chunks.append(frag)
                    rows.append(_INLINE.pack(True, 0, 0, 0, 0, len(frag)))
                else:
                    rows.append(_INLINE.pack(False, *frag))
        elif len(frags) == 1:
            return _skb_bytes(entry, skb, _pack_place(*frags[0]), 1, False)
        else:
            rows = [_pack_place(*frag) for frag in frags]
    except struct.error as why:
        raise CodecError(f"{entry!r}: sk_buff.frags cannot be {frags!r}") from why
    return _skb_bytes(entry, skb, b"".join(rows), len(frags), inline)


def _head_of(sender: str, epoch: int, name: str, entry: AnyEntry | None) -> Head:
    """The head of an entry's messages, made anew."""
    who = sender.encode()
    what = who + name.encode()
    size = _HEAD_SIZE + len(what)
    if size > 255 or not -1 << 63 <= epoch < 1 << 63:
        raise CodecError(f"{sender!r}, {name!r} and epoch {epoch} are too long for a message")
    one = _HEAD.pack(_MARK, ABI, 0, size, epoch, len(who)) + what
    many = _HEAD.pack(_MARK, ABI, _MANY, size, epoch, len(who)) + what
    return Head(sender, epoch, name, entry, one, many)


# ---- from bytes -----------------------------------------------------------------------------


def decode(meta: bytes, data: bytes = b"") -> Message:
    """A message from its two frames. CodecError where they are no message."""
    if len(meta) > MAX_META or len(data) > MAX_DATA:
        raise CodecError(f"message of {len(meta)}+{len(data)} bytes is over the limit")
    if len(meta) < _HEAD_SIZE:
        raise _no_message(meta)
    size = meta[_SIZE_AT]
    raw_head = meta[:size]
    head = HEADS.get(raw_head)
    if head is None:
        head = _read_head(raw_head, meta)
    if raw_head[2]:
        return _decode_runs(head, meta, data)
    entry = head.entry
    item: Any = None
    if entry is not None:
        if entry.is_skb:
            item = _decode_skb(meta[size:], entry, _Inline(data) if data else None)
        else:
            item = entry.layout.unpack(meta[size:])  # type: ignore[union-attr]
    if item is None:
        return Message(head.sender, head.epoch, [], 1)
    message: Message = _new_tuple(Message, (head.sender, head.epoch, [(entry, item)], 0))
    return message


class _Inline:
    """The data frame: payload of skbs, which take it in their order."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes | None:
        """The next bytes; None where there are no more so many."""
        at = self._at
        self._at = at + size
        return self._data[at : at + size] if at + size <= len(self._data) else None


def _decode_runs(first: Head, meta: bytes, data: bytes) -> Message:
    """A message of several items, or none."""
    inline = _Inline(data) if data else None
    batch: Batch = []
    bad = 0
    at = 0
    end = len(meta)
    while at < end:
        if end - at < _HEAD_SIZE:
            raise _no_message(meta[at:])
        raw_head = meta[at : at + meta[at + _SIZE_AT]]
        head = HEADS.get(raw_head)
        if head is None:
            head = _read_head(raw_head, meta[at:])
        if head.sender != first.sender or head.epoch != first.epoch or not raw_head[2]:
            raise CodecError("runs of different senders, or a single item behind others")
        at += len(raw_head)
        entry = head.entry
        last = head.name == ""
        while not last:
            if end - at < _WORD_SIZE:
                raise CodecError(f"a run of {head.name!r} has no last item")
            word: int = _WORD.unpack_from(meta, at)[0]
            at += _WORD_SIZE
            if word & _LAST:
                last = True
                word -= _LAST
            raw = meta[at : at + word]
            at += word
            if at > end:
                raise CodecError(f"an item of {head.name!r} is cut off")
            item: Any = None
            if entry is not None:
                if entry.is_skb:
                    item = _decode_skb(raw, entry, inline)
                else:
                    item = entry.layout.unpack(raw)  # type: ignore[union-attr]
            if item is None:
                bad += 1
            else:
                batch.append((entry, item))  # type: ignore[arg-type]
    message: Message = _new_tuple(Message, (first.sender, first.epoch, batch, bad))
    return message


def _decode_skb(raw: bytes, entry: AnyEntry, inline: "_Inline | None") -> SkBuff | None:
    """The skb of an item, or None where the item is none."""
    if len(raw) < _SKB_SIZE:
        return None
    skb: SkBuff = SkBuff(data_len=0) if COMPILED else _new(SkBuff)
    values: _SkbTuple = _unpack_skb(raw)
    (
        skb.id, skb.tstamp, size, start, mac, network, transport, csum_start, skb.csum_offset,
        skb.csum, skb.protocol, skb.dev, skb.skb_iif, skb.gso_size, skb.gso_segs, skb.gso_type,
        skb.hash, skb.mark, skb.priority, skb.vlan_tci, skb.pkt_type, skb.ip_summed, skb.lent,
        count, some_inline,
    ) = values  # fmt: skip
    at = _SKB_SIZE + size
    skb.data_len = 0
    if count:
        found = _decode_frags(raw, at, count, some_inline, inline)
        if found is None:
            return None
        at += count * (_INLINE.size if some_inline else _PLACE_SIZE)
        for frag in found:
            skb.data_len += len(frag) if isinstance(frag, bytes) else frag[4]
        skb.frags = found
    else:
        skb.frags = ()
    if (
        start > size
        or size > MAX_HEAD
        or at > len(raw)
        or not -1 <= mac <= size
        or not -1 <= network <= size
        or not -1 <= transport <= size
        or not -1 <= csum_start <= size
    ):
        return None
    skb.data = start
    skb.mac_header = mac
    skb.network_header = network
    skb.transport_header = transport
    skb.csum_start = csum_start
    skb.head = raw[_SKB_SIZE : _SKB_SIZE + size]
    layout = entry.layout
    if layout is not None:
        cb = layout.unpack(raw[at:])
        if cb is None:
            return None
        skb.cb = cb
    elif at != len(raw):
        return None
    else:
        skb.cb = ()
    return skb


def _decode_frags(
    raw: bytes, at: int, count: int, some_inline: bool, inline: "_Inline | None"
) -> tuple[Frag, ...] | None:
    """The frags of an item, or None if they are none. What is inline is taken even then."""
    if count > MAX_FRAGS:
        return None
    if not some_inline:
        end = at + count * _PLACE_SIZE
        if end > len(raw):
            return None
        if count == 1:
            return (_unpack_place(raw, at),)
        return tuple(_PLACE.iter_unpack(raw[at:end]))
    end = at + count * _INLINE.size
    if end > len(raw):
        return None
    out: list[Frag | None] = []
    for row in _INLINE.iter_unpack(raw[at:end]):
        if not row[0]:
            out.append(row[1:])
        elif inline is None:
            out.append(b"" if not row[5] else None)
        else:
            out.append(inline.take(row[5]))
    return None if None in out else tuple(out)  # type: ignore[arg-type]


def _read_head(raw: bytes, meta: bytes) -> Head:
    """A head that has not come yet, remembered for the next time. raw: its bytes. meta: what comes
    from there on."""
    if meta[0] != _MARK or meta[1] != ABI or len(raw) < _HEAD_SIZE or len(raw) != meta[_SIZE_AT]:
        raise _no_message(meta)
    _, _, flags, _, epoch, size = _HEAD.unpack_from(raw)
    if flags > _MANY or _HEAD_SIZE + size > len(raw):
        raise _no_message(meta)
    try:
        sender = raw[_HEAD_SIZE : _HEAD_SIZE + size].decode()
        name = raw[_HEAD_SIZE + size :].decode()
    except UnicodeDecodeError as e:
        raise CodecError(f"a name that is not UTF-8: {e}") from e
    entry = BY_NAME.get(name)
    head = Head(sender, epoch, name, entry, raw, raw)
    if entry is not None:
        if len(HEADS) >= _MAX_HEADS:
            HEADS.clear()
        HEADS[raw] = head
    return head


def _no_message(meta: bytes) -> CodecError:
    """Why these bytes are no message."""
    if len(meta) >= 2 and meta[0] == _MARK and meta[1] != ABI:
        return CodecError(f"the message has ABI {meta[1]}, this process has ABI {ABI}")
    return CodecError(f"not a head of ABI {ABI}: {meta[:32].hex()}")
