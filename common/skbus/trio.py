# SPDX-License-Identifier: MIT
"""trio on the skbus stack: sockets for stock trio code.

    import skbus.trio
    skbus.trio.install()            # within trio.run

After that `trio.open_tcp_stream`, `trio.serve_tcp`, `trio.SSLStream` and what is built on them
(httpx, httpcore, hypercorn) use our sockets. It holds for that one `trio.run`.

All asynchronous calls of a run go through one DEALER and are told apart by their number
(`skbus.app.client.Mux`). A cancelled call is also cancelled in the socket layer, and awaited. If
its result had come already, the call returns it, and the cancellation comes at the next checkpoint.
So no bytes are lost. Calls that never wait (options, names, close) are short and blocking, as they
are in trio.
"""

import errno
import os
import select
import socket as stdlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import Abort, RaiseCancelT

from skbus import socket as blocking
from skbus.app.client import Client, Mux, get_client, os_error
from skbus.app.sockargs import cmsgs, pack_address, unpack_address
from skbus.bus.rundir import RunDir

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any


class Loop:
    """The calls of one trio run: a Mux, and the task that hands out its replies."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._mux = Mux(client)
        self._over = False
        # The life connection is readable for other reasons too: watch only its end.
        self._hup = select.epoll()
        self._hup.register(client.life.fileno(), select.EPOLLRDHUP)
        trio.lowlevel.spawn_system_task(self._read, name="skbus: replies")
        trio.lowlevel.spawn_system_task(self._watch, name="skbus: life")

    async def _read(self) -> None:
        fd = self._mux.fileno()
        try:
            while not self._over and not self._mux.gone:
                await trio.lowlevel.wait_readable(fd)
                self._mux.drain()
        finally:
            self.close()

    async def _watch(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._hup.fileno())
        finally:
            self._over = True
            self._hup.close()
            self._mux.fail_all()

    def close(self) -> None:
        """The run is over."""
        self._over = True
        self._mux.fail_all()
        self._mux.close()

    async def call(self, name: str, *args: object, data: bytes = b"") -> tuple[Any, bytes]:
        """One system call: (result, data). OSError as the call gives it.

        Cancellation: the call is cancelled in the socket layer, or has its result.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self.call_now(name, *args, data=data)

    async def call_now(self, name: str, *args: object, data: bytes = b"") -> tuple[Any, bytes]:
        """The same, without a look at a cancellation before it is sent."""
        if self._over:
            raise os_error(errno.ENETDOWN, "the socket layer has ended")
        task = trio.lowlevel.current_task()
        raise_cancel: RaiseCancelT | None = None
        outcome: tuple[int, Any, bytes] | None = None

        def answered(err: int, result: Any, reply: bytes) -> None:
            nonlocal outcome
            outcome = (err, result, reply)
            trio.lowlevel.reschedule(task)

        req = self._mux.submit(answered, name, *args, data=data)

        def abort(raise_it: RaiseCancelT) -> Abort:
            nonlocal raise_cancel
            raise_cancel = raise_it
            self._mux.cancel(req)
            return Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)
        assert outcome is not None
        err, result, reply = outcome
        if err == errno.EINTR and raise_cancel is not None:
            raise_cancel()
        if err:
            raise os_error(err, result)
        return result, reply


_loop: Final[trio.lowlevel.RunVar[Loop]] = trio.lowlevel.RunVar("skbus_loop")


def get_loop() -> Loop:
    """The loop of this trio run."""
    try:
        loop = _loop.get()
        if not loop._over:
            return loop
    except LookupError:
        pass
    loop = Loop(get_client())
    _loop.set(loop)
    return loop


class SocketType(trio.socket.SocketType):
    """A trio socket on our stack. The methods are those of `trio.socket.SocketType`."""

    def __init__(self, sock: blocking.socket) -> None:
        self._sock = sock
        """The blocking view of the same socket."""
        self._sock.setblocking(False)
        self._loop = get_loop()
        self._did_shutdown_wr = False

    # ---- what does not wait --------------------------------------------------------------

    def __enter__(self) -> "SocketType":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def family(self) -> stdlib.AddressFamily:
        """AF_INET"""
        return self._sock.family

    @property
    def type(self) -> stdlib.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM"""
        return self._sock.type

    @property
    def proto(self) -> int:
        """What the third argument was."""
        return self._sock.proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        """Has sending been ended?"""
        return self._did_shutdown_wr

    def __repr__(self) -> str:
        return repr(self._sock).replace("skbus.socket.socket", "skbus.trio.SocketType")

    def detach(self) -> int:
        """As in `skbus.socket`."""
        return self._sock.detach()

    def fileno(self) -> int:
        """A descriptor that shows the state to select and its like."""
        return self._sock.fileno()

    def getpeername(self) -> Any:
        """The peer's address."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Our address."""
        return self._sock.getsockname()

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """An int; or, with a length, bytes."""
        return self._sock.getsockopt(level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """As in `skbus.socket`."""
        if optlen is None:
            self._sock.setsockopt(level, optname, value)
        else:
            self._sock.setsockopt(level, optname, value, optlen)

    def listen(self, backlog: int = 128) -> None:
        """Let connections come."""
        self._sock.listen(min(backlog, 65535))

    def get_inheritable(self) -> bool:
        """False"""
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """ENOTSUP for True."""
        self._sock.set_inheritable(inheritable)

    def close(self) -> None:
        """Close; tasks that wait on it get ClosedResourceError."""
        self._sock.close()

    def shutdown(self, how: int) -> None:
        """SHUT_RD, SHUT_WR or SHUT_RDWR"""
        self._sock.shutdown(how)
        if how in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._did_shutdown_wr = True

    def dup(self) -> "SocketType":
        """Another descriptor for the same socket."""
        return SocketType(self._sock.dup())

    def is_readable(self) -> bool:
        """Would a receive return at once?"""
        ready, _ = self._sock._client.call("poll", ((self._number(), select.POLLIN),), 0)
        return bool(ready)

    # ---- what waits ----------------------------------------------------------------------

    def _number(self) -> int:
        fd = self._sock._fd
        if fd < 0:
            raise os_error(errno.EBADF)
        return fd

    async def _call(self, name: str, *args: object, data: bytes = b"") -> tuple[Any, bytes]:
        try:
            return await self._loop.call(name, self._number(), *args, data=data)
        except OSError as e:
            raise self._closed(e) from None

    def _closed(self, e: OSError) -> Exception:
        if e.errno == errno.EBADF and self._sock._fd < 0:
            return trio.ClosedResourceError("another task closed this socket")
        return e

    async def bind(self, address: Any) -> None:
        """Give the socket a local address (host, port)."""
        await self._call("bind", await self._pack(address))

    async def connect(self, address: Any) -> None:
        """Connect to (host, port).

        Cancellation closes the socket, as trio's own does: whether it is connected is not known.
        """
        packed = await self._pack(address)
        try:
            await self._call("connect", packed, -1)
        except trio.Cancelled:
            self._sock.close()
            raise

    async def _pack(self, address: Any) -> tuple[int, int, bytes]:
        if isinstance(address, tuple) and len(address) == 2 and isinstance(address[0], str):
            try:
                stdlib.inet_pton(stdlib.AF_INET, address[0])
            except OSError:
                if address[0] not in ("", "<broadcast>"):
                    found = await trio.socket.getaddrinfo(*address, stdlib.AF_INET)
                    address = found[0][4][:2]
        return pack_address(address)

    async def accept(self) -> tuple["SocketType", Any]:
        """The next connection: (socket, peer's address)."""
        (fd, address), _ = await self._call("accept4", 0, -1)
        sock = self._sock
        new = blocking.socket._make(sock._client, fd, sock._family, sock._type, sock._proto)
        return SocketType(new), unpack_address(address)

    async def _send(
        self,
        data: Buffer,
        flags: int,
        address: Any,
        control: tuple[tuple[int, int, bytes], ...] = (),
    ) -> int:
        client = self._sock._client
        await trio.lowlevel.checkpoint_if_cancelled()
        number = self._number()
        with memoryview(data) as view, view.cast("B") as raw:
            inline, places = client.put(raw)
            taken = len(inline) + sum(p[4] for p in places)
            if taken < len(raw) and self._sock._type != stdlib.SOCK_STREAM:
                client.forget(places)
                raise os_error(errno.EMSGSIZE)
        try:
            result, _ = await self._loop.call_now(
                "sendmsg", number, int(flags), address, places, control, -1, data=inline
            )
        except OSError as e:
            raise self._closed(e) from None
        return int(result)

    async def send(self, data: Buffer, flags: int = 0) -> int:
        """Send; returns how many bytes were taken, which may be fewer."""
        return await self._send(data, flags, None)

    async def sendto(self, data: Buffer, *args: Any) -> int:
        """sendto(data, [flags,] address)"""
        if len(args) not in (1, 2):
            raise TypeError("sendto() takes data, optional flags, and an address")
        flags = args[0] if len(args) == 2 else 0
        return await self._send(data, flags, await self._pack(args[-1]))

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
    ) -> int:
        """Send several buffers as one, with ancillary data as in `skbus.socket`."""
        control = cmsgs(ancdata)
        data = b"".join([bytes(b) for b in buffers])
        packed = None if address is None else await self._pack(address)
        return await self._send(data, flags, packed, control)

    async def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """(bytes, sender's address)"""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        (parts, address, _, _), data = await self._call("recvmsg", bufsize, 0, int(flags), -1)
        return self._sock._client.collect(parts, data), unpack_address(address)

    async def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Up to bufsize bytes; b"" when the peer has sent all."""
        if not bufsize:  # as the standard one, which asks nobody
            await trio.lowlevel.checkpoint()
            return b""
        return (await self.recvfrom(bufsize, flags))[0]

    async def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """(number of bytes, sender's address)"""
        with memoryview(buffer) as view, view.cast("B") as raw:
            payload, address = await self.recvfrom(nbytes or len(raw), flags)
            raw[: len(payload)] = payload
        return len(payload), address

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; returns how many bytes."""
        if not nbytes and not memoryview(buffer).nbytes:
            await trio.lowlevel.checkpoint()
            return 0
        return (await self.recvfrom_into(buffer, nbytes, flags))[0]

    async def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """(bytes, ancillary data, flags, sender's address)"""
        (parts, address, msg_flags, control), data = await self._call(
            "recvmsg", bufsize, ancbufsize, int(flags), -1
        )
        payload = self._sock._client.collect(parts, data)
        return payload, list(control), msg_flags & 0xFFFFFFFF, unpack_address(address)

    async def recvmsg_into(
        self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """The same into several buffers."""
        views = [memoryview(b).cast("B") for b in buffers]
        payload, anc, msg_flags, address = await self.recvmsg(
            sum(map(len, views)), ancbufsize, flags
        )
        at = 0
        for view in views:
            n = min(len(view), len(payload) - at)
            view[:n] = payload[at : at + n]
            at += n
        return at, anc, msg_flags, address

    async def wait_writable(self) -> None:
        """Return when sending would not wait."""
        await self._loop.call("poll", ((self._number(), select.POLLOUT),), -1)


class SocketFactory(trio.abc.SocketFactory):
    """For `trio.socket.set_custom_socket_factory`: IPv4 is ours, the rest is the system's."""

    def socket(
        self,
        family: int = stdlib.AF_INET,
        type: int = stdlib.SOCK_STREAM,
        proto: int = 0,
    ) -> trio.socket.SocketType:
        """A new socket."""
        sock: Any = blocking.socket(family, type, proto)
        if isinstance(sock, blocking.socket):
            return SocketType(sock)
        return trio.socket.from_stdlib_socket(sock)


class HostnameResolver(trio.abc.HostnameResolver):
    """For `trio.socket.set_custom_hostname_resolver`: IPv4 alone, where no family is named."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """The system's answer."""

        def ask() -> Any:
            return blocking.getaddrinfo(host, port, family, type, proto, flags)

        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """The system's answer."""

        def ask() -> tuple[str, str]:
            return stdlib.getnameinfo(sockaddr, flags)

        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


def install(run: RunDir | None = None) -> Callable[[], None]:
    """Make this trio run use our sockets; the result undoes it. run: as in `skbus.socket`."""
    if run is not None:
        os.environ["SKBUS_DIR"] = str(run.path)
    factory = trio.socket.set_custom_socket_factory(SocketFactory())
    resolver = trio.socket.set_custom_hostname_resolver(HostnameResolver())

    def uninstall() -> None:
        trio.socket.set_custom_socket_factory(factory)
        trio.socket.set_custom_hostname_resolver(resolver)

    return uninstall
