# SPDX-License-Identifier: MIT
"""`skbus logs`: the logs of all processes of a stack as one, in the order of time."""

import heapq
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from skbus.rundir import RunDir

_POLL: Final = 0.1  # seconds between looks at the files with -f
_LEVELS: Final = ("debug", "info", "warning", "error")

Event = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", metavar="LAYER", help="nic, nic.eth0, tcp, ...; repeatable."),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as logs grow.")] = False,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="This level and what is graver.")
    ] = "debug",
    skb: Annotated[
        str | None, typer.Option("--skb", metavar="ID", help="One packet, through all processes.")
    ] = None,
    flow: Annotated[
        str | None, typer.Option("--flow", metavar="TEXT", help="Flows that contain this text.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines, as they were logged.")
    ] = False,
) -> None:
    """Print the logs of all layers, merged by the stack's time. What each packet meets is there
    at `--log-level debug` (`skbus log-level debug` sets it in a running stack)."""
    from skbus.log import render_console, render_json

    if level not in _LEVELS:
        raise typer.BadParameter(f"{level!r}: it takes {', '.join(_LEVELS)}", param_hint="--level")
    run = RunDir().require()
    wanted = Filter(layers=layer or [], level=level, skb=skb, flow=flow)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    out = sys.stdout.write

    def show(event: Event) -> None:
        out((render_json(event) if as_json else render_console(event, colour)) + "\n")

    if follow:
        _follow(run, wanted, show)
    if flow is not None:
        wanted.skbs = {e["skb"] for e in merged(run) if "skb" in e and flow in e.get("flow", "")}
    for event in merged(run):
        if wanted(event):
            show(event)


class Filter:
    """Which lines are wanted."""

    def __init__(self, layers: list[str], level: str, skb: str | None, flow: str | None) -> None:
        self._layers = frozenset(layers)
        self._levels = frozenset(_LEVELS[_LEVELS.index(level) :])
        self._skb = skb
        self._flow = flow
        self.skbs: set[str] = set()
        """skbs that are known to be of that flow, although not each of their lines says so."""

    def __call__(self, event: Event) -> bool:
        if event.get("level") not in self._levels:
            return False
        if self._layers and self._layers.isdisjoint((event.get("process"), event.get("layer"))):
            return False
        if self._skb is not None and event.get("skb") != self._skb:
            return False
        if self._flow is None or event.get("skb") in self.skbs:
            return True
        return self._flow in str(event.get("flow", ""))


def parse(line: str) -> Event | None:
    """One line; None if it is no complete line of ours."""
    if not line.endswith("\n"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _lines(path: Path) -> Iterator[Event]:
    for file in (Path(f"{path}.1"), path):
        try:
            with file.open(encoding="utf-8", errors="replace") as f:
                yield from filter(None, map(parse, f))
        except FileNotFoundError:
            continue


def _time(event: Event) -> float:
    return float(event.get("time", 0))


def merged(run: RunDir) -> Iterator[Event]:
    """All events of a stack in the order of its time."""
    files = sorted(run.log_dir.glob("*.jsonl"))
    yield from heapq.merge(*(_lines(f) for f in files), key=_time)


class _Tail:
    """The end of one log, also when the file is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._part = ""

    def read(self) -> list[Event]:
        events: list[Event] = []
        if self._file is not None:
            events += self._rest()
            try:
                same = os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
            except FileNotFoundError:
                return events
            if same:
                return events
            events += self._rest()
            self._file.close()
        try:
            self._file = self._path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            self._file = None
            return events
        return events + self._rest()

    def _rest(self) -> list[Event]:
        assert self._file is not None
        lines = (self._part + self._file.read()).splitlines(keepends=True)
        self._part = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        return [e for e in map(parse, lines) if e is not None]


def _follow(run: RunDir, wanted: Filter, show: Callable[[Event], None]) -> None:
    tails: dict[Path, _Tail] = {}
    while run.path.is_dir():
        for path in run.log_dir.glob("*.jsonl"):
            if path not in tails:
                tails[path] = _Tail(path)
        events = [e for tail in tails.values() for e in tail.read()]
        for event in sorted(events, key=_time):
            if wanted(event):
                show(event)
        sys.stdout.flush()
        time.sleep(_POLL)
    sys.exit(0)
