# SPDX-License-Identifier: MIT
"""Times in a high dynamic range histogram: every percentile to three digits, at constant size.

A thin coat over the library `hdrhistogram`: seconds outside, whole microseconds inside. The
workers record and encode, the runner decodes and adds.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

_LOWEST: Final = 1
_HIGHEST: Final = 3_600_000_000  # an hour, in us
_DIGITS: Final = 3
_HALF: Final = 10
"""log2 of half the values that a bucket of the histogram tells apart, for three digits."""

_Table = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


class Histogram:
    """Times between a microsecond and an hour; what is outside counts as the nearest of these."""

    __slots__ = ("_hdr", "_table")

    def __init__(self) -> None:
        self._hdr: Any = None  # made at the first value: it takes 200 KB
        self._table: _Table | None = None

    def record(self, value: float) -> None:
        """Add a time in seconds."""
        hdr = self._hdr
        if hdr is None:
            hdr = self._hdr = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
        self._table = None
        us = int(value * 1e6)
        hdr.record_value(_LOWEST if us < _LOWEST else min(us, _HIGHEST))

    def add(self, other: "Histogram") -> None:
        """Add all the times of another one."""
        if other._hdr is None:
            return
        if self._hdr is None:
            self._hdr = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
        self._table = None
        self._hdr.add(other._hdr)

    def encode(self) -> str:
        """As text (HdrHistogram's own format, which its tools in all languages read)."""
        return "" if self._hdr is None else self._hdr.encode().decode()

    @classmethod
    def decode(cls, text: str) -> "Histogram":
        """Of what `encode` gave."""
        histogram = cls()
        if text:
            histogram._hdr = HdrHistogram.decode(text)
        return histogram

    @property
    def count(self) -> int:
        """How many times were recorded."""
        return 0 if self._hdr is None else int(self._hdr.get_total_count())

    def _counts(self) -> _Table:
        """(values in us, how many are not greater), for the values that there are.

        The library's own percentiles go through all 23,000 counts in a Python loop.
        """
        if self._table is None:
            counts = np.frombuffer(self._hdr.counts, dtype=np.uint64).astype(np.int64)
            index = np.flatnonzero(counts)
            self._table = _values(index), np.cumsum(counts[index])
        return self._table

    def percentile(self, percent: float) -> float | None:
        """In seconds; None where nothing was recorded."""
        if not self.count:
            return None
        values, upto = self._counts()
        rank = max(1, int(percent / 100 * int(upto[-1]) + 0.5))
        return int(values[np.searchsorted(upto, rank)]) / 1e6

    @property
    def minimum(self) -> float | None:
        return int(self._counts()[0][0]) / 1e6 if self.count else None

    @property
    def maximum(self) -> float | None:
        return int(self._counts()[0][-1]) / 1e6 if self.count else None

    @property
    def mean(self) -> float | None:
        if not self.count:
            return None
        values, upto = self._counts()
        return float((values * np.diff(upto, prepend=0)).sum() / upto[-1]) / 1e6

    def curve(self) -> Iterator[tuple[float, float]]:
        """(percentile, seconds) for a plot: closer and closer towards 100."""
        if not self.count:
            return
        rest = 100.0
        while rest * self.count >= 100:  # one value is left above
            for _ in range(8):
                rest /= 2 ** (1 / 8)
                value = self.percentile(100 - rest)
                assert value is not None
                yield 100 - rest, value
        assert self.maximum is not None
        yield 100 - min(rest, 100 / self.count), self.maximum


def _values(index: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """The highest value that is counted at each place of the counts (hdr_value_at_index)."""
    bucket = (index >> _HALF) - 1
    sub = (index & ((1 << _HALF) - 1)) + (1 << _HALF)
    sub = np.where(bucket < 0, sub - (1 << _HALF), sub)
    bucket = np.maximum(bucket, 0)
    values: npt.NDArray[np.int64] = (((sub + 1) << bucket) - 1).astype(np.int64)
    return values
