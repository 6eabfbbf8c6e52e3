# SPDX-License-Identifier: MIT
"""`make bench-compare BASE=<commit>`: is what lies here faster than a commit, and by how much?

    compare.py BASE [--pairs 10] [--seconds 1] [--only rr,crr] [--subjects interpreted,compiled]
               [--targets tests/bench/targets.toml] [--json]

Both are built (build/compare keeps the builds), and both stacks are up at once, each in a lab. A
round of one is followed by the same round of the other; which is first alternates. Of a build we
use the command line and the socket API alone, so BASE may be old. `paired.py` says what the figures
mean.

Exit status: 0; 1 where something gave no figure; 2 where BASE is not there or does not build; 130
after Ctrl-C. Even then the figures so far are reported.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import paired
import report
import startup
import trees
from bench import names
from paired import Pair, Row
from subjects import WORKLOADS, BenchError, Round, Skbus

NOT_COMPARED: Final = ("bulk_out_big",)
"""Needs a lab of its own."""
STARTUPS: Final = {
    "help": ("skbus --help, ms", "skbus --help"),
    "lab_up": ("skbus lab up, ms", "skbus lab up"),
    "rebirth": ("a layer's rebirth, ms", "rebirth of "),
}
"""name -> (title, how `startup.py` names it); of rebirths it is the mean of all layers"""
KNOWN: Final = (*(name for name in WORKLOADS if name not in NOT_COMPARED), *STARTUPS)


class Side(Skbus):
    """One of the two stacks."""

    def __init__(self, tree: trees.Tree, build: str, suffix: str, options: list[str]) -> None:
        super().__init__(options, suffix)
        self.python = str(tree.python(build))
        self.env = {"PYTHONPATH": ""}
        self.title = f"{tree.title}, {build}"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", metavar="BASE", help="a commit, by any name that git knows")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of rounds of each kind (10)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    parser.add_argument(
        "--only",
        type=names(KNOWN),  # type: ignore[arg-type]
        default=list(KNOWN),
        help=", ".join(KNOWN),
    )
    parser.add_argument(
        "--subjects",
        type=names(trees.BUILDS),  # type: ignore[arg-type]
        default=list(trees.BUILDS),
        help=", ".join(trees.BUILDS),
    )
    parser.add_argument(
        "--targets", type=Path, help="TOML: show what is to be reached, and whether"
    )
    parser.add_argument(
        "--lab-options", default="", help="more options for both `skbus lab up`, in one argument"
    )
    parser.add_argument("--here-options", default="", help="the same, for what lies here alone")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="directory (bench-out)")
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    found = parser.parse_args(arguments)
    if found.pairs < 1 or found.seconds <= 0:
        parser.error("--pairs and --seconds must be positive")
    found.wanted = {}
    if found.targets is not None:
        try:
            found.wanted = paired.read_targets(tomllib.loads(found.targets.read_text()))
        except (OSError, ValueError) as e:
            parser.error(f"--targets {found.targets}: {e}")
    return found


def cpu_of(found: Round, measured: str) -> float | None:
    """Processor time of the stack for one unit of work, s."""
    times = found.detail.get("cpu_seconds")
    end = found.detail.get("subject" if measured == "serve" else "linux", {})
    if not times or not end.get("bytes"):
        return None
    return float(sum(times.values())) / float(end["bytes"])


def one_round(side: Side, workload: str, seconds: float) -> Round:
    """One round; after a failure, the next has a fresh stack."""
    try:
        return side.round(WORKLOADS[workload], seconds)
    except BenchError as e:
        down(side)
        raise BenchError(f"{side.title}: {e}") from None
    except (RuntimeError, OSError, KeyError, ValueError, subprocess.SubprocessError) as e:
        down(side)
        raise BenchError(f"{side.title}: {type(e).__name__}: {e}") from None


def down(side: Side) -> None:
    try:
        side.down()
    except (BenchError, OSError, subprocess.SubprocessError):
        side.server = None  # it was not up, or not wholly


def one_pair(base: Side, here: Side, workload: str, seconds: float, base_first: bool) -> Pair:
    """Two rounds, one after the other. BenchError where one fails."""
    found: dict[Side, Round] = {}
    for side in (base, here) if base_first else (here, base):
        found[side] = one_round(side, workload, seconds)
    measured = WORKLOADS[workload].measured
    return Pair(
        found[base].rate,
        found[here].rate,
        cpu_of(found[base], measured),
        cpu_of(found[here], measured),
    )


def measure(
    base: Side, here: Side, rows: list[Row], chosen: argparse.Namespace, step: Callable[[str], None]
) -> None:
    """All pairs of one build, into its rows."""
    try:
        for n in range(chosen.pairs):
            for row in rows:
                step(f"{row.build}, pair {n + 1}: {row.title}")
                try:
                    pair = one_pair(base, here, row.name, chosen.seconds, n % 2 == 0)
                    row.pairs.append(pair)
                except BenchError as e:
                    row.failures.append(str(e))
    finally:
        down(base)
        down(here)


def measure_startups(
    base: trees.Tree, here: trees.Tree, rows: list[Row], pairs: int, step: Callable[[str], None]
) -> None:
    """Pairs of starts, into the rows of one build."""
    layers = list(startup.LAYERS) if any(row.name == "rebirth" for row in rows) else []
    with tempfile.TemporaryDirectory(prefix="skbus-compare-") as cache:
        sides = []
        for tree, title in ((base, "base"), (here, "here")):
            place = Path(cache, f"tree-{title}")
            place.mkdir()
            (place / ".venv").symlink_to(tree.path / rows[0].build)
            sides.append(startup.Tree(place, title, Path(cache), bytecode=True))
        for n in range(-1, pairs):  # the first is not counted: it writes byte code
            step(f"{rows[0].build}, start {n + 1}")
            try:
                for side in sides if n % 2 else sides[::-1]:
                    side.took = {}
                    side.round(layers)
                if n >= 0:
                    for row in rows:
                        row.pairs.append(Pair(*(_took(side.took, row.name) for side in sides)))
            except (SystemExit, OSError, KeyError, ValueError) as e:
                for row in rows:
                    row.failures.append(f"{type(e).__name__}: {e}")


def _took(figures: dict[str, list[float]], name: str) -> float:
    """Seconds of one start."""
    found = [ms for what, every in figures.items() for ms in every if _is(what, name)]
    return statistics.fmean(found) / 1000


def _is(what: str, name: str) -> bool:
    told = STARTUPS[name][1]
    return what.startswith(told) if name == "rebirth" else what == told


def run(
    base: trees.Tree, here: trees.Tree, chosen: argparse.Namespace, console: Console
) -> tuple[list[Row], bool]:
    """(all rows, whether Ctrl-C ended it)."""
    both = chosen.lab_options.split()
    sides = {
        build: (
            Side(base, build, f"{build[0]}b", both),
            Side(here, build, f"{build[0]}h", both + chosen.here_options.split()),
        )
        for build in chosen.subjects
    }
    rows: list[Row] = []
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(12),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    done = -1
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            kinds = sum(name in WORKLOADS for name in chosen.only)
            starts_too = chosen.pairs + 1 if set(STARTUPS) & set(chosen.only) else 0
            total = len(sides) * (chosen.pairs * kinds + starts_too)
            task = progress.add_task("", total=total)

            def step(what: str) -> None:
                nonlocal done
                done += 1
                progress.update(task, description=what, completed=done)
                if not console.is_terminal:
                    console.print(f"{done + 1}/{total} {what}", highlight=False)

            for build, (before, after) in sides.items():
                found = [
                    Row(build, w, WORKLOADS[w].title, False, [], [])
                    for w in chosen.only
                    if w in WORKLOADS
                ]
                starts = [
                    Row(build, w, STARTUPS[w][0], True, [], [])
                    for w in chosen.only
                    if w in STARTUPS
                ]
                rows += found + starts
                if found:
                    measure(before, after, found, chosen, step)
                if starts:
                    measure_startups(base, here, starts, chosen.pairs, step)
        return rows, False
    except KeyboardInterrupt:
        return rows, True


def interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: with its labs."""
    raise KeyboardInterrupt


def build_all(base: trees.Tree, here: trees.Tree, subjects: list[str], console: Console) -> None:
    """TreeError where something does not build."""
    for which in subjects:
        for tree in (base, here):
            trees.build(tree, which, lambda text: console.print(f"==> {text}", highlight=False))


def main() -> int:
    chosen = options()
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        base, here = trees.at_commit(chosen.base), trees.here()
        build_all(base, here, chosen.subjects, console)
    except trees.TreeError as e:
        console.print(str(e), style="red", highlight=False, markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("nothing measured")
        return 130
    start = time.monotonic()
    rows, interrupted = run(base, here, chosen, console)
    facts: dict[str, Any] = {
        "machine": report.machine(),
        "base": base._asdict(),
        "here": here._asdict(),
        "pairs": chosen.pairs,
        "seconds": chosen.seconds,
        "interval": f"paired t on logarithms, {paired.CONFIDENCE:.0%}",
        "took_seconds": round(time.monotonic() - start, 1),
        "rows": [paired.as_json(row, chosen.wanted) for row in rows],
    }
    text = json.dumps(facts, indent=1) + "\n"
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / time.strftime("compare-%Y%m%d-%H%M%S.json")
    path.write_text(text)
    if chosen.json:
        sys.stdout.write(text)
    else:
        sys.stdout.write(paired.table(rows, base.title, here.title, chosen.wanted) + "\n")
        console.print(f"figures: {path}", highlight=False)
    if interrupted:
        return 130
    return 0 if all(row.pairs for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
