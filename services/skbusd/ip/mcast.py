# SPDX-License-Identifier: MIT
"""Which sockets are in which multicast groups (`ip_mc_join_group`, `ip_mc_leave_group`,
`ip_mc_source`, `ip_mc_msfilter` of `net/ipv4/igmp.c`).

udp asks by message (`ip_mc_setsockopt`), raw and ping sockets by `ip_sockglue`. Both are told the
groups that the socket is in from then on. RFC 3678 for the options, RFC 3376 section 2.
"""

from errno import EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOBUFS, ENODEV
from typing import Final

from skbus.core.abi import McDropSocket, McRet, McSetsockopt
from skbus.core.interfaces import InetTransport
from skbus.inet import mcast
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.mcast import MCAST_EXCLUDE, MCAST_INCLUDE, IpMcSocklist, McList, Mreq, MreqError
from skbusd.ip import igmp, route
from skbusd.ip.netns import INADDR_ANY, IpNet, NetDevice

_MAX_DEFERRED: Final = 4096
Key = tuple[str, int]
"""(process, socket)"""


def ip_mc_setsockopt(net: IpNet, item: McSetsockopt) -> None:
    """A transport's socket joins, leaves, or changes its source filter."""
    key = (item.process, item.sk)
    err = mc_setsockopt(net, key, item.optname, item.value, restore=not item.req)
    if net.tracing:
        net.trace("ip_mc_setsockopt", sk=item.sk, optname=item.optname, err=err)
    if not item.req:
        return
    answer = McRet(item.sk, item.req, err, net.mc_socks.get(key, ()))
    net.call(item.process, InetTransport.ip_mc_ret, answer)


def mc_setsockopt(
    net: IpNet, key: Key, optname: int, value: bytes, *, restore: bool = False
) -> int:
    """`do_ip_setsockopt`, the membership options. Returns an errno, 0 for success.

    restore: the socket was in the group before ip was started anew. Where the device has not come
    back yet, the membership waits for it.
    """
    err = _mc_setsockopt(net, key, optname, value)
    if restore and err == ENODEV and len(net.mc_deferred) < _MAX_DEFERRED:
        net.mc_deferred.append((key, optname, value))
    sk = net.inet_socks.get(key[1]) if key[0] == "socket" else None
    if sk is not None:
        sk.mc_list = net.mc_socks.get(key, ())
    return err


def mc_restore(net: IpNet) -> None:
    """A device has come: restore the memberships that waited for it."""
    deferred, net.mc_deferred = net.mc_deferred, []
    for key, optname, value in deferred:
        mc_setsockopt(net, key, optname, value, restore=True)


def _mc_setsockopt(net: IpNet, key: Key, optname: int, value: bytes) -> int:
    try:
        mreq = mcast.parse_mreq(optname, value, EINVAL, EADDRNOTAVAIL)
    except MreqError as e:
        return int(e.args[0])
    if optname in (mcast.IP_ADD_MEMBERSHIP, mcast.MCAST_JOIN_GROUP):
        return ip_mc_join_group(net, key, mreq, MCAST_EXCLUDE)
    if optname in (mcast.IP_DROP_MEMBERSHIP, mcast.MCAST_LEAVE_GROUP):
        return ip_mc_leave_group(net, key, mreq)
    if optname in mcast.MSFILTERS:
        if len(mreq.slist) > net.sysctl["net.ipv4.igmp_max_msf"]:
            return ENOBUFS
        return ip_mc_msfilter(net, key, mreq)
    if optname in (mcast.IP_ADD_SOURCE_MEMBERSHIP, mcast.MCAST_JOIN_SOURCE_GROUP):
        err = ip_mc_join_group(net, key, mreq, MCAST_INCLUDE)
        if err not in (0, EADDRINUSE):
            return err
        return ip_mc_source(net, key, mreq, add=True, omode=MCAST_INCLUDE)
    if optname in (mcast.IP_DROP_SOURCE_MEMBERSHIP, mcast.MCAST_LEAVE_SOURCE_GROUP):
        return ip_mc_source(net, key, mreq, add=False, omode=MCAST_INCLUDE)
    block = optname in (mcast.IP_BLOCK_SOURCE, mcast.MCAST_BLOCK_SOURCE)
    return ip_mc_source(net, key, mreq, add=block, omode=MCAST_EXCLUDE)


def ip_mc_drop_socket(net: IpNet, item: McDropSocket) -> None:
    """A socket is closed: it leaves its groups."""
    mc_drop(net, (item.process, item.sk))


def mc_drop(net: IpNet, key: Key) -> None:
    """Take a socket of any process out of its groups."""
    net.mc_deferred = [d for d in net.mc_deferred if d[0] != key]
    for pmc in net.mc_socks.pop(key, ()):
        _leave(net, pmc)


def mc_drop_process(net: IpNet, process: str) -> None:
    """A process has been started anew, and tells of its sockets again."""
    net.mc_deferred = [d for d in net.mc_deferred if d[0][0] != process]
    for key in [k for k in net.mc_socks if k[0] == process]:
        mc_drop(net, key)


def ip_mc_find_dev(net: IpNet, mreq: Mreq) -> NetDevice | None:
    """The device that mreq names by number or by address, else the one that leads to the group."""
    if mreq.ifindex:
        return net.dev_by_index.get(mreq.ifindex)
    if mreq.address != INADDR_ANY:
        return net.local_addrs.get(mreq.address)
    rt = route.ip_route_output(net, mreq.multiaddr, b"", 0)
    return None if isinstance(rt, int) else rt.dev


def _find(mc_list: McList, addr: bytes, ifindex: int) -> IpMcSocklist | None:
    for pmc in mc_list:
        if pmc.multiaddr == addr and pmc.ifindex == ifindex:
            return pmc
    return None


def ip_mc_join_group(net: IpNet, key: Key, mreq: Mreq, mode: int) -> int:
    """`__ip_mc_join_group`"""
    addr = mreq.multiaddr
    if not ipv4_is_multicast(addr):
        return EINVAL
    dev = ip_mc_find_dev(net, mreq)
    if dev is None:
        return ENODEV
    mc_list = net.mc_socks.get(key, ())
    if _find(mc_list, addr, dev.ifindex) is not None:
        return EADDRINUSE
    if len(mc_list) >= net.sysctl["net.ipv4.igmp_max_memberships"]:
        return ENOBUFS
    new = IpMcSocklist(addr, dev.ifindex, mreq.address, mode, (), False)
    net.mc_socks[key] = (new, *mc_list)
    igmp.ip_mc_inc_group(net, dev, addr, mode)
    return 0


def ip_mc_leave_group(net: IpNet, key: Key, mreq: Mreq) -> int:
    """`ip_mc_leave_group`: where no device is named, the first membership of that group."""
    dev = ip_mc_find_dev(net, mreq)
    if not mreq.ifindex and mreq.address == INADDR_ANY and dev is None:
        return ENODEV
    for pmc in net.mc_socks.get(key, ()):
        if pmc.multiaddr != mreq.multiaddr:
            continue
        if mreq.ifindex:
            if pmc.ifindex != mreq.ifindex:
                continue
        elif mreq.address != INADDR_ANY and mreq.address != pmc.address:
            continue
        _replace(net, key, pmc, None)
        _leave(net, pmc)
        return 0
    return EADDRNOTAVAIL


def _leave(net: IpNet, pmc: IpMcSocklist) -> None:
    dev = net.dev_by_index.get(pmc.ifindex)
    if dev is not None:
        igmp.ip_mc_dec_group(net, dev, pmc.multiaddr, pmc.sfmode, pmc.sflist)


def _replace(net: IpNet, key: Key, old: IpMcSocklist, new: IpMcSocklist | None) -> None:
    mc_list = tuple(
        p if p is not old else new for p in net.mc_socks[key] if p is not old or new is not None
    )
    kept = tuple(p for p in mc_list if p is not None)
    if kept:
        net.mc_socks[key] = kept
    else:
        del net.mc_socks[key]


def _set_filter(
    net: IpNet,
    key: Key,
    dev: NetDevice,
    pmc: IpMcSocklist,
    mode: int,
    sources: tuple[bytes, ...],
    filtered: bool = True,
) -> None:
    _replace(net, key, pmc, pmc._replace(sfmode=mode, sflist=sources, filtered=filtered))
    old = (pmc.sfmode, pmc.sflist)
    igmp.ip_mc_change_filter(net, dev, pmc.multiaddr, old, (mode, sources))


def ip_mc_source(net: IpNet, key: Key, mreq: Mreq, *, add: bool, omode: int) -> int:
    """`ip_mc_source`: one source more or less in a filter of that mode."""
    if not ipv4_is_multicast(mreq.multiaddr):
        return EINVAL
    dev = ip_mc_find_dev(net, mreq)
    if dev is None:
        return ENODEV
    pmc = _find(net.mc_socks.get(key, ()), mreq.multiaddr, dev.ifindex)
    if pmc is None:
        return EINVAL
    sources = pmc.sflist
    if pmc.filtered and pmc.sfmode != omode:
        return EINVAL
    if pmc.sfmode != omode:
        # an empty filter may change its mode
        switched = pmc._replace(sfmode=omode)
        _replace(net, key, pmc, switched)
        igmp.ip_mc_change_filter(net, dev, pmc.multiaddr, (pmc.sfmode, ()), (omode, ()))
        pmc = switched
    if not add:
        if mreq.source not in sources:
            return EADDRNOTAVAIL
        if len(sources) == 1 and omode == MCAST_INCLUDE:
            return ip_mc_leave_group(net, key, mreq)  # (INCLUDE, nothing) is to leave
        rest = tuple(s for s in sources if s != mreq.source)
        _set_filter(net, key, dev, pmc, omode, rest)
        return 0
    if len(sources) >= net.sysctl["net.ipv4.igmp_max_msf"]:
        return ENOBUFS
    if mreq.source in sources:
        return EADDRNOTAVAIL
    _set_filter(net, key, dev, pmc, omode, tuple(sorted((*sources, mreq.source))))
    return 0


def ip_mc_msfilter(net: IpNet, key: Key, mreq: Mreq) -> int:
    """`ip_mc_msfilter`: a whole filter at once."""
    if not ipv4_is_multicast(mreq.multiaddr) or mreq.fmode not in (MCAST_INCLUDE, MCAST_EXCLUDE):
        return EINVAL
    dev = ip_mc_find_dev(net, mreq)
    if dev is None:
        return ENODEV
    if mreq.fmode == MCAST_INCLUDE and not mreq.slist:
        return ip_mc_leave_group(net, key, mreq)
    pmc = _find(net.mc_socks.get(key, ()), mreq.multiaddr, dev.ifindex)
    if pmc is None:
        return EINVAL
    _set_filter(net, key, dev, pmc, mreq.fmode, tuple(sorted(set(mreq.slist))), bool(mreq.slist))
    return 0
