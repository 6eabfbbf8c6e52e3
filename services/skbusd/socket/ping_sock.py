# SPDX-License-Identifier: MIT
"""Ping sockets as the socket layer sees them: `ping_prot` (`net/ipv4/ping.c`, the part that runs
on behalf of an application).

Called by af_inet.py and core.py as raw sockets are; speaks to the process "ip".
`net.ipv4.ping_group_range` says which groups may have one. icmp(7).
"""

import errno
from dataclasses import replace
from typing import Final

from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.netns import SocketNet
from skbusd.socket.proto import proto_init
from skbusd.socket.raw_sock import RAW_PROT
from skbusd.socket.sock import UdpSock


def ping_init_sock(net: SocketNet, sk: UdpSock) -> None:
    """`ping_init_sock`: EACCES where none of the process's groups is in the range."""
    low, high = net.sysctl["net.ipv4.ping_group_range"]
    if net.current is not None:
        cred = net.current.cred
        if not any(low <= group <= high for group in (cred.gid, *cred.groups)):
            raise SysCallError(errno.EACCES)
    proto_init(net, sk)


PING_PROT: Final = replace(
    RAW_PROT,
    name="PING",
    init=ping_init_sock,
    levels=frozenset({uapi.SOL_IP}),
)
