# SPDX-License-Identifier: MIT
"""read, write and their like of the standard library's `os` module, for what `fileno()` gives.

The descriptor of one of our sockets shows its state to select, poll and epoll, and the kernel can
do nothing else with it. `skbus.socket.install` puts these functions into the `os` module. Then
`os.read`, `os.readv`, `os.write`, `os.writev`, `os.sendfile`, `os.dup` and `os.close` do with it
what they do with a socket's descriptor. multiprocessing.connection relies on that, and asyncio's
sendfile uses it. Code that calls the kernel itself (C code, `io.FileIO`, splice) has EPIPE when it
writes, and the end of a file when it reads.
"""

import errno
import os
import socket as std
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from skbus.app.client import Client, known_clients, os_error
from skbus.app.sockfuncs import close as close_socket

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any

_PIECE: Final = 1 << 20
"""Bytes that sendfile reads at once."""

_real_read: Final = os.read
_real_readv: Final = os.readv
_real_write: Final = os.write
_real_writev: Final = os.writev
_real_sendfile: Final = os.sendfile
_real_dup: Final = os.dup
_real_close: Final = os.close


def _owner(fd: Any) -> Client | None:
    """Whose descriptor it is; None: none of ours."""
    for client in known_clients():
        if fd in client.poll_fds:
            return client
    return None


def _timeout(fd: int) -> int:
    """Of a call, by O_NONBLOCK."""
    return -1 if os.get_blocking(fd) else 0


def _receive(client: Client, fd: int, size: int) -> bytes:
    number = client.poll_fds[fd]

    def keep(result: Any, data: bytes) -> None:
        with suppress(OSError):
            client.call("unrecv", number, data=client.collect(result[0], data))

    (parts, *_), data = client.call("recvmsg", number, size, 0, 0, _timeout(fd), rescue=keep)
    return client.collect(parts, data)


def _send(client: Client, fd: int, data: memoryview) -> int:
    """As write(2): one that may wait sends all of a stream."""
    number = client.poll_fds[fd]
    timeout = _timeout(fd)
    kind, _ = client.call("getsockopt", number, std.SOL_SOCKET, std.SO_TYPE, 4)
    stream = int.from_bytes(kind, "little") == std.SOCK_STREAM
    at = 0
    while True:
        inline, places = client.put(data[at:])
        try:
            sent, _ = client.call("sendmsg", number, 0, None, places, (), timeout, data=inline)
            if type(sent) is tuple:
                sent, _ = sent  # its credit we do not use
        except OSError:
            if at:
                return at
            raise
        at += int(sent)
        if at >= len(data) or not stream or not timeout:
            return at


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`."""
    client = _owner(fd)
    if client is None:
        return _real_read(fd, length)
    if length < 0:
        raise os_error(errno.EINVAL)
    return _receive(client, fd, length) if length else b""


def readv(fd: int, buffers: Sequence[Buffer], /) -> int:
    """As `os.readv`."""
    client = _owner(fd)
    if client is None:
        return _real_readv(fd, buffers)
    views = [memoryview(one).cast("B") for one in buffers]
    data = _receive(client, fd, sum(map(len, views)))
    at = 0
    for view in views:
        piece = data[at : at + len(view)]
        view[: len(piece)] = piece
        at += len(piece)
    return len(data)


def write(fd: int, data: Buffer, /) -> int:
    """As `os.write`."""
    client = _owner(fd)
    if client is None:
        return _real_write(fd, data)
    with memoryview(data) as view, view.cast("B") as raw:
        return _send(client, fd, raw)


def writev(fd: int, buffers: Sequence[Buffer], /) -> int:
    """As `os.writev`."""
    client = _owner(fd)
    if client is None:
        return _real_writev(fd, buffers)
    return _send(client, fd, memoryview(b"".join(memoryview(one).cast("B") for one in buffers)))


def sendfile(
    out_fd: int, in_fd: int, offset: int | None, count: int, *args: Any, **kwargs: Any
) -> int:
    """As `os.sendfile`; the file is read."""
    client = _owner(out_fd)
    if client is None:
        return _real_sendfile(out_fd, in_fd, offset, count, *args, **kwargs)
    at = os.lseek(in_fd, 0, os.SEEK_CUR) if offset is None else offset
    data = os.pread(in_fd, min(count, _PIECE), at)
    if not data:
        return 0
    sent = _send(client, out_fd, memoryview(data))
    if offset is None:
        os.lseek(in_fd, at + sent, os.SEEK_SET)
    return sent


def dup(fd: int, /) -> int:
    """As `os.dup`."""
    client = _owner(fd)
    if client is None:
        return _real_dup(fd)
    number, _ = client.call("dup", client.poll_fds[fd])
    try:
        new = client.poll_open(number)
    except OSError:
        client.call("close", number)
        raise
    os.set_blocking(new, os.get_blocking(fd))
    return new


def close(fd: int) -> None:
    """As `os.close`."""
    if _owner(fd) is None:
        _real_close(fd)
    else:
        close_socket(fd)


PATCHED: Final[dict[str, Callable[..., Any]]] = {
    "read": read, "readv": readv, "write": write, "writev": writev, "sendfile": sendfile,
    "dup": dup, "close": close,
}  # fmt: skip
