# SPDX-License-Identifier: MIT
"""Pacing (the internal pacing of `net/ipv4/tcp_output.c`): a socket's data goes out at
`pacing_rate`, not in bursts.

Every congestion control has a rate (`tcp_update_pacing_rate`), which sizes super-segments. The rate
delays data only where BBR or SO_MAX_PACING_RATE asks for that (`pacing_status`). After each
super-segment `pacing_wstamp` says when the next may go; until then tcp_write_xmit and
tcp_xmit_retransmit_queue stop, and a timer brings them back (`tcp_pace_kick`).

The same clock limits each socket's bytes that wait below tcp (`tcp_small_queue_check`,
`net.ipv4.tcp_limit_output_bytes`), so that one socket's burst does not block the others.

Called by tcp_output and tcp_retransmit. Rates are B/s, times ns.
"""

from typing import Final

from skbus.core.timer import Timer
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock

SK_PACING_NONE: Final = 0
SK_PACING_NEEDED: Final = 1
NO_LIMIT: Final = 2**64 - 1
"""`sk_max_pacing_rate` where nobody has set one."""
TCP_PACING_SHIFT: Final = 10
"""`sk_pacing_shift`: a super-segment is 2^-10 s at the pacing rate."""
UNPACED_SEGS: Final = 10
"""The first segments of a connection go at once: the initial window is a burst by design."""


def tcp_pacing_check(net: TcpNet, tp: TcpSock) -> bool:
    """Is it too early? Then the timer is armed."""
    if tp.pacing_wstamp <= net.now:
        return False
    timer = tp.pacing_timer
    if timer is None:
        timer = tp.pacing_timer = Timer(net.tcp_pace_kick, tp.number)
    if timer.expires < 0:
        net.mod_timer(timer, tp.pacing_wstamp)
    return True


def tcp_pacing_delay(net: TcpNet, tp: TcpSock) -> int:
    """us until the next segment may go: timers for its ACK run so much longer."""
    return max(tp.pacing_wstamp - net.now, 0) // 1000 if tp.pacing_status else 0


def tcp_update_skb_after_send(net: TcpNet, tp: TcpSock, size: int) -> None:
    """`size` bytes went out: when may the next go? Time that a late timer lost is made up for, by
    at most half of each super-segment's time."""
    now = net.now
    prior = tp.pacing_wstamp
    wstamp = max(prior, now)
    rate = tp.pacing_rate
    if rate and tp.data_segs_out >= UNPACED_SEGS:
        length = size * 1_000_000_000 // rate
        length -= min(length >> 1, wstamp - prior)
        wstamp += length
    tp.pacing_wstamp = wstamp


def tcp_small_queue_check(net: TcpNet, tp: TcpSock, limit: int) -> bool:
    """More than `limit` bytes were handed down: have they left? If not, wait for the timer.

    Differs from Linux: no device tells us which bytes have left (docs/tried.md has the cost of
    that). We assume that they leave at the pacing rate, and that acknowledged ones have left.
    """
    now = net.now
    rate = tp.pacing_rate
    in_flight = (tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out) * tp.mss_cache
    queued = min(tp.tsq_bytes - (now - tp.tsq_stamp) * rate // 1_000_000_000, in_flight)
    tp.tsq_stamp = now
    tp.tsq_bytes = max(queued, 0)
    if queued <= limit or not rate:
        return False
    timer = tp.pacing_timer
    if timer is None:
        timer = tp.pacing_timer = Timer(net.tcp_pace_kick, tp.number)
    if timer.expires < 0:
        net.mod_timer(timer, now + (queued - limit) * 1_000_000_000 // rate)
    return True
