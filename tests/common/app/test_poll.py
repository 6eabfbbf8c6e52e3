# SPDX-License-Identifier: MIT
"""What poll and epoll say of our sockets, and of Linux's."""

import asyncio
import errno
import os
import select
import socket as stdlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from skbus import socket
from skbustest.loopback import Loopback

HERE = "127.0.0.1"


def fill(sock: socket.socket) -> None:
    """Send until the send buffer is full."""
    with suppress(BlockingIOError):
        while sock.send(bytes(1 << 20)):
            pass


EVENTS = ((select.POLLIN, "IN"), (select.POLLOUT, "OUT"), (select.POLLERR, "ERR"),
          (select.POLLHUP, "HUP"), (select.POLLRDHUP, "RDHUP"))  # fmt: skip


def events(sock: socket.socket) -> str:
    """What poll and epoll say of it, which must be the same, and twice."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    with select.epoll() as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
        told = [dict(poll.poll(0)), dict(poll.poll(0)), dict(epoll.poll(0)), dict(epoll.poll(0))]
    assert told == [told[0]] * 4
    mask = told[0].get(sock.fileno(), 0)
    return "|".join(name for bit, name in EVENTS if mask & bit)


@pytest.mark.parametrize("kind", ["ours", "linux"])
def test_poll_and_epoll_are_level_triggered_as_in_linux(loopback: Loopback, kind: str) -> None:
    net: Any = socket if kind == "ours" else stdlib
    settle = loopback.settle if kind == "ours" else lambda: None
    with net.create_server((HERE, 0)) as listener, net.socket() as one:
        assert events(listener) == ""
        one.connect(listener.getsockname())
        settle()
        assert events(listener) == "IN"
        listener.accept()[0].close()
        assert events(listener) == ""
    with one_and_two(net, settle) as (one, two):
        assert events(two) == "OUT"
        one.sendall(b"ab")
        settle()
        assert events(two) == "IN|OUT"
        two.recv(1)
        assert events(two) == "IN|OUT", "one byte is left"
        two.recv(1, net.MSG_PEEK)
        assert events(two) == "IN|OUT"
        two.recv(1)
        assert events(two) == "OUT"
        one.sendall(b"c")
        one.shutdown(net.SHUT_WR)
        settle()
        assert events(two) == "IN|OUT|RDHUP"
        assert (two.recv(1), two.recv(1)) == (b"c", b"")
        assert events(two) == "IN|OUT|RDHUP", "the end can be read again and again"
        assert events(one) == "OUT"
        two.shutdown(net.SHUT_WR)
        settle()
        assert events(one) == events(two) == "IN|OUT|HUP|RDHUP"
    with one_and_two(net, settle) as (one, two):
        one.setblocking(False)
        fill(one)
        assert events(one) == "", "nothing to be read, no room"
        two.setblocking(False)
        with suppress(BlockingIOError):
            while two.recv(1 << 20):
                settle()
        settle()
        assert "OUT" in events(one)


@contextmanager
def one_and_two(net: Any, settle: Callable[[], object]) -> Iterator[tuple[Any, Any]]:
    with net.create_server((HERE, 0)) as listener:
        one = net.create_connection(listener.getsockname())
        two, _ = listener.accept()
    settle()
    with one, two:
        yield one, two


@pytest.mark.parametrize("kind", ["ours", "linux"])
def test_a_reset_is_an_error_until_it_is_asked_for(loopback: Loopback, kind: str) -> None:
    net: Any = socket if kind == "ours" else stdlib
    settle = loopback.settle if kind == "ours" else lambda: None
    for full in (False, True):
        with one_and_two(net, settle) as (one, two):
            assert events(two) == "OUT"
            if full:
                two.setblocking(False)
                fill(two)
                assert events(two) == ""
            one.setsockopt(net.SOL_SOCKET, net.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
            settle()
            assert events(two) == "IN|OUT|ERR|HUP|RDHUP"
            assert two.getsockopt(net.SOL_SOCKET, net.SO_ERROR) == errno.ECONNRESET
            assert events(two) == "IN|OUT|HUP|RDHUP"
            assert two.recv(1) == b""
    with one_and_two(net, settle) as (one, two):
        events(two)
        one.setsockopt(net.SOL_SOCKET, net.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()
        settle()
        with pytest.raises(ConnectionResetError):
            two.recv(1)
        assert events(two) == "IN|OUT|HUP|RDHUP"


def test_what_a_descriptor_cannot_take_back_it_does_not_show(loopback: Loopback) -> None:
    """docs/socket-layer.md: Linux adds ERR, HUP and RDHUP, and these sockets may connect again."""
    with socket.socket() as sock:
        assert events(sock) == "IN|OUT"
        sock.setblocking(False)
        assert sock.connect_ex((HERE, 1)) == errno.EINPROGRESS
        loopback.settle()
        assert events(sock) == "IN|OUT"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        with socket.create_server((HERE, 0)) as listener:
            sock.connect_ex(listener.getsockname())
            sock.connect_ex(listener.getsockname())
            loopback.settle()
            assert events(sock) == "OUT"


def test_nothing_is_written_to_or_read_from_the_descriptor(loopback: Loopback) -> None:
    """Who does not know that it is no socket is told so at once, and nothing is lost by it."""
    with one_and_two(socket, loopback.settle) as (one, two), tempfile.TemporaryFile() as file:
        file.write(b"file")
        file.flush()
        fd = one.fileno()
        pipe = os.pipe()
        os.write(pipe[1], b"pipe")
        writes: list[Callable[[], int]] = [
            lambda: os.write(fd, b"x"),
            lambda: os.writev(fd, [b"x"]),
            lambda: os.sendfile(fd, file.fileno(), 0, 4),
            lambda: os.splice(pipe[0], fd, 4),
        ]
        for write in writes:
            with pytest.raises(BrokenPipeError):
                write()
        for end in pipe:
            os.close(end)
        os.set_blocking(fd, False)
        with pytest.raises(BlockingIOError):
            os.read(fd, 1)
        assert events(one) == "OUT"
        two.sendall(b"data")
        loopback.settle()
        assert events(one) == "IN|OUT"
        assert os.read(fd, 1) == b"", "the end of a file, and no byte that nobody has sent"
        assert one.recv(10) == b"data"


def test_asyncios_sendfile_falls_back(loopback: Loopback) -> None:
    """Without `install` the system call fails at once, and asyncio sends the file itself."""

    async def main(listener: Any) -> bytes:
        loop = asyncio.get_running_loop()

        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await loop.sendfile(writer.transport, file)
            writer.close()

        server = await asyncio.start_server(handle, sock=listener)
        two = socket.create_connection(listener.getsockname())
        reader, writer = await asyncio.open_connection(sock=two)
        data = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return data

    blob = bytes(range(256)) * 1000
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.seek(0)  # asyncio sends from there, where it has to read the file itself
        assert asyncio.run(main(socket.create_server((HERE, 0)))) == blob
