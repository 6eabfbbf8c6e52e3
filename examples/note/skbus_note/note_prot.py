# SPDX-License-Identifier: MIT
"""The part that runs in the socket process, as a module: `socket(AF_INET, SOCK_DGRAM, 254)` is a
note's, and the process "note" has its transport.
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
from skbusd.socket.uapi import SOCK_DGRAM, SOL_IP
from skbusd.socket.udp_sock import datagram_prot

IPPROTO_NOTE: Final = 254
NOTE_PROT: Final = datagram_prot("NOTE", "note", owner="note_prot", levels=frozenset({SOL_IP}))
NOTE_PROTOSW: Final = InetProtosw(SOCK_DGRAM, IPPROTO_NOTE, NOTE_PROT, INET_DGRAM_OPS, 0)


async def init_module(net: SocketNet, params: Mapping[str, str]) -> None:
    """Run by `insmod`."""
    inet_register_transport(net, NOTE_PROTOSW)


async def cleanup_module(net: SocketNet, data: object) -> None:
    """Run by `rmmod`, when no socket of ours is open any more."""
    inet_unregister_transport(net, NOTE_PROTOSW)
