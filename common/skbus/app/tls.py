# SPDX-License-Identifier: MIT
"""TLS over blocking sockets of `skbus.socket`: what `ssl.SSLContext.wrap_socket` gives for them.

The standard `ssl.SSLSocket` reads and writes its descriptor itself, which is not possible here. So
TLS runs over memory (`skbus.app.tlsstream`), and our socket carries what comes out of it.
`skbus.socket` makes `SSLContext.wrap_socket` return this for our sockets, so that https, smtplib,
ftplib and their like work unmodified. (asyncio and trio run TLS over memory themselves.)

It behaves as `ssl.SSLSocket` does: what select and `pending` show, SSLWantReadError and
SSLWantWriteError, timeouts, one thread that sends while another receives, `unwrap`.

    Differs from ssl.SSLSocket: it is no subclass of that. `shutdown` does not end TLS. Two threads
    that send at the same time take turns, as do two that receive.
"""

import errno
import ssl
from collections.abc import Callable, Iterable
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, Any, Final

from skbus.app.sock import socket
from skbus.app.sockmsg import again
from skbus.app.tlsstream import TlsStream

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any

_DEFAULT_READ: Final = 1024


class SSLSocket(socket):
    """See `ssl.SSLSocket`. It takes over the socket that it is made of."""

    __slots__ = (
        "_connected", "_context", "_session", "_suppress_eof", "_tls", "do_handshake_on_connect",
        "server_hostname", "server_side",
    )  # fmt: skip

    _context: ssl.SSLContext
    _tls: TlsStream | None
    """None: unwrapped; then it is a plain socket."""
    _connected: bool
    _session: ssl.SSLSession | None
    _suppress_eof: bool
    do_handshake_on_connect: bool
    server_side: bool
    server_hostname: str | None

    @classmethod
    def _wrap(
        cls,
        sock: socket,
        context: ssl.SSLContext,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> "SSLSocket":
        if sock.type != SOCK_STREAM:
            raise NotImplementedError("only stream sockets are supported")
        if isinstance(sock, SSLSocket) and sock._tls is not None:
            raise ValueError(
                "TLS within TLS is not possible with two sockets, with ssl.SSLSocket neither: use "
                "ssl.SSLContext.wrap_bio for the inner one"
            )
        if server_side and server_hostname:
            raise ValueError("server_hostname can only be specified in client mode")
        if server_side and session is not None:
            raise ValueError("session can only be specified in client mode")
        if context.check_hostname and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        self = cls._make(sock._client, sock._fd, sock._family, sock._type, sock._proto)
        assert isinstance(self, SSLSocket)
        self._timeout = sock._timeout
        self._poll_fd = sock._poll_fd
        self._stash = sock._stash
        # What it was is ours now, as with the standard one.
        sock._fd = sock._poll_fd = -1
        sock._stash = []
        sock._closed = True
        self._context = context
        self._session = session
        self._tls = None
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.do_handshake_on_connect = do_handshake_on_connect
        self._suppress_eof = suppress_ragged_eofs
        try:
            self._connected = self._is_connected()
            if self._connected:
                self._begin()
                if do_handshake_on_connect:
                    if self._timeout == 0.0:
                        raise ValueError(
                            "do_handshake_on_connect should not be specified for non-blocking "
                            "sockets"
                        )
                    self.do_handshake()
        except BaseException:
            self._real_close()
            raise
        return self

    def _is_connected(self) -> bool:
        try:
            self.getpeername()
        except OSError as e:
            if e.errno == errno.ENOTCONN:
                return False
            raise
        return True

    def _begin(self) -> None:
        self._tls = TlsStream(
            self, self._context, self.server_side, self.server_hostname, self._session
        )
        if self._poll_fd >= 0:
            self._tls.be_shown()

    # ---- what carries the records: `skbus.app.tlsstream.Transport` -------------------------------

    def tls_send(
        self, data: memoryview, timeout: float | None, settled: Callable[[int], None]
    ) -> int:
        """The plain socket's send."""
        try:
            return self._send(data, 0, None, timeout, (), settled)
        except OSError as e:
            raise again(e, timeout) from None

    def tls_recv(self, size: int, timeout: float | None) -> bytes:
        """The plain socket's recv."""
        (parts, *_), data = self._recv_stream(size, 0, 0, timeout)
        return self._client.collect(parts, data)

    def tls_unread(self, data: bytes) -> None:
        """What was received was not read."""
        self._unrecv(data)

    def fileno(self) -> int:
        """As `socket.fileno`. It shows also what has been read, and not been decrypted."""
        number = super().fileno()
        if self._tls is not None and not self._tls.polled:
            self._tls.be_shown()
        return number

    # ---- TLS ---------------------------------------------------------------------------------

    def _stream(self, what: str) -> TlsStream:
        if self._tls is None:
            if what:
                raise ValueError(f"{what} on closed or unwrapped SSL socket.")
            raise ValueError(f"No SSL wrapper around {self}")
        return self._tls

    def do_handshake(self, block: bool = False) -> None:
        """Perform the handshake; it waits as any other call."""
        if self._tls is None:
            self.getpeername()  # ENOTCONN, mostly
            self._begin()
        timeout = self._timeout
        self._stream("Handshake").handshake(None if block and timeout == 0.0 else timeout)

    def read(self, len: int = _DEFAULT_READ, buffer: Any = None) -> Any:
        """Up to len bytes; or into a buffer, and how many."""
        tls = self._stream("Read")
        try:
            return tls.read(len, buffer, self._timeout)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as e:
            if isinstance(e, ssl.SSLEOFError) and not self._suppress_eof:
                raise
            return 0 if buffer is not None else b""

    def write(self, data: Buffer) -> int:
        """Send all of it. Where that does not go at once (SSLWantWriteError), or in time
        (TimeoutError), the next write must begin with the same bytes. It goes on from there."""
        tls = self._stream("Write")
        with memoryview(data) as view, view.cast("B") as raw:
            return tls.write(raw, self._timeout) if raw.nbytes else 0

    def unwrap(self) -> "SSLSocket":
        """End TLS. The result is this socket, which is a plain one from then on."""
        tls = self._stream("")
        tls.shutdown(self._timeout)
        self._tls = None
        tls.end()
        return self

    def verify_client_post_handshake(self) -> None:
        """As `ssl.SSLSocket.verify_client_post_handshake`."""
        self._stream("").verify_client(self._timeout)

    def _real_close(self) -> None:
        self._tls = None
        super()._real_close()

    def detach(self) -> int:
        """As `socket.detach`: TLS does not go along."""
        if self._tls is not None:
            self._tls.end()
        number = super().detach()
        self._tls = None
        return number

    # ---- the socket's methods ------------------------------------------------------------

    def _no_flags(self, flags: int, name: str) -> None:
        if flags:
            raise ValueError(f"non-zero flags not allowed in calls to {name}() on {self.__class__}")

    def connect(self, address: Any, /) -> None:
        """Connect, and perform the handshake."""
        self._before_connect()
        super().connect(address)
        self._after_connect()

    def connect_ex(self, address: Any, /) -> int:
        """The same; the errno of connecting is returned."""
        self._before_connect()
        err = super().connect_ex(address)
        if not err:
            self._after_connect()
        return err

    def _before_connect(self) -> None:
        if self.server_side:
            raise ValueError("can't connect in server-side mode")
        if self._connected:
            raise ValueError("attempt to connect already-connected SSLSocket!")
        # Nothing that is sent from now on shall go in the clear.
        self._begin()

    def _after_connect(self) -> None:
        self._connected = True
        if self.do_handshake_on_connect:
            self.do_handshake()

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """As `socket.send`; it sends all, see `write`."""
        if self._tls is None:
            return super().send(data, flags)
        self._no_flags(flags, "send")
        return self.write(data)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """As `socket.sendall`."""
        if self._tls is None:
            super().sendall(data, flags)
            return
        self._no_flags(flags, "sendall")
        self.write(data)

    def recv(self, bufsize: int = _DEFAULT_READ, flags: int = 0, /) -> bytes:
        """As `socket.recv`."""
        if self._tls is None:
            return super().recv(bufsize, flags)
        self._no_flags(flags, "recv")
        data: bytes = self.read(bufsize) if bufsize else b""
        return data

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        if self._tls is None:
            return super().recv_into(buffer, nbytes, flags)
        self._no_flags(flags, "recv_into")
        view = memoryview(buffer)
        size = nbytes or view.nbytes
        return int(self.read(size, view)) if size else 0

    def _not_with_tls(self, name: str) -> None:
        if self._tls is not None:
            raise ValueError(f"{name} not allowed on instances of {self.__class__}")

    def sendto(self, data: Buffer, *args: Any) -> int:
        """Not with TLS."""
        self._not_with_tls("sendto")
        return super().sendto(data, *args)

    def recvfrom(self, bufsize: int = _DEFAULT_READ, flags: int = 0, /) -> tuple[bytes, Any]:
        """Not with TLS."""
        self._not_with_tls("recvfrom")
        return super().recvfrom(bufsize, flags)

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Not with TLS."""
        self._not_with_tls("recvfrom_into")
        return super().recvfrom_into(buffer, nbytes, flags)

    def sendmsg(self, *args: Any) -> int:
        """Not with TLS, nor after it: so nothing goes in the clear by mistake."""
        raise NotImplementedError(f"sendmsg not allowed on instances of {self.__class__}")

    def recvmsg(self, *args: Any) -> Any:
        """Not with TLS."""
        raise NotImplementedError(f"recvmsg not allowed on instances of {self.__class__}")

    def recvmsg_into(self, buffers: Iterable[Buffer], *args: Any) -> Any:
        """Not with TLS."""
        raise NotImplementedError(f"recvmsg_into not allowed on instances of {self.__class__}")

    def accept(self) -> tuple[socket, Any]:
        """The next connection, with TLS on it."""
        plain, address = super().accept()
        wrapped = SSLSocket._wrap(
            plain, self._context, True, self.do_handshake_on_connect, self._suppress_eof
        )
        return wrapped, address

    def dup(self) -> socket:
        """Not with TLS."""
        raise NotImplementedError(f"Can't dup() {self.__class__.__name__} instances")

    # ---- what is known of the session ----------------------------------------------------

    @property
    def _object(self) -> ssl.SSLObject | None:
        return None if self._tls is None else self._tls.object

    @property
    def context(self) -> ssl.SSLContext:
        """The context that it was made by; setting another one is for a callback of SNI."""
        return self._context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._context = context
        if self._object is not None:
            self._object.context = context

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, for another connection to resume."""
        return None if self._object is None else self._object.session

    @session.setter
    def session(self, session: ssl.SSLSession) -> None:
        self._session = session
        if self._object is not None:
            self._object.session = session

    @property
    def session_reused(self) -> bool | None:
        """Was a session resumed?"""
        return None if self._object is None else self._object.session_reused

    def pending(self) -> int:
        """Bytes that are decrypted and not read. Select shows what is not decrypted yet."""
        return 0 if self._object is None else self._object.pending()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl.SSLSocket.getpeercert`."""
        if not self._connected:
            self.getpeername()
        return self._stream("").object.getpeercert(binary_form)

    def cipher(self) -> tuple[str, str, int] | None:
        """(name, protocol, bits)"""
        return None if self._object is None else self._object.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """What both sides offer."""
        return None if self._object is None else self._object.shared_ciphers()

    def compression(self) -> str | None:
        """None, usually."""
        return None if self._object is None else self._object.compression()

    def version(self) -> str | None:
        """ "TLSv1.3" and its like"""
        return None if self._object is None else self._object.version()

    def selected_alpn_protocol(self) -> str | None:
        """What ALPN has agreed on."""
        return None if self._object is None else self._object.selected_alpn_protocol()

    def selected_npn_protocol(self) -> str | None:
        """NPN is obsolete."""
        return None

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """As `ssl.SSLSocket.get_channel_binding`."""
        if self._object is not None:
            return self._object.get_channel_binding(cb_type)
        if cb_type not in ssl.CHANNEL_BINDING_TYPES:
            raise ValueError(f"{cb_type} channel binding type not implemented")
        return None

    def get_verified_chain(self) -> Any:
        """As `ssl.SSLSocket.get_verified_chain` (Python 3.13)."""
        return self._stream("").object.get_verified_chain()  # type: ignore[attr-defined,unused-ignore]

    def get_unverified_chain(self) -> Any:
        """As `ssl.SSLSocket.get_unverified_chain` (Python 3.13)."""
        return self._stream("").object.get_unverified_chain()  # type: ignore[attr-defined,unused-ignore]
