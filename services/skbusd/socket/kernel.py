# SPDX-License-Identifier: MIT
"""Sockets for code inside the socket process (`net/socket.c`: `kernel_bind` and its like).

    sock = sock_create(net, AF_INET, SOCK_STREAM, IPPROTO_TCP)
    await kernel_bind(net, sock, (AF_INET, 7, INADDR_ANY)); await kernel_listen(net, sock, 5)
    new = sock_create_lite(net, AF_INET, SOCK_STREAM, IPPROTO_TCP)
    await inet_accept(net, sock, new, O_NONBLOCK)
    n = await kernel_recvmsg(net, new, MsgHdr(), [bytearray(512)], 512, 0)

They are applications' calls without descriptors, with addresses and buffers of our own. All must
run in a kernel thread (kthread.py), which waits in them; errors are OSError. They call `sock.ops`
(af_inet.py), as socket.py does for applications.
"""

import errno
from collections.abc import Sequence
from typing import Any, Final

from skbusd.socket import uapi
from skbusd.socket.call import AcceptCall, AnyCall, Call, RecvCall, SendCall, sys_return
from skbusd.socket.kthread import current, kernel_call, kernel_wait, kthreads, unanswered
from skbusd.socket.msghdr import SockAddr
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import InetSock
from skbusd.socket.socket import (
    Socket,
    sock_alloc,
    sock_create,
    sock_create_kern,
    sock_recvmsg,
    sock_release,
    sock_sendmsg,
)
from skbusd.socket.sockopt import sock_setsockopt

MAX_KVEC: Final = 1 << 20
"""Bytes that one `kernel_recvmsg` takes at most."""

KVec = bytearray | memoryview
"""`struct kvec`: a buffer of ours."""


class MsgHdr:
    """`struct msghdr`: flags and addresses of one message. After `kernel_recvmsg`, msg_name is its
    source, and msg_flags its fate (MSG_TRUNC, ...)."""

    __slots__ = ("msg_control", "msg_flags", "msg_name")

    def __init__(self, msg_name: SockAddr | None = None, msg_flags: int = 0) -> None:
        self.msg_name = msg_name
        self.msg_flags = msg_flags
        self.msg_control: tuple[Any, ...] = ()


def sock_create_lite(net: SocketNet, family: int, type: int, protocol: int) -> Socket:
    """`sock_create_lite`: a struct socket without a sock, for a connection to be accepted into."""
    if net.tracing:
        net.trace("sock_create_lite", family=family, type=type, protocol=protocol)
    return sock_alloc(net, type)


def _prepare(net: SocketNet, call: AnyCall, sock: Socket, flags: int, timeo: int) -> AnyCall:
    """Make a call of the running thread, which waits as O_NONBLOCK, MSG_DONTWAIT and SO_RCVTIMEO
    say."""
    call.client = kthreads(net).client
    if flags & uapi.O_NONBLOCK or sock.f_flags & uapi.O_NONBLOCK:
        call.timeout = 0
    elif timeo > 0:
        call.timeout = timeo
    call.sock = sock
    return call


# ---- naming, listening, connecting --------------------------------------------------------


async def kernel_bind(net: SocketNet, sock: Socket, addr: SockAddr) -> None:
    """`kernel_bind`: `sock->ops->bind`"""
    if net.tracing:
        net.trace("kernel_bind", addr=addr[2], port=addr[1], comm=current(net).comm)
    await kernel_call(net, lambda net, call: sock.ops.bind(net, call, sock, addr))


async def kernel_listen(net: SocketNet, sock: Socket, backlog: int) -> None:
    """`kernel_listen`: `sock->ops->listen`"""
    if net.tracing:
        net.trace("kernel_listen", backlog=backlog, comm=current(net).comm)
    await kernel_call(net, lambda net, call: sock.ops.listen(net, call, sock, backlog))


async def inet_accept(net: SocketNet, sock: Socket, newsock: Socket, flags: int) -> None:
    """`sock->ops->accept(sock, newsock, flags)`: the next connection, into a socket from
    `sock_create_lite`. BlockingIOError (EAGAIN) where flags has O_NONBLOCK and no connection waits.
    """
    timeo = sock.sk.sk_rcvtimeo if sock.sk else 0
    call = _prepare(net, AcceptCall(unanswered), sock, flags, timeo)

    def accepted(net: SocketNet, call: AcceptCall, sk: InetSock) -> None:
        sock_graft(sk, newsock)
        sys_return(net, call, 0)

    call.accepted = accepted
    newsock.ops = sock.ops
    await kernel_wait(net, call, lambda net, call: sock.ops.accept(net, call, sock))
    newsock.state = uapi.SS_CONNECTED


def sock_graft(sk: InetSock, parent: Socket) -> None:
    """`sock_graft`: the sock belongs to that socket from now on."""
    parent.sk = sk
    sk.sk_socket = parent


async def kernel_accept(net: SocketNet, sock: Socket, flags: int) -> Socket:
    """`kernel_accept`: the next connection, with a socket of its own."""
    newsock = sock_create_lite(net, uapi.AF_INET, sock.type, uapi.IPPROTO_TCP)
    await inet_accept(net, sock, newsock, flags)
    return newsock


async def kernel_connect(net: SocketNet, sock: Socket, addr: SockAddr, flags: int = 0) -> None:
    """`kernel_connect`: `sock->ops->connect`. BlockingIOError (EINPROGRESS) with O_NONBLOCK."""
    if net.tracing:
        net.trace("kernel_connect", addr=addr[2], port=addr[1], comm=current(net).comm)
    call = _prepare(net, Call(unanswered), sock, flags, sock.sk.sk_sndtimeo if sock.sk else 0)
    call.on_timeout = errno.EINPROGRESS
    await kernel_wait(net, call, lambda net, call: sock.ops.connect(net, call, sock, addr))


def kernel_getsockname(net: SocketNet, sock: Socket) -> SockAddr:
    """`kernel_getsockname`: (family, port, address) of our end"""
    return sock.ops.getname(net, sock, False)


def kernel_getpeername(net: SocketNet, sock: Socket) -> SockAddr:
    """`kernel_getpeername`: of the peer's end"""
    return sock.ops.getname(net, sock, True)


# ---- data ---------------------------------------------------------------------------------


async def kernel_sendmsg(
    net: SocketNet, sock: Socket, msg: MsgHdr, vec: Sequence[bytes | KVec], size: int
) -> int:
    """`kernel_sendmsg`: `size` bytes of the buffers, by `sock_sendmsg`. -> bytes taken"""
    data = b"".join(bytes(part) for part in vec)[:size]
    call = _prepare(net, SendCall(unanswered), sock, 0, sock.sk.sk_sndtimeo if sock.sk else 0)
    if msg.msg_flags & uapi.MSG_DONTWAIT:
        call.timeout = 0
    if data:
        call.chunks.append(data)
    call.size = len(data)
    call.flags = msg.msg_flags
    call.addr = msg.msg_name
    if net.tracing:
        net.trace("kernel_sendmsg", size=len(data), comm=current(net).comm)
    sent, _ = await kernel_wait(net, call, lambda net, call: sock_sendmsg(net, call, sock))
    return int(sent)


async def kernel_recvmsg(
    net: SocketNet, sock: Socket, msg: MsgHdr, vec: Sequence[KVec], size: int, flags: int
) -> int:
    """`kernel_recvmsg`: up to `size` bytes into the buffers, by `sock_recvmsg`. -> bytes"""
    call = _prepare(net, RecvCall(unanswered), sock, 0, sock.sk.sk_rcvtimeo if sock.sk else 0)
    if flags & uapi.MSG_DONTWAIT:
        call.timeout = 0
    views = [memoryview(buffer) for buffer in vec]
    call.size = min(size, sum(map(len, views)), MAX_KVEC)
    call.flags = flags
    if net.tracing:
        net.trace("kernel_recvmsg", size=call.size, comm=current(net).comm)
    result, data = await kernel_wait(net, call, lambda net, call: sock_recvmsg(net, call, sock))
    spec, msg.msg_name, msg.msg_flags, msg.msg_control = result
    copied = 0
    at = 0
    for part in spec:
        if type(part) is int:
            copied = _scatter(views, data[at : at + part], copied)
            at += part
        else:
            try:
                copied = _scatter(views, net.pool.view(part), copied)
            finally:
                net.pool.free(part)
    return copied


def _scatter(views: list[memoryview], data: bytes | memoryview, copied: int) -> int:
    """Put bytes into the buffers, and drop full ones from the list."""
    while len(data) and views:
        n = min(len(views[0]), len(data))
        views[0][:n] = data[:n]
        data = data[n:]
        copied += n
        if n == len(views[0]):
            views.pop(0)
        else:
            views[0] = views[0][n:]
    return copied


# ---- the rest -----------------------------------------------------------------------------


async def kernel_setsockopt(
    net: SocketNet, sock: Socket, level: int, optname: int, optval: bytes
) -> None:
    """`kernel_setsockopt`"""
    if level == uapi.SOL_SOCKET:
        sock_setsockopt(net, sock, optname, optval)
        return
    await kernel_call(
        net, lambda net, call: sock.ops.setsockopt(net, call, sock, level, optname, optval)
    )


async def kernel_sock_shutdown(net: SocketNet, sock: Socket, how: int) -> None:
    """`kernel_sock_shutdown`. how: 0 receiving, 1 sending, 2 both"""
    sock.ops.shutdown(net, sock, how)


def kernel_release(net: SocketNet, sock: Socket) -> None:
    """`sock_release`, for a socket of ours: it ends as with close(2). Its waiters are woken up."""
    if sock.sk is not None:
        for waiting in tuple(sock.sk.sk_wq):
            sys_return(net, waiting, errno.EBADF)
    sock_release(net, sock, None)


__all__ = [
    "KVec",
    "MsgHdr",
    "inet_accept",
    "kernel_accept",
    "kernel_bind",
    "kernel_connect",
    "kernel_getpeername",
    "kernel_getsockname",
    "kernel_listen",
    "kernel_recvmsg",
    "kernel_release",
    "kernel_sendmsg",
    "kernel_setsockopt",
    "kernel_sock_shutdown",
    "sock_create",
    "sock_create_kern",
    "sock_create_lite",
    "sock_graft",
]
