# SPDX-License-Identifier: MIT
"""Counts of the operations that a small message takes: exact, where times are noisy.

    operations.py [--only simulation,lab] [--fuse LAYERS] [--record]

simulation: what the cores do in `skbus.testing.World` (`counting.py`). lab: the system calls of the
real processes, by strace, which watches one process at a time. A count is the median over rounds,
which leaves out the few rounds that a timer or another process of the machine has disturbed. How
often a process waits still depends on who is quicker. fuse: of the lab alone, as `skbus lab up
--fuse`; the layers of one process are counted together.

`tests/bench/operations.json` has the counts that a test holds (`test_operations.py`). `make
operations` writes it anew. Function calls are recorded for one version of Python.
"""

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any, Final

import counting
from counting import TIMES, TITLES, WORK
from subjects import HERE, BenchError, Process, Skbus

RECORD: Final = HERE / "operations.json"
ROUNDS: Final = 150
HELD: Final = ("wakeups", "messages", "bytes")
"""Columns that are the same for all versions of Python."""
CALLS: Final = ("calls", "c_calls")
VERSION: Final = "{}.{}".format(*sys.version_info[:2])
MARKERS: Final = ("sendmsg", "sendto", "write", "recvfrom", "recvmsg", "readv", "read")
"""A process makes these as often in every round; one of them says where a round ends."""
WIDTH: Final = 80
WAITS: Final = ("epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll", "pselect6", "futex")
"""Their number depends on who is quicker: counted and shown, but not held."""
STEADY: Final = {
    "rr": ("nic.eth0", "ip", "tcp", "application"),
    "datagram": ("nic.eth0", "ip", "application"),
}
"""work -> processes whose other system calls are the same in each round. Elsewhere two messages may
come together: what an application posts and what it asks for next, an ACK and data."""
SystemCalls = dict[str, dict[str, int]]
"""process -> name -> how many in one round"""


# ---- simulation ------------------------------------------------------------------------------


def simulated(work: str, allocations: Callable[[], int] | None) -> counting.Counts:
    """The counts of TIMES rounds; processes that did nothing are left out."""
    found = counting.count_all(work, allocations)
    return {name: counts for name, counts in found.items() if counts["wakeups"]}


def _each(total: int) -> str:
    one = total / TIMES
    return f"{one:,.0f}" if one == int(one) or one >= 100 else f"{one:,.1f}"


def show_simulated(work: str, counts: counting.Counts) -> list[str]:
    """A table of one work, for one round."""
    titles = ("wake-ups", "messages", "bytes", "calls", "C calls", "allocations")
    lines = [f"{TITLES[work]:<22}" + "".join(f"{t:>9}" if t != titles[-1] else f"{t:>12}"
                                             for t in titles)]  # fmt: skip
    total = dict.fromkeys(counting.COLUMNS, 0)
    for name, found in [*counts.items(), ("all", total)]:
        cells = [_each(found[column]) if found[column] else "-" for column in counting.COLUMNS]
        lines.append(f"  {name:<20}" + "".join(f"{c:>9}" for c in cells[:-1]) + f"{cells[-1]:>12}")
        for column in counting.COLUMNS:
            total[column] += found[column]
    return lines


# ---- system calls ----------------------------------------------------------------------------


class Lab(Skbus):
    """Our stack on one processor, with ends that count."""

    agent = HERE / "counted_agent.py"

    def __init__(self, fuse: str = "") -> None:
        super().__init__(["--affinity", "one", *(("--fuse", fuse) if fuse else ())], "ops")
        self.port = 9000

    def count(self, process: str, work: str) -> dict[str, int]:
        """The system calls of one process for one round. BenchError where strace cannot watch."""
        server, client = self.server, self.client
        assert server is not None
        assert client is not None
        self.port += 1
        order = {"work": work, "port": self.port, "host": self.address}
        server.say(op="serve", **order)
        server.hear(20)
        client.say(op="ask", **order)
        client.hear(60)
        server.hear(60)
        pid = server.pid if process == "application" else self.layers[process]
        with tempfile.NamedTemporaryFile("r", prefix="skbus-strace-") as file:
            _watched(pid, file.name, lambda: _do(server, client))
            names = re.findall(r"^\d+ +(\w+)\(", file.read(), re.MULTILINE)
        return median_round(names, ROUNDS)

    def processes(self) -> list[str]:
        return [*(name for name, pid in self.layers.items() if pid), "application"]


def _do(server: Process, client: Process) -> None:
    server.say(op="do", count=ROUNDS)
    client.say(op="do", count=ROUNDS)
    client.hear(120)
    server.hear(120)


def _watched(pid: int, path: str, call: Callable[[], None]) -> None:
    command = ["strace", "-f", "-e", "signal=none", "-o", path, "-p", str(pid)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as tracer:
        assert tracer.stderr is not None
        try:
            told = tracer.stderr.readline()
            if "attached" not in told:
                raise BenchError(f"strace cannot watch process {pid}: {told.strip()}")
            call()
        finally:
            tracer.terminate()


def median_round(names: list[str], rounds: int) -> dict[str, int]:
    """The system calls of an undisturbed round, from those of so many; {} for a process that makes
    none of what every round needs."""
    total = Tally(names)
    per = {name: round(total[name] / rounds) for name in MARKERS}
    marker = next((name for name in MARKERS if per[name]), None)
    if marker is None:
        return {}
    found: list[Tally[str]] = []
    current: Tally[str] = Tally()
    for name in names:
        current[name] += 1
        if current[marker] == per[marker]:
            found.append(current)
            current = Tally()
    counts = {name: statistics.median_low([f[name] for f in found]) for name in sorted(total)}
    return {name: n for name, n in counts.items() if n}


def why_no_system_calls() -> str:
    """Why they cannot be counted here; "" if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    return ""


def show_system_calls(work: str, found: SystemCalls) -> list[str]:
    """A table of one work."""
    lines = [f"{TITLES[work]:<22}{'calls':>6}  which"]
    for process, counts in found.items():
        if counts:
            names = ", ".join(f"{n} {name}" for name, n in counts.items())
            lines.append(f"  {process:<20}{sum(counts.values()):>6}  {names}")
    every = sum(sum(counts.values()) for counts in found.values())
    lines.append(f"  {'all':<20}{every:>6}")
    return lines


# ---- the record ------------------------------------------------------------------------------


def steady(found: SystemCalls) -> SystemCalls:
    """Without the waits."""
    return {
        process: {name: n for name, n in counts.items() if name not in WAITS}
        for process, counts in found.items()
    }


def read_record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def record_of(
    simulation: dict[str, counting.Counts], lab: dict[str, SystemCalls], before: dict[str, Any]
) -> dict[str, Any]:
    """What is written down; what was not counted now stays as it was."""
    out = {
        "times": TIMES,
        "simulation": before.get("simulation", {}),
        "calls": before.get("calls", {}),
        "system_calls": before.get("system_calls", {}),
    }
    if simulation:
        out["simulation"] = {
            work: {name: {c: counts[c] for c in HELD} for name, counts in found.items()}
            for work, found in simulation.items()
        }
        out["calls"] = {
            "python": VERSION,
            **{
                work: {name: {c: counts[c] for c in CALLS} for name, counts in found.items()}
                for work, found in simulation.items()
            },
        }
    if lab:
        out["system_calls"] = {
            work: {process: counts for process, counts in found.items() if counts}
            for work, found in lab.items()
        }
    return out


def differences(recorded: dict[str, Any], found: dict[str, Any], times: int = 1) -> list[str]:
    """What rose and what fell, a line each. Both: process -> what -> count, of so many rounds."""
    lines = []
    for process in dict.fromkeys((*recorded, *found)):
        before, after = recorded.get(process, {}), found.get(process, {})
        for what in dict.fromkeys((*before, *after)):
            old, new = before.get(what, 0) / times, after.get(what, 0) / times
            if old != new:
                verb = "rose" if new > old else "fell"
                lines.append(f"{process}: {what} {verb} from {old:g} to {new:g}")
    return lines


# ---- the command -----------------------------------------------------------------------------


def say(text: str, end: str = "\n") -> None:
    """Print, at once: a table takes a while."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def run_simulation() -> dict[str, counting.Counts]:
    counter = counting.allocation_counter()
    allocations = None if isinstance(counter, str) else counter
    say(f"The cores in the simulation, one round (Python {platform.python_version()}):\n")
    found = {}
    for work in WORK:
        found[work] = simulated(work, allocations)
        say("\n".join(show_simulated(work, found[work])), end="\n\n")
    if isinstance(counter, str):
        say(f"Allocations were not counted: {counter}\n")
    return found


def run_lab(fuse: str = "") -> dict[str, SystemCalls]:
    why = why_no_system_calls()
    if why:
        say(f"System calls were not counted: {why}")
        return {}
    say("System calls of the real processes, one round:\n")
    lab = Lab(fuse)
    found: dict[str, SystemCalls] = {}
    try:
        lab.up()
        for work in WORK:
            counts = {process: lab.count(process, work) for process in lab.processes()}
            say("\n".join(show_system_calls(work, counts)), end="\n\n")
            found[work] = counts
    except (BenchError, OSError, RuntimeError) as e:
        say(f"System calls were not counted: {e}")
        return {}
    finally:
        lab.down()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="simulation,lab", help="some of simulation, lab")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} anew")
    parser.add_argument(
        "--fuse", default="", metavar="LAYERS", help="of the lab, as `lab up` has it"
    )
    chosen = parser.parse_args()
    if chosen.fuse and chosen.record:
        parser.error("--record: what is recorded is a stack whose layers are processes")
    only = chosen.only.split(",")
    if wrong := [name for name in only if name not in ("simulation", "lab")]:
        parser.error(f"--only {wrong[0]}: not one of simulation, lab")
    simulation = run_simulation() if "simulation" in only else {}
    lab = run_lab(chosen.fuse) if "lab" in only else {}
    if chosen.record:
        before = read_record() if RECORD.exists() else {}
        text = json.dumps(record_of(simulation, lab, before), indent=1)
        RECORD.write_text(text + "\n")
        say(f"recorded in {RECORD.relative_to(HERE.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
