# SPDX-License-Identifier: MIT
"""`tcp_new_space` and `sk_write_space` across the border: what the socket layer hears of a write
queue once segments are acknowledged.

tcp_ack and tcp_data enter a socket into `net.write_space`. The core tells the socket layer at the
end of each batch; a socket that ends in mid-batch is told of before.
"""

from typing import Final

from skbus.core.abi import SkWriteSpace
from skbus.core.interfaces import SkCallbacks
from skbus.core.seq import MASK
from skbusd.tcp.const import FIN, TCP_SYN_RECV, TCP_SYN_SENT
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_window import tcp_current_mss, tcp_xmit_size_goal

MERGE_FRAGS: Final = 256
"""A queued segment is closed when it has so many pieces."""


def tcp_write_report(net: TcpNet, tp: TcpSock) -> SkWriteSpace:
    """What the write queue looks like, for a socket layer that keeps to the segment: how much its
    last segment still takes (`tcp_sendmsg` fills it before another begins), and what is unsent."""
    goal = tcp_xmit_size_goal(tp, tcp_current_mss(net, tp))
    queue = tp.write_queue
    room = 0
    syn = tp.state in (TCP_SYN_SENT, TCP_SYN_RECV)
    if queue:
        seg = queue[-1]
        if not seg.eor and not seg.flags & FIN and len(seg.frags) < MERGE_FRAGS:
            room = max(goal - ((seg.end_seq - seg.seq) & MASK), 0)
    return SkWriteSpace(
        tp.number,
        tp.wspace,
        tp.sndbuf,
        (tp.write_seq - tp.snd_una - syn) & MASK,
        (tp.write_seq - tp.snd_nxt) & MASK,
        room,
        goal,
    )


def tcp_flush_write_space(net: TcpNet) -> None:
    """Tell the socket layer what was acknowledged in this batch."""
    for tp in net.write_space.values():
        if tp.report and not tp.dead:
            net.call("socket", SkCallbacks.sk_write_space, tcp_write_report(net, tp))
        elif tp.wspace > 0 or not tp.dead:
            sndbuf = -tp.sndbuf if net.tcp_memory_pressure else tp.sndbuf
            net.call(
                "socket", SkCallbacks.sk_write_space, SkWriteSpace(tp.number, tp.wspace, sndbuf)
            )
        tp.wspace = 0
    net.write_space.clear()
