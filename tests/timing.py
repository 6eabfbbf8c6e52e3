# SPDX-License-Identifier: MIT
"""How long tests take: which `make quick` leaves out, and which are over the budget of their kind.

This is a plugin, which `tests/conftest.py` registers. `durations.json` beside this file names the
test functions that take long; `pytest --record-durations` writes it, from the tests of that run.
No test fails for its time: the report at the end names those above their budget.
"""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parent
RECORD: Final = TESTS / "durations.json"
LONG: Final = 0.3
"""A test function that takes more, with all its parameters, is in the record."""
BUDGETS: Final = {"unit": 2.0, "simulation": 20.0, "lab": 60.0, "slow": 300.0}
"""Seconds that a test may take, by its kind: of processor time, because a machine may be busy; of
time as it passes for tests in namespaces, which wait for other processes."""
_SIMULATED: Final = frozenset(("sim", "packetdrill", "load", "skbustest"))
_BEGAN: Final = pytest.StashKey[tuple[float, float]]()
_LEFT_OUT: Final = ("lab", "compose", "readme", "slow")
_SHOWN: Final = 20


def processor_time() -> float:
    """Seconds that this process has used, and its children that have ended."""
    return sum(os.times()[:4])


def kind_of(item: pytest.Item) -> str:
    """A key of BUDGETS."""
    if any(item.get_closest_marker(name) for name in ("slow", "compose", "readme")):
        return "slow"
    if item.get_closest_marker("lab"):
        return "lab"
    where = item.path.relative_to(TESTS).parts
    return "simulation" if _SIMULATED.intersection(where) else "unit"


def function_of(nodeid: str) -> str:
    """A test function in the record's words: its file below tests, and its name."""
    return nodeid.removeprefix("tests/").partition("[")[0]


def options(parser: pytest.Parser) -> None:
    """--quick and --record-durations"""
    group = parser.getgroup("skbus")
    group.addoption("--quick", action="store_true", help="leave out tests that take long")
    group.addoption("--record-durations", action="store_true", help="write durations.json anew")


class Timing:
    """The plugin."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.took: list[tuple[str, str, float]] = []
        """(kind, test, seconds) of each test that has ended."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self.config.getoption("--quick"):
            return
        long = json.loads(RECORD.read_text())
        out = [
            item
            for item in items
            if function_of(item.nodeid) in long or any(map(item.get_closest_marker, _LEFT_OUT))
        ]
        self.config.hook.pytest_deselected(items=out)
        left_out = set(out)
        items[:] = [item for item in items if item not in left_out]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        item.stash[_BEGAN] = (time.monotonic(), processor_time())
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """The last report of a test has what it took; xdist carries that to the main process."""
        report = yield
        if report.when == "teardown":
            passed, used = item.stash[_BEGAN]
            kind = kind_of(item)
            waits = kind == "lab" or bool(item.get_closest_marker("lab"))
            took = time.monotonic() - passed if waits else processor_time() - used
            report.user_properties = [*report.user_properties, ("took", (kind, took))]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            properties: dict[str, Any] = dict(report.user_properties)
            if "took" in properties:
                kind, seconds = properties["took"]
                self.took.append((kind, report.nodeid, seconds))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        over = [one for one in self.took if one[2] > BUDGETS[one[0]]]
        if over:
            budgets = ", ".join(f"{kind} {seconds:g} s" for kind, seconds in BUDGETS.items())
            terminalreporter.section(f"above their budget ({budgets}): {len(over)}")
            over.sort(key=lambda one: one[2] / BUDGETS[one[0]], reverse=True)
            for kind, test, seconds in over[:_SHOWN]:
                terminalreporter.line(f"{seconds:8.1f} s  {kind:10}  {test}")
        if self.config.getoption("--record-durations"):
            record(self.took)


def record(took: list[tuple[str, str, float]]) -> None:
    """Write anew what the record says of the functions that have run; the others stay, as far as
    their files are there."""
    total: dict[str, float] = {}
    for _, test, seconds in took:
        name = function_of(test)
        total[name] = total.get(name, 0.0) + seconds
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kept = {
        name: seconds
        for name, seconds in before.items()
        if name not in total and (TESTS / name.partition("::")[0]).exists()
    }
    long = {name: round(seconds, 1) for name, seconds in total.items() if seconds > LONG}
    RECORD.write_text(json.dumps(dict(sorted({**kept, **long}.items())), indent=0) + "\n")
