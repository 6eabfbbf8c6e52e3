# SPDX-License-Identifier: MIT
"""Delivery rate estimation (`net/ipv4/tcp_rate.c`): bytes delivered per time, for BBR, TCP_INFO and
RACK. draft-cheng-iccrg-delivery-rate-estimation.

Times are us of the stack's clock.
"""

from skbus.core.seq import MASK, after
from skbusd.tcp.const import EVER_RETRANS, SACKED_ACKED
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_cong import RateSample


def tcp_rate_skb_sent(tp: TcpSock, seg: TcpSeg, mstamp: int) -> None:
    """A segment leaves: note how much had been delivered."""
    if not tp.packets_out:
        tp.first_tx_mstamp = mstamp
        tp.delivered_mstamp = mstamp
    seg.first_tx_mstamp = tp.first_tx_mstamp
    seg.delivered_mstamp = tp.delivered_mstamp
    seg.delivered = tp.delivered
    seg.app_limited = tp.app_limited != 0


def tcp_rate_skb_delivered(tp: TcpSock, seg: TcpSeg, rs: RateSample) -> None:
    """A segment is acknowledged or SACKed; of several, the one sent last makes the sample."""
    if not seg.delivered_mstamp:
        return
    if (
        not rs.prior_delivered
        or seg.mstamp > tp.first_tx_mstamp
        or (seg.mstamp == tp.first_tx_mstamp and after(seg.end_seq, rs.last_end_seq))
    ):
        rs.prior_delivered = seg.delivered or 0
        rs.prior_mstamp = seg.delivered_mstamp
        rs.is_app_limited = seg.app_limited
        rs.is_retrans = bool(seg.sacked & EVER_RETRANS)
        rs.last_end_seq = seg.end_seq
        tp.first_tx_mstamp = seg.mstamp
        rs.snd_interval_us = seg.mstamp - seg.first_tx_mstamp
    if seg.sacked & SACKED_ACKED:
        seg.delivered_mstamp = 0  # SACKed: not counted again when it is acknowledged


def tcp_rate_gen(tp: TcpSock, delivered: int, lost: int, rs: RateSample) -> None:
    """Close the sample of an ACK that delivered and lost that many segments."""
    if tp.app_limited and (tp.delivered - tp.app_limited) > 0:
        tp.app_limited = 0
    if delivered:
        tp.delivered_mstamp = tp.tcp_mstamp
    rs.acked_sacked = delivered
    rs.losses = lost
    if not rs.prior_mstamp or tp.is_sack_reneg:
        rs.delivered = -1
        rs.interval_us = -1
        return
    rs.delivered = tp.delivered - rs.prior_delivered
    interval = max(rs.snd_interval_us, tp.tcp_mstamp - rs.prior_mstamp)
    rs.interval_us = interval
    if interval <= 0 or (tp.rtt_min and interval < tp.rtt_min[0][1]):
        rs.interval_us = -1
        return
    if not rs.is_app_limited or (
        rs.delivered * tp.rate_interval_us >= tp.rate_delivered * interval
    ):
        tp.rate_delivered = rs.delivered
        tp.rate_interval_us = interval
        tp.rate_app_limited = rs.is_app_limited


def tcp_rate_check_app_limited(tp: TcpSock) -> None:
    """The application has nothing more to send, and cwnd would let it: mark the samples."""
    in_flight = tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out
    if (
        (tp.write_seq - tp.snd_nxt) & MASK < tp.mss_cache
        and in_flight < tp.snd_cwnd
        and tp.lost_out <= tp.retrans_out
    ):
        tp.app_limited = (tp.delivered + in_flight) or 1
