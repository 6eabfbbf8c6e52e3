# SPDX-License-Identifier: MIT
"""docker-compose.yml under a real engine: one system, brought up once, prodded in order.

SKBUS_BASE names the base image (`.ci/run compose` makes one where no registry answers). Where
there is no engine these tests fail; `make test` leaves them out, by their mark.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
PROJECT = f"skbustest{os.getpid()}"
LAYERS = ("nic", "ip", "tcp", "udp", "socket")
SERVICES = (*LAYERS, "web", "client")
URL = "http://127.0.0.1:8080/"


def command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return ["docker", "compose"]


def compose(*argv: str, seconds: float = 300) -> str:
    done = subprocess.run(
        [*command(), "-p", PROJECT, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def container(service: str) -> str:
    return compose("ps", "-q", service).strip()


def inspect(service: str) -> Any:
    done = subprocess.run(
        ["docker", "inspect", container(service)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)[0]


def health(service: str) -> str:
    return str(inspect(service)["State"]["Health"]["Status"])


def eventually(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = compose("logs", "--no-color", "--tail", "20")
            pytest.fail(f"{what}: not within {seconds:g} s\n{logs}")
        time.sleep(0.25)


def fetch(url: str = URL, seconds: float = 5) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            body: bytes = answer.read()
            return body if answer.status == 200 else None
    except OSError:
        return None


@pytest.fixture(scope="module", autouse=True)
def system() -> Iterator[None]:
    try:
        compose("up", "-d", "--build", seconds=600)
        yield
    finally:
        compose("down", "-v", "--remove-orphans")


def test_up_ends_in_a_working_system() -> None:
    for service in SERVICES:
        eventually(lambda s=service: health(s) == "healthy", f"{service} is healthy")  # type: ignore[misc]


def test_the_published_port_reaches_our_stack() -> None:
    # Healthy is who answers; nic and the others may be a moment from knowing each other.
    eventually(lambda: bool(fetch()), "a page")


def test_the_client_fetches_through_the_kernels_stack() -> None:
    out = compose(
        "exec", "-T", "client", "python3", "/opt/skbus/app/client.py", "--once", "http://web/"
    )
    assert "http://web/: 200, " in out


def test_the_image_is_compiled_and_has_no_compiler() -> None:
    assert "compiled by mypyc" in compose("exec", "-T", "tcp", "skbus", "status").splitlines()
    compiler = "command -v cc || command -v gcc"
    found = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "skbus", "sh", "-c", compiler],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode != 0
    assert found.stdout == ""


def test_a_container_for_each_layer_with_no_more_rights_than_it_needs() -> None:
    for service in SERVICES:
        found = inspect(service)["HostConfig"]
        assert found["CapDrop"] == ["ALL"], service
        assert found["ReadonlyRootfs"] is True, service
        assert found["Privileged"] is False, service
        adds = {c.removeprefix("CAP_") for c in found["CapAdd"] or []}
        assert adds == ({"NET_RAW", "NET_ADMIN"} if service == "nic" else set()), service
        if service not in ("nic", "client"):
            assert found["NetworkMode"] == "none", service


def test_each_container_runs_one_layer_of_the_stack() -> None:
    for layer in LAYERS:
        processes = compose("top", layer)
        assert "skbusd" in processes
        assert layer in processes


def test_logs_of_tcp_are_tcps() -> None:
    lines = compose("logs", "--no-color", "tcp").splitlines()
    events = [json.loads(line.partition("|")[2]) for line in lines if "{" in line]
    assert "started" in [e["event"] for e in events]
    assert {e["layer"] for e in events} == {"tcp"}


def test_skbus_logs_in_a_container_and_of_what_containers_print() -> None:
    """The layers write both files in the run directory that they share, and what compose shows."""
    told = compose("exec", "-T", "web", "skbus", "logs", "--json")
    events = [json.loads(line) for line in told.splitlines()]
    assert {e["layer"] for e in events} >= set(LAYERS)
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    silent = subprocess.run(
        [*command(), "-p", PROJECT, "exec", "-T", "web", "skbus", "logs", "--layer", "sctp"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert silent.returncode == 1
    assert "no line of sctp; there are lines of: ip (" in silent.stderr

    printed = compose("logs", "--no-color", "--no-log-prefix")
    shown = subprocess.run(
        [sys.executable, "-c", "from skbus.cli import main; main()", "logs", "--json", "-"],
        input=printed, capture_output=True, text=True, check=True,
    )  # fmt: skip
    piped = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {e["layer"] for e in piped} >= set(LAYERS)


@pytest.mark.parametrize("layer", ["ip", "nic"])
def test_restart_leaves_the_system_working(layer: str) -> None:
    compose("restart", layer)
    eventually(lambda: fetch(seconds=2) is not None, f"a page after {layer}'s restart", 60)
    out = compose(
        "exec", "-T", "client", "python3", "/opt/skbus/app/client.py", "--once", "http://web/"
    )
    assert "200" in out


def test_the_web_servers_address_is_not_the_kernels() -> None:
    """nic's container has given its address up: what answers there is our stack."""
    out = compose("exec", "-T", "nic", "cat", "/proc/net/fib_trie")
    networks = inspect("nic")["NetworkSettings"]["Networks"]
    (address,) = [n["IPAddress"] for n in networks.values()]
    assert address
    assert address not in out


def test_a_killed_nic_comes_back_in_its_container() -> None:
    """Where eth0 stays ours: nobody is reset meanwhile."""
    kill = (
        "from skbus.bus.ctl import ctl_call; from skbus.bus.rundir import RunDir;"
        "ctl_call(RunDir(), 'nic.eth0', 'signal', ('KILL', 0), seconds=30)"
    )
    compose("exec", "-T", "nic", "python3", "-c", kill)
    eventually(lambda: fetch(seconds=5) is not None, "a page after nic was killed", 60)
    assert inspect("nic")["RestartCount"] == 0


def test_one_image_for_all_layers_and_without_what_load_tests_need() -> None:
    assert len({inspect(service)["Image"] for service in SERVICES}) == 1
    for package, status in (("numpy", 0), ("matplotlib", 1), ("pip", 1)):
        done = subprocess.run(
            [*command(), "-p", PROJECT, "exec", "-T", "tcp", "python3", "-c", f"import {package}"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == status, package


def test_a_crashed_layer_is_started_again() -> None:
    """As README says. Docker gives up on who was killed by `docker-compose kill`."""
    count = inspect("tcp")["RestartCount"]
    compose("exec", "-T", "tcp", "sh", "-c", "kill -9 -1")
    eventually(lambda: inspect("tcp")["RestartCount"] == count + 1, "tcp is started again")
    eventually(lambda: fetch(seconds=2) is not None, "a page after tcp's crash", 60)


def test_a_load_in_a_container() -> None:
    """The status is that of the scenario's assertions."""
    compose("build", "load")
    out = compose("run", "--rm", "load", "smoke", "--out", "/tmp")
    assert "every one is accounted for" in out
    for layer in LAYERS:
        assert f"\n{layer}" in out
