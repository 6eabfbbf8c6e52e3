# SPDX-License-Identifier: MIT
"""Which processors the layers run on: `placement` of the configuration (`skbus.stack.config`).

When there is little to do, waking a process on another processor is most of what a crossing costs.
A packet's way is a dozen crossings, one after the other. So all layers are then best on one
processor. When there is much to do, they are best on all. `one` and `spread` say so for good;
`auto`, the default, looks ten times a second:

- on one processor: have layers waited for each other there? Then they could have run at the same
  time, and are spread.
- spread: would one processor do? Then they are put on one, if that has lasted; longer each time
  that it turned out to be wrong.

A process's `affinity` goes before all this.
"""

import os
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

Mode = Literal["auto", "one", "spread"]

TICK: Final = 0.1
"""Seconds between two looks while there is something to do."""
IDLE_TICK: Final = 1.0
_WAITED: Final = 0.3
"""Processors' worth of waiting for a processor, from which on the layers are spread."""
_ENOUGH: Final = 0.85
"""Processors' worth of work that one processor can be expected to do."""
_CALM: Final = 1.0
_CALM_MAX: Final = 60.0
"""Seconds that it must have been so little: at first, and at most."""
_WRONG: Final = 3.0
"""Seconds within which it shows that it was wrong to bring them together."""
_IDLE: Final = 0.02


class Usage(NamedTuple):
    """What a process's main thread has got so far, in s."""

    ran: float
    waited: float


def read_usage(pid: int) -> Usage | None:
    """From /proc/PID/schedstat; None where the process or the file is not there."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as f:
            ran, waited, *_ = f.read().split()
    except (OSError, ValueError):
        return None
    return Usage(int(ran) / 1e9, int(waited) / 1e9)


def set_processors(pid: int, cpus: Iterable[int]) -> None:
    """`sched_setaffinity` for all threads of a process, as far as they are still there."""
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for tid in tids:
        try:
            os.sched_setaffinity(int(tid), cpus)
        except OSError:
            pass  # it has ended, or its processors are somebody else's business


class Placement:
    """Keeps the layers of one stack where they are best.

    allowed: the processors there are for the stack.
    """

    def __init__(self, mode: Mode, allowed: Iterable[int]) -> None:
        self.allowed = sorted(allowed)
        # the last: devices' interrupts are often the first one's
        self.one = self.allowed[-1]
        self.mode = mode if len(self.allowed) > 1 else "spread"
        self.spread = self.mode == "spread"
        self.switches = 0
        self._last: dict[int, Usage] = {}
        self._at = -1.0
        self._calm_since = -1.0
        self._calm_needed = _CALM
        self._switched_at = 0.0
        """when they were last put elsewhere"""

    def processors(self) -> list[int]:
        """Where the layers run now."""
        return self.allowed if self.spread else [self.one]

    def timeout(self) -> float | None:
        """Seconds until the next `look`; None: none is needed."""
        if self.mode != "auto":
            return None
        return TICK if self._calm_since < 0 or self.spread else IDLE_TICK

    def look(self, now: float, usage: dict[int, Usage]) -> bool:
        """The processes' usage (by pid) at `now`, in s. True if they belong elsewhere from now on.

        Processes that were not there at the last look do not count yet.
        """
        elapsed = now - self._at
        if elapsed < TICK / 2:
            return False
        last, self._last, self._at = self._last, usage, now
        both = [(usage[pid], last[pid]) for pid in usage if pid in last]
        if not both or elapsed > 10 * IDLE_TICK:
            return False
        ran = sum(new.ran - old.ran for new, old in both) / elapsed
        waited = sum(new.waited - old.waited for new, old in both) / elapsed
        if not self.spread:
            # `_calm_since` says here since when there is nothing to do
            self._calm_since = now if ran < _IDLE else -1.0
            if waited < _WAITED:
                return False
            wrong = now - self._switched_at < _WRONG
            self._calm_needed = min(self._calm_needed * 2, _CALM_MAX) if wrong else _CALM
            return self._switch(now)
        if ran > _ENOUGH:
            self._calm_since = -1.0
        elif self._calm_since < 0:
            self._calm_since = now
        elif now - self._calm_since >= self._calm_needed:
            if ran < _IDLE:
                self._calm_needed = _CALM
            return self._switch(now)
        return False

    def _switch(self, now: float) -> bool:
        self._switched_at = now
        self.spread = not self.spread
        self.switches += 1
        self._calm_since = -1.0
        return True
