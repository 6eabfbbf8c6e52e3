# SPDX-License-Identifier: MIT
"""Multicast groups of this host, and the protocol that tells routers of them
(`net/ipv4/igmp.c`).

`mcast` joins and leaves for sockets; `ip_local_deliver_finish` brings queries and reports to
`igmp_rcv`; `ip_check_mc` tells the routes what to take. RFC 3376 (version 3), RFC 2236 (version 2),
RFC 1112 appendix I (version 1). The version spoken is that of the oldest querier heard of late (RFC
3376 7.2.1), or `force_igmp_version`.

Differs from Linux: while a filter-mode change is still to be reported, changes of sources wait for
it instead of going out with it.
"""

from collections.abc import Iterable
from typing import Final

from skbus.core.abi import XmitCb
from skbus.core.net import MSEC, SEC
from skbus.core.pskb import pskb_may_pull, skb_checksum
from skbus.core.skbuff import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, PACKET_HOST, SkBuff
from skbus.core.timer import Timer
from skbus.inet.headers import HeaderError
from skbus.inet.headers import igmp as igmphdr
from skbus.inet.headers.igmp import (
    IGMP_ALL_HOSTS,
    IGMP_ALL_ROUTER,
    IGMP_HLEN,
    IGMP_HOST_LEAVE_MESSAGE,
    IGMP_HOST_MEMBERSHIP_QUERY,
    IGMP_HOST_MEMBERSHIP_REPORT,
    IGMPV2_HOST_MEMBERSHIP_REPORT,
    IGMPV3_ALL_MCR,
    IGMPV3_ALLOW_NEW_SOURCES,
    IGMPV3_BLOCK_OLD_SOURCES,
    IGMPV3_CHANGE_TO_EXCLUDE,
    IGMPV3_CHANGE_TO_INCLUDE,
    IGMPV3_MODE_IS_EXCLUDE,
    IGMPV3_MODE_IS_INCLUDE,
    Igmpv3Grec,
)
from skbus.inet.headers.ipv4 import IpHdr
from skbus.inet.mcast import MCAST_EXCLUDE, MCAST_INCLUDE
from skbusd.ip import ip_output, route
from skbusd.ip.netns import IPPROTO_IGMP, IpMcList, IpNet, NetDevice

_INITIAL_REPORT_DELAY: Final = MSEC
_TENTH: Final = 100 * MSEC
"""The unit of a query's response time (`IGMP_TIMER_SCALE`)."""
_QUERY_RESPONSE_INTERVAL: Final = 10 * SEC
_ROUTER_ALERT: Final = b"\x94\x04\x00\x00"
_PREC_INTERNETCONTROL: Final = 0xC0
_IP_HEADERS: Final = 24
_REPORT_HEADER: Final = 8
_GREC_HEADER: Final = 8


# ---- state -------------------------------------------------------------------------------


def ip_check_mc(dev: NetDevice, mc_addr: bytes, src_addr: bytes, protocol: int) -> bool:
    """`ip_check_mc_rcu`: does anybody here want packets from src_addr to this group?"""
    im = dev.mc_list.get(mc_addr)
    if im is None:
        return False
    if protocol == IPPROTO_IGMP or src_addr == b"\0\0\0\0":
        return True
    return (src_addr in im.state) == (im.mode == MCAST_INCLUDE)


def igmp_version(net: IpNet, dev: NetDevice) -> int:
    """`IGMP_V1_SEEN`, `IGMP_V2_SEEN`: the version to speak on this device (RFC 3376 7.2.1)."""
    forced: int = net.sysctl["net.ipv4.conf.all.force_igmp_version"]
    if forced:
        return forced
    if dev.igmp.mr_v1_seen > net.now:
        return 1
    return 2 if dev.igmp.mr_v2_seen > net.now else 3


def _qrv(net: IpNet, dev: NetDevice) -> int:
    """The robustness variable: the querier's, or our own (RFC 3376 8.1)."""
    return dev.igmp.mr_qrv or int(net.sysctl["net.ipv4.igmp_qrv"])


def _unsolicited_report_interval(net: IpNet, dev: NetDevice) -> int:
    version = 3 if igmp_version(net, dev) == 3 else 2
    name = f"net.ipv4.conf.all.igmpv{version}_unsolicited_report_interval"
    return int(net.sysctl[name]) * MSEC


def _reported(net: IpNet, multiaddr: bytes) -> bool:
    """All-hosts is never reported (RFC 2236 6), others of 224.0.0.x only if the sysctl says so."""
    if multiaddr == IGMP_ALL_HOSTS:
        return False
    link_local = multiaddr[:3] == b"\xe0\0\0"
    return not link_local or bool(net.sysctl["net.ipv4.igmp_link_local_mcast_reports"])


# ---- joining and leaving -----------------------------------------------------------------


def ip_mc_inc_group(
    net: IpNet, dev: NetDevice, addr: bytes, mode: int, sources: Iterable[bytes] = ()
) -> None:
    """`____ip_mc_inc_group`: a socket joins the group, with a source filter."""
    im = dev.mc_list.get(addr)
    new = im is None
    if im is None:
        buried = dev.igmp.tomb
        im = dev.mc_list[addr] = buried.pop(addr) if addr in buried else IpMcList(addr)
        _forget_routes(net, addr)
    im.users += 1
    if net.tracing:
        net.trace("ip_mc_inc_group", dev=dev.name, group=addr, users=im.users)
    _filter(im, mode, sources, 1)
    if new:
        igmp_group_added(net, dev, im)
    else:
        igmp_state_change(net, dev, im)


def ip_mc_dec_group(
    net: IpNet, dev: NetDevice, addr: bytes, mode: int, sources: Iterable[bytes] = ()
) -> None:
    """`__ip_mc_dec_group`: a socket with that filter leaves; the last one ends the membership."""
    im = dev.mc_list.get(addr)
    if im is None:
        return
    im.users -= 1
    if net.tracing:
        net.trace("ip_mc_dec_group", dev=dev.name, group=addr, users=im.users)
    _filter(im, mode, sources, -1)
    if im.users > 0:
        igmp_state_change(net, dev, im)
        return
    del dev.mc_list[addr]
    _forget_routes(net, addr)
    igmp_group_dropped(net, dev, im)


def ip_mc_change_filter(
    net: IpNet,
    dev: NetDevice,
    addr: bytes,
    old: tuple[int, Iterable[bytes]],
    new: tuple[int, Iterable[bytes]],
) -> None:
    """`ip_mc_add_src` and `ip_mc_del_src`: a socket's filter was `old`, and is `new`."""
    im = dev.mc_list.get(addr)
    if im is None:
        return
    _filter(im, *new, 1)
    _filter(im, *old, -1)
    igmp_state_change(net, dev, im)


def _filter(im: IpMcList, mode: int, sources: Iterable[bytes], n: int) -> None:
    """One more filter, or one less."""
    im.sfcount[mode] += n
    for source in sources:
        counts = im.sources.setdefault(source, [0, 0])
        counts[mode] += n
        if counts == [0, 0]:
            del im.sources[source]


def _reception_state(im: IpMcList) -> tuple[int, frozenset[bytes]]:
    """The filters of all sockets together (RFC 3376 3.2)."""
    excluders = im.sfcount[MCAST_EXCLUDE]
    if not excluders:
        return MCAST_INCLUDE, frozenset(s for s, n in im.sources.items() if n[MCAST_INCLUDE])
    return MCAST_EXCLUDE, frozenset(
        s for s, n in im.sources.items() if n[MCAST_EXCLUDE] == excluders and not n[MCAST_INCLUDE]
    )


def _forget_routes(net: IpNet, addr: bytes) -> None:
    for key in [k for k in net.rt_in if k[1] == addr]:
        del net.rt_in[key]


def igmp_state_change(net: IpNet, dev: NetDevice, im: IpMcList) -> None:
    """The filters have changed: note the changes that must be reported (RFC 3376 5.1)."""
    mode, state = _reception_state(im)
    if (mode, state) == (im.mode, im.state):
        return
    old_mode, old = im.mode, im.state
    im.mode, im.state = mode, state
    _forget_routes(net, im.multiaddr)
    if not _reported(net, im.multiaddr) or igmp_version(net, dev) != 3:
        return
    times = _qrv(net, dev)
    if mode != old_mode:
        im.crcount = times
        im.allow.clear()
        im.block.clear()
    else:
        more, fewer = state - old, old - state
        allowed, blocked = (more, fewer) if mode == MCAST_INCLUDE else (fewer, more)
        for source in sorted(allowed):
            im.allow[source] = times
            im.block.pop(source, None)
        for source in sorted(blocked):
            im.block[source] = times
            im.allow.pop(source, None)
    igmp_ifc_event(net, dev)


def igmp_group_added(net: IpNet, dev: NetDevice, im: IpMcList) -> None:
    """A new group: report it unasked, several times (RFC 2236 3, RFC 3376 5.1)."""
    if igmp_version(net, dev) == 3 or not _reported(net, im.multiaddr):
        igmp_state_change(net, dev, im)
        return
    im.mode, im.state = _reception_state(im)
    im.unsolicit_count = _qrv(net, dev)
    igmp_start_timer(net, dev, im, _INITIAL_REPORT_DELAY)


def igmp_group_dropped(net: IpNet, dev: NetDevice, im: IpMcList) -> None:
    """Nobody is in the group any more: leave it (RFC 2236 3), or report that (RFC 3376 5.1)."""
    reporter = im.reporter
    igmp_stop_timer(net, im)
    if not _reported(net, im.multiaddr) or not dev.up:
        return
    version = igmp_version(net, dev)
    if version == 2 and reporter:
        igmp_send_report(net, dev, im, IGMP_HOST_LEAVE_MESSAGE)
    elif version == 3:
        # igmpv3_add_delrec: the record stays until it has been reported often enough
        dev.igmp.tomb[im.multiaddr] = im
        igmp_state_change(net, dev, im)
        if not (im.crcount or im.allow or im.block):
            del dev.igmp.tomb[im.multiaddr]


# ---- devices -----------------------------------------------------------------------------


def ip_mc_up(net: IpNet, dev: NetDevice) -> None:
    """The device is up: all-hosts is joined, and the sockets' groups are reported anew."""
    ip_mc_inc_group(net, dev, IGMP_ALL_HOSTS, MCAST_EXCLUDE)
    for im in dev.mc_list.values():
        if im.multiaddr != IGMP_ALL_HOSTS:
            im.mode, im.state = MCAST_INCLUDE, frozenset()
            igmp_group_added(net, dev, im)


def ip_mc_down(net: IpNet, dev: NetDevice) -> None:
    """The device is down: no more reports. The sockets stay in their groups."""
    state = dev.igmp
    for im in dev.mc_list.values():
        igmp_stop_timer(net, im)
        im.crcount = 0
        im.allow.clear()
        im.block.clear()
    for timer in (state.gq_timer, state.ifc_timer):
        if timer is not None:
            net.del_timer(timer)
    state.ifc_count = 0
    state.tomb.clear()
    im_all = dev.mc_list.get(IGMP_ALL_HOSTS)
    if im_all is not None:
        im_all.users -= 1
        _filter(im_all, MCAST_EXCLUDE, (), -1)
        if im_all.users <= 0:
            del dev.mc_list[IGMP_ALL_HOSTS]


# ---- timers ------------------------------------------------------------------------------


def _soon(net: IpNet, most: int) -> int:
    """A random time up to `most` ns from now."""
    return net.now + MSEC + net.rand.randrange(max(most, 1))


def igmp_start_timer(net: IpNet, dev: NetDevice, im: IpMcList, max_delay: int) -> None:
    """Report the group within max_delay ns."""
    if im.timer is None:
        im.timer = Timer(igmp_timer_expire, dev, im)
    net.mod_timer(im.timer, _soon(net, max_delay))


def igmp_stop_timer(net: IpNet, im: IpMcList) -> None:
    """Stop the report: another host has reported, or we have left."""
    if im.timer is not None:
        net.del_timer(im.timer)
    im.reporter = False
    im.unsolicit_count = 0
    im.gsquery = None


def igmp_mod_timer(net: IpNet, dev: NetDevice, im: IpMcList, max_delay: int) -> None:
    """Report within max_delay; a report that is due earlier stays (RFC 2236 3)."""
    im.unsolicit_count = 0
    if im.timer is not None and im.timer.pending() and im.timer.expires - net.now < max_delay:
        return
    igmp_start_timer(net, dev, im, max_delay)


def igmp_timer_expire(net: IpNet, dev: NetDevice, im: IpMcList) -> None:
    """The time to report one group."""
    if im.unsolicit_count:
        im.unsolicit_count -= 1
        if im.unsolicit_count:
            igmp_start_timer(net, dev, im, _unsolicited_report_interval(net, dev))
    im.reporter = True
    version = igmp_version(net, dev)
    if version == 1:
        igmp_send_report(net, dev, im, IGMP_HOST_MEMBERSHIP_REPORT)
    elif version == 2:
        igmp_send_report(net, dev, im, IGMPV2_HOST_MEMBERSHIP_REPORT)
    else:
        igmpv3_send_report(net, dev, im)
    im.gsquery = None


def igmp_ifc_event(net: IpNet, dev: NetDevice) -> None:
    """Something must be reported by version 3: now, and again."""
    state = dev.igmp
    state.ifc_count = _qrv(net, dev)
    if state.ifc_timer is None:
        state.ifc_timer = Timer(igmp_ifc_timer_expire, dev)
    net.mod_timer(state.ifc_timer, net.now + _INITIAL_REPORT_DELAY)


def igmp_ifc_timer_expire(net: IpNet, dev: NetDevice) -> None:
    """The time for a state-change report."""
    state = dev.igmp
    igmpv3_send_cr(net, dev)
    state.ifc_count -= 1
    if state.ifc_count > 0 and state.ifc_timer is not None:
        net.mod_timer(state.ifc_timer, _soon(net, _unsolicited_report_interval(net, dev)))


def igmp_gq_start_timer(net: IpNet, dev: NetDevice, max_delay: int) -> None:
    """Answer a general query within max_delay, unless an earlier answer is already due."""
    state = dev.igmp
    when = _soon(net, max_delay)
    if state.gq_timer is None:
        state.gq_timer = Timer(igmp_gq_timer_expire, dev)
    elif state.gq_timer.pending() and state.gq_timer.expires <= when:
        return
    net.mod_timer(state.gq_timer, when)


def igmp_gq_timer_expire(net: IpNet, dev: NetDevice) -> None:
    """The time to answer a general query."""
    igmpv3_send_report(net, dev, None)


# ---- reports -----------------------------------------------------------------------------


def igmp_send_report(net: IpNet, dev: NetDevice, im: IpMcList, type_: int) -> None:
    """A report or leave of version 1 or 2."""
    dst = IGMP_ALL_ROUTER if type_ == IGMP_HOST_LEAVE_MESSAGE else im.multiaddr
    _igmp_send(net, dev, dst, igmphdr.build(type_, 0, im.multiaddr))


def igmpv3_send_report(net: IpNet, dev: NetDevice, im: IpMcList | None) -> None:
    """The current state of one group, or of all (RFC 3376 5.2)."""
    records = []
    for pmc in dev.mc_list.values() if im is None else (im,):
        if not _reported(net, pmc.multiaddr):
            continue
        exclude = pmc.mode == MCAST_EXCLUDE
        if im is not None and im.gsquery is not None:
            sources = im.gsquery - im.state if exclude else im.gsquery & im.state
            exclude = False
        else:
            sources = set(pmc.state)
        if sources or exclude:
            type_ = IGMPV3_MODE_IS_EXCLUDE if exclude else IGMPV3_MODE_IS_INCLUDE
            records.append(Igmpv3Grec(type_, pmc.multiaddr, tuple(sorted(sources))))
    igmpv3_sendpack(net, dev, records)


def igmpv3_send_cr(net: IpNet, dev: NetDevice) -> None:
    """The changes of state (RFC 3376 5.1)."""
    records = []
    tomb = dev.igmp.tomb
    for im in (*tomb.values(), *dev.mc_list.values()):
        if im.crcount:
            im.crcount -= 1
            exclude = im.mode == MCAST_EXCLUDE
            type_ = IGMPV3_CHANGE_TO_EXCLUDE if exclude else IGMPV3_CHANGE_TO_INCLUDE
            records.append(Igmpv3Grec(type_, im.multiaddr, tuple(sorted(im.state))))
            continue
        for type_, pending in (
            (IGMPV3_ALLOW_NEW_SOURCES, im.allow),
            (IGMPV3_BLOCK_OLD_SOURCES, im.block),
        ):
            if pending:
                records.append(Igmpv3Grec(type_, im.multiaddr, tuple(pending)))
            for source in tuple(pending):
                pending[source] -= 1
                if not pending[source]:
                    del pending[source]
    for im in tuple(tomb.values()):
        if not (im.crcount or im.allow or im.block):
            del tomb[im.multiaddr]
    igmpv3_sendpack(net, dev, records)


def igmpv3_sendpack(net: IpNet, dev: NetDevice, records: list[Igmpv3Grec]) -> None:
    """Send records, in as many reports as the MTU asks for (RFC 3376 4.2.16)."""
    room = dev.mtu - _IP_HEADERS - _REPORT_HEADER
    most = max((room - _GREC_HEADER) // 4, 1)
    pack: list[Igmpv3Grec] = []
    used = 0
    for record in records:
        sources = record.grec_src
        pieces = [sources[at : at + most] for at in range(0, len(sources), most)] or [()]
        if record.grec_type in (IGMPV3_MODE_IS_EXCLUDE, IGMPV3_CHANGE_TO_EXCLUDE):
            del pieces[1:]  # the rest of an exclude list goes untold
        for piece in pieces:
            size = _GREC_HEADER + 4 * len(piece)
            if used + size > room and pack:
                _igmp_send(net, dev, IGMPV3_ALL_MCR, igmphdr.build_v3_report(pack))
                pack, used = [], 0
            pack.append(record._replace(grec_src=piece))
            used += size
    if pack:
        _igmp_send(net, dev, IGMPV3_ALL_MCR, igmphdr.build_v3_report(pack))


def _igmp_send(net: IpNet, dev: NetDevice, dst: bytes, message: bytes) -> None:
    """TTL 1 and router alert (RFC 2236 2, RFC 3376 4)."""
    if dev.loopback or not dev.up:
        return
    rt = route.ip_route_output(net, dst, b"", dev.ifindex)
    if isinstance(rt, int):
        return
    skb = net.alloc_skb(message)
    if net.tracing:
        net.trace("igmp_send_report", skb, dev=dev.name, daddr=dst, type=message[0])
    saddr = dev.ifa_list[0].ifa_local if dev.ifa_list else b"\0\0\0\0"
    tos = _PREC_INTERNETCONTROL
    cb = XmitCb(saddr, dst, IPPROTO_IGMP, tos, 1, True, dev.ifindex, _ROUTER_ALERT)
    skb.cb = cb
    ip_output.ip_build_and_send_pkt(net, skb, rt, cb)


# ---- receiving ---------------------------------------------------------------------------


def igmp_rcv(net: IpNet, skb: SkBuff, iph: IpHdr) -> None:
    """A query of a router, or another host's report."""
    if net.tracing:
        net.trace("igmp_rcv", skb, saddr=iph.saddr)
    dev = net.device(skb)
    if not pskb_may_pull(net, skb, IGMP_HLEN) or not pskb_may_pull(net, skb, skb.len):
        net.kfree_skb(skb, "PKT_TOO_SMALL")
        return
    if skb.ip_summed not in (CHECKSUM_UNNECESSARY, CHECKSUM_PARTIAL):
        csum = skb_checksum(net, skb, skb.data)
        if csum is None or csum % 0xFFFF or not csum:
            net.kfree_skb(skb, "SKB_CSUM")
            return
    hdr = igmphdr.parse(skb.head, skb.data)
    if dev is not None and hdr.type == IGMP_HOST_MEMBERSHIP_QUERY:
        if not igmp_heard_query(net, dev, skb.head[skb.data :]):
            net.kfree_skb(skb, "PKT_TOO_SMALL")
            return
    elif (
        dev is not None
        and hdr.type in (IGMP_HOST_MEMBERSHIP_REPORT, IGMPV2_HOST_MEMBERSHIP_REPORT)
        and iph.saddr not in net.local_addrs  # our own, looped back
        and skb.pkt_type != PACKET_HOST
    ):
        igmp_heard_report(net, dev, hdr.group)
    net.consume_skb(skb)


def igmp_heard_report(net: IpNet, dev: NetDevice, group: bytes) -> None:
    """Another host is in the group: one report is enough (RFC 2236 3)."""
    im = dev.mc_list.get(group)
    if im is not None and _reported(net, group):
        igmp_stop_timer(net, im)


def igmp_heard_query(net: IpNet, dev: NetDevice, message: bytes) -> bool:
    """A router asks: for all groups, for one, or for sources of one. Its version decides ours (RFC
    3376 7.1, 7.2.1). False where the message is no query."""
    state = dev.igmp
    hdr = igmphdr.parse(message)
    group = hdr.group
    sources: tuple[bytes, ...] = ()
    if len(message) == IGMP_HLEN:
        older = net.now + _qrv(net, dev) * state.mr_qi + state.mr_qri
        if hdr.code == 0:
            max_delay, group = _QUERY_RESPONSE_INTERVAL, b"\0\0\0\0"
            state.mr_v1_seen = older
        else:
            max_delay = hdr.code * _TENTH
            state.mr_v2_seen = older
        _cancel_v3(net, dev)
    else:
        try:
            query = igmphdr.parse_v3_query(message)
        except HeaderError:
            return False
        max_delay = max(igmphdr.igmpv3_decode(query.code) * _TENTH, MSEC)
        version = igmp_version(net, dev)
        if version == 1:
            max_delay, group = _QUERY_RESPONSE_INTERVAL, b"\0\0\0\0"
        elif version == 3:
            state.mr_qrv = query.qrv or int(net.sysctl["net.ipv4.igmp_qrv"])
            state.mr_qi = igmphdr.igmpv3_decode(query.qqic) * SEC or 125 * SEC
            if state.mr_qri >= state.mr_qi:
                state.mr_qri = max(state.mr_qi - SEC, 0)
            if group == b"\0\0\0\0":
                if not query.srcs:
                    igmp_gq_start_timer(net, dev, max_delay)
                return not query.srcs
            sources = query.srcs
    for im in tuple(dev.mc_list.values()):
        if group in (b"\0\0\0\0", im.multiaddr) and _reported(net, im.multiaddr):
            _mark_sources(im, sources)
            igmp_mod_timer(net, dev, im, max_delay)
    return True


def _mark_sources(im: IpMcList, sources: tuple[bytes, ...]) -> None:
    """`igmp_marksources`: note the sources that the answer is about; all, if a query asks so."""
    running = im.timer is not None and im.timer.pending()
    if not sources or (running and im.gsquery is None):
        im.gsquery = None
    else:
        im.gsquery = (im.gsquery or set()) | set(sources) if running else set(sources)


def _cancel_v3(net: IpNet, dev: NetDevice) -> None:
    """An older querier is there: reports of version 3 that wait are pointless."""
    state = dev.igmp
    state.ifc_count = 0
    if state.ifc_timer is not None:
        net.del_timer(state.ifc_timer)
    state.tomb.clear()
    for im in dev.mc_list.values():
        im.crcount = 0
        im.allow.clear()
        im.block.clear()
