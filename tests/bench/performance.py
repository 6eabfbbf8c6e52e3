# SPDX-License-Identifier: MIT
"""Where the time goes, and how the rate grows: the tables of docs/performance.md.

    performance.py [--seconds 2] [--reps 3] [--only layers,growth,connections,budget]
                   [--into docs/performance.md]

layers: each process's processor time and wake-ups for one unit of work (a megabyte, a round trip, a
connection, a datagram). Besides, the rate that the slowest process alone would allow on a machine
with a processor for each. growth: bulk and round trips against size, loss and MTU. connections:
short connections and bulk next to up to 100,000 idle ones, which take a few minutes to open.
budget: the stages of a small message, drawn as a timeline (timeline.svg beside the page), and their
floors. It takes a minute, root and perf.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markdown import Markdown

import budget
import idle
import report
from growth import draw
from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from subjects import WORKLOADS, BenchError, Process, Skbus, Workload

BEGIN: Final = "<!-- tests/bench/performance.py writes what follows -->"
END: Final = "<!-- until here -->"
UNITS: Final = {
    "bulk_in": ("MB", 1e-6),
    "bulk_out": ("MB", 1e-6),
    "rr": ("round trip", 1.0),
    "crr": ("connection", 1.0),
    "udp_in": ("datagram", 1.0),
    "udp_out": ("datagram", 1.0),
}
SIZES: Final = (1, 256, 4096, 65536, 1 << 20)
LOSSES: Final = ("0%", "0.01%", "0.1%", "1%")
MTUS: Final = (576, 1500, 9000)
IDLE: Final = (10, 1_000, 10_000, 100_000)
PARTS: Final = ("layers", "growth", "connections", "budget")
PER_CLIENT: Final = 15_000
"""Idle connections that one process on Linux opens, to a port of its own. The process must have
descriptors for them."""


def wakeups(subject: Skbus) -> dict[str, int]:
    """How often each layer has slept."""
    run = RunDir(subject.run_dir)
    return {name: ctl_call(run, name, "status")["wakeups"] for name in subject.layers}


def layers(seconds: float, reps: int, console: Console) -> list[str]:
    """The table of processor time, and what follows from it."""
    subject = Skbus([])
    lines: list[str] = []
    bounds: list[str] = []
    try:
        for name, (unit, scale) in UNITS.items():
            console.print(f"layers: {WORKLOADS[name].title}", style="dim")
            spent: dict[str, list[float]] = {}
            woken: dict[str, list[float]] = {}
            for _ in range(reps):
                if subject.server is None:
                    subject.up()
                before = wakeups(subject)
                found = subject.round(WORKLOADS[name], seconds)
                after = wakeups(subject)
                done = found.detail["linux" if name != "udp_in" else "subject"]["bytes"] * scale
                for process, cpu in found.detail["cpu_seconds"].items():
                    spent.setdefault(process, []).append(cpu / done * 1e6)
                for process in before:
                    woken.setdefault(process, []).append((after[process] - before[process]) / done)
            cost = {process: statistics.median(values) for process, values in spent.items()}
            if not lines:
                lines += [
                    f"| us of processor time | {' | '.join(cost)} | all |",
                    f"|---|{'--:|' * (len(cost) + 1)}",
                ]
            cells = [
                f"{us:.0f} ({statistics.median(woken[p]):.1f})" if p in woken else f"{us:.0f}"
                for p, us in cost.items()
            ]
            title = f"{WORKLOADS[name].title}, a {unit}"
            lines.append(f"| {title} | {' | '.join(cells)} | {sum(cost.values()):.0f} |")
            slowest = max(cost, key=lambda p: cost[p])
            rate = 1e6 / cost[slowest]
            told = f"{rate * 8 / 1000:.1f} Gbit/s" if scale != 1.0 else f"{rate:,.0f} a second"
            if name != "rr" and name != "crr":
                bounds.append(f"| {WORKLOADS[name].title} | {slowest} | {told} |")
    finally:
        subject.down()
    return [
        "### Where the time goes",
        "",
        "In brackets: how often the process was woken up for it. System calls "
        "are included; what the kernel does at the other end is not.",
        "",
        *lines,
        "",
        "### What a bigger machine would give",
        "",
        "With a processor for each process and one for the other end, the slowest process is the "
        "limit (computed from the table above; round trips do not gain, as nothing in them is "
        "done at the same time):",
        "",
        "| | slowest | at most |",
        "|---|---|--:|",
        *bounds,
        "",
    ]


def rates(subject: Skbus, workload: Workload, seconds: float, reps: int, **order: Any) -> str:
    """Median rate, or why there is none."""
    try:
        found = [subject.round(workload, seconds, **order).rate for _ in range(reps)]
    except (BenchError, OSError, RuntimeError) as e:
        subject.down()
        return f"failed: {e}"
    return f"{statistics.median(found):,.0f}"


def growth(seconds: float, reps: int, console: Console) -> list[str]:
    """Rates against message size, loss and MTU."""
    lines = ["### How the rate grows", "", "| bytes there and back | round trips a second |",
             "|--:|--:|"]  # fmt: skip
    subject = Skbus([])
    try:
        for size in SIZES:
            console.print(f"growth: {size} bytes", style="dim")
            rate = rates(subject, WORKLOADS["rr"], seconds, reps, size=size)
            lines.append(f"| {size:,} | {rate} |")
    finally:
        subject.down()
    for title, option, values in (
        ("loss each way", "--loss", LOSSES),
        ("MTU", "--mtu", MTUS),
    ):
        lines += ["", f"| {title} | bulk in, Mbit/s | bulk out, Mbit/s |", "|--:|--:|--:|"]
        for value in values:
            console.print(f"growth: {title} {value}", style="dim")
            given = [] if value == "0%" else [option, str(value)]
            subject = Skbus(given)
            try:
                cells = [
                    rates(subject, WORKLOADS[name], seconds, reps)
                    for name in ("bulk_in", "bulk_out")
                ]
            finally:
                subject.down()
            lines.append(f"| {value} | {' | '.join(cells)} |")
    return [*lines, ""]


def hold(subject: Skbus, clients: list[Process], have: int, want: int) -> None:
    """Open idle connections until there are `want`. clients: the processes that hold them."""
    assert subject.server is not None
    while have < want:
        count = min(500, want - have, PER_CLIENT - have % PER_CLIENT)
        number = have // PER_CLIENT
        if number == len(clients):
            clients.append(subject.another_client())
        port = 45000 + number
        subject.server.say(op="hold_accept", port=port, count=count, seconds=0)
        subject.server.hear(60)
        clients[number].say(
            op="hold_connect", host=subject.address, port=port, count=count, seconds=0
        )
        clients[number].hear(120)
        subject.server.hear(120)
        have += count


def cost_of_a_connection(subject: Skbus, seconds: float, reps: int) -> dict[str, float]:
    """us of processor time that each process spends on a connect-ask-close."""
    spent: dict[str, list[float]] = {}
    for _ in range(reps):
        detail = subject.round(WORKLOADS["crr"], seconds).detail
        for process, cpu in detail["cpu_seconds"].items():
            spent.setdefault(process, []).append(cpu / detail["linux"]["bytes"] * 1e6)
    return {process: statistics.median(values) for process, values in spent.items()}


def connections(seconds: float, reps: int, console: Console) -> list[str]:
    """Short connections and bulk, next to idle connections."""
    lines = [
        "### Beside idle connections",
        "",
        "Processor time of a connect-ask-close, us, and bulk, while so many connections are open "
        "and idle; memory of all processes for each of them.",
        "",
        "| idle | tcp | socket | all processes | bulk in, Mbit/s | bulk out, Mbit/s | bytes each |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    subject = Skbus(["--sysctl", "fs.nr_open=1048576"])  # for one application that has them all
    try:
        subject.up()
        before = sum(idle.pss_bytes(subject.pids).values())
        have = 0
        clients: list[Process] = []
        for count in IDLE:
            console.print(f"connections: {count} idle", style="dim")
            opened = before if not have else sum(idle.pss_bytes(subject.pids).values())
            hold(subject, clients, have, count)
            grown = sum(idle.pss_bytes(subject.pids).values()) - opened
            each = f"{grown / (count - have):,.0f}" if have else ""
            have = count
            cost = cost_of_a_connection(subject, seconds, reps)
            bulk = [rates(subject, WORKLOADS[w], seconds, reps) for w in ("bulk_in", "bulk_out")]
            lines.append(
                f"| {count:,} | {cost['tcp']:.0f} | {cost['socket']:.0f} | "
                f"{sum(cost.values()):.0f} | {' | '.join(bulk)} | {each} |"
            )
            if subject.server is None:
                break  # a round failed, and with the stack the idle connections are gone
    except (BenchError, OSError) as e:
        lines.append(f"| failed: {e} | | | | | | |")
    finally:
        subject.down()
    return [*lines, ""]


def sections(page: str) -> dict[str, str]:
    """Heading of the third level -> the text below it; "" -> the text before the first."""
    found = {"": ""}
    heading = ""
    for line in page.splitlines(keepends=True):
        if line.startswith("### "):
            heading = line.strip()
            found[heading] = ""
        found[heading] += line
    return found


def write_into(path: Path, page: str, whole: bool) -> None:
    """Replace the marked part of a page; or, unless whole, only the sections that `page` has."""
    before, _, rest = path.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    if not whole:
        new = sections(page)
        del new[""]
        page = "".join((sections(old.strip() + "\n\n") | new).values()).strip() + "\n"
    path.write_text(f"{before}{BEGIN}\n\n{page}\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (2)")
    parser.add_argument("--reps", type=int, default=3, help="rounds, of which the median (3)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--into", type=Path, help="page whose marked part is to be replaced")
    chosen = parser.parse_args()
    only = chosen.only.split(",")
    if wrong := [name for name in only if name not in PARTS]:
        parser.error(f"--only {wrong[0]}: not one of {', '.join(PARTS)}")
    console = Console(stderr=True)
    machine = report.machine()
    kernel = machine["kernel"].partition("-")[0]
    text = [
        f"{machine['cpu']}, {machine['cpus']} processors, Linux {kernel}, Python "
        f"{machine['python']}, {machine['date'][:10]}; medians of {chosen.reps} rounds of "
        f"{chosen.seconds:g} s.",
        "",
    ]
    parts = {"layers": layers, "growth": growth, "connections": connections}
    for name, make in parts.items():
        if name in only:
            text += make(chosen.seconds, chosen.reps, console)
    seen: budget.Seen = {}
    if "budget" in only:
        seen, floors = budget.measure(console)
        text += budget.page(seen, floors)
    page = "\n".join(text)
    shown = Console()
    if shown.is_terminal and shown.width >= max(map(len, page.splitlines())):
        shown.print(Markdown(page))
    else:
        sys.stdout.write(page + "\n")  # rich would cut the tables' figures
    if chosen.into is not None:
        write_into(chosen.into, page, set(PARTS) <= set(only))
        if seen:
            drawn = budget.draw(seen, chosen.into.with_name("timeline.svg"))
            console.print(drawn, style="dim")
        drawn = draw(chosen.into.read_text(), chosen.into.with_name("growth.svg"))
        console.print(drawn, style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
