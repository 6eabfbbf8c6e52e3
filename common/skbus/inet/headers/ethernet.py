# SPDX-License-Identifier: MIT
"""Ethernet II (`include/uapi/linux/if_ether.h`); used by nic, and by ip for `neigh` headers.

IEEE 802.3 3.2; RFC 894.
"""

import struct
from typing import Final, NamedTuple

from skbus.inet.headers import Buffer, HeaderError

ETH_ALEN: Final = 6
ETH_HLEN: Final = 14
ETH_ZLEN: Final = 60
"""Smallest frame without FCS: shorter ones are padded on the wire."""
ETH_DATA_LEN: Final = 1500
ETH_P_802_3_MIN: Final = 0x0600
"""Below this the field is a length (802.3), not a protocol."""

BROADCAST: Final = b"\xff\xff\xff\xff\xff\xff"

_ETH: Final = struct.Struct("!6s6sH")


class EthHdr(NamedTuple):
    """`struct ethhdr`"""

    h_dest: bytes
    h_source: bytes
    h_proto: int


def parse(buf: Buffer, offset: int = 0) -> EthHdr:
    """The Ethernet header at `offset`."""
    if offset < 0 or len(buf) < offset + ETH_HLEN:
        raise HeaderError(
            f"Ethernet header needs {ETH_HLEN} bytes, there are {len(buf) - offset}",
            "PKT_TOO_SMALL",
        )
    return EthHdr._make(_ETH.unpack_from(buf, offset))


def build(h_dest: bytes, h_source: bytes, h_proto: int) -> bytes:
    """An Ethernet header, 14 bytes."""
    return _ETH.pack(h_dest, h_source, h_proto)


def is_multicast_ether_addr(addr: Buffer) -> bool:
    """Is the group bit set? True for broadcast."""
    return bool(addr[0] & 1)
