# SPDX-License-Identifier: MIT
"""The commands: help, errors that name cause and remedy, what they print of a stand-in stack."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from skbus.bus.rundir import RunDir, RunDirError
from skbus.cli import app

STANDIN = Path(__file__).parents[1] / "standin.py"
BIN = Path(sys.executable).parent


class Done(Protocol):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Skbus(Protocol):
    """Runs a command in this process (conftest.py)."""

    def __call__(self, *argv: str, env: dict[str, str] | None = None) -> Done: ...


def skbusd(*argv: str, env: dict[str, str] | None = None) -> Any:
    return subprocess.run(
        [BIN / "skbusd", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["up", "--help"],
        ["lab", "--help"],
        ["lab", "up", "--help"],
        ["lab", "exec", "--help"],
        ["serve", "--help"],
        ["logs", "--help"],
        ["status", "--help"],
        ["counters", "--help"],
        ["sysctl", "--help"],
        ["health", "--help"],
        ["barrier", "--help"],
        ["demo", "--help"],
    ],
)
def test_help(skbus: Skbus, argv: list[str]) -> None:
    done = skbus(*argv)
    assert done.returncode == 0, done.stderr
    assert "Usage: skbus" in done.stdout


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["status"], "is the stack up?"),
        (["counters"], "is the stack up?"),
        (["barrier"], "is the stack up?"),
        (["logs"], "is the stack up?"),
        (["health", "--layer", "tcp"], "is the stack up?"),
        (["serve", "echo"], "is the stack up?"),
        (["lab", "exec", "--", "true"], "`skbus lab up` starts one"),
        (["lab", "status"], "`skbus lab up` starts one"),
        (["up"], "on which interface? Name it with --dev"),
        (["up", "--dev", "lo"], "which address shall we have on lo? Say --addr CIDR"),
        (["up", "--dev", "nope0", "--addr", "192.0.2.1/24"], "no interface nope0; there are: "),
        (["up", "--dev", "lo", "--addr", "192.0.2.1"], "lacks the prefix length"),
        (["up", "--config", "/nonexistent.toml"], "cannot read the configuration"),
        (["lab", "up", "--loss", "150%"], "devices.eth0.impair.loss = '150%': takes a percentage"),
        (["lab", "up", "--delay", "20"], "devices.eth0.impair.delay = '20': takes a time"),
        (["lab", "up", "--sysctl", "net.ipv4.nope=1"], "no such sysctl: net.ipv4.nope"),
        (["lab", "up", "--name", "a/b"], "is no name for a lab"),
    ],
)
def test_errors_name_cause_and_remedy(
    skbus: Skbus, argv: list[str], expected: str, run: RunDir
) -> None:
    done = skbus(*argv, env={"SKBUS_DIR": str(run.path)})
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not run.path.exists(), "a command that fails at once leaves nothing behind"


def test_malformed_options(skbus: Skbus) -> None:
    for argv in (["lab", "up", "--sysctl", "x"], ["sysctl"], ["serve", "gopher"]):
        done = skbus(*argv, env={"SKBUS_DIR": "/tmp"})
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lab", "up", "--seed", "x"], "'--seed': it takes a whole number"),
        (["lab", "up", "--time-scale", "fast"], "'--time-scale': it takes a number"),
        (["lab", "up", "--gso-max-size", "9"], "'--gso-max-size': it takes 65536 or more"),
        (["lab", "up", "--gso-max-size", "999999"], "it takes 524280 at most"),
        (["logs", "-n", "-1"], "'-n' / '--lines': it takes 0 or more"),
        (["serve", "gopher"], "gopher: it takes http, echo, discard, chargen, iperf3"),
        (["barrier", "--timeout", "soon"], "'--timeout': it takes a number"),
    ],
)
def test_what_an_option_takes_is_said_in_our_words(
    skbus: Skbus, argv: list[str], said: str
) -> None:
    done = skbus(*argv)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Input should" not in done.stderr
    assert "Value error" not in done.stderr


def test_lab_down_where_there_is_none(skbus: Skbus, run: RunDir) -> None:
    done = skbus("lab", "down", env={"SKBUS_DIR": str(run.path)})
    assert done.returncode == 0
    assert "nothing to do" in done.stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ExceptionGroup("nursery", [OSError(100, "the socket layer has ended")]), "has ended"),
        (ExceptionGroup("a", [ExceptionGroup("b", [RunDirError("is it up?")])]), "is it up?"),
        (PermissionError(13, "port 7"), "port 7 is for root alone"),
    ],
)
def test_what_a_nursery_raises_is_one_line(
    skbus: Skbus, monkeypatch: pytest.MonkeyPatch, run: RunDir, error: Exception, text: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    run.create()
    monkeypatch.setattr("skbus.serve.run.run", fail)
    done = skbus("serve", "echo", env={"SKBUS_DIR": str(run.path)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


def test_our_own_mistakes_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, run: RunDir
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    run.create()
    monkeypatch.setattr("skbus.serve.run.run", fail)
    monkeypatch.setattr(sys, "argv", ["skbus", "serve", "echo"])
    monkeypatch.setenv("SKBUS_DIR", str(run.path))
    with pytest.raises(ZeroDivisionError):
        app.main()


def test_health_is_the_exit_status(skbus: Skbus, stack: dict[str, str]) -> None:
    assert skbus("health", env=stack).returncode == 0
    assert skbus("health", "--layer", "nic", env=stack).stdout.startswith("nic.eth0 answers")
    done = skbus("health", "--layer", "sctp", env=stack)
    assert done.returncode == 1
    assert "no process sctp" in done.stderr
    assert "nic.eth0, ip, tcp, udp, socket" in done.stderr


def test_skbusd_says_what_it_lacks(run: RunDir) -> None:
    done = skbusd("nic", env={"SKBUS_DIR": str(run.path)})
    assert done.returncode == 1
    assert "which interface? Name it with --dev" in done.stderr
    done = skbusd("arp")
    assert done.returncode == 2
    assert "invalid choice: 'arp'" in done.stderr
