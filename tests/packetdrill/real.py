# SPDX-License-Identifier: MIT
"""Many scripts through the real packetdrill against our running processes (`live.sh`).

Called by conformance.py. Each script has a stack of its own; both run slower than life, so that
it does not matter what else the machine does. Those that fail are tried again at the end, one
after another.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
TIME_LIMIT: Final = 60
"""Seconds of the stack's time that a script may take, with the start of its stack."""


@dataclass(frozen=True)
class Live:
    """One script's result. reason: the first line that packetdrill wrote, of a failure."""

    passed: bool
    reason: str = ""
    tries: int = 1


@dataclass(frozen=True)
class Setup:
    """How to run. harness: the script that runs packetdrill with an adapter."""

    harness: Path
    packetdrill: Path
    scale: float = 10.0
    tolerance: int = 14_000
    jobs: int = 2
    tries: int = 2


def run_one(path: Path, setup: Setup) -> Live:
    """One try of one script."""
    env = {
        **os.environ,
        "HARNESS": str(setup.harness),
        "PACKETDRILL": str(setup.packetdrill),
        "SCALE": str(setup.scale),
        "PD_RX_TIMEOUT": "4",
    }
    limit = str(int(TIME_LIMIT * setup.scale))
    done = subprocess.run(
        ["bash", HERE / "live.sh", "-v", "-t", limit, "-T", str(setup.tolerance), path],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    if any(line.startswith("ok ") for line in lines):
        return Live(True)
    said = [line for line in lines if line and not line.startswith("FAIL") and line[0] != "0"]
    return Live(False, reason(said, path.name) if said else "packetdrill said nothing")


def reason(lines: list[str], script: str) -> str:
    """What was wrong, in a line: the script's line number and packetdrill's complaint."""
    first = next((x for x in lines if x.startswith(script)), lines[0])
    text = re.sub(rf"^{re.escape(script)}:(\d+): ", r"line \1: ", first)
    for i, line in enumerate(lines):
        if line.startswith("AssertionError"):
            return f"{text}: {lines[i - 2]} [{line.partition(': ')[2]}]"
    return text.removesuffix(": ")


def run_all(paths: Iterable[Path], setup: Setup) -> dict[Path, Live]:
    """All of them, with a line of progress for each on standard error."""
    paths = tuple(paths)
    results: dict[Path, Live] = {}
    began = time.monotonic()
    with ThreadPoolExecutor(setup.jobs) as pool:
        futures = {pool.submit(run_one, path, setup): path for path in paths}
        for future in as_completed(futures):
            path = futures[future]
            results[path] = future.result()
            _progress(len(results), len(paths), path, results[path], began)
    failed = [path for path in paths if not results[path].passed]
    for tried in range(2, setup.tries + 1):
        for n, path in enumerate(tuple(failed), 1):
            result = run_one(path, setup)
            results[path] = Live(result.passed, result.reason, tried)
            if result.passed:
                failed.remove(path)
            _progress(n, len(failed), path, results[path], began)
    return results


def _progress(n: int, of: int, path: Path, result: Live, began: float) -> None:
    took = time.monotonic() - began
    verdict = "ok  " if result.passed else "FAIL"
    more = f" (try {result.tries})" if result.tries > 1 else ""
    why = f": {result.reason}" if result.reason else ""
    name = f"{path.parent.name}/{path.name}"
    sys.stderr.write(f"{took:6.0f} s {n:3}/{of} {verdict} {name}{more}{why}\n")
