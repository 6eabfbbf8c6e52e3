# SPDX-License-Identifier: MIT
"""Clients and the built-in servers, and servers that misbehave, over the loopback."""

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
import trio
from trio import socket as tsocket

from skbus.load import server, wire
from skbus.load.client import BUILT_IN, Client, LoadFailure, Tally, error_kind
from skbus.load.scenario import Flow

Handler = Callable[[trio.SocketStream], Awaitable[None]]


def make(protocol: str, port: int, **keys: Any) -> tuple[Client, Tally]:
    flow = Flow.model_validate({"name": "f", "protocol": protocol, **keys})
    tally = Tally()
    client = BUILT_IN[protocol](flow, ("127.0.0.1", port), Random(1), tally, lambda _: None)
    return client, tally


def against(
    handler: Handler, protocol: str, requests: int = 1, **keys: Any
) -> tuple[Client, Tally]:
    """Make requests of a server; what a request raises comes out."""
    made: list[tuple[Client, Tally]] = []
    failure: list[Exception] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, handler, 0)
            port = listeners[0].socket.getsockname()[1]
            made.append(make(protocol, port, **keys))
            try:
                with trio.fail_after(60):
                    for _ in range(requests):
                        await made[0][0].request()
            except Exception as e:  # noqa: BLE001 it comes out of the nursery, not as a group
                failure.append(e)
            await made[0][0].close()
            nursery.cancel_scope.cancel()

    trio.run(main)
    if failure:
        raise failure[0]
    return made[0]


def built_in(kind: str) -> Handler:
    async def handler(stream: trio.SocketStream) -> None:
        await {"echo": server.echo, "http": server.http, "bulk": server.bulk}[kind](
            server.Reader(stream)
        )

    return handler


@pytest.mark.parametrize(
    ("kind", "protocol", "keys", "bytes_in", "bytes_out", "connects"),
    [
        ("echo", "echo", {"request": 10, "response": 300}, 900, 3 * 18, 1),
        ("echo", "echo", {"request": 0, "response": 0}, 0, 3 * 8, 1),
        ("echo", "echo", {"request": 70000, "response": "1MiB"}, 3 << 20, 3 * 70008, 1),
        ("echo", "echo", {"per_connection": 1}, 3 * 64, 3 * 72, 3),
        ("echo", "connect-close", {"response": 10}, 30, 3 * 72, 3),
        ("bulk", "bulk", {"response": "700KiB"}, 3 * 700 << 10, 3 * 10, 1),
        ("bulk", "bulk", {"direction": "up", "request": 300000}, 3, 3 * 300010, 1),
    ],
)
def test_requests(
    kind: str, protocol: str, keys: dict[str, Any], bytes_in: int, bytes_out: int, connects: int
) -> None:
    _, tally = against(built_in(kind), protocol, 3, **keys)
    assert tally == Tally(bytes_in, bytes_out, connects)


@pytest.mark.parametrize("size", [0, 1, 5000, 1 << 20])
def test_http(size: int) -> None:
    _, tally = against(built_in("http"), "http", 3, response=size, request=300)
    assert tally.connects == 1
    assert tally.bytes_out == 900  # as long as the flow wants it
    assert 3 * size < tally.bytes_in < 3 * (size + 200)


def test_http_by_path() -> None:
    _, tally = against(built_in("http"), "http", 2, path="/")
    assert tally.bytes_in > 2048
    with pytest.raises(LoadFailure, match="HTTP 404"):
        against(built_in("http"), "http", path="/nothing")


def test_a_slow_reader_takes_its_time() -> None:
    start = time.monotonic()
    against(built_in("bulk"), "bulk", response=20000, read_rate="800kbit")
    assert time.monotonic() - start > 0.15  # 20,000 bytes at 100,000 a second


def says(data: bytes) -> Handler:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)

    return handler


@pytest.mark.parametrize(
    ("data", "protocol", "keys", "kind"),
    [
        (b"x" * 64, "echo", {}, "corrupt"),
        (b"", "echo", {}, "eof"),
        (wire.payload(10), "echo", {}, "eof"),
        (b"x" * 70000, "echo", {"response": 70000}, "corrupt"),
        (b"y" * 64, "bulk", {}, "corrupt"),
        (b"\x01", "bulk", {"direction": "up"}, "corrupt"),
        (b"220 mail.example\r\n\r\n", "http", {}, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "http", {}, "corrupt"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "http", {}, "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "http", {}, "more than Content-Length"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\na", "http", {"path": "/"}, "HTTP 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "http", {"path": "/"}, "eof"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "http", {}, "corrupt"),
        (b"z" * 70000, "http", {}, "no HTTP"),
    ],
)
def test_wrong_answers(data: bytes, protocol: str, keys: dict[str, Any], kind: str) -> None:
    with pytest.raises(LoadFailure) as caught:
        against(says(data), protocol, **keys)
    assert error_kind(caught.value) == kind


BODY = b"0123456789" * 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n" + BODY + b"\r\n0\r\n\r\n"
TRAILED = CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n").replace(b"c8", b"0C8 ; a=b")


def plain(fields: bytes = b"", version: bytes = b"1.1", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/%b %b\r\n%bContent-Length: 200\r\n\r\n%b" % (version, status, fields, BODY)


def in_order(answers: list[bytes], closes: bool) -> Handler:
    """A server that gives these answers, and then closes or goes on from the first."""

    async def handler(stream: trio.SocketStream) -> None:
        for answer in answers if closes else answers * 9:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = await stream.receive_some()
                if not more:
                    return
                head += more
            await stream.send_all(answer)

    return handler


@pytest.mark.parametrize(
    ("answer", "closes", "connects"),
    [
        (plain(version=b"1.0"), True, 3),
        (plain(b"Connection: keep-alive\r\n", version=b"1.0"), False, 1),
        (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, True, 3),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(), False, 1),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n" * 2 + plain(), False, 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, 1),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 200\r\n\r\n", False, 1),
        (plain(b"Connection:close\r\n"), True, 3),
        (plain(b"CONNECTION: \t CLOSE \r\n"), True, 3),
        (plain(b"Connection: foo, close\r\n"), True, 3),
        (plain(b"Connection: foo\r\nConnection: close\r\n"), True, 3),
        (plain(b"X-Connection: close\r\n"), False, 1),
        (plain(b"Connection: closed\r\n"), False, 1),
        (plain(b"X-Content-Length: 7\r\n"), False, 1),
        (plain(b"Content-Length: 200\r\n"), False, 1),
        (CHUNKED, False, 1),
        (TRAILED, False, 1),
    ],
    ids=range(17),
)
def test_servers_as_they_are(answer: bytes, closes: bool, connects: int) -> None:
    _, tally = against(in_order([answer], closes), "http", 3, path="/")
    assert tally.connects == connects
    assert tally.bytes_in == 3 * len(answer)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_to_head_has_no_body(version: bytes) -> None:
    head = plain(version=version).removesuffix(BODY)
    _, tally = against(in_order([head], version == b"1.0"), "http", 2, path="/", method="HEAD")
    assert tally.bytes_in == 2 * len(head)
    _, tally = against(built_in("http"), "http", 3, method="HEAD", response=5000)
    assert tally.connects == 1
    assert tally.bytes_in < 600


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (plain(status=b"500 Oops"), "HTTP 500"),
        (plain(status=b"404 No"), "HTTP 404"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP 101"),
        (plain(b"Content-Length: 7\r\n"), "several Content-Lengths"),
        (plain().replace(b"200\r\n\r\n", b"9" * 5000 + b"\r\n\r\n"), "no Content-Length"),
        (CHUNKED.replace(b"c8", b"c7"), "bad chunk"),
        (CHUNKED.replace(b"c8", b"zz"), "bad chunk"),
        (CHUNKED + b"x", "more than its chunks"),
        (CHUNKED[:-5], "eof"),
        (b"HTTP/2 200\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no HTTP"),
        (b"<html>", "no HTTP"),
    ],
)
def test_servers_that_are_wrong(answer: bytes, kind: str) -> None:
    with pytest.raises(LoadFailure) as caught:
        against(in_order([answer], True), "http", path="/")
    assert error_kind(caught.value) == kind


@pytest.mark.parametrize("cut", [1, 100, 201, 70000])
def test_chunks_of_the_pattern_are_verified(cut: int) -> None:
    size = 300_000
    body = wire.payload(size)
    pieces = [body[at : at + cut] for at in range(0, size, cut)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    if cut > 1:
        against(in_order([answer], False), "http", 2, response=size)
    wrong = answer[:-100] + b"!" + answer[-99:]
    with pytest.raises(LoadFailure):
        against(in_order([wrong], False), "http", response=size)


def test_wrong_bytes_pass_where_nobody_looks() -> None:
    _, tally = against(says(b"x" * 64), "echo", verify=False)
    assert tally.bytes_in == 64


def test_errors_have_names() -> None:
    assert error_kind(ConnectionRefusedError()) == "refused"
    assert error_kind(ConnectionResetError()) == error_kind(BrokenPipeError()) == "reset"
    assert error_kind(TimeoutError()) == error_kind(trio.TooSlowError()) == "timeout"
    assert error_kind(OSError(113, "")) == error_kind(OSError(101, "")) == "unreachable"
    assert error_kind(OSError(99, "")) == "EADDRNOTAVAIL"
    assert error_kind(ZeroDivisionError()) == "ZeroDivisionError"


def test_udp() -> None:
    async def main() -> Tally:
        with tsocket.socket(tsocket.AF_INET, tsocket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            client, tally = make(
                "udp", sock.getsockname()[1], request=2000, response="uniform(0, 1400)"
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.udp, sock)
                with trio.fail_after(60):
                    for _ in range(5):
                        await client.request()
                nursery.cancel_scope.cancel()
            await client.close()
        return tally

    tally = trio.run(main)
    assert tally.bytes_out == 5 * 2008
    assert tally.bytes_in >= 20


def test_an_answer_that_comes_too_late_is_not_taken_for_another() -> None:
    async def main() -> None:
        with tsocket.socket(tsocket.AF_INET, tsocket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            client, _ = make("udp", sock.getsockname()[1], response=4)
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    data, peer = await sock.recvfrom(9000)
                    await sock.sendto(b"\0\0\0\0late", peer)
                    await sock.sendto(data[:4] + wire.payload(4), peer)

                nursery.start_soon(serve)
                with trio.fail_after(60):
                    await client.request()
            await client.close()

    trio.run(main)


@pytest.mark.parametrize(
    "data",
    [
        b"junk",
        b"",
        b"GET /bytes/x HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"x" * 40000,
        wire.ECHO.pack(1 << 31, 1),
        wire.BULK.pack(b"X", b"d", 5),
        wire.BULK.pack(b"B", b"u", 500) + b"short",
    ],
)
@pytest.mark.parametrize("kind", ["echo", "http", "bulk"])
def test_servers_end_a_connection_that_makes_no_sense(kind: str, data: bytes) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, built_in(kind), 0)
            port = listeners[0].socket.getsockname()[1]
            with trio.fail_after(60):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    try:
                        await stream.send_all(data)
                        await stream.send_eof()
                        while await stream.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass  # ended with bytes of ours unread
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_the_pattern() -> None:
    whole = wire.payload(300_000)
    assert len(whole) == 300_000
    for offset in (0, 1, 65520, 65521, 131042, 200_000):
        assert wire.piece(offset, 1000) == whole[offset : offset + 1000]
    assert whole[:1000] not in whole[1000:60000]
