# SPDX-License-Identifier: MIT
"""ICMP header (`include/uapi/linux/icmp.h`), used by ip.

RFC 792; RFC 1191 section 4 for the next-hop MTU; RFC 1122 3.2.2; RFC 1812 for the newer codes.
"""

import struct
from typing import Final, NamedTuple

from skbus.core.checksum import csum_fold, csum_partial
from skbus.inet.headers import Buffer, HeaderError

ICMP_HLEN: Final = 8

ICMP_ECHOREPLY: Final = 0
ICMP_DEST_UNREACH: Final = 3
ICMP_SOURCE_QUENCH: Final = 4
ICMP_REDIRECT: Final = 5
ICMP_ECHO: Final = 8
ICMP_TIME_EXCEEDED: Final = 11
ICMP_PARAMETERPROB: Final = 12
ICMP_TIMESTAMP: Final = 13
ICMP_TIMESTAMPREPLY: Final = 14
ICMP_INFO_REQUEST: Final = 15
ICMP_INFO_REPLY: Final = 16
ICMP_ADDRESS: Final = 17
ICMP_ADDRESSREPLY: Final = 18
NR_ICMP_TYPES: Final = 18

# codes of ICMP_DEST_UNREACH
ICMP_NET_UNREACH: Final = 0
ICMP_HOST_UNREACH: Final = 1
ICMP_PROT_UNREACH: Final = 2
ICMP_PORT_UNREACH: Final = 3
ICMP_FRAG_NEEDED: Final = 4
ICMP_SR_FAILED: Final = 5
ICMP_NET_UNKNOWN: Final = 6
ICMP_HOST_UNKNOWN: Final = 7
ICMP_HOST_ISOLATED: Final = 8
ICMP_NET_ANO: Final = 9
ICMP_HOST_ANO: Final = 10
ICMP_NET_UNR_TOS: Final = 11
ICMP_HOST_UNR_TOS: Final = 12
ICMP_PKT_FILTERED: Final = 13
ICMP_PREC_VIOLATION: Final = 14
ICMP_PREC_CUTOFF: Final = 15
NR_ICMP_UNREACH: Final = 15

# codes of ICMP_REDIRECT
ICMP_REDIR_NET: Final = 0
ICMP_REDIR_HOST: Final = 1
ICMP_REDIR_NETTOS: Final = 2
ICMP_REDIR_HOSTTOS: Final = 3

# codes of ICMP_TIME_EXCEEDED
ICMP_EXC_TTL: Final = 0
ICMP_EXC_FRAGTIME: Final = 1

ERROR_TYPES: Final = frozenset(
    {
        ICMP_DEST_UNREACH,
        ICMP_SOURCE_QUENCH,
        ICMP_REDIRECT,
        ICMP_TIME_EXCEEDED,
        ICMP_PARAMETERPROB,
    }
)
"""The types that report an error and quote a packet; never answered by an error (RFC 1122)."""

_ICMP: Final = struct.Struct("!BBHI")


class IcmpHdr(NamedTuple):
    """`struct icmphdr`; `rest` is its union: see the properties."""

    type: int
    code: int
    checksum: int
    rest: int

    @property
    def id(self) -> int:
        """Echo, timestamp, address mask: the identifier."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Echo, timestamp, address mask: the sequence number."""
        return self.rest & 0xFFFF

    @property
    def mtu(self) -> int:
        """ICMP_FRAG_NEEDED: the next hop's MTU, 0 from a router older than RFC 1191."""
        return self.rest & 0xFFFF

    @property
    def gateway(self) -> bytes:
        """ICMP_REDIRECT: the better gateway's address."""
        return self.rest.to_bytes(4, "big")

    @property
    def pointer(self) -> int:
        """ICMP_PARAMETERPROB: the byte at fault."""
        return self.rest >> 24


def parse(buf: Buffer, offset: int = 0) -> IcmpHdr:
    """The ICMP header at `offset`; the checksum is not verified here."""
    if offset < 0 or len(buf) < offset + ICMP_HLEN:
        raise HeaderError(
            f"ICMP header needs {ICMP_HLEN} bytes, there are {len(buf) - offset}", "PKT_TOO_SMALL"
        )
    return IcmpHdr._make(_ICMP.unpack_from(buf, offset))


def build(type: int, code: int, rest: int = 0, checksum: int = 0) -> bytes:
    """An ICMP header, 8 bytes, with the checksum as given."""
    return _ICMP.pack(type, code, checksum, rest)


def build_message(type: int, code: int, rest: int, payload: Buffer) -> bytes:
    """A whole ICMP message with its checksum filled in."""
    check = csum_fold(csum_partial(payload, csum_partial(_ICMP.pack(type, code, 0, rest))))
    return _ICMP.pack(type, code, check, rest) + bytes(payload)
