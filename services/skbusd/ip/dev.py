# SPDX-License-Identifier: MIT
"""The device layer as ip needs it (`net/core/dev.c`): the table of packet types, and the queue of
packets from this host to itself.

`inet_init` and arp register their packet types here. The drivers are told, and look up the frames
that they receive (`nic/dev.py`). `loopback_xmit` and `dev_loopback_xmit` queue packets, and
`process_backlog` looks those up.
"""

import errno
from collections.abc import Callable
from typing import Final

from skbus.core.abi import PacketType
from skbus.core.entry import SkbEntry
from skbus.core.interfaces import Netif
from skbus.core.pskb import skb_orphan_frags
from skbus.core.skbuff import CHECKSUM_NONE, CHECKSUM_UNNECESSARY, PACKET_LOOPBACK, SkBuff
from skbus.core.syscall import SysCallError
from skbusd.ip.netns import IpNet, IpPacketType

_MAX_BACKLOG: Final = 1000
"""Most packets on the loopback (`netdev_max_backlog`)."""

# ---- packet types ------------------------------------------------------------------------


def dev_add_pack(
    net: IpNet, type: int, entry: SkbEntry[None], func: Callable[[IpNet, SkBuff], None]
) -> None:
    """`dev_add_pack`: `func` takes the frames of an Ethernet type. Every driver is told of its
    `entry`; a driver that registers later is told then. EEXIST where the type is taken."""
    if type in net.ptype_base:
        raise SysCallError(errno.EEXIST, f"Ethernet type {type:#06x} is taken")
    net.ptype_base[type] = IpPacketType(entry, func)
    for dev in net.dev_by_index.values():
        if not dev.loopback:
            net.call(dev.process, Netif.dev_add_pack, PacketType(type, net.name, entry.name))


def dev_remove_pack(net: IpNet, type: int) -> None:
    """`dev_remove_pack`"""
    ptype = net.ptype_base.pop(type, None)
    if ptype is None:
        return
    for dev in net.dev_by_index.values():
        if not dev.loopback:
            net.call(
                dev.process, Netif.dev_remove_pack, PacketType(type, net.name, ptype.entry.name)
            )


# ---- packets to ourselves ----------------------------------------------------------------


def dev_loopback_xmit(net: IpNet, skb: SkBuff) -> None:
    """`dev_loopback_xmit`: our own copy of a multicast or broadcast. skb is a clone; its dev is the
    device that the original leaves by, and the copy comes in as if received there."""
    skb.pkt_type = PACKET_LOOPBACK
    if skb_orphan_frags(net, skb):
        netif_rx(net, skb)
    else:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")


def netif_rx(net: IpNet, skb: SkBuff) -> None:
    """`netif_rx`: queue a packet, to be received after the present one and not within its call."""
    if len(net.backlog) >= _MAX_BACKLOG:
        net.kfree_skb(skb, "CPU_BACKLOG")
        return
    if skb.ip_summed == CHECKSUM_NONE:
        skb.ip_summed = CHECKSUM_UNNECESSARY
    skb.mac_header = -1
    skb.data = skb.network_header
    net.backlog.append(skb)
    if not net.in_backlog:
        process_backlog(net)


def process_backlog(net: IpNet) -> None:
    """`process_backlog`: each queued packet goes to the function of its type (`ip_rcv`). Packets
    that this function sends to this host join the queue."""
    net.in_backlog = True
    try:
        while net.backlog:
            skb = net.backlog.popleft()
            ptype = net.ptype_base.get(skb.protocol)
            if ptype is None:
                net.kfree_skb(skb, "UNHANDLED_PROTO", protocol=skb.protocol)
            else:
                ptype.func(net, skb)
    finally:
        net.in_backlog = False
