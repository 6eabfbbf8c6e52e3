# SPDX-License-Identifier: MIT
"""ARP (`net/ipv4/arp.c`): which hardware address has this neighbour?

nic calls `arp_rcv`; `neighbour` calls, by the table that `arp_init` makes, `arp_constructor`,
`arp_solicit` and, when nobody answered, `arp_error_report`; `devinet` announces new addresses.
RFC 826; RFC 5227 for probes and announcements; RFC 1122 2.3.2.1 for the bounded rate of requests,
which `neighbour` keeps.
"""

from errno import EHOSTUNREACH, EINVAL
from typing import Final

from skbus.core.dropreason import Checked
from skbus.core.interfaces import Netif, NetifReceive
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import (
    ETH_P_ARP,
    ETH_P_IP,
    PACKET_HOST,
    PACKET_LOOPBACK,
    PACKET_OTHERHOST,
    SkBuff,
)
from skbus.core.syscall import SysCallError
from skbus.inet.headers import HeaderError
from skbus.inet.headers import arp as arphdr
from skbus.inet.headers.arp import ArpHdr
from skbus.inet.headers.ethernet import BROADCAST, is_multicast_ether_addr
from skbus.inet.headers.icmp import ICMP_DEST_UNREACH, ICMP_HOST_UNREACH
from skbus.inet.headers.ipv4 import (
    IPH_DADDR,
    IPH_SADDR,
    ipv4_is_multicast,
)
from skbusd.ip import dev as netdev
from skbusd.ip import fib, icmp, neighbour, route
from skbusd.ip.netns import (
    INADDR_ANY,
    INADDR_BROADCAST,
    RTN_BROADCAST,
    RTN_MULTICAST,
    RTN_UNICAST,
    IpNet,
    Neighbour,
    NeighOps,
    NeighTable,
    NetDevice,
)

_ZERO_MAC: Final = b"\0" * 6
_ARP_PROTO: Final = ETH_P_ARP.to_bytes(2, "big")
_DUPLICATES: Final = 64
"""Most duplicate addresses that are warned of."""


def arp_init(net: IpNet) -> None:
    """`arp_init`: ARP frames are ours, and the table's times. EINVAL where a configured neighbour
    makes no sense, EEXIST where ARP is taken."""
    for conf in net.config.neighbours:
        try:
            good = len(bytes.fromhex(conf.lladdr.replace(":", ""))) == 6
            good = good and len(bytes(int(part) for part in conf.addr.split("."))) == 4
        except ValueError:
            good = False
        if not good:
            text = f"neighbour {conf.addr!r} lladdr {conf.lladdr!r}"
            raise SysCallError(EINVAL, text)
    netdev.dev_add_pack(net, ETH_P_ARP, NetifReceive.arp_rcv, arp_rcv)
    net.arp_tbl = NeighTable(ETH_P_IP.to_bytes(2, "big"), "net.ipv4.neigh.default.")
    net.arp_tbl.constructor = arp_constructor
    neighbour.neigh_table_init(net, net.arp_tbl)


def arp_exit(net: IpNet) -> None:
    """Undo `arp_init`."""
    neighbour.neigh_table_clear(net, net.arp_tbl)
    net.arp_tbl = NeighTable(b"", "")
    netdev.dev_remove_pack(net, ETH_P_ARP)


def arp_ifup(net: IpNet, dev: NetDevice) -> None:
    """A device is up: its configured permanent neighbours are there."""
    for conf in net.config.neighbours:
        if conf.dev != dev.name:
            continue
        addr = bytes(int(part) for part in conf.addr.split("."))
        neigh = neighbour.neigh_create(net, net.arp_tbl, dev, addr)
        if neigh is not None:
            neighbour.neigh_update(
                net, neigh, bytes.fromhex(conf.lladdr.replace(":", "")), neighbour.NUD_PERMANENT
            )


def arp_constructor(net: IpNet, neigh: Neighbour) -> None:
    """A new neighbour: multicast and broadcast addresses are mapped, not asked for (RFC 1112
    6.4)."""
    neigh.ops = ARP_OPS
    addr = neigh.primary_key
    kind = route.inet_addr_type(net, addr)
    if kind == RTN_MULTICAST:
        neigh.ha = bytes((0x01, 0x00, 0x5E, addr[1] & 0x7F, addr[2], addr[3]))
    elif kind == RTN_BROADCAST:
        neigh.ha = BROADCAST
    elif neigh.dev.loopback:
        neigh.ha = _ZERO_MAC
    else:
        return
    neigh.nud_state = neighbour.NUD_NOARP
    neighbour.neigh_hh_init(neigh)


# ---- sending -----------------------------------------------------------------------------


def arp_send(
    net: IpNet, op: int, dev: NetDevice, sip: bytes, tip: bytes, tha: bytes, dest: bytes
) -> None:
    """Send one ARP packet to hardware address `dest`."""
    packet = arphdr.build(op, dev.dev_addr, sip, tha, tip)
    skb = net.alloc_skb(dest + dev.dev_addr + _ARP_PROTO + packet, protocol=ETH_P_ARP)
    skb.dev = dev.ifindex
    skb.mac_header = 0
    skb.network_header = 14
    if op == arphdr.ARPOP_REQUEST:
        net.mib["ArpSentRequests"] += 1
    else:
        net.mib["ArpSentReplies"] += 1
    if net.tracing:
        net.trace("arp_send", skb, op=op, sip=sip, tip=tip)
    net.call_skb(dev.process, Netif.dev_queue_xmit, skb, None)


def arp_announce(net: IpNet, dev: NetDevice, addr: bytes) -> None:
    """Tell the segment of a new address of ours (RFC 5227 2.3, `arp_notify`)."""
    arp_send(net, arphdr.ARPOP_REQUEST, dev, addr, addr, _ZERO_MAC, BROADCAST)


def arp_solicit(net: IpNet, neigh: Neighbour) -> None:
    """Ask for a neighbour: the neighbour itself while it is known (RFC 1122 2.3.2.1), else all."""
    dev = neigh.dev
    queue = neigh.arp_queue
    saddr = b""
    if queue and queue[0].network_header >= 0:
        at = queue[0].network_header
        saddr = queue[0].head[at + IPH_SADDR : at + IPH_DADDR]
        if saddr not in net.local_addrs:
            saddr = b""
    if not saddr:
        saddr = route.inet_select_addr(net, dev, neigh.primary_key)
    if neigh.nud_state == neighbour.NUD_PROBE and neigh.ha:
        dest = neigh.ha
    else:
        dest = BROADCAST
    arp_send(net, arphdr.ARPOP_REQUEST, dev, saddr, neigh.primary_key, _ZERO_MAC, dest)


def arp_error_report(net: IpNet, neigh: Neighbour, skb: SkBuff) -> None:
    """Nobody has that address: tell the packet's sender (`ipv4_link_failure`)."""
    if net.tracing:
        net.trace("arp_error_report", skb, addr=neigh.primary_key, err=EHOSTUNREACH)
    icmp.icmp_send(net, skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0)
    net.kfree_skb(skb, "NEIGH_FAILED")


ARP_OPS: Final = NeighOps(arp_solicit, arp_error_report)
"""`arp_generic_ops`"""


# ---- receiving ---------------------------------------------------------------------------


def arp_rcv(net: IpNet, skb: SkBuff) -> None:
    """A frame of type ARP: check it, then `arp_process`."""
    if net.tracing:
        net.trace("arp_rcv", skb)
    dev = net.device(skb)
    if dev is None or not dev.up:
        net.kfree_skb(skb, "DEV_READY")
        return
    if skb.pkt_type in (PACKET_OTHERHOST, PACKET_LOOPBACK):
        net.kfree_skb(skb, "OTHERHOST")
        return
    if not pskb_may_pull(net, skb, arphdr.ARP_LEN):
        net.mib["ArpInvalid"] += 1
        net.kfree_skb(skb, "PKT_TOO_SMALL")
        return
    try:
        arp = arphdr.parse(skb.head, skb.data)
    except HeaderError as e:
        net.mib["ArpInvalid"] += 1
        net.kfree_skb(skb, e.drop_reason)
        return
    reason = arp_process(net, arp, dev, skb.pkt_type)
    if reason:
        net.mib["ArpInvalid"] += 1
        net.kfree_skb(skb, reason)
    else:
        net.consume_skb(skb)


def _arp_bad(arp: ArpHdr, dev: NetDevice) -> Checked:
    """Why an ARP packet is not to be believed, or ""."""
    if arp.ar_op not in (arphdr.ARPOP_REQUEST, arphdr.ARPOP_REPLY):
        return "NOT_SPECIFIED"
    if ipv4_is_multicast(arp.ar_tip) or arp.ar_tip[0] == 127:
        return "IP_INVALID_DEST"
    sip = arp.ar_sip
    if sip != INADDR_ANY and (
        ipv4_is_multicast(sip) or sip[0] in (0, 127) or sip == INADDR_BROADCAST
    ):
        return "IP_INVALID_SOURCE"
    if is_multicast_ether_addr(arp.ar_sha) or arp.ar_sha == _ZERO_MAC:
        return "IP_INVALID_SOURCE"
    return ""


def arp_process(net: IpNet, arp: ArpHdr, dev: NetDevice, pkt_type: int) -> Checked:
    """Answer a request for an address of ours; learn from requests to us and from replies.

    Returns a drop reason, or "" where the packet was in order.
    """
    reason = _arp_bad(arp, dev)
    if reason:
        return reason
    request = arp.ar_op == arphdr.ARPOP_REQUEST
    net.mib["ArpRcvdRequests" if request else "ArpRcvdReplies"] += 1
    if net.tracing:
        net.trace("arp_process", op=arp.ar_op, sip=arp.ar_sip, tip=arp.ar_tip, dev=dev.name)
    if arp.ar_sip in net.local_addrs:
        _duplicate(net, arp, dev)
        return ""
    owner = net.local_addrs.get(arp.ar_tip)
    ours = owner is not None and not owner.loopback
    probe = arp.ar_sip == INADDR_ANY  # RFC 5227 2.1.1
    if request and ours and (probe or not route.fib_validate_source(net, arp.ar_sip, dev)):
        if not arp_ignore(net, dev, arp.ar_sip, arp.ar_tip):
            if not probe:
                neigh_event_ns(net, arp.ar_sha, arp.ar_sip, dev)
            arp_send(net, arphdr.ARPOP_REPLY, dev, arp.ar_tip, arp.ar_sip, arp.ar_sha, arp.ar_sha)
        return ""
    if not probe:
        _arp_learn(net, arp, dev, pkt_type)
    return ""


def arp_ignore(net: IpNet, dev: NetDevice, sip: bytes, tip: bytes) -> bool:
    """Is a request on `dev` for tip, an address of ours, left unanswered? Mode 1: if tip is another
    device's; 2: or the asker is in another network; 8: always."""
    mode = net.sysctl["net.ipv4.conf.all.arp_ignore"]
    if mode not in (1, 2):
        return bool(mode == 8)
    if net.local_addrs.get(tip) is not dev:
        return True
    return mode == 2 and sip != INADDR_ANY and not _inet_addr_onlink(dev, sip, tip)


def _inet_addr_onlink(dev: NetDevice, a: bytes, b: bytes = b"") -> bool:
    """Is address a (and b) in the network of an address that dev has?"""
    for ifa in dev.ifa_list:
        mask = fib.inet_make_mask(ifa.ifa_prefixlen)
        local = int.from_bytes(ifa.ifa_local, "big")
        if not (int.from_bytes(a, "big") ^ local) & mask and (
            not b or not (int.from_bytes(b, "big") ^ local) & mask
        ):
            return True
    return False


def arp_accept(net: IpNet, dev: NetDevice, sip: bytes) -> bool:
    """May an unrequested sender make an entry? 1: always; 2: if sip is in a network of dev."""
    mode = net.sysctl["net.ipv4.conf.all.arp_accept"]
    return bool(mode == 1 or (mode == 2 and _inet_addr_onlink(dev, sip)))


def arp_is_garp(net: IpNet, arp: ArpHdr) -> bool:
    """Does a host announce itself (RFC 5227 3)? Such a reply names the sender's hardware address as
    the target's. Other replies are for somebody else, and may be spoofed."""
    if arp.ar_sip != arp.ar_tip:
        return False
    if arp.ar_op == arphdr.ARPOP_REPLY and arp.ar_tha != arp.ar_sha:
        return False
    return route.inet_addr_type(net, arp.ar_sip) == RTN_UNICAST


def neigh_event_ns(net: IpNet, lladdr: bytes, saddr: bytes, dev: NetDevice) -> None:
    """A host asks us and so tells its address: worth an entry, as we shall answer it."""
    neigh = neighbour.neigh_create(net, net.arp_tbl, dev, saddr)
    if neigh is not None:
        neighbour.neigh_update(net, neigh, lladdr, neighbour.NUD_STALE)


def _arp_learn(net: IpNet, arp: ArpHdr, dev: NetDevice, pkt_type: int) -> None:
    """A reply, or a request to another host, renews an entry; only `arp_accept` lets it make
    one."""
    neigh = neighbour.neigh_lookup(net.arp_tbl, dev, arp.ar_sip)
    accept = neigh is None and arp_accept(net, dev, arp.ar_sip)
    if neigh is None and not accept:
        return
    garp = arp_is_garp(net, arp)
    reply = arp.ar_op == arphdr.ARPOP_REPLY
    if neigh is None and (garp or (reply and route.inet_addr_type(net, arp.ar_sip) == RTN_UNICAST)):
        neigh = neighbour.neigh_create(net, net.arp_tbl, dev, arp.ar_sip)
    if neigh is None:
        return
    state = neighbour.NUD_REACHABLE if reply and pkt_type == PACKET_HOST else neighbour.NUD_STALE
    override = garp or neighbour.neigh_may_override(net, neigh)
    neighbour.neigh_update(net, neigh, arp.ar_sha, state, override)


def _duplicate(net: IpNet, arp: ArpHdr, dev: NetDevice) -> None:
    """Another host says that it has our address (RFC 5227 2.4): keep it, and warn once."""
    if arp.ar_sha == dev.dev_addr:
        return
    key = (arp.ar_sip, arp.ar_sha)
    if key not in net.duplicates and len(net.duplicates) < _DUPLICATES:
        net.duplicates.add(key)
        net.warning(
            "arp_process",
            error="duplicate address: another host uses an address of ours",
            addr=".".join(map(str, arp.ar_sip)),
            lladdr=arp.ar_sha.hex(":"),
            dev=dev.name,
        )
