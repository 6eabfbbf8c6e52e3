# SPDX-License-Identifier: MIT
"""A SYN flood must not fill the pipes (RFC 4987 3): nic lets no more SYNs up than are answered.

The kernel drops what its backlog cannot take (`net.core.netdev_max_backlog`), wherever it comes
from. Here a packet crosses two pipes, which hold seconds of work, and a flood would make all other
packets wait behind it. So nic remembers the SYNs that went up until their answer comes down
(SYN-ACK or RST): while `SYN_BACKLOG` have none, further SYNs are dropped (CPU_BACKLOG), before
they have cost much. Segments of connections are not concerned; who opens one repeats its SYN.

Called by dev.napi_poll and dev.dev_hard_start_xmit, with the frame. Differs from Linux: there is no
such thing.
"""

from typing import Final

from skbus.headers import Buffer
from skbus.net import SEC
from skbusd.nic.netdev import NicNet

SYN_BACKLOG: Final = 2048
"""As many SYNs as all layers get through in a fraction of a second."""
FORGET: Final = 2 * SEC
"""A SYN without an answer for so long was dropped on the way."""
SYN_FRAME_MAX: Final = 94
"""Ethernet, IP, TCP and 40 bytes of options."""
FLAGS_AT: Final = 47
"""Of TCP's flags in an Ethernet frame whose IP header has no options."""
IPV4_TCP: Final = b"\x08\x00\x45"
SYN: Final = 2
RST: Final = 4
FLAGS: Final = 0x3F


def syn_refused(net: NicNet, frame: Buffer) -> bool:
    """A short frame with the flags of a SYN has come: is it one too many? Then it is dropped, and
    counted."""
    if bytes(frame[12:15]) != IPV4_TCP or frame[23] != 6:
        return False
    waiting = net.syn_backlog
    key = bytes(frame[26:38])  # addresses and ports
    if len(waiting) >= SYN_BACKLOG and key not in waiting:
        oldest = next(iter(waiting))
        if net.now - waiting[oldest] < FORGET:
            net.mib["DevRxDropped"] += 1
            name = "SKB_DROP_REASON_CPU_BACKLOG"
            net.drops[name] = net.drops.get(name, 0) + 1
            net.skb_born += 1
            net.skb_dropped += 1
            return True
        del waiting[oldest]
    waiting[key] = net.now
    return False


def syn_answered(net: NicNet, head: bytes, data: int) -> None:
    """A frame without payload goes out while SYNs have no answer: is it one?"""
    if len(head) - data > FLAGS_AT and head[data + FLAGS_AT] & (SYN | RST):
        key = head[data + 30 : data + 34] + head[data + 26 : data + 30]
        key += head[data + 36 : data + 38] + head[data + 34 : data + 36]
        net.syn_backlog.pop(key, None)
