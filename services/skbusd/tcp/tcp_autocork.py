# SPDX-License-Identifier: MIT
"""Automatic corking (`tcp_should_autocork` and `tcp_push` of `net/ipv4/tcp.c`,
`net.ipv4.tcp_autocorking`): where waiting costs nothing, the end of a write that fills no segment
waits for the next.

Every layer works once for a super-segment, however short it is. A stream of writes that each left a
short one behind would cost twice. So while segments of a connection are under way, writes that came
together leave together, at the batch's end. And while as much as a whole super-segment, and 64 KB,
is under way, bytes that fill no other wait on, until one of these:

- the next write fills the segment;
- ACKs have come for all but less than a super-segment (`tcp_data_snd_check`);
- TCP_AUTOCORK_MAX has passed, where the peer is far away.

A socket with TCP_NODELAY does not wait on.

Differs from Linux, which waits until the device has sent all it has. Our device does not tell that;
an ACK does, a little later.
"""

from typing import Final

from skbus.core.net import MSEC
from skbus.core.seq import MASK
from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE
from skbus.core.timer import Timer
from skbusd.tcp.const import (
    FIN,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_NAGLE_OFF,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_output import tcp_send_skb
from skbusd.tcp.tcp_window import tcp_xmit_size_goal

TCP_AUTOCORK_MAX: Final = 5 * MSEC
"""ns that bytes wait at most."""


def tcp_should_autocork(net: TcpNet, tp: TcpSock) -> bool:
    """May unsent bytes wait: a segment that is not full, behind at least as much as a full one?"""
    queue = tp.write_queue
    if len(queue) != 1 or tp.nonagle & TCP_NAGLE_OFF or tp.urg_mode:
        return False
    seg = queue[0]
    if seg.eor or seg.flags & FIN:
        return False
    in_flight = (tp.snd_nxt - tp.snd_una) & MASK
    goal = tcp_xmit_size_goal(tp, tp.mss_cache)
    return ((seg.end_seq - seg.seq) & MASK) < goal <= in_flight >= GSO_LEGACY_MAX_SIZE


def tcp_push_corked(net: TcpNet) -> None:
    """At the batch's end, send the rest of its writes, or let that wait on."""
    corked, net.autocork = net.autocork, {}
    for tp, more in corked.items():
        if tcp_should_autocork(net, tp):
            seq = tp.write_queue[0].seq
            waiting = net.autocorked.get(tp)
            since = waiting[1] if waiting is not None and waiting[2] == seq else net.now
            net.autocorked[tp] = (more, since, seq)
            net.mib["TcpExtTCPAutoCorking"] += 1
            if net.tracing:
                net.trace("tcp_should_autocork", sk=tp.number, len=tp.write_queue[0].dlen())
            timer = net.autocork_timer
            if timer is None:
                timer = net.autocork_timer = Timer(tcp_autocork_timer)
            if timer.expires < 0:
                net.mod_timer(timer, net.now + TCP_AUTOCORK_MAX)
        else:
            net.autocorked.pop(tp, None)
            _push(net, tp, more)


def tcp_autocork_timer(net: TcpNet) -> None:
    """Send bytes that have waited for long enough."""
    first = net.now + TCP_AUTOCORK_MAX
    for tp, (more, since, _) in tuple(net.autocorked.items()):
        until = since + TCP_AUTOCORK_MAX
        if until <= net.now:
            del net.autocorked[tp]
            _push(net, tp, more)
        elif until < first:
            first = until
    if net.autocorked:
        assert net.autocork_timer is not None
        net.mod_timer(net.autocork_timer, first)


def _push(net: TcpNet, tp: TcpSock, more: bool) -> None:
    if tp.state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) or tp.fastopen_rsk is not None:
        tcp_send_skb(net, tp, more)
