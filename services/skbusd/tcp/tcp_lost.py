# SPDX-License-Identifier: MIT
"""Indices of the retransmit queue: the place of a sequence number, and the lost segments that wait
to be sent again. With them an ACK costs by its own news, not by all that is in flight.

Called by tcp_recovery (losses), tcp_retransmit (the next to go), tcp_sack and dump.

`TcpSock.lost_queue` has every segment that is marked LOST, is not SACKed, and has not been sent
again since, by sequence number. When a mark is taken away the segment stays in the list until
`tcp_lost_first` drops it: each is entered once per mark.

Differs from Linux, which remembers one segment (`retransmit_skb_hint`) and walks on from there: a
peer can make that walk as long as the queue.
"""

from skbus.core.seq import after, before
from skbusd.tcp.const import (
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
)
from skbusd.tcp.sock import TcpSeg, TcpSock

_WAITS = LOST | SACKED_ACKED | SACKED_RETRANS


def rtx_index(tp: TcpSock, seq: int) -> int:
    """Index in the retransmit queue of the segment with `seq`, or of the first one behind it
    (binary search)."""
    queue = tp.rtx_queue
    if before(seq, tp.snd_una):
        return 0
    low, high = 0, len(queue)
    while low < high:
        mid = (low + high) >> 1
        if not after(queue[mid].end_seq, seq):
            low = mid + 1
        else:
            high = mid
    return low


def tcp_lost_waits(seg: TcpSeg) -> bool:
    """Is the segment lost, and not sent again since?"""
    return seg.sacked & _WAITS == LOST


def tcp_lost_add(tp: TcpSock, seg: TcpSeg) -> None:
    """A segment has been marked lost: RACK has done with it, and it waits to be sent again."""
    tp.tsorted.remove(seg)
    queue = tp.lost_queue
    seq = seg.seq
    if not queue or before(queue[-1].seq, seq):
        queue.append(seg)
        return
    low, high = 0, len(queue)
    while low < high:
        mid = (low + high) >> 1
        if before(queue[mid].seq, seq):
            low = mid + 1
        else:
            high = mid
    queue.insert(low, seg)


def tcp_lost_first(tp: TcpSock) -> TcpSeg | None:
    """The first segment that waits to be sent again."""
    queue = tp.lost_queue
    done = 0
    for seg in queue:
        if seg.sacked & _WAITS == LOST and after(seg.end_seq, tp.snd_una):
            break
        done += 1
    if done:
        del queue[:done]
    return queue[0] if queue else None
