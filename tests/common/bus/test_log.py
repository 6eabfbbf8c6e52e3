# SPDX-License-Identifier: MIT
"""Logs: fields, levels, sinks, and that what is off is not formatted."""

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from skbus.bus import log
from skbus.bus.clock import StackClock
from skbus.core.net import LogEvent, TraceEvent

A, B = bytes((10, 77, 0, 1)), bytes((10, 77, 0, 2))


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def traced(function: str, skb: int = 0, **details: object) -> TraceEvent:
    return TraceEvent(1_500_000_000, "nic.eth0", function, skb, details)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_trace_event_fields() -> None:
    out = io.StringIO()
    logger = log.configure("nic.eth0", "debug", stream=out)
    flow = "10.77.0.1:40112->10.77.0.2:80"
    details = {"saddr": A, "sport": 40112, "daddr": B, "dport": 80, "seq": 9, "flags": 0x12}
    event = TraceEvent(1_500_000_000, "nic.eth0", "tcp_x", 0x2A0000000007, details, flow, "a->b")
    log.log_trace_events(logger, [event])
    (line,) = lines(out)
    datetime.fromisoformat(line.pop("wall"))
    assert line == {
        "time": 1.5,
        "level": "debug",
        "process": "nic.eth0",
        "layer": "nic",
        "dev": "eth0",
        "event": "tcp_x",
        "skb": "2a0000000007",
        "flow": flow,
        "about": "a->b",
        "seq": 9,
        "flags": "[S.]",
    }


def test_addresses_stay_where_the_flow_does_not_say_them() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "debug", stream=out)
    log.log_trace_events(logger, [traced("fib_lookup", daddr=B), traced("arp_rcv", mac=b"")])
    first, second = lines(out)
    assert first["daddr"] == "10.77.0.2"
    assert not {"flow", "skb", "about"} & {*first, *second}


@pytest.mark.parametrize(("process", "dev"), [("nic.eth0", "eth0"), ("tcp.1", None), ("ip", None)])
def test_only_nic_has_a_device(process: str, dev: str | None) -> None:
    out = io.StringIO()
    log.configure(process, "info", stream=out).info("started")
    (line,) = lines(out)
    assert line["layer"] == process.split(".")[0]
    assert line.get("dev") == dev


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_wall_clock_is_the_lines_own(scale: float) -> None:
    """Not of when it was written, and not of the stack's clock, which may be slower."""
    out = io.StringIO()
    clock = StackClock(scale)
    before = datetime.now(UTC)
    logger = log.configure("ip", "debug", stream=out, clock=clock)
    now = clock.now()
    hour_ago = now - int(3600e9 / scale)
    log.log_trace_events(logger, [TraceEvent(t, "ip", "x", 0, {}) for t in (now, hour_ago)])
    logger.info("by hand")
    first, second, third = lines(out)
    for line in (first, third):
        passed = datetime.fromisoformat(line["wall"]) - before
        assert timedelta(0) <= passed + timedelta(milliseconds=1) < timedelta(minutes=5)
        assert now / 1e9 <= line["time"] <= clock.now() / 1e9
    ago = datetime.fromisoformat(first["wall"]) - datetime.fromisoformat(second["wall"])
    assert abs(ago - timedelta(hours=1)) < timedelta(milliseconds=1)


def test_both_kinds_of_events_come_in_the_order_of_time() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "debug", stream=out)
    trace = [TraceEvent(t, "ip", f"t{t}", 0, {}) for t in (1, 3, 5)]
    said = [LogEvent("info", f"i{t}", {}, t) for t in (2, 3, 9)]
    log.log_batch(logger, said, trace)
    assert [line["event"] for line in lines(out)] == ["t1", "i2", "t3", "i3", "t5", "i9"]


def test_info_writes_no_line_per_packet() -> None:
    class Exploding:
        def __str__(self) -> str:
            raise AssertionError("formatted although the level is off")

    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    log.log_trace_events(logger, [traced("tcp_v4_rcv", 7, x=Exploding())] * 1000)
    log.log_events(logger, [LogEvent("debug", "f", {"x": Exploding()}, 0)])
    assert out.getvalue() == ""


def test_level_changes_while_running() -> None:
    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    log.set_level("debug")
    log.log_trace_events(logger, [traced("a")])
    log.set_level("error")
    log.log_trace_events(logger, [traced("b")])
    log.log_events(logger, [LogEvent("warning", "c", {}, 0), LogEvent("error", "d", {}, 0)])
    assert [line["event"] for line in lines(out)] == ["a", "d"]


def test_unknown_level_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'loud': it takes debug, info, warning, error"):
        log.set_level("loud")


def test_log_events_carry_wall_time_and_details() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "info", stream=out)
    event = LogEvent("info", "register_netdevice", {"addr": A}, 2_000_000_000)
    log.log_events(logger, [event])
    (line,) = lines(out)
    assert (line["time"], line["event"], line["addr"]) == (2.0, "register_netdevice", "10.77.0.1")
    assert line["wall"].endswith("+00:00")


def test_details_cannot_break_the_common_fields() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "debug", stream=out)
    log.log_trace_events(logger, [traced("f", event="x", level=3, layer="y")])
    (line,) = lines(out)
    assert (line["event"], line["level"], line["layer"]) == ("f", "debug", "nic")
    assert (line["event_"], line["level_"], line["layer_"]) == ("x", 3, "y")


def test_exception_is_logged_with_its_traceback() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "info", stream=out)
    try:
        raise RuntimeError("boom")
    except RuntimeError as e:
        logger.error("crash", exc_info=e)
    assert "RuntimeError: boom" in lines(out)[0]["exception"]


def test_file_and_stream_together(tmp_path: Path) -> None:
    out = io.StringIO()
    path = tmp_path / "tcp.jsonl"
    logger = log.configure("tcp", "info", path=path, stream=out, format="console")
    logger.warning("tcp_check_oom", pages=3)
    assert json.loads(path.read_text())["pages"] == 3
    assert "tcp_check_oom" in out.getvalue()
    assert "pages=3" in out.getvalue()


def test_a_full_file_becomes_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    file = log.LogFile(path, limit=10)
    for text in ("aaaaaaaaaaaa\n", "b\n"):
        file.write(text)
    file.close()
    assert (tmp_path / "x.jsonl.1").read_text() == "aaaaaaaaaaaa\n"
    assert path.read_text() == "b\n"


def test_a_line_that_a_killed_life_began_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"event": "half')
    log.configure("x", "info", path=path).info("whole")
    half, whole = path.read_text().splitlines()
    assert half == '{"event": "half'
    assert json.loads(whole)["event"] == "whole"


def test_a_log_is_its_owners_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    log.LogFile(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        log.LogFile(path)


def test_a_small_file_system_has_small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(size: int) -> int:
        found = os.statvfs_result((4096, 4096, size // 4096, 0, 0, 0, 0, 0, 0, 255))
        monkeypatch.setattr("os.statvfs", lambda _: found)
        return log.max_file(Path("/"))

    assert of(1 << 40) == log.MAX_FILE
    assert of(1 << 30) == 16 << 20
    assert of(1 << 20) == 1 << 16


class FullDisk(io.StringIO):
    """A place with room for so many writes."""

    room = 1

    def write(self, text: str, /) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().write(text)


def test_what_a_full_disk_lost_is_said_when_there_is_room_again() -> None:
    out = FullDisk()
    logger = log.configure("tcp", "debug", stream=out)
    logger.info("before")
    log.log_trace_events(logger, [traced("a"), traced("b")])
    logger.info("c")
    out.room = 2
    logger.info("after")
    logger.info("later")
    before, lost, after, later = lines(out)
    assert [before["event"], after["event"], later["event"]] == ["before", "after", "later"]
    assert (lost["event"], lost["level"], lost["lines"]) == ("log_lines_lost", "warning", 3)
    assert lost["error"] == "No space left on device"


def test_a_write_that_fits_in_part_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE as a disk that gets full in mid-write."""
    code = f"""
import resource, signal
from pathlib import Path
from skbus.bus import log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = log.LogFile(Path({str(tmp_path / "x")!r}))
file.write("whole\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    file.write("too long for it\\n")
except OSError as e:
    print(e.strerror)
file.write("ok\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    assert (tmp_path / "x").read_text() == "whole\nok\n"


def test_a_closed_stream_ends_nothing() -> None:
    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    out.close()
    logger.info("still_here")


def test_console_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    event = {"time": 1.5, "level": "warning", "process": "nic.eth0", "layer": "nic"}
    event |= {"event": "dev_queue_xmit", "skb": "2a", "flow": "a->b", "len": 60, "dev": "eth0"}
    rest = ["nic.eth0", "warning", "dev_queue_xmit", "2a", "a->b", "len=60"]
    assert log.render_console(event).split() == ["1.500000", *rest]
    event["wall"] = "2026-11-30T13:36:25.104113+00:00"
    plain = log.render_console(event)
    assert plain.split() == ["19:21:25.104113", *rest]
    assert log.render_console(event, stack_time=True).split() == ["1.500000", *rest]
    assert "\x1b[" not in plain
    assert "\x1b[33m" in log.render_console(event, colour=True)
    other = {"time": 1.0, "process": "ip", "layer": "ip", "event": "ip_output", "dev": "eth0"}
    assert log.render_console(other).endswith("dev=eth0")
    monkeypatch.undo()
    time.tzset()


def test_a_terminal_obeys_no_line() -> None:
    """What a client or a packet has sent may be in a line."""
    evil = "\x1b]0;title\x07\r\n\x9b31m"
    event = {"time": 1.0, "process": evil, "event": evil, "skb": evil, "flow": evil, "path": evil}
    line = log.render_console({**event, "level": "info", evil: 1, "exception": f"a\n{evil}"})
    assert [part for part in line.split("\n") if not part.isprintable()] == []
    assert line.count("\\x1b]0;title") == 7
    assert log.render_console({**event, "path": "caf\u00e9"}).endswith("path=caf\u00e9")


@pytest.mark.parametrize(
    ("raw", "text"),
    [(A, "10.77.0.1"), (b"\2\0\0\0\0\7", "02:00:00:00:00:07"), (bytes(15) + b"\1", "::1")],
)
def test_addresses(raw: bytes, text: str) -> None:
    assert log.address(raw) == text
    assert json.loads(log.render_json({"x": raw})) == {"x": text}
