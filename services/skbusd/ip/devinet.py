# SPDX-License-Identifier: MIT
"""Devices and their addresses (`net/ipv4/devinet.c`, and the part of `fib_frontend.c` that
makes routes of addresses).

nic calls `register_netdevice` when its device is there or has changed; addresses come from the
configuration. Each change moves the routes' genid, and the transports are told (`inetdev_event`,
`rt_cache_flush`). RFC 1122 3.3.1; RFC 3021 for /31; RFC 5227 2.3 for the ARP announcement.
"""

from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from skbus.core.abi import InetdevEvent, PacketType, RegisterNetdevice
from skbus.core.interfaces import InetTransport, Netif
from skbusd.ip import arp, fib, igmp, loopback, mcast, neighbour, route
from skbusd.ip.netns import (
    INADDR_BROADCAST,
    LOOPBACK_MTU,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_NAMES,
    RTN_UNICAST,
    FibInfo,
    InIfaddr,
    IpNet,
    NetDevice,
    RouteConfig,
)

_TYPES: Final = {name: number for number, name in RTN_NAMES.items()}


class IpConfigError(ValueError):
    """A configuration that ip cannot take; the text says which key and why."""


def parse_ifaddr(text: str) -> InIfaddr:
    """ "10.77.0.2/24" as an address with its directed broadcast."""
    try:
        ifa = IPv4Interface(text)
    except ValueError as e:
        raise IpConfigError(f"address {text!r}: {e}") from None
    if ifa.ip.is_multicast or ifa.ip.is_unspecified or ifa.ip == IPv4Address(INADDR_BROADCAST):
        raise IpConfigError(f"address {text!r} is not one that a host can have")
    plen = ifa.network.prefixlen
    brd = ifa.network.broadcast_address.packed if plen < 31 else b""
    return InIfaddr(ifa.ip.packed, plen, brd)


def parse_addr(text: str, what: str) -> bytes:
    """An address without a prefix length, as four bytes; "" as none."""
    if not text:
        return b""
    try:
        return IPv4Address(text).packed
    except AddressValueError as e:
        raise IpConfigError(f"{what} {text!r}: {e}") from None


def parse_route(rc: RouteConfig) -> tuple[bytes, int, int, bytes, bytes]:
    """A configured route as (prefix, prefix length, type, gateway, preferred source)."""
    try:
        net = IPv4Network("0.0.0.0/0" if rc.dst == "default" else rc.dst)
    except ValueError as e:
        raise IpConfigError(f"route to {rc.dst!r}: {e}") from None
    kind = _TYPES.get(rc.type)
    if kind is None:
        raise IpConfigError(f"route to {rc.dst!r}: no such type {rc.type!r}: {sorted(_TYPES)}")
    gateway = parse_addr(rc.gateway, f"route to {rc.dst!r}: gateway")
    if kind == RTN_UNICAST and not gateway and not rc.dev:
        raise IpConfigError(f"route to {rc.dst!r} needs a gateway or a dev")
    prefsrc = parse_addr(rc.prefsrc, f"route to {rc.dst!r}: prefsrc")
    return net.network_address.packed, net.prefixlen, kind, gateway, prefsrc


def devinet_init(net: IpNet) -> None:
    """Make the devices of the configuration, and lo, which is up at once."""
    lo = loopback.loopback_net_init(net)
    lo.ifa_list.append(parse_ifaddr("127.0.0.1/8"))
    for conf in net.config.devices:
        if conf.dev in net.devices:
            raise IpConfigError(f"device {conf.dev!r} is configured twice")
        dev = NetDevice(conf.dev, conf.process or f"nic.{conf.dev}")
        dev.ifa_list += [parse_ifaddr(text) for text in conf.addresses]
        net.devices[conf.dev] = dev
        if conf.gateway:
            net.static_routes.append(RouteConfig("default", conf.gateway, conf.dev))
    net.static_routes += net.config.routes
    for rc in net.static_routes:
        parse_route(rc)
        if rc.dev and rc.dev not in net.devices:
            raise IpConfigError(f"route to {rc.dst!r}: no device {rc.dev!r} is configured")
    inetdev_up(net, lo)


def devinet_exit(net: IpNet) -> None:
    """Undo `devinet_init`."""
    net.devices.clear()
    net.dev_by_index.clear()
    net.local_addrs.clear()
    net.static_routes.clear()
    net.fib.zones.clear()
    loopback.loopback_net_exit(net)
    route.rt_cache_flush(net)


# ---- devices -----------------------------------------------------------------------------


def register_netdevice(net: IpNet, item: RegisterNetdevice) -> None:
    """nic announces its device, or a change of it."""
    dev = net.devices.get(item.dev)
    if net.tracing:
        net.trace("register_netdevice", dev=item.dev, ifindex=item.ifindex, up=item.up)
    if dev is None:
        # Not configured: the device is there without an address, as a bare interface in Linux.
        dev = net.devices[item.dev] = NetDevice(item.dev, item.process)
    if dev.loopback or len(item.dev_addr) != 6 or not 68 <= item.mtu <= LOOPBACK_MTU:
        net.warning("register_netdevice", dev=item.dev, mtu=item.mtu, error="refused")
        return
    other = net.dev_by_index.get(item.ifindex)
    if other is net.loopback_dev:
        # Only a device of another machine or a simulated one can have lo's number.
        _move_loopback(net, item.ifindex)
    elif other is not None and other is not dev:
        net.warning(
            "register_netdevice",
            dev=item.dev,
            error=f"ifindex {item.ifindex} is {other.name}'s: give one of them another",
        )
        return
    if dev.up and (not item.up or (dev.ifindex, dev.dev_addr) != (item.ifindex, item.dev_addr)):
        inetdev_down(net, dev)
    if dev.registered:
        net.dev_by_index.pop(dev.ifindex, None)
    changed = (dev.mtu, dev.features, dev.gso_max_size) != (
        item.mtu,
        item.features,
        item.gso_max_size,
    )
    dev.ifindex = item.ifindex
    dev.process = item.process
    dev.dev_addr = item.dev_addr
    dev.mtu = item.mtu
    dev.features = item.features
    dev.gso_max_size = item.gso_max_size
    dev.registered = True
    net.dev_by_index[dev.ifindex] = dev
    for type, ptype in net.ptype_base.items():
        net.call(dev.process, Netif.dev_add_pack, PacketType(type, net.name, ptype.entry.name))
    if item.up and not dev.up:
        net.info("register_netdevice", dev=dev.name, ifindex=dev.ifindex, mtu=dev.mtu, up=True)
        inetdev_up(net, dev)
    elif dev.up and changed:
        route.rt_cache_flush(net)
        for ifa in dev.ifa_list:
            _notify(net, dev, ifa, True)


def _move_loopback(net: IpNet, taken: int) -> None:
    """Give lo a number that no device has."""
    lo = net.loopback_dev
    free = 1 + max([taken, *net.dev_by_index])
    del net.dev_by_index[lo.ifindex]
    lo.ifindex = free
    net.dev_by_index[free] = lo
    route.rt_cache_flush(net)


def inetdev_up(net: IpNet, dev: NetDevice) -> None:
    """The device is up: its addresses become ours, with their routes (`NETDEV_UP`)."""
    dev.up = True
    for ifa in dev.ifa_list:
        _fib_add_ifaddr(net, dev, ifa)
    _fib_sync_up(net)
    route.rt_cache_flush(net)
    igmp.ip_mc_up(net, dev)
    mcast.mc_restore(net)
    arp.arp_ifup(net, dev)
    for ifa in dev.ifa_list:
        _notify(net, dev, ifa, True)
        if not dev.loopback:
            arp.arp_announce(net, dev, ifa.ifa_local)


def inetdev_down(net: IpNet, dev: NetDevice) -> None:
    """The device is down: its addresses, routes and neighbours are gone (`NETDEV_DOWN`)."""
    net.info("inetdev_down", dev=dev.name)
    igmp.ip_mc_down(net, dev)
    dev.up = False
    for ifa in dev.ifa_list:
        _fib_del_ifaddr(net, dev, ifa)
    fib.fib_table_flush(net.fib, dev)
    _fib_sync_up(net)
    neighbour.neigh_ifdown(net, dev)
    route.rt_cache_flush(net)
    for ifa in dev.ifa_list:
        _notify(net, dev, ifa, False)


def inet_insert_ifa(net: IpNet, dev: NetDevice, ifa: InIfaddr) -> bool:
    """Add an address at run time; False where the device has it already."""
    if any(have.ifa_local == ifa.ifa_local for have in dev.ifa_list):
        return False
    dev.ifa_list.append(ifa)
    if dev.up:
        _fib_add_ifaddr(net, dev, ifa)
        _fib_sync_up(net)
        route.rt_cache_flush(net)
        _notify(net, dev, ifa, True)
        if not dev.loopback:
            arp.arp_announce(net, dev, ifa.ifa_local)
    return True


def inet_del_ifa(net: IpNet, dev: NetDevice, addr: bytes) -> bool:
    """Take an address away at run time; False where the device does not have it."""
    for ifa in dev.ifa_list:
        if ifa.ifa_local == addr:
            break
    else:
        return False
    dev.ifa_list.remove(ifa)
    if dev.up:
        _fib_del_ifaddr(net, dev, ifa)
        _fib_sync_up(net)
        route.rt_cache_flush(net)
        _notify(net, dev, ifa, False)
    return True


def _ifaddr_routes(dev: NetDevice, ifa: InIfaddr) -> list[FibInfo]:
    """The routes of an address: itself, its prefix on-link, its broadcast."""
    local, plen, brd = ifa
    mask = fib.inet_make_mask(plen)
    prefix = (int.from_bytes(local, "big") & mask).to_bytes(4, "big")
    routes = [FibInfo(RTN_LOCAL, dev, b"", local, 0, 0, local, 32, "kernel")]
    if plen < 32:
        # All of 127/8 is local, not only the address that lo has.
        kind = RTN_LOCAL if dev.loopback else RTN_UNICAST
        routes.append(FibInfo(kind, dev, b"", local, 0, 0, prefix, plen, "kernel"))
    if brd:
        routes.append(FibInfo(RTN_BROADCAST, dev, b"", local, 0, 0, brd, 32, "kernel"))
    return routes


def _fib_add_ifaddr(net: IpNet, dev: NetDevice, ifa: InIfaddr) -> None:
    net.local_addrs[ifa.ifa_local] = dev
    for fi in _ifaddr_routes(dev, ifa):
        fib.fib_table_insert(net.fib, fi)


def _fib_del_ifaddr(net: IpNet, dev: NetDevice, ifa: InIfaddr) -> None:
    if net.local_addrs.get(ifa.ifa_local) is dev:
        del net.local_addrs[ifa.ifa_local]
    for fi in _ifaddr_routes(dev, ifa):
        fib.fib_table_delete(net.fib, fi)


def _fib_sync_up(net: IpNet) -> None:
    """Put in static routes with a device that is up and a reachable gateway, and take out those
    that no longer have both (`fib_check_nh`)."""
    for fi in fib.fib_dump(net.fib):
        if fi.fib_protocol == "static":
            fib.fib_table_delete(net.fib, fi)
    for rc in net.static_routes:
        prefix, plen, kind, gateway, prefsrc = parse_route(rc)
        dev = net.devices.get(rc.dev) if rc.dev else None
        if kind == RTN_UNICAST:
            if gateway:
                via = fib.fib_lookup(net, gateway, dev.ifindex if dev else 0)
                if via is None or via.fib_type != RTN_UNICAST or via.fib_gw:
                    continue
                dev = via.fib_dev
            if dev is None or not dev.up:
                continue
        fib.fib_table_insert(
            net.fib,
            FibInfo(kind, dev, gateway, prefsrc, rc.metric, rc.mtu, prefix, plen, "static"),
        )


def ip_route_add(net: IpNet, rc: RouteConfig) -> None:
    """Add a static route at run time. IpConfigError where it makes no sense."""
    parse_route(rc)
    if rc.dev and rc.dev not in net.devices:
        raise IpConfigError(f"route to {rc.dst!r}: no device {rc.dev!r}")
    if rc not in net.static_routes:
        net.static_routes.append(rc)
    _fib_sync_up(net)
    route.rt_cache_flush(net)


def ip_route_del(net: IpNet, rc: RouteConfig) -> bool:
    """Take a static route out again; False where there is none like it."""
    if rc not in net.static_routes:
        return False
    net.static_routes.remove(rc)
    _fib_sync_up(net)
    route.rt_cache_flush(net)
    return True


def _event(dev: NetDevice, ifa: InIfaddr, up: bool) -> InetdevEvent:
    return InetdevEvent(
        dev.ifindex,
        dev.name,
        ifa.ifa_local,
        ifa.ifa_prefixlen,
        ifa.ifa_broadcast,
        dev.mtu,
        dev.features,
        dev.gso_max_size,
        up,
    )


def _notify(net: IpNet, dev: NetDevice, ifa: InIfaddr, up: bool) -> None:
    """`blocking_notifier_call_chain(&inetaddr_chain)`: tell every transport."""
    for process in net.transports():
        net.call(process, InetTransport.inetdev_event, _event(dev, ifa, up))


def inetdev_dump(net: IpNet, process: str) -> None:
    """Tell one transport of all our addresses: it has just registered."""
    for dev in net.devices.values():
        if dev.up:
            for ifa in dev.ifa_list:
                net.call(process, InetTransport.inetdev_event, _event(dev, ifa, True))
