# SPDX-License-Identifier: MIT
"""What a small message may cost, what it costs, and how far that is: tables and a figure for
docs/performance.md. `performance.py --only budget` calls it.

A stage's floor is what the same work costs where nothing else is done (`floor.py`). Its budget is
SLACK times that, since a process that does other things in between finds its caches cold.
"""

import sys
from pathlib import Path
from typing import Final

from rich.console import Console

import floor
import timeline
from floor import Floor
from subjects import BenchError, Compiled
from timeline import APPLICATION, ASLEEP, CLIENT, COMPUTED, PREEMPTED, STAGES, WORKS, Span, Work

SLACK: Final = 1.5
TITLES: Final = {"rr": "1-byte round trip", "crr": "connect-ask-close"}
COLOURS: Final = {
    "woken": "#fdae61",
    "read": "#d7301f",
    "framed": "#b3b3b3",
    "decoded": "#80b1d3",
    "delivered": "#bc80bd",
    "protocol": "#1a9850",
    "encoded": "#2166ac",
    "sent": "#8c2d04",
    "to sleep": "#fee090",
    COMPUTED: "#1a9850",
    PREEMPTED: "#eeeeee",
}
KERNEL: Final = ("woken", "read", "sent", "to sleep")
DRAWN: Final = (("interpreted", "rr"), ("compiled", "rr"), ("interpreted", "crr"))
Seen = dict[str, dict[str, Work]]
"""build -> work -> what was seen"""


def measure(console: Console) -> tuple[Seen, dict[str, Floor]]:
    """Everything, by both builds; what cannot be measured is said, and left out."""
    seen: Seen = {}
    floors: dict[str, Floor] = {}
    why = timeline.why_not()
    for build, compiled in (("interpreted", False), ("compiled", True)):
        console.print(f"budget: {build}", style="dim")
        try:
            if why or (why := Compiled([]).missing() if compiled else ""):
                raise BenchError(why)
            seen[build] = timeline.measure(compiled)
        except (BenchError, OSError, RuntimeError) as e:
            console.print(f"no timeline of the {build} build: {e}", highlight=False)
        python = Compiled.python if compiled else sys.executable
        found = floor.measure_by(python)
        if found is not None:
            floors[build] = found
    return seen, floors


def crossings(work: Work) -> float:
    """Messages and frames that our processes sent in one round."""
    sent = sum(
        first <= span.begin < last
        for name, spans in work.spans.items()
        if name != CLIENT
        for span in spans
        if span.stage == "sent"
        for first, last in [(work.rounds[0][0], work.rounds[-1][0])]
    )
    return sent / max(len(work.rounds) - 1, 1)


def stage_table(work: Work) -> list[str]:
    """us of each stage in each of our processes."""
    sums = timeline.stage_sums(work)
    processes = [name for name, stages in sums.items() if name != CLIENT and stages]
    lines = [f"| us | {' | '.join(processes)} | all |", f"|---|{'--:|' * (len(processes) + 1)}"]
    stages = [s for s in (*STAGES, COMPUTED) if any(s in sums[p] for p in processes)]
    for stage in stages:
        values = [sums[p].get(stage, 0.0) for p in processes]
        cells = [f"{value:.0f}" if value else "" for value in values]
        lines.append(f"| {stage} | {' | '.join(cells)} | {sum(values):.0f} |")
    totals = [sum(sums[p].values()) for p in processes]
    cells = [f"{value:.0f}" for value in (*totals, sum(totals))]
    return [*lines, f"| all | {' | '.join(cells)} |"]


def budget_rows(name: str, work: Work, least: Floor) -> list[str]:
    """A row for each group of stages: floor, budget, now, distance."""
    sums = timeline.stage_sums(work)
    ours = {p: stages for p, stages in sums.items() if p != CLIENT}
    layers = {p: stages for p, stages in ours.items() if p != APPLICATION}
    count = crossings(work)
    rings = least.rings
    kernel = rings["epoll"].cpu * count
    framed = max(rings["framed"].cpu - rings["epoll"].cpu, 0.0) * count
    coded = max(rings["coded"].cpu - rings["framed"].cpu, 0.0) * count
    core = max(least.cores[name] - coded, 0.0)

    def now(processes: dict[str, dict[str, float]], stages: tuple[str, ...]) -> float:
        return sum(found.get(s, 0.0) for found in processes.values() for s in stages)

    rows = [("to wait, read, send", kernel, now(ours, KERNEL))]
    if any(COMPUTED in found for found in ours.values()):
        rows.append(("all between", framed + coded + core, now(layers, (COMPUTED, "delivered"))))
    else:
        rows.append(("framed", framed, now(ours, ("framed",))))
        rows.append(("decoded, encoded", coded, now(ours, ("decoded", "encoded"))))
        rows.append(("delivered, protocol", core, now(layers, ("delivered", "protocol"))))
    out = []
    for title, lowest, found in rows:
        allowed = lowest * SLACK
        distance = f"{found / allowed:.1f} x" if allowed else ""
        out.append(f"| {title} | {lowest:.0f} | {allowed:.0f} | {found:.0f} | {distance} |")
    whole = sum(row[1] for row in rows)
    found = sum(row[2] for row in rows)
    distance = f"{found / (whole * SLACK):.1f} x" if whole else ""
    return [*out, f"| all | {whole:.0f} | {whole * SLACK:.0f} | {found:.0f} | {distance} |"]


def floor_table(floors: dict[str, Floor]) -> list[str]:
    """The rings."""
    lines = [f"| us a crossing | {' | '.join(floors)} |", f"|---|{'--:|' * len(floors)}"]
    told = {
        "socketpair": "recv and send on a socketpair",
        "epoll": "the same, and epoll",
        "framed": "the same, and ZMTP",
        "coded": "the same, and the codec",
    }
    for ring, title in told.items():
        cells = [f"{found.rings[ring].cpu:.0f}" for found in floors.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def page(seen: Seen, floors: dict[str, Floor]) -> list[str]:
    """The section of docs/performance.md."""
    lines = [
        "### A budget for a message",
        "",
        "![Rounds of middle length: what each process does, stage by stage](timeline.svg)",
        "",
        "Processor time of all sides for a crossing, in a ring of eight processes on one core that "
        "only pass the same bytes on. Each line does more than the one above it.",
        "",
        *floor_table(floors),
    ]
    for build, works in seen.items():
        for name, work in works.items():
            lines += [
                "",
                f"{TITLES[name].capitalize()}, {build}: {timeline.median_us(work):.0f} us, "
                f"{crossings(work):.1f} messages and frames sent. While it was watched, a round "
                f"took {work.stretch:.2f} times as long.",
                "",
                *stage_table(work),
            ]
            if build in floors:
                lines += [
                    "",
                    f"| {TITLES[name]}, {build}, us | floor | budget | now | of the budget |",
                    "|---|--:|--:|--:|--:|",
                    *budget_rows(name, work, floors[build]),
                ]
    return [*lines, ""]


# ---- the figure --------------------------------------------------------------------------------


def bars(spans: list[Span], begin: int, end: int) -> dict[str, list[tuple[float, float]]]:
    """stage -> (begin, length) in us since the round began, of what lies in the round."""
    found: dict[str, list[tuple[float, float]]] = {}
    for span in spans:
        left, right = max(span.begin, begin), min(span.end, end)
        if left < right and span.stage != ASLEEP:
            found.setdefault(span.stage, []).append(((left - begin) / 1e3, (right - left) / 1e3))
    return found


def draw(seen: Seen, path: Path) -> str:
    """Draw a middle round of each work; returns where, or why not."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "no plot: matplotlib is not installed (pip install -e '.[bench]')"
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "skbus"
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    panels = [(build, name) for name in WORKS for build in seen if (build, name) in DRAWN]
    if not panels:
        return "no plot: no timeline was measured"
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(10.0, 2.1 * len(panels)), squeeze=False, layout="constrained"
    )
    shown: set[str] = set()
    for axis, (build, name) in zip(axes.flat, panels, strict=True):
        work = seen[build][name]
        begin, end = timeline.middle_round(work)
        processes = [p for p, spans in work.spans.items() if bars(spans, begin, end)]
        order = [CLIENT, *(p for p in processes if p != CLIENT)]
        for y, process in enumerate(order):
            for stage, found in bars(work.spans[process], begin, end).items():
                axis.broken_barh(found, (y - 0.4, 0.8), color=_colour(process, stage), linewidth=0)
                shown.add(stage)
        axis.set_yticks(range(len(order)), order, fontsize=7)
        axis.invert_yaxis()
        axis.set_xlim(0, (end - begin) / 1e3)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(f"{TITLES[name]}, {build}, us", fontsize=8)
    stages = [s for s in (*STAGES, PREEMPTED) if s in shown]
    handles = [Patch(color=COLOURS[s], label=s) for s in stages]
    handles.append(Patch(color="#666666", label="Linux, the other end"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return f"plot: {path}"


def _colour(process: str, stage: str) -> str:
    return "#666666" if process == CLIENT else COLOURS[stage]
