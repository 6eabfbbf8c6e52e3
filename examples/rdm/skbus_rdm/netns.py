# SPDX-License-Identifier: MIT
"""The rdm process's state besides its sockets (`skbus.inet.dgram`): associations both ways."""

from collections import deque
from typing import Any

from skbus.core.abi import UdpSendmsgCb
from skbus.core.timer import Timer
from skbus.inet.dgram import DgramNet

Peer = tuple[int, bytes, int]
"""(our port, peer's address, peer's port)"""


class Out:
    """An association of ours: messages to one peer, the first of which is under way."""

    __slots__ = ("assoc", "key", "queue", "saddr", "seq", "timer", "tries")

    def __init__(self, key: Peer, assoc: int) -> None:
        self.key = key
        self.assoc = assoc
        self.seq = 0
        self.saddr = b""
        """b"" while ip has not told the route."""
        self.queue: deque[tuple[UdpSendmsgCb, bytes]] = deque()
        self.tries = 0
        self.timer: Timer[Any] | None = None


class RdmNet(DgramNet):
    """`struct net`, with rdm's fields."""

    def __init__(self, name: str = "rdm", **arguments: Any) -> None:
        names = ("InMsgs", "OutMsgs", "RetransMsgs", "InDups", "InErrors", "NoPorts", "TimedOut")
        super().__init__(name, counters=names, **arguments)
        self.out: dict[Peer, Out] = {}
        self.routes: dict[int, Peer] = {}
        """Question to ip -> the peer of the route."""
        self.heard: dict[Peer, tuple[int, int]] = {}
        """Associations of peers -> (association, the number that comes next)."""
