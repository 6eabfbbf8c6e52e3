# SPDX-License-Identifier: MIT
"""Hostile requests: every one has an errno for an answer, and nothing is left of it."""

import errno
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skbus.core.syscall import (
    CALLS,
    MAX_DATA,
    SYS_ABI,
    RecvmsgArgs,
    SendmsgArgs,
    SysCallError,
    decode_request,
    encode_request,
)
from skbusd.socket import uapi

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

_ints = st.one_of(st.integers(-2, 12), st.sampled_from([2**31 - 1, -(2**31), 2**40, 2**63]))
_scalars = st.one_of(_ints, st.none(), st.booleans(), st.binary(max_size=20), st.text(max_size=5),
                     st.floats(allow_nan=False))  # fmt: skip
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=8,
)
_addrs = st.tuples(
    st.sampled_from([0, 2, 10]), st.integers(0, 65535), st.sampled_from([b"", b"\x0a\x4d\0\1"])
)
_likely = st.one_of(_ints, _addrs, st.just(()), st.binary(max_size=16), _values)


@pytest.mark.parametrize(
    ("meta", "err"),
    [
        (b"", errno.EINVAL),
        (b"\xc1", errno.EINVAL),
        (b"\x93" + bytes((SYS_ABI, 1)), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1]), errno.EINVAL),
        (msgpack.packb({"a": 1}), errno.EINVAL),
        (msgpack.packb([SYS_ABI + 1, 1, "close", 1]), errno.EPROTO),
        (msgpack.packb([SYS_ABI, -2, -1, "close", 1]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "reboot"]), errno.ENOSYS),
        (msgpack.packb([SYS_ABI, 1, -1, ["close"], 1]), errno.ENOSYS),
        (msgpack.packb([SYS_ABI, 1, -1, "close"]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "close", "x"]), errno.EFAULT),
        (msgpack.packb([SYS_ABI, 1, -1, "close", True]), errno.EFAULT),
        (msgpack.packb([SYS_ABI, 1, -1, "close", 2**40]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "recvmsg", 0, -1, 0, 0, 0]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "bind", 0, [2, 80, b"abc"]]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "bind", 0, [2, 70000, b"abcd"]]), errno.EINVAL),
        (msgpack.packb([SYS_ABI, 1, -1, "bind", 0, "10.0.0.1"]), errno.EFAULT),
        (msgpack.packb([SYS_ABI, 1, -1, "sendmsg", 0, 0, None, [[1, 2]], [], 0]), errno.EFAULT),
        (
            msgpack.packb([SYS_ABI, 1, -1, "sendmsg", 0, 0, None, [[0] * 5] * 65, [], 0]),
            errno.EMSGSIZE,
        ),
        (msgpack.packb([SYS_ABI, 1, -1, "poll", [[0]], 0]), errno.EFAULT),
        (b"\x91" * 2000, errno.EINVAL),
        (bytes(70000), errno.EMSGSIZE),
    ],
)
def test_malformed_requests(stack: "Stack", meta: bytes, err: int) -> None:
    stack.core.request(stack.client + b"1", meta, b"")
    (reply,) = stack.replies().values()
    assert reply[0] == err
    assert isinstance(reply[1], str)


def test_too_much_data(stack: "Stack") -> None:
    stack.core.request(stack.client, encode_request(1, "close", 1), bytes(MAX_DATA + 1))
    assert stack.replies()[0][0] == errno.EMSGSIZE


def test_unknown_clients_are_refused(stack: "Stack") -> None:
    fd, _ = stack.socket()
    err, text, _ = stack.call("close", fd, client=b"B" * 16)
    assert err == errno.ENOTCONN
    assert "life connection" in text
    assert not stack.core.client_up(stack.client)
    assert not stack.core.client_up(b"short")


def test_descriptors_are_the_clients_own(stack: "Stack") -> None:
    fd, _ = stack.connected()
    other = b"B" * 16
    assert stack.core.client_up(other)
    assert stack.call("close", fd, client=other)[0] == errno.EBADF
    assert stack.call("socket", 2, 1, 0, client=other)[1] == 0
    stack.core.client_gone(other)
    assert stack.call("getpeername", fd)[0] == 0


def test_a_request_number_in_use_is_refused(stack: "Stack") -> None:
    fd, _ = stack.connected()
    identity = stack.client + b"1"
    message = encode_request(9, "recvmsg", *RecvmsgArgs(fd, 10))
    stack.core.request(identity, message, b"")
    stack.core.request(identity, message, b"")
    assert stack.replies()[9][0] == errno.EINVAL
    stack.core.request(identity, encode_request(10, "cancel", 9), b"")
    assert stack.replies()[9][0] == errno.EINTR


def test_a_dead_client_leaves_nothing(stack: "Stack") -> None:
    fd, _ = stack.connected()
    listener, lsk = stack.socket()
    stack.call("listen", listener, 5)
    stack.call("region", 4)
    place = stack.app.put(b"p" * 60000)
    assert place is not None
    stack.call("sendmsg", *SendmsgArgs(fd, places=(place,)))
    stack.begin("recvmsg", *RecvmsgArgs(fd, 10, timeout=5_000_000))
    stack.begin("accept4", listener, 0, -1)
    stack.begin("poll", ((fd, uapi.POLLIN), (listener, uapi.POLLIN)), -1)
    stack.core.client_gone(stack.client)
    stack.answer_all()
    net = stack.net
    assert not net.clients
    assert net.limits.nr_files == 0
    assert lsk not in net.socks
    # What was sent is still to be acknowledged.
    ((number, sk),) = net.socks.items()
    assert sk.sk_wmem_queued == 60000
    stack.advance(6_000_000_000)
    assert net.regions.gone == []
    stack.acked(number, 60000)
    assert not net.socks
    stack.advance(12_000_000_000)
    assert net.regions.gone == [4]
    assert not net.replies
    stack.check_conserved()


@given(call=st.sampled_from(sorted(CALLS)), args=st.lists(_values, max_size=8))
def test_any_arguments_decode_or_are_refused(call: str, args: list[Any]) -> None:
    try:
        meta = msgpack.packb([SYS_ABI, 1, -1, call, *args])
    except (OverflowError, ValueError):
        return
    refused = None
    try:
        request = decode_request(meta)
    except SysCallError as e:
        refused = e
    if refused is None:
        assert len(request.args) == len(CALLS[call])
    else:
        assert refused.errno in (errno.EINVAL, errno.EFAULT, errno.EMSGSIZE)
        assert refused.req == 1


@given(meta=st.binary(max_size=200), data=st.binary(max_size=20))
def test_arbitrary_bytes_are_refused(meta: bytes, data: bytes) -> None:
    with pytest.raises(SysCallError):
        decode_request(meta, data)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_arbitrary_calls_leave_a_working_stack(stack: "Stack", data: st.DataObject) -> None:
    names = sorted(set(CALLS) - {"barrier"})
    for _ in range(20):
        call = data.draw(st.sampled_from(names))
        args = [data.draw(_likely) for _ in CALLS[call]]
        try:
            message = encode_request(data.draw(st.integers(0, 5)), call, *args)
        except (OverflowError, ValueError):
            continue
        stack.core.request(stack.client + b"\1", message, data.draw(st.binary(max_size=9)))
        stack.answer_all()
        stack.check_conserved()
    stack.replies()
    client = stack.net.clients[stack.client]
    assert all(err >= 0 for err, _, _ in stack.replies().values())
    assert stack.net.limits.nr_files == len(client.fdt)
    stack.core.client_gone(stack.client)
    stack.answer_all()
    assert stack.net.limits.nr_files == 0
    assert stack.core.client_up(stack.client)
