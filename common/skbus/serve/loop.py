# SPDX-License-Identifier: MIT
"""The loop of the sample servers: many connections, one DEALER, no task for each.

An application may speak to the socket layer through `skbus.socket` or trio. This is the third way,
for servers that count microseconds. Calls are submitted to a `skbus.app.client.Mux`, and their
callbacks run when the replies are there. trio only waits, once for each batch.
"""

import contextlib
import errno
import select
from collections.abc import Callable
from typing import Any, Final

import trio

from skbus import socket
from skbus.app.client import INLINE_MAX, Client, Mux, get_client, os_error
from skbus.core.syscall import POST_COST

_BACKLOG: Final = 1024
_ACCEPTS: Final = 4
"""accept calls that wait at the same time"""
_RECV: Final = 1 << 18
_MAX_SENDS: Final = 4
"""Sends of one connection that are not answered yet, before it reads no more."""


class Connection:
    """One accepted connection. Subclasses say what to do with what arrives."""

    def __init__(self, loop: "ServerLoop", fd: int) -> None:
        self.loop = loop
        self.fd = fd
        self.closed = False
        self.credit = 0
        """Bytes that may be posted: sent without a reply (`skbus.core.syscall`)."""
        self._closing = False
        self._sends = 0
        self._receiving = False

    def start(self) -> None:
        """The connection is there."""
        self.recv()

    def received(self, data: bytes) -> None:
        """Bytes have come; b"" at their end."""
        raise NotImplementedError

    def sent(self) -> None:
        """A send has been taken."""
        if not self._receiving and not self._closing and self._sends < _MAX_SENDS:
            self.recv()

    # ---- what it can do ------------------------------------------------------------------

    def recv(self) -> None:
        """Ask for more bytes, unless too much is to be sent already."""
        if self.closed or self._receiving or self._sends >= _MAX_SENDS:
            return
        self._receiving = True
        self.loop.mux.submit(self._received, "recvmsg", self.fd, _RECV, 0, 0, -1)

    def _received(self, err: int, result: Any, data: bytes) -> None:
        self._receiving = False
        if err:
            self.close()
            return
        try:
            payload = self.loop.client.collect(result[0], data)
        except OSError:
            self.close()
            return
        if not self.closed:
            self.received(payload)

    def send(self, data: bytes | memoryview) -> None:
        """Send all of it; `sent` is called when it has been taken."""
        cost = len(data) + POST_COST
        if cost <= self.credit and len(data) <= INLINE_MAX and data and not self._sends:
            self.credit -= cost
            self.loop.mux.post("post", self.fd, bytes(data))
            self.sent()
            return
        self._sends += 1
        self._send(memoryview(data))

    def _send(self, view: memoryview) -> None:
        inline, places = self.loop.client.put(view)
        rest = view[len(inline) + sum(p[4] for p in places) :]

        def answered(err: int, result: Any, _: bytes) -> None:
            if not err:
                self.credit = result[1] if isinstance(result, tuple) else 0
            if err:
                self._sends -= 1
                self.close()
            elif rest and not self.closed:
                self._send(rest)
            else:
                self._sends -= 1
                if self._closing and not self._sends:
                    self.close()
                elif not self.closed:
                    self.sent()

        self.loop.mux.submit(answered, "sendmsg", self.fd, 0, None, places, (), -1, data=inline)

    def finish(self) -> None:
        """Close when all has been sent."""
        self._closing = True
        if not self._sends:
            self.close()

    def close(self) -> None:
        """Close now."""
        if not self.closed:
            self.closed = True
            if self.credit:
                self.loop.mux.post("close", self.fd)
            else:
                self.loop.mux.submit(_ignore, "close", self.fd)
            self.loop.forget(self)


def _ignore(err: int, result: Any, data: bytes) -> None:
    pass


class ServerLoop:
    """A listener and its connections."""

    def __init__(
        self, host: str, port: int, connection: Callable[["ServerLoop", int], Connection]
    ) -> None:
        self.client: Client = get_client()
        self.mux = Mux(self.client, credit=True)
        self.listener = socket.create_server((host, port), backlog=_BACKLOG)
        self.connections: set[Connection] = set()
        self._accepts = 0
        self._postponed = 0
        self._failed = 0
        self._stopping = False
        self._connection = connection
        self._epoll = select.epoll()
        self._epoll.register(self.mux.fileno(), select.EPOLLIN)
        self._epoll.register(self.client.life.fileno(), select.EPOLLRDHUP)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.listener.getsockname()[1])

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. OSError (ENETDOWN) when the stack ends."""
        try:
            for _ in range(_ACCEPTS):
                self._accept()
            task_status.started(self)
            life = self.client.life.fileno()
            while True:
                while self.mux.drain():
                    pass
                if self._failed:
                    raise os_error(self._failed, "the listener is gone")
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                if any(fd == life for fd, _ in self._epoll.poll(0)):
                    raise os_error(errno.ENETDOWN, "the socket layer has ended")
        finally:
            self._stop()

    def _stop(self) -> None:
        """Leave nothing open: the listener, those just accepted, and the others."""
        self._stopping = True
        try:
            self.listener.close()
            for connection in tuple(self.connections):
                connection.closed = True
                self._close_now(connection.fd)
            for _ in range(100):
                self.mux.drain()
                if not self._accepts:
                    break
                self._epoll.poll(0.01)
        finally:
            self._epoll.close()
            self.mux.close()

    def _close_now(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self.client.call("close", fd)

    def forget(self, connection: Connection) -> None:
        """A connection has been closed."""
        self.connections.discard(connection)
        while self._postponed:
            self._postponed -= 1
            self._accept()

    def _accept(self) -> None:
        self._accepts += 1
        self.mux.submit(self._accepted, "accept4", self.listener._fd, 0, -1)

    def _accepted(self, err: int, result: Any, _: bytes) -> None:
        self._accepts -= 1
        if self._stopping:
            if not err:
                self._close_now(result[0])
            return
        if err in (errno.EMFILE, errno.ENFILE) and self.connections:
            self._postponed += 1  # until one of ours closes
            return
        if err in (errno.EBADF, errno.EINVAL, errno.ENETDOWN):
            self._failed = err
            return
        self._accept()
        if err:
            return
        connection = self._connection(self, result[0])
        connection.credit = result[2] if len(result) > 2 else 0
        self.connections.add(connection)
        connection.start()
