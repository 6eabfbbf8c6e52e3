# SPDX-License-Identifier: MIT
"""The commands that ask a running stack, each with each of its options, and what they say of a
layer that is dead, stopped or missing; the log's level and its hole after a restart."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from skbus.bus.rundir import RunDir
from skbus.bus.state import read_state
from skbus.core.snmp import NAMES as COUNTERS
from skbus.core.sysctl import SPECS
from skbus.inet.proc import NAMES as PROC_FILES
from skbus.stack import lab
from skbus.stack.config import Config

pytestmark = pytest.mark.lab

BIN = Path(sys.executable).parent
PROCESSES = ["nic.eth0", "ip", "tcp", "udp", "socket"]


class Done(Protocol):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Ask(Protocol):
    """Runs a command with SKBUS_DIR set (conftest.py's `skbus`)."""

    def __call__(self, *argv: str) -> Done: ...


@pytest.fixture(scope="module")
def stack() -> Iterator[RunDir]:
    run = lab.lab_dir(f"inspect{os.getpid()}")
    subprocess.run(
        [BIN / "skbus", "lab", "up", "--name", run.path.name], check=True, capture_output=True
    )
    try:
        yield run
    finally:
        lab.down(run)


@pytest.fixture
def ask(skbus: Callable[..., Done], stack: RunDir) -> Ask:
    def call(*argv: str) -> Done:
        return skbus(*argv, env={"SKBUS_DIR": str(stack.path)})

    return call


def pid_of(run: RunDir, process: str) -> int | None:
    state = read_state(run)
    assert state is not None
    pid = state["layers"][process]
    return None if pid is None else int(pid.pid)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it has not come about within half a minute"
        time.sleep(0.02)


# ---- status ----------------------------------------------------------------------------------


def table(text: str) -> list[str]:
    """The lines of a status below its head; above it, it may say that the build is compiled."""
    lines = text.splitlines()
    (head,) = (number for number, line in enumerate(lines) if line.startswith("process "))
    return lines[head + 1 :]


def test_status(ask: Ask) -> None:
    done = ask("status")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in table(done.stdout)[:5]] == PROCESSES
    one = ask("status", "--layer", "nic")
    assert "mtu 1500" in one.stdout
    assert "tcp" not in one.stdout
    assert table(ask("status", "-l", "ip").stdout)[0].split()[0] == "ip"
    told = json.loads(ask("status", "--json").stdout)
    assert list(told) == PROCESSES
    assert told["nic.eth0"]["core"]["mtu"] == 1500


@pytest.mark.parametrize("command", ["status", "counters", "log-level", "health"])
def test_a_layer_that_there_is_not(ask: Ask, command: str) -> None:
    done = ask(command, "--layer", "sctp")
    assert done.returncode == 1
    assert f"no process sctp in {os.environ['SKBUS_DIR']}; there are: nic.eth0, ip" in done.stderr


def test_where_no_stack_is_those_that_are_up_are_named(
    skbus: Callable[..., Done], stack: RunDir, tmp_path: Path
) -> None:
    done = skbus("status", env={"SKBUS_DIR": str(tmp_path / "nope")})
    assert done.returncode == 1
    assert f"no run directory {tmp_path}/nope: is the stack up?" in done.stderr
    assert str(stack.path) in done.stderr.partition("; there are: ")[2].split()


# ---- counters --------------------------------------------------------------------------------


def numbers(text: str) -> dict[str, int]:
    """What nstat's form says."""
    lines = text.splitlines()
    assert lines[0] == "#kernel"
    return {name: int(value) for name, value, _ in map(str.split, lines[1:])}


def test_counters(ask: Ask) -> None:
    counted = numbers(ask("counters").stdout)
    assert counted["IpInReceives"] > 0
    assert 0 not in counted.values()
    everything = numbers(ask("counters", "-a").stdout)
    assert set(everything) >= set(COUNTERS)
    assert set(numbers(ask("counters", "--all").stdout)) == set(everything)
    assert json.loads(ask("counters", "--json").stdout) == counted
    assert "IpInReceives" not in numbers(ask("counters", "--layer", "nic").stdout)
    assert "IpInReceives" in numbers(ask("counters", "-l", "ip").stdout)


def test_counters_by_name(ask: Ask) -> None:
    assert "IpInReceives" in numbers(ask("counters", "IpIn*").stdout)
    assert numbers(ask("counters", "TcpExtTCPTimeouts").stdout) == {"TcpExtTCPTimeouts": 0}
    none = ask("counters", "UdpLite*")
    assert (none.returncode, none.stdout) == (0, "#kernel\n")
    assert "counters are zero; -a prints those, too" in none.stderr
    wrong = ask("counters", "TcpExtTCPTimeout")
    assert wrong.returncode == 2
    assert "no counter TcpExtTCPTimeout; did you mean TcpExtTCPTimeouts" in wrong.stderr


# ---- log-level -------------------------------------------------------------------------------


def test_a_level_is_set_shown_and_kept(ask: Ask, stack: RunDir) -> None:
    """A layer that is killed comes back with it, and its log says that there is a hole."""
    assert ask("log-level").stdout.splitlines() == [f"{p} info" for p in PROCESSES]
    assert ask("log-level", "debug", "--layer", "tcp").stdout == "tcp debug\n"
    assert ask("log-level", "error", "-l", "nic").stdout == "nic.eth0 error\n"
    levels = ["nic.eth0 error", "ip info", "tcp debug", "udp info", "socket info"]
    assert ask("log-level").stdout.splitlines() == levels
    wrong = ask("log-level", "loud")
    assert wrong.returncode == 2
    assert "no log level 'loud': it takes debug, info, warning, error" in wrong.stderr

    old = pid_of(stack, "tcp")
    assert old is not None
    os.kill(old, signal.SIGKILL)
    eventually(lambda: pid_of(stack, "tcp") not in (None, old))
    assert ask("health", "--layer", "tcp", "--wait", "30").stdout == "tcp answers (life 2)\n"
    assert ask("log-level").stdout.splitlines() == levels
    shown = ask("logs", "-l", "tcp", "--level", "warning", "--json").stdout.splitlines()
    (restarted,) = [e for e in map(json.loads, shown) if e["event"] == "restarted"]
    assert restarted["epoch"] == 2
    assert "is lost" in restarted["text"]
    ask("log-level", "info")
    assert ask("log-level").stdout.splitlines() == [f"{p} info" for p in PROCESSES]


CONNECT = """
import socket
try:
    socket.create_connection(("10.77.0.2", 81), timeout=10)
except ConnectionRefusedError:
    print("refused")
"""


def test_a_flow_is_found_in_both_directions(ask: Ask, stack: RunDir) -> None:
    """On a real interface: the kernel's SYN, and our reset, through all layers."""
    ask("log-level", "debug")
    try:
        done = subprocess.run(
            [BIN / "skbus", "lab", "exec", "--name", stack.path.name, "--",
             sys.executable, "-P", "-c", CONNECT],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "refused\n"
        ask("barrier")
        shown = ask("logs", "--flow", ":81", "--json").stdout.splitlines()
        events = [json.loads(line) for line in shown]
    finally:
        ask("log-level", "info")
    syn, reset = (
        [e for e in events if e.get("flow", "").count(":") == 2 and e["flow"].endswith(":81") is to]
        for to in (True, False)
    )
    assert {e["event"] for e in syn} >= {"napi_gro_receive", "ip_rcv", "tcp_v4_rcv"}
    way = ["tcp_v4_send_reset", "ip_queue_xmit", "ip_output", "dev_queue_xmit"]
    assert [e["event"] for e in reset if e["event"] in way] == way
    assert len({e["skb"] for e in reset}) == 1
    (sent,) = [e for e in reset if e["event"] == "tcp_v4_send_reset"]
    assert sent["flags"] == "[R.]"
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    assert len({e["time"] for e in reset}) > len(way), "each function has a time of its own"
    assert {e["process"] for e in events} == {"nic.eth0", "ip", "tcp"}


# ---- health, barrier -------------------------------------------------------------------------


def test_health(ask: Ask) -> None:
    done = ask("health", "--wait", "30")
    assert done.returncode == 0
    assert [line.split(" answers (life ")[0] for line in done.stdout.splitlines()] == PROCESSES
    assert ask("health", "-l", "nic").stdout.startswith("nic.eth0 answers (life ")


def test_who_stands_still_is_named_with_the_remedy(
    ask: Ask, stack: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = pid_of(stack, "udp")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        said = f"it stands still (`kill -CONT {pid}` lets it go on)"
        done = ask("health")
        assert done.returncode == 1
        assert f"udp does not answer within 5 s in {stack.path}: {said}" in done.stderr
        assert "udp" not in done.stdout
        assert "tcp answers" in done.stdout
        late = ask("barrier", "--timeout", "0.2")
        assert late.returncode == 1
        assert late.stdout == ""
        assert "the token has not come back within 0.2 s" in late.stderr
        assert said in late.stderr
        partly = ask("status", "--json")
        assert partly.returncode == 1
        assert said in json.loads(partly.stdout)["udp"]["error"]
        assert said in partly.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ask("health", "--wait", "30").returncode == 0


def test_who_has_not_started_is_missed(ask: Ask, stack: RunDir) -> None:
    """In containers, each layer starts by itself: the configuration says who should be there."""
    config = Config.read(stack)
    config.tcp_shards = 2
    config.write(stack)
    try:
        done = ask("health")
        assert done.returncode == 1
        for shard in ("tcp.0", "tcp.1"):
            assert f"{shard} has not started in {stack.path}, though the conf" in done.stderr
        assert ask("health", "--layer", "tcp.1").returncode == 1
        assert ask("health", "--layer", "ip").returncode == 0
    finally:
        config.tcp_shards = 1
        config.write(stack)


def test_barrier(ask: Ask) -> None:
    done = ask("barrier", "--timeout", "30")
    assert done.returncode == 0, done.stderr
    number, unit = done.stdout.split()
    assert float(number) > 0
    assert unit == "ms"
    assert "it takes more than 0" in ask("barrier", "--timeout", "0").stderr
    soon = ask("barrier", "--timeout", "0.000001")
    assert soon.returncode == 1
    assert "within 1e-06 s\n  every layer answers: they have much to do" in soon.stderr


# ---- proc, sysctl ----------------------------------------------------------------------------


def test_proc(ask: Ask) -> None:
    names = ask("proc").stdout.split()
    assert names == [f"net/{name}" for name in PROC_FILES]
    for name in names:
        done = ask("proc", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    both = ask("proc", "net/dev", "arp").stdout
    assert both.startswith("==> net/dev <==\n")
    assert "\n==> net/arp <==\n" in both
    wrong = ask("proc", "net/nope")
    assert wrong.returncode == 1
    assert "no such file: net/nope; there are: net/arp net/dev" in wrong.stderr


TTL = "net.ipv4.ip_default_ttl"


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        ([TTL], f"{TTL} = 64\n"),
        (["net/ipv4/ip_default_ttl"], f"{TTL} = 64\n"),
        (["-n", TTL], "64\n"),
        (["--values", TTL], "64\n"),
        (["-N", TTL], f"{TTL}\n"),
        (["--names", TTL], f"{TTL}\n"),
        (["-w", f"{TTL}=64"], f"{TTL} = 64\n"),
        (["--write", f"{TTL}=64"], f"{TTL} = 64\n"),
        (["-q", f"{TTL}=64"], ""),
        (["--quiet", "-w", f"{TTL}=64"], ""),
        (["-e", "net.nope", TTL], f"{TTL} = 64\n"),
        (["--ignore", "net.nope", TTL], f"{TTL} = 64\n"),
        (["-r", "default_ttl$"], f"{TTL} = 64\n"),
        (["-a", "--pattern", "default_ttl$"], f"{TTL} = 64\n"),
        (["-p", "FILE"], f"{TTL} = 64\n"),
        (["--load", "FILE"], f"{TTL} = 64\n"),
    ],
)
def test_sysctl(ask: Ask, tmp_path: Path, argv: list[str], out: str) -> None:
    file = tmp_path / "sysctl.conf"
    file.write_text(f"# a comment\n\n{TTL} = 64\n")
    done = ask("sysctl", *(str(file) if a == "FILE" else a for a in argv))
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


@pytest.mark.parametrize("flag", ["-a", "-A", "-X", "--all"])
def test_all_sysctls(ask: Ask, flag: str) -> None:
    names = [line.split(" = ")[0] for line in ask("sysctl", flag).stdout.splitlines()]
    assert names == sorted(SPECS)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["net.nope"], "cannot stat /proc/sys/net/nope: No such file or directory"),
        (["-r", "nope"], "none of "),
        (["-r", "("], "'(': "),
        (["-p", "/dev/null"], "/dev/null: sets nothing"),
        (["-p", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["-w", TTL], "command line(0): invalid syntax, continuing..."),
        ([f"{TTL}=1000"], f'setting key "{TTL}": Invalid argument'),
        ([], "which? Name one, or give -a for all"),
    ],
)
def test_sysctls_that_cannot_be(ask: Ask, argv: list[str], said: str) -> None:
    done = ask("sysctl", *argv)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stdout == ""


# ---- modules ---------------------------------------------------------------------------------

MODULE = '''
"""Says hello."""
def init_module(net, params):
    net.info("hello", **params)
'''


def test_modules(ask: Ask, tmp_path: Path) -> None:
    none = ask("lsmod")
    assert (none.returncode, none.stdout) == (0, "")
    assert "no module is loaded; `skbus insmod` loads one" in none.stderr
    server = Path(__file__).parents[3] / "examples" / "kernel" / "server.py"
    loaded = ask("insmod", str(server), "port=7777")
    assert loaded.returncode == 0, loaded.stderr
    name = loaded.stdout.split()[0]
    listed = ask("lsmod").stdout.split()
    assert listed[0] == name
    assert "port=7777" in listed
    assert ask("rmmod", name).returncode == 0
    assert ask("lsmod").stdout == ""
    wrong = ask("rmmod", "nope")
    assert wrong.returncode == 1
    assert "no module nope is loaded" in wrong.stderr
    assert "there is no file" in ask("insmod", str(tmp_path / "nope.py")).stderr


# ---- names for the shell ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("skbus log", {"logs", "log-level"}),
        ("skbus status --layer n", {"nic.eth0", "nic"}),
        ("skbus health -l t", {"tcp"}),
        ("skbus logs --layer s", {"socket", "supervisor"}),
        ("skbus logs --level w", {"warning"}),
        ("skbus log-level d", {"debug"}),
        ("skbus counters TcpExtTCPTime", {"TcpExtTCPTimeouts", "TcpExtTCPTimeWaitOverflow"}),
        ("skbus sysctl net.ipv4.tcp_sac", {"net.ipv4.tcp_sack"}),
        ("skbus sysctl net/ipv4/tcp_sac", {"net/ipv4/tcp_sack"}),
        ("skbus proc net/ud", {"net/udp", "net/udplite"}),
    ],
)
def test_names_are_completed(stack: RunDir, line: str, offered: set[str]) -> None:
    done = subprocess.run(
        [BIN / "skbus"],
        env={
            **os.environ,
            "SKBUS_DIR": str(stack.path),
            "_SKBUS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    found = set(done.stdout.split())
    assert done.stderr == ""
    assert found <= offered if "Timeouts" in str(offered) else found == offered
    assert found
