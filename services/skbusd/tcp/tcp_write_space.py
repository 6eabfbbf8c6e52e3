# SPDX-License-Identifier: MIT
"""`tcp_new_space` and `sk_write_space` across the border: reports to the socket layer on a write
queue, once segments are acknowledged.

tcp_ack and tcp_data enter a socket into `net.write_space`. The core reports at the end of each
batch, or when a socket ends before that.
"""

from typing import Final

from skbus.core.abi import SkWriteSpace
from skbus.core.interfaces import SkCallbacks
from skbus.core.seq import MASK
from skbusd.tcp.const import FIN, TCP_SYN_RECV, TCP_SYN_SENT
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_window import tcp_current_mss, tcp_xmit_size_goal

_new: Final = tuple.__new__
"""Makes a NamedTuple in half the time, without the `__new__` that Python writes for it."""
MERGE_FRAGS: Final = 256
"""A queued segment is closed when it has so many pieces."""


def tcp_write_report(net: TcpNet, tp: TcpSock) -> SkWriteSpace:
    """The state of the write queue, for a socket layer that counts by segments: the unsent bytes,
    and the room in the last segment. `tcp_sendmsg` fills that before another begins."""
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
    """Tell the socket layer of bytes acknowledged in this batch."""
    for tp in net.write_space.values():
        if tp.report and not tp.dead:
            net.call("socket", SkCallbacks.sk_write_space, tcp_write_report(net, tp))
        elif tp.wspace > 0 or not tp.dead:
            sndbuf = -tp.sndbuf if net.tcp_memory_pressure else tp.sndbuf
            item = _new(SkWriteSpace, (tp.number, tp.wspace, sndbuf, -1, 0, 0, 0))
            net.call("socket", SkCallbacks.sk_write_space, item)
        tp.wspace = 0
    net.write_space.clear()
