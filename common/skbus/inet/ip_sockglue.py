# SPDX-License-Identifier: MIT
"""Options of level IP, and ICMP errors, as sockets of every transport have them
(`net/ipv4/ip_sockglue.c`, and `icmp_err_convert` of `net/ipv4/icmp.c`).

Each transport (udp, tcp, and ip for raw and ping sockets) keeps the options that it uses in its own
struct, under the names of `struct inet_sock`. This module checks an option's value, and shows it
again. Options for control messages with each datagram (IP_PKTINFO and its like) are the socket
layer's (`skbusd.socket.ip_sockglue`). ip(7); RFC 791 3.1 for IP_OPTIONS.
"""

from collections.abc import Callable
from errno import (
    EADDRNOTAVAIL,
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    EINVAL,
    EMSGSIZE,
    ENETUNREACH,
    ENONET,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPROTO,
)
from typing import Any, Final

from skbus.core import uapi
from skbus.core.abi import SockErrCb
from skbus.core.compiled import mypyc_attr
from skbus.core.interfaces import SkCallbacks
from skbus.core.net import Net
from skbus.inet import mcast as mc
from skbus.inet.headers import HeaderError
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_PARAMETERPROB,
    NR_ICMP_UNREACH,
)
from skbus.inet.headers.ipv4 import MAX_IPOPTLEN, parse_options

INADDR_ANY: Final = b"\0\0\0\0"

STREAM: Final = uapi.SOCK_STREAM
RAW: Final = uapi.SOCK_RAW

Found = tuple[str, int | bytes]
"""(name of the field in `struct inet_sock`, its new value)"""

IfIndex = Callable[[bytes, int], int]
"""The index of the device with an address, or, where that is b'', with an index. 0 for none."""


@mypyc_attr(allow_interpreted_subclasses=True)
class InetOptions:
    """The options in `struct inet_sock`, with their values in a new socket."""

    __slots__ = (
        "bind_address_no_port", "freebind", "hdrincl", "inet_opt", "local_port_range", "mc_addr",
        "mc_all", "mc_index", "mc_loop", "mc_ttl", "min_ttl", "nodefrag", "pmtudisc", "recverr",
        "recverr_rfc4884", "router_alert", "tos", "transparent", "uc_index", "uc_ttl",
    )  # fmt: skip

    def __init__(self) -> None:
        self.tos = 0
        self.uc_ttl = -1
        self.pmtudisc = uapi.IP_PMTUDISC_WANT
        self.inet_opt = b""
        """IP_OPTIONS, checked, of a length that 4 divides."""
        self.recverr = False
        self.recverr_rfc4884 = 0
        self.freebind = False
        self.transparent = False
        self.hdrincl = False
        self.nodefrag = False
        self.router_alert = False
        self.min_ttl = 0
        self.uc_index = 0
        self.mc_ttl = 1
        self.mc_loop = True
        self.mc_all = 1
        self.mc_index = 0
        self.mc_addr = INADDR_ANY
        self.bind_address_no_port = False
        self.local_port_range = 0


DEFAULTS: Final = InetOptions()
"""The values for a socket of a transport that does not keep an option."""


# ---- setting -----------------------------------------------------------------------------


def int_value(value: bytes) -> int:
    """An int, or a byte where there are fewer than four; 0 where there is nothing."""
    if len(value) >= 4:
        return int.from_bytes(value[:4], "little", signed=True)
    return value[0] if value else 0


_BOOLS: Final = {
    uapi.IP_RECVERR: "recverr",
    uapi.IP_BIND_ADDRESS_NO_PORT: "bind_address_no_port",
}
_BOOLS_OF_A_BYTE: Final = {
    uapi.IP_FREEBIND: "freebind",
    uapi.IP_TRANSPARENT: "transparent",
    mc.IP_MULTICAST_LOOP: "mc_loop",
}
"""An empty value will not do."""
_RAW_BOOLS: Final = {uapi.IP_HDRINCL: "hdrincl", uapi.IP_NODEFRAG: "nodefrag"}
_RANGES: Final = {
    uapi.IP_MTU_DISCOVER: ("pmtudisc", uapi.IP_PMTUDISC_DONT, uapi.IP_PMTUDISC_OMIT, 0),
    uapi.IP_RECVERR_RFC4884: ("recverr_rfc4884", 0, 1, 0),
    uapi.IP_MINTTL: ("min_ttl", 0, 255, 1),
    mc.IP_MULTICAST_ALL: ("mc_all", 0, 1, 1),
}
"""(field, least value, greatest, least length)"""


def do_ip_setsockopt(kind: int, optname: int, value: bytes, ifindex: IfIndex) -> Found | int:
    """`do_ip_setsockopt`: the field of `struct inet_sock` that an option sets, and its value; or
    an errno. kind: the type of the socket."""
    if optname in _BOOLS:
        return _BOOLS[optname], bool(int_value(value))
    if optname in _BOOLS_OF_A_BYTE:
        return (_BOOLS_OF_A_BYTE[optname], bool(int_value(value))) if value else EINVAL
    if optname in _RAW_BOOLS:
        return (_RAW_BOOLS[optname], bool(int_value(value))) if kind == RAW else ENOPROTOOPT
    if optname in _RANGES:
        field, low, high, least = _RANGES[optname]
        number = int_value(value)
        return (field, number) if low <= number <= high and len(value) >= least else EINVAL
    setter = _SETTERS.get(optname)
    if setter is not None:
        return setter(kind, value)
    if optname == uapi.IP_UNICAST_IF:
        return _unicast_if(value, ifindex)
    return EINVAL if optname == uapi.IP_ROUTER_ALERT else ENOPROTOOPT


def _tos(kind: int, value: bytes) -> Found | int:
    # ECN is TCP's own business (RFC 3168 5).
    return "tos", int_value(value) & (0xFC if kind == STREAM else 0xFF)


def _ttl(kind: int, value: bytes) -> Found | int:
    ttl = int_value(value)
    return ("uc_ttl", ttl) if value and (ttl == -1 or 1 <= ttl <= 255) else EINVAL


def _multicast_ttl(kind: int, value: bytes) -> Found | int:
    ttl = int_value(value)
    if kind == STREAM or not value or not -1 <= ttl <= 255:
        return EINVAL
    return "mc_ttl", 1 if ttl == -1 else ttl


def _local_port_range(kind: int, value: bytes) -> Found | int:
    if len(value) != 4:
        return EINVAL
    both = int.from_bytes(value, "little")
    low, high = both & 0xFFFF, both >> 16
    return EINVAL if low and high and low > high else ("local_port_range", both)


def _options(kind: int, value: bytes) -> Found | int:
    found = ip_options_get(value)
    return found if isinstance(found, int) else ("inet_opt", found)


def ip_options_get(value: bytes) -> bytes | int:
    """`ip_options_get`: IP options of an application, checked, with END behind them; or EINVAL."""
    if len(value) > MAX_IPOPTLEN:
        return EINVAL
    options = value + bytes(-len(value) & 3)
    try:
        parse_options(options)
    except HeaderError:
        return EINVAL
    return options


def ip_options_route(options: bytes, daddr: bytes) -> tuple[bytes, bytes]:
    """The first destination of a packet to daddr with these options, and its options from there. A
    source route's first address becomes the destination, and daddr its last entry (RFC 791 3.1)."""
    srr = parse_options(options).srr
    if srr is None:
        return daddr, options
    at, length = srr.offset, len(srr.data)
    if length < 7:
        return daddr, options
    route = srr.data[7:] + daddr
    return srr.data[3:7], options[: at + 3] + route + options[at + length :]


def _unicast_if(value: bytes, ifindex: IfIndex) -> Found | int:
    if len(value) != 4:
        return EINVAL
    index = int.from_bytes(value, "big")
    if index and not ifindex(b"", index):
        return EADDRNOTAVAIL
    return "uc_index", index


_SETTERS: Final[dict[int, Callable[[int, bytes], Found | int]]] = {
    uapi.IP_TOS: _tos,
    uapi.IP_TTL: _ttl,
    uapi.IP_OPTIONS: _options,
    uapi.IP_LOCAL_PORT_RANGE: _local_port_range,
    mc.IP_MULTICAST_TTL: _multicast_ttl,
}


def ip_multicast_if(value: bytes, bound: int, ifindex: IfIndex) -> tuple[int, bytes] | int:
    """IP_MULTICAST_IF, by struct in_addr, ip_mreq or ip_mreqn: (device, address), or an errno.
    bound: the device that the socket is bound to."""
    if len(value) < 4:
        return EINVAL
    addr = value[4:8] if len(value) >= 8 else value[:4]
    index = int.from_bytes(value[8:12], "little") if len(value) >= 12 else 0
    if index:
        if not ifindex(b"", index):
            return EADDRNOTAVAIL
    elif addr != INADDR_ANY:
        index = ifindex(addr, 0)
        if not index:
            return EADDRNOTAVAIL
    if index and bound not in (0, index):
        return EINVAL
    return index, addr


# ---- getting -----------------------------------------------------------------------------

_FIELDS: Final = {
    uapi.IP_TOS: "tos",
    uapi.IP_TTL: "uc_ttl",
    uapi.IP_HDRINCL: "hdrincl",
    uapi.IP_MTU_DISCOVER: "pmtudisc",
    uapi.IP_RECVERR: "recverr",
    uapi.IP_FREEBIND: "freebind",
    uapi.IP_TRANSPARENT: "transparent",
    uapi.IP_MINTTL: "min_ttl",
    uapi.IP_ROUTER_ALERT: "router_alert",
    uapi.IP_NODEFRAG: "nodefrag",
    uapi.IP_BIND_ADDRESS_NO_PORT: "bind_address_no_port",
    uapi.IP_RECVERR_RFC4884: "recverr_rfc4884",
    uapi.IP_LOCAL_PORT_RANGE: "local_port_range",
    mc.IP_MULTICAST_TTL: "mc_ttl",
    mc.IP_MULTICAST_LOOP: "mc_loop",
    mc.IP_MULTICAST_ALL: "mc_all",
}


def do_ip_getsockopt(sk: Any, optname: int, optlen: int, default_ttl: int) -> bytes | int:
    """`do_ip_getsockopt`: the option's bytes, or an errno. IP_MTU is left to the caller."""
    if optname in _FIELDS:
        field = _FIELDS[optname]
        value = int(getattr(sk, field, getattr(DEFAULTS, field)))
        if optname == uapi.IP_TTL and value == -1:
            value = default_ttl
        return ip_int(value, optlen)
    if optname == uapi.IP_OPTIONS:
        options: bytes = getattr(sk, "inet_opt", b"")
        return options[:optlen]
    if optname == mc.IP_MULTICAST_IF:
        addr: bytes = getattr(sk, "mc_addr", INADDR_ANY)
        return addr[:optlen]
    if optname == uapi.IP_UNICAST_IF:
        return int(getattr(sk, "uc_index", 0)).to_bytes(4, "big")[:optlen]
    return ENOTCONN if optname == uapi.IP_MTU else ENOPROTOOPT


def ip_int(value: int, optlen: int) -> bytes:
    """An int as getsockopt shows it: one byte where there is no room for four, and it fits."""
    if 0 < optlen < 4 and 0 <= value <= 255:
        return bytes((value,))
    return (value & 0xFFFFFFFF).to_bytes(4, "little")[:optlen]


# ---- ICMP errors -------------------------------------------------------------------------

ICMP_ERR_CONVERT: Final = (
    (ENETUNREACH, False),  # ICMP_NET_UNREACH
    (EHOSTUNREACH, False),  # ICMP_HOST_UNREACH
    (ENOPROTOOPT, True),  # ICMP_PROT_UNREACH
    (ECONNREFUSED, True),  # ICMP_PORT_UNREACH
    (EMSGSIZE, False),  # ICMP_FRAG_NEEDED
    (EOPNOTSUPP, False),  # ICMP_SR_FAILED
    (ENETUNREACH, True),  # ICMP_NET_UNKNOWN
    (EHOSTDOWN, True),  # ICMP_HOST_UNKNOWN
    (ENONET, True),  # ICMP_HOST_ISOLATED
    (ENETUNREACH, True),  # ICMP_NET_ANO
    (EHOSTUNREACH, True),  # ICMP_HOST_ANO
    (ENETUNREACH, False),  # ICMP_NET_UNR_TOS
    (EHOSTUNREACH, False),  # ICMP_HOST_UNR_TOS
    (EHOSTUNREACH, True),  # ICMP_PKT_FILTERED
    (EHOSTUNREACH, True),  # ICMP_PREC_VIOLATION
    (EHOSTUNREACH, True),  # ICMP_PREC_CUTOFF
)
"""`icmp_err_convert`: errno, and whether it is an error for a connected socket."""


def icmp_error(type_: int, code: int, pmtudisc: int) -> tuple[int, bool]:
    """An ICMP error for a socket of datagrams: errno, and whether the error is hard."""
    if type_ == ICMP_PARAMETERPROB:
        return EPROTO, True
    if type_ == ICMP_DEST_UNREACH and code <= NR_ICMP_UNREACH:
        if code == ICMP_FRAG_NEEDED:
            return EMSGSIZE, pmtudisc != uapi.IP_PMTUDISC_DONT
        return ICMP_ERR_CONVERT[code]
    return EHOSTUNREACH, False


def ip_icmp_error(
    net: Net,
    sk: int,
    err: int,
    icmp: tuple[int, int, int],
    offender: bytes,
    to: tuple[bytes, int],
    payload: bytes,
    ifindex: int = 0,
) -> None:
    """`ip_icmp_error`: put an ICMP error on a socket's error queue (IP_RECVERR).

    icmp: (type, code, info). to: address and port of the quoted packet. payload: the quoted bytes,
    from where the application's part begins.
    """
    type_, code, info = icmp
    origin = uapi.SO_EE_ORIGIN_ICMP
    cb = SockErrCb(sk, err, origin, type_, code, info, offender, *to, ifindex)
    _sock_queue_err_skb(net, payload, cb)


def ip_local_error(net: Net, sk: int, err: int, daddr: bytes, port: int, info: int) -> None:
    """`ip_local_error`: this host's own error: a datagram is longer than `info`, the path's MTU."""
    cb = SockErrCb(sk, err, uapi.SO_EE_ORIGIN_LOCAL, 0, 0, info, b"", daddr, port, 0)
    _sock_queue_err_skb(net, b"", cb)


def _sock_queue_err_skb(net: Net, payload: bytes, cb: SockErrCb) -> None:
    skb = net.alloc_skb(payload, cb=cb)
    if net.tracing:
        net.trace("ip_icmp_error", skb, sk=cb.sk, err=cb.ee_errno, origin=cb.ee_origin)
    net.call_skb("socket", SkCallbacks.sock_queue_err_skb, skb, cb)
