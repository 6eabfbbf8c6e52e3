# SPDX-License-Identifier: MIT
"""Ctrl-C, and worse, at many moments of each command: no traceback, and nothing is left.

The moments are times after the start, and a busy machine is elsewhere by then: whatever a command
is about, what is asserted must hold.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from skbus.bus import rundir
from skbus.bus.rundir import RunDir
from skbus.stack import lab

SKBUS = Path(sys.executable).with_name("skbus")
SMOKE = Path(__file__).parents[2] / "load" / "smoke.toml"
ME = f"int{os.getpid()}"

START = """
import os, sys
from skbus import cli
told, load = int(sys.argv.pop(1)), cli._load
def tell():
    os.close(told)
    return load()
cli._load = tell
cli.main()
"""
"""`skbus`, but we know when it begins to import: Python's own start, some 20 ms, has a traceback
that nobody can prevent."""

EARLY = [0.01, 0.05, 0.1, 0.2]
"""s, while a command is imported."""
LATE = [0.02, 0.2, 0.4, 0.6, 0.8, 1.2, 2.0, 3.0]


def processes_of(run: Path) -> list[str]:
    """Processes of a lab: layers are forked from its holder, whose command names the directory;
    what runs on our stack or in the peer's namespace has it in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_text().replace("\0", " ")
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            holder = f" {run} " in command and "skbus.stack.holder" in command
            if holder or f"SKBUS_DIR={run}".encode() in environ:
                found.append(f"{entry.name}: {command}")
    return found


def lost_pools() -> set[str]:
    """Pools of ours that lie outside of a run directory, and belong to none."""
    mine = (p for p in Path("/dev/shm").glob("skbus-pool-*") if p.stat().st_uid == os.geteuid())
    known = {os.path.realpath(run.pool_dir) for run in rundir.find_all()}
    return {str(p) for p in mine} - known


def interrupt(
    argv: list[str], moment: float, how: signal.Signals = signal.SIGINT, times: int = 1
) -> "tuple[int, str, int]":
    """Start, wait, signal: (status, standard error, pid)."""
    started, told = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", START, str(told), *argv],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, pass_fds=[told],
    ) as process:  # fmt: skip
        os.close(told)
        os.read(started, 1)
        os.close(started)
        time.sleep(moment)
        for _ in range(times):
            process.send_signal(how)
            time.sleep(0.01)
        _, error = process.communicate(timeout=60)
        return process.returncode, error, process.pid


def check(argv: list[str], moment: float, times: int = 1) -> int:
    status, error, pid = interrupt(argv, moment, times=times)
    assert "Traceback" not in error, error
    assert "KeyboardInterrupt" not in error, error
    # -2: Python has ended so far that SIGINT is the system's again
    assert status in (0, 130, -signal.SIGINT), error
    return pid


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["lab", "list"], ["lab", "status"], ["status"], ["serve", "echo"], ["logs", "-f"],
     ["load", "none", "--check"], ["sysctl", "-a"], ["packetdrill", "none"], ["up"]],
    ids=" ".join,
)  # fmt: skip
def test_while_it_is_imported(argv: list[str]) -> None:
    for moment in EARLY:
        status, error, _ = interrupt(argv, moment)
        assert "Traceback" not in error, error
        assert status in (0, 1, 2, 130, -signal.SIGINT), error


@pytest.fixture
def name() -> Iterator[str]:
    yield ME
    lab.down(lab.lab_dir(ME))


@pytest.mark.lab
@pytest.mark.parametrize("moment", LATE)
def test_lab_up(name: str, moment: float) -> None:
    before = lost_pools()
    run = lab.lab_dir(name).path
    status, error, _ = interrupt(["lab", "up", "--name", name], moment)
    assert "Traceback" not in error, error
    if status == 0:  # it was up before that
        lab.down(RunDir(run))
    assert not run.exists()
    assert processes_of(run) == []
    assert lost_pools() <= before


@pytest.mark.parametrize("last", [True, False])
def test_in_the_instant_in_which_a_lab_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """Where nothing follows, the lab stays, and the status is 0; elsewhere its caller hears it."""

    def start(*_: object) -> dict[str, object]:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # pytest has other threads, too
        return {"up": True}

    monkeypatch.setattr(lab, "_start", start)
    old = signal.getsignal(signal.SIGINT)
    try:
        with nullcontext() if last else pytest.raises(KeyboardInterrupt):
            assert lab.up(RunDir(tmp_path / "run"), "{}", last=last) == {"up": True}
        assert (signal.getsignal(signal.SIGINT) is signal.SIG_IGN) is last
    finally:
        signal.signal(signal.SIGINT, old)


def test_who_ignores_it_does_so_to_the_end() -> None:
    program = """
import os, signal
from skbus.stack import interrupt
def command():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
interrupt.run(lambda: command)
os.kill(os.getpid(), signal.SIGINT)
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


@pytest.mark.lab
@pytest.mark.parametrize("moment", [0.05, 0.2, 0.3, 0.6])
def test_lab_down_is_done_or_can_be_done_again(name: str, moment: float) -> None:
    run = lab.lab_dir(name).path
    subprocess.run([SKBUS, "lab", "up", "--name", name], check=True, capture_output=True)
    check(["lab", "down", "--name", name], moment)
    subprocess.run([SKBUS, "lab", "down", "--name", name], check=True, capture_output=True)
    assert not run.exists()
    assert processes_of(run) == []


@pytest.mark.lab
@pytest.mark.parametrize(("moment", "times"), [*((m, 1) for m in LATE), (0.3, 3), (1.0, 3)])
def test_demo(moment: float, times: int) -> None:
    before = lost_pools()
    pid = check(["demo"], moment, times)
    run = lab.lab_dir(f"demo{pid}").path
    assert not run.exists()
    assert processes_of(run) == []
    assert lost_pools() <= before


@pytest.mark.lab
@pytest.mark.parametrize("moment", LATE)
def test_load(tmp_path: Path, moment: float) -> None:
    argv = ["load", str(SMOKE), "--on", "new-lab", "--quiet", "--out", str(tmp_path / "out")]
    _, error, pid = interrupt(argv, moment)
    assert "Traceback" not in error, error
    run = lab.lab_dir(f"load-{pid}").path
    assert not run.exists()
    assert processes_of(run) == []


@pytest.mark.lab
@pytest.mark.parametrize("moment", [0.2, 0.6, 1.5])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_demo_takes_its_lab_with_it(
    moment: float, how: signal.Signals, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    _, _, pid = interrupt(["demo"], moment, how)
    run = lab.lab_dir(f"demo{pid}").path
    eventually(lambda: processes_of(run) == [])
    # Killed before it had started anything it may have left its directory; that can be seen.
    if run.exists():
        assert run.name in [r.path.name for r in lab.labs()]
        assert lab.down(RunDir(run))
    assert not run.exists()


@pytest.mark.lab
@pytest.mark.parametrize("moment", [0.2, 0.4, 0.7, 1.2])
def test_a_killed_lab_up_is_listed_and_cleared_away(
    name: str, moment: float, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Either nobody knows of it, and nothing is left, or `list` shows it, and `down` ends it."""
    run = lab.lab_dir(name).path
    interrupt(["lab", "up", "--name", name], moment, signal.SIGKILL)

    def settled() -> bool:
        return not processes_of(run) or lab.told(RunDir(run))["up"]

    eventually(settled)
    if not run.exists():
        return
    listed = subprocess.run([SKBUS, "lab", "list"], check=True, capture_output=True, text=True)
    mine = [f for f in map(json.loads, listed.stdout.splitlines()) if f["lab"] == name]
    if not mine:  # its holder, which was just starting, has found nobody to tell that it is up
        assert not run.exists()
        eventually(lambda: processes_of(run) == [])
        return
    assert [m["run_dir"] for m in mine] == [str(run)]
    subprocess.run([SKBUS, "lab", "down", "--name", name], check=True, capture_output=True)
    assert not run.exists()
    assert processes_of(run) == []


def test_what_is_left_of_anything_is_listed_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a command that was killed before it had written who it is."""
    monkeypatch.setattr(rundir, "_bases", lambda: [tmp_path / "base"])
    half, other = (RunDir(tmp_path / "base" / name).create() for name in ("half", "other"))
    os.close(half.lock())
    other.write_text("state.json", '{"supervisor": [1, 1], "layers": {}, "others": {}}')
    assert [lab.told(run) for run in lab.labs()] == [
        {"lab": name, "up": False, "run_dir": str(tmp_path / "base" / name)}
        for name in ("half", "other")
    ]
    for run in lab.labs():
        assert lab.down(run)
    assert not (tmp_path / "base").exists()


def test_a_running_up_is_no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_bases", lambda: [tmp_path / "base"])
    run = RunDir(tmp_path / "base" / "default").create()
    run.write_text("state.json", '{"supervisor": [1, 1], "layers": {}, "others": {}}')
    lock = run.lock()
    assert lab.labs() == []
    with pytest.raises(lab.LabError, match=r"`skbus up` runs in .*/default: .*--name NAME"):
        lab.up(run, "{}")
    os.close(lock)
    run.remove()
