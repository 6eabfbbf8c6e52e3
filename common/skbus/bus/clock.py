# SPDX-License-Identifier: MIT
"""The one clock of a stack: CLOCK_MONOTONIC, offset and scaled
(docs/architecture.md, "Time and barriers").

With scale 10 the stack lives ten times slower than its surroundings. A retransmission timer of
200 ms takes two seconds of real time, and a busy machine's scheduling delays weigh a tenth.
All processes of a stack on one machine read the same clock, so their times are comparable.
"""

from time import monotonic_ns


class StackClock:
    """ns of the stack's time.

    scale: real seconds per second of the stack, 1 or more usually; must be above 0.
    """

    __slots__ = ("offset", "scale")

    def __init__(self, scale: float = 1.0, offset: int = 0) -> None:
        if not scale > 0:
            raise ValueError(f"the time scale must be above 0, not {scale}")
        self.scale = scale
        self.offset = offset

    def now(self) -> int:
        """ns of the stack's time, from an unspecified beginning."""
        if self.scale == 1.0:
            return monotonic_ns() + self.offset
        return int(monotonic_ns() / self.scale) + self.offset

    def real_seconds_until(self, deadline: int) -> float:
        """Real seconds until the stack's time is `deadline` (ns); negative when it has passed."""
        return (deadline - self.now()) * self.scale / 1e9
