# SPDX-License-Identifier: MIT
"""A part of our own suite against running processes: `skbus packetdrill --live`.

The lab runs slower than life, so that a busy machine's delays are short ones; the scripts are
those that take little of the stack's time. All of the suite runs so with

    skbus lab up --time-scale 10
    skbus packetdrill --live --tolerance-usecs 20000 tests/packetdrill
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.packetdrill.config import Config
from skbus.packetdrill.live import LiveBackend
from skbus.packetdrill.report import Status, show
from skbus.packetdrill.run import run_file

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
SKBUS = str(Path(sys.executable).with_name("skbus"))
SCALE = 10
TOLERANCE = Config(tolerance=100_000_000, given=frozenset({"tolerance_usecs"}))
SCRIPTS = """
ack/out_of_order ack/overlap close/linger_zero handshake/passive_options icmp/echo
mss/peer_mss nagle/nodelay raw/icmp sack/dsack security/syn_cookies_timestamps timestamps/paws
udp/dont_fragment
""".split()


@pytest.fixture(scope="module")
def run() -> Iterator[RunDir]:
    """A lab of its own."""
    name = f"pd{os.getpid()}"
    up = [SKBUS, "lab", "up", "--name", name, "--time-scale", str(SCALE)]
    done = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True)
    try:
        yield RunDir(json.loads(done.stdout.splitlines()[-1])["run_dir"])
    finally:
        subprocess.run([SKBUS, "lab", "down", "--name", name], check=True, capture_output=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(run: RunDir, name: str) -> None:
    for _ in range(3):  # a machine that stands still for a moment is not the stack's fault
        result = run_file(HERE / f"{name}.pkt", lambda _: LiveBackend(run), TOLERANCE)
        if result.status is Status.PASSED:
            break
    assert result.status is Status.PASSED, "\n" + show(result)


def live(run: RunDir, *arguments: object) -> tuple[int, str]:
    """`skbus packetdrill --live`, as it is typed."""
    done = subprocess.run(
        [SKBUS, "packetdrill", "--live", "--tolerance-usecs", "100000", *map(str, arguments)],
        env={**os.environ, "SKBUS_DIR": str(run.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_command(run: RunDir) -> None:
    for _ in range(3):
        code, out = live(run, HERE / "handshake/passive_options.pkt", HERE / "udp/no_socket.pkt")
        if not code:
            break
    assert code == 0, out
    assert out.splitlines()[-1].startswith("2 passed in ")


LISTENS = """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 7) = 0
"""


def test_stand_ins_show_the_running_stack(run: RunDir, tmp_path: Path) -> None:
    script = tmp_path / "script.pkt"
    script.write_text(
        "`sysctl -q net.ipv4.tcp_sack=0`"
        + LISTENS
        + """
+.3 `ss -Htln sport = 8080 | grep -q '^LISTEN 0  *7 '`
+.3 `test "$(sysctl -n net.ipv4.tcp_sack)" = 0`
+.3 `grep -q ':1F90 00000000:0000 0A' /proc/net/tcp`
+.3 `nstat | grep -q TcpActiveOpens || true`
"""
    )
    code, out = live(run, script)
    assert code == 0, out
    assert ctl_call(run, "tcp", "sysctl_get", "net.ipv4.tcp_sack") == 1  # as it was


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ("sysctl -q net.ipv4.tcp_sak=1", 2, "no such sysctl: net.ipv4.tcp_sak"),
        ("sysctl -q net.ipv4.tcp_congestion_control=x", 2, "no congestion control x"),
        ("ip link set dev tun0 mtu 1000", 0, "the lab's interface is its own"),
    ],
)
def test_what_cannot_be_set(
    run: RunDir, tmp_path: Path, command: str, status: int, reason: str
) -> None:
    script = tmp_path / "script.pkt"
    script.write_text(f"`{command}`{LISTENS}")
    code, out = live(run, script)
    assert code == status, out
    assert reason in out
