# SPDX-License-Identifier: MIT
"""Timers: `timer_setup`, `mod_timer`, `del_timer` of Linux's `kernel/time/timer.c`.

The cost of arming, moving, cancelling and firing does not depend on how many timers are armed.
As in Linux's wheel, a far deadline is rounded up to a coarser grain (about 1 % of its distance).
So the armed timers share a bounded number of buckets; a heap orders the buckets, not the timers.
Moving a timer to a later time only writes the new deadline. The timer is put into its new bucket
when the old one comes up. This is the common case: TCP moves its retransmission timer on every ACK.

Times are ns. A timer never fires early, and late by at most its grain.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final, Generic, TypeVar

N = TypeVar("N")


_DEAD: Final = 1024
"""Disarmed timers that may stay in their buckets."""


class Timer(Generic[N]):
    """One timer: calls `function(net, *args)` once when its time has come."""

    __slots__ = ("_bucket", "args", "expires", "function")

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        self.function = function
        self.args = args
        self.expires = -1
        """Deadline in ns; -1 when the timer is not pending."""
        self._bucket = -1

    def pending(self) -> bool:
        """`timer_pending`"""
        return self.expires >= 0


class Timers(Generic[N]):
    """The timers of one process."""

    __slots__ = ("_buckets", "_dead", "_heap", "_most_dead")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Timer[N]]] = {}
        self._heap: list[int] = []
        self._dead = 0
        self._most_dead = _DEAD

    def mod_timer(self, timer: Timer[N], expires: int, now: int) -> None:
        """Arm `timer` for `expires`, or move it there. Both times in ns."""
        if expires <= now:
            expires = now + 1
        bucket = timer._bucket
        if timer.expires < 0 <= bucket:
            self._dead -= 1
        timer.expires = expires
        if bucket >= 0 and bucket <= expires:
            return
        distance = expires - now >> 27  # 134 ms
        if not distance:
            grain = 17  # 131 us
        elif distance < 16:
            grain = 21  # 2 ms
        elif distance < 512:
            grain = 26  # 67 ms
        else:
            grain = 30  # 1.07 s
        at = -((-expires) >> grain) << grain
        if bucket >= 0 and bucket <= at:
            return
        timer._bucket = at
        timers = self._buckets.get(at)
        if timers is None:
            self._buckets[at] = [timer]
            heappush(self._heap, at)
        else:
            timers.append(timer)

    def del_timer(self, timer: Timer[N]) -> bool:
        """Disarm; True if it was pending.

        It stays in its bucket, because TCP will mostly arm it again. When many lie there, all are
        removed: their time may be hours away (the limit of a system call that is over).
        """
        if timer.expires < 0:
            return False
        timer.expires = -1
        self._dead += 1
        if self._dead > self._most_dead:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Forget the timers that are disarmed."""
        kept = 0
        buckets: dict[int, list[Timer[N]]] = {}
        for at, timers in self._buckets.items():
            left = []
            for timer in timers:
                if timer._bucket != at:
                    continue
                if timer.expires >= 0:
                    left.append(timer)
                else:
                    timer._bucket = -1
            if left:
                buckets[at] = left
                kept += len(left)
        self._buckets = buckets
        self._heap[:] = buckets  # in place: `run` may be going through it
        heapify(self._heap)
        self._dead = 0
        self._most_dead = max(_DEAD, kept)

    def next_expiry(self) -> int | None:
        """When `run` must be called next, in ns; None where nothing is armed."""
        return self._heap[0] if self._heap else None

    def run(self, net: N, now: int) -> int:
        """Fire the timers that are due at `now`; returns how many fired."""
        fired = 0
        heap = self._heap
        while heap and heap[0] <= now:
            at = heappop(heap)
            for timer in self._buckets.pop(at):
                if timer._bucket != at:
                    continue  # moved to an earlier bucket meanwhile
                timer._bucket = -1
                if timer.expires < 0:
                    self._dead -= 1
                    continue
                if timer.expires > now:
                    self.mod_timer(timer, timer.expires, now)
                    continue
                timer.expires = -1
                fired += 1
                timer.function(net, *timer.args)
        return fired
