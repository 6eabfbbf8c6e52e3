# SPDX-License-Identifier: MIT
"""TLS records between an `ssl.SSLObject` and a transport, as OpenSSL carries them over a socket.

An `SSLObject` works on memory. Its output must be carried to the socket, and the socket's bytes
into it. `ssl.SSLSocket` leaves that to OpenSSL, and programs rely on these facts:

- Nothing is read ahead of the record in process, so select shows that there is another one. Here
  many are read at once, as each read is a round trip to the socket layer. A socket that somebody
  polls (`polled`) is different. As long as a whole record is held, the last byte that was read lies
  in the socket's queue again, and select shows it. It completes the last record when that is
  wanted.
- A record that was begun is sent to its end before anything else is. Where the transport takes
  a part of it, the rest stays here. The caller gets SSLWantWriteError or TimeoutError, and calls
  again with the same bytes.
- One thread may send while another receives.

Locks: `_turn` guards the SSLObject and all that is held here, and is never held while a transport
waits. `_writer` is for one write at a time, `_sending` for one that carries bytes out; a reader
takes neither where a writer has it. One thread at a time reads from the transport (`_filling`);
others wait for what it brings.

Used by `skbus.app.tls`. RFC 8446 5.1, RFC 5246 6.2.1: records.
"""

import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

HEADER: Final = 5
"""Bytes: type, legacy version, length (RFC 8446 5.1)."""
_TYPES: Final = range(20, 25)
"""change_cipher_spec, alert, handshake, application_data, heartbeat"""
_LENGTH_MAX: Final = 16384 + 2048
"""RFC 5246 6.2.3; RFC 8446 5.2 has 256 instead of the 2048."""
AHEAD: Final = 262144
"""Bytes to ask the transport for."""
STEP: Final = 63 * 16384
"""Bytes of application data that are encrypted and sent at once: with what TLS adds, a slot of a
client's region holds them."""
_ALL: Final = (-1,)
_TO_BE_RESUMED: Final = (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Transport(Protocol):
    """What carries the records. timeout: seconds; None waits for ever, 0.0 not at all.

    BlockingIOError where it must not wait, TimeoutError at the end of its time; then it has taken,
    or given, nothing.
    """

    def tls_send(
        self, data: memoryview, timeout: float | None, settled: Callable[[int], None]
    ) -> int:
        """Send the beginning of data; how many bytes. Where the call is interrupted (a signal's
        handler raises), `settled` is told how many, if that is known."""

    def tls_recv(self, size: int, timeout: float | None) -> bytes:
        """Up to size bytes; b"" at the end of the stream."""

    def tls_unread(self, data: bytes) -> None:
        """What `tls_recv` gave last is the next to be received again."""


class TlsStream:
    """One connection's TLS: an SSLObject, and the records between it and a transport."""

    __slots__ = (
        "_cond", "_doubt", "_eof", "_fed", "_filling", "_held", "_in", "_out", "_over", "_raw",
        "_sending", "_sent", "_transport", "_turn", "_unsent", "_writer", "_written",
        "_written_crc", "object", "polled",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None,
    ) -> None:
        self._transport = transport
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.object: ssl.SSLObject = context.wrap_bio(
            self._in, self._out, server_side, server_hostname, session
        )
        self.polled = False
        """Somebody waits for the transport, who must be shown what is held here."""
        self._turn = threading.Lock()
        self._cond = threading.Condition(self._turn)
        self._held = bytearray()
        """Read from the transport, and not given to TLS."""
        self._raw = False
        """What comes are no records: TLS shall have it all, and say so."""
        self._eof = False
        """The transport's stream has ended ..."""
        self._over = False
        """... and TLS knows."""
        self._fed = 0
        """How often TLS was given something."""
        self._filling = False
        self._unsent: deque[tuple[bytes, bool]] = deque()
        """Records on their way out, and whether they are TLS's own, and no application data. Of
        the first of them `_sent` bytes are gone."""
        self._sent = 0
        self._sending = threading.Lock()
        self._doubt = False
        """Nobody knows how much of the first record is gone: a call was interrupted."""
        self._writer = threading.Lock()
        self._written = 0
        """Bytes of a write that have become records, while those are not all sent."""
        self._written_crc = 0

    # ---- what is asked --------------------------------------------------------------------

    def handshake(self, timeout: float | None) -> None:
        """As `ssl.SSLSocket.do_handshake`."""
        end = _deadline(timeout)
        self._run(self.object.do_handshake, (), end)
        self._flush(end, True)

    def shutdown(self, timeout: float | None) -> None:
        """As `ssl.SSLSocket.unwrap`: say that it ends, and wait for the peer's word."""
        end = _deadline(timeout)
        with _locked(self._writer, end):
            self._run(self.object.unwrap, (), end)
            self._flush(end, True)

    def read(self, size: int, buffer: Any, timeout: float | None) -> Any:
        """Up to size bytes of application data; or into a buffer, and how many."""
        args = (size,) if buffer is None else (size, buffer)
        return self._run(self.object.read, args, _deadline(timeout))

    def write(self, data: memoryview, timeout: float | None) -> int:
        """Send all of it, as OpenSSL does. Where that is not possible, the next write must begin
        with the same bytes (BAD_LENGTH, BAD_WRITE_RETRY), and goes on from there."""
        end = _deadline(timeout)
        with _locked(self._writer, end):
            self._check_retry(data)
            try:
                while True:
                    self._flush(end, True)
                    at = self._written
                    if at == len(data):
                        break
                    step = data[at : at + STEP]
                    self._run(self._encrypt, (step,), end, False)
            except BaseException as e:
                if isinstance(e, OSError) and not isinstance(e, _TO_BE_RESUMED):
                    self._written = 0  # the connection is broken; nothing will be resumed
                self._written_crc = zlib.crc32(data[: self._written])
                raise
            self._written = 0
            return len(data)

    def _check_retry(self, data: memoryview) -> None:
        if self._written:
            if len(data) < self._written:
                raise _ssl_error("BAD_LENGTH")
            if zlib.crc32(data[: self._written]) != self._written_crc:
                raise _ssl_error("BAD_WRITE_RETRY")

    def _encrypt(self, step: memoryview) -> int:
        n = self.object.write(step)
        self._written += n
        return n

    def verify_client(self, timeout: float | None) -> None:
        """As `ssl.SSLSocket.verify_client_post_handshake`: ask for the client's certificate."""
        self._run(self.object.verify_client_post_handshake, (), _deadline(timeout))

    def be_shown(self) -> None:
        """From now on somebody polls the transport."""
        self.polled = True
        with self._turn:
            if self._filling:
                return  # who does will show it
            self._filling = True
        self._show()

    def end(self) -> None:
        """TLS has ended. What came behind its last record is the transport's."""
        with self._turn:
            data = self._in.read() + bytes(self._held)
            self._held.clear()
            if data:
                self._transport.tls_unread(data)

    # ---- how it is done -------------------------------------------------------------------

    def _run(
        self, function: Callable[..., T], args: tuple[Any, ...], end: float | None, own: bool = True
    ) -> T:
        """Call TLS, and carry its records, until it has done what it is asked. own: what comes out
        when it succeeds is TLS's own."""
        while True:
            try:
                with self._turn:
                    fed = self._fed
                    try:
                        result = function(*args)
                    except ssl.SSLError:
                        self._collect(True)
                        raise
                    self._collect(own)
            except ssl.SSLWantReadError:
                self._flush_own(end)
            except ssl.SSLError:
                # The peer shall hear of it (an alert), if it can.
                with suppress(OSError):
                    self._flush_own(end)
                raise
            else:
                if own:
                    # An answer of TLS's own, which is not worth the result.
                    with suppress(OSError):
                        self._flush_own(0.0)
                return result
            self._fill(fed, end)

    def _collect(self, own: bool) -> None:
        """Take records out of TLS, in one call of C: no signal's handler comes in between."""
        if self._out.pending:
            self._unsent.extend(zip(map(self._out.read, _ALL), (own,), strict=False))

    def _flush_own(self, end: float | None) -> None:
        """Send TLS's own records, unless somebody is sending: who does so takes them along."""
        if any(own for _, own in tuple(self._unsent)):
            self._flush(end, False)

    def _flush(self, end: float | None, wait: bool) -> None:
        """Send all records that are there. wait: even where another thread is at it."""
        while self._unsent:
            if not self._sending.acquire(blocking=False):
                if not wait:
                    return
                _acquire(self._sending, end)
            try:
                self._send(end)
            finally:
                self._sending.release()

    def _send(self, end: float | None) -> None:
        while True:
            with self._turn:
                if not self._unsent:
                    return
                if self._doubt:
                    raise ssl.SSLError(
                        ssl.SSL_ERROR_SSL,
                        "a write was interrupted, and nobody knows how much of its record was "
                        "sent: this connection can send no more, only be closed",
                    )
                data = memoryview(self._unsent[0][0])[self._sent :]
                self._doubt = True
            try:
                n = self._transport.tls_send(data, _left(end), self._settle)
            except BlockingIOError:
                self._doubt = False
                raise _want_write() from None
            except OSError:
                self._doubt = False
                raise
            self._settle(n)

    def _settle(self, sent: int) -> None:
        """So many bytes of the first record are gone."""
        with self._turn:
            self._sent += sent
            if self._sent >= len(self._unsent[0][0]):
                self._unsent.popleft()
                self._sent = 0
            self._doubt = False

    def _fill(self, fed: int, end: float | None) -> None:
        """Give TLS more than it had when it had been fed that often: a record that is held, or
        bytes from the transport. A thread that waits for those already will feed them."""
        with self._turn:
            while True:
                if self._fed != fed or self._feed():
                    return
                if self._over:
                    raise ssl.SSLEOFError(
                        ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"
                    )
                if not self._filling:
                    break
                if end == 0.0:
                    raise _want_read()
                self._cond.wait(_left(end))
            self._filling = True
        try:
            data = self._transport.tls_recv(AHEAD, _left(end))
            with self._turn:
                self._held += data
                self._eof = not data
                self._feed()
        except BlockingIOError:
            raise _want_read() from None
        finally:
            self._show()

    def _show(self) -> None:
        """The end of filling. A record that is held is no secret to who polls the transport."""
        back = b""
        try:
            with self._turn:
                held = self._held
                size = self._record()
                if self.polled and size and len(held) >= size:
                    back = bytes(held[-1:])
                    del held[-1:]
            if back:
                self._transport.tls_unread(back)
        finally:
            with self._turn:
                self._filling = False
                self._cond.notify_all()

    def _record(self) -> int:
        """Bytes of the record of which the beginning is held; 0 where that is not known yet."""
        held = self._held
        if len(held) < HEADER:
            return 0
        length = int.from_bytes(held[3:5], "big")
        if held[0] not in _TYPES or held[1] != 3 or length > _LENGTH_MAX:
            self._raw = True
        return HEADER + length

    def _feed(self) -> bool:
        """Give TLS the next record, if it is held as a whole; or the end."""
        held = self._held
        size = self._record()
        if self._raw or self._eof:
            size = len(held)
        if size and len(held) >= size:
            self._in.write(held[:size])
            del held[:size]
        elif not self._eof or self._over:
            return False
        if self._eof and not held:
            self._over = True
            self._in.write_eof()
        self._fed += 1
        self._cond.notify_all()
        return True


def _deadline(timeout: float | None) -> float | None:
    """When a call's time is over: 0.0 at once, None never."""
    return time.monotonic() + timeout if timeout else timeout


def _left(end: float | None) -> float | None:
    """The timeout that is left until then. TimeoutError where none is."""
    if not end:
        return end
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _acquire(lock: threading.Lock, end: float | None) -> None:
    """SSLWantWriteError or TimeoutError where another thread does not let go of it in time."""
    left = _left(end)
    if lock.acquire(timeout=-1 if left is None else left):
        return
    raise _want_write() if end == 0.0 else TimeoutError("timed out")


@contextmanager
def _locked(lock: threading.Lock, end: float | None) -> Iterator[None]:
    _acquire(lock, end)
    try:
        yield
    finally:
        lock.release()


def _want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")


def _want_write() -> ssl.SSLWantWriteError:
    return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")


def _ssl_error(reason: str) -> ssl.SSLError:
    """As OpenSSL raises it."""
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, f"[SSL: {reason}] {reason.lower().replace('_', ' ')}")
    error.library, error.reason = "SSL", reason
    return error
