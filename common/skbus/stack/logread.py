# SPDX-License-Identifier: MIT
"""Reading logs: the lines of all processes of a stack as one, in the order of the stack's time.

Called by `skbus logs` and the demo. `skbus.bus.log` writes what is read here, a file for each
process (and FILE.1, what it was before). Lines may also come from elsewhere, as from
`docker-compose logs`: then each container's name may stand before the JSON.
"""

import heapq
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from skbus.bus.rundir import RunDir
from skbus.core.flow_dissector import FlowFilter

LEVELS: Final = ("debug", "info", "warning", "error")
_BLOCK: Final = 1 << 16

Event = dict[str, Any]


class LogReadError(Exception):
    """What was asked for cannot be; the text says what can."""


def parse(line: bytes | str) -> Event | None:
    """One line; None if it is no complete line of ours."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    start = text.find("{")
    if start < 0 or not text.endswith("\n"):
        return None
    try:
        event = json.loads(text[start:])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def time_of(event: Event) -> float:
    """Seconds of the stack's clock."""
    try:
        return float(event.get("time", 0))
    except (TypeError, ValueError):
        return 0.0


def wall_of(event: Event) -> float | None:
    """Seconds since 1970; None of a line that does not say."""
    try:
        return datetime.fromisoformat(str(event["wall"])).timestamp()
    except (KeyError, ValueError):
        return None


# ---- when ------------------------------------------------------------------------------------

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RELATIVE: Final = re.compile(r"-?(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)(?: ago)?")
_TIMES: Final = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")


def parse_when(text: str, now: float) -> float:
    """A moment, in seconds since 1970. The text is `10s`, `5m`, `2h` (before `now`), `13:36`,
    `13:36:25.5` (the last time that it was so late), or ISO 8601, `2026-11-30T13:36:25`. Without a
    zone it is local time. LogReadError where it is none of these."""
    text = text.strip()
    if found := _RELATIVE.fullmatch(text):
        return now - float(found[1]) * _UNITS[found[2]]
    for form in _TIMES:
        try:
            clock = datetime.strptime(text, form)
        except ValueError:
            continue
        today = datetime.fromtimestamp(now).astimezone()
        at = today.replace(
            hour=clock.hour, minute=clock.minute, second=clock.second,
            microsecond=clock.microsecond,
        )  # fmt: skip
        return (at if at.timestamp() <= now else at - timedelta(days=1)).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise LogReadError(
            f"{text!r} is no time: it takes 10s, 5m, 2h, 1d (so long ago), 13:36, 13:36:25 or "
            "2026-11-30T13:36:25"
        ) from None


# ---- which -----------------------------------------------------------------------------------


class Filter:
    """Which lines are wanted; each field that is None or empty wants all."""

    def __init__(
        self,
        *,
        layers: Iterable[str] = (),
        level: str = "debug",
        skb: str | None = None,
        flow: FlowFilter | None = None,
        since: float | None = None,
        until: float | None = None,
        grep: re.Pattern[str] | None = None,
    ) -> None:
        self.layers = frozenset(layers)
        self.level = level
        self.skb = skb
        self.flow = flow
        self.since = since
        self.until = until
        self.grep = grep
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        self.skbs: set[str] = set()
        """Packets that are known to be of the flow, although not each of their lines says so."""
        self._fragments: dict[str, list[str]] = {}
        """Datagrams that were put together -> the packets that they came in."""

    def __call__(self, event: Event) -> bool:
        if event.get("level") not in self._levels:
            return False
        if self.layers and self.layers.isdisjoint((event.get("process"), event.get("layer"))):
            return False
        if self.skb is not None and not self._is_skb(event):
            return False
        if self.flow is not None and not self.of_flow(event):
            return False
        if self.since is not None or self.until is not None:
            wall = wall_of(event)
            if wall is None or not (self.since or 0.0) <= wall <= (self.until or float("inf")):
                return False
        return self.grep is None or any(self.grep.search(text) for text in _words(event))

    def _is_skb(self, event: Event) -> bool:
        fragments = event.get("fragments")
        return event.get("skb") == self.skb or (
            isinstance(fragments, list) and self.skb in fragments
        )

    def of_flow(self, event: Event) -> bool:
        """Is it a line of the flow? What a line says of its flow decides; where that has no ports,
        or it says nothing, its skb does."""
        assert self.flow is not None
        flow = str(event.get("flow", ""))
        if self.flow(flow) or self.flow(str(event.get("about", ""))):
            return True
        return ":" not in flow and event.get("skb") in self.skbs

    def learn(self, event: Event) -> None:
        """Note the flow of a line's skb. Fragments but the first have no ports, and are known by
        the datagram that they were put together to."""
        skb = event.get("skb")
        if self.flow is None or skb is None:
            return
        fragments = event.get("fragments")
        if isinstance(fragments, list):
            self._fragments[skb] = fragments
        if skb not in self.skbs and self.of_flow(event):
            self.skbs.add(skb)
        if skb in self.skbs and skb in self._fragments:
            self.skbs.update(self._fragments.pop(skb))


def _words(event: Event) -> Iterator[str]:
    """What a line shows, piece by piece, as it shows it."""
    for key, value in event.items():
        if key in ("event", "skb", "flow", "process", "exception"):
            yield str(value)
        elif key not in ("time", "wall", "level", "layer", "dev"):
            yield f"{key}={value}"


class Census:
    """What there was among the lines that were looked at: told to whoever finds nothing."""

    def __init__(self) -> None:
        self.lines = 0
        self.processes: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.flows: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self.skbs: dict[str, None] = {}
        self.first: str | None = None
        self.last: str | None = None

    def add(self, event: Event) -> None:
        """Count one line."""
        self.lines += 1
        self.processes[str(event.get("process", "?"))] += 1
        self.levels[str(event.get("level", "?"))] += 1
        self.functions[str(event["event"])] += 1
        if flow := event.get("flow"):
            self.flows[str(flow)] += 1
        if skb := event.get("skb"):
            self.skbs[str(skb)] = None
        if wall := event.get("wall"):
            self.first = self.first or str(wall)
            self.last = str(wall)


# ---- from where ------------------------------------------------------------------------------


def log_files(run: RunDir, layers: Iterable[str] = ()) -> list[Path]:
    """The files of the processes of a stack that have logged something: all, or those of some
    layers."""
    found = {path.with_name(path.name.removesuffix(".1")) for path in run.log_dir.glob("*.jsonl*")}
    wanted = frozenset(layers)
    return sorted(
        path for path in found
        if not wanted or not wanted.isdisjoint((path.stem, path.stem.split(".")[0]))
    )  # fmt: skip


def _lines(path: Path, having: bytes) -> Iterator[Event]:
    """All events of one process whose lines contain some bytes, the oldest first."""
    for file in (Path(f"{path}.1"), path):
        try:
            with file.open("rb") as f:
                for line in f:
                    if having in line and (event := parse(line)) is not None:
                        yield event
        except FileNotFoundError:
            continue


def merged(run: RunDir, layers: Iterable[str] = (), having: bytes = b"") -> Iterator[Event]:
    """All events of a stack, or of some of its layers, in the order of its time. having: only
    those whose lines contain this: it is looked for before anything else, and is fast."""
    files = [_lines(path, having) for path in log_files(run, layers)]
    yield from heapq.merge(*files, key=time_of)


def _backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The whole lines of a file before `end`, the last first."""
    rest = b""
    while end > 0:
        size = min(_BLOCK, end)
        end -= size
        file.seek(end)
        lines = (file.read(size) + rest).splitlines(keepends=True)
        rest = lines.pop(0) if end else b""
        yield from reversed(lines)


def last_of(path: Path, wanted: Filter, count: int, end: int | None = None) -> list[Event]:
    """The last `count` wanted events of one process, the oldest first.

    end: of the file, where what comes after it is read by somebody else.
    """
    found: list[Event] = []
    for name, stop in ((path, end), (Path(f"{path}.1"), None)):
        if len(found) >= count:
            break
        try:
            with name.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for line in _backwards(file, size if stop is None else min(stop, size)):
                    if len(found) >= count:
                        break
                    event = parse(line)
                    if event is not None and wanted(event):
                        found.append(event)
        except FileNotFoundError:
            continue
    return found[::-1]


class Tail:
    """The end of one log, even when the file is begun anew.

    at_end: begin there; otherwise with the first line of the file.
    """

    def __init__(self, path: Path, *, at_end: bool = False) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._part = b""
        self.start = 0
        """Where reading has begun."""
        if at_end and (file := self._open()) is not None:
            self.start = file.seek(0, os.SEEK_END)

    def _open(self) -> BinaryIO | None:
        try:
            self._file = self.path.open("rb")
        except FileNotFoundError:
            self._file = None
        return self._file

    def read(self) -> list[Event]:
        """What has come since the last time."""
        events: list[Event] = []
        if self._file is not None:
            events += self._rest()
            try:
                same = os.stat(self.path).st_ino == os.fstat(self._file.fileno()).st_ino
            except FileNotFoundError:
                return events
            if same:
                return events
            events += self._rest()
            self._file.close()
        return events if self._open() is None else events + self._rest()

    def close(self) -> None:
        """Read no more."""
        if self._file is not None:
            self._file.close()

    def _rest(self) -> list[Event]:
        assert self._file is not None
        lines = (self._part + self._file.read()).splitlines(keepends=True)
        self._part = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        return [e for e in map(parse, lines) if e is not None]


class Follower:
    """The logs of a stack as they grow, in the order of time.

    A line of one process may be written a little later than a younger line of another. So an event
    waits for one more look, as long as new ones come.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._tails: dict[Path, Tail] = {}
        self._waiting: list[Event] = []
        self._newest = 0.0
        for path in log_files(run):
            self._tails[path] = Tail(path, at_end=True)

    def close(self) -> None:
        """Read no more."""
        for tail in self._tails.values():
            tail.close()

    def last(self, wanted: Filter, count: int) -> list[Event]:
        """The last wanted events before those that `read` gives."""
        found = [last_of(p, wanted, count, tail.start) for p, tail in self._tails.items()]
        return sorted((e for events in found for e in events), key=time_of)[-count:]

    def read(self) -> list[Event]:
        """What has come, and can have nothing before it."""
        for path in log_files(self._run):
            if path not in self._tails:
                self._tails[path] = Tail(path)
        new = [e for tail in self._tails.values() for e in tail.read()]
        self._waiting = sorted(self._waiting + new, key=time_of)
        if not new:
            ready, self._waiting = self._waiting, []
            return ready
        newest, self._newest = self._newest, max(map(time_of, new))
        ready = [e for e in self._waiting if time_of(e) <= newest]
        self._waiting = self._waiting[len(ready) :]
        return ready


def now() -> float:
    """The machine's time, in seconds since 1970."""
    return time.time()
