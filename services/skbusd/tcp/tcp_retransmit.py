# SPDX-License-Identifier: MIT
"""Sending again, and probing (`net/ipv4/tcp_output.c`): `tcp_retransmit_skb`,
`tcp_xmit_retransmit_queue`, the tail loss probe, zero-window and keepalive probes.

Called by tcp_ack (recovery) and tcp_timer. RFC 6298, RFC 6675 (what to send next), RFC 8985 7.3
(tail loss probe), RFC 9293 3.8.4, 3.8.6.1 (keepalive, window probes).
"""

from typing import Final

from skbus.core.seq import MASK, before, seq_ahead
from skbus.core.skbuff import frags_slice
from skbusd.tcp.const import (
    ACK,
    EVER_RETRANS,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
    LOST,
    PSH,
    PUSH_ONE_PROBE,
    SACKED_ACKED,
    SACKED_RETRANS,
    SYN,
    TCP_CA_CWR,
    TCP_CA_LOSS,
    TCP_CA_RECOVERY,
    TCP_CLOSE,
    TCP_NAGLE_PUSH,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_accecn_option import TCP_ACCECN_OPT_FAIL_SEND
from skbusd.tcp.tcp_cong import tcp_current_ssthresh, tcp_set_ca_state
from skbusd.tcp.tcp_ecn import tcp_ecn_clear_syn
from skbusd.tcp.tcp_handshake import tcp_transmit_syn
from skbusd.tcp.tcp_lost import rtx_index, tcp_lost_add, tcp_lost_first, tcp_lost_waits
from skbusd.tcp.tcp_output import (
    tcp_event_new_data_sent,
    tcp_fragment,
    tcp_probe0_base,
    tcp_rearm_rto,
    tcp_set_skb_tso_segs,
    tcp_transmit_skb,
    tcp_write_xmit,
)
from skbusd.tcp.tcp_pacing import tcp_pacing_check, tcp_update_skb_after_send
from skbusd.tcp.tcp_rate import tcp_rate_skb_sent
from skbusd.tcp.tcp_window import tcp_current_mss, tcp_tso_segs, tcp_wnd_end

GSO_LEGACY_MAX_SIZE: Final = 65536
SKB_OVERHEAD: Final = 832
"""Linux's charge for an sk_buff of the write queue, besides its payload (`sk_wmem_queued`, as
SO_MEMINFO shows it)."""


def tcp_adjust_pcount(tp: TcpSock, seg: TcpSeg, decr: int) -> None:
    """A segment in flight stands for `decr` segments fewer: adjust the counts."""
    tp.packets_out -= decr
    if seg.sacked & SACKED_ACKED:
        tp.sacked_out -= decr
    if seg.sacked & SACKED_RETRANS:
        tp.retrans_out -= decr
    if seg.sacked & LOST:
        tp.lost_out -= decr


def tcp_wqueue_too_big(net: TcpNet, tp: TcpSock, index: int) -> bool:
    """Has the retransmit queue too many pieces for a cut at `index`? A peer that SACKs every other
    segment has it cut to pieces (CVE-2019-11478). So the cost of all pieces is limited, to about
    twice the send buffer; the first and the last may always be cut."""
    queue = tp.rtx_queue
    pieces = len(queue) + len(tp.write_queue)
    queued = ((tp.write_seq - tp.snd_una) & MASK) + pieces * SKB_OVERHEAD
    limit = tp.sndbuf + 2 * max(tp.gso_max_size, GSO_LEGACY_MAX_SIZE)
    if queued >> 1 <= limit or not 0 < index < len(queue) - 1:
        return False
    net.mib["TcpExtTCPWqueueTooBig"] += 1
    return True


def tcp_rtx_fragment(net: TcpNet, tp: TcpSock, index: int, length: int, mss: int) -> bool:
    """Cut a segment of the retransmit queue, with the first part left in place; False where there
    are too many pieces."""
    if tcp_wqueue_too_big(net, tp, index):
        return False
    seg = tp.rtx_queue[index]
    old_pcount = seg.pcount
    new = tcp_fragment(seg, length, mss)
    tp.rtx_queue.insert(index + 1, new)
    diff = old_pcount - seg.pcount - new.pcount
    if diff:
        tcp_adjust_pcount(tp, seg, diff)
    if seg.tsorted_on:
        tp.tsorted.insert_after(seg, new)
    elif tcp_lost_waits(new):
        tcp_lost_add(tp, new)
    return True


def tcp_retransmit_skb(net: TcpNet, tp: TcpSock, index: int, segs: int) -> bool:
    """Send a segment again (`__tcp_retransmit_skb`), and count it as retransmitted."""
    if not __tcp_retransmit_skb(net, tp, index, segs):
        return False
    seg = tp.rtx_queue[index]
    pcount = seg.pcount
    if seg.sacked & SACKED_RETRANS:
        tp.retrans_out -= pcount
    seg.sacked |= SACKED_RETRANS | EVER_RETRANS
    tp.retrans_out += pcount
    if not tp.retrans_stamp:
        tp.retrans_stamp = net.now // 1000
    if tp.undo_retrans < 0:
        tp.undo_retrans = 0
    tp.undo_retrans += pcount
    return True


def __tcp_retransmit_skb(net: TcpNet, tp: TcpSock, index: int, segs: int) -> bool:
    """Send a segment of the retransmit queue again, at most `segs` of its MSS at once; False where
    that is not possible."""
    seg = tp.rtx_queue[index]
    mss = tcp_current_mss(net, tp)
    if not seg.flags & SYN:
        done = seq_ahead(tp.snd_una, seg.seq)
        if done:  # tcp_trim_head: the peer has the front of it
            seg.frags = frags_slice(seg.frags, done, 1 << 30)
            seg.seq = tp.snd_una
        # The peer may have shrunk its window: only its first segment is a probe.
        if not before(seg.seq, tcp_wnd_end(tp)) and seg.seq != tp.snd_una:
            return False
        length = mss * segs
        room = seq_ahead(tcp_wnd_end(tp), seg.seq)
        if 0 < room < length and segs > 1:
            length = max(room // mss, 1) * mss
        if seg.dlen() > length:
            if not tcp_rtx_fragment(net, tp, index, length, mss):
                return False
        elif seg.mss != mss:
            old_pcount = seg.pcount
            tcp_set_skb_tso_segs(seg, mss)
            if old_pcount != seg.pcount:
                tcp_adjust_pcount(tp, seg, old_pcount - seg.pcount)
    pcount = seg.pcount
    net.mib["TcpRetransSegs"] += pcount
    if seg.flags & SYN:
        net.mib["TcpExtTCPSynRetrans"] += 1
        tcp_ecn_clear_syn(net, tp, seg)
        tcp_transmit_syn(net, tp, seg)
    else:
        # All segments of a batch have one time, but RACK must know their order.
        now = max(net.now // 1000, tp.tcp_wstamp + 1)
        tcp_rate_skb_sent(tp, seg, now)
        dlen = seg.dlen()
        if tp.accecn is not None and tp.bytes_acked <= 1:
            # The first data is lost: perhaps somebody drops segments with the option (RFC 9768
            # 3.2.3.2.2).
            tp.accecn.fail_mode |= TCP_ACCECN_OPT_FAIL_SEND
        if net.tracing:
            net.trace("tcp_retransmit_skb", sk=tp.number, seq=seg.seq, len=dlen)
        if not tcp_transmit_skb(net, tp, seg.seq, seg.flags, seg.frags, dlen, mss):
            net.mib["TcpExtTCPRetransFail"] += 1
            return False
        seg.mstamp = tp.tcp_wstamp = now
        tp.bytes_retrans += dlen
        if tp.pacing_status:
            tcp_update_skb_after_send(net, tp, dlen)
    tp.total_retrans += pcount
    seg.sacked |= EVER_RETRANS
    tp.tsorted.remove(seg)
    tp.tsorted.append(seg)
    return True


def tcp_xmit_retransmit_queue(net: TcpNet, tp: TcpSock) -> None:
    """Send segments that are marked lost and not sent again yet, oldest first, as cwnd allows."""
    if not tp.packets_out or tp.retrans_out >= tp.lost_out:
        return
    mss = tcp_current_mss(net, tp)
    max_segs = tcp_tso_segs(net, tp, mss)
    rearm = False
    name = "TcpExtTCPFastRetrans" if tp.ca_state != TCP_CA_LOSS else "TcpExtTCPSlowStartRetrans"
    while True:
        if tp.pacing_status and tcp_pacing_check(net, tp):
            break
        in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
        room = tp.snd_cwnd - in_flight
        if room <= 0 or tp.retrans_out >= tp.lost_out:
            break
        seg = tcp_lost_first(tp)
        if seg is None:
            break
        index = rtx_index(tp, seg.seq)
        if not tcp_retransmit_skb(net, tp, index, min(room, max_segs)):
            break
        net.mib[name] += seg.pcount
        if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY):
            tp.prr_out += seg.pcount
        if not index and tp.icsk_pending != ICSK_TIME_REO_TIMEOUT:
            rearm = True
    if rearm:
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, tp.icsk_rto)


def tcp_send_loss_probe(net: TcpNet, tp: TcpSock) -> None:
    """The tail loss probe: one new segment, or the last one again (RFC 8985 7.3)."""
    if tp.tlp_high_seq:
        tcp_rearm_rto(net, tp)
        return
    mss = tcp_current_mss(net, tp)
    tp.tlp_retrans = 0
    sent = False
    if tp.write_queue:
        seg = tp.write_queue[0]
        end = (seg.seq + min(seg.dlen(), mss)) & MASK
        if not before(tcp_wnd_end(tp), end):
            old_packets_out = tp.packets_out
            tcp_write_xmit(net, tp, mss, TCP_NAGLE_PUSH, PUSH_ONE_PROBE)
            sent = tp.packets_out > old_packets_out
    if not sent:
        if not tp.rtx_queue:
            tcp_rearm_rto(net, tp)
            return
        index = len(tp.rtx_queue) - 1
        seg = tp.rtx_queue[index]
        if seg.pcount > 1 and tcp_rtx_fragment(net, tp, index, (seg.pcount - 1) * mss, mss):
            index += 1
        if __tcp_retransmit_skb(net, tp, index, 1):
            tp.tlp_retrans = 1
            sent = True
    if sent:
        tp.tlp_high_seq = tp.snd_nxt or 1
        net.mib["TcpExtTCPLossProbes"] += 1
        tp.icsk_pending = 0
    tcp_rearm_rto(net, tp)


def tcp_non_congestion_loss_retransmit(net: TcpNet, tp: TcpSock) -> None:
    """Send again segments that were not lost to congestion; cwnd stays as it is."""
    if tp.ca_state != TCP_CA_LOSS:
        tp.high_seq = tp.snd_nxt
        tp.snd_ssthresh = tcp_current_ssthresh(tp)
        tp.prior_ssthresh = 0
        tp.undo_marker = 0
        tcp_set_ca_state(net, tp, TCP_CA_LOSS)
    tcp_xmit_retransmit_queue(net, tp)


# ---- window probes and keepalives ------------------------------------------------------------


def tcp_xmit_probe_skb(net: TcpNet, tp: TcpSock, urgent: bool, name: str) -> None:
    """Send an empty segment at a number that is already acknowledged: the peer must answer."""
    net.mib[name] += 1
    tcp_transmit_skb(net, tp, (tp.snd_una - (not urgent)) & MASK, ACK)


def tcp_write_wakeup(net: TcpNet, tp: TcpSock, name: str) -> bool:
    """Send as much as the window has room for, or a probe; True when something went."""
    if tp.state == TCP_CLOSE:
        return False
    if tp.write_queue:
        seg = tp.write_queue[0]
        room = seq_ahead(tcp_wnd_end(tp), seg.seq)
        if room:
            mss = tcp_current_mss(net, tp)
            tp.pushed_seq = seg.end_seq
            dlen = seg.dlen()
            if room < ((seg.end_seq - seg.seq) & MASK) or dlen > mss:
                length = min(room, mss, dlen)
                seg.flags |= PSH
                if length < dlen:
                    tp.write_queue.insert(1, tcp_fragment(seg, length, mss))
            tcp_set_skb_tso_segs(seg, mss)
            seg.flags |= PSH
            now = net.now // 1000
            seg.mstamp = now
            tcp_rate_skb_sent(tp, seg, now)
            if tcp_transmit_skb(net, tp, seg.seq, seg.flags, seg.frags, seg.dlen(), mss):
                del tp.write_queue[0]
                tcp_event_new_data_sent(net, tp, seg)
                return True
            return False
    tcp_xmit_probe_skb(net, tp, False, name)
    return True


def tcp_send_probe0(net: TcpNet, tp: TcpSock) -> None:
    """The probe timer fired: probe, and back off (RFC 9293 3.8.6.1)."""
    tcp_write_wakeup(net, tp, "TcpExtTCPWinProbe")
    if tp.packets_out or not tp.write_queue:
        tp.icsk_probes_out = 0
        tp.icsk_backoff = 0
        tp.icsk_probes_tstamp = 0
        return
    tp.icsk_probes_out += 1
    if tp.icsk_backoff < net.sysctl["net.ipv4.tcp_retries2"]:
        tp.icsk_backoff += 1
    timeout = tcp_probe0_base(tp) << tp.icsk_backoff
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_PROBE0, timeout)
