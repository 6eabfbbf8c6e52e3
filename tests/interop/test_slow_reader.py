# SPDX-License-Identifier: MIT
"""Against Linux: an application of ours that never reads beside some that do, and big sends in
slices; what tcp did is in its debug log and its counters."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir

pytestmark = pytest.mark.lab

SKBUS = Path(sys.executable).with_name("skbus")
NAME = f"slow{os.getpid()}"
READERS = 4
SIZE = 1_000_000
BIG = 6_000_000


def lab(*argv: str) -> list[str]:
    return [str(SKBUS), "lab", argv[0], "--name", NAME, *argv[1:]]


@pytest.fixture(scope="module")
def run_dir() -> Iterator[RunDir]:
    up = subprocess.run(
        lab("up", "--log-level", "debug"), capture_output=True, text=True, timeout=90
    )
    assert up.returncode == 0, up.stderr
    yield RunDir(json.loads(up.stdout)["run_dir"])
    subprocess.run(lab("down"), check=True, timeout=90)


PEER = """
import sys
SIZE, READERS = map(int, sys.argv[1:])
import socket, threading

def send(port, size):
    with socket.create_connection(("10.77.0.2", port), timeout=120) as s:
        try:
            s.sendall(b"x" * size)
        except OSError:
            pass  # nobody reads, and it is closed in the end

deaf = threading.Thread(target=send, args=(7001, 50_000_000), daemon=True)
deaf.start()
threads = [threading.Thread(target=send, args=(7000, SIZE)) for _ in range(READERS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("sent", flush=True)
"""

OURS = """
import sys, threading
from skbus import socket
good, bad = socket.create_server(("10.77.0.2", 7000)), socket.create_server(("10.77.0.2", 7001))
print("listening", flush=True)
ignored, _ = bad.accept()
got = []

def read(sock):
    n = 0
    while data := sock.recv(65536):
        n += len(data)
    got.append(n)

threads = []
for _ in range(int(sys.argv[1])):
    sock, _ = good.accept()
    threads.append(threading.Thread(target=read, args=(sock,)))
    threads[-1].start()
for t in threads:
    t.join()
print(sorted(got), flush=True)
sys.stdin.readline()
"""


def events(run: RunDir, *names: str) -> set[str]:
    """Which of these events tcp's log has."""
    found = set()
    with run.log_file("tcp").open() as log:
        for line in log:
            event = json.loads(line)["event"]
            if event in names:
                found.add(event)
    return found


def test_a_reader_that_never_reads(run_dir: RunDir) -> None:
    env = {**os.environ, "SKBUS_DIR": str(run_dir.path)}
    with subprocess.Popen(
        [sys.executable, "-c", OURS, str(READERS)],
        env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as ours:  # fmt: skip
        assert ours.stdout is not None
        assert ours.stdout.readline() == "listening\n"
        peer = lab("exec", "--", sys.executable, "-c", PEER, str(SIZE), str(READERS))
        done = subprocess.run(peer, capture_output=True, text=True, timeout=180)
        assert done.stdout == "sent\n", done.stderr
        assert json.loads(ours.stdout.readline()) == [SIZE] * READERS
        memory = ctl_call(run_dir, "tcp", "status", None, 60)["core"]["memory"]
        limit = 6_291_456  # tcp_rmem
        assert 0 < memory["rmem"] <= limit
        assert memory["pages"] * 4096 <= limit + READERS * 262144
        assert not memory["pressure"]
        ours.communicate("\n", timeout=60)
    counters = ctl_call(run_dir, "tcp", "counters", None, 60)
    assert counters["TcpExtTCPPrequeued"] > 0
    assert "TcpExtTCPRcvQDrop" not in counters
    assert events(run_dir, "tcp_prequeue", "tcp_prequeue_process") == {
        "tcp_prequeue",
        "tcp_prequeue_process",
    }


SINK = """
import hashlib, socket
server = socket.create_server(("10.77.0.1", 7002))
print("listening", flush=True)
sock, _ = server.accept()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([120] + [0] * 15))
digest = hashlib.sha256()
while data := sock.recv(1 << 20):
    digest.update(data)
print(digest.hexdigest(), flush=True)
"""

SOURCE = """
import sys
from skbus import socket
sock = socket.create_connection(("10.77.0.1", 7002))
sock.sendall(bytes(range(250)) * (int(sys.argv[1]) // 250), socket.MSG_MORE)
sock.close()
"""
"""Each call of a megabyte says that more follows: together they are one big send to tcp."""


def test_a_big_send_goes_in_slices(run_dir: RunDir) -> None:
    env = {**os.environ, "SKBUS_DIR": str(run_dir.path)}
    with subprocess.Popen(
        lab("exec", "--", sys.executable, "-c", SINK), stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "listening\n"
        subprocess.run([sys.executable, "-c", SOURCE, str(BIG)], env=env, check=True, timeout=180)
        want = hashlib.sha256(bytes(range(250)) * (BIG // 250)).hexdigest()
        assert sink.stdout.readline().strip() == want
    assert events(run_dir, "lock_sock", "release_sock") == {"lock_sock", "release_sock"}
