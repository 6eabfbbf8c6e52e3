# SPDX-License-Identifier: MIT
"""The supervisor, over layers that only answer `ping`: real processes, real signals."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.linux import Pid
from skbus.bus.rundir import RunDir
from skbus.bus.state import read_state

STANDIN = Path(__file__).parents[1] / "standin.py"
PROCESSES = ["nic.eth0", "ip", "tcp", "udp", "socket"]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def ended(pid: int) -> None:
    """Wait for the end of a process that need not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(fd) as f:
        assert select.select([f], [], [], 60)[0], f"{pid} has not ended"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "r")


@pytest.fixture
def stack(run: RunDir) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, STANDIN, run.path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def layers(run: RunDir) -> dict[str, Pid]:
    state = read_state(run)
    assert state is not None
    return {k: v for k, v in state["layers"].items() if v is not None}


@pytest.mark.usefixtures("stack")
def test_each_layer_is_a_process_that_answers(run: RunDir) -> None:
    pids = layers(run)
    assert list(pids) == PROCESSES
    assert len({p.pid for p in pids.values()}) == 5
    assert run.processes() == PROCESSES
    for process in PROCESSES:
        assert ctl_call(run, process, "ping")["process"] == process
        assert Path(f"/proc/{pids[process].pid}/comm").read_text() == f"skbusd {process}\n"


@pytest.mark.usefixtures("stack")
def test_only_nic_has_the_device(run: RunDir) -> None:
    pids = layers(run)
    fd = ctl_call(run, "nic.eth0", "ping")["fd"]
    assert os.readlink(f"/proc/{pids['nic.eth0'].pid}/fd/{fd}") == "/dev/null"
    for process in PROCESSES[1:]:
        assert ctl_call(run, process, "ping")["fd"] is None
        opened = {
            os.readlink(f)
            for f in Path(f"/proc/{pids[process].pid}/fd").iterdir()
            if f.name not in "01"
        }
        assert "/dev/null" not in opened


@pytest.mark.usefixtures("stack")
def test_a_killed_layer_comes_back_and_the_others_stay(run: RunDir) -> None:
    before = layers(run)
    for victim in ("tcp", "nic.eth0"):
        old = layers(run)[victim]
        os.kill(old.pid, signal.SIGKILL)
        eventually(lambda v=victim, o=old: layers(run).get(v, o) != o)  # type: ignore[misc]
        assert ctl_call(run, victim, "ping", seconds=10)["process"] == victim
    after = layers(run)
    assert {k for k in before if before[k] == after[k]} == {"ip", "udp", "socket"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all(run: RunDir, stack: subprocess.Popen[str], how: signal.Signals) -> None:
    pids = layers(run)
    stack.send_signal(how)
    out, _ = stack.communicate()
    assert out == f"ended by {how.name}\n"
    assert stack.returncode == 0
    assert not any(p.alive() for p in pids.values())


def test_a_killed_supervisor_leaves_no_orphan(run: RunDir, stack: subprocess.Popen[str]) -> None:
    pids = layers(run)
    stack.kill()
    for pid in pids.values():
        ended(pid.pid)


def test_a_layer_that_fails_at_the_start_is_the_error(run: RunDir) -> None:
    done = subprocess.run(
        [sys.executable, STANDIN, run.path, "crash"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "udp ended with status 1 while starting" in done.stderr
    assert "udp: RuntimeError: udp is not in the mood" in done.stderr
    assert not any(p.alive() for p in layers(run).values())


def test_a_stack_is_ready_when_no_layer_misses_anything(run: RunDir) -> None:
    with subprocess.Popen(
        [sys.executable, STANDIN, run.path, "late"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        asked = (run.path / "asked").read_text().splitlines()
        process.terminate()
    answers = [line.removeprefix("ip ") for line in asked if line.startswith("ip ")]
    assert answers == ["eth0", "eth0", "eth0", "", ""]
    # what is above is asked when what is below is complete, and all once more
    assert asked[-len(PROCESSES) :] == [f"{process} " for process in PROCESSES]


def test_nobody_there_is_an_error_that_says_so(run: RunDir) -> None:
    run.create()
    with pytest.raises(ControlError, match=r"tcp does not answer within 0\.05 s.*has not start"):
        ctl_call(run, "tcp", "ping", seconds=0.05)


def test_a_pid_that_came_again_is_another() -> None:
    me = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert Pid(os.getpid(), int(me[19])).alive()
    assert not Pid(os.getpid(), int(me[19]) + 1).alive()
    assert not Pid(os.getpid(), int(me[19]) + 1).kill(signal.SIGKILL)
