# SPDX-License-Identifier: MIT
"""examples/kernel in a running stack: `--module`, insmod, lsmod, rmmod, against Linux's clients,
name server and web server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir

pytestmark = pytest.mark.lab

EXAMPLES = Path(__file__).parents[2] / "examples" / "kernel"
SKBUS = Path(sys.executable).with_name("skbus")
NAME = f"kernel{os.getpid()}"


def skbus(*argv: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(SKBUS), *argv], capture_output=True, text=True, check=False, timeout=90, env=env
    )


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    up = skbus("lab", "up", "--name", NAME, "--module", f"{EXAMPLES / 'server.py'} port=8080")
    assert up.returncode == 0, up.stderr
    done = skbus("lab", "exec", "--name", NAME, "--", "env")
    (line,) = [v for v in done.stdout.splitlines() if v.startswith("SKBUS_DIR=")]
    yield {**os.environ, "SKBUS_DIR": line.partition("=")[2]}
    skbus("lab", "down", "--name", NAME)


def peer(program: str, *argv: str) -> list[str]:
    """A Python program on Linux's stack."""
    return [str(SKBUS), "lab", "exec", "--name", NAME, "--", sys.executable, "-c", program, *argv]


def logged(environment: dict[str, str], event: str, **fields: object) -> dict[str, object]:
    """The first line of the socket process's log with that event and those fields."""
    path = RunDir(environment["SKBUS_DIR"]).log_file("socket")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == event and fields.items() <= entry.items():
                return dict(entry)
        time.sleep(0.05)
    raise AssertionError(f"no {event} {fields} in the log:\n{path.read_text()[-2000:]}")


CLIENT = """
import sys, urllib.request
for path in ("/a", "/b"):
    with urllib.request.urlopen(f"http://10.77.0.2:{sys.argv[1]}{path}", timeout=30) as answer:
        print(answer.status, answer.read().decode(), end="")
"""


def test_linux_talks_to_the_server_in_the_kernel(environment: dict[str, str]) -> None:
    done = subprocess.run(peer(CLIENT, "8080"), capture_output=True, text=True, timeout=90)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line, path in zip(lines, ("/a", "/b"), strict=True):
        assert line.startswith("200 hello, 10.77.0.1 port ")
        assert line.endswith(f": {path}, from the kernel")
    logged(environment, "khttpd", peer="10.77.0.1", path="/b")


def test_insmod_lsmod_rmmod(environment: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "other.py"
    copy.write_text((EXAMPLES / "server.py").read_text())
    done = skbus("insmod", str(copy), "port=8081", env=environment)
    assert done.stdout == "other\n", done.stderr
    logged(environment, "init_module", module="other")
    assert "other Live port=8081" in skbus("lsmod", env=environment).stdout.splitlines()
    done = subprocess.run(peer(CLIENT, "8081"), capture_output=True, text=True, timeout=90)
    assert done.stdout.count("from the kernel") == 2, done.stderr
    done = skbus("rmmod", "other", env=environment)
    assert done.returncode == 0, done.stderr
    assert "other" not in skbus("lsmod", env=environment).stdout
    logged(environment, "cleanup_module", module="other")
    done = subprocess.run(peer(CLIENT, "8081"), capture_output=True, text=True, timeout=90)
    assert "Connection refused" in done.stderr


def test_mistakes_are_told(environment: dict[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("")
    done = skbus("insmod", str(empty), env=environment)
    assert done.returncode == 1
    assert "no init_module" in done.stderr
    done = skbus("rmmod", "nobody", env=environment)
    assert done.returncode == 1
    assert "no module nobody" in done.stderr
    done = skbus("lab", "up", "--name", NAME + "x", "--module", "/nowhere.py")
    assert done.returncode == 2
    assert "there is no file /nowhere.py" in done.stderr


SERVERS = """
import http.server, socket, struct, threading

dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("10.77.0.1", 0))

def answer():
    while True:
        query, peer = dns.recvfrom(1500)
        record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((10, 77, 0, 1))
        head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
        dns.sendto(head + query[12:] + record, peer)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers["Host"].encode() * 20000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

threading.Thread(target=answer, daemon=True).start()
server = http.server.HTTPServer(("10.77.0.1", 0), Handler)
print(server.server_port, dns.getsockname()[1], flush=True)
server.handle_request()
"""


def test_the_client_in_the_kernel_resolves_and_fetches(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        peer(SERVERS), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        port, dns = server.stdout.readline().split()
        url = f"url=http://www.example.test:{port}/index"
        spec = f"{EXAMPLES / 'client.py'} {url} nameserver=10.77.0.1:{dns}"
        run = RunDir(environment["SKBUS_DIR"])
        assert ctl_call(run, "socket", "insmod", spec, 60) == "client"
        entry = logged(environment, "kwget", peer=f"10.77.0.1:{port}")
        assert entry["status"] == "HTTP/1.0 200 OK"
        size = entry["size"]
        assert isinstance(size, int)
        assert size > 20000 * len("www.example.test")
        assert server.wait(60) == 0
    assert ctl_call(run, "socket", "rmmod", "client", 60) == "client"


def test_the_end_of_the_process_unloads_what_is_loaded(environment: dict[str, str]) -> None:
    """SIGTERM to the socket process: its modules are unloaded; started anew, it loads what the
    configuration says."""
    status = json.loads(skbus("lab", "status", "--name", NAME).stdout)
    os.kill(status["pids"]["socket"], signal.SIGTERM)
    logged(environment, "cleanup_module", module="server")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done = subprocess.run(peer(CLIENT, "8080"), capture_output=True, text=True, timeout=90)
        if done.stdout.count("from the kernel") == 2:
            break
    else:
        raise AssertionError(done.stderr)
