# SPDX-License-Identifier: MIT
"""`--interpreted`: a layer that runs from the sources, among others that are compiled.

The same tests hold in a build where nothing is compiled: there all layers run from the sources.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.rundir import RunDir
from skbus.bus.version import is_compiled
from skbus.stack import lab
from skbus.stack.config import Config, ConfigError

SKBUS = Path(sys.executable).with_name("skbus")

WATCHER = """
import sys
from skbus.bus import rundir

async def init_module(net, params):
    def called(frame, event, arg):
        if frame.f_globals["__name__"].startswith("skbusd."):
            seen.write(frame.f_code.co_name + "\\n")
    seen = open(params["into"], "w", buffering=1)
    sys.settrace(called)

async def cleanup_module(net, data):
    pass
"""
"""Sees each function that is called, as a debugger does."""


def test_our_modules_come_from_their_sources() -> None:
    program = (
        "import sys; from skbus.stack.interpreted import SourceFinder\n"
        "sys.meta_path.insert(0, SourceFinder())\n"
        "import skbus.testing, skbusd.tcp.main, skbusd.nic.main, trio\n"
        "ours = [m for n, m in sys.modules.items() if n.partition('.')[0] in ('skbus', 'skbusd')]\n"
        "assert len(ours) > 100\n"
        "print({m.__file__ for m in ours if not m.__file__.endswith('.py')} or 'sources')\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "sources\n", done.stderr


@pytest.mark.parametrize(
    ("given", "interpreted"),
    [
        (["tcp"], {"tcp.0", "tcp.1"}),
        ("nic, tcp.1", {"nic.eth1", "nic.eth2", "tcp.1"}),
        (["nic.eth2,ip", "udp"], {"nic.eth2", "ip", "udp"}),
        ([], set()),
    ],
)
def test_layers_and_processes(given: object, interpreted: set[str]) -> None:
    devices = [{"name": "eth1"}, {"name": "eth2"}]
    config = Config.load(None, {"devices": devices, "tcp_shards": 2, "interpreted": given}, {})
    assert {p for p in config.processes() if config.is_interpreted(p)} == interpreted
    assert Config.from_json(config.to_json()).interpreted == config.interpreted


def test_from_the_environment() -> None:
    assert Config.load(None, None, {"SKBUS_INTERPRETED": "tcp,ip"}).interpreted == ["tcp", "ip"]


@pytest.mark.parametrize("given", ["tpc", ["tcp,sctp"], "nic.eth7", "tcp.1"])
def test_an_unknown_layer_is_an_error_that_lists_those_there_are(given: object) -> None:
    with pytest.raises(ConfigError, match=r"interpreted: no layer '.*'; there are: nic, ip, tcp"):
        Config.load(None, {"interpreted": given}, {})


def test_what_is_no_list_of_names() -> None:
    with pytest.raises(ConfigError, match="interpreted"):
        Config.load(None, {"interpreted": [7]}, {})


# ---- a running stack -------------------------------------------------------------------------


def skbus(*argv: str, run: RunDir) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SKBUS, *argv], capture_output=True, text=True, check=False, timeout=150,
        env={**os.environ, "SKBUS_DIR": str(run.path)},
    )  # fmt: skip


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., RunDir]]:
    """`skbus lab up` with these arguments; what it says besides is in the lab's directory."""
    run = lab.lab_dir(f"interp{os.getpid()}")

    def start(*argv: str) -> RunDir:
        done = skbus("lab", "up", *argv, run=run)
        assert done.returncode == 0, done.stderr
        note = "skbus: --interpreted: all layers are, as nothing is compiled here\n"
        assert done.stderr == ("" if is_compiled() else note)
        return run

    yield start
    lab.down(run)


def compiled(run: RunDir) -> dict[str, bool]:
    """What each layer says of itself; and what its memory says must be the same."""
    told = json.loads(skbus("status", "--json", run=run).stdout)
    found = {process: answer["compiled"] for process, answer in told.items()}
    pids = lab.status(run)["pids"]
    for process, is_so in found.items():
        maps = Path(f"/proc/{pids[process]}/maps").read_text()
        assert ("skbus_compiled" in maps) == is_so, process
    return found


@pytest.mark.lab
def test_one_layer_is_interpreted_even_after_its_death(up: Callable[..., RunDir]) -> None:
    run = up("--interpreted", "tcp,socket", "--interpreted", "nic.eth0")
    expected = dict.fromkeys(("nic.eth0", "ip", "tcp", "udp", "socket"), is_compiled())
    expected.update({"nic.eth0": False, "tcp": False, "socket": False})
    assert compiled(run) == expected
    said = skbus("status", run=run).stdout.splitlines()[1]
    if is_compiled():
        assert said == "compiled by mypyc, but interpreted: nic.eth0, tcp, socket"
    for layer in ("tcp", "nic.eth0"):
        before = lab.status(run)["pids"][layer]
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, f"{layer} is not back"
            try:
                if lab.status(run)["pids"][layer] not in (before, None):
                    ctl_call(run, layer, "ping", seconds=30)
                    break
            except ControlError:
                pass
            time.sleep(0.05)
    assert compiled(run) == expected
    assert Path(f"/proc/{lab.status(run)['pids']['tcp']}/comm").read_text() == "skbusd tcp\n"
    with subprocess.Popen(
        [SKBUS, "serve", "http", "--port", "80"],
        env={**os.environ, "SKBUS_DIR": str(run.path)}, stdout=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        fetch = ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"]
        done = skbus(
            "lab", "exec", "--", *fetch, "-o", "/dev/null", "-w", "%{http_code}",
            f"http://{lab.ADDRESS}/", run=run,
        )  # fmt: skip
        server.terminate()
    assert done.stdout == "200", done.stderr


@pytest.mark.lab
def test_a_debugger_sees_the_functions_of_an_interpreted_layer(
    up: Callable[..., RunDir], tmp_path: Path
) -> None:
    (tmp_path / "watcher.py").write_text(WATCHER)
    into = tmp_path / "seen"
    run = up("--interpreted", "socket", "--module", f"{tmp_path / 'watcher.py'} into={into}")
    program = "import skbus.socket as s; s.socket(s.AF_INET, s.SOCK_STREAM).close()"
    subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "SKBUS_DIR": str(run.path)}, check=True, timeout=60,
    )  # fmt: skip
    assert {"inet_create", "inet_release"} <= set(into.read_text().split())
