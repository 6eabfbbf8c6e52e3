# SPDX-License-Identifier: MIT
"""The figures of a run as a table of a page: `bench.py --into docs/benchmarks.md`.

The page has two marks, each on a line of its own. What stands between them is replaced.
"""

import statistics
from pathlib import Path
from typing import Any, Final

import report
from subjects import WORKLOADS

BEGIN: Final = "<!-- tests/bench/bench.py --into writes what follows -->"
END: Final = "<!-- until here -->"


class NoPlace(Exception):
    """The page has no marks, or is not there; the text says so."""


def check(path: Path) -> None:
    """NoPlace where the page cannot take figures: better before a run than after it."""
    try:
        _split(path)
    except OSError as e:
        raise NoPlace(f"{path}: {e.strerror}") from None


def _split(path: Path) -> tuple[str, str]:
    before, begun, rest = path.read_text().partition(f"{BEGIN}\n")
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise NoPlace(f"{path}: it has no line {BEGIN} with a line {END} after it")
    return before, after


def write_into(path: Path, rounds: report.Rounds, facts: dict[str, Any]) -> None:
    """Replace what is between the marks."""
    before, after = _split(path)
    path.write_text(f"{before}{BEGIN}\n\n{page(rounds, facts)}\n{END}{after}")


def page(rounds: report.Rounds, facts: dict[str, Any]) -> str:
    """The machine and the run in a sentence, the medians, the ratios, and what is left out."""
    machine = facts["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cpus']} processors, Linux "
        f"{machine['kernel'].partition('-')[0]}, Python {machine['python']}, "
        f"{machine['date'][:10]}, commit {machine['commit']}; medians of {facts['reps']} rounds "
        f"of {facts['seconds']:g} s, in brackets half the range of the rounds.",
        "",
    ]
    there = {subject for found in rounds.values() for subject in found}
    columns = {name: title for name, title in report.titles().items() if name in there}
    lines += _table(
        list(columns.values()),
        {
            f"{WORKLOADS[name].title}, {WORKLOADS[name].unit}": [
                _figure(rounds, name, subject) for subject in columns
            ]
            for name in rounds
        },
    )
    compared = [
        (subject, other)
        for subject in report.OURS
        for other in ("linux", "pmd", *report.PEERS)
        if subject in columns and other in columns
    ]
    if compared:
        lines += _table(
            [f"{subject} / {columns[other]}" for subject, other in compared],
            {
                WORKLOADS[name].title: [
                    _ratio(report.against(rounds, name, subject)[other])
                    for subject, other in compared
                ]
                for name in rounds
            },
        )
    lines += [f"Without {name}: {why}.\n" for name, why in facts["absent"].items()]
    return "\n".join(lines)


def _table(titles: list[str], rows: dict[str, list[str]]) -> list[str]:
    return [
        f"| | {' | '.join(titles)} |",
        f"|---|{'--:|' * len(titles)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
        "",
    ]


def _figure(rounds: report.Rounds, workload: str, subject: str) -> str:
    results = rounds[workload].get(subject, [])
    found = report.rates(results)
    failed = f" ({len(results) - len(found)} failed)" if len(found) < len(results) else ""
    if not found:
        return failed.strip(" ()")
    middle = statistics.median(found)
    return f"{middle:,.0f} ({(max(found) - min(found)) / 2 / middle:.0%}){failed}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:,.0f}"
