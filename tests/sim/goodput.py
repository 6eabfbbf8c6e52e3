# SPDX-License-Identifier: MIT
"""Goodput and fairness of each congestion control in simulation, as checked-in snapshots.

    python tests/sim/goodput.py             compare all with the snapshots
    python tests/sim/goodput.py --update    measure all, and rewrite them and docs/congestion.md
    python tests/sim/goodput.py --tables    rewrite the tables of docs/congestion.md from them

A cell is a World of its own with a fixed seed, so its figures are the same on every machine, to
the byte: a change of them is a change of behaviour, to be looked at in review. `test_goodput`
measures a few of them anew, and checks all of them against theory.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

from skbus.core import uapi
from skbus.core.net import MSEC, SEC
from skbus.testing import Future, World

HERE: Final = Path(__file__).parent
SNAPSHOTS: Final = HERE / "snapshots"
DOC: Final = HERE.parents[1] / "docs/congestion.md"
PORT: Final = 5001
CONTROLS: Final = ("reno", "cubic", "bbr")

# ---- one flow over one link ------------------------------------------------------------------

RATE: Final = 2_000_000
"""bit/s of the link of the goodput table"""
SECONDS: Final = 6
LOSS: Final = (0.0, 0.01, 0.05)
DELAY_MS: Final = (5, 50)
"""one way"""
BUFFER: Final = (10, 100)
"""frames"""


class Goodput(NamedTuple):
    """A cell of the goodput table."""

    control: str
    loss: float
    delay_ms: int
    buffer: int

    @property
    def name(self) -> str:
        return f"{self.control} loss={self.loss:g} delay={self.delay_ms}ms buffer={self.buffer}"


class Fairness(NamedTuple):
    """A cell of the fairness table: flows through one bottleneck, by turns with each control."""

    controls: tuple[str, ...]
    flows: int

    @property
    def name(self) -> str:
        return f"{'+'.join(self.controls)} flows={self.flows}"


GOODPUT_CELLS: Final = tuple(Goodput(*cell) for cell in product(CONTROLS, LOSS, DELAY_MS, BUFFER))
FLOWS: Final = (2, 4, 8, 16, 32, 64)
FAIR_RATE: Final = 2_000_000
FAIR_DELAY: Final = 50 * MSEC
FAIR_BUFFER: Final = 50
WARM_UP: Final = 2
FAIR_SECONDS: Final = 8
FAIRNESS_CELLS: Final = (
    *(Fairness((control,), n) for control, n in product(CONTROLS, FLOWS)),
    *(Fairness(("reno", "cubic"), n) for n in (2, 8, 32)),
    *(Fairness(("cubic", "bbr"), n) for n in (2, 8)),
)


def run_flows(
    controls: tuple[str, ...], flows: int, warm_up: int, seconds: int, **link: Any
) -> tuple[list[int], int]:
    """(bytes that each flow delivered after the warm-up, segments sent again by all). Flow i has
    the i-th control, and begins 100 ms after the one before it, at most a second in all."""
    got = [0] * flows
    with World(seed=2012) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        ready: Future[None] = Future()

        async def server() -> None:
            listener = await b.listen(PORT, backlog=flows)
            ready.set(None)
            for _ in range(flows):
                peer, _ = await listener.accept()
                world.start(sink(peer))

        async def sink(peer: Any) -> None:
            number = int.from_bytes(await peer.recv_exactly(1), "big")
            while data := await peer.recv(1 << 20):
                got[number] += len(data)

        async def source(number: int) -> None:
            await ready
            await world.sleep(number * min(100 * MSEC, SEC // flows))
            sock = await a.socket()
            await sock.setsockopt(
                uapi.SOL_TCP, uapi.TCP_CONGESTION, controls[number % len(controls)].encode()
            )
            await sock.connect(("10.0.0.2", PORT))
            await sock.sendall(bytes((number,)))
            while True:
                await sock.send(bytes(1 << 16))

        world.link(a, b, seed=2012, **link)
        world.start(server())
        for i in range(flows):
            world.start(source(i))
        world.advance(warm_up * SEC)
        before = list(got)
        world.advance(seconds * SEC)
        world.check_conservation()
        delivered = [now - then for now, then in zip(got, before, strict=True)]
        return delivered, a.net("tcp").mib["TcpRetransSegs"]


def measure_goodput(cell: Goodput) -> dict[str, int]:
    """Bytes that one flow delivers in SECONDS, the start included."""
    (delivered,), again = run_flows(
        (cell.control,),
        1,
        0,
        SECONDS,
        rate=RATE,
        delay=cell.delay_ms * MSEC,
        loss=cell.loss,
        limit=cell.buffer,
    )
    return {"bytes": delivered, "retransmitted": again}


def measure_fairness(cell: Fairness) -> dict[str, Any]:
    """What each of several flows delivers in FAIR_SECONDS."""
    delivered, again = run_flows(
        cell.controls,
        cell.flows,
        WARM_UP,
        FAIR_SECONDS,
        rate=FAIR_RATE,
        delay=FAIR_DELAY,
        limit=FAIR_BUFFER,
    )
    return {"bytes": delivered, "retransmitted": again}


def jain(shares: Iterable[float]) -> float:
    """Jain's index: 1 where all have the same, 1/n where one has all."""
    values = list(shares)
    squares = sum(v * v for v in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


# ---- snapshots and tables --------------------------------------------------------------------


def load(name: str) -> dict[str, Any]:
    """A snapshot: cell's name -> figures."""
    result: dict[str, Any] = json.loads((SNAPSHOTS / f"{name}.json").read_text())
    return result


def _measure(cell: Goodput | Fairness) -> tuple[str, dict[str, Any]]:
    if isinstance(cell, Goodput):
        return cell.name, measure_goodput(cell)
    return cell.name, measure_fairness(cell)


def measure_all() -> dict[str, dict[str, Any]]:
    """Both tables, on all processors."""
    cells: tuple[Goodput | Fairness, ...] = (*FAIRNESS_CELLS[::-1], *GOODPUT_CELLS)
    figures: dict[str, Any] = {}
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        for name, values in workers.map(_measure, cells):
            figures[name] = values
            sys.stderr.write(f"{len(figures)}/{len(cells)} {name}\n")
    return {
        "goodput": {c.name: figures[c.name] for c in GOODPUT_CELLS},
        "fairness": {c.name: figures[c.name] for c in FAIRNESS_CELLS},
    }


def goodput_table(figures: dict[str, Any]) -> str:
    """Mbit/s."""
    lines = [
        "| loss | delay one way | buffer, frames | " + " | ".join(CONTROLS) + " |",
        "|--:|--:|--:|" + "--:|" * len(CONTROLS),
    ]
    for loss, delay, buffer in product(LOSS, DELAY_MS, BUFFER):
        cells = []
        for control in CONTROLS:
            got = figures[Goodput(control, loss, delay, buffer).name]["bytes"]
            cells.append(f"{got * 8 / SECONDS / 1e6:.2f}")
        lines.append(f"| {loss * 100:g} % | {delay} ms | {buffer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fairness_table(figures: dict[str, Any]) -> str:
    """Jain's index and the share of the link that all have together."""
    mixes = list(dict.fromkeys(c.controls for c in FAIRNESS_CELLS))
    lines = [
        "| flows | " + " | ".join(" and ".join(m) for m in mixes) + " |",
        "|--:|" + "--:|" * len(mixes),
    ]
    for n in FLOWS:
        cells = []
        for mix in mixes:
            cell = figures.get(Fairness(mix, n).name)
            if cell is None:
                cells.append("")
                continue
            used = sum(cell["bytes"]) * 8 / FAIR_SECONDS / FAIR_RATE
            cells.append(f"{jain(cell['bytes']):.3f} ({used * 100:.0f} %)")
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_tables() -> None:
    """Put the snapshots' tables into docs/congestion.md, between their markers."""
    text = DOC.read_text()
    for name, table in (("goodput", goodput_table), ("fairness", fairness_table)):
        head, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end of {name} -->")
        text = f"{head}{begin}{table(load(name))}\n{end}{tail}"
    DOC.write_text(text)


def main() -> None:
    """Compare, or rewrite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite snapshots and tables")
    parser.add_argument("--tables", action="store_true", help="rewrite the tables only")
    args = parser.parse_args()
    if args.tables:
        write_tables()
        return
    measured = measure_all()
    if args.update:
        SNAPSHOTS.mkdir(exist_ok=True)
        for name, figures in measured.items():
            lines = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in figures.items())
            (SNAPSHOTS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        write_tables()
        return
    different = [
        f"{cell}: {load(name).get(cell)} in the snapshot, {values} now"
        for name, figures in measured.items()
        for cell, values in figures.items()
        if load(name).get(cell) != values
    ]
    sys.stdout.write("\n".join(different) + "\n" if different else "all as in the snapshots\n")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
