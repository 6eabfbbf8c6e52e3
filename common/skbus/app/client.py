# SPDX-License-Identifier: MIT
"""How an application's process speaks to the socket layer: identity, channels, its pool region.

`skbus.socket` (blocking) and `skbus.trio` stand on this. A process has one `Client` for each run
directory it uses. It announces its id on the *life connection*, a Unix socket that it keeps open
until it ends. So the socket layer knows the moment at which the process is gone, and closes its
sockets.

A blocking call takes a `Channel` (a DEALER of its own) from a free list, asks, and waits. There is
no background thread, and any number of threads may call at once. A `Mux` sends many calls through
one DEALER, and hands out the replies: for event loops.

Bytes of a stream, and its close, may be *posted* where the socket layer has given credit for that:
no reply follows. Each request tells how many posts went before it, so none overtakes a post by
another channel (`skbus.core.syscall`).

A datagram may be posted, too: written to the post pipe, without waiting for a reply. The socket
layer makes that pipe when it is asked on the life connection. It reads the pipe before it looks at
any call of ours, and before it notes our end. So a post comes before all that any thread does after
it, and the kernel keeps it for a process that is killed. Many posts are read at once.

A call that is interrupted (Ctrl-C, a cancelled task) is cancelled in the socket layer, and its
reply awaited. Either the cancelling was in time, and nothing happened, or the result has come after
all. Then it is handed over, so that no byte and no connection is ever lost.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skbus.app.life import Life
from skbus.bus.pipe import Dealer
from skbus.bus.pooldir import PoolDir
from skbus.bus.rundir import RunDir, RunDirError
from skbus.core.pool import Allocator, Pool, PoolError
from skbus.core.skbuff import Place
from skbus.core.syscall import (
    CLIENT_ID_LEN,
    MAX_DATA,
    MAX_META,
    POSTED,
    SYS_ABI,
    decode_reply,
    encode_ordered,
    encode_request,
)

_real_socket: Final = socket.socket
"""Kept, because `skbus.socket.install` replaces the name."""

_WELCOME: Final = struct.Struct("=II")
_POLL_OPEN: Final = struct.Struct("=iI")
_POST_OPEN: Final = -1
"""Instead of a descriptor: the post pipe is asked for."""

REGION_CLASSES: Final = ((2048, 256), (16384, 128), (66560, 128), (262144, 32), (1048576, 32))
"""A client's region: 52 MB of address space; memory is reserved as it is needed. The slots are big
because every layer works for each place of a packet (docs/performance.md)."""
INLINE_MAX: Final = 4096
"""Bytes up to which payload travels in the request."""
PUT_MAX: Final = 1048576
"""Bytes that one request names."""
CHUNKS: Final = (1048576, 262144, 65536)
"""Bytes that go into one slot: the most that there is a slot for."""

_REPLY_MAX: Final = MAX_DATA + MAX_META
"""Bytes in a reply."""

Rescue = Callable[[Any, bytes], None]
"""Takes the result of a call that was interrupted when it had come already."""
Nothing = Callable[[], None]
"""Told of a call that was interrupted in time: it has done nothing."""


def os_error(err: int, text: object = None) -> OSError:
    """The OSError of an errno, of the right subclass; with the socket layer's words, if any."""
    return OSError(err, text if isinstance(text, str) else os.strerror(err))


class Client:
    """This process, as the socket layer of one stack knows it."""

    def __init__(self, run: RunDir) -> None:
        try:
            run.require()
        except RunDirError as e:
            raise OSError(errno.ENETDOWN, str(e)) from e
        self.run = run
        self.pid = os.getpid()
        # A zero at the beginning is ZeroMQ's own.
        self.id = b"C" + os.urandom(CLIENT_ID_LEN - 1)
        self.pool: Pool = PoolDir(run.pool_dir).pool()
        self.life = self._connect_life()
        self.forked = False
        self._channels: list[Channel] = []
        self._next_channel = 0
        self.posted = 0
        """How many posts have gone through our channels."""
        self._lock = threading.RLock()
        self._region: Allocator | None = None
        self._region_failed = False
        self._token = 0
        self.post_fd = -1
        """The post pipe; -1 where there is none (yet)."""
        self._post_fds: list[int] = []
        """That, and its other end: so it breaks for nobody, and there is no SIGPIPE."""
        self._post_failed = False
        self.poll_fds: dict[int, int] = {}
        """descriptor of the system -> descriptor of ours, for `socket(fileno=...)`"""

    def _connect_life(self) -> socket.socket:
        life = Life(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            life.connect(str(self.run.life))
            life.sendall(self.id)
            answer = _recv_exactly(life, _WELCOME.size)
        except OSError as e:
            life.close()
            raise OSError(
                errno.ENETDOWN,
                f"no socket layer answers in {self.run.path} ({e.strerror or e}): is the stack up?",
            ) from e
        abi, err = _WELCOME.unpack(answer)
        if abi != SYS_ABI or err:
            life.close()
            raise OSError(
                err or errno.EPROTO,
                f"the socket layer speaks system call ABI {abi}, this library {SYS_ABI}",
            )
        return life

    def identity(self) -> bytes:
        """A new identity for a DEALER of this process."""
        with self._lock:
            self._next_channel += 1
            return self.id + self._next_channel.to_bytes(4, "big")

    def dealer(self) -> Dealer:
        """A new DEALER, connected. OSError if the socket layer is gone."""
        try:
            return Dealer(self.run.syscall_endpoint, self.identity(), _REPLY_MAX)
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise _gone(self.run.path) from e

    # ---- calls ---------------------------------------------------------------------------

    def call(
        self,
        name: str,
        *args: object,
        data: bytes = b"",
        rescue: Rescue | None = None,
        nothing: Nothing | None = None,
    ) -> tuple[Any, bytes]:
        """One system call: (result, data). OSError as the call gives it.

        Where it is interrupted, `rescue` or `nothing` is told; none of them if the socket layer
        does not answer.
        """
        channel = self._channel()
        try:
            err, result, reply = channel.call(name, args, data, rescue, nothing)
        finally:
            if channel.usable:
                self._channels.append(channel)
            else:
                channel.close()
        if err:
            raise os_error(err, result)
        return result, reply

    def post(self, name: str, fd: int, data: bytes = b"") -> None:
        """A call without a reply (`skbus.core.syscall.POSTABLE`). OSError if the socket layer is
        gone."""
        channel = self._channel()
        try:
            channel.post(name, (fd,), data)
        except BaseException:
            channel.close()
            raise
        self._channels.append(channel)
        self.has_posted()

    def _channel(self) -> "Channel":
        """A channel that nobody uses. EBADF in a child of fork."""
        if self.forked:
            raise OSError(errno.EBADF, "this socket was made before fork(), by the parent")
        try:
            return self._channels.pop()
        except IndexError:
            return Channel(self)

    def has_posted(self, posts: int = 1) -> None:
        """Posts have gone. Not before that: a request that tells of them waits for them."""
        with self._lock:
            self.posted += posts

    def alive(self) -> bool:
        """Is the socket layer that knows us still there?"""
        poll = select.poll()
        poll.register(self.life, 0)
        return not poll.poll(0)

    # ---- payload -------------------------------------------------------------------------

    def put(self, data: memoryview) -> tuple[bytes, tuple[Place, ...]]:
        """Lay the beginning of `data` down for a request: (inline bytes, places).

        Small payload is inline. More goes into our region of the pool; if that is full, up to
        1 MB is inline. The request may thus carry less than all of it.
        """
        if len(data) <= INLINE_MAX:
            return bytes(data), ()
        with self._lock:
            region = self._region
            if region is None and not self._region_failed:
                region = self._make_region()
            places: list[Place] = []
            if region is not None:
                at = 0
                size = min(len(data), PUT_MAX)
                for chunk in CHUNKS:
                    while at < size:
                        part = data[at : min(at + chunk, size)]
                        place = region.put(part, must=len(part) <= CHUNKS[-1])
                        if place is None:
                            break
                        places.append(place)
                        at += place[4]
        if places:
            return b"", tuple(places)
        return bytes(data[:MAX_DATA]), ()

    def forget(self, places: tuple[Place, ...]) -> None:
        """Places of a request that was never sent: their slots are ours again."""
        for place in places:
            self.pool.free(place)

    def _make_region(self) -> Allocator | None:
        pool_dir = PoolDir(self.run.pool_dir)
        for _ in range(16):
            # even: the odd ones are the layers' own
            number = (int.from_bytes(os.urandom(4), "big") | 1 << 31) & ~1
            try:
                region = pool_dir.create(number, REGION_CLASSES)
            except FileExistsError:
                continue
            except OSError:
                break  # no space, no right: inline works too
            try:
                self.call("region", number)
            except OSError:
                pool_dir.unlink(number)
                break
            self._region = region
            self.pool.regions[number] = region
            return region
        self._region_failed = True
        return None

    def collect(self, parts: tuple[Any, ...], data: bytes) -> bytes:
        """The payload of a reply: lent places are copied and given back. EIO if they are gone."""
        if not parts:
            return b""
        if len(parts) == 1 and type(parts[0]) is int:
            return data
        out: list[bytes | memoryview] = []
        at = 0
        pool = self.pool
        try:
            for part in parts:
                if type(part) is int:
                    out.append(data[at : at + part])
                    at += part
                else:
                    out.append(pool.view(part))
            return b"".join(out)
        except PoolError as e:
            raise OSError(errno.EIO, f"received bytes are gone: {e}") from e
        finally:
            out.clear()
            for part in parts:
                if type(part) is not int:
                    pool.free(part)

    def collect_into(self, parts: tuple[Any, ...], data: bytes, into: memoryview) -> int:
        """The same into a buffer, which is long enough; returns how many bytes that were."""
        at = 0
        used = 0
        pool = self.pool
        try:
            for part in parts:
                if type(part) is int:
                    into[at : at + part] = data[used : used + part]
                    used += part
                    at += part
                else:
                    size = part[4]
                    into[at : at + size] = pool.view(part)
                    at += size
        except PoolError as e:
            raise OSError(errno.EIO, f"received bytes are gone: {e}") from e
        finally:
            for part in parts:
                if type(part) is not int:
                    pool.free(part)
        return at

    # ---- poll descriptors ----------------------------------------------------------------

    def poll_open(self, fd: int) -> int:
        """A real descriptor that shows the state of our descriptor fd. The caller closes it.

        It is for select and its like alone: write(2) and sendfile(2) fail with EPIPE, read(2)
        finds the end of a file, or EAGAIN.
        """
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b, self._lock:
            self._token = self._token + 1 & 0xFFFFFFFF
            try:
                socket.send_fds(
                    self.life, [_POLL_OPEN.pack(fd, self._token)], [a.fileno(), b.fileno()]
                )
                err, token = _WELCOME.unpack(_recv_exactly(self.life, _WELCOME.size))
            except OSError as e:
                raise _gone(self.run.path) from e
            if err:
                raise os_error(err)
            if token != self._token:
                raise OSError(errno.EPROTO, "the life connection is out of step")
            number = a.detach()
            self.poll_fds[number] = fd
            return number

    # ---- the post pipe -------------------------------------------------------------------

    def post_open(self) -> bool:
        """Ask for the post pipe, unless it is there; False where there is none to be had."""
        if self.post_fd >= 0 or self._post_failed or self.forked:
            return self.post_fd >= 0
        with self._lock:
            if self.post_fd >= 0:
                return True
            self._token = self._token + 1 & 0xFFFFFFFF
            try:
                self.life.sendall(_POLL_OPEN.pack(_POST_OPEN, self._token))
                answer, fds, _, _ = socket.recv_fds(self.life, _WELCOME.size, 2)
                answer += _recv_exactly(self.life, _WELCOME.size - len(answer))
            except OSError:
                fds = []  # the next call will tell what is the matter
            for fd in fds:
                os.set_inheritable(fd, False)
            self._post_fds = fds
            self._post_failed = not fds
            self.post_fd = fds[0] if fds else -1
            return self.post_fd >= 0

    def _close_post(self) -> None:
        self.post_fd = -1
        while self._post_fds:
            os.close(self._post_fds.pop())

    # ---- the end -------------------------------------------------------------------------

    def close(self) -> None:
        """End it all, as if the process had ended; what was posted is sent all the same."""
        self.life.close()
        self._close_post()
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    def abandon(self) -> None:
        """In a child of fork: the life connection is the parent's, and must end with it."""
        self.forked = True
        self.life.close()
        self._close_post()
        for channel in self._channels:
            channel.abandon()
        self._channels.clear()


class Channel:
    """A DEALER for one call at a time."""

    __slots__ = ("_client", "_req", "_sock", "usable")

    def __init__(self, client: Client) -> None:
        self._sock = client.dealer()
        self._client = client
        self._req = 0
        self.usable = True

    def call(
        self,
        name: str,
        args: tuple[object, ...],
        data: bytes,
        rescue: Rescue | None,
        nothing: Nothing | None = None,
    ) -> tuple[int, Any, bytes]:
        """(errno, result, data) of one system call."""
        self._req += 1
        req = self._req
        self.usable = False
        sent = False
        try:
            meta = encode_ordered(req, self._client.posted, name, args)
            # A signal may come as soon as it is sent, and before we know.
            sent = True
            try:
                if data:
                    self._sock.send(meta, data)
                else:
                    self._sock.send(meta)
            except ConnectionError as e:
                raise _gone(self._client.run.path) from e
            reply = self._wait(req, None)
        except BaseException as e:
            if not isinstance(e, OSError):
                if sent:
                    self._cancel(req, rescue, nothing)
                elif nothing is not None:
                    nothing()
            raise
        self.usable = True
        assert reply is not None
        return reply

    def post(self, name: str, args: tuple[object, ...], data: bytes) -> None:
        """A call without a reply."""
        meta = encode_ordered(POSTED, self._client.posted, name, args)
        try:
            if data:
                self._sock.send(meta, data)
            else:
                self._sock.send(meta)
        except ConnectionError as e:
            raise _gone(self._client.run.path) from e

    def _wait(self, req: int, milliseconds: int | None) -> tuple[int, Any, bytes] | None:
        sock = self._sock
        while True:
            if milliseconds is not None and not sock.poll(milliseconds):
                return None
            try:
                frames = sock.recv()
            except ConnectionError as e:
                raise _gone(self._client.run.path) from e
            found, err, result = decode_reply(frames[0])
            if found == req:
                return err, result, frames[1] if len(frames) > 1 else b""

    def _cancel(self, req: int, rescue: Rescue | None, nothing: Nothing | None) -> None:
        """The caller will not wait for the reply; see the module's text."""
        try:
            self._sock.send(encode_request(req + 1, "cancel", req))
            self._req += 1
            reply = self._wait(req, 2000)
        except OSError:
            return
        if reply is None:
            return
        self.usable = True
        if reply[0]:
            if nothing is not None:
                nothing()
        elif rescue is not None:
            rescue(reply[1], reply[2])

    def close(self) -> None:
        """The DEALER's end."""
        self._sock.close()

    def abandon(self) -> None:
        """In a child of fork: the connection is the parent's, and nothing goes there from here."""
        self._sock.abandon()


class Mux:
    """Many calls at once through one DEALER, for an event loop; used by one thread.

    Its descriptor is readable as long as there are replies. Calls that callbacks make go out
    together. credit: replies shall give credit, and the owner posts.
    """

    def __init__(self, client: Client, credit: bool = False) -> None:
        self.client = client
        # Nothing that we send comes before our own posts.
        self._posted = 0 if credit else -1
        self._unsent = 0
        """Posts that have not gone yet: nobody may wait for them."""
        self._sock = client.dealer()
        self._req = 0
        self._waiting: dict[int, Callable[[int, Any, bytes], None]] = {}
        self._draining = False
        self.gone = False
        """Is the other side gone?"""

    def fileno(self) -> int:
        """The descriptor to sleep on."""
        return self._sock.fileno()

    def submit(
        self,
        callback: Callable[[int, Any, bytes], None],
        name: str,
        *args: object,
        data: bytes = b"",
    ) -> int:
        """Send a call; `callback(errno, result, data)` is called by `drain`. Its number."""
        self._req += 1
        req = self._req
        self._waiting[req] = callback
        self._send(encode_ordered(req, self._posted, name, args), data)
        return req

    def post(self, name: str, fd: int, data: bytes = b"") -> None:
        """A call without a reply (`skbus.core.syscall.POSTABLE`)."""
        self._unsent += 1
        self._send(encode_ordered(POSTED, 0, name, (fd,)), data)

    def _send(self, meta: bytes, data: bytes) -> None:
        sock = self._sock
        try:
            if data:
                sock.write(meta, data)
            else:
                sock.write(meta)
            if not self._draining:
                self._flush()
        except ConnectionError:
            pass  # it has gone; its end is told by `Client.life`

    def _flush(self) -> None:
        self._sock.flush()
        if self._unsent:
            posts, self._unsent = self._unsent, 0
            self.client.has_posted(posts)

    def cancel(self, req: int) -> None:
        """Ask for a call to end now; its callback is still called, with EINTR or the result."""
        if req in self._waiting:
            self._req += 1
            with contextlib.suppress(ConnectionError):
                self._sock.send(encode_request(self._req, "cancel", req))

    def drain(self) -> int:
        """Hand out all replies that are there; returns how many."""
        if self._draining:
            return 0
        self._draining = True
        n = 0
        sock = self._sock
        try:
            while True:
                try:
                    frames = sock.recv_nowait()
                except ConnectionError:
                    self.gone = True
                    self.fail_all()
                    return n
                if frames is None:
                    return n
                req, err, result = decode_reply(frames[0])
                callback = self._waiting.pop(req, None)
                n += 1
                if callback is not None:
                    callback(err, result, frames[1] if len(frames) > 1 else b"")
        finally:
            self._draining = False
            with contextlib.suppress(ConnectionError):
                self._flush()

    def fail_all(self) -> None:
        """The socket layer has gone: every call ends with ENETDOWN."""
        waiting, self._waiting = self._waiting, {}
        for callback in waiting.values():
            callback(errno.ENETDOWN, str(_gone(self.client.run.path)), b"")

    def close(self) -> None:
        """The DEALER's end; calls that wait are forgotten."""
        self._sock.close()


def _gone(path: Path) -> OSError:
    return OSError(
        errno.ENETDOWN, f"the socket layer in {path} has ended; sockets made with it are gone"
    )


def _recv_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError(errno.ECONNRESET, "the socket layer closed the life connection")
        data += more
    return data


# ---- the clients of this process ----------------------------------------------------------

_clients: Final[dict[Path, Client]] = {}
_clients_lock = threading.Lock()
_abandoned: Final[list[Client]] = []
"""A forked child keeps its parent's clients, whose threads may have held a lock."""


def get_client(run: RunDir | None = None) -> Client:
    """This process's client for a run directory (that of SKBUS_DIR, if none is given).

    A client whose socket layer has ended is replaced by a new one.
    """
    run = run or RunDir()
    client = _clients.get(run.path)
    if client is not None and client.alive():
        return client
    with _clients_lock:
        client = _clients.get(run.path)
        if client is None or not client.alive():
            client = _clients[run.path] = Client(run)
        return client


def known_clients() -> list[Client]:
    """This process's clients, for all run directories."""
    return list(_clients.values())


def _after_fork_in_child() -> None:
    global _clients_lock
    _clients_lock = threading.Lock()
    for client in _clients.values():
        with contextlib.suppress(OSError):
            client.abandon()
        _abandoned.append(client)
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
