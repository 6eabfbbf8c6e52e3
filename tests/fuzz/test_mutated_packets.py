# SPDX-License-Identifier: MIT
"""100,000 mutated packets into the running nic: every process lives, memory is flat, it serves.

SKBUS_FUZZ_COUNT and SKBUS_FUZZ_SEED choose another number of packets and other ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.fuzz.hostile import memory

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.stack import enter

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SKBUS = Path(sys.executable).with_name("skbus")
COUNT = int(os.environ.get("SKBUS_FUZZ_COUNT", "100000"))
SEED = int(os.environ.get("SKBUS_FUZZ_SEED", "1"))
WARM = 20_000
"""packets after which the tables that may fill (neighbours, fragments, half-open connections,
caches of routes) have filled"""
GROWTH = 4096
"""KiB that a process may grow by after that: 40 bytes for each packet would be more"""
PORT = 7

PARSERS = {
    "ip": {"IpInHdrErrors", "IcmpInErrors", "IcmpInCsumErrors"},
    "tcp": {"TcpInErrs", "TcpInCsumErrors"},
    "udp": {"UdpInErrors", "UdpInCsumErrors", "UdpNoPorts"},
}
"""counters of which at least one must tell that mutated packets came this far"""


def _fuzz(lab: dict[str, Any], pids: dict[str, int]) -> tuple[dict[str, Any], dict[str, int]]:
    """Send the packets; the sender's last words, and the memory after WARM of them."""
    command = [
        *enter.prefix(Path(lab["run_dir"]), "peer"),
        sys.executable, str(Path(__file__).with_name("mutate.py")),
        "--dev", lab["peer_dev"], "--host", lab["address"], "--own", lab["peer_address"],
        "--port", str(PORT), "--count", str(COUNT), "--seed", str(SEED),
    ]  # fmt: skip
    warm: dict[str, int] = {}
    last: dict[str, Any] = {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        assert sender.stderr is not None
        for line in sender.stdout:
            last = json.loads(line)
            if "checkpoint" in last:
                if last["checkpoint"] <= WARM:
                    warm = memory(pids)
                sender.stdin.write("\n")
                sender.stdin.flush()
        error = sender.stderr.read()
    assert last.get("done"), f"seed {SEED}, after {last}: {error}"
    return last, warm


def test_mutated_packets_do_no_harm(lab: dict[str, Any]) -> None:
    pids = {k: v for k, v in lab["pids"].items() if k not in ("holder", "peer")}
    run = RunDir(lab["run_dir"])
    server = subprocess.Popen(
        [SKBUS, "serve", "echo", "--port", str(PORT)],
        env={**os.environ, "SKBUS_DIR": lab["run_dir"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        last, warm = _fuzz(lab, pids)
        assert server.poll() is None, "the echo server has ended"
    finally:
        server.terminate()
        server.wait(60)
    assert last["sent"] == COUNT
    now = json.loads(
        subprocess.run(
            [SKBUS, "lab", "status", "--name", lab["lab"]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert now["pids"] == lab["pids"], f"seed {SEED}: a process has died: {now}"
    if COUNT > WARM:
        after = memory(pids)
        grown = {name: after[name] - warm[name] for name in after}
        assert max(grown.values()) <= GROWTH, f"seed {SEED}: grown by KiB: {grown}"
    received = ctl_call(run, "ip", "counters", seconds=60.0)["IpInReceives"]
    assert received > COUNT * 0.6, "most of the packets must have come as far as ip"
    for layer, names in PARSERS.items():
        counters: dict[str, int] = ctl_call(run, layer, "counters", seconds=60.0)
        assert names & {k for k, v in counters.items() if v}, f"{layer}: {counters}"
    for layer in pids:
        told = ctl_call(run, layer, "status", seconds=60.0)["conservation"]
        come = told["born"] + told["received"]
        gone = told["sent"] + told["consumed"] + told["dropped"] + told["held"]
        assert come == gone, f"seed {SEED}: {layer} does not account for every skb: {told}"
