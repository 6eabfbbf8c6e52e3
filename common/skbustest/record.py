# SPDX-License-Identifier: MIT
"""Series of changing values in a simulation: a connection's window, a link's queue, over time.

    series = world.record(sock, "snd_cwnd", "rtt", every="10ms")
    world.run(task)
    pyplot.step(series.time, series["snd_cwnd"], where="post")

Samples are taken between the events of the simulation, and are no events themselves. So a recorded
world runs, bit for bit, as it does without recording.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from skbus.core.net import SEC


class LinkInfo(NamedTuple):
    """One direction of a link: the frames that entered it at a port so far, and their fates."""

    frames: int
    bytes: int
    queued: int
    """Frames that wait now, because the link has a rate."""
    lost: int
    overflowed: int
    """Frames that found the queue full."""
    duplicated: int
    corrupted: int
    reordered: int
    marked: int
    """Frames that were marked CE."""


class HasInfo(Protocol):
    """Something to record: `SimSocket` (the members of `skbus.inet.tcp_info.TcpInfo`), `Port`
    (`LinkInfo`), or an object of yours whose `info` gives a NamedTuple of numbers."""

    def info(self) -> NamedTuple: ...


class Series:
    """Samples of one source.

    time: the moments, in seconds since the simulation began. `series[column]`: as many values, in
    the units of `skbus.inet.tcp_info.TcpInfo` and `LinkInfo`. A value is that of just before the
    events of its moment. ended: why there are no more samples; "" while it goes on.
    """

    def __init__(
        self, name: str, read: Callable[[], NamedTuple], columns: tuple[str, ...], every: int
    ) -> None:
        if every <= 0:
            raise ValueError(f"every is a time between two samples, not {every} ns")
        self.name = name
        self.every = every
        self.time: list[float] = []
        self.ended = ""
        self._read = read
        known = read()._fields
        self.columns = columns or known
        self._values: dict[str, list[float]] = {column: [] for column in self.columns}
        for column in self.columns:
            if column not in known:
                raise ValueError(f"there is no {column!r}; there are: {', '.join(known)}")

    def __getitem__(self, column: str) -> list[float]:
        try:
            return self._values[column]
        except KeyError:
            known = ", ".join(self.columns)
            raise KeyError(f"{column!r} is not recorded; recorded are: {known}") from None

    def __len__(self) -> int:
        return len(self.time)

    def stop(self, why: str = "stopped") -> None:
        """Take no more samples."""
        self.ended = self.ended or why

    def sample(self, since: int) -> None:
        """Take a sample, `since` ns after the simulation began. Where the socket is gone, the
        series ends."""
        try:
            info = self._read()
        except OSError as e:
            self.stop(str(e))
            return
        self.time.append(since / SEC)
        for column, values in self._values.items():
            values.append(getattr(info, column))

    def write_csv(self, path: str | Path) -> None:
        """Write a file with a column `time` and the recorded columns."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("time", *self.columns))
            writer.writerows(zip(self.time, *self._values.values(), strict=True))


class Recorder:
    """All series of a world, and when the next sample is due."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._series: list[tuple[int, Series]] = []
        """(when recording began, in ns; the series)"""
        self.due: int | None = None
        """When the next sample is due, in ns; None: nobody records."""

    def add(self, now: int, series: Series) -> None:
        """Sample a series from now on."""
        self._series.append((now, series))
        self.due = now if self.due is None else min(self.due, now)

    def until(self, when: int, clock: Callable[[int], None]) -> None:
        """Take the samples that are due before or at `when`, and tell `clock` of each moment."""
        while self.due is not None and self.due <= when:
            now = self.due
            clock(now)
            nexts = []
            for begin, series in self._series:
                if not series.ended and (now - begin) % series.every == 0:
                    series.sample(now - self.start)
                if not series.ended:
                    nexts.append(now + series.every - (now - begin) % series.every)
            self._series = [(b, s) for b, s in self._series if not s.ended]
            self.due = min(nexts, default=None)
