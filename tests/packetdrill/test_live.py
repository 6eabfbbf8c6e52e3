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

from skbus.packetdrill.config import Config
from skbus.packetdrill.live import LiveBackend
from skbus.packetdrill.report import Status, show
from skbus.packetdrill.run import run_file
from skbus.rundir import RunDir

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
