# SPDX-License-Identifier: MIT
"""Many datagrams with one system call, and some of them back (`net/core/datagram.c`, and the part
of `net/socket.c` that recvmmsg(2) is).

An application's library reads ahead by `recvmmsg`, so that most of its recv calls cost no call of
ours; what it turns out not to want it returns by `unread`. What was taken is remembered for that
until the next recvmmsg: datagrams do not come back from the application, which could forge them.

Called by socket.py, core.py and udp_sock.py. Tells the transport by its `recvmsg_entry`.
"""

import errno
from typing import Any, Final

from skbus.abi import DataReadyCb, Recvmsg
from skbus.pool import PoolError
from skbus.skbuff import SkBuff
from skbus.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.files import lend
from skbusd.socket.ip_sockglue import ip_cmsg_recv, scm_pack, sock_recv_cmsgs
from skbusd.socket.sock import (
    LEND_MIN,
    Call,
    Cmsg,
    InetSock,
    Parts,
    SocketNet,
    UdpSock,
    attempt,
    sk_wait_event,
    sk_wake,
    skb_hand_over,
    sock_error,
    sys_return,
)

SKB_TRUESIZE: Final = 256
"""Charged to the receive buffer with each datagram, so that empty ones are bounded too."""
AHEAD_MAX: Final = 65536
"""Bytes in the reply of one recvmmsg, after the first datagram."""


def udp_dequeue(net: SocketNet, sk: InetSock, length: int) -> None:
    """The first datagram leaves the receive queue, and the transport is told."""
    assert isinstance(sk, UdpSock)
    del sk.sk_receive_queue[0]
    sk.sk_rmem_alloc -= length + SKB_TRUESIZE
    if sk.unread:
        sk.unread -= 1
    else:
        net.call(sk.sk_prot.process, sk.sk_prot.recvmsg_entry, Recvmsg(sk.number, length))


def udp_recvmmsg(net: SocketNet, call: Call, sk: UdpSock) -> None:
    """Take what is queued, up to call.vlen datagrams; just one where another call waits on the
    same sock, which shall have the next, or where control messages come with each."""
    if sk.sk_err:
        raise SysCallError(sock_error(sk))
    queue = sk.sk_receive_queue
    if not queue:
        if sk.sk_shutdown & uapi.RCV_SHUTDOWN:
            sys_return(net, call, 0, (((), None, 0, ()),))
            return
        sk_wait_event(net, call, sk, _recvmmsg_again)
        return
    sk.ahead.clear()
    socket = sk.sk_socket
    vlen = call.vlen
    if sk.cmsg_flags or len(sk.sk_wq) > len(call.waits) or (socket is not None and socket.polled):
        vlen = 1
    taken: list[tuple[object, ...]] = []
    data: list[bytes] = []
    room = AHEAD_MAX
    while queue and len(taken) < vlen:
        skb = queue[0]
        big = skb.data_len > LEND_MIN
        if taken and (big or skb.len > room):
            break
        room -= skb.len
        try:
            taken.append(_take(net, call, sk, skb, data))
        except PoolError as e:
            net.kfree_skb(skb, "SKBUS_STALE_PLACE", sk=sk.number)
            if not taken:
                raise SysCallError(errno.EIO, str(e)) from e
        if big:
            break
    if net.tracing:
        net.trace("udp_recvmmsg", sk=sk.number, taken=len(taken))
    sys_return(net, call, 0, taken, b"".join(data))


def _take(
    net: SocketNet, call: Call, sk: UdpSock, skb: SkBuff, data: list[bytes]
) -> tuple[object, ...]:
    """One datagram of a reply: [parts, addr, msg_flags, control]; its inline bytes go to data."""
    cb = skb.cb
    assert isinstance(cb, DataReadyCb)
    length = skb.len
    udp_dequeue(net, sk, length)
    if net.tracing:
        net.trace("udp_recvmsg", skb, sk=sk.number, copied=min(length, call.size))
    addr = (sk.sk_family, cb.sport, cb.saddr)
    msg_flags = 0
    control: tuple[Cmsg, ...] = ()
    if sk.cmsg_flags:
        cmsgs = sock_recv_cmsgs(net, sk, skb, cb.seq)
        control, msg_flags = scm_pack(cmsgs + ip_cmsg_recv(sk, skb, cb), 0)
    if skb.data_len > LEND_MIN and not skb.lent and length <= call.size:
        parts = Parts()
        skb_hand_over(net, skb, parts)
        if parts.places and call.client is not None:
            lend(net, call.client, parts.places)
        data.append(parts.data())
        return parts.spec, addr, msg_flags, control
    more = net.pool.gather(skb.frags) if skb.frags else b""
    net.consume_skb(skb)
    if more:
        skb.head += more
        skb.frags = ()
        skb.data_len = 0
    sk.ahead.append(skb)
    payload = skb.head[skb.data :]
    if length > call.size:
        payload = payload[: call.size]
        msg_flags |= uapi.MSG_TRUNC
    data.append(payload)
    return (len(payload),) if payload else (), addr, msg_flags, control


def _recvmmsg_again(net: SocketNet, call: Call) -> None:
    """Something has come, and more may be right behind it in the same batch."""
    net.recvmmsg_pending[call] = None


def recvmmsg_ready(net: SocketNet) -> None:
    """The batch is over: calls of recvmmsg take what it brought."""
    calls, net.recvmmsg_pending = net.recvmmsg_pending, {}
    for call in calls:
        if not call.done and call.waits:
            sk: Any = call.waits[0]
            attempt(net, call, lambda net, call, sk=sk: udp_recvmmsg(net, call, sk))  # type: ignore[misc]


def udp_unread(net: SocketNet, sk: UdpSock, count: int) -> None:
    """Datagrams that were taken and not read are at the queue's head again; each is an skb that is
    born anew. EINVAL where there are not so many."""
    ahead = sk.ahead
    if not 0 < count <= len(ahead):
        raise SysCallError(errno.EINVAL)
    if net.tracing:
        net.trace("udp_unread", sk=sk.number, count=count)
    for _ in range(count):
        skb = ahead.pop()
        sk.sk_receive_queue.insert(0, skb)
        sk.sk_rmem_alloc += skb.len + SKB_TRUESIZE
    net.skb_born += count
    sk.unread += count
    ahead.clear()
    sk_wake(net, sk)
