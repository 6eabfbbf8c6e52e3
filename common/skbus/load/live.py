# SPDX-License-Identifier: MIT
"""The run while it goes on, in the terminal: a table that is redrawn at each beat.

Where standard error is no terminal, a line at each beat. `skbus.cli.load` makes one and gives its
`update` to the runner.
"""

from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skbus.load.assertion import say
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
            self._live.update(screen(result, t), refresh=True)


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
        f"p50 {say(now.metric('p50'), 'time')}",
        f"p99 {say(now.metric('p99'), 'time')}",
        say_bits(now.metric("goodput") or 0.0),
        f"errors {total.failed}",
        f"retransmits {result.monitor.retransmits()}",
    ]
    if result.monitor.run is not None:
        parts.append(f"drops {result.monitor.drops()}")
        held = [f"{p} {v[-1].held}" for p, v in result.monitor.samples.items() if v]
        parts.append("held " + ", ".join(held))
    return "  ".join(parts)


def screen(result: Result, t: float) -> Group:
    """What the terminal shows."""
    scenario = result.scenario
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(scenario.name, style="bold"),
        f"on {result.where}",
        f"phase {phase_at(result, t)}",
        f"{min(t, scenario.duration):.0f} of {scenario.duration:.0f} s",
        ProgressBar(total=scenario.duration, completed=min(t, scenario.duration), width=24),
        f"retransmits {result.monitor.retransmits()}",
        f"lag p99 {say(result.lag.percentile(99), 'time')}",
    )
    parts: list[Table | Text] = [head, _flows(result, t)]
    if result.monitor.samples:
        parts.append(_processes(result))
    events = result.happened[-_EVENTS:]
    parts.extend(Text(f"{at:8.1f} s  {text}", style="cyan") for at, text in events)
    parts.extend(Text(text, style="bold red") for text in result.trouble[-_EVENTS:])
    parts.append(Text("Ctrl-C ends the load and writes the report", style="dim"))
    return Group(*parts)


def _flows(result: Result, t: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("flow", "rate", "p50", "p99", "max", "in", "out", "active", "waiting", "errors"):
        table.add_column(column, justify="left" if column == "flow" else "right", min_width=8)
    for flow in result.flow_names():
        now, total = recent(result, flow, t), result.total(flow)
        beats = result.beats.get(flow, [])
        seconds = now.seconds or 1.0
        kinds = ", ".join(f"{k} {n}" for k, n in total.errors.most_common(3))
        table.add_row(
            flow,
            f"{(now.metric('rate') or 0):.0f}/s",
            say(now.metric("p50"), "time"),
            say(now.metric("p99"), "time"),
            say(now.metric("max"), "time"),
            say_bits(now.bytes_in * 8 / seconds),
            say_bits(now.bytes_out * 8 / seconds),
            str(beats[-1].running if beats else 0),
            str(beats[-1].waiting if beats else 0),
            Text(kinds or "0", style="red" if kinds else ""),
        )
    return table


def _processes(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ("process", "pid", "cpu", "memory", "growth", "held", "pool", "drops/s", "retr/s")
    for column in columns:
        table.add_column(column, justify="left" if column == "process" else "right", min_width=8)
    for process, samples in result.monitor.samples.items():
        last = samples[-1]
        before = samples[-2] if len(samples) > 1 else last
        table.add_row(
            process,
            str(last.pid),
            f"{cpu_share(before, last) * 100:.0f} %",
            say_size(last.rss) if last.rss else "?",
            say(result.growth(process), "slope") if last.rss else "?",
            "?" if last.held is None else str(last.held),
            str(last.pool),
            f"{per_second(before, last, 'dropped'):.0f}",
            f"{per_second(before, last, 'retransmits'):.0f}",
        )
    return table


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
