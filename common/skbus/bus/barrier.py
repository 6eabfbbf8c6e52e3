# SPDX-License-Identifier: MIT
"""Barriers: a token passes through all processes, behind everything that was in the pipes.

    leg 0   socket -> transports -> ip -> nics       behind what applications sent
    leg 1   nics -> ip -> transports -> socket       behind what the devices had received
    leg 2   socket -> transports -> ip -> nics       behind the answers to these
    leg 3   nics -> ip -> transports -> socket       and the asker is told

In the kernel, a packet that was written to the device has been processed when the write returns.
Here the same holds after a barrier (docs/architecture.md, "Time and barriers"). Where a leg comes
from several neighbours of a process, the process waits for the token of each.
"""

from collections.abc import Callable
from typing import Final

from skbus.core.abi import Barrier
from skbus.core.interfaces import Neighbour
from skbus.core.net import Core

LEGS: Final = 4
_MAX_PENDING: Final = 256


class Barriers:
    """The barriers that pass through one process."""

    def __init__(self, core: Core, drain_device: Callable[[], None] | None = None) -> None:
        self._core = core
        self._drain_device = drain_device
        self._seen: dict[tuple[int, int], set[str]] = {}
        self._waiting: dict[int, Callable[[], None]] = {}
        self._next = 0

    def begin(self, done: Callable[[], None]) -> int:
        """Start a barrier at the top. Returns its token; calls `done` when that has come back."""
        self._next += 1
        token = self._core.net.epoch << 20 | self._next & 0xFFFFF
        self._waiting[token] = done
        self._send(Barrier(token, 0), down=True)
        return token

    def cancel(self, token: int) -> None:
        """Forget a barrier for which nobody waits any more."""
        self._waiting.pop(token, None)

    def received(self, sender: str, item: Barrier) -> None:
        """Take a token of a neighbour; pass it on when all neighbours on that side sent it."""
        above, below = self._core.barrier_edges()
        down = item.leg % 2 == 0
        if not 0 <= item.leg < LEGS:
            return
        key = (item.token, item.leg)
        seen = self._seen.setdefault(key, set())
        seen.add(sender)
        if not seen.issuperset(above if down else below):
            self._forget_old()
            return
        del self._seen[key]
        if down and below:
            self._send(item, down=True)
        elif down:
            if self._drain_device is not None:
                self._drain_device()
            self._send(Barrier(item.token, item.leg + 1), down=False)
        elif above:
            self._send(item, down=False)
        elif item.leg + 1 < LEGS:
            self._send(Barrier(item.token, item.leg + 1), down=True)
        else:
            done = self._waiting.pop(item.token, None)
            if done is not None:
                done()

    def _send(self, item: Barrier, *, down: bool) -> None:
        above, below = self._core.barrier_edges()
        for process in below if down else above:
            self._core.net.call(process, Neighbour.barrier, item)

    def _forget_old(self) -> None:
        """Forget old tokens: those that a dead neighbour will never send must not pile up."""
        while len(self._seen) > _MAX_PENDING:
            del self._seen[next(iter(self._seen))]
