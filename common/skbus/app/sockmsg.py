# SPDX-License-Identifier: MIT
"""Sending and receiving of `skbus.socket`: how bytes and datagrams come from and go to the socket
layer, and what saves a datagram the round trip.

Receiving: a plain recv of a UDP socket asks by `recvmmsg` for more datagrams than one. Those beyond
the first wait in the stash for the next calls. It asks for twice as many as came last, so a program
that gets one at a time asks for two. Stashed datagrams go back (`unread`) when somebody else may
want them: another thread that waits, a poll descriptor, a duplicate.

Sending on a stream: where the socket layer has given credit, bytes are posted: `send` waits for no
reply. Not after a pause, nor once anything has failed or ended, nor where a poll descriptor shows
the send buffer's state. An error of a posted send is told by the next call, as one is that comes
just after a send.

Sending datagrams: where one went out to an address a moment ago, the next one there is posted.

    Differs from Linux: an error of a posted datagram is told by the socket's next call that waits
    for an answer (of sends, every 256th, or the first after a pause), as an ICMP error is. A
    pending error is told after the datagrams that were read ahead. UdpInDatagrams counts when a
    datagram is read ahead.

Part of `skbus.socket.socket`; calls `skbus.app.client`.
"""

import errno
import os
import socket as std
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from skbus.app.client import INLINE_MAX, Client, os_error
from skbus.app.sockargs import timeout_ns
from skbus.core.syscall import MAX_DATA, MAX_VLEN, POST, POST_COST, POST_MAX

AHEAD: Final = MAX_VLEN
"""Datagrams that one call asks for at most."""
DATAGRAM_MAX: Final = 65535
POSTS_MAX: Final = 255
"""Datagrams of a socket that are posted in a row."""
_POST_PAUSE: Final = 0.005
"""Seconds after which a datagram is not posted, so that who sends seldom hears at once."""
_FITS: Final = 508
"""Bytes of a datagram that no link is too narrow for (RFC 791: 576 with the longest headers)."""
_PAST_STASH: Final = std.MSG_ERRQUEUE | std.MSG_OOB
_NOT_KEPT: Final = std.MSG_PEEK | _PAST_STASH
"""What a call with these brought is there still, or is no part of the queue."""
_NO_RIVALS: Final = threading.Lock()
"""Of sockets that read nothing ahead, and so need none of their own."""
_LENGTH: Final = struct.Struct("=H").pack

# `skbus.socket.install` replaces the one in the module
_write: Final = os.write

Buffer = bytes | memoryview
Stashed = tuple[Any, bytes]
"""A call's result and its data."""


def again(e: OSError, timeout: float | None) -> OSError:
    """EAGAIN at the end of a timeout is a TimeoutError."""
    if timeout and e.errno in (errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY):
        return TimeoutError("timed out")
    return e


def _settle(settled: Callable[[int], None], result: Any, _: bytes) -> None:
    settled(int(result[0] if type(result) is tuple else result))


class Messages:
    """What `skbus.socket.socket` does with messages."""

    __slots__ = (
        "_ahead", "_client", "_credit", "_fd", "_lock", "_post_head", "_post_max", "_post_time",
        "_post_to", "_postable", "_posts", "_proto", "_readers", "_stash", "_timeout", "_type",
    )  # fmt: skip

    _client: Client
    _fd: int
    _type: int
    _proto: int
    _timeout: float | None
    _stash: list[Stashed]
    _ahead: int
    _readers: int
    _lock: threading.Lock
    _post_to: Any
    _post_max: int
    _post_time: float
    _post_head: bytes
    _posts: int
    _credit: int
    _postable: bool

    def _init_messages(self, ahead: bool, shared: bool = False) -> None:
        """ahead: nobody else has this socket, so datagrams may be read ahead. shared: somebody
        else has it, or may have it."""
        udp = self._type == std.SOCK_DGRAM and self._proto in (0, std.IPPROTO_UDP)
        self._stash = []
        """Results of interrupted calls, and datagrams read ahead, for the next call."""
        self._ahead = 1 if ahead and udp else 0
        """Datagrams to ask for; 0: none are read ahead."""
        self._readers = 0
        """Threads that wait for a datagram."""
        self._lock = threading.Lock() if self._ahead else _NO_RIVALS
        self._post_to = None
        self._post_max = -1
        """Bytes up to which a datagram to _post_to may be posted."""
        self._post_time = 0.0
        self._post_head = b""
        """`POST` of them, without the length."""
        self._posts = 0
        """How many have been posted since the last call."""
        self._credit = 0
        """What may be posted on a stream (`skbus.core.syscall`)."""
        self._postable = self._type == std.SOCK_STREAM and not shared
        """Do we take credit?"""

    def _again(self, e: OSError) -> OSError:
        """EAGAIN at the end of a timeout is a TimeoutError."""
        return again(e, self._timeout)

    # ---- sending -------------------------------------------------------------------------

    def _send(
        self,
        view: memoryview,
        flags: int,
        address: Any,
        timeout: float | None,
        control: tuple[tuple[int, int, bytes], ...] = (),
        settled: Callable[[int], None] | None = None,
    ) -> int:
        """settled: of a stream; told how many bytes were taken where the call is interrupted."""
        if self._fd < 0:
            raise os_error(errno.EBADF)
        client = self._client
        size = len(view)
        if self._type == std.SOCK_STREAM:
            data, places = client.put(view)
            rescue = nothing = None
            if settled is not None:
                rescue = partial(_settle, settled)
                nothing = partial(settled, 0)
            self._credit = 0
            result, _ = client.call(
                "sendmsg", self._fd, int(flags), address, places, control, timeout_ns(timeout),
                data=data, rescue=rescue, nothing=nothing,
            )  # fmt: skip
            if type(result) is tuple:
                result, credit = result
                self._take_credit(credit)
            return int(result)
        plain = timeout != 0 and not flags and not control
        if plain and size <= self._post_max and address == self._post_to and self._post(view, size):
            return size
        return self._send_datagram(view, flags, address, timeout, control, plain)

    def _take_credit(self, credit: int) -> None:
        """A reply has told how much may be posted."""
        if self._postable:
            self._credit = credit
            self._post_time = time.monotonic()

    def _post_bytes(self, data: bytes) -> bool:
        """Post bytes on a stream. False where an ordinary call must send them."""
        cost = len(data) + POST_COST
        now = time.monotonic()
        if (
            not data
            or cost > self._credit
            or len(data) > INLINE_MAX
            or self._timeout == 0
            or now - self._post_time >= _POST_PAUSE
        ):
            return False
        self._credit -= cost
        self._post_time = now
        self._client.post("post", self._fd, data)
        return True

    def _post(self, data: Buffer, size: int) -> bool:
        """Post a datagram to where the last one went. False where an ordinary call must send it:
        after a pause, now and then, and where the pipe is full."""
        now = time.monotonic()
        if now - self._post_time >= _POST_PAUSE or self._posts >= POSTS_MAX:
            return False
        try:
            _write(self._client.post_fd, b"".join((_LENGTH(size), self._post_head, data)))
        except OSError:
            return False
        self._posts += 1
        self._post_time = now
        return True

    def _send_datagram(
        self,
        view: memoryview,
        flags: int,
        address: Any,
        timeout: float | None,
        control: tuple[tuple[int, int, bytes], ...],
        plain: bool,
    ) -> int:
        """One datagram, and wait for what becomes of it."""
        client = self._client
        size = len(view)
        data, places = client.put(view)
        if len(data) + sum(p[4] for p in places) < size:
            client.forget(places)
            raise os_error(errno.EMSGSIZE)
        most, self._post_max = self._post_max, -1
        result, _ = client.call(
            "sendmsg", self._fd, int(flags), address, places, control, timeout_ns(timeout),
            data=data,
        )  # fmt: skip
        if (
            plain
            and size <= POST_MAX
            and self._type == std.SOCK_DGRAM
            and self._proto in (0, std.IPPROTO_UDP)
            and client.post_open()
        ):
            if address != self._post_to or most < 0:
                _, port, addr = address or (0, 0, b"")
                self._post_head = POST.pack(0, port, self._fd, addr)[2:]
                most = _FITS
            self._post_max = max(size, most)
            self._post_to = address
            self._posts = 0
            self._post_time = time.monotonic()
        return int(result)

    # ---- receiving -----------------------------------------------------------------------

    def _datagram(self, size: int) -> tuple[bytes, Any]:
        """A plain recv of a UDP socket: (bytes, sender's packed address)."""
        try:
            (_, address, _, _), payload = self._stash.pop(0)
        except IndexError:
            (_, address, _, _), payload = self._read_ahead()
        return payload if len(payload) <= size else payload[:size], address

    def _read_ahead(self) -> Stashed:
        """A datagram from the socket layer, and what comes with it into the stash."""
        if self._fd < 0:
            raise os_error(errno.EBADF)
        while not (vlen := self._enter()):
            with suppress(IndexError):  # another thread was quicker
                return self._stash.pop(0)
        try:
            result, data = self._client.call(
                "recvmmsg", self._fd, DATAGRAM_MAX, vlen, 0, timeout_ns(self._timeout),
                rescue=self._keep_all,
            )  # fmt: skip
            first, *rest = self._split(result, data)
            if rest or vlen != 2:
                with self._lock:
                    self._stash.extend(rest)
                    if self._ahead:
                        self._ahead = min(2 * len(rest) + 2, AHEAD)
                    wanted = rest and (self._readers > 1 or not self._ahead)
                if wanted:
                    self._give_back()
            return first
        except OSError as e:
            raise self._again(e) from None
        finally:
            self._leave()

    def _enter(self) -> int:
        """A thread goes to the socket layer for datagrams; how many it may ask for. 0: there are
        some in the stash by now."""
        with self._lock:
            if self._stash:
                return 0
            self._readers += 1
            return self._ahead if self._ahead and self._readers == 1 else 1

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1

    def _split(self, result: Any, data: bytes) -> list[Stashed]:
        """The datagrams of a reply of recvmmsg, each with its bytes."""
        if len(result) == 1 and len(result[0]) == 4:
            parts, address, flags, control = result[0]
            data = self._client.collect(parts, data)
            return [(((len(data),), address, flags, control), data)]
        out: list[Stashed] = []
        at = 0
        for one in result:
            end = at + sum(one[0])
            if len(one) == 5:  # many of one size
                _, address, flags, control, size = one
                each = ((size,), address, flags, control)
                out += [(each, data[i : min(i + size, end)]) for i in range(at, end, size)]
            else:
                out.append((one, data[at:end]))
            at = end
        return out

    def _keep_all(self, result: Any, data: bytes) -> None:
        """The same of an interrupted call: all of it is for the next ones."""
        self._stash.extend(self._split(result, data))

    def _keep(self, result: Any, data: bytes) -> None:
        self._stash.append((result, data))

    def _keep_stream(self, result: Any, data: bytes) -> None:
        """The same of a stream's recv."""
        payload = self._client.collect(result[0], data)
        if payload:
            self._unrecv(payload)

    def _unrecv(self, payload: bytes) -> None:
        """Bytes of a stream that were received last are the next to be received again, by whoever
        asks, and select shows them."""
        end = len(payload)

        def keep() -> None:
            self._stash.insert(0, (((end,), None, 0, ()), payload[:end]))

        while end:
            piece = payload[max(end - MAX_DATA, 0) : end]
            try:
                self._client.call("unrecv", self._fd, data=piece, nothing=keep)
            except OSError:  # the socket layer has gone: nobody else will ask for them
                keep()
                return
            end -= len(piece)

    def _share(self) -> None:
        """Somebody else is going to see this socket: nothing is read ahead or posted any more."""
        self._postable = False
        self._credit = 0
        if self._ahead:
            with self._lock:
                self._ahead = 0
            self._give_back()

    def _give_back(self) -> None:
        """What was read ahead is unread."""
        with self._lock:
            unread = tuple(self._stash)
            self._stash.clear()
        if not unread:
            return
        try:
            self._client.call("unread", self._fd, len(unread))
        except OSError:
            # It is not what the socket layer gave last; then it stays ours.
            self._stash[:0] = unread

    def _recvmsg(self, size: int, flags: int, room: int = 0) -> Stashed:
        if self._fd < 0:
            raise os_error(errno.EBADF)
        if self._type == std.SOCK_STREAM:
            return self._recv_stream(size, flags, room, self._timeout)
        ahead = self._ahead
        if flags & _PAST_STASH:
            ahead = 0
        elif ahead:
            while not self._enter():
                stash = self._stash
                with suppress(IndexError):
                    return stash[0] if flags & std.MSG_PEEK else stash.pop(0)
        elif self._stash:
            return self._stash[0] if flags & std.MSG_PEEK else self._stash.pop(0)
        try:
            return self._client.call(
                "recvmsg", self._fd, size, room, int(flags), timeout_ns(self._timeout),
                rescue=None if flags & _NOT_KEPT else self._keep,
            )  # fmt: skip
        except OSError as e:
            raise self._again(e) from None
        finally:
            if ahead:
                self._leave()

    def _recv_stream(self, size: int, flags: int, room: int, timeout: float | None) -> Stashed:
        stash = self._stash
        if stash and not flags & _PAST_STASH:
            (spec, *more), payload = stash.pop(0)
            if flags & std.MSG_PEEK:
                stash.insert(0, ((spec, *more), payload))
            elif len(payload) > size:
                stash.insert(0, (((len(payload) - size,), *more), payload[size:]))
            payload = payload[:size]
            return ((len(payload),), *more), payload
        try:
            got = self._client.call(
                "recvmsg", self._fd, size, room, int(flags), timeout_ns(timeout),
                rescue=None if flags & _NOT_KEPT else self._keep_stream,
            )  # fmt: skip
            if not got[0][0]:  # the end of the stream
                self._credit = 0
            return got
        except OSError as e:
            self._credit = 0
            raise again(e, timeout) from None

    def _receive(
        self, size: int, flags: int, room: int = 0
    ) -> tuple[bytes, Any, int, list[tuple[int, int, bytes]]]:
        if size < 0:
            raise ValueError("negative buffersize in recv")
        (parts, address, msg_flags, control), data = self._recvmsg(size, flags, room)
        payload = self._client.collect(parts, data)
        if len(payload) > size:
            # It was asked for by an earlier call, which was interrupted or read ahead.
            msg_flags |= std.MSG_TRUNC | len(payload) << 32
            payload = payload[:size]
        elif flags & std.MSG_WAITALL and not flags & std.MSG_PEEK and payload:
            payload = self._wait_all(payload, size, flags)
        if msg_flags >> 32 and flags & std.MSG_TRUNC:
            # The real length counts; what is beyond the buffer nobody has written.
            payload += bytes((msg_flags >> 32) - len(payload))
        return payload, address, msg_flags & 0xFFFFFFFF, list(control)

    def _wait_all(self, payload: bytes, size: int, flags: int) -> bytes:
        if self._type != std.SOCK_STREAM:
            return payload
        chunks = [payload]
        have = len(payload)
        while have < size:
            try:
                (parts, _, _, _), data = self._recvmsg(size - have, flags)
            except OSError:
                break
            piece = self._client.collect(parts, data)
            if not piece:
                break
            chunks.append(piece)
            have += len(piece)
        return b"".join(chunks)
