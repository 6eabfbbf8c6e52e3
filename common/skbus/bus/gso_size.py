# SPDX-License-Identifier: MIT
"""An interface's `gso_ipv4_max_size`, read and set by rtnetlink (Linux 6.3).

It bounds the super-segments of TCP over IPv4 that go to the interface: 65536 by default, more for
BIG TCP (`ip link set dev eth0 gso_ipv4_max_size 524280`). pyroute2 does not know the attributes
yet, hence the bytes.
"""

import os
import socket
import struct
from typing import Final

from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE

# linux/rtnetlink.h, linux/if_link.h
_RTM_SETLINK: Final = 19
_RTM_GETLINK: Final = 18
_RTM_NEWLINK: Final = 16
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_IFLA_GSO_IPV4_MAX_SIZE: Final = 63
_IFLA_GRO_IPV4_MAX_SIZE: Final = 64
_NLMSGHDR: Final = struct.Struct("=IHHII")
_IFINFOMSG: Final = struct.Struct("=BxHiII")
_RTATTR: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")


def gso_ipv4_max_size(ifindex: int) -> int:
    """Bytes, or 65536 where the kernel does not say. OSError where there is no such interface."""
    answer = _ask(_RTM_GETLINK, 0, ifindex, b"")
    kind = _NLMSGHDR.unpack_from(answer)[1]
    at = _NLMSGHDR.size + _IFINFOMSG.size
    while kind == _RTM_NEWLINK and at + _RTATTR.size <= len(answer):
        size, attribute = _RTATTR.unpack_from(answer, at)
        if attribute == _IFLA_GSO_IPV4_MAX_SIZE and at + 8 <= len(answer):
            value: int = _U32.unpack_from(answer, at + _RTATTR.size)[0]
            return value
        at += max(size + 3 & ~3, _RTATTR.size)
    return GSO_LEGACY_MAX_SIZE


def set_gso_ipv4_max_size(ifindex: int, size: int) -> None:
    """Set it, and GRO's limit. OSError where the kernel, or the device, does not take them."""
    attributes = b"".join(
        [
            _RTATTR.pack(8, attribute) + _U32.pack(size)
            for attribute in (_IFLA_GSO_IPV4_MAX_SIZE, _IFLA_GRO_IPV4_MAX_SIZE)
        ]
    )
    _ask(_RTM_SETLINK, _NLM_F_ACK, ifindex, attributes)


def _ask(kind: int, flags: int, ifindex: int, attributes: bytes) -> bytes:
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + attributes
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as sock:
        sock.bind((0, 0))
        sock.send(header + body)
        answer = sock.recv(1 << 16)
    if _NLMSGHDR.unpack_from(answer)[1] == _NLMSG_ERROR:
        error: int = struct.unpack_from("=i", answer, _NLMSGHDR.size)[0]
        if error:
            raise OSError(-error, os.strerror(-error))
    return answer
