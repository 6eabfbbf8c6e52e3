# SPDX-License-Identifier: MIT
"""Multicast membership of sockets: the options' structs, and the source filter of delivery
(`include/uapi/linux/in.h`, `ip_mc_sf_allow` and `ip_mc_msfget` of `net/ipv4/igmp.c`).

ip decides which groups a socket is in (`skbusd.ip.igmp`) and tells its transport. udp, and ip for
its raw and ping sockets, ask `ip_mc_sf_allow` for each multicast datagram. RFC 3376 section 2 for
the filters, RFC 3678 for the options.
"""

import struct
from typing import Final, NamedTuple

from skbus.inet.headers.ipv4 import ipv4_is_multicast

IP_MULTICAST_IF: Final = 32
IP_MULTICAST_TTL: Final = 33
IP_MULTICAST_LOOP: Final = 34
IP_ADD_MEMBERSHIP: Final = 35
IP_DROP_MEMBERSHIP: Final = 36
IP_UNBLOCK_SOURCE: Final = 37
IP_BLOCK_SOURCE: Final = 38
IP_ADD_SOURCE_MEMBERSHIP: Final = 39
IP_DROP_SOURCE_MEMBERSHIP: Final = 40
IP_MSFILTER: Final = 41
MCAST_JOIN_GROUP: Final = 42
MCAST_BLOCK_SOURCE: Final = 43
MCAST_UNBLOCK_SOURCE: Final = 44
MCAST_LEAVE_GROUP: Final = 45
MCAST_JOIN_SOURCE_GROUP: Final = 46
MCAST_LEAVE_SOURCE_GROUP: Final = 47
MCAST_MSFILTER: Final = 48
IP_MULTICAST_ALL: Final = 49

MEMBERSHIP: Final = frozenset(range(IP_ADD_MEMBERSHIP, MCAST_MSFILTER + 1))
"""The options of level IP that change a socket's groups."""
MSFILTERS: Final = frozenset({IP_MSFILTER, MCAST_MSFILTER})
"""Those that getsockopt also takes."""

MCAST_EXCLUDE: Final = 0
MCAST_INCLUDE: Final = 1

INADDR_ANY: Final = b"\0\0\0\0"
_AF_INET: Final = 2
_MREQN: Final = struct.Struct("=4s4si")
_MREQ_SOURCE: Final = struct.Struct("=4s4s4s")
_MSFILTER: Final = struct.Struct("=4s4sII")
_STORAGE: Final = 128
"""sizeof(struct sockaddr_storage)"""
_GROUP_REQ: Final = 8 + _STORAGE
_GROUP_SOURCE_REQ: Final = 8 + 2 * _STORAGE
_GROUP_FILTER: Final = 8 + _STORAGE + 8


class IpMcSocklist(NamedTuple):
    """`struct ip_mc_socklist`: one group that a socket is in, on one device."""

    multiaddr: bytes
    ifindex: int
    address: bytes
    """The device's address, as the application named it; or 0.0.0.0."""
    sfmode: int
    sflist: tuple[bytes, ...]
    """Sources to take (MCAST_INCLUDE) or to refuse (MCAST_EXCLUDE)."""
    filtered: bool
    """The filter has had a source: its mode stays, even when none is left."""


McList = tuple[IpMcSocklist, ...]


class Mreq(NamedTuple):
    """The request of a membership option, whichever struct it came in."""

    multiaddr: bytes
    address: bytes
    ifindex: int
    source: bytes = b""
    fmode: int = 0
    slist: tuple[bytes, ...] = ()


class MreqError(ValueError):
    """A value that is too short, or of another family; `errno` is the argument."""


def ip_mc_sf_allow(
    mc_list: McList, mc_all: int, loc_addr: bytes, rmt_addr: bytes, dif: int
) -> bool:
    """May a socket see a packet from rmt_addr to loc_addr that came by device dif?

    Without IP_MULTICAST_ALL only from groups that it has joined itself.
    """
    if not ipv4_is_multicast(loc_addr):
        return True
    for pmc in mc_list:
        if pmc.multiaddr == loc_addr and pmc.ifindex == dif:
            return (rmt_addr in pmc.sflist) == (pmc.sfmode == MCAST_INCLUDE)
    return bool(mc_all)


def decode_mc_list(value: object) -> McList:
    """The list in an McRet, after its way through the codec; () for any other value."""
    out = []
    for item in value if isinstance(value, tuple) else ():
        match item:
            case (bytes(), int(), bytes(), int(), tuple(), bool()):
                out.append(IpMcSocklist._make(item))
    return tuple(out)


# ---- the structs -------------------------------------------------------------------------


def _sockaddr(value: bytes, at: int, einval: int) -> bytes:
    """The address of a `sockaddr_in` within a struct."""
    if int.from_bytes(value[at : at + 2], "little") != _AF_INET:
        raise MreqError(einval)
    return value[at + 4 : at + 8]


def parse_mreq(optname: int, value: bytes, einval: int, eaddrnotavail: int) -> Mreq:
    """The value of a membership option. MreqError(einval) where it is too short."""
    if optname in (IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP):
        if len(value) < 8:
            raise MreqError(einval)
        multiaddr, address, ifindex = _MREQN.unpack((value + bytes(4))[:12])
        return Mreq(multiaddr, address, ifindex if len(value) >= 12 else 0)
    if optname in (
        IP_ADD_SOURCE_MEMBERSHIP,
        IP_DROP_SOURCE_MEMBERSHIP,
        IP_BLOCK_SOURCE,
        IP_UNBLOCK_SOURCE,
    ):
        if len(value) != _MREQ_SOURCE.size:
            raise MreqError(einval)
        multiaddr, address, source = _MREQ_SOURCE.unpack(value)
        return Mreq(multiaddr, address, 0, source)
    if optname == IP_MSFILTER:
        return _parse_msfilter(value, einval)
    if optname == MCAST_MSFILTER:
        return _parse_group_filter(value, einval)
    ifindex = int.from_bytes(value[:4], "little")
    if optname in (MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP):
        if len(value) < _GROUP_REQ:
            raise MreqError(einval)
        return Mreq(_sockaddr(value, 8, einval), INADDR_ANY, ifindex)
    if len(value) != _GROUP_SOURCE_REQ:
        raise MreqError(einval)
    group = _sockaddr(value, 8, eaddrnotavail)
    return Mreq(group, INADDR_ANY, ifindex, _sockaddr(value, 8 + _STORAGE, eaddrnotavail))


def _parse_msfilter(value: bytes, einval: int) -> Mreq:
    if len(value) < _MSFILTER.size:
        raise MreqError(einval)
    multiaddr, address, fmode, n = _MSFILTER.unpack_from(value)
    if len(value) < _MSFILTER.size + 4 * n:
        raise MreqError(einval)
    slist = tuple(value[at : at + 4] for at in range(16, 16 + 4 * n, 4))
    return Mreq(multiaddr, address, 0, b"", fmode, slist)


def _parse_group_filter(value: bytes, einval: int) -> Mreq:
    if len(value) < _GROUP_FILTER:
        raise MreqError(einval)
    ifindex = int.from_bytes(value[:4], "little")
    fmode, n = struct.unpack_from("=II", value, 8 + _STORAGE)
    if len(value) < _GROUP_FILTER + _STORAGE * n:
        raise MreqError(einval)
    group = _sockaddr(value, 8, einval)
    slist = tuple(_sockaddr(value, _GROUP_FILTER + _STORAGE * i, einval) for i in range(n))
    return Mreq(group, INADDR_ANY, ifindex, b"", fmode, slist)


def _storage(addr: bytes) -> bytes:
    return struct.pack("=HH4s120x", _AF_INET, 0, addr)


def msfilter_get(mc_list: McList, optname: int, value: bytes, einval: int) -> bytes:
    """getsockopt of IP_MSFILTER or MCAST_MSFILTER: `value` names group and device, as the
    application laid them down. MreqError(errno) where the socket is not in that group.

    value may be empty, where the caller could not pass it on: then the first group is meant.
    """
    pmc = next(iter(mc_list), None)
    if len(value) >= 8:
        if optname == IP_MSFILTER:
            group, ifindex = value[:4], 0
        else:
            group, ifindex = _sockaddr(value, 8, einval), int.from_bytes(value[:4], "little")
        found = (
            p for p in mc_list if p.multiaddr == group and (not ifindex or p.ifindex == ifindex)
        )
        pmc = next(found, None)
    if pmc is None:
        raise MreqError(einval)
    n = len(pmc.sflist)
    if optname == IP_MSFILTER:
        return _MSFILTER.pack(pmc.multiaddr, pmc.address, pmc.sfmode, n) + b"".join(pmc.sflist)
    return _group_filter(pmc)


def _group_filter(pmc: IpMcSocklist) -> bytes:
    n = len(pmc.sflist)
    return b"".join(
        (
            struct.pack("=I4x", pmc.ifindex),
            _storage(pmc.multiaddr),
            struct.pack("=II", pmc.sfmode, n),
            *map(_storage, pmc.sflist),
        )
    )


def restore_options(mc_list: McList) -> list[tuple[int, bytes]]:
    """The options (name, value) that put a socket into its groups again, after a process forgot
    them."""
    out = []
    for pmc in mc_list:
        request = struct.pack("=I4x", pmc.ifindex) + _storage(pmc.multiaddr)
        out.append((MCAST_JOIN_GROUP, request))
        if pmc.sflist or pmc.sfmode != MCAST_EXCLUDE:
            out.append((MCAST_MSFILTER, _group_filter(pmc)))
    return out
