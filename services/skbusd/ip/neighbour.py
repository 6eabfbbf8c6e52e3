# SPDX-License-Identifier: MIT
"""Neighbours: next hops, their hardware addresses and their states (`net/core/neighbour.c`).

`neigh_resolve_output` is the end of ip's way out. It puts the Ethernet header in front and calls
`dev_queue_xmit` in the device's process, or keeps the skb until the address is known. The table's
family finds addresses: `arp` for IPv4 (`NeighTable.constructor`, `NeighOps`). Nothing here knows of
ARP, so that IPv6's neighbour discovery has its place. RFC 1122 2.3.2 (the queue, and that entries
expire); RFC 4861 7.3 for the states.

    NONE -> INCOMPLETE -> REACHABLE -> STALE -> DELAY -> PROBE -> REACHABLE or FAILED
"""

from typing import Final

from skbus.core.dropreason import SkbDropReason
from skbus.core.interfaces import Netif
from skbus.core.net import MSEC, SEC
from skbus.core.skbuff import SkBuff
from skbus.core.timer import Timer
from skbusd.ip.netns import IpNet, Neighbour, NeighTable, NetDevice, Rtable

NUD_NONE: Final = 0
NUD_INCOMPLETE: Final = 0x01
NUD_REACHABLE: Final = 0x02
NUD_STALE: Final = 0x04
NUD_DELAY: Final = 0x08
NUD_PROBE: Final = 0x10
NUD_FAILED: Final = 0x20
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NUD_CONNECTED: Final = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE
NUD_VALID: Final = NUD_CONNECTED | NUD_PROBE | NUD_STALE | NUD_DELAY
NUD_IN_TIMER: Final = NUD_INCOMPLETE | NUD_REACHABLE | NUD_DELAY | NUD_PROBE

NUD_NAMES: Final = {
    NUD_NONE: "NONE",
    NUD_INCOMPLETE: "INCOMPLETE",
    NUD_REACHABLE: "REACHABLE",
    NUD_STALE: "STALE",
    NUD_DELAY: "DELAY",
    NUD_PROBE: "PROBE",
    NUD_FAILED: "FAILED",
    NUD_NOARP: "NOARP",
    NUD_PERMANENT: "PERMANENT",
}

_REACHABLE_RANDOM_AGAIN: Final = 300 * SEC
"""How often the reachable time is drawn anew (`neigh_periodic_work`)."""
_LOCKTIME: Final = 1 * SEC
"""For so long after a neighbour's address has changed, another one is ignored (`locktime`)."""


def _reachable_time(net: IpNet, tbl: NeighTable) -> int:
    """`neigh_rand_reach_time`: between half and one and a half of base_reachable_time, ns."""
    if tbl.reachable_time_set < 0 or net.now - tbl.reachable_time_set > _REACHABLE_RANDOM_AGAIN:
        base = net.sysctl[tbl.conf + "base_reachable_time_ms"] * MSEC
        tbl.reachable_time = (base >> 1) + net.rand.randrange(base)
        tbl.reachable_time_set = net.now
    return tbl.reachable_time


def neigh_hh_init(neigh: Neighbour) -> None:
    """`neigh_hh_init`: the Ethernet header of packets to this neighbour."""
    neigh.hh = neigh.ha + neigh.dev.dev_addr + neigh.tbl.protocol


# ---- the table ---------------------------------------------------------------------------


def neigh_table_init(net: IpNet, tbl: NeighTable) -> None:
    """`neigh_table_init`: a family has a table, empty."""
    net.neigh_tables.append(tbl)


def neigh_table_clear(net: IpNet, tbl: NeighTable) -> None:
    """Undo `neigh_table_init`."""
    net.neigh_tables.remove(tbl)
    if tbl.gc_timer is not None:
        net.del_timer(tbl.gc_timer)
        tbl.gc_timer = None
    for neigh in tuple(tbl.entries.values()):
        neigh_release(net, neigh, "NEIGH_DEAD")


def neigh_lookup(tbl: NeighTable, dev: NetDevice, addr: bytes) -> Neighbour | None:
    """The entry for addr on dev, if there is one."""
    return tbl.entries.get((dev.ifindex, addr))


def neigh_create(net: IpNet, tbl: NeighTable, dev: NetDevice, addr: bytes) -> Neighbour | None:
    """The entry for addr on dev, made if need be; None where the table is full of entries that
    are in use (`gc_thresh3`)."""
    key = (dev.ifindex, addr)
    neigh = tbl.entries.get(key)
    if neigh is not None:
        return neigh
    limit = net.sysctl[tbl.conf + "gc_thresh3"]
    if len(tbl.entries) >= limit and not neigh_forced_gc(net, tbl):
        return None
    neigh = Neighbour(tbl, dev, addr, net.now)
    tbl.constructor(net, neigh)
    tbl.entries[key] = neigh
    if tbl.gc_timer is None:
        tbl.gc_timer = Timer(neigh_periodic_work, tbl)
    if not tbl.gc_timer.pending():
        _arm_gc(net, tbl.gc_timer, tbl)
    if net.tracing:
        net.trace("neigh_create", addr=addr, dev=dev.name, state=NUD_NAMES[neigh.nud_state])
    return neigh


def neigh_release(net: IpNet, neigh: Neighbour, reason: SkbDropReason) -> None:
    """Take an entry out of the table; packets that wait for it are dropped."""
    neigh.tbl.entries.pop((neigh.dev.ifindex, neigh.primary_key), None)
    neigh.dead = True
    if neigh.timer is not None:
        net.del_timer(neigh.timer)
    while neigh.arp_queue:
        net.kfree_skb(neigh.arp_queue.popleft(), reason)
    neigh.arp_queue_len_bytes = 0


def neigh_forced_gc(net: IpNet, tbl: NeighTable) -> int:
    """The table is full: drop spare entries, the longest unused first, a quarter of all at most."""
    spare = [
        n
        for n in tbl.entries.values()
        if n.nud_state & (NUD_STALE | NUD_FAILED | NUD_NOARP) and not n.arp_queue
    ]
    spare.sort(key=lambda n: n.used)
    spare = spare[: max(1, len(tbl.entries) // 4)]
    for neigh in spare:
        neigh_release(net, neigh, "NEIGH_DEAD")
    return len(spare)


def _arm_gc(net: IpNet, timer: Timer[IpNet], tbl: NeighTable) -> None:
    base = net.sysctl[tbl.conf + "base_reachable_time_ms"] * MSEC
    net.mod_timer(timer, net.now + base // 2)


def neigh_periodic_work(net: IpNet, tbl: NeighTable) -> None:
    """Drop entries that failed or that nobody has used for gc_stale_time."""
    stale = net.sysctl[tbl.conf + "gc_stale_time"] * SEC
    old = [
        n
        for n in tbl.entries.values()
        if not n.nud_state & (NUD_PERMANENT | NUD_IN_TIMER)
        and (n.nud_state == NUD_FAILED or net.now - max(n.used, n.confirmed) > stale)
    ]
    for neigh in old:
        neigh_release(net, neigh, "NEIGH_DEAD")
    if tbl.entries and tbl.gc_timer is not None:
        _arm_gc(net, tbl.gc_timer, tbl)


def neigh_ifdown(net: IpNet, dev: NetDevice) -> None:
    """The device went down: its neighbours are forgotten."""
    for tbl in net.neigh_tables:
        for neigh in [n for n in tbl.entries.values() if n.dev is dev]:
            neigh_release(net, neigh, "NEIGH_DEAD")


# ---- output ------------------------------------------------------------------------------


def ip_neigh_for_gw(net: IpNet, rt: Rtable) -> Neighbour | None:
    """The route's neighbour, found once and kept with the route."""
    neigh = neigh_create(net, net.arp_tbl, rt.dev, rt.rt_gateway)
    rt.rt_neigh = neigh
    return neigh


def neigh_resolve_output(net: IpNet, neigh: Neighbour, skb: SkBuff) -> None:
    """Send by a neighbour: at once where its address is known, else when it has been found."""
    if net.tracing:
        net.trace("neigh_resolve_output", skb, state=NUD_NAMES[neigh.nud_state])
    neigh.used = net.now
    if neigh.nud_state & NUD_CONNECTED or neigh_event_send(net, neigh, skb):
        dev = neigh.dev
        skb.dev = dev.ifindex
        skb.push(neigh.hh)
        skb.mac_header = 0
        net.call_skb(dev.process, Netif.dev_queue_xmit, skb, None)


def neigh_event_send(net: IpNet, neigh: Neighbour, skb: SkBuff | None) -> bool:
    """Someone wants to send: True if the address may be used now; False if the skb waits, or was
    dropped. RFC 1122 2.3.2.2: keep the latest packets."""
    state = neigh.nud_state
    if state & (NUD_CONNECTED | NUD_DELAY | NUD_PROBE):
        return True
    if state == NUD_STALE:
        neigh.nud_state = NUD_DELAY
        neigh.updated = net.now
        delay = net.sysctl[neigh.tbl.conf + "delay_first_probe_time"] * SEC
        _neigh_add_timer(net, neigh, net.now + delay)
        return True
    probe = False
    if state != NUD_INCOMPLETE:
        neigh.probes = 0
        neigh.nud_state = NUD_INCOMPLETE
        neigh.updated = net.now
        probe = True
    if skb is not None:
        _neigh_enqueue(net, neigh, skb)
    if probe:
        _neigh_add_timer(net, neigh, net.now + _retrans_time(net, neigh.tbl))
        neigh_probe(net, neigh)
    return False


def _neigh_enqueue(net: IpNet, neigh: Neighbour, skb: SkBuff) -> None:
    queue = neigh.arp_queue
    limit = net.sysctl[neigh.tbl.conf + "unres_qlen_bytes"]
    most = net.sysctl[neigh.tbl.conf + "unres_qlen"]
    size = skb.len
    while queue and (len(queue) >= most or neigh.arp_queue_len_bytes + size > limit):
        oldest = queue.popleft()
        neigh.arp_queue_len_bytes -= oldest.len
        net.kfree_skb(oldest, "NEIGH_QUEUEFULL")
    if most == 0 or size > limit:
        net.kfree_skb(skb, "NEIGH_QUEUEFULL")
        return
    queue.append(skb)
    neigh.arp_queue_len_bytes += size


# ---- states ------------------------------------------------------------------------------


def _retrans_time(net: IpNet, tbl: NeighTable) -> int:
    retrans: int = net.sysctl[tbl.conf + "retrans_time_ms"]
    return retrans * MSEC


def _neigh_add_timer(net: IpNet, neigh: Neighbour, when: int) -> None:
    if neigh.timer is None:
        neigh.timer = Timer(neigh_timer_handler, neigh)
    net.mod_timer(neigh.timer, when)


def neigh_max_probes(net: IpNet, neigh: Neighbour) -> int:
    """How many probes before giving up: to everybody while the address is unknown, to the
    neighbour alone when it must be confirmed."""
    which = "ucast_solicit" if neigh.nud_state == NUD_PROBE else "mcast_solicit"
    probes: int = net.sysctl[neigh.tbl.conf + which]
    return probes


def neigh_probe(net: IpNet, neigh: Neighbour) -> None:
    """Ask for the address: everybody while it is unknown, the neighbour alone to confirm it."""
    neigh.probes += 1
    neigh.ops.solicit(net, neigh)


def neigh_timer_handler(net: IpNet, neigh: Neighbour) -> None:
    """The time of a state is over."""
    if neigh.dead:
        return
    state = neigh.nud_state
    now = net.now
    delay = net.sysctl[neigh.tbl.conf + "delay_first_probe_time"] * SEC
    when = now
    if state == NUD_REACHABLE:
        if now < neigh.confirmed + _reachable_time(net, neigh.tbl):
            when = neigh.confirmed + _reachable_time(net, neigh.tbl)
        elif now <= neigh.used + delay:
            neigh.nud_state = NUD_DELAY
            neigh.updated = now
            when = now + delay
        else:
            neigh.nud_state = NUD_STALE
            neigh.updated = now
            return
    elif state == NUD_DELAY:
        if now <= neigh.confirmed + delay:
            neigh.nud_state = NUD_REACHABLE
            neigh.updated = now
            when = neigh.confirmed + _reachable_time(net, neigh.tbl)
        else:
            neigh.nud_state = NUD_PROBE
            neigh.updated = now
            neigh.probes = 0
    elif not state & (NUD_PROBE | NUD_INCOMPLETE):
        return
    if neigh.nud_state & (NUD_PROBE | NUD_INCOMPLETE):
        if neigh.probes >= neigh_max_probes(net, neigh):
            neigh_invalidate(net, neigh)
            return
        when = now + _retrans_time(net, neigh.tbl)
        _neigh_add_timer(net, neigh, when)
        neigh_probe(net, neigh)
        return
    _neigh_add_timer(net, neigh, when)


def neigh_invalidate(net: IpNet, neigh: Neighbour) -> None:
    """Nobody answered: FAILED, and the senders of waiting packets are told (RFC 1122 3.3.1.1)."""
    neigh.nud_state = NUD_FAILED
    neigh.updated = net.now
    neigh.hh = b""
    neigh.ha = b""
    net.mib["ArpResolveFailed"] += 1
    if net.tracing:
        net.trace("neigh_invalidate", addr=neigh.primary_key, dev=neigh.dev.name)
    while neigh.arp_queue and neigh.nud_state == NUD_FAILED:
        skb = neigh.arp_queue.popleft()
        neigh.arp_queue_len_bytes -= skb.len
        neigh.ops.error_report(net, neigh, skb)


def neigh_update(
    net: IpNet, neigh: Neighbour, lladdr: bytes, new: int, override: bool = True
) -> None:
    """News of a neighbour: its address, and how sure it is (`new`: a NUD_ state)."""
    old = neigh.nud_state
    if old & (NUD_NOARP | NUD_PERMANENT) or neigh.dead:
        return
    changed = not old & NUD_VALID or lladdr != neigh.ha
    if old & NUD_VALID:
        if changed and not override:
            return
        if not changed and new == NUD_STALE:
            new = old
    if new & NUD_CONNECTED:
        neigh.confirmed = net.now
    if new == old and not changed:
        return  # nothing new, so `locktime` does not begin again
    neigh.updated = net.now
    if new != old:
        if neigh.timer is not None:
            net.del_timer(neigh.timer)
        if new == NUD_REACHABLE:
            _neigh_add_timer(net, neigh, net.now + _reachable_time(net, neigh.tbl))
        neigh.nud_state = new
        neigh.probes = 0
    if changed:
        neigh.ha = lladdr
        neigh_hh_init(neigh)
        if not new & NUD_CONNECTED:
            base = net.sysctl[neigh.tbl.conf + "base_reachable_time_ms"] * MSEC
            neigh.confirmed = net.now - 2 * base
    if net.tracing:
        net.trace("neigh_update", addr=neigh.primary_key, lladdr=lladdr, state=NUD_NAMES[new])
    while neigh.arp_queue and neigh.nud_state & NUD_VALID:
        skb = neigh.arp_queue.popleft()
        neigh.arp_queue_len_bytes -= skb.len
        neigh_resolve_output(net, neigh, skb)


def neigh_may_override(net: IpNet, neigh: Neighbour) -> bool:
    """Is the address old enough to be replaced by another (`locktime`)?"""
    return net.now > neigh.updated + _LOCKTIME


def neigh_dump(net: IpNet) -> list[dict[str, object]]:
    """The tables as data, for commands."""
    return [
        {
            "addr": n.primary_key,
            "dev": n.dev.name,
            "lladdr": n.ha,
            "state": NUD_NAMES[n.nud_state],
            "used": net.now - n.used,
            "queue": len(n.arp_queue),
        }
        for tbl in net.neigh_tables
        for n in tbl.entries.values()
        if not n.nud_state & NUD_NOARP
    ]
