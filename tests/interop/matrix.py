# SPDX-License-Identifier: MIT
"""The interoperability matrix: our TCP and the Linux kernel's, both ways, over bad links.

    python tests/interop/matrix.py                   all cells (some minutes)
    python tests/interop/matrix.py --quick           the few that CI runs
    python tests/interop/matrix.py --json FILE --only loss=1%,congestion=cubic

A cell is an impairment, a congestion control and a message size. In each, some connections at once
go from Linux to us, from us to Linux, and from Linux to Linux over the very same bridge
(`bridge.py`), and every transfer is hashed at both ends. The ratio is the goodput with one of the
ends ours to that of Linux alone. Ctrl-C ends it, with what is known by then.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).resolve().parent
if TYPE_CHECKING:
    from tests.interop.conftest import Cable
else:
    Cable = object

SECONDS = 180.0
"""for one transfer: a limit against hanging"""
WAYS = ("linux-skbus", "skbus-linux", "linux-linux")


@dataclass(frozen=True)
class Cell:
    """One combination."""

    loss: str = "0%"
    reorder: str = "0%"
    dup: str = "0%"
    delay: str = "0ms"
    rate: str = "100mbit"
    congestion: str = "cubic"
    message: int = 65536
    flows: int = 4
    size: int = 1 << 20

    def impairment(self) -> str:
        """As `skbus.inet.impair` reads it."""
        words = {
            "loss": self.loss,
            "reorder": self.reorder,
            "dup": self.dup,
            "delay": self.delay,
            "rate": self.rate,
        }
        said = [f"{name} {value}" for name, value in words.items() if value.strip("0%ms") != ""]
        return " ".join(said)

    def name(self) -> str:
        """For people."""
        said = [f"{self.impairment() or 'clean'}", self.congestion]
        return ", ".join([*said, f"{self.message} B"])


QUICK = (
    Cell(loss="1%", delay="5ms", size=1 << 19),
    Cell(reorder="5%", dup="2%", delay="5ms", congestion="reno", message=1000, size=1 << 18),
)
TARGET = Cell(loss="1%", delay="20ms", flows=8, size=2 << 20)
"""The cell that the ratio is promised for."""


def cells(quick: bool) -> list[Cell]:
    """The whole matrix: what hurts alone, then together, with small and large messages."""
    if quick:
        return list(QUICK)
    found = [TARGET]
    for loss, delay, rate, congestion in itertools.product(
        ("0%", "1%", "5%"), ("0ms", "20ms"), ("10mbit", "100mbit"), ("cubic", "reno")
    ):
        found.append(Cell(loss=loss, delay=delay, rate=rate, congestion=congestion))
    for loss, reorder, dup, message in itertools.product(
        ("0%", "1%"), ("0%", "5%"), ("0%", "2%"), (100, 1448, 65536)
    ):
        size = 1 << 17 if message == 100 else 1 << 19
        found.append(
            Cell(loss=loss, reorder=reorder, dup=dup, delay="5ms", message=message, size=size)
        )
    return list(dict.fromkeys(found))


class Link:
    """Two stacks with a bridge between their cables. The cable's own peer namespace becomes the
    bridge's, and the kernel's end moves into a new one behind it."""

    def __init__(self, cable: Cable, held: ExitStack) -> None:
        self.cable = cable
        held.push(cable.ends.pop_all())  # what it needs itself; what comes now is a transfer's
        cable.file = "endpoints_flows"
        middle = cable.peer
        holder = subprocess.Popen(
            [*middle, "unshare", "--net", "sh", "-c", "echo up; cat > /dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        held.callback(_end, holder)
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise RuntimeError("cannot make a network namespace behind the bridge")
        cable.peer = [f"/proc/{holder.pid}" if w == "@" else w for w in middle]
        cable.peer[cable.peer.index("-t") + 1] = str(holder.pid)
        far = cable.peer
        for enter, command in (
            (middle, f"ip addr flush dev {cable.peer_dev}"),
            (middle, f"ip link add far0 type veth peer far1 netns {holder.pid}"),
            (middle, "ip link set far0 up"),
            (far, f"ip addr add {cable.peer_address}/24 dev far1"),
            (far, "ip link set far1 up"),
            (far, "ip link set lo up"),
        ):
            subprocess.run([*enter, *command.split()], check=True)
        features = [word for f in ("tx", "tso", "gso", "gro") for word in (f, "off")]
        for enter, dev in (
            (middle, cable.peer_dev),
            (middle, "far0"),
            (far, "far1"),
            (cable.inside, cable.dev),
        ):
            subprocess.run(
                [*enter, "ethtool", "-K", dev, *features], check=True, capture_output=True
            )
        self.bridge = subprocess.Popen(
            [*middle, sys.executable, str(HERE / "bridge.py"), cable.peer_dev, "far0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        held.callback(_end, self.bridge)
        self.impair("")

    def close_ends(self) -> None:
        """After a transfer."""
        self.cable.ends.close()

    def impair(self, text: str) -> dict[str, int]:
        """Change what the bridge does; what it did until now."""
        assert self.bridge.stdin is not None
        assert self.bridge.stdout is not None
        self.bridge.stdin.write(text.encode() + b"\n")
        self.bridge.stdin.flush()
        found: dict[str, int] = json.loads(self.bridge.stdout.readline())
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Outcome:
    """What one cell showed: goodput of one connection, Mbit/s, by way."""

    cell: Cell
    goodput: dict[str, float] = field(default_factory=dict)
    hashes: int = 0
    errors: list[str] = field(default_factory=list)
    bridge: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def add(self, link: Link, way: str, port: int, seed: int) -> None:
        """One way once more. All that goes wrong is an error of the cell."""
        cell = self.cell
        try:
            seconds, did = transfer(link, cell, way, port, seed)
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # noqa: BLE001 pytest.fail among them
            self.errors.append(f"{way}: {e}")
            return
        finally:
            link.close_ends()
        known = self.bridge.setdefault(way, {})
        for name, times in did.items():
            known[name] = known.get(name, 0) + times
        self.hashes += cell.flows
        self.seconds[way] = self.seconds.get(way, 0.0) + seconds
        self.times[way] = self.times.get(way, 0) + 1
        bits = cell.size * 8 * cell.flows * self.times[way]
        self.goodput[way] = round(bits / self.seconds[way] / 1e6, 3)

    def ratio(self, way: str) -> float | None:
        """To Linux alone."""
        reference = self.goodput.get("linux-linux")
        mine = self.goodput.get(way)
        return mine / reference if reference and mine else None


def transfer(
    link: Link, cell: Cell, way: str, port: int, seed: int
) -> tuple[float, dict[str, int]]:
    """One way of a cell: the sum of the connections' seconds, and what the bridge did. Raises
    ValueError where a byte is not what was sent."""
    cable = link.cable
    link.impair(f"{cell.impairment()} seed {7 + seed}".strip())
    ours_sends = way == "skbus-linux"
    server, client = (cable.linux, cable.ours) if ours_sends else (cable.ours, cable.linux)
    host = cable.peer_address if ours_sends else cable.address
    shared = {"port": port, "flows": cell.flows, "congestion": cell.congestion}
    there = server("serve_flows", **shared)
    there.heard("ready")
    here = client(
        "send_flows", host=host, size=cell.size, message=cell.message, seed=port, **shared
    )
    sent = here.result(SECONDS)
    received = there.result(SECONDS)
    did = link.impair("")
    if sorted(r["sha256"] for r in received) != sorted(s["sha256"] for s in sent):
        raise ValueError("what was received is not what was sent")
    if any(r["size"] != cell.size for r in received) or any(s["rest"] for s in sent):
        raise ValueError("not as many bytes as were sent")
    return sum(r["seconds"] for r in received), did


def run(wanted: list[Cell], repeat: int, console: Console, outcomes: list[Outcome]) -> None:
    """All cells, one after the other, so often each; their outcomes are appended as they come."""
    sys.path.insert(0, str(HERE.parents[1]))
    conftest = importlib.import_module("tests.interop.conftest")
    ports = itertools.count(20_001)
    with ExitStack() as held:
        lab = conftest.Lab(f"m{os.getpid()}")
        held.callback(lab.down)
        reference = conftest.Reference()
        held.callback(reference.down)
        links = dict.fromkeys(WAYS[:2], Link(lab, held))
        links["linux-linux"] = Link(reference, held)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            task = progress.add_task("", total=len(wanted) * len(WAYS) * repeat)
            for cell in wanted:
                outcome = Outcome(cell)
                outcomes.append(outcome)
                for seed, way in itertools.product(range(repeat), WAYS):
                    progress.update(task, description=f"{cell.name()} {way}")
                    outcome.add(links[way], way, next(ports), seed)
                    progress.advance(task)


def table(outcomes: list[Outcome]) -> Table:
    """For people."""
    found = Table(box=None, pad_edge=False)
    for name in ("cell", *WAYS, "ratio in", "ratio out", "hashes", ""):
        found.add_column(name, justify="left" if name in ("cell", "") else "right")
    for one in outcomes:
        speeds = [f"{one.goodput[w]:.2f}" if w in one.goodput else "-" for w in WAYS]
        ratios = [one.ratio(way) for way in WAYS[:2]]
        said = ["-" if r is None else f"{r:.2f}" for r in ratios]
        found.add_row(one.cell.name(), *speeds, *said, str(one.hashes), "; ".join(one.errors)[:200])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="the few cells that CI runs")
    parser.add_argument("--target", action="store_true", help="the one cell with a target")
    parser.add_argument("--repeat", type=int, default=1, help="each cell so often (1)")
    parser.add_argument("--json", type=Path, help="write what was found here")
    parser.add_argument("--only", default="", help="cells with these values: loss=1%%,message=100")
    arguments = parser.parse_args()
    wanted = [TARGET] if arguments.target else cells(arguments.quick)
    for word in filter(None, arguments.only.split(",")):
        name, _, value = word.partition("=")
        wanted = [cell for cell in wanted if str(getattr(cell, name)) == value]
    console = Console(stderr=True)
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    stopped = False
    try:
        run(wanted, arguments.repeat, console, outcomes)
    except KeyboardInterrupt:
        stopped = True
    Console(width=max(console.width, 140)).print(table(outcomes))
    if arguments.json:
        found: list[dict[str, Any]] = []
        for one in outcomes:
            ratios = {way: one.ratio(way) for way in WAYS[:2]}
            found.append({**asdict(one), "ratio": ratios})
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    failed = sum(bool(one.errors) for one in outcomes)
    console.print(
        f"{len(outcomes)} of {len(wanted)} cells, {sum(o.hashes for o in outcomes)} transfers "
        f"hashed and right, {failed} cells failed, {time.monotonic() - begin:.0f} s"
    )
    return 130 if stopped else bool(failed)


if __name__ == "__main__":
    sys.exit(main())
