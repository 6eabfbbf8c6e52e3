# SPDX-License-Identifier: MIT
"""Memory accounting (`net/core/sock.c`: `__sk_mem_raise_allocated` and its like; the ends of
`net/ipv4/tcp.c` and `tcp_input.c` that deal with pressure).

A socket's memory is charged to all of TCP in pages, ahead. `rmem_charged` and `wmem_charged` are
the bytes that it may hold without asking again, so an ordinary segment costs one comparison. (Their
distance from the bytes that it does hold is `sk_forward_alloc`.) `net.ipv4.tcp_mem` (pages) bounds
the sum. Above its second number TCP is under pressure, until the sum is below the first; above the
third nothing is granted beyond each socket's minimum.

    low        pressure        hard
     |  leave     | enter        |  drop, reset orphans

Under pressure windows do not grow, send buffers shrink to their contents, and out-of-order data
goes. The bytes themselves lie in the socket layer and the pool; they are charged here because tcp
decides which come and go. RFC 9293 3.8.6.2.2 (a promised window must be kept).
"""

from typing import Final

from skbus.core.seq import MASK
from skbusd.tcp.const import SOCK_SNDBUF_LOCK
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock

SK_MEM_QUANTUM: Final = 4096
SK_RECLAIM_THRESHOLD: Final = 262144
"""Charged and unused bytes of a socket after which they are given back."""
SOCK_MIN_SNDBUF: Final = 4608
_MIN_RCV_SEGS: Final = 4


# ---- pressure --------------------------------------------------------------------------------


def tcp_enter_memory_pressure(net: TcpNet) -> None:
    """`tcp_enter_memory_pressure`"""
    if not net.tcp_memory_pressure:
        net.tcp_memory_pressure = net.now or 1
        net.mib["TcpExtTCPMemoryPressures"] += 1
        net.warning("tcp_enter_memory_pressure", pages=net.tcp_memory_allocated)


def tcp_leave_memory_pressure(net: TcpNet) -> None:
    """`tcp_leave_memory_pressure`"""
    if net.tcp_memory_pressure:
        took = (net.now - net.tcp_memory_pressure) // 1_000_000
        net.tcp_memory_pressure = 0
        net.mib["TcpExtTCPMemoryPressuresChrono"] += took
        net.info("tcp_leave_memory_pressure", ms=took, pages=net.tcp_memory_allocated)


def sk_prot_mem_limits(net: TcpNet, index: int) -> int:
    """`sk_prot_mem_limits`: one of the three of `tcp_mem`, our share of it."""
    return net.shard_limit(net.sysctl["net.ipv4.tcp_mem"][index])


# ---- charging --------------------------------------------------------------------------------


def sk_mem_used(tp: TcpSock) -> int:
    """Bytes that the socket holds: unread, out of order, unacknowledged."""
    return tp.rmem_alloc + tp.ofo_bytes + ((tp.write_seq - tp.snd_una) & MASK)


def __sk_mem_raise_allocated(net: TcpNet, tp: TcpSock, pages: int, send: bool) -> bool:
    """`__sk_mem_raise_allocated`: charge `pages` more to this socket, if there are any."""
    low, pressure, hard = map(net.shard_limit, net.sysctl["net.ipv4.tcp_mem"])
    allocated = net.tcp_memory_allocated + pages
    if allocated <= low:
        tcp_leave_memory_pressure(net)
    elif allocated > hard:
        tcp_enter_memory_pressure(net)
        return False
    elif allocated > pressure:
        tcp_enter_memory_pressure(net)
    if net.tcp_memory_pressure:
        # Each socket has its minimum, and its fair share of all there is.
        least = net.sysctl["net.ipv4.tcp_wmem" if send else "net.ipv4.tcp_rmem"][0]
        held = (tp.write_seq - tp.snd_una) & MASK if send else tp.rmem_alloc
        mine = -(-sk_mem_used(tp) // SK_MEM_QUANTUM) + pages
        if held >= least and mine * len(net.socks) >= hard:
            return False
    net.tcp_memory_allocated = allocated
    return True


def sk_rmem_schedule(net: TcpNet, tp: TcpSock, size: int) -> bool:
    """`sk_rmem_schedule`: may `size` more bytes wait to be read?"""
    pages = -(-(tp.rmem_alloc + tp.ofo_bytes + size - tp.rmem_charged) // SK_MEM_QUANTUM)
    if pages <= 0:
        return True
    if not __sk_mem_raise_allocated(net, tp, pages, False):
        return False
    tp.rmem_charged += pages * SK_MEM_QUANTUM
    return True


def sk_forced_rmem_schedule(net: TcpNet, tp: TcpSock, size: int) -> None:
    """`sk_forced_mem_schedule`: charge `size` bytes whatever the limits say. A socket with nothing
    to read must get the next segment, or it would wait for ever."""
    pages = -(-(tp.rmem_alloc + tp.ofo_bytes + size - tp.rmem_charged) // SK_MEM_QUANTUM)
    if pages > 0:
        net.tcp_memory_allocated += pages
        tp.rmem_charged += pages * SK_MEM_QUANTUM


def sk_wmem_schedule(net: TcpNet, tp: TcpSock, size: int) -> None:
    """`sk_wmem_schedule`: `size` more bytes in the write queue.

    Differs from Linux: the socket layer has accepted the bytes already, so they are charged in any
    case. Beyond the limits the send buffer shrinks (`sk_stream_moderate_sndbuf`), so that no more
    come.
    """
    queued = (tp.write_seq - tp.snd_una) & MASK
    pages = -(-(queued + size - tp.wmem_charged) // SK_MEM_QUANTUM)
    if pages <= 0:
        return
    if not __sk_mem_raise_allocated(net, tp, pages, True):
        net.tcp_memory_allocated += pages
        sk_stream_moderate_sndbuf(net, tp, queued + size)
    tp.wmem_charged += pages * SK_MEM_QUANTUM


def sk_stream_moderate_sndbuf(net: TcpNet, tp: TcpSock, queued: int) -> None:
    """`sk_stream_moderate_sndbuf`: shrink the send buffer to half of the queued bytes."""
    if tp.userlocks & SOCK_SNDBUF_LOCK:
        return
    tp.sndbuf = max(min(tp.sndbuf, queued >> 1), SOCK_MIN_SNDBUF)
    net.write_space[tp.number] = tp
    if net.tracing:
        net.trace("sk_stream_moderate_sndbuf", sk=tp.number, sndbuf=tp.sndbuf)


def sk_mem_reclaim(net: TcpNet, tp: TcpSock) -> None:
    """`sk_mem_reclaim`: give back pages that are charged and not used."""
    used = tp.rmem_alloc + tp.ofo_bytes
    pages = (tp.rmem_charged - used) // SK_MEM_QUANTUM
    if pages > 0:
        tp.rmem_charged -= pages * SK_MEM_QUANTUM
        net.tcp_memory_allocated -= pages
    pages = (tp.wmem_charged - ((tp.write_seq - tp.snd_una) & MASK)) // SK_MEM_QUANTUM
    if pages > 0:
        tp.wmem_charged -= pages * SK_MEM_QUANTUM
        net.tcp_memory_allocated -= pages
    if net.tcp_memory_pressure and net.tcp_memory_allocated <= sk_prot_mem_limits(net, 0):
        tcp_leave_memory_pressure(net)


def sk_mem_free(net: TcpNet, tp: TcpSock) -> None:
    """The socket ends, or begins anew: give back all its pages."""
    pages = (tp.rmem_charged + tp.wmem_charged) // SK_MEM_QUANTUM
    tp.rmem_charged = tp.wmem_charged = 0
    net.tcp_memory_allocated -= pages
    if net.tcp_memory_pressure and net.tcp_memory_allocated <= sk_prot_mem_limits(net, 0):
        tcp_leave_memory_pressure(net)


# ---- receiving without room ------------------------------------------------------------------


def tcp_try_rmem_schedule(net: TcpNet, tp: TcpSock, size: int) -> bool:
    """`tcp_try_rmem_schedule`: room for a segment, made by pruning if need be."""
    if sk_rmem_schedule(net, tp, size):
        return True
    tcp_prune_queue(net, tp)
    if sk_rmem_schedule(net, tp, size):
        return True
    if tcp_prune_ofo_queue(net, tp) and sk_rmem_schedule(net, tp, size):
        return True
    net.mib["TcpExtRcvPruned"] += 1
    tp.pred_flags = False
    return False


def tcp_prune_queue(net: TcpNet, tp: TcpSock) -> None:
    """`tcp_prune_queue`: offer less from now on, and give back unused pages."""
    net.mib["TcpExtPruneCalled"] += 1
    if net.tracing:
        net.trace("tcp_prune_queue", sk=tp.number, rmem=tp.rmem_alloc)
    tp.rcv_ssthresh = min(tp.rcv_ssthresh, _MIN_RCV_SEGS * tp.advmss)
    sk_mem_reclaim(net, tp)


def tcp_prune_ofo_queue(net: TcpNet, tp: TcpSock) -> bool:
    """`tcp_prune_ofo_queue`: drop out-of-order data, the farthest first, an eighth of the receive
    buffer at a time; RFC 2018 8 allows it. False: there was none."""
    if not tp.ofo:
        return False
    net.mib["TcpExtOfoPruned"] += 1
    goal = tp.rcvbuf >> 3
    while tp.ofo and goal > 0:
        o = tp.ofo.pop()
        size = (o.end_seq - o.seq) & MASK
        goal -= max(size, 1)
        net.ofo_skbs -= 1
        tp.ofo_bytes -= size
        net.kfree_skb(o.skb, "TCP_OFO_QUEUE_PRUNE", sk=tp.number)
    tp.selective_acks = ()
    sk_mem_reclaim(net, tp)
    return True


# ---- orphans ---------------------------------------------------------------------------------


def tcp_out_of_memory(net: TcpNet, tp: TcpSock) -> bool:
    """`tcp_out_of_memory`: beyond the hard limit, with something queued?"""
    queued = (tp.write_seq - tp.snd_una) & MASK
    hard = sk_prot_mem_limits(net, 2)
    return queued > SOCK_MIN_SNDBUF and bool(net.tcp_memory_allocated > hard)


def tcp_check_oom(net: TcpNet, tp: TcpSock, shift: int) -> bool:
    """`tcp_check_oom`: too many orphans (`net.ipv4.tcp_max_orphans`), or too much memory."""
    orphans = net.orphan_count << shift > net.shard_limit(net.sysctl["net.ipv4.tcp_max_orphans"])
    if orphans and net.tracing:
        net.trace("tcp_check_oom", sk=tp.number, orphans=net.orphan_count)
    return orphans or tcp_out_of_memory(net, tp)
