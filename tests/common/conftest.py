# SPDX-License-Identifier: MIT
"""For tests of commands: how to run one, where, and a stand-in stack."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from skbus.bus.rundir import RunDir
from skbus.cli import app

STANDIN = Path(__file__).with_name("standin.py")


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Skbus(Protocol):
    """Runs a command in this process: a hundred interpreters would take their time."""

    def __call__(self, *argv: str, env: dict[str, str] | None = None) -> Done: ...


@pytest.fixture
def skbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Skbus:
    def call(*argv: str, env: dict[str, str] | None = None) -> Done:
        monkeypatch.setattr(sys, "argv", ["skbus", *argv])
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            app.main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "r")


@pytest.fixture
def stack(run: RunDir) -> Iterator[dict[str, str]]:
    with subprocess.Popen(
        [sys.executable, STANDIN, run.path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield {"SKBUS_DIR": str(run.path)}
        process.terminate()
