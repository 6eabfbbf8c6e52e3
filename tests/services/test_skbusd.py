# SPDX-License-Identifier: MIT
"""`skbusd`: each option of the command that runs one layer, as a container runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.stack.config import Config

SKBUSD = Path(sys.executable).with_name("skbusd")
SKBUS = Path(sys.executable).with_name("skbus")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "r").create()


def environment(run: RunDir, **more: str) -> dict[str, str]:
    return {**os.environ, "SKBUS_DIR": str(run.path), **more}


def eventually(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it has not come about within half a minute"
        time.sleep(0.02)


@contextmanager
def layer(run: RunDir, process: str, *argv: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """A layer that answers; it is asked to end afterwards, and does."""
    with subprocess.Popen(
        [SKBUSD, process.split(".")[0], *argv],
        env=environment(run, **env),
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            eventually(Path(run.ctl(process).removeprefix("ipc://")).exists, child)
            assert ctl_call(run, process, "ping", seconds=30)["process"] == process
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
    assert child.returncode == 0


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def told(child: "subprocess.Popen[str]") -> str:
    """What it wrote, once it has ended."""
    assert child.stderr is not None
    child.send_signal(signal.SIGTERM)
    return child.stderr.read()


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "skbus.toml"
    file.write_text("tcp_shards = 2\n[sysctl]\n'net.ipv4.tcp_sack' = 0\n")
    return file


def test_a_layer_logs_into_the_run_directory_and_to_standard_error(run: RunDir, toml: Path) -> None:
    """So that `docker-compose logs` shows it, and `skbus logs` in a container of the stack too."""
    with layer(run, "udp", "--config", str(toml), "--log-format", "json") as child:
        shown = told(child)
    assert shown == run.log_file("udp").read_text()
    names = [e["event"] for e in events(shown)]
    assert (names[0], names[-1]) == ("started", "stopped")
    argv = [str(SKBUS), "logs", "--json"]
    done = subprocess.run(argv, env=environment(run), capture_output=True, text=True, check=True)
    assert done.stdout == shown
    piped = subprocess.run([*argv, "-"], input=shown, capture_output=True, text=True, check=True)
    assert piped.stdout == shown


def test_config_shard_and_level(run: RunDir, toml: Path) -> None:
    argv = ("--config", str(toml), "--shard", "1", "--log-level", "debug")
    with layer(run, "tcp.1", *argv):
        assert ctl_call(run, "tcp.1", "sysctl_get", "net.ipv4.tcp_sack") == 0
        assert ctl_call(run, "tcp.1", "log_level_get") == "debug"
    done = subprocess.run(
        [SKBUSD, "tcp", "--config", toml, "--shard", "2"],
        env=environment(run), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "skbusd tcp: --shard 2: there are 2\n")


def test_a_log_for_people(run: RunDir, toml: Path) -> None:
    with layer(run, "udp", "--config", str(toml), "--log-format", "console") as child:
        first, *_ = told(child).splitlines()
    assert first.split()[1:3] == ["udp", "started"]


def test_a_module_is_loaded(run: RunDir, toml: Path) -> None:
    server = Path(__file__).parents[2] / "examples" / "kernel" / "server.py"
    with layer(run, "socket", "--config", str(toml), "--module", f"{server} port=7"):
        (module,) = ctl_call(run, "socket", "lsmod")
        assert module["params"] == {"port": "7"}


def test_the_second_life_of_a_layer_says_that_it_is_one(run: RunDir, toml: Path) -> None:
    """A container that is started again: the log goes on in the same file."""
    for _ in range(2):
        with layer(run, "udp", "--config", str(toml)):
            pass
    lives = [e for e in events(run.log_file("udp").read_text()) if "epoch" in e]
    assert [(e["event"], e["level"], e["epoch"]) for e in lives] == [
        ("started", "info", 1),
        ("restarted", "warning", 2),
    ]
    assert lives[1]["text"] == (
        "life 2: what was in flight in this process, and not logged, is lost"
    )


IN_A_NAMESPACE = """
import os, subprocess, sys
run = lambda *argv: subprocess.run(argv, check=True)
run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "veth0")
run("ip", "link", "set", "eth0", "up")
run("ip", "link", "set", "veth0", "up")
skbusd, *argv = sys.argv[1:]
if "FD" in argv:
    from skbus.stack.config import Config, Device
    from skbus.stack.layer import open_device
    fd = open_device(Device(name="eth0", addr=["192.0.2.7/24"]))
    os.set_inheritable(fd, True)
    argv[argv.index("FD")] = str(fd)
os.execv(skbusd, [skbusd, *argv])
"""


@pytest.mark.lab
@pytest.mark.parametrize("how", ["--dev", "SKBUS_DEV", "--fd"])
def test_nic_drives_the_interface_that_is_named(run: RunDir, how: str) -> None:
    assert shutil.which("ip"), "iproute2 is missing"
    argv = {"--dev": ["--dev", "eth0"], "SKBUS_DEV": [], "--fd": ["--fd", "FD"]}[how]
    env = {"SKBUS_ADDR": "192.0.2.7/24"}
    if how == "--dev":
        env = {}
        file = run.path / "skbus.toml"
        file.write_text("[[devices]]\nname = 'eth0'\naddr = '192.0.2.7/24'\n")
        argv += ["--config", str(file)]
    else:
        env["SKBUS_DEV"] = "eth0"
    if how == "--fd":  # the descriptor's holder has written the configuration
        config = Config.load(None, {"devices": [{"name": "eth0", "addr": "192.0.2.7/24"}]}, {})
        config.write(run)
    with subprocess.Popen(
        ["unshare", "-Urn", sys.executable, "-P", "-c", IN_A_NAMESPACE, SKBUSD, "nic", *argv],
        env=environment(run, **env),
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            eventually(Path(run.ctl("nic.eth0").removeprefix("ipc://")).exists, child)
            status = ctl_call(run, "nic.eth0", "status", seconds=30)["core"]
            assert (status["dev"], status["up"]) == ("eth0", True)
            assert [d.name for d in Config.read(run).devices] == ["eth0"]
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate()


def test_what_is_wrong_is_said(run: RunDir) -> None:
    for argv, status, said in (
        (["arp"], 2, "invalid choice: 'arp'"),
        (["nic"], 1, "which interface? Name it with --dev; the configuration has no device"),
        (["tcp", "--config", "/nonexistent"], 1, "cannot read the configuration /nonexistent"),
        (["tcp", "--log-level", "loud"], 2, "invalid choice: 'loud'"),
        (["tcp", "--log-format", "xml"], 2, "invalid choice: 'xml'"),
    ):
        done = subprocess.run(
            [SKBUSD, *argv], env=environment(run), capture_output=True, text=True, check=False
        )
        assert done.returncode == status
        assert said in done.stderr
        assert "Traceback" not in done.stderr
