# SPDX-License-Identifier: MIT
"""IGMP versions 1 to 3 (`include/uapi/linux/igmp.h`), used by ip.

RFC 1112 appendix I, RFC 2236, RFC 3376 section 4.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from skbus.core.checksum import csum_fold, csum_partial
from skbus.inet.headers import Buffer, HeaderError

IGMP_HOST_MEMBERSHIP_QUERY: Final = 0x11
IGMP_HOST_MEMBERSHIP_REPORT: Final = 0x12
IGMPV2_HOST_MEMBERSHIP_REPORT: Final = 0x16
IGMP_HOST_LEAVE_MESSAGE: Final = 0x17
IGMPV3_HOST_MEMBERSHIP_REPORT: Final = 0x22

IGMPV3_MODE_IS_INCLUDE: Final = 1
IGMPV3_MODE_IS_EXCLUDE: Final = 2
IGMPV3_CHANGE_TO_INCLUDE: Final = 3
IGMPV3_CHANGE_TO_EXCLUDE: Final = 4
IGMPV3_ALLOW_NEW_SOURCES: Final = 5
IGMPV3_BLOCK_OLD_SOURCES: Final = 6

IGMP_ALL_HOSTS: Final = b"\xe0\x00\x00\x01"
IGMP_ALL_ROUTER: Final = b"\xe0\x00\x00\x02"
IGMPV3_ALL_MCR: Final = b"\xe0\x00\x00\x16"

IGMP_HLEN: Final = 8
_IGMP: Final = struct.Struct("!BBH4s")
_QUERY3: Final = struct.Struct("!BBH4sBBH")
_REPORT3: Final = struct.Struct("!BBHHH")
_GREC: Final = struct.Struct("!BBH4s")


class IgmpHdr(NamedTuple):
    """`struct igmphdr`: v1 and v2 messages, and the first eight bytes of all others."""

    type: int
    code: int
    csum: int
    group: bytes


class Igmpv3Query(NamedTuple):
    """`struct igmpv3_query`. code and qqic are coded as `igmpv3_decode` reads them."""

    code: int
    csum: int
    group: bytes
    suppress: bool
    qrv: int
    qqic: int
    srcs: tuple[bytes, ...]


class Igmpv3Grec(NamedTuple):
    """`struct igmpv3_grec`: one group record of a report."""

    grec_type: int
    grec_mca: bytes
    grec_src: tuple[bytes, ...]


def _need(buf: Buffer, offset: int, size: int, what: str) -> None:
    if offset < 0 or len(buf) < offset + size:
        raise HeaderError(
            f"{what} needs {size} bytes, there are {len(buf) - offset}", "PKT_TOO_SMALL"
        )


def parse(buf: Buffer, offset: int = 0) -> IgmpHdr:
    """The first eight bytes of any IGMP message."""
    _need(buf, offset, IGMP_HLEN, "IGMP header")
    return IgmpHdr._make(_IGMP.unpack_from(buf, offset))


def build(type: int, code: int, group: bytes) -> bytes:
    """A v1 or v2 message with its checksum: query, report or leave."""
    check = csum_fold(csum_partial(_IGMP.pack(type, code, 0, group)))
    return _IGMP.pack(type, code, check, group)


def _addresses(buf: Buffer, at: int, n: int) -> tuple[bytes, ...]:
    return tuple([bytes(buf[i : i + 4]) for i in range(at, at + 4 * n, 4)])


def parse_v3_query(buf: Buffer, offset: int = 0) -> Igmpv3Query:
    """A query of 12 bytes or more (shorter ones are v1 or v2: `parse`)."""
    _need(buf, offset, _QUERY3.size, "IGMPv3 query")
    _, code, csum, group, misc, qqic, nsrcs = _QUERY3.unpack_from(buf, offset)
    _need(buf, offset, _QUERY3.size + 4 * nsrcs, f"IGMPv3 query of {nsrcs} sources")
    return Igmpv3Query(
        code,
        csum,
        group,
        bool(misc & 8),
        misc & 7,
        qqic,
        _addresses(buf, offset + _QUERY3.size, nsrcs),
    )


def build_v3_query(
    code: int,
    group: bytes,
    srcs: tuple[bytes, ...] = (),
    *,
    suppress: bool = False,
    qrv: int = 2,
    qqic: int = 125,
) -> bytes:
    """A v3 query with its checksum."""
    misc = (8 if suppress else 0) | (qrv & 7)
    tail = b"".join(srcs)
    first = _QUERY3.pack(IGMP_HOST_MEMBERSHIP_QUERY, code, 0, group, misc, qqic, len(srcs))
    check = csum_fold(csum_partial(first + tail))
    return (
        _QUERY3.pack(IGMP_HOST_MEMBERSHIP_QUERY, code, check, group, misc, qqic, len(srcs)) + tail
    )


def parse_v3_report(buf: Buffer, offset: int = 0) -> tuple[Igmpv3Grec, ...]:
    """The group records of a v3 report."""
    _need(buf, offset, _REPORT3.size, "IGMPv3 report")
    ngrec = _REPORT3.unpack_from(buf, offset)[4]
    at = offset + _REPORT3.size
    out = []
    for _ in range(ngrec):
        _need(buf, at, _GREC.size, "IGMPv3 group record")
        grec_type, auxwords, nsrcs, mca = _GREC.unpack_from(buf, at)
        size = _GREC.size + 4 * nsrcs + 4 * auxwords
        _need(buf, at, size, f"IGMPv3 group record of {nsrcs} sources")
        out.append(Igmpv3Grec(grec_type, mca, _addresses(buf, at + _GREC.size, nsrcs)))
        at += size
    return tuple(out)


def build_v3_report(records: Iterable[Igmpv3Grec]) -> bytes:
    """A v3 report with its checksum."""
    records = list(records)
    body = b"".join(
        [
            _GREC.pack(r.grec_type, 0, len(r.grec_src), r.grec_mca) + b"".join(r.grec_src)
            for r in records
        ]
    )
    first = _REPORT3.pack(IGMPV3_HOST_MEMBERSHIP_REPORT, 0, 0, 0, len(records))
    check = csum_fold(csum_partial(first + body))
    return _REPORT3.pack(IGMPV3_HOST_MEMBERSHIP_REPORT, 0, check, 0, len(records)) + body


def igmpv3_decode(value: int) -> int:
    """RFC 3376 4.1.1, 4.1.7: a code above 127 is a floating-point number."""
    if value < 128:
        return value
    return ((value & 0xF) | 0x10) << (((value >> 4) & 7) + 3)
