# SPDX-License-Identifier: MIT
"""Raw sockets as the socket layer sees them: `raw_prot` (`net/ipv4/raw.c`, the part that runs on
behalf of an application), and what ping sockets share with them.

Called by af_inet.py through `sk.sk_prot`, and by core.py with what ip reports. Speaks to the
process "ip" by the entries of `skbus.core.abi`. Received datagrams are queued and read as UDP's
are. raw(7).
"""

import errno
from typing import Any, Final

from skbus.core.abi import (
    Close,
    Connect,
    GetPort,
    Setsockopt,
    SkErrorReport,
)
from skbus.core.interfaces import TransportProto
from skbus.core.syscall import SysCallError
from skbus.inet.mcast import restore_options
from skbusd.socket import uapi, udp_sock
from skbusd.socket.call import Call, SendCall, sys_return
from skbusd.socket.ip_sockglue import NO_COOKIE, ip_cmsg_send
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto, Result
from skbusd.socket.request import transport_call
from skbusd.socket.sock import (
    InetSock,
    PendingFrames,
    RawSock,
    init_sock,
    purge_receive_queue,
    sk_free,
    sock_error,
)

MAX_LEN: Final = 0xFFFF


def raw_sk_init(net: SocketNet, sk: InetSock) -> None:
    """`raw_sk_init`: ip hears of the socket. Its number is the protocol's (`inet_create`)."""
    sk.inet_num = sk.inet_sport = sk.sk_protocol
    net.call("ip", TransportProto.init, init_sock(sk))


def raw_bind(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`raw_bind`, `ping_bind`"""

    def bound(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            udp_sock.set_local(sk, value)
        then(net, err, value)

    def make(req: int) -> GetPort:
        return GetPort(sk.number, req, addr, port, sk.sk_reuse, sk.sk_bound_dev_if)

    transport_call(net, sk, TransportProto.bind, make, bound)


def raw_sendmsg(net: SocketNet, call: SendCall, sk: InetSock) -> None:
    """`raw_sendmsg`, `ping_v4_sendmsg`, the application's side: one packet; ip answers whether it
    went out. The address's port means nothing."""
    if call.size > MAX_LEN:
        raise SysCallError(errno.EMSGSIZE)
    if call.flags & uapi.MSG_OOB:
        raise SysCallError(errno.EOPNOTSUPP)
    if sk.sk_err:
        raise SysCallError(sock_error(sk))
    if sk.sk_shutdown & uapi.SEND_SHUTDOWN:
        raise SysCallError(errno.EPIPE)
    addr = b""
    if call.addr is not None:
        family, _, addr = call.addr
        if family != uapi.AF_INET and (family != uapi.AF_UNSPEC or sk.sk_type != uapi.SOCK_RAW):
            raise SysCallError(errno.EAFNOSUPPORT)
        if len(addr) != 4:
            raise SysCallError(errno.EINVAL)
    elif sk.sk_state != uapi.TCP_ESTABLISHED:
        raise SysCallError(errno.EDESTADDRREQ)
    cookie = ip_cmsg_send(net, call.control, False) if call.control else NO_COOKIE
    if not udp_sock.sock_alloc_send(net, call, sk, _sendmsg_again):
        return
    frames = PendingFrames(addr, 0, cookie)
    frames.chunks, frames.size = call.chunks, call.size
    udp_sock.ip_make_skb(net, call, sk, frames)


def _sendmsg_again(net: SocketNet, call: SendCall) -> None:
    sk = call.waits[0]
    if isinstance(sk, InetSock):
        raw_sendmsg(net, call, sk)


def connect(net: SocketNet, sk: InetSock, addr: bytes, port: int, then: Result) -> None:
    """`ip4_datagram_connect`; a ping socket without an identifier gets one first
    (`inet_dgram_connect`)."""
    if not sk.inet_num:
        udp_sock.inet_autobind(net, sk)
    udp_sock.ip4_datagram_connect(net, sk, addr, port, then)


def raw_shutdown(net: SocketNet, sk: InetSock, how: int) -> None:
    """Nothing that ip would have to know."""


def raw_close(net: SocketNet, sk: InetSock, call: Call | None) -> None:
    """`raw_close`, `ping_close`"""
    unread = sk.sk_rmem_alloc
    purge_receive_queue(net, sk)
    net.call("ip", TransportProto.close, Close(sk.number, unread, -1))
    sk_free(net, sk)
    if call is not None:
        sys_return(net, call, 0)


def raw_error_report(net: SocketNet, sk: InetSock, item: SkErrorReport) -> None:
    """An ICMP error about a packet of ours, for the next call."""
    udp_sock.udp_error_report(net, sk, item)


def raw_restart(net: SocketNet, sk: InetSock) -> None:
    """ip has been restarted: it is told of the socket anew, with its options, address, peer and
    groups."""
    assert isinstance(sk, RawSock)
    sk.sk_wmem_queued = 0
    net.call("ip", TransportProto.init, init_sock(sk))
    for (level, optname), optval in sk.options.items():
        net.call("ip", TransportProto.setsockopt, Setsockopt(sk.number, 0, level, optname, optval))
    for optname, optval in restore_options(sk.mc_list):
        net.call(
            "ip", TransportProto.setsockopt, Setsockopt(sk.number, 0, uapi.SOL_IP, optname, optval)
        )
    if sk.inet_rcv_saddr != uapi.INADDR_ANY or sk.sk_type != uapi.SOCK_RAW:
        num = 0 if sk.sk_type == uapi.SOCK_RAW else sk.inet_num
        if num or sk.sk_type == uapi.SOCK_RAW:
            item = GetPort(sk.number, 0, sk.inet_rcv_saddr, num, sk.sk_reuse, 0)
            net.call("ip", TransportProto.bind, item)
    if sk.sk_state == uapi.TCP_ESTABLISHED:
        net.call("ip", TransportProto.connect, Connect(sk.number, 0, sk.inet_daddr, sk.inet_dport))


RAW_PROT: Final[Proto] = Proto(
    name="RAW",
    process="ip",
    obj=RawSock,
    init=raw_sk_init,
    close=raw_close,
    get_port=raw_bind,
    connect=connect,
    disconnect=udp_sock.udp_disconnect,
    sendmsg=raw_sendmsg,
    recvmsg=udp_sock.udp_recvmsg,
    shutdown=raw_shutdown,
    setsockopt=udp_sock.udp_setsockopt,
    getsockopt=udp_sock.udp_getsockopt,
    poll=udp_sock.datagram_poll,
    data_ready=udp_sock.udp_data_ready,
    error_report=raw_error_report,
    state_change=udp_sock.udp_state_change,
    write_space=udp_sock.udp_write_space,
    restart=raw_restart,
    levels=frozenset({uapi.SOL_IP, uapi.SOL_RAW}),
    bind=raw_bind,
)
