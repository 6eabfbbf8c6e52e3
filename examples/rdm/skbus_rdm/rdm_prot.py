# SPDX-License-Identifier: MIT
"""The part of RDM that runs in the socket process: a module (`skbus insmod`). The socket layer also
loads it by itself where "net-pf-2-proto-253-type-4" is an alias or an entry point of it.

The module says that `socket(AF_INET, SOCK_RDM, 253)` is RDM, and that RDM is the process "rdm".
Applications use RDM and UDP sockets alike, so the functions that all datagram transports share
serve both.
"""

from collections.abc import Mapping
from typing import Final

from skbusd.socket.af_inet import (
    INET_DGRAM_OPS,
    inet_register_transport,
    inet_unregister_transport,
)
from skbusd.socket.netns import SocketNet
from skbusd.socket.protosw import InetProtosw
from skbusd.socket.uapi import SOCK_RDM
from skbusd.socket.udp_sock import datagram_prot

IPPROTO_RDM: Final = 253
RDM_PROT: Final = datagram_prot("RDM", "rdm", owner="rdm_prot")
RDM_PROTOSW: Final = InetProtosw(SOCK_RDM, IPPROTO_RDM, RDM_PROT, INET_DGRAM_OPS, 0)


async def init_module(net: SocketNet, params: Mapping[str, str]) -> None:
    """Run by `insmod`."""
    inet_register_transport(net, RDM_PROTOSW)


async def cleanup_module(net: SocketNet, data: object) -> None:
    """Run by `rmmod`, when no socket of ours is open any more."""
    inet_unregister_transport(net, RDM_PROTOSW)
