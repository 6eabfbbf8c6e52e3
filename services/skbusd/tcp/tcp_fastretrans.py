# SPDX-License-Identifier: MIT
"""The states of recovery (`net/ipv4/tcp_input.c`, `tcp_fastretrans_alert`): Open, Disorder, CWR,
Recovery, Loss; how cwnd shrinks, and how a reduction is undone.

Called by tcp_ack for each ACK that is not plain, and by tcp_timer. RFC 5681, 6582 (NewReno),
6675 (SACK), 6937 (PRR), 5682 (F-RTO), 4015 and 3708 (undo by timestamps and D-SACK).
"""

from typing import Final

from skbus.core.seq import MASK, after, before, seq_ahead
from skbusd.tcp.const import (
    CA_EVENT_COMPLETE_CWR,
    CA_EVENT_LOSS,
    EVER_RETRANS,
    FLAG_DATA_SACKED,
    FLAG_DSACK_TLP,
    FLAG_ECE,
    FLAG_LOST_RETRANS,
    FLAG_NOT_DUP,
    FLAG_ORIG_SACK_ACKED,
    FLAG_SACK_RENEGING,
    FLAG_SET_XMIT_TIMER,
    FLAG_SND_UNA_ADVANCED,
    ICSK_TIME_RETRANS,
    LOST,
    SACKED_ACKED,
    TCP_CA_CWR,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_INFINITE_SSTHRESH,
)
from skbusd.tcp.inet_connection_sock import inet_csk_reset_xmit_timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import tcp_ca_event, tcp_current_ssthresh, tcp_set_ca_state
from skbusd.tcp.tcp_ecn import tcp_ecn_queue_cwr, tcp_ecn_withdraw_cwr
from skbusd.tcp.tcp_mtu_probe import tcp_mtup_probe_failed
from skbusd.tcp.tcp_recovery import (
    tcp_mark_skb_lost,
    tcp_newreno_mark_lost,
    tcp_rack_mark_lost,
    tcp_simple_retransmit,
)
from skbusd.tcp.tcp_window import tcp_wnd_end

REXMIT_NONE: Final = 0
REXMIT_LOST: Final = 1
REXMIT_NEW: Final = 2
_UNMARKED_TO_RACK: Final = 64


def tcp_packets_in_flight(tp: TcpSock) -> int:
    """Segments that are still in the network, as far as we know (RFC 6675's pipe)."""
    return tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out


# ---- reordering ------------------------------------------------------------------------------


def tcp_check_sack_reordering(net: TcpNet, tp: TcpSock, low_seq: int, by_ts: bool) -> None:
    """A segment at low_seq was delivered after segments above it: not lost, but reordered."""
    fack = tp.highest_sack if tp.sacked_out else tp.snd_una
    metric = seq_ahead(fack, low_seq)
    if not metric:
        return
    mss = tp.mss_cache
    if metric > tp.reordering * mss:
        limit = net.sysctl["net.ipv4.tcp_max_reordering"]
        tp.reordering = min(-(-metric // mss), limit)
    tp.reord_seen += 1
    net.mib["TcpExtTCPTSReorder" if by_ts else "TcpExtTCPSACKReorder"] += 1


def tcp_check_reno_reordering(net: TcpNet, tp: TcpSock, addend: int) -> bool:
    """More duplicate ACKs than segments out: reordering. True: sacked_out was limited."""
    holes = max(tp.lost_out, 1)
    holes = min(holes, tp.packets_out)
    if tp.sacked_out + holes <= tp.packets_out:
        return False
    tp.sacked_out = tp.packets_out - holes
    tp.reordering = min(tp.packets_out + addend, net.sysctl["net.ipv4.tcp_max_reordering"])
    tp.reord_seen += 1
    net.mib["TcpExtTCPRenoReorder"] += 1
    return True


def tcp_add_reno_sack(net: TcpNet, tp: TcpSock, num_dupack: int) -> None:
    """A duplicate ACK without SACK shows that some segment has been delivered."""
    if num_dupack:
        prior = tp.sacked_out
        tp.sacked_out += num_dupack
        tcp_check_reno_reordering(net, tp, 0)
        tp.delivered += max(tp.sacked_out - prior, 0)


def tcp_remove_reno_sacks(net: TcpNet, tp: TcpSock, acked: int) -> None:
    """A new ACK without SACK: the duplicates before it stood for segments that it covers."""
    if acked > 0:
        tp.delivered += max(acked - tp.sacked_out, 1)
        tp.sacked_out = 0 if acked - 1 >= tp.sacked_out else tp.sacked_out - (acked - 1)
    tcp_check_reno_reordering(net, tp, acked)


# ---- cwnd ------------------------------------------------------------------------------------


def tcp_init_cwnd_reduction(net: TcpNet, tp: TcpSock) -> None:
    """cwnd is going down to a new ssthresh."""
    tp.high_seq = tp.snd_nxt
    tp.tlp_high_seq = 0
    tp.snd_cwnd_cnt = 0
    tp.prior_cwnd = tp.snd_cwnd
    tp.prr_delivered = 0
    tp.prr_out = 0
    tp.snd_ssthresh = net.cong[tp.ca_name].ssthresh(net, tp)
    tcp_ecn_queue_cwr(tp)


def tcp_cwnd_reduction(tp: TcpSock, newly_acked_sacked: int, newly_lost: int, flag: int) -> None:
    """Proportional Rate Reduction (RFC 6937 3.1): send as the peer receives."""
    if newly_acked_sacked <= 0 or not tp.prior_cwnd:
        return
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    delta = tp.snd_ssthresh - in_flight
    tp.prr_delivered += newly_acked_sacked
    if delta < 0:
        sndcnt = -(-tp.snd_ssthresh * tp.prr_delivered // tp.prior_cwnd) - tp.prr_out
    else:
        sndcnt = max(tp.prr_delivered - tp.prr_out, newly_acked_sacked)
        if flag & FLAG_SND_UNA_ADVANCED and not newly_lost:
            sndcnt += 1
        sndcnt = min(delta, sndcnt)
    tp.snd_cwnd = in_flight + max(sndcnt, 0 if tp.prr_out else 1)


def tcp_end_cwnd_reduction(net: TcpNet, tp: TcpSock) -> None:
    """Recovery is over: cwnd is ssthresh."""
    if net.cong[tp.ca_name].full_control:
        return
    if tp.snd_ssthresh < TCP_INFINITE_SSTHRESH and (tp.undo_marker or tp.ca_state == TCP_CA_CWR):
        tp.snd_cwnd = tp.snd_ssthresh
        tp.snd_cwnd_stamp = net.now
    tcp_ca_event(net, tp, CA_EVENT_COMPLETE_CWR)


def tcp_enter_cwr(net: TcpNet, tp: TcpSock) -> None:
    """Reduce cwnd without a loss (ECN, a local queue)."""
    tp.prior_ssthresh = 0
    if tp.ca_state < TCP_CA_CWR:
        tp.undo_marker = 0
        tcp_init_cwnd_reduction(net, tp)
        tcp_set_ca_state(net, tp, TCP_CA_CWR)


def tcp_init_undo(tp: TcpSock) -> None:
    """Begin to watch whether the reduction was a mistake."""
    tp.undo_marker = tp.snd_una or 1
    tp.undo_retrans = tp.retrans_out or -1


def tcp_enter_recovery(net: TcpNet, tp: TcpSock, ece: bool) -> None:
    """Fast recovery begins (RFC 6675 5 (4))."""
    name = "TcpExtTCPSackRecovery" if tp.sack_ok else "TcpExtTCPRenoRecovery"
    net.mib[name] += 1
    tp.prior_ssthresh = 0
    tcp_init_undo(tp)
    if tp.ca_state not in (TCP_CA_CWR, TCP_CA_RECOVERY):
        if not ece:
            tp.prior_ssthresh = tcp_current_ssthresh(tp)
        tcp_init_cwnd_reduction(net, tp)
    tcp_set_ca_state(net, tp, TCP_CA_RECOVERY)
    if net.tracing:
        net.trace("tcp_enter_recovery", sk=tp.number, cwnd=tp.snd_cwnd, ssthresh=tp.snd_ssthresh)


def tcp_enter_loss(net: TcpNet, tp: TcpSock) -> None:
    """The retransmission timer fired: all old segments count as lost, cwnd is one segment (RFC 5681
    3.1, RFC 6582 4)."""
    head = tp.rtx_queue[0] if tp.rtx_queue else None
    reneging = head is not None and bool(head.sacked & SACKED_ACKED)
    new_recovery = tp.ca_state < TCP_CA_RECOVERY
    if reneging:
        net.mib["TcpExtTCPSACKReneging"] += 1
        tp.sacked_out = 0
        tp.is_sack_reneg = True
    elif not tp.sack_ok:
        tp.sacked_out = 0
    now = net.now // 1000
    if reneging:
        tp.sacked_ranges.clear()
    for seg in tp.rtx_queue:
        if reneging:
            seg.sacked &= ~SACKED_ACKED
        elif tp.sack_ok and seg is not head and tp.rack_rtt_us > now - seg.mstamp:
            continue
        tcp_mark_skb_lost(net, tp, seg)
    if (
        tp.ca_state <= TCP_CA_DISORDER
        or not after(tp.high_seq, tp.snd_una)
        or (tp.ca_state == TCP_CA_LOSS and not tp.icsk_retransmits)
    ):
        tp.prior_ssthresh = tcp_current_ssthresh(tp)
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = net.cong[tp.ca_name].ssthresh(net, tp)
        tcp_ca_event(net, tp, CA_EVENT_LOSS)
        tcp_init_undo(tp)
    tp.snd_cwnd = tcp_packets_in_flight(tp) + 1
    tp.snd_cwnd_cnt = 0
    tp.snd_cwnd_stamp = net.now
    reordering = net.ipv4.sysctl_tcp_reordering
    if tp.ca_state <= TCP_CA_DISORDER and tp.sacked_out >= reordering:
        tp.reordering = min(tp.reordering, reordering)
    tcp_set_ca_state(net, tp, TCP_CA_LOSS)
    tp.high_seq = tp.snd_nxt
    tp.tlp_high_seq = 0
    tcp_ecn_queue_cwr(tp)
    tp.frto = int(
        net.sysctl["net.ipv4.tcp_frto"] != 0 and (new_recovery or tp.icsk_retransmits > 0)
    )


# ---- undo ------------------------------------------------------------------------------------


def tcp_packet_delayed(tp: TcpSock) -> bool:
    """The echoed timestamp is older than the first retransmission: the original arrived, late
    (Eifel, RFC 3522)."""
    if not tp.retrans_stamp or not tp.rx_saw_tstamp or not tp.rcv_tsecr:
        return False
    sent = (tp.retrans_stamp // 1000 + tp.tsoffset) & MASK
    return before(tp.rcv_tsecr, sent)


def tcp_may_undo(tp: TcpSock) -> bool:
    """Was every retransmission needless?"""
    return bool(tp.undo_marker) and (not tp.undo_retrans or tcp_packet_delayed(tp))


def _unmark_lost(tp: TcpSock) -> None:
    """Nothing was lost after all: take the marks back, and let RACK see the oldest segments again.

    Differs from Linux, where RACK never looks at these segments again: we give it the oldest few. A
    peer that makes marks come and go costs us only these each time.
    """
    unmarked = []
    for seg in tp.rtx_queue if tp.retrans_out else tp.lost_queue:
        if seg.sacked & LOST:
            seg.sacked &= ~LOST
            if not seg.tsorted_on and after(seg.end_seq, tp.snd_una):
                unmarked.append(seg)
    for seg in reversed(unmarked[:_UNMARKED_TO_RACK]):
        tp.tsorted.prepend(seg)
    tp.lost_out = 0
    tp.lost_queue.clear()


def tcp_undo_cwnd_reduction(net: TcpNet, tp: TcpSock, unmark_loss: bool) -> None:
    """Put cwnd and ssthresh back to their old values."""
    if unmark_loss and tp.lost_out:
        _unmark_lost(tp)
    if tp.prior_ssthresh:
        tp.snd_cwnd = net.cong[tp.ca_name].undo_cwnd(net, tp)
        if tp.prior_ssthresh > tp.snd_ssthresh:
            tp.snd_ssthresh = tp.prior_ssthresh
            tcp_ecn_withdraw_cwr(tp)
    tp.snd_cwnd_stamp = net.now
    tp.undo_marker = 0
    tp.rack_advanced = True


def tcp_any_retrans_done(tp: TcpSock) -> bool:
    """Is a segment out that was sent more than once?"""
    if tp.retrans_out:
        return True
    return bool(tp.rtx_queue) and bool(tp.rtx_queue[0].sacked & EVER_RETRANS)


def tcp_try_undo_recovery(net: TcpNet, tp: TcpSock) -> bool:
    """All of the recovery's data is acknowledged. True: stay in this state for now, so that
    late duplicates do not start it again (RFC 6582 4)."""
    if tcp_may_undo(tp):
        name = "TcpExtTCPLossUndo" if tp.ca_state == TCP_CA_LOSS else "TcpExtTCPFullUndo"
        tcp_undo_cwnd_reduction(net, tp, False)
        net.mib[name] += 1
    elif tp.rack_reo_wnd_persist:
        tp.rack_reo_wnd_persist -= 1
    if tp.snd_una == tp.high_seq and not tp.sack_ok:
        if not tcp_any_retrans_done(tp):
            tp.retrans_stamp = 0
        return True
    tcp_set_ca_state(net, tp, TCP_CA_OPEN)
    tp.is_sack_reneg = False
    return False


def tcp_try_undo_dsack(net: TcpNet, tp: TcpSock) -> bool:
    """Each retransmission was reported as a duplicate (RFC 3708)."""
    if tp.undo_marker and not tp.undo_retrans:
        tp.rack_reo_wnd_persist = min(16, tp.rack_reo_wnd_persist + 1)
        tcp_undo_cwnd_reduction(net, tp, False)
        net.mib["TcpExtTCPDSACKUndo"] += 1
        return True
    return False


def tcp_try_undo_loss(net: TcpNet, tp: TcpSock, frto_undo: bool) -> bool:
    """The timeout was a mistake (RFC 5682, 4015)."""
    if not frto_undo and not tcp_may_undo(tp):
        return False
    tcp_undo_cwnd_reduction(net, tp, True)
    net.mib["TcpExtTCPLossUndo"] += 1
    if frto_undo:
        net.mib["TcpExtTCPSpuriousRTOs"] += 1
    tp.icsk_retransmits = 0
    if frto_undo or tp.sack_ok:
        tcp_set_ca_state(net, tp, TCP_CA_OPEN)
        tp.is_sack_reneg = False
    return True


def tcp_update_rto_time(net: TcpNet, tp: TcpSock) -> None:
    """A recovery that a timeout began is over: how long it took, for TCP_INFO."""
    if tp.rto_stamp:
        tp.total_rto_time += net.now // 1_000_000 - tp.rto_stamp
        tp.rto_stamp = 0


def tcp_try_undo_partial(net: TcpNet, tp: TcpSock, prior_snd_una: int) -> bool:
    """A partial ACK that the original caused: reordering, not loss."""
    if not tp.undo_marker or not tcp_packet_delayed(tp):
        return False
    tcp_check_sack_reordering(net, tp, prior_snd_una, True)
    if tp.retrans_out:
        return True
    if not tcp_any_retrans_done(tp):
        tp.retrans_stamp = 0
    tcp_undo_cwnd_reduction(net, tp, True)
    net.mib["TcpExtTCPPartialUndo"] += 1
    tcp_try_keep_open(net, tp)
    return False


def tcp_try_keep_open(net: TcpNet, tp: TcpSock) -> None:
    """Open, or Disorder while there are holes."""
    state = TCP_CA_OPEN
    if tp.sacked_out or tp.lost_out or tcp_any_retrans_done(tp):
        state = TCP_CA_DISORDER
    if tp.ca_state != state:
        tcp_set_ca_state(net, tp, state)
        tp.high_seq = tp.snd_nxt


def tcp_try_to_open(net: TcpNet, tp: TcpSock, flag: int) -> None:
    """As far as we know, nothing is lost."""
    if not tcp_any_retrans_done(tp):
        tp.retrans_stamp = 0
    if flag & FLAG_ECE:
        tcp_enter_cwr(net, tp)
    if tp.ca_state != TCP_CA_CWR:
        tcp_try_keep_open(net, tp)


# ---- the machine -----------------------------------------------------------------------------


def tcp_identify_packet_loss(net: TcpNet, tp: TcpSock, flag: int) -> int:
    """Mark segments that are lost by now; returns the ACK's flags."""
    if not tp.rtx_queue:
        return flag
    if not tp.sack_ok:
        tcp_newreno_mark_lost(net, tp, bool(flag & FLAG_SND_UNA_ADVANCED))
    else:
        prior = tp.retrans_out
        if tcp_rack_mark_lost(net, tp):
            flag &= ~FLAG_SET_XMIT_TIMER
        if prior > tp.retrans_out:
            flag |= FLAG_LOST_RETRANS
    return flag


def tcp_process_loss(net: TcpNet, tp: TcpSock, flag: int, num_dupack: int) -> int:
    """An ACK after a timeout: was it spurious (F-RTO, RFC 5682 3.1)? Returns what to send."""
    recovered = not before(tp.snd_una, tp.high_seq)
    if flag & FLAG_SND_UNA_ADVANCED and tcp_try_undo_loss(net, tp, False):
        return REXMIT_NONE
    if tp.frto:
        # Step 3.b: a segment that was not sent again is acknowledged
        if flag & FLAG_ORIG_SACK_ACKED and tcp_try_undo_loss(net, tp, True):
            return REXMIT_NONE
        if after(tp.snd_nxt, tp.high_seq):
            if flag & FLAG_DATA_SACKED or num_dupack:
                tp.frto = 0  # step 3.a: a duplicate
        elif flag & FLAG_SND_UNA_ADVANCED and not recovered:
            tp.high_seq = tp.snd_nxt
            # Step 2.b: try new data
            if tp.write_queue and after(tcp_wnd_end(tp), tp.snd_nxt):
                return REXMIT_NEW
            tp.frto = 0
    if recovered:
        tcp_try_undo_recovery(net, tp)
        return REXMIT_NONE
    if not tp.sack_ok:
        if after(tp.snd_nxt, tp.high_seq) and num_dupack:
            tcp_add_reno_sack(net, tp, num_dupack)
        elif flag & FLAG_SND_UNA_ADVANCED:
            tp.sacked_out = 0
    return REXMIT_LOST


def tcp_check_sack_reneging(net: TcpNet, tp: TcpSock, flag: int) -> bool:
    """The peer has thrown away SACKed data: give it a moment, then time out (RFC 2018 8)."""
    if flag & FLAG_SACK_RENEGING and flag & FLAG_SND_UNA_ADVANCED:
        delay = max((tp.srtt_us >> 4), 10_000)
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, delay)
        return True
    return False


def _leave_recovery(net: TcpNet, tp: TcpSock) -> bool:
    """snd_una has reached high_seq; True: nothing more to do for this ACK."""
    if tp.ca_state == TCP_CA_CWR:
        if tp.snd_una != tp.high_seq:
            tcp_end_cwnd_reduction(net, tp)
            tcp_set_ca_state(net, tp, TCP_CA_OPEN)
    elif tp.ca_state == TCP_CA_RECOVERY:
        if not tp.sack_ok:
            tp.sacked_out = 0
        if tcp_try_undo_recovery(net, tp):
            return True
        tcp_end_cwnd_reduction(net, tp)
    return False


def tcp_fastretrans_alert(
    net: TcpNet, tp: TcpSock, prior_snd_una: int, num_dupack: int, flag: int
) -> tuple[int, int]:
    """An ACK that is not plain: (what to send, the ACK's flags)."""
    ece = bool(flag & FLAG_ECE)
    if not tp.packets_out and tp.sacked_out:
        tp.sacked_out = 0
    if ece:
        tp.prior_ssthresh = 0
    if tcp_check_sack_reneging(net, tp, flag):
        return REXMIT_NONE, flag & ~FLAG_SET_XMIT_TIMER
    if tp.ca_state == TCP_CA_OPEN:
        tp.retrans_stamp = 0
    elif not before(tp.snd_una, tp.high_seq) and _leave_recovery(net, tp):
        return REXMIT_NONE, flag
    state = tp.ca_state
    rexmit = REXMIT_LOST
    if state == TCP_CA_RECOVERY:
        if not flag & FLAG_SND_UNA_ADVANCED:
            if not tp.sack_ok:
                tcp_add_reno_sack(net, tp, num_dupack)
        elif tcp_try_undo_partial(net, tp, prior_snd_una):
            return REXMIT_NONE, flag
        if tcp_try_undo_dsack(net, tp):
            tcp_try_to_open(net, tp, flag)
        flag = tcp_identify_packet_loss(net, tp, flag)
        if tp.ca_state != TCP_CA_RECOVERY:
            if not tp.lost_out:
                return REXMIT_NONE, flag
            tcp_enter_recovery(net, tp, ece)
        return REXMIT_LOST, flag
    if state == TCP_CA_LOSS:
        rexmit = tcp_process_loss(net, tp, flag, num_dupack)
        if tp.ca_state != TCP_CA_LOSS:
            tcp_update_rto_time(net, tp)
        flag = tcp_identify_packet_loss(net, tp, flag)
        if not (tp.ca_state == TCP_CA_OPEN or flag & FLAG_LOST_RETRANS):
            return rexmit, flag
        # The reduction is undone, or even retransmissions are lost: Recovery may follow.
    if not tp.sack_ok:
        if flag & FLAG_SND_UNA_ADVANCED:
            tp.sacked_out = 0
        tcp_add_reno_sack(net, tp, num_dupack)
    if tp.ca_state <= TCP_CA_DISORDER:
        tcp_try_undo_dsack(net, tp)
    flag = tcp_identify_packet_loss(net, tp, flag)
    if not tp.lost_out:
        tcp_try_to_open(net, tp, flag)
        return (rexmit if state == TCP_CA_LOSS else REXMIT_NONE), flag
    if tp.mtup_probe_size and tp.ca_state < TCP_CA_CWR and tp.snd_una == tp.mtu_probe_seq_start:
        # The probe was too big, which is no sign of congestion (RFC 4821 7.5).
        tcp_mtup_probe_failed(net, tp)
        tp.snd_cwnd += 1
        tcp_simple_retransmit(net, tp)
        return REXMIT_NONE, flag
    tcp_enter_recovery(net, tp, ece)
    return REXMIT_LOST, flag


def tcp_process_tlp_ack(net: TcpNet, tp: TcpSock, ack: int, flag: int) -> None:
    """An ACK while a loss probe is out: did the probe repair a loss (RFC 8985 7.4)?"""
    if before(ack, tp.tlp_high_seq):
        return
    if not tp.tlp_retrans or flag & FLAG_DSACK_TLP:
        tp.tlp_high_seq = 0  # new data went, or both the probe and the original arrived
    elif after(ack, tp.tlp_high_seq):
        # Acknowledged without a D-SACK: the original was lost, which costs as a loss does.
        tcp_init_cwnd_reduction(net, tp)
        tcp_set_ca_state(net, tp, TCP_CA_CWR)
        tcp_end_cwnd_reduction(net, tp)
        tcp_try_keep_open(net, tp)
        net.mib["TcpExtTCPLossProbeRecovery"] += 1
    elif not flag & (FLAG_SND_UNA_ADVANCED | FLAG_NOT_DUP | FLAG_DATA_SACKED):
        tp.tlp_high_seq = 0
