# SPDX-License-Identifier: MIT
"""A bad link's effects on frames: loss, duplication, corruption, rate, delay, reordering.

Used by nic between itself and the wire, in both directions, and by the links of a simulation. The
module does no I/O and knows no clock: `admit` says when which frames come out. The same seed and
the same frames give the same outcome. The model is that of Linux's netem (`net/sched/sch_netem.c`).
A frame is lost, or copied, or damaged. It waits for its turn on a link of a given rate, and is then
delayed unless it overtakes others.
"""

from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from skbus.core.quantities import parse_fraction, parse_rate, parse_time

_SEC: Final = 1_000_000_000
DEFAULT_LIMIT: Final = 1000
"""Frames that wait for their turn on a link with a rate (netem's default)."""
_HOLD: Final = (100_000, 1_000_000)
"""Where there is no delay to skip, a reordered frame is held back for so many ns."""


class Impairment:
    """One direction of a link.

    loss, reorder, dup, corrupt: shares of frames, 0 to 1. delay, jitter: ns; each frame is delayed
    by `delay` plus or minus up to `jitter` (so jitter reorders, as in netem). rate: bits per
    second, 0 for no limit. limit: frames that may wait because of the rate; more are lost. mark:
    where more than so many wait, frames that allow it (ECT) are marked CE (RFC 3168), as by a
    router for DCTCP; 0: never. size: longer frames are lost and nobody is told, as in a black hole
    of path MTU discovery; 0: no limit. direction: names one direction of a link; the two have
    independent random streams.
    """

    __slots__ = (
        "_busy_until",
        "_drawn",
        "_waiting",
        "corrupt",
        "corrupted",
        "delay",
        "dup",
        "duplicated",
        "jitter",
        "limit",
        "loss",
        "lost",
        "mark",
        "marked",
        "overflowed",
        "rand",
        "rate",
        "reorder",
        "reordered",
        "size",
    )

    def __init__(
        self,
        *,
        loss: float = 0.0,
        delay: int = 0,
        jitter: int = 0,
        reorder: float = 0.0,
        dup: float = 0.0,
        corrupt: float = 0.0,
        rate: int = 0,
        limit: int = DEFAULT_LIMIT,
        mark: int = 0,
        size: int = 0,
        seed: int | str = 0,
        direction: str = "",
    ) -> None:
        for name, share in (
            ("loss", loss),
            ("reorder", reorder),
            ("dup", dup),
            ("corrupt", corrupt),
        ):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {share}")
        if min(delay, jitter, rate, mark, size) < 0 or limit < 1:
            raise ValueError(
                "delay, jitter, rate, mark and size are not negative, and limit is at least 1"
            )
        self.loss = loss
        self.delay = delay
        self.jitter = jitter
        self.reorder = reorder
        self.dup = dup
        self.corrupt = corrupt
        self.rate = rate
        self.limit = limit
        self.mark = mark
        self.size = size
        self.rand = Random(f"skbus impairment {seed} {direction}")
        self.lost = 0
        self.overflowed = 0
        self.duplicated = 0
        self.corrupted = 0
        self.reordered = 0
        self.marked = 0
        self._drawn: deque[bool] = deque()
        """The outcome that `spares` has drawn for each frame still to come: is it lost?"""
        self._busy_until = 0
        self._waiting: deque[int] = deque()
        """When each frame that waits because of the rate will have left."""

    @classmethod
    def parse(cls, text: str, direction: str = "") -> "Impairment":
        """Of "loss 5% delay 20ms rate 100mbit seed 7". ValueError names the word at fault."""
        words = text.replace("=", " ").replace(",", " ").split()
        if len(words) % 2:
            raise ValueError(f"{text!r}: names and values do not pair up")
        values: dict[str, Any] = {}
        for name, value in zip(words[::2], words[1::2], strict=True):
            read = _READERS.get(name)
            if read is None:
                raise ValueError(f"{name!r} is not one of {', '.join(_READERS)}")
            try:
                values[name] = read(value)
            except ValueError as e:
                raise ValueError(f"{name} {value!r}: {e}") from None
        return cls(**values, direction=direction)

    @classmethod
    def of(cls, options: Mapping[str, object], direction: str = "") -> "Impairment":
        """Of arguments that may be texts, as the lab's options are: "5%", "20ms", "100mbit".

        ValueError names the one at fault.
        """
        values: dict[str, Any] = {}
        for name, value in options.items():
            read = _READERS.get(name)
            if read is None:
                raise ValueError(f"there is no {name!r}; there are: {', '.join(_READERS)}")
            try:
                values[name] = read(value) if isinstance(value, str) else value
            except ValueError as e:
                raise ValueError(f"{name} {value!r}: {e}") from None
        return cls(**values, direction=direction)

    def __bool__(self) -> bool:
        """Does the link impair frames at all?"""
        return bool(self.loss) or self._more_than_loss()

    def _more_than_loss(self) -> bool:
        return bool(
            self.delay
            or self.jitter
            or self.reorder
            or self.dup
            or self.corrupt
            or self.rate
            or self.size
        )

    def spares(self, count: int) -> bool:
        """Do the next `count` frames all come through at once? Only where nothing but loss is asked
        for. If so, the frames need not be given to `admit`; if not, all of them must be."""
        if not self.loss or self._drawn or self._more_than_loss():
            return False
        rand = self.rand.random
        loss = self.loss
        drawn = [rand() < loss for _ in range(count)]
        if True in drawn:
            self._drawn.extend(drawn)
            return False
        return True

    def admit(self, now: int, frame: bytes) -> list[tuple[int, bytes]]:
        """A frame enters at `now`: when (ns, not before now) which frames come out.

        An empty list: it is lost. An undamaged frame is the very object that was given.
        """
        rand = self.rand.random
        drawn = self._drawn
        if drawn.popleft() if drawn else self.loss and rand() < self.loss:
            self.lost += 1
            return []
        if self.size and len(frame) > self.size:
            self.lost += 1
            return []
        if self.dup and rand() < self.dup:
            self.duplicated += 1
            return [*self._pass(now, frame), *self._pass(now, frame)]
        return self._pass(now, frame)

    def _pass(self, now: int, frame: bytes) -> list[tuple[int, bytes]]:
        """One copy on its way: damage, rate, delay."""
        rand = self.rand
        if self.corrupt and rand.random() < self.corrupt:
            self.corrupted += 1
            frame = self._flip(frame)
        when = now
        if self.rate:
            waiting = self._waiting
            while waiting and waiting[0] <= now:
                waiting.popleft()
            if len(waiting) >= self.limit:
                self.overflowed += 1
                return []
            if self.mark and len(waiting) > self.mark:
                frame = self._congestion_experienced(frame)
            when = max(now, self._busy_until) + len(frame) * 8 * _SEC // self.rate
            self._busy_until = when
            waiting.append(when)
        if self.reorder and rand.random() < self.reorder:
            self.reordered += 1
            if not self.delay:
                when += rand.randint(*_HOLD)
            return [(when, frame)]
        when += self.delay
        if self.jitter:
            when += rand.randint(-min(self.jitter, self.delay), self.jitter)
        return [(when, frame)]

    def queued(self, now: int) -> int:
        """How many frames wait at `now` because of the rate."""
        return sum(leaves > now for leaves in self._waiting)

    def _congestion_experienced(self, frame: bytes) -> bytes:
        """An IPv4 frame that is ECT(0) or ECT(1), marked CE; any other as it is."""
        if frame[12:14] != b"\x08\x00" or frame[15] & 3 not in (1, 2):
            return frame
        self.marked += 1
        old = int.from_bytes(frame[14:16], "big")
        new = old | 3
        check = (~int.from_bytes(frame[24:26], "big") & 0xFFFF) + (~old & 0xFFFF) + new
        check = (check & 0xFFFF) + (check >> 16)  # RFC 1624 3
        check = ~((check & 0xFFFF) + (check >> 16)) & 0xFFFF
        head = frame[:14] + new.to_bytes(2, "big") + frame[16:24]
        return head + check.to_bytes(2, "big") + frame[26:]

    def _flip(self, frame: bytes) -> bytes:
        """The frame with one bit flipped."""
        if not frame:
            return frame
        bit = self.rand.randrange(len(frame) * 8)
        damaged = bytearray(frame)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        return bytes(damaged)

    def status(self) -> dict[str, int]:
        """Counts of the link's effects so far."""
        return {
            "lost": self.lost,
            "overflowed": self.overflowed,
            "duplicated": self.duplicated,
            "corrupted": self.corrupted,
            "reordered": self.reordered,
            "marked": self.marked,
        }


_READERS: Final[dict[str, Any]] = {
    "loss": parse_fraction,
    "delay": parse_time,
    "jitter": parse_time,
    "reorder": parse_fraction,
    "dup": parse_fraction,
    "corrupt": parse_fraction,
    "rate": parse_rate,
    "limit": int,
    "mark": int,
    "size": int,
    "seed": int,
}
