# SPDX-License-Identifier: MIT
"""What poll and epoll say of our sockets, and of Linux's."""

import errno
import select
import socket as stdlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from skbus import socket
from skbus.testing.loopback import Loopback

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
