# SPDX-License-Identifier: MIT
"""UDP header (`include/uapi/linux/udp.h`), used by udp, and by ip for quoted packets.

RFC 768; RFC 3828 for UDP-Lite, whose `len` is the checksum coverage.
"""

import struct
from typing import Final, NamedTuple

from skbus.inet.headers import Buffer, HeaderError

UDP_HLEN: Final = 8
CSUM_OFFSET: Final = 6
"""Where the checksum lies in the header: `skb.csum_offset`."""
CSUM_MANGLED_0: Final = 0xFFFF
"""Sent for a computed checksum of 0, as 0 means none (RFC 768)."""

_UDP: Final = struct.Struct("!HHHH")


class UdpHdr(NamedTuple):
    """`struct udphdr`"""

    source: int
    dest: int
    len: int
    check: int


def parse(buf: Buffer, offset: int = 0) -> UdpHdr:
    """The UDP header at `offset`. The caller checks whether `len` fits, as it knows the packet's
    length and whether the packet is UDP-Lite."""
    if offset < 0 or len(buf) < offset + UDP_HLEN:
        raise HeaderError(
            f"UDP header needs {UDP_HLEN} bytes, there are {len(buf) - offset}", "PKT_TOO_SMALL"
        )
    return UdpHdr._make(_UDP.unpack_from(buf, offset))


def build(source: int, dest: int, len: int, check: int = 0) -> bytes:
    """A UDP header, 8 bytes."""
    return _UDP.pack(source, dest, len, check)
