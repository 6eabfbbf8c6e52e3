# SPDX-License-Identifier: MIT
"""docs/simulation.md: what it prints is what its code does, and so are its example's figures."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples/simulation"))

import sawtooth  # noqa: E402

PAGE = (ROOT / "docs/simulation.md").read_text()


def test_the_first_run_prints_what_the_page_says() -> None:
    before, _, after = PAGE.partition("## A first run\n")[2].partition("It prints\n")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before)], capture_output=True, text=True, check=True
    )
    printed = "".join(f"    {line}\n" for line in done.stdout.splitlines())
    assert after.lstrip("\n").startswith(printed + "\n")


@pytest.fixture(scope="module")
def runs() -> list[sawtooth.Run]:
    return [sawtooth.simulate(control) for control in sawtooth.CONTROLS]


class Steady(NamedTuple):
    """What a description says once slow start is over: Mbit/s, segments before and after a cut,
    and seconds from one cut to the next."""

    rate: float
    before: float
    after: float
    period: float


def steady(description: str) -> Steady:
    rows = [[float(w) for w in re.findall(r"\d+\.?\d*", r)] for r in description.splitlines()]
    (before_last, *_), (last, before, after) = rows[-2:]
    return Steady(rows[0][0], before, after, last - before_last)


def test_the_figures_are_the_pages(runs: list[sawtooth.Run]) -> None:
    """But for slow start's, and nearly: the page need not follow each change of a timer."""
    shown = PAGE.partition("\n    reno")[2].partition("\n\n")[0].partition("    cubic")
    for run, description in zip(runs, (shown[0].rstrip(), shown[2]), strict=True):
        now = sawtooth.describe(run)
        assert steady(description) == pytest.approx(steady(now), rel=0.05), now


def test_each_control_cuts_as_its_rfc_says(runs: list[sawtooth.Run]) -> None:
    """RFC 5681 4: to a half. RFC 9438 4.6: to 0.7. Slow start's first loss is of the same kind."""
    for run, share in zip(runs, (0.5, 0.7), strict=True):
        cuts = [
            line.split() for line in sawtooth.describe(run).splitlines() if line.startswith("    ")
        ]
        assert len(cuts) >= 5
        for words in cuts:
            before, after = float(words[4]), float(words[6])
            assert after / before == pytest.approx(share, abs=0.025)


def test_the_plot_is_drawn(runs: list[sawtooth.Run], tmp_path: Path) -> None:
    sawtooth.plot(runs, str(tmp_path / "sawtooth.svg"))
    drawn = (tmp_path / "sawtooth.svg").read_text()
    committed = (ROOT / "docs/examples/sawtooth.svg").read_text()
    for svg in (drawn, committed):
        for text in (
            "snd_cwnd, segments",
            "frames in the queue",
            "virtual time, s",
            *sawtooth.CONTROLS,
        ):
            assert f"<!-- {text} -->" in svg
        assert len(svg) > 50_000  # 1,000 points in each of four lines
