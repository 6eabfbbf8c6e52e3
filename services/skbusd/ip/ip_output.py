# SPDX-License-Identifier: MIT
"""The way out (`net/ipv4/ip_output.c`).

    tcp -> ip_queue_xmit -> ip_queue_xmit2 -> ip_output -> ip_finish_output
        (-> ip_fragment) -> ip_finish_output2 -> neigh_resolve_output -> nic
    udp -> ip_send_skb -> ip_local_out -> ip_output ...

Each of these functions owns the skb it is given. RFC 791 3.2; RFC 6864 for the identification;
RFC 1191 for packets that must not be fragmented.

Differs from Linux: tcp's segments count their identification per route rather than per socket.
"""

import struct
from typing import Final

from skbus.core.abi import XmitCb
from skbus.core.skbuff import (
    ETH_P_IP,
    GSO_LEGACY_MAX_SIZE,
    GSO_MAX_SIZE,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_TCPV4,
    SkBuff,
)
from skbus.core.uapi import IP_PMTUDISC_PROBE, IP_PMTUDISC_WANT
from skbus.inet.headers.icmp import ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED
from skbus.inet.headers.ipv4 import (
    IP_DF,
    IP_HLEN,
    IPH_DADDR,
    IPH_FRAG_OFF,
    IPH_PROTOCOL,
    IPH_SADDR,
    IPH_TTL,
    MAX_IPOPTLEN,
    build,
)
from skbus.inet.headers.udp import UDP_HLEN
from skbus.inet.udp_offload import batch_count, udp_gso_segment
from skbusd.ip import dev as netdev
from skbusd.ip import icmp, igmp, ip_fragment, ip_options, loopback, neighbour, route
from skbusd.ip.netns import RTN_BROADCAST, RTN_MULTICAST, IpNet, Rtable

_IP_IDENTS: Final = 2048
"""Buckets of identification counters (`ip_idents`)."""
_HASH_PRIME: Final = 2**89 - 1


# ---- identification ----------------------------------------------------------------------


def ip_select_ident(net: IpNet, saddr: bytes, daddr: bytes, protocol: int, segs: int) -> int:
    """An identification that does not come back soon for these addresses, and tells an outsider
    little (RFC 6864, RFC 7739). Counters lie in buckets chosen by a keyed hash."""
    flow = int.from_bytes(saddr + daddr, "big") << 8 | protocol
    bucket = flow * net.ip_idents_key % _HASH_PRIME % _IP_IDENTS
    ident = net.ip_idents.get(bucket)
    if ident is None:
        ident = net.get_random_u32()
    ident = (ident + net.rand.randrange(1, 8)) & 0xFFFF
    net.ip_idents[bucket] = (ident + segs) & 0xFFFF
    return ident


# ---- from the transports -----------------------------------------------------------------


def ip_queue_xmit(net: IpNet, skb: SkBuff) -> None:
    """A transport's segment: find its route."""
    cb = skb.cb
    assert isinstance(cb, XmitCb)
    if net.tracing:
        net.trace(
            "ip_queue_xmit", skb, saddr=cb.saddr, daddr=cb.daddr, protocol=cb.protocol, len=skb.len
        )
    rt = net.rt_out.get((cb.daddr, cb.saddr, cb.oif))
    if rt is None:
        found = _ip_route_xmit(net, skb, cb)
        if found is None:
            return
        rt = found
    elif net.tracing:
        net.trace("ip_route_output_key", skb, daddr=cb.daddr, saddr=rt.rt_saddr, err=0)
    ip_queue_xmit2(net, skb, rt, cb)


def _ip_route_xmit(net: IpNet, skb: SkBuff, cb: XmitCb) -> Rtable | None:
    """The route for an skb of a transport; None where it was dropped for want of one."""
    if len(cb.daddr) != 4 or len(cb.saddr) not in (0, 4) or len(cb.options) > MAX_IPOPTLEN:
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return None
    rt = route.ip_route_output(net, cb.daddr, cb.saddr, cb.oif)
    if isinstance(rt, int):
        net.mib["IpOutNoRoutes"] += 1
        net.kfree_skb(skb, "IP_OUTNOROUTES")
        return None
    return rt


def ip_queue_xmit2(net: IpNet, skb: SkBuff, rt: Rtable, cb: XmitCb) -> None:
    """Put the IP header in front, count the packet, and send it by its route."""
    if net.tracing:
        net.trace("ip_queue_xmit2", skb, dev=rt.dev.name, gateway=rt.rt_gateway)
    df = cb.df and (not rt.mtu_locked or cb.pmtudisc != IP_PMTUDISC_WANT)
    if df and cb.unconnected:
        ident = 0
    elif df:
        ident = rt.rt_id
        rt.rt_id = (ident + (skb.gso_segs or 1)) & 0xFFFF
    else:
        ident = ip_select_ident(
            net, cb.saddr or rt.rt_saddr, cb.daddr, cb.protocol, skb.gso_segs or 1
        )
    if _ip_push_header(net, skb, rt, cb, ident, df):
        mib = net.mib
        mib["IpOutRequests"] += 1
        mib["IpExtOutOctets"] += len(skb.head) + skb.data_len
        assert rt.output is not None
        rt.output(net, skb, rt)


def _ip_push_header(net: IpNet, skb: SkBuff, rt: Rtable, cb: XmitCb, ident: int, df: bool) -> bool:
    """Build the IP header in front of `data`; False where the skb was dropped instead."""
    saddr, _, protocol, tos, ttl, _, _, options = cb[:8]
    length = len(skb.head) - skb.data + skb.data_len + 20
    if options:
        options = ip_options.ip_options_build(net, options, saddr or rt.rt_saddr)
        length += (len(options) + 3) & ~3
    if GSO_LEGACY_MAX_SIZE <= length <= GSO_MAX_SIZE and skb.gso_type & SKB_GSO_TCPV4:
        length = 0  # BIG TCP (`iph_set_totlen`): nic cuts it
    if length >= GSO_LEGACY_MAX_SIZE:
        net.mib["IpOutDiscards"] += 1
        net.kfree_skb(skb, "PKT_TOO_BIG")
        return False
    try:
        header = build(
            saddr or rt.rt_saddr,
            rt.rt_daddr,
            protocol,
            length,
            id=ident,
            frag_off=IP_DF if df else 0,
            ttl=max(ttl, 0) if ttl else net.ipv4.sysctl_ip_default_ttl,
            tos=tos,
            options=options,
        )
    except (ValueError, struct.error):
        net.mib["IpOutDiscards"] += 1
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return False
    skb.push(header)
    skb.network_header = 0
    skb.transport_header = len(header)
    skb.protocol = ETH_P_IP
    return True


def ip_send_skb(net: IpNet, skb: SkBuff) -> None:
    """A transport's datagram (`ip_make_skb`, `ip_send_skb`): route, header, `ip_local_out`."""
    cb = skb.cb
    assert isinstance(cb, XmitCb)
    if net.tracing:
        net.trace("ip_send_skb", skb, saddr=cb.saddr, daddr=cb.daddr, len=skb.len)
    rt = _ip_route_xmit(net, skb, cb)
    if rt is not None:
        ip_build_and_send_pkt(net, skb, rt, cb)


def ip_build_and_send_pkt(net: IpNet, skb: SkBuff, rt: Rtable, cb: XmitCb) -> None:
    """Header and `ip_local_out`, where the route is known. A datagram that must not be
    fragmented needs no identification (RFC 6864 4.1).

    IP_PMTUDISC_WANT: a datagram that the transport took for short enough, but is not any more, may
    be fragmented (`ip_sk_ignore_df`)."""
    df = cb.df
    if df and cb.pmtudisc == IP_PMTUDISC_WANT:
        df = not rt.mtu_locked and _datagram_len(skb, cb) <= rt.mtu
        if not df:
            skb.gso_type &= ~SKB_GSO_TCP_FIXEDID
    ident = 0
    if not df:
        segs = skb.gso_segs or 1
        ident = ip_select_ident(net, cb.saddr or rt.rt_saddr, cb.daddr, cb.protocol, segs)
    if _ip_push_header(net, skb, rt, cb, ident, df):
        ip_local_out(net, skb, rt)


def _datagram_len(skb: SkBuff, cb: XmitCb) -> int:
    """How long a datagram is with its IP header; of many in one skb, the longest."""
    size = skb.gso_size + UDP_HLEN if skb.gso_size else len(skb.head) - skb.data + skb.data_len
    return IP_HLEN + ((len(cb.options) + 3) & ~3) + size


def ip_local_out(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """A packet of our own is complete: count it, send it by its route."""
    if net.tracing:
        net.trace("ip_local_out", skb, dev=rt.dev.name)
    segs, octets = batch_count(skb) if skb.gso_type else (1, 0)
    net.mib["IpOutRequests"] += segs
    net.mib["IpExtOutOctets"] += skb.len + octets
    assert rt.output is not None
    rt.output(net, skb, rt)


# ---- by the route ------------------------------------------------------------------------


def ip_mc_output(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Multicast and broadcast: out, and a copy to ourselves where we listen (RFC 1112 6.1)."""
    dev = rt.dev
    if rt.rt_type == RTN_MULTICAST:
        net.mib["IpExtOutMcastPkts"] += 1
        net.mib["IpExtOutMcastOctets"] += skb.len
        cb = skb.cb
        nh = skb.network_header
        saddr = skb.head[nh + IPH_SADDR : nh + IPH_DADDR]
        protocol = skb.head[nh + IPH_PROTOCOL]
        loop = (not isinstance(cb, XmitCb) or cb.mc_loop) and igmp.ip_check_mc(
            dev, rt.rt_daddr, saddr, protocol
        )
    else:
        net.mib["IpExtOutBcastPkts"] += 1
        net.mib["IpExtOutBcastOctets"] += skb.len
        loop = rt.rt_type == RTN_BROADCAST
    if loop:
        copy = net.skb_clone(skb)
        copy.dev = copy.skb_iif = dev.ifindex
        netdev.dev_loopback_xmit(net, copy)
    if rt.rt_type == RTN_MULTICAST and skb.head[skb.network_header + IPH_TTL] == 0:
        net.consume_skb(skb)  # TTL 0 stays on this host
        return
    ip_output(net, skb, rt)


def ip_output(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Count a packet for its device, now known."""
    if net.tracing:
        net.trace("ip_output", skb, dev=rt.dev.name)
    skb.dev = rt.dev.ifindex
    ip_finish_output(net, skb, rt)


def ip_exceeds_mtu(skb: SkBuff, mtu: int) -> bool:
    """Is the packet, or are the segments of a super-segment, longer than mtu?"""
    size = len(skb.head) - skb.data + skb.data_len
    if size <= mtu:
        return False
    if not skb.gso_size:
        return True
    at = skb.transport_header
    if skb.gso_type & SKB_GSO_TCPV4 and at + 12 < len(skb.head):
        header = (skb.head[at + 12] >> 4) << 2
    else:
        header = 8
    return at - skb.network_header + header + skb.gso_size > mtu


def ip_resegment(skb: SkBuff, mtu: int) -> bool:
    """Set a smaller segment size for a TCP super-segment that may be fragmented; it is cut later.
    False where the skb is none.

    Differs from Linux: `ip_finish_output_gso` cuts it as it was and fragments the segments.
    """
    at = skb.transport_header
    if not skb.gso_size or not skb.gso_type & SKB_GSO_TCPV4 or at + 12 >= len(skb.head):
        return False
    header = at - skb.network_header + ((skb.head[at + 12] >> 4) << 2)
    size = mtu - header
    if size < 8:
        return False
    skb.gso_size = size
    skb.gso_segs = -(-(skb.len - header) // size)
    return True


def ip_finish_output(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Fragment a packet that is longer than the MTU, where that is allowed."""
    mtu = rt.mtu
    if net.tracing:
        net.trace("ip_finish_output", skb, mtu=mtu, gso_size=skb.gso_size)
    if len(skb.head) - skb.data + skb.data_len <= mtu or not ip_exceeds_mtu(skb, mtu):
        ip_finish_output2(net, skb, rt)
        return
    if isinstance(skb.cb, XmitCb) and skb.cb.pmtudisc >= IP_PMTUDISC_PROBE:
        mtu = rt.dev.mtu  # `ip_skb_dst_mtu`
        if not ip_exceeds_mtu(skb, mtu):
            ip_finish_output2(net, skb, rt)
            return
    if skb.gso_type & SKB_GSO_BATCH:
        for single in udp_gso_segment(net, skb):
            ip_finish_output(net, single, rt)
        return
    df = skb.head[skb.network_header + IPH_FRAG_OFF] << 8 & IP_DF
    if not df and ip_resegment(skb, mtu):
        ip_finish_output2(net, skb, rt)
    elif df or skb.gso_size:
        net.mib["IpFragFails"] += 1
        icmp.icmp_send(net, skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu)
        net.kfree_skb(skb, "PKT_TOO_BIG")
    else:
        ip_fragment.ip_fragment(net, skb, rt, mtu)


def ip_finish_output2(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Hand the packet to the next hop's neighbour entry."""
    if net.tracing:
        net.trace("ip_finish_output2", skb, nexthop=rt.rt_gateway)
    dev = rt.dev
    if dev.loopback:
        loopback.loopback_xmit(net, skb, rt.rt_iif)
        return
    neigh = rt.rt_neigh
    if neigh is None or neigh.dead:
        neigh = neighbour.ip_neigh_for_gw(net, rt)
        if neigh is None:
            net.mib["IpOutDiscards"] += 1
            net.kfree_skb(skb, "NEIGH_CREATEFAIL")
            return
    neighbour.neigh_resolve_output(net, neigh, skb)
