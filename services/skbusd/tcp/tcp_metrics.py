# SPDX-License-Identifier: MIT
"""A host's Fast Open cookie and MSS, remembered between connections (`net/ipv4/tcp_metrics.c`; RFC
7413 4.1.3).

Called by tcp_fastopen (cookies) and tcp_input (a SYN-ACK brings one).
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from skbusd.tcp.netns import TcpNet

TCP_METRICS_MAX: Final = 4096
"""Hosts that are remembered; the least recently used goes first."""


class TcpFastopenMetrics:
    """`struct tcp_fastopen_metrics`: what one of our addresses knows of one of theirs."""

    __slots__ = ("cookie", "exp", "last_syn_loss", "mss", "syn_loss", "try_exp")

    def __init__(self) -> None:
        self.mss = 0
        self.cookie = b""
        self.exp = False
        """The cookie came in the experimental option, and goes back in it (RFC 6994)."""
        self.try_exp = 0
        """1: the next request tries the experimental option; 2: that was also in vain."""
        self.syn_loss = 0
        """SYNs with data that were lost in a row."""
        self.last_syn_loss = 0


TcpMetrics = OrderedDict[tuple[bytes, bytes], TcpFastopenMetrics]


def tcp_fastopen_cache_get(net: "TcpNet", saddr: bytes, daddr: bytes) -> tuple[int, bytes, bool]:
    """(mss or 0, cookie or b'', in the experimental option?) for a SYN to daddr."""
    tm = net.tcp_metrics.get((saddr, daddr))
    if tm is None:
        return 0, b"", False
    return tm.mss, tm.cookie, tm.exp if tm.cookie else tm.try_exp == 1


def tcp_fastopen_cache_set(
    net: "TcpNet",
    saddr: bytes,
    daddr: bytes,
    mss: int,
    cookie: bytes | None,
    exp: bool,
    syn_lost: bool,
    try_exp: int,
) -> None:
    """Remember a SYN-ACK's MSS and cookie. cookie None or empty: it brought none."""
    metrics = net.tcp_metrics
    tm = metrics.setdefault((saddr, daddr), TcpFastopenMetrics())
    metrics.move_to_end((saddr, daddr))
    if len(metrics) > TCP_METRICS_MAX:
        metrics.popitem(last=False)
    if mss:
        tm.mss = mss
    if cookie:
        tm.cookie, tm.exp = cookie, exp
    elif try_exp > tm.try_exp and not tm.cookie and not tm.exp:
        tm.try_exp = try_exp
    if syn_lost:
        tm.syn_loss += 1
        tm.last_syn_loss = net.now
    else:
        tm.syn_loss = 0
