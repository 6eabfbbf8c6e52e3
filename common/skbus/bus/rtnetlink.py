# SPDX-License-Identifier: MIT
"""The few requests to rtnetlink (rtnetlink(7)) that a lab's cable takes.

pyroute2 has them all, but its import takes longer than a lab's whole cable. A request is one
message and its answer one more: there is no event loop in it.

Each function raises OSError as the kernel has it, of the namespace that the process is in.
"""

import os
import socket
import struct
from typing import Final

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
_RTM_NEWADDR: Final = 20
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_EXCL: Final = 0x200
_NLM_F_CREATE: Final = 0x400
_NEW: Final = _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_LINKINFO: Final = 18
_IFLA_NET_NS_FD: Final = 28
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFF_UP: Final = 1
NLMSGHDR: Final = struct.Struct("=IHHII")
IFINFOMSG: Final = struct.Struct("=BxHiII")
_IFADDRMSG: Final = struct.Struct("=BBBBI")
RTATTR: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")


def attribute(kind: int, value: int | bytes) -> bytes:
    """One `struct rtattr` and its value, a number of 32 bits or bytes."""
    data = _U32.pack(value) if isinstance(value, int) else value
    size = RTATTR.size + len(data)
    return RTATTR.pack(size, kind) + data + bytes(-size % 4)


def ask(kind: int, body: bytes, flags: int = _NLM_F_ACK) -> bytes:
    """Send one request; its answer."""
    header = NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as sock:
        sock.bind((0, 0))
        sock.send(header + body)
        answer = sock.recv(1 << 16)
    if NLMSGHDR.unpack_from(answer)[1] == _NLMSG_ERROR:
        error: int = struct.unpack_from("=i", answer, NLMSGHDR.size)[0]
        if error:
            raise OSError(-error, os.strerror(-error))
    return answer


def link(index: int = 0, flags: int = 0) -> bytes:
    """`struct ifinfomsg`; the flags are set, and no other changes."""
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def add_veth(name: str, other: str, namespace: int) -> None:
    """`ip link add NAME type veth peer name OTHER netns NAMESPACE`, a descriptor."""
    end = link() + _name(other) + attribute(_IFLA_NET_NS_FD, namespace)
    data = attribute(_VETH_INFO_PEER, end)
    info = attribute(_IFLA_INFO_KIND, b"veth") + attribute(_IFLA_INFO_DATA, data)
    ask(RTM_NEWLINK, link() + _name(name) + attribute(_IFLA_LINKINFO, info), _NEW)


def set_mtu(index: int, mtu: int) -> None:
    """`ip link set INTERFACE mtu MTU`"""
    ask(RTM_SETLINK, link(index) + attribute(_IFLA_MTU, mtu))


def set_up(index: int) -> None:
    """`ip link set INTERFACE up`"""
    ask(RTM_SETLINK, link(index, _IFF_UP))


def add_address(index: int, address: str, prefix: int) -> None:
    """`ip address add ADDRESS/PREFIX dev INTERFACE`, of IPv4"""
    packed = socket.inet_aton(address)
    body = _IFADDRMSG.pack(socket.AF_INET, prefix, 0, 0, index)
    ask(_RTM_NEWADDR, body + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed), _NEW)


def _name(name: str) -> bytes:
    return attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
