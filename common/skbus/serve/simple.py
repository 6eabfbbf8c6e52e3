# SPDX-License-Identifier: MIT
"""The small servers of inetd on our stack: echo (RFC 862), discard (RFC 863), chargen (RFC 864).

Each serves TCP and UDP on the same port.
"""

import errno
from collections.abc import Callable
from typing import Any, Final

import trio

from skbus import socket
from skbus.serve.loop import Connection, ServerLoop
from skbus.trio import SocketType

_PRINTABLE: Final = bytes(range(0x20, 0x7F))
CHARGEN: Final = b"".join(
    (_PRINTABLE + _PRINTABLE)[i : i + 72] + b"\r\n" for i in range(len(_PRINTABLE))
)
"""RFC 864's pattern: lines of 72 characters, each beginning one further."""
_CHARGEN_BLOCK: Final = memoryview(CHARGEN * 128)


class Echo(Connection):
    """What comes goes back."""

    def received(self, data: bytes) -> None:
        if not data:
            self.finish()
            return
        self.send(data)
        self.recv()


class Discard(Connection):
    """What comes is thrown away."""

    def received(self, data: bytes) -> None:
        if data:
            self.recv()
        else:
            self.close()


class Chargen(Connection):
    """Characters without end; what comes is thrown away."""

    def start(self) -> None:
        self.send(_CHARGEN_BLOCK)
        self.recv()

    def sent(self) -> None:
        self.send(_CHARGEN_BLOCK)

    def received(self, data: bytes) -> None:
        if data:
            self.recv()
        else:
            self.close()


Answer = Callable[[bytes], bytes | None]


async def _datagrams(host: str, port: int, answer: Answer) -> None:
    with SocketType(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        await sock.bind((host, port))
        while True:
            try:
                data, sender = await sock.recvfrom(65535)
                reply = answer(data)
                if reply is not None:
                    await sock.sendto(reply, sender)
            except OSError as e:
                if e.errno in (errno.ENETDOWN, errno.EBADF):
                    raise  # the stack has ended
                # An ICMP error about an answer, or no route for it: the next one may go well.
                await trio.lowlevel.checkpoint()


async def _serve(
    host: str, port: int, connection: type[Connection], answer: Answer, task_status: Any
) -> None:
    loop = ServerLoop(host, port, connection)
    failures: list[OSError] = []

    async def datagrams() -> None:
        try:
            await _datagrams(host, loop.port, answer)
        except OSError as e:
            failures.append(e)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(datagrams)
        try:
            await loop.run(task_status=task_status)
        except OSError as e:
            failures.append(e)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def echo(host: str, port: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """RFC 862, until cancelled."""
    await _serve(host, port, Echo, lambda data: data, task_status)


async def discard(host: str, port: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """RFC 863, until cancelled."""
    await _serve(host, port, Discard, lambda data: None, task_status)


async def chargen(host: str, port: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """RFC 864, until cancelled."""
    await _serve(host, port, Chargen, lambda data: CHARGEN[:512], task_status)
