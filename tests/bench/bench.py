# SPDX-License-Identifier: MIT
"""`make bench`: Linux, skbus and pmd-pytcp against Linux, in one run.

    bench.py [--quick] [--only bulk_in,rr] [--subjects linux,skbus] [--reps 5] [--seconds 2]

The rounds of the subjects take turns, so that other load on the machine meets all alike. Compare
only figures of one run. A round counts only when both ends have counted the same.

Exit status: 0; 1 where our bulk rate is under 5 % of the kernel's own; 2 where a subject gave no
figure; 130 after Ctrl-C. Even then the figures so far are reported.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import idle
import into
import report
from peers import Gvisor, Lwip
from subjects import (
    WORKLOADS,
    BenchError,
    Compiled,
    Fused,
    Iperf3,
    Kernel,
    Pmd,
    Round,
    Skbus,
    Subject,
)

SUBJECTS = ("iperf3", "linux", "gvisor", "lwip", "skbus", "compiled", "fused", "pmd")
ASKED = ("gvisor", "lwip", "fused")
"""measured where they are asked for; the others always"""


def names(known: tuple[str, ...]) -> object:
    """An argparse type: some of the known names, comma-separated."""

    def parse(text: str) -> list[str]:
        given = text.split(",")
        wrong = [name for name in given if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]}: not one of {', '.join(known)}")
        return [name for name in known if name in given]

    return parse


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = tuple(WORKLOADS)
    parser.add_argument("--only", type=names(known), default=list(known), help=", ".join(known))  # type: ignore[arg-type]
    parser.add_argument(
        "--subjects",
        type=names(SUBJECTS),  # type: ignore[arg-type]
        default=[name for name in SUBJECTS if name not in ASKED],
        help=f"{', '.join(SUBJECTS)}; by default all but {', '.join(ASKED)}",
    )
    parser.add_argument("--reps", type=int, default=5, help="rounds of each kind (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (2)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 s")
    parser.add_argument(
        "--idle", type=int, default=10_000, help="idle connections afterwards (10000); 0: none"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="directory (bench-out)")
    parser.add_argument(
        "--lab-options", default="", help="more options for `skbus lab up`, in one argument"
    )
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="write the figures into a page, between its marks"
    )
    parser.add_argument("--no-plot", action="store_true", help="the table and the JSON alone")
    found = parser.parse_args(arguments)
    if found.quick:
        found.reps, found.seconds = 3, 1.0
        found.idle = min(found.idle, 1000)
    if found.reps < 1 or found.seconds <= 0:
        parser.error("--reps and --seconds must be positive")
    if found.into is not None:
        try:
            into.check(found.into)
        except into.NoPlace as e:
            parser.error(f"--into {e}")
    return found


def make_subjects(chosen: list[str], lab_options: str, gso_max_size: int = 0) -> list[Subject]:
    """The chosen subjects; iperf3 runs on the cable of Linux to Linux. With gso_max_size, only
    those whose interface can be told."""
    kernel = Kernel(gso_max_size)
    options = lab_options.split()
    if gso_max_size:
        options += ["--gso-max-size", str(gso_max_size)]
    every: dict[str, Callable[[], Subject]] = {
        "linux": lambda: kernel,
        "skbus": lambda: Skbus(options),
        "compiled": lambda: Compiled(options),
        "fused": lambda: Fused(options),
    }
    if not gso_max_size:
        every |= {"iperf3": lambda: Iperf3(kernel), "pmd": Pmd, "gvisor": Gvisor, "lwip": Lwip}
    return [every[name]() for name in chosen if name in every]


def one(subject: Subject, workload: str, seconds: float) -> Round | str:
    """One round. If it fails, the result is the reason, and the next round has a fresh stack."""
    try:
        return subject.round(WORKLOADS[workload], seconds)
    except (BenchError, RuntimeError, OSError, KeyError, ValueError) as e:
        try:
            subject.down()
        except BenchError as more:
            return f"{e}; {more}"
        return f"{type(e).__name__}: {e}" if not isinstance(e, BenchError) else str(e)


def run(chosen: argparse.Namespace, console: Console) -> tuple[report.Rounds, dict[str, str], bool]:
    """All rounds; (results, subjects left out and why, whether Ctrl-C ended it)."""
    rounds: report.Rounds = {name: {} for name in chosen.only}
    absent: dict[str, str] = {}
    interrupted = False
    for size in sorted({WORKLOADS[name].gso_max_size for name in chosen.only}):
        if not interrupted:
            subjects = make_subjects(chosen.subjects, chosen.lab_options, size)
            workloads = [name for name in chosen.only if WORKLOADS[name].gso_max_size == size]
            left_out, interrupted = run_all(subjects, workloads, chosen, console, rounds)
            absent |= left_out
    return rounds, absent, interrupted


def who_is_there(
    subjects: list[Subject], workloads: list[str], console: Console
) -> tuple[list[Subject], dict[str, str]]:
    """The subjects that can be measured; what is left out, and why: a subject, or some of its
    rounds. Programs are built here."""
    with console.status("building what is to be measured"):
        absent = {s.name: why for s in subjects if (why := s.missing())}
    present = [s for s in subjects if s.name not in absent]
    for subject in present:
        reasons: dict[str, list[str]] = {}
        for workload in workloads:
            if why := subject.lacks(WORKLOADS[workload]):
                reasons.setdefault(why, []).append(workload)
        absent |= {f"{subject.name} {', '.join(names)}": why for why, names in reasons.items()}
        absent |= subject.compromises()
    for name, why in absent.items():
        console.print(f"[yellow]without {name}:[/] {why}", highlight=False)
    return present, absent


def run_all(
    subjects: list[Subject],
    workloads: list[str],
    chosen: argparse.Namespace,
    console: Console,
    rounds: report.Rounds,
) -> tuple[dict[str, str], bool]:
    """The rounds of some workloads, of all subjects in turn, into `rounds`; (subjects left out and
    why, whether Ctrl-C ended it)."""
    present, absent = who_is_there(subjects, workloads, console)
    plan = [
        (workload, subject)
        for _ in range(chosen.reps)
        for workload in workloads
        for subject in present
        if not subject.lacks(WORKLOADS[workload])
    ]
    columns = (
        TextColumn("{task.description:<48}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(plan))
            for workload, subject in plan:
                progress.update(task, description=f"{subject.title}: {WORKLOADS[workload].title}")
                result = one(subject, workload, chosen.seconds)
                rounds[workload].setdefault(subject.name, []).append(result)
                if isinstance(result, str):
                    console.print(f"[red]{subject.name} {workload}:[/] {result}", highlight=False)
                progress.advance(task)
        return absent, False
    except KeyboardInterrupt:
        return absent, True
    finally:
        for subject in subjects:
            try:
                subject.down()
            except (BenchError, OSError) as e:
                console.print(f"[red]{subject.name}:[/] {e}")


def run_idle(chosen: argparse.Namespace, console: Console) -> dict[str, Any] | None:
    """The cost of idle connections; None where this failed, was not asked for, or after Ctrl-C."""
    if (
        not chosen.idle
        or "skbus" not in chosen.subjects
        or not any(name.startswith("bulk") for name in chosen.only)
    ):
        return None
    options = chosen.lab_options.split()
    subject, alone = Skbus(options), Skbus(options, "alone")
    try:
        with console.status("idle connections") as status:
            return idle.measure(
                subject, alone, chosen.idle, chosen.reps, chosen.seconds, status.update
            )
    except (BenchError, RuntimeError, OSError, KeyError) as e:
        console.print(f"[red]idle connections:[/] {e}", highlight=False)
        return None
    except KeyboardInterrupt:
        return None
    finally:
        subject.down()
        alone.down()


def main() -> int:
    chosen = options()
    console = Console()
    facts = {
        "machine": report.machine(),
        "seconds": chosen.seconds,
        "reps": chosen.reps,
    }
    start = time.monotonic()
    rounds, absent, interrupted = run(chosen, console)
    facts["absent"] = absent
    idle_found = None if interrupted else run_idle(chosen, console)
    facts["idle"] = idle_found
    facts["took_seconds"] = round(time.monotonic() - start, 1)
    rounds = {name: found for name, found in rounds.items() if found}
    if not rounds:
        console.print("nothing measured")
        return 130 if interrupted else 2
    report.print_table(console, report.table(rounds, chosen.seconds, chosen.reps))
    if (compared := report.ratio_table(rounds)) is not None:
        report.print_table(console, compared)
    if (busy := report.cpu_table(rounds)) is not None:
        report.print_table(console, busy)
    if idle_found is not None:
        report.print_table(console, idle.table(idle_found))
    chosen.out.mkdir(parents=True, exist_ok=True)
    stem = chosen.out / time.strftime("bench-%Y%m%d-%H%M%S")
    report.to_json(rounds, facts, stem.with_suffix(".json"))
    console.print(f"figures: {stem.with_suffix('.json')}", highlight=False)
    if chosen.into is not None and not interrupted:
        into.write_into(chosen.into, rounds, facts)
        console.print(f"written into {chosen.into}", highlight=False)
    if not chosen.no_plot:
        console.print(report.plot(rounds, stem), highlight=False)
    if interrupted:
        return 130
    under = report.below_floor(rounds)
    for name in under:
        console.print(f"[red]{name}: under {report.FLOOR:.0%} of the kernel's own figure[/]")
    silent = any(not report.rates(r) for found in rounds.values() for r in found.values())
    return 1 if under else 2 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
