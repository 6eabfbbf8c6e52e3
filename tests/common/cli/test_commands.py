# SPDX-License-Identifier: MIT
"""`skbus --help` from the table of commands: typer's text, without typer; and what a command
imports."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
import typer

from skbus.bus.rundir import RunDir
from skbus.cli import app
from skbus.cli.commands import COMMANDS, help_text, is_help
from skbus.cli.help import summary

SKBUS = Path(sys.executable).with_name("skbus")
HEAVY = {"typer", "rich", "pydantic", "structlog", "trio", "zmq", "numpy", "pyroute2", "asyncio"}
LIGHT = 40
"""Modules, those of Python's own library included."""


class Done(Protocol):
    """How a command ended."""

    returncode: int
    stdout: str


class Skbus(Protocol):
    """Runs a command in this process, by typer (conftest.py)."""

    def __call__(self, *argv: str, env: dict[str, str] | None = None) -> Done: ...


PROGRAM = """
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: sys.stderr.write("\\nmodules " + " ".join({*sys.modules} - before)))
sys.argv[0] = "skbus"
from skbus.cli import main
main()
"""


def imported(*argv: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules that a command imports."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *argv],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    _, found, names = done.stderr.rpartition("\nmodules ")
    assert found, done.stderr
    return set(names.split())


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("columns", [1, 40, 52, 53, 60, 71, 79, 80, 81, 200])
def test_help_is_typers(skbus: Skbus, columns: int) -> None:
    done = skbus("--help", env={"COLUMNS": str(columns)})
    assert help_text(columns) == done.stdout


def test_summaries_are_the_first_sentences() -> None:
    commands = typer.main.get_command(app.app).commands  # type: ignore[attr-defined]
    assert {name: summary(commands[name].help) for name in COMMANDS} == {
        name: text for name, (_, text) in COMMANDS.items()
    }


def test_help_imports_nothing_heavy() -> None:
    for option in ("--help", "-h"):
        modules = imported(option)
        assert not HEAVY & packages(modules)
        assert len(modules) < LIGHT


@pytest.mark.parametrize(
    ("argv", "ours", "others"),
    [
        (["status"], "skbus.cli.inspect", HEAVY - {"typer", "zmq", "pydantic"}),
        (["lab", "list"], "skbus.cli.lab", HEAVY - {"typer", "pydantic"}),
        (["logs", "--help"], "skbus.cli.logs", HEAVY - {"typer", "pydantic"}),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_command_imports_its_own_module_alone(
    argv: list[str], ours: str, others: set[str]
) -> None:
    modules = imported(*argv)
    assert not others & packages(modules)
    assert {module for module, _ in COMMANDS.values()} & modules == {ours}


def test_lab_up_leaves_to_the_holder_what_the_layers_need(run: RunDir) -> None:
    """The lab is there already, which is found when the configuration has been read."""
    lock = run.create().lock()
    modules = imported("lab", "up", env={"SKBUS_DIR": str(run.path)})
    os.close(lock)
    assert "skbus.stack.config" in modules
    assert not HEAVY - {"typer", "pydantic"} & packages(modules)


def test_what_is_not_the_help_of_the_command_itself() -> None:
    assert is_help(["/usr/bin/skbus", "--help"], {})
    assert is_help(["skbus", "-h"], {})
    assert not is_help(["skbus"], {})
    assert not is_help(["skbus", "--help", "lab"], {})
    assert not is_help(["skbus", "lab", "--help"], {})
    assert not is_help(["other", "--help"], {})
    assert not is_help(["skbus", "--help"], {"_SKBUS_COMPLETE": "complete_bash"})


def test_help_into_a_closed_pipe_and_onto_a_full_disk() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([SKBUS, "--help"], check=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SKBUS, "--help"], check=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    closed = f"exec {SKBUS} --help >&-"
    done = subprocess.run(["/bin/sh", "-c", closed], check=False, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
