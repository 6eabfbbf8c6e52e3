# SPDX-License-Identifier: MIT
"""The impaired link between nic and wire (`net/sched/sch_netem.c`), one `Netem` a direction.

`dev_hard_start_xmit` puts outgoing frames in, and `napi_poll` incoming ones; what
`skbus.inet.impair.Impairment` lets through comes out at its time through `dequeue`. Frames here are
whole, linear and as long as on the wire; they own no pool slot, however long they wait.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from skbus.core.skbuff import SkBuff
from skbus.core.timer import Timer
from skbus.inet.impair import Impairment
from skbusd.nic.netdev import NicNet


class Netem:
    """One direction. deliver: takes each frame at its time, with whether it is undamaged."""

    __slots__ = ("_heap", "_order", "deliver", "impairment", "timer")

    def __init__(
        self, impairment: Impairment, deliver: Callable[[NicNet, SkBuff, bool], None]
    ) -> None:
        self.impairment = impairment
        self.deliver = deliver
        self.timer: Timer[NicNet] = Timer(self._dequeue)
        self._heap: list[tuple[int, int, SkBuff, bool]] = []
        self._order = 0

    def __len__(self) -> int:
        """Frames that wait."""
        return len(self._heap)

    def spares(self, segments: int) -> bool:
        """Does a super-segment of so many pass whole, as if there were no link? Most do where
        nothing but a little loss is asked for, and need not be cut to be told."""
        return not self._heap and self.impairment.spares(segments)

    def enqueue(self, net: NicNet, skb: SkBuff) -> None:
        """A frame meets the link. The skb is the link's then."""
        frame = skb.head
        out = self.impairment.admit(net.now, frame)
        if not out:
            net.kfree_skb(skb, "SKBUS_IMPAIRED")
            return
        for i, (when, passed) in enumerate(out):
            intact = passed is frame
            copy = skb if i == len(out) - 1 else net.skb_clone(skb)
            copy.head = passed
            if when <= net.now and not self._heap:
                self.deliver(net, copy, intact)
                continue
            self._order += 1
            heappush(self._heap, (when, self._order, copy, intact))
        if self._heap:
            self._rearm(net)

    def _dequeue(self, net: NicNet) -> None:
        """`netem_dequeue`: what is due goes on."""
        heap = self._heap
        while heap and heap[0][0] <= net.now:
            _, _, skb, intact = heappop(heap)
            self.deliver(net, skb, intact)
        self._rearm(net)

    def _rearm(self, net: NicNet) -> None:
        if self._heap:
            when = self._heap[0][0]
            if when <= net.now:
                self._dequeue(net)
            else:
                net.mod_timer(self.timer, when)
