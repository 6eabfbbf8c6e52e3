# SPDX-License-Identifier: MIT
"""Detection of losses (`net/ipv4/tcp_recovery.c`): RACK by time (RFC 8985), NewReno by duplicate
ACKs where there is no SACK (RFC 6582).

Called by tcp_sack and tcp_ack (deliveries), tcp_fastretrans and tcp_timer. Times in us.
"""

from typing import Final

from skbus.core.seq import MASK, after, before
from skbusd.tcp.const import (
    ICSK_TIME_REO_TIMEOUT,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    TCP_CA_RECOVERY,
    TCP_SYN_SENT,
    TCPCB_RETRANS,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_lost import tcp_lost_add
from skbusd.tcp.tcp_retransmit import tcp_non_congestion_loss_retransmit, tcp_rtx_fragment

TCP_RACK_LOSS_DETECTION: Final = 1
TCP_RACK_STATIC_REO_WND: Final = 2
TCP_RACK_NO_DUPTHRESH: Final = 4
TCP_TIMEOUT_MIN_US: Final = 2_000
TCP_RACK_RECOVERY_THRESH: Final = 16
_RACK_STEPS: Final = 64


def tcp_min_rtt(tp: TcpSock) -> int:
    """The windowed minimum of the round-trip time; very large while there is none."""
    return tp.rtt_min[0][1] if tp.rtt_min else MASK


def tcp_mark_skb_lost(net: TcpNet, tp: TcpSock, seg: TcpSeg) -> None:
    """Count a segment as lost; even a lost retransmission of it may go once more."""
    sacked = seg.sacked
    if sacked & SACKED_ACKED:
        return
    if sacked & LOST:
        if sacked & SACKED_RETRANS:
            seg.sacked = sacked & ~SACKED_RETRANS
            tcp_lost_add(tp, seg)
            tp.retrans_out -= seg.pcount
            tp.lost += seg.pcount
            net.mib["TcpExtTCPLostRetransmit"] += seg.pcount
    else:
        tp.lost_out += seg.pcount
        tp.lost += seg.pcount
        seg.sacked = sacked | LOST
        if not sacked & SACKED_RETRANS:
            tcp_lost_add(tp, seg)


def tcp_rack_reo_wnd(net: TcpNet, tp: TcpSock) -> int:
    """us by which a segment's ACK may follow its successors' before it counts as lost (RFC 8985
    6.2.4). 0 in recovery, or once three are SACKed, until reordering was seen."""
    if not tp.reord_seen:
        if tp.ca_state >= TCP_CA_RECOVERY:
            return 0
        if (
            tp.sacked_out >= tp.reordering
            and not net.ipv4.sysctl_tcp_recovery & TCP_RACK_NO_DUPTHRESH
        ):
            return 0
    return min((tcp_min_rtt(tp) >> 2) * tp.rack_reo_wnd_steps, tp.srtt_us >> 3)


def tcp_rack_detect_loss(net: TcpNet, tp: TcpSock) -> int:
    """Mark segments that were sent long enough before one that has been delivered (RFC 8985 6.2,
    step 5). Returns the time until the last of the others is due, 0 if there are none.

    Differs from Linux: only some of the segments that are not due yet are looked at, so that an ACK
    costs by its own news. If there are more, the time is that of the delivered segment, which was
    sent after them all.
    """
    reo_wnd = tcp_rack_reo_wnd(net, tp)
    now = net.now // 1000
    rtt = tp.rack_rtt_us + reo_wnd
    rack_mstamp = tp.rack_mstamp
    rack_end = tp.rack_end_seq
    timeout = steps = 0
    for seg in tp.tsorted:
        if seg.mstamp > rack_mstamp or (
            seg.mstamp == rack_mstamp and not before(seg.end_seq, rack_end)
        ):
            break
        remaining = rtt - (now - seg.mstamp)
        if remaining <= 0:
            tcp_mark_skb_lost(net, tp, seg)
            tp.tsorted.remove(seg)
            continue
        if remaining > timeout:
            timeout = remaining
        steps += 1
        if steps > _RACK_STEPS:
            return max(timeout, rtt - (now - rack_mstamp))
    return timeout


def tcp_rack_mark_lost(net: TcpNet, tp: TcpSock) -> bool:
    """Run RACK after an ACK; True where it armed the reordering timer."""
    if not tp.rack_advanced:
        return False
    tp.rack_advanced = False
    timeout = tcp_rack_detect_loss(net, tp)
    if timeout:
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_REO_TIMEOUT, timeout + TCP_TIMEOUT_MIN_US)
    return bool(timeout)


def tcp_rack_advance(tp: TcpSock, sacked: int, end_seq: int, xmit_time: int, now: int) -> None:
    """A segment was delivered: remember the delivered one that was sent last (RFC 8985 6.2, step
    2)."""
    rtt = now - xmit_time
    if sacked & TCPCB_RETRANS and rtt < tcp_min_rtt(tp):
        return  # probably the ACK of the original, not of the retransmission
    tp.rack_advanced = True
    tp.rack_rtt_us = rtt
    if xmit_time > tp.rack_mstamp or (
        xmit_time == tp.rack_mstamp and after(end_seq, tp.rack_end_seq)
    ):
        tp.rack_mstamp = xmit_time
        tp.rack_end_seq = end_seq


def tcp_rack_update_reo_wnd(net: TcpNet, tp: TcpSock, prior_delivered: int) -> None:
    """Widen the window by min_rtt/4 for each round trip with a D-SACK, for 16 recoveries
    (RFC 8985 6.2, step 4)."""
    policy = net.ipv4.sysctl_tcp_recovery
    if policy & TCP_RACK_STATIC_REO_WND or (not tp.rack_dsack_seen and tp.rack_reo_wnd_steps == 1):
        return
    if prior_delivered < tp.rack_last_delivered:
        tp.rack_dsack_seen = False
    if tp.rack_dsack_seen:
        tp.rack_reo_wnd_steps = min(0xFF, tp.rack_reo_wnd_steps + 1)
        tp.rack_dsack_seen = False
        tp.rack_last_delivered = tp.delivered
        tp.rack_reo_wnd_persist = TCP_RACK_RECOVERY_THRESH
    elif not tp.rack_reo_wnd_persist:
        tp.rack_reo_wnd_steps = 1


def tcp_newreno_mark_lost(net: TcpNet, tp: TcpSock, snd_una_advanced: bool) -> None:
    """Without SACK: the first segment is lost after enough duplicate ACKs, and in recovery each
    partial ACK shows the next one (RFC 6582 3.2)."""
    state = tp.ca_state
    if (state < TCP_CA_RECOVERY and tp.sacked_out >= tp.reordering) or (
        state == TCP_CA_RECOVERY and snd_una_advanced
    ):
        seg = tp.rtx_queue[0]
        if seg.sacked & LOST:
            return
        mss = tp.mss_cache
        if seg.pcount > 1 and seg.dlen() > mss:
            tcp_rtx_fragment(net, tp, 0, mss, mss)
        tcp_mark_skb_lost(net, tp, seg)


def tcp_simple_retransmit(net: TcpNet, tp: TcpSock) -> None:
    """The path MTU has shrunk: segments that are too big are lost, but not to congestion (RFC 1191
    6.5)."""
    mss = tp.mss_cache
    if tp.syn_data and tp.state == TCP_SYN_SENT:
        mss = -1  # SYN and data were one packet
    for seg in tp.rtx_queue:
        if min(seg.dlen(), seg.mss or seg.dlen()) > mss:
            tcp_mark_skb_lost(net, tp, seg)
    if not tp.lost_out:
        return
    if not tp.sack_ok:
        tp.sacked_out = min(tp.sacked_out, max(tp.packets_out - tp.lost_out, 0))
    tcp_non_congestion_loss_retransmit(net, tp)
