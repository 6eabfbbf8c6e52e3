# SPDX-License-Identifier: MIT
"""Any text is a quantity, a distribution or an assertion, or is refused with a sentence."""

from collections.abc import Callable
from math import isfinite
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.config import parse_rate, parse_time
from skbus.load import quantity
from skbus.load.assertion import Assertion
from skbus.load.quantity import Distribution

PART = st.sampled_from(
    ["9" * 400, "9" * 5000, "1e999", "nan", "inf", "-1", "0", "1", "2.5", "s", "ms", "min", "GiB",
     "kbit", "/s", "%", "exp(", "uniform(", "pareto(", "lognormal(", "normal(", "choice(", ")",
     ",", ":", " max ", " ", "p", "p99", "errors", ".", "@", "<", "==", "\u0663", "\u00b2"]
)  # fmt: skip
TEXT = st.lists(st.one_of(PART, st.text(max_size=4)), max_size=7).map("".join)


@settings(deadline=None, max_examples=300)
@given(TEXT)
@pytest.mark.parametrize(
    "read",
    [quantity.seconds, quantity.size, quantity.bit_rate, quantity.per_second, parse_time,
     parse_rate],
)  # fmt: skip
def test_quantities(read: Callable[[object], float], text: str) -> None:
    try:
        value = read(text)
    except ValueError:
        return
    assert isfinite(value)


@settings(deadline=None, max_examples=300)
@given(TEXT, st.sampled_from(["size", "time"]))
def test_distributions(text: str, kind: quantity.Kind) -> None:
    try:
        distribution = Distribution.parse(text, kind)
    except ValueError:
        return
    for seed in range(5):
        assert distribution.draw(Random(seed)) >= 0


@settings(deadline=None, max_examples=300)
@given(TEXT)
def test_assertions(text: str) -> None:
    try:
        bound = Assertion.parse(text).bound
    except ValueError:
        return
    assert isfinite(bound)
