# SPDX-License-Identifier: MIT
"""Ping sockets (`net/ipv4/ping.c`): where echo replies and errors about echoes go.

No process has ping sockets so far, so a reply is nobody's.
"""

from skbus.headers.icmp import IcmpHdr
from skbus.headers.ipv4 import IpHdr
from skbus.skbuff import SkBuff
from skbusd.ip.netns import IpNet


def ping_rcv(net: IpNet, skb: SkBuff, iph: IpHdr, hdr: IcmpHdr) -> None:
    """An echo reply."""
    if net.tracing:
        net.trace("ping_rcv", skb, id=hdr.id, sequence=hdr.sequence)
    net.consume_skb(skb)


def ping_err(net: IpNet, inner: IpHdr, payload: bytes, hdr: IcmpHdr, info: int) -> None:
    """An error about an ICMP message of ours."""
    if net.tracing:
        net.trace("ping_err", daddr=inner.daddr, type=hdr.type, code=hdr.code, info=info)
