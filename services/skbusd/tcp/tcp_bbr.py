# SPDX-License-Identifier: MIT
"""BBR, version 1 (`net/ipv4/tcp_bbr.c`; draft-cardwell-iccrg-bbr-congestion-control-00): send at
the rate at which the path delivers, and keep about one bandwidth-delay product in flight.

BBR models the path by two windowed extremes. They are the greatest delivery rate of the last ten
round trips (`tcp_rate`) and the least round-trip time of the last ten seconds. Loss is no signal to
BBR. Its sending is paced (`tcp_pacing`).

Differs from Linux: no detection of token-bucket policers (`lt_bw`), which is not in the draft.
"""

from typing import Final

from skbusd.tcp.const import (
    CA_EVENT_TX_START,
    GSO_LEGACY_MAX_PAYLOAD,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_INFINITE_SSTHRESH,
    TCP_INIT_CWND,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import RateSample, TcpCongestionOps
from skbusd.tcp.tcp_pacing import SK_PACING_NEEDED, TCP_PACING_SHIFT

BW_SCALE: Final = 24
"""Bandwidths are segments per us, times 2^24."""
BW_UNIT: Final = 1 << BW_SCALE
UNIT: Final = 256
"""Gains are in 256ths."""
CYCLE_LEN: Final = 8
BW_RTTS: Final = CYCLE_LEN + 2
MIN_RTT_WIN_US: Final = 10_000_000
PROBE_RTT_TIME_US: Final = 200_000
CWND_MIN_TARGET: Final = 4
MIN_TSO_RATE: Final = 1_200_000
"""Below so many bit/s segments go one by one."""
PACING_MARGIN_PERCENT: Final = 1
HIGH_GAIN: Final = UNIT * 2885 // 1000 + 1
"""2/ln(2): the least with which the rate doubles each round trip."""
DRAIN_GAIN: Final = UNIT * 1000 // 2885
CWND_GAIN: Final = UNIT * 2
PACING_GAIN: Final = (UNIT * 5 // 4, UNIT * 3 // 4, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT)
FULL_BW_THRESH: Final = UNIT * 5 // 4
FULL_BW_CNT: Final = 3
EXTRA_ACKED_WIN_RTTS: Final = 5
EXTRA_ACKED_MAX_US: Final = 100_000
ACK_EPOCH_ACKED_RESET: Final = 1 << 20

STARTUP, DRAIN, PROBE_BW, PROBE_RTT = range(4)

# Where things stand in tp.ca_priv
(
    MODE,
    MIN_RTT_US,  # -1: none yet
    MIN_RTT_STAMP,  # us
    PROBE_RTT_DONE_STAMP,  # us, 0: not yet known
    RTT_CNT,  # round trips so far
    NEXT_RTT_DELIVERED,  # tp.delivered at the end of this round trip
    CYCLE_STAMP,  # us
    CYCLE_IDX,
    PREV_CA_STATE,
    PACKET_CONSERVATION,
    ROUND_START,
    IDLE_RESTART,
    PROBE_RTT_ROUND_DONE,
    PACING_GAIN_NOW,
    CWND_GAIN_NOW,
    FULL_BW_REACHED,
    FULL_BW_ROUNDS,
    FULL_BW,
    HAS_SEEN_RTT,
    PRIOR_CWND,
    ACK_EPOCH_STAMP,
    ACK_EPOCH_ACKED,
    EXTRA_ACKED,  # and the next: the greatest of this window and of the last one
    EXTRA_ACKED_OLD,
    EXTRA_ACKED_RTTS,
    BW,  # up to three pairs of (round trip, bandwidth), the greatest first
) = range(26)


class TcpBbr(TcpCongestionOps):
    """BBR v1."""

    name = "bbr"
    full_control = True
    sndbuf_factor = 3

    # ---- what the core asks ------------------------------------------------------------

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        now = net.now // 1000
        ca = tp.ca_priv = [0] * BW
        tp.snd_ssthresh = TCP_INFINITE_SSTHRESH
        ca[MIN_RTT_US] = tp.rtt_min[0][1] if tp.rtt_min else -1
        ca[MIN_RTT_STAMP] = now
        ca[PREV_CA_STATE] = TCP_CA_OPEN
        ca[ACK_EPOCH_STAMP] = now
        ca[NEXT_RTT_DELIVERED] = tp.delivered
        _init_pacing_rate_from_rtt(tp)
        _update_gains(ca)
        tp.pacing_status = max(tp.pacing_status, SK_PACING_NEEDED)

    def ssthresh(self, net: TcpNet, tp: TcpSock) -> int:
        """A loss episode begins: remember cwnd. BBR does not use ssthresh."""
        _save_cwnd(tp)
        return tp.snd_ssthresh

    def undo_cwnd(self, net: TcpNet, tp: TcpSock) -> int:
        """The loss was none: the pipe may be bigger than it looked."""
        tp.ca_priv[FULL_BW] = tp.ca_priv[FULL_BW_ROUNDS] = 0
        return tp.snd_cwnd

    def set_state(self, net: TcpNet, tp: TcpSock, state: int) -> None:
        if state == TCP_CA_LOSS and tp.ca_priv:
            ca = tp.ca_priv
            ca[PREV_CA_STATE] = TCP_CA_LOSS
            ca[FULL_BW] = 0
            ca[ROUND_START] = 1  # a timeout is the end of a round trip

    def cwnd_event(self, net: TcpNet, tp: TcpSock, event: int) -> None:
        """After idle, begin at the rate of the path instead of probing (draft 4.3.4.4)."""
        ca = tp.ca_priv
        if event != CA_EVENT_TX_START or not tp.app_limited or not ca:
            return
        ca[IDLE_RESTART] = 1
        ca[ACK_EPOCH_STAMP] = net.now // 1000
        ca[ACK_EPOCH_ACKED] = 0
        if ca[MODE] == PROBE_BW:
            _set_pacing_rate(tp, _bw(ca), UNIT)
        elif ca[MODE] == PROBE_RTT:
            _check_probe_rtt_done(net, tp)

    def min_tso_segs(self, net: TcpNet, tp: TcpSock) -> int:
        return 1 if tp.pacing_rate < MIN_TSO_RATE >> 3 else 2

    def cong_control(self, net: TcpNet, tp: TcpSock, ack: int, flag: int, rs: RateSample) -> None:
        """Update the model, and set rate and cwnd by it (draft 4.2.2)."""
        ca = tp.ca_priv
        if not ca:
            return  # the ACK of the SYN
        _update_bw(tp, rs)
        _update_ack_aggregation(tp, rs)
        _update_cycle_phase(net, tp, rs)
        _check_full_bw_reached(ca, rs)
        _check_drain(net, tp)
        _update_min_rtt(net, tp, rs)
        _update_gains(ca)
        bw = _bw(ca)
        _set_pacing_rate(tp, bw, ca[PACING_GAIN_NOW])
        _set_cwnd(tp, rs, rs.acked_sacked, bw, ca[CWND_GAIN_NOW])


# ---- the model -------------------------------------------------------------------------------


def _bw(ca: list[int]) -> int:
    """The path's bandwidth: the greatest of the window."""
    return ca[BW + 1] if len(ca) > BW else 0


def _bw_filter(ca: list[int], bw: int) -> None:
    """Kathleen Nichols' windowed maximum, over BW_RTTS round trips: a sample that is neither
    younger nor greater than another can never be the maximum again."""
    now = ca[RTT_CNT]
    kept: list[int] = []
    for i in range(BW, len(ca), 2):
        if ca[i + 1] > bw and now - ca[i] < BW_RTTS:
            kept += ca[i : i + 2]
    if len(kept) < 6:
        kept += (now, bw)
    ca[BW:] = kept


def _update_bw(tp: TcpSock, rs: RateSample) -> None:
    """Count round trips; take the delivery rate (draft 4.1.2)."""
    ca = tp.ca_priv
    ca[ROUND_START] = 0
    if rs.delivered < 0 or rs.interval_us <= 0:
        return
    if rs.prior_delivered >= ca[NEXT_RTT_DELIVERED]:
        ca[NEXT_RTT_DELIVERED] = tp.delivered
        ca[RTT_CNT] += 1
        ca[ROUND_START] = 1
        ca[PACKET_CONSERVATION] = 0
    bw = rs.delivered * BW_UNIT // rs.interval_us
    # The application's rate is a lower bound of the path's.
    if not rs.is_app_limited or bw >= _bw(ca):
        _bw_filter(ca, bw)


def _update_ack_aggregation(tp: TcpSock, rs: RateSample) -> None:
    """Measure by how much the bytes acknowledged at once exceed bandwidth times time: so much more
    may be out while ACKs are held back somewhere."""
    ca = tp.ca_priv
    if rs.acked_sacked <= 0 or rs.delivered < 0 or rs.interval_us <= 0:
        return
    if ca[ROUND_START]:
        ca[EXTRA_ACKED_RTTS] += 1
        if ca[EXTRA_ACKED_RTTS] >= EXTRA_ACKED_WIN_RTTS:
            ca[EXTRA_ACKED_RTTS] = 0
            ca[EXTRA_ACKED_OLD], ca[EXTRA_ACKED] = ca[EXTRA_ACKED], 0
    expected = _bw(ca) * (tp.delivered_mstamp - ca[ACK_EPOCH_STAMP]) >> BW_SCALE
    acked = ca[ACK_EPOCH_ACKED]
    if acked <= expected or acked + rs.acked_sacked >= ACK_EPOCH_ACKED_RESET:
        acked = expected = 0
        ca[ACK_EPOCH_STAMP] = tp.delivered_mstamp
    acked += rs.acked_sacked
    ca[ACK_EPOCH_ACKED] = acked
    ca[EXTRA_ACKED] = max(ca[EXTRA_ACKED], min(acked - expected, tp.snd_cwnd))


def _update_min_rtt(net: TcpNet, tp: TcpSock, rs: RateSample) -> None:
    """The least round-trip time; where it has not been seen for ten seconds, drain the queue for
    a moment to see it again (draft 4.3.5)."""
    ca = tp.ca_priv
    now = net.now // 1000
    expired = now > ca[MIN_RTT_STAMP] + MIN_RTT_WIN_US
    rtt = rs.rtt_us
    if rtt >= 0 and (
        ca[MIN_RTT_US] < 0 or rtt < ca[MIN_RTT_US] or (expired and not rs.is_ack_delayed)
    ):
        ca[MIN_RTT_US] = rtt
        ca[MIN_RTT_STAMP] = now
    if expired and not ca[IDLE_RESTART] and ca[MODE] != PROBE_RTT:
        _save_cwnd(tp)
        ca[MODE] = PROBE_RTT
        ca[PROBE_RTT_DONE_STAMP] = 0
    if ca[MODE] == PROBE_RTT:
        in_flight = _in_flight(tp)
        tp.app_limited = (tp.delivered + in_flight) or 1  # slow by our own will
        if not ca[PROBE_RTT_DONE_STAMP] and in_flight <= CWND_MIN_TARGET:
            ca[PROBE_RTT_DONE_STAMP] = now + PROBE_RTT_TIME_US
            ca[PROBE_RTT_ROUND_DONE] = 0
            ca[NEXT_RTT_DELIVERED] = tp.delivered
        elif ca[PROBE_RTT_DONE_STAMP]:
            if ca[ROUND_START]:
                ca[PROBE_RTT_ROUND_DONE] = 1
            if ca[PROBE_RTT_ROUND_DONE]:
                _check_probe_rtt_done(net, tp)
    if rs.delivered > 0:
        ca[IDLE_RESTART] = 0


def _check_probe_rtt_done(net: TcpNet, tp: TcpSock) -> None:
    ca = tp.ca_priv
    now = net.now // 1000
    if not ca[PROBE_RTT_DONE_STAMP] or now <= ca[PROBE_RTT_DONE_STAMP]:
        return
    ca[MIN_RTT_STAMP] = now
    tp.snd_cwnd = max(tp.snd_cwnd, ca[PRIOR_CWND])
    if ca[FULL_BW_REACHED]:
        _enter_probe_bw(net, tp)
    else:
        ca[MODE] = STARTUP


# ---- the states ------------------------------------------------------------------------------


def _update_gains(ca: list[int]) -> None:
    """draft 4.3"""
    mode = ca[MODE]
    if mode == PROBE_BW:
        ca[PACING_GAIN_NOW] = PACING_GAIN[ca[CYCLE_IDX]]
        ca[CWND_GAIN_NOW] = CWND_GAIN
    elif mode == STARTUP:
        ca[PACING_GAIN_NOW] = ca[CWND_GAIN_NOW] = HIGH_GAIN
    elif mode == DRAIN:
        ca[PACING_GAIN_NOW] = DRAIN_GAIN
        ca[CWND_GAIN_NOW] = HIGH_GAIN
    else:
        ca[PACING_GAIN_NOW] = ca[CWND_GAIN_NOW] = UNIT


def _enter_probe_bw(net: TcpNet, tp: TcpSock) -> None:
    """Begin at a random phase of the cycle, except the one that drains, so that flows do not all
    probe at once (draft 4.3.4.3)."""
    ca = tp.ca_priv
    ca[MODE] = PROBE_BW
    ca[CYCLE_IDX] = CYCLE_LEN - 1 - net.get_random_u32() % 7
    _advance_cycle_phase(tp)


def _advance_cycle_phase(tp: TcpSock) -> None:
    ca = tp.ca_priv
    ca[CYCLE_IDX] = (ca[CYCLE_IDX] + 1) % CYCLE_LEN
    ca[CYCLE_STAMP] = tp.delivered_mstamp


def _update_cycle_phase(net: TcpNet, tp: TcpSock, rs: RateSample) -> None:
    """Each phase takes a round trip. The phase up lasts until the pipe is full, the phase down at
    most until it is drained (draft 4.3.4.1)."""
    ca = tp.ca_priv
    if ca[MODE] != PROBE_BW:
        return
    full_length = tp.delivered_mstamp - ca[CYCLE_STAMP] > ca[MIN_RTT_US]
    gain = ca[PACING_GAIN_NOW]
    if gain == UNIT:
        go_on = full_length
    else:
        in_flight = _packets_in_net_at_edt(net, tp, rs.prior_in_flight)
        if gain > UNIT:
            go_on = full_length and (rs.losses > 0 or in_flight >= _inflight(tp, _bw(ca), gain))
        else:
            go_on = full_length or in_flight <= _inflight(tp, _bw(ca), UNIT)
    if go_on:
        _advance_cycle_phase(tp)


def _check_full_bw_reached(ca: list[int], rs: RateSample) -> None:
    """Startup ends where three round trips have not brought a quarter more (draft 4.3.2.1)."""
    if ca[FULL_BW_REACHED] or not ca[ROUND_START] or rs.is_app_limited:
        return
    if _bw(ca) >= ca[FULL_BW] * FULL_BW_THRESH >> 8:
        ca[FULL_BW] = _bw(ca)
        ca[FULL_BW_ROUNDS] = 0
        return
    ca[FULL_BW_ROUNDS] += 1
    ca[FULL_BW_REACHED] = int(ca[FULL_BW_ROUNDS] >= FULL_BW_CNT)


def _check_drain(net: TcpNet, tp: TcpSock) -> None:
    """Drain the queue that startup has built (draft 4.3.3)."""
    ca = tp.ca_priv
    if ca[MODE] == STARTUP and ca[FULL_BW_REACHED]:
        ca[MODE] = DRAIN
        tp.snd_ssthresh = _inflight(tp, _bw(ca), UNIT)
    if ca[MODE] == DRAIN and (
        _packets_in_net_at_edt(net, tp, _in_flight(tp)) <= _inflight(tp, _bw(ca), UNIT)
    ):
        _enter_probe_bw(net, tp)


# ---- what follows from the model -------------------------------------------------------------


def _in_flight(tp: TcpSock) -> int:
    return tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out


def _pacing_rate(tp: TcpSock, bw: int, gain: int) -> int:
    """B/s, a little below the path's rate, so that no queue grows of rounding alone."""
    rate = bw * tp.mss_cache * gain >> 8
    rate = rate * (1_000_000 // 100 * (100 - PACING_MARGIN_PERCENT)) >> BW_SCALE
    return min(rate, tp.max_pacing_rate)


def _init_pacing_rate_from_rtt(tp: TcpSock) -> None:
    """The first rate: cwnd per round trip, of which startup takes a multiple."""
    if tp.srtt_us:
        rtt_us = max(tp.srtt_us >> 3, 1)
        tp.ca_priv[HAS_SEEN_RTT] = 1
    else:
        rtt_us = 1000
    tp.pacing_rate = _pacing_rate(tp, tp.snd_cwnd * BW_UNIT // rtt_us, HIGH_GAIN)


def _set_pacing_rate(tp: TcpSock, bw: int, gain: int) -> None:
    """draft 4.2.1; while startup lasts the rate does not fall."""
    ca = tp.ca_priv
    if not ca[HAS_SEEN_RTT] and tp.srtt_us:
        _init_pacing_rate_from_rtt(tp)
    rate = _pacing_rate(tp, bw, gain)
    if ca[FULL_BW_REACHED] or rate > tp.pacing_rate:
        tp.pacing_rate = rate


def _tso_segs_goal(tp: TcpSock) -> int:
    """Segments of a super-segment at this rate (draft 4.2.2)."""
    size = min(tp.pacing_rate >> TCP_PACING_SHIFT, GSO_LEGACY_MAX_PAYLOAD)
    least = 1 if tp.pacing_rate < MIN_TSO_RATE >> 3 else 2
    return min(max(size // tp.mss_cache, least), 0x7F)


def _bdp(ca: list[int], bw: int, gain: int) -> int:
    if ca[MIN_RTT_US] < 0:
        return TCP_INIT_CWND
    return ((bw * ca[MIN_RTT_US] * gain >> 8) + BW_UNIT - 1) // BW_UNIT


def _quantization_budget(tp: TcpSock, cwnd: int) -> int:
    """Room for the super-segments at both ends, and for delayed ACKs (draft 4.2.3.2)."""
    ca = tp.ca_priv
    cwnd += 3 * _tso_segs_goal(tp)
    cwnd = (cwnd + 1) & ~1
    if ca[MODE] == PROBE_BW and not ca[CYCLE_IDX]:
        cwnd += 2
    return cwnd


def _inflight(tp: TcpSock, bw: int, gain: int) -> int:
    return _quantization_budget(tp, _bdp(tp.ca_priv, bw, gain))


def _packets_in_net_at_edt(net: TcpNet, tp: TcpSock, in_flight: int) -> int:
    """What will be in flight when pacing lets the next super-segment go."""
    ca = tp.ca_priv
    wait = max(tp.pacing_wstamp - net.now, 0) // 1000
    delivered = _bw(ca) * wait >> BW_SCALE
    if ca[PACING_GAIN_NOW] > UNIT:
        in_flight += _tso_segs_goal(tp)
    return max(in_flight - delivered, 0)


def _ack_aggregation_cwnd(ca: list[int], bw: int) -> int:
    if not ca[FULL_BW_REACHED]:
        return 0
    most = bw * EXTRA_ACKED_MAX_US >> BW_SCALE
    return min(max(ca[EXTRA_ACKED], ca[EXTRA_ACKED_OLD]), most)


def _save_cwnd(tp: TcpSock) -> None:
    """Remember cwnd before recovery or PROBE_RTT shrinks it."""
    ca = tp.ca_priv
    if ca[PREV_CA_STATE] < TCP_CA_RECOVERY and ca[MODE] != PROBE_RTT:
        ca[PRIOR_CWND] = tp.snd_cwnd
    else:
        ca[PRIOR_CWND] = max(ca[PRIOR_CWND], tp.snd_cwnd)


def _recover_or_restore(tp: TcpSock, rs: RateSample, acked: int) -> tuple[bool, int]:
    """(is that all, cwnd): in the first round trip of a recovery as much goes out as was delivered.
    After recovery cwnd is again as before (draft 4.2.3.4)."""
    ca = tp.ca_priv
    cwnd = tp.snd_cwnd
    before, state = ca[PREV_CA_STATE], tp.ca_state
    if rs.losses > 0:
        cwnd = max(cwnd - rs.losses, 1)
    if state == TCP_CA_RECOVERY and before != TCP_CA_RECOVERY:
        ca[PACKET_CONSERVATION] = 1
        ca[NEXT_RTT_DELIVERED] = tp.delivered
        cwnd = _in_flight(tp) + acked
    elif before >= TCP_CA_RECOVERY and state < TCP_CA_RECOVERY:
        cwnd = max(cwnd, ca[PRIOR_CWND])
        ca[PACKET_CONSERVATION] = 0
    ca[PREV_CA_STATE] = state
    if ca[PACKET_CONSERVATION]:
        return True, max(cwnd, _in_flight(tp) + acked)
    return False, cwnd


def _set_cwnd(tp: TcpSock, rs: RateSample, acked: int, bw: int, gain: int) -> None:
    """draft 4.2.3"""
    ca = tp.ca_priv
    cwnd = tp.snd_cwnd
    if acked > 0:
        done, cwnd = _recover_or_restore(tp, rs, acked)
        if not done:
            target = _bdp(ca, bw, gain) + _ack_aggregation_cwnd(ca, bw)
            target = _quantization_budget(tp, target)
            if ca[FULL_BW_REACHED]:
                cwnd = min(cwnd + acked, target)
            elif cwnd < target or tp.delivered < TCP_INIT_CWND:
                cwnd += acked
            cwnd = max(cwnd, CWND_MIN_TARGET)
    tp.snd_cwnd = min(cwnd, tp.snd_cwnd_clamp)
    if ca[MODE] == PROBE_RTT:
        tp.snd_cwnd = min(tp.snd_cwnd, CWND_MIN_TARGET)
