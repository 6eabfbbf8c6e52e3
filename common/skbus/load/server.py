# SPDX-License-Identifier: MIT
"""The built-in servers at the other end of the load: echo, http, bulk and udp, in one process.

`skbus.load.runner` starts it on the side on which no clients are, as

    python -m skbus.load.child server '{"side": "skbus", "address": "0.0.0.0", ...}'

It prints one JSON line with its ports when it listens, and ends with its standard input.
"""

import errno
import json
import sys
from contextlib import suppress
from typing import Any, Final

import trio
from trio import socket as tsocket

from skbus.load import place, wire
from skbus.load.http1 import tokens

_BACKLOG: Final = 4096
_HEAD: Final = 16384
_CLOSED: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Reader:
    """A connection with what has been received and not been asked for yet."""

    __slots__ = ("buffer", "stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def some(self, most: int = 65536) -> bytes:
        """What is there; b"" at the end."""
        if self.buffer:
            data, self.buffer = self.buffer[:most], self.buffer[most:]
            return data
        return bytes(await self.stream.receive_some(most))

    async def exactly(self, count: int) -> bytes | None:
        """So many bytes; None if the client ends before."""
        data = await self.some(count)
        while len(data) < count:
            more = await self.some(min(65536, count - len(data)))
            if not more:
                return None
            data += more
        return data

    async def head(self) -> bytes | None:
        """Up to an empty line, as HTTP's heads go; None if the client ends before."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > _HEAD:
                return None
            more = bytes(await self.stream.receive_some(65536))
            if not more:
                return None
            self.buffer += more
        head, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
        return head

    async def skip(self, count: int, check: bool = False) -> bool | None:
        """Throw so many bytes away; whether they were the pattern's, None if they ended early."""
        at = 0
        same = True
        while at < count:
            data = await self.some(min(wire.CHUNK, count - at))
            if not data:
                return None
            if check and same:
                same = data == wire.piece(at, len(data))
            at += len(data)
        return same


async def echo(reader: Reader) -> None:
    """Each request says how long its answer shall be."""
    while (head := await reader.exactly(wire.ECHO.size)) is not None:
        size, answer = wire.ECHO.unpack(head)
        if max(size, answer) > wire.MAX_ECHO or await reader.skip(size) is None:
            return
        if answer <= wire.CHUNK:
            await reader.stream.send_all(wire.payload(answer))
        else:
            await _send_pattern(reader, answer)


async def bulk(reader: Reader) -> None:
    """Bytes one way, as many as were asked for."""
    while (head := await reader.exactly(wire.BULK.size)) is not None:
        magic, way, size = wire.BULK.unpack(head)
        if magic != b"B":
            return
        if way == b"d":
            await _send_pattern(reader, size)
        else:
            same = await reader.skip(size, check=True)
            if same is None:
                return
            await reader.stream.send_all(b"\x00" if same else b"\x01")


async def http(reader: Reader) -> None:
    """GET /bytes/N gives N bytes of the pattern, HEAD none of them; keep-alive."""
    while (head := await reader.head()) is not None:
        line, _, rest = head.partition(b"\r\n")
        words = line.split()
        size = _asked(words)
        options = tokens(rest.lower(), b"connection")
        keep = b"close" not in options
        if words[-1:] == [b"HTTP/1.0"]:
            keep = b"keep-alive" in options
        if size is None:
            await reader.stream.send_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\n\r\n" % size
        )
        if line.startswith(b"HEAD "):
            await reader.stream.send_all(answer)
        elif size <= wire.CHUNK:
            await reader.stream.send_all(answer + wire.payload(size))
        else:
            await reader.stream.send_all(answer)
            await _send_pattern(reader, size)
        if not keep:
            return


def _asked(words: list[bytes]) -> int | None:
    if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
        return None
    if words[1] == b"/":
        return 1024
    number = words[1].removeprefix(b"/bytes/")
    return int(number) if number.isdigit() and len(number) < 13 else None


async def _send_pattern(reader: Reader, size: int) -> None:
    at = 0
    while at < size:
        part = wire.piece(at, min(wire.CHUNK, size - at))
        await reader.stream.send_all(part)
        at += len(part)


async def udp(sock: tsocket.SocketType) -> None:
    """Each datagram says how long its answer shall be."""
    while True:
        try:
            data, peer = await sock.recvfrom(65536)
        except ConnectionError:
            continue  # an ICMP error about an earlier answer
        if len(data) < wire.UDP.size:
            continue
        _, answer = wire.UDP.unpack_from(data)
        if answer > wire.MAX_DATAGRAM:
            continue
        try:
            await sock.sendto(data[:4] + wire.payload(answer), peer)
        except OSError:
            continue  # a full buffer: as good as lost on the way


_HANDLERS: Final = {"echo": echo, "http": http, "bulk": bulk}
PORTS: Final = {"echo": 7007, "http": 7080, "bulk": 7009, "udp": 7007}


async def _serve(listener: tsocket.SocketType, kind: str) -> None:
    handler = _HANDLERS[kind]

    async def handle(sock: tsocket.SocketType) -> None:
        stream = trio.SocketStream(sock)
        async with stream:
            with suppress(*_CLOSED):
                await handler(Reader(stream))

    async with trio.open_nursery() as nursery:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as e:
                # No descriptors left, or a connection that ended before we had it.
                if e.errno in (9, 22):
                    raise
                await trio.sleep(0.01)
                continue
            nursery.start_soon(handle, sock)


def _why(error: OSError, kind: str, port: int) -> str:
    """Why it cannot listen, and what to do."""
    way = "UDP" if kind == "udp" else "TCP"
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen at {way} port {port} ({kind}): {error.strerror}"
    return (
        f"cannot listen at {way} port {port} ({kind}): another program has that port, perhaps "
        "another load. End it, or say host and port of a server that runs in each flow"
    )


async def main(job: dict[str, Any]) -> None:
    """Listen, say where, serve until standard input ends."""
    place.use_side(job["side"])
    ports: dict[str, int] = {}
    async with trio.open_nursery() as nursery:
        for kind, fixed in PORTS.items():
            type_ = tsocket.SOCK_DGRAM if kind == "udp" else tsocket.SOCK_STREAM
            sock = tsocket.socket(tsocket.AF_INET, type_)
            if kind != "udp":
                sock.setsockopt(tsocket.SOL_SOCKET, tsocket.SO_REUSEADDR, 1)
            try:
                await sock.bind((job["address"], 0 if job["any_port"] else fixed))
            except OSError as e:
                sock.close()
                sys.stdout.write(json.dumps({"error": _why(e, kind, fixed)}) + "\n")
                nursery.cancel_scope.cancel()
                return
            ports[kind] = sock.getsockname()[1]
            if kind == "udp":
                nursery.start_soon(udp, sock)
            else:
                sock.listen(_BACKLOG)
                nursery.start_soon(_serve, sock, kind)
        sys.stdout.write(json.dumps({"ports": ports}) + "\n")
        sys.stdout.flush()
        stdin = trio.lowlevel.FdStream(0)
        while await stdin.receive_some():
            pass
        nursery.cancel_scope.cancel()


def start(job: dict[str, Any]) -> None:
    """Run the servers; called by `skbus.load.child`."""
    trio.run(main, job)
