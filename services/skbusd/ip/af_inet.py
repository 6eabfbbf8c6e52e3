# SPDX-License-Identifier: MIT
"""`inet_init`, the part that is ip's (`net/ipv4/af_inet.c`): ICMP and IGMP, ARP, routes, ping and
raw sockets, /proc/net, fragments, and that IPv4 frames are ours. Called by core.py at start.

tcp and udp do their parts, and register with us (protocol.py); the socket layer does the family.
"""

from typing import Final

from skbus.core.abi import Close
from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.interfaces import NetifReceive
from skbus.core.skbuff import ETH_P_IP
from skbusd.ip import arp, dev, devinet, icmp, igmp, inet_sock, ip_input, mcast, proc, protocol
from skbusd.ip.netns import IPPROTO_ICMP, IPPROTO_IGMP, IpNet

_KEY_BITS: Final = 88


def icmp_add_protocol(net: IpNet) -> None:
    """`inet_add_protocol(&icmp_protocol, IPPROTO_ICMP)`"""
    protocol.inet_add_local(net, IPPROTO_ICMP, icmp.icmp_rcv)


def igmp_add_protocol(net: IpNet) -> None:
    """`inet_add_protocol(&igmp_protocol, IPPROTO_IGMP)`"""
    protocol.inet_add_local(
        net, IPPROTO_IGMP, lambda net, skb, iph, rt: igmp.igmp_rcv(net, skb, iph)
    )


def ip_init(net: IpNet) -> None:
    """`ip_init`: the key of IP identifiers; devices, addresses and routes of the configuration
    (`ip_rt_init`); the table of peers (`inet_initpeers`). `devinet.IpConfigError` where the
    configuration makes no sense."""
    net.ip_idents_key = net.rand.getrandbits(_KEY_BITS) | 1
    try:
        devinet.devinet_init(net)
    except devinet.IpConfigError:
        ip_exit(net)
        raise


def ip_exit(net: IpNet) -> None:
    """Undo `ip_init`."""
    devinet.devinet_exit(net)
    net.ip_idents.clear()
    net.ip_idents_key = 0


def ping_init(net: IpNet) -> None:
    """`ping_init`: nobody has an identifier; they are given from 1 on."""
    net.ping_table.clear()
    net.ping_port_rover = 0


def icmp_init(net: IpNet) -> None:
    """`icmp_init`: the buckets of the rate limits are full (RFC 1812 4.3.2.8)."""
    net.icmp_global_stamp = -1
    net.icmp_global_credit = 0
    net.inet_peers.clear()
    net.redirect_peers.clear()


def ipv4_proc_init(net: IpNet) -> None:
    """`ipv4_proc_init`: our part of /proc/net can be read."""
    net.proc_net = proc.proc_net


def ipv4_proc_exit(net: IpNet) -> None:
    """Undo `ipv4_proc_init`."""
    net.proc_net = None


def ipfrag_init(net: IpNet) -> None:
    """`ipfrag_init`: no fragment waits, and no memory is in use for any."""
    net.ip4_frags.clear()
    net.frag_mem = 0
    net.frag_rid.clear()


def nothing(net: IpNet) -> None:
    """Tables that were empty are empty."""


INET_INIT: Final = (
    InitStep(
        "inet_add_protocol(ICMP)",
        icmp_add_protocol,
        lambda net: protocol.inet_del_local(net, IPPROTO_ICMP),
    ),
    InitStep(
        "inet_add_protocol(IGMP)",
        igmp_add_protocol,
        lambda net: protocol.inet_del_local(net, IPPROTO_IGMP),
    ),
    InitStep("arp_init", arp.arp_init, arp.arp_exit),
    InitStep("ip_init", ip_init, ip_exit),
    InitStep("ping_init", ping_init, nothing),
    InitStep("icmp_init", icmp_init, nothing),
    InitStep("ipv4_proc_init", ipv4_proc_init, ipv4_proc_exit),
    InitStep("ipfrag_init", ipfrag_init, nothing),
    InitStep(
        "dev_add_pack(ip_packet_type)",
        lambda net: dev.dev_add_pack(net, ETH_P_IP, NetifReceive.ip_rcv, ip_input.ip_rcv),
        lambda net: dev.dev_remove_pack(net, ETH_P_IP),
    ),
)
"""The steps of `inet_init` that are ip's, in the kernel's order."""


def inet_init(net: IpNet) -> None:
    """`inet_init`, ip's part."""
    do_initcalls(net, "inet_init", INET_INIT)


def inet_release(net: IpNet, item: Close) -> None:
    """`inet_release`: close(2) of a raw or ping socket, which leaves its groups and is
    forgotten."""
    if net.tracing:
        net.trace("inet_release", sk=item.sk)
    mcast.mc_drop(net, ("socket", item.sk))
    inet_sock.sk_close(net, item)
