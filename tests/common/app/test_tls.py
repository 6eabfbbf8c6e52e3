# SPDX-License-Identifier: MIT
"""TLS over our sockets beside the standard one over Linux's: the same test on both."""

import select
import socket as stdlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from skbus import socket
from skbus.app import tls
from skbustest.loopback import Loopback

HERE = "127.0.0.1"
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
KINDS = pytest.mark.parametrize("kind", ["ours", "linux"])
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """Their results, when all have come to their end."""
    results: dict[int, Any] = {}

    def run(i: int, function: Callable[[], object]) -> None:
        try:
            results[i] = function()
        except (OSError, ValueError) as e:
            results[i] = e

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
    return [results[i] for i in range(len(functions))]


@contextmanager
def tls_pair(net: Any, contexts: Contexts, polled: bool = False) -> Iterator[tuple[Any, Any]]:
    """(server's, client's), their hands shaken."""
    server, client = contexts
    with net.create_server((HERE, 0)) as listener:
        two = net.create_connection(listener.getsockname())
        one, _ = listener.accept()
    if polled:
        assert one.fileno() != two.fileno()
    a, b = in_threads(
        lambda: server.wrap_socket(one, server_side=True),
        lambda: client.wrap_socket(two, server_hostname="localhost"),
    )
    assert isinstance(a, tls.SSLSocket if net is socket else ssl.SSLSocket), a
    assert isinstance(b, type(a)), b
    with a, b:
        a.settimeout(30.0)
        b.settimeout(30.0)
        yield a, b


def the(kind: str, version: ssl.TLSVersion, contexts: Contexts) -> Any:
    for context in contexts:
        context.minimum_version = context.maximum_version = version
    return socket if kind == "ours" else stdlib


def readable(sock: Any, seconds: float) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


@KINDS
@VERSIONS
@pytest.mark.parametrize("polled", [False, True])
def test_select_and_pending_show_every_record(
    loopback: Loopback, contexts: Contexts, kind: str, version: ssl.TLSVersion, polled: bool
) -> None:
    """What paho-mqtt and Tornado do: read what select, or pending, promises."""
    net = the(kind, version, contexts)
    with tls_pair(net, contexts, polled) as (one, two):
        for i in range(20):
            one.sendall(b"%02d" % i * 50)
        got = two.recv(30)  # all may be read ahead here, before anybody has asked for the fd
        while len(got) < 2000:
            assert two.pending() or readable(two, 30.0)
            got += two.recv(100)
        assert got == b"".join(b"%02d" % i * 50 for i in range(20))
        assert not two.pending()
        assert not readable(two, 0.0)
        one.sendall(b"more")
        assert readable(two, 30.0)
        assert two.recv(100) == b"more"
        one.close()
        assert readable(two, 30.0)
        assert two.recv(100) == b""


@KINDS
@VERSIONS
def test_a_sender_that_does_not_wait(
    loopback: Loopback, contexts: Contexts, kind: str, version: ssl.TLSVersion
) -> None:
    net = the(kind, version, contexts)
    blob = bytes(range(256)) * 16384
    with tls_pair(net, contexts) as (one, two):
        one.setblocking(False)
        seen = set()

        def send() -> None:
            at = 0
            while at < len(blob):
                try:
                    at += one.send(memoryview(blob)[at : at + 32768])
                except OSError as e:
                    seen.add(type(e))
                    if not isinstance(e, ssl.SSLWantWriteError):
                        raise
                    begin.set()
                    assert select.select([], [one], [], 30.0)[1]

        def receive() -> bytes:
            begin.wait(30.0)
            got = bytearray()
            while len(got) < len(blob):
                got += two.recv(65536)
            return bytes(got)

        begin = threading.Event()
        failed, got = in_threads(send, receive)
        assert failed is None
        assert got == blob
        assert seen == {ssl.SSLWantWriteError}


@VERSIONS
@pytest.mark.parametrize("size", [100, 65536, 1 << 20])
def test_one_thread_sends_while_another_receives(
    loopback: Loopback, contexts: Contexts, version: ssl.TLSVersion, size: int
) -> None:
    """The standard one is no reference: CPython 3.13.0's has a bad record MAC now and then."""
    net = the("ours", version, contexts)
    blob = bytes(i % 251 for i in range(size))
    count = 200 if size < 1000 else (4 << 20) // size

    def sender(sock: Any) -> Callable[[], object]:
        def send() -> None:
            for _ in range(count):
                sock.sendall(blob)

        return send

    def receiver(sock: Any) -> Callable[[], object]:
        def receive() -> bool:
            got = bytearray()
            while len(got) < count * size:
                got += sock.recv(65536)
            return bytes(got) == blob * count

        return receive

    with tls_pair(net, contexts) as (one, two):
        ends = (sender(one), receiver(one), sender(two), receiver(two))
        assert in_threads(*ends) == [None, True, None, True]


@KINDS
@VERSIONS
def test_a_write_that_timed_out_is_taken_up_again(
    loopback: Loopback, contexts: Contexts, kind: str, version: ssl.TLSVersion
) -> None:
    net = the(kind, version, contexts)
    piece = bytes(range(256)) * 256
    sent = 0

    def fill() -> None:
        nonlocal sent
        while True:
            sent += one.send(piece)

    with tls_pair(net, contexts) as (one, two):
        one.settimeout(0.01)
        with pytest.raises(TimeoutError):
            fill()
        got = bytearray()

        def receive() -> None:
            while len(got) < sent + len(piece):
                got.extend(two.recv(65536))

        one.settimeout(30.0)
        failed, taken = in_threads(receive, lambda: one.send(piece))
        assert (failed, taken) == (None, len(piece))
        assert bytes(got) == piece * (len(got) // len(piece))


@VERSIONS
def test_wrap_socket_works_without_install(
    loopback: Loopback, contexts: Contexts, version: ssl.TLSVersion
) -> None:
    with tls_pair(the("ours", version, contexts), contexts) as (one, two):
        one.sendall(b"hello")
        assert two.recv(10) == b"hello"
        assert two.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]


@KINDS
@pytest.mark.parametrize("how", ["connect", "connect_ex"])
def test_wrapped_first_and_connected_then(
    loopback: Loopback, contexts: Contexts, kind: str, how: str
) -> None:
    net = the(kind, ssl.TLSVersion.TLSv1_3, contexts)
    server, client = contexts
    with server.wrap_socket(net.create_server((HERE, 0)), server_side=True) as listener:
        address = listener.getsockname()
        two = client.wrap_socket(net.socket(), server_hostname="localhost")
        assert two.version() is None
        assert two.cipher() is None
        (one, _), done = in_threads(listener.accept, lambda: getattr(two, how)(address))
        with one, two:
            assert done == (None if how == "connect" else 0)
            assert two.cipher() is not None
            with pytest.raises(ValueError, match="already-connected"):
                two.connect(address)
            one.sendall(b"hello")
            assert two.recv(10) == b"hello"


@KINDS
def test_a_handshake_that_does_not_wait(loopback: Loopback, contexts: Contexts, kind: str) -> None:
    net = the(kind, ssl.TLSVersion.TLSv1_3, contexts)
    server, client = contexts
    with net.create_server((HERE, 0)) as listener:
        two = net.create_connection(listener.getsockname())
        one, _ = listener.accept()
    for sock in (one, two):
        sock.setblocking(False)
    with pytest.raises(ValueError, match="non-blocking"):
        client.wrap_socket(two.dup(), server_hostname="localhost")
    options: Any = {"do_handshake_on_connect": False}
    with (
        server.wrap_socket(one, server_side=True, **options) as a,
        client.wrap_socket(two, server_hostname="localhost", **options) as b,
    ):
        ends = {a, b}
        while ends:
            for end in tuple(ends):
                try:
                    end.do_handshake()
                    ends.remove(end)
                except ssl.SSLWantReadError:
                    select.select(list(ends), [], [], 0.01)
        b.send(b"hello")
        assert readable(a, 30.0)
        assert a.recv(10) == b"hello"


@KINDS
def test_unwrap_leaves_the_clear_text(loopback: Loopback, contexts: Contexts, kind: str) -> None:
    """As FTP's CCC does: what comes right behind TLS's end is there for the plain socket."""
    net = the(kind, ssl.TLSVersion.TLSv1_3, contexts)
    with tls_pair(net, contexts) as (one, two):

        def first() -> Any:
            plain = one.unwrap()
            plain.sendall(b"220 in the clear")
            return plain

        def second() -> Any:
            plain = two.unwrap()
            assert readable(plain, 30.0)
            return plain, plain.recv(100)

        plain, (other, text) = in_threads(first, second)
        assert text == b"220 in the clear"
        with plain, other:
            other.sendall(b"200 yes")
            assert plain.recv(10) == b"200 yes"


@KINDS
def test_what_is_refused(loopback: Loopback, contexts: Contexts, kind: str) -> None:
    net = the(kind, ssl.TLSVersion.TLSv1_3, contexts)
    server, client = contexts
    with tls_pair(net, contexts) as (one, two):
        for name, args in (("recv", (1,)), ("send", (b"x",)), ("sendall", (b"x",))):
            with pytest.raises(ValueError, match="flags"):
                getattr(one, name)(*args, net.MSG_PEEK)
        with pytest.raises(ValueError, match="not allowed"):
            one.sendto(b"x", (HERE, 1))
        with pytest.raises(ValueError, match="not allowed"):
            one.recvfrom(1)
        with pytest.raises(NotImplementedError):
            one.sendmsg([b"x"])
        with pytest.raises(NotImplementedError):
            one.recvmsg(1)
        with pytest.raises(NotImplementedError):
            one.dup()
        assert one.send(b"") == 0
        assert two.getpeercert()["subject"] == ((("commonName", "localhost"),),)
    with net.socket() as sock:
        with pytest.raises(ValueError, match="requires server_hostname"):
            client.wrap_socket(sock)
        with pytest.raises(ValueError, match="client mode"):
            server.wrap_socket(sock, server_side=True, server_hostname="localhost")
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock, pytest.raises(NotImplementedError):
        client.wrap_socket(sock, server_hostname="localhost")
