# SPDX-License-Identifier: MIT
"""Totals, metrics, verdicts, and what the reports say, of a run that is made up here."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.rundir import RunDir
from skbus.load import live, report
from skbus.load.histogram import Histogram
from skbus.load.monitor import Books, Monitor, Sample
from skbus.load.plots import all_plots
from skbus.load.result import Cell, Result
from skbus.load.scenario import validate

SCENARIO: dict[str, Any] = {
    "name": "made-up",
    "description": "of <b>nothing</b>",
    "assert": ["p99 < 50ms", "errors == 0", "web@hold.rate > 5/s", "mail.p50 < 1s"],
    "flow": [
        {"name": "web", "protocol": "http", "rate": 10},
        {"name": "mail", "protocol": "echo"},
    ],
    "phase": [
        {"name": "ramp", "duration": "2s", "load": [0, 1]},
        {"name": "hold", "duration": "2s"},
    ],
}


def histogram(*values: float) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


def tick(
    cells: dict[int, tuple[float, ...]],
    piece: int = 0,
    errors: dict[str, int] | None = None,
    **moved: int,
) -> dict[str, Any]:
    """What a worker says; errors go to `piece`."""
    said: dict[str, Any] = {}
    for number, values in cells.items():
        said[str(number)] = {
            "latency": histogram(*values).encode(),
            "service": histogram(*(v / 2 for v in values)).encode(),
            "connect": "",
            "errors": {},
            "samples": {},
        }
    if errors:
        said.setdefault(str(piece), {**tick({piece: ()})["cells"][str(piece)]})
        said[str(piece)]["errors"] = errors
        said[str(piece)]["samples"] = {k: f"{k}!" for k in errors}
    return {
        "cells": said,
        "piece": piece,
        "bytes_in": moved.get("bytes_in", 0),
        "bytes_out": moved.get("bytes_out", 0),
        "connects": moved.get("connects", 0),
        "running": moved.get("running", 0),
        "waiting": 0,
        "lag": histogram(0.001).encode(),
    }


def sample(t: float, process: str = "tcp", pid: int = 7, **values: Any) -> Sample:
    filled = {"rss": 50_000_000, "anon": 40_000_000, "cpu": 0, "held": 0, **values}
    return Sample(t, process, pid, **filled)


def a_result(**changes: Any) -> Result:
    result = Result(validate({**SCENARIO, **changes}), Monitor(None), "nowhere", elapsed=4.0)
    result.take_tick(1.0, "web", tick({0: (0.01, 0.02)}, bytes_in=1000), True)
    result.take_tick(2.0, "web", tick({0: (0.03,)}), True)
    result.take_tick(3.0, "web", tick({0: (0.04,), 1: (0.01,) * 5}, 1, bytes_in=500), True)
    result.take_tick(4.0, "web", tick({1: (0.02,) * 7}, 1), True)
    return result


def test_totals_by_flow_and_phase() -> None:
    result = a_result()
    assert result.total().completed == 16
    assert result.total("web", "ramp").completed == 4
    assert result.total("web", "hold").completed == 12
    assert result.total("mail").completed == 0
    assert result.total("web", "hold").metric("rate") == 6
    assert result.total("web").metric("bytes_in") == 1500
    assert result.total("web", "hold").metric("goodput") == 500 * 8 / 2
    assert result.total("web").metric("max") == pytest.approx(0.04, rel=0.001)
    assert result.total("web").metric("service", "p50") == pytest.approx(0.01, rel=0.01)


def test_a_run_that_was_cut_short_has_shorter_phases() -> None:
    result = a_result()
    result.elapsed = 3.0
    assert result.total(None, "hold").seconds == 1
    assert result.total().seconds == 3
    result.elapsed = 1.0
    assert result.total(None, "hold").metric("rate") is None


def test_workers_of_one_beat_are_one_point() -> None:
    result = a_result()
    result.take_tick(5.0, "web", tick({1: (0.5,)}, 1, running=2), True)
    result.take_tick(5.0, "web", tick({1: (0.7, 0.9)}, 1, running=3), False)
    beats = result.beats["web"]
    assert len(beats) == 5
    assert beats[-1].running == 5
    assert beats[-1].points[0] == 3
    assert beats[-1].points[3] == pytest.approx(0.9, rel=0.001)


def test_a_point_survives_its_histogram() -> None:
    result = a_result()
    beat = result.beats["web"][0]
    before = beat.points
    beat.freeze()
    beat.freeze()
    assert beat.points == before
    assert beat.cell.latency.count == 0
    assert result.total("web").completed == 16


def test_verdicts() -> None:
    result = a_result()
    verdicts = {v.assertion.text: v.holds for v in result.verdicts()}
    assert verdicts == {
        "p99 < 50ms": True,
        "errors == 0": True,
        "web@hold.rate > 5/s": True,
        "mail.p50 < 1s": False,  # nobody answered
    }
    assert not result.passed


def test_errors_and_trouble_fail() -> None:
    assert a_result(**{"assert": ["errors == 0"]}).passed
    result = a_result(**{"assert": ["errors == 0"]})
    result.take_tick(5.0, "web", tick({}, 1, {"reset": 2, "timeout": 1}), True)
    assert result.total().errors == Counter(reset=2, timeout=1)
    assert result.total("web", "hold").metric("errors", "reset") == 2
    assert result.total("web").metric("error_rate") == pytest.approx(3 / 19)
    assert not result.passed
    result = a_result(**{"assert": []})
    result.trouble.append("a worker died")
    assert not result.passed


def with_stack(*asserts: str) -> Result:
    result = a_result(**{"assert": list(asserts)})
    monitor = result.monitor
    for t in range(5):
        for process in ("nic.eth0", "tcp"):
            grown = t * 100_000 if process == "tcp" else 0
            monitor.samples.setdefault(process, []).append(
                sample(t, process, anon=40_000_000 + grown, cpu=t * 500_000_000, retransmits=3 * t)
            )
        monitor.lives = {"nic.eth0": [5, 9], "tcp": [7]}
    keys = ("born", "received", "sent", "consumed", "dropped", "held")
    result.books = [
        Books(
            "tcp",
            dict(zip(keys, (5, 10, 8, 4, 2, 1), strict=True)),
            {"SKB_DROP_REASON_NO_SOCKET": 2},
        ),
        Books("nic.eth0", dict(zip(keys, (5, 10, 8, 4, 1, 1), strict=True)), {"FULL_RING": 1}),
    ]
    return result


def values(result: Result) -> dict[str, float | None]:
    return {v.assertion.text: v.value for v in result.verdicts()}


def test_metrics_of_the_stack() -> None:
    result = with_stack(
        "memory < 1 MB/min",
        "memory.nic < 1 MB/min",
        "cpu.tcp < 10%",
        "cpu < 10%",
        "rss.tcp < 1MiB",
        "restarts == 1",
        "drops == 3",
        "drops.SKB_DROP_REASON_NO_SOCKET == 2",
        "retransmits == 24",
        "unaccounted == 0",
        "lag < 1s",
        "memory.udp < 1 MB/min",
    )
    found = values(result)
    assert found.pop("lag < 1s") == pytest.approx(0.001, rel=0.01)
    assert found == {
        "memory < 1 MB/min": pytest.approx(6e6),
        "memory.nic < 1 MB/min": pytest.approx(0),
        "cpu.tcp < 10%": 0.5,
        "cpu < 10%": 1.0,
        "rss.tcp < 1MiB": 50e6,
        "restarts == 1": 1,
        "drops == 3": 3,
        "drops.SKB_DROP_REASON_NO_SOCKET == 2": 2,
        "retransmits == 24": 24,
        "unaccounted == 0": 1,  # of nic
        "memory.udp < 1 MB/min": None,
    }


def test_a_process_that_does_not_answer_is_not_accounted_for() -> None:
    result = with_stack("unaccounted == 0")
    result.books[1] = Books("nic.eth0", None)
    assert values(result) == {"unaccounted == 0": None}
    assert not result.passed


def test_counters_and_cpu_of_a_process_that_was_started_again() -> None:
    monitor = Monitor(None)
    monitor.samples["ip"] = [
        sample(0, cpu=100, retransmits=5, dropped=7),
        sample(1, cpu=1_000_000_100, retransmits=9, dropped=8),
        sample(2, pid=8, cpu=500_000_000, retransmits=2, anon=30_000_000),
        sample(3, pid=8, cpu=700_000_000, retransmits=3, dropped=5, anon=30_000_000),
    ]
    assert monitor.drops() == 1 + 5
    assert monitor.retransmits() == 4 + 2 + 1
    assert monitor.cpu("ip") == pytest.approx(1.7 / 3)
    assert monitor.growth("ip") == 0  # the second life alone


def test_warming_up_is_no_leak() -> None:
    monitor = Monitor(None)
    anon = [10, 20, 30, 40, 40, 40, 40, 40, 40, 40]
    monitor.samples["ip"] = [sample(t, anon=a * 1_000_000) for t, a in enumerate(anon)]
    assert monitor.growth("ip") > 60_000_000
    assert monitor.growth("ip", 3) == pytest.approx(0, abs=1e-3)
    assert monitor.growth("ip", 0, 3) == pytest.approx(600_000_000)
    assert monitor.growth("ip", 9) == monitor.growth("ip")  # too little would be left


def test_memory_grows_in_a_phase() -> None:
    """The first tenth of each counts as warming up."""
    result = a_result(**{"assert": ["@ramp.memory < 1 MB/min", "@hold.memory < 1 MB/min"]})
    for t, anon in enumerate((10, 30, 50, 51, 52, 53)):
        samples = result.monitor.samples.setdefault("tcp", [])
        samples.append(sample(t, anon=anon * 1_000_000))
    assert list(values(result).values()) == [pytest.approx(1200e6), pytest.approx(60e6)]
    assert result.growth("tcp") == pytest.approx(60e6)  # the last of the longest phases


# ---- what is written ---------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_says_everything(tmp_path: Path) -> None:
    result = with_stack("errors == 0", "unaccounted == 0")
    result.happened.append((1.5, "restart <tcp>"))
    result.take_tick(5.0, "web", tick({}, 1, {"reset": 2}), True)
    html_file, json_file = report.write(result, tmp_path / "out")
    page = html_file.read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*['\"](?!#)", page)
    assert "@import" not in page
    assert "of &lt;b&gt;nothing&lt;/b&gt;" in page
    assert "restart &lt;tcp&gt;" in page
    assert page.count("<svg") >= 7
    for text in ("does not hold", "reset 2", "reset!", "FULL_RING 1", "failed"):
        assert text in page
    data = json.loads(json_file.read_text())
    assert data["passed"] is False
    assert data["flows"]["web"]["completed"] == 16
    assert data["phases"]["hold"]["web"]["rate"] == 6
    assert data["unaccounted"] == 1
    assert Histogram.decode(data["total"]["histogram"]).count == 16
    assert [b["t"] for b in data["series"]["web"]] == [1, 2, 3, 4, 5]
    assert data["processes"]["tcp"]["memory_growth_per_minute"] is None  # of 4 s


def test_a_run_that_ended_before_it_began_has_a_report_too(tmp_path: Path) -> None:
    result = Result(validate(SCENARIO), Monitor(None), "nowhere", interrupted=True)
    html_file, json_file = report.write(result, tmp_path)
    assert "Interrupted" in html_file.read_text()
    assert json.loads(json_file.read_text())["total"]["latency"]["p99"] is None
    assert report.summary(result)[0].startswith("web:         0 answered, 0 bit/s, 0 errors")


def test_a_phase_that_never_began_has_no_place_in_the_plots() -> None:
    phases = [*SCENARIO["phase"], {"name": "quiet", "duration": "50s"}]
    phases.append({"name": "late", "duration": "50s"})
    result = a_result(phase=phases)
    result.interrupted = True
    drawn = "".join(svg for _, svg in all_plots(result))
    assert ">hold<" in drawn
    assert ">late<" not in drawn


def test_summary() -> None:
    lines = report.summary(with_stack("errors == 0", "unaccounted == 0"))
    assert lines[0].startswith("web:         16 answered (4/s), p50 20 ms, longest 40 ms, ")
    assert "skbs:        1 unaccounted for" in lines
    assert "dropped:     FULL_RING 1, SKB_DROP_REASON_NO_SOCKET 2; 24 retransmits" in lines
    assert lines[-2:] == [
        "ok           errors == 0    (0)",
        "FAIL         unaccounted == 0    (1)",
    ]


def test_the_line_and_the_screen_while_it_runs() -> None:
    from rich.console import Console

    result = with_stack("errors == 0")
    text = live.line(result, 3.5)
    assert "hold" in text
    assert "errors 0" in text
    assert "held" not in text
    result.monitor.run = RunDir(Path("nowhere"))
    assert live.line(result, 3.5).endswith("retransmits 24  drops 0  held nic.eth0 0, tcp 0")
    assert live.phase_at(result, 0.5) == "ramp"
    assert live.phase_at(result, 4.0) == "settling"
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live.screen(result, 3.5))
    shown = console.export_text()
    console.file.close()
    for word in ("made-up", "web", "mail", "nic.eth0", "tcp", "50 %"):
        assert word in shown


def test_no_number_of_the_screen_is_ever_cut() -> None:
    from rich.console import Console

    result = with_stack("errors == 0")
    result.take_tick(4.5, "web", tick({1: (12.3456,) * 300}, 1, {"EADDRNOTAVAIL": 1234567}), True)
    for width in (40, 60, 80, 100, 120, 200):
        with open("/dev/null", "w") as null:
            console = Console(width=width, record=True, file=null)
            console.print(live.screen(result, 4.5, width))
            lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "…" not in text
        assert "errors" in text
        assert any(line.startswith("web ") and "1234567" in line for line in lines), text
        assert "web: EADDRNOTAVAIL 1234567" in text
        assert " ".join(text.split()).count("Ctrl-C ends the load and writes the report") == 1
        heads = [line.split() for line in lines if line.startswith(("flow ", "process "))]
        rows = [line for line in lines if line.startswith(("web ", "mail ", "tcp ", "nic."))]
        assert len(heads) == 2
        assert rows
    assert "pid" in text  # all columns, where there is room
    assert "waiting" in text


# ---- too little data, and what was not reached -------------------------------------------------


@pytest.mark.parametrize(
    ("percentile", "count", "shown"),
    [
        ("p50", 1, False),
        ("p50", 2, True),
        ("p90", 9, False),
        ("p90", 10, True),
        ("p99", 99, False),
        ("p99", 100, True),
        ("p99.9", 999, False),
        ("p99.9", 1000, True),
    ],
)
def test_a_percentile_needs_requests_beyond_it(percentile: str, count: int, shown: bool) -> None:
    cell = Cell(histogram(*[0.01] * count))
    assert (cell.shown(percentile) is not None) is shown
    assert cell.metric(percentile) is not None  # what is asserted is asserted
    assert (cell.to_json()["latency"].get(percentile) is not None) is shown


def test_figures_of_too_little_stay_blank(tmp_path: Path) -> None:
    result = with_stack("errors == 0")  # 16 requests in 4 s
    page = report.html(result)
    row = page[page.index("<td>web</td>") :].partition("</tr>")[0]
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert cells[4:9] == ["20 ms", "20 ms", "", "", "40 ms"]  # p50, p90, p99, p99.9, longest
    assert "MB/min" not in page.partition("<h2>Scenario")[0]
    summary = "\n".join(report.summary(result))
    assert "growth" not in summary
    assert "p99 " not in summary
    assert "p99" not in live.line(result, 4.0)


def test_growth_needs_ten_seconds() -> None:
    result = Result(
        validate({**SCENARIO, "phase": [{"name": "hold", "duration": "12s"}], "assert": []}),
        Monitor(None),
    )
    result.elapsed = 12.0
    samples = result.monitor.samples.setdefault("tcp", [])
    for t in range(10):
        samples.append(sample(float(t), anon=40_000_000 + t * 100_000))
    assert result.growth_shown("tcp") is None
    samples.append(sample(10.0, anon=41_000_000))
    assert result.growth_shown("tcp") == pytest.approx(6e6)
    assert "growth +6.000 MB/min" in "\n".join(report.summary(result))


def test_a_phase_that_was_not_reached_is_said_to_be() -> None:
    phases = [*SCENARIO["phase"], {"name": "late", "duration": "50s"}]
    result = a_result(phase=phases, **{"assert": ["errors == 0", "web@late.p99 < 1s"]})
    result.interrupted = True
    assert [result.reached(p["name"]) for p in phases] == [True, True, False]
    lines = report.summary(result)
    assert "phase late: not reached" in lines
    assert "FAIL         web@late.p99 < 1s    (not reached)" in lines
    page = report.html(result)
    assert "<td>late: web</td><td>not reached</td><td></td>" in page
    assert page.count("not reached") == 3  # two flows, and the assertion
    assert result.to_json()["phases"]["late"] is None
    assert result.to_json()["phases"]["hold"]["web"]["completed"] == 12


@pytest.mark.parametrize(
    ("asserts", "said"),
    [
        ([], True),
        (["web.p99 < 1s"], True),
        (["mail.errors == 0"], True),
        (["errors.timeout == 0"], True),
        (["errors < 100"], False),
        (["web.error_rate < 90%"], False),
    ],
)
def test_errors_about_which_nothing_is_asserted_are_said_aloud(
    asserts: list[str], said: bool
) -> None:
    result = a_result(**{"assert": asserts})
    result.take_tick(4.1, "web", tick({}, 1, {"refused": 15}), True)
    sentence = "web: 15 of 31 requests failed (48.4 %), and nothing is asserted about errors"
    assert (sentence in "\n".join(report.summary(result))) is said
    assert (sentence in report.html(result)) is said
    assert bool(result.to_json()["unasserted"]) is said
