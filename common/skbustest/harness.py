# SPDX-License-Identifier: MIT
"""Harness: one core alone, driven as its shell drives it, its outbox looked at.

For tests of a layer: hand in entries and skbs, let time pass, see what came out. After every
call the conservation of skbs is checked.
"""

from typing import Any

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

    def call(self, entry: str, item: object) -> None:
        """A call without payload comes in."""
        self.core.entries[entry](self.net, item)
        self.core.idle()
        self.check()

    def rcv(self, entry: str, skb: SkBuff) -> None:
        """An skb comes in."""
        self.net.skb_received += 1
        self.call(entry, skb)

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

    def out(self, process: str, entry: str = "") -> list[Any]:
        """What was called in another process since the last look: the items of one entry, or
        (entry, item) of all."""
        box = self.net.outbox.pop(process, [])
        if not entry:
            return box
        rest = [(e, item) for e, item in box if e != entry]
        if rest:
            self.net.outbox[process] = rest
        return [item for e, item in box if e == entry]

    def dropped(self, reason: str) -> int:
        """How many skbs were dropped for a reason, without its prefix."""
        return self.net.drops.get("SKB_DROP_REASON_" + reason, 0)
