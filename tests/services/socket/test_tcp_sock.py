# SPDX-License-Identifier: MIT
"""Sending, receiving and accounting of streams: bytes, slots and skbs."""

import errno
from typing import TYPE_CHECKING, Any

import pytest

from skbus.core import uapi
from skbus.core.abi import Recvmsg, TcpSendmsgCb
from skbus.core.interfaces import Tcp, TransportProto
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs
from skbusd.socket.files import Cred

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

PEER = (2, 80, b"\x0a\x4d\0\x01")


def sent(stack: "Stack") -> list[tuple[bytes, Any]]:
    """What has been handed to tcp: (bytes, cb)"""
    out = []
    for entry, skb in stack.outbox():
        if entry is Tcp.tcp_sendmsg:
            assert skb.lent
            out.append((stack.net.skb_bytes(skb), skb.cb))
    return out


def test_that_a_reader_waits_is_told_with_what_comes_next(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.begin("recvmsg", *RecvmsgArgs(fd, 10))
    assert stack.outbox() == []
    stack.begin("sendmsg", *SendmsgArgs(fd), data=b"x")
    (_, (entry, item)) = stack.outbox()
    assert (entry, item) == (TransportProto.recvmsg, Recvmsg(sk, 0, True))
    stack.begin("sendmsg", *SendmsgArgs(fd), data=b"y")
    assert [entry for entry, _ in stack.outbox()] == [Tcp.tcp_sendmsg]


def test_an_empty_queue_costs_no_more_than_a_list(stack: "Stack") -> None:
    _, sk = stack.connected()
    sock = stack.net.socks[sk]
    assert isinstance(sock.sk_receive_queue, list)
    assert isinstance(sock.sk_write_queue, list)
    assert sock.sk_error_queue is None


def test_small_writes_share_a_slot(stack: "Stack") -> None:
    fd, sk = stack.connected()
    for text in (b"one", b"two", b"three"):
        stack.begin("sendmsg", *SendmsgArgs(fd), data=text)
    places = [skb.frags[0] for e, skb in stack.net.outbox["tcp"] if e is Tcp.tcp_sendmsg]
    assert sent(stack) == [(t, TcpSendmsgCb(sk, 0)) for t in (b"one", b"two", b"three")]
    assert [r[1] for r in stack.replies().values()] == [3, 3, 5]
    # the first alone, the others one behind the other
    assert len({p[1] for p in places}) == 1
    assert [p[3] for p in places] == [0, 3, 6]
    stack.acked(sk, 4)
    assert stack.own.in_use() == 1
    stack.acked(sk, 7)
    assert stack.own.in_use() == 0
    assert stack.net.socks[sk].sk_wmem_queued == 0
    stack.check_conserved()


def test_a_big_inline_write_is_cut_into_chunks(stack: "Stack") -> None:
    fd, sk = stack.connected()
    data = bytes(range(256)) * 300
    stack.begin("sendmsg", *SendmsgArgs(fd), data=data)
    pieces = sent(stack)
    assert b"".join(p for p, _ in pieces) == data
    assert [cb.flags & uapi.MSG_MORE for _, cb in pieces] == [uapi.MSG_MORE, 0]
    stack.acked(sk, len(data))
    assert stack.own.in_use() == 0


def test_places_of_the_application_go_as_they_are(stack: "Stack") -> None:
    fd, sk = stack.connected()
    assert stack.call("region", 4)[0] == 0
    place = stack.app.put(b"p" * 60000)
    assert place is not None
    assert stack.call("sendmsg", *SendmsgArgs(fd, places=(place,)), data=b"head")[1] == 60004
    assert stack.app.in_use() == 1
    stack.acked(sk, 4)
    assert stack.app.in_use() == 1
    stack.acked(sk, 60000)
    assert stack.app.in_use() == 0
    assert stack.net.regions.refs == {}


def test_foreign_places_are_refused(stack: "Stack") -> None:
    fd, _ = stack.connected()
    mine = stack.app.put(b"mine")
    theirs = stack.nic.put(b"theirs")
    assert mine is not None
    assert theirs is not None
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, places=(mine,)))[0] == errno.EFAULT
    )  # not announced
    stack.call("region", 4)
    assert stack.call("sendmsg", *SendmsgArgs(fd, places=(theirs,)))[0] == errno.EFAULT
    assert stack.nic.in_use() == 1
    number, slot, gen, _, _ = mine
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, places=((number, slot, gen + 2, 0, 4),)))[0]
        == errno.EFAULT
    )
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, places=((number, slot, gen, 0, 1 << 20),)))[0]
        == errno.EFAULT
    )
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, places=((number, 1 << 20, 1, 0, 4),)))[0]
        == errno.EFAULT
    )
    assert stack.call("region", 2)[0] == errno.EEXIST
    assert stack.call("region", 12346)[0] == errno.EFAULT
    assert stack.call("region", 12345)[0] == errno.EPERM, "odd: a layer's own"
    assert not sent(stack)


def test_send_buffer_limits(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_SNDBUF, (4608).to_bytes(4, "little"))
    assert stack.call("sendmsg", *SendmsgArgs(fd, timeout=0), data=b"x" * 20000)[1] == 9216
    assert stack.call("sendmsg", *SendmsgArgs(fd, timeout=0), data=b"x")[0] == errno.EAGAIN
    assert stack.call("sendmsg", *SendmsgArgs(fd, flags=uapi.MSG_DONTWAIT), data=b"x")[0] == (
        errno.EAGAIN
    )
    assert stack.call("poll", ((fd, uapi.POLLOUT),), 0)[1] == ()
    assert stack.call("ioctl", fd, uapi.SIOCOUTQ)[1] == 9216
    stack.acked(sk, 5000)
    assert stack.call("poll", ((fd, uapi.POLLOUT),), 0)[1] == ((fd, uapi.POLLOUT),)


def test_a_blocking_send_waits_for_room(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_SNDBUF, (4608).to_bytes(4, "little"))
    req = stack.begin("sendmsg", *SendmsgArgs(fd), data=bytes(range(200)) * 100)
    got = b"".join(p for p, _ in sent(stack))
    while not (replies := stack.replies()):
        stack.acked(sk, 4000)
        got += b"".join(p for p, _ in sent(stack))
    assert replies[req][:2] == (0, 20000)
    assert got == bytes(range(200)) * 100


def test_a_send_that_times_out_tells_what_it_did(stack: "Stack") -> None:
    fd, _ = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_SNDBUF, (4608).to_bytes(4, "little"))
    req = stack.begin("sendmsg", *SendmsgArgs(fd, timeout=5_000_000), data=b"x" * 20000)
    stack.answer_all()
    stack.advance(10_000_000)
    assert stack.replies()[req][:2] == (0, 9216)


def test_autotuning(stack: "Stack") -> None:
    fd, sk = stack.connected()
    before = stack.net.socks[sk].sk_sndbuf
    stack.call("sendmsg", *SendmsgArgs(fd, timeout=0), data=b"x" * 200000)
    stack.acked(sk, 1000, sndbuf=1_000_000)
    assert before < stack.net.socks[sk].sk_sndbuf == 1_000_000
    stack.acked(sk, 1000, sndbuf=100_000_000)
    assert stack.net.socks[sk].sk_sndbuf == 8388608


def test_full_pool_sends_the_bytes_themselves(stack: "Stack") -> None:
    fd, sk = stack.connected()
    while stack.own.put(b"x" * 2048):
        pass
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"hello")[1] == 5
    stack.acked(sk, 5)
    assert stack.net.socks[sk].sk_wmem_queued == 0


def test_recv_of_small_data_is_inline(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"abc")
    stack.data(sk, b"d" * 1000, in_pool=True)
    assert stack.call("ioctl", fd, uapi.SIOCINQ)[1] == 1003
    err, (parts, addr, flags, control), data = stack.recv(fd, 500)
    assert (err, parts, addr, flags, control) == (0, (500,), None, 0, ())
    assert data == b"abc" + b"d" * 497
    assert stack.recv(fd, 5000)[2] == b"d" * 503
    assert stack.nic.in_use() == 0
    assert stack.recv(fd, 1)[0] == errno.EAGAIN
    stack.check_conserved()


def test_recv_of_big_data_lends_the_place(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"b" * 50000, in_pool=True)
    err, (parts, *_), data = stack.recv(fd, 65536)
    assert (err, data) == (0, b"")
    (place,) = parts
    assert bytes(stack.pool.view(place)) == b"b" * 50000
    assert stack.nic.in_use() == 1
    stack.pool.free(place)
    assert stack.nic.in_use() == 0
    stack.check_conserved()


def test_what_was_lent_to_the_dead_is_swept(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"b" * 50000, in_pool=True)
    stack.recv(fd, 65536)
    stack.data(sk, b"c" * 50000, in_pool=True)
    stack.core.client_gone(stack.client)
    assert stack.nic.in_use() == 0
    assert not stack.net.socks
    assert stack.net.limits.nr_files == 0
    stack.check_conserved()


def test_a_slow_reader_does_not_keep_the_pools_slots(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"s" * 1000, in_pool=True)
    assert stack.nic.in_use() == 0  # small: copied at once
    for _ in range(14):
        stack.data(sk, b"b" * 60000, in_pool=True)
        stack.net.now += 10_000_000
    # of 16 big slots it has no more than half
    assert stack.nic.in_use() == 8
    assert stack.net.socks[sk].sk_rmem_alloc == 841000
    got = 0
    while got < 841000:
        err, (parts, *_), data = stack.recv(fd, 65536)
        assert err == 0
        got += len(data)
        for part in parts:
            if not isinstance(part, int):
                got += len(stack.pool.view(part))
                stack.pool.free(part)
    assert got == 841000
    assert stack.nic.in_use() == 0
    stack.check_conserved()


def test_peek(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"b" * 5000, in_pool=True)
    stack.data(sk, b"c" * 10)
    peeked = stack.recv(fd, 6000, uapi.MSG_PEEK)
    assert peeked[2] == b"b" * 5000 + b"c" * 10
    assert stack.recv(fd, 6000)[1][0][0][4] == 5000


def test_waitall(stack: "Stack") -> None:
    fd, sk = stack.connected()
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10, flags=uapi.MSG_WAITALL))
    stack.data(sk, b"12345")
    assert not stack.replies()
    stack.data(sk, b"67890abc")
    assert stack.replies()[req][2] == b"1234567890"
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10, flags=uapi.MSG_WAITALL))
    stack.fin(sk)
    assert stack.replies()[req][2] == b"abc"


def test_rcvlowat(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_RCVLOWAT, b"\5\0\0\0")
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10))
    stack.data(sk, b"1234")
    assert not stack.replies()
    assert stack.call("poll", ((fd, uapi.POLLIN),), 0)[1] == ()
    stack.data(sk, b"5")
    assert stack.replies()[req][2] == b"12345"


def test_end_of_stream_and_errors_in_order(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"last")
    stack.fin(sk)
    assert stack.call("poll", ((fd, uapi.POLLIN | uapi.POLLRDHUP),), 0)[1] == (
        (fd, uapi.POLLIN | uapi.POLLRDHUP),
    )
    assert stack.recv(fd, 10)[2] == b"last"
    assert stack.recv(fd, 10)[1][0] == ()
    fd, sk = stack.connected()
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10))
    stack.error(sk, errno.ECONNRESET)
    assert stack.replies()[req][0] == errno.ECONNRESET
    assert stack.recv(fd, 10)[1][0] == ()
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == errno.EPIPE


def test_errors_purge_what_was_to_be_sent(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.call("sendmsg", *SendmsgArgs(fd), data=b"x" * 50000)
    assert stack.own.in_use() == 1
    stack.error(sk, errno.ETIMEDOUT)
    assert stack.own.in_use() == 0
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == errno.ETIMEDOUT


def test_unconnected(stack: "Stack") -> None:
    fd, _ = stack.socket()
    assert stack.recv(fd, 10)[0] == errno.ENOTCONN
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == errno.EPIPE


def test_tcp_hears_what_was_taken(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.data(sk, b"x" * 20000, in_pool=True)
    stack.begin("recvmsg", *RecvmsgArgs(fd, 65536, timeout=0))
    assert (TransportProto.recvmsg, Recvmsg(sk, 20000)) in stack.outbox()
    stack.data(sk, b"x" * 100)
    stack.begin("recvmsg", *RecvmsgArgs(fd, 65536, timeout=0))
    assert not stack.outbox()  # too little to be worth a message


@pytest.mark.parametrize("flag", [0, uapi.MSG_DONTWAIT])
def test_receive_timeouts(stack: "Stack", flag: int) -> None:
    fd, _ = stack.connected()
    timeval = (0).to_bytes(8, "little") + (5000).to_bytes(8, "little")
    assert stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_RCVTIMEO, timeval)[0] == 0
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10, flags=flag))
    assert bool(stack.replies()) == bool(flag)
    if not flag:
        stack.advance(6_000_000)
        assert stack.replies()[req][0] == errno.EAGAIN


def test_cancel(stack: "Stack") -> None:
    fd, sk = stack.connected()
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 10))
    stack.begin("cancel", req)
    assert stack.replies() == {req: (errno.EINTR, None, b"")}
    stack.data(sk, b"kept")
    stack.begin("cancel", req)
    assert not stack.replies()
    assert stack.recv(fd, 10)[2] == b"kept"


def test_tcp_restarts(stack: "Stack") -> None:
    stack.core.peer_up("tcp")
    listener, lsk = stack.socket()
    stack.call("bind", listener, (2, 80, bytes(4)))
    stack.call("listen", listener, 7)
    fd, sk = stack.connected()
    stack.call("sendmsg", *SendmsgArgs(fd), data=b"x" * 5000)
    waiting = stack.begin("bind", stack.socket()[0], (2, 81, bytes(4)))
    stack.outbox()
    stack.core.peer_up("tcp")
    assert stack.replies()[waiting][0] == errno.ENETDOWN
    names = [(e, i.sk) for e, i in stack.outbox()]
    assert (TransportProto.init, lsk) in names
    assert (TransportProto.bind, lsk) in names
    assert (TransportProto.listen, lsk) in names
    assert stack.recv(fd, 10)[0] == errno.ECONNRESET
    assert stack.own.in_use() == 0
    stack.child(lsk, 1 << 33 | 1)
    assert stack.call("accept4", listener, 0, -1)[0] == 0
    assert sk


def test_trace_names_the_functions(stack: "Stack") -> None:
    fd, sk = stack.connected()
    stack.net.tracing = True
    stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")
    names = [e[2] for e in stack.net.trace_events]
    assert names == ["sock_write", "sock_sendmsg", "inet_sendmsg", "tcp_sendmsg"]
    stack.net.trace_events.clear()
    stack.data(sk, b"y")
    stack.recv(fd, 1)
    names = [e[2] for e in stack.net.trace_events]
    assert names == [
        "sk_data_ready",
        "sock_read",
        "sock_recvmsg",
        "inet_recvmsg",
        "tcp_recvmsg",
    ]


def test_unaccept_puts_a_connection_back(stack: "Stack") -> None:
    listener, lsk = stack.socket()
    assert stack.call("listen", listener, 5)[0] == 0
    stack.child(lsk, 1001)
    stack.child(lsk, 1003)
    err, (fd, _), _ = stack.call("accept4", listener, 0, 0)
    assert err == 0
    stack.data(1001, b"early")
    other, _ = stack.connected()
    for first, second in ((other, fd), (listener, listener), (listener, 77)):
        expected = errno.EBADF if second == 77 else errno.EINVAL
        assert stack.call("unaccept", first, second)[0] == expected
    assert stack.call("unaccept", listener, fd)[0] == 0
    assert stack.call("recvmsg", *RecvmsgArgs(fd, 1, timeout=0))[0] == errno.EBADF
    assert stack.call("poll", ((listener, uapi.POLLIN),), 0)[1] == ((listener, uapi.POLLIN),)
    stack.outbox()
    err, (fd, _), _ = stack.call("accept4", listener, 0, 0)
    assert stack.recv(fd, 100)[2] == b"early"
    assert stack.net.clients[stack.client].fdt[fd].sk is stack.net.socks[1001]
    # One that is back when its listener is closed is closed too, by tcp as well.
    assert stack.call("unaccept", listener, fd)[0] == 0
    stack.begin("close", listener)
    told = [(entry, item.sk) for entry, item in stack.answer_all()]
    assert (TransportProto.close, 1001) in told
    stack.check_conserved()


@pytest.mark.parametrize(
    ("cred", "may"),
    [
        (Cred(1000, (), net_raw=True, uid=1000), False),
        (Cred(1000, (), uid=1000, net_admin=True), True),
    ],
)
def test_tcp_hears_of_cap_net_admin(stack: "Stack", cred: Cred, may: bool) -> None:
    client = b"B" * 16
    assert stack.core.client_up(client, cred)
    err, fd, _ = stack.call("socket", 2, 1, 0, client=client)
    assert err == 0
    stack.begin("setsockopt", fd, uapi.SOL_TCP, uapi.TCP_CONGESTION, b"cubic", client=client)
    ((entry, item),) = stack.outbox()
    assert (entry, item.cap_net_admin) == (TransportProto.setsockopt, may)
