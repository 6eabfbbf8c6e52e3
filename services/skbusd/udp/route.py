# SPDX-License-Identifier: MIT
"""Routes, as ip tells them: asked once for a destination, kept until the genid moves.

A first datagram or a connect waits in a bounded queue for its route (`ip_route_output_ret`). In
Linux this is a function call; here it is a message each way.
"""

from errno import EAGAIN, ENETUNREACH
from typing import Final

from skbus.core.abi import DstMtu, IpRouteOutputKey, RouteRet, RtCacheFlush, UpdatePmtu
from skbus.core.interfaces import Ip
from skbus.core.net import SEC
from skbus.core.timer import Timer
from skbus.core.uapi import IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT
from skbusd.udp.netns import Dst, RouteKey, RouteRequest, UdpNet, UdpSock, Waiter

DST_CACHE: Final = 4096
_DST_LIFE: Final = 60 * SEC
"""A route is asked for anew after this: path MTUs come and go without a word."""
_PENDING: Final = 64
"""Most waiters for one route."""
_PENDING_ALL: Final = 1024
_PATIENCE: Final = 5 * SEC
"""How long ip may be away before the waiters are told that there is no route."""


def sk_dst_get(net: UdpNet, key: RouteKey) -> Dst | None:
    """The route, if it is known and good."""
    dst = net.dst_cache.get(key)
    if dst is not None and dst.expires <= net.now:
        del net.dst_cache[key]
        return None
    return dst


def ip_route_output_flow(net: UdpNet, key: RouteKey, tos: int, waiter: Waiter) -> int:
    """Queue a waiter for a route, and ask ip if it is the first. EAGAIN where too many wait."""
    req = net.asked.get(key)
    request = net.requests.get(req) if req is not None else None
    if net.pending >= _PENDING_ALL or (request is not None and len(request.waiters) >= _PENDING):
        return EAGAIN
    if request is None:
        net.next_req += 1
        request = RouteRequest(net.next_req, key)
        request.tos = tos
        net.requests[request.req] = request
        net.asked[key] = request.req
        request.timer = Timer(_give_up, request.req)
        net.mod_timer(request.timer, net.now + _PATIENCE)
        _ask(net, request)
    request.waiters.append(waiter)
    net.pending += 1
    return 0


def _ask(net: UdpNet, request: RouteRequest) -> None:
    daddr, saddr, oif = request.key
    net.call(
        "ip",
        Ip.ip_route_output_key,
        IpRouteOutputKey(request.req, net.name, daddr, saddr, oif, request.tos),
    )


def ask_again(net: UdpNet) -> None:
    """ip has been restarted and has forgotten our requests: repeat them."""
    for request in net.requests.values():
        _ask(net, request)


def _give_up(net: UdpNet, req: int) -> None:
    request = net.requests.get(req)
    if request is not None:
        _answer(net, request, ENETUNREACH, None)


def ip_route_output_ret(net: UdpNet, item: RouteRet) -> None:
    """ip's answer: keep it, and go on with the waiters."""
    request = net.requests.get(item.req)
    if net.tracing:
        net.trace("ip_route_output_ret", daddr=item.daddr, saddr=item.saddr, err=item.err)
    if request is None:
        return
    if item.err or len(item.saddr) != 4 or len(item.daddr) != 4:
        _answer(net, request, item.err or ENETUNREACH, None)
        return
    if item.genid < net.rt_genid:
        _ask(net, request)  # flushed on its way
        return
    net.rt_genid = item.genid
    life = net.now + _DST_LIFE
    dst = Dst(item.saddr, item.daddr, item.oif, item.mtu, item.rt_type, life)
    if len(net.dst_cache) >= DST_CACHE:
        net.dst_cache.clear()
    net.dst_cache[request.key] = dst
    _answer(net, request, 0, dst)


def _answer(net: UdpNet, request: RouteRequest, err: int, dst: Dst | None) -> None:
    net.requests.pop(request.req, None)
    if net.asked.get(request.key) == request.req:
        del net.asked[request.key]
    if request.timer is not None:
        net.del_timer(request.timer)
    while request.waiters:
        waiter = request.waiters.popleft()
        net.pending -= 1
        waiter.then(net, waiter, err, dst)


def rt_cache_flush(net: UdpNet, item: RtCacheFlush) -> None:
    """Routes or addresses changed."""
    net.rt_genid = item.genid
    net.dst_cache.clear()


def dst_mtu(net: UdpNet, item: DstMtu) -> None:
    """ip tells of a new path MTU to an address."""
    for key, dst in net.dst_cache.items():
        if key[0] == item.daddr:
            net.dst_cache[key] = dst._replace(mtu=item.mtu)


def ipv4_sk_update_pmtu(net: UdpNet, sk: UdpSock, daddr: bytes, mtu: int) -> None:
    """ICMP told, about a datagram of sk, that the path to daddr takes no more than mtu. Tell ip,
    and correct the cached routes to daddr (`ip_sk_accept_pmtu`)."""
    if sk.pmtudisc in (IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT):
        return
    net.call("ip", Ip.ipv4_update_pmtu, UpdatePmtu(daddr, mtu))
    mtu = max(mtu, net.sysctl["net.ipv4.route.min_pmtu"])
    for key, dst in net.dst_cache.items():
        if key[0] == daddr and dst.mtu > mtu:
            net.dst_cache[key] = dst._replace(mtu=mtu)
