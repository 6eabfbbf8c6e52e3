# SPDX-License-Identifier: MIT
"""Datagrams that travel as one skb (`SKB_GSO_BATCH`): their count, and how to take them apart where
each must go its own way (`net/ipv4/udp_offload.c`, `__udp_gso_segment`).

The socket layer makes them on the way out, nic's GRO on the way in. Called by ip and udp. nic cuts
by `nic/gso.py`, which fills in checksums.
"""

import struct
from typing import Final

from skbus.core.checksum import csum_fold, csum_partial, csum_tcpudp_nofold, ip_fast_csum
from skbus.core.net import Net
from skbus.core.pool import PoolError
from skbus.core.skbuff import (
    CHECKSUM_UNNECESSARY,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SkBuff,
)

_UDP_HLEN: Final = 8
_IPPROTO_UDP: Final = 17
_U16: Final = struct.Struct("!H")


def batch_count(skb: SkBuff) -> tuple[int, int]:
    """(datagrams, octets of their headers besides the skb's own) of an skb with `data` or
    network_header at the IP header."""
    segs = skb.gso_segs
    if not skb.gso_type & SKB_GSO_BATCH or segs < 2:
        return 1, 0
    at = skb.network_header if skb.network_header >= 0 else skb.data
    return segs, (segs - 1) * (((skb.head[at] & 0xF) << 2) + _UDP_HLEN)


def udp_gso_segment(net: Net, skb: SkBuff) -> list[SkBuff]:
    """The datagrams of a batch as packets of their own, with their checksums, which ICMP may quote;
    they own no slot. network_header and transport_header are set."""
    if net.tracing:
        net.trace("__udp_gso_segment", skb, gso_size=skb.gso_size, gso_segs=skb.gso_segs)
    head = skb.head
    nh, th = skb.network_header, skb.transport_header
    try:
        data = head[th + _UDP_HLEN :] + net.pool.gather(skb.frags)
    except PoolError:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return []
    id_ = _U16.unpack_from(head, nh + 4)[0]
    step = 0 if skb.gso_type & SKB_GSO_TCP_FIXEDID else 1
    before, middle, after = head[: nh + 2], head[nh + 6 : nh + 10], head[nh + 12 : th]
    saddr, daddr = head[nh + 12 : nh + 16], head[nh + 16 : nh + 20]
    out = []
    for at in range(0, len(data), skb.gso_size):
        payload = data[at : at + skb.gso_size]
        ulen = _UDP_HLEN + len(payload)
        part = b"".join((before, _U16.pack(th - nh + ulen), _U16.pack(id_), middle, b"\0\0", after))
        check = ip_fast_csum(part[nh:])
        udp = head[th : th + 4] + _U16.pack(ulen)
        total = csum_partial(udp, csum_tcpudp_nofold(saddr, daddr, ulen, _IPPROTO_UDP))
        total = csum_fold(csum_partial(payload, total)) or 0xFFFF
        single = net.skb_clone(skb)
        single.head = b"".join(
            (
                part[: nh + 10],
                _U16.pack(check),
                after,
                udp,
                _U16.pack(total),
                payload,
            )
        )
        single.frags = ()
        single.data_len = single.gso_size = single.gso_segs = single.gso_type = 0
        single.lent = False
        single.ip_summed = CHECKSUM_UNNECESSARY
        single.csum_start = -1
        single.csum_offset = 0
        out.append(single)
        id_ = (id_ + step) & 0xFFFF
    net.consume_skb(skb)
    return out
