# SPDX-License-Identifier: MIT
"""Options of a UDP socket (`udp_lib_setsockopt` of `net/ipv4/udp.c`, and what of `do_ip_setsockopt`
and `sock_setsockopt` udp must know).

Values are as setsockopt(2) takes them. Those of level IP are checked by `skbus.inet.ip_sockglue`.
"""

from errno import EBADF, EINVAL, ENODEV, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP
from struct import pack
from typing import Final

from skbus.core import uapi
from skbus.core.abi import Getsockopt, Setsockopt
from skbus.core.uapi import SOL_IP, SOL_SOCKET, SOL_UDP, SOL_UDPLITE
from skbus.inet.ip_sockglue import (
    do_ip_getsockopt,
    do_ip_setsockopt,
    int_value,
    ip_int,
    ip_multicast_if,
)
from skbus.inet.mcast import IP_MULTICAST_IF, MEMBERSHIP, MSFILTERS
from skbus.inet.transport import sk_ret
from skbusd.udp import datagram, mcast, udplite
from skbusd.udp.netns import IPPROTO_UDPLITE, SK_REUSEADDR, SK_REUSEPORT, UdpNet, UdpSock

_CSCOV: Final = (uapi.UDPLITE_SEND_CSCOV, uapi.UDPLITE_RECV_CSCOV)
_FLAGS: Final = {
    uapi.UDP_CORK: "corkflag",
    uapi.UDP_GRO: "gro_enabled",
    uapi.UDP_NO_CHECK6_TX: "no_check6_tx",
    uapi.UDP_NO_CHECK6_RX: "no_check6_rx",
}
"""Options of level UDP that are on or off."""


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
    elif item.level == SOL_IP:
        err = _set_ip(net, sk, item.optname, item.value)
    else:
        err = _set_udp(sk, item.level, item.optname, item.value)
    if net.tracing:
        net.trace("udp_setsockopt", sk=item.sk, level=item.level, optname=item.optname, err=err)
    sk_ret(net, item.sk, item.req, err)


def _set_socket(net: UdpNet, sk: UdpSock, optname: int, value: bytes) -> int:
    """The socket layer has checked these; what udp has no use for is passed over."""
    if optname == uapi.SO_BINDTODEVICE:
        name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
        if name and name not in net.dev_by_name:
            return ENODEV
        sk.sk_bound_dev_if = net.dev_by_name[name] if name else 0
        return 0
    number = int_value(value)
    if optname == uapi.SO_BROADCAST:
        sk.broadcast = bool(number)
    elif optname == uapi.SO_NO_CHECK:
        sk.no_check = bool(number)
    elif optname == uapi.SO_REUSEADDR:
        sk.reuse = sk.reuse & ~SK_REUSEADDR | (SK_REUSEADDR if number else 0)
    elif optname == uapi.SO_REUSEPORT:
        sk.reuse = sk.reuse & ~SK_REUSEPORT | (SK_REUSEPORT if number else 0)
    elif optname == uapi.SO_RCVBUFFORCE:
        sk.sk_rcvbuf = max(2 * max(number, 0), uapi.SOCK_MIN_RCVBUF)
    elif optname == uapi.SO_RCVBUF:
        size = min(number & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
        sk.sk_rcvbuf = max(2 * size, uapi.SOCK_MIN_RCVBUF)
    return 0


def _ifindex(net: UdpNet, addr: bytes, index: int) -> int:
    """`skbus.inet.ip_sockglue.IfIndex`, as far as ip has told of its devices."""
    if addr:
        dev = net.addrs.get(addr)
        return dev.ifindex if dev is not None else 0
    return index if index in net.dev_by_name.values() else 0


def _set_ip(net: UdpNet, sk: UdpSock, optname: int, value: bytes) -> int:
    if optname == IP_MULTICAST_IF:
        found = ip_multicast_if(value, sk.sk_bound_dev_if, lambda a, i: _ifindex(net, a, i))
        if isinstance(found, int):
            return found
        sk.mc_index, sk.mc_addr = found
        return 0
    option = do_ip_setsockopt(uapi.SOCK_DGRAM, optname, value, lambda a, i: _ifindex(net, a, i))
    if isinstance(option, int):
        return option
    setattr(sk, *option)
    return 0


def _set_udp(sk: UdpSock, level: int, optname: int, value: bytes) -> int:
    if level not in (SOL_UDP, SOL_UDPLITE):
        return ENOPROTOOPT
    if len(value) < 4:
        return EINVAL
    number = int_value(value)
    if optname in _CSCOV:
        if sk.protocol != IPPROTO_UDPLITE:
            return ENOPROTOOPT
        udplite.set_cscov(sk, optname, number)
    elif optname in _FLAGS:
        setattr(sk, _FLAGS[optname], bool(number))
    elif optname == uapi.UDP_SEGMENT:
        if not 0 <= number <= 0xFFFF:
            return EINVAL
        sk.gso_size = number
    else:
        return ENOPROTOOPT
    return 0


# ---- getting -----------------------------------------------------------------------------


def udp_getsockopt(net: UdpNet, item: Getsockopt) -> None:
    """getsockopt(2) of levels IP and UDP."""
    sk = net.socks.get(item.sk)
    found: bytes | int
    if sk is None:
        found = EBADF
    elif item.level == SOL_IP:
        if item.optname in MSFILTERS:
            mcast.ip_mc_getsockopt(net, sk, item)
            return
        found = _get_ip(net, sk, item.optname, item.optlen)
    elif item.level in (SOL_UDP, SOL_UDPLITE):
        found = _get_udp(sk, item.optname)
    else:
        found = EOPNOTSUPP
    if isinstance(found, int):
        sk_ret(net, item.sk, item.req, found)
    else:
        sk_ret(net, item.sk, item.req, 0, found)


def _get_ip(net: UdpNet, sk: UdpSock, optname: int, optlen: int) -> bytes | int:
    if optname == uapi.IP_MTU:
        # (However old: it is the one that the socket was connected by.)
        dst = net.dst_cache.get(datagram.route_key(sk, sk.inet_daddr))
        return ip_int(dst.mtu, optlen) if sk.connected() and dst is not None else ENOTCONN
    if optname == uapi.IP_PROTOCOL:
        return ip_int(sk.inet_num, optlen)
    ttl: int = net.sysctl["net.ipv4.ip_default_ttl"]
    return do_ip_getsockopt(sk, optname, optlen, ttl)


def _get_udp(sk: UdpSock, optname: int) -> bytes | int:
    if optname in _FLAGS:
        value = int(getattr(sk, _FLAGS[optname]))
    elif optname == uapi.UDP_SEGMENT:
        value = sk.gso_size
    elif optname in _CSCOV and sk.protocol == IPPROTO_UDPLITE:
        value = sk.pcslen if optname == uapi.UDPLITE_SEND_CSCOV else sk.pcrlen
    else:
        return ENOPROTOOPT
    return pack("=i", value)
