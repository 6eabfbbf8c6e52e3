# SPDX-License-Identifier: MIT
"""The cost of many idle connections: memory, processor time, and the rate of bulk next to them.

`bench.py` runs this after its rounds. Connections are opened from Linux to our stack and stay open
with nothing on them. Memory is the proportional set size (PSS, which counts a shared page once) of
all layers and of the application that holds the sockets.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich import box
from rich.table import Table

from subjects import WORKLOADS, BenchError, Skbus, cpu_seconds

IDLE_SECONDS: Final = 5.0
"""how long the idle stack is watched"""
BATCH: Final = 500


class Row(NamedTuple):
    """One figure, its limit, and the aim."""

    title: str
    value: float
    text: str
    least: float
    aim: float
    less_is_better: bool


def pss_bytes(pids: list[int]) -> dict[int, int]:
    """Proportional set size of each process."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found[pid] = int(line.split()[1]) * 1024
    return found


def _bulk(
    subjects: dict[str, Skbus], reps: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """The medians of each subject; the subjects' rounds take turns."""
    rates: dict[str, dict[str, list[float]]] = {
        name: {"bulk_in": [], "bulk_out": []} for name in subjects
    }
    for rep in range(reps):
        for workload in ("bulk_in", "bulk_out"):
            for name in sorted(subjects, reverse=bool(rep % 2)):
                progress(f"bulk {name}: round {rep + 1} of {reps}")
                found = subjects[name].round(WORKLOADS[workload], seconds)
                rates[name][workload].append(found.rate)
    return {
        name: {workload: statistics.median(found) for workload, found in by_workload.items()}
        for name, by_workload in rates.items()
    }


def measure(
    subject: Skbus,
    alone: Skbus,
    count: int,
    reps: int,
    seconds: float,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """The figures, by name. alone: a subject without idle connections, for rounds to compare with.
    BenchError where the connections could not be opened."""
    if subject.server is None:
        subject.up()
    server, client = subject.server, subject.client
    assert server is not None
    assert client is not None
    progress("warming up")
    _bulk({"before": subject}, 1, seconds, progress)
    names = {pid: name for name, pid in subject.layers.items()} | {server.pid: "application"}
    before = pss_bytes(subject.pids)
    port = 45000
    start = time.monotonic()
    for done in range(0, count, BATCH):
        progress(f"{done} of {count} idle connections")
        batch = min(BATCH, count - done)
        server.say(op="hold_accept", port=port, count=batch, seconds=0)
        server.hear(30)
        client.say(op="hold_connect", host=subject.address, port=port, count=batch, seconds=0)
        client.hear(120)
        server.hear(120)
    took = time.monotonic() - start
    progress("doing nothing")
    time.sleep(2)
    after = pss_bytes(subject.pids)
    cpu = cpu_seconds(subject.pids)
    time.sleep(IDLE_SECONDS)
    busy = (cpu_seconds(subject.pids) - cpu) / IDLE_SECONDS
    bulk = _bulk({"beside": subject, "alone": alone}, reps, seconds, progress)
    progress("closing them")
    for agent in (client, server):
        agent.say(op="hold_release", port=port, seconds=0)
        agent.hear(120)
    if set(after) != set(before):
        raise BenchError("a process ended in the meantime")
    return {
        "connections": count,
        "opened_per_second": count / took,
        "bytes_per_connection": sum(after[p] - before[p] for p in before) / count,
        "bytes_by_process": {names[p]: round((after[p] - before[p]) / count) for p in before},
        "cpu": busy,
        "bulk_alone": bulk["alone"],
        "bulk_beside": bulk["beside"],
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """The figures against their limits and aims."""
    memory = found["bytes_per_connection"] / 1024
    shown = [
        Row("memory of all processes, a connection", memory, f"{memory:.1f} KiB", 8, 4, True),
        Row("processor time of all processes", found["cpu"], f"{found['cpu']:.1%}", 0.02, 0.005,
            True),
    ]  # fmt: skip
    for name in ("bulk_in", "bulk_out"):
        ratio = found["bulk_beside"][name] / found["bulk_alone"][name]
        title = f"{WORKLOADS[name].title}, beside them against alone"
        shown.append(Row(title, ratio, f"{ratio:.2f}", 0.9, 0.97, False))
    return shown


def table(found: dict[str, Any]) -> Table:
    """The figures as a table for people."""
    shown = Table(
        title=f"{found['connections']:,} idle connections, "
        f"opened at {found['opened_per_second']:,.0f}/s",
        caption="memory by process, bytes: "
        + ", ".join(f"{name} {size:,}" for name, size in found["bytes_by_process"].items()),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for title in ("what", "skbus", "at least", "aim"):
        shown.add_column(title, justify="left" if title == "what" else "right")
    for row in rows(found):
        good = row.value <= row.least if row.less_is_better else row.value >= row.least
        best = row.value <= row.aim if row.less_is_better else row.value >= row.aim
        colour = "green" if best else "yellow" if good else "red"
        percent = row.text.endswith("%")
        wanted = [f"{x:.1%}" if percent else f"{x:g}" for x in (row.least, row.aim)]
        shown.add_row(row.title, f"[{colour}]{row.text}[/]", *wanted)
    return shown
