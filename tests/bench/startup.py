# SPDX-License-Identifier: MIT
"""How long a person waits for the command, for a lab, and for a layer that has died.

    python tests/bench/startup.py [--base DIR] [--rounds 5] [--layers tcp,ip] [--no-bytecode]
                                  [--json]

A round is `skbus --help`, `skbus lab up`, a `kill -9` of each layer in turn, and `skbus lab down`.
A rebirth is the time from the signal until the new process answers and lacks nothing. DIR is
another tree with a `.venv`, such as a worktree of an older commit: its rounds alternate with ours,
and the ratio is that of the medians. Processor time is that of all processes of the lab.

Bytecode is kept in a directory of our own and written before the first round, so that the trees
stay as they are. --no-bytecode: as where PYTHONDONTWRITEBYTECODE is set and nothing was compiled.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import msgpack
import zmq
from rich.console import Console
from rich.table import Table

from report import print_table

HERE: Final = Path(__file__).resolve().parents[2]
LAYERS: Final = ("nic.eth0", "ip", "tcp", "udp", "socket")
TARGETS: Final = {"skbus --help": (150, 75), "skbus lab up": (1000, 500), "rebirth": (60, 30)}
"""ms, at least and aimed at, on a quiet machine with two processors"""
PATIENCE: Final = 60.0
_PAUSE: Final = 0.002
_ONCE_MORE: Final = 5
"""ms until a question is asked once more: one that was on its way is lost with the process."""

Figures = dict[str, list[float]]


class Tree:
    """A tree of sources with a virtual environment, and what was measured of it, in ms."""

    def __init__(self, path: Path, title: str, cache: Path, bytecode: bool) -> None:
        self.title = title
        self.skbus = path / ".venv" / "bin" / "skbus"
        if not self.skbus.exists():
            raise SystemExit(f"{self.skbus} is not there: run `make demo` in {path}")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.env["PYTHONPYCACHEPREFIX"] = str(cache / title)
        if not bytecode:
            self.env |= {"PYTHONDONTWRITEBYTECODE": "1"}
        self.name = f"startup-{title}-{os.getpid()}"
        self.took: Figures = {}
        self.processor: Figures = {}

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [self.skbus, *argv], env=self.env, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{self.title}: skbus {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def timed(self, what: str, *argv: str) -> tuple[str, float]:
        """(output, ms of processor time); the time is noted."""
        before, began = _children(), monotonic()
        out = self.run(*argv)
        _note(self.took, what, 1000 * (monotonic() - began))
        return out, _children() - before

    def round(self, layers: list[str]) -> None:
        _, used = self.timed("skbus --help", "--help")
        _note(self.processor, "skbus --help", used)
        try:
            out, used = self.timed("skbus lab up", "lab", "up", "--name", self.name)
            lab = json.loads(out)
            used += sum(_processor_time(pid) for pid in lab["pids"].values())
            _note(self.processor, "skbus lab up", used)
            for layer in layers:
                took, used = rebirth(Path(lab["run_dir"]), layer)
                _note(self.took, f"rebirth of {layer}", took)
                _note(self.processor, f"rebirth of {layer}", used)
                sleep(0.2)
        finally:
            self.timed("skbus lab down", "lab", "down", "--name", self.name)


def _note(figures: Figures, what: str, ms: float) -> None:
    figures.setdefault(what, []).append(ms)


def _children() -> float:
    """ms of processor time of the commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (used.ru_utime + used.ru_stime)


def _processor_time(pid: int) -> float:
    """ms of processor time of a process and its threads so far."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def _pid(run: Path, layer: str) -> int:
    """The process of a layer; 0 while it has none."""
    try:
        found = json.loads((run / "state.json").read_text().strip("\0\n"))["layers"][layer]
    except ValueError:  # being written
        return 0
    return int(found[0]) if found else 0


class Asker:
    """Asks a layer's control socket, through its death."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", run: Path, layer: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 1)
        self._socket.connect(f"ipc://{run}/{layer}.ctl")
        self._layer = layer

    def ping(self) -> dict[str, Any]:
        """The next answer, which may be to an earlier question."""
        deadline = monotonic() + PATIENCE
        while monotonic() < deadline:
            self._socket.send_multipart([b"", msgpack.packb(("ping", None))])
            if self._socket.poll(_ONCE_MORE):
                _, answer = msgpack.unpackb(self._socket.recv_multipart()[-1])
                return dict(answer)
        raise SystemExit(f"{self._layer} does not answer within {PATIENCE:g} s")


def rebirth(run: Path, layer: str) -> tuple[float, float]:
    """Kill a layer: ms until the new one serves, and ms of its processor time until then."""
    with zmq.Context() as context:
        asker = Asker(context, run, layer)
        life, pid = asker.ping()["epoch"], _pid(run, layer)
        began = monotonic()
        os.kill(pid, signal.SIGKILL)
        while True:
            answer = asker.ping()
            if answer["epoch"] > life and not answer["missing"]:
                break
            sleep(_PAUSE)
        took = 1000 * (monotonic() - began)
        deadline = monotonic() + PATIENCE
        while (new := _pid(run, layer)) in (0, pid) and monotonic() < deadline:
            sleep(_PAUSE)
        used = _processor_time(new)
        context.destroy(linger=0)
    return took, used


def _median(figures: Figures, what: str) -> float:
    return statistics.median(figures[what])


def table(trees: list[Tree]) -> Table:
    """Medians, and what they are of the base's."""
    out = Table(title="Medians in ms; in brackets, of processor time", title_justify="left")
    out.add_column("")
    for tree in trees:
        out.add_column(tree.title, justify="right")
    if len(trees) > 1:
        out.add_column("ratio", justify="right")
    out.add_column("at least; aim", justify="right")
    for what in trees[-1].took:
        cells = []
        for tree in trees:
            used = f" ({_median(tree.processor, what):.0f})" if what in tree.processor else ""
            cells.append(f"{_median(tree.took, what):.0f}{used}")
        if len(trees) > 1:
            cells.append(_ratios(trees[0], trees[1], what))
        wanted = next((t for name, t in TARGETS.items() if what.startswith(name)), None)
        out.add_row(what, *cells, f"{wanted[0]}; {wanted[1]}" if wanted else "")
    return out


def _ratios(base: Tree, here: Tree, what: str) -> str:
    took = _median(here.took, what) / _median(base.took, what)
    if what not in here.processor:
        return f"{took:.2f}"
    return f"{took:.2f} ({_median(here.processor, what) / _median(base.processor, what):.2f})"


@contextmanager
def _trees(chosen: argparse.Namespace) -> Iterator[list[Tree]]:
    with tempfile.TemporaryDirectory(prefix="skbus-startup-") as cache:
        places = [(HERE, "here")]
        if chosen.base is not None:
            places.insert(0, (chosen.base.resolve(), "base"))
        yield [Tree(path, title, Path(cache), chosen.bytecode) for path, title in places]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, metavar="DIR", help="a tree to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument(
        "--layers", default=",".join(LAYERS), help="whose rebirth is measured (all)"
    )
    parser.add_argument(
        "--no-bytecode", dest="bytecode", action="store_false", help="modules are compiled anew"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    chosen = parser.parse_args()
    chosen.layers = [layer for layer in chosen.layers.split(",") if layer]
    if unknown := set(chosen.layers) - set(LAYERS):
        parser.error(f"--layers: no layer {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    if chosen.rounds < 1:
        parser.error("--rounds: it takes 1 or more")
    return chosen


def main() -> int:
    """One round that is not counted, and the others, in turn."""
    chosen = options()
    with _trees(chosen) as trees:
        for tree in trees:
            tree.round(chosen.layers[:1])
            tree.took, tree.processor = {}, {}
        for number in range(chosen.rounds):
            for tree in trees if number % 2 else trees[::-1]:
                tree.round(chosen.layers)
        if chosen.json:
            both = {t.title: {"ms": t.took, "processor_ms": t.processor} for t in trees}
            sys.stdout.write(json.dumps(both, indent=1) + "\n")
        else:
            print_table(Console(), table(trees))
    return 0


if __name__ == "__main__":
    sys.exit(main())
