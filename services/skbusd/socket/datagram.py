# SPDX-License-Identifier: MIT
"""Many datagrams with one system call, and some of them back (`net/core/datagram.c`, and
recvmmsg(2) of `net/socket.c`).

An application's library reads ahead by `recvmmsg`, so that most of its recv calls cost no call of
ours. It returns unwanted datagrams by `unread`. For that we remember the taken ones until the next
recvmmsg: an application that sent them back could forge them.

Called by socket.py, core.py and udp_sock.py. Tells the transport by `TransportProto.recvmsg`.
"""

import errno
from typing import Final

from skbus.core.abi import DataReadyCb, Recvmsg
from skbus.core.interfaces import TransportProto
from skbus.core.pool import PoolError
from skbus.core.skbuff import SKB_GSO_BATCH, SkBuff
from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import (
    RecvCall,
    RecvmmsgCall,
    sk_wait_event,
    sk_wake,
    sys_return,
    try_again,
)
from skbusd.socket.files import lend
from skbusd.socket.ip_sockglue import ip_cmsg_recv, sock_recv_cmsgs
from skbusd.socket.msghdr import Cmsg, scm_pack
from skbusd.socket.netns import SocketNet
from skbusd.socket.recv import LEND_MIN, Parts, skb_hand_over
from skbusd.socket.sock import UdpSock, sock_error

SKB_TRUESIZE: Final = 256
"""Charged to the receive buffer with each datagram, so that empty ones are also bounded."""
AHEAD_MAX: Final = 65536
"""Bytes in the reply of one recvmmsg, after the first datagram."""


def udp_first_len(sk: UdpSock) -> int:
    """Bytes of the datagram that is read next; 0 where there is none."""
    if not sk.sk_receive_queue:
        return 0
    skb = sk.sk_receive_queue[0]
    return skb.gso_size if skb.gso_type & SKB_GSO_BATCH else skb.len


def udp_split_first(net: SocketNet, sk: UdpSock) -> None:
    """Split the batch at the receive queue's head into single datagrams, as somebody wants one.
    PoolError where its bytes are gone; then it is dropped."""
    skb = sk.sk_receive_queue[0]
    singles = udp_singles(skb, _batch_bytes(net, sk, skb))
    del sk.sk_receive_queue[0]
    net.skb_born += len(singles)
    net.consume_skb(skb)
    for single in reversed(singles):
        sk.sk_receive_queue.insert(0, single)


def _batch_bytes(net: SocketNet, sk: UdpSock, skb: SkBuff) -> bytes:
    """The payload of the batch at the queue's head; where it is gone the batch is dropped."""
    try:
        return net.skb_bytes(skb)
    except PoolError:
        del sk.sk_receive_queue[0]
        sk.sk_rmem_alloc -= skb.len + skb.gso_segs * SKB_TRUESIZE
        udp_told(net, sk, skb.gso_segs, skb.len)
        net.kfree_skb(skb, "SKBUS_STALE_PLACE", sk=sk.number)
        raise


def udp_singles(skb: SkBuff, data: bytes) -> list[SkBuff]:
    """The datagrams of a batch with this payload; they are not counted as born."""
    out = []
    header = skb.head[: skb.data]
    for at in range(0, len(data), skb.gso_size):
        single = skb.clone()
        single.head = header + data[at : at + skb.gso_size]
        single.frags = ()
        single.data_len = single.gso_size = single.gso_segs = single.gso_type = 0
        single.lent = False
        out.append(single)
    return out


def udp_told(net: SocketNet, sk: UdpSock, count: int, size: int) -> None:
    """Tell the transport of datagrams that have left the receive queue, once for all of a call."""
    item = Recvmsg(sk.number, size, False, count)
    net.call(sk.sk_prot.process, TransportProto.recvmsg, item)


def udp_dequeue(sk: UdpSock, length: int) -> int:
    """Take the first datagram off the receive queue. Returns how many to tell the transport of: 0
    for one that was put back, as the transport knows of that."""
    del sk.sk_receive_queue[0]
    sk.sk_rmem_alloc -= length + SKB_TRUESIZE
    if not sk.unread:
        return 1
    sk.unread -= 1
    return 0


def udp_recvmmsg(net: SocketNet, call: RecvmmsgCall, sk: UdpSock) -> None:
    """Take up to call.vlen queued datagrams. Just one where control messages come with each, the
    descriptor is polled, or another call waits on the sock and shall have the next."""
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
    count, size = _take_all(net, call, sk, vlen, taken, data)
    if count:
        udp_told(net, sk, count, size)
    if not taken:
        raise SysCallError(errno.EIO, "received bytes are gone")
    if net.tracing:
        net.trace("udp_recvmmsg", sk=sk.number, taken=len(taken))
    sys_return(net, call, 0, taken, b"".join(data))


def _take_all(
    net: SocketNet,
    call: RecvCall,
    sk: UdpSock,
    vlen: int,
    taken: list[tuple[object, ...]],
    data: list[bytes],
) -> tuple[int, int]:
    """Fill a reply with up to vlen datagrams. Returns (datagrams, their bytes) to tell the
    transport of."""
    queue = sk.sk_receive_queue
    room = AHEAD_MAX
    told = told_bytes = 0
    while queue and vlen > 0:
        skb = queue[0]
        size = skb.len
        big = skb.data_len > LEND_MIN and not skb.gso_type & SKB_GSO_BATCH
        if taken and (big or size > room):
            break
        try:
            if skb.gso_type & SKB_GSO_BATCH:
                if vlen == 1 or sk.cmsg_flags or skb.gso_size > call.size:
                    udp_split_first(net, sk)
                    continue
                count, size = _take_batch(net, sk, skb, vlen, taken, data)
                new = count
            else:
                count, new = 1, udp_dequeue(sk, size)
                taken.append(_take(net, call, sk, skb, data))
        except PoolError:
            if not skb.gso_type & SKB_GSO_BATCH:
                net.kfree_skb(skb, "SKBUS_STALE_PLACE", sk=sk.number)
                told += new
                told_bytes += size * new
            if not taken:
                break
            continue
        vlen -= count
        room -= size
        told += new
        told_bytes += size * new if count == 1 else size
        if big:
            break
    return told, told_bytes


def _take_batch(
    net: SocketNet,
    sk: UdpSock,
    skb: SkBuff,
    vlen: int,
    taken: list[tuple[object, ...]],
    data: list[bytes],
) -> tuple[int, int]:
    """Datagrams of a batch, as one item of a reply: [parts, addr, msg_flags, control, size], of
    `size` bytes each, except the last. Returns (how many, their bytes)."""
    cb = skb.cb
    assert isinstance(cb, DataReadyCb)
    payload = _batch_bytes(net, sk, skb)
    header = skb.head[: skb.data]
    each = skb.gso_size
    count = min(vlen, skb.gso_segs)
    if net.tracing:
        net.trace("udp_recvmsg", skb, sk=sk.number, taken=count)
    if skb.frags:
        if not skb.lent:
            net.pool.free_frags(skb.frags)
        skb.frags = ()
        skb.data_len = 0
    mine = skb
    if count == skb.gso_segs:
        net.consume_skb(skb)
        del sk.sk_receive_queue[0]
    else:
        mine = skb.clone()
        mine.gso_segs = count
        skb.head = header + payload[count * each :]
        skb.gso_segs -= count
        if skb.gso_segs == 1:
            skb.gso_size = skb.gso_segs = skb.gso_type = 0
        payload = payload[: count * each]
    mine.head = header + payload
    sk.ahead.append(mine)
    data.append(payload)
    taken.append(((len(payload),), (sk.sk_family, cb.sport, cb.saddr), 0, (), each))
    sk.sk_rmem_alloc -= len(payload) + count * SKB_TRUESIZE
    return count, len(payload)


def _take(
    net: SocketNet, call: RecvCall, sk: UdpSock, skb: SkBuff, data: list[bytes]
) -> tuple[object, ...]:
    """A datagram as an item of a reply: [parts, addr, msg_flags, control]; its inline bytes go to
    data."""
    cb = skb.cb
    assert isinstance(cb, DataReadyCb)
    length = skb.len
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


def _recvmmsg_again(net: SocketNet, call: RecvmmsgCall, sk: UdpSock) -> None:
    """A datagram has come, and more may be right behind it in the same batch."""
    net.reads.recvmmsg[call] = sk


def recvmmsg_ready(net: SocketNet) -> None:
    """The batch is over: calls of recvmmsg take the datagrams that it brought."""
    calls, net.reads.recvmmsg = net.reads.recvmmsg, {}
    for call, sk in calls.items():
        if not call.done and call.waits and call.retry is not None:
            try_again(net, call, sk, udp_recvmmsg)


def udp_unread(net: SocketNet, sk: UdpSock, count: int) -> None:
    """Put taken but unread datagrams back at the queue's head, each as a new skb. EINVAL where
    there are fewer."""
    ahead: list[SkBuff] = []
    for skb in sk.ahead:
        ahead += udp_singles(skb, skb.head[skb.data :]) if skb.gso_type & SKB_GSO_BATCH else (skb,)
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
    sk.ahead.clear()
    sk_wake(net, sk)
