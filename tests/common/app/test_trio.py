# SPDX-License-Identifier: MIT
"""`skbus.trio`: stock trio and httpx on our sockets; cancellation loses nothing."""

import errno
import http.server
import os
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio

import skbus.trio
from skbus import socket
from skbustest.loopback import Loopback

HERE = "127.0.0.1"


def run(main: Callable[[], Awaitable[None]]) -> None:
    """trio.run with our sockets."""

    async def wrapped() -> None:
        skbus.trio.install()
        with trio.fail_after(90):
            await main()

    trio.run(wrapped)


async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two connected streams."""
    (listener,) = await trio.open_tcp_listeners(0, host=HERE)
    async with listener:
        one = await trio.open_tcp_stream(HERE, listener.socket.getsockname()[1])
        two = await listener.accept()
    assert isinstance(one.socket, skbus.trio.SocketType)
    return one, two


def test_echo_server(loopback: Loopback) -> None:
    blob = os.urandom(700_000)

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(trio.serve_tcp, echo, 0)
            port = listener.socket.getsockname()[1]

            async def talk() -> None:
                async with await trio.open_tcp_stream(HERE, port) as stream:
                    got = b""
                    async with trio.open_nursery() as inner:
                        inner.start_soon(stream.send_all, blob)
                        while len(got) < len(blob):
                            got += await stream.receive_some()
                    assert got == blob
                    await stream.send_eof()
                    assert await stream.receive_some() == b""

            async with trio.open_nursery() as clients:
                for _ in range(4):
                    clients.start_soon(talk)
            nursery.cancel_scope.cancel()

    run(main)


def test_cancelling_a_receive_loses_nothing(loopback: Loopback) -> None:
    async def main() -> None:
        one, two = await pair()
        async with one, two:
            got = b""
            sent = b""
            for i in range(200):
                piece = b"%d," % i
                async with trio.open_nursery() as nursery:
                    # The bytes and the cancellation race each other.
                    nursery.start_soon(one.send_all, piece)
                    with trio.move_on_after(0.0002 if i % 2 else 0):
                        got += await two.receive_some(100)
                sent += piece
            await one.send_eof()
            async for data in two:
                got += data
            assert got == sent

    run(main)


def test_cancelling_an_accept_loses_no_connection(loopback: Loopback) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host=HERE)
        port = listener.socket.getsockname()[1]
        accepted: list[trio.SocketStream] = []
        clients: list[trio.SocketStream] = []

        async def connect() -> None:
            clients.append(await trio.open_tcp_stream(HERE, port))

        async with listener:
            for i in range(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connect)
                    with trio.move_on_after(0.0005 if i % 2 else 0):
                        accepted.append(await listener.accept())
            while len(accepted) < len(clients):
                accepted.append(await listener.accept())
            assert len(clients) == 40
        for stream in accepted + clients:
            await stream.aclose()

    run(main)


def test_closing_wakes_the_waiter(loopback: Loopback) -> None:
    async def main() -> None:
        one, two = await pair()
        async with one:
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await two.receive_some()

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await two.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await two.send_all(b"x")

    import trio.testing

    run(main)


def test_errors(loopback: Loopback) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(HERE, 1)
        sock = trio.socket.socket()
        with sock:
            with pytest.raises(ConnectionRefusedError):
                await sock.connect((HERE, 1))
            with pytest.raises(OSError, match="unreachable") as e:
                await sock.connect(("10.9.8.7", 1))
            assert e.value.errno == errno.ENETUNREACH
        with trio.move_on_after(0.01) as scope:
            with trio.socket.socket() as sock:
                await sock.connect((HERE, 9))
        assert scope.cancelled_caught

    run(main)


def test_datagrams(loopback: Loopback) -> None:
    async def main() -> None:
        kind = (trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with trio.socket.socket(*kind) as one, trio.socket.socket(*kind) as two:
            await one.bind((HERE, 53))
            assert not one.is_readable()
            await two.sendto(b"q" * 50000, (HERE, 53))
            data, sender = await one.recvfrom(65536)
            assert data == b"q" * 50000
            await one.sendto(b"answer", sender)
            buffer = bytearray(20)
            assert await two.recvfrom_into(buffer) == (6, (HERE, 53))

    run(main)


def test_tls(loopback: Loopback, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, client_side = contexts
    blob = os.urandom(200_000)

    async def main() -> None:
        one, two = await pair()
        server = trio.SSLStream(one, server_side, server_side=True)
        client = trio.SSLStream(two, client_side, server_hostname="localhost")
        async with server, client:
            got = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.send_all, blob)
                while len(got) < len(blob):
                    got += await client.receive_some()
            assert got == blob

    run(main)


def test_other_families_are_the_systems(loopback: Loopback, tmp_path: Any) -> None:
    async def main() -> None:
        with trio.socket.socket(trio.socket.AF_UNIX) as sock:
            assert not isinstance(sock, skbus.trio.SocketType)

    run(main)


def test_the_stack_ends(loopback: Loopback) -> None:
    async def main() -> None:
        one, two = await pair()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await two.receive_some()

            nursery.start_soon(wait)
            while not sum(len(c.calls) for c in loopback.net.clients.values()):
                await trio.sleep(0)
            await trio.to_thread.run_sync(loopback.stop)
        await one.aclose()
        await two.aclose()

    run(main)
    from skbus.app import client

    client._clients.pop(loopback.run.path).close()


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"x" * 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_httpx(loopback: Loopback) -> None:
    with socket.install():
        server = http.server.ThreadingHTTPServer((HERE, 0), _Page)
    port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()

    async def main() -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(2):
                response = await client.get(f"http://{HERE}:{port}/")
                assert response.content == b"x" * 100_000

    run(main)
    server.shutdown()
    thread.join()
    server.server_close()
