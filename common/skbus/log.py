# SPDX-License-Identifier: MIT
"""Logs: structlog, one JSON stream for each process, event = the kernel's function name.

    {"time": 71.204113, "level": "debug", "process": "tcp", "layer": "tcp", "event": "tcp_v4_rcv",
     "skb": "2b1f00000007", "flow": "10.77.0.1:40112->10.77.0.2:80", "seq": 1, ...}

`time` is the stack's clock in seconds, which is the same in all processes of a stack, so that
the files of five processes can be merged by it. `debug` logs every step of every packet (the
trace events of the core); `info` only what a person wants to know, never a line per packet.

A process calls `configure` once; the service shell calls `log_events` and `log_trace_events`
with what its core has left; nothing is called, and nothing costs, where a level is off.
"""

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, Literal, TextIO

import structlog

from skbus.net import TraceEvent

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

MAX_FILE: Final = 64 << 20
"""Bytes of a log file; then it becomes FILE.1, and the FILE.1 before it goes. The run directory
is a tmpfs: what lies there is memory."""

Format = Literal["auto", "json", "console"]
Event = dict[str, Any]


def _open_own(path: Path) -> TextIO:
    """To append: a file that nobody else can read, never through a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o600)

    return open(path, "a", encoding="utf-8", opener=opener)


class LogFile(io.TextIOBase):
    """A text file that is renamed to NAME.1 and begun anew when it has grown to `limit` bytes."""

    def __init__(self, path: Path, limit: int = MAX_FILE) -> None:
        super().__init__()
        self._path = path
        self._limit = limit
        self._file = _open_own(path)
        self._size = path.stat().st_size

    def write(self, text: str, /) -> int:
        if self._size > self._limit:
            self._file.close()
            os.replace(self._path, f"{self._path}.1")
            self._file = _open_own(self._path)
            self._size = 0
        self._size += len(text)
        return self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        super().close()
        self._file.close()


class _Sinks:
    """Where a process's lines go: each sink has its own form, and is flushed once a batch."""

    def __init__(self, sinks: list[tuple[Callable[[Event], str], TextIO | LogFile]]) -> None:
        self.sinks = sinks
        self.in_batch = False

    def put(self, event: Event) -> None:
        try:
            for render, stream in self.sinks:
                stream.write(render(event) + "\n")
                if not self.in_batch:
                    stream.flush()
        except (OSError, ValueError):
            pass  # a full disk or a closed terminal must not end a network stack

    def flush(self) -> None:
        try:
            for _, stream in self.sinks:
                stream.flush()
        except (OSError, ValueError):
            pass


class _SinkLogger:
    """What structlog calls at the end of its chain; every level ends in the same sinks."""

    def __init__(self, sinks: _Sinks) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = sinks.put


class _State:
    """The one logging set-up of a process (structlog's own configuration is one, too)."""

    def __init__(self) -> None:
        self.level = "info"
        self.process = ""
        self.sinks = _Sinks([])
        self.flows: dict[int, str] = {}
        """The flow of the skbs that were logged last, by id."""


_MAX_FLOWS: Final = 4096

_state = _State()


def configure(
    process: str,
    level: str = "info",
    *,
    path: Path | None = None,
    stream: TextIO | None = None,
    format: Format = "auto",  # the configuration's name for it
) -> Any:
    """Set the process's logging up, and return its logger.

    path: a file of JSON lines. stream: a second sink, in the given format (auto: coloured text
    on a terminal, else JSON). Neither: standard error.
    """
    sinks: list[tuple[Callable[[Event], str], TextIO | LogFile]] = []
    if path is not None:
        sinks.append((render_json, LogFile(path)))
    if stream is None and path is None:
        stream = sys.stderr
    if stream is not None:
        sinks.append((_renderer(format, stream), stream))
    _state.sinks = _Sinks(sinks)
    _state.process = process
    structlog.configure(
        processors=[_complete],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS["info"]),
        logger_factory=lambda *_: _SinkLogger(_state.sinks),
        cache_logger_on_first_use=False,
    )
    set_level(level)
    return structlog.get_logger(process)


def set_level(level: str) -> None:
    """Change the level of a running process. ValueError lists the levels that there are."""
    if level not in LEVELS:
        raise ValueError(f"no log level {level!r}: it takes {', '.join(LEVELS)}")
    _state.level = level
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))


def get_level() -> str:
    """The level that is set."""
    return _state.level


def _renderer(format: Format, stream: TextIO) -> Callable[[Event], str]:
    terminal = stream.isatty()
    if format == "json" or (format == "auto" and not terminal):
        return render_json
    colour = terminal and not os.environ.get("NO_COLOR")
    return lambda event: render_console(event, colour)


def _complete(logger: Any, level: str, event: Mapping[str, Any]) -> tuple[tuple[Event], Event]:
    """structlog's one processor: put the common fields first, in the order that people read."""
    out: Event = {"time": event.get("time", monotonic_ns() / 1e9), "level": level}
    if level != "debug":
        out["wall"] = datetime.now(UTC).isoformat(timespec="microseconds")
    process = str(event.get("process", _state.process))
    out["process"] = process
    out["layer"], _, dev = process.partition(".")
    if dev:
        out["dev"] = dev
    out["event"] = event["event"]
    for key, value in event.items():
        if key == "exc_info" and value:
            out["exception"] = _exception(value)
        elif key not in out:
            out[key] = value
    return (out,), {}


def _exception(exc_info: object) -> str:
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip()


# ---- what a core leaves ----------------------------------------------------------------------


def log_events(
    logger: Any, now: int, events: Iterable[tuple[str, str, Mapping[str, object]]]
) -> None:
    """`net.log_events`: (level, function, details), at `now` ns of the stack's clock."""
    time = now / 1e9
    with _Batch():
        for level, function, details in events:
            getattr(logger, level)(function, time=time, **_safe(details))


def log_trace_events(logger: Any, events: Iterable[TraceEvent]) -> None:
    """`net.trace_events`, one line each, where the level is debug."""
    if LEVELS[_state.level] > LEVELS["debug"]:
        return
    debug = logger.bind().debug  # once: the proxy looks its configuration up at each call
    with _Batch():
        for time, process, function, skb, details in events:
            fields: Event = {"time": time / 1e9, "process": process}
            flow = flow_of(details)
            hidden = _FLOW_KEYS if flow is not None else ()
            if skb:
                fields["skb"] = f"{skb:x}"
                # A function that knows an skb's flow says it; the ones after it need not.
                if flow is None:
                    flow = _state.flows.get(skb)
                else:
                    if len(_state.flows) >= _MAX_FLOWS:
                        _state.flows.clear()
                    _state.flows[skb] = flow
            if flow is not None:
                fields["flow"] = flow
            for key, value in _safe(details).items():
                if key not in hidden:
                    fields.setdefault(key, value)
            debug(function, **fields)


class _Batch:
    def __enter__(self) -> None:
        _state.sinks.in_batch = True

    def __exit__(self, *_: object) -> None:
        _state.sinks.in_batch = False
        _state.sinks.flush()


_FLOW_KEYS: Final = ("saddr", "sport", "daddr", "dport")
_RESERVED: Final = frozenset({"event", "level", "layer", "wall"})


def _safe(details: Mapping[str, object]) -> Mapping[str, object]:
    """A detail named like one of our own fields keeps its value under another name."""
    if _RESERVED.isdisjoint(details):
        return details
    return {(f"{k}_" if k in _RESERVED else k): v for k, v in details.items()}


def flow_of(details: Mapping[str, object]) -> str | None:
    """ "10.77.0.1:40112->10.77.0.2:80", if the details say so."""
    saddr, daddr = details.get("saddr"), details.get("daddr")
    if not isinstance(saddr, bytes) or not isinstance(daddr, bytes):
        return None
    sport, dport = details.get("sport"), details.get("dport")
    if sport is None or dport is None:
        return f"{address(saddr)}->{address(daddr)}"
    return f"{address(saddr)}:{sport}->{address(daddr)}:{dport}"


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
_SHOWN: Final = ("time", "level", "wall", "process", "layer", "dev", "event", "skb", "flow")


def render_console(event: Mapping[str, Any], colour: bool = False) -> str:
    """One line for a person: time, process, function, skb, flow, and the rest as key=value."""

    def paint(text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour else text

    process = str(event.get("process", ""))
    layer = str(event.get("layer", ""))
    level = str(event.get("level", ""))
    parts = [
        f"{float(event.get('time', 0)):14.6f}",
        paint(f"{process:<10}", _LAYER_COLOURS.get(layer, 37)),
    ]
    if level not in ("debug", "info"):
        parts.append(paint(level, _LEVEL_COLOURS.get(level, 31)))
    parts.append(paint(f"{event.get('event', '')!s:<26}", 1))
    if skb := event.get("skb"):
        parts.append(paint(str(skb), 2))
    if flow := event.get("flow"):
        parts.append(str(flow))
    for key, value in event.items():
        if key in _SHOWN or key == "exception":
            continue
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = address(bytes(value))
        parts.append(f"{paint(key, 2)}={value}")
    line = " ".join(parts).rstrip()
    if "exception" in event:
        line += f"\n{event['exception']}"
    return line
