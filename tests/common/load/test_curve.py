# SPDX-License-Identifier: MIT
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.load.curve import Curve, slope

LOADS = st.floats(0, 5).map(lambda x: round(x, 3))
PHASES = st.lists(
    st.tuples(st.floats(0.1, 10).map(lambda x: round(x, 3)), LOADS, LOADS), min_size=1, max_size=5
)


def test_a_steady_load_arrives_evenly() -> None:
    arrivals = list(Curve([(1.0, 1, 1)]).arrivals(10, None))
    assert arrivals == pytest.approx([0.05 + i / 10 for i in range(10)])


def test_a_ramp_arrives_ever_faster() -> None:
    arrivals = list(Curve([(10.0, 0, 1)]).arrivals(100, None))
    assert len(arrivals) == 500
    assert arrivals[124] == pytest.approx(5, abs=0.05)  # a quarter of them in the first half
    gaps = [b - a for a, b in pairwise(arrivals)]
    assert gaps == sorted(gaps, reverse=True)


def test_a_gap_has_none() -> None:
    arrivals = list(Curve([(1, 1, 1), (5, 0, 0), (1, 2, 2)]).arrivals(10, None))
    assert len(arrivals) == 30
    assert not [t for t in arrivals if 1.01 < t < 5.99]


@settings(deadline=None)
@given(PHASES, st.floats(0.5, 200), st.integers(1, 4))
def test_all_shares_together_are_the_area(
    phases: list[tuple[float, float, float]], rate: float, count: int
) -> None:
    curve = Curve(phases)
    area = sum(p.area for p in curve.pieces) * rate
    shares = [list(curve.arrivals(rate, None, (i, count))) for i in range(count)]
    assert abs(sum(map(len, shares)) - area) <= count
    for arrivals in shares:
        assert arrivals == sorted(arrivals)
        assert all(0 <= t <= curve.end + 1e-6 for t in arrivals)
        for t in arrivals:
            piece = curve.pieces[curve.piece_at(min(t, curve.end - 1e-9))]
            assert piece.start - 1e-6 <= t <= piece.end + 1e-6


def test_poisson_arrivals_have_the_rate_and_the_seed() -> None:
    curve = Curve([(20.0, 1, 1)])
    arrivals = list(curve.arrivals(100, Random(1)))
    assert len(arrivals) == pytest.approx(2000, rel=0.1)
    assert arrivals == list(curve.arrivals(100, Random(1)))
    gaps = [b - a for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)  # an exponential distribution's


def test_clients_wake_one_after_the_other() -> None:
    curve = Curve([(10, 0, 1), (5, 1, 1), (10, 1, 0)])
    assert curve.population(4) == 4
    assert [curve.awake(i, 4) for i in range(4)] == [
        [(0, 25)],
        [(2.5, 22.5)],
        [(5, 20)],
        [(7.5, 17.5)],
    ]


def test_a_burst_has_more_clients_than_load_1() -> None:
    curve = Curve([(1, 1, 1), (1, 2.5, 2.5), (1, 1, 1)])
    assert curve.population(2) == 5
    assert curve.awake(0, 2) == [(0, 3)]
    assert curve.awake(4, 2) == [(1, 2)]


def test_who_is_awake_is_the_load() -> None:
    curve = Curve([(3, 0.2, 0.9), (2, 0, 0), (1, 2, 0.5)])
    for t in (0.1, 1.7, 2.9, 4.0, 5.2, 5.9):
        spans = [curve.awake(i, 50) for i in range(curve.population(50))]
        awake = sum(any(a <= t < b for a, b in s) for s in spans)
        assert abs(awake - curve.at(t) * 50) <= 1


def test_outside_there_is_no_load() -> None:
    curve = Curve([(1, 1, 1)])
    assert (curve.at(-0.1), curve.at(0.5), curve.at(1)) == (0, 1, 0)
    assert curve.piece_at(99) == 0


def test_slope() -> None:
    assert slope([(x, 3 + 2 * x) for x in range(10)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 1), (2, 0), (3, 1)]) == pytest.approx(0.2)
    assert slope([(1, 5)]) == slope([]) == slope([(1, 5), (1, 9)]) == 0
