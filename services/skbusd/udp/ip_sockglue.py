# SPDX-License-Identifier: MIT
"""Options of a UDP socket (`udp_lib_setsockopt` of `net/ipv4/udp.c`, and udp's part of
`do_ip_setsockopt` and `sock_setsockopt`).

Values are as setsockopt(2) takes them. Those of level IP are checked by `skbus.inet.ip_sockglue`.
"""

from errno import EBADF, EINVAL, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP
from struct import pack
from typing import Final

from skbus.core import uapi
from skbus.core.abi import Getsockopt, McRet, Setsockopt
from skbus.core.uapi import SOL_IP, SOL_SOCKET, SOL_UDP, SOL_UDPLITE
from skbus.inet.ip_sockglue import (
    do_ip_getsockopt,
    do_ip_setsockopt,
    int_value,
    ip_int,
    ip_multicast_if,
)
from skbus.inet.mcast import IP_MULTICAST_IF, MEMBERSHIP, MSFILTERS
from skbus.inet.transport import (
    ifindex,
    ip_mc_answer,
    ip_mc_getsockopt,
    ip_mc_setsockopt,
    sk_ret,
    sock_bindtodevice,
    sock_setsockopt,
)
from skbusd.udp import datagram, udplite
from skbusd.udp.netns import IPPROTO_UDPLITE, UdpNet, UdpSock

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
    """setsockopt(2) of levels IP and UDP, and udp's part of SOL_SOCKET."""
    sk = net.socks.get(item.sk)
    if sk is None:
        err = EBADF
    elif item.level == SOL_IP and item.optname in MEMBERSHIP:
        ip_mc_setsockopt(net, item)
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
    if optname == uapi.SO_BINDTODEVICE:
        return sock_bindtodevice(net, sk, value)
    if optname == uapi.SO_NO_CHECK:
        sk.no_check = bool(int_value(value))
    else:
        sock_setsockopt(net, sk, optname, int_value(value))
    return 0


def ip_mc_ret(net: UdpNet, item: McRet) -> None:
    """ip's answer to a membership option."""
    ip_mc_answer(net, item, net.socks.get(item.sk))


def _set_ip(net: UdpNet, sk: UdpSock, optname: int, value: bytes) -> int:
    if optname == IP_MULTICAST_IF:
        found = ip_multicast_if(value, sk.sk_bound_dev_if, lambda a, i: ifindex(net, a, i))
        if isinstance(found, int):
            return found
        sk.mc_index, sk.mc_addr = found
        return 0
    option = do_ip_setsockopt(uapi.SOCK_DGRAM, optname, value, lambda a, i: ifindex(net, a, i))
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
            ip_mc_getsockopt(net, sk, item)
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
        # (However old, this route is the one that the socket was connected by.)
        dst = net.dst_cache.get(datagram.route_key(sk, sk.inet_daddr))
        return ip_int(dst.mtu, optlen) if sk.connected() and dst is not None else ENOTCONN
    if optname == uapi.IP_PROTOCOL:
        return ip_int(sk.inet_num, optlen)
    ttl: int = net.ipv4.sysctl_ip_default_ttl
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
