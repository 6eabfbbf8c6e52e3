# SPDX-License-Identifier: MIT
"""The ratio of two things that were measured in pairs, with its confidence interval, and the table.

The two rounds of a pair follow each other, so load on the machine meets both. The logarithm of
their ratio is one observation. The figure is the geometric mean of the ratios, and the interval is
that of a paired t test on the logarithms: 95 % of such intervals hold the true ratio, if the
logarithms are about normal. A bootstrap of so few pairs would be too narrow.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

CONFIDENCE: Final = 0.95
WIDTH: Final = 80


class Ratio(NamedTuple):
    """A ratio and its interval; low and high are None where there is one pair alone."""

    ratio: float
    low: float | None
    high: float | None
    pairs: int


class Pair(NamedTuple):
    """Two rounds that followed each other: figures, and processor time for a unit of work, s."""

    base: float
    here: float
    base_cpu: float | None = None
    here_cpu: float | None = None


class Row(NamedTuple):
    """What was found for one kind of work and one build."""

    build: str
    name: str
    title: str
    is_time: bool
    """A time: less is better, and it is shown in ms. Else it is a rate."""
    pairs: list[Pair]
    failures: list[str]


class Target(NamedTuple):
    """What is to be reached: ratios; or, where is_limit, times in s."""

    least: float
    aim: float
    is_limit: bool


Targets = dict[tuple[str, str], Target]
"""(build, name of the work) -> the target"""


def within(t: float, freedom: int) -> float:
    """The probability that Student's t of so many degrees of freedom lies within -t and t
    (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(freedom // 2):
        if k:
            term *= cosine * cosine * ((2 * k) / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        total += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t within which so much of the distribution lies."""
    if freedom < 1:
        raise ValueError("one observation has no spread")
    low, high = 0.0, 1.0
    while within(high, freedom) < confidence:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """second / first of some pairs. ValueError where there is none, or a figure is not positive."""
    if not pairs:
        raise ValueError("no pairs")
    if any(a <= 0 or b <= 0 for a, b in pairs):
        raise ValueError("a ratio needs positive figures")
    logs = [math.log(b / a) for a, b in pairs]
    middle = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(middle), None, None, 1)
    reach = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(logs))


def speed(row: Row) -> Ratio | None:
    """How much faster here is than base, whether rates or times were measured."""
    if not row.pairs:
        return None
    if row.is_time:
        return ratio_of([(p.here, p.base) for p in row.pairs])
    return ratio_of([(p.base, p.here) for p in row.pairs])


def cost(row: Row) -> Ratio | None:
    """Processor time for a unit of work, here / base; None where it was not measured."""
    known = [(p.base_cpu, p.here_cpu) for p in row.pairs if p.base_cpu and p.here_cpu]
    return ratio_of([(a, b) for a, b in known if a and b]) if known else None


def read_targets(data: dict[str, Any]) -> Targets:
    """The targets of a TOML file that concern two states of this repository: its tables `base` (by
    build) and `at_most`. ValueError names what is wrong."""
    found: Targets = {}
    tables = [(build, table, False) for build, table in data.get("base", {}).items()]
    tables.append(("", data.get("at_most", {}), True))
    for build, table, is_limit in tables:
        for name, pair in table.items():
            good = isinstance(pair, list) and len(pair) == 2
            if not good or not all(isinstance(x, int | float) and x > 0 for x in pair):
                raise ValueError(f"{name}: not [at least, aim], two numbers above 0, but {pair!r}")
            found[build, name] = Target(float(pair[0]), float(pair[1]), is_limit)
    return found


def target_of(row: Row, targets: Targets) -> Target | None:
    """The target of a row: a limit holds for every build."""
    return targets.get((row.build, row.name)) or targets.get(("", row.name))


def reached(row: Row, target: Target) -> str:
    """ "aim", "yes" or "no"; "?" where nothing was measured."""
    if not row.pairs:
        return "?"
    if target.is_limit:
        value = statistics.median(p.here for p in row.pairs)
        return "aim" if value <= target.aim else "yes" if value <= target.least else "no"
    found = speed(row)
    assert found is not None
    return "aim" if found.ratio >= target.aim else "yes" if found.ratio >= target.least else "no"


def _figure(value: float, is_time: bool) -> str:
    if is_time:
        value *= 1000
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.3g}"


def _short(ratio: float) -> str:
    return (
        f"{ratio:.2f}"
        if ratio < 10
        else f"{ratio:.1f}"
        if ratio < 100
        else f"{ratio:.0f}"
        if ratio < 1000
        else ">999"
    )


def _line(what: str, *cells: str) -> str:
    base, here, ratio, interval, cpu, target = cells
    line = f"{what:<22.22} {base:>8} {here:>8} {ratio:>7} {interval:>12} {cpu:>5} {target:>12}"
    return line.rstrip()


def _row(row: Row, targets: Targets) -> list[str]:
    found, spent = speed(row), cost(row)
    cells = ["-"] * 5
    if found is not None:
        spread = "-"
        if found.low is not None and found.high is not None:
            spread = f"{_short(found.low)} to {_short(found.high)}"
        cells = [
            _figure(statistics.median(p.base for p in row.pairs), row.is_time),
            _figure(statistics.median(p.here for p in row.pairs), row.is_time),
            f"{_short(found.ratio)} x",
            spread,
            _short(spent.ratio) if spent is not None else "-",
        ]
    told = ""
    if (target := target_of(row, targets)) is not None:
        scale = 1000 if target.is_limit else 1
        told = f"{target.least * scale:g};{target.aim * scale:g} {reached(row, target)}"
    lines = [_line(f" {row.title}", *cells, told)]
    if row.failures:
        every = len(row.failures) + len(row.pairs)
        text = f"    {len(row.failures)} of {every} pairs failed: {row.failures[-1]}"
        lines.append(text.splitlines()[0][:WIDTH])
    return lines


def table(rows: Sequence[Row], base: str, here: str, targets: Targets | None = None) -> str:
    """The whole table, in 80 columns."""
    wanted = targets or {}
    lines = [
        _line("", base[:8], here[:8] if here != base else "again", "faster", "95 % of it",
              "cpu", "target" if wanted else "")
    ]  # fmt: skip
    for build in dict.fromkeys(row.build for row in rows):
        lines.append(build)
        for row in rows:
            if row.build == build:
                lines += _row(row, wanted)
    lines += [
        "",
        "Figures: medians, rates a second (bulk: Mbit/s) or ms. faster: geometric mean of",
        "the pairs' ratios, with the interval of a paired t test on their logarithms; it",
        "is a difference where the interval leaves out 1. cpu: the stack's processor time",
        "for the same work, in ratio (less is better).",
    ]
    if wanted:
        lines.append("target: at least; aim, as ratios or ms. Reached: no, yes, aim.")
    return "\n".join(lines)


def as_json(row: Row, targets: Targets) -> dict[str, Any]:
    """A row for machines."""
    found, spent, target = speed(row), cost(row), target_of(row, targets)
    return {
        "build": row.build,
        "name": row.name,
        "title": row.title,
        "kind": "seconds" if row.is_time else "rate",
        "faster": found._asdict() if found else None,
        "cpu": spent._asdict() if spent else None,
        "target": {**target._asdict(), "reached": reached(row, target)} if target else None,
        "pairs": [p._asdict() for p in row.pairs],
        "failures": row.failures,
    }
