# SPDX-License-Identifier: MIT
"""Datagrams: one call, one datagram; what does not fit; errors; the receive buffer."""

import errno
from typing import TYPE_CHECKING

from skbus.core import uapi
from skbus.core.abi import GetPort, Recvmsg, UdpSendmsgCb
from skbus.core.interfaces import TransportProto
from skbus.core.syscall import RecvmsgArgs, SendmsgArgs

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

PEER = (2, 53, b"\x0a\x4d\0\x01")


def test_sendto_binds_by_itself(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[0] == errno.EDESTADDRREQ
    req = stack.begin("sendmsg", *SendmsgArgs(fd, addr=PEER), data=b"query")
    (bind, (entry, skb)) = stack.outbox("udp")
    assert bind[0] == TransportProto.bind
    assert isinstance(bind[1], GetPort)
    assert (entry, skb.cb) == (
        TransportProto.sendmsg,
        UdpSendmsgCb(sk, skb.cb.req, PEER[2], 53, 0, -1, 0),
    )
    assert stack.net.skb_bytes(skb) == b"query"
    assert not skb.lent
    assert not stack.replies()
    stack.ret(sk, bind[1].req, 0, (bytes(4), 40000))
    stack.ret(sk, skb.cb.req)
    assert stack.replies()[req][:2] == (0, 5)
    assert stack.call("getsockname", fd)[1] == (2, 40000, bytes(4))
    stack.check_conserved()


def test_errors_of_sending_are_the_calls(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.call("bind", fd, (2, 1000, bytes(4)))
    req = stack.begin("sendmsg", *SendmsgArgs(fd, addr=PEER), data=b"query")
    ((_, skb),) = stack.outbox("udp")
    stack.ret(sk, skb.cb.req, errno.ENETUNREACH)
    assert stack.replies()[req][0] == errno.ENETUNREACH
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, addr=PEER), data=bytes(65508))[0] == errno.EMSGSIZE
    )
    assert (
        stack.call("sendmsg", *SendmsgArgs(fd, addr=(2, 0, PEER[2])), data=b"x")[0] == errno.EINVAL
    )
    assert stack.net.socks[sk].sk_wmem_queued == 0


def test_connected(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    assert stack.call("connect", fd, PEER, -1)[0] == 0
    assert stack.call("getpeername", fd)[1] == PEER
    assert stack.call("getsockname", fd)[1] == (2, 40002, b"\x0a\x4d\0\x02")
    assert stack.call("sendmsg", *SendmsgArgs(fd), data=b"x")[1] == 1
    stack.error(sk, errno.ECONNREFUSED, hard=False)
    assert stack.recv(fd, 10)[0] == errno.ECONNREFUSED
    assert stack.recv(fd, 10)[0] == errno.EAGAIN
    assert stack.call("connect", fd, (0, 0, b""), -1)[0] == 0
    assert stack.call("getpeername", fd)[0] == errno.ENOTCONN


def test_big_datagrams_go_by_place(stack: "Stack") -> None:
    fd, _ = stack.socket(uapi.SOCK_DGRAM)
    stack.call("region", 4)
    place = stack.app.put(b"p" * 60000)
    assert place is not None
    assert stack.call("sendmsg", *SendmsgArgs(fd, addr=PEER, places=(place,)))[1] == 60000
    assert stack.app.in_use() == 0  # the datagram's owner gave it back
    stack.check_conserved()


def test_receive_keeps_boundaries(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 100))
    stack.data(sk, b"first")
    stack.data(sk, b"second")
    stack.data(sk, b"")
    err, (parts, addr, flags, _), data = stack.replies()[req]
    assert (err, parts, addr, flags, data) == (0, (5,), (2, 80, PEER[2]), 0, b"first")
    assert (TransportProto.recvmsg, Recvmsg(sk, 5)) in stack.outbox("udp")
    _, (_, _, flags, _), data = stack.recv(fd, 3)
    assert (flags, data) == (uapi.MSG_TRUNC, b"sec")
    assert stack.recv(fd, 10)[1][0] == ()
    assert stack.recv(fd, 10)[0] == errno.EAGAIN
    stack.check_conserved()


def test_trunc_tells_the_real_length(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.data(sk, b"x" * 5000, in_pool=True)
    _, (_, _, flags, _), data = stack.recv(fd, 10, uapi.MSG_TRUNC)
    assert (flags & 0xFFFFFFFF, flags >> 32, data) == (uapi.MSG_TRUNC, 5000, b"x" * 10)
    assert stack.nic.in_use() == 0


def test_a_full_receive_buffer_drops(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.call("setsockopt", fd, uapi.SOL_SOCKET, uapi.SO_RCVBUF, (5000).to_bytes(4, "little"))
    for _ in range(12):
        stack.data(sk, b"x" * 2000, in_pool=True)
    assert stack.net.drops == {"SKB_DROP_REASON_SOCKET_RCVBUFF": 8}
    assert stack.net.mib["UdpRcvbufErrors"] == 8
    assert stack.core.held() == 4
    assert stack.nic.in_use() == 0
    stack.check_conserved()
    assert stack.call("close", fd)[0] == 0
    stack.check_conserved()


def test_poll(stack: "Stack") -> None:
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    events = uapi.POLLIN | uapi.POLLOUT
    assert stack.call("poll", ((fd, events),), 0)[1] == ((fd, uapi.POLLOUT),)
    req = stack.begin("poll", ((fd, uapi.POLLIN),), -1)
    stack.data(sk, b"x")
    assert stack.replies()[req][1] == ((fd, uapi.POLLIN),)
    assert stack.call("poll", ((99, uapi.POLLIN), (-1, 0)), 0)[1] == ((99, uapi.POLLNVAL),)


def test_poll_times_out(stack: "Stack") -> None:
    fd, _ = stack.socket(uapi.SOCK_DGRAM)
    req = stack.begin("poll", ((fd, uapi.POLLIN),), 1_000_000)
    stack.advance(2_000_000)
    assert stack.replies()[req][:2] == (0, ())


def test_streams_cannot_be_asked_of_datagrams(stack: "Stack") -> None:
    fd, _ = stack.socket(uapi.SOCK_DGRAM)
    assert stack.call("listen", fd, 5)[0] == errno.EOPNOTSUPP
    assert stack.call("accept4", fd, 0, -1)[0] == errno.EOPNOTSUPP
    assert stack.call("shutdown", fd, 2)[0] == errno.ENOTCONN


def test_udp_restarts(stack: "Stack") -> None:
    stack.core.peer_up("udp")
    fd, sk = stack.socket(uapi.SOCK_DGRAM)
    stack.call("bind", fd, (2, 1000, bytes(4)))
    stack.call("connect", fd, PEER, -1)
    stack.core.peer_up("udp")
    assert [(e, i.sk) for e, i in stack.outbox("udp")] == [
        (TransportProto.init, sk),
        (TransportProto.bind, sk),
        (TransportProto.connect, sk),
    ]
