# SPDX-License-Identifier: MIT
"""The way in (`net/ipv4/ip_input.c`).

    nic -> ip_rcv -> ip_rcv_finish -> ip_route_input -> ip_local_deliver (-> ip_defrag)
        -> ip_local_deliver_finish -> inet_protos[protocol], or ip_forward

Each of these functions owns the skb it is given. RFC 791 3.1; RFC 1122 3.2.1 for packets that are
silently discarded; RFC 6040 and 3168 for the ECN counters.
"""

from typing import Final

from skbus.core.abi import RcvCb
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import (
    GSO_LEGACY_MAX_SIZE,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_LOOPBACK,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    SKB_GSO_BATCH,
    SkBuff,
)
from skbus.inet.headers import HeaderError
from skbus.inet.headers.icmp import ICMP_DEST_UNREACH, ICMP_PARAMETERPROB, ICMP_PROT_UNREACH
from skbus.inet.headers.ipv4 import (
    IP_MF,
    IP_OFFSET,
    IpHdr,
    parse,
    parse_options,
)
from skbus.inet.udp_offload import batch_count, udp_gso_segment
from skbusd.ip import icmp, ip_fragment, raw, route, rps
from skbusd.ip.netns import (
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    IpNet,
    Rtable,
)

_new: Final = tuple.__new__
"""Makes a NamedTuple in half the time, without the `__new__` that Python writes for it."""
_ECN: Final = ("IpExtInNoECTPkts", "IpExtInECT1Pkts", "IpExtInECT0Pkts", "IpExtInCEPkts")


def ip_rcv(net: IpNet, skb: SkBuff) -> None:
    """An IPv4 packet from a device: check its header (RFC 1122 3.2.1.1 to 3.2.1.3)."""
    if net.tracing:
        dev = net.device(skb)
        net.trace("ip_rcv", skb, len=skb.len, dev=dev.name if dev is not None else skb.dev)
    mib = net.mib
    size = len(skb.head) - skb.data + skb.data_len
    if skb.gso_type & SKB_GSO_BATCH:
        segs, octets = batch_count(skb)
        mib["IpInReceives"] += segs
        mib["IpExtInOctets"] += size + octets
    else:
        mib["IpInReceives"] += 1
        mib["IpExtInOctets"] += size
    if skb.pkt_type == PACKET_OTHERHOST:
        net.kfree_skb(skb, "OTHERHOST")
        return
    head = skb.head
    data = skb.data
    if len(head) - data < 20 or len(head) - data < (head[data] & 0xF) << 2:
        # The header is not in head: fetch all of it, if the packet has it.
        if not pskb_may_pull(net, skb, 20) or not pskb_may_pull(
            net, skb, (skb.head[skb.data] & 0xF) << 2
        ):
            mib["IpInHdrErrors"] += 1
            net.kfree_skb(skb, "IP_INHDR")
            return
        head = skb.head
    try:
        iph = parse(head, data, size if size >= GSO_LEGACY_MAX_SIZE and skb.gso_size else 0)
    except HeaderError as e:
        mib["IpInHdrErrors"] += 1
        net.kfree_skb(skb, e.drop_reason)
        return
    ihl = iph.ihl
    if int.from_bytes(head[data : data + ihl], "big") % 0xFFFF:
        mib["IpExtInCsumErrors"] += 1
        mib["IpInHdrErrors"] += 1
        net.kfree_skb(skb, "IP_CSUM")
        return
    if size != iph.tot_len:
        if size < iph.tot_len:
            mib["IpExtInTruncatedPkts"] += 1
            net.kfree_skb(skb, "PKT_TOO_SMALL")
            return
        skb.trim(iph.tot_len)
    mib[_ECN[iph.tos & 3]] += skb.gso_segs or 1
    skb.network_header = data
    skb.transport_header = data + ihl
    ip_rcv_finish(net, skb, iph)


def ip_rcv_finish(net: IpNet, skb: SkBuff, iph: IpHdr) -> None:
    """Find the packet's route, and look at its options."""
    if net.tracing:
        net.trace("ip_rcv_finish", skb, saddr=iph.saddr, daddr=iph.daddr, protocol=iph.protocol)
    ifindex = skb.dev or skb.skb_iif
    rt = net.rt_in.get((iph.saddr, iph.daddr, ifindex))
    if rt is None:
        dev = net.dev_by_index.get(ifindex)
        if dev is None or not dev.up:
            net.kfree_skb(skb, "DEV_READY")
            return
        if skb.pkt_type == PACKET_LOOPBACK:
            rt = route.ip_route_mc_loopback(iph, dev)
            skb.pkt_type = PACKET_MULTICAST if rt.rt_type == RTN_MULTICAST else PACKET_BROADCAST
        else:
            found = route.ip_route_input(net, iph, dev)
            if isinstance(found, str):
                if net.sysctl["net.ipv4.conf.all.log_martians"] and found in route.MARTIANS:
                    route.ip_handle_martian_source(net, iph, dev, found)
                net.kfree_skb(skb, found)
                return
            rt = found
    elif net.tracing:
        net.trace("ip_route_input", skb, saddr=iph.saddr, daddr=iph.daddr, type=rt.rt_type)
    if skb.gso_type & SKB_GSO_BATCH and (rt.rt_type != RTN_LOCAL or net.raw_hash or iph.options):
        for single in udp_gso_segment(net, skb):
            ip_rcv_finish(net, single, parse(single.head, single.network_header))
        return
    if iph.options and not ip_rcv_options(net, skb, iph):
        return
    kind = rt.rt_type
    if kind == RTN_MULTICAST:
        if skb.pkt_type == PACKET_HOST:
            skb.pkt_type = PACKET_MULTICAST  # a frame for us alone does not make it ours
        net.mib["IpExtInMcastPkts"] += 1
        net.mib["IpExtInMcastOctets"] += skb.len
    elif kind == RTN_BROADCAST:
        if skb.pkt_type == PACKET_HOST:
            skb.pkt_type = PACKET_BROADCAST
        net.mib["IpExtInBcastPkts"] += 1
        net.mib["IpExtInBcastOctets"] += skb.len
    assert rt.input is not None
    rt.input(net, skb, iph, rt)


def ip_rcv_options(net: IpNet, skb: SkBuff, iph: IpHdr) -> bool:
    """Check the options; False where the skb was dropped for them.

    RFC 1122 3.2.1.8; source routes are refused, as `accept_source_route` is off in Linux.
    """
    try:
        options = parse_options(iph.options, received=True)
    except HeaderError as e:
        net.mib["IpInHdrErrors"] += 1
        pointer = max(e.pointer, 0) << 24
        icmp.icmp_send(net, skb, ICMP_PARAMETERPROB, 0, pointer)
        net.kfree_skb(skb, "IP_INHDR")
        return False
    if options.srr is not None:
        net.mib["IpInHdrErrors"] += 1
        net.kfree_skb(skb, "IP_INHDR")
        return False
    return True


def ip_local_deliver(net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable) -> None:
    """A packet for this host: put fragments together first."""
    if net.tracing:
        net.trace("ip_local_deliver", skb)
    if iph.frag_off & (IP_MF | IP_OFFSET):
        whole = ip_fragment.ip_defrag(net, skb, iph)
        if whole is None:
            return
        skb, iph = whole
    ip_local_deliver_finish(net, skb, iph, rt)


def ip_local_deliver_finish(net: IpNet, skb: SkBuff, iph: IpHdr, rt: Rtable) -> None:
    """Give the packet to its protocol (RFC 1122 3.2.2.1 where there is none)."""
    protocol = iph.protocol
    if net.tracing:
        net.trace("ip_local_deliver_finish", skb, protocol=protocol)
    skb.data = skb.transport_header
    taken = bool(net.raw_hash) and raw.raw_local_deliver(net, skb, iph)
    proto = net.inet_protos.get(protocol)
    if proto is not None:
        if proto.shards:
            rps.enqueue_to_backlog(net, skb, iph, rt, proto)
            return
        net.mib["IpInDelivers"] += skb.gso_segs if skb.gso_type & SKB_GSO_BATCH else 1
        cb = _new(RcvCb, (iph.saddr, iph.daddr, iph.tos, iph.ttl, rt.peer_mtu))
        net.call_skb(proto.process, proto.handler, skb, cb)
        return
    local = net.inet_local.get(protocol)
    if local is not None:
        net.mib["IpInDelivers"] += 1
        local(net, skb, iph, rt)
    elif protocol in net.inet_known:
        # The stack has the protocol, but its process is away: an ICMP error would end connections.
        net.mib["IpInDiscards"] += 1
        net.kfree_skb(skb, "SKBUS_NO_PEER")
    elif taken:
        net.mib["IpInDelivers"] += 1
        net.consume_skb(skb)
    else:
        net.mib["IpInUnknownProtos"] += 1
        icmp.icmp_send(net, skb, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, 0)
        net.kfree_skb(skb, "IP_NOPROTO")
