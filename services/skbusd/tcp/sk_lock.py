# SPDX-License-Identifier: MIT
"""The lock of a socket: `lock_sock`, `release_sock`, the backlog and the prequeue
(`net/core/sock.c`, `net/ipv4/tcp_ipv4.c`).

As a rule a request is done in one go, and nobody meets a socket that is owned. Two things last
longer:

- One send of many chunks, which say MSG_MORE. After SENDMSG_SLICE bytes in one batch the send keeps
  its socket (`lock_sock`) and goes on in the next batch, so that others' data leaves first. Until
  then the socket's packets wait in the backlog, and further requests wait behind the send. Timers
  and ICMP errors wait for `release_sock`, which comes before the next slice, as in
  `sk_flush_backlog`.
- A reader that waits: the socket layer says so (Recvmsg.waiting). Segments with data for the reader
  stand in the prequeue. They are processed together, in the reader's name, at the batch's end or
  before it reports a read.

    tcp_v4_rcv -> sk_add_backlog | tcp_prequeue | tcp_v4_do_rcv
    release_sock -> tcp_v4_do_rcv                  tcp_prequeue_process -> tcp_v4_do_rcv

Both are bounded as in Linux: the backlog, with unread data, by both buffers together
(`sk_rcvqueues_full`); the prequeue by the receive buffer.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpHdr
from skbusd.tcp.const import TCP_CLOSE
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock

SK_OWNED: Final = 1
"""tp.sk_lock: a request owns it."""
SK_READER: Final = 2
"""tp.sk_lock: a reader waits (`tp->ucopy.task`)."""
SENDMSG_SLICE: Final = 524288
SKB_OVERHEAD: Final = 256
"""Counted with each skb, so that empty ones are also bounded."""

Segment = tuple[SkBuff, TcpHdr, int]
Request = tuple[Callable[[TcpNet, Any], None], Any]


class SockLock:
    """All that waits for an owned socket."""

    __slots__ = ("backlog", "deferred", "len", "requests")

    def __init__(self) -> None:
        self.backlog: deque[Segment] = deque()
        """`sk_backlog`"""
        self.len = 0
        self.requests: deque[Request] = deque()
        """Requests that sleep in lock_sock (`sk_lock.wq`)."""
        self.deferred: list[Callable[[], None]] = []
        """`tsq_flags`: timers and ICMP errors, for `tcp_release_cb`."""


Prequeue = list[Any]
"""`tp->ucopy`: what a waiting reader will process: [memory, segment, segment, ...]"""


# ---- the owner -------------------------------------------------------------------------------


def lock_sock(net: TcpNet, tp: TcpSock) -> None:
    """`lock_sock`: from now on the socket is one request's, until the next batch."""
    tp.sk_lock |= SK_OWNED
    net.sk_owned[tp.number] = SockLock()
    if not net.slice_timer.pending():
        net.mod_timer(net.slice_timer, net.now + 1)
    if net.tracing:
        net.trace("lock_sock", sk=tp.number)


def sk_wait_lock(
    net: TcpNet, tp: TcpSock, function: Callable[[TcpNet, Any], None], item: Any
) -> None:
    """`__lock_sock`: the request sleeps until the owner has finished."""
    net.sk_owned[tp.number].requests.append((function, item))
    if net.tracing:
        net.trace("__lock_sock", sk=tp.number, waits=function.__name__)


def sk_locked(function: Callable[[TcpNet, Any], None]) -> Callable[[TcpNet, Any], None]:
    """Make a request take the socket's lock, or wait until the owner has released it."""

    def locked(net: TcpNet, item: Any) -> None:
        tp = net.socks.get(item.sk) if net.sk_owned else None
        if tp is not None and tp.sk_lock & SK_OWNED:
            sk_wait_lock(net, tp, function, item)
        else:
            function(net, item)

    locked.__module__ = function.__module__
    locked.__name__ = locked.__qualname__ = function.__name__
    locked.__doc__ = function.__doc__
    return locked


def sk_sendmsg_slice(net: TcpNet, tp: TcpSock, size: int) -> None:
    """A chunk was taken, and more of its send follows: is that enough for this batch?"""
    if tp.slice_time != net.now:
        tp.slice_time = net.now
        tp.slice_bytes = 0
    tp.slice_bytes += size
    if tp.slice_bytes >= SENDMSG_SLICE and not tp.sk_lock & SK_OWNED:
        lock_sock(net, tp)


def release_sock(net: TcpNet, tp: TcpSock, lock: SockLock) -> None:
    """`release_sock`: the backlog (`__release_sock`), then deferred work (`tcp_release_cb`)."""
    tp.sk_lock &= ~SK_OWNED
    if net.tracing:
        net.trace(
            "release_sock", sk=tp.number, backlog=len(lock.backlog), waiting=len(lock.requests)
        )
    backlog = lock.backlog
    while backlog:
        skb, th, end_seq = backlog.popleft()
        sk_backlog_rcv(net, tp, skb, th, end_seq)
    for function in lock.deferred:
        function()


def sk_backlog_rcv(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> None:
    """`sk->sk_backlog_rcv`: the segment's turn has come. Its socket may have ended meanwhile."""
    if tp.state == TCP_CLOSE or net.socks.get(tp.number) is not tp:
        net.kfree_skb(skb, "TCP_CLOSE", sk=tp.number)
        return
    net.sk_backlog_rcv(net, tp, skb, th, end_seq)


def tcp_release_slices(net: TcpNet) -> None:
    """Give every deferred send its next slice; requests behind it follow in their order."""
    owned, net.sk_owned = net.sk_owned, {}
    for number, lock in owned.items():
        tp = net.socks.get(number)
        if tp is not None:
            release_sock(net, tp, lock)
        else:  # it went with its listener, or the socket layer
            for skb, _, _ in lock.backlog:
                net.kfree_skb(skb, "TCP_CLOSE", sk=number)
        requests = lock.requests
        while requests:
            function, item = requests.popleft()
            function(net, item)
            again = net.sk_owned.get(number)
            if again is not None:
                again.requests.extend(requests)
                break


def tcp_release_all(net: TcpNet) -> None:
    """Finish all deferred sends: a barrier must come behind them."""
    while net.sk_owned:
        for number in net.sk_owned:
            tp = net.socks.get(number)
            if tp is not None:
                tp.slice_time = -1
        tcp_release_slices(net)


# ---- the backlog -----------------------------------------------------------------------------


def sk_rcvqueues_full(tp: TcpSock, lock: SockLock, limit: int) -> bool:
    """`sk_rcvqueues_full`: do waiting segments exceed the limit already?"""
    return lock.len + tp.rmem_alloc > limit


def sk_add_backlog(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> bool:
    """`sk_add_backlog`: the socket is owned, so the segment waits. False: there is no room."""
    lock = net.sk_owned[tp.number]
    if sk_rcvqueues_full(tp, lock, tp.rcvbuf + tp.sndbuf):
        return False
    lock.backlog.append((skb, th, end_seq))
    lock.len += skb.len + SKB_OVERHEAD
    if net.tracing:
        net.trace("sk_add_backlog", skb, sk=tp.number, len=lock.len)
    return True


# ---- the prequeue ----------------------------------------------------------------------------


def tcp_prequeue(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> bool:
    """`tcp_prequeue`: leave the segment to the reader that waits. False: process it now, because
    `net.ipv4.tcp_low_latency` asks for that, or because it is a pure ACK with nothing before it."""
    number = tp.number
    size = skb.len
    prequeue = net.tcp_prequeues.get(number)
    if prequeue is None:
        if size <= th.doff or net.ipv4.sysctl_tcp_low_latency:
            return False
        prequeue = net.tcp_prequeues[number] = [size + SKB_OVERHEAD, (skb, th, end_seq)]
    else:
        prequeue[0] += size + SKB_OVERHEAD
        prequeue.append((skb, th, end_seq))
    if net.tracing:
        net.trace("tcp_prequeue", skb, sk=number, memory=prequeue[0])
    if prequeue[0] > tp.rcvbuf:
        net.mib["TcpExtTCPPrequeueDropped"] += len(prequeue) - 1
        del net.tcp_prequeues[number]
        _process(net, tp, number, prequeue)
    return True


def tcp_prequeue_process(net: TcpNet, number: int) -> None:
    """`tcp_prequeue_process`: the reader's turn."""
    prequeue = net.tcp_prequeues.pop(number, None)
    if prequeue is None:
        return
    net.mib["TcpExtTCPPrequeued"] += 1
    if net.tracing:
        net.trace("tcp_prequeue_process", sk=number, segments=len(prequeue) - 1)
    _process(net, net.socks.get(number), number, prequeue)


def _process(net: TcpNet, tp: TcpSock | None, number: int, prequeue: Prequeue) -> None:
    del prequeue[0]
    socks = net.socks
    do_rcv = net.sk_backlog_rcv
    for skb, th, end_seq in prequeue:
        if tp is not None and tp.state != TCP_CLOSE and number in socks:
            do_rcv(net, tp, skb, th, end_seq)
        else:
            net.kfree_skb(skb, "TCP_CLOSE", sk=number)


def sk_held(net: TcpNet) -> int:
    """skbs that wait here."""
    held = sum(len(p) - 1 for p in net.tcp_prequeues.values())
    for lock in net.sk_owned.values():
        held += len(lock.backlog) + sum(type(item) is SkBuff for _, item in lock.requests)
    return held
