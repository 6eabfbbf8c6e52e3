# SPDX-License-Identifier: MIT
"""Receiving from a stream, the application's side (`tcp_recvmsg` of `net/ipv4/tcp.c`).

    inet_recvmsg -> tcp_recvmsg, from the receive queue that tcp_sock.py's `tcp_data_ready` fills

tcp hears at the batch's end how many bytes were taken (core.py, `rcv_pending`). RFC 9293 3.9.1.3.
"""

import errno
from typing import Final

from skbus.core.abi import Close
from skbus.core.interfaces import TransportProto
from skbus.core.pool import PoolError
from skbus.core.syscall import MAX_DATA, SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import RecvCall, sk_wait_event
from skbusd.socket.ip_sockglue import ip_recv_error
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import purge_write_queue
from skbusd.socket.recv import (
    Parts,
    recv_return,
    skb_copy_datagram,
    skb_hand_over,
    skb_hand_over_frags,
)
from skbusd.socket.sock import TcpSock, purge_receive_queue, sock_error
from skbusd.socket.tcp_urg import tcp_control, tcp_recv_urg, tcp_urg_limit, tcp_urg_passed

RCV_TELL: Final = 16384
"""Bytes taken from a receive queue after which tcp is told at once, so that the window opens."""

_GONE: Final = frozenset({uapi.TCP_CLOSE, uapi.TCP_TIME_WAIT})


def tcp_recvmsg(net: SocketNet, call: RecvCall, sk: TcpSock) -> None:
    """`tcp_recvmsg`: take bytes from the receive queue, or wait for them.

    A big skb that is taken whole is lent to the application in the pool. This shall be the usual
    case in a bulk transfer. So a call with half of its bytes, and a buffer that would end within a
    big skb, answers without that skb.
    """
    if sk.sk_state == uapi.TCP_LISTEN:
        raise SysCallError(errno.ENOTCONN)
    flags = call.flags
    if flags & (uapi.MSG_OOB | uapi.MSG_ERRQUEUE):
        (tcp_recv_urg if flags & uapi.MSG_OOB else ip_recv_error)(net, call, sk)
        return
    size = call.size
    have = sk.sk_rmem_alloc
    skip = 0
    if sk.urg_data and have:
        skip, size = tcp_urg_limit(sk, size)
        have -= skip
    if flags & uapi.MSG_WAITALL:
        target = min(size, max(sk.sk_rcvbuf // 2, 1), MAX_DATA)
    else:
        target = min(sk.sk_rcvlowat, max(call.size, 1))
    if have < target or not have:
        err, over = _receive_end(sk)
        if not over and not (have and call.timeout == 0):
            _reader_waits(net, call, sk)
            sk_wait_event(net, call, sk, tcp_recvmsg)
            return
        if not have:
            if err:
                raise SysCallError(err)
            recv_return(net, call, Parts(), None, 0)
            return
    parts = Parts()
    tstamp = sk.sk_receive_queue[0].tstamp if sk.cmsg_flags else 0
    msg_flags = 0
    try:
        if flags & uapi.MSG_PEEK:
            _peek(net, sk, parts, min(size, MAX_DATA), skip)
        elif flags & uapi.MSG_TRUNC or skip:
            msg_flags = _discard(net, sk, parts, size, skip, flags)
        else:
            _take(net, sk, parts, size, not flags & uapi.MSG_WAITALL)
    except PoolError as e:
        # The place of our bytes is gone: the stream has a hole, and must not go on.
        tcp_stream_broken(net, sk)
        raise SysCallError(errno.EIO, str(e)) from e
    if net.tracing:
        net.trace("tcp_recvmsg", sk=sk.number, copied=parts.size)
    cmsgs = tcp_control(net, sk, tstamp) if sk.cmsg_flags else None
    recv_return(net, call, parts, None, msg_flags, cmsgs)


def _receive_end(sk: TcpSock) -> tuple[int, bool]:
    """(errno, is there nothing to wait for), checked in Linux's order."""
    if sk.sock_done:
        return 0, True
    if sk.sk_err:
        return (sock_error(sk) if not sk.sk_rmem_alloc else sk.sk_err), True
    if sk.sk_shutdown & uapi.RCV_SHUTDOWN:
        return 0, True
    if sk.sk_state in _GONE:
        return errno.ENOTCONN, True
    return 0, False


def _reader_waits(net: SocketNet, call: RecvCall, sk: TcpSock) -> None:
    """The call is going to wait for data, so segments for this socket may go through the prequeue.
    tcp hears so once with its next message, then with each report of bytes read."""
    if sk.told_waiting != bool(call.timeout):
        sk.told_waiting = bool(call.timeout)
        if sk.told_waiting:
            net.reads.waiting[sk] = None


def _take(net: SocketNet, sk: TcpSock, parts: Parts, size: int, may_stop: bool) -> None:
    queue = sk.sk_receive_queue
    while queue and parts.size < size:
        skb = queue[0]
        length = skb.len
        room = size - parts.size
        inline = sum(map(len, parts.inline)) if len(parts.inline) > 16 else 0
        if inline > MAX_DATA // 2 or len(parts.places) >= 48:
            break
        if length <= room:
            del queue[0]
            skb_hand_over(net, skb, parts)
            sk.sk_rmem_alloc -= length
            continue
        if skb.data_len > 65536 and (taken := skb_hand_over_frags(skb, parts, room)):
            sk.sk_rmem_alloc -= taken
            continue
        if may_stop and 0 < size >> 1 <= parts.size and skb.data_len > 4096:
            break
        take = min(room, MAX_DATA // 2)
        skb_copy_datagram(net, skb, parts, 0, take)
        skb.eat(take)
        sk.sk_rmem_alloc -= take
        if take < room:
            break
    if sk.urg_data:
        tcp_urg_passed(sk, parts.size)
    tcp_cleanup_rbuf(net, sk, parts.size)


def _discard(net: SocketNet, sk: TcpSock, parts: Parts, size: int, skip: int, flags: int) -> int:
    """Throw bytes away: with MSG_TRUNC those that would have been read, and an urgent byte that is
    passed over. Returns the answer's flags, with the bytes thrown away in their upper half."""
    if skip:
        _take(net, sk, Parts(), skip, False)
    if not flags & uapi.MSG_TRUNC:
        _take(net, sk, parts, size, False)
        return 0
    gone = Parts()
    _take(net, sk, gone, min(size, MAX_DATA >> 1), False)
    for place in gone.places:
        net.pool.free(place)
    return gone.size << 32


def _peek(net: SocketNet, sk: TcpSock, parts: Parts, size: int, skip: int) -> None:
    for skb in sk.sk_receive_queue:
        if parts.size >= size:
            break
        if skip < skb.len:
            skb_copy_datagram(net, skb, parts, skip, min(skb.len - skip, size - parts.size))
        skip = max(skip - skb.len, 0)


def tcp_cleanup_rbuf(net: SocketNet, sk: TcpSock, copied: int) -> None:
    """`tcp_cleanup_rbuf`: tell tcp of taken bytes, when they are enough to open the window, or are
    all, and an ACK waits for that."""
    sk.rcv_told += copied
    if sk.rcv_tell and not sk.sk_receive_queue:
        sk.rcv_tell = False
        net.reads.taken[sk] = None
    elif sk.rcv_told >= min(RCV_TELL, max(sk.sk_rcvbuf >> 3, 1)):
        net.reads.taken[sk] = None


def tcp_stream_broken(net: SocketNet, sk: TcpSock) -> None:
    """Reset a connection in whose stream bytes are missing."""
    purge_receive_queue(net, sk)
    sk.sk_shutdown = uapi.SHUTDOWN_MASK
    sk.sk_prot.tell(net, sk, TransportProto.close, Close(sk.number, 1, 0))
    sk.sk_state = uapi.TCP_CLOSE
    purge_write_queue(net, sk)
