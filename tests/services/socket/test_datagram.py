# SPDX-License-Identifier: MIT
"""Many datagrams with one call, some of them back, and datagrams that are posted."""

import errno
from typing import TYPE_CHECKING, Any

import pytest

from skbus.abi import Recvmsg
from skbusd.socket import uapi
from skbusd.socket.datagram import SKB_TRUESIZE

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

PEER = (2, 53, b"\x0a\x4d\0\x01")
FROM = (2, 80, PEER[2])


def recvmmsg(
    stack: "Stack", fd: int, vlen: int, size: int = 65535, flags: int = 0
) -> tuple[int, Any, bytes]:
    return stack.call("recvmmsg", fd, size, vlen, flags, 0)


def plain(*lengths: int) -> tuple[Any, ...]:
    """What recvmmsg tells of datagrams of these lengths."""
    return tuple((((n,) if n else ()), FROM, 0, ()) for n in lengths)


def posted(stack: "Stack", fd: int, *, data: bytes = b"x", addr: Any = PEER) -> int:
    return stack.begin("post", fd, 0, addr, (), (), 0, data=data)


def sends(stack: "Stack") -> list[Any]:
    """The datagrams that went to udp since the last time."""
    return [skb for entry, skb in stack.outbox("udp") if entry == "udp_sendmsg"]


def bound(stack: "Stack") -> tuple[int, int]:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.call("bind", fd, (2, 1000, bytes(4)))
    return fd, sk


def test_recvmmsg_takes_what_is_queued_in_order(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    assert recvmmsg(stack, fd, 8)[0] == errno.EAGAIN
    for text in (b"one", b"", b"three", b"four"):
        stack.data(sk, text)
    assert stack.call("ioctl", fd, uapi.SIOCINQ)[1] == 3
    req = stack.begin("recvmmsg", fd, 65535, 3, 0, 0)
    assert stack.replies()[req] == (0, plain(3, 0, 5), b"onethree")
    told = [item for entry, item in stack.outbox("udp") if entry == "udp_recvmsg"]
    assert told == [Recvmsg(sk, 3), Recvmsg(sk, 0), Recvmsg(sk, 5)]
    assert recvmmsg(stack, fd, 64, size=2)[1:] == ((((2,), FROM, uapi.MSG_TRUNC, ()),), b"fo")
    assert stack.net.socks[sk].sk_rmem_alloc == 0
    stack.check_conserved()


def test_a_waiting_recvmmsg_takes_the_whole_batch(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    req = stack.begin("recvmmsg", fd, 65535, 8, 0, -1)
    entry = stack.core.entries["sk_data_ready"]
    idle, stack.core.idle = stack.core.idle, lambda: None  # type: ignore[method-assign]
    assert entry is not None
    stack.data(sk, b"first")
    stack.data(sk, b"second")
    assert not stack.replies()
    stack.core.idle = idle  # type: ignore[method-assign]
    stack.core.idle()
    assert stack.replies()[req] == (0, plain(5, 6), b"firstsecond")
    assert not stack.net.recvmmsg_pending
    stack.check_conserved()


def test_only_one_where_others_want_some(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    ahead = stack.begin("recvmmsg", fd, 65535, 8, 0, -1)
    other = stack.begin("recvmsg", fd, 100, 0, 0, -1)
    stack.data(sk, b"one")
    assert stack.replies()[other][2] == b"one"
    stack.data(sk, b"two")
    assert stack.replies()[ahead][2] == b"two"
    two = stack.call("dup", fd)[1]
    stack.data(sk, b"three")
    stack.data(sk, b"four")
    assert recvmmsg(stack, fd, 8)[1] == plain(5)
    stack.call("close", two)
    stack.data(sk, b"five")
    stack.core.poll_open(stack.client, fd)
    assert recvmmsg(stack, fd, 8)[1] == plain(4)
    assert recvmmsg(stack, fd, 8)[1] == plain(4)


def test_big_datagrams_come_alone_and_by_place(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.data(sk, b"small")
    stack.data(sk, b"m" * 3000, in_pool=True)
    stack.data(sk, b"b" * 60000, in_pool=True)
    stack.data(sk, b"tail")
    assert recvmmsg(stack, fd, 8)[1:] == (plain(5, 3000), b"small" + b"m" * 3000)
    err, (one,), data = recvmmsg(stack, fd, 8)
    assert (err, data, one[0][0][4]) == (0, b"", 60000)
    stack.pool.free(one[0][0])
    assert recvmmsg(stack, fd, 8)[2] == b"tail"
    assert stack.nic.in_use() == 0
    stack.check_conserved()


def test_unread_puts_back_what_was_taken_last(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    for text in (b"one", b"two", b"three"):
        stack.data(sk, text)
    stack.data(sk, b"p" * 3000, in_pool=True)
    assert recvmmsg(stack, fd, 8)[0] == 0
    stack.answer_all()
    stack.data(sk, b"later")
    for count in (0, 5, 65):
        assert stack.call("unread", fd, count)[0] == errno.EINVAL
    assert stack.call("unread", fd, 3)[0] == 0
    assert stack.call("unread", fd, 1)[0] == errno.EINVAL, "they are back already"
    sock: Any = stack.net.socks[sk]
    assert sock.sk_rmem_alloc == 3 + 5 + 3000 + 5 + 4 * SKB_TRUESIZE
    assert stack.core.held() == 4
    stack.check_conserved()
    assert stack.call("poll", ((fd, uapi.POLLIN),), 0)[1] == ((fd, uapi.POLLIN),)
    stack.begin("recvmmsg", fd, 65535, 8, 0, 0)
    ((_, _, data),) = stack.replies().values()
    assert data == b"twothree" + b"p" * 3000 + b"later"
    told = [item for entry, item in stack.outbox("udp") if entry == "udp_recvmsg"]
    assert told == [Recvmsg(sk, 5)], "the others were told before"
    assert sock.sk_rmem_alloc == 0
    stack.check_conserved()
    assert stack.call("unread", fd, 4)[0] == 0
    assert stack.call("close", fd)[0] == 0
    assert stack.core.held() == 0
    stack.check_conserved()


def test_unread_after_another_recv(stack: "Stack") -> None:
    """What recvmsg took in between makes it unclear what was last: nothing goes back."""
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.data(sk, b"one")
    recvmmsg(stack, fd, 8)
    stack.data(sk, b"two")
    assert stack.recv(fd, 10)[2] == b"two"
    assert stack.call("unread", fd, 1)[0] == errno.EINVAL


def test_a_readers_wait_ends_with_unread(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.data(sk, b"one")
    stack.data(sk, b"two")
    recvmmsg(stack, fd, 8)
    req = stack.begin("recvmsg", fd, 100, 0, 0, -1)
    stack.begin("unread", fd, 1)
    assert stack.replies()[req][2] == b"two"


def test_recvmmsg_tells_errors_and_the_end(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.call("connect", fd, PEER, -1)
    stack.error(sk, errno.ECONNREFUSED, hard=False)
    assert recvmmsg(stack, fd, 8)[0] == errno.ECONNREFUSED
    assert recvmmsg(stack, fd, 8, flags=uapi.MSG_PEEK)[0] == errno.EINVAL
    assert stack.call("shutdown", fd, 0)[0] == 0
    assert recvmmsg(stack, fd, 8)[1] == (((), None, 0, ()),)
    stream, _ = stack.connected()
    assert recvmmsg(stack, stream, 8)[0] == errno.EOPNOTSUPP
    assert stack.call("unread", stream, 1)[0] == errno.EOPNOTSUPP
    for vlen in (0, 65):
        assert recvmmsg(stack, fd, vlen)[0] == errno.EINVAL


def test_post_has_no_reply(stack: "Stack") -> None:
    fd, sk = bound(stack)
    for text in (b"one", b"two"):
        posted(stack, fd, data=text)
    skbs = sends(stack)
    assert [stack.net.skb_bytes(skb) for skb in skbs] == [b"one", b"two"]
    for skb in skbs:
        stack.ret(sk, skb.cb.req)
    assert not stack.replies()
    assert stack.net.socks[sk].sk_wmem_queued == 0
    assert not stack.net.clients[stack.client].calls
    stack.check_conserved()


def test_an_error_of_a_post_is_told_by_the_next_call(stack: "Stack") -> None:
    fd, sk = bound(stack)
    posted(stack, fd)
    (skb,) = sends(stack)
    stack.ret(sk, skb.cb.req, errno.ENETUNREACH)
    assert not stack.replies()
    posted(stack, fd)
    assert len(sends(stack)) == 1, "a pending error does not keep posts back"
    assert stack.call("sendmsg", fd, 0, PEER, (), (), -1, data=b"x")[0] == errno.ENETUNREACH
    assert stack.recv(fd, 10)[0] == errno.EAGAIN
    posted(stack, fd, addr=(2, 0, PEER[2]))
    assert stack.recv(fd, 10)[0] == errno.EINVAL
    stream, other = stack.connected()
    posted(stack, stream)
    posted(stack, 99)
    assert not stack.replies()
    assert stack.net.socks[other].sk_err == 0


def test_posts_wait_for_room_in_order(stack: "Stack") -> None:
    fd, sk = bound(stack)
    sock: Any = stack.net.socks[sk]
    sock.sk_sndbuf = 5000
    big = [bytes([i]) * 4096 for i in range(40)]
    for text in big:
        posted(stack, fd, data=text)
    posted(stack, fd, data=b"small, and last")
    req = stack.begin("sendmsg", fd, 0, PEER, (), (), -1, data=b"behind them")
    seen = []
    while skbs := sends(stack):
        for skb in skbs:
            seen.append(stack.net.skb_bytes(skb))
            stack.pool.free_frags(skb.frags)
        assert sock.sk_wmem_queued <= 5000 + 33 * (4096 + SKB_TRUESIZE)
        for skb in skbs:
            stack.ret(sk, skb.cb.req)
    assert seen == [*big, b"small, and last", b"behind them"]
    assert stack.replies() == {req: (0, 11, b"")}
    assert (sock.sk_wmem_queued, sock.sk_wq) == (0, [])
    stack.check_conserved()


@pytest.mark.parametrize("how", ["close", "exit"])
def test_what_is_posted_goes_out_before_the_end(stack: "Stack", how: str) -> None:
    fd, sk = bound(stack)
    stack.net.socks[sk].sk_sndbuf = 5000
    texts = [bytes([i]) * 4000 for i in range(40)]
    for text in texts:
        posted(stack, fd, data=text)
    if how == "close":
        req = stack.begin("close", fd)
    else:
        stack.core.client_gone(stack.client)
    skbs = sends(stack)
    assert [stack.net.skb_bytes(skb) for skb in skbs] == texts
    assert sk in stack.net.socks, "it stays until they are answered"
    stack.data(sk, b"too late")
    for skb in skbs:
        assert not stack.outbox("udp")
        stack.pool.free_frags(skb.frags)
        stack.ret(sk, skb.cb.req)
    assert [entry for entry, _ in stack.outbox("udp")] == ["udp_lib_close"]
    assert sk not in stack.net.socks
    assert stack.replies() == ({req: (0, None, b"")} if how == "close" else {})
    assert stack.own.in_use() == 0
    stack.check_conserved()


def test_a_sender_that_found_room_is_not_tried_again(stack: "Stack") -> None:
    """Its datagram is under way; a wake-up meanwhile must not send an empty one."""
    fd, sk = bound(stack)
    stack.net.socks[sk].sk_sndbuf = 1000
    first = stack.begin("sendmsg", fd, 0, PEER, (), (), -1, data=bytes(700))
    second = stack.begin("sendmsg", fd, 0, PEER, (), (), -1, data=bytes(701))
    (skb,) = sends(stack)
    stack.ret(sk, skb.cb.req)
    (skb,) = sends(stack)
    assert skb.len == 701
    stack.data(sk, b"this wakes everybody")
    assert not sends(stack)
    stack.ret(sk, skb.cb.req)
    replies = stack.replies()
    assert (replies[first][1], replies[second][1]) == (700, 701)
    stack.check_conserved()


def test_a_restart_of_udp_ends_posts_and_a_close(stack: "Stack") -> None:
    stack.core.peer_up("udp")
    fd, sk = bound(stack)
    posted(stack, fd)
    req = stack.begin("close", fd)
    assert req not in stack.replies()
    stack.core.peer_up("udp")
    assert stack.replies()[req][0] == 0
    assert sk not in stack.net.socks
