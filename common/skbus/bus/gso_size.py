# SPDX-License-Identifier: MIT
"""An interface's `gso_ipv4_max_size`, read and set by rtnetlink (Linux 6.3).

It bounds the super-segments of TCP over IPv4 that go to the interface: 65536 by default, more for
BIG TCP (`ip link set dev eth0 gso_ipv4_max_size 524280`).
"""

import struct
from typing import Final

from skbus.bus.rtnetlink import (
    IFINFOMSG,
    NLMSGHDR,
    RTATTR,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    ask,
    attribute,
    link,
)
from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE

# linux/if_link.h
_IFLA_GSO_IPV4_MAX_SIZE: Final = 63
_IFLA_GRO_IPV4_MAX_SIZE: Final = 64
_U32: Final = struct.Struct("=I")


def gso_ipv4_max_size(ifindex: int) -> int:
    """Bytes, or 65536 where the kernel does not say. OSError where there is no such interface."""
    answer = ask(RTM_GETLINK, link(ifindex), 0)
    kind = NLMSGHDR.unpack_from(answer)[1]
    at = NLMSGHDR.size + IFINFOMSG.size
    while kind == RTM_NEWLINK and at + RTATTR.size <= len(answer):
        size, found = RTATTR.unpack_from(answer, at)
        if found == _IFLA_GSO_IPV4_MAX_SIZE and at + 8 <= len(answer):
            value: int = _U32.unpack_from(answer, at + RTATTR.size)[0]
            return value
        at += max(size + 3 & ~3, RTATTR.size)
    return GSO_LEGACY_MAX_SIZE


def set_gso_ipv4_max_size(ifindex: int, size: int) -> None:
    """Set it, and GRO's limit. OSError where the kernel, or the device, does not take them."""
    limits = (_IFLA_GSO_IPV4_MAX_SIZE, _IFLA_GRO_IPV4_MAX_SIZE)
    attributes = b"".join(attribute(limit, size) for limit in limits)
    ask(RTM_SETLINK, link(ifindex) + attributes)
