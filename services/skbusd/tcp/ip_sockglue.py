# SPDX-License-Identifier: MIT
"""Options of level IP on a TCP socket (the part of `net/ipv4/ip_sockglue.c` that concerns tcp).
`skbus.inet.ip_sockglue` checks their values; they take effect here. Called by tcp_sockopt; ip(7).

Differs from Linux: a stream can be in no multicast group.
"""

from errno import EINVAL, ENOPROTOOPT, ENOTCONN, EPROTO
from typing import Final

from skbus.core import uapi
from skbus.inet import mcast as mc
from skbus.inet.ip_sockglue import InetOptions, do_ip_getsockopt, ip_int
from skbus.inet.ip_sockglue import do_ip_setsockopt as check
from skbusd.tcp.const import INET_ECN_MASK
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_window import tcp_build_xmit_cb, tcp_sync_mss

_OWN: Final = frozenset(
    {"pmtudisc", "recverr", "freebind", "transparent", "min_ttl", "inet_opt", "tos", "uc_ttl"}
)
"""Options that are fields of TcpSock. The values of the others are only remembered."""
_UNCONNECTED: Final = frozenset({uapi.TCP_CLOSE, uapi.TCP_LISTEN, uapi.TCP_SYN_SENT})


def ifindex(net: TcpNet, addr: bytes, index: int) -> int:
    """`skbus.inet.ip_sockglue.IfIndex`, as far as ip has told of its devices."""
    for ours, event in net.inetdev.items():
        if addr == ours or (not addr and event.ifindex == index):
            return event.ifindex
    return 0


def do_ip_setsockopt(net: TcpNet, tp: TcpSock, name: int, value: bytes) -> int:
    """IPPROTO_IP: an errno, 0 for success."""
    if name in (mc.IP_ADD_MEMBERSHIP, mc.IP_DROP_MEMBERSHIP):
        return EPROTO
    if name == mc.IP_MULTICAST_IF:
        return EINVAL
    found = check(uapi.SOCK_STREAM, name, value, lambda addr, index: ifindex(net, addr, index))
    if isinstance(found, int):
        return found
    field, setting = found
    if field == "tos":
        tp.tos = int(setting) | tp.tos & INET_ECN_MASK  # the ECN bits are tcp's own (RFC 3168)
    elif field == "uc_ttl":
        tp.ttl = max(int(setting), 0)
    elif field in _OWN:
        setattr(tp, field, setting)
    elif isinstance(setting, int):
        tp.ip_kept = (*(kept for kept in tp.ip_kept if kept[0] != field), (field, setting))
    if tp.xmit_cb.daddr:
        tcp_build_xmit_cb(tp)
        if field == "inet_opt" and tp.state not in _UNCONNECTED:
            tcp_sync_mss(net, tp, tp.pmtu)
    return 0


def ip_getsockopt(net: TcpNet, tp: TcpSock, name: int, optlen: int) -> bytes | int:
    """IPPROTO_IP: the option's bytes, or an errno."""
    if name == uapi.IP_MTU:
        return ENOTCONN if tp.state in _UNCONNECTED else ip_int(tp.pmtu, optlen)
    if name == uapi.IP_PROTOCOL:
        return ip_int(tp.sport, optlen)
    if name in mc.MSFILTERS:
        return ENOPROTOOPT
    options = InetOptions()
    for field in _OWN - {"uc_ttl"}:
        setattr(options, field, getattr(tp, field))
    options.uc_ttl = tp.ttl or -1
    for field, setting in tp.ip_kept:
        setattr(options, field, setting)
    ttl: int = net.ipv4.sysctl_ip_default_ttl
    return do_ip_getsockopt(options, name, optlen, ttl)
