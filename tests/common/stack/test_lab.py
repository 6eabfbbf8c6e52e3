# SPDX-License-Identifier: MIT
"""The lab, for real: namespaces, cable, supervisor, all layers; as root and without its rights."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.stack import lab

pytestmark = pytest.mark.lab

SKBUS = Path(sys.executable).with_name("skbus")

ROOTLESS = (
    # Root without root's rights: it must make a user namespace, as everybody else. (The kernel
    # wants CAP_SETFCAP of whoever maps user 0; other users map themselves, and need nothing.)
    ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"] if os.geteuid() == 0 else []
)


class Bench:
    """Labs that are gone at the end of the test, whatever happens."""

    def __init__(self, prefix: list[str]) -> None:
        self.prefix = prefix
        self.names: list[str] = []

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.prefix, SKBUS, "lab", *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )

    def name(self, suffix: str = "") -> str:
        name = f"test{os.getpid()}{suffix}"
        self.names.append(name)
        return name

    def up(self, name: str, *argv: str) -> dict[str, Any]:
        done = self.run("up", "--name", name, *argv)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found

    def exec(self, name: str, *argv: str) -> "subprocess.CompletedProcess[str]":
        return self.run("exec", "--name", name, "--", *argv)

    def down(self, name: str) -> None:
        done = self.run("down", "--name", name)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench([])
    yield bench
    for name in bench.names:
        bench.down(name)


@pytest.fixture
def rootless() -> Iterator[Bench]:
    bench = Bench(ROOTLESS)
    yield bench
    for name in bench.names:
        bench.down(name)


@pytest.fixture(params=["as we are", "rootless"])
def either(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(ROOTLESS if request.param == "rootless" else [])
    yield bench
    for name in bench.names:
        bench.down(name)


PROBE = """
import socket
s = socket.socket()
s.settimeout(45)
try:
    s.connect(("10.77.0.2", 9))
    print("open")
except ConnectionRefusedError:
    print("refused")
"""


def answers(bench: Bench, name: str) -> bool:
    """Whether our stack answers a SYN from the kernel's (nobody listens: with a RST)."""
    return bench.exec(name, sys.executable, "-c", PROBE).stdout == "refused\n"


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def again(name: str, layer: str, old: int) -> bool:
    """Whether a layer runs that is not the old one."""
    return lab.status(lab.lab_dir(name))["pids"][layer] not in (None, old)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_up_exec_status_down(either: Bench) -> None:
    name = either.name()
    up = either.up(name)
    assert (up["address"], up["peer_address"], up["up"]) == ("10.77.0.2", "10.77.0.1", True)
    assert up["rootless"] == (either.prefix != [] or os.geteuid() != 0)
    assert list(up["pids"]) == ["holder", "peer", "nic.eth0", "ip", "tcp", "udp", "socket"]
    assert answers(either, name)
    if shutil.which("ping"):
        done = either.exec(name, "ping", "-c", "1", "-W", "45", "10.77.0.2")
        assert "1 received" in done.stdout
    status = either.run("status", "--name", name)
    assert (status.returncode, json.loads(status.stdout)) == (0, up)
    layers = json.loads(either.exec(name, str(SKBUS), "status", "--json").stdout)
    assert list(layers) == ["nic.eth0", "ip", "tcp", "udp", "socket"]
    lo, eth0 = layers["ip"]["core"]["addresses"]
    assert lo["addresses"][0][:2] == ["127.0.0.1", 8]
    assert eth0["lladdr"] == layers["nic.eth0"]["core"]["dev_addr"]
    either.down(name)
    assert all(gone(pid) for pid in up["pids"].values())
    assert not Path(up["run_dir"]).exists()


def test_exec_passes_status_environment_and_output(bench: Bench) -> None:
    name = bench.name()
    up = bench.up(name)
    done = bench.exec(name, "sh", "-c", "echo $SKBUS_DIR; exit 7")
    assert (done.returncode, done.stdout) == (7, up["run_dir"] + "\n")
    done = bench.exec(name, "no-such-command")
    assert (done.returncode, "no such command: no-such-command" in done.stderr) == (127, True)
    links = bench.exec(name, "cat", "/proc/net/dev").stdout
    assert "veth0:" in links
    assert "eth0:" in bench.run("exec", "--stack", "--name", name, "cat", "/proc/net/dev").stdout


def test_exec_is_the_caller_with_all_rights(either: Bench) -> None:
    """tcpdump as root would want to be somebody else, whom a user namespace does not know."""
    name = either.name()
    up = either.up(name)
    assert either.exec(name, "id", "-u").stdout == f"{os.geteuid()}\n"
    done = either.exec(name, "ip", "link", "set", "veth0", "mtu", "1400")
    assert done.returncode == 0, done.stderr
    status = either.exec(name, "cat", "/proc/self/status").stdout
    rights = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert int(rights["CapEff"], 16) & (1 << 12 | 1 << 13)  # NET_ADMIN, NET_RAW
    assert ("NMAP_PRIVILEGED=1" in either.exec(name, "env").stdout) == (os.geteuid() != 0)
    if shutil.which("tcpdump") and not (up["rootless"] and os.geteuid() == 0):
        with subprocess.Popen(
            [SKBUS, "lab", "exec", "--stack", "--name", name, "--",
             "tcpdump", "-c", "2", "-ni", "eth0", "tcp"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as tcpdump:  # fmt: skip
            assert tcpdump.stderr is not None
            for line in tcpdump.stderr:
                if "listening on eth0" in line:
                    break
            assert answers(either, name)
            said, error = tcpdump.communicate(timeout=60)
        assert "10.77.0.2.9: Flags [S]" in said, error


def test_exec_finds_what_is_in_sbin(bench: Bench) -> None:
    """Debian's ordinary users do not have it in their PATH."""
    name = bench.name()
    bench.up(name)
    env = {**os.environ, "PATH": "/usr/bin:/bin"}
    command = [
        str(SKBUS),
        "lab",
        "exec",
        "--name",
        name,
        "--",
        "sh",
        "-c",
        "command -v ethtool; echo $PATH",
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    if os.path.exists("/usr/sbin/ethtool"):
        assert done.stdout.startswith("/usr/sbin/ethtool\n")


THREADS = """
import sys, threading, time
from skbus.stack import lab
from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
try:
    lab.enter(RunDir(sys.argv[1]))
except lab.LabError as e:
    print(e)
"""


def test_a_process_with_threads_is_told_why_it_may_not_enter(rootless: Bench) -> None:
    name = rootless.name()
    run_dir = rootless.up(name)["run_dir"]
    command = [*rootless.prefix, sys.executable, "-c", THREADS, run_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "this process has 2 threads, and only one with a single thread" in done.stdout


def test_nobody_else_can_look_into_a_run_directory(bench: Bench) -> None:
    path = Path(bench.up(bench.name())["run_dir"])
    for entry in [path, *path.rglob("*"), *(path / "pool").resolve().rglob("*")]:
        found = entry.lstat()
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o077, entry
        assert found.st_uid == os.geteuid()


def test_labs_side_by_side(bench: Bench) -> None:
    names = [bench.name("a"), bench.name("b")]
    ups = [bench.up(name) for name in names]
    assert ups[0]["run_dir"] != ups[1]["run_dir"]
    assert all(answers(bench, name) for name in names)
    listed = [json.loads(line)["lab"] for line in bench.run("list").stdout.splitlines()]
    assert set(names) <= set(listed)
    bench.down(names[0])
    assert answers(bench, names[1])


def test_up_twice_is_refused_and_harmless(bench: Bench) -> None:
    name = bench.name()
    bench.up(name)
    done = bench.run("up", "--name", name)
    assert done.returncode == 1
    assert "a lab is up in" in done.stderr
    assert "--name OTHER" in done.stderr
    assert answers(bench, name)


def test_down_ends_what_runs_in_the_peers_namespace(rootless: Bench) -> None:
    name = rootless.name()
    rootless.up(name)
    with subprocess.Popen(
        [*rootless.prefix, SKBUS, "lab", "exec", "--name", name, "--", "sleep", "1000"]
    ) as sleeper:
        eventually(lambda: "sleep" in Path(f"/proc/{sleeper.pid}/comm").read_text())
        rootless.down(name)
        assert sleeper.wait(60) == -signal.SIGTERM


def test_a_crash_leaves_nothing_but_the_directory_and_down_takes_that(rootless: Bench) -> None:
    name = rootless.name()
    up = rootless.up(name)
    os.kill(up["pids"]["holder"], signal.SIGKILL)
    for pid in up["pids"].values():
        eventually(lambda p=pid: gone(p))  # type: ignore[misc]
    assert rootless.run("status", "--name", name).returncode == 1
    done = rootless.exec(name, "true")
    assert f"has died: `skbus lab down --name {name}` clears it away" in done.stderr
    rootless.down(name)
    assert not Path(up["run_dir"]).exists()


def test_up_after_a_crash_needs_no_down(bench: Bench) -> None:
    name = bench.name()
    up = bench.up(name)
    os.kill(up["pids"]["holder"], signal.SIGKILL)
    eventually(lambda: gone(up["pids"]["tcp"]) and gone(up["pids"]["nic.eth0"]))
    bench.up(name)
    assert answers(bench, name)


def test_a_layer_that_is_killed_comes_back_and_answers(bench: Bench) -> None:
    name = bench.name()
    up = bench.up(name)
    for layer in ("nic.eth0", "ip", "tcp"):
        old = up["pids"][layer]
        os.kill(old, signal.SIGKILL)
        eventually(partial(again, name, layer, old))
        # the kernel may have asked for our address while nobody was there
        eventually(partial(answers, bench, name))


def test_what_was_set_at_run_time_outlives_a_layers_death(bench: Bench) -> None:
    name = bench.name()
    up = bench.up(name)
    run = lab.lab_dir(name)
    for layer in ("nic.eth0", "ip", "tcp"):
        ctl_call(run, layer, "sysctl_set", ("net.ipv4.tcp_sack", "0"))
        ctl_call(run, layer, "log_level", "debug")
    ctl_call(run, "nic.eth0", "impair", {"dup": "100%"})
    ctl_call(run, "nic.eth0", "tso", False)
    for layer in ("nic.eth0", "ip", "tcp"):
        old = up["pids"][layer]
        os.kill(old, signal.SIGKILL)
        eventually(partial(again, name, layer, old))
        assert ctl_call(run, layer, "sysctl_get", "net.ipv4.tcp_sack", 60) == 0
    eventually(partial(answers, bench, name))
    for layer in ("nic.eth0", "ip", "tcp"):
        lines = map(json.loads, run.log_file(layer).read_text().splitlines())
        levels = [(e["event"], e["level"]) for e in lines]
        reborn = max(i for i, line in enumerate(levels) if line == ("started", "info"))
        assert any(level == "debug" for _, level in levels[reborn:]), f"a hole in {layer}'s trace"
    assert ctl_call(run, "nic.eth0", "status")["core"]["impair_rx"]["duplicated"] > 0


def test_interrupted_up_leaves_nothing(bench: Bench) -> None:
    name = bench.name()
    run = lab.lab_dir(name)
    with subprocess.Popen([SKBUS, "lab", "up", "--name", name]) as process:
        eventually(lambda: run.config_file.exists())
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
    assert not run.path.exists()


def test_a_lab_that_cannot_start_says_why_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    name = bench.name()
    file = tmp_path / "c.toml"
    file.write_text('[[devices]]\nname = "eth7"\n')
    done = bench.run("up", "--name", name, "--config", str(file))
    assert done.returncode == 1
    assert "eth7" in done.stderr
    assert not lab.lab_dir(name).path.exists()


def test_down_refuses_a_running_up_and_clears_a_dead_one_away(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    run.state_file.write_text(json.dumps({"supervisor": [1, 1], "layers": {}, "others": {}}))
    lock = run.lock()
    with pytest.raises(lab.LabError, match="no lab, but `skbus up`"):
        lab.down(run)
    os.close(lock)
    assert lab.down(run)
    assert not run.path.exists()
