# SPDX-License-Identifier: MIT
"""Invariants of every TCP socket, at any moment, after any segments and calls: for tests that do
arbitrary things to a tcp core.

Reads the tables of a TcpNet, changes nothing. AssertionError says what does not hold.
"""

from itertools import pairwise

from skbus.core.seq import MASK, before
from skbusd.tcp.const import (
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    TCP_CLOSE,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_NAGLE_CORK,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock, TcpTimewaitSock
from skbusd.tcp.sock import TcpSock

ACK_TO_SEND = ICSK_ACK_SCHED | ICSK_ACK_TIMER


def not_after(a: int, b: int) -> bool:
    """a <= b in sequence space."""
    return not before(b, a)


def check_counts(tp: TcpSock) -> None:
    """The counters agree with the queues."""
    out = sum(seg.pcount for seg in tp.rtx_queue)
    assert tp.packets_out == out, f"packets_out {tp.packets_out}, queued {out}"
    assert 0 <= tp.lost_out <= out
    assert 0 <= tp.retrans_out <= out
    assert 0 <= tp.sacked_out <= out
    assert tp.sacked_out + tp.lost_out <= out, "both SACKed and lost"
    if tp.sack_ok:
        assert tp.sacked_out == sum(s.pcount for s in tp.rtx_queue if s.sacked & 1)
        assert tp.lost_out == sum(s.pcount for s in tp.rtx_queue if s.sacked & 4)
        assert tp.retrans_out == sum(s.pcount for s in tp.rtx_queue if s.sacked & 2)
    assert tp.snd_cwnd >= 1
    assert tp.rmem_alloc >= 0
    assert tp.ofo_bytes == sum((o.end_seq - o.seq) & MASK for o in tp.ofo)


def check_numbers(tp: TcpSock) -> None:
    """Sequence space is in order (RFC 9293 3.3.1, figures 3 and 4), and the queues cover it."""
    for queue in (tp.rtx_queue, tp.write_queue):
        for one, two in pairwise(queue):
            assert one.end_seq == two.seq, f"a gap between {one} and {two}"
    check_rtx_indices(tp)
    assert not_after(tp.snd_una, tp.snd_nxt), "snd_una after snd_nxt"
    assert not_after(tp.snd_nxt, tp.write_seq), "snd_nxt after write_seq"
    assert not_after(tp.copied_seq, tp.rcv_nxt), "copied_seq after rcv_nxt"
    assert not_after(tp.rcv_wup, tp.rcv_nxt), "rcv_wup after rcv_nxt"
    if tp.rtx_queue:
        assert tp.rtx_queue[-1].end_seq == tp.snd_nxt
        assert not_after(tp.rtx_queue[0].seq, tp.snd_una)
    if tp.write_queue:
        assert tp.write_queue[0].seq == tp.snd_nxt, "the write queue does not begin at snd_nxt"
        assert tp.write_queue[-1].end_seq == tp.write_seq
    elif not tp.rtx_queue:
        assert tp.state in (TCP_CLOSE, TCP_SYN_SENT, TCP_SYN_RECV) or tp.snd_una == tp.write_seq
    for o in tp.ofo:
        assert not_after(tp.rcv_nxt, o.seq), "what is in order is in the out-of-order queue"


def check_rtx_indices(tp: TcpSock) -> None:
    """Values derived from the retransmit queue agree with the queue."""
    there = {id(seg) for seg in tp.rtx_queue}
    timely = list(tp.tsorted)
    assert there.issuperset(map(id, timely)), "sent last what is acknowledged"
    assert not any(seg.sacked & SACKED_ACKED for seg in timely), "SACKed, and waits to be"
    waiting = {id(seg) for seg in tp.lost_queue}
    for seg in tp.rtx_queue:
        if seg.sacked & (LOST | SACKED_ACKED | SACKED_RETRANS) == LOST:
            assert id(seg) in waiting, f"{seg} is lost, and nobody would send it again"
    if tp.sack_ok:
        ranges: list[tuple[int, int]] = []
        for seg in tp.rtx_queue:
            if seg.sacked & SACKED_ACKED:
                if ranges and ranges[-1][1] == seg.seq:
                    ranges[-1] = (ranges[-1][0], seg.end_seq)
                else:
                    ranges.append((seg.seq, seg.end_seq))
        assert tp.sacked_ranges == ranges, "SACKed ranges that are not the queue's"


def check_timers(tp: TcpSock) -> None:
    """Every wait of a socket has a timer that ends it."""
    write = tp.write_timer is not None and tp.write_timer.expires >= 0
    assert write == bool(tp.icsk_pending), f"write timer {write}, pending {tp.icsk_pending}"
    if tp.rtx_queue:
        assert tp.icsk_pending, "data is out and no timer runs"
    elif tp.write_queue and tp.state not in (TCP_SYN_SENT, TCP_SYN_RECV):
        corked = len(tp.write_queue) == 1 and (
            tp.nonagle & TCP_NAGLE_CORK or not tp.write_queue[0].flags & 8
        )
        assert tp.icsk_pending or corked, "data waits, nothing is out, and no timer runs"
    if tp.ack_pending & ICSK_ACK_TIMER:
        assert tp.delack_timer is not None, "no timer of the delayed ACK"
        assert tp.delack_timer.expires >= 0, "the timer of the delayed ACK does not run"
    if tp.dead and tp.state == TCP_FIN_WAIT2:
        assert tp.sk_timer is not None, "an orphan in FIN_WAIT2 without a timer"
        assert tp.sk_timer.expires >= 0, "an orphan in FIN_WAIT2 that no timer ends"


def check_tcp(net: TcpNet) -> None:
    """Check all sockets and tables."""
    for tp in net.socks.values():
        try:
            check_counts(tp)
            check_numbers(tp)
            check_timers(tp)
        except AssertionError as e:
            raise AssertionError(f"{e}: {tp!r}"[:3000]) from None
        assert not (tp.state == TCP_CLOSE and tp.dead), "a closed orphan has not gone"
        if tp.state not in (TCP_CLOSE, TCP_LISTEN):
            assert net.ehash.get(tp.key) is tp, "a connection that no segment finds"
    assert net.ofo_skbs == sum(len(tp.ofo) for tp in net.socks.values())
    assert net.orphan_count == sum(tp.dead for tp in net.socks.values())
    small = [sk for sk in net.ehash.values() if not isinstance(sk, TcpSock)]
    assert net.tw_count == sum(isinstance(sk, TcpTimewaitSock) for sk in small)
    for sk in small:
        assert sk.timer is not None, "it has no timer"
        assert sk.timer.expires >= 0, "no timer ends it"
    for tp in net.socks.values():
        if tp.state == TCP_LISTEN:
            reqs = [r for r in small if isinstance(r, TcpRequestSock) and r.listener == tp.number]
            assert tp.qlen == len(reqs), f"qlen {tp.qlen}, {len(reqs)} request socks"
            assert 0 <= tp.qlen_young <= tp.qlen
