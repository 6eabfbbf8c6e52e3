# SPDX-License-Identifier: MIT
"""struct socket and the system calls (`net/socket.c`).

    sys_socket -> sock_create -> __sock_create -> net_families[family].create -> sock_map_fd
    sys_sendmsg -> sock_write -> sock_sendmsg -> sock.ops.sendmsg
    sys_recvmsg -> sock_read -> sock_recvmsg -> sock.ops.recvmsg

Called by core.py with applications' requests, after a check against the table of
`skbus.core.syscall`. Calls the family's `ops` (af_inet.py). A function either answers by
`sys_return`, raises SysCallError, or parks its call. Code inside this process may use the functions
beneath the `sys_` ones in the same way, with its own Call.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from skbus.core.pool import PoolError, StalePlaceError
from skbus.core.skbuff import Place
from skbus.core.syscall import MAX_DATA, SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import (
    AcceptCall,
    Call,
    PollCall,
    RecvCall,
    RecvmmsgCall,
    SendCall,
    hold,
    sk_wait_event,
    sys_return,
)
from skbusd.socket.datagram import udp_unread
from skbusd.socket.files import (
    MAX_REGIONS,
    Client,
    check_places,
    fd_install,
    fd_remove,
    sockfd_lookup,
)
from skbusd.socket.inet_connection_sock import inet_csk_unaccept
from skbusd.socket.modprobe import request_module
from skbusd.socket.msghdr import Cmsg, SockAddr
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import InetSock, Sock, TcpSock, UdpSock
from skbusd.socket.sockopt import (
    sock_getmeminfo,
    sock_getsockopt,
    sock_setbindtodevice,
    sock_setsockopt,
)
from skbusd.socket.stream import tcp_unrecv

_TYPES: Final = frozenset({uapi.SOCK_STREAM, uapi.SOCK_DGRAM, uapi.SOCK_RAW, uapi.SOCK_RDM,
                           uapi.SOCK_SEQPACKET, uapi.SOCK_DCCP, uapi.SOCK_PACKET})  # fmt: skip


class Socket:
    """`struct socket`: the file behind a descriptor. `sk` is its representation below."""

    __slots__ = (
        "client", "f_count", "f_flags", "ino", "ops", "poll_shown", "polled", "sk", "state",
        "type",
    )  # fmt: skip

    def __init__(self, type: int, ino: int = 0) -> None:
        self.state = uapi.SS_UNCONNECTED
        self.type = type
        self.ino = ino
        self.ops: ProtoOps = NO_OPS
        self.sk: Sock | None = None
        self.f_flags = uapi.O_RDWR
        self.f_count = 0
        self.client: Client | None = None
        self.polled = False
        """An application holds a real descriptor that shows our state."""
        self.poll_shown = 0


@dataclass(frozen=True, slots=True, eq=False)
class ProtoOps:
    """`struct proto_ops`: a family's functions for a type of socket."""

    family: int
    release: Callable[[SocketNet, Socket, Call | None], None]
    bind: Callable[[SocketNet, Call, Socket, SockAddr], None]
    connect: Callable[[SocketNet, Call, Socket, SockAddr], None]
    accept: Callable[[SocketNet, AcceptCall, Socket], None]
    getname: Callable[[SocketNet, Socket, bool], SockAddr]
    poll: Callable[[SocketNet, Socket], int]
    listen: Callable[[SocketNet, Call, Socket, int], None]
    shutdown: Callable[[SocketNet, Socket, int], None]
    setsockopt: Callable[[SocketNet, Call, Socket, int, int, bytes], None]
    getsockopt: Callable[[SocketNet, Call, Socket, int, int, int], None]
    sendmsg: Callable[[SocketNet, SendCall, Socket], None]
    recvmsg: Callable[[SocketNet, RecvCall, Socket], None]
    ioctl: Callable[[SocketNet, Socket, int], int]


def sock_no_op(*_: Any) -> Any:
    """`sock_no_accept` and its like: this kind of socket cannot do that."""
    raise SysCallError(errno.EOPNOTSUPP)


NO_OPS: Final = ProtoOps(0, *([sock_no_op] * 13))


@dataclass(frozen=True, slots=True, eq=False)
class NetProtoFamily:
    """`struct net_proto_family`"""

    family: int
    create: Callable[[SocketNet, Socket, int, bool], None]
    owner: str = ""
    """The module that it belongs to (THIS_MODULE)"""


# ---- families -----------------------------------------------------------------------------


def sock_register(net: SocketNet, ops: NetProtoFamily) -> None:
    """`sock_register`: a family announces itself. ENOBUFS beyond NPROTO, EEXIST if taken."""
    if not 0 <= ops.family < uapi.NPROTO:
        raise SysCallError(errno.ENOBUFS, f"protocol family {ops.family} >= NPROTO")
    if net.net_families[ops.family] is not None:
        raise SysCallError(errno.EEXIST, f"protocol family {ops.family} is registered already")
    net.net_families[ops.family] = ops
    net.info("sock_register", family=ops.family)


def sock_unregister(net: SocketNet, family: int) -> None:
    """`sock_unregister`: no new sockets of that family from now on."""
    if not 0 <= family < uapi.NPROTO:
        raise ValueError(f"no family {family}")
    net.net_families[family] = None
    net.info("sock_unregister", family=family)


# ---- creating -----------------------------------------------------------------------------


def sock_alloc(net: SocketNet, type: int) -> Socket:
    """`sock_alloc`: a struct socket without anything below it. ENFILE where there are too many."""
    if net.limits.sockets_in_use >= min(net.limits.sockets, net.sysctl["fs.file-max"]):
        raise SysCallError(errno.ENFILE)
    if net.sock_mnt is None:
        raise SysCallError(errno.ENFILE, "sockfs is not mounted")
    net.limits.sockets_in_use += 1
    net.sock_mnt.next_ino += 1
    return Socket(type, net.sock_mnt.next_ino)


def __sock_create(net: SocketNet, family: int, type: int, protocol: int, kern: bool) -> Socket:
    """`__sock_create`: check family and type, and let the family create the rest.

    EAFNOSUPPORT, EINVAL, ENFILE, or the family's error. For a missing family a plug-in is asked
    for, `net-pf-N`.
    """
    if net.tracing:
        net.trace("__sock_create", family=family, type=type, protocol=protocol, kern=kern)
    if not 0 <= family < uapi.NPROTO:
        raise SysCallError(errno.EAFNOSUPPORT)
    if not 0 <= type < uapi.SOCK_MAX:
        raise SysCallError(errno.EINVAL)
    if family == uapi.PF_INET and type == uapi.SOCK_PACKET:
        if not net.packet_warned:
            net.packet_warned = True
            net.warning("__sock_create", text="uses obsolete (PF_INET,SOCK_PACKET)")
        family = uapi.AF_PACKET
    sock = sock_alloc(net, type)
    try:
        if net.net_families[family] is None:
            request_module(net, f"net-pf-{family}")
        ops = net.net_families[family]
        if ops is None:
            raise SysCallError(errno.EAFNOSUPPORT)
        ops.create(net, sock, protocol, kern)
    except SysCallError:
        sock_release(net, sock, None)
        raise
    return sock


def sock_create(net: SocketNet, family: int, type: int, protocol: int) -> Socket:
    """`sock_create`: for an application."""
    if net.tracing:
        net.trace("sock_create", family=family, type=type, protocol=protocol)
    return __sock_create(net, family, type, protocol, False)


def sock_create_kern(net: SocketNet, family: int, type: int, protocol: int) -> Socket:
    """`sock_create_kern`: for code inside this process."""
    return __sock_create(net, family, type, protocol, True)


def _number(sock: Socket) -> int:
    """The number of a socket's sock, for the trace."""
    return sock.sk.number if sock.sk is not None else 0


def sock_map_fd(net: SocketNet, client: Client, sock: Socket, cloexec: bool) -> int:
    """`sock_map_fd`: a descriptor for a socket. EMFILE, ENFILE: then the socket is gone."""
    try:
        fd = fd_install(net, client, sock, cloexec)
    except SysCallError:
        sock_release(net, sock, None)
        raise
    sock.client = client
    if net.tracing:
        net.trace("sock_map_fd", sk=_number(sock), fd=fd)
    return fd


def sys_socket(net: SocketNet, call: Call, family: int, type: int, protocol: int) -> None:
    """socket(2)"""
    if net.tracing:
        net.trace("sys_socket", family=family, type=type, protocol=protocol)
    client = _client(call)
    flags = type & ~uapi.SOCK_TYPE_MASK
    if flags & ~(uapi.SOCK_CLOEXEC | uapi.SOCK_NONBLOCK):
        raise SysCallError(errno.EINVAL)
    sock = sock_create(net, family, type & uapi.SOCK_TYPE_MASK, protocol)
    if flags & uapi.SOCK_NONBLOCK:
        sock.f_flags |= uapi.O_NONBLOCK
    sys_return(net, call, 0, sock_map_fd(net, client, sock, bool(flags & uapi.SOCK_CLOEXEC)))


# ---- closing ------------------------------------------------------------------------------


def sock_release(net: SocketNet, sock: Socket, call: Call | None) -> None:
    """`sock_release`: the last descriptor is gone. Ends `call` when lingering is over."""
    if net.tracing:
        net.trace("sock_release", sk=_number(sock), state=uapi.SS_NAMES[sock.state])
    if sock.polled:
        sock.polled = False
        net.polls.dirty.pop(sock, None)
        net.polls.closed.append(sock)
    net.limits.sockets_in_use -= 1
    if sock.ops is not NO_OPS:
        sock.ops.release(net, sock, call)
        sock.ops = NO_OPS
    sock.state = uapi.SS_FREE


def sys_close(net: SocketNet, call: Call, fd: int) -> None:
    """close(2): free the descriptor; the last one of a socket releases that."""
    sock = fd_remove(net, _client(call), fd)
    if sock.f_count:
        sys_return(net, call, 0)
    else:
        sock_close(net, sock, call)


def sock_close(net: SocketNet, sock: Socket, call: Call) -> None:
    """`sock_close`: the file is gone. Calls that wait on the socket end with EBADF.

    Differs from Linux, where a call that waits in another thread goes on waiting.
    """
    if net.tracing:
        net.trace("sock_close", sk=_number(sock), state=uapi.SS_NAMES[sock.state])
    if sock.sk is not None:
        for waiting in tuple(sock.sk.sk_wq):
            sys_return(net, waiting, errno.EBADF)
    sock_release(net, sock, call)


def sys_dup(net: SocketNet, call: Call, fd: int) -> None:
    """dup(2)"""
    client = _client(call)
    sys_return(net, call, 0, fd_install(net, client, sockfd_lookup(client, fd)))


# ---- naming, connecting -------------------------------------------------------------------


def sys_bind(net: SocketNet, call: Call, fd: int, addr: SockAddr | None) -> None:
    """bind(2)"""
    sock = _lookup(call, fd)
    if addr is None:
        raise SysCallError(errno.EINVAL)
    sock.ops.bind(net, call, sock, addr)


def sys_listen(net: SocketNet, call: Call, fd: int, backlog: int) -> None:
    """listen(2). The backlog is at most net.core.somaxconn, which a negative one asks for."""
    sock = _lookup(call, fd)
    somaxconn = net.sysctl["net.core.somaxconn"]
    if backlog < 0 or backlog > somaxconn:
        backlog = somaxconn
    sock.ops.listen(net, call, sock, backlog)


def sys_accept4(net: SocketNet, call: AcceptCall, fd: int, flags: int, timeout: int) -> None:
    """accept4(2): -> [fd, peer's address]"""
    client = _client(call)
    sock = _lookup(call, fd)
    if flags & ~(uapi.SOCK_CLOEXEC | uapi.SOCK_NONBLOCK):
        raise SysCallError(errno.EINVAL)
    if len(client.fdt) >= net.sysctl["fs.nr_open"]:
        raise SysCallError(errno.EMFILE)
    _set_timeout(call, sock, timeout, sock.sk.sk_rcvtimeo if sock.sk else 0)
    call.flags = flags
    call.accepted = _accepted
    sock.ops.accept(net, call, sock)


def _accepted(net: SocketNet, call: AcceptCall, sk: InetSock) -> None:
    """Give an accepted connection a socket and a descriptor."""
    listener = call.sock
    assert listener is not None
    try:
        new = sock_alloc(net, listener.type)
    except SysCallError:
        sk.sk_prot.close(net, sk, None)
        raise
    new.ops = listener.ops
    new.sk = sk
    sk.sk_socket = new
    new.state = uapi.SS_CONNECTED
    if call.flags & uapi.SOCK_NONBLOCK:
        new.f_flags |= uapi.O_NONBLOCK
    new_fd = sock_map_fd(net, _client(call), new, bool(call.flags & uapi.SOCK_CLOEXEC))
    addr = (sk.sk_family, sk.inet_dport, sk.inet_daddr)
    sys_return(net, call, 0, (new_fd, addr))


def sys_connect(net: SocketNet, call: Call, fd: int, addr: SockAddr | None, timeout: int) -> None:
    """connect(2)"""
    sock = _lookup(call, fd)
    if addr is None:
        raise SysCallError(errno.EINVAL)
    _set_timeout(call, sock, timeout, sock.sk.sk_sndtimeo if sock.sk else 0)
    call.on_timeout = errno.EINPROGRESS
    sock.ops.connect(net, call, sock, addr)


def sys_getsockname(net: SocketNet, call: Call, fd: int) -> None:
    """getsockname(2)"""
    sock = _lookup(call, fd)
    sys_return(net, call, 0, sock.ops.getname(net, sock, False))


def sys_getpeername(net: SocketNet, call: Call, fd: int) -> None:
    """getpeername(2)"""
    sock = _lookup(call, fd)
    sys_return(net, call, 0, sock.ops.getname(net, sock, True))


def sys_shutdown(net: SocketNet, call: Call, fd: int, how: int) -> None:
    """shutdown(2)"""
    sock = _lookup(call, fd)
    sock.ops.shutdown(net, sock, how)
    sys_return(net, call, 0)


# ---- sending and receiving ----------------------------------------------------------------


def sock_sendmsg(net: SocketNet, call: SendCall, sock: Socket) -> None:
    """`sock_sendmsg`: call.chunks to call.addr, or to the peer."""
    if net.tracing:
        net.trace("sock_sendmsg", sk=_number(sock), size=call.size, flags=call.flags)
    sock.ops.sendmsg(net, call, sock)


def sock_write(net: SocketNet, call: SendCall, sock: Socket) -> None:
    """`sock_write` (`sock_aio_write`): the file's view of a socket that is written to."""
    if net.tracing:
        net.trace("sock_write", sk=_number(sock), size=call.size)
    sock_sendmsg(net, call, sock)


def sys_sendmsg(
    net: SocketNet,
    call: SendCall,
    data: bytes,
    fd: int,
    flags: int,
    addr: SockAddr | None,
    places: tuple[Place, ...],
    control: tuple[Cmsg, ...],
    timeout: int,
) -> None:
    """sendmsg(2): -> bytes taken. The slots of `places` are ours from now on, also on error."""
    client = _client(call)
    try:
        check_places(net, client, places)
    except SysCallError:
        for place in places:
            if place[0] in client.regions:
                net.pool.free(place)
        raise
    if data:
        call.chunks.append(data)
    call.chunks.extend(places)
    sock = _lookup(call, fd)
    call.size = len(data) + sum(p[4] for p in places)
    call.flags = flags
    call.addr = addr
    call.control = control
    _set_timeout(call, sock, 0 if flags & uapi.MSG_DONTWAIT else timeout,
                 sock.sk.sk_sndtimeo if sock.sk else 0)  # fmt: skip
    sock_write(net, call, sock)


def sock_recvmsg(net: SocketNet, call: RecvCall, sock: Socket) -> None:
    """`sock_recvmsg`: up to call.size bytes."""
    if net.tracing:
        net.trace("sock_recvmsg", sk=_number(sock), size=call.size, flags=call.flags)
    sock.ops.recvmsg(net, call, sock)


def sock_read(net: SocketNet, call: RecvCall, sock: Socket) -> None:
    """`sock_read` (`sock_aio_read`): the file's view of a socket that is read from."""
    if net.tracing:
        net.trace("sock_read", sk=_number(sock), size=call.size)
    sock_recvmsg(net, call, sock)


def sys_recvmsg(
    net: SocketNet, call: RecvCall, fd: int, size: int, controllen: int, flags: int, timeout: int
) -> None:
    """recvmsg(2): -> [parts, addr, msg_flags, control]"""
    sock = _lookup(call, fd)
    call.size = size
    call.flags = flags
    call.controllen = controllen
    _set_timeout(call, sock, 0 if flags & uapi.MSG_DONTWAIT else timeout,
                 sock.sk.sk_rcvtimeo if sock.sk else 0)  # fmt: skip
    sock_read(net, call, sock)


def sys_recvmmsg(
    net: SocketNet, call: RecvmmsgCall, fd: int, size: int, vlen: int, flags: int, timeout: int
) -> None:
    """recvmmsg(2), of datagrams: -> [[parts, addr, msg_flags, control], ...]

    Differs from Linux: it waits only for the first datagram, as with MSG_WAITFORONE. It takes just
    one where others also wait, poll, or hold the socket by another descriptor.
    """
    sock, sk = _datagram_lookup(call, fd)
    if net.tracing:
        net.trace("sys_recvmmsg", sk=sk.number, vlen=vlen)
    if flags & ~uapi.MSG_DONTWAIT:
        raise SysCallError(errno.EINVAL)
    call.size = size
    call.vlen = 1 if sock.polled or sock.f_count > 1 else vlen
    _set_timeout(call, sock, 0 if flags else timeout, sk.sk_rcvtimeo)
    sock_read(net, call, sock)


def sys_unread(net: SocketNet, call: Call, fd: int, count: int) -> None:
    """The last `count` datagrams of the last recvmmsg go back to the head of the queue. EINVAL
    where it did not bring so many. There is no such call in Linux."""
    _, sk = _datagram_lookup(call, fd)
    udp_unread(net, sk, count)
    sys_return(net, call, 0)


def sys_unrecv(net: SocketNet, call: Call, data: bytes, fd: int) -> None:
    """Put the bytes last taken from a stream back at its queue's head: the reader does not want
    them, and others shall see them. ENOBUFS beyond the receive buffer and one reply. There is no
    such call in Linux."""
    sock = _lookup(call, fd)
    sk = sock.sk
    if not isinstance(sk, TcpSock) or sk.sk_state == uapi.TCP_LISTEN:
        raise SysCallError(errno.EOPNOTSUPP)
    if sk.sk_rmem_alloc + len(data) > sk.sk_rcvbuf + MAX_DATA:
        raise SysCallError(errno.ENOBUFS)
    if data:
        tcp_unrecv(net, sk, data)
    sys_return(net, call, 0)


def sys_unaccept(net: SocketNet, call: Call, fd: int, accepted: int) -> None:
    """Put the connection that accept4 gave last back into the listener's queue, where others, and
    poll, find it. EINVAL where it is no connection of this listener's kind, or is shared. There is
    no such call in Linux."""
    client = _client(call)
    listener = _lookup(call, fd).sk
    new = sockfd_lookup(client, accepted)
    sk = new.sk
    if (
        not isinstance(listener, TcpSock)
        or listener.sk_state != uapi.TCP_LISTEN
        or not isinstance(sk, TcpSock)
        or sk.sk_state == uapi.TCP_LISTEN
        or new.state != uapi.SS_CONNECTED
        or new.f_count > 1
        or new.polled
        or sk.sk_wq
    ):
        raise SysCallError(errno.EINVAL)
    fd_remove(net, client, accepted)
    new.sk = None
    new.ops = NO_OPS
    sock_release(net, new, None)
    inet_csk_unaccept(net, listener, sk)
    sys_return(net, call, 0)


def _datagram_lookup(call: Call, fd: int) -> tuple[Socket, UdpSock]:
    sock = _lookup(call, fd)
    sk = sock.sk
    if sock.type != uapi.SOCK_DGRAM or not isinstance(sk, UdpSock):
        raise SysCallError(errno.EOPNOTSUPP)
    return sock, sk


# ---- options ------------------------------------------------------------------------------


def sys_setsockopt(
    net: SocketNet, call: Call, fd: int, level: int, optname: int, optval: bytes
) -> None:
    """setsockopt(2)"""
    sock = _lookup(call, fd)
    if level == uapi.SOL_SOCKET:
        if optname == uapi.SO_BINDTODEVICE:
            sock_setbindtodevice(net, call, sock, optval)
            return
        sock_setsockopt(net, sock, optname, optval)
        sys_return(net, call, 0)
    else:
        sock.ops.setsockopt(net, call, sock, level, optname, optval)


def sys_getsockopt(
    net: SocketNet, call: Call, fd: int, level: int, optname: int, optlen: int
) -> None:
    """getsockopt(2): -> the option's bytes"""
    sock = _lookup(call, fd)
    if level == uapi.SOL_SOCKET and optname == uapi.SO_MEMINFO:
        sock_getmeminfo(net, call, sock, optlen)
    elif level == uapi.SOL_SOCKET:
        sys_return(net, call, 0, sock_getsockopt(net, sock, optname, optlen)[:optlen])
    else:
        sock.ops.getsockopt(net, call, sock, level, optname, optlen)


def sys_fcntl(net: SocketNet, call: Call, fd: int, cmd: int, arg: int) -> None:
    """fcntl(2), as far as it concerns O_NONBLOCK and FD_CLOEXEC. FD_CLOEXEC is only remembered: no
    descriptor of ours outlives an exec, as the library that knows them does not."""
    client = _client(call)
    sock = _lookup(call, fd)
    if cmd == uapi.F_GETFD:
        sys_return(net, call, 0, uapi.FD_CLOEXEC if fd in client.close_on_exec else 0)
    elif cmd == uapi.F_SETFD:
        if arg & uapi.FD_CLOEXEC:
            client.close_on_exec.add(fd)
        else:
            client.close_on_exec.discard(fd)
        sys_return(net, call, 0, 0)
    elif cmd == uapi.F_GETFL:
        sys_return(net, call, 0, sock.f_flags)
    elif cmd == uapi.F_SETFL:
        sock.f_flags = sock.f_flags & ~uapi.O_NONBLOCK | arg & uapi.O_NONBLOCK
        sys_return(net, call, 0, 0)
    else:
        raise SysCallError(errno.EINVAL)


def sys_ioctl(net: SocketNet, call: Call, fd: int, cmd: int) -> None:
    """ioctl(2), for requests with a number as result"""
    sock = _lookup(call, fd)
    sys_return(net, call, 0, sock.ops.ioctl(net, sock, cmd))


# ---- poll ---------------------------------------------------------------------------------


def sock_poll(net: SocketNet, sock: Socket) -> int:
    """`sock_poll`: the events that are there now"""
    return sock.ops.poll(net, sock)


def sys_poll(
    net: SocketNet, call: PollCall, fds: tuple[tuple[int, int], ...], timeout: int
) -> None:
    """poll(2): -> [[fd, revents], ...] of descriptors that have any"""
    call.timeout = timeout
    call.fds = fds
    do_poll(net, call, None)
    if call.done:
        return
    hold(net, call)
    table = _client(call).fdt
    for fd, _ in fds:
        sock = table.get(fd)
        if sock is not None and sock.sk is not None:
            sk_wait_event(net, call, sock.sk, do_poll)


def do_poll(net: SocketNet, call: PollCall, _: Sock | None) -> None:
    """`do_poll`: answer, if there is anything to tell or no time to wait."""
    table = _client(call).fdt
    ready = []
    for fd, events in call.fds:
        if fd < 0:
            continue
        sock = table.get(fd)
        if sock is None:
            ready.append((fd, uapi.POLLNVAL))
            continue
        mask = sock_poll(net, sock) & (events | uapi.POLLERR | uapi.POLLHUP)
        if mask:
            ready.append((fd, mask))
    if ready or call.timeout == 0:
        sys_return(net, call, 0, ready)


# ---- the table ----------------------------------------------------------------------------


def sys_region(net: SocketNet, call: Call, number: int) -> None:
    """This client allocates in that region of the pool, and will name places in it."""
    client = _client(call)
    if number in client.regions:
        raise SysCallError(errno.EEXIST)
    if number & 1:
        raise SysCallError(errno.EPERM, f"region {number:08x} is a layer's own, as odd ones are")
    if len(client.regions) >= MAX_REGIONS:
        raise SysCallError(errno.ENOSPC, f"at most {MAX_REGIONS} regions")
    if number in net.pool.regions or number == (net.alloc.number if net.alloc else -1):
        raise SysCallError(errno.EEXIST, f"region {number:08x} is somebody's already")
    try:
        net.pool.region(number)
    except PoolError as e:
        raise SysCallError(errno.EFAULT, str(e)) from e
    client.regions.add(number)
    sys_return(net, call, 0)


def sys_cancel(net: SocketNet, call: Call, req: int) -> None:
    """End a waiting call of the same identity; the only answer is that call's own."""
    waiting = _client(call).calls.get((call.identity, req))
    if waiting is not None:
        waiting.interrupted(net, errno.EINTR)


def sys_barrier(net: SocketNet, call: Call, timeout: int) -> None:
    """Return when all data sent or received so far has been processed everywhere."""
    call.timeout = timeout
    hold(net, call)
    net.barriers.begin(lambda: sys_return(net, call, 0))


SYS_CALL_TABLE: Final[dict[str, Callable[..., None]]] = {
    "socket": sys_socket,
    "bind": sys_bind,
    "listen": sys_listen,
    "accept4": sys_accept4,
    "connect": sys_connect,
    "sendmsg": sys_sendmsg,
    "recvmsg": sys_recvmsg,
    "recvmmsg": sys_recvmmsg,
    "unread": sys_unread,
    "unrecv": sys_unrecv,
    "unaccept": sys_unaccept,
    "shutdown": sys_shutdown,
    "getsockname": sys_getsockname,
    "getpeername": sys_getpeername,
    "setsockopt": sys_setsockopt,
    "getsockopt": sys_getsockopt,
    "close": sys_close,
    "dup": sys_dup,
    "fcntl": sys_fcntl,
    "ioctl": sys_ioctl,
    "poll": sys_poll,
    "cancel": sys_cancel,
    "region": sys_region,
    "barrier": sys_barrier,
}


_WITH_DATA: Final = frozenset({"sendmsg", "unrecv"})


def do_syscall(net: SocketNet, call: Call, args: tuple[Any, ...], data: bytes) -> None:
    """Carry out one checked request."""
    function = SYS_CALL_TABLE[call.name]
    net.current = call.client
    try:
        if call.name in _WITH_DATA:
            function(net, call, data, *args)
        else:
            function(net, call, *args)
    except SysCallError as e:
        sys_return(net, call, e.errno, e.text)
    except StalePlaceError as e:
        sys_return(net, call, errno.EFAULT, str(e))


def _client(call: Call) -> Client:
    assert call.client is not None
    return call.client


def _lookup(call: Call, fd: int) -> Socket:
    call.sock = sock = sockfd_lookup(_client(call), fd)
    return sock


def _set_timeout(call: Call, sock: Socket, timeout: int, sk_timeo: int) -> None:
    """Set the time that the call may wait: by the request, O_NONBLOCK and SO_RCVTIMEO together."""
    if sock.f_flags & uapi.O_NONBLOCK:
        timeout = 0
    elif sk_timeo > 0:
        timeout = sk_timeo if timeout < 0 else min(timeout, sk_timeo)
    call.timeout = timeout
