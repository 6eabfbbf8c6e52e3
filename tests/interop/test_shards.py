# SPDX-License-Identifier: MIT
"""TCP spread over two and three processes (`--tcp-shards`), against the Linux kernel.

With SKBUS_TCP_SHARDS=2 in the environment, all the other tests here run on such a stack, too;
those that ask "tcp" itself for something will not find it then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skbus.bus.ctl import ControlError, ctl_call
from skbus.stack import lab as labs

if TYPE_CHECKING:
    from tests.interop.conftest import End, Lab

pytestmark = pytest.mark.lab

Need = Callable[..., None]
Poll = Callable[[Callable[[], bool], float, str], None]


@pytest.fixture
def lab(sharded_lab: Lab) -> Iterator[Lab]:
    yield sharded_lab
    sharded_lab.check()


def shards(lab: Lab) -> list[str]:
    return [name for name in lab.layers if name.startswith("tcp")]


def counts(lab: Lab, name: str) -> list[int]:
    """A counter of each shard."""
    return [lab.counters(shard).get(name, 0) for shard in shards(lab)]


def grown(lab: Lab, name: str, before: list[int]) -> list[int]:
    return [now - then for now, then in zip(counts(lab, name), before, strict=True)]


def test_linux_opens_300_connections(lab: Lab, port: int) -> None:
    before = counts(lab, "TcpPassiveOpens")
    ours = lab.ours("serve_many", port=port, count=300)
    ours.heard("ready", 60)
    linux = lab.linux("connect_many", host=lab.address, port=port, count=300)
    assert ours.heard("accepted", 60) == 300
    assert linux.result(60) == {"right": 300}
    assert ours.result(60) == {"ends": 300}
    spread = grown(lab, "TcpPassiveOpens", before)
    assert sum(spread) >= 300  # and who looked whether we listen
    assert min(spread) > 50, "each shard has its part"


def test_we_open_300_connections(lab: Lab, port: int) -> None:
    before = counts(lab, "TcpActiveOpens")
    linux = lab.linux("serve_many", port=port, count=300)
    linux.heard("ready", 60)
    ours = lab.ours("connect_many", host=lab.peer_address, port=port, count=300)
    assert linux.heard("accepted", 60) == 300
    assert ours.result(60) == {"right": 300}
    assert linux.result(60) == {"ends": 300}
    each = 300 // len(shards(lab))
    assert grown(lab, "TcpActiveOpens", before) == [each] * len(shards(lab))


def test_iperf3_with_eight_streams(lab: Lab, port: int, need: Need) -> None:
    need("iperf3")
    lab.serve("iperf3", port)
    for back in ((), ("-R",)):
        words = ("-c", lab.address, "-p", str(port), "-t", "1", "-P", "8", "--json", *back)
        done = lab.tool("iperf3", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        streams = json.loads(done.stdout)["end"]["streams"]
        assert len(streams) == 8
        assert all(stream["receiver"]["bytes"] > 0 for stream in streams)


def test_curl_fetches_by_many_connections(lab: Lab, port: int, need: Need) -> None:
    need("curl")
    before = counts(lab, "TcpPassiveOpens")
    lab.serve("http", port)
    urls = [f"http://{lab.address}:{port}/?{i}" for i in range(40)]
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    done = lab.tool("curl", "-sS", "-w", "%{http_code}\n", "-H", "Connection: close",
                    *outputs, *urls)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200"] * 40
    assert min(grown(lab, "TcpPassiveOpens", before)) > 0


def test_who_has_a_port(lab: Lab, port: int) -> None:
    """EADDRINUSE, and /proc/net/tcp: one stack, whatever it consists of."""
    ours = lab.ours("serve_many", port=port, count=1)
    ours.heard("ready", 60)
    second = lab.ours("serve_many", port=port, count=1)
    with pytest.raises(pytest.fail.Exception, match="Address already in use"):
        second.heard("ready", 60)
    env = {**os.environ, **lab.env}
    skbus = Path(sys.executable).with_name("skbus")
    done = subprocess.run([skbus, "proc", "net/tcp"], env=env, capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    lines = done.stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines if line.split()[3] == "0A"] == [
        f"00000000:{port:04X}"
    ]
    linux = lab.linux("connect_many", host=lab.address, port=port, count=1)
    assert linux.result(60) == {"right": 1}


@pytest.mark.ends("endpoints_shards")
@pytest.mark.parametrize("who", ["serve", "connect"])
def test_a_shard_that_is_killed_takes_its_connections_alone(
    lab: Lab, port: int, poll: Poll, who: str
) -> None:
    """60 connections; one process dies; the others' go on, and new ones come to all."""
    options = {"port": port, "count": 60, "again": 12}
    server: End = (lab.ours if who == "serve" else lab.linux)(
        "serve", asks=who == "connect", **options
    )
    server.heard("ready", 60)
    name = "TcpPassiveOpens" if who == "serve" else "TcpActiveOpens"
    before = counts(lab, name)
    host = lab.address if who == "serve" else lab.peer_address
    client: End = (lab.linux if who == "serve" else lab.ours)(
        "connect", host=host, asks=who == "serve", **options
    )
    client.heard("connected", 60)
    server.heard("accepted", 60)
    mine = grown(lab, name, before)
    assert sum(mine) == 60
    victim = shards(lab)[1]
    epoch = lab.layer_status(victim)["epoch"]
    os.kill(lab.layers[victim], signal.SIGKILL)
    poll(lambda: _ready(lab, victim, epoch), 60, f"{victim} is there again")
    lab.layers = {k: v for k, v in labs.status(lab.run)["pids"].items() if k in lab.layers}
    client.go_on()
    server.go_on()
    assert client.heard("kept", 60) == 60 - mine[1]
    assert server.heard("kept", 60) == 60 - mine[1]
    client.go_on()
    assert client.result(60)["new"] == 12
    assert server.result(60)["new"] == 12


def _ready(lab: Lab, process: str, epoch: int) -> bool:
    """Whether a process is in a later life than that one, and ip knows it again."""
    try:
        told = ctl_call(lab.run, process, "ping", seconds=5.0)
    except ControlError:
        return False
    return bool(told["epoch"] > epoch and not told["missing"])


def test_nothing_is_left(lab: Lab, poll: Poll) -> None:
    """No socket, no byte, after all of that."""
    poll(lab.empty, 60, "no sockets, nothing in the pool")
