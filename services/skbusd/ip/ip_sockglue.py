# SPDX-License-Identifier: MIT
"""Options of raw and ping sockets (`raw_setsockopt` of `net/ipv4/raw.c`, and ip's part of
`do_ip_setsockopt` and `sock_setsockopt`).

Values are as setsockopt(2) takes them. Those of level IP are checked by `skbus.inet.ip_sockglue`.
"""

from errno import (
    EADDRINUSE,
    EADDRNOTAVAIL,
    EBADF,
    EINVAL,
    ENOBUFS,
    ENODEV,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
)
from struct import pack

from skbus.core import uapi
from skbus.core.abi import Getsockopt, Setsockopt
from skbus.core.uapi import SOL_IP, SOL_RAW, SOL_SOCKET
from skbus.inet import mcast as mc
from skbus.inet.ip_sockglue import (
    do_ip_getsockopt,
    do_ip_setsockopt,
    int_value,
    ip_int,
    ip_multicast_if,
)
from skbus.inet.transport import bind_device_name, sk_ret, sock_setsockopt
from skbusd.ip import inet_sock, mcast
from skbusd.ip.netns import IPPROTO_ICMP, IPPROTO_RAW, InetSock, IpNet

# ---- setting -----------------------------------------------------------------------------


def ip_setsockopt(net: IpNet, item: Setsockopt) -> None:
    """setsockopt(2): `raw_setsockopt`, `ip_setsockopt`. SkRet.val: the socket's groups."""
    sk = net.inet_socks.get(item.sk)
    if sk is None:
        err = EBADF
    elif item.level == SOL_SOCKET:
        err = _set_socket(net, sk, item.optname, item.value)
    elif item.level == SOL_RAW and not sk.ping:
        err = _set_raw(sk, item.optname, item.value)
    elif item.level == SOL_IP:
        err = _set_ip(net, sk, item.optname, item.value, restore=not item.req)
    else:
        err = ENOPROTOOPT
    if net.tracing:
        net.trace("ip_setsockopt", sk=item.sk, level=item.level, optname=item.optname, err=err)
    sk_ret(net, item.sk, item.req, err, sk.mc_list if sk is not None else None)


def _set_socket(net: IpNet, sk: InetSock, optname: int, value: bytes) -> int:
    if optname != uapi.SO_BINDTODEVICE:
        sock_setsockopt(net, sk, optname, int_value(value))
        return 0
    name = bind_device_name(value)
    dev = net.loopback_dev if name == net.loopback_dev.name else net.devices.get(name)
    if name and dev is None:
        return ENODEV
    sk.sk_bound_dev_if = dev.ifindex if dev is not None else 0
    return 0


def _set_raw(sk: InetSock, optname: int, value: bytes) -> int:
    """`do_raw_setsockopt`: ICMP_FILTER, a bit for each type that is not wanted."""
    if optname != uapi.ICMP_FILTER:
        return ENOPROTOOPT
    if sk.inet_num != IPPROTO_ICMP:
        return EOPNOTSUPP
    old = sk.filter.to_bytes(4, "little")
    sk.filter = int.from_bytes(value[:4] + old[len(value[:4]) :], "little")
    return 0


def _ifindex(net: IpNet, addr: bytes, index: int) -> int:
    """`skbus.inet.ip_sockglue.IfIndex`"""
    if addr:
        dev = net.loopback_dev if addr[0] == 127 else net.local_addrs.get(addr)
        return dev.ifindex if dev is not None else 0
    return index if index in net.dev_by_index else 0


def _set_ip(net: IpNet, sk: InetSock, optname: int, value: bytes, *, restore: bool = False) -> int:
    """An option of level IP. Returns an errno, 0 for success."""
    if optname in mc.MEMBERSHIP:
        key = ("socket", sk.sk)
        return mcast.mc_setsockopt(net, key, optname, value, restore=restore)
    if optname == mc.IP_MULTICAST_IF:
        found = ip_multicast_if(value, sk.sk_bound_dev_if, lambda a, i: _ifindex(net, a, i))
        if isinstance(found, int):
            return found
        sk.mc_index, sk.mc_addr = found
        return 0
    if optname == uapi.IP_ROUTER_ALERT:
        return _ip_ra_control(sk, value)
    kind = uapi.SOCK_DGRAM if sk.ping else uapi.SOCK_RAW
    option = do_ip_setsockopt(kind, optname, value, lambda a, i: _ifindex(net, a, i))
    if isinstance(option, int):
        return option
    setattr(sk, *option)
    return 0


def _ip_ra_control(sk: InetSock, value: bytes) -> int:
    """`ip_ra_control`: remembered; packets with a router alert are forwarded as others are."""
    if sk.ping or sk.inet_num == IPPROTO_RAW:
        return EINVAL
    on = bool(int_value(value))
    if on == sk.router_alert:
        return EADDRINUSE if on else ENOBUFS
    sk.router_alert = on
    return 0


# ---- getting -----------------------------------------------------------------------------


def ip_getsockopt(net: IpNet, item: Getsockopt) -> None:
    """getsockopt(2): `raw_getsockopt`, `ip_getsockopt`."""
    sk = net.inet_socks.get(item.sk)
    found = EBADF if sk is None else _get(net, sk, item.level, item.optname, item.optlen)
    if isinstance(found, int):
        sk_ret(net, item.sk, item.req, found)
    else:
        sk_ret(net, item.sk, item.req, 0, found)


def _get(net: IpNet, sk: InetSock, level: int, optname: int, optlen: int) -> bytes | int:
    """The option's bytes, or an errno."""
    if level == SOL_RAW and not sk.ping:
        if optname != uapi.ICMP_FILTER:
            return ENOPROTOOPT
        return EOPNOTSUPP if sk.inet_num != IPPROTO_ICMP else pack("=I", sk.filter)[:optlen]
    if level != SOL_IP:
        return EOPNOTSUPP
    if optname in mc.MSFILTERS:
        try:
            return mc.msfilter_get(sk.mc_list, optname, b"", EADDRNOTAVAIL)
        except mc.MreqError as e:
            return int(e.args[0])
    if optname == uapi.IP_MTU:
        rt = inet_sock.sk_route(net, sk, sk.inet_daddr) if sk.connected() else ENOTCONN
        return ENOTCONN if isinstance(rt, int) else ip_int(rt.mtu, optlen)
    if optname == uapi.IP_PROTOCOL:
        return ip_int(sk.inet_num, optlen)
    ttl: int = net.ipv4.sysctl_ip_default_ttl
    return do_ip_getsockopt(sk, optname, optlen, ttl)
