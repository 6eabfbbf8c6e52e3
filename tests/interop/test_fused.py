# SPDX-License-Identifier: MIT
"""Layers that live in one process (`--fuse`), against the Linux kernel.

With SKBUS_FUSE=ip,tcp,udp,socket (or all) in the environment, all the other tests here run on such
a stack, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from tests.interop.conftest import SKBUS, _lab

from skbus.bus.ctl import ControlError, ctl_call
from skbus.stack import lab as labs

if TYPE_CHECKING:
    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

Need = Callable[..., None]
Poll = Callable[[Callable[[], bool], float, str], None]

FUSED = {
    "ip,tcp,udp,socket": ("ip", "tcp", "udp", "socket"),
    "all": ("nic.eth0", "ip", "tcp", "udp", "socket"),
    "nic,socket": ("nic.eth0", "socket"),
}


@pytest.fixture(scope="module", params=FUSED)
def fused_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    number = list(FUSED).index(request.param)
    for lab in _lab(f"f{number}", "--fuse", request.param):
        lab.fused = FUSED[request.param]  # type: ignore[attr-defined]
        yield lab


@pytest.fixture
def lab(fused_lab: Lab) -> Iterator[Lab]:
    yield fused_lab
    fused_lab.check()


def fused(lab: Lab) -> tuple[str, ...]:
    found: tuple[str, ...] = lab.fused  # type: ignore[attr-defined]
    return found


def skbus(lab: Lab, *argv: str) -> str:
    done = subprocess.run(
        [SKBUS, *argv], env={**os.environ, **lab.env}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_process_and_each_layer_answers(lab: Lab) -> None:
    pids = {lab.layers[layer] for layer in fused(lab)}
    assert len(pids) == 1
    assert len(set(lab.layers.values())) == len(lab.layers) - len(fused(lab)) + 1
    said = skbus(lab, "status")
    assert f"  {', '.join(fused(lab))} are one process, pid {pids.pop()}\n" in said
    told = json.loads(skbus(lab, "status", "--json"))
    assert list(told) == list(lab.layers)
    assert all(told[layer]["fused"] == list(fused(lab)) for layer in fused(lab))
    skbus(lab, "barrier")
    skbus(lab, "health")


def test_ping(lab: Lab, need: Need) -> None:
    need("ping", "iputils-ping")
    said = lab.pings(200, "-i", "0.002", "-s", "3000", "-q")
    assert "200 received, 0% packet loss" in said, said


def test_curl_and_iperf3(lab: Lab, port: int, need: Need) -> None:
    need("curl")
    need("iperf3")
    lab.serve("http", port)
    url = f"http://{lab.address}:{port}/"
    done = lab.tool("curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", url)
    assert done.stdout == "200", done.stderr
    lab.serve("iperf3", port + 1)
    for more in ((), ("-R",), ("-u", "-b", "10M")):
        words = ("-c", lab.address, "-p", str(port + 1), "-t", "1", "--json", *more)
        done = lab.tool("iperf3", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        end = json.loads(done.stdout)["end"]
        received = end.get("sum_received") or end["sum"]
        assert received["bytes"] > 0


def test_300_connections_in_and_out(lab: Lab, port: int) -> None:
    ours = lab.ours("serve_many", port=port, count=300)
    ours.heard("ready", 60)
    linux = lab.linux("connect_many", host=lab.address, port=port, count=300)
    assert linux.result(60) == {"right": 300}
    assert ours.result(60) == {"ends": 300}


def test_levels_and_sysctls_are_each_layers_own(lab: Lab, need: Need) -> None:
    need("ping", "iputils-ping")
    skbus(lab, "log-level", "debug", "--layer", "ip")
    try:
        lab.pings(1, "-q")
        skbus(lab, "barrier")
    finally:
        skbus(lab, "log-level", "info", "--layer", "ip")
    lines = [json.loads(line) for line in lab.run.log_file("ip").read_text().splitlines()]
    assert {"ip_rcv", "icmp_rcv"} <= {line["event"] for line in lines}
    assert {line["process"] for line in lines} == {"ip"}
    others = lab.run.log_file("socket").read_text() + lab.run.log_file("tcp").read_text()
    assert '"debug"' not in others
    ctl_call(lab.run, "socket", "sysctl_set", ["net.core.busy_poll", 1])
    for name, value in (("ip", 0), ("socket", 1)):
        assert ctl_call(lab.run, name, "sysctl_get", "net.core.busy_poll") == value
    skbus(lab, "sysctl", "net.core.busy_poll=0")


def test_a_killed_process_comes_back_with_all_its_layers(
    lab: Lab, port: int, poll: Poll, need: Need
) -> None:
    need("curl")
    before = {layer: lab.layer_status(layer)["epoch"] for layer in lab.layers}
    os.kill(lab.layers[fused(lab)[0]], signal.SIGKILL)

    def back() -> bool:
        try:
            lives = {p: ctl_call(lab.run, p, "ping", seconds=5.0) for p in lab.layers}
        except ControlError:
            return False
        return all(lives[p]["epoch"] > before[p] for p in fused(lab)) and not any(
            life["missing"] for life in lives.values()
        )

    poll(back, 60, "all layers are there again")
    lab.layers = {k: v for k, v in labs.status(lab.run)["pids"].items() if k in lab.layers}
    after = {layer: lab.layer_status(layer)["epoch"] for layer in lab.layers}
    assert after == {p: life + (p in fused(lab)) for p, life in before.items()}
    assert len({lab.layers[layer] for layer in fused(lab)}) == 1
    lab.serve("http", port)
    url = f"http://{lab.address}:{port}/"
    retry = ("--retry", "20", "--retry-connrefused", "--retry-delay", "1")
    done = lab.tool("curl", "-sS", *retry, "-w", "%{http_code}", "-o", "/dev/null", url)
    assert done.stdout == "200", done.stderr
