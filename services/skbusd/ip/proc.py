# SPDX-License-Identifier: MIT
"""ip's part of /proc/net/raw, icmp, igmp, arp, route, dev, snmp and sockstat (`raw.c`, `ping.c`,
`igmp.c`, `arp.c`, `fib_trie.c`), as plain values for `skbus proc` (`skbus.inet.proc`)."""

from typing import Any

from skbus.inet.proc import (
    TCP_CLOSE,
    TCP_ESTABLISHED,
    USER_HZ_NS,
    ArpLine,
    DatagramLine,
    DevLine,
    IgmpDevice,
    IgmpGroup,
    RouteLine,
    dev_stats,
)
from skbusd.ip import igmp, neighbour
from skbusd.ip.fib import fib_dump
from skbusd.ip.netns import (
    INADDR_ANY,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_UNREACHABLE,
    FibInfo,
    IpNet,
)

_RTF_UP = 0x0001
_RTF_GATEWAY = 0x0002
_RTF_HOST = 0x0004
_RTF_REJECT = 0x0200
_ATF_COM = 0x02
_ATF_PERM = 0x04


def proc_net(net: IpNet, name: str) -> Any:
    """ip's part of one file; None where it has none."""
    function = _FILES.get(name)
    return function(net) if function is not None else None


def _datagrams(net: IpNet, ping: bool) -> list[DatagramLine]:
    return [
        DatagramLine(
            sk.sk,
            TCP_ESTABLISHED if sk.connected() else TCP_CLOSE,
            (sk.inet_rcv_saddr, sk.inet_num),
            (sk.inet_daddr, 0),
            sk.sk_rmem_alloc,
            sk.sk_drops,
        )
        for sk in net.inet_socks.values()
        if sk.ping is ping and sk.inet_num
    ]


def _igmp(net: IpNet) -> list[IgmpDevice]:
    found = []
    for dev in sorted(net.devices.values(), key=lambda dev: dev.ifindex):
        groups = []
        for im in dev.mc_list.values():
            running = im.timer is not None and im.timer.pending()
            left = max(im.timer.expires - net.now, 0) // USER_HZ_NS if im.timer else 0
            timer = left if running else 0
            groups.append(IgmpGroup(im.multiaddr, im.users, running, timer, im.reporter))
        version = igmp.igmp_version(net, dev)
        found.append(IgmpDevice(dev.ifindex, dev.name, version, tuple(groups)))
    return found


def _arp(net: IpNet) -> list[ArpLine]:
    lines = []
    for n in net.arp_tbl.entries.values():
        if n.nud_state & neighbour.NUD_NOARP:
            continue
        valid = bool(n.nud_state & neighbour.NUD_VALID)
        flags = _ATF_COM if valid else 0
        if n.nud_state & neighbour.NUD_PERMANENT:
            flags |= _ATF_PERM
        lines.append(ArpLine(n.primary_key, flags, n.ha if valid else bytes(6), n.dev.name))
    return lines


def _route_flags(fi: FibInfo) -> int:
    flags = _RTF_REJECT if fi.fib_type in (RTN_UNREACHABLE, RTN_PROHIBIT) else 0
    if fi.fib_gw:
        flags |= _RTF_GATEWAY
    if fi.fib_prefixlen == 32:
        flags |= _RTF_HOST
    return flags | _RTF_UP


def _route(net: IpNet) -> list[RouteLine]:
    """The main table: neither local nor broadcast routes."""
    routes = [
        fi
        for fi in fib_dump(net.fib)
        if fi.fib_type not in (RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST)
    ]
    routes.sort(key=lambda fi: (fi.fib_prefix, -fi.fib_prefixlen, fi.fib_metric))
    return [
        RouteLine(
            fi.fib_dev.name if fi.fib_dev is not None else "*",
            fi.fib_prefix,
            fi.fib_gw or INADDR_ANY,
            _route_flags(fi),
            fi.fib_metric,
            fi.fib_prefixlen,
        )
        for fi in routes
    ]


def _snmp(net: IpNet) -> dict[str, int]:
    """The fields that are settings, not counters."""
    return {
        "IpForwarding": 1 if net.ipv4.sysctl_ip_forward else 2,
        "IpDefaultTTL": net.ipv4.sysctl_ip_default_ttl,
    }


def _sockstat(net: IpNet) -> dict[str, int]:
    return {
        "raw": sum(len(socks) for socks in net.raw_hash.values()),
        "ping": sum(len(socks) for socks in net.ping_table.values()),
        "frag": len(net.ip4_frags),
        "frag_mem": net.frag_mem,
    }


def _dev(net: IpNet) -> list[DevLine]:
    """The loopback; the other devices are their drivers' to tell."""
    return [DevLine(0, net.loopback_dev.name, dev_stats(net.mib))]


_FILES = {
    "raw": lambda net: _datagrams(net, False),
    "icmp": lambda net: _datagrams(net, True),
    "igmp": _igmp,
    "arp": _arp,
    "route": _route,
    "snmp": _snmp,
    "sockstat": _sockstat,
    "dev": _dev,
}
