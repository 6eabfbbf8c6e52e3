# SPDX-License-Identifier: MIT
"""The batch codec: round trips of every entry, refusals, arbitrary bytes."""

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skbus.bus.codec import SKB_STRUCT, Batch, CodecError, decode, encode
from skbus.core.abi import (
    ABI,
    DataReadyCb,
    Hello,
    IpRouteOutputKey,
    RcvCb,
    SkRet,
    SkWriteSpace,
    TcpSendmsgCb,
    XmitCb,
)
from skbus.core.entry import BY_NAME, AnyEntry
from skbus.core.interfaces import Ip, Neighbour, NetifReceive, SkCallbacks, Tcp, TcpProtocol
from skbus.core.skbuff import Frag, SkBuff
from skbustest import hostile

NAMES = [name for name, _ in SKB_STRUCT if name != "inline"] + ["cb"]
ENTRIES = [*BY_NAME.values()]


def fields(skb: SkBuff) -> list[object]:
    return [getattr(skb, name) for name in NAMES]


def same(new: object, old: object) -> bool:
    if not isinstance(old, SkBuff) or not isinstance(new, SkBuff):
        return type(new) is type(old) and new == old
    return fields(new) == fields(old) and type(new.cb) is type(old.cb)


frags = st.lists(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(*[st.integers(0, 2**32 - 1)] * 4, st.integers(0, 65536)),
    ),
    max_size=17,
)


@given(st.lists(st.tuples(st.binary(max_size=200), frags), max_size=8), st.integers(0, 2**63))
def test_skbs_come_out_as_they_went_in(raw: list[tuple[bytes, list[Frag]]], ident: int) -> None:
    batch: Batch = []
    for head, parts in raw:
        skb = SkBuff(head, tuple(parts), id=ident, data=len(head) // 2, protocol=0x800, lent=True)
        skb.gso_size = 1448
        batch.append((NetifReceive.ip_rcv, skb))
        batch.append((SkCallbacks.sk_ret, SkRet(2, 3, 0, [b"x", 1])))
    meta, data = encode("nic.eth0", 5, batch)
    message = decode(meta, data)
    assert (message.sender, message.epoch, message.bad) == ("nic.eth0", 5, 0)
    assert [entry for entry, _ in message.batch] == [entry for entry, _ in batch]
    for (_, new), (_, old) in zip(message.batch, batch, strict=True):
        if isinstance(old, SkBuff):
            assert same(new, old)
            assert new.data_len == old.data_len
        else:
            assert new == SkRet(2, 3, 0, (b"x", 1))


@settings(deadline=None)
@given(st.lists(hostile.calls(ENTRIES), max_size=5), st.integers(-(2**63), 2**63 - 1))
def test_every_entry_s_item_comes_out_as_it_went_in(batch: Batch, epoch: int) -> None:
    refused = ""
    try:
        meta, data = encode("tcp.1", epoch, batch)
    except CodecError as e:
        refused = str(e)
    if refused:  # a field that cannot hold its value
        assert any(refused.startswith(f"{entry!r}: ") for entry, _ in batch)
        return
    message = decode(meta, data)
    assert (message.sender, message.epoch, message.bad) == ("tcp.1", epoch, 0)
    assert len(message.batch) == len(batch)
    for (entry, new), (sent, old) in zip(message.batch, batch, strict=True):
        assert entry is sent
        assert same(new, old)


def test_cb_comes_back_as_its_named_tuple() -> None:
    cb = DataReadyCb(4, b"\1\2\3\4", 80, b"\5\6\7\x08", 1024, 2, 1, 99)
    meta, data = encode("tcp", 1, [(SkCallbacks.sk_data_ready, SkBuff(b"hi", cb=cb))])
    ((_, skb),) = decode(meta, data).batch
    assert skb.cb == cb
    assert isinstance(skb.cb, DataReadyCb)


def test_bools_come_back_as_bools_and_fields_in_their_order() -> None:
    xmit = XmitCb(b"\1\2\3\4", b"\5\6\7\x08", 6, 0, 64, True, 2, b"\7\4\4\0", False)
    meta, _ = encode("tcp", 1, [(Ip.ip_queue_xmit, SkBuff(b"x", cb=xmit))])
    ((_, skb),) = decode(meta).batch
    assert repr(skb.cb) == repr(xmit)
    asked = IpRouteOutputKey(7, "tcp", b"\1\2\3\4", b"", 2, 16)
    meta, _ = encode("tcp", 1, [(Ip.ip_route_output_key, asked)])
    assert decode(meta).batch == [(Ip.ip_route_output_key, asked)]


# ---- what is refused ------------------------------------------------------------------------


def test_another_abi_is_refused_naming_both_numbers() -> None:
    meta, _ = encode("x", 1, [])
    with pytest.raises(CodecError, match=rf"ABI {ABI + 1}, this process has ABI {ABI}"):
        decode(bytes((meta[0], ABI + 1)) + meta[2:])
    with pytest.raises(CodecError, match=rf"ABI 3, this process has ABI {ABI}"):
        decode(msgpack.packb([3, "nic.eth0", 1, ["hello", [["nic", 1, False]]]]))


HELLO = (Neighbour.hello, Hello("nic", 1, False))


def run(head: bytes, *items: bytes) -> bytes:
    """A run as it is on the wire."""
    out = head
    for i, item in enumerate(items):
        out += struct.pack("<I", len(item) | (i == len(items) - 1) << 31) + item
    return out


def head_of(name: str, flags: int = 1, sender: bytes = b"nic", epoch: int = 1) -> bytes:
    raw = name.encode()
    size = 13 + len(sender) + len(raw)
    return struct.pack("<BBBBqB", 0x94, ABI, flags, size, epoch, len(sender)) + sender + raw


def body(entry: AnyEntry, item: Any) -> bytes:
    """An item as it is on the wire."""
    return encode("nic", 1, [(entry, item)])[0][len(head_of(entry.name)) :]


def test_the_wire_is_what_this_file_takes_it_for() -> None:
    hello = body(*HELLO)
    assert encode("nic", 1, [HELLO])[0] == head_of("hello", 0) + hello
    assert encode("nic", 1, [HELLO] * 2)[0] == run(head_of("hello"), hello, hello)
    assert encode("nic", 1, [])[0] == head_of("")
    assert decode(head_of("")) == ("nic", 1, [], 0)


SKB = body(NetifReceive.ip_rcv, SkBuff(b"head"))
WRITE_SPACE = body(SkCallbacks.sk_write_space, SkWriteSpace(1, 2, 3))


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("hello", b""),
        ("hello", body(*HELLO)[:-1]),
        ("hello", body(*HELLO) + b"x"),
        ("hello", struct.pack("<q?", 1, False) + msgpack.packb([7])),
        ("hello", struct.pack("<q?", 1, False) + msgpack.packb(["nic", 7])),
        ("hello", struct.pack("<q?", 1, False) + msgpack.packb("nic")),
        ("hello", struct.pack("<q?", 1, False) + b"\xc1"),
        ("hello", struct.pack("<q?", 1, False) + b"\x91" * 5000),
        ("no_such_entry", b"abc"),
        ("sk_write_space", WRITE_SPACE[:-1]),
        ("sk_write_space", WRITE_SPACE + b"\0"),
        ("sk_write_space", b""),
        ("ip_rcv", SKB[:20]),
        ("ip_rcv", SKB[:-1]),
        ("ip_rcv", SKB + b"\0"),
        ("tcp_v4_rcv", SKB),
    ],
)
def test_an_item_that_does_not_fit_is_counted_and_its_neighbours_live(
    name: str, item: bytes
) -> None:
    hello = run(head_of("hello"), body(*HELLO))
    message = decode(run(head_of(name), item) + hello)
    assert (message.bad, message.batch) == (1, [HELLO])
    message = decode(hello + run(head_of(name), item, item) + hello)
    assert (message.bad, message.batch) == (2, [HELLO, HELLO])
    message = decode(head_of(name, 0) + item)
    assert (message.bad, message.batch) == (1, [])


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        (b"", "not a head"),
        (b"\x94", "not a head"),
        (b"\xc1" * 40, "not a head"),
        (head_of("hello", 2) + body(*HELLO), "not a head"),
        (head_of("hello")[:-1], "not a head"),
        (head_of("hello", sender=b"\xff\xfe"), "not UTF-8"),
        (bytes((0x94, ABI, 0, 0)) + bytes(20), "not a head"),
        (struct.pack("<BBBBqB", 0x94, ABI, 0, 13, 1, 5), "not a head"),
        (head_of("hello"), "no last item"),
        (head_of("hello") + struct.pack("<I", 3) + b"abc", "no last item"),
        (head_of("hello") + struct.pack("<I", 1 << 31 | 100), "cut off"),
        (run(head_of("hello"), b"") + b"\x94", "not a head"),
        (run(head_of("hello"), b"") + head_of("hello", 0), "single item behind others"),
        (run(head_of("hello"), b"") + head_of("hello", sender=b"ip"), "different senders"),
        (run(head_of("hello"), b"") + head_of("hello", epoch=2), "different senders"),
    ],
)
def test_what_is_no_message_is_refused(meta: bytes, why: str) -> None:
    with pytest.raises(CodecError, match=why):
        decode(meta)


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(CodecError, match="over the limit"):
        decode(bytes((4 << 20) + 1))


def corrupt(field: str, value: int, behind: bytes = b"") -> bytes:
    """An skb of 4 bytes of head, with one number of its struct changed."""
    form = "<" + "".join(code for _, code in SKB_STRUCT)
    row = list(struct.unpack_from(form, SKB))
    row[[name for name, _ in SKB_STRUCT].index(field)] = value
    return struct.pack(form, *row) + b"head" + behind


PLACE = struct.pack("<5I", 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("field", "value", "behind"),
    [
        ("data", 5, b""), ("network_header", 99, b""), ("network_header", -2, b""),
        ("mac_header", 5, b""), ("transport_header", -7, b""), ("csum_start", -2, b""),
        ("head", 5, b""), ("head", 3, b""), ("head", 1 << 31, b""), ("frags", 1, b""),
        ("frags", 1, PLACE[:-1]), ("frags", 1, PLACE + b"\0"), ("frags", 2, PLACE),
        ("frags", 0, PLACE), ("frags", 65, PLACE * 65), ("frags", 255, b""),
    ],
)  # fmt: skip
def test_an_skb_with_impossible_fields_is_left_out(field: str, value: int, behind: bytes) -> None:
    message = decode(head_of("ip_rcv", 0) + corrupt(field, value, behind))
    assert (message.bad, message.batch) == (1, [])


def test_a_bad_skb_does_not_shift_the_payload_of_the_others() -> None:
    skbs = [SkBuff(b"h", (b"abc",)), SkBuff(b"h", (b"def", (1, 2, 3, 4, 5)))]
    meta, data = encode("nic", 1, [(NetifReceive.ip_rcv, skb) for skb in skbs])
    at = meta.index(struct.pack("<III", 1, 0, 0xFFFFFFFF))  # head, data, mac_header
    meta = meta[: at + 4] + struct.pack("<I", 9) + meta[at + 8 :]
    message = decode(meta, data)
    assert message.bad == 1
    assert [skb.frags for _, skb in message.batch] == [(b"def", (1, 2, 3, 4, 5))]


@pytest.mark.parametrize("data", [b"", b"ab", b"abc"])
def test_payload_that_is_missing_or_cut_off_costs_its_skb(data: bytes) -> None:
    meta, whole = encode("nic", 1, [(NetifReceive.ip_rcv, SkBuff(b"h", (b"ab", b"cd")))])
    assert whole == b"abcd"
    assert (decode(meta, data).bad, decode(meta, whole).bad) == (1, 0)


@given(st.binary(max_size=400), st.binary(max_size=50))
@example(b"\x91" * 2000, b"")
@example(bytes((0x94, ABI, 0, 255)) + bytes(300), b"")
def test_arbitrary_bytes_raise_codec_error_or_nothing(meta: bytes, data: bytes) -> None:
    try:
        decode(meta, data)
    except CodecError:
        pass


@settings(deadline=None)
@given(
    st.lists(hostile.calls(ENTRIES), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(-3, 3),
)
def test_a_changed_message_raises_codec_error_or_nothing(
    batch: Batch, changes: list[tuple[int, int]], longer: int
) -> None:
    try:
        meta, data = encode("tcp", 1, batch)
    except CodecError:
        return
    raw = bytearray(meta)
    for at, value in changes:
        raw[at % len(raw)] = value
    try:
        message = decode(bytes(raw) + bytes(longer) if longer >= 0 else bytes(raw[:longer]), data)
    except CodecError:
        return
    for entry, item in message.batch:
        cb = item.cb if entry.is_skb else item
        assert cb == () if entry.kind is None else type(cb) is entry.kind


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*BY_NAME, "nothing"]), st.binary(max_size=300))))
def test_arbitrary_items_are_counted(items: list[tuple[str, bytes]]) -> None:
    meta = b"".join(run(head_of(name), item) for name, item in items)
    if items:
        message = decode(meta, b"abc")
        assert message.bad + len(message.batch) == len(items)


# ---- what is not sent -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (SkWriteSpace(1 << 63, 0, 0), r"SkCallbacks\.sk_write_space: SkWriteSpace\.sk cannot be"),
        (SkWriteSpace(1, None, 0), r"SkWriteSpace\.acked cannot be None"),  # type: ignore[arg-type]
    ],
)
def test_a_number_out_of_range_is_an_error_where_it_is_sent(item: SkWriteSpace, why: str) -> None:
    with pytest.raises(CodecError, match=why):
        encode("tcp", 1, [(SkCallbacks.sk_write_space, item)])
    with pytest.raises(CodecError, match=why):
        encode("tcp", 1, [HELLO, (SkCallbacks.sk_write_space, item)])


@pytest.mark.parametrize(
    ("entry", "item", "why"),
    [
        (SkCallbacks.sk_ret, SkRet(1, 1, 0, {1, 2}), r"SkRet\.val cannot be \{1, 2\}"),
        (TcpProtocol.tcp_v4_rcv, SkBuff(cb=RcvCb(bytes(17), b"", 0, 0, 0)),
         r"TcpProtocol\.tcp_v4_rcv: RcvCb\.saddr holds 16 bytes, not 17"),
        (TcpProtocol.tcp_v4_rcv, SkBuff(), r"RcvCb has 5 fields, unlike \(\)"),
        (NetifReceive.ip_rcv, SkBuff(dev=1 << 31), r"ip_rcv: sk_buff\.dev cannot be 2147483648"),
        (NetifReceive.ip_rcv, SkBuff(data=-1), r"sk_buff\.data cannot be -1"),
        (NetifReceive.ip_rcv, SkBuff(b"", ((1, 2, 3, 4, -5),)), r"sk_buff\.frags cannot be"),
        (NetifReceive.ip_rcv, SkBuff(b"", (b"",) * 256), r"sk_buff\.frags cannot be 256"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_named(entry: AnyEntry, item: object, why: str) -> None:
    with pytest.raises(CodecError, match=why):
        encode("tcp", 1, [(entry, item)])


def test_a_batch_of_one_entry_is_one_run() -> None:
    cb = TcpSendmsgCb(2, 0)
    batch: Batch = [(Tcp.tcp_sendmsg, SkBuff(b"", (b"abc",), cb=cb)) for _ in range(5)]
    meta, data = encode("socket", 1, batch)
    assert meta.count(b"tcp_sendmsg") == 1
    assert data == b"abc" * 5
