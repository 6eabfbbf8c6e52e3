# SPDX-License-Identifier: MIT
"""Options of raw and ping sockets (`net/ipv4/ip_sockglue.c`, and `raw_setsockopt` of `raw.c`).

Values are as setsockopt(2) takes them: ints in native order; those of level IP may be one byte.
"""

from collections.abc import Callable
from errno import (
    EADDRNOTAVAIL,
    EBADF,
    EINVAL,
    ENODEV,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
)
from struct import pack
from typing import Final

from skbus import mcast as mc
from skbus.abi import Getsockopt, Setsockopt
from skbusd.ip import inet_sock, mcast
from skbusd.ip.netns import INADDR_ANY, IPPROTO_ICMP, InetSock, IpNet

SOL_IP: Final = 0
SOL_SOCKET: Final = 1
SOL_RAW: Final = 255
ICMP_FILTER: Final = 1

SO_REUSEADDR: Final = 2
SO_BROADCAST: Final = 6
SO_RCVBUF: Final = 8
SO_BINDTODEVICE: Final = 25
SO_RCVBUFFORCE: Final = 33
SOCK_MIN_RCVBUF: Final = 2304

IP_TOS: Final = 1
IP_TTL: Final = 2
IP_HDRINCL: Final = 3
IP_ROUTER_ALERT: Final = 5
IP_RECVOPTS: Final = 6
IP_RETOPTS: Final = 7
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_RECVERR: Final = 11
IP_RECVTTL: Final = 12
IP_RECVTOS: Final = 13
IP_MTU: Final = 14
IP_FREEBIND: Final = 15
IP_TRANSPARENT: Final = 19
IP_BIND_ADDRESS_NO_PORT: Final = 24

_KEPT: Final = frozenset(
    {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVOPTS, IP_RETOPTS, IP_BIND_ADDRESS_NO_PORT}
)
"""On or off; kept for getsockopt."""


def _int(value: bytes) -> int:
    """ValueError where there is neither an int nor a byte."""
    if len(value) >= 4:
        return int.from_bytes(value[:4], "little", signed=True)
    if value:
        return value[0]
    raise ValueError


# ---- setting -----------------------------------------------------------------------------


def ip_setsockopt(net: IpNet, item: Setsockopt) -> None:
    """setsockopt(2): `raw_setsockopt`, `ip_setsockopt`. SkRet.val: the groups that it is in."""
    sk = net.inet_socks.get(item.sk)
    if sk is None:
        err = EBADF
    elif item.level == SOL_SOCKET:
        err = _set_socket(net, sk, item.optname, item.value)
    elif item.level == SOL_RAW and not sk.ping:
        err = _set_raw(sk, item.optname, item.value)
    elif item.level == SOL_IP:
        err = do_ip_setsockopt(net, sk, item.optname, item.value, restore=not item.req)
    else:
        err = ENOPROTOOPT
    if net.tracing:
        net.trace("ip_setsockopt", sk=item.sk, level=item.level, optname=item.optname, err=err)
    inet_sock.sk_ret(net, item.sk, item.req, err, sk.mc_list if sk is not None else None)


def _set_socket(net: IpNet, sk: InetSock, optname: int, value: bytes) -> int:
    """The socket layer has checked these; what ip has no use for is passed over."""
    if optname == SO_BINDTODEVICE:
        name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
        dev = net.devices.get(name)
        if name and dev is None:
            return ENODEV
        sk.sk_bound_dev_if = dev.ifindex if dev is not None else 0
        return 0
    try:
        number = _int(value)
    except ValueError:
        return 0
    if optname == SO_BROADCAST:
        sk.broadcast = bool(number)
    elif optname == SO_REUSEADDR:
        sk.reuse = int(bool(number))
    elif optname in (SO_RCVBUF, SO_RCVBUFFORCE):
        size = min(number & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
        sk.sk_rcvbuf = max(2 * size, SOCK_MIN_RCVBUF)
    return 0


def _set_raw(sk: InetSock, optname: int, value: bytes) -> int:
    """`do_raw_setsockopt`: ICMP_FILTER, a bit for each type that is not wanted."""
    if optname != ICMP_FILTER:
        return ENOPROTOOPT
    if sk.inet_num != IPPROTO_ICMP:
        return EOPNOTSUPP
    old = sk.filter.to_bytes(4, "little")
    sk.filter = int.from_bytes(value[:4] + old[len(value[:4]) :], "little")
    return 0


def do_ip_setsockopt(
    net: IpNet, sk: InetSock, optname: int, value: bytes, *, restore: bool = False
) -> int:
    """An option of level IP. Returns an errno, 0 for success."""
    if optname in mc.MEMBERSHIP:
        key = ("socket", sk.sk)
        return mcast.mc_setsockopt(net, key, optname, value, restore=restore)
    if optname == mc.IP_MULTICAST_IF:
        return _set_multicast_if(net, sk, value)
    setter = _SETTERS.get(optname)
    if setter is None and optname not in _KEPT:
        return ENOPROTOOPT
    try:
        number = _int(value)
    except ValueError:
        return EINVAL
    if setter is not None:
        return setter(sk, number)
    sk.options[optname] = int(bool(number))
    return 0


def _set_tos(sk: InetSock, value: int) -> int:
    sk.tos = value & 0xFF
    return 0


def _set_ttl(sk: InetSock, value: int) -> int:
    if value != -1 and not 1 <= value <= 255:
        return EINVAL
    sk.uc_ttl = value
    return 0


def _set_hdrincl(sk: InetSock, value: int) -> int:
    if sk.ping:
        return ENOPROTOOPT
    sk.hdrincl = bool(value)
    return 0


def _set_mtu_discover(sk: InetSock, value: int) -> int:
    if not 0 <= value <= inet_sock.IP_PMTUDISC_OMIT:
        return EINVAL
    sk.pmtudisc = value
    return 0


def _set_recverr(sk: InetSock, value: int) -> int:
    sk.recverr = bool(value)
    return 0


def _set_freebind(sk: InetSock, value: int) -> int:
    sk.freebind = bool(value)
    return 0


def _set_transparent(sk: InetSock, value: int) -> int:
    return EPERM if value else 0


def _set_multicast_ttl(sk: InetSock, value: int) -> int:
    if not -1 <= value <= 255:
        return EINVAL
    sk.mc_ttl = 1 if value == -1 else value
    return 0


def _set_multicast_loop(sk: InetSock, value: int) -> int:
    sk.mc_loop = bool(value)
    return 0


def _set_multicast_all(sk: InetSock, value: int) -> int:
    if value not in (0, 1):
        return EINVAL
    sk.mc_all = bool(value)
    return 0


def _set_multicast_if(net: IpNet, sk: InetSock, value: bytes) -> int:
    """struct in_addr, ip_mreq or ip_mreqn."""
    if len(value) < 4:
        return EINVAL
    addr = value[4:8] if len(value) >= 8 else value[:4]
    index = int.from_bytes(value[8:12], "little") if len(value) >= 12 else 0
    if index:
        if index not in net.dev_by_index:
            return EADDRNOTAVAIL
    elif addr != INADDR_ANY:
        dev = net.local_addrs.get(addr)
        if dev is None:
            return EADDRNOTAVAIL
        index = dev.ifindex
    if index and sk.sk_bound_dev_if not in (0, index):
        return EINVAL
    sk.mc_index, sk.mc_addr = index, addr
    return 0


_SETTERS: Final[dict[int, Callable[[InetSock, int], int]]] = {
    IP_TOS: _set_tos,
    IP_TTL: _set_ttl,
    IP_HDRINCL: _set_hdrincl,
    IP_MTU_DISCOVER: _set_mtu_discover,
    IP_RECVERR: _set_recverr,
    IP_FREEBIND: _set_freebind,
    IP_TRANSPARENT: _set_transparent,
    mc.IP_MULTICAST_TTL: _set_multicast_ttl,
    mc.IP_MULTICAST_LOOP: _set_multicast_loop,
    mc.IP_MULTICAST_ALL: _set_multicast_all,
}


# ---- getting -----------------------------------------------------------------------------


def ip_getsockopt(net: IpNet, item: Getsockopt) -> None:
    """getsockopt(2): `raw_getsockopt`, `ip_getsockopt`."""
    sk = net.inet_socks.get(item.sk)
    found = EBADF if sk is None else _get(net, sk, item.level, item.optname, item.optlen)
    if isinstance(found, int):
        inet_sock.sk_ret(net, item.sk, item.req, found)
    else:
        inet_sock.sk_ret(net, item.sk, item.req, 0, found)


def _get(net: IpNet, sk: InetSock, level: int, optname: int, optlen: int) -> bytes | int:
    """The option's bytes, or an errno."""
    if level == SOL_RAW and not sk.ping:
        if optname != ICMP_FILTER:
            return ENOPROTOOPT
        return EOPNOTSUPP if sk.inet_num != IPPROTO_ICMP else pack("=I", sk.filter)[:optlen]
    if level != SOL_IP:
        return ENOPROTOOPT
    if optname in mc.MSFILTERS:
        try:
            return mc.msfilter_get(sk.mc_list, optname, b"", EADDRNOTAVAIL)
        except mc.MreqError as e:
            return int(e.args[0])
    if optname == mc.IP_MULTICAST_IF:
        return sk.mc_addr
    if optname == IP_MTU:
        rt = inet_sock.sk_route(net, sk, sk.inet_daddr) if sk.connected() else ENOTCONN
        if isinstance(rt, int):
            return ENOTCONN
        value = rt.mtu
    elif optname in _GETTERS:
        value = _GETTERS[optname](sk)
        if optname == IP_TTL and value == -1:
            value = net.sysctl["net.ipv4.ip_default_ttl"]
    elif optname in _KEPT:
        value = sk.options.get(optname, 0)
    else:
        return ENOPROTOOPT
    if 0 < optlen < 4 and 0 <= value <= 255:
        return bytes((value,))
    return pack("=i", value)


_GETTERS: Final[dict[int, Callable[[InetSock], int]]] = {
    IP_TOS: lambda sk: sk.tos,
    IP_TTL: lambda sk: sk.uc_ttl,
    IP_HDRINCL: lambda sk: int(sk.hdrincl),
    IP_MTU_DISCOVER: lambda sk: sk.pmtudisc,
    IP_RECVERR: lambda sk: int(sk.recverr),
    IP_FREEBIND: lambda sk: int(sk.freebind),
    IP_TRANSPARENT: lambda sk: 0,
    mc.IP_MULTICAST_TTL: lambda sk: sk.mc_ttl,
    mc.IP_MULTICAST_LOOP: lambda sk: int(sk.mc_loop),
    mc.IP_MULTICAST_ALL: lambda sk: int(sk.mc_all),
}
