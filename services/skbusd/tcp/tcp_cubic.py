# SPDX-License-Identifier: MIT
"""CUBIC (RFC 9438) with HyStart++ (RFC 9406): the default congestion control
(`net/ipv4/tcp_cubic.c`).

Differs from Linux: slow start ends by HyStart++, by delay alone.
`net.ipv4.tcp_cubic_hystart_detect` asks for Linux's older HyStart: 1 is by ACK trains, 2 by delay,
3 by both. (In Linux it is a parameter of the module, as are `hystart` and `hystart_low_window`.)
While cwnd stands still, the target is computed anew once in 31 ms, as in Linux, but on a shorter
path once a round trip. On a path of 1 ms, 31 ms are thirty round trips.
"""

from typing import Final

from skbus.core.compiled import mypyc_attr
from skbus.core.seq import after
from skbusd.tcp.const import (
    CA_EVENT_TX_START,
    TCP_CA_LOSS,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import (
    TcpCongestionOps,
    tcp_cong_avoid_ai,
    tcp_is_cwnd_limited,
    tcp_slow_start,
)

BETA: Final = 717
"""Multiplicative decrease 0.7, of 1024 (RFC 9438 4.6)."""
BETA_SCALE: Final = 1024
C: Final = 0.4
"""RFC 9438 5"""
N_RTT_SAMPLE: Final = 8  # RFC 9406 4.3
MIN_RTT_THRESH_US: Final = 4_000
MAX_RTT_THRESH_US: Final = 16_000
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5
HYSTART_ACK_TRAIN: Final = 1
HYSTART_DELAY: Final = 2
HYSTART_ACK_DELTA_US: Final = 2_000
"""ACKs that follow each other within this are a train."""

# Where things stand in tp.ca_priv
CNT: Final = 0  # segments to be acknowledged for one more of cwnd
LAST_MAX_CWND: Final = 1
LAST_TIME: Final = 2  # us
ORIGIN_POINT: Final = 3  # W_max of this epoch
K: Final = 4  # ms
DELAY_MIN: Final = 5  # us
EPOCH_START: Final = 6  # us; 0: no epoch
ACK_CNT: Final = 7
TCP_CWND: Final = 8  # what Reno would have
END_SEQ: Final = 9  # end of this round
CURR_RTT: Final = 10  # least of this round, us
LAST_ROUND_RTT: Final = 11
SAMPLE_CNT: Final = 12
CSS_ROUND: Final = 13  # rounds in conservative slow start; 0: ordinary slow start
CSS_BASELINE: Final = 14
CSS_ACKED: Final = 15
LAST_CWND: Final = 16
FOUND: Final = 17  # HyStart has ended slow start
ROUND_START: Final = 18  # us
LAST_ACK: Final = 19  # of a train, us
SIZE: Final = 20

UPDATE_US: Final = 31_250
"""HZ / 32"""
_INFINITE: Final = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpCubic(TcpCongestionOps):
    """CUBIC."""

    name = "cubic"

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        """Until something is acknowledged or lost, only the end of the first round is kept: many
        connections carry nothing for long."""
        tp.ca_priv = [tp.snd_nxt]

    def _begin(self, tp: TcpSock) -> list[int]:
        end_seq = tp.ca_priv[0] if tp.ca_priv else tp.snd_nxt
        ca = tp.ca_priv = [0] * SIZE
        ca[END_SEQ] = end_seq
        ca[CURR_RTT] = ca[LAST_ROUND_RTT] = _INFINITE
        return ca

    def ssthresh(self, net: TcpNet, tp: TcpSock) -> int:
        """RFC 9438 4.6, with fast convergence (4.7)."""
        ca = tp.ca_priv
        if len(ca) != SIZE:
            ca = self._begin(tp)
        ca[EPOCH_START] = 0
        cwnd = tp.snd_cwnd
        if cwnd < ca[LAST_MAX_CWND]:
            ca[LAST_MAX_CWND] = cwnd * (BETA_SCALE + BETA) // (2 * BETA_SCALE)
        else:
            ca[LAST_MAX_CWND] = cwnd
        return max(cwnd * BETA // BETA_SCALE, 2)

    def cong_avoid(self, net: TcpNet, tp: TcpSock, ack: int, acked: int) -> None:
        if not tcp_is_cwnd_limited(tp):
            return
        ca = tp.ca_priv
        if len(ca) != SIZE:
            ca = self._begin(tp)
        if tp.snd_cwnd < tp.snd_ssthresh:
            if ca[CSS_ROUND]:
                ca[CSS_ACKED] += acked
                acked, ca[CSS_ACKED] = divmod(ca[CSS_ACKED], CSS_GROWTH_DIVISOR)
            acked = tcp_slow_start(tp, acked)
            if not acked:
                return
        self._update(net, tp, acked)
        tcp_cong_avoid_ai(tp, ca[CNT], acked)

    def _update(self, net: TcpNet, tp: TcpSock, acked: int) -> None:
        """RFC 9438 4.2 to 4.4: the number of acknowledged segments by which cwnd grows by one."""
        ca = tp.ca_priv
        now = net.now // 1000
        cwnd = tp.snd_cwnd
        ca[ACK_CNT] += acked
        if ca[LAST_CWND] == cwnd and now - ca[LAST_TIME] <= min(UPDATE_US, tp.srtt_us >> 3):
            return
        ca[LAST_CWND] = cwnd
        if not (ca[EPOCH_START] and now == ca[LAST_TIME]):
            ca[LAST_TIME] = now
            if not ca[EPOCH_START]:
                ca[EPOCH_START] = now
                ca[ACK_CNT] = acked
                ca[TCP_CWND] = cwnd
                if ca[LAST_MAX_CWND] <= cwnd:
                    ca[K] = 0
                    ca[ORIGIN_POINT] = cwnd
                else:
                    ca[K] = round(((ca[LAST_MAX_CWND] - cwnd) / C) ** (1 / 3) * 1000)
                    ca[ORIGIN_POINT] = ca[LAST_MAX_CWND]
            t = (now + ca[DELAY_MIN] - ca[EPOCH_START]) / 1000
            target = ca[ORIGIN_POINT] + int(C * ((t - ca[K]) / 1000) ** 3)
            ca[CNT] = cwnd // (target - cwnd) if target > cwnd else 100 * cwnd
            if not ca[LAST_MAX_CWND] and ca[CNT] > 20:
                ca[CNT] = 20
        # The window that Reno would have with the same mean loss (RFC 9438 4.3)
        delta = max(cwnd * (BETA_SCALE + BETA) // (3 * (BETA_SCALE - BETA)), 1)
        if ca[ACK_CNT] > delta:
            more, ca[ACK_CNT] = divmod(ca[ACK_CNT], delta)
            ca[TCP_CWND] += more
        if ca[TCP_CWND] > cwnd:
            ca[CNT] = min(ca[CNT], cwnd // (ca[TCP_CWND] - cwnd))
        ca[CNT] = max(ca[CNT], 2)

    def set_state(self, net: TcpNet, tp: TcpSock, state: int) -> None:
        if state == TCP_CA_LOSS:
            tp.ca_priv[:] = [0] * SIZE
            self._round(tp)
            tp.ca_priv[LAST_ROUND_RTT] = _INFINITE

    def cwnd_event(self, net: TcpNet, tp: TcpSock, event: int) -> None:
        """After idle the epoch goes on where it stood: cwnd does not grow for the idle time."""
        if event == CA_EVENT_TX_START:
            ca = tp.ca_priv
            now = net.now // 1000
            idle = now - tp.lsndtime
            if len(ca) == SIZE and ca[EPOCH_START] and idle > 0:
                ca[EPOCH_START] = min(ca[EPOCH_START] + idle, now)

    def pkts_acked(self, net: TcpNet, tp: TcpSock, pkts_acked: int, rtt_us: int) -> None:
        ca = tp.ca_priv
        if rtt_us < 0 or not ca:  # nothing was measured, or it is the SYN: not begun yet
            return
        if len(ca) != SIZE:
            ca = self._begin(tp)
        if ca[EPOCH_START] and net.now // 1000 - ca[EPOCH_START] < 1_000_000:
            return  # the queue that the loss left is still draining
        rtt_us = max(rtt_us, 1)
        if not ca[DELAY_MIN] or ca[DELAY_MIN] > rtt_us:
            ca[DELAY_MIN] = rtt_us
        if tp.snd_cwnd < tp.snd_ssthresh:
            detect = net.ipv4.sysctl_tcp_cubic_hystart_detect
            if detect and after(tp.snd_una, ca[END_SEQ]):
                self._round(tp)
                ca[ROUND_START] = ca[LAST_ACK] = net.now // 1000
            if (
                net.ipv4.sysctl_tcp_cubic_hystart
                and tp.snd_cwnd >= net.ipv4.sysctl_tcp_cubic_hystart_low_window
            ):
                if not detect:
                    self._hystart(net, tp, rtt_us)
                elif not ca[FOUND]:
                    self._hystart_update(net, tp, rtt_us, detect)

    def _round(self, tp: TcpSock) -> None:
        """A round begins; it ends when all that is sent by now is acknowledged."""
        ca = tp.ca_priv
        ca[END_SEQ] = tp.snd_nxt
        ca[LAST_ROUND_RTT] = ca[CURR_RTT] or _INFINITE
        ca[CURR_RTT] = _INFINITE
        ca[SAMPLE_CNT] = 0

    def _hystart(self, net: TcpNet, tp: TcpSock, rtt_us: int) -> None:
        """HyStart++ (RFC 9406 4.2): leave slow start when a round's RTT has risen. A few rounds of
        slower growth come first, which can still show that it was jitter."""
        ca = tp.ca_priv
        if not after(ca[END_SEQ], tp.snd_una):
            self._round(tp)
            if ca[CSS_ROUND]:
                ca[CSS_ROUND] += 1
                if ca[CSS_ROUND] > CSS_ROUNDS:
                    tp.snd_ssthresh = tp.snd_cwnd
                    ca[CSS_ROUND] = 0
                    return
        if rtt_us < ca[CURR_RTT]:
            ca[CURR_RTT] = rtt_us
        ca[SAMPLE_CNT] += 1
        if ca[SAMPLE_CNT] < N_RTT_SAMPLE or ca[LAST_ROUND_RTT] == _INFINITE:
            return
        if ca[CSS_ROUND]:
            if ca[CURR_RTT] < ca[CSS_BASELINE]:
                ca[CSS_ROUND] = 0
            return
        last = ca[LAST_ROUND_RTT]
        threshold = max(MIN_RTT_THRESH_US, min(last >> 3, MAX_RTT_THRESH_US))
        if ca[CURR_RTT] >= last + threshold:
            ca[CSS_ROUND] = 1
            ca[CSS_BASELINE] = ca[CURR_RTT]
            ca[CSS_ACKED] = 0
            net.mib["TcpExtTCPHystartDelayDetect"] += 1
            net.mib["TcpExtTCPHystartDelayCwnd"] += tp.snd_cwnd

    def _hystart_update(self, net: TcpNet, tp: TcpSock, rtt_us: int, detect: int) -> None:
        """HyStart, as in Linux: leave slow start at once, by one of two signs. ACKs without a gap
        have gone on for half of the least round trip. Or a round has more than N_RTT_SAMPLE
        samples, and all exceed that by about an eighth."""
        ca = tp.ca_priv
        now = net.now // 1000
        if detect & HYSTART_ACK_TRAIN and now - ca[LAST_ACK] <= HYSTART_ACK_DELTA_US:
            ca[LAST_ACK] = now
            threshold = ca[DELAY_MIN] + _ack_delay(tp)
            if not tp.pacing_status:
                threshold >>= 1
            if now - ca[ROUND_START] > threshold:
                self._found(net, tp, "Train")
                return
        if detect & HYSTART_DELAY:
            if rtt_us < ca[CURR_RTT]:
                ca[CURR_RTT] = rtt_us
            ca[SAMPLE_CNT] += 1
            least = ca[DELAY_MIN]
            threshold = max(MIN_RTT_THRESH_US, min(least >> 3, MAX_RTT_THRESH_US))
            if ca[SAMPLE_CNT] > N_RTT_SAMPLE and ca[CURR_RTT] > least + threshold:
                self._found(net, tp, "Delay")

    def _found(self, net: TcpNet, tp: TcpSock, how: str) -> None:
        tp.ca_priv[FOUND] = 1
        tp.snd_ssthresh = tp.snd_cwnd
        net.mib[f"TcpExtTCPHystart{how}Detect"] += 1
        net.mib[f"TcpExtTCPHystart{how}Cwnd"] += tp.snd_cwnd


def _ack_delay(tp: TcpSock) -> int:
    """`hystart_ack_delay`: the time that the peer's and our aggregation may add, us."""
    rate = tp.pacing_rate
    return min(1000, (tp.gso_max_size or 65536) * 4_000_000 // rate) if rate else 0
