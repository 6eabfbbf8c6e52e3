# SPDX-License-Identifier: MIT
"""Logs: fields, levels, sinks, and that what is off is not formatted."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from skbus import log
from skbus.net import TraceEvent

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
    event = traced("tcp_v4_rcv", 0x2A0000000007, saddr=A, sport=40112, daddr=B, dport=80, seq=9)
    log.log_trace_events(logger, [event])
    assert lines(out) == [
        {
            "time": 1.5,
            "level": "debug",
            "process": "nic.eth0",
            "layer": "nic",
            "dev": "eth0",
            "event": "tcp_v4_rcv",
            "skb": "2a0000000007",
            "flow": "10.77.0.1:40112->10.77.0.2:80",
            "seq": 9,
        }
    ]


def test_flow_without_ports_and_without_addresses() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "debug", stream=out)
    log.log_trace_events(logger, [traced("ip_rcv", saddr=A, daddr=B), traced("arp_rcv", mac=b"")])
    first, second = lines(out)
    assert first["flow"] == "10.77.0.1->10.77.0.2"
    assert "flow" not in second
    assert "skb" not in second


def test_an_skb_keeps_the_flow_that_a_function_has_found() -> None:
    out = io.StringIO()
    logger = log.configure("tcp", "debug", stream=out)
    known = traced("tcp_v4_rcv", 5, saddr=A, sport=1, daddr=B, dport=80)
    log.log_trace_events(logger, [traced("before", 5), known, traced("after", 5), traced("x", 6)])
    assert [line.get("flow") for line in lines(out)] == [
        None,
        "10.77.0.1:1->10.77.0.2:80",
        "10.77.0.1:1->10.77.0.2:80",
        None,
    ]


def test_info_writes_no_line_per_packet() -> None:
    class Exploding:
        def __str__(self) -> str:
            raise AssertionError("formatted although the level is off")

    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    log.log_trace_events(logger, [traced("tcp_v4_rcv", 7, x=Exploding())] * 1000)
    log.log_events(logger, 0, [("debug", "f", {"x": Exploding()})])
    assert out.getvalue() == ""


def test_level_changes_while_running() -> None:
    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    log.set_level("debug")
    log.log_trace_events(logger, [traced("a")])
    log.set_level("error")
    log.log_trace_events(logger, [traced("b")])
    log.log_events(logger, 0, [("warning", "c", {}), ("error", "d", {})])
    assert [line["event"] for line in lines(out)] == ["a", "d"]


def test_unknown_level_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'loud': it takes debug, info, warning, error"):
        log.set_level("loud")


def test_log_events_carry_wall_time_and_details() -> None:
    out = io.StringIO()
    logger = log.configure("ip", "info", stream=out)
    log.log_events(logger, 2_000_000_000, [("info", "register_netdevice", {"addr": A})])
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


def test_a_closed_stream_ends_nothing() -> None:
    out = io.StringIO()
    logger = log.configure("tcp", "info", stream=out)
    out.close()
    logger.info("still_here")


def test_console_line() -> None:
    event = {"time": 1.5, "level": "warning", "process": "nic.eth0", "layer": "nic"}
    event |= {"event": "dev_queue_xmit", "skb": "2a", "flow": "a->b", "len": 60}
    plain = log.render_console(event)
    assert plain.split() == [
        "1.500000",
        "nic.eth0",
        "warning",
        "dev_queue_xmit",
        "2a",
        "a->b",
        "len=60",
    ]
    assert "\x1b[" not in plain
    assert "\x1b[33m" in log.render_console(event, colour=True)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(A, "10.77.0.1"), (b"\2\0\0\0\0\7", "02:00:00:00:00:07"), (bytes(15) + b"\1", "::1")],
)
def test_addresses(raw: bytes, text: str) -> None:
    assert log.address(raw) == text
    assert json.loads(log.render_json({"x": raw})) == {"x": text}
