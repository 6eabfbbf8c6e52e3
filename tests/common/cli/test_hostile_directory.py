# SPDX-License-Identifier: MIT
"""Every command, in a directory full of modules that are named like those that we import.

Python looks for modules in the working directory first, where it is started as `python -m`, `-c`,
or without a script. So our commands start no process in that way: what lies in a directory in
which root happens to stand must not run as root.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from skbus.stack import lab
from skbus.stack.lab import ADDRESS

SKBUS = Path(sys.executable).with_name("skbus")
SKBUSD = SKBUS.with_name("skbusd")

HOSTILE = """
import os
with open({mark!r}, "a") as mark:
    mark.write("{name} in " + open("/proc/self/cmdline").read().replace("\\0", " ") + "\\n")
"""


class Trap:
    """A directory with a module of each name that Python or a package of this environment has."""

    def __init__(self, path: Path) -> None:
        self.path = path / "trap"
        self.path.mkdir()
        self.mark = path / "mark"
        names = {
            n for n in (*sys.stdlib_module_names, *packages_distributions()) if n.isidentifier()
        }
        names |= {"sitecustomize", "usercustomize", "load", "smoke", "default"}
        names |= {"skbus", "skbusd"}
        for name in names:
            file = self.path / f"{name}.py"
            file.write_text(HOSTILE.format(mark=str(self.mark), name=name))
        # `skbus load` takes scenarios by their names, and matplotlib reads this file
        (self.path / "tests" / "load").mkdir(parents=True)
        (self.path / "matplotlibrc").write_text("backend: module://smoke\n")
        self.env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SKBUS_DIR")}

    def run(self, *argv: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            argv, cwd=self.path, env={**self.env, **env}, capture_output=True, text=True,
            check=False, timeout=200,
        )  # fmt: skip
        assert self.sprung() == "", f"{argv} ran what lies in the working directory"
        return done

    def sprung(self) -> str:
        return self.mark.read_text() if self.mark.exists() else ""


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


def test_the_trap_works(trap: Trap) -> None:
    """Python 3.13 reads linecache for `-c`, before anything else, and fails."""
    subprocess.run(
        [sys.executable, "-c", "import structlog"], cwd=trap.path, check=False, capture_output=True
    )
    assert re.match("(structlog|linecache) in ", trap.sprung())


@pytest.fixture
def a_lab(trap: Trap) -> Iterator[tuple[str, dict[str, str]]]:
    """A lab that was started there; its name, and the environment that has it as SKBUS_DIR."""
    name = f"trap{os.getpid()}"
    done = trap.run(SKBUS, "lab", "up", "--name", name)
    assert done.returncode == 0, done.stderr
    try:
        yield name, {"SKBUS_DIR": json.loads(done.stdout)["run_dir"]}
    finally:
        assert trap.run(SKBUS, "lab", "down", "--name", name).returncode == 0


@pytest.mark.lab
def test_commands_of_a_lab(trap: Trap, a_lab: tuple[str, dict[str, str]]) -> None:
    name, env = a_lab
    for command in (
        ("lab", "list"),
        ("lab", "status", "--name", name),
        ("lab", "exec", "--name", name, "--", "true"),
        ("status",),
        ("counters",),
        ("logs",),
        ("log-level", "info"),
        ("health",),
        ("barrier",),
        ("sysctl", "net.ipv4.tcp_sack=0"),
        ("proc", "net/tcp"),
        ("lsmod",),
    ):
        done = trap.run(SKBUS, *command, **env)
        assert done.returncode == 0, (command, done.stderr)


PACKETDRILL = """
+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000>
+0 > S. 0:0(0) ack 1 <...>
"""


@pytest.mark.lab
def test_a_layer_that_dies_and_packetdrill_and_load(
    trap: Trap, a_lab: tuple[str, dict[str, str]], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    name, env = a_lab
    run = lab.lab_dir(name)
    old = lab.status(run)["pids"]["tcp"]
    os.kill(old, 9)
    eventually(lambda: lab.status(run)["pids"]["tcp"] not in (None, old))
    assert trap.run(SKBUS, "health", "--wait", "60", **env).returncode == 0
    script = trap.path / "listen.pkt"
    script.write_text(PACKETDRILL)
    done = trap.run(SKBUS, "packetdrill", "--live", script, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    scenario = trap.path / "one.toml"
    scenario.write_text(
        "settle = '1s'\n[[flow]]\nname = 'web'\nprotocol = 'http'\nclients = 1\n"
        "[[phase]]\nname = 'only'\nduration = '1s'\n"
        "[[event]]\nat = '300ms'\nrun = 'ip address'\n"
    )
    done = trap.run(SKBUS, "load", "one.toml", "--quiet", **env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.lab
def test_the_demo(trap: Trap) -> None:
    done = trap.run(SKBUS, "demo")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_layer_by_itself(trap: Trap, tmp_path: Path) -> None:
    done = trap.run(SKBUSD, "tcp", "--config", "none.toml", SKBUS_DIR=str(tmp_path / "r"))
    assert "cannot read the configuration" in done.stderr


PROGRAM = """
import beside
import socket, structlog, sys
import skbus.socket
assert socket.socket is skbus.socket.socket
print(beside.WHO, *sys.argv[1:])
"""


@pytest.mark.parametrize("how", ["script", "module"])
def test_a_program_finds_its_own_modules_as_with_python(
    trap: Trap, tmp_path: Path, how: str
) -> None:
    """Not those of the working directory, where it is a script; those, where it is a module."""
    place = tmp_path / "program"
    place.mkdir()
    (place / "beside.py").write_text(f"WHO = 'beside, of {ADDRESS}'\n")
    (place / "program.py").write_text(PROGRAM)
    if how == "script":
        # (What `python -m` itself takes from there before our first line we cannot prevent.)
        for name in (*sys.stdlib_module_names, "skbus"):
            (trap.path / f"{name}.py").unlink()
        done = trap.run(sys.executable, "-m", "skbus.run", place / "program.py", "1", "-m")
        assert done.stdout == f"beside, of {ADDRESS} 1 -m\n", done.stderr
        return
    done = subprocess.run(
        [sys.executable, "-m", "skbus.run", "-m", "program", "1"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"beside, of {ADDRESS} 1\n", done.stderr


def test_with_P_not_even_python_itself_looks_there(trap: Trap, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import structlog; print('ran')")
    done = trap.run(sys.executable, "-P", "-m", "skbus.run", program)
    assert done.stdout == "ran\n", done.stderr
