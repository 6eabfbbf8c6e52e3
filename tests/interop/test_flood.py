# SPDX-License-Identifier: MIT
"""10,000 SYNs a second from made-up addresses (hping3 in the peer's namespace): who has a
connection keeps it, who wants one gets it, by SYN cookies, and memory does not grow.

CI floods for 6 s. `SKBUS_FLOOD=60 pytest tests/interop/test_flood.py` floods for a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

SECONDS = float(os.environ.get("SKBUS_FLOOD", "6"))
ESTABLISHED = 3
GROWTH = 48 << 10
"""KiB that a layer may grow, for the caches of routes, which have limits."""
FLAT = 12 << 10
"""KiB that it may grow in the second half of a long flood: these caches fill, are emptied, and fill
again."""


@pytest.mark.slow
@pytest.mark.ends("endpoints_flood")
def test_a_syn_flood(clean_lab: Lab, port: int, need: Callable[..., None], tmp_path: Path) -> None:
    need("hping3")
    lab = clean_lab
    lab.serve("echo", port)
    user = lab.linux("use", host=lab.address, port=port, established=ESTABLISHED, seconds=SECONDS)
    user.heard("ready")
    before, memory = lab.counters("tcp"), [lab.memory()]
    words = f"hping3 -q -n --syn --rand-source -i u75 -p {port} {lab.address}".split()
    with (tmp_path / "hping3").open("w+") as told:
        flood = subprocess.Popen([*lab.peer, *words], stdout=told, stderr=told)
        try:
            user.go_on()
            time.sleep(SECONDS / 2)
            memory.append(lab.memory())
            time.sleep(SECONDS / 2)
            memory.append(lab.memory())
            found = user.result(180)
        finally:
            flood.terminate()
            flood.wait()
    assert not found["errors"]
    assert min(found["echoes"]) >= 1
    assert found["opened"] >= 1
    after = lab.counters("tcp")
    cookies = {
        name: after.get(f"TcpExtSyncookies{name}", 0) - before.get(f"TcpExtSyncookies{name}", 0)
        for name in ("Sent", "Recv")
    }
    assert cookies["Sent"] > 1000
    assert cookies["Recv"] >= 1
    for layer, size in memory[0].items():
        assert memory[2][layer] - size < GROWTH, f"{layer} grew: {memory}"
        if SECONDS >= 30:
            assert memory[2][layer] - memory[1][layer] < FLAT, f"{layer} grows: {memory}"


@pytest.mark.parametrize("kind", ["checksum", "closed"])
def test_a_few_syns_again_and_again_keep_nobody_out(lab: Lab, port: int, kind: str) -> None:
    lab.serve("echo", port)
    program = Path(__file__).with_name("repeated_syns.py")
    done = lab.tool(sys.executable, str(program), lab.address, str(port), kind, seconds=240)
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout) == {"ok": 20, "failed": 0}
