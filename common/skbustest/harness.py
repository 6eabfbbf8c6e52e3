# SPDX-License-Identifier: MIT
"""Harness: one core alone, driven as its shell drives it, its outbox looked at.

For tests of a layer: hand in entries and skbs, let time pass, see what came out. After every
call the conservation of skbs is checked.
"""

from typing import Any, overload

from skbus.core.entry import AnyEntry, Entry, SkbEntry, T
from skbus.core.net import SEC, Core
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import SkBuff


def small_pool(number: int = 7) -> tuple[Pool, Allocator]:
    """A pool with one region of 4 MB, in plain memory."""
    pool = Pool()
    alloc = Allocator.format(number, bytearray(1 << 22), [(2048, 512), (66560, 32)])
    pool.regions[number] = alloc
    return pool, alloc


class Harness:
    """Drives `core`; its clock stands until `run_for`."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.net = core.net
        self.net.now = 1000 * SEC
        core.start()

    def call(self, entry: Entry[T], item: T) -> None:
        """A call without payload comes in."""
        self.deliver(entry, item)

    def rcv(self, entry: SkbEntry[Any], skb: SkBuff) -> None:
        """An skb comes in."""
        self.net.skb_received += 1
        self.deliver(entry, skb)

    def deliver(self, entry: AnyEntry, item: Any) -> None:
        """A call comes in whose type the test does not know."""
        self.core.entries[entry](self.net, item)
        self.core.idle()
        self.check()

    def check(self) -> None:
        """Conservation: AssertionError where an skb is neither here nor there."""
        net = self.net
        got = net.skb_born + net.skb_received
        gone = net.skb_sent + net.skb_consumed + net.skb_dropped
        held = self.core.held()
        if got != gone + held:
            raise AssertionError(f"{got} skbs in, {gone} out, {held} held: {net.drops}")

    def run_for(self, seconds: float) -> None:
        """Let time pass, firing timers on the way."""
        end = self.net.now + round(seconds * SEC)
        while True:
            due = self.net.timers.next_expiry()
            if due is None or due > end:
                break
            self.net.now = max(self.net.now, due)
            self.net.timers.run(self.net, self.net.now)
            self.core.idle()
            self.check()
        self.net.now = end

    @overload
    def out(self, process: str) -> list[tuple[AnyEntry, Any]]: ...

    @overload
    def out(self, process: str, entry: Entry[T]) -> list[T]: ...

    @overload
    def out(self, process: str, entry: SkbEntry[Any]) -> list[Any]: ...

    def out(self, process: str, entry: AnyEntry | None = None) -> list[Any]:
        """What was called in another process since the last look: the items of one entry, or
        (entry, item) of all."""
        box = self.net.outbox.pop(process, [])
        if entry is None:
            return box
        rest = [(e, item) for e, item in box if e is not entry]
        if rest:
            self.net.outbox[process] = rest
        return [item for e, item in box if e is entry]

    def dropped(self, reason: str) -> int:
        """How many skbs were dropped for a reason, without its prefix."""
        return self.net.drops.get("SKB_DROP_REASON_" + reason, 0)
