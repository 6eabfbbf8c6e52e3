# SPDX-License-Identifier: MIT
"""The forwarding table: longest-prefix match (`fib_frontend.c`, `fib_trie.c`).

`fib_lookup` is called by `route`; `fib_table_insert` and `fib_table_delete` by `devinet`, when
addresses come and go, and by configuration. Local and broadcast addresses lie in the same table
as /32 prefixes, so that they win over anything configured. RFC 1812 5.2.4.3; RFC 1122 3.3.1.

Differs from Linux: one table holds the routes of Linux's `local` and `main`; no policy rules.
"""

from typing import Final

from skbusd.ip.netns import RTN_LOCAL, FibInfo, FibTable, IpNet, NetDevice

_MASKS: Final = tuple((0xFFFFFFFF << (32 - n)) & 0xFFFFFFFF for n in range(33))


def inet_make_mask(prefixlen: int) -> int:
    """The netmask of a prefix length, as an int."""
    return _MASKS[prefixlen]


def fib_table_insert(table: FibTable, fi: FibInfo) -> bool:
    """Add a route; False where the very same is there already."""
    for plen, _, routes in table.zones:
        if plen == fi.fib_prefixlen:
            zone = routes
            break
    else:
        zone = {}
        table.zones.append((fi.fib_prefixlen, _MASKS[fi.fib_prefixlen], zone))
        table.zones.sort(key=lambda z: -z[0])
    entry = zone.setdefault(int.from_bytes(fi.fib_prefix, "big"), [])
    if fi in entry:
        return False
    entry.append(fi)
    # Of routes to one prefix, those of the kernel's local table come first, then by metric.
    entry.sort(key=lambda f: (f.fib_type != RTN_LOCAL, f.fib_metric))
    return True


def fib_table_delete(table: FibTable, fi: FibInfo) -> bool:
    """Take a route out; False where it is not there."""
    for i, (plen, _, routes) in enumerate(table.zones):
        if plen != fi.fib_prefixlen:
            continue
        key = int.from_bytes(fi.fib_prefix, "big")
        entry = routes.get(key)
        if entry is None or fi not in entry:
            return False
        entry.remove(fi)
        if not entry:
            del routes[key]
            if not routes:
                del table.zones[i]
        return True
    return False


def fib_table_flush(table: FibTable, dev: NetDevice) -> None:
    """Take out all routes through a device (`fib_sync_down_dev`)."""
    for fi in fib_dump(table):
        if fi.fib_dev is dev:
            fib_table_delete(table, fi)


def fib_dump(table: FibTable) -> list[FibInfo]:
    """All routes, longest prefix first."""
    return [fi for _, _, routes in table.zones for key in sorted(routes) for fi in routes[key]]


def fib_lookup(net: IpNet, daddr: bytes, oif: int = 0) -> FibInfo | None:
    """The route to daddr, by longest prefix; oif: only through that device, 0 for any."""
    addr = int.from_bytes(daddr, "big")
    found: FibInfo | None = None
    for _, mask, routes in net.fib.zones:
        entry = routes.get(addr & mask)
        if entry is None:
            continue
        for fi in entry:
            dev = fi.fib_dev
            if oif and dev is not None and dev.ifindex != oif:
                continue
            found = fi
            break
        if found:
            break
    if net.tracing:
        net.trace(
            "fib_lookup",
            daddr=daddr,
            dev=found.fib_dev.name if found and found.fib_dev else "",
            type=found.fib_type if found else 0,
        )
    return found
