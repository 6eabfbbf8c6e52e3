# SPDX-License-Identifier: MIT
"""Options of a UDP socket (`net/ipv4/ip_sockglue.c`, and `udp_lib_setsockopt` of `udp.c`).

Values are as setsockopt(2) takes them: ints in native order; options of level IP may be one byte.
"""

from collections.abc import Callable
from errno import EADDRNOTAVAIL, EBADF, EINVAL, ENODEV, ENOPROTOOPT, ENOTCONN, EPERM
from struct import pack
from typing import Final

from skbus.abi import Getsockopt, Setsockopt
from skbus.mcast import IP_MULTICAST_ALL, MEMBERSHIP, MSFILTERS
from skbusd.udp import datagram, mcast, route, udplite
from skbusd.udp.netns import (
    INADDR_ANY,
    IP_PMTUDISC_DONT,
    IP_PMTUDISC_OMIT,
    IPPROTO_UDPLITE,
    SK_REUSEADDR,
    SK_REUSEPORT,
    UdpNet,
    UdpSock,
)

SOL_SOCKET: Final = 1
SOL_IP: Final = 0
SOL_UDP: Final = 17
SOL_UDPLITE: Final = 136

SO_REUSEADDR: Final = 2
SO_BROADCAST: Final = 6
SO_SNDBUF: Final = 7
SO_RCVBUF: Final = 8
SO_NO_CHECK: Final = 11
SO_REUSEPORT: Final = 15
SO_BINDTODEVICE: Final = 25
SO_RCVBUFFORCE: Final = 33

IP_TOS: Final = 1
IP_TTL: Final = 2
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_RECVERR: Final = 11
IP_RECVTTL: Final = 12
IP_RECVTOS: Final = 13
IP_MTU: Final = 14
IP_FREEBIND: Final = 15
IP_TRANSPARENT: Final = 19
IP_BIND_ADDRESS_NO_PORT: Final = 24
IP_MULTICAST_IF: Final = 32
IP_MULTICAST_TTL: Final = 33
IP_MULTICAST_LOOP: Final = 34

UDP_CORK: Final = 1
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

UDPLITE_SEND_CSCOV: Final = udplite.UDPLITE_SEND_CSCOV
UDPLITE_RECV_CSCOV: Final = udplite.UDPLITE_RECV_CSCOV
SOCK_MIN_RCVBUF: Final = 2304

_KEPT: Final = frozenset({
    (SOL_IP, IP_PKTINFO), (SOL_IP, IP_RECVTTL), (SOL_IP, IP_RECVTOS),
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT), (SOL_UDP, UDP_GRO),
})  # fmt: skip
"""On or off; kept for getsockopt, as nothing here depends on them."""


def _int(level: int, value: bytes) -> int:
    """ValueError where there is no int, nor, at level IP, a byte."""
    if len(value) >= 4:
        return int.from_bytes(value[:4], "little", signed=True)
    if level == SOL_IP and value:
        return value[0]
    raise ValueError


# ---- setting -----------------------------------------------------------------------------


def udp_setsockopt(net: UdpNet, item: Setsockopt) -> None:
    """setsockopt(2) of levels IP and UDP, and what of SOL_SOCKET udp must know."""
    sk = net.socks.get(item.sk)
    if sk is None:
        err = EBADF
    elif item.level == SOL_IP and item.optname in MEMBERSHIP:
        mcast.ip_mc_setsockopt(net, item)
        return
    elif item.level == SOL_SOCKET:
        err = _set_socket(net, sk, item.optname, item.value)
    else:
        err = _set(net, sk, item.level, item.optname, item.value)
    if net.tracing:
        net.trace("udp_setsockopt", sk=item.sk, level=item.level, optname=item.optname, err=err)
    datagram.sk_ret(net, item.sk, item.req, err)


def _set_socket(net: UdpNet, sk: UdpSock, optname: int, value: bytes) -> int:
    """The socket layer has checked these; what udp has no use for is passed over."""
    if optname == SO_BINDTODEVICE:
        name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
        if name and name not in net.dev_by_name:
            return ENODEV
        sk.sk_bound_dev_if = net.dev_by_name[name] if name else 0
        return 0
    try:
        number = _int(SOL_SOCKET, value)
    except ValueError:
        return 0
    if optname == SO_BROADCAST:
        sk.broadcast = bool(number)
    elif optname == SO_NO_CHECK:
        sk.no_check = bool(number)
    elif optname == SO_REUSEADDR:
        sk.reuse = sk.reuse & ~SK_REUSEADDR | (SK_REUSEADDR if number else 0)
    elif optname == SO_REUSEPORT:
        sk.reuse = sk.reuse & ~SK_REUSEPORT | (SK_REUSEPORT if number else 0)
    elif optname in (SO_RCVBUF, SO_RCVBUFFORCE):
        size = min(number & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
        sk.sk_rcvbuf = max(2 * size, SOCK_MIN_RCVBUF)
    return 0


def _set(net: UdpNet, sk: UdpSock, level: int, optname: int, value: bytes) -> int:
    if (level, optname) == (SOL_IP, IP_MULTICAST_IF):
        return _set_multicast_if(net, sk, value)
    if optname in (UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV) and level in (SOL_UDP, SOL_UDPLITE):
        if sk.protocol != IPPROTO_UDPLITE:
            return ENOPROTOOPT
        if len(value) < 4:
            return EINVAL
        udplite.set_cscov(sk, optname, _int(level, value))
        return 0
    if level == SOL_UDPLITE:
        level = SOL_UDP
    setter = _SETTERS.get((level, optname))
    if setter is None and (level, optname) not in _KEPT:
        return ENOPROTOOPT
    try:
        number = _int(level, value)
    except ValueError:
        return EINVAL
    if setter is not None:
        return setter(sk, number)
    sk.options[level, optname] = int(bool(number))
    return 0


def _set_tos(sk: UdpSock, value: int) -> int:
    sk.tos = value & 0xFF
    return 0


def _set_ttl(sk: UdpSock, value: int) -> int:
    if value != -1 and not 1 <= value <= 255:
        return EINVAL
    sk.uc_ttl = value
    return 0


def _set_mtu_discover(sk: UdpSock, value: int) -> int:
    if not IP_PMTUDISC_DONT <= value <= IP_PMTUDISC_OMIT:
        return EINVAL
    sk.pmtudisc = value
    return 0


def _set_recverr(sk: UdpSock, value: int) -> int:
    sk.recverr = bool(value)
    return 0


def _set_freebind(sk: UdpSock, value: int) -> int:
    sk.freebind = bool(value)
    return 0


def _set_transparent(sk: UdpSock, value: int) -> int:
    return EPERM if value else 0


def _set_multicast_ttl(sk: UdpSock, value: int) -> int:
    if not -1 <= value <= 255:
        return EINVAL
    sk.mc_ttl = 1 if value == -1 else value
    return 0


def _set_multicast_loop(sk: UdpSock, value: int) -> int:
    sk.mc_loop = bool(value)
    return 0


def _set_multicast_all(sk: UdpSock, value: int) -> int:
    if value not in (0, 1):
        return EINVAL
    sk.mc_all = bool(value)
    return 0


def _set_multicast_if(net: UdpNet, sk: UdpSock, value: bytes) -> int:
    """struct in_addr, ip_mreq or ip_mreqn."""
    if len(value) < 4:
        return EINVAL
    if len(value) >= 12:
        addr = value[4:8]
        index = int.from_bytes(value[8:12], "little")
    else:
        addr = value[4:8] if len(value) >= 8 else value[:4]
        index = 0
    if not index and addr != INADDR_ANY:
        dev = net.addrs.get(addr)
        if dev is None:
            return EADDRNOTAVAIL
        index = dev.ifindex
    elif index and index not in net.dev_by_name.values():
        return EADDRNOTAVAIL
    sk.mc_index = index
    sk.mc_addr = addr
    return 0


def _set_cork(sk: UdpSock, value: int) -> int:
    # Each send is a datagram here: a corked one would wait in a process that may be restarted.
    return ENOPROTOOPT if value else 0


def _set_segment(sk: UdpSock, value: int) -> int:
    if not 0 <= value <= 0xFFFF:
        return EINVAL
    sk.gso_size = value
    return 0


_SETTERS: Final[dict[tuple[int, int], Callable[[UdpSock, int], int]]] = {
    (SOL_IP, IP_TOS): _set_tos,
    (SOL_IP, IP_TTL): _set_ttl,
    (SOL_IP, IP_MTU_DISCOVER): _set_mtu_discover,
    (SOL_IP, IP_RECVERR): _set_recverr,
    (SOL_IP, IP_FREEBIND): _set_freebind,
    (SOL_IP, IP_TRANSPARENT): _set_transparent,
    (SOL_IP, IP_MULTICAST_TTL): _set_multicast_ttl,
    (SOL_IP, IP_MULTICAST_LOOP): _set_multicast_loop,
    (SOL_IP, IP_MULTICAST_ALL): _set_multicast_all,
    (SOL_UDP, UDP_CORK): _set_cork,
    (SOL_UDP, UDP_SEGMENT): _set_segment,
}


# ---- getting -----------------------------------------------------------------------------


def udp_getsockopt(net: UdpNet, item: Getsockopt) -> None:
    """getsockopt(2) of levels IP and UDP."""
    sk = net.socks.get(item.sk)
    if sk is None:
        datagram.sk_ret(net, item.sk, item.req, EBADF)
        return
    key = (SOL_UDP if item.level == SOL_UDPLITE else item.level, item.optname)
    if item.level == SOL_IP and item.optname in MSFILTERS:
        mcast.ip_mc_getsockopt(net, sk, item)
        return
    if key == (SOL_IP, IP_MTU):
        dst = route.sk_dst_get(net, datagram.route_key(sk, sk.inet_daddr))
        if not sk.connected() or dst is None:
            datagram.sk_ret(net, item.sk, item.req, ENOTCONN)
            return
        value = dst.mtu
    elif key == (SOL_IP, IP_MULTICAST_IF):
        datagram.sk_ret(net, item.sk, item.req, 0, sk.mc_addr)
        return
    elif key in _GETTERS:
        value = _GETTERS[key](sk)
        if key == (SOL_IP, IP_TTL) and value == -1:
            value = net.sysctl["net.ipv4.ip_default_ttl"]
    elif key in _KEPT:
        value = sk.options.get(key, 0)
    else:
        datagram.sk_ret(net, item.sk, item.req, ENOPROTOOPT)
        return
    if item.level == SOL_IP and 0 < item.optlen < 4 and 0 <= value <= 255:
        datagram.sk_ret(net, item.sk, item.req, 0, bytes((value,)))
    else:
        datagram.sk_ret(net, item.sk, item.req, 0, pack("=i", value))


_GETTERS: Final[dict[tuple[int, int], Callable[[UdpSock], int]]] = {
    (SOL_IP, IP_TOS): lambda sk: sk.tos,
    (SOL_IP, IP_TTL): lambda sk: sk.uc_ttl,
    (SOL_IP, IP_MTU_DISCOVER): lambda sk: sk.pmtudisc,
    (SOL_IP, IP_RECVERR): lambda sk: int(sk.recverr),
    (SOL_IP, IP_FREEBIND): lambda sk: int(sk.freebind),
    (SOL_IP, IP_TRANSPARENT): lambda sk: 0,
    (SOL_IP, IP_MULTICAST_TTL): lambda sk: sk.mc_ttl,
    (SOL_IP, IP_MULTICAST_LOOP): lambda sk: int(sk.mc_loop),
    (SOL_UDP, UDP_CORK): lambda sk: 0,
    (SOL_UDP, UDP_SEGMENT): lambda sk: sk.gso_size,
    (SOL_UDP, UDPLITE_SEND_CSCOV): lambda sk: sk.pcslen,
    (SOL_UDP, UDPLITE_RECV_CSCOV): lambda sk: sk.pcrlen,
    (SOL_IP, IP_MULTICAST_ALL): lambda sk: int(sk.mc_all),
}
