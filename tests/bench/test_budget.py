# SPDX-License-Identifier: MIT
"""The budget of a small message: from the kernel's events to stages, tables and a figure."""

import importlib
import platform
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
try:
    import budget
    import floor
    import timeline
    from subjects import BenchError
    from timeline import Call, Seen, Span
finally:
    sys.path.remove(str(HERE))

US = 1000


def test_what_is_stamped_is_there() -> None:
    """`stamps/sitecustomize.py` names public functions; whoever renames one renames it there."""
    text = (HERE / "stamps" / "sitecustomize.py").read_text()
    table = re.search(r"STAGES = (\{.*?\n\})", text, re.DOTALL)
    assert table is not None
    for module, names in eval(table[1]).items():  # a literal
        found = importlib.import_module(module)
        for name in names:
            owner: object = found
            for part in name.split("."):
                owner = getattr(owner, part)
            assert callable(owner)


STAMPED = """
import os, sys
from skbus.bus.codec import decode, encode
assert decode(*encode("ip", 1, [])).sender == "ip"
print(len(os.listdir(os.environ["SKBUS_STAMPS"])), os.getpid())
"""


def test_a_stamped_process_notes_its_stages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STAMPED],
        env={"PYTHONPATH": str(HERE / "stamps"), "SKBUS_STAMPS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    files, pid = done.stdout.split()
    assert files == "1"
    noted = timeline.notes(tmp_path / pid)
    assert [span.stage for span in noted] == ["encoded", "decoded"]
    assert noted[0].begin <= noted[0].end <= noted[1].begin <= noted[1].end


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64's system calls")
def test_events_of_perf_become_calls_and_times_without_a_processor() -> None:
    lines = """
 7/7  10.000001000: raw_syscalls:sys_enter: NR 232 (4, 0)
 7/7  10.000002000: PERF_RECORD_SWITCH OUT
 7/7  10.000009000: PERF_RECORD_SWITCH IN
 7/7  10.000010000:  raw_syscalls:sys_exit: NR 232 = 1
 7/8  10.000011000: raw_syscalls:sys_enter: NR 45 (5)
 7/7  10.000012000: PERF_RECORD_SWITCH OUT preempt
 7/7  10.000013000: PERF_RECORD_SWITCH IN
 9/9  10.000013000: raw_syscalls:sys_enter: NR 1 (1)
nonsense
""".splitlines()
    found = timeline.read_events(lines, {7: "ip"})["ip"]
    at = 10_000_000_000
    assert found.calls == [Call(at + 1 * US, at + 10 * US, 232, timeline.WAIT)]
    assert found.off == [
        Span(at + 2 * US, at + 9 * US, timeline.ASLEEP),
        Span(at + 12 * US, at + 13 * US, timeline.PREEMPTED),
    ]


CALLS = [
    Call(0, 100, 232, timeline.WAIT),
    Call(110, 120, 45, "read"),
    Call(200, 220, 44, "sent"),
    Call(230, 400, 232, timeline.WAIT),
]
OFF = [Span(5, 90, timeline.ASLEEP), Span(150, 155, timeline.PREEMPTED)]
NOTED = [Span(130, 140, "decoded"), Span(145, 160, "protocol"), Span(170, 180, "encoded")]


def test_a_message_goes_through_all_stages() -> None:
    spans = timeline.process_spans(Seen(CALLS, [*OFF, Span(240, 390, timeline.ASLEEP)]), NOTED)
    assert [span.stage for span in spans] == [
        "to sleep", "asleep", "woken", "woken", "read", "framed", "decoded", "delivered",
        "protocol", "preempted", "protocol", "delivered", "encoded", "framed", "sent", "to sleep",
        "to sleep", "asleep", "woken",
    ]  # fmt: skip
    assert all(a.end == b.begin for a, b in pairwise(spans))


def test_without_stamps_all_between_two_calls_is_one_stage() -> None:
    spans = timeline.process_spans(Seen(CALLS, OFF), [])
    assert "computed" in [span.stage for span in spans]
    assert "decoded" not in [span.stage for span in spans]


def a_work() -> timeline.Work:
    """Three rounds of 1 ms, of which the first two are counted."""
    spans = timeline.process_spans(Seen(CALLS, OFF), NOTED)
    moved = [
        Span(s.begin * US + n * 1_000_000, s.end * US + n * 1_000_000, s.stage)
        for n in range(2)
        for s in spans
    ]
    rounds = [(n * 1_000_000, n * 1_000_000 + 500_000) for n in range(3)]
    return timeline.Work(rounds, {"ip": moved, timeline.CLIENT: []}, 1.02)


def test_sums_are_of_processor_time_alone() -> None:
    sums = timeline.stage_sums(a_work())["ip"]
    assert sums["read"] == pytest.approx(10)
    assert sums["protocol"] == pytest.approx(10)
    assert "asleep" not in sums
    assert "preempted" not in sums


def test_the_page_has_floors_budgets_and_distances(tmp_path: Path) -> None:
    rings = {name: floor.Crossing(10.0 + 5 * i, 1.0) for i, name in enumerate(floor.RINGS)}
    least = floor.Floor(rings, {"rr": 30.0, "crr": 300.0})
    seen = {"interpreted": {"rr": a_work(), "crr": a_work()}}
    text = "\n".join(budget.page(seen, {"interpreted": least}))
    assert "### A budget for a message" in text
    assert "| to wait, read, send | 15 | 22 |" in text
    assert "| protocol | 10 | 10 |" in text
    drawn = budget.draw(seen, tmp_path / "timeline.svg")
    if "matplotlib" not in drawn:
        assert "1-byte" in drawn or (tmp_path / "timeline.svg").stat().st_size > 1000


def test_the_middle_round_is_one_that_nothing_has_cut() -> None:
    spans = {"ip": [Span(10, 20, timeline.PREEMPTED)]}
    work = timeline.Work([(0, 100), (200, 220), (300, 330), (400, 490)], spans, 1.0)
    assert timeline.middle_round(work) == (300, 330)
    with pytest.raises(BenchError, match="no round"):
        timeline.middle_round(timeline.Work([], {}, 1.0))


def test_the_rings_pass_the_message_on() -> None:
    meta, data = floor.message()
    for ring in floor.RINGS:
        first, change = floor.passer(ring, meta, data)
        assert len(change(first)) == len(first)


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.interpreted
def test_a_round_trip_of_a_lab_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := timeline.why_not():
        pytest.skip(why)
    monkeypatch.setattr(timeline, "ROUNDS", 60)
    found = timeline.measure(compiled=False)
    for name, work in found.items():
        assert len(work.rounds) >= 50
        sums = timeline.stage_sums(work)
        for process in ("nic.eth0", "ip", "tcp", "socket"):
            assert sums[process]["read"] > 0, (name, process)
            assert sums[process]["sent"] > 0, (name, process)
        assert sums["tcp"]["decoded"] > 0
        assert sums["tcp"]["protocol"] > 0
        assert sums["tcp"]["encoded"] > 0
