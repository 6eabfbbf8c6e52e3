# SPDX-License-Identifier: MIT
"""The switch from type and protocol of a socket to a transport (`net/protocol.h`, the part of
`net/ipv4/af_inet.c` that keeps `inetsw`).

`inet_create` looks into it; `inet_init` fills it, and so do plug-ins, at any time. In a type's list
the permanent entries come first, and nobody may override these. The others follow, the latest
first, so that a plug-in may take the place of an entry that is not permanent.
"""

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import Proto

if TYPE_CHECKING:
    from skbusd.socket.socket import ProtoOps

INET_PROTOSW_REUSE: Final = 0x01
INET_PROTOSW_PERMANENT: Final = 0x02
INET_PROTOSW_ICSK: Final = 0x04


@dataclass(frozen=True, slots=True, eq=False)
class InetProtosw:
    """`struct inet_protosw`: the protocol and operations of a type of socket."""

    type: int
    protocol: int
    prot: Proto[Any]
    ops: "ProtoOps"
    flags: int


def inet_register_protosw(net: SocketNet, p: InetProtosw) -> None:
    """`inet_register_protosw`: put an entry into the switch. EINVAL where there is no such type,
    EPERM where the protocol is permanent there.

    Differs from Linux: there it has no result, and only a line in the log.
    """
    if not 0 <= p.type < uapi.SOCK_MAX:
        net.warning("inet_register_protosw", type=p.type, error="invalid socket type")
        raise SysCallError(errno.EINVAL, f"no socket type {p.type}")
    entries = net.inetsw[p.type]
    for answer in entries:
        if answer.flags & INET_PROTOSW_PERMANENT and answer.protocol == p.protocol:
            net.warning("inet_register_protosw", protocol=p.protocol, error="it is permanent")
            raise SysCallError(errno.EPERM, f"protocol {p.protocol} is permanent")
    permanent = sum(1 for answer in entries if answer.flags & INET_PROTOSW_PERMANENT)
    entries.insert(permanent, p)


def inet_unregister_protosw(net: SocketNet, p: InetProtosw) -> None:
    """`inet_unregister_protosw`: no new sockets of that kind. EPERM where it is permanent."""
    if p.flags & INET_PROTOSW_PERMANENT:
        net.warning("inet_unregister_protosw", protocol=p.protocol, error="it is permanent")
        raise SysCallError(errno.EPERM, f"protocol {p.protocol} is permanent")
    inet_del_protosw(net, p)


def inet_del_protosw(net: SocketNet, p: InetProtosw) -> None:
    """Take any entry out of the switch, to unwind a start."""
    if p in net.inetsw[p.type]:
        net.inetsw[p.type].remove(p)


def inet_lookup_protosw(net: SocketNet, type: int, protocol: int) -> tuple[InetProtosw, int]:
    """The entry for a type and a protocol, and the protocol that it means.

    Protocol 0 is a wildcard, for the caller or in an entry, but not both. ESOCKTNOSUPPORT where the
    type has no entry at all, EPROTONOSUPPORT where none fits.
    """
    entries = net.inetsw[type]
    for answer in entries:
        if protocol == answer.protocol:
            if protocol != uapi.IPPROTO_IP:
                return answer, protocol
        elif protocol == uapi.IPPROTO_IP:
            return answer, answer.protocol
        elif answer.protocol == uapi.IPPROTO_IP:
            return answer, protocol
    raise SysCallError(errno.EPROTONOSUPPORT if entries else errno.ESOCKTNOSUPPORT)
