# SPDX-License-Identifier: MIT
"""Control messages and error queues of internet sockets (`net/ipv4/ip_sockglue.c`, and
`__sock_recv_timestamp`, `sock_queue_err_skb` of `net/socket.c` and `net/core/skbuff.c`).

The options that ask for control messages with each datagram are kept here, as `cmsg_flags`; others
of level IP are the transport's (`skbus.inet.ip_sockglue`). Called by udp_sock, raw_sock and
tcp_sock when they send and receive, and by core with errors that transports report. ip(7).
"""

import errno
import struct
from typing import Final, NamedTuple

from skbus.core import uapi
from skbus.core.abi import DataReadyCb, SockErrCb
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SysCallError
from skbus.inet.headers import HeaderError
from skbus.inet.headers.ipv4 import IP_HLEN, parse_options
from skbus.inet.ip_sockglue import int_value, ip_int, ip_options_get
from skbusd.socket.call import Call, RecvCall, sk_wake, sys_return
from skbusd.socket.msghdr import Cmsg
from skbusd.socket.netns import SocketNet
from skbusd.socket.recv import Parts, recv_return
from skbusd.socket.sock import InetSock, Sock

# cmsg_flags (include/net/inet_sock.h), and those of SOL_SOCKET and SOL_UDP that are alike
IP_CMSG_PKTINFO: Final = 1 << 0
IP_CMSG_TTL: Final = 1 << 1
IP_CMSG_TOS: Final = 1 << 2
IP_CMSG_RECVOPTS: Final = 1 << 3
IP_CMSG_RETOPTS: Final = 1 << 4
IP_CMSG_PASSSEC: Final = 1 << 5
IP_CMSG_ORIGDSTADDR: Final = 1 << 6
IP_CMSG_CHECKSUM: Final = 1 << 7
IP_CMSG_RECVFRAGSIZE: Final = 1 << 8
SOCK_RCVTSTAMP: Final = 1 << 16
SOCK_RCVTSTAMPNS: Final = 1 << 17
SOCK_RXQ_OVFL: Final = 1 << 18
UDP_CMSG_GRO: Final = 1 << 19
TCP_CMSG_INQ: Final = 1 << 20

_CMSGS: Final = {
    uapi.IP_PKTINFO: IP_CMSG_PKTINFO,
    uapi.IP_RECVTTL: IP_CMSG_TTL,
    uapi.IP_RECVTOS: IP_CMSG_TOS,
    uapi.IP_RECVOPTS: IP_CMSG_RECVOPTS,
    uapi.IP_RETOPTS: IP_CMSG_RETOPTS,
    uapi.IP_PASSSEC: IP_CMSG_PASSSEC,
    uapi.IP_RECVORIGDSTADDR: IP_CMSG_ORIGDSTADDR,
    uapi.IP_CHECKSUM: IP_CMSG_CHECKSUM,
    uapi.IP_RECVFRAGSIZE: IP_CMSG_RECVFRAGSIZE,
}

_INT: Final = struct.Struct("=i")
_PKTINFO: Final = struct.Struct("=i4s4s")
_SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")
_EXTENDED_ERR: Final = struct.Struct("=IBBBxII")
_TIME: Final = struct.Struct("=qq")
_SKB_TRUESIZE: Final = 256
_NS: Final = 1_000_000_000
_NO_SOCKADDR: Final = bytes(_SOCKADDR_IN.size)


def _sockaddr_in(addr: bytes, port: int) -> bytes:
    return _SOCKADDR_IN.pack(uapi.AF_INET, port.to_bytes(2, "big"), addr)


# ---- options ------------------------------------------------------------------------------


def ip_cmsg_setsockopt(net: SocketNet, sk: InetSock, optname: int, optval: bytes) -> bool:
    """An option of level IP that is the socket layer's own; False where it is the transport's.

    EINVAL for a bad value, EPERM for IP_TRANSPARENT without the capability.
    """
    bit = _CMSGS.get(optname)
    if bit is not None:
        if optname == uapi.IP_RECVFRAGSIZE and sk.sk_type == uapi.SOCK_STREAM:
            raise SysCallError(errno.EINVAL)
        sk.set_cmsg(bit, bool(int_value(optval)))
        return True
    if optname == uapi.IP_TRANSPARENT and int_value(optval) and not net.capable_net():
        raise SysCallError(errno.EPERM)
    if optname == uapi.IP_RECVERR and not int_value(optval):
        skb_errqueue_purge(net, sk)
    return False


def ip_cmsg_getsockopt(sk: InetSock, optname: int, optlen: int) -> bytes | None:
    """The bytes of such an option; None where it is the transport's."""
    bit = _CMSGS.get(optname)
    return None if bit is None else ip_int(int(bool(sk.cmsg_flags & bit)), optlen)


# ---- control messages that come -------------------------------------------------------------


def sock_recv_timestamp(net: SocketNet, sk: InetSock, tstamp: int) -> Cmsg:
    """`__sock_recv_timestamp`: the packet's time of arrival (SO_TIMESTAMP, SO_TIMESTAMPNS). tstamp:
    ns of the stack's clock, 0 for now."""
    ns = (tstamp or net.now) + net.tk_real_offset
    if sk.cmsg_flags & SOCK_RCVTSTAMPNS:
        return uapi.SOL_SOCKET, uapi.SCM_TIMESTAMPNS, _TIME.pack(ns // _NS, ns % _NS)
    return uapi.SOL_SOCKET, uapi.SCM_TIMESTAMP, _TIME.pack(ns // _NS, ns % _NS // 1000)


def sock_recv_cmsgs(net: SocketNet, sk: InetSock, skb: SkBuff, drops: int) -> list[Cmsg]:
    """`sock_recv_cmsgs`: SOL_SOCKET's control messages for a datagram."""
    out: list[Cmsg] = []
    if sk.cmsg_flags & SOCK_RCVTSTAMP:
        out.append(sock_recv_timestamp(net, sk, skb.tstamp))
    if sk.cmsg_flags & SOCK_RXQ_OVFL and drops:
        out.append((uapi.SOL_SOCKET, uapi.SO_RXQ_OVFL, (drops & 0xFFFFFFFF).to_bytes(4, "little")))
    return out


def ip_cmsg_recv(sk: InetSock, skb: SkBuff, cb: DataReadyCb) -> list[Cmsg]:
    """`ip_cmsg_recv`: level IP's control messages for a datagram, from its IP header."""
    flags = sk.cmsg_flags
    out: list[Cmsg] = []
    if flags & UDP_CMSG_GRO and skb.gso_size:
        out.append((uapi.SOL_UDP, uapi.UDP_GRO, _INT.pack(skb.gso_size)))
    if flags & IP_CMSG_PKTINFO:
        info = _PKTINFO.pack(cb.ifindex, cb.spec_dst or cb.daddr, cb.daddr)
        out.append((uapi.SOL_IP, uapi.IP_PKTINFO, info))
    at = skb.network_header
    head = skb.head
    if at < 0 or len(head) - at < IP_HLEN:
        return out
    if flags & IP_CMSG_TTL:
        out.append((uapi.SOL_IP, uapi.IP_TTL, _INT.pack(head[at + 8])))
    if flags & IP_CMSG_TOS:
        out.append((uapi.SOL_IP, uapi.IP_TOS, head[at + 1 : at + 2]))
    ihl = (head[at] & 0xF) << 2
    if ihl > IP_HLEN and flags & (IP_CMSG_RECVOPTS | IP_CMSG_RETOPTS):
        out += _ip_cmsg_recv_opts(flags, head[at + IP_HLEN : at + ihl])
    if flags & IP_CMSG_ORIGDSTADDR:
        port = head[skb.transport_header + 2 : skb.transport_header + 4]
        dport = int.from_bytes(port, "big") if skb.transport_header > 0 else 0
        to = _sockaddr_in(cb.daddr, dport)
        out.append((uapi.SOL_IP, uapi.IP_ORIGDSTADDR, to))
    return out


def _ip_cmsg_recv_opts(flags: int, options: bytes) -> list[Cmsg]:
    """`ip_cmsg_recv_opts`, `ip_cmsg_recv_retopts`.

    Differs from Linux: a recorded route is shown as it came, without our own address. No source
    routes are turned round, as none are accepted.
    """
    out: list[Cmsg] = []
    if flags & IP_CMSG_RECVOPTS:
        out.append((uapi.SOL_IP, uapi.IP_RECVOPTS, options))
    if flags & IP_CMSG_RETOPTS:
        try:
            parsed = parse_options(options)
        except HeaderError:
            return out
        echo = b"".join(opt.data for opt in (parsed.rr, parsed.ts) if opt is not None)
        if echo:
            out.append((uapi.SOL_IP, uapi.IP_RETOPTS, echo + bytes(-len(echo) & 3)))
    return out


# ---- control messages that are sent ---------------------------------------------------------


class IpcmCookie(NamedTuple):
    """`struct ipcm_cookie`: how one datagram shall be sent. -1, 0 or b'': as the socket says."""

    tos: int = -1
    ttl: int = 0
    saddr: bytes = b""
    oif: int = 0
    options: bytes = b""
    gso_size: int = -1
    mark: int = -1
    priority: int = -1


NO_COOKIE: Final = IpcmCookie()


def sock_cmsg_send(net: SocketNet, control: tuple[Cmsg, ...]) -> dict[str, int]:
    """`sock_cmsg_send`: control messages of SOL_SOCKET. EINVAL for unknown ones, EPERM for SO_MARK
    without the capability."""
    out: dict[str, int] = {}
    for level, kind, data in control:
        if level != uapi.SOL_SOCKET:
            continue
        if kind == uapi.SO_MARK and len(data) == 4:
            if not net.capable_net():
                raise SysCallError(errno.EPERM)
            out["mark"] = int.from_bytes(data, "little")
        elif kind == uapi.SO_PRIORITY and len(data) == 4:
            number = int_value(data)
            if not 0 <= number <= 6 and not net.capable_net():
                raise SysCallError(errno.EPERM)
            out["priority"] = number
        elif kind == uapi.SO_TIMESTAMPING and len(data) == 4:
            pass  # no timestamps of sending are made
        else:
            raise SysCallError(errno.EINVAL)
    return out


def ip_cmsg_send(net: SocketNet, control: tuple[Cmsg, ...], udp: bool) -> IpcmCookie:
    """`ip_cmsg_send`, `udp_cmsg_send`: take control messages that say how to send a datagram.
    EINVAL for one of level IP (or UDP) that is unknown or has a bad value; other levels are passed
    over."""
    fields: dict[str, int | bytes] = dict(sock_cmsg_send(net, control))
    for level, kind, data in control:
        if level == uapi.SOL_UDP and udp:
            if kind != uapi.UDP_SEGMENT or len(data) != 2:
                raise SysCallError(errno.EINVAL)
            fields["gso_size"] = int.from_bytes(data, "little")
        elif level == uapi.SOL_IP:
            fields.update(_ip_cmsg_send_one(kind, data))
    return NO_COOKIE._replace(**fields)  # type: ignore[arg-type]


def _ip_cmsg_send_one(kind: int, data: bytes) -> dict[str, int | bytes]:
    if kind == uapi.IP_PKTINFO and len(data) == _PKTINFO.size:
        oif, spec_dst, _ = _PKTINFO.unpack(data)
        if oif >= 0:
            return {"oif": oif, "saddr": b"" if spec_dst == uapi.INADDR_ANY else spec_dst}
    elif kind == uapi.IP_TTL and len(data) == 4:
        if 1 <= int_value(data) <= 255:
            return {"ttl": int_value(data)}
    elif kind == uapi.IP_TOS and len(data) in (1, 4):
        if 0 <= int_value(data) <= 255:
            return {"tos": int_value(data)}
    elif kind == uapi.IP_RETOPTS:
        options = ip_options_get(data[:40])
        if isinstance(options, bytes):
            return {"options": options}
    raise SysCallError(errno.EINVAL)


# ---- the error queue ------------------------------------------------------------------------


def sock_queue_err_skb(net: SocketNet, sk: Sock, skb: SkBuff) -> None:
    """`sock_queue_err_skb`: an error waits to be read with MSG_ERRQUEUE. Dropped where the receive
    buffer is full."""
    size = skb.len + _SKB_TRUESIZE
    if sk.sk_rmem_alloc + sk.sk_err_mem + size > max(sk.sk_rcvbuf, uapi.SOCK_MIN_RCVBUF):
        net.kfree_skb(skb, "SOCKET_RCVBUFF", sk=sk.number)
        return
    if sk.sk_error_queue is None:
        sk.sk_error_queue = []
    sk.sk_error_queue.append(skb)
    sk.sk_err_mem += size
    sk_wake(net, sk)


def sock_dequeue_err_skb(sk: Sock) -> SkBuff | None:
    """`sock_dequeue_err_skb`: the oldest error; SO_ERROR is that of the next one from now on."""
    if not sk.sk_error_queue:
        return None
    skb = sk.sk_error_queue.pop(0)
    sk.sk_err_mem -= skb.len + _SKB_TRUESIZE
    following = sk.sk_error_queue[0].cb if sk.sk_error_queue else None
    if isinstance(following, SockErrCb) and following.ee_origin == uapi.SO_EE_ORIGIN_ICMP:
        sk.sk_err = following.ee_errno
    elif isinstance(skb.cb, SockErrCb) and skb.cb.ee_origin == uapi.SO_EE_ORIGIN_ICMP:
        sk.sk_err = 0
    return skb


def skb_errqueue_purge(net: SocketNet, sk: Sock) -> None:
    """`skb_errqueue_purge`"""
    while sk.sk_error_queue:
        net.consume_skb(sk.sk_error_queue.pop(0))
    sk.sk_err_mem = 0


def ip_recv_error(net: SocketNet, call: RecvCall, sk: InetSock) -> None:
    """`ip_recv_error`: recvmsg with MSG_ERRQUEUE. The payload is the quoted part of our packet, the
    address is its destination, and IP_RECVERR tells `struct sock_extended_err` and the offender.
    EAGAIN where there is none: it never waits."""
    skb = sock_dequeue_err_skb(sk)
    if skb is None:
        raise SysCallError(errno.EAGAIN)
    err = skb.cb
    assert isinstance(err, SockErrCb)
    parts = Parts()
    payload = skb.head[skb.data :]
    parts.add_bytes(payload[: call.size])
    flags = uapi.MSG_ERRQUEUE
    if len(payload) > call.size:
        flags |= uapi.MSG_TRUNC
    cmsgs: list[Cmsg] = []
    if sk.cmsg_flags & SOCK_RCVTSTAMP:
        cmsgs.append(sock_recv_timestamp(net, sk, skb.tstamp))
    ee = _EXTENDED_ERR.pack(
        err.ee_errno, err.ee_origin, err.ee_type, err.ee_code, err.ee_info & 0xFFFFFFFF, 0
    )
    offender = _sockaddr_in(err.offender, 0) if err.offender else _NO_SOCKADDR
    cmsgs.append((uapi.SOL_IP, uapi.IP_RECVERR, ee + offender))
    if net.tracing:
        net.trace("ip_recv_error", skb, sk=sk.number, err=err.ee_errno)
    net.consume_skb(skb)
    sk_wake(net, sk)
    recv_return(net, call, parts, (sk.sk_family, err.port, err.addr), flags, cmsgs)


# ---- getsockopt -----------------------------------------------------------------------------


def answer_cmsg_getsockopt(
    net: SocketNet, call: Call, sk: InetSock, level: int, optname: int, optlen: int
) -> bool:
    """Answer a getsockopt of level IP here, if possible; False where the transport must."""
    if level != uapi.SOL_IP:
        return False
    value = ip_cmsg_getsockopt(sk, optname, optlen)
    if value is None:
        return False
    sys_return(net, call, 0, value)
    return True
