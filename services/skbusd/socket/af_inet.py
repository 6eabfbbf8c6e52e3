# SPDX-License-Identifier: MIT
"""The internet family (`net/ipv4/af_inet.c`): `inet_create`, the switch table, and the functions of
its `struct socket` (`inet_stream_ops`, `inet_dgram_ops`).

Called by socket.py through `net_families` and `sock.ops`; calls the protocol through
`sk.sk_prot`. RFC 9293 for the states of a stream, RFC 768 for datagrams.
"""

import errno
from typing import Any, Final

from skbus.core.abi import ListenStart
from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.interfaces import TransportProto
from skbus.core.syscall import SysCallError
from skbusd.socket import (
    inet_connection_sock,
    ping_sock,
    raw_sock,
    tcp_sock,
    uapi,
    udp_sock,
)
from skbusd.socket.call import (
    AcceptCall,
    Call,
    RecvCall,
    SendCall,
    attempt,
    hold,
    sk_wait_event,
    sk_wake,
    sys_return,
)
from skbusd.socket.modprobe import request_module
from skbusd.socket.msghdr import SockAddr
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto, proto_register, proto_unregister, set_local
from skbusd.socket.protosw import (
    INET_PROTOSW_ICSK,
    INET_PROTOSW_PERMANENT,
    INET_PROTOSW_REUSE,
    InetProtosw,
    inet_del_protosw,
    inet_lookup_protosw,
    inet_register_protosw,
    inet_unregister_protosw,
)
from skbusd.socket.sock import (
    InetConnectionSock,
    InetSock,
    Sock,
    TcpSock,
    sk_alloc,
    sk_free,
    sock_error,
    sock_init_data,
)
from skbusd.socket.socket import (
    NetProtoFamily,
    ProtoOps,
    Socket,
    sock_no_op,
    sock_register,
    sock_unregister,
)

# ---- creating -----------------------------------------------------------------------------


def capable_net_raw(net: SocketNet) -> bool:
    """`ns_capable(CAP_NET_RAW)`: may the calling process have raw sockets?"""
    return net.current is not None and net.current.cred.net_raw


def inet_create(net: SocketNet, sock: Socket, protocol: int, kern: bool) -> None:
    """`inet_create`: find the protocol in the switch, and make the sock.

    ESOCKTNOSUPPORT where the type is unknown, EPROTONOSUPPORT where it has no such protocol. Before
    that, it asks for a plug-in twice, the second time for any type of the protocol. EPERM for raw
    sockets without CAP_NET_RAW, ENOBUFS where there is no room.
    """
    if net.tracing:
        net.trace("inet_create", type=sock.type, protocol=protocol)
    if not 0 <= protocol < uapi.IPPROTO_MAX:
        raise SysCallError(errno.EINVAL)
    name = f"net-pf-{uapi.PF_INET}-proto-{protocol}"
    names = [f"{name}-type-{sock.type}", name]
    while True:
        try:
            answer, protocol = inet_lookup_protosw(net, sock.type, protocol)
            break
        except SysCallError:
            if not names:
                raise
            request_module(net, names.pop(0))
    if sock.type == uapi.SOCK_RAW and not kern and not capable_net_raw(net):
        raise SysCallError(errno.EPERM)
    sock.ops = answer.ops
    sk = sk_alloc(net, uapi.PF_INET, sock.type, protocol, answer.prot)
    sock_init_data(net, sock, sk)
    if answer.flags & INET_PROTOSW_REUSE:
        sk.sk_reuse = 1
    try:
        answer.prot.init(net, sk)
    except SysCallError:
        sk_free(net, sk)
        sock.sk = None
        raise


# ---- names --------------------------------------------------------------------------------


def inet_bind(net: SocketNet, call: Call, sock: Socket, addr: SockAddr) -> None:
    """`inet_bind`. EINVAL where it has a port already, EADDRINUSE and EADDRNOTAVAIL from below.
    Raw and ping sockets have a bind of their own.

    Differs from Linux: any process that can reach the socket layer may bind low ports.
    """
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_bind", sk=sk.number, port=addr[1])
    family, port, daddr = addr
    if family != uapi.AF_INET and not (
        family == uapi.AF_UNSPEC and daddr in (b"", uapi.INADDR_ANY)
    ):
        raise SysCallError(errno.EAFNOSUPPORT)
    if family == uapi.AF_INET and len(daddr) != 4:
        raise SysCallError(errno.EINVAL)
    bind = sk.sk_prot.bind
    if sk.sk_state != uapi.TCP_CLOSE or (sk.inet_num and bind is None):
        raise SysCallError(errno.EINVAL)

    def bound(net: SocketNet, err: int, _: Any) -> None:
        sys_return(net, call, err)

    hold(net, call)
    (bind or sk.sk_prot.get_port)(net, sk, daddr or uapi.INADDR_ANY, port, bound)


def inet_getname(net: SocketNet, sock: Socket, peer: bool) -> SockAddr:
    """`inet_getname`: our address, or the peer's (ENOTCONN where there is none)."""
    sk = _inet(sock)
    if peer:
        if not sk.inet_dport or sk.sk_state in (uapi.TCP_CLOSE, uapi.TCP_SYN_SENT):
            raise SysCallError(errno.ENOTCONN)
        return (sk.sk_family, sk.inet_dport, sk.inet_daddr)
    addr = sk.inet_saddr if sk.inet_saddr != uapi.INADDR_ANY else sk.inet_rcv_saddr
    return (sk.sk_family, sk.inet_sport, addr)


# ---- connecting ---------------------------------------------------------------------------


def inet_stream_connect(net: SocketNet, call: Call, sock: Socket, addr: SockAddr) -> None:
    """`inet_stream_connect`: begin a connection, or wait for the one that has begun."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_stream_connect", sk=sk.number, state=uapi.SS_NAMES[sock.state])
    family, port, daddr = addr
    if family == uapi.AF_UNSPEC:
        sock.state = uapi.SS_UNCONNECTED
        hold(net, call)
        sk.sk_prot.disconnect(net, sk, lambda net, err, _: sys_return(net, call, err))
        return
    if sock.state == uapi.SS_CONNECTED:
        raise SysCallError(errno.EISCONN)
    if sock.state == uapi.SS_CONNECTING:
        if isinstance(sk, TcpSock) and sk.defer_connect:
            raise SysCallError(errno.EISCONN)
        call.on_timeout = errno.EALREADY
    elif sock.state == uapi.SS_UNCONNECTED:
        if sk.sk_state != uapi.TCP_CLOSE:
            raise SysCallError(errno.EISCONN)
        if family != uapi.AF_INET:
            raise SysCallError(errno.EAFNOSUPPORT)
        if len(daddr) != 4:
            raise SysCallError(errno.EINVAL)
        sock.state = uapi.SS_CONNECTING
        sk.sk_state = uapi.TCP_SYN_SENT
        sk.sk_shutdown = 0
        hold(net, call)

        def begun(net: SocketNet, err: int, _: Any) -> None:
            if err:
                sock.state = uapi.SS_UNCONNECTED
                sk.sk_state = uapi.TCP_CLOSE
                sys_return(net, call, err)
                sk_wake(net, sk)
            elif isinstance(sk, TcpSock) and sk.defer_connect:
                sys_return(net, call, 0)
                sk_wake(net, sk)
            elif not call.done:
                attempt(net, call, lambda net, call: inet_wait_for_connect(net, call, sk))

        sk.sk_prot.connect(net, sk, daddr, port, begun)
        return
    else:
        raise SysCallError(errno.EINVAL)
    inet_wait_for_connect(net, call, sk)


def inet_wait_for_connect(net: SocketNet, call: Call, sk: InetSock) -> None:
    """`inet_wait_for_connect`, and the call's answer."""
    sock = call.sock
    if sock is None:
        raise SysCallError(errno.EBADF)
    if sk.sk_state in (uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV):
        sk_wait_event(net, call, sk, inet_wait_for_connect)
        return
    if sk.sk_state == uapi.TCP_CLOSE:
        err = sock_error(sk) or errno.ECONNABORTED
        sock.state = uapi.SS_UNCONNECTED
        sk.sk_prot.disconnect(net, sk, None)
        raise SysCallError(err)
    sock.state = uapi.SS_CONNECTED
    sys_return(net, call, 0)


def inet_dgram_connect(net: SocketNet, call: Call, sock: Socket, addr: SockAddr) -> None:
    """`inet_dgram_connect`: remember the peer; or, with AF_UNSPEC, forget it."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_dgram_connect", sk=sk.number)
    family, port, daddr = addr
    if family == uapi.AF_UNSPEC:
        hold(net, call)
        sk.sk_prot.disconnect(net, sk, lambda net, err, _: sys_return(net, call, err))
        return
    if family != uapi.AF_INET:
        raise SysCallError(errno.EAFNOSUPPORT)
    if len(daddr) != 4:
        raise SysCallError(errno.EINVAL)

    def connected(net: SocketNet, err: int, _: Any) -> None:
        sys_return(net, call, err)

    hold(net, call)
    sk.sk_prot.connect(net, sk, daddr, port, connected)


# ---- listening ----------------------------------------------------------------------------


def inet_listen(net: SocketNet, call: Call, sock: Socket, backlog: int) -> None:
    """`inet_listen`: become a listener, or change the backlog of one."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_listen", sk=sk.number, backlog=backlog)
    if sock.state != uapi.SS_UNCONNECTED or not isinstance(sk, InetConnectionSock):
        raise SysCallError(errno.EINVAL)
    if sk.sk_state not in (uapi.TCP_CLOSE, uapi.TCP_LISTEN):
        raise SysCallError(errno.EINVAL)

    def started(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            sk.sk_state = uapi.TCP_LISTEN
            sk.sk_max_ack_backlog = backlog
            set_local(sk, value)
            net.info("inet_csk_listen_start", sk=sk.number, port=sk.inet_num, backlog=backlog)
        sys_return(net, call, err)
        sk_wake(net, sk)

    hold(net, call)
    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.listen,
        lambda number, req: ListenStart(number, req, backlog),
        started,
    )


def inet_accept(net: SocketNet, call: AcceptCall, sock: Socket) -> None:
    """`inet_accept`: take the first child off the accept queue, when there is one."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_accept", sk=sk.number)
    if not isinstance(sk, TcpSock) or sk.sk_state != uapi.TCP_LISTEN:
        raise SysCallError(errno.EINVAL)
    child = inet_connection_sock.inet_csk_accept(net, sk)
    if child is None:
        sk_wait_event(net, call, sk, _accept_again)
        return
    call.accepted(net, call, child)


def _accept_again(net: SocketNet, call: AcceptCall, sk: Sock) -> None:
    if call.sock is not None:
        inet_accept(net, call, call.sock)


# ---- data ---------------------------------------------------------------------------------


def inet_sendmsg(net: SocketNet, call: SendCall, sock: Socket) -> None:
    """`inet_sendmsg`: pass the call on to the protocol."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_sendmsg", sk=sk.number, size=call.size)
    sk.sk_prot.sendmsg(net, call, sk)


def inet_recvmsg(net: SocketNet, call: RecvCall, sock: Socket) -> None:
    """`inet_recvmsg`: pass the call on to the protocol."""
    sk = _inet(sock)
    if net.tracing:
        net.trace("inet_recvmsg", sk=sk.number, size=call.size)
    sk.sk_prot.recvmsg(net, call, sk)


# ---- the end ------------------------------------------------------------------------------


def inet_shutdown(net: SocketNet, sock: Socket, how: int) -> None:
    """`inet_shutdown`. how: 0 receiving, 1 sending, 2 both. ENOTCONN where it is not connected."""
    if not 0 <= how <= 2:
        raise SysCallError(errno.EINVAL)
    how += 1
    sk = _inet(sock)
    if sock.state == uapi.SS_CONNECTING:
        sock.state = (
            uapi.SS_DISCONNECTING
            if sk.sk_state in (uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV, uapi.TCP_CLOSE)
            else uapi.SS_CONNECTED
        )
    if sk.sk_state == uapi.TCP_SYN_SENT or (
        sk.sk_state == uapi.TCP_LISTEN and how & uapi.RCV_SHUTDOWN
    ):
        sk.sk_prot.disconnect(net, sk, None)
        sock.state = uapi.SS_UNCONNECTED
        sk_wake(net, sk)
        return
    not_connected = sk.sk_state == uapi.TCP_CLOSE
    if sk.sk_state != uapi.TCP_LISTEN:
        sk.sk_shutdown |= how
        if not not_connected:
            sk.sk_prot.shutdown(net, sk, how)
    sk_wake(net, sk)
    if not_connected:
        raise SysCallError(errno.ENOTCONN)


def inet_release(net: SocketNet, sock: Socket, call: Call | None) -> None:
    """`inet_release`: the application is done with it; the protocol may go on for a while."""
    sk = sock.sk
    sock.sk = None
    if not isinstance(sk, InetSock):
        if call is not None:
            sys_return(net, call, 0)
        return
    sk.sk_socket = None
    if net.tracing:
        net.trace("inet_release", sk=sk.number, state=uapi.TCP_STATES[sk.sk_state])
    sk.sk_prot.close(net, sk, call)


def inet_ioctl(net: SocketNet, sock: Socket, cmd: int) -> int:
    """`inet_ioctl`: SIOCINQ, SIOCOUTQ, SIOCATMARK. ENOTTY for others."""
    sk = _inet(sock)
    return sk.sk_prot.ioctl(net, sk, cmd)


def inet_poll(net: SocketNet, sock: Socket) -> int:
    """`tcp_poll` or `datagram_poll`"""
    sk = sock.sk
    return sk.sk_prot.poll(net, sk) if isinstance(sk, InetSock) else uapi.POLLNVAL


def sock_common_setsockopt(
    net: SocketNet, call: Call, sock: Socket, level: int, optname: int, optval: bytes
) -> None:
    """`sock_common_setsockopt`: a level above SOL_SOCKET is the protocol's."""
    sk = _inet(sock)
    sk.sk_prot.setsockopt(net, call, sk, level, optname, optval)


def sock_common_getsockopt(
    net: SocketNet, call: Call, sock: Socket, level: int, optname: int, optlen: int
) -> None:
    """`sock_common_getsockopt`"""
    sk = _inet(sock)
    sk.sk_prot.getsockopt(net, call, sk, level, optname, optlen)


def _inet(sock: Socket) -> InetSock:
    sk = sock.sk
    if not isinstance(sk, InetSock):
        raise SysCallError(errno.EBADF)
    return sk


INET_STREAM_OPS: Final = ProtoOps(
    family=uapi.PF_INET,
    release=inet_release,
    bind=inet_bind,
    connect=inet_stream_connect,
    accept=inet_accept,
    getname=inet_getname,
    poll=inet_poll,
    listen=inet_listen,
    shutdown=inet_shutdown,
    setsockopt=sock_common_setsockopt,
    getsockopt=sock_common_getsockopt,
    sendmsg=inet_sendmsg,
    recvmsg=inet_recvmsg,
    ioctl=inet_ioctl,
)

INET_DGRAM_OPS: Final = ProtoOps(
    family=uapi.PF_INET,
    release=inet_release,
    bind=inet_bind,
    connect=inet_dgram_connect,
    accept=sock_no_op,
    getname=inet_getname,
    poll=inet_poll,
    listen=sock_no_op,
    shutdown=inet_shutdown,
    setsockopt=sock_common_setsockopt,
    getsockopt=sock_common_getsockopt,
    sendmsg=inet_sendmsg,
    recvmsg=inet_recvmsg,
    ioctl=inet_ioctl,
)

INET_SOCKRAW_OPS: Final = INET_DGRAM_OPS
"""Nothing in `inet_sockraw_ops` that is here differs from UDP's."""

INETSW_ARRAY: Final = (
    InetProtosw(
        uapi.SOCK_STREAM,
        uapi.IPPROTO_TCP,
        tcp_sock.TCP_PROT,
        INET_STREAM_OPS,
        INET_PROTOSW_PERMANENT | INET_PROTOSW_ICSK,
    ),
    InetProtosw(
        uapi.SOCK_DGRAM,
        uapi.IPPROTO_UDP,
        udp_sock.UDP_PROT,
        INET_DGRAM_OPS,
        INET_PROTOSW_PERMANENT,
    ),
    InetProtosw(
        uapi.SOCK_DGRAM,
        uapi.IPPROTO_ICMP,
        ping_sock.PING_PROT,
        INET_SOCKRAW_OPS,
        INET_PROTOSW_REUSE,
    ),
    InetProtosw(
        uapi.SOCK_RAW,
        uapi.IPPROTO_IP,
        raw_sock.RAW_PROT,
        INET_SOCKRAW_OPS,
        INET_PROTOSW_REUSE,
    ),
)
"""`inetsw_array`: the entries that are there from the start."""

UDPLITE4_PROTOSW: Final = InetProtosw(
    uapi.SOCK_DGRAM,
    uapi.IPPROTO_UDPLITE,
    udp_sock.UDPLITE_PROT,
    INET_DGRAM_OPS,
    INET_PROTOSW_PERMANENT,
)

INET_FAMILY_OPS: Final = NetProtoFamily(uapi.PF_INET, inet_create)


# ---- start --------------------------------------------------------------------------------


def inet_register_transport(net: SocketNet, p: InetProtosw) -> None:
    """Register a protocol and its place in the switch, so that sockets of it may be made. All or
    nothing; errors are those of `proto_register` and `inet_register_protosw`. A plug-in's part in
    this process need call nothing else."""
    proto_register(net, p.prot)
    try:
        inet_register_protosw(net, p)
    except SysCallError:
        proto_unregister(net, p.prot)
        raise


def inet_unregister_transport(net: SocketNet, p: InetProtosw) -> None:
    """Undo `inet_register_transport`. EPERM where the entry is permanent."""
    inet_unregister_protosw(net, p)
    proto_unregister(net, p.prot)


def udplite4_register(net: SocketNet) -> None:
    """`udplite4_register`, the socket layer's part; udp does the rest."""
    inet_register_transport(net, UDPLITE4_PROTOSW)


def udplite4_unregister(net: SocketNet) -> None:
    """Undo `udplite4_register`."""
    inet_del_protosw(net, UDPLITE4_PROTOSW)
    proto_unregister(net, udp_sock.UDPLITE_PROT)


def _proto_step(prot: Proto[Any]) -> InitStep:
    return InitStep(
        f"proto_register({prot.name})",
        lambda net: proto_register(net, prot),
        lambda net: proto_unregister(net, prot),
    )


def _protosw_step(p: InetProtosw) -> InitStep:
    return InitStep(
        f"inet_register_protosw({p.prot.name})",
        lambda net: inet_register_protosw(net, p),
        lambda net: inet_del_protosw(net, p),
    )


INET_INIT: Final = (
    _proto_step(tcp_sock.TCP_PROT),
    _proto_step(udp_sock.UDP_PROT),
    _proto_step(raw_sock.RAW_PROT),
    _proto_step(ping_sock.PING_PROT),
    InitStep(
        "sock_register(inet_family_ops)",
        lambda net: sock_register(net, INET_FAMILY_OPS),
        lambda net: sock_unregister(net, uapi.PF_INET),
    ),
    *(_protosw_step(p) for p in INETSW_ARRAY),
    InitStep("udplite4_register", udplite4_register, udplite4_unregister),
)
"""The steps of `inet_init` that are the socket layer's. ip, tcp and udp do the others."""


def inet_init(net: SocketNet) -> None:
    """`inet_init`, the socket layer's part: protocols, the family, and the switch table."""
    do_initcalls(net, "inet_init", INET_INIT)


__all__ = ["inet_init", "inet_register_protosw", "inet_unregister_protosw", "sk_free"]
