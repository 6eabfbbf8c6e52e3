# SPDX-License-Identifier: MIT
"""The batch codec: round trips, refusals, arbitrary bytes."""

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skbus.bus.codec import SKB_FIELDS, Batch, CodecError, decode, encode
from skbus.core.abi import ABI, DataReadyCb, Hello, SkRet, TcpSendmsgCb
from skbus.core.entry import BY_NAME
from skbus.core.interfaces import Neighbour, NetifReceive, SkCallbacks, Tcp
from skbus.core.pool import Allocator
from skbus.core.skbuff import Frag, SkBuff


def region(number: int = 7) -> Allocator:
    return Allocator.format(number, bytearray(1 << 16), [(2048, 8), (16384, 2)])


def fields(skb: SkBuff) -> list[object]:
    return [getattr(skb, name) for name in SKB_FIELDS]


frags = st.lists(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(*[st.integers(0, 2**31)] * 4, st.integers(0, 65536)),
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
            assert fields(new) == fields(old)
            assert new.data_len == old.data_len
        else:
            assert new == SkRet(2, 3, 0, (b"x", 1))


def test_cb_comes_back_as_its_named_tuple() -> None:
    cb = DataReadyCb(4, b"\1\2\3\4", 80, b"\5\6\7\x08", 1024, 2, 1, 99)
    meta, data = encode("tcp", 1, [(SkCallbacks.sk_data_ready, SkBuff(b"hi", cb=cb))])
    ((_, skb),) = decode(meta, data).batch
    assert skb.cb == cb
    assert isinstance(skb.cb, DataReadyCb)


def test_another_abi_is_refused_naming_both_numbers() -> None:
    meta = msgpack.packb([ABI + 1, "x", 1, []])
    with pytest.raises(CodecError, match=rf"ABI {ABI + 1}, this process has ABI {ABI}"):
        decode(meta)


@pytest.mark.parametrize(
    "run",
    [
        ["hello", [["nic", "one", False]]],
        ["hello", [["nic", 1]]],
        ["no_such_entry", [[1]]],
        ["ip_rcv", [[1, 2, 3]]],
        ["hello", [7]],
    ],
)
def test_an_item_that_does_not_fit_is_counted_and_its_neighbours_live(run: list[object]) -> None:
    good = ["hello", [["nic", 1, False]]]
    message = decode(msgpack.packb([ABI, "nic", 1, [*run, *good]]))
    assert message.bad == 1
    assert message.batch == [(Neighbour.hello, Hello("nic", 1, False))]


def corrupt(skb: SkBuff, field: str, value: object) -> bytes:
    row = fields(skb)
    row[SKB_FIELDS.index(field)] = value
    return bytes(msgpack.packb([ABI, "nic", 1, ["ip_rcv", [row]]]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", 5), ("data", -1), ("frags", [[1, 2, 3]]), ("frags", [[1, 2, 3, 4, -5]]),
        ("frags", [10]), ("frags", [-1]), ("network_header", 99), ("head", "text"),
        ("lent", 1), ("frags", [[1, 2, 3, 4, 5]] * 65), ("csum_start", -2),
    ],
)  # fmt: skip
def test_an_skb_with_impossible_fields_is_left_out(field: str, value: object) -> None:
    message = decode(corrupt(SkBuff(b"head"), field, value))
    assert message.bad == 1
    assert message.batch == []


@given(st.binary(max_size=400), st.binary(max_size=50))
@example(msgpack.packb([ABI, "x", 1, ["ip_rcv"]]), b"")
@example(b"\x91" * 2000, b"")
def test_arbitrary_bytes_raise_codec_error_or_nothing(meta: bytes, data: bytes) -> None:
    try:
        decode(meta, data)
    except CodecError:
        pass


json_like = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=8), st.booleans(), st.none(),
              st.sampled_from([*BY_NAME])),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@given(st.lists(json_like, max_size=6))
def test_arbitrary_structures_raise_codec_error_or_nothing(runs: list[object]) -> None:
    try:
        message = decode(msgpack.packb([ABI, "x", 1, runs]), b"abc")
    except CodecError:
        return
    assert message.bad >= 0


def test_a_batch_of_one_entry_is_one_run() -> None:
    cb = TcpSendmsgCb(2, 0)
    batch: Batch = [(Tcp.tcp_sendmsg, SkBuff(b"", (b"abc",), cb=cb)) for _ in range(5)]
    meta, data = encode("socket", 1, batch)
    assert len(msgpack.unpackb(meta)[3]) == 2
    assert data == b"abc" * 5
