# SPDX-License-Identifier: MIT
"""Multicast group membership (`net/ipv4/igmp.c`): so far 224.0.0.1 alone, which no host reports
(RFC 2236 6)."""

from skbus.headers.ipv4 import IpHdr
from skbus.skbuff import SkBuff
from skbusd.ip.netns import IpNet


def igmp_rcv(net: IpNet, skb: SkBuff, iph: IpHdr) -> None:
    """A query or report: nothing to answer while no group but all-hosts is joined."""
    if net.tracing:
        net.trace("igmp_rcv", skb, saddr=iph.saddr)
    net.consume_skb(skb)
