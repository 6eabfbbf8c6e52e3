# SPDX-License-Identifier: MIT
"""How the load goes up and down with time, and what follows: when requests arrive, and which
clients are awake.

A curve is made of straight pieces, one for each phase. Nothing here sleeps or knows a clock: the
workers ask "when is the next one", in seconds since the start.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from random import Random


@dataclass(frozen=True, slots=True)
class Piece:
    """One phase: the load goes from `low` to `high`, in a straight line."""

    start: float
    end: float
    low: float
    high: float

    @property
    def area(self) -> float:
        """The integral over the whole piece."""
        return (self.end - self.start) * (self.low + self.high) / 2


class Curve:
    """The load as a function of time; 1 is what the flow says, 0 is silence."""

    def __init__(self, phases: Sequence[tuple[float, float, float]]) -> None:
        """phases: (duration, load at its start, load at its end)."""
        self.pieces: list[Piece] = []
        at = 0.0
        for duration, low, high in phases:
            self.pieces.append(Piece(at, at + duration, low, high))
            at += duration
        self.end = at
        self.most = max((max(p.low, p.high) for p in self.pieces), default=0.0)
        self._starts = [p.start for p in self.pieces]

    def piece_at(self, t: float) -> int:
        """The number of the phase in which `t` lies; the last one for what comes after."""
        return max(0, bisect_right(self._starts, t) - 1)

    def at(self, t: float) -> float:
        """The load at `t`."""
        if not 0 <= t < self.end:
            return 0.0
        p = self.pieces[self.piece_at(t)]
        return p.low + (p.high - p.low) * (t - p.start) / (p.end - p.start)

    def arrivals(
        self, rate: float, rand: Random | None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[float]:
        """The times at which requests arrive, where load 1 means `rate` in a second.

        rand: for a Poisson process; None for even spacing. share: (index, count) of the
        workers that share the rate: evenly spaced arrivals of all of them interleave.
        """
        index, count = share
        mine = rate / count
        if mine <= 0:
            return
        due = rand.expovariate(1) if rand else (index + 0.5) / count
        passed = 0.0
        for piece in self.pieces:
            area = piece.area * mine
            while due <= passed + area:
                yield _invert(piece, (due - passed) / mine)
                due += rand.expovariate(1) if rand else 1.0
            passed += area

    def awake(self, index: int, clients: int) -> list[tuple[float, float]]:
        """When client `index` of those that make up load 1 (`clients`) is to be active."""
        level = index / clients
        spans: list[tuple[float, float]] = []
        for p in self.pieces:
            span = _above(p, level)
            if span is None:
                continue
            if spans and span[0] - spans[-1][1] < 1e-9:
                spans[-1] = (spans[-1][0], span[1])
            else:
                spans.append(span)
        return spans

    def population(self, clients: int) -> int:
        """How many clients there are at the curve's highest point."""
        return ceil(clients * self.most - 1e-9)


def _invert(p: Piece, area: float) -> float:
    """The time at which the integral from the piece's start is `area`."""
    slope = (p.high - p.low) / (p.end - p.start)
    if abs(slope) < 1e-12:
        return p.start + area / p.low
    # low * x + slope * x^2 / 2 = area, in the form that loses no digits
    root = sqrt(max(0.0, p.low * p.low + 2 * slope * area))
    return min(p.end, p.start + 2 * area / (p.low + root)) if p.low + root > 0 else p.start


def _above(p: Piece, level: float) -> tuple[float, float] | None:
    """When the load is above the level within a piece."""
    if p.low > level and p.high > level:
        return p.start, p.end
    if p.low <= level and p.high <= level:
        return None
    cross = p.start + (p.end - p.start) * (level - p.low) / (p.high - p.low)
    return (cross, p.end) if p.high > level else (p.start, cross)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line through (x, y) with the least squares; 0 for a point."""
    n = len(points)
    if n < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    below = sum((x - mean_x) ** 2 for x, _ in points)
    if below == 0 or below == inf:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below
