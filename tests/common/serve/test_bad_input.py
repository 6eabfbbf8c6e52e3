# SPDX-License-Identifier: MIT
"""The sample servers, given any bytes: what is wrong is that client's affair, not the server's."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.serve.iperf3 import COOKIE_SIZE, Params, ProtocolError, Server
from skbus.serve.simple import Chargen, Discard, Echo
from skbus.serve.web import MAX_BYTES, MAX_CONTENT, Web, number


class _Calls:
    """A socket layer that takes all, and says so when it is asked to."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.receiving: Any = None
        self.replies: list[Any] = []

    # ---- Client
    def put(self, view: memoryview) -> tuple[bytes, tuple[()]]:
        return bytes(view), ()

    def collect(self, parts: object, data: bytes) -> bytes:
        return data

    # ---- Mux
    def submit(self, callback: Any, name: str, *args: object, data: bytes = b"") -> None:
        if name == "recvmsg":
            assert self.receiving is None
            self.receiving = callback
        elif name == "sendmsg":
            self.sent += data
            self.replies.append(callback)
        elif name == "close":
            self.closed = True

    def answer(self) -> None:
        while self.replies and len(self.sent) < 1 << 22:
            self.replies.pop(0)(0, None, b"")


class _Loop:
    """As much of a ServerLoop as a connection sees."""

    def __init__(self) -> None:
        self.client = self.mux = _Calls()

    def forget(self, connection: object) -> None:
        """It is closed."""


def play(kind: Any, chunks: list[bytes]) -> _Calls:
    """One connection that is given these bytes."""
    loop: Any = _Loop()
    calls: _Calls = loop.mux
    kind(loop, 7).start()
    for chunk in chunks:
        calls.answer()
        if calls.closed or calls.receiving is None:
            break
        receive, calls.receiving = calls.receiving, None
        receive(0, ((), None, 0, ()), chunk)
    calls.answer()
    return calls


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"HEAD /bytes/9 HTTP/1.1\r\n", b"GET /bytes/", b"9" * 5000, b"-1",
        b"POST / HTTP/1.1\r\n", b"Content-Length: ", b"Content-Length:", b"\r\n", b"\r\n\r\n",
        b"Connection: close", b"Connection:foo , CLOSE", b"Transfer-Encoding: chunked", b":", b" ",
        b"HTTP/1.0", b"HTTP/9.9", b"/bytes/1000000 HTTP/1.1\r\n\r\n", b"\xb2", b"\0", b"x" * 70000,
    ]
)  # fmt: skip
BYTES = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=40)), max_size=12).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@settings(deadline=None, max_examples=300)
@given(BYTES, st.lists(st.integers(0, 1 << 20), max_size=6))
def test_http_given_any_bytes(data: bytes, places: list[int]) -> None:
    calls = play(Web, [*cut(data, places), b""])
    assert not calls.sent or calls.sent.startswith(b"HTTP/1.1 ")


@settings(deadline=None, max_examples=100)
@given(BYTES, st.lists(st.integers(0, 1 << 20), max_size=6))
def test_the_small_servers_given_any_bytes(data: bytes, places: list[int]) -> None:
    assert play(Echo, [*cut(data, places), b""]).sent == data
    assert play(Discard, [*cut(data, places), b""]).closed
    play(Chargen, [*cut(data, places), b""])


def status(request: bytes) -> str:
    return play(Web, [request]).sent.partition(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"GET /bytes/" + b"9" * 5000 + b" HTTP/1.1", "404 Not Found"),
        (b"GET /bytes/" + b"0" * 5000 + b"3 HTTP/1.1", "200 OK"),
        (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000, "413 Content Too Large"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 2", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0", "200 OK"),
        ("GET / HTTP/1.1\r\nContent-Length: ²".encode(), "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked", "411 Length Required"),
        (b"GET / HTTP/1.1\r\nHost : x", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nno colon", "400 Bad Request"),
        (b"GET /\0 HTTP/1.1", "400 Bad Request"),
        (b"GET / HTTP/2.0", "400 Bad Request"),
        (b"GET  / HTTP/1.1", "400 Bad Request"),
        (b"BREW / HTTP/1.1", "405 Method Not Allowed"),
        (b"", "400 Bad Request"),
    ],
    ids=range(16),
)
def test_a_request_is_answered_for_what_it_is(head: bytes, answer: str) -> None:
    assert status(head + b"\r\n\r\n") == f"HTTP/1.1 {answer}"


@pytest.mark.parametrize(
    ("fields", "version", "kept"),
    [
        (b"", b"1.1", True),
        (b"", b"1.0", False),
        (b"Connection: close\r\n", b"1.1", False),
        (b"connection:CLOSE\r\n", b"1.1", False),
        (b"Connection: foo , close\r\n", b"1.1", False),
        (b"Connection: closed\r\n", b"1.1", True),
        (b"X-Connection: close\r\n", b"1.1", True),
        (b"Connection: foo\r\nConnection: Keep-Alive\r\n", b"1.0", True),
    ],
)
def test_whether_a_connection_is_kept(fields: bytes, version: bytes, kept: bool) -> None:
    calls = play(Web, [b"GET / HTTP/" + version + b"\r\n" + fields + b"\r\n"])
    assert calls.sent.startswith(b"HTTP/1.1 200 OK")
    assert calls.closed is not kept


@given(st.integers(0, 1 << 80), st.integers(0, 30))
def test_numbers(value: int, zeros: int) -> None:
    digits = b"0" * zeros + str(value).encode()
    assert number(digits, MAX_BYTES) == (value if value <= MAX_BYTES else None)
    assert number(b"+" + digits, MAX_CONTENT) is None


# ---- iperf3 ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                max_size=3),
    max_leaves=5,
)  # fmt: skip
KEYS = """udp reverse bidirectional parallel time omit num blockcount len bandwidth nodelay MSS
window TOS congestion udp_counters_64bit get_server_output authtoken sctp""".split()


def parsed(given: Any) -> Params | str:
    """The parameters, or why not."""
    try:
        return Params.parse(given)
    except ProtocolError as e:
        return str(e)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_iperf3_s_parameters_are_any_json(given: dict[str, Any]) -> None:
    params = parsed(given)
    if isinstance(params, str):
        assert params.isprintable()
        return
    assert 1 <= len(params.directions()) <= 256
    params.congestion.encode("ascii")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that serves whoever comes; its thread ends when it does."""
    server = Server("127.0.0.1", 0, say=lambda _: None)
    alive = threading.Event()

    def serve() -> None:
        alive.set()
        try:
            server.serve_forever()
        except OSError:
            alive.clear()  # it was closed

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server
    assert thread.is_alive(), "the server has ended"
    server.close()


def converse(server: Server, *parts: bytes) -> bytes:
    """Say each part in turn, then nothing more; what it answered."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        sock.settimeout(10)
        for part in parts:
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while data := sock.recv(4096):
                said += data
        except ConnectionResetError:
            pass
        return said


def framed(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


COOKIE = b"c" * COOKIE_SIZE


@pytest.mark.parametrize(
    "parameters",
    [
        b"[" * 8000,
        b"{" * 8000,
        b'{"time": ' + b"9" * 5000 + b"}",
        b'{"congestion": "\\ud800"}',
        b'{"congestion": "no\\nsuch"}',
        b'{"time": NaN}',
        b'{"MSS": 1, "time": 1}',
        b"[1]",
        b"\xff\xfe",
        b"",
    ],
    ids=range(10),
)
def test_iperf3_s_parameters_on_the_wire(server: Server, parameters: bytes) -> None:
    assert converse(server, COOKIE, framed(parameters))[:2] == bytes([9, 0xFE])


@settings(deadline=None, max_examples=40)
@given(
    st.binary(max_size=200),
    st.one_of(
        # what is right begins a test, and waits for its streams
        JSON.filter(lambda v: not isinstance(v, dict) or isinstance(parsed(v), str)).map(
            lambda v: json.dumps(v).encode()
        ),
        st.binary(),
    ),
)
def test_iperf3_given_any_bytes(server: Server, first: bytes, text: bytes) -> None:
    converse(server, first)
    converse(server, COOKIE, framed(text[:4000]))
    assert converse(server, COOKIE, framed(b"nonsense"))[:2] == bytes([9, 0xFE])


def test_iperf3_s_results_are_any_json(server: Server) -> None:
    for results in (b"{}", b'{"streams": 5}', b'{"streams": [{"id": {}}, 7]}', b"[" * 9000):
        with socket.create_connection(("127.0.0.1", server.port), 10) as control:
            control.settimeout(20)
            said = control.makefile("rb", buffering=0)
            control.sendall(COOKIE + framed(b'{"time": 1, "tcp": true}'))
            assert [said.read(1), said.read(1)] == [b"\x09", b"\x0a"]
            with socket.create_connection(("127.0.0.1", server.port), 10) as data:
                data.sendall(COOKIE)
                assert [said.read(1), said.read(1)] == [b"\x01", b"\x02"]
                control.sendall(bytes([4]) + framed(results))
                assert said.read(1) == b"\x0d"
                data.close()
                assert said.read(1) in (b"\0", b"\xfe")
    assert converse(server, COOKIE, framed(b"nonsense"))[:2] == bytes([9, 0xFE])


@pytest.mark.parametrize("parameters", [b"{}", b'{"udp": true, "len": 1000}'])
def test_an_iperf3_client_that_leaves_is_not_waited_for(server: Server, parameters: bytes) -> None:
    """It asks for a test, and goes before it has made its streams."""
    said = converse(server, COOKIE, framed(parameters))
    assert said[:2] == bytes([9, 10])  # PARAM_EXCHANGE, CREATE_STREAMS
    assert converse(server, COOKIE, framed(b"nonsense"))[:2] == bytes([9, 0xFE])
