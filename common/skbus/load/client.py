# SPDX-License-Identifier: MIT
"""The clients: what one request is, in each protocol.

A worker (`skbus.load.worker`) makes one Client for each connection of a flow and calls `request`
at the times that the scenario says. They use `trio.socket`, which is Linux's or, where the
worker has set skbus's socket factory, ours: the code is the same.

A scenario's own file adds a protocol by a subclass of Client with a `protocol`:

    class Visit(Client):
        protocol = "visit"

        async def request(self) -> None:
            await self.connect()
            await self.send(b"...")
            await self.receive(100)
            await self.close()
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Final

import trio
from trio import socket as tsocket

from skbus.load import wire
from skbus.load.http1 import MAX_HEAD, BadHttp, Chunks, Head, parse_head
from skbus.load.scenario import Flow

_RECV: Final = 65536
HTTP: Final = b"HTTP/"


class LoadFailure(Exception):
    """A request that failed otherwise than by an OSError; the text is the kind of error."""


@dataclass(slots=True)
class Tally:
    """What the clients of a flow have moved, besides their answers' times."""

    bytes_in: int = 0
    bytes_out: int = 0
    connects: int = 0


class Client:
    """One connection's worth of a flow. Subclasses say what a request is."""

    protocol: ClassVar[str]
    socket_type: ClassVar[int] = tsocket.SOCK_STREAM

    def __init__(
        self,
        flow: Flow,
        address: tuple[str, int],
        rand: Random,
        tally: Tally,
        connected: Callable[[float], None],
    ) -> None:
        self.flow = flow
        self.address = address
        self.rand = rand
        self.tally = tally
        self.sock: trio.socket.SocketType | None = None
        self.done = 0
        """requests over the present connection"""
        self._connected = connected

    async def request(self) -> None:
        """One request and its answer. OSError or LoadFailure if it fails; the worker closes the
        connection then, and the next request is to make a new one."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Connect, unless that has been done."""
        if self.sock is not None:
            return
        began = trio.current_time()
        sock = tsocket.socket(tsocket.AF_INET, self.socket_type)
        try:
            await sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
        self.done = 0
        self.tally.connects += 1
        self._connected(trio.current_time() - began)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self.sock is not None:
            sock, self.sock = self.sock, None
            sock.close()

    async def finish(self) -> None:
        """A request has been answered: close, if a connection serves no more of them."""
        self.done += 1
        if self.flow.per_connection and self.done >= self.flow.per_connection:
            await self.close()

    # ---- for the protocols -----------------------------------------------------------------

    def request_size(self) -> int:
        """Bytes of the next request, drawn from the flow's distribution."""
        return int(self.flow.request.draw(self.rand))

    def response_size(self) -> int:
        """Bytes of the next answer."""
        return int(self.flow.response.draw(self.rand))

    async def send(self, data: bytes | memoryview) -> None:
        """All of the data."""
        assert self.sock is not None
        send = self.sock.send
        at = await send(data)
        self.tally.bytes_out += at
        if at < len(data):
            view = memoryview(data)
            while at < len(data):
                sent = await send(view[at:])
                at += sent
                self.tally.bytes_out += sent

    async def receive_some(self, most: int = _RECV) -> bytes:
        """At least one byte; LoadFailure("eof") if the server has ended."""
        assert self.sock is not None
        data = await self.sock.recv(most)
        if not data:
            raise LoadFailure("eof")
        self.tally.bytes_in += len(data)
        return data

    async def receive(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = await self.receive_some(min(count, _RECV)) if count else b""
        if len(data) == count:
            return data
        parts = [data]
        left = count - len(data)
        while left:
            parts.append(await self.receive_some(min(left, _RECV)))
            left -= len(parts[-1])
        return b"".join(parts)

    async def receive_pattern(self, count: int, pace: "Pace | None" = None) -> None:
        """So many bytes of the pattern; LoadFailure("corrupt") where they are others."""
        at = 0
        most = pace.most if pace else wire.CHUNK
        while at < count:
            data = await self.receive_some(min(most, count - at))
            if self.flow.verify and data != wire.piece(at, len(data)):
                raise LoadFailure("corrupt")
            at += len(data)
            if pace is not None:
                await pace.wait(len(data))

    def pace(self) -> "Pace | None":
        """For a flow with a `read_rate`."""
        return Pace(self.flow.read_rate) if self.flow.read_rate else None


class Pace:
    """Keeps a reader slow."""

    def __init__(self, bits: float) -> None:
        self._bits = bits
        self._due = trio.current_time()
        self.most = max(1, min(wire.CHUNK, int(bits / 8 / 10)))
        """Bytes to take at a time: about a tenth of a second's."""

    async def wait(self, got: int) -> None:
        """So many bytes have been taken: sleep until the next ones may be."""
        self._due = max(self._due, trio.current_time() - 1.0) + got * 8 / self._bits
        await trio.sleep_until(self._due)


class Echo(Client):
    """A request of some size, an answer of some size, over a connection that stays open."""

    protocol = "echo"

    async def request(self) -> None:
        await self.connect()
        size, answer = self.request_size(), self.response_size()
        await self.send(wire.ECHO.pack(size, answer) + wire.payload(size))
        if answer <= _RECV:
            if await self.receive(answer) != wire.payload(answer) and self.flow.verify:
                raise LoadFailure("corrupt")
        else:
            await self.receive_pattern(answer)
        await self.finish()


class ConnectClose(Echo):
    """The same over a new connection each time: the connection is part of the request."""

    protocol = "connect-close"

    async def request(self) -> None:
        await self.close()
        await super().request()
        await self.close()


class Http(Client):
    """A request with keep-alive: against the built-in server, or any other."""

    protocol = "http"
    _raw = b""
    _parsed: Head

    async def request(self) -> None:
        await self.connect()
        flow = self.flow
        path = flow.path
        wanted = -1
        if path is None:
            wanted = self.response_size()
            path = f"/bytes/{wanted}"
        host = f"{self.address[0]}:{self.address[1]}"
        lines = f"{flow.method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: skbus-load\r\n"
        extra = self.request_size() - len(lines) - 2 if flow.path is None else 0
        if extra > 9:  # make the request as long as the flow wants it
            lines += f"X-Pad: {'x' * (extra - 9)}\r\n"
        await self.send(f"{lines}\r\n".encode())
        try:
            keep = await self._answer(wanted)
        except BadHttp as e:
            raise LoadFailure(str(e)) from None
        await self.finish()
        if not keep:
            await self.close()

    async def _answer(self, wanted: int) -> bool:
        """Read the response; whether the connection may be used again."""
        pace = self.pace()
        data = await self.receive_some(pace.most if pace else _RECV)
        head, data = await self._head(data)
        while head.interim:  # 100, 103: the response itself is still to come
            head, data = await self._head(data)
        check = wanted >= 0 and self.flow.verify
        if head.length >= 0:
            if len(data) > head.length:
                raise LoadFailure("more than Content-Length")
            if check and data != wire.piece(0, len(data)):
                raise LoadFailure("corrupt")
            await self._body(head.length, len(data), check, pace)
            size = head.length
        else:
            size = await self._open_body(head.chunked, data, check, pace)
        if head.status >= 400 or head.status < 200:
            raise LoadFailure(f"HTTP {head.status}")
        if wanted >= 0 and size != wanted and self.flow.method != "HEAD":
            raise LoadFailure("corrupt")
        return head.keep

    async def _head(self, data: bytes) -> tuple[Head, bytes]:
        """A head, and what came behind it."""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEAD or not HTTP.startswith(data[: len(HTTP)]):
                raise LoadFailure("no HTTP")
            data += await self.receive_some()
        raw = data[:end]
        if raw != self._raw:  # servers say the same again and again
            self._parsed = parse_head(raw, self.flow.method)
            self._raw = raw
        return self._parsed, data[end + 4 :]

    async def _body(self, length: int, got: int, check: bool, pace: Pace | None) -> None:
        most = pace.most if pace else wire.CHUNK
        while got < length:
            data = await self.receive_some(min(most, length - got))
            if check and data != wire.piece(got, len(data)):
                raise LoadFailure("corrupt")
            got += len(data)
            if pace is not None:
                await pace.wait(len(data))

    async def _open_body(self, chunked: bool, data: bytes, check: bool, pace: Pace | None) -> int:
        """A body of which the head does not say the length: in chunks, or until the connection
        ends. Its length."""
        most = pace.most if pace else wire.CHUNK
        chunks = Chunks() if chunked else None
        size = 0
        while True:
            body = chunks.feed(data) if chunks is not None else data
            for at in range(0, len(body) if check else 0, wire.CHUNK):
                part = body[at : at + wire.CHUNK]
                if part != wire.piece(size + at, len(part)):
                    raise LoadFailure("corrupt")
            size += len(body)
            if pace is not None:
                await pace.wait(len(data))
            if chunks is not None and chunks.done:
                if chunks.rest:
                    raise LoadFailure("more than its chunks")
                return size
            assert self.sock is not None
            data = await self.sock.recv(most)
            self.tally.bytes_in += len(data)
            if not data:
                if chunks is not None:
                    raise LoadFailure("eof")
                return size


class Bulk(Client):
    """A transfer of `response` bytes to the client, or of `request` bytes from it, is a request."""

    protocol = "bulk"

    async def request(self) -> None:
        await self.connect()
        if self.flow.direction == "down":
            size = self.response_size()
            await self.send(wire.BULK.pack(b"B", b"d", size))
            await self.receive_pattern(size, self.pace())
        else:
            size = self.request_size()
            await self.send(wire.BULK.pack(b"B", b"u", size))
            at = 0
            while at < size:
                part = wire.piece(at, min(wire.CHUNK, size - at))
                await self.send(part)
                at += len(part)
            if await self.receive(1) != b"\x00":
                raise LoadFailure("corrupt")
        await self.finish()


class Udp(Client):
    """A datagram each way. One that does not come back within the flow's timeout is an error."""

    protocol = "udp"
    socket_type = tsocket.SOCK_DGRAM

    async def request(self) -> None:
        await self.connect()
        assert self.sock is not None
        number = self.rand.getrandbits(32)
        size = min(self.request_size(), wire.MAX_DATAGRAM)
        answer = min(self.response_size(), wire.MAX_DATAGRAM)
        await self.send(wire.UDP.pack(number, answer) + wire.payload(size))
        while True:
            # Whatever is left of an earlier request, which took too long, is passed over.
            data = await self.sock.recv(65536)
            self.tally.bytes_in += len(data)
            if data[:4] == number.to_bytes(4, "big"):
                break
        if self.flow.verify and data[4:] != wire.payload(answer):
            raise LoadFailure("corrupt")
        await self.finish()


BUILT_IN: Final[dict[str, type[Client]]] = {
    c.protocol: c for c in (Echo, ConnectClose, Http, Bulk, Udp)
}


def error_kind(error: BaseException) -> str:
    """What an error is called in the report: refused, reset, timeout, EADDRNOTAVAIL, ..."""
    if isinstance(error, LoadFailure):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, (TimeoutError, trio.TooSlowError)):
        return "timeout"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, f"errno {error.errno}")
    return type(error).__name__
