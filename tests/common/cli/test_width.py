# SPDX-License-Identifier: MIT
"""Numbers are never cut, whatever the terminal's width, nor in a pipe; nor are summaries."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from skbus.bus import ctl, log
from skbus.bus.ctl import ControlError
from skbus.bus.rundir import RunDir
from skbus.cli import app
from skbus.cli import demonstration as demo
from skbus.cli.help import summary
from skbus.cli.inspect import columns
from skbus.core.snmp import NAMES
from skbus.core.sysctl import Sysctl
from skbus.stack import health

HUGE = 2**64 - 1
WIDTHS = [40, 80, 400]
PROCESSES = ("nic.eth0", "ip", "tcp", "udp", "socket")


class Terminal:
    """A terminal of so many columns: `stdout` is its end, `text` what was written there."""

    def __init__(self, width: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.stdout = os.fdopen(slave, "w")
        self._read = b""
        self._reader = threading.Thread(target=self._take)
        self._reader.start()

    def _take(self) -> None:
        try:
            while more := os.read(self._master, 1 << 16):
                self._read += more
        except OSError:
            pass  # EIO: the other end is closed

    def text(self) -> str:
        self.stdout.close()
        self._reader.join()
        os.close(self._master)
        return self._read.decode().replace("\r\n", "\n")


def run(argv: list[str], width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    """What a command prints on a terminal, or (None) into a pipe."""
    monkeypatch.setattr(sys, "argv", ["skbus", *argv])
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = None if width is None else Terminal(width)
    with monkeypatch.context() as patch:
        if terminal is not None:
            patch.setattr(sys, "stdout", terminal.stdout)
        with pytest.raises(SystemExit) as ended:
            app.main()
    assert ended.value.code in (0, None), capsys.readouterr().err
    return capsys.readouterr().out if terminal is None else terminal.text()


@pytest.fixture
def huge(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A stack whose every number is as long as it can be."""
    flows = ("born", "received", "sent", "consumed", "dropped", "held")
    status = {
        "epoch": HUGE,
        "pid": HUGE,
        "fused": ["ip"],
        "conservation": dict.fromkeys(flows, HUGE),
        "drops": {"SKB_DROP_REASON_NO_SOCKET": HUGE},
        "core": {"route_cache": HUGE},
    }
    answers: dict[str, Any] = {
        "status": status,
        "counters": dict.fromkeys(NAMES, HUGE // len(PROCESSES)),
        "sysctl_get": {**Sysctl(), "net.ipv4.tcp_rmem": [HUGE, HUGE, HUGE]},
        "log_level_get": "info",
        "ping": {"epoch": HUGE},
    }

    def ctl_ask(_: RunDir, requests: dict[str, Any], seconds: float = 5.0) -> dict[str, Any]:
        return {
            process: answers.get(method, ControlError(f"no {method}"))
            for process, (method, _argument) in requests.items()
        }

    for process in PROCESSES:
        (run_dir.path / f"{process}.ctl").touch()
    monkeypatch.setenv("SKBUS_DIR", str(run_dir.path))
    for module in (ctl, health):
        monkeypatch.setattr(module, "ctl_ask", ctl_ask)
    log.configure("tcp", "debug", path=run_dir.log_file("tcp")).debug("x", seq=HUGE, ack=HUGE)
    return run_dir


@pytest.fixture
def run_dir(run: RunDir) -> RunDir:
    return run.create()


@pytest.mark.parametrize(
    ("argv", "times"),
    [
        (["status"], len(PROCESSES) * 9),
        (["counters", "-a"], len(NAMES)),
        (["sysctl", "-a"], 3),
        (["health"], len(PROCESSES)),
        (["log-level"], 0),
        (["logs"], 2),
        (["proc"], 0),
    ],
)
def test_a_command_prints_the_same_on_any_terminal(
    huge: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: Any, argv: list[str], times: int
) -> None:
    piped = run(argv, None, monkeypatch, capsys)
    assert piped.count(str(HUGE)) == times
    for width in WIDTHS:
        assert run(argv, width, monkeypatch, capsys) == piped
    assert "\u2026" not in piped


def test_counters_are_whole(huge: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    text = run(["counters"], 40, monkeypatch, capsys)
    told = json.loads(run(["counters", "--json"], None, monkeypatch, capsys))
    shown = {name: int(n) for name, n, _ in (line.split() for line in text.splitlines()[1:])}
    assert shown == told
    assert set(shown.values()) == {HUGE // len(PROCESSES) * len(PROCESSES)}


def test_a_table_is_as_wide_as_what_is_in_it() -> None:
    rows = [["nic.eth0", str(HUGE), "1"], ["ip", "2", str(HUGE)]]
    lines = columns(["process", "a", "b"], rows)
    assert [line.split() for line in lines] == [["process", "a", "b"], *rows]
    assert len({len(line) for line in lines}) == 1


# ---- help ------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[list[str], Any]]:
    """All commands and groups, with their names."""

    def walk(path: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        yield path, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk([*path, name], inner)

    return walk([], typer.main.get_command(app.app))


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(p, c, id=" ".join(p) or "skbus") for p, c in commands()]
)
def test_help_is_whole(
    path: list[str],
    command: Any,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    text = run([*path, "--help"], width, monkeypatch, capsys)
    assert "\u2026" not in text
    letters = _letters(text)
    assert _letters(command.help) in letters
    for inner in getattr(command, "commands", {}).values():
        sentence = summary(inner.help)
        assert _letters(f"{inner.name} {sentence}") in letters
        assert "..." not in sentence
        assert len(sentence) > 10
    for param in command.params:
        assert getattr(param, "help", None), f"{param.name} has no help"
        assert _letters(param.help) in letters


def _letters(text: str) -> str:
    """Without spaces: a line may end behind a hyphen."""
    return "".join(text.split())


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Do it. And more.", "Do it"),
        ("Do it: `a.b` and\n    so on.\n\nMore.", "Do it: `a.b` and so on"),
        ("No full stop", "No full stop"),
        ("", ""),
    ],
)
def test_a_summary_is_the_first_sentence(text: str, first: str) -> None:
    assert summary(text) == first


# ---- the demo --------------------------------------------------------------------------------


def test_the_demo_wraps_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {
        "time": 1.0, "process": "tcp", "layer": "tcp", "event": "tcp_rcv_state_process",
        "skb": f"{HUGE:x}", "flow": "255.255.255.255:65535->255.255.255.255:65535",
        "sk": HUGE, "seq": HUGE, "ack": HUGE, "state": "LAST_ACK", "flags": "[.]",
    }  # fmt: skip
    for width in (40, 60, 80, 118, 400):
        said: list[str] = []
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(demo, "say", said.append)
        demo._print([event])
        words = " ".join(said).split()
        assert {f"{k}={HUGE}" for k in ("sk", "seq", "ack")} <= set(words)
        assert {event["flow"], f"skb={HUGE:x}", "state=LAST_ACK"} <= set(words)
        longest = max(map(len, words))
        assert all(len(line) <= max(width, 4 + longest) for line in said), said


# ---- versions --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["skbus", "skbusd"])
def test_version(command: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(command), "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{command} \d+\.\d+\.\d+\S*(, compiled by mypyc)?\n", done.stdout)
