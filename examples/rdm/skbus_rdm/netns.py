# SPDX-License-Identifier: MIT
"""What the rdm process keeps: sockets, and associations both ways."""

from collections import deque
from typing import Any

from skbus.core.abi import UdpSendmsgCb
from skbus.core.net import Net
from skbus.core.timer import Timer

Peer = tuple[int, bytes, int]
"""(our port, peer's address, peer's port)"""


class RdmSock:
    """One socket."""

    __slots__ = ("addr", "daddr", "dport", "port", "rcvbuf", "rmem", "sk")

    def __init__(self, sk: int, rcvbuf: int) -> None:
        self.sk = sk
        self.addr = bytes(4)
        self.port = 0
        self.daddr = b""
        self.dport = 0
        self.rcvbuf = rcvbuf
        self.rmem = 0
        """What lies in its receive queue in the socket layer, bytes."""


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


class RdmNet(Net):
    """`struct net`, with what rdm adds to it."""

    def __init__(self, name: str = "rdm", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.socks: dict[int, RdmSock] = {}
        self.ports: dict[int, RdmSock] = {}
        self.out: dict[Peer, Out] = {}
        self.routes: dict[int, Peer] = {}
        """What ip was asked -> whose route."""
        self.next_req = 0
        self.heard: dict[Peer, tuple[int, int]] = {}
        """Associations of peers -> (association, the number that comes next)."""
        self.refused = 0
        """errno, where ip does not want us."""
        self.counters = dict.fromkeys(
            ("InMsgs", "OutMsgs", "RetransMsgs", "InDups", "InErrors", "NoPorts", "TimedOut"), 0
        )
