# SPDX-License-Identifier: MIT
"""Options of `lab` and `up`, all at once: what they do can be seen in a running stack."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skbus.bus import rundir
from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.stack import lab
from skbus.stack.config import Config

BIN = Path(sys.executable).parent
SKBUS = BIN / "skbus"
NAME = f"opt{os.getpid()}"

LINK = {
    "--loss": "1%", "--delay": "2ms", "--jitter": "1ms", "--reorder": "3%", "--dup": "4%",
    "--corrupt": "0.1%", "--rate": "100mbit", "--seed": "7",
}  # fmt: skip
COMMON = {
    "--time-scale": "2", "--log-level": "warning", "--sysctl": "net.ipv4.tcp_sack=0",
    "--affinity": "one", "--tcp-shards": "2",
}  # fmt: skip
GSO_SIZE = """
import socket
from skbus.bus.gso_size import gso_ipv4_max_size
print(gso_ipv4_max_size(socket.if_nametoindex("eth0")))
"""


def run(*argv: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SKBUS, *argv], capture_output=True, text=True, check=False, timeout=150,
        env={**os.environ, **env},
    )  # fmt: skip


@pytest.fixture
def a_lab() -> Iterator[str]:
    yield NAME
    run("lab", "down", "--name", NAME)


def files(tmp_path: Path) -> list[str]:
    (tmp_path / "c.toml").write_text('[log]\nlayers = { udp = "error" }\n[clock]\ntime_scale = 9\n')
    (tmp_path / "mine.py").write_text(
        "async def init_module(net, params):\n    return params\n"
        "async def cleanup_module(net, data):\n    pass\n"
    )
    return ["--config", str(tmp_path / "c.toml"), "--module", f"{tmp_path / 'mine.py'}"]


def check_config(config: Config) -> None:
    """That of all the options above; what a flag says goes before what the file says."""
    impair = dict(config.devices[0].impair)
    assert impair == {
        "loss": 0.01, "delay": 2_000_000, "jitter": 1_000_000, "reorder": 0.03, "dup": 0.04,
        "corrupt": 0.001, "rate": 100_000_000, "seed": 7,
    }  # fmt: skip
    assert (config.clock.time_scale, config.placement, config.tcp_shards) == (2.0, "one", 2)
    assert (config.log.level, config.log.layers) == ("warning", {"udp": "error"})
    assert [Path(m).name for m in config.modules] == ["mine.py"]


def words(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


@pytest.mark.lab
def test_lab_up_with_everything(a_lab: str, tmp_path: Path) -> None:
    done = run(
        "lab", "up", "--name", a_lab, "--mtu", "1400", "--gso-max-size", "131072", "--json",
        *words(LINK), *words(COMMON), *files(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    up = json.loads(done.stdout)
    directory = RunDir(up["run_dir"])
    check_config(Config.read(directory))
    assert {"tcp.0", "tcp.1"} < set(up["pids"])
    assert ctl_call(directory, "ip", "sysctl_get", "net.ipv4.tcp_sack", 60) == 0
    impaired = ctl_call(directory, "nic.eth0", "status", None, 60)["core"]
    assert {"impair_rx", "impair_tx"} <= set(impaired)
    inside = ("lab", "exec", "--stack", "--name", a_lab, "--")
    assert "mtu 1400" in run(*inside, "ip", "link", "show", "eth0").stdout
    assert run(*inside, sys.executable, "-P", "-c", GSO_SIZE).stdout == "131072\n"
    modules = run("lsmod", SKBUS_DIR=up["run_dir"])
    assert modules.stdout.startswith("mine "), modules.stderr
    listed = [json.loads(line) for line in run("lab", "list", "--json").stdout.splitlines()]
    assert up in listed
    assert json.loads(run("lab", "status", "--name", a_lab, "--json").stdout) == up


UP = """
set -e
ip link set lo up
skbus up "$@" >"$SKBUS_DIR.out" 2>"$SKBUS_DIR.err" & pid=$!
i=0
until grep -q SKBUS_DIR "$SKBUS_DIR.out"; do
    i=$((i + 1)); [ $i -lt 1200 ] && kill -0 $pid || { cat "$SKBUS_DIR.err" >&2; exit 1; }
    sleep 0.05
done
cat "$SKBUS_DIR/config.json"
echo ===
skbus proc net/route
skbus status --json
kill $pid
wait $pid || true
"""


@pytest.mark.lab
def test_up_with_everything_on_a_tap(tmp_path: Path) -> None:
    if not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("no /dev/net/tun here")
    enter = (
        "import os, sys; from skbus.stack import holder; holder.make_namespaces();"
        "os.execvp('sh', ['sh', '-c', sys.argv[1], 'sh', *sys.argv[2:]])"
    )
    options = [
        "--dev", "tap7", "--tap", "--addr", "10.9.0.2/24", "--gw", "10.9.0.1",
        "--mac", "02:00:00:00:00:07", "--mtu", "1400",
        *words(LINK), *words(COMMON), *files(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", enter, UP, *options],
        capture_output=True, text=True, check=False, timeout=150,
        env={**os.environ, "SKBUS_DIR": f"{tmp_path}/r", "PATH": f"{BIN}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = Config.from_json(done.stdout.partition("===")[0])
    check_config(config)
    (device,) = config.devices
    assert (device.name, device.backend, device.mode) == ("tap7", "tap", "own")
    assert (device.addr, device.gateway) == (["10.9.0.2/24"], "10.9.0.1")
    nic = json.loads(done.stdout.splitlines()[-1])["nic.tap7"]["core"]
    assert (nic["dev_addr"], nic["mtu"]) == ("02:00:00:00:00:07", 1400)


def on_a_terminal(*argv: str) -> str:
    """What a command prints there."""
    master, slave = pty.openpty()
    with subprocess.Popen([SKBUS, *argv], stdout=slave, stderr=slave, stdin=slave) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: nobody has it open any more
                break
            if not chunk:
                break
            text += chunk
        process.wait(60)
    os.close(master)
    return text.decode().replace("\r\n", "\n")


@pytest.mark.lab
def test_on_a_terminal_it_speaks_to_people(a_lab: str) -> None:
    said = on_a_terminal("lab", "up", "--name", a_lab).splitlines()
    assert said[0] == f"The lab '{a_lab}' is up: our stack at 10.77.0.2, Linux at 10.77.0.1."
    directory = lab.lab_dir(a_lab).path
    assert said[1:] == [
        f"  SKBUS_DIR={directory} skbus serve http --port 80 &",
        f"  skbus lab exec --name {a_lab} -- curl http://10.77.0.2/",
        f"  skbus lab down --name {a_lab}",
    ]
    status = on_a_terminal("lab", "status", "--name", a_lab).splitlines()
    assert status[0].split() == [a_lab, str(directory), "up"]
    assert len(status) == 8
    assert any(line.split()[:2] == ["tcp", "pid"] for line in status)
    (line,) = [x for x in on_a_terminal("lab", "list").splitlines() if x.startswith(a_lab)]
    assert line.split() == [a_lab, str(directory), "up"]
    os.kill(lab.status(RunDir(directory))["pids"]["holder"], 9)
    lab.wait([p for p in [_holder(RunDir(directory))] if p], 10)
    (line,) = [x for x in on_a_terminal("lab", "list").splitlines() if x.startswith(a_lab)]
    assert line.endswith(f"has died: `skbus lab down --name {a_lab}` clears it away")


def _holder(directory: RunDir) -> Any:
    from skbus.bus.state import read_state

    state = read_state(directory)
    assert state is not None
    return state["supervisor"]


@pytest.mark.lab
def test_down_all_and_a_name_exclude_each_other() -> None:
    done = run("lab", "down", "--all", "--name", "x")
    assert done.returncode == 2
    assert "either --name or --all" in done.stderr


def test_the_shell_completes_names() -> None:
    directory = RunDir(rundir.default_base() / f"{NAME}done").create()
    try:
        for command in ("exec", "status", "down", "up"):
            typed = f"skbus lab {command} --name {NAME}"
            done = run(_SKBUS_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD="4")
            assert done.stdout.split() == [f"{NAME}done"], done.stderr
    finally:
        directory.remove()
