# SPDX-License-Identifier: MIT
"""The examples run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

EXAMPLES = Path(__file__).parents[2] / "examples"
SKBUS = Path(sys.executable).with_name("skbus")
NAME = f"examples{os.getpid()}"


def lab(*argv: str) -> list[str]:
    return [str(SKBUS), "lab", argv[0], "--name", NAME, *argv[1:]]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    up = subprocess.run(lab("up"), capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stderr
    done = subprocess.run(lab("exec", "--", "env"), capture_output=True, text=True, check=True)
    (line,) = [v for v in done.stdout.splitlines() if v.startswith("SKBUS_DIR=")]
    yield {**os.environ, "SKBUS_DIR": line.partition("=")[2]}
    subprocess.run(lab("down"), check=True)


SERVER = """
import http.server
server = http.server.HTTPServer(("10.77.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.handle_request()
"""

CLIENT = """
import socket
for _ in range(3):
    with socket.create_connection(("10.77.0.2", 7777), timeout=60) as s:
        print(s.makefile().readline(), end="")
"""


def test_blocking_client(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x" * 1000)
    with subprocess.Popen(
        lab("exec", "--", sys.executable, "-c", SERVER),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, EXAMPLES / "blocking_client.py", "10.77.0.1", port],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout == "200 OK, 1000 bytes\n", done.stderr


def test_trio_server(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "trio_server.py", "7777", "3"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        done = subprocess.run(
            lab("exec", "--", sys.executable, "-c", CLIENT),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        lines = done.stdout.splitlines()
        assert len(lines) == 3, done.stderr
        assert all(line.startswith("hello, 10.77.0.1 port ") for line in lines)
        assert server.wait(60) == 0
