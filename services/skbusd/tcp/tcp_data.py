# SPDX-License-Identifier: MIT
"""Incoming data (`net/ipv4/tcp_input.c`, from `tcp_data_queue` on): in order it goes up at once,
out of order it waits. This module decides when to acknowledge, and how the window grows.

Called by tcp_input. Calls the socket layer: `sk_data_ready`, `tcp_fin`. The bytes are handed up
before the ACK for them is queued. RFC 9293 3.10.7.4, RFC 2018, 2883, RFC 5681 4.2.
"""

from typing import Final

from skbus.core.abi import DATA_PSH, DATA_TELL_READ, DATA_URG, DATA_URG_SHIFT, DataReadyCb, TcpFin
from skbus.core.dropreason import SkbDropReason
from skbus.core.interfaces import SkCallbacks
from skbus.core.seq import MASK, after, before, seq_ahead
from skbus.core.skbuff import SkBuff
from skbus.core.timer import Timer
from skbusd.tcp.const import (
    FIN,
    ICSK_ACK_NOW,
    ICSK_ACK_PUSHED,
    ICSK_ACK_PUSHED2,
    ICSK_ACK_SCHED,
    PSH,
    RCV_SHUTDOWN,
    SOCK_RCVBUF_LOCK,
    SOCK_SNDBUF_LOCK,
    TCP_ATO_MIN,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_MAX_QUICKACKS,
    TCP_MIN_MSS,
    TCP_MSS_DEFAULT,
    TCP_NUM_SACKS,
    TCP_OFO_MAX_SKBS,
    TCP_SYN_RECV,
    TCP_TIME_WAIT,
    URG,
)
from skbusd.tcp.inet_connection_sock import tcp_set_state
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import OfoSkb, TcpSock
from skbusd.tcp.tcp_accecn_option import tcp_accecn_dup_data
from skbusd.tcp.tcp_ecn import tcp_ecn_accept_cwr, tcp_ecn_check_ce
from skbusd.tcp.tcp_memory import sk_forced_rmem_schedule, tcp_try_rmem_schedule
from skbusd.tcp.tcp_output import tcp_send_ack, tcp_send_delayed_ack
from skbusd.tcp.tcp_timewait import tcp_time_wait
from skbusd.tcp.tcp_window import (
    __tcp_select_window,
    tcp_full_space,
    tcp_receive_window,
    tcp_scaling_ratio,
    tcp_space,
    tcp_space_from_win,
)

RCV_TELL: Final = 16384
"""Bytes that may have been read without our knowledge: up to them the receive queue counts as
empty."""
_new: Final = tuple.__new__
"""Makes a NamedTuple in half the time, without the `__new__` that Python writes for it."""
HALF_SLOT: Final = 32768
UNTOLD: Final = 32768
"""Below this the socket layer may not have told yet that the application has read."""

TCP_FASTRETRANS_THRESH: Final = 3
TCP_SACK_BLOCKS_EXPECTED: Final = 2
"""Blocks that an ACK is likely to have room for, with timestamps and a D-SACK."""

# ---- when to acknowledge ---------------------------------------------------------------------


def tcp_enter_quickack_mode(tp: TcpSock, max_quickacks: int) -> None:
    """Acknowledge the next segments at once."""
    _incr_quickack(tp, max_quickacks)
    tp.ack_pingpong = 0
    tp.ack_ato = TCP_ATO_MIN


def _incr_quickack(tp: TcpSock, max_quickacks: int) -> None:
    quick = tp.rcv_wnd // (2 * tp.ack_rcv_mss) or 2
    quick = min(quick, max_quickacks)
    if quick > tp.ack_quick:
        tp.ack_quick = quick


def __tcp_ack_snd_check(net: TcpNet, tp: TcpSock) -> None:
    """Acknowledge now, or later (RFC 9293 3.8.6.3, RFC 5681 4.2): every second full segment, and at
    once out of order or in quick-ACK mode.

    Differs from Linux: where little is unread, an ACK does not wait for the application to read.
    The socket layer does not tell us of a few bytes.
    """
    pending = tp.ack_pending
    if pending & ICSK_ACK_NOW or (tp.ack_quick and not tp.ack_pingpong):
        tcp_send_ack(net, tp)
        return
    unacked = (tp.rcv_nxt - tp.rcv_wup) & MASK
    full = unacked > tp.ack_rcv_mss and (
        tp.rmem_alloc < UNTOLD or __tcp_select_window(net, tp) >= tp.rcv_wnd
    )
    if full:
        tcp_send_ack(net, tp)
    elif tp.ofo:
        _ack_of_hole(net, tp)
    else:
        tcp_send_delayed_ack(net, tp)


def _ack_of_hole(net: TcpNet, tp: TcpSock) -> None:
    """Acknowledge out-of-order data at once (RFC 5681 4.2), until three duplicate ACKs have told
    the sender of the loss. Then one ACK stands for all within 5 % of the round trip, or within
    `net.ipv4.tcp_comp_sack_delay_ns` if that is less."""
    sysctl = net.sysctl
    if not tp.sack_ok or tp.compressed_ack >= sysctl["net.ipv4.tcp_comp_sack_nr"]:
        tcp_send_ack(net, tp)
        return
    if tp.compressed_ack_rcv_nxt != tp.rcv_nxt:
        tp.compressed_ack_rcv_nxt = tp.rcv_nxt
        tp.dup_ack_counter = 0
    if tp.dup_ack_counter < TCP_FASTRETRANS_THRESH:
        tp.dup_ack_counter += 1
        tcp_send_ack(net, tp)
        return
    tp.compressed_ack += 1
    timer = tp.compressed_ack_timer
    if timer is None:
        timer = tp.compressed_ack_timer = Timer(net.tcp_compressed_ack_kick, tp.number)
    elif timer.expires >= 0:
        return
    rtt = tp.rcv_rtt_us
    if tp.srtt_us and tp.srtt_us < rtt:
        rtt = tp.srtt_us
    delay = min(sysctl["net.ipv4.tcp_comp_sack_delay_ns"], rtt * (1000 >> 3) // 20)
    net.mod_timer(timer, net.now + delay)


def tcp_measure_rcv_mss(tp: TcpSock, skb: SkBuff, length: int, psh: int) -> None:
    """Estimate the size of the peer's full segments, to count them. It also shows a small last
    segment, or a full one that ends a write. psh: PSH, or another flag that marks an end."""
    size = skb.gso_size or length
    if size >= tp.ack_rcv_mss:
        tp.ack_rcv_mss = min(size, tp.advmss) or size
        tp.ack_last_seg_size = 0
        if psh and (length == size or length % size):
            tp.ack_pending |= ICSK_ACK_PUSHED
        return
    last = tp.ack_last_seg_size
    tp.ack_last_seg_size = 0
    header = tp.tcp_header_len - 20
    if size + header >= TCP_MSS_DEFAULT or (size + header >= TCP_MIN_MSS and not psh):
        tp.ack_last_seg_size = size
        if size == last:
            tp.ack_rcv_mss = size
            return
    if tp.ack_pending & ICSK_ACK_PUSHED:
        tp.ack_pending |= ICSK_ACK_PUSHED2
    tp.ack_pending |= ICSK_ACK_PUSHED


def tcp_event_data_recv(net: TcpNet, tp: TcpSock, skb: SkBuff, length: int, psh: int) -> None:
    """Data came: adapt the delayed-ACK time to the pace of arrival, and the window to the data."""
    tp.ack_pending |= ICSK_ACK_SCHED
    tcp_measure_rcv_mss(tp, skb, length, psh)
    if length > HALF_SLOT and not tp.scaling_ratio:
        tcp_scaling_ratio(net, tp, length, len(skb.frags))
    tcp_rcv_rtt_measure(net, tp)
    if tp.ecn_flags and tcp_ecn_check_ce(net, tp, skb):
        tcp_enter_quickack_mode(tp, 2)
    now = net.now
    if not tp.ack_ato:
        _incr_quickack(tp, TCP_MAX_QUICKACKS)
        tp.ack_ato = TCP_ATO_MIN
    else:
        m = now - tp.ack_lrcvtime
        if m <= TCP_ATO_MIN >> 1:
            tp.ack_ato = (tp.ack_ato >> 1) + (TCP_ATO_MIN >> 1)
        elif m < tp.ack_ato:
            tp.ack_ato = min((tp.ack_ato >> 1) + m, tp.icsk_rto * 1000)
        elif m > tp.icsk_rto * 1000:
            _incr_quickack(tp, TCP_MAX_QUICKACKS)
    tp.ack_lrcvtime = now
    if length >= 128 and tp.rcv_ssthresh < tp.window_clamp:
        tcp_grow_window(net, tp, length)


# ---- the window ------------------------------------------------------------------------------


def tcp_grow_window(net: TcpNet, tp: TcpSock, length: int) -> None:
    """Offer more as data comes, up to the clamp."""
    room = min(tp.window_clamp, tcp_space(net, tp)) - tp.rcv_ssthresh
    if room > 0 and not net.tcp_memory_pressure:
        tp.rcv_ssthresh += min(room, max(2 * tp.advmss, 2 * length))
        tp.ack_quick |= 1  # the sender is to hear of it


def tcp_rcv_rtt_update(tp: TcpSock, sample: int, window_dependent: bool) -> None:
    """The receiver's view of the round-trip time, times 8; a sample by the window is only an upper
    bound."""
    old = tp.rcv_rtt_us
    if not old:
        tp.rcv_rtt_us = sample << 3
    elif window_dependent:
        tp.rcv_rtt_us = min(old, sample << 3)
    else:
        tp.rcv_rtt_us = old + sample - (old >> 3)


def tcp_rcv_rtt_measure(net: TcpNet, tp: TcpSock) -> None:
    """A window's worth of data took this long."""
    now = net.now // 1000
    if tp.rcv_rtt_time:
        if before(tp.rcv_nxt, tp.rcv_rtt_seq):
            return
        tcp_rcv_rtt_update(tp, max(now - tp.rcv_rtt_time, 1), True)
    tp.rcv_rtt_seq = (tp.rcv_nxt + tp.rcv_wnd) & MASK
    tp.rcv_rtt_time = now


def tcp_rcv_rtt_measure_ts(net: TcpNet, tp: TcpSock, length: int) -> None:
    """The peer echoes our timestamp: a sample, once per value."""
    tsecr = tp.rcv_tsecr
    if tsecr == tp.rcv_rtt_last_tsecr:
        return
    tp.rcv_rtt_last_tsecr = tsecr
    if length >= tp.ack_rcv_mss:
        delta = (net.now // 1_000_000 + tp.tsoffset - tsecr) & MASK
        if delta < 2_000_000:
            tcp_rcv_rtt_update(tp, max(delta, 1) * 1000, False)


def tcp_rcv_space_adjust(net: TcpNet, tp: TcpSock) -> None:
    """The application took data: if more than a window per round trip, the buffer was the limit,
    and grows (`net.ipv4.tcp_moderate_rcvbuf`, up to tcp_rmem[2])."""
    now = net.now // 1000
    if not tp.rcv_rtt_us or now - tp.rcvq_space_time < tp.rcv_rtt_us >> 3:
        return
    copied = (tp.copied_seq - tp.rcvq_space_seq) & MASK
    if copied > tp.rcvq_space_space:
        if net.sysctl["net.ipv4.tcp_moderate_rcvbuf"] and not tp.userlocks & SOCK_RCVBUF_LOCK:
            win = 2 * copied + 16 * tp.advmss
            old = max(tp.rcvq_space_space, 1)
            win += 2 * (win * (copied - old) // old)
            rcvbuf = min(tcp_space_from_win(net, tp, win), net.sysctl["net.ipv4.tcp_rmem"][2])
            if rcvbuf > tp.rcvbuf:
                tp.rcvbuf = rcvbuf
                tp.window_clamp = tcp_full_space(net, tp)
        tp.rcvq_space_space = copied
    tp.rcvq_space_seq = tp.copied_seq
    tp.rcvq_space_time = now


def tcp_init_buffer_space(net: TcpNet, tp: TcpSock) -> None:
    """The windows of a new connection."""
    tcp_sndbuf_expand(net, tp)
    tp.rcvq_space_time = net.now // 1000
    tp.rcvq_space_seq = tp.copied_seq
    maxwin = tcp_full_space(net, tp)
    app_win = net.sysctl["net.ipv4.tcp_app_win"]
    if tp.window_clamp >= maxwin:
        tp.window_clamp = maxwin
        if app_win and maxwin > 4 * tp.advmss:
            tp.window_clamp = max(maxwin - (maxwin >> app_win), 4 * tp.advmss)
    if app_win and tp.window_clamp > 2 * tp.advmss and tp.window_clamp + tp.advmss > maxwin:
        tp.window_clamp = max(2 * tp.advmss, maxwin - tp.advmss)
    tp.rcv_ssthresh = min(tp.rcv_ssthresh, tp.window_clamp)
    tp.rcvq_space_space = min(tp.rcv_ssthresh, tp.rcv_wnd, 10 * tp.advmss)


def tcp_sndbuf_expand(net: TcpNet, tp: TcpSock) -> None:
    """Make the send buffer fit for twice the congestion window; the socket layer hears of it."""
    if tp.userlocks & SOCK_SNDBUF_LOCK or net.tcp_memory_pressure:
        return
    segs = max(10, tp.snd_cwnd, tp.reordering + 1) * net.cong[tp.ca_name].sndbuf_factor
    want = min(segs * (max(tp.mss_clamp, tp.mss_cache) + 768), net.sysctl["net.ipv4.tcp_wmem"][2])
    if want > tp.sndbuf:
        tp.sndbuf = want
        net.write_space[tp.number] = tp


# ---- SACK and D-SACK to be sent --------------------------------------------------------------


def tcp_dsack_set(net: TcpNet, tp: TcpSock, seq: int, end_seq: int) -> None:
    """The next ACK reports a duplicate (RFC 2883)."""
    if tp.sack_ok and net.sysctl["net.ipv4.tcp_dsack"]:
        old = before(seq, tp.rcv_nxt)
        net.mib["TcpExtTCPDSACKOldSent" if old else "TcpExtTCPDSACKOfoSent"] += 1
        tp.duplicate_sack = (seq, end_seq)


def tcp_dsack_extend(net: TcpNet, tp: TcpSock, seq: int, end_seq: int) -> None:
    """One more duplicate before the ACK has gone."""
    if tp.duplicate_sack is None:
        tcp_dsack_set(net, tp, seq, end_seq)
        return
    start, end = tp.duplicate_sack
    if not after(seq, end) and not after(start, end_seq):
        if before(seq, start):
            start = seq
        if not before(end_seq, end):
            end = end_seq
        tp.duplicate_sack = (start, end)


def tcp_send_dupack(net: TcpNet, tp: TcpSock, seq: int, end_seq: int) -> None:
    """Answer something old at once, with a D-SACK."""
    if end_seq != seq and before(seq, tp.rcv_nxt):
        net.mib["TcpExtDelayedACKLost"] += 1
        tcp_enter_quickack_mode(tp, TCP_MAX_QUICKACKS)
        if tp.accecn is not None:
            tcp_accecn_dup_data(tp.accecn, seq)
        if not before(end_seq, tp.rcv_nxt):
            end_seq = tp.rcv_nxt
        tcp_dsack_set(net, tp, seq, end_seq)
    tcp_send_ack(net, tp)


def tcp_sack_new_ofo_skb(net: TcpNet, tp: TcpSock, seq: int, end_seq: int) -> None:
    """Out-of-order data came: its block is the first of the next ACK (RFC 2018 4)."""
    kept = []
    at = len(tp.selective_acks)
    for i, (start, end) in enumerate(tp.selective_acks):
        if not before(end, seq) and not before(end_seq, start):
            at = min(at, i)
            if before(start, seq):
                seq = start
            if not before(end, end_seq):
                end_seq = end
        else:
            kept.append((start, end))
    if tp.compressed_ack and at >= TCP_SACK_BLOCKS_EXPECTED:
        tcp_sack_compress_send_ack(net, tp)  # or the sender might never hear of the oldest
    tp.selective_acks = ((seq, end_seq), *kept[: TCP_NUM_SACKS - 1])


def tcp_sack_compress_send_ack(net: TcpNet, tp: TcpSock) -> None:
    """Send the ACK for all compressed ones now."""
    tp.compressed_ack -= 1  # one of them does go
    tcp_send_ack(net, tp)


def tcp_sack_remove(tp: TcpSock) -> None:
    """rcv_nxt has moved: blocks below it are no news."""
    if not tp.ofo:
        tp.selective_acks = ()
        return
    rcv_nxt = tp.rcv_nxt
    tp.selective_acks = tuple([b for b in tp.selective_acks if after(b[0], rcv_nxt)])


# ---- the queues ------------------------------------------------------------------------------


def tcp_queue_rcv(net: TcpNet, tp: TcpSock, skb: SkBuff, length: int, psh: int) -> None:
    """Hand an skb in order up to the socket layer; skb.data is at the payload, not empty."""
    flags = DATA_PSH if psh else 0
    if tp.urg_notyet:
        at = (tp.rcv_up - tp.rcv_nxt) & MASK
        if at < length:
            flags |= DATA_URG | at << DATA_URG_SHIFT
        tp.urg_notyet = not before(tp.rcv_up, tp.rcv_nxt + length)
    pending = tp.ack_pending
    if pending & ICSK_ACK_PUSHED and (
        pending & ICSK_ACK_PUSHED2 if tp.ack_pingpong else not tp.ack_quick
    ):
        flags |= DATA_TELL_READ  # tcp_cleanup_rbuf acknowledges it
    peer, us = tp.daddr, tp.saddr
    cb = _new(
        DataReadyCb,
        (tp.number, peer, tp.dport, us, tp.sport, skb.skb_iif, flags, tp.rcv_nxt, b""),
    )
    tp.rcv_nxt = (tp.rcv_nxt + length) & MASK
    tp.rmem_alloc += length
    tp.bytes_received += length
    if net.tracing:
        net.trace("tcp_queue_rcv", skb, sk=tp.number, len=length, rcv_nxt=tp.rcv_nxt)
        net.trace("sk_data_ready", skb, sk=tp.number, len=length)
    net.call_skb("socket", SkCallbacks.sk_data_ready, skb, cb)


def tcp_data_queue(
    net: TcpNet, tp: TcpSock, skb: SkBuff, seq: int, end_seq: int, flags: int
) -> None:
    """A segment's data and FIN, skb.data at the payload; takes the skb."""
    # In one piece, above 60 lines: each function more would cost every segment a call.
    if seq == end_seq:
        net.consume_skb(skb)
        return
    if net.tracing:
        net.trace("tcp_data_queue", skb, sk=tp.number, seq=seq, rcv_nxt=tp.rcv_nxt)
    rcv_nxt = tp.rcv_nxt
    fin = flags & FIN
    tcp_ecn_accept_cwr(tp, flags, True)
    tp.duplicate_sack = None
    if seq != rcv_nxt:
        if not before(rcv_nxt, end_seq):
            net.mib["TcpExtDelayedACKLost"] += 1
            tcp_dsack_set(net, tp, seq, end_seq)
            _out_of_window(net, tp, skb, "TCP_OLD_DATA")
            return
        window = tcp_receive_window(tp)
        if after(seq, rcv_nxt):
            if not before(seq, rcv_nxt + window):
                _out_of_window(net, tp, skb, "TCP_OVERWINDOW")
            else:
                tcp_data_queue_ofo(net, tp, skb, seq, end_seq, flags)
            return
        tcp_dsack_set(net, tp, seq, rcv_nxt)
        if not window:
            net.mib["TcpExtTCPZeroWindowDrop"] += 1
            _out_of_window(net, tp, skb, "TCP_ZEROWINDOW")
            return
        skb.eat((rcv_nxt - seq) & MASK)
    elif not tcp_receive_window(tp):
        if end_seq != (seq + fin) & MASK:
            net.mib["TcpExtTCPZeroWindowDrop"] += 1
            _out_of_window(net, tp, skb, "TCP_ZEROWINDOW")
            return
        tp.ack_pending |= ICSK_ACK_NOW  # a FIN alone; the peer is told that there is no room
    length = ((end_seq - rcv_nxt) & MASK) - fin
    if length and tp.rmem_alloc + tp.ofo_bytes + length > tp.rmem_charged:
        if tp.rmem_alloc < RCV_TELL:
            sk_forced_rmem_schedule(net, tp, length)
        elif not tcp_try_rmem_schedule(net, tp, length):
            net.mib["TcpExtTCPRcvQDrop"] += 1
            _out_of_window(net, tp, skb, "PROTO_MEM")
            return
    if length:
        size = (end_seq - seq - fin) & MASK  # as it came
        tcp_event_data_recv(net, tp, skb, size, flags & (PSH | FIN | URG))
        tcp_queue_rcv(net, tp, skb, length, flags & PSH)
    else:
        net.consume_skb(skb)
    if fin:
        tcp_fin(net, tp)
    if tp.ofo:
        tcp_ofo_queue(net, tp)
        if not tp.ofo:
            tp.ack_pending |= ICSK_ACK_NOW  # RFC 5681 4.2: the hole is filled
    if tp.selective_acks:
        tcp_sack_remove(tp)
    tp.pred_flags = not tp.ofo and tp.rcv_wnd > 0


def _out_of_window(net: TcpNet, tp: TcpSock, skb: SkBuff, reason: SkbDropReason) -> None:
    tcp_enter_quickack_mode(tp, TCP_MAX_QUICKACKS)
    tp.ack_pending |= ICSK_ACK_SCHED
    net.kfree_skb(skb, reason, sk=tp.number)


def _ofo_index(tp: TcpSock, seq: int) -> int:
    """Where a segment that begins at seq belongs: behind those that begin before it."""
    queue = tp.ofo
    if not queue or before(queue[-1].seq, seq):
        return len(queue)
    low, high = 0, len(queue)
    while low < high:
        mid = (low + high) >> 1
        if before(queue[mid].seq, seq):
            low = mid + 1
        else:
            high = mid
    return low


def tcp_data_queue_ofo(
    net: TcpNet, tp: TcpSock, skb: SkBuff, seq: int, end_seq: int, flags: int
) -> None:
    """Keep out-of-order data, without bytes that are there already, until the hole is filled."""
    # In one piece: the overlaps before and behind change the same four numbers.
    mib = net.mib
    size = (end_seq - seq - (flags & FIN)) & MASK
    if tp.rmem_alloc + tp.ofo_bytes + size > tp.rmem_charged and not tcp_try_rmem_schedule(
        net, tp, size
    ):
        mib["TcpExtTCPOFODrop"] += 1
        net.kfree_skb(skb, "PROTO_MEM", sk=tp.number)
        return
    if tp.ecn_flags and tcp_ecn_check_ce(net, tp, skb):
        tcp_enter_quickack_mode(tp, 2)
    tcp_measure_rcv_mss(tp, skb, size, flags & (PSH | FIN | URG))
    tp.pred_flags = False
    tp.ack_pending |= ICSK_ACK_SCHED
    tp.rcv_ooopack += max(skb.gso_segs, 1)
    mib["TcpExtTCPOFOQueue"] += 1
    queue = tp.ofo
    start, end = seq, end_seq
    fin = bool(flags & FIN)
    index = _ofo_index(tp, seq)
    if index:
        prev = queue[index - 1]
        overlap = seq_ahead(prev.end_seq, seq)
        if overlap:
            if not before(prev.end_seq, end_seq):
                _ofo_duplicate(net, tp, skb, seq, end_seq)
                return
            tcp_dsack_set(net, tp, seq, prev.end_seq)
            skb.eat(overlap)
            seq = prev.end_seq
    while index < len(queue):
        later = queue[index]
        if not after(end_seq, later.seq):
            break
        if not before(later.end_seq, end_seq) and later.seq == seq == start:
            _ofo_duplicate(net, tp, skb, seq, end_seq)
            return
        if after(later.end_seq, end_seq):
            tcp_dsack_extend(net, tp, later.seq, end_seq)
            end_seq = later.seq
            fin = False
            skb.trim((end_seq - seq) & MASK)
            break
        tcp_dsack_extend(net, tp, later.seq, later.end_seq)
        mib["TcpExtTCPOFOMerge"] += 1
        _ofo_remove(net, tp, index)
        net.kfree_skb(later.skb, "TCP_OFOMERGE", sk=tp.number)
    if seq == end_seq:  # two that lie side by side have all of it
        mib["TcpExtTCPOFOMerge"] += 1
        net.kfree_skb(skb, "TCP_OFOMERGE", sk=tp.number)
    elif len(queue) >= TCP_OFO_MAX_SKBS:
        mib["TcpExtTCPOFODrop"] += 1
        net.kfree_skb(skb, "TCP_OFO_DROP", sk=tp.number)
        return
    else:
        queue.insert(index, OfoSkb(seq, end_seq, fin, skb))
        net.ofo_skbs += 1
        tp.ofo_bytes += (end_seq - seq) & MASK
    if tp.sack_ok:
        tcp_sack_new_ofo_skb(net, tp, start, end)
        if tp.rcv_ssthresh < tp.window_clamp:
            # Not without SACK: a new window would spoil the duplicate ACK.
            tcp_grow_window(net, tp, size)


def _ofo_duplicate(net: TcpNet, tp: TcpSock, skb: SkBuff, seq: int, end_seq: int) -> None:
    """All of the data waits already: a D-SACK, and the block around it comes first (RFC 2018 4, RFC
    2883 4)."""
    net.mib["TcpExtTCPOFOMerge"] += 1
    if tp.sack_ok:
        tcp_dsack_set(net, tp, seq, end_seq)
        tcp_sack_new_ofo_skb(net, tp, seq, end_seq)
    net.kfree_skb(skb, "TCP_OFOMERGE", sk=tp.number)


def _ofo_remove(net: TcpNet, tp: TcpSock, index: int) -> None:
    o = tp.ofo.pop(index)
    net.ofo_skbs -= 1
    tp.ofo_bytes -= (o.end_seq - o.seq) & MASK


def tcp_ofo_queue(net: TcpNet, tp: TcpSock) -> None:
    """A hole is filled: the data behind it goes up."""
    queue = tp.ofo
    taken = 0
    for o in queue:
        if after(o.seq, tp.rcv_nxt):
            break
        taken += 1
        net.ofo_skbs -= 1
        tp.ofo_bytes -= (o.end_seq - o.seq) & MASK
        skb = o.skb
        if not before(tp.rcv_nxt, o.end_seq):
            tcp_dsack_extend(net, tp, o.seq, o.end_seq)
            net.kfree_skb(skb, "TCP_OFO_DROP", sk=tp.number)
            continue
        if o.seq != tp.rcv_nxt:
            tcp_dsack_extend(net, tp, o.seq, tp.rcv_nxt)
            skb.eat((tp.rcv_nxt - o.seq) & MASK)
        length = ((o.end_seq - tp.rcv_nxt) & MASK) - o.fin
        if length:
            tcp_queue_rcv(net, tp, skb, length, 0)
        else:
            net.consume_skb(skb)
        if o.fin:
            del queue[:taken]
            tcp_fin(net, tp)
            return
    del queue[:taken]


def tcp_fin(net: TcpNet, tp: TcpSock) -> None:
    """The peer's FIN, in its turn (RFC 9293 3.10.7.4, eighth): nothing comes behind it."""
    tp.rcv_nxt = (tp.rcv_nxt + 1) & MASK
    tp.fin_received = True
    tp.ack_pending |= ICSK_ACK_SCHED
    tp.shutdown |= RCV_SHUTDOWN
    if net.tracing:
        net.trace("tcp_fin", sk=tp.number)
    for o in tp.ofo:
        net.ofo_skbs -= 1
        net.kfree_skb(o.skb, "TCP_OFO_DROP", sk=tp.number)
    tp.ofo.clear()
    tp.ofo_bytes = 0
    tp.selective_acks = ()
    tp.duplicate_sack = None
    if not tp.dead:
        net.call("socket", SkCallbacks.tcp_fin, TcpFin(tp.number))
    state = tp.state
    if state in (TCP_SYN_RECV, TCP_ESTABLISHED):
        tcp_set_state(net, tp, TCP_CLOSE_WAIT)
        tp.ack_pingpong = max(tp.ack_pingpong, 1)
    elif state == TCP_FIN_WAIT1:
        tcp_send_ack(net, tp)
        tcp_set_state(net, tp, TCP_CLOSING)
    elif state == TCP_FIN_WAIT2:
        tcp_send_ack(net, tp)
        tcp_time_wait(net, tp, TCP_TIME_WAIT, 0)
