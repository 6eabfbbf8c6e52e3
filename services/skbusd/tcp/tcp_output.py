# SPDX-License-Identifier: MIT
"""Sending (`net/ipv4/tcp_output.c`): from the write queue to `ip_queue_xmit`.

Called by tcp (the application's calls), tcp_input (ACKs that open windows) and tcp_timer. Calls ip:
`ip_queue_xmit`, one skb for up to 64 KB of payload; checksum and segmentation are left to the
layers below. `tcp_retransmit` sends again, `tcp_handshake` makes SYN and RST.

RFC 9293 3.8; RFC 896 and 1122 4.2.3.4 (Nagle); RFC 7323 (timestamps); RFC 7661 (cwnd validation).
"""

import struct
from typing import Final

from skbus.core.interfaces import Ip
from skbus.core.net import MSEC
from skbus.core.pool import StalePlaceError
from skbus.core.seq import MASK, after, before, seq_ahead
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    ETH_P_IP,
    SKB_GSO_TCP_ECN,
    SKB_GSO_TCPV4,
    Frag,
    frags_slice,
)
from skbus.inet.headers.tcp import TCPOPT_NOP, TCPOPT_SACK
from skbusd.tcp.const import (
    ACK,
    CA_EVENT_TX_START,
    CWR,
    FIN,
    ICSK_ACK_PUSHED,
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
    PSH,
    PUSH_ONE_PROBE,
    TCP_ATO_MIN,
    TCP_CA_CWR,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_CHRONO_BUSY,
    TCP_CHRONO_RWND_LIMITED,
    TCP_CLOSE,
    TCP_DELACK_MAX,
    TCP_DELACK_MIN,
    TCP_NAGLE_CORK,
    TCP_NAGLE_OFF,
    TCP_NAGLE_PUSH,
    URG,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_reset_delack_timer,
    inet_csk_reset_xmit_timer,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_accecn_option import tcp_accecn_option, tcp_options_fit_accecn
from skbusd.tcp.tcp_cong import tcp_ca_event, tcp_cwnd_restart
from skbusd.tcp.tcp_ecn import tcp_ecn_send
from skbusd.tcp.tcp_mtu_probe import tcp_mtu_check_reprobe
from skbusd.tcp.tcp_pacing import (
    tcp_pacing_check,
    tcp_pacing_delay,
    tcp_small_queue_check,
    tcp_update_skb_after_send,
)
from skbusd.tcp.tcp_rate import tcp_rate_skb_sent
from skbusd.tcp.tcp_window import (
    tcp_current_mss,
    tcp_mss_to_mtu,
    tcp_mtu_to_mss,
    tcp_select_window,
    tcp_tso_segs,
    tcp_wnd_end,
)

_HDR: Final = struct.Struct("!HHIIHHHH")
_HDR_TS: Final = struct.Struct("!HHIIHHHHIII")
_PAIR: Final = struct.Struct("!II")
TSTAMP_WORD: Final = 0x0101080A
MAX_XMIT_FRAGS: Final = 16
"""A segment with more frags than this, from many small writes, is copied into one."""
MTU_PROBE_MIN_CWND: Final = 11
"""With fewer segments, duplicate ACKs would not reveal a lost probe soon enough."""
MTU_PROBE_LATER: Final = 0
MTU_PROBE_GO_ON: Final = -1
MTU_PROBE_SENT: Final = 1


# ---- one segment -----------------------------------------------------------------------------


def tcp_transmit_skb(
    net: TcpNet,
    tp: TcpSock,
    seq: int,
    flags: int,
    frags: tuple[Frag, ...] = (),
    dlen: int = 0,
    mss: int = 0,
) -> bool:
    """Send `dlen` bytes with a header to ip; False where the bytes are gone.

    More than `mss` bytes go as one skb with gso_size. Only for connections past the SYN.
    """
    # In one piece, above 60 lines: each function more would cost every segment a call.
    window = tcp_select_window(net, tp)
    urg_ptr = 0
    cb = tp.xmit_cb
    if tp.ecn_flags:
        flags, cb = tcp_ecn_send(net, tp, seq, dlen, flags)
    if dlen > mss > 0:
        flags |= PSH  # so that the receiver's GRO does not wait for more
    if tp.urg_mode and (urg_ptr := _urgent_pointer(tp, seq)):
        flags |= URG
    check = tp.pseudo + dlen
    if tp.selective_acks or tp.duplicate_sack is not None or tp.accecn is not None:
        header = _header_with_options(net, tp, seq, flags, window, urg_ptr, dlen)
    elif tp.tstamp_ok:
        check = (check + 32) % 0xFFFF or 0xFFFF
        tsval = (net.now // 1_000_000 + tp.tsoffset) & MASK
        header = _HDR_TS.pack(
            tp.sport, tp.dport, seq, tp.rcv_nxt, 0x8000 | flags, window, check, urg_ptr,
            TSTAMP_WORD, tsval, tp.ts_recent,
        )  # fmt: skip
    else:
        check = (check + 20) % 0xFFFF or 0xFFFF
        header = _HDR.pack(
            tp.sport, tp.dport, seq, tp.rcv_nxt, 0x5000 | flags, window, check, urg_ptr
        )
    if len(frags) > MAX_XMIT_FRAGS and not (frags := _gather(net, frags)):
        return False
    skb = net.alloc_skb(header, frags, data_len=dlen, lent=True)
    skb.protocol = ETH_P_IP
    skb.transport_header = 0
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = 0
    skb.csum_offset = 16
    skb.mark = tp.mark
    skb.priority = tp.priority
    skb.cb = cb
    segs = 1
    if dlen > mss > 0:
        segs = -(-dlen // mss)
        skb.gso_size = mss
        skb.gso_segs = segs
        skb.gso_type = SKB_GSO_TCPV4 | SKB_GSO_TCP_ECN if flags & CWR else SKB_GSO_TCPV4
    # tcp_event_ack_sent: every segment carries the ACK
    if tp.ack_quick and tp.ack_pending & ICSK_ACK_SCHED:
        tp.ack_quick -= 1
        if not tp.ack_quick:
            tp.ack_ato = TCP_ATO_MIN
    tp.ack_pending = 0
    if tp.delack_timer is not None:
        tp.delack_timer.expires = -1
    if tp.compressed_ack:
        _compressed_acks_sent(net, tp)
    tp.segs_out += segs
    if dlen:
        tcp_event_data_sent(net, tp)
        tp.data_segs_out += segs
        tp.bytes_sent += dlen
    net.mib["TcpOutSegs"] += segs
    if net.tracing:
        net.trace("tcp_transmit_skb", skb, sk=tp.number, seq=seq, len=dlen, flags=flags)
    net.call_skb("ip", Ip.ip_queue_xmit, skb, cb)
    return True


def _urgent_pointer(tp: TcpSock, seq: int) -> int:
    """The distance from `seq` to the end of urgent data; 0 where that lies before."""
    return min(seq_ahead(tp.snd_up, seq), 0xFFFF)


def _gather(net: TcpNet, frags: tuple[Frag, ...]) -> tuple[Frag, ...]:
    """Copy many small writes into one frag; () where their bytes are gone."""
    try:
        return (net.pool.gather(frags),)
    except StalePlaceError:
        return ()


def _compressed_acks_sent(net: TcpNet, tp: TcpSock) -> None:
    """This segment acknowledges all: the timer of compressed ACKs is no longer needed."""
    net.mib["TcpExtTCPAckCompressed"] += tp.compressed_ack
    tp.compressed_ack = 0
    if tp.compressed_ack_timer is not None:
        tp.compressed_ack_timer.expires = -1


def _header_with_options(
    net: TcpNet, tp: TcpSock, seq: int, flags: int, window: int, urg_ptr: int, dlen: int
) -> bytes:
    """The header with SACK blocks (RFC 2018 3), a D-SACK first (RFC 2883 4), and with Accurate
    ECN's option."""
    blocks = tp.selective_acks
    if tp.duplicate_sack is not None:
        blocks = (tp.duplicate_sack, *blocks)
        tp.duplicate_sack = None
    options = b""
    if tp.tstamp_ok:
        blocks = blocks[:3]
        options = _PAIR.pack(TSTAMP_WORD, (net.now // 1_000_000 + tp.tsoffset) & MASK)
        options += tp.ts_recent.to_bytes(4, "big")
    else:
        blocks = blocks[:4]
    fields = -1
    acc = tp.accecn
    if acc is not None:
        n, fields = tcp_options_fit_accecn(net, tp, acc, len(options), len(blocks))
        blocks = blocks[:n]
    if blocks:
        options += bytes((TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK, 2 + 8 * len(blocks)))
        options += b"".join([_PAIR.pack(start, end) for start, end in blocks])
    if acc is not None and fields >= 0:
        options += tcp_accecn_option(net, acc, fields)
    size = 20 + len(options)
    check = (tp.pseudo + dlen + size) % 0xFFFF or 0xFFFF
    return (
        _HDR.pack(tp.sport, tp.dport, seq, tp.rcv_nxt, size << 10 | flags, window, check, urg_ptr)
        + options
    )


def tcp_event_data_sent(net: TcpNet, tp: TcpSock) -> None:
    """Data leaves: note the time, and whether this is a conversation (pingpong)."""
    if not tp.packets_out:
        tcp_ca_event(net, tp, CA_EVENT_TX_START)
    now = net.now
    tp.lsndtime = now // 1000
    if now - tp.ack_lrcvtime < tp.ack_ato:
        tp.ack_pingpong = min(tp.ack_pingpong + 1, 255)


# ---- the write queue -------------------------------------------------------------------------


def tcp_set_skb_tso_segs(seg: TcpSeg, mss: int) -> int:
    """How many segments on the wire this is, at `mss`."""
    dlen = seg.dlen()
    seg.mss = mss
    seg.pcount = 1 if dlen <= mss else -(-dlen // mss)
    return seg.pcount


def tcp_fragment(seg: TcpSeg, length: int, mss: int) -> TcpSeg:
    """Cut a segment after `length` bytes of payload; returns the second part. FIN and PSH go with
    that, and the caller puts it into its queue."""
    cut = (seg.seq + length) & MASK
    new = TcpSeg(cut, seg.end_seq, seg.flags, frags_slice(seg.frags, length, 1 << 30))
    seg.frags = frags_slice(seg.frags, 0, length)
    seg.end_seq = cut
    seg.flags &= ~(FIN | PSH)
    new.sacked = seg.sacked
    new.eor = seg.eor
    seg.eor = False
    new.mstamp = seg.mstamp
    new.delivered = seg.delivered
    new.delivered_mstamp = seg.delivered_mstamp
    new.first_tx_mstamp = seg.first_tx_mstamp
    new.app_limited = seg.app_limited
    tcp_set_skb_tso_segs(seg, mss)
    tcp_set_skb_tso_segs(new, mss)
    return new


def tcp_event_new_data_sent(net: TcpNet, tp: TcpSock, seg: TcpSeg) -> None:
    """A segment went out for the first time: it moves to the retransmit queue."""
    prior = tp.packets_out
    tp.snd_nxt = seg.end_seq
    tp.rtx_queue.append(seg)
    tp.tsorted.append(seg)
    tp.packets_out += seg.pcount
    if not prior or tp.icsk_pending == ICSK_TIME_PROBE0:
        tcp_rearm_rto(net, tp)
    net.mib["TcpExtTCPOrigDataSent"] += seg.pcount
    if tp.report:
        net.write_space[tp.number] = tp


def tcp_rearm_rto(net: TcpNet, tp: TcpSock) -> None:
    """Arm the retransmission timer anew, less the time that has passed where the probe timer ran
    (RFC 6298 5.3)."""
    if tp.fastopen_rsk is not None:
        return  # the timer repeats the SYN-ACK
    if not tp.packets_out:
        tp.icsk_pending = 0
        if tp.write_timer is not None:
            tp.write_timer.expires = -1
        return
    rto = tp.icsk_rto
    if tp.icsk_pending in (ICSK_TIME_LOSS_PROBE, ICSK_TIME_REO_TIMEOUT) and tp.rtx_queue:
        left = rto - (net.now // 1000 - tp.rtx_queue[0].mstamp)
        rto = max(left, 1)
    if tp.pacing_status:
        rto += tcp_pacing_delay(net, tp)
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, rto)


def tcp_nagle_test(tp: TcpSock, seg: TcpSeg, mss: int, nonagle: int) -> bool:
    """May this segment go now (RFC 1122 4.2.3.4, with Minshall's change: a small segment waits only
    for another small one)? Corked segments always wait."""
    if nonagle & TCP_NAGLE_PUSH or tp.urg_mode or seg.flags & FIN:
        return True
    if seg.dlen() >= mss:
        return True
    return not tcp_nagle_check(tp, nonagle)


def tcp_nagle_check(tp: TcpSock, nonagle: int) -> bool:
    """Must a segment that is not full wait?"""
    if nonagle & TCP_NAGLE_CORK:
        return True
    if nonagle or not tp.packets_out:
        return False
    # tcp_minshall_check: a small segment is out
    return before(tp.snd_una, tp.snd_sml) and not before(tp.snd_nxt, tp.snd_sml)


def tcp_mss_split_point(
    tp: TcpSock, seg: TcpSeg, mss: int, max_segs: int, nonagle: int, last: bool
) -> int:
    """Bytes of a super-segment that may go now, in whole segments unless Nagle lets the rest go."""
    dlen = seg.dlen()
    window = (tcp_wnd_end(tp) - seg.seq) & MASK
    max_len = mss * max_segs
    if max_len <= window and not last:
        return max_len
    needed = min(dlen, window)
    if max_len <= needed:
        return max_len
    partial = needed % mss
    if partial and tcp_nagle_check(tp, nonagle):
        return needed - partial
    return needed


def tcp_tso_should_defer(net: TcpNet, tp: TcpSock, seg: TcpSeg, mss: int, max_segs: int) -> bool:
    """Is it worth waiting for an ACK, to send a bigger super-segment then?"""
    if tp.ca_state >= TCP_CA_RECOVERY or seg.flags & FIN:
        return False
    if net.now // 1000 - tp.tcp_wstamp > 1000:
        return False
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    if tp.snd_cwnd <= in_flight:
        return False
    send_win = (tcp_wnd_end(tp) - seg.seq) & MASK
    cong_win = (tp.snd_cwnd - in_flight) * mss
    limit = min(send_win, cong_win)
    if limit >= max_segs * mss:
        return False
    dlen = seg.dlen()
    if len(tp.write_queue) > 1 and limit >= dlen:
        return False
    divisor = net.sysctl["net.ipv4.tcp_tso_win_divisor"]
    if divisor:
        if limit >= min(tp.snd_wnd, tp.snd_cwnd * mss) // divisor:
            return False
    elif limit > 3 * mss:
        return False
    if not tp.rtx_queue:
        return False
    if net.now // 1000 - tp.rtx_queue[0].mstamp < (tp.srtt_us >> 4):
        return False  # the next ACK is too far away
    if cong_win < send_win:
        if cong_win <= dlen:
            tp.is_cwnd_limited = True
            return True
    elif send_win <= dlen:
        return True
    return True


def tcp_cwnd_validate(net: TcpNet, tp: TcpSock, is_cwnd_limited: bool) -> None:
    """RFC 7661: remember whether cwnd was the limit, and let it shrink when it is not used."""
    if (
        not before(tp.snd_una, tp.cwnd_usage_seq)
        or is_cwnd_limited
        or (not tp.is_cwnd_limited and tp.packets_out > tp.max_packets_out)
    ):
        tp.is_cwnd_limited = is_cwnd_limited
        tp.max_packets_out = tp.packets_out
        tp.cwnd_usage_seq = tp.snd_nxt
    if tp.is_cwnd_limited or (tp.snd_cwnd < tp.snd_ssthresh < 2 * tp.max_packets_out):
        tp.snd_cwnd_used = 0
        tp.snd_cwnd_stamp = net.now
        return
    if tp.packets_out > tp.snd_cwnd_used:
        tp.snd_cwnd_used = tp.packets_out
    if (
        net.ipv4.sysctl_tcp_slow_start_after_idle
        and net.now - tp.snd_cwnd_stamp >= tp.icsk_rto * 1000
        and not net.cong[tp.ca_name].full_control
    ):
        tcp_cwnd_application_limited(net, tp)


def tcp_cwnd_application_limited(net: TcpNet, tp: TcpSock) -> None:
    """cwnd was not used for an RTO: reduce it halfway to the used part (RFC 2861 3.1)."""
    if not tp.ca_state and not tp.write_queue:
        used = max(tp.snd_cwnd_used, 10)
        if used < tp.snd_cwnd:
            tp.snd_ssthresh = max(tp.snd_ssthresh, (tp.snd_cwnd >> 1) + (tp.snd_cwnd >> 2))
            tp.snd_cwnd = (tp.snd_cwnd + used) >> 1
        tp.snd_cwnd_used = 0
    tp.snd_cwnd_stamp = net.now


def tcp_chrono_set(net: TcpNet, tp: TcpSock, kind: int) -> None:
    """From now on the connection is idle (0), busy (1), or kept by the peer's window (2)."""
    now = net.now // 1000
    if tp.chrono_type == TCP_CHRONO_BUSY:
        tp.chrono_busy += now - tp.chrono_start
    elif tp.chrono_type == TCP_CHRONO_RWND_LIMITED:
        tp.chrono_rwnd += now - tp.chrono_start
    tp.chrono_type = kind
    tp.chrono_start = now


def tcp_write_xmit(net: TcpNet, tp: TcpSock, mss: int, nonagle: int, push_one: int) -> bool:
    """Send what windows, Nagle and cwnd allow. push_one: 0, PUSH_ONE or PUSH_ONE_PROBE. True when
    data waits and nothing is out: the caller must probe."""
    # In one piece, above 60 lines: each function more would cost every segment a call.
    queue = tp.write_queue
    sent = 0
    cwnd_limited = rwnd_limited = False
    max_segs = 0
    now_us = net.now // 1000
    tracing = net.tracing
    tsq_limit = net.ipv4.sysctl_tcp_limit_output_bytes
    if tp.mtup_enabled and not push_one:
        probe = tcp_mtu_probe(net, tp)
        if probe == MTU_PROBE_LATER:
            return False
        sent = max(probe, 0)
    while queue:
        if tp.pacing_status and tcp_pacing_check(net, tp):
            break
        if tp.tsq_bytes > tsq_limit and tcp_small_queue_check(net, tp, tsq_limit):
            break
        seg = queue[0]
        if seg.mss != mss or not seg.pcount:
            tcp_set_skb_tso_segs(seg, mss)
        in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
        quota = tp.snd_cwnd - in_flight
        if quota <= 0:
            if push_one != PUSH_ONE_PROBE:
                cwnd_limited = True
                break
            quota = 1
        elif quota > tp.snd_cwnd >> 1:
            quota = (tp.snd_cwnd >> 1) or 1  # at least two super-segments in flight
        dlen = seg.dlen()
        first_end = seg.end_seq if dlen <= mss else (seg.seq + mss) & MASK
        if after(first_end, tp.snd_una + tp.snd_wnd):
            rwnd_limited = True  # tcp_snd_wnd_test
            break
        last = len(queue) == 1
        limit = mss
        if seg.pcount == 1:
            if not tcp_nagle_test(tp, seg, mss, nonagle if last else TCP_NAGLE_PUSH):
                break
        else:
            if not max_segs:
                max_segs = tcp_tso_segs(net, tp, mss)
            if not push_one and tcp_tso_should_defer(net, tp, seg, mss, max_segs):
                cwnd_limited = tp.is_cwnd_limited
                break
            if not tp.urg_mode:
                limit = tcp_mss_split_point(tp, seg, mss, min(quota, max_segs), nonagle, last)
        if dlen > limit:
            queue.insert(1, tcp_fragment(seg, limit, mss))
            dlen = limit
        # Linux stamps it in the transmit function; the rate sample needs the state before.
        if now_us < tp.tcp_wstamp:
            now_us = tp.tcp_wstamp  # behind a retransmission of the same instant
        seg.mstamp = now_us
        tcp_rate_skb_sent(tp, seg, now_us)
        if tracing:
            net.trace("tcp_write_xmit", sk=tp.number, seq=seg.seq, len=dlen, cwnd=tp.snd_cwnd)
        if not tcp_transmit_skb(net, tp, seg.seq, seg.flags, seg.frags, dlen, mss):
            break
        tp.tcp_wstamp = now_us
        if tp.pacing_status:
            tcp_update_skb_after_send(net, tp, dlen)
        tp.tsq_bytes += dlen
        del queue[0]
        tcp_event_new_data_sent(net, tp, seg)
        if dlen < seg.pcount * mss:
            tp.snd_sml = seg.end_seq  # tcp_minshall_update
        sent += seg.pcount
        if push_one:
            break
    if rwnd_limited != (tp.chrono_type == TCP_CHRONO_RWND_LIMITED):
        tcp_chrono_set(net, tp, TCP_CHRONO_RWND_LIMITED if rwnd_limited else TCP_CHRONO_BUSY)
    if not sent:
        return not tp.packets_out and bool(queue)
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY):
        tp.prr_out += sent
    if push_one != PUSH_ONE_PROBE:
        tcp_schedule_loss_probe(net, tp, False)
    tcp_cwnd_validate(net, tp, cwnd_limited or in_flight >= tp.snd_cwnd)
    return False


def tcp_mtu_probe(net: TcpNet, tp: TcpSock) -> int:
    """Send a probe if there is reason, data and window for one (RFC 4821 7.1 to 7.4).

    MTU_PROBE_LATER: data must wait until the probe can be sent. MTU_PROBE_GO_ON: ordinary segments
    may go.
    """
    if (
        tp.mtup_probe_size
        or tp.ca_state != TCP_CA_OPEN
        or tp.snd_cwnd < MTU_PROBE_MIN_CWND
        or tp.selective_acks
        or tp.duplicate_sack is not None
    ):
        return MTU_PROBE_GO_ON
    mss = tcp_current_mss(net, tp)
    # Options that come and go (Accurate ECN's) take room in the probe.
    options = tp.mss_cache - mss
    probe_size = tcp_mtu_to_mss(net, tp, (tp.mtup_search_high + tp.mtup_search_low) >> 1)
    interval = tp.mtup_search_high - tp.mtup_search_low
    if (
        probe_size > tcp_mtu_to_mss(net, tp, tp.mtup_search_high)
        or probe_size <= tp.mss_cache
        or interval < net.sysctl["net.ipv4.tcp_probe_threshold"]
    ):
        tcp_mtu_check_reprobe(net, tp)
        return MTU_PROBE_GO_ON
    # Enough more data that the probe's loss makes enough duplicate ACKs.
    needed = probe_size + (tp.reordering + 1) * tp.mss_cache
    if (tp.write_seq - tp.snd_nxt) & MASK < needed or tp.snd_wnd < needed:
        return MTU_PROBE_GO_ON
    if after(tp.snd_nxt + needed, tcp_wnd_end(tp)):
        return MTU_PROBE_LATER
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    if in_flight + 2 > tp.snd_cwnd:
        return MTU_PROBE_LATER if in_flight else MTU_PROBE_GO_ON
    seg = _mtu_probe_take(tp, probe_size - options, mss)
    return (
        MTU_PROBE_GO_ON
        if seg is None
        else _mtu_probe_send(net, tp, seg, probe_size - options, options)
    )


def _mtu_probe_take(tp: TcpSock, size: int, mss: int) -> TcpSeg | None:
    """Take the first `size` bytes off the write queue, as one segment."""
    queue = tp.write_queue
    frags: list[object] = []
    left = size
    flags = ACK
    for seg in queue:
        dlen = seg.dlen()
        if seg.flags & FIN or (seg.eor and dlen < left):
            return None
        left -= min(left, dlen)
        if not left:
            break
    if left:
        return None
    start = queue[0].seq
    left = size
    while left:
        seg = queue[0]
        dlen = seg.dlen()
        if dlen > left:
            queue.insert(1, tcp_fragment(seg, left, mss))
            dlen = left
        frags += frags_slice(seg.frags, 0, dlen)
        flags |= seg.flags
        left -= dlen
        del queue[0]
    probe = TcpSeg(start, (start + size) & MASK, flags, tuple(frags))  # type: ignore[arg-type]
    probe.mss = size
    probe.pcount = 1
    return probe


def _mtu_probe_send(net: TcpNet, tp: TcpSock, seg: TcpSeg, size: int, options: int) -> int:
    now = max(net.now // 1000, tp.tcp_wstamp)
    seg.mstamp = tp.tcp_wstamp = now
    tcp_rate_skb_sent(tp, seg, now)
    if net.tracing:
        net.trace("tcp_mtu_probe", sk=tp.number, seq=seg.seq, len=size)
    sent = tcp_transmit_skb(net, tp, seg.seq, seg.flags, seg.frags, size, size)
    if not sent:
        tp.write_queue.insert(0, seg)
        seg.pcount = 0
        return MTU_PROBE_GO_ON
    if tp.pacing_status:
        tcp_update_skb_after_send(net, tp, size)
    # The probe stands for more than one segment of ordinary size.
    tp.snd_cwnd -= 1
    tcp_event_new_data_sent(net, tp, seg)
    tp.mtup_probe_size = tcp_mss_to_mtu(tp, size + options)
    tp.mtu_probe_seq_start = seg.seq
    tp.mtu_probe_seq_end = seg.end_seq
    return MTU_PROBE_SENT


def __tcp_push_pending_frames(net: TcpNet, tp: TcpSock, mss: int, nonagle: int) -> None:
    """Send data that may go; where nothing is out and the window is shut, begin to probe."""
    if tp.state == TCP_CLOSE:
        return
    if tcp_write_xmit(net, tp, mss, nonagle, 0):
        tcp_check_probe_timer(net, tp)


def tcp_push_pending_frames(net: TcpNet, tp: TcpSock) -> None:
    """Send data that may go by the socket's own Nagle setting, if there is any."""
    if tp.write_queue:
        __tcp_push_pending_frames(net, tp, tcp_current_mss(net, tp), tp.nonagle)


def tcp_send_skb(net: TcpNet, tp: TcpSock, more: bool) -> None:
    """Bytes were queued: mark the end with PSH and send (`tcp_push` of newer kernels). With
    MSG_MORE the last, incomplete segment waits as if corked."""
    queue = tp.write_queue
    if not queue:
        return
    if net.tracing:
        net.trace("tcp_send_skb", sk=tp.number, queued=(tp.write_seq - tp.snd_nxt) & MASK)
    if not more or ((tp.write_seq - tp.pushed_seq) & MASK) > tp.max_window >> 1:
        queue[-1].flags |= PSH
        tp.pushed_seq = tp.write_seq
    nonagle = TCP_NAGLE_CORK if more else tp.nonagle
    __tcp_push_pending_frames(net, tp, tcp_current_mss(net, tp), nonagle)


def tcp_slow_start_after_idle_check(net: TcpNet, tp: TcpSock) -> None:
    """Data is queued while nothing is out: restart slow start if the connection was idle for an
    RTO."""
    if tp.packets_out or not net.ipv4.sysctl_tcp_slow_start_after_idle:
        return
    if net.cong[tp.ca_name].full_control:
        return
    idle = net.now // 1000 - tp.lsndtime
    if idle > tp.icsk_rto and tp.lsndtime:
        tcp_cwnd_restart(net, tp, idle)


# ---- zero windows ----------------------------------------------------------------------------


def tcp_probe0_base(tp: TcpSock) -> int:
    """The first probe's time, us."""
    return max(tp.icsk_rto, 200_000)


def tcp_check_probe_timer(net: TcpNet, tp: TcpSock) -> None:
    """Nothing is out and data waits: arm the probe timer (RFC 9293 3.8.6.1)."""
    if not tp.packets_out and not tp.icsk_pending:
        when = tcp_probe0_base(tp) + tcp_pacing_delay(net, tp)
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_PROBE0, when)


# ---- ACKs ------------------------------------------------------------------------------------


def tcp_send_ack(net: TcpNet, tp: TcpSock, flags: int = 0) -> None:
    """Send a pure ACK now. flags: further ones of its header."""
    if tp.state == TCP_CLOSE:
        return
    tcp_transmit_skb(net, tp, tp.snd_nxt, ACK | flags)


def tcp_send_delayed_ack(net: TcpNet, tp: TcpSock) -> None:
    """Send an ACK when ack_ato has passed, unless data carries it before (RFC 9293 3.8.6.3)."""
    ato = tp.ack_ato
    if ato > TCP_DELACK_MIN:
        limit = TCP_DELACK_MAX
        if tp.ack_pingpong or tp.ack_pending & ICSK_ACK_PUSHED:
            limit = 200 * MSEC
        if tp.srtt_us:
            limit = min(limit, max((tp.srtt_us >> 3) * 1000, TCP_DELACK_MIN))
        ato = min(ato, limit)
    ato = min(ato, TCP_DELACK_MAX)
    timeout = net.now + ato
    if tp.ack_pending & ICSK_ACK_TIMER:
        if tp.ack_timeout <= net.now + (ato >> 2):
            tcp_send_ack(net, tp)
            return
        timeout = min(timeout, tp.ack_timeout)
    inet_csk_reset_delack_timer(net, tp, timeout)


# ---- the end of the stream -------------------------------------------------------------------


def tcp_send_fin(net: TcpNet, tp: TcpSock) -> None:
    """Queue FIN behind the data, and push."""
    if tp.write_queue:
        seg = tp.write_queue[-1]
        seg.flags |= FIN
        seg.end_seq = (seg.end_seq + 1) & MASK
        tp.write_seq = (tp.write_seq + 1) & MASK
    else:
        seq = tp.write_seq
        tp.write_seq = (seq + 1) & MASK
        tp.write_queue.append(TcpSeg(seq, tp.write_seq, ACK | FIN, ()))
    __tcp_push_pending_frames(net, tp, tcp_current_mss(net, tp), TCP_NAGLE_OFF)


# ---- tail loss probe (RFC 8985 7) ------------------------------------------------------------


def tcp_schedule_loss_probe(net: TcpNet, tp: TcpSock, advancing_rto: bool) -> bool:
    """Arm the probe timer for 2 SRTT, where that is before the RTO (RFC 8985 7.2)."""
    if net.ipv4.sysctl_tcp_early_retrans < 3 or not tp.packets_out or not tp.sack_ok:
        return False
    if tp.ca_state not in (TCP_CA_OPEN, TCP_CA_CWR) or tp.fastopen_rsk is not None:
        return False
    if tp.srtt_us:
        timeout = tp.srtt_us >> 2  # twice the smoothed round-trip time
        if tp.packets_out == 1:
            timeout += 200_000  # the peer may delay its ACK
        else:
            timeout += 2_000
    else:
        timeout = 1_000_000
    if advancing_rto or not tp.rtx_queue:
        rto_left = tp.icsk_rto
    else:
        rto_left = tp.icsk_rto - (net.now // 1000 - tp.rtx_queue[0].mstamp)
    if rto_left > 0:
        timeout = min(timeout, rto_left)
    if tp.pacing_status:
        timeout += tcp_pacing_delay(net, tp)
    inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_LOSS_PROBE, timeout)
    return True
