# SPDX-License-Identifier: MIT
"""Forwarding (`net/ipv4/ip_forward.c`, and `ip_error` of `route.c`).

`ip_route_input` chooses `ip_forward` for packets that are not ours, where `net.ipv4.ip_forward` is
set. RFC 1812 5.2.7.2 and 5.3; RFC 1624 for the checksum; RFC 1191 4.
"""

from errno import EACCES, EHOSTUNREACH, ENETUNREACH
from typing import Final

from skbus.core.checksum import csum_replace2
from skbus.core.skbuff import PACKET_HOST, SkBuff
from skbus.inet.headers import HeaderError
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_EXC_TTL,
    ICMP_FRAG_NEEDED,
    ICMP_HOST_UNREACH,
    ICMP_NET_UNREACH,
    ICMP_PKT_FILTERED,
    ICMP_TIME_EXCEEDED,
)
from skbus.inet.headers.ipv4 import (
    IP_DF,
    IPH_SADDR,
    IPH_TTL,
    IpHdr,
    build,
    parse,
    parse_options,
)
from skbusd.ip import icmp, ip_options, ip_output, route
from skbusd.ip.netns import IpNet, Rtable

_CODES: Final = {
    EHOSTUNREACH: ICMP_HOST_UNREACH,
    ENETUNREACH: ICMP_NET_UNREACH,
    EACCES: ICMP_PKT_FILTERED,
}


def ip_error(net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable) -> None:
    """The input of a route that leads nowhere: a host is silent, a router says why."""
    if net.tracing:
        net.trace("ip_error", skb, err=rt.error)
    if not net.ipv4.sysctl_ip_forward or skb.pkt_type != PACKET_HOST:
        net.mib["IpInAddrErrors"] += 1
        net.kfree_skb(skb, "IP_INADDRERRORS")
        return
    if rt.error == ENETUNREACH:
        net.mib["IpExtInNoRoutes"] += 1
    icmp.icmp_send(net, skb, ICMP_DEST_UNREACH, _CODES.get(rt.error, ICMP_HOST_UNREACH), 0)
    net.kfree_skb(skb, "IP_INNOROUTES")


def ip_decrease_ttl(skb: SkBuff, iph: IpHdr) -> IpHdr:
    """Count one hop; the header checksum is updated without a new sum (RFC 1624)."""
    old = iph.ttl << 8 | iph.protocol
    check = csum_replace2(iph.check, old, old - 0x100)
    at = skb.network_header
    head = skb.head
    skb.head = b"".join(
        (
            head[: at + IPH_TTL],
            bytes((iph.ttl - 1, iph.protocol)),
            check.to_bytes(2, "big"),
            head[at + IPH_SADDR :],
        )
    )
    return iph._replace(ttl=iph.ttl - 1, check=check)


def ip_forward_options(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Put our address and time into record route and timestamp (RFC 1812 5.3.13.5, 5.3.13.6)."""
    at = skb.network_header
    try:
        iph = parse(skb.head, at)
        parsed = parse_options(iph.options, received=True)
    except HeaderError:
        return  # checked on the way in
    options = ip_options.ip_options_fill(net, iph.options, parsed, rt.rt_saddr)
    if options == iph.options:
        return
    header = build(
        iph.saddr,
        iph.daddr,
        iph.protocol,
        iph.tot_len,
        id=iph.id,
        frag_off=iph.frag_off,
        ttl=iph.ttl,
        tos=iph.tos,
        options=options,
    )
    skb.head = skb.head[:at] + header + skb.head[at + iph.ihl :]


def ip_forward(net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable) -> None:
    """Pass a packet on: TTL, size, and then the same way out as our own."""
    if net.tracing:
        net.trace("ip_forward", skb, dev=rt.dev.name, ttl=iph.ttl)
    if skb.pkt_type != PACKET_HOST:
        net.kfree_skb(skb, "OTHERHOST")
        return
    if iph.ttl <= 1:
        net.mib["IpInHdrErrors"] += 1
        icmp.icmp_send(net, skb, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0)
        net.kfree_skb(skb, "IP_INHDR")
        return
    if iph.frag_off & IP_DF and ip_output.ip_exceeds_mtu(skb, rt.mtu):
        net.mib["IpFragFails"] += 1
        icmp.icmp_send(net, skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, rt.mtu)
        net.kfree_skb(skb, "PKT_TOO_BIG")
        return
    ip_decrease_ttl(skb, iph)
    if rt.rt_flags:
        route.ip_rt_send_redirect(net, skb, rt)
    if iph.options:
        ip_forward_options(net, skb, rt)
    ip_forward_finish(net, skb, rt)


def ip_forward_finish(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Count a forwarded packet and send it."""
    if net.tracing:
        net.trace("ip_forward_finish", skb, dev=rt.dev.name)
    net.mib["IpForwDatagrams"] += 1
    net.mib["IpExtOutOctets"] += skb.len
    assert rt.output is not None
    rt.output(net, skb, rt)
