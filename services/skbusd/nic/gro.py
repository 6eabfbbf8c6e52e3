# SPDX-License-Identifier: MIT
"""Generic receive offload (`net/core/gro.c`): frames of one flow in one batch become one skb, so
that all later layers work once for many frames. Nothing waits longer than its batch.

The functions that may claim a frame on its way up. The first that does ends its way:

    dev.napi_poll    reads it                                   (netdev.Device.recv)
      tcp_gro_next   continues the super-segment behind whose payload it was read
      syn_refused    drops one SYN too many                     (synlimit)
    dev._receive_frame
      netem_rx       puts it on the impaired link               (netem)
      gro_frame      joins it to a frame that its protocol's offload holds, without an skb
      napi_build_skb makes an skb of it                         (eth)
    napi_gro_receive
      gro_receive    joins the skb to a held one, holds it, or appends it to `deliver`
    dev.napi_complete, at the batch's end
      gro_flush      appends the held skbs to `deliver`
      netif_receive_skb

`INET_OFFLOADS` has the offloads by IP protocol, as Linux's `inet_offloads`: packets of other
protocols are passed on as they came. During tracing `gro_frame` is not asked, so that every frame
becomes an skb with a traceable way.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from skbus.core.skbuff import ETH_P_IP, Place, SkBuff
from skbus.inet.headers.ipv4 import IPPROTO_TCP, IPPROTO_UDP
from skbusd.nic.eth import Vnet
from skbusd.nic.frame import IP_PROTOCOL, L4
from skbusd.nic.netdev import NicNet
from skbusd.nic.tcp_gro import tcp4_gro_flush, tcp4_gro_frame, tcp4_gro_receive
from skbusd.nic.udp_gro import udp4_gro_flush, udp4_gro_frame, udp4_gro_receive


class NetOffload(NamedTuple):
    """`struct net_offload`: GRO's functions for one IP protocol."""

    gro_frame: Callable[
        [NicNet, memoryview, int, Vnet, Place | None, int, list[SkBuff]],
        bool,
    ]
    """(net, room, size, vnet, place, vlan_tci, deliver): the first `size` bytes of `room` are a
    frame; `place` names them if they lie in the pool. True if the frame has been joined to a held
    one, or to the last of `deliver`. False leaves it untouched, to become an skb. An offload
    compares all headers with those that it holds. So the caller need only check the byte that is
    the protocol in a plain frame."""
    gro_receive: Callable[[NicNet, SkBuff, list[SkBuff]], None]
    """(net, skb, deliver): owns the skb. It is joined, held, or appended to `deliver` behind skbs
    that it must not overtake."""
    gro_flush: Callable[[NicNet, list[SkBuff]], None]
    """(net, deliver): all that is held is completed (`gro_complete`) and appended."""


INET_OFFLOADS: Final[Mapping[int, NetOffload]] = {
    IPPROTO_TCP: NetOffload(tcp4_gro_frame, tcp4_gro_receive, tcp4_gro_flush),
    IPPROTO_UDP: NetOffload(udp4_gro_frame, udp4_gro_receive, udp4_gro_flush),
}
"""`inet_offloads`: by IP protocol."""


GRO_FRAME: Final = {protocol: offload.gro_frame for protocol, offload in INET_OFFLOADS.items()}
_GRO_RECEIVE: Final = {protocol: offload.gro_receive for protocol, offload in INET_OFFLOADS.items()}
_GRO_FLUSH: Final = tuple([offload.gro_flush for offload in INET_OFFLOADS.values()])
"""Columns of the table, which is looked into for each frame."""


def napi_gro_receive(net: NicNet, skb: SkBuff, deliver: list[SkBuff]) -> None:
    """`napi_gro_receive`, `inet_gro_receive`: the skb goes to the offload of its protocol, or to
    `deliver`."""
    if net.tracing:
        net.trace("napi_gro_receive", skb, len=skb.len, gso_size=skb.gso_size)
    head = skb.head
    if len(head) >= L4 and skb.protocol == ETH_P_IP:
        receive = _GRO_RECEIVE.get(head[IP_PROTOCOL])
        if receive is not None:
            receive(net, skb, deliver)
            return
    deliver.append(skb)


def napi_gro_flush(net: NicNet, deliver: list[SkBuff]) -> None:
    """`napi_gro_flush`: the batch ends, and nothing is held any longer."""
    if net.gro_hash or net.udp_gro:
        for flush in _GRO_FLUSH:
            flush(net, deliver)
