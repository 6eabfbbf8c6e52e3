# SPDX-License-Identifier: MIT
"""Urgent data on a stream (`tcp_recv_urg`, `tcp_ioctl` of `net/ipv4/tcp.c`, `tcp_check_urg` of
`tcp_input.c`): MSG_OOB, SO_OOBINLINE, SIOCATMARK.

tcp says with which bytes the urgent one comes. The *mark* is its place in the stream: `urg_off` is
the number of bytes before it, counted from the next to be read. Without SO_OOBINLINE the byte at
the mark is no part of the stream. Called by tcp_sock. RFC 6093; tcp(7).

Differs from Linux: an urgent pointer is not known here before its byte has come. Until then MSG_OOB
says EINVAL, not EAGAIN.
"""

import errno
from typing import Final

from skbus.core import uapi
from skbus.core.abi import DATA_URG_SHIFT, DataReadyCb
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SysCallError
from skbusd.socket.call import RecvCall
from skbusd.socket.ip_sockglue import SOCK_RCVTSTAMP, sock_recv_timestamp
from skbusd.socket.msghdr import Cmsg
from skbusd.socket.netns import SocketNet
from skbusd.socket.recv import Parts, recv_return, skb_copy_datagram
from skbusd.socket.sock import TcpSock

TCP_URG_VALID: Final = 0x100
TCP_URG_READ: Final = 0x200


def tcp_urg_queued(net: SocketNet, sk: TcpSock, skb: SkBuff, cb: DataReadyCb) -> None:
    """Note the urgent byte of this skb, the last in the receive queue."""
    at = cb.flags >> DATA_URG_SHIFT
    if at >= skb.len:
        return
    byte = Parts()
    skb_copy_datagram(net, skb, byte, at, 1)
    if sk.urg_data and not sk.urg_off and not sk.sk_flags.get(uapi.SO_OOBINLINE):
        _pass_over(net, sk)
    sk.urg_off = sk.sk_rmem_alloc - skb.len + at
    sk.urg_data = TCP_URG_VALID | byte.data()[0]
    if net.tracing:
        net.trace("tcp_check_urg", skb, sk=sk.number, off=sk.urg_off)


def _pass_over(net: SocketNet, sk: TcpSock) -> None:
    """A new urgent byte makes us forget the one at the read position, which must not become a part
    of the stream."""
    first = sk.sk_receive_queue[0]
    if first.len == 1:
        net.consume_skb(sk.sk_receive_queue.pop(0))
    else:
        first.eat(1)
    sk.sk_rmem_alloc -= 1
    sk.rcv_told += 1


def tcp_recv_urg(net: SocketNet, call: RecvCall, sk: TcpSock) -> None:
    """`tcp_recv_urg`: recvmsg with MSG_OOB: the one urgent byte. EINVAL where there is none."""
    if sk.sk_flags.get(uapi.SO_OOBINLINE):
        raise SysCallError(errno.EINVAL)
    if not sk.urg_data or sk.urg_data == TCP_URG_READ:
        raise SysCallError(errno.EINVAL)
    byte = sk.urg_data & 0xFF
    if not call.flags & uapi.MSG_PEEK:
        sk.urg_data = TCP_URG_READ
    parts = Parts()
    flags = uapi.MSG_OOB
    if call.size:
        parts.add_bytes(bytes((byte,)))
    else:
        flags |= uapi.MSG_TRUNC
    if net.tracing:
        net.trace("tcp_recv_urg", sk=sk.number)
    recv_return(net, call, parts, None, flags)


def tcp_urg_limit(sk: TcpSock, size: int) -> tuple[int, int]:
    """Limits of a read of `size` bytes: (bytes to pass over first, most to take then). A read ends
    at the mark, and one that begins there does not see the urgent byte."""
    if sk.urg_off:
        return 0, min(size, sk.urg_off)
    return (0, size) if sk.sk_flags.get(uapi.SO_OOBINLINE) else (1, size)


def tcp_urg_passed(sk: TcpSock, copied: int) -> None:
    """Bytes were read: move the mark nearer, or forget one that lies behind."""
    sk.urg_off -= copied
    if sk.urg_off < 0:
        sk.urg_data = 0
        sk.urg_off = 0


def tcp_readable(sk: TcpSock) -> int:
    """Bytes of the stream for a read, without an urgent one that is next."""
    have = sk.sk_rmem_alloc
    if sk.urg_data and have and tcp_urg_limit(sk, 1)[0]:
        return have - 1
    return have


def tcp_ioctl(net: SocketNet, sk: TcpSock, cmd: int) -> int:
    """`tcp_ioctl`: SIOCINQ, which counts up to the mark, SIOCATMARK, SIOCOUTQ. ENOTTY for others,
    EINVAL for a listener."""
    if cmd == uapi.SIOCATMARK:
        return int(bool(sk.urg_data) and not sk.urg_off)
    if cmd not in (uapi.SIOCINQ, uapi.SIOCOUTQ):
        raise SysCallError(errno.ENOTTY)
    if sk.sk_state == uapi.TCP_LISTEN:
        raise SysCallError(errno.EINVAL)
    if cmd == uapi.SIOCOUTQ:
        return sk.sk_wmem_queued
    if sk.urg_data and not sk.sk_flags.get(uapi.SO_OOBINLINE):
        return sk.urg_off
    return sk.sk_rmem_alloc


def tcp_control(net: SocketNet, sk: TcpSock, tstamp: int) -> list[Cmsg] | None:
    """The control messages of a read: SO_TIMESTAMP and its like (`tcp_recv_timestamp`), and TCP_INQ
    with the bytes left. At the stream's end that says 1, so that the application reads on
    (`tcp_inq_hint`)."""
    out: list[Cmsg] = []
    if sk.cmsg_flags & SOCK_RCVTSTAMP and tstamp:
        out.append(sock_recv_timestamp(net, sk, tstamp))
    if sk.recvmsg_inq:
        left = tcp_readable(sk) or int(sk.sock_done)
        out.append((uapi.SOL_TCP, uapi.TCP_CM_INQ, left.to_bytes(4, "little")))
    return out or None
