# SPDX-License-Identifier: MIT
"""Pipes: ZeroMQ between the processes, for a loop that owns its sockets (DESIGN section 6).

A process binds one PULL inbox; each of its neighbours connects one PUSH outlet to it, so every
directed edge has a pipe of its own (its own order, its own limit), and a process has one
descriptor to watch however many neighbours it has.

A ZeroMQ descriptor is edge-like: it says only "look again", and any call on the socket may
swallow the signal. So one task owns a socket, and reads until EAGAIN before it sleeps.
"""

from collections.abc import Callable
from typing import Final

import zmq

from skbus.codec import MAX_DATA, CodecError, Message, decode
from skbus.frames import readable, recv_frames, send1, send2

MAX_MESSAGES: Final = 1000
"""Messages (batches) that a pipe holds: `netdev_max_backlog`."""


class Inbox:
    """The PULL socket of a process."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        self._socket = context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, MAX_MESSAGES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_DATA)
        self._socket.bind(endpoint)
        self.refused = 0
        """Messages that were no messages."""
        self.last_error = ""

    def filenos(self) -> list[int]:
        """The descriptor to watch for reading."""
        return [int(self._socket.getsockopt(zmq.FD))]

    def drain(self, budget: int, deliver: Callable[[Message], None]) -> int:
        """Deliver up to `budget` messages; returns how many there were."""
        sock = self._socket
        for n in range(budget):
            if not readable(sock):  # EAGAIN's exception costs three times as much
                return n
            frames = recv_frames(sock)
            try:
                if len(frames) > 2:
                    raise CodecError(f"{len(frames)} frames, not 1 or 2")
                message = decode(*frames)
            except CodecError as e:
                self.refused += 1
                self.last_error = str(e)
                continue
            deliver(message)
        return budget

    def close(self) -> None:
        self._socket.close()


class Outlet:
    """The PUSH socket of one directed edge."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, MAX_MESSAGES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(endpoint)

    def send(self, meta: bytes, data: bytes) -> bool:
        """Send without blocking; False where the pipe is full."""
        try:
            if data:
                send2(self._socket, meta, data)
            else:
                send1(self._socket, meta)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
