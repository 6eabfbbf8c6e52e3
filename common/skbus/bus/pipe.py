# SPDX-License-Identifier: MIT
"""Pipes: ZeroMQ between the processes of a machine, without libzmq's threads
(docs/architecture.md, "Processes and pipes").

A process binds one inbox (PULL), and each of its neighbours connects one `Outlet` (PUSH) to it. So
every directed edge has a pipe of its own (its own order, its own limit). A process has one
descriptor to watch, however many neighbours it has. Applications connect a `Dealer` to a
`Listener` of type ROUTER, and their calls come the same way.

The protocol is ZMTP over a Unix socket (`skbus.bus.zmtp`), so that any ZeroMQ library can be at the
other end. libzmq itself is left out because it has a thread of its own on either side of each
pipe. That was two more wake-ups a message, and two thirds of a crossing's cost
(docs/performance.md).

As with libzmq, messages that are sent while nobody listens are kept, up to a limit. An outlet
connects again when the other side has been started anew. Unlike with libzmq, a descriptor is
readable as long as there is something to read.
"""

import contextlib
import errno
import io
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from skbus.bus.codec import MAX_DATA, CodecError, Message, decode
from skbus.bus.zmtp import Decoder, ZmtpError, encode_frame, encode_message, preamble

MAX_MESSAGES: Final = 1000
"""Messages (batches) that an outlet holds: `netdev_max_backlog`."""
_CHUNK: Final = 65536
_BACKLOG: Final = 4096
_RECONNECT_FIRST: Final = 0.01
_RECONNECT_MOST: Final = 0.2
_RECONNECT_SOON: Final = 0.001
"""Seconds until a message to send is a reason to try again: who asks may have just come back."""
_CLIENT_BUFFER: Final = 2 << 20
"""More bytes than the longest request; pages that are not used take no memory."""

_real_socket: Final = socket.socket
"""Kept, because `skbus.socket.install` replaces `socket.socket`."""


def _path(endpoint: str) -> str:
    scheme, _, path = endpoint.partition("://")
    if scheme != "ipc":
        raise ValueError(f"{endpoint}: a pipe needs an ipc:// endpoint")
    return path


class Peer:
    """The other end of one connection to a `Listener`."""

    __slots__ = ("decoder", "fd", "offset", "queue", "sock")

    def __init__(self, sock: socket.socket, decoder: Decoder) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.decoder = decoder
        self.queue: deque[bytes] = deque()
        self.offset = 0

    @property
    def identity(self) -> bytes:
        """The name that the peer gave itself."""
        return self.decoder.identity


class Listener:
    """A bound socket of one type, and all peers that are connected to it.

    epoll: where its descriptors are registered; its owner polls, and hands the events to `event`.
    limit: bytes in a message. named: peers give an identity; a peer with a taken one is refused.
    """

    def __init__(
        self, endpoint: str, socket_type: bytes, epoll: "select.epoll", limit: int, *, named: bool
    ) -> None:
        self._socket_type = socket_type
        self._epoll = epoll
        self._limit = limit
        self._named = named
        self._preamble = preamble(socket_type)
        self._peers: dict[int, Peer] = {}
        self._by_identity: dict[bytes, Peer] = {}
        self.refused = 0
        """Peers that were cut off because they do not speak ZMTP."""
        self.last_error = ""
        path = Path(_path(endpoint))
        path.unlink(missing_ok=True)
        self._sock = _real_socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._sock.bind(str(path))
        self._sock.listen(_BACKLOG)
        self._fd = self._sock.fileno()
        self._listening = True
        epoll.register(self._fd, select.EPOLLIN)

    def handles(self, fd: int) -> bool:
        """Is this descriptor one of ours?"""
        return fd in self._peers or fd == self._fd

    def identities(self) -> list[tuple[bytes, int]]:
        """The named peers: identity and descriptor."""
        return [(identity, peer.fd) for identity, peer in self._by_identity.items()]

    def event(self, fd: int, mask: int) -> tuple[Peer | None, list[list[bytes]], bool]:
        """Handle an event of a descriptor: (the peer, its messages, may there be more)."""
        peer = self._peers.get(fd)
        if peer is None:
            if fd == self._fd:
                self._accept()
            return None, [], False
        if mask & select.EPOLLOUT:
            self._flush(peer)
        if not mask & ~select.EPOLLOUT:
            return peer, [], False
        try:
            data = peer.sock.recv(_CHUNK)
        except BlockingIOError:
            return peer, [], False
        except OSError:
            data = b""
        if not data:
            self._end(peer)
            return peer, [], False
        decoder = peer.decoder
        known = decoder.ready
        try:
            messages = decoder.feed(data)
            if not known and decoder.ready and self._named:
                self._name(peer)
        except ZmtpError as e:
            self.refused += 1
            self.last_error = str(e)
            self._end(peer)
            return peer, [], False
        return peer, messages, len(data) == _CHUNK

    def send(self, identity: bytes, frames: tuple[bytes, ...], most: int) -> bool:
        """Send to one peer; False if it leaves more than `most` messages unread. A peer that has
        gone is sent nothing."""
        peer = self._by_identity.get(identity)
        if peer is None:
            return True
        message = encode_message(frames)
        if not peer.queue:
            try:
                sent = peer.sock.send(message)
            except BlockingIOError:
                sent = 0
            except OSError:
                return True  # the peer has gone; its descriptor tells
            if sent == len(message):
                return True
            peer.offset = sent
            self._epoll.modify(peer.fd, select.EPOLLIN | select.EPOLLOUT)
        peer.queue.append(message)
        return len(peer.queue) <= most

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    # Wait until a peer goes; the backlog holds new ones meanwhile.
                    self._epoll.unregister(self._fd)
                    self._listening = False
                    self.last_error = f"accept: {e.strerror}"
                return
            sock.setblocking(False)
            peer = Peer(sock, Decoder(self._socket_type, self._limit))
            self._peers[peer.fd] = peer
            self._epoll.register(peer.fd, select.EPOLLIN)
            try:
                sock.send(self._preamble)
            except OSError:
                self._end(peer)

    def _name(self, peer: Peer) -> None:
        if not peer.identity or peer.identity in self._by_identity:
            raise ZmtpError(f"identity {peer.identity!r} is taken or empty")
        self._by_identity[peer.identity] = peer

    def _flush(self, peer: Peer) -> None:
        peer.offset, done = _flush(peer.sock, peer.queue, peer.offset)
        if done:
            self._epoll.modify(peer.fd, select.EPOLLIN)

    def _end(self, peer: Peer) -> None:
        if self._peers.pop(peer.fd, None) is None:
            return
        if self._by_identity.get(peer.identity) is peer:
            del self._by_identity[peer.identity]
        self._epoll.unregister(peer.fd)
        peer.sock.close()
        if not self._listening:
            self._epoll.register(self._fd, select.EPOLLIN)
            self._listening = True

    def close(self) -> None:
        """Close all sockets; the name in the file system stays, for the next listener."""
        for peer in self._peers.values():
            peer.sock.close()
        self._peers.clear()
        self._by_identity.clear()
        self._sock.close()


def _flush(sock: socket.socket, queue: deque[bytes], offset: int) -> tuple[int, bool]:
    """Send as much of a queue as the socket takes. Returns how much of its first message has gone,
    and whether the whole queue has. A dead socket keeps its queue: its descriptor tells."""
    while queue:
        message = queue[0]
        try:
            offset += sock.send(memoryview(message)[offset:])
        except OSError:
            return offset, False
        if offset < len(message):
            return offset, False
        del queue[0]
        offset = 0
    return 0, True


class Inbox:
    """The PULL socket of a process.

    epoll: the caller's, who polls it and puts events of descriptors that are not the caller's into
    `ready`. This takes one system call less a message than an epoll descriptor of the inbox.
    """

    def __init__(self, endpoint: str, epoll: "select.epoll | None" = None) -> None:
        self._own = epoll is None
        self._epoll = epoll or select.epoll()
        self._listener = Listener(endpoint, b"PULL", self._epoll, MAX_DATA, named=False)
        self._refused = 0
        self.ready: list[tuple[int, int]] = []
        """Events (descriptor, mask) for the next `drain`."""

    @property
    def refused(self) -> int:
        """How many invalid messages came, and peers that do not speak ZMTP."""
        return self._refused + self._listener.refused

    @property
    def last_error(self) -> str:
        """Why the last of these was refused."""
        return self._listener.last_error

    def filenos(self) -> list[int]:
        """The inbox's own epoll descriptor, to watch for reading; none where `epoll` was given."""
        return [self._epoll.fileno()] if self._own else []

    def drain(self, budget: int, deliver: Callable[[Message], None]) -> int:
        """Deliver the messages that are there. Returns about how many there were; at least
        `budget` if there may be more."""
        n = 0
        more = False
        listener = self._listener
        if self._own:
            self.ready = self._epoll.poll(0, budget)
        ready, self.ready = self.ready, []
        for fd, mask in ready:
            _, messages, rest = listener.event(fd, mask)
            more |= rest
            for frames in messages:
                n += 1
                try:
                    if len(frames) == 1:
                        message = decode(frames[0])
                    elif len(frames) == 2:
                        message = decode(frames[0], frames[1])
                    else:
                        raise CodecError(f"{len(frames)} frames, not 1 or 2")
                except CodecError as e:
                    self._refused += 1
                    listener.last_error = str(e)
                    continue
                deliver(message)
        return max(n, budget) if more else min(n, budget - 1)

    def close(self) -> None:
        """Close the socket and all connections."""
        self._listener.close()
        if self._own:
            self._epoll.close()


class Watcher(Protocol):
    """Polls an outlet's descriptor."""

    def watch(self, fd: int, mask: int, outlet: "Outlet") -> None:
        """Register a descriptor, or change its mask. On events, call `outlet.event`."""
        ...

    def unwatch(self, fd: int) -> None: ...


class Outlet:
    """The PUSH socket of one directed edge."""

    def __init__(self, endpoint: str, watcher: Watcher) -> None:
        self._path = _path(endpoint)
        self._watcher = watcher
        self._sock: socket.socket | None = None
        self._decoder = Decoder(b"PUSH", 1 << 16)
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._wait = _RECONNECT_FIRST
        self.retry_at = 0.0
        """When to call `connect` again (seconds of `time.monotonic`); 0: connected."""
        self._tried = 0.0
        self.last_error = ""
        self.connect()

    @property
    def connected(self) -> bool:
        """Is the other side there, and ready?"""
        return self._sock is not None and self._decoder.ready

    def connect(self) -> None:
        """Try to reach the other side; `retry_at` says when to try again."""
        self._tried = monotonic()
        sock = _real_socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            sock.connect(self._path)
            sock.send(preamble(b"PUSH"))
        except OSError as e:
            sock.close()
            self.last_error = str(e)
            self._later()
            return
        self.retry_at = 0.0
        self._wait = _RECONNECT_FIRST
        self._decoder = Decoder(b"PUSH", 1 << 16)
        self._sock = sock
        self._watcher.watch(sock.fileno(), select.EPOLLIN, self)

    def send(self, meta: bytes, data: bytes) -> bool:
        """Send without blocking; False where the pipe is full."""
        queue = self._queue
        if len(queue) >= MAX_MESSAGES:
            return False
        message = encode_message((meta, data)) if data else encode_frame(meta)
        sock = self._sock
        if sock is not None and not queue and self._decoder.ready:
            try:
                sent = sock.send(message)
            except BlockingIOError:
                sent = 0
            except OSError as e:
                self._lost(str(e))
                queue.append(message)
                return True
            if sent == len(message):
                return True
            self._offset = sent
            self._watcher.watch(sock.fileno(), select.EPOLLIN | select.EPOLLOUT, self)
        queue.append(message)
        if sock is None and monotonic() >= self._tried + _RECONNECT_SOON:
            self._connect_early()
        return True

    def event(self, mask: int) -> None:
        """Handle an event of our descriptor: there is room, or the other side has gone."""
        sock = self._sock
        if sock is None:
            return
        if mask & select.EPOLLOUT:
            self._send_queued(sock)
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data = sock.recv(_CHUNK)
            if data:
                self._decoder.feed(data)
                self._send_queued(sock)
            else:
                self._lost("the other side has closed it")
        except BlockingIOError:
            pass
        except (OSError, ZmtpError) as e:
            self._lost(str(e))

    def _send_queued(self, sock: socket.socket) -> None:
        if self._decoder.ready:
            self._offset, done = _flush(sock, self._queue, self._offset)
            wanted = select.EPOLLIN if done else select.EPOLLIN | select.EPOLLOUT
            self._watcher.watch(sock.fileno(), wanted, self)

    def _lost(self, why: str) -> None:
        """The connection is lost: begin again with the message that may not have gone whole."""
        assert self._sock is not None
        self.last_error = why
        self._watcher.unwatch(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._offset = 0
        self._later()

    def _connect_early(self) -> None:
        """Try before `retry_at`, which stays where that is in vain."""
        wait, retry_at = self._wait, self.retry_at
        self.connect()
        if self._sock is None:
            self._wait, self.retry_at = wait, retry_at

    def _later(self) -> None:
        self.retry_at = monotonic() + self._wait
        self._wait = min(self._wait * 2, _RECONNECT_MOST)

    def close(self) -> None:
        """Close it; messages still queued are lost."""
        if self._sock is not None:
            self._sock.close()


class Dealer:
    """The DEALER socket of an application: sending blocks, receiving does not.

    OSError where the other side is not there.
    """

    __slots__ = ("_decoder", "_messages", "_out", "_raw", "_sock")

    def __init__(self, endpoint: str, identity: bytes, limit: int) -> None:
        self._decoder = Decoder(b"DEALER", limit)
        self._messages: deque[list[bytes]] = deque()
        self._sock = _real_socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.connect(_path(endpoint))
            self._sock.sendall(preamble(b"DEALER", identity))
            while not self._decoder.ready:
                self._feed(self._sock.recv(_CHUNK))
        except BaseException:
            self._sock.close()
            raise
        # The buffer remembers how much has gone when a signal's handler raises in mid-send.
        self._raw = io.FileIO(self._sock.fileno(), "wb", closefd=False)
        self._out = io.BufferedWriter(self._raw, _CLIENT_BUFFER)

    def fileno(self) -> int:
        """The descriptor that is readable when a message has come."""
        return self._sock.fileno()

    def send(self, *frames: bytes) -> None:
        """Send a message. If a handler raises meanwhile, its rest goes before the next message."""
        self.write(*frames)
        self.flush()

    def write(self, *frames: bytes) -> None:
        """Send a message, together with others, at the next `flush` at the latest."""
        self._out.write(encode_message(frames))

    def flush(self) -> None:
        """Send what was written."""
        while True:
            try:
                self._out.flush()
                return
            except BlockingIOError:  # gevent makes all sockets non-blocking
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                poll.poll()

    def poll(self, milliseconds: int) -> bool:
        """Wait until a message has come."""
        if self._messages:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def recv(self) -> list[bytes]:
        """Wait for a message. ConnectionError: there will be none."""
        while not self._messages:
            self._feed(self._sock.recv(_CHUNK))
        return self._messages.popleft()

    def recv_nowait(self) -> list[bytes] | None:
        """A message, or None where none has come. ConnectionError: there will be none."""
        while not self._messages:
            try:
                data = self._sock.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            self._feed(data)
        return self._messages.popleft()

    def _feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        try:
            self._messages += self._decoder.feed(data)
        except ZmtpError as e:
            raise ConnectionAbortedError(errno.ECONNABORTED, str(e)) from e

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._out.detach()  # sends the rest of an interrupted message
        self.abandon()

    def abandon(self) -> None:
        """Close it; the rest of an interrupted message is lost. Else a finaliser would send it, to
        the next owner of the descriptor's number."""
        self._raw.close()
        self._sock.close()
