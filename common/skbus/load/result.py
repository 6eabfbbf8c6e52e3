# SPDX-License-Identifier: MIT
"""What came of a run: totals, series, and the values of the metrics that are asserted.

Filled by `skbus.load.runner` from the workers' ticks and the monitor; read by the live display
and the report, which write nothing here.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from skbus.load.assertion import Assertion
from skbus.load.histogram import Histogram
from skbus.load.monitor import Books, Monitor
from skbus.load.scenario import Scenario

_KEPT: Final = 30
"""Beats of a flow whose histograms are kept: for those that lag behind, and the live display."""


_TIMES: Final = ("service", "connect")
_GROWTH_SECONDS: Final = 10.0
_GROWTH_SAMPLES: Final = 5
"""What a growth in a minute needs: fewer seconds or samples are noise, times ten or more."""


def enough(percentile: float, count: int) -> bool:
    """Are so many requests enough for a percentile: does at least one lie beyond it?"""
    return count * (100 - percentile) >= 100 - 1e-6


@dataclass
class Cell:
    """One flow in one phase, or any sum of these."""

    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    connect: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    connects: int = 0
    seconds: float = 0.0
    """of the run that it covers"""

    def add(self, other: "Cell") -> None:
        """All but the seconds, which several flows have in common."""
        self.latency.add(other.latency)
        self.service.add(other.service)
        self.connect.add(other.connect)
        self.errors.update(other.errors)
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.connects += other.connects

    @property
    def completed(self) -> int:
        return self.latency.count

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def metric(self, name: str, detail: str | None = None) -> float | None:
        """One of `skbus.load.assertion.METRICS`, or pNN. None: it has no value."""
        if name.startswith("p") and name[1:2].isdigit():
            return self.latency.percentile(float(name[1:]))
        if name in ("service", "connect"):
            histogram = self.service if name == "service" else self.connect
            return histogram.percentile(float((detail or "p99")[1:]))
        if name == "errors" and detail:
            return float(self.errors[detail])
        requests = self.completed + self.failed
        values: dict[str, float | None] = {
            "min": self.latency.minimum,
            "mean": self.latency.mean,
            "max": self.latency.maximum,
            "requests": float(requests),
            "completed": float(self.completed),
            "connects": float(self.connects),
            "errors": float(self.failed),
            "error_rate": self.failed / requests if requests else None,
            "rate": self.completed / self.seconds if self.seconds else None,
            "bytes_in": float(self.bytes_in),
            "bytes_out": float(self.bytes_out),
            "goodput": (self.bytes_in + self.bytes_out) * 8 / self.seconds
            if self.seconds
            else None,
        }
        return values[name]

    def shown(self, name: str, detail: str | None = None) -> float | None:
        """The same for people. It is also None for a percentile of too few requests, which would be
        the longest one by another name."""
        percentile = float((detail or "p99" if name in _TIMES else name)[1:])
        histogram = {"service": self.service, "connect": self.connect}.get(name, self.latency)
        return self.metric(name, detail) if enough(percentile, histogram.count) else None

    def to_json(self) -> dict[str, Any]:
        """Numbers in seconds and bytes; the histogram in HdrHistogram's own encoding. A percentile
        of too few requests is null."""
        return {
            **{m: self.metric(m) for m in ("requests", "completed", "errors", "error_rate")},
            "errors_by_kind": dict(self.errors),
            **{m: self.metric(m) for m in ("rate", "goodput", "bytes_in", "bytes_out", "connects")},
            "latency": {
                **{m: self.metric(m) for m in ("min", "mean", "max")},
                **{m: self.shown(m) for m in ("p50", "p90", "p95", "p99", "p99.9")},
            },
            "service": {p: self.shown("service", p) for p in ("p50", "p99")},
            "connect": {p: self.shown("connect", p) for p in ("p50", "p99")},
            "histogram": self.latency.encode(),
        }


@dataclass
class Beat:
    """One flow between two ticks: a point of the plots."""

    t: float
    seconds: float
    cell: Cell
    running: int
    waiting: int
    _frozen: tuple[int, float | None, float | None, float | None] | None = None

    def freeze(self) -> None:
        """No more will come: keep the points and let the histograms go, which are big."""
        if self._frozen is None:
            self._frozen = self._points()
            self.cell.latency = self.cell.service = self.cell.connect = Histogram()

    def _points(self) -> tuple[int, float | None, float | None, float | None]:
        latency = self.cell.latency
        return self.cell.completed, latency.percentile(50), latency.percentile(99), latency.maximum

    @property
    def points(self) -> tuple[int, float | None, float | None, float | None]:
        """Requests answered, p50, p99, the longest."""
        return self._frozen or self._points()


@dataclass
class Verdict:
    """An assertion and its outcome. reached: whether its phase began."""

    assertion: Assertion
    value: float | None
    holds: bool
    reached: bool = True

    @property
    def said(self) -> str:
        """The value for a person."""
        return self.assertion.say(self.value) if self.reached else "not reached"


@dataclass
class Result:
    """Everything about one run."""

    scenario: Scenario
    monitor: Monitor
    where: str = ""
    started: str = ""
    """wall time, ISO 8601"""
    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    """by flow and number of the phase"""
    beats: dict[str, list[Beat]] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)
    samples: dict[str, str] = field(default_factory=dict)
    """an example of each kind of error"""
    happened: list[tuple[float, str]] = field(default_factory=list)
    """events, with the times at which they did happen"""
    trouble: list[str] = field(default_factory=list)
    """what went wrong with the load itself: a worker died, an event failed"""
    books: list[Books] = field(default_factory=list)
    interrupted: bool = False
    elapsed: float = 0.0
    """seconds of load, at most the scenario's duration"""
    cpu: dict[str, float] = field(default_factory=dict)
    """of the load's own processes: share of one processor"""
    host: dict[str, Any] = field(default_factory=dict)

    def total(self, flow: str | None = None, phase: str | None = None) -> Cell:
        """The sum over the flow (None: all) and the phase (None: the run)."""
        names = [p.name for p in self.scenario.phases]
        total = Cell()
        for (name, number), cell in self.cells.items():
            if flow in (None, name) and phase in (None, names[number]):
                total.add(cell)
        at = 0.0
        for p in self.scenario.phases:
            if phase in (None, p.name):
                total.seconds += max(0.0, min(p.duration, self.elapsed - at))
            at += p.duration
        return total

    def metric(self, assertion: Assertion) -> float | None:
        """The value that an assertion is about."""
        name, detail, monitor = assertion.metric, assertion.detail, self.monitor
        if name == "lag":
            return self.lag.percentile(float((detail or "p99")[1:])) or 0.0
        if name == "retransmits":
            return float(monitor.retransmits())
        if name == "restarts":
            return float(monitor.restarts())
        if name == "drops":
            drops = self.drops()
            return float(drops.get(detail, 0) if detail else sum(drops.values()))
        if name == "unaccounted":
            return self.unaccounted()
        if name in ("memory", "rss", "cpu"):
            return self._of_process(name, detail, assertion.phase)
        return self.total(assertion.flow, assertion.phase).metric(name, detail)

    def _of_process(self, name: str, process: str | None, phase: str | None) -> float | None:
        monitor = self.monitor
        values: list[float] = []
        for one, samples in monitor.samples.items():
            if process in (None, one, one.split(".")[0]) and samples[-1].rss:
                if name == "memory":
                    values.append(self.growth(one, phase))
                elif name == "rss":
                    values.append(float(samples[-1].rss))
                else:
                    values.append(monitor.cpu(one))
        if not values:
            return None
        return max(values) if name == "memory" else sum(values)

    def growth(self, process: str, phase: str | None = None) -> float:
        """Bytes in a minute in a phase, or in the longest one. Its first tenth does not count: a
        process that starts to work takes memory that is no leak."""
        begin, end = self._span(phase)
        return self.monitor.growth(process, begin + (end - begin) / 10, end)

    def growth_shown(self, process: str) -> float | None:
        """The same for people: None where it comes from too little time."""
        begin, end = self._span(None)
        end = min(end, self.elapsed)
        times = [s.t for s in self.monitor.samples.get(process, []) if begin <= s.t <= end + 1]
        if len(times) < _GROWTH_SAMPLES or times[-1] - times[0] < _GROWTH_SECONDS:
            return None
        return self.growth(process)

    def _span(self, phase: str | None) -> tuple[float, float]:
        """When a phase begins and ends; without a name, the longest, and the last of equals."""
        at = 0.0
        spans: dict[str, tuple[float, float]] = {}
        for p in self.scenario.phases:
            spans[p.name] = (at, at + p.duration)
            at += p.duration
        return spans[phase] if phase else max(spans.values(), key=lambda s: (s[1] - s[0], s[0]))

    def drops(self) -> dict[str, int]:
        """skbs dropped in all processes, by reason."""
        total: Counter[str] = Counter()
        for books in self.books:
            total.update(books.drops)
        return dict(total)

    def unaccounted(self) -> float | None:
        """skbs of which no process can say what became. None where a process did not answer."""
        total = 0
        for books in self.books:
            one = books.unaccounted
            if one is None:
                return None
            total += abs(one)
        return float(total)

    def verdicts(self) -> list[Verdict]:
        """Every assertion of the scenario, with its value."""
        out: list[Verdict] = []
        for assertion in self.scenario.assertions():
            reached = assertion.phase is None or self.reached(assertion.phase)
            value = self.metric(assertion) if reached else None
            out.append(Verdict(assertion, value, assertion.holds(value), reached))
        return out

    def reached(self, phase: str) -> bool:
        """Whether a phase began before the run ended."""
        return self._span(phase)[0] < self.elapsed

    def unasserted(self) -> list[str]:
        """Sentences about requests that failed while nothing is asserted about errors."""
        about = {
            a.flow
            for a in self.scenario.assertions()
            if a.metric in ("errors", "error_rate") and a.detail is None
        }
        out = []
        for flow in self.flow_names():
            total = self.total(flow)
            if not total.failed or about & {None, flow}:
                continue
            share = 100 * total.failed / (total.completed + total.failed)
            out.append(
                f"{flow}: {total.failed} of {total.completed + total.failed} requests failed "
                f"({share:.3g} %), and nothing is asserted about errors: whether the run passes "
                f'says nothing of them. assert = ["{flow}.errors == 0"] would.'
            )
        return out

    @property
    def passed(self) -> bool:
        """Whether all assertions hold and the load itself had no trouble."""
        return not self.trouble and all(v.holds for v in self.verdicts())

    def flow_names(self) -> Iterable[str]:
        return [f.name for f in self.scenario.flows]

    # ---- from the workers --------------------------------------------------------------------

    def take_tick(self, t: float, flow: str, said: dict[str, Any], first: bool) -> None:
        """A worker's account of one flow since its last tick. first: of the workers that tell
        of this flow at `t`."""
        here = Cell()
        for piece, given in said["cells"].items():
            one = Cell(
                Histogram.decode(given["latency"]),
                Histogram.decode(given["service"]),
                Histogram.decode(given["connect"]),
                Counter(given["errors"]),
            )
            here.add(one)
            self.cells.setdefault((flow, int(piece)), Cell()).add(one)
            for kind, text in given["samples"].items():
                self.samples.setdefault(kind, text)
        moved = Cell(
            bytes_in=said["bytes_in"], bytes_out=said["bytes_out"], connects=said["connects"]
        )
        here.add(moved)
        self.cells.setdefault((flow, int(said["piece"])), Cell()).add(moved)
        self.lag.add(Histogram.decode(said["lag"]))
        beats = self.beats.setdefault(flow, [])
        if not first and beats and abs(beats[-1].t - t) < 1e-6:
            beats[-1].cell.add(here)
            beats[-1].running += said["running"]
            beats[-1].waiting += said["waiting"]
            return
        since = t - (beats[-1].t if beats else 0.0)
        if since > 0 or here.completed or here.failed:
            beats.append(Beat(t, max(since, 1e-3), here, said["running"], said["waiting"]))
            if len(beats) > _KEPT:
                beats[-_KEPT - 1].freeze()

    # ---- out -------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The whole, for other programs."""
        monitor = self.monitor
        return {
            "scenario": self.scenario.model_dump(mode="json", by_alias=True),
            "on": self.where,
            "started": self.started,
            "elapsed": self.elapsed,
            "interrupted": self.interrupted,
            "passed": self.passed,
            "host": self.host,
            "asserts": [
                {"assert": v.assertion.text, "value": v.value, "holds": v.holds}
                for v in self.verdicts()
            ],
            "trouble": self.trouble,
            "unasserted": self.unasserted(),
            "events": [{"t": t, "event": text} for t, text in self.happened],
            "total": self.total().to_json(),
            "flows": {f: self.total(f).to_json() for f in self.flow_names()},
            "phases": {
                p.name: {f: self.total(f, p.name).to_json() for f in self.flow_names()}
                if self.reached(p.name)
                else None
                for p in self.scenario.phases
            },
            "error_samples": self.samples,
            "lag": {p: self.lag.percentile(float(p[1:])) for p in ("p50", "p99", "p100")},
            "series": {flow: [_beat(b) for b in beats] for flow, beats in self.beats.items()},
            "retransmits": monitor.retransmits(),
            "restarts": monitor.restarts(),
            "unaccounted": self.unaccounted(),
            "drops": self.drops(),
            "load_cpu": self.cpu,
            "processes": {p: self._process(p) for p in monitor.samples},
            "books": [
                {
                    "process": b.process,
                    "conservation": b.conservation,
                    "unaccounted": b.unaccounted,
                    "drops": b.drops,
                    "counters": b.counters,
                }
                for b in self.books
            ],
        }

    def _process(self, name: str) -> dict[str, Any]:
        samples = self.monitor.samples[name]
        return {
            "pids": self.monitor.lives[name],
            "memory_growth_per_minute": self.growth_shown(name),
            "cpu": self.monitor.cpu(name),
            "series": [
                {
                    "t": s.t,
                    "rss": s.rss,
                    "anon": s.anon,
                    "cpu": s.cpu,
                    "held": s.held,
                    "pool": s.pool,
                    "dropped": s.dropped,
                    "retransmits": s.retransmits,
                }
                for s in samples
            ],
        }


def _beat(beat: Beat) -> dict[str, Any]:
    cell = beat.cell
    completed, p50, p99, longest = beat.points
    return {
        "t": beat.t,
        "rate": completed / beat.seconds,
        "errors": cell.failed,
        "p50": p50,
        "p99": p99,
        "max": longest,
        "goodput_in": cell.bytes_in * 8 / beat.seconds,
        "goodput_out": cell.bytes_out * 8 / beat.seconds,
        "running": beat.running,
        "waiting": beat.waiting,
    }
