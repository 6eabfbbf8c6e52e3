# SPDX-License-Identifier: MIT
from random import Random

import pytest

from skbus.load.quantity import (
    Distribution,
    per_second,
    say_bits,
    say_size,
    say_time,
    seconds,
    size,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("20ms", 0.02), ("1.5s", 1.5), ("2min", 120), ("1h", 3600), ("300us", 0.0003), ("0", 0)],
)
def test_seconds(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["20", 20, "ms", "-1s", "5 parsecs", None])
def test_a_time_without_a_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="takes a time with its unit"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"), [(7, 7), ("1448", 1448), ("4KiB", 4096), ("4kb", 4000), ("1.5MiB", 3 << 19)]
)
def test_size(text: object, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize("text", [-1, "4 furlongs", True, 1.5, ""])
def test_a_bad_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="takes a size"):
        size(text)


def test_per_second() -> None:
    assert per_second("600/min") == 10
    assert per_second("200/s") == per_second(200) == per_second("200") == 200
    with pytest.raises(ValueError, match="so many in a second"):
        per_second("often")


def draws(text: str, count: int = 2000) -> list[float]:
    draw, rand = Distribution.parse(text, "size").draw, Random(7)
    return sorted(draw(rand) for _ in range(count))


def test_distributions_have_their_shape() -> None:
    assert set(draws("1KiB")) == {1024}
    values = draws("uniform(10, 20)")
    assert values[0] >= 10
    assert values[-1] <= 20
    assert sum(values) / len(values) == pytest.approx(15, rel=0.02)
    assert sum(draws("exp(100)")) / 2000 == pytest.approx(100, rel=0.1)
    assert draws("lognormal(1000, 1)")[1000] == pytest.approx(1000, rel=0.1)
    assert draws("pareto(100, 2)")[0] >= 100
    assert draws("normal(100, 200)")[0] == 0  # nothing is shorter than nothing
    assert set(draws("choice(1: 9, 5KiB)")) == {1, 5120}
    assert draws("choice(1: 9, 5KiB)").count(1) == pytest.approx(1800, rel=0.05)
    assert draws("exp(1MiB) max 1000")[-1] == 1000


def test_the_same_seed_draws_the_same() -> None:
    assert draws("lognormal(8KiB, 1.2)") == draws("lognormal(8KiB, 1.2)")


def test_times_need_units_within_distributions_too() -> None:
    assert Distribution.parse("exp(100ms)", "time").draw(Random(1)) > 0
    with pytest.raises(ValueError, match="takes a time with its unit"):
        Distribution.parse("exp(100)", "time")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cauchy(1)", "no distribution 'cauchy': it takes uniform, exp"),
        ("uniform(1)", "uniform takes 2 arguments, not 1"),
        ("uniform(20, 10)", "20 is more than 10"),
        ("exp(0)", "the mean is 0"),
        ("pareto(1, much)", "'much' is no number"),
        ("pareto(1, 0)", "not greater than 0"),
        ("choice()", "at least one value"),
        ("choice(1: 0)", "not greater than 0"),
        ("uniform(a, b)", "takes a size"),
        ("rather big", "takes a size"),
    ],
)
def test_what_is_wrong_with_a_distribution_is_said(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error.replace("(", r"\(")):
        Distribution.parse(text, "size")


def test_for_people() -> None:
    assert [say_time(t) for t in (1e-5, 0.0123, 0.9996, 1.5, 1000)] == [
        "10 µs",
        "12.3 ms",
        "1 s",
        "1.5 s",
        "1000 s",
    ]
    assert [say_size(n) for n in (5, 1536, 3 << 30)] == ["5 B", "1.5 KiB", "3 GiB"]
    assert [say_bits(n) for n in (5, 12e6, 16e9)] == ["5 bit/s", "12 Mbit/s", "16 Gbit/s"]
