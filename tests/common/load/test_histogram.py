# SPDX-License-Identifier: MIT
from random import Random

import pytest
from hdrh.histogram import HdrHistogram

from skbus.load.histogram import Histogram


def filled(count: int = 3000, seed: int = 1) -> tuple[Histogram, list[float]]:
    rand = Random(seed)
    values = sorted(rand.lognormvariate(-6, 2) for _ in range(count))
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram, values


@pytest.mark.parametrize("percent", [0.01, 1, 25, 50, 90, 99, 99.9, 100])
def test_percentiles_are_those_of_the_library(percent: float) -> None:
    ours, values = filled()
    library = HdrHistogram(1, 3_600_000_000, 3)
    for value in values:
        library.record_value(max(1, int(value * 1e6)))
    want = library.get_value_at_percentile(percent) / 1e6
    assert ours.percentile(percent) == pytest.approx(want, rel=1e-9)


def test_summary() -> None:
    histogram, values = filled()
    assert histogram.count == 3000
    assert histogram.mean == pytest.approx(sum(values) / 3000, rel=0.002)
    assert histogram.minimum == pytest.approx(values[0], abs=1e-6)
    assert histogram.maximum == pytest.approx(values[-1], rel=0.001)


def test_an_empty_one_has_no_values() -> None:
    empty = Histogram()
    assert (empty.count, empty.percentile(50), empty.mean) == (0, None, None)
    assert (empty.minimum, empty.maximum, empty.encode()) == (None, None, "")
    assert list(empty.curve()) == []


def test_adding_is_as_if_recorded_together() -> None:
    (a, values_a), (b, values_b) = filled(500, 1), filled(700, 2)
    a.percentile(50)  # what was computed before must not stay
    a.add(b)
    a.add(Histogram())
    both = Histogram()
    for value in values_a + values_b:
        both.record(value)
    assert a.count == 1200
    for percent in (10, 50, 99, 100):
        assert a.percentile(percent) == both.percentile(percent)
    empty = Histogram()
    empty.add(b)
    assert empty.percentile(99) == b.percentile(99)


def test_encoding_keeps_everything() -> None:
    histogram, _ = filled()
    again = Histogram.decode(histogram.encode())
    assert again.count == histogram.count
    assert list(again.curve()) == list(histogram.curve())
    assert Histogram.decode("").count == 0


def test_what_is_out_of_range_counts_at_the_edge() -> None:
    histogram = Histogram()
    for value in (-1.0, 0.0, 1e-9, 1e6):
        histogram.record(value)
    assert histogram.minimum == 1e-6
    assert histogram.maximum == pytest.approx(3600, rel=0.001)


def test_the_curve_rises_to_the_longest() -> None:
    histogram, _ = filled()
    points = list(histogram.curve())
    assert points == sorted(points)
    assert points[-1][0] == pytest.approx(100 - 100 / 3000, abs=0.03)
    assert points[-1][1] == histogram.maximum
