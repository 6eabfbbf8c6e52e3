# SPDX-License-Identifier: MIT
"""Receiving (`net/ipv4/tcp_input.c`): a segment for a connection, by the connection's state.

Called by tcp_ipv4 with a segment whose checksum is right. An ordinary segment takes
`tcp_rcv_established`'s fast path; `tcp_rcv_state_process` is the rest of RFC 9293 3.10.7. A
function here takes the skb over (SKB_CONSUMED): the skb is consumed, dropped, queued or handed up.
Where the function returns a drop reason instead, its caller answers with RST and drops the skb.

RFC 9293 3.10.7; what makes a segment acceptable is in tcp_validate.
"""

from typing import Final

from skbus.core.dropreason import SKB_CONSUMED, SKB_NOT_DROPPED_YET, Taken, Verdict
from skbus.core.seq import MASK, after, before, between
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpHdr, TcpOptions, parse_aligned_timestamp, parse_options
from skbusd.tcp.const import (
    ACK,
    FIN,
    FLAG_DATA,
    FLAG_NO_CHALLENGE_ACK,
    FLAG_SLOWPATH,
    FLAG_UPDATE_TS_RECENT,
    ICSK_ACK_SCHED,
    ICSK_TIME_RETRANS,
    PSH,
    RCV_SHUTDOWN,
    RST,
    SEND_SHUTDOWN,
    SYN,
    TCP_CA_LOSS,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_DELACK_MAX,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_MIN_MSS,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
    TCP_TIMEWAIT_LEN,
    TCPOLEN_TSTAMP_ALIGNED,
    URG,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_reset_delack_timer,
    inet_csk_reset_keepalive_timer,
    inet_csk_reset_xmit_timer,
    sk_state_change,
    tcp_done,
    tcp_set_state,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_accecn import (
    TCPHDR_ACE,
    tcp_accecn_reflector_flags,
    tcp_accecn_third_ack,
    tcp_ecn_received_counters,
)
from skbusd.tcp.tcp_ack import (
    tcp_ack,
    tcp_send_challenge_ack,
    tcp_store_ts_recent,
)
from skbusd.tcp.tcp_autocork import tcp_should_autocork
from skbusd.tcp.tcp_cong import (
    tcp_init_congestion_control,
)
from skbusd.tcp.tcp_data import (
    __tcp_ack_snd_check,
    tcp_data_queue,
    tcp_enter_quickack_mode,
    tcp_event_data_recv,
    tcp_fin,
    tcp_init_buffer_space,
    tcp_queue_rcv,
    tcp_rcv_rtt_measure_ts,
    tcp_sndbuf_expand,
)
from skbusd.tcp.tcp_ecn import tcp_ecn_rcv_syn, tcp_ecn_rcv_synack
from skbusd.tcp.tcp_fastopen import reqsk_fastopen_remove
from skbusd.tcp.tcp_fastopen_synack import tcp_rcv_fastopen_synack
from skbusd.tcp.tcp_fastretrans import tcp_try_undo_recovery, tcp_update_rto_time
from skbusd.tcp.tcp_handshake import tcp_send_synack
from skbusd.tcp.tcp_memory import sk_rmem_schedule
from skbusd.tcp.tcp_minisocks import (
    REQ_CHILD,
    REQ_FASTOPEN_RST,
    REQ_RESET,
    tcp_check_req,
    tcp_synack_rtt_meas,
)
from skbusd.tcp.tcp_mtu_probe import tcp_mtup_init
from skbusd.tcp.tcp_output import (
    tcp_push_pending_frames,
    tcp_rearm_rto,
    tcp_send_ack,
    tcp_send_fin,
)
from skbusd.tcp.tcp_recovery import TCP_TIMEOUT_MIN_US
from skbusd.tcp.tcp_timewait import tcp_time_wait
from skbusd.tcp.tcp_validate import tcp_reset, tcp_validate_incoming
from skbusd.tcp.tcp_window import tcp_sync_mss

NO_OPTIONS: Final[tuple[tuple[int, int], ...]] = ()


def tcp_initialize_rcv_mss(tp: TcpSock) -> None:
    """A guess of the size of the peer's segments, until they come."""
    hint = min(tp.advmss, tp.mss_cache, tp.rcv_wnd // 2 or 1, 536)
    tp.ack_rcv_mss = max(hint, TCP_MIN_MSS)


def tcp_init_transfer(net: TcpNet, tp: TcpSock) -> None:
    """The handshake is done: windows, congestion control."""
    # RFC 6298 5.7, RFC 5681 3.1: a SYN that was lost costs the initial window.
    tp.snd_cwnd = 1 if tp.total_retrans > 1 and tp.undo_marker else 10
    tp.snd_cwnd_stamp = net.now
    tp.tcp_mstamp = net.now // 1000
    tcp_update_rto_time(net, tp)
    tcp_mtup_init(net, tp)
    tcp_init_congestion_control(net, tp)
    tcp_init_buffer_space(net, tp)
    _share(net, tp)


def _same(value: int, other: int) -> int:
    """The int object `other` where the two are equal: 28 bytes less for each idle connection."""
    return other if value == other else value


def _share(net: TcpNet, tp: TcpSock) -> None:
    """Let an idle connection keep no copy of a number that exists already. Equal numbers become one
    object, among connections (`net.share`) and within one (`_same`)."""
    share = net.share
    tp.mss_cache = share(tp.mss_cache)
    tp.mss_clamp = share(tp.mss_clamp)
    tp.advmss = share(tp.advmss)
    tp.pmtu = share(tp.pmtu)
    tp.mtup_search_high = share(tp.mtup_search_high)
    tp.mtup_search_low = share(tp.mtup_search_low)
    tp.ack_rcv_mss = share(tp.ack_rcv_mss)
    tp.rcv_wnd = share(tp.rcv_wnd)
    tp.rcv_ssthresh = share(tp.rcv_ssthresh)
    tp.rcvq_space_space = share(tp.rcvq_space_space)
    tp.window_clamp = share(tp.window_clamp)
    tp.snd_wnd = share(tp.snd_wnd)
    tp.max_window = share(tp.max_window)
    tp.sndbuf = share(tp.sndbuf)
    tp.sport = share(tp.sport)
    tp.rttvar_us = share(tp.rttvar_us)
    tp.mdev_max_us = share(tp.mdev_max_us)
    tp.tsoffset = share(tp.tsoffset)
    tp.ts_recent_stamp = share(tp.ts_recent_stamp)
    now = tp.tcp_mstamp
    tp.lsndtime = _same(tp.lsndtime, now)
    tp.rcvq_space_time = _same(tp.rcvq_space_time, now)
    tp.rcvq_space_seq = _same(tp.rcvq_space_seq, tp.rcv_nxt)
    tp.copied_seq = _same(tp.copied_seq, tp.rcv_nxt)
    xmit_cb = share(tp.xmit_cb)
    tp.xmit_cb = xmit_cb
    if xmit_cb.daddr:
        tp.saddr = xmit_cb.saddr
        if tp.daddr == xmit_cb.daddr:
            tp.daddr = xmit_cb.daddr
    tp.pseudo = share(tp.pseudo)


def keepalive_time_when(net: TcpNet, tp: TcpSock) -> int:
    """TCP_KEEPIDLE, ns."""
    seconds = tp.keepalive_time or net.sysctl["net.ipv4.tcp_keepalive_time"]
    return int(seconds) * 1_000_000_000


def tcp_fin_time(net: TcpNet, tp: TcpSock) -> int:
    """How long an orphan stays in FIN_WAIT2 (TCP_LINGER2), ns; at least 3.5 RTO."""
    seconds = tp.linger2 or net.sysctl["net.ipv4.tcp_fin_timeout"]
    rto = tp.icsk_rto * 1000
    return max(int(seconds) * 1_000_000_000, (rto << 2) - (rto >> 1))


def tcp_data_snd_check(net: TcpNet, tp: TcpSock) -> None:
    """An ACK came: send waiting data that may go, and grow the send buffer if need be."""
    if tp.write_queue and not (tp in net.autocorked and tcp_should_autocork(net, tp)):
        tcp_push_pending_frames(net, tp)
    if tp.snd_cwnd * tp.mss_cache * 2 > tp.sndbuf:
        tcp_sndbuf_expand(net, tp)


def tcp_ack_snd_check(net: TcpNet, tp: TcpSock) -> None:
    """Acknowledge received data, if that is scheduled and no data of ours did it."""
    if tp.ack_pending & ICSK_ACK_SCHED:
        __tcp_ack_snd_check(net, tp)


# ---- ESTABLISHED -----------------------------------------------------------------------------


def _parse(tp: TcpSock, skb: SkBuff, th: TcpHdr) -> TcpOptions:
    """The options of a segment that is not plain."""
    start = skb.data
    opt = parse_options(skb.head[start + 20 : start + th.doff], bool(th.flags & SYN))
    tp.rx_saw_tstamp = opt.saw_tstamp
    if opt.saw_tstamp:
        tp.rcv_tsval = opt.tsval
        tp.rcv_tsecr = opt.tsecr
    if tp.accecn is not None:
        tp.accecn.rx_option = opt.accecn
    return opt


def tcp_rcv_established(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> Taken:
    """ESTABLISHED. Header prediction (Van Jacobson's idea in RFC 1144) is enough for the next data
    in order, or a pure ACK, while the window stays."""
    seq, flags, doff = th.seq, th.flags, th.doff
    if net.tracing:
        net.trace("tcp_rcv_established", skb, sk=tp.number, seq=seq, ack=th.ack_seq, flags=th.flags)
    if (
        tp.pred_flags
        and flags & ~PSH == tp.pred_ack
        and seq == tp.rcv_nxt
        and th.window << tp.snd_wscale == tp.snd_wnd
        and between(th.ack_seq, tp.snd_una, tp.snd_nxt)
        and _fast_path(net, tp, skb, th, end_seq)
    ):
        return SKB_CONSUMED
    opt = _parse(tp, skb, th)
    if not flags & (ACK | RST | SYN):
        net.kfree_skb(skb, "TCP_FLAGS", sk=tp.number)
        return SKB_CONSUMED
    if not tcp_validate_incoming(net, tp, skb, th, end_seq, opt):
        return SKB_CONSUMED
    if tp.accecn is not None:
        tcp_ecn_received_counters(tp, tp.accecn, skb, skb.len - doff)
    segs = skb.gso_segs or 1
    reason = tcp_ack(
        net,
        tp,
        seq,
        end_seq,
        th.ack_seq,
        th.window,
        flags,
        opt.sacks,
        FLAG_SLOWPATH | FLAG_UPDATE_TS_RECENT,
        segs,
    )
    if reason and reason != "TCP_OLD_ACK":
        if reason == "TCP_ACK_UNSENT_DATA":
            tcp_send_challenge_ack(net, tp)
        net.kfree_skb(skb, reason, sk=tp.number)
        return SKB_CONSUMED
    tcp_rcv_rtt_measure_ts(net, tp, (end_seq - seq) & MASK)
    if flags & URG:
        tcp_urg(net, tp, th)
    if seq == end_seq:
        net.consume_skb(skb)
    else:
        skb.data += doff
        tp.data_segs_in += segs
        tcp_data_queue(net, tp, skb, seq, end_seq, flags)
    if tp.state != TCP_CLOSE:
        tcp_data_snd_check(net, tp)
        tcp_ack_snd_check(net, tp)
    return SKB_CONSUMED


def _fast_path(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> bool:
    """Header prediction; False (and nothing done) where the segment is unusual after all."""
    doff, seq, ack = th.doff, th.seq, th.ack_seq
    tp.rx_saw_tstamp = False
    if tp.tstamp_ok:
        ts = parse_aligned_timestamp(skb.head, skb.data + 20) if doff == 32 else None
        if ts is None or before(ts[0], tp.ts_recent):
            return False
        tp.rx_saw_tstamp = True
        tp.rcv_tsval, tp.rcv_tsecr = ts
    elif doff != 20:
        return False
    length = (end_seq - seq) & MASK
    if length and after(end_seq, tp.rcv_wup + tp.rcv_wnd):
        return False  # beyond the window
    if tp.rmem_alloc + length > tp.rmem_charged and not sk_rmem_schedule(net, tp, length):
        return False
    if tp.rx_saw_tstamp and tp.rcv_nxt == tp.rcv_wup:
        tcp_store_ts_recent(net, tp)
    acc = tp.accecn
    if acc is not None:
        acc.rx_option = None
        tcp_ecn_received_counters(tp, acc, skb, length)
    segs = skb.gso_segs or 1
    if not length:
        tcp_ack(net, tp, seq, end_seq, ack, th.window, th.flags, NO_OPTIONS, 0, segs)
        net.consume_skb(skb)
        tcp_data_snd_check(net, tp)
        if acc is not None:
            tcp_ack_snd_check(net, tp)
        return True
    tcp_rcv_rtt_measure_ts(net, tp, length)
    net.mib["TcpExtTCPHPHits"] += 1
    psh = th.flags & PSH
    skb.data += doff
    tp.data_segs_in += segs
    tcp_event_data_recv(net, tp, skb, length, psh)
    tcp_queue_rcv(net, tp, skb, length, psh)
    if ack != tp.snd_una:
        tcp_ack(net, tp, seq, end_seq, ack, th.window, th.flags, NO_OPTIONS, FLAG_DATA, segs)
        tcp_data_snd_check(net, tp)
        if not tp.ack_pending & ICSK_ACK_SCHED:
            return True
    else:
        tp.snd_wl1 = seq
    __tcp_ack_snd_check(net, tp)
    return True


def tcp_urg(net: TcpNet, tp: TcpSock, th: TcpHdr) -> None:
    """`tcp_check_urg`: find the urgent byte, unless it has come before. It is the byte before the
    one that the pointer names, or (`net.ipv4.tcp_stdurg`, RFC 6093 4) that one. The socket layer
    does the rest."""
    ptr = th.urg_ptr
    if ptr and not net.sysctl["net.ipv4.tcp_stdurg"]:
        ptr -= 1
    up = (th.seq + ptr) & MASK
    if before(up, tp.rcv_nxt):
        return
    if not tp.urg_notyet or after(up, tp.rcv_up):
        tp.rcv_up = up
        tp.urg_notyet = True


# ---- SYN_SENT --------------------------------------------------------------------------------


def _syn_options(net: TcpNet, tp: TcpSock, opt: TcpOptions) -> None:
    """Take the options to which the peer's SYN agreed (RFC 9293 3.7.1, RFC 7323, 2018)."""
    sysctl = net.sysctl
    mss = opt.mss or 536
    if tp.user_mss and tp.user_mss < mss:
        mss = tp.user_mss
    tp.mss_clamp = mss
    tp.wscale_ok = opt.wscale is not None and bool(sysctl["net.ipv4.tcp_window_scaling"])
    tp.sack_ok = opt.sack_ok and bool(sysctl["net.ipv4.tcp_sack"])
    tp.tstamp_ok = opt.saw_tstamp and bool(sysctl["net.ipv4.tcp_timestamps"])
    if tp.wscale_ok:
        tp.snd_wscale = opt.wscale or 0
    else:
        tp.snd_wscale = tp.rcv_wscale = 0
        tp.window_clamp = min(tp.window_clamp, 65535)
    if tp.tstamp_ok:
        tp.tcp_header_len = 20 + TCPOLEN_TSTAMP_ALIGNED
        tp.advmss -= TCPOLEN_TSTAMP_ALIGNED
        tcp_store_ts_recent(net, tp)
    else:
        tp.tcp_header_len = 20


def tcp_rcv_synsent_state_process(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr) -> Taken:
    """RFC 9293 3.10.7.3."""
    opt = _parse(tp, skb, th)
    flags, ack = th.flags, th.ack_seq
    if flags & ACK:
        if not after(ack, tp.snd_una) or after(ack, tp.snd_nxt):
            if not tp.icsk_retransmits:
                # The ACK may be from an older connection that is gone by now: try again.
                inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, TCP_TIMEOUT_MIN_US)
            if flags & RST:
                net.kfree_skb(skb, "TCP_INVALID_ACK_SEQUENCE", sk=tp.number)
                return SKB_CONSUMED
            return "TCP_INVALID_ACK_SEQUENCE"
        if opt.saw_tstamp and opt.tsecr:
            now = (net.now // 1_000_000 + tp.tsoffset) & MASK
            sent = (tp.retrans_stamp // 1000 + tp.tsoffset) & MASK
            if not between(opt.tsecr, sent, now):
                net.mib["TcpExtPAWSActive"] += 1
                return "TCP_RFC7323_PAWS"
        if flags & RST:
            tcp_reset(net, tp)
            net.kfree_skb(skb, "TCP_RESET", sk=tp.number)
            return SKB_CONSUMED
        if not flags & SYN:
            net.kfree_skb(skb, "TCP_FLAGS", sk=tp.number)
            return SKB_CONSUMED
        _synack_received(net, tp, skb, th, opt)
        return SKB_CONSUMED
    if flags & RST:
        net.kfree_skb(skb, "TCP_RESET", sk=tp.number)
        return SKB_CONSUMED
    if not flags & SYN:
        net.kfree_skb(skb, "TCP_FLAGS", sk=tp.number)
        return SKB_CONSUMED
    # Simultaneous open (RFC 9293 3.5, figure 8)
    tcp_set_state(net, tp, TCP_SYN_RECV)
    _syn_options(net, tp, opt)
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = (th.seq + 1) & MASK
    tp.snd_wnd = tp.max_window = th.window
    tp.snd_wl1 = th.seq
    tcp_ecn_rcv_syn(net, tp, flags, skb)
    tcp_sync_mss(net, tp, tp.pmtu)
    tcp_initialize_rcv_mss(tp)
    tcp_send_synack(net, tp)
    net.consume_skb(skb)
    return SKB_CONSUMED


def _synack_received(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, opt: TcpOptions) -> None:
    """Our SYN is acknowledged: the connection is established (`tcp_finish_connect`)."""
    tcp_ecn_rcv_synack(net, tp, th.flags, skb, opt.accecn)
    tp.snd_wl1 = th.seq
    _syn_options(net, tp, opt)
    tcp_ack(
        net, tp, th.seq, (th.seq + 1) & MASK, th.ack_seq, th.window, SYN | ACK, (), FLAG_SLOWPATH
    )
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = (th.seq + 1) & MASK
    tp.rcv_up = th.seq
    if th.flags & URG:
        tcp_urg(net, tp, th)
    tp.snd_wnd = th.window
    tp.max_window = max(tp.max_window, tp.snd_wnd)
    tcp_sync_mss(net, tp, tp.pmtu)
    tcp_initialize_rcv_mss(tp)
    tp.lsndtime = net.now // 1000
    tp.ack_lrcvtime = net.now
    tcp_init_transfer(net, tp)
    tp.pred_flags = tp.rcv_wnd > 0
    if tp.keepopen:
        inet_csk_reset_keepalive_timer(net, tp, keepalive_time_when(net, tp))
    # The user hears of the connection after the data and the FIN that came along, so that a poll
    # for it shows all at once.
    tcp_set_state(net, tp, TCP_ESTABLISHED, tell=False)
    if (tp.syn_fastopen or tp.syn_data) and tcp_rcv_fastopen_synack(net, tp, opt):
        sk_state_change(net, tp)
        net.consume_skb(skb)
        return
    length = skb.len - th.doff
    if length and tp.syn_fastopen:
        skb.data += th.doff
        tp.data_segs_in += 1
        tp.syn_data_acked = True
        tcp_queue_rcv(net, tp, skb, length, th.flags & PSH)
    else:
        net.consume_skb(skb)
    if th.flags & FIN and tp.syn_fastopen:
        tcp_fin(net, tp)
    else:
        sk_state_change(net, tp)
    if tp.accecn is not None:
        # A pure ACK, even if data waits: it tells how the SYN-ACK arrived (RFC 9768 3.2.2.1).
        tcp_send_ack(net, tp, tcp_accecn_reflector_flags(tp.accecn.syn_ect_rcv))
        tcp_push_pending_frames(net, tp)
    elif tp.write_queue or tp.ack_pingpong or tp.write_pending:
        # Data of ours is about to carry the ACK.
        tp.ack_lrcvtime = net.now
        tcp_enter_quickack_mode(tp, 16)
        inet_csk_reset_delack_timer(net, tp, net.now + TCP_DELACK_MAX)
        tcp_push_pending_frames(net, tp)
        if length and (tp.rcv_nxt - tp.rcv_wup) & MASK > tp.ack_rcv_mss:
            # Differs from Linux, which waits until the application reads; we do not hear of that.
            tcp_send_ack(net, tp)
    else:
        tcp_send_ack(net, tp)


# ---- the other states ------------------------------------------------------------------------


def tcp_rcv_state_process(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> Taken:
    """All states but ESTABLISHED, LISTEN and TIME_WAIT (RFC 9293 3.10.7.4)."""
    if net.tracing:
        net.trace("tcp_rcv_state_process", skb, sk=tp.number, state=tp.state, flags=th.flags)
    if tp.state == TCP_CLOSE:
        net.kfree_skb(skb, "TCP_CLOSE", sk=tp.number)
        return SKB_CONSUMED
    if tp.state == TCP_SYN_SENT:
        return tcp_rcv_synsent_state_process(net, tp, skb, th)
    opt = _parse(tp, skb, th)
    flags, seq = th.flags, th.seq
    if tp.fastopen_rsk is not None:
        verdict = _fastopen_check_req(net, tp, skb, th, end_seq, opt)
        if verdict:
            return verdict
    if not flags & (ACK | RST | SYN):
        net.kfree_skb(skb, "TCP_FLAGS", sk=tp.number)
        return SKB_CONSUMED
    if not tcp_validate_incoming(net, tp, skb, th, end_seq, opt):
        return SKB_CONSUMED
    if not flags & ACK:
        net.kfree_skb(skb, "TCP_FLAGS", sk=tp.number)
        return SKB_CONSUMED
    acc = tp.accecn
    if acc is not None:
        tcp_ecn_received_counters(tp, acc, skb, skb.len - th.doff)
        if tp.state == TCP_SYN_RECV and not flags & SYN:
            tcp_accecn_third_ack(net, tp, acc, flags, seq != end_seq, bool(opt.sacks))
    reason = tcp_ack(
        net,
        tp,
        seq,
        end_seq,
        th.ack_seq,
        th.window,
        flags & TCPHDR_ACE,
        opt.sacks,
        FLAG_SLOWPATH | FLAG_UPDATE_TS_RECENT | FLAG_NO_CHALLENGE_ACK,
        skb.gso_segs or 1,
    )
    if reason:
        if tp.state == TCP_SYN_RECV:
            return "TCP_INVALID_ACK_SEQUENCE"
        if reason != "TCP_OLD_ACK":
            tcp_send_challenge_ack(net, tp)
            net.kfree_skb(skb, reason, sk=tp.number)
            return SKB_CONSUMED
    verdict = _ack_of_state(net, tp, skb, th, end_seq)
    if verdict:
        return verdict
    if flags & URG:
        tcp_urg(net, tp, th)
    return _text_of_state(net, tp, skb, th, end_seq)


def _fastopen_check_req(
    net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int, opt: TcpOptions
) -> Verdict:
    """A segment for a child that Fast Open made during its handshake. A reason as the result:
    answer with RST and drop it."""
    req = tp.fastopen_rsk
    assert req is not None
    result = tcp_check_req(net, tp, req, th, end_seq, opt, fastopen=True)
    if result == REQ_CHILD:
        return SKB_NOT_DROPPED_YET
    if result == REQ_RESET:
        return "TCP_INVALID_SYN"
    if result == REQ_FASTOPEN_RST:
        reqsk_fastopen_remove(net, tp, True)
        tcp_reset(net, tp)
    net.kfree_skb(skb, "TCP_RESET" if th.flags & RST else "TCP_FASTOPEN", sk=tp.number)
    return SKB_CONSUMED


def tcp_rcv_synrecv_state_fastopen(net: TcpNet, tp: TcpSock) -> None:
    """The handshake is complete: from now on the write timer is for data alone."""
    if tp.ca_state == TCP_CA_LOSS and not tp.packets_out:
        tcp_try_undo_recovery(net, tp)
    tcp_update_rto_time(net, tp)
    tp.retrans_stamp = 0
    tp.icsk_retransmits = 0
    reqsk_fastopen_remove(net, tp, False)
    tcp_rearm_rto(net, tp)


def _ack_of_state(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> Verdict:
    """RFC 9293 3.10.7.4, fifth: the effect of the ACK on the state."""
    state = tp.state
    fin = th.flags & FIN
    if state == TCP_FIN_WAIT1 and tp.fastopen_rsk is not None:
        tcp_rcv_synrecv_state_fastopen(net, tp)
    if state == TCP_SYN_RECV:
        _established_passive(net, tp, th)
    elif state == TCP_FIN_WAIT1 and tp.snd_una == tp.write_seq:
        tcp_set_state(net, tp, TCP_FIN_WAIT2)
        tp.shutdown |= SEND_SHUTDOWN
        if not tp.dead:
            return SKB_NOT_DROPPED_YET
        data_after = end_seq != th.seq and after(end_seq - fin, tp.rcv_nxt)
        if tp.linger2 < 0 or data_after:
            net.mib["TcpExtTCPAbortOnData"] += 1
            tcp_done(net, tp)
            if data_after:
                return "TCP_CLOSE"
            net.consume_skb(skb)
            return SKB_CONSUMED
        timeo = tcp_fin_time(net, tp)
        if timeo > TCP_TIMEWAIT_LEN:
            inet_csk_reset_keepalive_timer(net, tp, timeo - TCP_TIMEWAIT_LEN)
        elif fin:
            inet_csk_reset_keepalive_timer(net, tp, timeo)
        else:
            tcp_time_wait(net, tp, TCP_FIN_WAIT2, timeo)
            net.consume_skb(skb)
            return SKB_CONSUMED
    elif state == TCP_CLOSING and tp.snd_una == tp.write_seq:
        tcp_time_wait(net, tp, TCP_TIME_WAIT, 0)
        net.consume_skb(skb)
        return SKB_CONSUMED
    elif state == TCP_LAST_ACK and tp.snd_una == tp.write_seq:
        tcp_done(net, tp)
        net.consume_skb(skb)
        return SKB_CONSUMED
    return SKB_NOT_DROPPED_YET


def _established_passive(net: TcpNet, tp: TcpSock, th: TcpHdr) -> None:
    """SYN_RECV and the ACK of our SYN: established."""
    req = tp.fastopen_rsk
    tp.delivered += 1  # the SYN-ACK, which tcp_ack does not see
    if req is not None:
        if not tp.srtt_us:
            tcp_synack_rtt_meas(net, tp, req)
        tcp_rcv_synrecv_state_fastopen(net, tp)
    else:
        tp.copied_seq = tp.rcv_nxt
    tp.snd_una = th.ack_seq
    tp.snd_wnd = th.window << tp.snd_wscale
    tp.max_window = max(tp.max_window, tp.snd_wnd)
    tp.snd_wl1 = th.seq
    tcp_sync_mss(net, tp, tp.pmtu)
    if req is None:
        tcp_init_transfer(net, tp)
    tp.lsndtime = net.now // 1000
    tcp_initialize_rcv_mss(tp)
    tp.pred_flags = tp.rcv_wnd > 0
    # The socket layer hears of a child in an accept queue by no other message.
    tcp_set_state(net, tp, TCP_ESTABLISHED, tell=not tp.parent)
    if tp.keepopen:
        inet_csk_reset_keepalive_timer(net, tp, keepalive_time_when(net, tp))
    if tp.shutdown & SEND_SHUTDOWN and not tp.dead:
        tcp_set_state(net, tp, TCP_FIN_WAIT1)
        tcp_send_fin(net, tp)


def _text_of_state(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> Taken:
    """RFC 9293 3.10.7.4, seventh and eighth: the segment's text and FIN."""
    state = tp.state
    seq, flags = th.seq, th.flags
    queue = True
    if state in (TCP_CLOSE_WAIT, TCP_CLOSING, TCP_LAST_ACK):
        queue = before(seq, tp.rcv_nxt)
    if queue and state != TCP_ESTABLISHED and tp.shutdown & RCV_SHUTDOWN:
        # RFC 9293 3.6.1 (a half close that is not one): the application has gone. Or the peer sends
        # data behind its own FIN.
        fin = flags & FIN
        if end_seq != seq and after(end_seq - fin, tp.rcv_nxt):
            net.mib["TcpExtTCPAbortOnData"] += 1
            tcp_reset(net, tp)
            return "TCP_CLOSE"
    if queue:
        if seq == end_seq:
            net.consume_skb(skb)
        else:
            skb.data += th.doff
            tp.data_segs_in += skb.gso_segs or 1
            tcp_data_queue(net, tp, skb, seq, end_seq, flags)
    elif seq == end_seq:
        net.consume_skb(skb)
    else:
        net.kfree_skb(skb, "TCP_OLD_DATA", sk=tp.number)
    if tp.state != TCP_CLOSE:
        tcp_data_snd_check(net, tp)
        tcp_ack_snd_check(net, tp)
    return SKB_CONSUMED
