# SPDX-License-Identifier: MIT
"""Where a small message's time goes, process by process and stage by stage, from a running lab.

The kernel tells when each system call began and ended, and when a process had a processor (`perf
record`: tracepoints of system calls, context switches, CLOCK_MONOTONIC). So the time that other
processes take from ours is left out. Between system calls, `stamps/sitecustomize.py` notes when a
message was decoded, delivered and encoded. Both ways add about 0.5 us to each thing that is noted,
and no system call. strace would stop the process twice for each call, and a profiler would slow
each function. `stretch` says how much longer a round takes while it is watched. Hardware counters
are not used, since a virtual machine often has none.

In the compiled build nothing but the system calls is seen. What lies between them is one stage.
"""

import os
import platform
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from subjects import HERE, BenchError, Compiled, Process, Skbus

STAGES: Final = (
    "woken", "read", "framed", "decoded", "delivered", "protocol", "encoded", "sent", "to sleep",
)  # fmt: skip
"""In the order of a message's way. `framed`: taken out of ZMTP, and put into it. `delivered`: the
shell around the core. `protocol`: the core, or the application's library and its caller."""
COMPUTED: Final = "computed"
"""All of Python between system calls, where nothing else is seen."""
WAIT: Final = "wait"
ASLEEP: Final = "asleep"
PREEMPTED: Final = "preempted"
"""Without a processor although it had something to do."""
FIELDS: Final = "pid,tid,time,event,trace"
ROUNDS: Final = 400
WARM_UP: Final = 100
WORKS: Final = ("rr", "crr")
CLIENT: Final = "Linux"
APPLICATION: Final = "application"
_NOTED: Final = {1: "decoded", 2: "protocol", 3: "encoded"}

_WAIT, _READ, _SEND = WAIT, "read", "sent"
_CALLS: Final[dict[str, dict[int, str]]] = {
    "x86_64": {
        232: _WAIT, 281: _WAIT, 441: _WAIT, 7: _WAIT, 271: _WAIT, 270: _WAIT, 23: _WAIT,
        0: _READ, 45: _READ, 47: _READ, 19: _READ, 299: _READ, 288: _READ,
        1: _SEND, 44: _SEND, 46: _SEND, 20: _SEND, 307: _SEND,
    },
    "aarch64": {
        22: _WAIT, 441: _WAIT, 73: _WAIT, 72: _WAIT,
        63: _READ, 207: _READ, 212: _READ, 65: _READ, 243: _READ, 242: _READ,
        64: _SEND, 206: _SEND, 211: _SEND, 66: _SEND, 269: _SEND,
    },
}  # fmt: skip
"""machine -> number of a system call -> what it is to us"""


class Span(NamedTuple):
    """A stage of a process: ns of CLOCK_MONOTONIC."""

    begin: int
    end: int
    stage: str


Spans = dict[str, list[Span]]
"""process -> its spans in order, without holes but for those where it sleeps"""


class Work(NamedTuple):
    """What was seen of one kind of work."""

    rounds: list[tuple[int, int]]
    """Begin and end of each, as Linux saw them."""
    spans: Spans
    stretch: float
    """Time of a round that is watched, over that of one that is not."""


# ---- the lab ---------------------------------------------------------------------------------


class Watched(Skbus):
    """Our stack with stamps."""

    agent = HERE / "counted_agent.py"

    def __init__(self, stamps: str) -> None:
        super().__init__(["--affinity", "one"], "line")
        self.env = {"PYTHONPATH": str(HERE / "stamps"), "SKBUS_STAMPS": stamps}


class WatchedCompiled(Compiled):
    """The compiled stack: without stamps, as they would not be called."""

    agent = HERE / "counted_agent.py"

    def __init__(self, stamps: str) -> None:
        super().__init__(["--affinity", "one"], "line")


def why_not() -> str:
    """Why nothing can be watched here; "" if it can."""
    if platform.machine() not in _CALLS:
        return f"the numbers of {platform.machine()}'s system calls are not in timeline.py"
    if shutil.which("perf") is None:
        return "perf is not installed (apt-get install linux-perf)"
    with tempfile.NamedTemporaryFile(prefix="skbus-perf-") as file:
        done = subprocess.run(
            [*_perf(file.name), "--", "true"], capture_output=True, text=True, check=False
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason"])[0]
        return f"perf cannot watch system calls here (root can): {last}"
    return ""


def _perf(path: str) -> list[str]:
    events = ("raw_syscalls:sys_enter", "raw_syscalls:sys_exit")
    chosen = [word for event in events for word in ("-e", event)]
    return [
        "perf", "record", "-q", "-k", "CLOCK_MONOTONIC", "--switch-events", "-o", path, *chosen,
    ]  # fmt: skip


def watch(subject: Skbus, stamps: str, work: str, port: int) -> Work:
    """Do a work ROUNDS times unseen, and as often watched. BenchError where perf fails."""
    server, client = subject.server, subject.client
    assert server is not None
    assert client is not None
    order = {"work": work, "port": port, "host": subject.address}
    server.say(op="serve", **order)
    server.hear(20)
    client.say(op="ask", **order)
    client.hear(60)
    server.hear(60)
    _do(server, client, WARM_UP)
    pids = {name: pid for name, pid in subject.layers.items() if pid}
    pids |= {APPLICATION: server.pid, CLIENT: _descendant(client.pid)}
    unseen = _do(server, client, ROUNDS)
    with tempfile.NamedTemporaryFile(prefix="skbus-perf-") as file:
        with _recording(file.name, list(pids.values())):
            seen = _do(server, client, ROUNDS)
        every = read_events(_script(file.name), {pid: name for name, pid in pids.items()})
    spans = {
        name: process_spans(found, notes(Path(stamps, str(pids[name]))))
        for name, found in every.items()
    }
    return Work(rounds_of(every[CLIENT].calls, work), spans, seen / unseen)


@contextmanager
def _recording(path: str, pids: list[int]) -> Iterator[None]:
    """perf watches some processes; it has begun when this begins."""
    orders, order = os.pipe()
    answer, answers = os.pipe()
    command = [*_perf(path), "-D", "-1", "--control", f"fd:{orders},{answers}"]
    command += ["-p", ",".join(map(str, pids))]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, pass_fds=(orders, answers), start_new_session=True
    ) as perf:
        os.close(orders)
        os.close(answers)
        try:
            os.write(order, b"enable\n")
            if not os.read(answer, 16).startswith(b"ack"):
                assert perf.stderr is not None
                raise BenchError(f"perf: {perf.stderr.read().decode().strip()[-200:]}")
            yield
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait()
            os.close(order)  # not earlier: perf would end without finishing its file
            os.close(answer)


def _descendant(pid: int) -> int:
    """The process that a chain of wrappers (nsenter) has ended in."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _descendant(int(children[0])) if children else pid


def _do(server: Process, client: Process, count: int) -> float:
    start = time.monotonic()
    server.say(op="do", count=count)
    client.say(op="do", count=count)
    client.hear(120)
    server.hear(120)
    return time.monotonic() - start


def _script(path: str) -> Iterator[str]:
    done = subprocess.run(
        ["perf", "script", "--ns", "--show-switch-events", "-i", path, "-F", FIELDS],
        capture_output=True,
        text=True,
        check=False,
    )
    yield from done.stdout.splitlines()


# ---- from events to spans --------------------------------------------------------------------


class Call(NamedTuple):
    """A system call: its number, and what it is to us ("" for any other)."""

    begin: int
    end: int
    number: int
    kind: str


class Seen(NamedTuple):
    """What the kernel told of a process: its system calls; when it had no processor."""

    calls: list[Call]
    off: list[Span]
    """ASLEEP, or PREEMPTED"""


def read_events(lines: Iterable[str], names: Mapping[int, str]) -> dict[str, Seen]:
    """What perf's text says of the main thread of each process."""
    kinds = _CALLS[platform.machine()]
    found = {name: Seen([], []) for name in names.values()}
    entered: dict[int, int] = {}
    out: dict[int, tuple[int, str]] = {}
    for line in lines:
        fields = line.split(maxsplit=3)
        if len(fields) < 4 or "/" not in fields[0]:
            continue
        pid, tid = map(int, fields[0].split("/"))
        if pid != tid or pid not in names:
            continue
        seconds, _, fraction = fields[1].rstrip(":").partition(".")
        at = int(seconds) * 1_000_000_000 + int(fraction)
        seen = found[names[pid]]
        if fields[2] == "PERF_RECORD_SWITCH":
            if fields[3].startswith("OUT"):
                out[pid] = at, PREEMPTED if "preempt" in fields[3] else ASLEEP
            elif pid in out:
                left, why = out.pop(pid)
                seen.off.append(Span(left, at, why))
        elif fields[2] == "raw_syscalls:sys_enter:":
            entered[pid] = at
        elif fields[2] == "raw_syscalls:sys_exit:" and pid in entered:
            number = int(fields[3].split()[1])
            seen.calls.append(Call(entered.pop(pid), at, number, kinds.get(number, "")))
    return found


def notes(path: Path) -> list[Span]:
    """What a process has noted of its stages, in order; nothing where it noted none."""
    if not path.exists():
        return []
    every = struct.iter_unpack("=qqq", path.read_bytes())
    return sorted(Span(b, e, _NOTED[stage]) for b, e, stage in every if stage)


def process_spans(seen: Seen, noted: list[Span]) -> list[Span]:
    """All stages of a process between its first system call and its last, without holes."""
    calls = seen.calls
    if not calls:
        return []
    known = [Span(c.begin, c.end, c.kind or "delivered") for c in calls]
    first, last = known[0].begin, known[-1].end
    at = bisect_left(noted, Span(first, 0, ""))
    inner = [span for span in noted[at:] if span.end <= last]
    known = sorted(_outermost(inner, known))
    out: list[Span] = []
    for before, after in pairwise(known):
        out.append(before)
        if before.end < after.begin:
            stage = between(before.stage, after.stage) if noted else _unseen(before, after)
            out.append(Span(before.end, after.begin, stage))
    return list(_on_processor([*out, known[-1]], seen.off))


def _on_processor(spans: list[Span], off: list[Span]) -> Iterator[Span]:
    """The spans, with the times cut out in which the process had no processor."""
    at = 0
    for span in spans:
        begin, stage = span.begin, span.stage
        while at < len(off) and off[at].end <= begin:
            at += 1
        inside = at
        while inside < len(off) and off[inside].begin < span.end:
            left, back, why = off[inside]
            left, back = max(left, begin), min(back, span.end)
            if begin < left:
                waits = why == ASLEEP and stage in (WAIT, _READ)
                yield Span(begin, left, "to sleep" if waits else _without_wait(stage))
            yield Span(left, back, why)
            begin = back
            inside += 1
        if begin < span.end:
            yield Span(begin, span.end, _without_wait(stage))


def _without_wait(stage: str) -> str:
    """What a process does in a wait for which it has a processor: it comes back from it."""
    return "woken" if stage == WAIT else stage


def _outermost(noted: list[Span], calls: list[Span]) -> Iterator[Span]:
    """Calls, and noted stages; a stage with a system call in it is cut at the call."""
    starts = [call.begin for call in calls]
    for span in noted:
        begin = span.begin
        for call in calls[bisect_left(starts, span.begin) : bisect_left(starts, span.end)]:
            if begin < call.begin:
                yield Span(begin, call.begin, span.stage)
            begin = call.end
        if begin < span.end:
            yield Span(begin, span.end, span.stage)
    yield from calls


def between(before: str, after: str) -> str:
    """The stage of a time without a name, by its neighbours."""
    if before == WAIT:
        return "woken"
    if after == WAIT:
        return "to sleep"
    if before == "read":
        return "framed" if after == "decoded" else "protocol"
    if before == "decoded":
        return "delivered" if after == "protocol" else "protocol"
    if after == "sent":
        return "framed" if before == "encoded" else "protocol"
    return "delivered"


def _unseen(before: Span, after: Span) -> str:
    """The same, where only system calls are known."""
    if before.stage == WAIT:
        return "woken"
    return "to sleep" if after.stage == WAIT else COMPUTED


def rounds_of(calls: list[Call], work: str) -> list[tuple[int, int]]:
    """The rounds as Linux's end saw them: from its first system call for one to its answer."""
    kinds = [call for call in calls if call.kind in (_READ, _SEND)]
    begun = [c.begin for c in kinds if c.kind == _SEND]
    if work == "crr":
        connect = {"x86_64": 42, "aarch64": 203}[platform.machine()]
        begun = [c.begin for c in calls if c.number == connect]
    found = []
    for begin, following in pairwise(begun):
        ends = [c.end for c in kinds if c.kind == _READ and begin < c.begin < following]
        if ends:
            found.append((begin, ends[-1]))
    return found


# ---- sums --------------------------------------------------------------------------------------


def stage_sums(work: Work) -> dict[str, dict[str, float]]:
    """process -> stage -> us of processor time in a round: the mean of all rounds."""
    if not work.rounds:
        return {}
    first, last = work.rounds[0][0], work.rounds[-1][0]
    count = len(work.rounds) - 1
    found: dict[str, dict[str, float]] = {}
    for name, spans in work.spans.items():
        sums: dict[str, float] = {}
        for span in spans:
            if first <= span.begin < last and span.stage not in (ASLEEP, PREEMPTED):
                sums[span.stage] = sums.get(span.stage, 0.0) + (span.end - span.begin) / 1000
        found[name] = {stage: total / max(count, 1) for stage, total in sums.items()}
    return found


def middle_round(work: Work) -> tuple[int, int]:
    """The round of the median length, if possible of those in which no process had to wait for a
    processor in mid-work. BenchError where there was none."""
    if not work.rounds:
        raise BenchError("no round was seen")
    cut = sorted(s.begin for spans in work.spans.values() for s in spans if s.stage == PREEMPTED)
    whole = [r for r in work.rounds if bisect_left(cut, r[0]) == bisect_left(cut, r[1])]
    found = sorted(whole or work.rounds, key=lambda r: r[1] - r[0])
    return found[len(found) // 2]


def median_us(work: Work) -> float:
    """The median length of a round."""
    return statistics.median((end - begin) / 1000 for begin, end in work.rounds)


def measure(compiled: bool) -> dict[str, Work]:
    """Watch both kinds of work. BenchError where that fails."""
    with tempfile.TemporaryDirectory(prefix="skbus-stamps-") as stamps:
        subject: Skbus = WatchedCompiled(stamps) if compiled else Watched(stamps)
        if compiled and (why := subject.missing()):
            raise BenchError(why)
        try:
            subject.up()
            return {work: watch(subject, stamps, work, 9500 + i) for i, work in enumerate(WORKS)}
        finally:
            subject.down()
