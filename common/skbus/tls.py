# SPDX-License-Identifier: MIT
"""TLS over blocking sockets of `skbus.socket`: what `ssl.SSLContext.wrap_socket` gives for them.

The standard `ssl.SSLSocket` reads and writes its descriptor itself, which is not possible here;
so TLS runs over memory (`ssl.MemoryBIO`), and our socket carries what comes out of it.
`skbus.socket.install` makes `SSLContext.wrap_socket` return this for our sockets, so that
https, smtplib, ftplib and their like work unmodified. (asyncio and trio run TLS over memory
themselves.)
"""

import errno
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from skbus import socket

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any

T = TypeVar("T")

_RECORD: Final = 1 << 16
_real_wrap_socket: Final = ssl.SSLContext.wrap_socket


class SSLSocket(socket.socket):
    """See `ssl.SSLSocket`. It takes over the socket that it is made of."""

    __slots__ = (
        "_context", "_in", "_object", "_out", "_suppress_eof", "server_hostname", "server_side",
    )  # fmt: skip

    _context: ssl.SSLContext
    _in: ssl.MemoryBIO
    _out: ssl.MemoryBIO
    _object: ssl.SSLObject
    _suppress_eof: bool
    server_side: bool
    server_hostname: str | None

    @classmethod
    def _wrap(
        cls,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> "SSLSocket":
        if sock.type != socket.SOCK_STREAM:
            raise NotImplementedError("only stream sockets are supported")
        self = cls._make(sock._client, sock._fd, sock._family, sock._type, sock._proto)
        assert isinstance(self, SSLSocket)
        self._timeout = sock._timeout
        self._poll_fd = sock._poll_fd
        self._stash = sock._stash
        # What it was is ours now, as with the standard one.
        sock._fd = sock._poll_fd = -1
        sock._closed = True
        self._context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._suppress_eof = suppress_ragged_eofs
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._in, self._out, server_side, server_hostname, session
            )
            if do_handshake_on_connect and self._connected():
                if self._timeout == 0.0:
                    raise ValueError(
                        "do_handshake_on_connect should not be specified for non-blocking sockets"
                    )
                self.do_handshake()
        except BaseException:
            self._real_close()
            raise
        return self

    def _connected(self) -> bool:
        try:
            self.getpeername()
        except OSError as e:
            if e.errno == errno.ENOTCONN:
                return False
            raise
        return True

    # ---- TLS over memory -----------------------------------------------------------------

    def _flush(self) -> None:
        if self._out.pending:
            super().sendall(self._out.read())

    def _run(self, function: Callable[..., T], *args: Any) -> T:
        """Call TLS, and carry its records, until it has done what it is asked."""
        while True:
            try:
                result = function(*args)
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
                continue
            except ssl.SSLError:
                # The peer shall hear of it (an alert), if it can.
                try:
                    self._flush()
                except OSError:
                    pass
                raise
            self._flush()
            return result

    def _fill(self) -> None:
        try:
            data = super().recv(_RECORD)
        except BlockingIOError:
            raise ssl.SSLWantReadError(
                ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)"
            ) from None
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def do_handshake(self, block: bool = False) -> None:
        """Perform the handshake; it waits as any other call."""
        timeout = self._timeout
        try:
            if timeout == 0.0 and block:
                self._timeout = None
            self._run(self._object.do_handshake)
        finally:
            self._timeout = timeout

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Up to len bytes; or into a buffer, and how many."""
        try:
            if buffer is not None:
                return self._run(self._object.read, len, buffer)
            return self._run(self._object.read, len)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as e:
            if isinstance(e, ssl.SSLEOFError) and not self._suppress_eof:
                raise
            return 0 if buffer is not None else b""

    def write(self, data: Buffer) -> int:
        """Send; returns how many bytes of data were taken."""
        return self._run(self._object.write, data)

    def unwrap(self) -> socket.socket:
        """End TLS; the plain socket is the result."""
        self._run(self._object.unwrap)
        plain = socket.socket._make(self._client, self._fd, self._family, self._type, self._proto)
        plain._timeout, plain._poll_fd = self._timeout, self._poll_fd
        self._fd = self._poll_fd = -1
        self._closed = True
        return plain

    # ---- the socket's methods ------------------------------------------------------------

    def _no_flags(self, flags: int, name: str) -> None:
        if flags:
            raise ValueError(f"non-zero flags not allowed in calls to {name}() on {self.__class__}")

    def connect(self, address: Any, /) -> None:
        """Connect, and perform the handshake."""
        super().connect(address)
        self.do_handshake()

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """As `socket.send`."""
        self._no_flags(flags, "send")
        return self.write(data) if memoryview(data).nbytes else 0

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """As `socket.sendall`."""
        self._no_flags(flags, "sendall")
        with memoryview(data) as view, view.cast("B") as raw:
            at = 0
            while at < len(raw):
                at += self.write(raw[at : at + (1 << 20)])

    def recv(self, bufsize: int = 1024, flags: int = 0, /) -> bytes:
        """As `socket.recv`."""
        self._no_flags(flags, "recv")
        data: bytes = self.read(bufsize) if bufsize else b""
        return data

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        self._no_flags(flags, "recv_into")
        view = memoryview(buffer)
        size = nbytes or view.nbytes
        return int(self.read(size, view)) if size else 0

    def sendto(self, data: Buffer, *args: Any) -> int:
        """Not with TLS."""
        raise ValueError(f"sendto not allowed on instances of {self.__class__}")

    def recvfrom(self, *args: Any) -> Any:
        """Not with TLS."""
        raise ValueError(f"recvfrom not allowed on instances of {self.__class__}")

    def recvfrom_into(self, *args: Any) -> Any:
        """Not with TLS."""
        raise ValueError(f"recvfrom_into not allowed on instances of {self.__class__}")

    def sendmsg(self, *args: Any) -> int:
        """Not with TLS."""
        raise NotImplementedError(f"sendmsg not allowed on instances of {self.__class__}")

    def recvmsg(self, *args: Any) -> Any:
        """Not with TLS."""
        raise NotImplementedError(f"recvmsg not allowed on instances of {self.__class__}")

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection, with TLS on it."""
        plain, address = super().accept()
        return SSLSocket._wrap(plain, self._context, server_side=True), address

    def dup(self) -> socket.socket:
        """Not with TLS."""
        raise NotImplementedError(f"Can't dup() {self.__class__.__name__} instances")

    # ---- what is known of the session ----------------------------------------------------

    @property
    def context(self) -> ssl.SSLContext:
        """The context that it was made by."""
        return self._context

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, for another connection to resume."""
        return self._object.session

    @property
    def session_reused(self) -> bool | None:
        """Was a session resumed?"""
        return self._object.session_reused

    def pending(self) -> int:
        """Bytes that can be read without waiting."""
        return self._object.pending()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl.SSLSocket.getpeercert`."""
        return self._object.getpeercert(binary_form)

    def cipher(self) -> tuple[str, str, int] | None:
        """(name, protocol, bits)"""
        return self._object.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """What both sides offer."""
        return self._object.shared_ciphers()

    def compression(self) -> str | None:
        """None, usually."""
        return self._object.compression()

    def version(self) -> str | None:
        """ "TLSv1.3" and its like"""
        return self._object.version()

    def selected_alpn_protocol(self) -> str | None:
        """What ALPN has agreed on."""
        return self._object.selected_alpn_protocol()

    def selected_npn_protocol(self) -> str | None:
        """NPN is obsolete."""
        return None

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """As `ssl.SSLSocket.get_channel_binding`."""
        return self._object.get_channel_binding(cb_type)


def wrap_socket(self: ssl.SSLContext, sock: Any, *args: Any, **kwargs: Any) -> Any:
    """`ssl.SSLContext.wrap_socket`: sockets of ours get an SSLSocket of ours."""
    if not isinstance(sock, socket.socket):
        return _real_wrap_socket(self, sock, *args, **kwargs)
    names = ("server_side", "do_handshake_on_connect", "suppress_ragged_eofs", "server_hostname",
             "session")  # fmt: skip
    kwargs.update(zip(names, args, strict=False))
    return SSLSocket._wrap(sock, self, **kwargs)
