# SPDX-License-Identifier: MIT
"""30,000 hostile requests at the system-call socket of a running stack: every process lives, each
answer is a clear one, memory is flat, and a client of good will notices nothing.

SKBUS_FUZZ_REQUESTS and SKBUS_FUZZ_SEED choose another number and other ones; a million takes some
minutes: `python tests/fuzz/hostile.py --table` in the stack of SKBUS_DIR.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SKBUS = Path(sys.executable).with_name("skbus")
COUNT = int(os.environ.get("SKBUS_FUZZ_REQUESTS", "30000"))
SEED = int(os.environ.get("SKBUS_FUZZ_SEED", "1"))
WARM = 10_000
"""requests after which what is kept for the next time (slots, buckets, caches) is there"""
GROWTH = 2048
"""KiB that a process may grow by after that, and 16 bytes a request"""
CLEAR = {"EINVAL", "EBADF", "EFAULT", "EPROTO", "EMSGSIZE", "EAFNOSUPPORT", "ENOTCONN", "EPERM"}
"""Each of these must have been among the answers."""


def test_hostile_requests_do_no_harm(lab: dict[str, Any]) -> None:
    run = RunDir(lab["run_dir"])
    sender = [sys.executable, str(Path(__file__).with_name("hostile.py"))]
    done = subprocess.run(
        [*sender, "--count", str(COUNT), "--seed", str(SEED)],
        env={**os.environ, "SKBUS_DIR": lab["run_dir"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=max(300, COUNT // 200),
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"seed {SEED}, after {told[-1:]}: {done.stderr[-3000:]}"
    *samples, result, alive = told
    assert alive == {"alive": True}, f"seed {SEED}: a process has died"
    assert result["sent"] == COUNT
    assert set(result["answers"]) >= CLEAR, result
    assert result["answers"]["0"] > COUNT // 100, "some are no nonsense, and are carried out"
    warm = next(s["memory"] for s in samples if s["sent"] >= min(WARM, COUNT))
    grown = {name: samples[-1]["memory"][name] - kib for name, kib in warm.items()}
    assert max(grown.values()) <= GROWTH + COUNT * 16 // 1024, f"seed {SEED}: KiB: {grown}"
    end = time.monotonic() + 60
    left = {"clients": 1}
    while any(left.values()) and time.monotonic() < end:  # the sender has ended just now
        core = ctl_call(run, "socket", "status", seconds=60.0)["core"]
        left = {key: core[key] for key in ("clients", "files", "waiting", "lent")}
    assert not any(left.values()), left
    for layer in warm:
        told_of = ctl_call(run, layer, "status", seconds=60.0)["conservation"]
        come = told_of["born"] + told_of["received"]
        gone = told_of["sent"] + told_of["consumed"] + told_of["dropped"] + told_of["held"]
        assert come == gone, f"seed {SEED}: {layer} does not account for every skb: {told_of}"
