# SPDX-License-Identifier: MIT
"""`skbus load` from end to end: over the loopback, and in a lab with our stack on either side."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.load.command import main
from skbus.load.scenario import OWN
from skbus.stack import lab
from skbus.stack.config import Config

SMOKE = str(OWN / "smoke.toml")


def outcome(directory: Path, name: str = "smoke") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    assert (directory / f"{name}.html").stat().st_size > 10_000
    return data


# ---- over the loopback -------------------------------------------------------------------------


def test_every_protocol_over_the_loopback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SMOKE, on="loopback", out=tmp_path) == 0
    data = outcome(tmp_path)
    assert data["trouble"] == []
    assert data["passed"]
    for name, flow in data["flows"].items():
        assert flow["completed"] > 0, name
        assert flow["errors"] == 0, name
    said = capsys.readouterr()
    assert "ok           errors == 0    (0)" in said.out
    assert "hold" in said.err  # progress, as standard error is no terminal


def test_several_processes_share_the_load(tmp_path: Path) -> None:
    changes = {"processes": 3, "flow.web.rate": 60, "flow.web.arrivals": "even"}
    assert main(SMOKE, on="loopback", out=tmp_path, time=0.5, changes=changes, quiet=True) == 0
    data = outcome(tmp_path)
    assert len(data["load_cpu"]) == 3
    # a ramp of 0.25 s and 0.5 s at 60 in a second
    assert abs(data["flows"]["web"]["completed"] - 37.5) <= 3


def test_the_status_says_what_the_assertions_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"assert": ["p99 < 1us"]}
    assert main(SMOKE, on="loopback", out=tmp_path, time=0.2, changes=changes, quiet=True) == 1
    assert not outcome(tmp_path)["passed"]
    assert "FAIL         p99 < 1us" in capsys.readouterr().out


def test_a_protocol_of_the_scenarios_own(tmp_path: Path) -> None:
    file = str(OWN / "login.py")
    changes = {"assert": ["errors == 0"]}  # and no time
    assert main(file, on="loopback", out=tmp_path, time=0.1, changes=changes, quiet=True) == 0
    assert outcome(tmp_path, "login")["flows"]["morning"]["completed"] > 3


def test_a_server_that_is_not_there_is_errors_and_no_end(tmp_path: Path) -> None:
    changes = {"flow.web.host": "127.0.0.1", "flow.web.port": 1}
    assert main(SMOKE, on="loopback", out=tmp_path, time=0.5, changes=changes, quiet=True) == 1
    data = outcome(tmp_path)
    assert data["flows"]["web"]["errors_by_kind"] == {"refused": data["flows"]["web"]["requests"]}
    assert "ConnectionRefusedError" in data["error_samples"]["refused"]
    assert data["flows"]["echo"]["errors"] == 0


@pytest.mark.parametrize(
    ("changes", "on", "error"),
    [
        ({"flow.web.rat": 3}, "loopback", "flow.web.rat: no such key; did you mean rate?"),
        ({}, "the moon", "--on the moon: takes stack, new-lab or loopback"),
        ({"impair": {"loss": "5%"}}, "loopback", "has no stack of ours, which this needs: impair"),
        ({"event": [{"at": "1s", "restart": "ip"}]}, "loopback", "which this needs: restart ip"),
    ],
)
def test_what_cannot_be_run_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    on: str,
    error: str,
) -> None:
    assert main(SMOKE, on=on, out=tmp_path / "out", changes=changes, quiet=True) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKBUS_DIR", str(tmp_path / "none"))
    assert main(SMOKE, quiet=True) == 2


def test_check_only_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMOKE, check=True, out=tmp_path / "out") == 0
    assert capsys.readouterr().out == "smoke: 1.5 s, 6 flows: ok\n"
    assert not (tmp_path / "out").exists()


def interrupt(out: Path, *options: str) -> dict[str, Any]:
    """Ctrl-C a second after the start; what the report says."""
    argv = [sys.executable, "-m", "skbus.load", SMOKE, "--time", "100", *options]
    with subprocess.Popen(
        [*argv, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if float(line.split()[0]) >= 1:
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert str(out / "smoke.html") in said
    data = outcome(out)
    assert data["interrupted"]
    assert data["trouble"] == []
    assert 0.5 < data["elapsed"] < 100
    assert data["total"]["completed"] > 0
    return data


def test_ctrl_c_still_writes_the_report(tmp_path: Path) -> None:
    interrupt(tmp_path, "--on", "loopback")


def test_a_command_runs_beside_the_load_and_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run = f"sh -c 'echo {{host}} {{http}} > {mark}; exec sleep 600'"
    failing = "sh -c 'echo no luck >&2; exit 1'"
    changes = {"event": [{"at": "10ms", "run": run}, {"at": "20ms", "run": failing}]}
    began = time.monotonic()
    for long in (0.9, 5.0):  # on a busy machine they may not even begin within a second
        status = main(SMOKE, on="loopback", out=tmp_path, changes=changes, time=long, quiet=True)
        if status and mark.exists():
            break
    assert status == 1
    assert time.monotonic() - began < 300  # it does not wait for the sleeper
    host, port = mark.read_text().split()
    assert host == "127.0.0.1"
    assert int(port) > 0
    (trouble,) = outcome(tmp_path)["trouble"]
    assert "no luck" in trouble


# ---- with our stack ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack() -> Iterator[RunDir]:
    run = lab.lab_dir(f"load-test-{os.getpid()}")
    device = {
        "name": lab.DEV,
        "addr": f"{lab.ADDRESS}/{lab.PREFIX}",
        "gateway": lab.PEER_ADDRESS,
    }
    try:
        lab.up(run, Config.load(None, {"devices": [device], "run_dir": str(run.path)}).to_json())
    except lab.LabError as e:
        pytest.skip(f"no lab here: {e}")
    yield run
    lab.down(run)


@pytest.mark.lab
@pytest.mark.parametrize("side", ["linux", "skbus"])
def test_every_protocol_with_our_stack(
    stack: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setenv("SKBUS_DIR", str(stack.path))
    changes = {"assert": ["errors == 0", "requests > 20", "unaccounted == 0"]}
    status = main(SMOKE, out=tmp_path, clients=side, changes=changes, quiet=True)
    data = outcome(tmp_path)
    assert data["trouble"] == []
    assert [a for a in data["asserts"] if not a["holds"]] == []
    assert status == 0
    assert set(data["processes"]) == {"nic.eth0", "ip", "tcp", "udp", "socket"}
    for process in data["processes"].values():
        assert any(sample["held"] is not None for sample in process["series"])


@pytest.mark.lab
def test_ctrl_c_leaves_the_stack_at_rest_and_accounted_for(
    stack: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKBUS_DIR", str(stack.path))
    data = interrupt(tmp_path)
    assert data["unaccounted"] == 0
    assert data["restarts"] == 0
    assert {b["process"] for b in data["books"]} == set(data["processes"])


@pytest.mark.lab
def test_faults(stack: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lossy link, a layer that stops for a while, one that is killed: all noted, none fatal."""
    monkeypatch.setenv("SKBUS_DIR", str(stack.path))
    events = [
        {"at": "0ms", "impair": {"loss": "20%", "delay": "2ms", "seed": 1}},
        {"at": "1s", "impair": {}},
        {"at": "1100ms", "sysctl": {"net.ipv4.tcp_sack": 0}},
        {"at": "1200ms", "pause": "udp", "lasting": "100ms"},
        {"at": "2s", "restart": "udp"},
    ]
    changes = {
        "event": events,
        "phase": [{"name": "all", "duration": "3s"}],
        "assert": ["restarts == 1", "retransmits > 0", "web.errors == 0", "up.errors == 0"],
        "flow.web.timeout": "60s",
        "flow.up.timeout": "60s",
        "settle": "60s",
    }
    status = main(SMOKE, out=tmp_path, changes=changes, quiet=True)
    data = outcome(tmp_path)
    assert data["trouble"] == []
    assert [a for a in data["asserts"] if not a["holds"]] == []
    assert status == 0
    assert data["drops"]["SKB_DROP_REASON_SKBUS_IMPAIRED"] > 0
    # In no order: on a busy machine some may be due at once.
    assert sorted(e["event"] for e in data["events"]) == [
        "impair: delay 2 ms, loss 20 %",
        "impair: none",
        "pause udp for 100 ms",
        "restart udp",
        "sysctl net.ipv4.tcp_sack=0",
        "udp goes on",
    ]
    assert ctl_call(stack, "tcp", "sysctl_get", "net.ipv4.tcp_sack", 60) == 0
    assert "impair_rx" not in ctl_call(stack, "nic.eth0", "status", None, 60)["core"]


SKBUS = [sys.executable, "-c", "from skbus.cli import main; main()"]


CONTAINERS = """
set -e
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.1.0.1/24 dev v0
ip link set v0 up
ip link set v1 up
for layer in "nic --dev v1" ip tcp udp socket; do
    unshare --pid --fork --kill-child --mount-proc \\
        sh -c "while :; do skbusd $layer; done" >>{log} 2>&1 &
done
for layer in nic ip tcp udp socket; do skbus health --layer $layer --wait 60; done
skbus barrier
skbus load {scenario} --host 10.1.0.2 --out {out} --quiet
"""


@pytest.mark.slow
@pytest.mark.lab
def test_each_layer_in_a_container_of_its_own(tmp_path: Path) -> None:
    """As in docker-compose.yml: nobody sees the others' pids, and each is started anew by who
    watches over it. They can be killed and stopped nevertheless, and say what they use."""
    config = tmp_path / "stack.toml"
    config.write_text('[[devices]]\nname = "v1"\naddr = "10.1.0.2/24"\ngateway = "10.1.0.1"\n')
    scenario = tmp_path / "faults.toml"
    scenario.write_text(
        """
        description = "faults in containers"
        settle = "30s"
        assert = ["restarts == 1", "web.errors == 0", "unaccounted == 0", "memory < 500 MB/min"]
        [[flow]]
        name = "web"
        protocol = "http"
        rate = "10/s"
        clients = 4
        timeout = "60s"
        [[phase]]
        name = "all"
        duration = "4s"
        [[event]]
        at = "500ms"
        pause = "tcp"
        lasting = "200ms"
        [[event]]
        at = "1s"
        restart = "udp"
        [[event]]
        at = "1s"
        run = "{python} -m skbus.load.synflood {host} {http} 500"
        lasting = "500ms"
        """
    )
    enter = (
        "import os; from skbus.stack import holder; holder.make_namespaces(); "
        "os.execvp('sh', ['sh'])"
    )
    run = tmp_path / "r"
    run.mkdir(mode=0o700)
    done = subprocess.run(
        ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "--pid", "--fork", "--kill-child",
         "--mount-proc", sys.executable, "-c", enter],
        input=CONTAINERS.format(log=tmp_path / "log", scenario=scenario, out=tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={
            **os.environ,
            "SKBUS_DIR": str(run),
            "SKBUS_CONFIG": str(config),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log").read_text()
    data = outcome(tmp_path, "faults")
    assert data["trouble"] == []
    assert data["restarts"] == 1
    assert {len(p["pids"]) for p in data["processes"].values()} == {1, 2}
    assert all(p["series"][-1]["rss"] > 1 << 20 for p in data["processes"].values())


@pytest.fixture
def iperf3_server(stack: RunDir) -> Iterator[None]:
    with subprocess.Popen(
        [*SKBUS, "serve", "iperf3"],
        env={**os.environ, "SKBUS_DIR": str(stack.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            assert "iperf3 server at 10.77.0.2, port 5201" in server.stdout.readline()
            yield
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
        finally:
            server.kill()
    assert server.returncode == 0


@pytest.mark.lab
@pytest.mark.usefixtures("iperf3_server")
@pytest.mark.skipif(shutil.which("iperf3") is None, reason="no iperf3 here")
@pytest.mark.parametrize(
    "options",
    [
        ["-n", "20M"],
        ["-n", "20M", "-R"],
        ["-n", "20M", "-P", "3"],
        ["-n", "20M", "-P", "3", "-R"],
        ["-t", "1", "--bidir"],
        ["-u", "-b", "1M", "-t", "1"],
    ],
    ids=" ".join,
)
def test_stock_iperf3_measures_our_stack(stack: RunDir, options: list[str]) -> None:
    done = subprocess.run(
        [*SKBUS, "lab", "exec", "--", "iperf3", "-J", "-c", lab.ADDRESS, *options],
        env={**os.environ, "SKBUS_DIR": str(stack.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    assert "error" not in result, result
    assert done.returncode == 0
    end = result["end"]
    if "-u" in options:
        assert end["sum"]["packets"] > 50
        assert end["sum"]["lost_packets"] <= end["sum"]["packets"] / 10
    elif "-n" in options:
        assert end["sum_received"]["bytes"] >= 19 << 20
    else:
        assert end["sum_received"]["bytes"] > 0
        assert end["sum_received_bidir_reverse"]["bytes"] > 0
