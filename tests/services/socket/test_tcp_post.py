# SPDX-License-Identifier: MIT
"""Posts on a stream: the credit for them, their order among calls of other channels, their bounds.

`tests/interop/test_posts.py` has them with real processes.
"""

import errno
import struct
from typing import TYPE_CHECKING, Any

import msgpack

from skbus.core.interfaces import Tcp, TransportProto
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import (
    CREDIT_MAX,
    POST_COST,
    POSTED,
    RecvmsgArgs,
    SendmsgArgs,
    encode_ordered,
)
from skbus.core.uapi import SOL_SOCKET
from skbusd.socket import uapi
from skbusd.socket.files import MAX_DEFERRED

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack


def ask(
    stack: "Stack", req: int, posted: int, call: str, *args: object, data: bytes = b"", by: int = 1
) -> None:
    """A request through DEALER number `by`."""
    identity = stack.client + by.to_bytes(4, "big")
    stack.core.request(identity, encode_ordered(req, posted, call, args), data)
    stack.core.idle()


def answers(stack: "Stack") -> dict[int, tuple[int, Any]]:
    return {req: (err, result) for req, (err, result, _) in stack.replies().items()}


def sent(stack: "Stack") -> list[bytes]:
    """The payloads of tcp_sendmsg that have left for tcp."""
    items = [item for entry, item in stack.outbox() if entry is Tcp.tcp_sendmsg]
    assert all(type(item) is SkBuff for item in items)
    return [stack.pool.gather(skb.frags) for skb in items]


def send(stack: "Stack", fd: int, req: int = 50, posted: int = 0) -> Any:
    """The result of a sendmsg of one byte."""
    ask(stack, req, posted, "sendmsg", *SendmsgArgs(fd), data=b"x")
    stack.outbox()
    ((err, result),) = answers(stack).values()
    assert err == 0
    return result


def test_replies_give_credit_to_those_who_post(stack: "Stack") -> None:
    fd, _ = stack.connected()
    assert send(stack, fd) == (1, CREDIT_MAX)
    assert send(stack, fd, posted=-1) == 1


def test_connect_and_accept_give_credit(stack: "Stack") -> None:
    fd = stack.call("socket", 2, 1, 0)[1]
    ask(stack, 7, 0, "connect", fd, (2, 80, b"\x0a\x4d\0\x01"), -1)
    stack.answer_all()
    (sk,) = stack.net.socks
    stack.state(sk, uapi.TCP_ESTABLISHED)
    assert answers(stack)[7] == (0, CREDIT_MAX)
    listener = stack.call("socket", 2, 1, 0)[1]
    stack.call("listen", listener, 5)
    number = max(stack.net.socks)
    stack.child(number, 1 << 20)
    ask(stack, 8, 0, "accept4", listener, 0, -1)
    (_, address, credit), err = answers(stack)[8][1], answers(stack)
    assert credit == CREDIT_MAX
    assert address[1] == 5555
    assert not err


def test_there_is_none_where_a_send_could_tell_more(stack: "Stack") -> None:
    fd, _ = stack.connected()
    stack.call("setsockopt", fd, SOL_SOCKET, uapi.SO_LINGER, struct.pack("=ii", 1, 5))
    assert send(stack, fd) == 1
    small, _ = stack.connected()
    stack.call("setsockopt", small, SOL_SOCKET, uapi.SO_SNDBUF, struct.pack("=i", 8192))
    ask(stack, 9, 0, "sendmsg", *SendmsgArgs(small), data=b"x")
    stack.answer_all()
    assert answers(stack)[9] == (0, 1)


def test_credit_is_no_more_than_the_buffer_has_room_for(stack: "Stack") -> None:
    fd, sk = stack.connected()
    sock: Any = stack.net.socks[sk]
    sock.sk_wmem_queued = sock.sk_sndbuf - 1001
    assert send(stack, fd) == (1, 1000)


def test_a_post_goes_to_tcp_and_has_no_reply(stack: "Stack") -> None:
    fd, sk = stack.connected()
    ask(stack, POSTED, 0, "post", fd, data=b"abc")
    assert sent(stack) == [b"abc"]
    assert answers(stack) == {}
    assert stack.net.socks[sk].sk_wmem_queued == 3


def test_a_close_can_be_posted(stack: "Stack") -> None:
    fd, _ = stack.connected()
    ask(stack, POSTED, 0, "post", fd, data=b"last")
    ask(stack, POSTED, 1, "close", fd)
    entries = [entry for entry, _ in stack.outbox()]
    assert entries[0] is Tcp.tcp_sendmsg
    assert TransportProto.close in entries
    assert answers(stack) == {}
    ask(stack, 5, 2, "recvmsg", *RecvmsgArgs(fd, 1))
    assert answers(stack)[5][0] == errno.EBADF


def test_a_request_waits_for_posts_that_went_before_it_elsewhere(stack: "Stack") -> None:
    fd, _ = stack.connected()
    ask(stack, 1, 2, "shutdown", fd, 1, by=2)
    ask(stack, POSTED, 1, "post", fd, data=b"two", by=3)
    assert stack.outbox() == []
    assert answers(stack) == {}
    ask(stack, 2, 0, "getsockname", fd, by=4)  # nothing went before it
    assert list(answers(stack)) == [2]
    ask(stack, POSTED, 0, "post", fd, data=b"one", by=1)
    order = stack.outbox()
    assert [stack.pool.gather(i.frags) for e, i in order if e is Tcp.tcp_sendmsg] == [
        b"one",
        b"two",
    ]
    assert order[-1][0] is TransportProto.shutdown
    assert answers(stack)[1][0] == 0


def test_what_waits_is_bounded(stack: "Stack") -> None:
    fd, _ = stack.connected()
    for n in range(MAX_DEFERRED + 1):
        ask(stack, n, 99, "getsockname", fd)
    assert answers(stack) == {
        MAX_DEFERRED: (errno.EPROTO, "99 posts came before it, says the request, not 0")
    }


def test_posts_without_credit_reset_the_connection(stack: "Stack") -> None:
    fd, sk = stack.connected()
    n = 0
    while stack.net.socks[sk].sk_state == uapi.TCP_ESTABLISHED:
        ask(stack, POSTED, n, "post", fd, data=bytes(4096))
        n += 1
        assert n < 100
    assert n * (4096 + POST_COST) > CREDIT_MAX
    assert TransportProto.close in [entry for entry, _ in stack.outbox()]
    stack.check_conserved()


def test_a_post_to_what_has_ended_is_lost_and_the_error_kept(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.error(sk, errno.ECONNRESET)
    ask(stack, POSTED, 0, "post", fd, data=b"abc")
    assert sent(stack) == []
    ask(stack, 1, 1, "recvmsg", *RecvmsgArgs(fd, 1))
    assert answers(stack)[1][0] == errno.ECONNRESET
    ask(stack, POSTED, 1, "post", 77, data=b"abc")  # no such descriptor
    ask(stack, POSTED, 2, "post", fd)  # nothing
    assert sent(stack) == []
    assert answers(stack) == {}


def test_what_cannot_be_posted_is_refused(stack: "Stack") -> None:
    fd, _ = stack.connected()
    ask(stack, POSTED, 0, "getsockname", fd)
    ask(stack, 4, 0, "post", fd, data=b"abc")
    assert answers(stack) == {4: (errno.EINVAL, "post cannot be posted, or only be posted")}
    for posted in ("1", -2, 2**63):
        meta = msgpack.packb([3, 6, posted, "close", fd])
        stack.core.request(stack.client + b"\0\0\0\1", meta, b"")
        assert answers(stack)[6][0] == errno.EINVAL


def test_a_post_is_traced_as_the_system_call_is(stack: "Stack") -> None:
    fd, _ = stack.connected()
    stack.net.tracing = True
    ask(stack, POSTED, 0, "post", fd, data=b"abc")
    posted = [event.function for event in stack.net.trace_events]
    stack.net.trace_events.clear()
    ask(stack, 1, 1, "sendmsg", *SendmsgArgs(fd), data=b"abc")
    assert posted == [event.function for event in stack.net.trace_events]
    assert posted[-1] == "tcp_sendmsg"
