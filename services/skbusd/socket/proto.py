# SPDX-License-Identifier: MIT
"""struct proto: what a transport offers to the socket layer (`include/net/sock.h`).

`inet_*` (af_inet.py) calls `sk.sk_prot.connect(...)` and so on, without knowing the protocol; the
functions are in tcp_sock.py and udp_sock.py, and speak to the transport's process. What the
transport reports comes in by core.py, to `data_ready` and its like.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from skbus.core.abi import DataReadyCb, SkErrorReport, SkStateChange, SkWriteSpace
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SysCallError
from skbusd.socket.call import Call, RecvCall, SendCall
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import InetSock

PROTO_INUSE_NR: Final = 64
"""Protocols there is room for (include/net/sock.h)."""

Result = Callable[[SocketNet, int, Any], None]
"""Told the outcome: (net, errno, value)."""


@dataclass(frozen=True, slots=True, eq=False)
class Proto:
    """`struct proto`. process: where the transport runs. obj: the struct to be allocated."""

    name: str
    process: str
    obj: Callable[..., InetSock]
    init: Callable[[SocketNet, InetSock], None]
    close: Callable[[SocketNet, InetSock, Call | None], None]
    """Ends the call, if there is one, when the lingering is over."""
    get_port: Callable[[SocketNet, InetSock, bytes, int, Result], None]
    connect: Callable[[SocketNet, InetSock, bytes, int, Result], None]
    disconnect: Callable[[SocketNet, InetSock, Result | None], None]
    sendmsg: Callable[[SocketNet, SendCall, InetSock], None]
    recvmsg: Callable[[SocketNet, RecvCall, InetSock], None]
    shutdown: Callable[[SocketNet, InetSock, int], None]
    setsockopt: Callable[[SocketNet, Call, InetSock, int, int, bytes], None]
    getsockopt: Callable[[SocketNet, Call, InetSock, int, int, int], None]
    poll: Callable[[SocketNet, InetSock], int]
    data_ready: Callable[[SocketNet, InetSock, SkBuff, DataReadyCb], None]
    error_report: Callable[[SocketNet, InetSock, SkErrorReport], None]
    state_change: Callable[[SocketNet, InetSock, SkStateChange], None]
    write_space: Callable[[SocketNet, InetSock, SkWriteSpace], None]
    restart: Callable[[SocketNet, InetSock], None]
    """The transport's process has been restarted, and knows nothing of this sock."""
    levels: frozenset[int] = frozenset()
    """Whose options the transport has, where `udp_setsockopt` is used."""
    bind: Callable[[SocketNet, InetSock, bytes, int, Result], None] | None = None
    """bind(2), where it is not just to get a port."""
    ioctl: Callable[[SocketNet, InetSock, int], int] | None = None
    """SIOCATMARK and its like, where `inet_ioctl` does not do."""
    owner: str = ""
    """The module that it belongs to (THIS_MODULE)"""


def proto_register(net: SocketNet, prot: Proto) -> None:
    """`proto_register`: sockets of that protocol may be made. EEXIST where the name is taken,
    ENOSPC where PROTO_INUSE_NR are registered.

    Differs from Linux: there a name that is taken goes unnoticed, or fails as a slab of that
    name does.
    """
    if prot.name in net.proto_list:
        raise SysCallError(errno.EEXIST, f"protocol {prot.name} is registered already")
    if len(net.proto_list) >= PROTO_INUSE_NR:
        raise SysCallError(errno.ENOSPC, f"{PROTO_INUSE_NR} protocols are registered")
    net.proto_list[prot.name] = prot


def proto_unregister(net: SocketNet, prot: Proto) -> None:
    """`proto_unregister`: it is no protocol any more."""
    if net.proto_list.get(prot.name) is prot:
        del net.proto_list[prot.name]
