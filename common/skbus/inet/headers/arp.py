# SPDX-License-Identifier: MIT
"""ARP for Ethernet and IPv4 (`include/uapi/linux/if_arp.h`), used by ip's neighbour code.

RFC 826; RFC 5227 for probes and announcements.
"""

import struct
from typing import Final, NamedTuple

from skbus.inet.headers import Buffer, HeaderError

ARPHRD_ETHER: Final = 1
ARPHRD_IEEE802: Final = 6
ARPOP_REQUEST: Final = 1
ARPOP_REPLY: Final = 2
ARP_LEN: Final = 28
"""`arp_hdr_len` for Ethernet and IPv4."""

_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")


class ArpHdr(NamedTuple):
    """`struct arphdr` with its four addresses."""

    ar_hrd: int
    ar_pro: int
    ar_hln: int
    ar_pln: int
    ar_op: int
    ar_sha: bytes
    ar_sip: bytes
    ar_tha: bytes
    ar_tip: bytes


def parse(buf: Buffer, offset: int = 0) -> ArpHdr:
    """The ARP packet at `offset`; HeaderError unless it is for Ethernet and IPv4.

    As Linux, hardware type IEEE 802 passes for Ethernet (RFC 1042).
    """
    if offset < 0 or len(buf) < offset + ARP_LEN:
        raise HeaderError(
            f"ARP packet needs {ARP_LEN} bytes, there are {len(buf) - offset}", "PKT_TOO_SMALL"
        )
    hdr = ArpHdr._make(_ARP.unpack_from(buf, offset))
    if hdr.ar_hrd not in (ARPHRD_ETHER, ARPHRD_IEEE802) or hdr.ar_hln != 6:
        raise HeaderError(
            f"ARP hardware type {hdr.ar_hrd}, address length {hdr.ar_hln}: not Ethernet",
            "NOT_SPECIFIED",
        )
    if hdr.ar_pro != 0x0800 or hdr.ar_pln != 4:
        raise HeaderError(
            f"ARP protocol {hdr.ar_pro:#06x}, address length {hdr.ar_pln}: not IPv4",
            "NOT_SPECIFIED",
        )
    return hdr


def build(ar_op: int, ar_sha: bytes, ar_sip: bytes, ar_tha: bytes, ar_tip: bytes) -> bytes:
    """An ARP packet for Ethernet and IPv4, 28 bytes."""
    return _ARP.pack(ARPHRD_ETHER, 0x0800, 6, 4, ar_op, ar_sha, ar_sip, ar_tha, ar_tip)
