# SPDX-License-Identifier: MIT
"""Raw sockets as the socket layer sees them: `raw_prot` (`net/ipv4/raw.c`, the part that runs on
behalf of an application). Ping sockets share some of it.

Called by af_inet.py through `sk.sk_prot`, and by core.py with ip's reports. Speaks to the process
"ip" by the entries of `skbus.core.abi`. Received datagrams are queued and read as UDP's are.
raw(7).
"""

import errno
from typing import Final

from skbus.core.syscall import SysCallError
from skbusd.socket import uapi, udp_sock
from skbusd.socket.call import SendCall
from skbusd.socket.ip_sockglue import NO_COOKIE, ip_cmsg_send
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import proto_get_port, proto_init
from skbusd.socket.sock import (
    PendingFrames,
    RawSock,
    UdpSock,
    sock_error,
)

MAX_LEN: Final = 0xFFFF


def raw_sk_init(net: SocketNet, sk: UdpSock) -> None:
    """`raw_sk_init`: ip hears of the socket. Its number is the protocol's (`inet_create`)."""
    sk.inet_num = sk.inet_sport = sk.sk_protocol
    proto_init(net, sk)


def raw_sendmsg(net: SocketNet, call: SendCall, sk: UdpSock) -> None:
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
    if not udp_sock.sock_alloc_send(net, call, sk, raw_sendmsg):
        return
    frames = PendingFrames(addr, 0, cookie)
    frames.chunks, frames.size = call.chunks, call.size
    udp_sock.ip_make_skb(net, call, sk, frames)


def raw_shutdown(net: SocketNet, sk: UdpSock, how: int) -> None:
    """Do nothing: ip need not know."""


RAW_PROT: Final = udp_sock.datagram_prot(
    "RAW",
    "ip",
    obj=RawSock,
    init=raw_sk_init,
    bind=proto_get_port,
    sendmsg=raw_sendmsg,
    shutdown=raw_shutdown,
    levels=frozenset({uapi.SOL_IP, uapi.SOL_RAW}),
)
