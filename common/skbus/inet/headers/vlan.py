# SPDX-License-Identifier: MIT
"""IEEE 802.1Q tag (`include/linux/if_vlan.h`): the four bytes behind EtherType 0x8100.

Used by nic, which takes the tag out of a frame into `skb.vlan_tci` and puts it back.
"""

import struct
from typing import Final, NamedTuple

from skbus.inet.headers import Buffer, HeaderError

VLAN_HLEN: Final = 4
VLAN_VID_MASK: Final = 0x0FFF
VLAN_PRIO_SHIFT: Final = 13
VLAN_CFI_MASK: Final = 0x1000
ETH_P_8021AD: Final = 0x88A8

_VLAN: Final = struct.Struct("!HH")


class VlanHdr(NamedTuple):
    """`struct vlan_hdr`"""

    h_vlan_TCI: int
    h_vlan_encapsulated_proto: int


def parse(buf: Buffer, offset: int = 0) -> VlanHdr:
    """The tag at `offset`, which is just behind the EtherType 0x8100."""
    if offset < 0 or len(buf) < offset + VLAN_HLEN:
        raise HeaderError(
            f"802.1Q tag needs {VLAN_HLEN} bytes, there are {len(buf) - offset}", "PKT_TOO_SMALL"
        )
    return VlanHdr._make(_VLAN.unpack_from(buf, offset))


def build(h_vlan_TCI: int, h_vlan_encapsulated_proto: int) -> bytes:
    """A tag: the 4 bytes behind EtherType 0x8100."""
    return _VLAN.pack(h_vlan_TCI, h_vlan_encapsulated_proto)
