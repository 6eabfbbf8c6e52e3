# SPDX-License-Identifier: MIT
"""What the stack does while it is loaded: memory, processor, counters, queues, drops.

`skbus.load.runner` calls `sample` at each beat, and `books` when all is over. Questions to a
process go through its control socket (`skbus.bus.ctl`). Memory and processor time come from /proc.
Linux's own counters come from the /proc/net of a client's process, which is in the peer's
namespace.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Final

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.linux import proc_status
from skbus.bus.rundir import RunDir
from skbus.load.curve import slope
from skbus.load.place import processes

_PATIENCE: Final = 1.0
_END_PATIENCE: Final = 20.0
"""Seconds that a process has to answer; one that is stopped does not."""


@dataclass(slots=True)
class Sample:
    """One process at one time. Numbers count from its start, but memory and `held`."""

    t: float
    process: str
    pid: int
    rss: int
    """bytes; 0 where /proc does not show the process, as from another container"""
    anon: int
    cpu: int
    """nanoseconds"""
    held: int | None = None
    """skbs: what its queues hold; None if it did not answer"""
    pool: int = 0
    dropped: int = 0
    retransmits: int = 0


@dataclass(slots=True)
class Books:
    """A process's account of its skbs at the end."""

    process: str
    conservation: dict[str, int] | None
    """None: it did not answer"""
    drops: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int | None:
        """skbs of which it cannot say what became; 0 is right."""
        c = self.conservation
        if c is None:
            return None
        into = c["born"] + c["received"]
        return into - c["sent"] - c["consumed"] - c["dropped"] - c["held"]


class Monitor:
    """Watches one stack, or none: then there is only Linux to watch."""

    def __init__(self, run: RunDir | None) -> None:
        self.run = run
        self.samples: dict[str, list[Sample]] = {}
        self.lives: dict[str, list[int]] = {}
        """The pids that each process has had."""
        self.linux: list[tuple[float, int]] = []
        """(t, segments that Linux has retransmitted)"""
        self.linux_pid: int | None = None
        self._linux_base: int | None = None
        self._drops_base: dict[str, dict[str, int]] = {}
        self._retransmits_base: dict[str, int] = {}
        self._epochs: dict[str, int] = {}

    def sample(self, t: float) -> list[Sample]:
        """Look at everything. Blocks, for a process that does not answer for a second: to be
        called in a thread."""
        found: list[Sample] = []
        for process, pid in processes(self.run).items():
            proc = proc_status(pid) if pid else self._usage(process)
            if not proc:
                continue
            one = Sample(t, process, pid, proc["rss"], proc["anon"], proc["cpu"])
            self._ask(one)
            if not one.pid:
                continue
            found.append(one)
            self.samples.setdefault(process, []).append(one)
            lives = self.lives.setdefault(process, [])
            if not lives or lives[-1] != one.pid:
                lives.append(one.pid)
        if (count := self._linux_retransmits()) is not None:
            if self._linux_base is None:
                self._linux_base = count
            self.linux.append((t, count - self._linux_base))
        return found

    def _usage(self, process: str) -> dict[str, int]:
        """What a process in another container says that it uses."""
        assert self.run is not None
        try:
            found: dict[str, int] = ctl_call(self.run, process, "usage", seconds=_PATIENCE)
        except ControlError:
            return {}
        return found

    def _ask(self, one: Sample) -> None:
        assert self.run is not None
        if one.pid and _stopped(one.pid):
            return  # it would not answer; do not wait for it
        try:
            status = ctl_call(self.run, one.process, "status", seconds=_PATIENCE)
            counters = ctl_call(self.run, one.process, "counters", seconds=_PATIENCE)
        except ControlError:
            return
        # In a container of its own a process has no pid that we know: its epoch tells its lives
        # apart as well.
        one.pid = one.pid or int(status["epoch"])
        one.held = int(status["conservation"]["held"])
        one.pool = int(status.get("pool_in_use", 0))
        one.dropped = int(status["conservation"]["dropped"])
        one.retransmits = int(counters.get("TcpRetransSegs", 0))
        if one.process not in self._epochs:
            self._epochs[one.process] = status["epoch"]
            self._drops_base[one.process] = {str(k): int(v) for k, v in status["drops"].items()}
            self._retransmits_base[one.process] = one.retransmits

    def _linux_retransmits(self) -> int | None:
        if self.linux_pid is None:
            return None
        return read_snmp(self.linux_pid).get("TcpRetransSegs")

    # ---- at the end ------------------------------------------------------------------------

    def at_rest(self) -> bool:
        """Whether no process's number of skbs held is still going down to what it was."""
        if self.run is None:
            return True
        for process in processes(self.run):
            first = next((s for s in self.samples.get(process, ()) if s.held is not None), None)
            try:
                status = ctl_call(self.run, process, "status", seconds=_PATIENCE)
            except ControlError:
                continue
            if first is None or int(status["conservation"]["held"]) > (first.held or 0):
                return False
        return True

    def books(self) -> list[Books]:
        """Each process's account."""
        if self.run is None:
            return []
        out: list[Books] = []
        for process in self.run.processes():
            try:
                status = ctl_call(self.run, process, "status", seconds=_END_PATIENCE)
                counters = ctl_call(self.run, process, "counters", seconds=_END_PATIENCE)
            except ControlError:
                out.append(Books(process, None))
                continue
            same = status["epoch"] == self._epochs.get(process)
            before = self._drops_base.get(process, {}) if same else {}
            drops = {str(k): int(v) - before.get(str(k), 0) for k, v in status["drops"].items()}
            out.append(
                Books(
                    process,
                    {str(k): int(v) for k, v in status["conservation"].items()},
                    {k: v for k, v in drops.items() if v},
                    {str(k): int(v) for k, v in counters.items()},
                )
            )
        return out

    def growth(self, process: str, begin: float = 0.0, end: float = inf) -> float:
        """Growth of the anonymous memory of the process's last life, in bytes a minute, by least
        squares, in that part of the run. It is over all of that life where there are fewer than
        two samples in that part."""
        samples = self.samples.get(process, [])
        if not samples:
            return 0.0
        mine = [s for s in samples if s.pid == samples[-1].pid]
        part = [s for s in mine if begin <= s.t <= end]
        return slope([(s.t, float(s.anon)) for s in (part if len(part) > 1 else mine)]) * 60

    def cpu(self, process: str) -> float:
        """The share of one processor over the run."""
        used = 0
        samples = self.samples.get(process, [])
        for a, b in pairwise(samples):
            used += b.cpu - a.cpu if a.pid == b.pid else b.cpu
        span = samples[-1].t - samples[0].t if len(samples) > 1 else 0.0
        return used / 1e9 / span if span else 0.0

    def retransmits(self) -> int:
        """Segments retransmitted since the first sample, by us and by Linux."""
        return self._counted("retransmits") + (self.linux[-1][1] if self.linux else 0)

    def drops(self) -> int:
        """skbs dropped since the first sample."""
        return self._counted("dropped")

    def _counted(self, counter: str) -> int:
        return sum(
            _increase([getattr(s, counter) for s in samples if s.held is not None])
            for samples in self.samples.values()
        )

    def restarts(self) -> int:
        """How often a process came back with another pid."""
        return sum(len(pids) - 1 for pids in self.lives.values())


def _increase(values: list[int]) -> int:
    """Of a counter that begins at 0 again after a restart."""
    total = 0
    for a, b in pairwise(values):
        total += b - a if b >= a else b
    return total


def _stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] in "Tt"


def read_snmp(pid: int | None = None) -> dict[str, int]:
    """/proc/net/snmp and netstat of a process's namespace: TcpRetransSegs, TcpExtTCPTimeouts."""
    out: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        try:
            lines = Path(f"/proc/{pid or os.getpid()}/net/{name}").read_text().splitlines()
        except OSError:
            continue
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            table = names.split(":", 1)[0]
            for key, value in zip(names.split()[1:], values.split()[1:], strict=False):
                out[table + key] = int(value)
    return out


def host(run: RunDir | None) -> Mapping[str, Any]:
    """The machine, for the report."""
    import platform

    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "run_dir": str(run.path) if run else None,
    }
