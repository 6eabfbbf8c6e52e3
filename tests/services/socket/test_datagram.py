# SPDX-License-Identifier: MIT
"""Many datagrams with one call, some of them back, and datagrams that are posted."""

import errno
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skbus.core import uapi
from skbus.core.abi import DataReadyCb, Recvmsg, SkWriteSpace
from skbus.core.interfaces import SkCallbacks, TransportProto
from skbus.core.skbuff import SKB_GSO_BATCH, SKB_GSO_UDP_L4, SkBuff
from skbus.core.syscall import POST, RecvmsgArgs, SendmsgArgs
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


def record(fd: int, data: bytes = b"x", addr: Any = PEER) -> bytes:
    """What a client writes to its post pipe."""
    _, port, host = addr or (0, 0, b"")
    return POST.pack(len(data), port, fd, host) + data


def post(stack: "Stack", *records: bytes, force: bool = False) -> bool:
    """All that one read of the pipe brings, and the end of the batch."""
    stalled = stack.core.posts(stack.client, b"".join(records), force)
    stack.core.idle()
    return stalled


def posted(stack: "Stack", fd: int, *, data: bytes = b"x", addr: Any = PEER) -> None:
    post(stack, record(fd, data, addr), force=True)


def space(stack: "Stack", skb: Any) -> None:
    """udp has sent the skb."""
    size = skb.len + max(skb.gso_segs, 1) * SKB_TRUESIZE
    stack.pool.free_frags(skb.frags)
    stack.deliver(SkCallbacks.sk_write_space, SkWriteSpace(skb.cb.sk, size, 0))


def sends(stack: "Stack") -> list[Any]:
    """The datagrams that went to udp since the last time."""
    return [skb for entry, skb in stack.outbox("udp") if entry is TransportProto.sendmsg]


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
    told = [item for entry, item in stack.outbox("udp") if entry is TransportProto.recvmsg]
    assert told == [Recvmsg(sk, 8, False, 3)]
    assert recvmmsg(stack, fd, 64, size=2)[1:] == ((((2,), FROM, uapi.MSG_TRUNC, ()),), b"fo")
    assert stack.net.socks[sk].sk_rmem_alloc == 0
    stack.check_conserved()


@pytest.mark.interpreted
def test_a_waiting_recvmmsg_takes_the_whole_batch(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    req = stack.begin("recvmmsg", fd, 65535, 8, 0, -1)
    entry = stack.core.entries[SkCallbacks.sk_data_ready]
    idle, stack.core.idle = stack.core.idle, lambda: None  # type: ignore[method-assign]
    assert entry is not None
    stack.data(sk, b"first")
    stack.data(sk, b"second")
    assert not stack.replies()
    stack.core.idle = idle  # type: ignore[method-assign]
    stack.core.idle()
    assert stack.replies()[req] == (0, plain(5, 6), b"firstsecond")
    assert not stack.net.reads.recvmmsg
    stack.check_conserved()


def test_only_one_where_others_want_some(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    ahead = stack.begin("recvmmsg", fd, 65535, 8, 0, -1)
    other = stack.begin("recvmsg", *RecvmsgArgs(fd, 100))
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
    told = [item for entry, item in stack.outbox("udp") if entry is TransportProto.recvmsg]
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
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 100))
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
    assert [skb.cb.req for skb in skbs] == [0, 0]
    for skb in skbs:
        space(stack, skb)
    assert not stack.replies()
    assert stack.net.socks[sk].sk_wmem_queued == 0
    assert not stack.net.clients[stack.client].calls
    stack.check_conserved()


def test_an_error_of_a_post_is_told_by_the_next_call(stack: "Stack") -> None:
    fd, sk = bound(stack)
    posted(stack, fd)
    (skb,) = sends(stack)
    stack.error(sk, errno.ENETUNREACH, hard=False)
    space(stack, skb)
    assert not stack.replies()
    posted(stack, fd)
    assert len(sends(stack)) == 1, "a pending error does not keep posts back"
    assert stack.call("sendmsg", *SendmsgArgs(fd, addr=PEER), data=b"x")[0] == errno.ENETUNREACH
    assert stack.recv(fd, 10)[0] == errno.EAGAIN
    posted(stack, fd, addr=None)
    assert stack.recv(fd, 10)[0] == errno.EDESTADDRREQ
    stream, other = stack.connected()
    posted(stack, stream)
    posted(stack, 99)
    assert not stack.replies()
    assert stack.net.socks[other].sk_err == 0


def test_posts_wait_for_room_in_order(stack: "Stack") -> None:
    fd, sk = bound(stack)
    sock: Any = stack.net.socks[sk]
    sock.sk_sndbuf = 20000
    big = [bytes([i]) * (4000 + i) for i in range(20)]
    assert post(stack, *[record(fd, text) for text in big], record(fd, b"last"))
    assert not stack.net.posts.resumed
    seen = []
    while skbs := sends(stack):
        for skb in skbs:
            seen.append(stack.net.skb_bytes(skb))
            assert 0 < sock.sk_wmem_queued <= 20000
            space(stack, skb)
    assert seen == [*big, b"last"]
    assert stack.net.posts.resumed == [stack.client]
    assert (sock.sk_wmem_queued, sock.posted) == (0, 0)
    assert not stack.net.clients[stack.client].post_data
    stack.check_conserved()


def test_a_call_that_waits_for_room_goes_before_later_posts(stack: "Stack") -> None:
    fd, sk = bound(stack)
    stack.net.socks[sk].sk_sndbuf = 1000
    posted(stack, fd, data=bytes(700))
    req = stack.begin("sendmsg", *SendmsgArgs(fd, addr=PEER), data=bytes(701))
    assert post(stack, record(fd, b"later"))
    (first,) = sends(stack)
    space(stack, first)
    (second,) = sends(stack)
    assert second.len == 701
    stack.ret(sk, second.cb.req)
    (third,) = sends(stack)
    assert (third.len, stack.replies()[req][1]) == (5, 701)


def test_equal_posts_go_as_one(stack: "Stack") -> None:
    fd, sk = bound(stack)
    other, _ = bound(stack)
    posts = [record(fd, b"%02d" % i) for i in range(5)]
    more = [record(fd, b""), record(fd, b""), record(fd, b"ab", (2, 54, PEER[2])),
            record(other, b"cd"), record(other, b"ef"), record(other, b"longer")]  # fmt: skip
    assert not post(stack, *posts, *more)
    skbs = sends(stack)
    found = [(stack.net.skb_bytes(s), s.gso_size, s.gso_segs, s.cb.port) for s in skbs]
    assert found == [
        (b"0001020304", 2, 5, 53),
        (b"", 0, 0, 53),
        (b"", 0, 0, 53),
        (b"ab", 0, 0, 54),
        (b"cdef", 2, 2, 53),
        (b"longer", 0, 0, 53),
    ]
    assert stack.net.socks[sk].sk_wmem_queued == 12 + 8 * SKB_TRUESIZE
    for skb in skbs:
        space(stack, skb)
    assert stack.net.socks[sk].sk_wmem_queued == 0
    stack.check_conserved()


def test_a_batch_is_bounded(stack: "Stack") -> None:
    """By datagrams, by what an IPv4 packet holds, and by the send buffer."""
    fd, sk = bound(stack)
    sock: Any = stack.net.socks[sk]
    posted = b"".join([record(fd, b"x")] * 130)
    post(stack, posted)
    assert [s.gso_segs for s in sends(stack)] == [128, 2]
    sock.sk_wmem_queued = sock.posted = 0
    texts = [bytes([i]) * 4000 for i in range(17)]
    post(stack, *[record(fd, text) for text in texts])
    big, last = sends(stack)
    assert (big.gso_segs, big.len, len(big.frags), last.len) == (16, 64000, 1, 4000)
    assert stack.net.skb_bytes(big) == b"".join(texts[:16])
    sock.sk_wmem_queued = sock.posted = 0
    sock.sk_sndbuf = 10 * (4000 + SKB_TRUESIZE)
    assert post(stack, *[record(fd, text) for text in texts])
    (some,) = sends(stack)
    assert some.gso_segs == 10
    assert not post(stack, force=True)
    assert [s.gso_segs for s in sends(stack)] == [7]


def test_a_post_that_is_cut_in_two(stack: "Stack") -> None:
    """By the end of one read of the pipe."""
    fd, _ = bound(stack)
    text = record(fd, b"0123456789") * 2
    for cut in range(len(text)):
        post(stack, text[:cut])
        post(stack, text[cut:])
        data = b"".join(stack.net.skb_bytes(skb) for skb in sends(stack))
        assert data == b"01234567890123456789", cut
    assert not stack.net.clients[stack.client].post_data


def test_posts_of_a_corked_socket(stack: "Stack") -> None:
    fd, sk = bound(stack)
    assert stack.call("setsockopt", fd, uapi.SOL_UDP, uapi.UDP_CORK, b"\1\0\0\0")[0] == 0
    post(stack, record(fd, b"one"), record(fd, b"two"))
    assert not sends(stack)
    stack.begin("setsockopt", fd, uapi.SOL_UDP, uapi.UDP_CORK, bytes(4))
    for entry, item in stack.outbox("udp"):
        if entry is TransportProto.setsockopt:
            stack.ret(sk, item.req)
    (skb,) = sends(stack)
    assert (stack.net.skb_bytes(skb), skb.gso_size) == (b"onetwo", 0)
    stack.ret(sk, skb.cb.req)
    assert stack.net.socks[sk].sk_wmem_queued == 0


@pytest.mark.parametrize("how", ["close", "exit"])
def test_what_is_posted_goes_out_before_the_end(stack: "Stack", how: str) -> None:
    fd, sk = bound(stack)
    stack.net.socks[sk].sk_sndbuf = 5000
    texts = [bytes([i]) * (4000 - i) for i in range(40)]
    assert post(stack, *[record(fd, text) for text in texts])
    if how == "close":
        assert not post(stack, force=True), "as the shell does before a call"
        req = stack.begin("close", fd)
    else:
        stack.core.client_gone(stack.client)
    skbs = sends(stack)
    assert [stack.net.skb_bytes(skb) for skb in skbs] == texts
    assert sk in stack.net.socks, "it stays until they are answered"
    stack.data(sk, b"too late")
    for skb in skbs:
        assert not stack.outbox("udp")
        space(stack, skb)
    assert [entry for entry, _ in stack.outbox("udp")] == [TransportProto.close]
    assert sk not in stack.net.socks
    assert stack.replies() == ({req: (0, None, b"")} if how == "close" else {})
    assert stack.own.in_use() == 0
    stack.check_conserved()


def test_a_sender_that_found_room_is_not_tried_again(stack: "Stack") -> None:
    """Its datagram is under way; a wake-up meanwhile must not send an empty one."""
    fd, sk = bound(stack)
    stack.net.socks[sk].sk_sndbuf = 1000
    first = stack.begin("sendmsg", *SendmsgArgs(fd, addr=PEER), data=bytes(700))
    second = stack.begin("sendmsg", *SendmsgArgs(fd, addr=PEER), data=bytes(701))
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


# ---- many that came as one ---------------------------------------------------------------


def batch(stack: "Stack", sk: int, payload: bytes, size: int, *, in_pool: bool = False) -> None:
    """A batch arrives for sk."""
    cb = DataReadyCb(sk, PEER[2], 80, b"\x0a\x4d\0\x02", 40002, 1, 0, 0)
    place = stack.nic.put(payload) if in_pool else None
    skb = SkBuff(b"hdr", (place,), data=3) if place else SkBuff(b"hdr" + payload, data=3)
    skb.cb = cb
    skb.gso_size, skb.gso_segs = size, -(-len(payload) // size)
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    stack.deliver(SkCallbacks.sk_data_ready, skb)


def told(stack: "Stack") -> list[Recvmsg]:
    return [item for entry, item in stack.outbox("udp") if entry is TransportProto.recvmsg]


@pytest.mark.parametrize("in_pool", [False, True])
def test_recvmmsg_takes_a_batch_at_once(stack: "Stack", in_pool: bool) -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    text = bytes(range(250)) * 20
    batch(stack, sk, text, 700, in_pool=in_pool)
    stack.data(sk, b"single")
    assert stack.net.socks[sk].sk_rmem_alloc == 5006 + 9 * SKB_TRUESIZE
    assert stack.call("ioctl", fd, uapi.SIOCINQ)[1] == 700
    stack.outbox("udp")
    stack.begin("recvmmsg", fd, 65535, 64, 0, 0)
    ((err, result, data),) = stack.replies().values()
    assert (err, data) == (0, text + b"single")
    assert result == (((5000,), FROM, 0, (), 700), ((6,), FROM, 0, ()))
    assert told(stack) == [Recvmsg(sk, 5006, False, 9)]
    assert (stack.net.socks[sk].sk_rmem_alloc, stack.nic.in_use()) == (0, 0)
    stack.check_conserved()
    stack.begin("unread", fd, 4)
    assert stack.net.socks[sk].sk_rmem_alloc == 700 + 700 + 100 + 6 + 4 * SKB_TRUESIZE
    assert [stack.recv(fd, 65535)[2] for _ in range(4)] == [
        text[3500:4200], text[4200:4900], text[4900:], b"single"
    ]  # fmt: skip
    assert not told(stack)
    stack.check_conserved()


def test_a_batch_is_read_in_parts(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    texts = [b"%02d" % i for i in range(10)]
    batch(stack, sk, b"".join(texts), 2)
    assert recvmmsg(stack, fd, 3)[1:] == ((((6,), FROM, 0, (), 2),), b"000102")
    assert stack.core.held() == 1
    stack.check_conserved()
    assert stack.call("unread", fd, 1)[0] == 0
    assert recvmmsg(stack, fd, 5)[2] == b"0203040506"
    assert stack.call("unread", fd, 5)[0] == 0
    assert stack.recv(fd, 10, uapi.MSG_PEEK)[2] == b"02"
    assert recvmmsg(stack, fd, 1)[1:] == ((((2,), FROM, 0, ()),), b"02")
    assert [stack.recv(fd, 10)[2] for _ in range(4)] == texts[3:7]
    assert [stack.recv(fd, 10)[2] for _ in range(2)] == texts[7:9]
    assert recvmmsg(stack, fd, 64)[1:] == ((((2,), FROM, 0, ()),), b"09")
    assert stack.recv(fd, 10)[0] == errno.EAGAIN
    assert stack.net.socks[sk].sk_rmem_alloc == 0
    stack.check_conserved()


def test_a_batch_is_truncated_datagram_by_datagram(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    batch(stack, sk, b"0123456789", 4)
    result = recvmmsg(stack, fd, 64, size=3)
    trunc = uapi.MSG_TRUNC
    assert result[1:] == (
        (((3,), FROM, trunc, ()), ((3,), FROM, trunc, ()), ((2,), FROM, 0, ())),
        b"01245689",
    )
    batch(stack, sk, b"0123456789", 4)
    _, (_, _, flags, _), data = stack.recv(fd, 3)
    assert (data, flags) == (b"012", trunc)


def test_a_batch_with_control_messages_comes_singly(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    assert stack.call("setsockopt", fd, uapi.SOL_IP, uapi.IP_PKTINFO, b"\1\0\0\0")[0] == 0
    batch(stack, sk, b"0123", 2)
    for text in (b"01", b"23"):
        _, (_, _, _, control), data = stack.call(
            "recvmsg", *RecvmsgArgs(fd, 100, controllen=100, timeout=0)
        )
        assert (data, len(control)) == (text, 1)


def test_readers_that_wait_share_a_batch(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    reqs = [stack.begin("recvmsg", *RecvmsgArgs(fd, 100)) for _ in range(3)]
    batch(stack, sk, b"01234567", 2)
    replies = stack.replies()
    assert [replies[req][2] for req in reqs] == [b"01", b"23", b"45"]
    assert stack.core.held() == 1


def test_a_batch_that_does_not_fit_is_dropped_in_part(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    sock: Any = stack.net.socks[sk]
    sock.sk_rcvbuf = 2 * (1000 + SKB_TRUESIZE)
    stack.outbox("udp")
    batch(stack, sk, bytes(3500), 1000)
    assert (sock.sk_drops, stack.net.mib["UdpRcvbufErrors"]) == (2, 2)
    assert told(stack) == [Recvmsg(sk, 1000), Recvmsg(sk, 500)]
    assert len(recvmmsg(stack, fd, 64)[1]) == 2
    stack.check_conserved()


@pytest.mark.parametrize("how", ["recvmsg", "recvmmsg", "full"])
def test_a_batch_whose_bytes_are_gone(stack: "Stack", how: str) -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    sock: Any = stack.net.socks[sk]
    place = stack.nic.put(bytes(9000))
    assert place is not None
    skb = SkBuff(b"", (place,), cb=DataReadyCb(sk, PEER[2], 80, bytes(4), 40002, 1, 0, 0))
    skb.gso_size, skb.gso_segs, skb.gso_type = 1000, 9, SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    if how == "full":
        sock.sk_rcvbuf = 1
        stack.pool.free(place)
    stack.outbox("udp")
    stack.deliver(SkCallbacks.sk_data_ready, skb)
    if how != "full":
        stack.pool.free(place)
        stack.begin(how, fd, 65535, 8, 0, 0)
        assert [reply[0] for reply in stack.replies().values()] == [errno.EIO]
    assert told(stack) == [Recvmsg(sk, 9000, False, 9)]
    assert stack.net.drops == {"SKB_DROP_REASON_SKBUS_STALE_PLACE": 1}
    assert sock.sk_rmem_alloc == 0
    stack.check_conserved()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=8))
def test_arbitrary_posts_raise_nothing(stack: "Stack", reads: list[tuple[bytes, bool]]) -> None:
    fd, _ = bound(stack)
    for data, whole in reads:
        stack.core.posts(stack.client, record(fd, data) if whole else data, whole)
        stack.core.idle()
    stack.check_conserved()
