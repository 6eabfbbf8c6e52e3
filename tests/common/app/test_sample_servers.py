# SPDX-License-Identifier: MIT
"""The sample servers, asked by ordinary clients."""

import http.client
from collections.abc import Callable

import pytest
import trio

from skbus import socket
from skbus.serve.loop import ServerLoop
from skbus.serve.run import SERVERS, run
from skbus.serve.simple import CHARGEN
from skbus.serve.web import PAGE
from skbustest.loopback import Loopback

HERE = "127.0.0.1"


def serving(kind: str, ask: Callable[[int], None]) -> None:
    """Run a server, and `ask` with its port in a thread."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            loop: ServerLoop = await nursery.start(SERVERS[kind], HERE, 0)
            with trio.fail_after(90):
                await trio.to_thread.run_sync(ask, loop.port)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_http(loopback: Loopback) -> None:
    def ask(port: int) -> None:
        with socket.install():
            connection = http.client.HTTPConnection(HERE, port)
            for method, path, status, body in (
                ("GET", "/", 200, PAGE),
                ("HEAD", "/", 200, b""),
                ("GET", "/nothing", 404, b"There is nothing here.\n"),
                ("GET", "/bytes/1000", 200, (bytes(range(256)) * 4)[:1000]),
                ("GET", "/bytes/0", 200, b""),
                ("GET", "/bytes/3000000", 200, (bytes(range(256)) * 11719)[:3000000]),
                ("POST", "/", 405, b"Only GET and HEAD.\n"),
                ("GET", "/index.html?query", 200, PAGE),
            ):
                connection.request(method, path, body=b"content" if method == "POST" else None)
                response = connection.getresponse()
                assert (response.status, response.read()) == (status, body)
            connection.close()

    serving("http", ask)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70000, b"431"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /bytes/5000 HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_http_ends_the_connection(loopback: Loopback, request_text: bytes, status: bytes) -> None:
    def ask(port: int) -> None:
        with socket.create_connection((HERE, port)) as sock:
            sock.sendall(request_text)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            assert answer.startswith(b"HTTP/1.1 " + status)

    serving("http", ask)


def test_http_pipelining(loopback: Loopback) -> None:
    def ask(port: int) -> None:
        with socket.create_connection((HERE, port)) as sock:
            sock.sendall(b"GET /bytes/3000 HTTP/1.1\r\n\r\n" * 20)
            sock.sendall(b"GET /bytes/1 HTTP/1.0\r\n\r\n")
            answer = b""
            while data := sock.recv(65536):
                answer += data
            assert answer.count(b"HTTP/1.1 200 OK") == 21
            assert answer.count(bytes(range(200))) == 20 * 12 - 20

    serving("http", ask)


def test_echo(loopback: Loopback) -> None:
    def ask(port: int) -> None:
        with socket.create_connection((HERE, port)) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
            sock.sendall(b"x" * 10000)
            sock.shutdown(socket.SHUT_WR)
            total = 0
            while data := sock.recv(65536):
                total += len(data)
            assert total == 10000
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"ping", (HERE, port))
            assert sock.recvfrom(10) == (b"ping", (HERE, port))

    serving("echo", ask)


def test_discard(loopback: Loopback) -> None:
    def ask(port: int) -> None:
        with socket.create_connection((HERE, port)) as sock:
            sock.sendall(bytes(1_000_000))
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(10) == b""

    serving("discard", ask)


def test_chargen(loopback: Loopback) -> None:
    def ask(port: int) -> None:
        with socket.create_connection((HERE, port)) as sock:
            sock.sendall(b"ignored")
            got = sock.recv(len(CHARGEN) + 100, socket.MSG_WAITALL)
            assert got == (CHARGEN + CHARGEN)[: len(got)]
            assert len(got) == len(CHARGEN) + 100

    serving("chargen", ask)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="there are chargen, discard, echo, http"):
        run("gopher")
