# SPDX-License-Identifier: MIT
"""Fragments: cutting (`ip_do_fragment` of `ip_output.c`) and putting together
(`net/ipv4/ip_fragment.c`, `inet_fragment.c`).

`ip_finish_output` calls `ip_fragment`; `ip_local_deliver` calls `ip_defrag`. RFC 791 3.2; RFC 815;
RFC 1122 3.3.2; RFC 5722 for overlaps, which end a datagram; RFC 1858 and 3128 for why.
"""

from bisect import bisect_right
from typing import Final

from skbus.core.dropreason import SkbDropReason
from skbus.core.net import SEC
from skbus.core.pool import PoolError
from skbus.core.pskb import skb_checksum_help, skb_linearize_frags, skb_orphan_frags
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    MAX_SKB_FRAGS,
    PACKET_HOST,
    Frag,
    SkBuff,
    frag_slice,
    frags_slice,
)
from skbus.core.timer import Timer
from skbus.inet.headers import HeaderError, ipv4
from skbus.inet.headers.icmp import ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED
from skbus.inet.headers.ipv4 import IP_DF, IP_MF, IP_OFFSET, IpHdr
from skbusd.ip import icmp, ip_output
from skbusd.ip.netns import IpNet, Ipq, Rtable

INET_FRAG_FIRST_IN: Final = 1
INET_FRAG_LAST_IN: Final = 2

_PEERS: Final = 4096
"""Most senders whose fragments are counted."""
_OVERHEAD: Final = 512
"""Bytes that a waiting fragment costs besides its payload (`skb.truesize`)."""


# ---- cutting -----------------------------------------------------------------------------


def ip_fragment(net: IpNet, skb: SkBuff, rt: Rtable, mtu: int) -> None:
    """Cut a packet into fragments that fit the MTU, and send them in order.

    The fragments' payload is slices of the packet's; no byte of the pool is copied. All but the
    last are lent, and the last gives all slots back: they go through the same pipe in order.
    """
    try:
        iph = ipv4.parse(skb.head, skb.network_header)
        later = ipv4.fragment_options(iph.options) if iph.options else b""
    except HeaderError as e:
        net.mib["IpFragFails"] += 1
        net.kfree_skb(skb, e.drop_reason)
        return
    if net.tracing:
        net.trace("ip_fragment", skb, mtu=mtu, len=skb.len)
    room = (mtu - iph.ihl) & ~7
    if room < 8:
        net.mib["IpFragFails"] += 1
        net.kfree_skb(skb, "PKT_TOO_BIG")
        return
    if skb.ip_summed == CHECKSUM_PARTIAL and not skb_checksum_help(net, skb):
        net.mib["IpFragFails"] += 1
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return
    linear = skb.head[skb.network_header + iph.ihl :]
    total = len(linear) + skb.data_len
    first = (iph.frag_off & IP_OFFSET) << 3
    parts = []
    for at in range(0, total, room):
        size = min(room, total - at)
        more = IP_MF if at + size < total or iph.frag_off & IP_MF else 0
        header = ipv4.build(
            iph.saddr,
            iph.daddr,
            iph.protocol,
            iph.ihl + size,
            id=iph.id,
            frag_off=(first + at) >> 3 | more | (iph.frag_off & IP_DF),
            ttl=iph.ttl,
            tos=iph.tos,
            options=iph.options if at == 0 else later,
        )
        own = linear[at : at + size]
        frags = frags_slice(skb.frags, max(0, at - len(linear)), size - len(own))
        parts.append((header + own, frags))
    _send_fragments(net, skb, rt, iph.ihl, parts)


def _send_fragments(
    net: IpNet, skb: SkBuff, rt: Rtable, ihl: int, parts: list[tuple[bytes, tuple[Frag, ...]]]
) -> None:
    slots = [f for f in skb.frags if not isinstance(f, bytes)]
    last = len(parts) - 1
    for i, (head, frags) in enumerate(parts):
        lent = True
        if i == last and not skb.lent:
            # The last part owns all slots of the packet; those without a byte of it hang on, empty.
            named = {(f[0], f[1]) for f in frags if not isinstance(f, bytes)}
            frags += tuple(frag_slice(f, 0, 0) for f in slots if (f[0], f[1]) not in named)
            lent = False
        part = net.alloc_skb(head, frags, protocol=skb.protocol, dev=skb.dev, lent=lent)
        part.id = skb.id
        part.network_header = 0
        part.transport_header = ihl
        part.skb_iif = skb.skb_iif
        part.pkt_type = skb.pkt_type
        part.mark = skb.mark
        part.priority = skb.priority
        part.tstamp = skb.tstamp
        net.mib["IpFragCreates"] += 1
        ip_output.ip_finish_output2(net, part, rt)
    net.mib["IpFragOKs"] += 1
    skb.frags = ()
    net.consume_skb(skb)


# ---- putting together --------------------------------------------------------------------


def ip_defrag(net: IpNet, skb: SkBuff, iph: IpHdr) -> tuple[SkBuff, IpHdr] | None:
    """Take a fragment; the whole datagram where this was the last piece missing, else None."""
    net.mib["IpReasmReqds"] += 1
    if net.frag_mem > net.sysctl["net.ipv4.ipfrag_high_thresh"]:
        ip_evictor(net)
    if net.tracing:
        net.trace(
            "ip_defrag",
            skb,
            id=iph.id,
            offset=(iph.frag_off & IP_OFFSET) << 3,
            more=bool(iph.frag_off & IP_MF),
        )
    if not skb_orphan_frags(net, skb):
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        net.mib["IpReasmFails"] += 1
        return None
    key = (iph.saddr, iph.daddr, iph.id, iph.protocol, skb.dev or skb.skb_iif)
    q = net.ip4_frags.get(key)
    if q is None:
        q = net.ip4_frags[key] = Ipq(key)
        q.timer = Timer(ip_expire, key)
        net.mod_timer(q.timer, net.now + net.sysctl["net.ipv4.ipfrag_time"] * SEC)
    return ip_frag_queue(net, q, skb, iph)


def ip_frag_queue(net: IpNet, q: Ipq, skb: SkBuff, iph: IpHdr) -> tuple[SkBuff, IpHdr] | None:
    """Put a fragment into its place. A fragment that contradicts or overlaps the others ends the
    datagram (RFC 5722, which Linux also follows for IPv4). A fragment of which all bytes have come
    already, in whatever cut, is a duplicate: it is dropped alone (erratum 3089).

    Differs from Linux: adjacent fragments are one run, in whatever order they came. In Linux they
    are one only if each came behind all others (`fragrun_append_to_last`).
    """
    if ip_frag_too_far(net, q):
        ip_frag_reinit(net, q)
    ihl = iph.ihl
    offset = (iph.frag_off & IP_OFFSET) << 3
    end = offset + skb.len - ihl
    if iph.frag_off & IP_MF:
        if end & 7:
            end &= ~7
            skb.trim(end - offset + ihl)
        bad = end > q.len and bool(q.flags & INET_FRAG_LAST_IN)
    else:
        bad = end < q.len or (bool(q.flags & INET_FRAG_LAST_IN) and end != q.len)
    if end <= offset or end + ihl > 65535 or bad:
        _discard(net, q, skb, "IP_INHDR")
        return None
    at = bisect_right(q.offsets, offset)
    run_end = _run_end(q, at - 1, end) if at else 0
    if offset < run_end:
        if end <= run_end:
            net.kfree_skb(skb, "DUP_FRAG")
            return None
        net.mib["IpExtReasmOverlaps"] += 1
        _discard(net, q, skb, "DUP_FRAG")
        return None
    if at < len(q.offsets) and end > q.offsets[at]:
        net.mib["IpExtReasmOverlaps"] += 1
        _discard(net, q, skb, "DUP_FRAG")
        return None
    if not iph.frag_off & IP_MF:
        q.flags |= INET_FRAG_LAST_IN
    if offset == 0:
        q.flags |= INET_FRAG_FIRST_IN
    q.len = max(q.len, end)
    q.offsets.insert(at, offset)
    q.skbs.insert(at, skb)
    q.meat += end - offset
    q.tos |= 1 << (iph.tos & 3)
    size = _truesize(net, skb)
    q.mem += size
    net.frag_mem += size
    if q.flags == INET_FRAG_FIRST_IN | INET_FRAG_LAST_IN and q.meat == q.len:
        return ip_frag_reasm(net, q)
    return None


def _run_end(q: Ipq, at: int, enough: int) -> int:
    """The end of the run of adjacent fragments from index `at`; `enough` or more if longer."""
    end = q.offsets[at] + _payload(q.skbs[at])
    while end < enough and at + 1 < len(q.offsets) and q.offsets[at + 1] == end:
        at += 1
        end += _payload(q.skbs[at])
    return end


def ip_frag_too_far(net: IpNet, q: Ipq) -> bool:
    """May the sender be using this identification for the second time? It may if too many of its
    other fragments came since the datagram's last one (`ipfrag_max_dist`, RFC 4963)."""
    far = net.sysctl["net.ipv4.ipfrag_max_dist"]
    if not far:
        return False
    saddr = q.key[0]
    start = q.rid
    if saddr not in net.frag_rid and len(net.frag_rid) >= _PEERS:
        del net.frag_rid[next(iter(net.frag_rid))]
    q.rid = net.frag_rid[saddr] = net.frag_rid.get(saddr, 0) + 1
    return bool(q.skbs) and q.rid - start > far


def ip_frag_reinit(net: IpNet, q: Ipq) -> None:
    """The waiting fragments are of an earlier datagram with the same identification: begin anew."""
    net.mib["IpReasmFails"] += 1
    if q.timer is not None:
        net.mod_timer(q.timer, net.now + net.sysctl["net.ipv4.ipfrag_time"] * SEC)
    net.frag_mem -= q.mem
    for skb in q.skbs:
        net.kfree_skb(skb, "FRAG_TOO_FAR")
    q.skbs = []
    q.offsets = []
    q.len = q.meat = q.mem = q.flags = q.tos = 0


def _payload(skb: SkBuff) -> int:
    """Bytes behind the IP header."""
    return len(skb.head) - skb.transport_header + skb.data_len


def _truesize(net: IpNet, skb: SkBuff) -> int:
    """The memory that a waiting fragment costs. A fragment in a far larger slot is first copied out
    of it, so that the slot can be used again."""
    size = len(skb.head) + _OVERHEAD
    for frag in skb.frags:
        if isinstance(frag, bytes):
            size += len(frag)
            continue
        region = net.pool.regions.get(frag[0])
        slot = region.sizes[frag[1]] if region and frag[1] < region.nslots else frag[4]
        if slot > 4096 and slot > 4 * skb.data_len:
            try:
                data = net.pool.gather(skb.frags)
            except PoolError:
                return size + slot  # met again when the datagram is whole
            net.pool.free_frags(skb.frags)
            skb.frags = (data,)
            return len(skb.head) + _OVERHEAD + len(data)
        size += slot
    return size


def _discard(net: IpNet, q: Ipq, skb: SkBuff, reason: SkbDropReason) -> None:
    """This fragment makes the datagram worthless."""
    net.mib["IpReasmFails"] += 1
    net.kfree_skb(skb, reason)
    ipq_kill(net, q, reason)


def ipq_kill(net: IpNet, q: Ipq, reason: SkbDropReason) -> None:
    """Forget a datagram, and drop its fragments."""
    del net.ip4_frags[q.key]
    if q.timer is not None:
        net.del_timer(q.timer)
    net.frag_mem -= q.mem
    for skb in q.skbs:
        net.kfree_skb(skb, reason)


def ip_evictor(net: IpNet) -> None:
    """Too much memory is in use: the oldest datagrams go, until there is room again."""
    low = min(net.sysctl["net.ipv4.ipfrag_low_thresh"], net.sysctl["net.ipv4.ipfrag_high_thresh"])
    while net.frag_mem > low and net.ip4_frags:
        net.mib["IpReasmFails"] += 1
        ipq_kill(net, next(iter(net.ip4_frags.values())), "NOMEM")


def ip_expire(net: IpNet, key: tuple[bytes, bytes, int, int, int]) -> None:
    """The rest did not come in time: tell the sender if we have the beginning (RFC 1122 3.3.2)."""
    q = net.ip4_frags.get(key)
    if q is None:
        return
    net.mib["IpReasmTimeout"] += 1
    net.mib["IpReasmFails"] += 1
    if q.flags & INET_FRAG_FIRST_IN and q.skbs[0].pkt_type == PACKET_HOST:
        icmp.icmp_send(net, q.skbs[0], ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0)
    ipq_kill(net, q, "FRAG_REASM_TIMEOUT")


def _ecn(bits: int) -> int | None:
    """The datagram's ECN field from its fragments' (RFC 3168 5.3); None: contradictory."""
    if bits & 8:
        return None if bits & 1 else 3
    if bits & 1 and bits & 6:
        return None
    if bits & 2 and bits & 4:
        return 2
    return {1: 0, 2: 1, 4: 2}[bits]


def ip_frag_reasm(net: IpNet, q: Ipq) -> tuple[SkBuff, IpHdr] | None:
    """All pieces are there: make one skb of them, the first one's (RFC 815)."""
    skb = q.skbs[0]
    iph = ipv4.parse(skb.head, skb.network_header)
    ecn = _ecn(q.tos)
    if ecn is None or iph.ihl + q.len > 65535:
        net.mib["IpReasmFails"] += 1
        ipq_kill(net, q, "IP_INHDR" if ecn is None else "PKT_TOO_BIG")
        return None
    del net.ip4_frags[q.key]
    if q.timer is not None:
        net.del_timer(q.timer)
    net.frag_mem -= q.mem
    header = ipv4.build(
        iph.saddr,
        iph.daddr,
        iph.protocol,
        iph.ihl + q.len,
        id=iph.id,
        frag_off=iph.frag_off & IP_DF,
        ttl=iph.ttl,
        tos=iph.tos & ~3 | ecn,
        options=iph.options,
    )
    skb.head = skb.head[: skb.network_header] + header + skb.head[skb.network_header + iph.ihl :]
    frags: list[Frag] = list(skb.frags)
    for other in q.skbs[1:]:
        if other.transport_header < len(other.head):
            frags.append(other.head[other.transport_header :])
        frags += other.frags
        other.frags = ()
        net.consume_skb(other)
    skb.frags = tuple(frags)
    skb.data_len = q.len + skb.transport_header - len(skb.head)
    skb.ip_summed = CHECKSUM_NONE
    if len(frags) > MAX_SKB_FRAGS and not skb_linearize_frags(net, skb):
        net.mib["IpReasmFails"] += 1
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return None
    net.mib["IpReasmOKs"] += 1
    if net.tracing:
        net.trace("ip_frag_reasm", skb, len=skb.len, fragments=[f"{s.id:x}" for s in q.skbs])
    return skb, ipv4.parse(skb.head, skb.network_header)
