# SPDX-License-Identifier: MIT
"""The report's plots, as SVG text, by matplotlib. `skbus.load.report` puts them into its page."""

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from skbus.load.live import cpu_share, rates
from skbus.load.quantity import say_time
from skbus.load.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH: Final = 10.0
_HEIGHT: Final = 2.7
Points = Sequence[tuple[float, float | None]]


class NoPlotsError(Exception):
    """matplotlib is not installed."""


def all_plots(result: Result) -> list[tuple[str, str]]:
    """(title, SVG) of each plot that there is something to show in."""
    try:
        import matplotlib
    except ImportError:
        raise NoPlotsError("no plots: `pip install skbus[load]` brings matplotlib") from None
    matplotlib.use("svg")
    makers = (
        (
            "Latency by percentile, from the intended start (dotted: from the actual one)",
            _percentiles,
        ),
        ("Requests answered in a second", _rate),
        ("Latency: p50, p99 (pale) and the longest (palest)", _latency),
        ("Errors in a second", _errors),
        ("Goodput in Mbit/s: to the clients, and from them (dashed)", _goodput),
        ("Requests under way, and waiting for a free client (dashed)", _running),
        ("Processor: share of one, by process", _cpu),
        ("Anonymous memory in MB, by process", _memory),
        ("skbs held, by process", _held),
        ("Segments retransmitted, and skbs dropped (dashed), in a second", _losses),
    )
    out: list[tuple[str, str]] = []
    with matplotlib.rc_context():
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "skbus",
                "font.size": 8.5,
                "axes.grid": True,
                "grid.alpha": 0.25,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "legend.frameon": False,
            }
        )
        for title, make in makers:
            if (svg := _svg(make, result)) is not None:
                out.append((title, svg))
    return out


def _svg(make: "object", result: Result) -> str | None:
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    assert callable(make)
    if not make(axes, result):
        return None
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "skbus load"})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _line(axes: "Axes", points: Points, label: str | None = None, **style: object) -> bool:
    kept = [(x, y) for x, y in points if y is not None]
    if not kept:
        return False
    axes.plot([x for x, _ in kept], [y for _, y in kept], label=label, linewidth=1.2, **style)  # type: ignore[arg-type]
    return True


def _timeline(axes: "Axes", result: Result) -> None:
    """Phases as bands, events as lines."""
    end = result.elapsed
    if not result.interrupted:
        end = max(end, result.scenario.duration)
    at = 0.0
    for i, phase in enumerate(result.scenario.phases):
        if at > end:
            break  # never begun: its name would be outside the plot, and take its room
        if i % 2:
            axes.axvspan(at, at + phase.duration, color="0.5", alpha=0.08, linewidth=0)
        axes.annotate(
            phase.name, (at, 1.0), xycoords=("data", "axes fraction"), fontsize=7, color="0.45"
        )
        at += phase.duration
    for t, _ in result.happened:
        axes.axvline(t, color="tab:red", linewidth=0.7, linestyle=":")
    axes.set_xlim(0, max(end, 0.1))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")


def _percentiles(axes: "Axes", result: Result) -> bool:
    shown = False
    for number, flow in enumerate(result.flow_names()):
        cell = result.total(flow)
        colour = f"C{number}"
        for histogram, label, style in (
            (cell.latency, flow, "-"),
            (cell.service, None, ":"),
        ):
            points = [(100 / (100 - p), s) for p, s in histogram.curve() if p < 100]
            shown |= _line(axes, points, label, color=colour, linestyle=style)
    if not shown:
        return False
    axes.set_xscale("log")
    ticks = [50, 90, 99, 99.9, 99.99, 99.999]
    right = axes.get_xlim()[1]
    places = [100 / (100 - p) for p in ticks if 100 / (100 - p) <= right * 1.01]
    axes.set_xticks(places, [f"{p:g} %" for p in ticks[: len(places)]])
    _log_times(axes)
    axes.minorticks_off()
    return True


def _log_times(axes: "Axes") -> None:
    """A logarithmic axis of times, its ticks as people write times."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: say_time(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rate(axes: "Axes", result: Result) -> bool:
    shown = False
    for flow, beats in result.beats.items():
        shown |= _line(axes, [(b.t, b.points[0] / b.seconds) for b in beats], flow)
    _timeline(axes, result)
    return shown


def _latency(axes: "Axes", result: Result) -> bool:
    shown = False
    for number, (flow, beats) in enumerate(result.beats.items()):
        for which, alpha in ((1, 1.0), (2, 0.65), (3, 0.3)):
            points = [(b.t, b.points[which]) for b in beats]
            label = flow if which == 1 else None
            shown |= _line(axes, points, label, color=f"C{number}", alpha=alpha)
    _timeline(axes, result)
    if shown:
        axes.set_ylim(auto=True)
        _log_times(axes)
    return shown


def _errors(axes: "Axes", result: Result) -> bool:
    shown = False
    for flow, beats in result.beats.items():
        if any(b.cell.failed for b in beats):
            shown |= _line(axes, [(b.t, b.cell.failed / b.seconds) for b in beats], flow)
    _timeline(axes, result)
    return shown


def _goodput(axes: "Axes", result: Result) -> bool:
    shown = False
    for number, (flow, beats) in enumerate(result.beats.items()):
        into = [(b.t, b.cell.bytes_in * 8e-6 / b.seconds) for b in beats]
        out = [(b.t, b.cell.bytes_out * 8e-6 / b.seconds) for b in beats]
        shown |= _line(axes, into, flow, color=f"C{number}")
        _line(axes, out, color=f"C{number}", linestyle="--")
    _timeline(axes, result)
    return shown


def _running(axes: "Axes", result: Result) -> bool:
    shown = False
    for number, (flow, beats) in enumerate(result.beats.items()):
        shown |= _line(axes, [(b.t, b.running) for b in beats], flow, color=f"C{number}")
        if any(b.waiting for b in beats):
            points = [(b.t, b.waiting) for b in beats]
            _line(axes, points, color=f"C{number}", linestyle="--")
    _timeline(axes, result)
    return shown


def _cpu(axes: "Axes", result: Result) -> bool:
    shown = False
    for process, samples in result.monitor.samples.items():
        points = [
            (b.t, cpu_share(a, b)) for a, b in pairwise(samples)
        ]  # fmt: skip
        if samples[-1].rss:
            shown |= _line(axes, points, process)
    _timeline(axes, result)
    return shown


def _memory(axes: "Axes", result: Result) -> bool:
    shown = False
    for process, samples in result.monitor.samples.items():
        if samples[-1].rss:
            shown |= _line(axes, [(s.t, s.anon / 1e6) for s in samples], process)
    _timeline(axes, result)
    return shown


def _held(axes: "Axes", result: Result) -> bool:
    shown = False
    for process, samples in result.monitor.samples.items():
        shown |= _line(axes, [(s.t, s.held) for s in samples], process)
    _timeline(axes, result)
    return shown


def _losses(axes: "Axes", result: Result) -> bool:
    shown = False
    monitor = result.monitor
    for number, (process, samples) in enumerate(monitor.samples.items()):
        colour = f"C{number}"
        for counter, style in (("retransmits", "-"), ("dropped", "--")):
            points = rates(samples, counter)
            if any(y for _, y in points):
                label = process if style == "-" else f"{process} drops"
                shown |= _line(axes, points, label, color=colour, linestyle=style)
    linux = [(b[0], (b[1] - a[1]) / max(1e-9, b[0] - a[0])) for a, b in pairwise(monitor.linux)]
    if any(y for _, y in linux):
        shown |= _line(axes, linux, "Linux", color="0.4")
    _timeline(axes, result)
    return shown
