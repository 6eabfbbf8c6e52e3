# SPDX-License-Identifier: MIT
"""Times in a high dynamic range histogram: every percentile to three digits, at constant size.

A thin coat over the library `hdrhistogram`: seconds outside, whole microseconds inside. The
workers record and encode, the runner decodes and adds.
"""

from collections.abc import Iterator
from typing import Any, Final

from hdrh.histogram import HdrHistogram

_LOWEST: Final = 1
_HIGHEST: Final = 3_600_000_000  # an hour, in us
_DIGITS: Final = 3


class Histogram:
    """Times between a microsecond and an hour; what is outside counts as the nearest of these."""

    __slots__ = ("_hdr",)

    def __init__(self) -> None:
        self._hdr: Any = None  # made at the first value: it takes 200 KB

    def record(self, value: float) -> None:
        """Add a time in seconds."""
        hdr = self._hdr
        if hdr is None:
            hdr = self._hdr = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
        us = int(value * 1e6)
        hdr.record_value(_LOWEST if us < _LOWEST else min(us, _HIGHEST))

    def add(self, other: "Histogram") -> None:
        """Add all the times of another one."""
        if other._hdr is None:
            return
        if self._hdr is None:
            self._hdr = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
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

    def percentile(self, percent: float) -> float | None:
        """In seconds; None where nothing was recorded."""
        if not self.count:
            return None
        return int(self._hdr.get_value_at_percentile(percent)) / 1e6

    @property
    def minimum(self) -> float | None:
        return int(self._hdr.get_min_value()) / 1e6 if self.count else None

    @property
    def maximum(self) -> float | None:
        return int(self._hdr.get_max_value()) / 1e6 if self.count else None

    @property
    def mean(self) -> float | None:
        return float(self._hdr.get_mean_value()) / 1e6 if self.count else None

    def curve(self) -> Iterator[tuple[float, float]]:
        """(percentile, seconds) for a plot: closer and closer towards 100."""
        if not self.count:
            return
        rest = 100.0
        while rest * self.count >= 100:  # one value is left above
            for _ in range(8):
                rest /= 2 ** (1 / 8)
                percent = 100 - rest
                yield percent, int(self._hdr.get_value_at_percentile(percent)) / 1e6
        assert self.maximum is not None
        yield 100 - min(rest, 100 / self.count), self.maximum
