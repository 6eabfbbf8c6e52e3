# SPDX-License-Identifier: MIT
"""The benchmark's output: the table with the ratios, the JSON, the plot."""

import json
import os
import platform
import statistics
import subprocess
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from subjects import WORKLOADS, Round


def pmd_title(between: str) -> str:
    """The name of pmd-pytcp with the version that is measured, where it is installed."""
    try:
        return f"pmd-pytcp{between}{version('pmd-pytcp')}"
    except PackageNotFoundError:
        return "pmd-pytcp"


class Target(NamedTuple):
    """The ratios to reach in one workload."""

    linux: float | None = None
    pmd: float | None = None


FLOOR: Final = 0.05
"""of the kernel's own figure, in both directions; below this the design has failed"""

AIMS: Final = {
    "bulk_in": (Target(0.20, 50), Target(0.40, 150)),
    "bulk_out": (Target(0.30, 50), Target(0.60, 150)),
    "bulk_out_big": (Target(), Target()),
    "rr": (Target(None, 2), Target(None, 5)),
    "crr": (Target(None, 2), Target(None, 5)),
    "udp_in": (Target(None, 3), Target(None, 6)),
    "udp_out": (Target(None, 3), Target(None, 6)),
    "http": (Target(), Target()),
}
"""the least ratio, and the aim; each is a ratio of medians of one run"""

OURS: Final = ("skbus", "compiled", "fused")
PEERS: Final = ("gvisor", "lwip")
"""stacks in other languages"""

TARGETS: Final = Path(__file__).with_name("targets.toml")
"""Ratios that one of ours is to reach to one other stack, and what is compared with a commit."""

Rounds = dict[str, dict[str, list[Round | str]]]
"""workload -> subject -> the result of each repetition: a Round, or why it failed"""


def machine() -> dict[str, Any]:
    """The facts of the machine without which the figures cannot be read."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_before": os.getloadavg()[0],
    }


def rates(results: list[Round | str]) -> list[float]:
    return [r.rate for r in results if isinstance(r, Round)]


def median(rounds: Rounds, workload: str, subject: str) -> float | None:
    """Median rate; None where no repetition succeeded."""
    found = rates(rounds.get(workload, {}).get(subject, []))
    return statistics.median(found) if found else None


def against(rounds: Rounds, workload: str, subject: str) -> dict[str, float | None]:
    """The ratio of one of ours to each of the others. Linux is there by its own tool, iperf3, where
    that has a figure."""
    ours = median(rounds, workload, subject)
    others = {name: median(rounds, workload, name) for name in ("linux", "pmd", *PEERS)}
    others["linux"] = median(rounds, workload, "iperf3") or others["linux"]
    return {name: ours / rate if ours and rate else None for name, rate in others.items()}


def ratios(
    rounds: Rounds, workload: str, subject: str = "skbus"
) -> tuple[float | None, float | None]:
    """skbus against Linux, and pmd-pytcp."""
    found = against(rounds, workload, subject)
    return found["linux"], found["pmd"]


def _figure(rounds: Rounds, workload: str, subject: str) -> str:
    results = rounds.get(workload, {}).get(subject, [])
    found = rates(results)
    failed = len(results) - len(found)
    note = f"\n[red]{failed}/{len(results)} failed[/]" if failed else ""
    if not found:
        return note.strip() or "-"
    text = f"[bold]{statistics.median(found):,.0f}[/]"
    if len(found) > 1:
        spread = (max(found) - min(found)) / 2 / statistics.median(found)
        text += f"\n[dim]± {spread:.0%}[/]"
    return text + note


def _verdict(value: float | None, least: float | None, aim: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    text = f"{value:.1%}" if percent else f"{value:,.1f} x" if value >= 1 else f"{value:.2f} x"
    if least is None:
        return text
    colour = "green" if aim is not None and value >= aim else "yellow" if value >= least else "red"
    wanted = f"{least:.0%}, {aim:.0%}" if percent else f"{least:g}, {aim:g}"
    return f"[{colour}]{text}[/]\n[dim]{wanted}[/]"


def titles(between: str = " ") -> dict[str, str]:
    """Each subject's title, in the table's order."""
    return {
        "iperf3": f"Linux{between}iperf3",
        "linux": "Linux",
        "gvisor": "gVisor",
        "lwip": "lwIP",
        "skbus": "skbus",
        "pmd": pmd_title(between),
        "compiled": "compiled",
        "fused": "fused",
    }


def measured(rounds: Rounds) -> dict[str, str]:
    """The titles of those that a table has columns for: what `make bench` measures, but compiled
    builds and peers only where they were in the run."""
    there = {subject for found in rounds.values() for subject in found}
    if not there & set(PEERS):
        there |= {"iperf3", "linux", "skbus", "pmd"}
    return {name: title for name, title in titles("\n").items() if name in there}


def _ratio_columns(columns: dict[str, str]) -> list[tuple[str, str]]:
    """Who is compared with whom."""
    others = [name for name in ("linux", "pmd", *PEERS) if name in columns]
    return [(subject, other) for subject in OURS if subject in columns for other in others]


def table(rounds: Rounds, seconds: float, reps: int) -> Table:
    """The medians side by side; with the ratios, unless peers make it too wide for them."""
    columns = measured(rounds)
    peers = any(name in columns for name in PEERS)
    shown = Table(
        title=f"medians of {reps} rounds of {seconds:g} s, interleaved",
        caption=CAPTION_ALONE if peers else CAPTION,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        leading=1,
    )
    shown.add_column("what", no_wrap=True)
    compared = [] if peers else _ratio_columns(columns)
    _add_columns(shown, [*columns.values(), *_compared_titles(compared)])
    for name in rounds:
        shown.add_row(
            f"{WORKLOADS[name].title}\n[dim]{WORKLOADS[name].unit}[/]",
            *(_figure(rounds, name, subject) for subject in columns),
            *_verdicts(rounds, name, compared),
        )
    return shown


def ratio_table(rounds: Rounds) -> Table | None:
    """Ours against all others, where peers were measured."""
    columns = measured(rounds)
    compared = _ratio_columns(columns)
    if not compared or not any(name in columns for name in PEERS):
        return None
    targets = tomllib.loads(TARGETS.read_text())
    shown = Table(
        title="ratios of the medians",
        caption="under a ratio: at least, aim",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        leading=1,
    )
    shown.add_column("what", no_wrap=True)
    _add_columns(shown, _compared_titles(compared))
    for name in rounds:
        shown.add_row(WORKLOADS[name].title, *_verdicts(rounds, name, compared, targets))
    return shown


CAPTION_ALONE: Final = "± half the range; Linux is the other end throughout"
CAPTION: Final = "± half the range; under a ratio: at least, aim; Linux is the other end throughout"


def _add_columns(shown: Table, names: list[str]) -> None:
    for title in names:
        shown.add_column(title, justify="right", no_wrap=True)


def _compared_titles(compared: list[tuple[str, str]]) -> list[str]:
    short = {**titles(), "pmd": "pmd"}
    return [f"{subject} /\n{short[other]}" for subject, other in compared]


def _verdicts(
    rounds: Rounds,
    workload: str,
    compared: list[tuple[str, str]],
    targets: dict[str, Any] | None = None,
) -> list[str]:
    """The cells of one row. targets: as in targets.toml, before those of AIMS."""
    found: list[str] = []
    for subject, other in compared:
        value = against(rounds, workload, subject)[other]
        least, aim = (target._asdict().get(other) for target in AIMS[workload])
        least, aim = (targets or {}).get(other, {}).get(subject, {}).get(workload, (least, aim))
        found.append(_verdict(value, least, aim, percent=other == "linux"))
    return found


def cpu_table(rounds: Rounds) -> Table | None:
    """Where our processors' time goes: the median share of one processor, for each process."""
    shares: dict[str, dict[str, float]] = {}
    for name, subjects in rounds.items():
        good = [r for r in subjects.get("skbus", []) if isinstance(r, Round)]
        times = [r.detail["cpu_seconds"] for r in good if "cpu_seconds" in r.detail]
        if times:
            lengths = [
                r.detail["linux"].get("seconds") or r.detail["subject"]["seconds"] for r in good
            ]
            shares[name] = {
                process: statistics.median(
                    t[process] / length for t, length in zip(times, lengths, strict=True)
                )
                for process in times[0]
            }
    if not shares:
        return None
    shown = Table(
        title="skbus: processors kept busy by each process",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("what", no_wrap=True)
    for process in next(iter(shares.values())):
        shown.add_column(process, justify="right")
    for name, found in shares.items():
        shown.add_row(WORKLOADS[name].title, *(f"{share:.2f}" for share in found.values()))
    return shown


def print_table(console: Console, table: Table) -> None:
    """Print a whole table: into a file as wide as needed. On a terminal that is too narrow, each
    row is a block of lines."""
    wide = console.options.update(max_width=10_000)
    needed = Measurement.get(console, wide, table).maximum
    if needed <= console.width:
        console.print(table)
    elif not console.is_terminal:
        before, console.width = console.width, needed
        console.print(table)
        console.width = before
    else:
        _print_rows(console, table)


def _print_rows(console: Console, table: Table) -> None:
    def plain(markup: Any) -> str:
        return " ".join(Text.from_markup(str(markup)).plain.replace("-\n", "-").split())

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, overflow="ignore", crop=False)

    if table.title:
        line(plain(table.title))
    titles = [plain(column.header) for column in table.columns]
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        line(plain(first))
        for title, cell in zip(titles[1:], others, strict=True):
            line(f"  {title}: {plain(cell)}")
    if table.caption:
        line(plain(table.caption))


def below_floor(rounds: Rounds) -> list[str]:
    """The bulk directions in which we are under FLOOR of the kernel's own figure."""
    found: list[str] = []
    for name in ("bulk_in", "bulk_out"):
        if name in rounds and "skbus" in rounds[name]:
            ratio = ratios(rounds, name)[0]
            if ratio is None or ratio < FLOOR:
                found.append(name)
    return found


def to_json(rounds: Rounds, facts: dict[str, Any], path: Path) -> None:
    """Every round with its details, the medians and the ratios."""
    out: dict[str, Any] = {**facts, "workloads": {}}
    for name, subjects in rounds.items():
        to_linux, to_pmd = ratios(rounds, name)
        out["workloads"][name] = {
            "title": WORKLOADS[name].title,
            "unit": WORKLOADS[name].unit,
            "ratio_to_linux": to_linux,
            "ratio_to_pmd": to_pmd,
            "ratios": {
                subject: against(rounds, name, subject) for subject in OURS if subject in subjects
            },
            "subjects": {
                subject: {
                    "median": median(rounds, name, subject),
                    "rounds": [
                        {"rate": r.rate, "cpu": r.cpu, **r.detail}
                        if isinstance(r, Round)
                        else {"error": r}
                        for r in results
                    ],
                }
                for subject, results in subjects.items()
            },
        }
    path.write_text(json.dumps(out, indent=1) + "\n")


def plot(rounds: Rounds, path: Path) -> str:
    """Draw the medians with their spread; returns where, or why not."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "no plot: matplotlib is not installed (pip install -e '.[bench]')"
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    subjects = (
        ("iperf3", "Linux, iperf3", "#555555"),
        ("linux", "Linux", "#999999"),
        ("gvisor", "gVisor", "#8c564b"),
        ("lwip", "lwIP", "#c49c94"),
        ("skbus", "skbus", "#1f77b4"),
        ("compiled", "compiled", "#17becf"),
        ("fused", "fused", "#2ca02c"),
        ("pmd", pmd_title("\n"), "#ff7f0e"),
    )
    columns = min(3, len(rounds))
    rows = -(-len(rounds) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(rounds) :]:
        axis.remove()
    for axis, name in zip(axes.flat, rounds, strict=False):
        shown = [s for s in subjects if rates(rounds[name].get(s[0], []))]
        for x, (subject, title, colour) in enumerate(shown):
            found = rates(rounds[name][subject])
            middle = statistics.median(found)
            spread = [[middle - min(found)], [max(found) - middle]]
            axis.bar(x, middle, color=colour, yerr=spread, capsize=3, label=title)
            axis.annotate(f"{middle:,.0f}", (x, max(found)), ha="center", va="bottom", fontsize=8)
        axis.set_yscale("log")
        axis.margins(y=0.15)
        axis.set_title(f"{WORKLOADS[name].title} [{WORKLOADS[name].unit}]", fontsize=9)
        axis.set_xticks(range(len(shown)), [s[1] for s in shown], fontsize=7)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=120)
    plt.close(figure)
    return f"plot: {path.with_suffix('.png')}"
