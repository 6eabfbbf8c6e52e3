# SPDX-License-Identifier: MIT
"""Raw sockets (`net/ipv4/raw.c`): the place where they get their copies of what is delivered."""

from skbus.headers.ipv4 import IpHdr
from skbus.skbuff import SkBuff
from skbusd.ip.netns import IpNet


def raw_local_deliver(net: IpNet, skb: SkBuff, iph: IpHdr) -> bool:
    """Copies for every raw socket of this protocol: none so far, as no process registers any.

    The skb stays the caller's.
    """
    return False
