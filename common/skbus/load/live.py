# SPDX-License-Identifier: MIT
"""The run while it goes on, in the terminal: a table that is redrawn at each beat.

Where standard error is no terminal, a line at each beat. `skbus.load.cli` makes one and gives its
`update` to the runner.
"""

from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from skbus.load.assertion import blank, say
from skbus.load.monitor import Sample
from skbus.load.quantity import say_bits, say_size
from skbus.load.result import Cell, Result

_RECENT: Final = 3.0
"""Seconds over which rates and percentiles are shown."""
_EVENTS: Final = 4


class Display:
    """Shows results as they come. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def update(self, result: Result, t: float) -> None:
        """Show how it stands at `t` seconds."""
        if self._live is None:
            self.console.print(line(result, t), soft_wrap=True, highlight=False)
        else:
            self._live.update(screen(result, t, self.console.width), refresh=True)


def recent(result: Result, flow: str, t: float) -> Cell:
    """The last few seconds of a flow."""
    cell = Cell()
    for beat in reversed(result.beats.get(flow, [])):
        if beat.t <= t - _RECENT - 1e-6:
            break
        cell.add(beat.cell)
        cell.seconds += beat.seconds
    return cell


def phase_at(result: Result, t: float) -> str:
    """The name of the phase."""
    scenario = result.scenario
    if t >= scenario.duration:
        return "settling"
    curve = scenario.curve(scenario.flows[0].name)
    return scenario.phases[curve.piece_at(t)].name


def line(result: Result, t: float) -> str:
    """All flows in one line, for a log."""
    now = Cell()
    for flow in result.flow_names():
        one = recent(result, flow, t)
        now.add(one)
        now.seconds = max(now.seconds, one.seconds)
    total = result.total()
    parts = [
        f"{t:7.1f} s",
        f"{phase_at(result, t):<8}",
        f"{(now.metric('rate') or 0):.0f}/s",
        *(f"{p} {say(v, 'time')}" for p in ("p50", "p99") if (v := now.shown(p)) is not None),
        say_bits(now.metric("goodput") or 0.0),
        f"errors {total.failed}",
        f"retransmits {result.monitor.retransmits()}",
    ]
    if result.monitor.run is not None:
        parts.append(f"drops {result.monitor.drops()}")
        held = [f"{p} {v[-1].held}" for p, v in result.monitor.samples.items() if v]
        parts.append("held " + ", ".join(held))
    return "  ".join(parts)


def screen(result: Result, t: float, width: int = 120) -> Group:
    """What the terminal shows. width: its columns; where they do not suffice, columns of the
    tables are left out, the least important first. A number is never cut."""
    scenario = result.scenario
    done = min(t, scenario.duration)
    head = Text()
    head.append(scenario.name, style="bold")
    head.append(
        f"  on {result.where}  phase {phase_at(result, t)}  {done:.0f} of {scenario.duration:.0f} s"
        f"  retransmits {result.monitor.retransmits()}"
    )
    if (lag := result.lag.percentile(99)) is not None:
        head.append(f"  lag p99 {say(lag, 'time')}")
    room = min(width, 60)
    full = round(room * done / scenario.duration)
    bar = Text("━" * full, style="green")
    bar.append("━" * (room - full), style="dim")
    parts: list[Text] = [head, bar, *_flows(result, t, width)]
    if result.monitor.samples:
        parts += _processes(result, width)
    events = result.happened[-_EVENTS:]
    parts.extend(Text(f"{at:8.1f} s  {text}", style="cyan") for at, text in events)
    parts.extend(Text(text, style="bold red") for text in result.trouble[-_EVENTS:])
    parts.append(Text("Ctrl-C ends the load and writes the report", style="dim"))
    return Group(*parts)


Row = dict[str, str]


def columns_that_fit(rows: list[Row], order: tuple[str, ...], width: int) -> list[str]:
    """The columns for which there is room, by importance; shown in the order of the rows' keys.
    The first two are always there."""
    chosen: list[str] = []
    for name in order:
        wide = [max(len(name), *(len(row[name]) for row in rows)) for name in [*chosen, name]]
        if len(chosen) >= 2 and sum(wide) + 2 * (len(wide) - 1) > width:
            continue
        chosen.append(name)
    return [name for name in rows[0] if name in chosen]


def _table(rows: list[Row], order: tuple[str, ...], width: int) -> list[Text]:
    if not rows:
        return []
    names = columns_that_fit(rows, order, width)
    wide = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}

    def line(row: Row) -> str:
        first, *rest = names
        cells = [row[first].ljust(wide[first]), *(row[name].rjust(wide[name]) for name in rest)]
        return "  ".join(cells).rstrip()

    lines = [Text(line({name: name for name in names}), style="dim")]
    for row in rows:
        text = Text(line(row))
        if row.get("errors", "0") != "0":
            text.stylize("red")
        lines.append(text)
    return lines


_FLOW_ORDER: Final = (
    "flow", "errors", "rate", "p99", "p50", "waiting", "max", "active", "in", "out"
)  # fmt: skip


def _flows(result: Result, t: float, width: int) -> list[Text]:
    rows: list[Row] = []
    kinds: list[Text] = []
    for flow in result.flow_names():
        now, total = recent(result, flow, t), result.total(flow)
        beats = result.beats.get(flow, [])
        seconds = now.seconds or 1.0
        rows.append(
            {
                "flow": flow,
                "rate": f"{(now.metric('rate') or 0):.0f}/s",
                "p50": blank(now.shown("p50"), "time"),
                "p99": blank(now.shown("p99"), "time"),
                "max": blank(now.metric("max"), "time"),
                "in": say_bits(now.bytes_in * 8 / seconds),
                "out": say_bits(now.bytes_out * 8 / seconds),
                "active": str(beats[-1].running if beats else 0),
                "waiting": str(beats[-1].waiting if beats else 0),
                "errors": str(total.failed),
            }
        )
        if total.failed:
            said = ", ".join(f"{kind} {n}" for kind, n in total.errors.most_common(3))
            kinds.append(Text(f"{flow}: {said}", style="red"))
    return [*_table(rows, _FLOW_ORDER, width), *kinds]


_PROCESS_ORDER: Final = (
    "process", "cpu", "memory", "drops/s", "held", "retr/s", "growth", "pool", "pid"
)  # fmt: skip


def _processes(result: Result, width: int) -> list[Text]:
    rows: list[Row] = []
    for process, samples in result.monitor.samples.items():
        last = samples[-1]
        before = samples[-2] if len(samples) > 1 else last
        rows.append(
            {
                "process": process,
                "pid": str(last.pid),
                "cpu": f"{cpu_share(before, last) * 100:.0f} %",
                "memory": say_size(last.rss) if last.rss else "?",
                "growth": blank(result.growth_shown(process), "slope") if last.rss else "?",
                "held": "?" if last.held is None else str(last.held),
                "pool": str(last.pool),
                "drops/s": f"{per_second(before, last, 'dropped'):.0f}",
                "retr/s": f"{per_second(before, last, 'retransmits'):.0f}",
            }
        )
    return _table(rows, _PROCESS_ORDER, width)


def cpu_share(a: Sample, b: Sample) -> float:
    """Of one processor, between two samples; 0 where the process is another one."""
    if a.pid != b.pid or b.t <= a.t:
        return 0.0
    return (b.cpu - a.cpu) / 1e9 / (b.t - a.t)


def per_second(a: Sample, b: Sample, counter: str) -> float:
    """The growth of a counter between two samples; 0 where it cannot be known."""
    if a.pid != b.pid or b.t <= a.t or a.held is None or b.held is None:
        return 0.0
    growth: int = getattr(b, counter) - getattr(a, counter)
    return max(0.0, growth / (b.t - a.t))


def rates(samples: list[Sample], counter: str) -> list[tuple[float, float]]:
    """(t, per second) of a counter, for a plot."""
    return [(b.t, per_second(a, b, counter)) for a, b in pairwise(samples)]
