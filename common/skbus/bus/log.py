# SPDX-License-Identifier: MIT
"""Logs: structlog, one JSON stream for each process, event = the kernel's function name.

    {"time": 71.204113, "level": "debug", "wall": "2026-11-30T13:36:25.104113+00:00",
     "process": "tcp", "layer": "tcp", "event": "tcp_transmit_skb", "skb": "2b1f00000007",
     "flow": "10.77.0.2:80->10.77.0.1:40112", "seq": 1, "len": 0, "flags": "[.]"}

`time` is the stack's clock in seconds, read for each line. All processes of a stack have the same
clock, so the files of five processes can be merged by it. `wall` is the same moment by the
machine's clock. `flow` goes from the packet's sender to its receiver
(`skbus.core.flow_dissector`). Numbers have their names (`skbus.bus.names`). `debug` logs every step
of every packet (the trace events of the core). `info` logs only what a person wants to know, never
a line per packet. docs/logs.md says more.

A process calls `configure` once; where several layers live in it (`--fuse`), once for each. The
service shell calls `log_events` and `log_trace_events` with the events of its core. Where a level
is off, nothing is called, and nothing costs.
"""

import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from skbus.bus.clock import StackClock
from skbus.bus.lean import without
from skbus.bus.names import NAMED, named
from skbus.core.net import LogEvent, TraceEvent

with without("rich"):  # structlog would import it for tracebacks; ours are plain
    import structlog

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

MAX_FILE: Final = 64 << 20
"""Bytes of a log file. A full one becomes FILE.1, and an earlier FILE.1 is removed. The run
directory is a tmpfs: files there are memory."""
MAX_SHARE: Final = 64
"""A log file takes at most this fraction (1/64) of its file system: in a container's run directory
of 1 GB, logs have 16 MB."""

Format = Literal["auto", "json", "console"]
Event = dict[str, Any]


def max_file(directory: Path) -> int:
    """How many bytes a log file in a directory may have."""
    found = os.statvfs(directory)
    return max(1 << 16, min(MAX_FILE, found.f_frsize * found.f_blocks // MAX_SHARE))


class LogFile(io.TextIOBase):
    """A text file that is renamed to NAME.1 and begun anew when it has grown to `limit` bytes.

    A write is whole lines, and one system call. So lines that were written outlast a kill of the
    process, and a line is there whole or not at all. OSError where there is no room for it.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        super().__init__()
        self._fd = -1  # the finaliser calls `close`, even if the file was never open
        self._path = path
        self._limit = max_file(path.parent) if limit is None else limit
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(fd).st_size
        if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
            self._size += os.write(fd, b"\n")  # a life before ours was killed in mid-line
        return fd

    def write(self, text: str, /) -> int:
        if self._size > self._limit:
            self._close_fd()
            os.replace(self._path, f"{self._path}.1")
            self._fd = self._open()
        data = text.encode("utf-8", "replace")
        try:
            written = os.write(self._fd, data)
            if written < len(data):
                written += os.write(self._fd, data[written:])  # says why
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += written
        return len(text)

    def close(self) -> None:
        self._close_fd()
        super().close()

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Sink:
    """One place for a process's lines, and their form there."""

    def __init__(
        self, log: "_Log", render: Callable[[Event], str], stream: TextIO | LogFile
    ) -> None:
        self.log = log
        self.render = render
        self.stream = stream
        self.lines: list[str] = []
        self.lost = 0
        """Lines for which there was no room."""
        self.why = ""

    def flush(self) -> None:
        """Write the lines. Those that cannot be written are counted; a later line tells how
        many."""
        lines, self.lines = self.lines, []
        if not lines:
            return
        told = [self.render(_lost(self.log, self.lost, self.why))] if self.lost else []
        try:
            self.stream.write("\n".join([*told, *lines, ""]))
            self.stream.flush()
        except (OSError, ValueError) as e:
            # a full disk or a closed terminal must not end a network stack
            self.lost += len(lines)
            self.why = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        else:
            self.lost = 0


class _Sinks:
    """All sinks of a process; the lines of a batch are written at once."""

    def __init__(self, sinks: list[_Sink]) -> None:
        self.sinks = sinks
        self.in_batch = False

    def put(self, event: Event) -> None:
        for sink in self.sinks:
            sink.lines.append(sink.render(event))
        if not self.in_batch:
            self.flush()

    def flush(self) -> None:
        for sink in self.sinks:
            sink.flush()


class _SinkLogger:
    """The end of structlog's chain; every level ends in the same sinks."""

    def __init__(self, log: "_Log") -> None:
        self.log = log
        put = log.sinks.put
        self.debug = self.info = self.warning = self.error = self.critical = put


class _Wall:
    """The machine's time of a moment of the stack's clock, as ISO 8601 in UTC."""

    def __init__(self, clock: StackClock) -> None:
        self.clock = clock
        self._second = -1
        self._prefix = ""
        self._offset = 0
        self.look()

    def look(self) -> None:
        """Read both clocks: before each batch, because somebody may set the machine's."""
        self._offset = time.time_ns() - int(self.clock.now() * self.clock.scale)

    def iso(self, now: int) -> str:
        """`now`: ns of the stack's clock."""
        second, ns = divmod(int(now * self.clock.scale) + self._offset, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{ns // 1000:06d}+00:00"


class _Log:
    """The logging set-up of one layer. structlog's own configuration is one a process."""

    def __init__(self, process: str, clock: StackClock) -> None:
        self.level = "info"
        self.process = process
        self.sinks = _Sinks([])
        self.wall = _Wall(clock)


_logs: dict[str, _Log] = {"": _Log("", StackClock())}
"""By the layers' names; mostly there is one."""


def _log_of(process: str) -> _Log:
    """The set-up of a layer; of a name that has none, the first."""
    found = _logs.get(process)
    return found if found is not None else next(iter(_logs.values()))


def configure(
    process: str,
    level: str = "info",
    *,
    path: Path | None = None,
    stream: TextIO | None = None,
    format: Format = "auto",  # the configuration's name for it
    clock: StackClock | None = None,
    beside: bool = False,
) -> Any:
    """Set up the process's logging, and return its logger.

    path: a file of JSON lines. stream: a second sink, in the given format (auto: coloured text
    on a terminal, else JSON). Neither: standard error. clock: the stack's, if that is not the
    machine's. beside: other layers, set up before, live in this process and go on logging.
    """
    log = _Log(process, clock or StackClock())
    sinks: list[_Sink] = []
    if path is not None:
        sinks.append(_Sink(log, render_json, LogFile(path)))
    if stream is None and path is None:
        stream = sys.stderr
    if stream is not None:
        sinks.append(_Sink(log, _renderer(format, stream), stream))
    log.sinks = _Sinks(sinks)
    if not beside:
        _logs.clear()
    _logs[process] = log
    structlog.configure(
        processors=[_complete],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS["info"]),
        logger_factory=lambda *name: _SinkLogger(_log_of(name[0] if name else "")),
        cache_logger_on_first_use=False,
    )
    set_level(level, process)
    return structlog.get_logger(process)


def set_level(level: str, process: str = "") -> None:
    """Change the level of a running process, or of one layer of it. ValueError lists the levels
    that there are."""
    if level not in LEVELS:
        raise ValueError(f"no log level {level!r}: it takes {', '.join(LEVELS)}")
    _log_of(process).level = level
    lowest = min(LEVELS[log.level] for log in _logs.values())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(lowest))


def get_level(process: str = "") -> str:
    """The level that is set."""
    return _log_of(process).level


def _renderer(format: Format, stream: TextIO) -> Callable[[Event], str]:
    terminal = stream.isatty()
    if format == "json" or (format == "auto" and not terminal):
        return render_json
    colour = terminal and not os.environ.get("NO_COLOR")
    return lambda event: render_console(event, colour)


def _complete(logger: Any, level: str, event: Mapping[str, Any]) -> tuple[tuple[Event], Event]:
    """structlog's one processor: put the common fields first, in the order that people read."""
    log: _Log = logger.log
    if LEVELS.get(level, 50) < LEVELS[log.level]:
        raise structlog.DropEvent  # another layer of the process logs more
    wall = log.wall
    now = event.get("time")
    if now is None:
        now = wall.clock.now()
        wall.look()
    return (_event(log, level, now, event.get("process") or log.process, event),), {}


def _event(log: _Log, level: str, now: int, process: str, details: Mapping[str, Any]) -> Event:
    out: Event = {"time": now / 1e9, "level": level, "wall": log.wall.iso(now)}
    out["process"] = process
    layer, _, dev = process.partition(".")
    out["layer"] = layer
    if dev and layer == "nic":
        out["dev"] = dev
    out["event"] = details["event"]
    for key, value in details.items():
        if key == "exc_info":
            if value:
                out["exception"] = _exception(value)
        elif key not in out:
            out[key] = value
    return out


def _lost(log: _Log, lines: int, why: str) -> Event:
    """The line in place of lines that could not be written."""
    now = log.wall.clock.now()
    details = {"event": "log_lines_lost", "lines": lines, "error": why}
    return _event(log, "warning", now, log.process, details)


def _exception(exc_info: object) -> str:
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip()


# ---- what a core leaves ----------------------------------------------------------------------


def log_events(logger: Any, events: Iterable[LogEvent], process: str = "") -> None:
    """`net.log_events`, one line each. process: whose, where several layers live in this one."""
    with _Batch(process):
        for level, function, details, now in events:
            getattr(logger, level)(function, time=now, **_fields(function, details))


def log_trace_events(logger: Any, events: Iterable[TraceEvent], process: str = "") -> None:
    """`net.trace_events`, one line each, where the level is debug."""
    if get_level(process) != "debug":
        return
    debug = logger.bind().debug  # once: the proxy looks its configuration up at each call
    with _Batch(process):
        for now, name, function, skb, details, flow, about in events:
            fields: Event = {"time": now, "process": name}
            if skb:
                fields["skb"] = f"{skb:x}"
            if flow:
                fields["flow"] = flow
            if about:
                fields["about"] = about
            for key, value in _fields(function, details).items():
                if key not in _FLOW_KEYS or not flow:
                    fields[key] = value
            debug(function, **fields)


def log_batch(
    logger: Any, logged: list[LogEvent], traced: list[TraceEvent], process: str = ""
) -> None:
    """A core's events of both kinds, in the order of time."""
    if not traced or not logged:
        log_events(logger, logged, process)
        log_trace_events(logger, traced, process)
        return
    at = 0
    with _Batch(process):
        for event in logged:
            start = at
            while at < len(traced) and traced[at].time <= event.time:
                at += 1
            log_trace_events(logger, traced[start:at], process)
            log_events(logger, [event], process)
        log_trace_events(logger, traced[at:], process)


class _Batch:
    """A context manager: lines logged within are written at its end, in one piece."""

    def __init__(self, process: str) -> None:
        self._log = _log_of(process)
        self._outer = not self._log.sinks.in_batch

    def __enter__(self) -> None:
        if self._outer:
            self._log.sinks.in_batch = True
            self._log.wall.look()

    def __exit__(self, *_: object) -> None:
        if self._outer:
            self._log.sinks.in_batch = False
            self._log.sinks.flush()


_FLOW_KEYS: Final = ("saddr", "sport", "daddr", "dport")
_RESERVED: Final = frozenset(
    {"event", "level", "layer", "wall", "time", "process", "skb", "flow", "about", "exc_info"}
)


def _fields(function: str, details: Mapping[str, object]) -> Mapping[str, object]:
    """Details as a line has them: numbers by their names. A detail that is named like a field of
    ours gets another name."""
    if _RESERVED.isdisjoint(details) and NAMED.isdisjoint(details):
        return details  # most lines
    return {
        (f"{key}_" if key in _RESERVED else key): named(function, key, value, details)
        for key, value in details.items()
    }


def address(value: bytes) -> str:
    """4 bytes as an IPv4 address, 6 as a MAC address, 16 as an IPv6 address; else hex."""
    if len(value) == 4:
        return "{}.{}.{}.{}".format(*value)
    if len(value) == 6:
        return value.hex(":")
    if len(value) == 16:
        import ipaddress

        return str(ipaddress.IPv6Address(value))
    return value.hex()


# ---- renderers -------------------------------------------------------------------------------


def _default(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return address(bytes(value))
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return str(value)


_encode = json.JSONEncoder(default=_default, ensure_ascii=False, separators=(",", ":")).encode


def render_json(event: Event) -> str:
    """One JSON object."""
    return _encode(event)


_LAYER_COLOURS: Final = {
    "nic": 33,
    "ip": 36,
    "tcp": 32,
    "udp": 34,
    "socket": 35,
    "supervisor": 37,
}
_LEVEL_COLOURS: Final = {"warning": 33, "error": 31, "critical": 31}
_SHOWN: Final = frozenset(
    {"time", "level", "wall", "process", "layer", "event", "skb", "flow", "exception"}
)
"""Fields that a line for people has in a place of their own, or not at all."""


def clock_of(event: Mapping[str, Any], stack_time: bool = False) -> str:
    """The time of an event: by this machine's clock and time zone, 13:36:25.104113, or by the
    stack's, in seconds."""
    if not stack_time and "wall" in event:
        try:
            wall = datetime.fromisoformat(str(event["wall"])).astimezone()
        except ValueError:
            pass
        else:
            return f"{wall:%H:%M:%S.%f}"
    return f"{float(event.get('time', 0)):15.6f}"


def details_of(event: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The details of a line, without the fields that all lines have."""
    for key, value in event.items():
        if key in _SHOWN or (key == "dev" and event.get("layer") == "nic"):
            continue
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = address(bytes(value))
        yield key, value


def plain(value: object) -> str:
    """Text for a terminal, in which control characters are shown, not obeyed: they may be a
    client's or a packet's."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def render_console(
    event: Mapping[str, Any], colour: bool = False, *, stack_time: bool = False
) -> str:
    """One line for a person: time, process, function, skb, flow, and the rest as key=value."""

    def paint(text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour else text

    process = plain(event.get("process", ""))
    layer = str(event.get("layer", ""))
    level = plain(event.get("level", ""))
    parts = [
        clock_of(event, stack_time),
        paint(f"{process:<10}", _LAYER_COLOURS.get(layer, 37)),
    ]
    if level not in ("debug", "info"):
        parts.append(paint(level, _LEVEL_COLOURS.get(level, 31)))
    parts.append(paint(f"{plain(event.get('event', '')):<26}", 1))
    if skb := event.get("skb"):
        parts.append(paint(plain(skb), 2))
    if flow := event.get("flow"):
        parts.append(plain(flow))
    parts += [f"{paint(plain(key), 2)}={plain(value)}" for key, value in details_of(event)]
    line = " ".join(parts).rstrip()
    if "exception" in event:
        line += "".join(f"\n{plain(text)}" for text in str(event["exception"]).split("\n"))
    return line
