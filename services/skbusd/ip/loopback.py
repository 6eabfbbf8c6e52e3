# SPDX-License-Identifier: MIT
"""The loopback device (`drivers/net/loopback.c`): packets to this host itself come in again.

The one device without a driver process. `ip_finish_output2` calls `loopback_xmit`, which queues the
packet by `dev.netif_rx`. So a packet never leaves this process, nor is it received within the call
that sent it. `devinet_init` calls `loopback_net_init`. RFC 1122 3.2.1.3 (g).
"""

from typing import Final

from skbus.core.pskb import skb_orphan_frags
from skbus.core.skbuff import PACKET_HOST, SkBuff
from skbus.inet.headers.ethernet import ETH_HLEN
from skbus.inet.udp_offload import batch_count
from skbusd.ip.dev import netif_rx
from skbusd.ip.netns import LOOPBACK_MTU, IpNet, NetDevice

LOOPBACK_IFINDEX: Final = 1
"""The number of lo in every Linux network namespace."""


def loopback_net_init(net: IpNet) -> NetDevice:
    """`loopback_net_init`: the namespace gets its lo."""
    lo = net.loopback_dev
    lo.ifindex = LOOPBACK_IFINDEX
    lo.mtu = LOOPBACK_MTU
    lo.registered = True
    net.devices[lo.name] = lo
    net.dev_by_index[lo.ifindex] = lo
    return lo


def loopback_net_exit(net: IpNet) -> None:
    """Undo `loopback_net_init`. (The tables of devices are devinet's to clear.)"""
    net.loopback_dev = NetDevice("lo", "", loopback=True)


def loopback_xmit(net: IpNet, skb: SkBuff, iif: int) -> None:
    """`loopback_xmit`: send on lo, which is to receive on it.

    iif: the device by which sockets see the packet come (`inet_iif`); 0 for lo. The payload of a
    lent skb is copied: its owner may have it back before it has been read.
    """
    if net.tracing:
        net.trace("loopback_xmit", skb)
    if not skb_orphan_frags(net, skb):
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    lo = net.loopback_dev
    mib = net.mib
    segs, octets = batch_count(skb) if skb.gso_type else (1, 0)
    size = skb.len + octets + ETH_HLEN * segs
    mib["DevTxPackets"] += segs
    mib["DevTxBytes"] += size
    mib["DevRxPackets"] += segs
    mib["DevRxBytes"] += size
    skb.dev = lo.ifindex
    skb.skb_iif = iif or lo.ifindex
    skb.pkt_type = PACKET_HOST
    netif_rx(net, skb)
