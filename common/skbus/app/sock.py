# SPDX-License-Identifier: MIT
"""The class `skbus.socket.socket`: a standard socket's methods, as system calls of our stack.

Results and errors are the standard library's. What is peculiar to bytes and datagrams is in
`skbus.app.sockmsg`. Calls `skbus.app.client`; read `skbus.core.syscall` for what crosses to the
socket layer.
"""

import contextlib
import errno
import os
import socket as std
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Final

from skbus.app.client import Client, get_client, known_clients, os_error
from skbus.app.sockargs import (
    c_int,
    check_timeout,
    cmsgs,
    pack_address,
    timeout_ns,
    unpack_address,
)
from skbus.app.sockargs import view as check_view
from skbus.app.sockmsg import Messages

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any

# `skbus.socket.install` replaces the one in the standard module
std_socket: Final = std.socket

_FAMILIES: Final = frozenset({int(std.AF_INET)})
_FAMILY_NAMES: Final = {int(family): family for family in std.AddressFamily}
_TYPE_NAMES: Final = {int(kind): kind for kind in std.SocketKind}
_TYPE_MASK: Final = 0xF
_FIONREAD: Final = 0x541B

Address = Any

_default_timeout: float | None = None


def getdefaulttimeout() -> float | None:
    """Seconds that a new socket waits; None for ever."""
    return _default_timeout


def setdefaulttimeout(timeout: float | None) -> None:
    """Set what `getdefaulttimeout` tells."""
    global _default_timeout
    _default_timeout = check_timeout(timeout)


class socket(Messages):
    """A socket on the skbus stack; see `socket.socket` of the standard library.

    fileno: a descriptor that `fileno()` or `detach()` of such a socket gave.
    """

    __module__ = "skbus.socket"
    """Its public name, which `repr` shows."""

    __slots__ = (
        "__weakref__", "_closed", "_family", "_io_refs", "_poll_fd",
    )  # fmt: skip

    def __new__(
        cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> Any:
        if fileno is not None:
            ours = any(fileno in c.poll_fds for c in known_clients())
        else:
            ours = family in _FAMILIES or family in (-1, std.AF_INET6)
        if not ours:
            return std_socket(family, type, proto, fileno)
        return super().__new__(cls)

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self._closed = False
        self._fd = -1
        self._io_refs = 0
        self._poll_fd = -1
        self._timeout = _default_timeout
        if fileno is not None:
            self._adopt(fileno, family, type, proto)
            return
        if family == -1:
            family = std.AF_INET
        if type == -1:
            type = std.SOCK_STREAM
        if proto == -1:
            proto = 0
        self._client = get_client()
        nonblock = type & std.SOCK_NONBLOCK
        plain = type & ~(std.SOCK_NONBLOCK | std.SOCK_CLOEXEC)
        self._fd, _ = self._client.call("socket", int(family), int(plain), int(proto))
        self._family, self._type, self._proto = int(family), int(plain) & _TYPE_MASK, int(proto)
        self._init_messages(True)
        if nonblock:
            self._timeout = 0.0

    @classmethod
    def _make(cls, client: Client, fd: int, family: int, type: int, proto: int) -> "socket":
        self = object.__new__(cls)
        self._client = client
        self._fd = fd
        self._family, self._type, self._proto = family, type, proto
        self._timeout = _default_timeout
        self._io_refs = 0
        self._poll_fd = -1
        self._init_messages(False)
        self._closed = False
        return self

    def _adopt(self, fileno: int, family: int, type: int, proto: int) -> None:
        self._client = next(c for c in known_clients() if fileno in c.poll_fds)
        self._fd = self._client.poll_fds[fileno]
        self._poll_fd = fileno
        sol = std.SOL_SOCKET
        self._type = self._proto = 0
        self._init_messages(False, shared=True)
        self._family = family if family >= 0 else self.getsockopt(sol, std.SO_DOMAIN)
        self._type = type if type >= 0 else self.getsockopt(sol, std.SO_TYPE)
        self._proto = proto if proto >= 0 else self.getsockopt(sol, std.SO_PROTOCOL)

    # ---- what it is ----------------------------------------------------------------------

    @property
    def family(self) -> std.AddressFamily:
        """AF_INET"""
        return _FAMILY_NAMES.get(self._family, self._family)  # type: ignore[arg-type]

    @property
    def type(self) -> std.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM"""
        return _TYPE_NAMES.get(self._type, self._type)  # type: ignore[arg-type]

    @property
    def proto(self) -> int:
        """What the third argument was."""
        return self._proto

    @property
    def timeout(self) -> float | None:
        """Seconds that a call waits; None for ever, 0.0 for not at all."""
        return self._timeout

    def __repr__(self) -> str:
        fd = self._poll_fd if self._poll_fd >= 0 else self._fd
        text = (
            f"<{self.__class__.__module__}.{self.__class__.__qualname__}"
            f"{' [closed]' if self._closed else ''} fd={fd}"
            f", family={self._family}, type={self._type}, proto={self._proto}"
        )
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                text += f", laddr={self.getsockname()}"
            with contextlib.suppress(OSError):
                text += f", raddr={self.getpeername()}"
        return text + ">"

    def __getstate__(self) -> Any:
        raise TypeError(f"cannot pickle {self.__class__.__name__!r} object")

    def _call(self, name: str, *args: object, data: bytes = b"") -> tuple[Any, bytes]:
        if self._fd < 0:
            raise os_error(errno.EBADF)
        return self._client.call(name, self._fd, *args, data=data)

    # ---- timeouts ------------------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """Seconds that calls wait; None for ever, 0 for not at all."""
        self._timeout = check_timeout(value)
        self._show_blocking()

    def _show_blocking(self) -> None:
        """The real descriptor's O_NONBLOCK is what that of a standard socket would be."""
        if self._poll_fd >= 0:
            os.set_blocking(self._poll_fd, self._timeout is None)

    def gettimeout(self) -> float | None:
        """What settimeout set."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """settimeout(None) or settimeout(0.0)"""
        self._timeout = None if flag else 0.0
        self._show_blocking()

    def getblocking(self) -> bool:
        """False where the timeout is 0."""
        return self._timeout != 0.0

    # ---- names and connections -----------------------------------------------------------

    def bind(self, address: Address, /) -> None:
        """Give the socket a local address (host, port)."""
        self._call("bind", pack_address(address))

    def listen(self, backlog: int = 128, /) -> None:
        """Let connections come."""
        self._call("listen", max(c_int(backlog), 0))

    def accept(self) -> tuple["socket", Address]:
        """The next connection: (socket, peer's address)."""
        if self._fd < 0:
            raise os_error(errno.EBADF)
        if self._stash:
            result, _ = self._stash.pop(0)
        else:
            try:
                result, _ = self._client.call(
                    "accept4", self._fd, 0, timeout_ns(self._timeout), rescue=self._unaccept
                )
            except OSError as e:
                raise self._again(e) from None
        fd, address, *credit = result
        new = socket._make(self._client, fd, self._family, self._type, self._proto)
        new._take_credit(*credit or (0,))
        return new, unpack_address(address)

    def _unaccept(self, result: Any, data: bytes) -> None:
        """An interrupted accept has had its result: it waits for the next one, and select shows
        it."""
        try:
            self._client.call("unaccept", self._fd, result[0])
        except OSError:
            self._keep(result, data)

    def _accept(self) -> tuple[int, Address]:
        """As `accept`, but with a descriptor for `socket(fileno=...)`."""
        new, address = self.accept()
        return new.detach(), address

    def connect(self, address: Address, /) -> None:
        """Connect to (host, port)."""
        self._post_max = -1
        packed = (0, 0, b"") if address is None else pack_address(address)
        try:
            self._credited(self._call("connect", packed, timeout_ns(self._timeout))[0])
        except OSError as e:
            raise self._again(e) from None

    def _credited(self, credit: int | None) -> None:
        self._take_credit(credit or 0)

    def connect_ex(self, address: Address, /) -> int:
        """The same; the errno is returned, not raised."""
        packed = pack_address(address)
        self._post_max = -1
        try:
            self._credited(self._call("connect", packed, timeout_ns(self._timeout))[0])
        except OSError as e:
            if self._timeout and e.errno in (errno.EINPROGRESS, errno.EALREADY):
                return errno.EAGAIN
            return e.errno or errno.EIO
        return 0

    def getsockname(self) -> Address:
        """Our address."""
        return unpack_address(self._call("getsockname")[0])

    def getpeername(self) -> Address:
        """The peer's address."""
        return unpack_address(self._call("getpeername")[0])

    # ---- sending -------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Send; returns how many bytes were taken, which may be fewer."""
        if self._credit and not flags and type(data) is bytes and self._post_bytes(data):
            return len(data)
        if (
            type(data) is bytes
            and len(data) <= self._post_max
            and self._post_to is None
            and self._timeout != 0
            and not flags
            and self._fd >= 0
            and self._post(data, len(data))
        ):
            return len(data)
        with memoryview(data) as view, view.cast("B") as raw:
            try:
                return self._send(raw, flags, None, self._timeout)
            except OSError as e:
                raise self._again(e) from None

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send all; the timeout is for the whole of it."""
        timeout = self._timeout
        deadline = time.monotonic() + timeout if timeout else 0.0
        with memoryview(data) as view, view.cast("B") as raw:
            if self._credit > len(raw) and not flags and self._post_bytes(bytes(raw)):
                return
            at = 0
            size = len(raw)
            while at < size or not size:
                try:
                    at += self._send(raw[at:], flags, None, timeout)
                except OSError as e:
                    raise self._again(e) from None
                if not size:
                    return
                if deadline and at < size:
                    timeout = deadline - time.monotonic()
                    if timeout <= 0:
                        raise TimeoutError("timed out")

    def sendto(self, data: Buffer, *args: Any) -> int:
        """sendto(data, [flags,] address)"""
        if len(args) not in (1, 2):
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(args)} given)")
        flags = c_int(args[0]) if len(args) == 2 else 0
        check_view(data).release()
        address = pack_address(args[-1])
        with memoryview(data) as view, view.cast("B") as raw:
            try:
                return self._send(raw, flags, address, self._timeout)
            except OSError as e:
                raise self._again(e) from None

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Address | None = None,
        /,
    ) -> int:
        """Send several buffers as one, with ancillary data: IP_PKTINFO, IP_TTL, IP_TOS,
        IP_RETOPTS, UDP_SEGMENT, SO_MARK, SO_PRIORITY."""
        control = cmsgs(ancdata)
        packed = None if address is None else pack_address(address)
        data = b"".join([bytes(memoryview(b).cast("B")) for b in buffers])
        try:
            return self._send(memoryview(data), flags, packed, self._timeout, control)
        except OSError as e:
            raise self._again(e) from None

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """Send a file by reading it; returns how many bytes were sent."""
        if "b" not in getattr(file, "mode", "b"):
            raise ValueError("file should be opened in binary mode")
        if self._type != std.SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        if self._timeout == 0:
            raise ValueError("non-blocking sockets are not supported")
        if count is not None and not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count is not None and count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
        if offset:
            file.seek(offset)
        total = 0
        try:
            while count is None or total < count:
                piece = file.read(1 << 20 if count is None else min(1 << 20, count - total))
                if not piece:
                    break
                self.sendall(piece)
                total += len(piece)
        finally:
            if hasattr(file, "seek"):
                file.seek(offset + total)
        return total

    _sendfile_use_send = sendfile

    def _sendfile_use_sendfile(
        self, file: IO[bytes], offset: int = 0, count: int | None = None
    ) -> int:
        raise std._GiveupOnSendfile("sendfile(2) cannot write to the skbus stack")  # type: ignore[attr-defined]

    # ---- receiving -----------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Up to bufsize bytes; b"" when the peer has sent all. Of none it asks nobody, as the
        standard one: no datagram is taken."""
        if not bufsize:
            return b""
        if self._ahead and not flags and bufsize >= 0:
            return self._datagram(bufsize)[0]
        return self._receive(bufsize, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Address]:
        """(bytes, sender's address)"""
        if self._ahead and not flags and bufsize >= 0:
            payload, address = self._datagram(bufsize)
        else:
            payload, address, _, _ = self._receive(bufsize, flags)
        return payload, unpack_address(address)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; returns how many bytes. See `recv` of an empty one."""
        if not nbytes and not memoryview(buffer).nbytes:
            return 0
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Address]:
        """(number of bytes, sender's address)"""
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        with memoryview(buffer) as view, view.cast("B") as raw:
            if nbytes > len(raw):
                raise ValueError("buffer too small for requested bytes")
            size = nbytes or len(raw)
            if self._ahead and not flags:
                payload, address = self._datagram(size)
                raw[: len(payload)] = payload
                return len(payload), unpack_address(address)
            if self._stash or flags & (std.MSG_WAITALL | std.MSG_TRUNC):
                payload, address, _, _ = self._receive(size, flags)
                raw[: min(size, len(payload))] = payload[:size]
                return len(payload), unpack_address(address)
            (parts, address, _, _), data = self._recvmsg(size, flags)
            return self._client.collect_into(parts, data, raw), unpack_address(address)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Address]:
        """(bytes, ancillary data, flags, sender's address)"""
        if ancbufsize < 0:
            raise ValueError("negative ancillary data buffer size in recvmsg")
        payload, address, msg_flags, control = self._receive(bufsize, flags, c_int(ancbufsize))
        return payload, control, msg_flags, unpack_address(address)

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Address]:
        """The same into several buffers."""
        views = [memoryview(b).cast("B") for b in buffers]
        if any(view.readonly for view in views):
            raise TypeError("recvmsg_into() takes writable buffers")
        payload, anc, msg_flags, address = self.recvmsg(sum(map(len, views)), ancbufsize, flags)
        at = 0
        for view in views:
            n = min(len(view), len(payload) - at)
            view[:n] = payload[at : at + n]
            at += n
        return len(payload), anc, msg_flags, address

    # ---- options -------------------------------------------------------------------------

    def setsockopt(
        self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None, /
    ) -> None:
        """setsockopt(level, option, int or bytes) or (level, option, None, length)"""
        if value is None:
            if optlen is None:
                raise TypeError("setsockopt() with None takes the length")
            raw = bytes(optlen)
        elif isinstance(value, int):
            try:
                raw = struct.pack("=i", value)
            except struct.error:
                raise OverflowError("Python int too large to convert to C int") from None
        else:
            raw = bytes(memoryview(value))
        if self._ahead:
            # The option may concern what they are received with.
            self._give_back()
        self._post_max = -1
        self._credit = 0
        self._call("setsockopt", int(level), int(optname), raw)

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """An int; or, with a length, bytes."""
        if not 0 <= buflen <= 1024:
            raise OSError("getsockopt buflen out of range")
        raw, _ = self._call("getsockopt", int(level), int(optname), buflen or 4)
        if buflen:
            return raw
        return int.from_bytes(raw, "little", signed=True)

    def ioctl(self, request: int) -> int:
        """`fcntl.ioctl` of a socket cannot reach the stack; SIOCINQ (FIONREAD), SIOCOUTQ (TIOCOUTQ)
        and SIOCATMARK can be asked here."""
        if self._ahead and request == _FIONREAD:
            with contextlib.suppress(IndexError):
                return len(self._stash[0][1])
        return int(self._call("ioctl", request)[0])

    # ---- descriptors ---------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that shows the state to select and its like; -1 when closed."""
        if self._fd < 0:
            return -1
        if self._poll_fd < 0:
            self._share()
            self._poll_fd = self._client.poll_open(self._fd)
            self._show_blocking()
        return self._poll_fd

    def dup(self) -> "socket":
        """Another descriptor for the same socket."""
        self._share()
        fd, _ = self._call("dup")
        new = self._make(self._client, fd, self._family, self._type, self._proto)
        new._share()
        new._timeout = self._timeout
        return new

    def detach(self) -> int:
        """Close this object without the socket; the result is for `socket(fileno=...)`."""
        number = self.fileno()
        self._closed = True
        self._fd = self._poll_fd = -1
        return number

    def get_inheritable(self) -> bool:
        """Of the descriptor. The socket itself no other process can have."""
        return os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable: bool) -> None:
        """Set it for the descriptor."""
        os.set_inheritable(self.fileno(), inheritable)

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """A file object, as the standard socket makes it."""
        # The method needs only what we have too: recv_into, send, _io_refs.
        make: Callable[..., Any] = std_socket.makefile
        return make(self, mode, buffering, encoding=encoding, errors=errors, newline=newline)

    def _decref_socketios(self) -> None:
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    # ---- the end -------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """SHUT_RD, SHUT_WR or SHUT_RDWR"""
        self._post_max = -1
        self._credit = 0
        self._call("shutdown", c_int(how))

    def close(self) -> None:
        """Close, as soon as all files that `makefile` made are closed."""
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        client = self._client
        credit, self._credit = self._credit, 0
        number, self._poll_fd = self._poll_fd, -1
        if number >= 0:
            client.poll_fds.pop(number, None)
            with contextlib.suppress(OSError):
                os.close(number)
        if client.forked or sys.is_finalizing():
            return  # the process's end closes it, as that of a standard one
        try:
            for result, _ in self._stash:
                self._close_stashed(result)
            if credit:
                client.post("close", fd)
            else:
                client.call("close", fd)
        except OSError as e:
            if e.errno != errno.ENETDOWN:
                raise

    def _close_stashed(self, result: Any) -> None:
        if type(result[0]) is int:  # a connection
            self._client.call("close", result[0])
        else:
            for part in result[0]:
                if type(part) is not int:
                    self._client.pool.free(part)

    def __enter__(self) -> "socket":
        return self

    def __exit__(self, *args: object) -> None:
        if not self._closed:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) < 0 or sys.is_finalizing():
            return
        if not self._client.forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        with contextlib.suppress(OSError):
            self._real_close()
