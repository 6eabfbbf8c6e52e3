# SPDX-License-Identifier: MIT
"""An ACK's news (`net/ipv4/tcp_input.c`, `tcp_ack`): which segments are done with, the round-trip
time, losses, and how fast to go on.

Called by tcp_input for every segment with ACK set. Calls tcp_sack, tcp_recovery, tcp_fastretrans,
the congestion control and tcp_retransmit; tells the socket layer by SkWriteSpace, once a batch.
RFC 9293 3.10.7.4, RFC 6298 (round-trip time), RFC 5961 5 (ACK validation).
"""

from typing import Final

from skbus.core.dropreason import SKB_NOT_DROPPED_YET, Checked
from skbus.core.seq import MASK, after, before, between
from skbus.core.skbuff import frags_slice
from skbusd.tcp.const import (
    FIN,
    FLAG_ACKED,
    FLAG_CA_ALERT,
    FLAG_DATA,
    FLAG_DATA_ACKED,
    FLAG_DSACKING_ACK,
    FLAG_ECE,
    FLAG_FORWARD_PROGRESS,
    FLAG_NO_CHALLENGE_ACK,
    FLAG_NOT_DUP,
    FLAG_ORIG_SACK_ACKED,
    FLAG_RETRANS_DATA_ACKED,
    FLAG_SACK_RENEGING,
    FLAG_SET_XMIT_TIMER,
    FLAG_SLOWPATH,
    FLAG_SND_UNA_ADVANCED,
    FLAG_SYN_ACKED,
    FLAG_TS_PROGRESS,
    FLAG_UPDATE_TS_RECENT,
    FLAG_WIN_UPDATE,
    ICSK_TIME_PROBE0,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    SYN,
    TCP_CA_CWR,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_CHRONO_UNSPEC,
    TCP_NAGLE_OFF,
    TCP_SYN_SENT,
    TCPCB_RETRANS,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_accecn import tcp_accecn_process
from skbusd.tcp.tcp_cong import RateSample
from skbusd.tcp.tcp_ecn import tcp_ecn_rcv_ecn_echo
from skbusd.tcp.tcp_fastretrans import (
    REXMIT_NEW,
    REXMIT_NONE,
    tcp_check_sack_reordering,
    tcp_cwnd_reduction,
    tcp_fastretrans_alert,
    tcp_process_tlp_ack,
    tcp_remove_reno_sacks,
)
from skbusd.tcp.tcp_mtu_probe import tcp_mtup_probe_success
from skbusd.tcp.tcp_output import (
    __tcp_push_pending_frames,
    tcp_chrono_set,
    tcp_probe0_base,
    tcp_rearm_rto,
    tcp_schedule_loss_probe,
    tcp_send_ack,
    tcp_slow_start_after_idle_check,
)
from skbusd.tcp.tcp_rate import tcp_rate_gen, tcp_rate_skb_delivered
from skbusd.tcp.tcp_recovery import tcp_min_rtt, tcp_rack_advance, tcp_rack_update_reo_wnd
from skbusd.tcp.tcp_retransmit import tcp_xmit_retransmit_queue
from skbusd.tcp.tcp_sack import Block, SackState, tcp_sack_ranges_acked, tcp_sacktag_write_queue
from skbusd.tcp.tcp_window import (
    tcp_current_mss,
    tcp_sync_mss,
    tcp_update_pacing_rate,
    tcp_wnd_end,
)

_NO_RTT: Final = TCPCB_RETRANS | SACKED_ACKED
_UNA_SLOW: Final = FLAG_SLOWPATH | FLAG_SND_UNA_ADVANCED


# ---- round-trip time -------------------------------------------------------------------------


def tcp_rtt_estimator(net: TcpNet, tp: TcpSock, rtt_us: int) -> None:
    """Smooth a sample (RFC 6298 2). The deviation falls only once a round trip. A sample below the
    mean weighs less, so that a sudden drop does not raise the RTO."""
    m = max(rtt_us, 1)
    srtt = tp.srtt_us
    if not srtt:
        tp.srtt_us = m << 3
        tp.mdev_us = m << 1
        tp.rttvar_us = max(tp.mdev_us, net.ipv4.sysctl_tcp_rto_min_us)
        tp.mdev_max_us = tp.rttvar_us
        tp.rtt_seq = tp.snd_nxt
        return
    m -= srtt >> 3
    srtt += m
    if m < 0:
        m = -m - (tp.mdev_us >> 2)
        if m > 0:
            m >>= 3
    else:
        m -= tp.mdev_us >> 2
    tp.mdev_us += m
    if tp.mdev_us > tp.mdev_max_us:
        tp.mdev_max_us = tp.mdev_us
        if tp.mdev_max_us > tp.rttvar_us:
            tp.rttvar_us = tp.mdev_max_us
    if after(tp.snd_una, tp.rtt_seq):
        if tp.mdev_max_us < tp.rttvar_us:
            tp.rttvar_us -= (tp.rttvar_us - tp.mdev_max_us) >> 2
        tp.rtt_seq = tp.snd_nxt
        tp.mdev_max_us = net.ipv4.sysctl_tcp_rto_min_us
    tp.srtt_us = max(1, srtt)


def tcp_set_rto(net: TcpNet, tp: TcpSock) -> None:
    """RTO = SRTT + 4 * RTTVAR (RFC 6298 2.3), the deviation not below tcp_rto_min."""
    tp.icsk_rto = min((tp.srtt_us >> 3) + tp.rttvar_us, net.ipv4.sysctl_tcp_rto_max_ms * 1000)


def tcp_update_rtt_min(net: TcpNet, tp: TcpSock, rtt_us: int) -> None:
    """Keep the least of the last `net.ipv4.tcp_min_rtt_wlen` seconds: the best, and the best of
    what came after it, and so on (three)."""
    now = net.now // 1_000_000
    samples = tp.rtt_min
    if samples and rtt_us > samples[0][1] and len(samples) < 2 and now - samples[0][0] < 1000:
        return  # a second best is kept once a second at most
    wlen = net.ipv4.sysctl_tcp_min_rtt_wlen * 1000
    kept = [s for s in samples if s[1] < rtt_us and now - s[0] <= wlen]
    if len(kept) < 3:
        kept.append((now, rtt_us))
    tp.rtt_min = tuple(kept)


def tcp_ack_update_rtt(
    net: TcpNet, tp: TcpSock, flag: int, first_ackt: int, last_ackt: int, state: SackState
) -> bool:
    """Take an ACK's samples from the times at which the first and last segment that it acknowledges
    were sent. A segment sent twice gives none (Karn), except by the echoed timestamp (RFC 7323 4).
    """
    rs = state.rs
    seq_rtt = ca_rtt = -1
    if first_ackt and not flag & FLAG_RETRANS_DATA_ACKED:
        seq_rtt = state.now - first_ackt
        ca_rtt = state.now - last_ackt
    if state.first_sackt:
        ca_rtt = state.now - state.last_sackt
        if seq_rtt < 0:
            seq_rtt = state.now - state.first_sackt
    if seq_rtt < 0 and tp.rx_saw_tstamp and tp.rcv_tsecr and flag & FLAG_ACKED:
        delta = (net.now // 1_000_000 + tp.tsoffset - tp.rcv_tsecr) & MASK
        if delta < 2_000_000:
            seq_rtt = ca_rtt = max(delta, 1) * 1000
    rs.rtt_us = ca_rtt
    if seq_rtt < 0:
        return False
    tcp_update_rtt_min(net, tp, max(ca_rtt, 1))
    tcp_rtt_estimator(net, tp, seq_rtt)
    tcp_set_rto(net, tp)
    tp.icsk_backoff = 0
    return True


# ---- the retransmit queue --------------------------------------------------------------------


def _tcp_tso_acked(tp: TcpSock, seg: TcpSeg, una: int) -> int:
    """A super-segment is acknowledged in part: cut off its front. Returns the number of segments
    cut off."""
    cut = (una - seg.seq) & MASK
    old_pcount = seg.pcount
    mss = seg.mss or tp.mss_cache
    seg.frags = frags_slice(seg.frags, cut, 1 << 30)
    seg.seq = una
    seg.flags &= ~SYN
    seg.pcount = max(-(-seg.dlen() // mss), 1)
    return old_pcount - seg.pcount


def _marked_seg_acked(tp: TcpSock, sacked: int, pcount: int) -> int:
    """An acknowledged segment was lost, sent again or SACKed: adjust these counts. Returns the
    ACK's flags."""
    if sacked & SACKED_ACKED:
        tp.sacked_out -= pcount
    if sacked & SACKED_RETRANS:
        tp.retrans_out -= pcount
    if sacked & LOST:
        tp.lost_out -= pcount
    return FLAG_RETRANS_DATA_ACKED if sacked & TCPCB_RETRANS else 0


def tcp_clean_rtx_queue(
    net: TcpNet, tp: TcpSock, prior_fack: int, prior_una: int, flag: int, state: SackState
) -> int:
    """Take acknowledged segments off the retransmit queue; returns the ACK's flags."""
    # In one piece, above 60 lines: each function more would cost every segment a call.
    una = tp.snd_una
    queue = tp.rtx_queue
    rs = state.rs
    now = state.now
    sack_ok = tp.sack_ok
    tsorted = tp.tsorted
    first_ackt = last_ackt = 0
    reord = tp.snd_nxt
    pkts_acked = done = 0
    prior_sacked = tp.sacked_out
    partial = False
    for seg in queue:
        sacked = seg.sacked
        if after(seg.end_seq, una):
            if seg.pcount == 1 or not before(seg.seq, una):
                break
            start_seq = seg.seq
            pcount = _tcp_tso_acked(tp, seg, una)
            if pcount <= 0:
                break
            partial = True
        else:
            start_seq = seg.seq
            pcount = seg.pcount
        if sacked:
            flag |= _marked_seg_acked(tp, sacked, pcount)
        if not sacked & _NO_RTT:
            last_ackt = seg.mstamp
            if not first_ackt:
                first_ackt = last_ackt
            if before(start_seq, reord):
                reord = start_seq
            if not before(tp.high_seq, seg.end_seq):
                flag |= FLAG_ORIG_SACK_ACKED
        if sack_ok and not sacked & SACKED_ACKED:
            tp.delivered += pcount
            # An ACK of the original just after a retransmission says nothing about the latter.
            if not (sacked & SACKED_RETRANS and now - seg.mstamp < tcp_min_rtt(tp)):
                tcp_rack_advance(tp, sacked, seg.end_seq, seg.mstamp, now)
        tp.packets_out -= pcount
        pkts_acked += pcount
        tcp_rate_skb_delivered(tp, seg, rs)
        if seg.flags & (SYN | FIN) and not partial:
            tp.wspace -= 1  # SYN and FIN are no bytes of the application's
        if seg.flags & SYN:
            flag |= FLAG_SYN_ACKED
            tp.retrans_stamp = 0
        else:
            flag |= FLAG_DATA_ACKED
        if partial:
            break
        done += 1
        if not sacked & SACKED_ACKED:
            tsorted.remove(seg)
    if done:
        del queue[:done]
        if not queue and not tp.write_queue and tp.chrono_type:
            tcp_chrono_set(net, tp, TCP_CHRONO_UNSPEC)
    if between(tp.snd_up, prior_una, una):
        tp.snd_up = una
    if tp.sacked_ranges:
        state.delivered_bytes -= tcp_sack_ranges_acked(tp)
    if queue and queue[0].sacked & SACKED_ACKED:
        flag |= FLAG_SACK_RENEGING
    if tp.mtup_probe_size and not before(una, tp.mtu_probe_seq_end):
        tcp_mtup_probe_success(net, tp)
    if pkts_acked == 1 and done and not prior_sacked and not flag & FLAG_RETRANS_DATA_ACKED:
        rs.is_ack_delayed = ((una - prior_una) & MASK) < tp.mss_cache
    rtt_update = tcp_ack_update_rtt(net, tp, flag, first_ackt, last_ackt, state)
    if flag & FLAG_ACKED:
        flag |= FLAG_SET_XMIT_TIMER
        if not sack_ok:
            tcp_remove_reno_sacks(net, tp, pkts_acked)
            if flag & FLAG_RETRANS_DATA_ACKED:
                flag &= ~FLAG_ORIG_SACK_ACKED
        elif before(reord, prior_fack):
            tcp_check_sack_reordering(net, tp, reord, False)
    elif queue and rtt_update and 0 < state.first_sackt < queue[0].mstamp:
        flag |= FLAG_SET_XMIT_TIMER
    if flag & FLAG_ECE and tp.delivered > state.prior_delivered:
        marked = tp.delivered - state.prior_delivered
        tp.delivered_ce += marked
        net.mib["TcpExtTCPDeliveredCE"] += marked
    net.cong[tp.ca_name].pkts_acked(net, tp, pkts_acked, rs.rtt_us)
    return flag


# ---- windows ---------------------------------------------------------------------------------


def tcp_snd_una_update(net: TcpNet, tp: TcpSock, ack: int) -> None:
    """snd_una moves, and the socket layer may free as many bytes."""
    delta = (ack - tp.snd_una) & MASK
    tp.snd_una = ack
    if delta:
        tp.bytes_acked += delta
        if not tp.wspace:
            net.write_space[tp.number] = tp
        tp.wspace += delta


def tcp_ack_update_window(
    net: TcpNet, tp: TcpSock, window: int, seq: int, ack: int, syn: bool
) -> int:
    """Take the window of a segment that is not older than the last one (RFC 9293 3.10.7.4)."""
    flag = 0
    nwin = window if syn else window << tp.snd_wscale
    if (
        after(ack, tp.snd_una)
        or after(seq, tp.snd_wl1)
        or (seq == tp.snd_wl1 and (nwin > tp.snd_wnd or not nwin))
    ):
        flag = FLAG_WIN_UPDATE
        tp.snd_wl1 = seq
        if tp.snd_wnd != nwin:
            tp.snd_wnd = nwin
            tp.pred_flags = not tp.ofo and tp.rcv_wnd > 0
            if tp.write_queue:
                tcp_slow_start_after_idle_check(net, tp)
            if nwin > tp.max_window:
                tp.max_window = nwin
                tcp_sync_mss(net, tp, tp.pmtu)
    tcp_snd_una_update(net, tp, ack)
    return flag


def tcp_ack_probe(net: TcpNet, tp: TcpSock) -> None:
    """An ACK while nothing is out: has the window opened?"""
    if not tp.write_queue:
        return
    seg = tp.write_queue[0]
    if not before(tcp_wnd_end(tp), seg.end_seq):
        tp.icsk_backoff = 0
        tp.icsk_probes_tstamp = 0
        if tp.icsk_pending == ICSK_TIME_PROBE0:
            tp.icsk_pending = 0
            if tp.write_timer is not None:
                tp.write_timer.expires = -1
    else:
        base = tcp_probe0_base(tp) << tp.icsk_backoff
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_PROBE0, base)


def tcp_store_ts_recent(net: TcpNet, tp: TcpSock) -> None:
    """Remember the peer's timestamp, to echo it."""
    tp.ts_recent = tp.rcv_tsval
    tp.ts_recent_stamp = net.now // 1_000_000_000 or 1


def tcp_replace_ts_recent(net: TcpNet, tp: TcpSock, seq: int) -> int:
    """RFC 7323 4.3: take the timestamp only of a segment that spans our last ACK's number, and no
    older one. FLAG_TS_PROGRESS: it is newer."""
    if tp.rx_saw_tstamp and not before(tp.rcv_wup, seq):
        newer = not before(tp.rcv_tsval, tp.ts_recent)
        if newer or net.now // 1_000_000_000 >= tp.ts_recent_stamp + 24 * 24 * 3600:
            progress = newer and tp.rcv_tsval != tp.ts_recent
            tcp_store_ts_recent(net, tp)
            return FLAG_TS_PROGRESS if progress else 0
    return 0


def tcp_send_challenge_ack(net: TcpNet, tp: TcpSock, flags: int = 0) -> None:
    """RFC 5961 7: an ACK that tells our numbers, within the rate limits. flags: further ones of its
    header."""
    if not tcp_oow_rate_limited(
        net, tp, "TcpExtTCPACKSkippedChallenge"
    ) and tcp_challenge_ack_allowed(net):
        tcp_send_ack(net, tp, flags)


def tcp_challenge_ack_allowed(net: TcpNet) -> bool:
    """May one more challenge ACK go (`net.ipv4.tcp_challenge_ack_limit` a second)? Counts it."""
    second = net.now // 1_000_000_000
    limit = net.sysctl["net.ipv4.tcp_challenge_ack_limit"]
    if limit < 2**31 - 1:
        if net.challenge_second != second:
            half = (limit + 1) >> 1
            net.challenge_second = second
            net.challenge_count = half + (net.get_random_u32() % limit if limit else 0)
        if net.challenge_count <= 0:
            return False
        net.challenge_count -= 1
    net.mib["TcpExtTCPChallengeACK"] += 1
    return True


def tcp_oow_rate_limited(net: TcpNet, tp: TcpSock, name: str) -> bool:
    """Answers to segments out of window go once in `net.ipv4.tcp_invalid_ratelimit` ms. Callers do
    not ask for segments with data, which cannot make a loop of ACKs."""
    if tp.last_oow_ack_time:
        elapsed = net.now - tp.last_oow_ack_time
        if 0 <= elapsed < net.sysctl["net.ipv4.tcp_invalid_ratelimit"] * 1_000_000:
            net.mib[name] += 1
            return True
    tp.last_oow_ack_time = net.now
    return False


# ---- tcp_ack ---------------------------------------------------------------------------------


def tcp_cong_control(
    net: TcpNet, tp: TcpSock, ack: int, acked_sacked: int, flag: int, rs: RateSample
) -> None:
    """Set cwnd after this ACK: reduce it, grow it, or leave it to the control."""
    ca = net.cong[tp.ca_name]
    if ca.full_control:
        ca.cong_control(net, tp, ack, flag, rs)
        return
    if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY):
        tcp_cwnd_reduction(tp, acked_sacked, rs.losses, flag)
    elif tp.reordering > net.ipv4.sysctl_tcp_reordering:
        if flag & FLAG_FORWARD_PROGRESS:
            ca.cong_avoid(net, tp, ack, acked_sacked)
    elif flag & FLAG_DATA_ACKED:
        ca.cong_avoid(net, tp, ack, acked_sacked)
    tcp_update_pacing_rate(net, tp)


def tcp_xmit_recovery(net: TcpNet, tp: TcpSock, rexmit: int) -> None:
    """Send as recovery asks: new data, or lost segments."""
    if rexmit == REXMIT_NONE or tp.state == TCP_SYN_SENT:
        return
    if rexmit == REXMIT_NEW:
        __tcp_push_pending_frames(net, tp, tcp_current_mss(net, tp), TCP_NAGLE_OFF)
        if after(tp.snd_nxt, tp.high_seq):
            return
        tp.frto = 0
    tcp_xmit_retransmit_queue(net, tp)


def tcp_set_xmit_timer(net: TcpNet, tp: TcpSock) -> None:
    """After an ACK: the loss probe, or the retransmission timer."""
    if not tcp_schedule_loss_probe(net, tp, True):
        tcp_rearm_rto(net, tp)


def _num_dupack(flag: int, segs: int) -> int:
    """Number of duplicate ACKs that this one counts as: 0 if it carries or changes something."""
    return 0 if flag & (FLAG_SND_UNA_ADVANCED | FLAG_NOT_DUP) else max(segs, 1)


def tcp_ack(
    net: TcpNet,
    tp: TcpSock,
    seq: int,
    end_seq: int,
    ack: int,
    window: int,
    hdr_flags: int,
    sacks: tuple[Block, ...],
    flag: int,
    segs: int = 1,
) -> Checked:
    """Take an ACK. TCP_OLD_ACK: it is older than snd_una, but its segment may carry data.

    The caller pushes data that may go now (tcp_data_snd_check).
    """
    # In one piece, above 60 lines: each function more would cost every segment a call.
    prior_una = tp.snd_una
    prior_delivered = tp.delivered
    prior_lost = tp.lost
    prior_packets = tp.packets_out
    now_us = net.now // 1000
    tp.tcp_mstamp = now_us
    if before(ack, prior_una):
        return _tcp_old_ack(net, tp, ack, sacks, flag)
    if after(ack, tp.snd_nxt):
        return "TCP_ACK_UNSENT_DATA"
    if ack != prior_una:
        flag |= FLAG_SND_UNA_ADVANCED
        tp.icsk_retransmits = 0
    if tp.ecn_flags and tcp_ecn_rcv_ecn_echo(tp, hdr_flags):
        flag |= FLAG_ECE
    prior_fack = tp.highest_sack if tp.sacked_out else prior_una
    rs = RateSample()
    rs.prior_in_flight = prior_packets - tp.sacked_out - tp.lost_out + tp.retrans_out
    state = SackState(tp.snd_nxt, now_us, rs)
    state.prior_delivered = prior_delivered
    if flag & FLAG_UPDATE_TS_RECENT:
        flag |= tcp_replace_ts_recent(net, tp, seq)
    if flag & _UNA_SLOW == FLAG_SND_UNA_ADVANCED and not sacks:
        # The window stays: only snd_una moves.
        tp.snd_wl1 = seq
        tcp_snd_una_update(net, tp, ack)
        flag |= FLAG_WIN_UPDATE
        net.mib["TcpExtTCPHPAcks"] += 1
    else:
        if seq != end_seq:
            flag |= FLAG_DATA
        else:
            net.mib["TcpExtTCPPureAcks"] += 1
        flag |= tcp_ack_update_window(net, tp, window, seq, ack, bool(hdr_flags & SYN))
        if sacks and tp.sack_ok:
            flag |= tcp_sacktag_write_queue(net, tp, ack, sacks, prior_una, state)
    tp.icsk_probes_out = 0
    tp.rcv_tstamp = net.now
    if not prior_packets:
        _no_queue(net, tp, ack, prior_una, hdr_flags, flag)
        return SKB_NOT_DROPPED_YET
    flag = tcp_clean_rtx_queue(net, tp, prior_fack, prior_una, flag, state)
    if tp.accecn is not None:
        size = ((ack - prior_una) & MASK) + state.delivered_bytes
        flag |= tcp_accecn_process(net, tp, hdr_flags, flag, tp.delivered - prior_delivered, size)
    tcp_rack_update_reo_wnd(net, tp, rs.prior_delivered)
    if tp.tlp_high_seq:
        tcp_process_tlp_ack(net, tp, ack, flag)
    rexmit = REXMIT_NONE
    if not flag & FLAG_NOT_DUP or flag & FLAG_CA_ALERT or tp.ca_state != TCP_CA_OPEN:
        dups = _num_dupack(flag, segs)
        rexmit, flag = tcp_fastretrans_alert(net, tp, prior_una, dups, flag)
    if flag & FLAG_SET_XMIT_TIMER:
        tcp_set_xmit_timer(net, tp)
    _finish(net, tp, ack, prior_delivered, prior_lost, flag, rs, rexmit)
    return SKB_NOT_DROPPED_YET


def _no_queue(
    net: TcpNet, tp: TcpSock, ack: int, prior_una: int, hdr_flags: int, flag: int
) -> None:
    """An ACK while nothing was out: with a D-SACK, for a window probe, or along with data."""
    if tp.accecn is not None:
        tcp_accecn_process(net, tp, hdr_flags, flag, 0, 0)
    if flag & FLAG_DSACKING_ACK:
        tcp_fastretrans_alert(net, tp, prior_una, 0, flag)  # a D-SACK may undo a reduction
    tcp_ack_probe(net, tp)
    if tp.tlp_high_seq:
        tcp_process_tlp_ack(net, tp, ack, flag)


def _finish(
    net: TcpNet,
    tp: TcpSock,
    ack: int,
    prior_delivered: int,
    prior_lost: int,
    flag: int,
    rs: RateSample,
    rexmit: int,
) -> None:
    """The rate sample, cwnd, and what recovery sends."""
    delivered = tp.delivered - prior_delivered
    if delivered:
        net.mib["TcpExtTCPDelivered"] += delivered
    tcp_rate_gen(tp, delivered, tp.lost - prior_lost, rs)
    tcp_cong_control(net, tp, ack, delivered, flag, rs)
    if rexmit:
        tcp_xmit_recovery(net, tp, rexmit)


def _tcp_old_ack(
    net: TcpNet,
    tp: TcpSock,
    ack: int,
    sacks: tuple[Block, ...],
    flag: int,
) -> Checked:
    """An ACK older than snd_una, overtaken in the network: only its SACK blocks count. One that
    is older than any window is answered (RFC 5961 5.2)."""
    prior_una, prior_delivered, prior_lost = tp.snd_una, tp.delivered, tp.lost
    max_window = min(tp.max_window, tp.bytes_acked)
    if before(ack, prior_una - max_window):
        if not flag & FLAG_NO_CHALLENGE_ACK:
            tcp_send_challenge_ack(net, tp)
        return "TCP_TOO_OLD_ACK"
    if sacks and tp.sack_ok:
        rs = RateSample()
        state = SackState(tp.snd_nxt, net.now // 1000, rs)
        flag = tcp_sacktag_write_queue(net, tp, ack, sacks, prior_una, state)
        rexmit, flag = tcp_fastretrans_alert(net, tp, prior_una, 0, flag)
        _finish(net, tp, ack, prior_delivered, prior_lost, flag, rs, rexmit)
    return "TCP_OLD_ACK"
