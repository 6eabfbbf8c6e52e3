# SPDX-License-Identifier: MIT
"""Names for the numbers that lines of the log hold: ETH_P_IP, PACKET_HOST, LAST_ACK, RTN_LOCAL,
EHOSTUNREACH, and a segment's flags as tcpdump prints them ([S.]).

Called by `skbus.bus.log` for each detail of a line, so that every reader finds the same names:
`skbus logs`, jq, `docker-compose logs`. A number without a name stays a number.

A detail's key alone does not always say what the number means: `type` is ICMP's in `icmp_rcv` and
a route's in `ip_route_input`. `_BY_FUNCTION` lists the functions that differ.
"""

import errno
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

from skbus.core import skbuff, uapi
from skbus.inet import mcast

Namer = Callable[[int, Mapping[str, object]], object]
"""(number, all details of the line) -> its name, or the number."""


def _prefixed(module: ModuleType, *prefixes: str, without: str = " ") -> dict[int, str]:
    """value -> name, of a module's constants with these prefixes; the first of a value wins."""
    found: dict[int, str] = {}
    for name, value in vars(module).items():
        if name.startswith(prefixes) and not name.startswith(without) and isinstance(value, int):
            found.setdefault(value, name)
    return found


def _options_of_tcp() -> dict[int, str]:
    """Options named TCP_...; the states of a sock, which begin in the same way, are left out."""
    states = {f"TCP_{state}" for state in (*uapi.TCP_STATES, "NEW_SYN_RECV")}
    found: dict[int, str] = {}
    for name, value in vars(uapi).items():
        if name.startswith("TCP_") and name not in states and isinstance(value, int):
            found.setdefault(value, name)
    return found


def _table(names: Mapping[int, str]) -> Namer:
    return lambda value, _: names.get(value, value)


# ---- tables ----------------------------------------------------------------------------------

ETH_P: Final = _prefixed(skbuff, "ETH_P_")
PACKET: Final = _prefixed(skbuff, "PACKET_")
IPPROTO: Final = {**_prefixed(uapi, "IPPROTO_", without="IPPROTO_MAX"), 2: "IPPROTO_IGMP"}
AF: Final = _prefixed(uapi, "AF_")
SOCK_TYPES: Final = {
    value: name for value, name in _prefixed(uapi, "SOCK_").items() if value < uapi.SOCK_MAX
}
RTN: Final = {
    0: "RTN_UNSPEC",
    1: "RTN_UNICAST",
    2: "RTN_LOCAL",
    3: "RTN_BROADCAST",
    4: "RTN_ANYCAST",
    5: "RTN_MULTICAST",
    6: "RTN_BLACKHOLE",
    7: "RTN_UNREACHABLE",
    8: "RTN_PROHIBIT",
}
"""include/uapi/linux/rtnetlink.h"""
ARPOP: Final = {1: "ARPOP_REQUEST", 2: "ARPOP_REPLY"}
"""include/uapi/linux/if_arp.h"""
ORIGIN: Final = _prefixed(uapi, "SO_EE_ORIGIN_")
ICMP_TYPES: Final = {
    0: "ICMP_ECHOREPLY",
    3: "ICMP_DEST_UNREACH",
    4: "ICMP_SOURCE_QUENCH",
    5: "ICMP_REDIRECT",
    8: "ICMP_ECHO",
    11: "ICMP_TIME_EXCEEDED",
    12: "ICMP_PARAMETERPROB",
    13: "ICMP_TIMESTAMP",
    14: "ICMP_TIMESTAMPREPLY",
    15: "ICMP_INFO_REQUEST",
    16: "ICMP_INFO_REPLY",
    17: "ICMP_ADDRESS",
    18: "ICMP_ADDRESSREPLY",
}
"""include/uapi/linux/icmp.h"""
ICMP_CODES: Final = {
    3: (
        "ICMP_NET_UNREACH", "ICMP_HOST_UNREACH", "ICMP_PROT_UNREACH", "ICMP_PORT_UNREACH",
        "ICMP_FRAG_NEEDED", "ICMP_SR_FAILED", "ICMP_NET_UNKNOWN", "ICMP_HOST_UNKNOWN",
        "ICMP_HOST_ISOLATED", "ICMP_NET_ANO", "ICMP_HOST_ANO", "ICMP_NET_UNR_TOS",
        "ICMP_HOST_UNR_TOS", "ICMP_PKT_FILTERED", "ICMP_PREC_VIOLATION", "ICMP_PREC_CUTOFF",
    ),
    5: ("ICMP_REDIR_NET", "ICMP_REDIR_HOST", "ICMP_REDIR_NETTOS", "ICMP_REDIR_HOSTTOS"),
    11: ("ICMP_EXC_TTL", "ICMP_EXC_FRAGTIME"),
}  # fmt: skip
IGMP_TYPES: Final = {
    0x11: "IGMP_HOST_MEMBERSHIP_QUERY",
    0x12: "IGMP_HOST_MEMBERSHIP_REPORT",
    0x16: "IGMPV2_HOST_MEMBERSHIP_REPORT",
    0x17: "IGMP_HOST_LEAVE_MESSAGE",
    0x22: "IGMPV3_HOST_MEMBERSHIP_REPORT",
}
"""include/uapi/linux/igmp.h"""
SOL: Final = {1: "SOL_SOCKET", 0: "SOL_IP", 6: "SOL_TCP", 17: "SOL_UDP", 136: "SOL_UDPLITE",
              255: "SOL_RAW"}  # fmt: skip
_IP_OPTIONS: Final = {
    **_prefixed(uapi, "IP_", without="IP_PMTUDISC_"),
    **_prefixed(mcast, "IP_", "MCAST_JOIN", "MCAST_BLOCK", "MCAST_UN", "MCAST_LEAVE", "MCAST_MS"),
}
_UDP_OPTIONS: Final = _prefixed(uapi, "UDP_")
OPTIONS: Final = {
    uapi.SOL_SOCKET: _prefixed(uapi, "SO_", without="SO_EE_"),
    uapi.SOL_IP: _IP_OPTIONS,
    uapi.SOL_TCP: _options_of_tcp(),
    uapi.SOL_UDP: _UDP_OPTIONS,
    uapi.SOL_UDPLITE: {**_UDP_OPTIONS, **_prefixed(uapi, "UDPLITE_")},
    uapi.SOL_RAW: {uapi.ICMP_FILTER: "ICMP_FILTER"},
}
_MSG: Final = _prefixed(uapi, "MSG_")
_SOCK_FLAGS: Final = {uapi.SOCK_NONBLOCK: "SOCK_NONBLOCK", uapi.SOCK_CLOEXEC: "SOCK_CLOEXEC"}
_TCP_FLAGS: Final = ((0x01, "F"), (0x02, "S"), (0x04, "R"), (0x08, "P"), (0x10, "."),
                     (0x20, "U"), (0x40, "E"), (0x80, "W"), (0x100, "e"))  # fmt: skip


# ---- namers ----------------------------------------------------------------------------------


def tcp_flags(flags: int) -> str:
    """A segment's flags as tcpdump prints them: [S.], [P.], [.]; [none]."""
    return f"[{''.join(letter for bit, letter in _TCP_FLAGS if flags & bit) or 'none'}]"


def _bits(names: Mapping[int, str], value: int) -> str | int:
    found = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    return "|".join([*found, *([f"{rest:#x}"] if rest else [])]) if value else 0


def _ethertype(value: int, _: Mapping[str, object]) -> object:
    return ETH_P.get(value) or (f"{value:#06x}" if value >= 0 else value)


def _protocol(value: int, details: Mapping[str, object]) -> object:
    """The protocol of a socket or a packet. The names are AF_INET's."""
    if details.get("family") == uapi.AF_PACKET:
        return value
    return IPPROTO.get(value, value)


def _sock_type(value: int, _: Mapping[str, object]) -> object:
    name = SOCK_TYPES.get(value & uapi.SOCK_TYPE_MASK)
    if name is None:
        return value
    flags = value & ~uapi.SOCK_TYPE_MASK
    return f"{name}|{_bits(_SOCK_FLAGS, flags)}" if flags else name


def _state(value: int, _: Mapping[str, object]) -> object:
    if value == uapi.TCP_NEW_SYN_RECV:
        return "NEW_SYN_RECV"
    return uapi.TCP_STATES[value] if 0 < value < len(uapi.TCP_STATES) else value


def _errno(value: int, _: Mapping[str, object]) -> object:
    return errno.errorcode.get(abs(value), value)


def _icmp_code(value: int, details: Mapping[str, object]) -> object:
    type_ = details.get("type")
    codes = ICMP_CODES.get(type_, ()) if isinstance(type_, int) else ()
    return codes[value] if 0 <= value < len(codes) else value


def _option(value: int, details: Mapping[str, object]) -> object:
    level = details.get("level", uapi.SOL_IP)
    names = OPTIONS.get(level, {}) if isinstance(level, int) else {}
    return names.get(value, value)


_BY_KEY: Final[dict[str, Namer]] = {
    "protocol": _protocol,
    "pkt_type": _table(PACKET),
    "family": _table(AF),
    "state": _state,
    "err": _errno,
    "op": _table(ARPOP),
    "origin": _table(ORIGIN),
    "level": _table(SOL),
    "optname": _option,
    "code": _icmp_code,
}
_ICMP: Final = ("tcp_v4_err", "udp_err", "icmp_send", "icmp_rcv", "icmp_unreach", "raw_err",
                "ping_err", "rdm_err")  # fmt: skip
_SOCKETS: Final = ("sys_socket", "sock_create", "__sock_create", "sock_create_lite", "inet_create",
                   "inet_register_protosw", "inet_unregister_protosw")  # fmt: skip
_BY_FUNCTION: Final[dict[tuple[str, str], Namer]] = {
    **{(name, "type"): _table(ICMP_TYPES) for name in _ICMP},
    **{(name, "type"): _sock_type for name in _SOCKETS},
    **{(name, "type"): _table(RTN) for name in ("fib_lookup", "ip_route_input")},
    **{(name, "type"): _ethertype for name in ("dev_add_pack", "dev_remove_pack")},
    ("igmp_send_report", "type"): _table(IGMP_TYPES),
    ("netif_receive_skb", "protocol"): _ethertype,
    ("sock_sendmsg", "flags"): lambda value, _: _bits(_MSG, value),
    ("sock_recvmsg", "flags"): lambda value, _: _bits(_MSG, value),
}
_TCP_PREFIX: Final = "tcp_"

AMBIGUOUS: Final = frozenset({"type", "flags"})
"""Details that need an entry in `_BY_FUNCTION` for each function that has them (but `flags` of
functions of tcp). A test looks for functions that have none."""
NAMED: Final = frozenset(_BY_KEY) | AMBIGUOUS
"""Details that may be numbers with a name."""


def namer(function: str, key: str) -> Namer | None:
    """The Namer of a detail; None where its numbers have no names."""
    found = _BY_FUNCTION.get((function, key)) or _BY_KEY.get(key)
    if found is None and key == "flags" and function.startswith(_TCP_PREFIX):
        return lambda value, _: tcp_flags(value)
    return found


def named(function: str, key: str, value: object, details: Mapping[str, object]) -> object:
    """A detail's value as a line shall have it: a number's name, if there is one."""
    if key not in NAMED or not isinstance(value, int) or isinstance(value, bool):
        return value
    found = namer(function, key)
    return value if found is None else found(value, details)
