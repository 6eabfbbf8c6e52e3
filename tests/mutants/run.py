# SPDX-License-Identifier: MIT
"""`make mutants`: mutmut changes the modules that mutants.toml names, a little thing at a time, and
the tests that it names must notice each change.

    python tests/mutants/run.py [MODULE...]     all, or these; with --write, docs/mutants.md anew

A mutant that no test notices is listed in mutants.toml with the reason why none can, or this ends
with status 1. So does a reason for a mutant that there is no more, or that a test notices.

mutmut wants packages beside `tests`, or in `src`. So each module gets a copy of the tree in
build/mutants/MODULE where the packages lie in `src`. What has been tried there is not tried again
until the module or its tests change.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
BUILD: Final = ROOT / "build/mutants"
PAGE: Final = ROOT / "docs/mutants.md"
TABLE: Final = ROOT / "tests/mutants/mutants.toml"
PACKAGES: Final = ("common/skbus", "common/skbustest", "services/skbusd")
_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
_RESULT: Final = re.compile(r"^ +(\S+): (.+)$", re.M)


class Survivor(NamedTuple):
    """A change that no test notices: in which function, the line before and after, and why."""

    function: str
    old: str
    new: str
    why: str = ""

    @property
    def change(self) -> tuple[str, str, str]:
        return self.function, self.old, self.new


class Module(NamedTuple):
    """A module to be mutated, and the tests that concern it."""

    name: str
    source: str
    tests: list[str]
    explained: list[Survivor]


class Outcome(NamedTuple):
    """What became of a module's mutants."""

    mutants: int
    noticed: int
    survivors: list[Survivor]
    seconds: float


def modules() -> list[Module]:
    """What mutants.toml says."""
    table: dict[str, Any] = tomllib.loads(TABLE.read_text())
    return [
        Module(
            name,
            entry["source"],
            entry["tests"],
            [
                Survivor(group["function"], old, new, group["why"])
                for group in entry.get("explained", ())
                for old, new in group["changes"]
            ],
        )
        for name, entry in table.items()
    ]


def _lay_out(module: Module) -> Path:
    """A copy of the tree, in mutmut's layout; the one that is there, where nothing has changed."""
    place = BUILD / module.name
    digest = hashlib.sha256(json.dumps(module.tests).encode())
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    for test in module.tests:
        digest.update((ROOT / test).read_bytes())
    stamp = place / "digest"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return place
    shutil.rmtree(place, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / "src" / Path(package).name, ignore=_NOT_COPIED)
    shutil.copytree(ROOT / "tests", place / "tests", ignore=_NOT_COPIED)
    source = "src/" + module.source.partition("/")[2]
    settings = {
        "source_paths": ["src"],
        "only_mutate": [source],
        "pytest_add_cli_args_test_selection": module.tests,
        # A mutant may loop for ever; a machine that is busy may be slow.
        "timeout_constant": 20.0,
    }
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text() + f"\n[tool.mutmut]\n{lines}"
    (place / "pyproject.toml").write_text(project)
    stamp.write_text(digest.hexdigest())
    return place


def _mutmut(place: Path, *arguments: str) -> str:
    argv = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    done = subprocess.run(
        argv, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-6000:])
        raise SystemExit(f"mutmut {' '.join(arguments)} in {place}: status {done.returncode}")
    return done.stdout


def _survivor(place: Path, name: str) -> Survivor:
    """What a mutant changes, from its diff."""
    diff = _mutmut(place, "show", name).splitlines()
    old = [line[1:].strip() for line in diff if re.match(r"-(?!--)", line)]
    new = [line[1:].strip() for line in diff if re.match(r"\+(?!\+\+)", line)]
    function = name.rpartition(".")[2].removeprefix("x_").partition("__mutmut_")[0]
    return Survivor(function, " ".join(old), " ".join(new))


def run(module: Module, children: int) -> Outcome:
    """Try each mutant of a module."""
    place = _lay_out(module)
    began = time.monotonic()
    _mutmut(place, "run", "--max-children", str(children))
    seconds = time.monotonic() - began
    results = dict(_RESULT.findall(_mutmut(place, "results", "--all", "true")))
    counts = Counter(results.values())
    noticed = counts["killed"] + counts["timeout"] + counts["segfault"]
    survivors = [
        _survivor(place, name)
        for name, status in results.items()
        if status not in ("killed", "timeout", "segfault")
    ]
    return Outcome(len(results), noticed, survivors, seconds)


def report(module: Module, outcome: Outcome) -> list[str]:
    """What is wrong: mutants without a reason, reasons without a mutant."""
    left = {s.change for s in outcome.survivors}
    known = {s.change for s in module.explained}
    wrong = [
        f"{module.name}: no test notices\n    {function}: {old}\n    {' ' * len(function)}  {new}"
        for function, old, new in sorted(left - known)
    ]
    wrong += [
        f"{module.name}: explained, and no survivor: {function}: {old} -> {new}"
        for function, old, new in sorted(known - left)
    ]
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("module", nargs="*", help="names of mutants.toml; all by default")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, metavar="N")
    options = parser.parse_args()
    chosen = [m for m in modules() if not options.module or m.name in options.module]
    wrong: list[str] = []
    sys.stdout.write(f"{'module':<14} mutants noticed explained left  seconds\n")
    for module in chosen:
        outcome = run(module, options.children)
        faults = report(module, outcome)
        wrong += faults
        left = len(outcome.survivors)
        known = {s.change for s in module.explained}
        explained = sum(s.change in known for s in outcome.survivors)
        sys.stdout.write(
            f"{module.name:<14} {outcome.mutants:7} {outcome.noticed:7} {explained:9}"
            f" {left - explained:4} {outcome.seconds:8.0f}\n"
        )
        sys.stdout.flush()
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
