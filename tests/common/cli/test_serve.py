# SPDX-License-Identifier: MIT
"""`skbus serve` as it is typed: what it says, its options, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

SKBUS = str(Path(sys.executable).with_name("skbus"))
KINDS = ("http", "echo", "discard", "chargen", "iperf3")


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, str]]:
    """The environment of a lab of its own."""
    name = f"serve{os.getpid()}"
    up = [SKBUS, "lab", "up", "--name", name]
    done = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True)
    try:
        yield {**os.environ, "SKBUS_DIR": json.loads(done.stdout.splitlines()[-1])["run_dir"]}
    finally:
        subprocess.run([SKBUS, "lab", "down", "--name", name], check=True, capture_output=True)


class Served:
    """A server as a process of its own, and what it has said."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [SKBUS, "serve", *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline().rstrip("\n") for _ in range(3)]

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def exec_(env: dict[str, str], command: str) -> str:
    """A line of shell in the peer's namespace."""
    done = subprocess.run(
        [SKBUS, "lab", "exec", "--", "sh", "-c", command],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_where_it_is_and_ends_without_a_word(lab: dict[str, str], kind: str) -> None:
    served = Served(lab, kind)
    name = Path(lab["SKBUS_DIR"]).name
    ports = {"http": 80, "echo": 7, "discard": 9, "chargen": 19, "iperf3": 5201}
    assert served.said[0].startswith(f"{kind} server at 10.77.0.2, port {ports[kind]} (TCP")
    assert served.said[1].startswith(f"at the other end: skbus lab exec --name {name} -- ")
    assert "10.77.0.2" in served.said[1]
    assert served.said[2] == "Ctrl-C ends it"
    assert served.end() == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_is_as_ctrl_c(lab: dict[str, str], kind: str) -> None:
    code, out, err = Served(lab, kind, "--port", "7777").end(signal.SIGTERM)
    assert (code, out, err) == (0, "", "")


def test_what_it_says_can_be_typed(lab: dict[str, str]) -> None:
    served = Served(lab, "http", "--port", "8080")
    command = served.said[1].rpartition(" -- ")[2]
    assert command == "curl http://10.77.0.2:8080/"
    fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())"
    page = exec_(lab, command.replace("curl", f"{sys.executable} -c '{fetch}'"))
    assert "It works" in page
    assert served.end()[0] == 0


def test_address_and_port(lab: dict[str, str]) -> None:
    served = Served(lab, "echo", "--address", "10.77.0.2", "--port", "0")
    port = served.said[0].partition("port ")[2].split()[0]
    assert int(port) > 1023
    assert served.said[1].endswith(f" 10.77.0.2 {port}")
    assert served.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("http", "--address", "10.9.9.9"), "its addresses: 10.77.0.2"),
        (("http", "--address", "nowhere"), "takes an IPv4 address of our stack"),
        (("http", "--port", "65536"), "65535"),
        (("gopher",), "gopher"),
    ],
)
def test_what_cannot_be_served(lab: dict[str, str], arguments: tuple[str, ...], error: str) -> None:
    done = subprocess.run(
        [SKBUS, "serve", *arguments], env=lab, capture_output=True, text=True, check=False
    )
    assert done.returncode in (1, 2)
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_that_is_taken_is_named(lab: dict[str, str], kind: str) -> None:
    served = Served(lab, "http", "--port", "8088")
    done = subprocess.run(
        [SKBUS, "serve", kind, "--port", "8088"], env=lab, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("skbus serve: port 8088 of our stack is taken: --port N")
    assert done.stderr.count("\n") == 1
    assert served.end()[0] == 0


def test_a_request_that_is_no_http_is_that_client_s_affair(lab: dict[str, str]) -> None:
    served = Served(lab, "http")
    ask = (
        f'{sys.executable} -c "import socket, sys;'
        "s = socket.create_connection(('10.77.0.2', 80));"
        "s.sendall(b'GET ' + sys.argv[1].encode() + b' HTTP/1.1' + b'\\r\\n' * 2);"
        "print(s.recv(99).split(b'\\r\\n')[0].decode())\" "
    )
    assert exec_(lab, f"{ask} /bytes/$(printf %5000s | tr ' ' 9)") == "HTTP/1.1 404 Not Found\n"
    assert exec_(lab, f"{ask} '/ x'") == "HTTP/1.1 400 Bad Request\n"
    assert exec_(lab, f"{ask} /") == "HTTP/1.1 200 OK\n"
    assert served.end() == (0, "", "")
