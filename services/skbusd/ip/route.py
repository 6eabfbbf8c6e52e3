# SPDX-License-Identifier: MIT
"""Routing decisions and their cache (`net/ipv4/route.c`).

`ip_route_input` says what becomes of a received packet: ours, forwarded, or dropped with a
reason; `ip_route_output` the way out, with source address and MTU. Transports ask by
message (`ip_route_output_key`) and are told when their answer is stale (`rt_cache_flush`).
RFC 1122 3.2.1.3 and 3.3.1, RFC 1812 5.3, RFC 1191 for path MTUs.

Differs from Linux: outcomes are cached by (destination, source, device), as Linux did up to 3.5;
when a cache is full it is emptied. Source routes are never followed.
"""

from errno import EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV
from typing import Final

from skbus.core.abi import DstMtu, IpRouteOutputKey, Redirect, RouteRet, RtCacheFlush, UpdatePmtu
from skbus.core.dropreason import Checked, SkbDropReason
from skbus.core.interfaces import InetTransport
from skbus.core.net import MSEC, SEC
from skbus.core.skbuff import SkBuff
from skbus.core.timer import Timer
from skbus.inet.headers.icmp import ICMP_REDIR_HOST, ICMP_REDIRECT
from skbus.inet.headers.ipv4 import (
    IPH_DADDR,
    IPH_SADDR,
    IpHdr,
    ipv4_is_multicast,
)
from skbusd.ip import fib, icmp, igmp, ip_forward, ip_input, ip_output, neighbour
from skbusd.ip.netns import (
    INADDR_ANY,
    INADDR_BROADCAST,
    IPPROTO_IGMP,
    RTCF_DOREDIRECT,
    RTN_BLACKHOLE,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    FibInfo,
    FibNhException,
    IpNet,
    NetDevice,
    Rtable,
)

RT_CACHE_SIZE: Final = 8192
"""Entries of each of the two caches."""
FNHE_SIZE: Final = 2048
"""Most destinations with an exception (`FibNhException`)."""
REDIRECT_LIFE: Final = 300 * SEC
"""How long a redirect is believed (`route.gc_timeout`)."""
_NOTHING: Final = FibNhException(0, False, 0)
MARTIANS: Final = frozenset(
    ("IP_INVALID_SOURCE", "IP_LOCALNET", "IP_LOCAL_SOURCE", "IP_INVALID_DEST", "IP_RPFILTER")
)
"""Drop reasons of packets with impossible addresses (RFC 1812 5.3.7)."""
MARTIANS_EVERY: Final = 5 * SEC
MARTIANS_BURST: Final = 10
REDIRECT_PEERS: Final = 4096
"""Most hosts that have a count of redirects sent to them."""

_FIB_ERRORS: Final = {
    RTN_BLACKHOLE: EINVAL,
    RTN_UNREACHABLE: EHOSTUNREACH,
    RTN_PROHIBIT: EACCES,
}
"""`fib_props`: the error of each type of route that goes nowhere."""


# ---- the caches --------------------------------------------------------------------------


def rt_cache_flush(net: IpNet) -> None:
    """Routes or addresses changed: empty the caches, here and in the transports."""
    net.rt_genid += 1
    net.rt_out.clear()
    net.rt_in.clear()
    for process in net.transports():
        net.call(process, InetTransport.rt_cache_flush, RtCacheFlush(net.rt_genid))


def ipv4_update_pmtu(net: IpNet, item: UpdatePmtu) -> None:
    """A transport was told by ICMP of the MTU on the way to daddr, about a packet of its own."""
    if net.tracing:
        net.trace("ipv4_update_pmtu", daddr=item.daddr, mtu=item.mtu)
    if len(item.daddr) == 4:
        ip_rt_update_pmtu(net, item.daddr, item.mtu)


def ip_rt_update_pmtu(net: IpNet, daddr: bytes, mtu: int) -> None:
    """A path MTU was learned from ICMP; believed for `mtu_expires` (RFC 1191 6.3).

    Called by the owner of the packet that was too long, after it has recognised the packet that
    ICMP quotes (RFC 5927 7.2). Nobody else can tell true news from false. An MTU below `min_pmtu`
    is not believed, but our packets may be fragmented on the way from then on: the MTU is locked.
    Nothing raises an MTU again but time.
    """
    rt = ip_route_output(net, daddr, b"", 0)
    if isinstance(rt, int) or rt.rt_type != RTN_UNICAST or rt.mtu_locked or rt.mtu < mtu:
        return
    least = net.sysctl["net.ipv4.route.min_pmtu"]
    lock = mtu < least
    if lock:
        mtu = min(rt.mtu, least)
    life = net.sysctl["net.ipv4.route.mtu_expires"] * SEC
    known = net.fnhe.get(daddr, _NOTHING)
    if known.fnhe_pmtu == mtu and not lock and net.now < known.fnhe_expires - life // 2:
        return
    _update_or_create_fnhe(net, daddr, FibNhException(mtu, lock, net.now + life, known.fnhe_gw))
    if net.tracing:
        net.trace("ip_rt_update_pmtu", daddr=daddr, mtu=mtu, lock=lock)


def ipv4_redirect(net: IpNet, item: Redirect) -> None:
    """A transport was told by ICMP of a nearer gateway for a packet of its own. Believed where
    `accept_redirects` is set and this host is no router. The gateway in use must have sent it; the
    new one must be on the same network (RFC 1122 3.2.2.2) and answer ARP.

    Differs from Linux: the new gateway must be on the same network even if `shared_media` is set.
    """
    daddr, new_gw, old_gw, ifindex = item
    dev = net.dev_by_index.get(ifindex)
    sysctl = net.sysctl
    if (
        not sysctl["net.ipv4.conf.all.accept_redirects"]
        or sysctl["net.ipv4.ip_forward"]
        or dev is None
        or not len(daddr) == len(new_gw) == len(old_gw) == 4
    ):
        return
    rt = ip_route_output(net, daddr, b"", 0)
    if isinstance(rt, int) or rt.dev is not dev or rt.rt_gateway != old_gw or daddr == old_gw:
        return
    ours = inet_addr_type(net, new_gw) != RTN_UNICAST
    if new_gw == old_gw or ours or not _on_link(net, new_gw, dev):
        return
    neigh = neighbour.neigh_create(net, net.arp_tbl, dev, new_gw)
    if neigh is None:
        return
    if not neigh.nud_state & neighbour.NUD_VALID:
        neighbour.neigh_event_send(net, neigh, None)  # the next one will be believed
        return
    known = net.fnhe.get(daddr, _NOTHING)
    life = net.now + REDIRECT_LIFE
    _update_or_create_fnhe(net, daddr, known._replace(fnhe_expires=life, fnhe_gw=new_gw))
    if net.tracing:
        net.trace("ipv4_redirect", daddr=daddr, gateway=new_gw)


def _update_or_create_fnhe(net: IpNet, daddr: bytes, exception: FibNhException) -> None:
    """Remember an exception for daddr; routes that were made without it are forgotten."""
    if len(net.fnhe) >= FNHE_SIZE and daddr not in net.fnhe:
        del net.fnhe[next(iter(net.fnhe))]
    before = net.fnhe.get(daddr, _NOTHING)
    net.fnhe[daddr] = exception
    if net.fnhe_timer is None:
        net.fnhe_timer = Timer(_fnhe_expire)
    timer = net.fnhe_timer
    if not timer.pending() or timer.expires > exception.fnhe_expires:
        net.mod_timer(timer, exception.fnhe_expires)
    _rt_forget(net, daddr)
    if exception.fnhe_pmtu != before.fnhe_pmtu:
        _dst_mtu_changed(net, daddr)


def _fnhe_expire(net: IpNet) -> None:
    """Forget exceptions that have expired, and the routes that were made with them."""
    for daddr in [d for d, e in net.fnhe.items() if e.fnhe_expires <= net.now]:
        known = net.fnhe.pop(daddr)
        _rt_forget(net, daddr)
        if known.fnhe_pmtu:
            _dst_mtu_changed(net, daddr)
    if net.fnhe and net.fnhe_timer is not None:
        net.mod_timer(net.fnhe_timer, min(e.fnhe_expires for e in net.fnhe.values()))


def _dst_mtu_changed(net: IpNet, daddr: bytes) -> None:
    """Tell the transports, which keep the MTUs of their routes. (Linux asks `dst_mtu`.)"""
    rt = ip_route_output(net, daddr, b"", 0)
    if isinstance(rt, Rtable):
        for process in net.transports():
            net.call(process, InetTransport.dst_mtu, DstMtu(daddr, rt.mtu))


def _rt_forget(net: IpNet, addr: bytes) -> None:
    """The path to addr has changed: no cached route to it, or from it, is good any more."""
    for key in [k for k in net.rt_out if k[0] == addr]:
        del net.rt_out[key]
    for key in [k for k in net.rt_in if k[0] == addr]:
        del net.rt_in[key]


# ---- addresses ---------------------------------------------------------------------------


def inet_addr_type(net: IpNet, addr: bytes) -> int:
    """The address's type to this host: RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST, RTN_UNICAST."""
    if ipv4_is_multicast(addr):
        return RTN_MULTICAST
    if addr[0] == 0 or addr == INADDR_BROADCAST:
        return RTN_BROADCAST
    fi = fib.fib_lookup(net, addr)
    if fi is not None and fi.fib_type in (RTN_LOCAL, RTN_BROADCAST):
        return fi.fib_type
    return RTN_UNICAST


def inet_select_addr(net: IpNet, dev: NetDevice, dst: bytes) -> bytes:
    """Our address to use on `dev` towards next hop `dst` (RFC 1122 3.3.4.3): one with dst in its
    prefix, else the device's primary, else any. Addresses of lo have host scope: they are never
    chosen for others."""
    want = int.from_bytes(dst, "big")
    for ifa in dev.ifa_list:
        if not (want ^ int.from_bytes(ifa.ifa_local, "big")) & fib.inet_make_mask(
            ifa.ifa_prefixlen
        ):
            return ifa.ifa_local
    if dev.ifa_list and not dev.loopback:
        return dev.ifa_list[0].ifa_local
    for other in net.devices.values():
        if other.up and not other.loopback and other.ifa_list:
            return other.ifa_list[0].ifa_local
    return INADDR_ANY


# ---- output ------------------------------------------------------------------------------


def ip_route_output(net: IpNet, daddr: bytes, saddr: bytes, oif: int) -> Rtable | int:
    """The way to daddr (`ip_route_output_key`): a cached Rtable, or an errno.

    saddr b"" or 0.0.0.0 lets the route choose; oif 0 is any device.
    """
    key = (daddr, saddr, oif)
    rt = net.rt_out.get(key)
    if rt is not None:
        if net.tracing:
            net.trace("ip_route_output_key", daddr=daddr, saddr=rt.rt_saddr, err=0)
        return rt
    made = _ip_route_output_slow(net, daddr, saddr if saddr != INADDR_ANY else b"", oif)
    if isinstance(made, Rtable):
        if len(net.rt_out) >= RT_CACHE_SIZE:
            net.rt_out.clear()
        net.rt_out[key] = made
    if net.tracing:
        net.trace(
            "ip_route_output_key",
            daddr=daddr,
            saddr=saddr if isinstance(made, int) else made.rt_saddr,
            err=made if isinstance(made, int) else 0,
        )
    return made


def _ip_route_output_slow(net: IpNet, daddr: bytes, saddr: bytes, oif: int) -> Rtable | int:
    """`ip_route_output_key_hash_rcu`"""
    dev: NetDevice | None = None
    if saddr:
        if ipv4_is_multicast(saddr) or saddr[0] == 0 or saddr == INADDR_BROADCAST:
            return EINVAL
        if inet_addr_type(net, saddr) != RTN_LOCAL:
            return EINVAL
    if oif:
        dev = net.dev_by_index.get(oif)
        if dev is None:
            return ENODEV
        if not dev.up:
            return ENETUNREACH
    if daddr == INADDR_ANY:
        # This host itself (RFC 1122 3.2.1.3 (a)): by the address that it would have.
        if not saddr and dev is not None and dev.ifa_list:
            saddr = dev.ifa_list[0].ifa_local
        daddr = saddr = saddr or b"\x7f\0\0\x01"
        oif = 0
    multicast = ipv4_is_multicast(daddr)
    if multicast or daddr == INADDR_BROADCAST:
        if dev is None and saddr:
            dev = net.local_addrs.get(saddr)
        if dev is None:
            fi = fib.fib_lookup(net, daddr)
            if fi is None or fi.fib_dev is None:
                return ENETUNREACH
            dev = fi.fib_dev
        kind = RTN_MULTICAST if multicast else RTN_BROADCAST
        return _mkroute_output(net, daddr, saddr, dev, None, kind)
    fi = fib.fib_lookup(net, daddr, oif)
    if fi is None:
        if dev is None:
            return ENETUNREACH
        # A device was named: a destination without a route is taken to be on its link, as in Linux.
        return _mkroute_output(net, daddr, saddr, dev, None, RTN_UNICAST)
    if fi.fib_type in _FIB_ERRORS:
        return _FIB_ERRORS[fi.fib_type]
    if fi.fib_type == RTN_LOCAL:
        made = _mkroute_output(net, daddr, saddr, net.loopback_dev, fi, RTN_LOCAL)
        if isinstance(made, Rtable) and fi.fib_dev is not None:
            made.rt_iif = fi.fib_dev.ifindex
        return made
    if fi.fib_dev is None:
        return ENETUNREACH
    return _mkroute_output(net, daddr, saddr, fi.fib_dev, fi, fi.fib_type)


def _mkroute_output(
    net: IpNet, daddr: bytes, saddr: bytes, dev: NetDevice, fi: FibInfo | None, kind: int
) -> Rtable | int:
    """`__mkroute_output`"""
    gateway = fi.fib_gw if fi is not None else b""
    if not saddr:
        saddr = fi.fib_prefsrc if fi is not None else b""
        if not saddr:
            saddr = inet_select_addr(net, dev, gateway or daddr)
    elif saddr[0] == 127 and not dev.loopback:
        return EINVAL
    rt = Rtable(kind, dev, daddr, saddr)
    if gateway:
        rt.rt_gateway = gateway
    if fi is not None and fi.fib_mtu:
        rt.mtu = min(rt.mtu, fi.fib_mtu)
    known = net.fnhe.get(daddr)
    if known is not None and kind == RTN_UNICAST:
        rt.mtu = min(rt.mtu, known.fnhe_pmtu or rt.mtu)
        rt.mtu_locked = known.fnhe_mtu_locked
        rt.rt_gateway = known.fnhe_gw or rt.rt_gateway
    rt.rt_id = net.get_random_u32() & 0xFFFF
    loops = kind == RTN_MULTICAST or (kind == RTN_BROADCAST and not dev.loopback)
    rt.output = ip_output.ip_mc_output if loops else ip_output.ip_output
    return rt


def ip_route_output_key(net: IpNet, item: IpRouteOutputKey) -> None:
    """A transport asks for a route; answered by `ip_route_output_ret`."""
    bad = len(item.daddr) != 4 or len(item.saddr) not in (0, 4)
    rt: Rtable | int = EINVAL if bad else ip_route_output(net, item.daddr, item.saddr, item.oif)
    if isinstance(rt, int):
        if rt == ENETUNREACH:
            net.mib["IpOutNoRoutes"] += 1
        answer = RouteRet(item.req, rt, b"", item.daddr, 0, 0, 0, net.rt_genid)
    else:
        answer = RouteRet(
            item.req, 0, rt.rt_saddr, rt.rt_daddr, rt.dev.ifindex, rt.mtu, rt.rt_type, net.rt_genid
        )
    net.call(item.process, InetTransport.ip_route_output_ret, answer)


# ---- input -------------------------------------------------------------------------------


def ip_route_input(net: IpNet, iph: IpHdr, dev: NetDevice) -> Rtable | SkbDropReason:
    """The way of a received packet: an Rtable whose `input` takes it, or a drop reason."""
    key = (iph.saddr, iph.daddr, dev.ifindex)
    rt = net.rt_in.get(key)
    if rt is not None:
        if net.tracing:
            net.trace("ip_route_input", saddr=iph.saddr, daddr=iph.daddr, type=rt.rt_type)
        return rt
    made = _ip_route_input_slow(net, iph, dev)
    if isinstance(made, Rtable):
        made.rt_iif = dev.ifindex
        if len(net.rt_in) >= RT_CACHE_SIZE:
            net.rt_in.clear()
        if made.rt_type != RTN_MULTICAST or iph.protocol != IPPROTO_IGMP:
            # (IGMP passes source filters, so its routes do not hold for other packets.)
            net.rt_in[key] = made
    if net.tracing:
        net.trace(
            "ip_route_input",
            saddr=iph.saddr,
            daddr=iph.daddr,
            type=made.rt_type if isinstance(made, Rtable) else 0,
            reason=made if isinstance(made, str) else "",
        )
    return made


def _ip_route_input_slow(net: IpNet, iph: IpHdr, dev: NetDevice) -> Rtable | SkbDropReason:
    """`ip_route_input_slow`, with the martians first (RFC 1122 3.2.1.3, RFC 1812 5.3.7)."""
    saddr = iph.saddr
    daddr = iph.daddr
    multicast = ipv4_is_multicast(daddr)
    if ipv4_is_multicast(saddr) or saddr == INADDR_BROADCAST:
        return "IP_INVALID_SOURCE"
    limited = daddr == INADDR_BROADCAST or (saddr == INADDR_ANY and daddr == INADDR_ANY)
    if saddr[0] == 0 and not limited and not (multicast and iph.protocol == IPPROTO_IGMP):
        return "IP_INVALID_SOURCE"
    if not dev.loopback and (saddr[0] == 127 or daddr[0] == 127):
        return "IP_LOCALNET"
    if multicast:
        if not igmp.ip_check_mc(dev, daddr, saddr, iph.protocol):
            return "NOT_SPECIFIED"
        kind = RTN_MULTICAST
    elif limited:
        kind = RTN_BROADCAST
    elif daddr[0] == 0:
        return "IP_INVALID_DEST"
    else:
        fi = fib.fib_lookup(net, daddr)
        if fi is None or fi.fib_type not in (RTN_LOCAL, RTN_BROADCAST):
            return _ip_mkroute_forward(net, iph, dev, fi)
        kind = fi.fib_type
    if saddr[0] != 0:
        reason = fib_validate_source(net, saddr, dev)
        if reason:
            return reason
    rt = Rtable(kind, dev, daddr, saddr)
    rt.input = ip_input.ip_local_deliver
    rt.peer_mtu = dev.mtu
    if saddr[0] != 0:
        back = ip_route_output(net, saddr, daddr if kind == RTN_LOCAL else b"", 0)
        if isinstance(back, Rtable):
            rt.peer_mtu = back.mtu
    return rt


def ip_handle_martian_source(net: IpNet, iph: IpHdr, dev: NetDevice, reason: SkbDropReason) -> None:
    """A packet has an impossible address: log the first few in a while (`net_ratelimit`)."""
    if net.now - net.martians_since >= MARTIANS_EVERY or net.martians_since < 0:
        net.martians_since = net.now
        net.martians = 0
    net.martians += 1
    if net.martians <= MARTIANS_BURST:
        net.warning(
            "ip_handle_martian_source",
            saddr=".".join(map(str, iph.saddr)),
            daddr=".".join(map(str, iph.daddr)),
            dev=dev.name,
            reason=reason,
        )


def ip_route_mc_loopback(iph: IpHdr, dev: NetDevice) -> Rtable:
    """The route of our own copy of a multicast or broadcast that we sent by `dev`. Its source is
    ours, which no packet from outside may have. Never cached."""
    kind = RTN_MULTICAST if ipv4_is_multicast(iph.daddr) else RTN_BROADCAST
    rt = Rtable(kind, dev, iph.daddr, iph.saddr)
    rt.input = ip_input.ip_local_deliver
    rt.peer_mtu = dev.mtu
    return rt


def fib_validate_source(net: IpNet, saddr: bytes, dev: NetDevice) -> Checked:
    """May a packet with this source come in by this device? A drop reason, or "" if it may.

    RFC 3704 where rp_filter is set: 1 strict, 2 loose.
    """
    if dev.loopback:
        return ""
    fi = fib.fib_lookup(net, saddr)
    if fi is not None and fi.fib_type == RTN_LOCAL:
        return "IP_LOCAL_SOURCE"
    if fi is not None and fi.fib_type == RTN_BROADCAST:
        return "IP_INVALID_SOURCE"
    strict = net.sysctl["net.ipv4.conf.all.rp_filter"]
    if strict and (
        fi is None or fi.fib_type != RTN_UNICAST or (strict == 1 and fi.fib_dev is not dev)
    ):
        net.mib["TcpExtIPReversePathFilter"] += 1
        return "IP_RPFILTER"
    return ""


def _ip_mkroute_forward(
    net: IpNet, iph: IpHdr, dev: NetDevice, fi: FibInfo | None
) -> Rtable | SkbDropReason:
    """Not for us: a route to forward by, or one whose `input` is `ip_error`."""
    reason = fib_validate_source(net, iph.saddr, dev)
    if reason:
        return reason
    rt = Rtable(RTN_UNREACHABLE, dev, iph.daddr, iph.saddr)
    rt.input = ip_forward.ip_error
    if not net.ipv4.sysctl_ip_forward:
        rt.error = EHOSTUNREACH
    elif fi is None or (fi.fib_dev is None and fi.fib_type == RTN_UNICAST):
        rt.error = ENETUNREACH
    elif fi.fib_type == RTN_BLACKHOLE:
        return "NOT_SPECIFIED"
    elif fi.fib_type in _FIB_ERRORS:
        rt.error = _FIB_ERRORS[fi.fib_type]
    else:
        assert fi.fib_dev is not None
        made = _mkroute_output(net, iph.daddr, b"", fi.fib_dev, fi, RTN_UNICAST)
        if isinstance(made, int):
            return "IP_OUTNOROUTES"
        made.input = ip_forward.ip_forward
        made.output = ip_output.ip_output
        # A learned path MTU holds only for our own packets; forwarding goes by the device's MTU
        # (ip_forward_use_pmtu is off in Linux).
        made.mtu = min(fi.fib_dev.mtu, fi.fib_mtu or fi.fib_dev.mtu)
        made.mtu_locked = False
        if made.dev is dev and _on_link(net, iph.saddr, dev):
            made.rt_flags = RTCF_DOREDIRECT
        return made
    return rt


def _on_link(net: IpNet, addr: bytes, dev: NetDevice) -> bool:
    """Is this host a neighbour of ours on `dev`? (`fib_validate_source` says so in Linux.)"""
    fi = fib.fib_lookup(net, addr)
    return fi is not None and fi.fib_dev is dev and not fi.fib_gw


def ip_rt_send_redirect(net: IpNet, skb: SkBuff, rt: Rtable) -> None:
    """Tell a packet's sender of a nearer gateway: the packet went out where it came in (RFC 1812
    5.2.7.2). A sender that does not heed redirects gets them ever less often, and then none for a
    while (`redirect_load`, `redirect_number`, `redirect_silence`)."""
    sysctl = net.sysctl
    if not sysctl["net.ipv4.conf.all.send_redirects"]:
        return
    at = skb.network_header
    saddr = skb.head[at + IPH_SADDR : at + IPH_DADDR]
    sent, last = net.redirect_peers.get(saddr, (0, 0))
    if sent and net.now > last + sysctl["net.ipv4.route.redirect_silence"] * MSEC:
        sent = 0
    if sent >= sysctl["net.ipv4.route.redirect_number"]:
        net.redirect_peers[saddr] = (sent, net.now)
        return
    if sent and net.now <= last + (sysctl["net.ipv4.route.redirect_load"] << sent) * MSEC:
        return
    if net.tracing:
        net.trace("ip_rt_send_redirect", skb, gateway=rt.rt_gateway, sent=sent)
    icmp.icmp_send(net, skb, ICMP_REDIRECT, ICMP_REDIR_HOST, int.from_bytes(rt.rt_gateway, "big"))
    if len(net.redirect_peers) >= REDIRECT_PEERS and saddr not in net.redirect_peers:
        del net.redirect_peers[next(iter(net.redirect_peers))]
    net.redirect_peers[saddr] = (sent + 1, net.now)
