# SPDX-License-Identifier: MIT
"""Pacing (the internal pacing of `net/ipv4/tcp_output.c`): what a socket sends goes out at
`pacing_rate`, not in bursts.

Every congestion control has a rate (`tcp_update_pacing_rate`), which sizes super-segments; it
holds a socket back only where BBR or SO_MAX_PACING_RATE asked for that (`pacing_status`). After
each super-segment `pacing_wstamp` says when the next may go; until then tcp_write_xmit and
tcp_xmit_retransmit_queue stop, and a timer brings them back (`tcp_pace_kick`).

The same clock limits how much of any socket waits below tcp (`tcp_small_queue_check`,
`net.ipv4.tcp_limit_output_bytes`), so that one that bursts does not fill the pipes for others.

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
    """us until the next segment may go: timers that wait for its ACK wait so much longer."""
    return max(tp.pacing_wstamp - net.now, 0) // 1000 if tp.pacing_status else 0


def tcp_update_skb_after_send(net: TcpNet, tp: TcpSock, size: int) -> None:
    """`size` bytes went out: when may the next go? Where the timer was late the time lost is
    made up for, but at most half of it for each super-segment."""
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

    Differs from Linux: nobody tells us what has left the device; docs/tried.md has what
    that would cost. It is taken to leave at the pacing rate, and what is acknowledged has left.
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
