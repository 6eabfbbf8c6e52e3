# SPDX-License-Identifier: MIT
"""The header of RDM, 16 bytes in front of a message; IP protocol 253, "for experimentation and
testing" (RFC 3692).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |          source port          |       destination port        |
    |     type      |       0       |           checksum            |
    |                          association                          |
    |                        sequence number                        |

An association is a way from one port to another, named by its sender with a number of chance. Its
messages are numbered from 0, and one is under way at a time. The receiver answers a DATA with an
ACK of the same association and number, or with a RST if the port is unused. The checksum is UDP's,
over pseudo-header, header and message (RFC 1071).
"""

import struct
from typing import Final, NamedTuple

from skbus.core.checksum import csum_fold, csum_from32to16, csum_partial, csum_tcpudp_nofold

IPPROTO_RDM: Final = 253
DATA: Final = 1
ACK: Final = 2
RST: Final = 3

HLEN: Final = 16

_HDR: Final = struct.Struct("!HHBBHII")


class RdmHdr(NamedTuple):
    """One header."""

    source: int
    dest: int
    type: int
    zero: int
    check: int
    assoc: int
    seq: int


def parse(data: bytes | memoryview) -> RdmHdr:
    """The header at the beginning of at least HLEN bytes."""
    return RdmHdr._make(_HDR.unpack_from(data))


def checksum(saddr: bytes, daddr: bytes, segment: bytes) -> int:
    """The sum over a whole segment: 0xFFFF or 0 where its checksum is right."""
    return csum_from32to16(
        csum_tcpudp_nofold(saddr, daddr, len(segment), IPPROTO_RDM, csum_partial(segment))
    )


def build(saddr: bytes, daddr: bytes, hdr: RdmHdr, message: bytes = b"") -> bytes:
    """A segment, with its checksum."""
    segment = _HDR.pack(*hdr._replace(zero=0, check=0)) + message
    check = csum_fold(
        csum_tcpudp_nofold(saddr, daddr, len(segment), IPPROTO_RDM, csum_partial(segment))
    )
    return segment[:6] + check.to_bytes(2, "big") + segment[8:]


def good(saddr: bytes, daddr: bytes, segment: bytes) -> bool:
    """Is the checksum right?"""
    return checksum(saddr, daddr, segment) == 0xFFFF
