# SPDX-License-Identifier: MIT
"""One connection that has its retransmit queue cut to pieces (`sack_attack.py`) stops nobody else:
new connections are answered, and so is the control socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("sack_attack.py")
OTHERS = """
import json, sys
from http import client
for _ in range(40):
    http = client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=15)
    http.request("GET", "/bytes/1000")
    assert len(http.getresponse().read()) == 1000
    http.close()
print(json.dumps(40))
"""


def test_others_are_served_meanwhile(clean_lab: Lab, port: int) -> None:
    lab = clean_lab
    lab.serve("http", port)
    before = lab.counters("tcp")
    own = lab.peer_address.rsplit(".", 1)[0] + ".200"
    words = f"--dev {lab.peer_dev} --host {lab.address} --port {port} --own {own}"
    words += " --grow 90 --seconds 60"
    with subprocess.Popen(
        [*lab.peer, sys.executable, str(SCRIPT), *words.split()], stdout=subprocess.PIPE
    ) as attack:
        assert attack.stdout is not None
        try:
            out = json.loads(attack.stdout.readline())["out"]
            assert out > 10_000, "the sender's window did not grow"
            assert json.loads(attack.stdout.readline())["cut"] > out // 10
            done = lab.tool(sys.executable, "-c", OTHERS, lab.address, str(port))
            assert done.stdout == "40\n", done.stderr
            assert attack.poll() is None, "the attack was over before"
            after = lab.counters("tcp")
        finally:
            attack.terminate()
    assert after["TcpPassiveOpens"] - before.get("TcpPassiveOpens", 0) >= 41
