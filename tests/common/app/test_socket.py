# SPDX-License-Identifier: MIT
"""`skbus.socket`: the standard library's behaviour, over the real socket layer."""

import errno
import gc
import hashlib
import http.client
import http.server
import io
import os
import pickle
import select
import selectors
import signal
import socket as stdlib
import socketserver
import ssl
import subprocess
import sys
import threading
import xmlrpc.client
import xmlrpc.server
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from skbus import socket
from skbus.app import client
from skbus.app.client import get_client
from skbus.core import uapi
from skbustest.loopback import Loopback

HERE = "127.0.0.1"


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    with socket.create_server((HERE, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    with one, two:
        yield one, two


def fill(sock: socket.socket) -> None:
    """Send until the send buffer is full."""
    with suppress(BlockingIOError):
        while sock.send(bytes(1 << 20)):
            pass


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_names(loopback: Loopback) -> None:
    with socket.create_server((HERE, 8080)) as listener:
        assert listener.getsockname() == (HERE, 8080)
        with socket.create_connection((HERE, 8080)) as one:
            two, address = listener.accept()
            with two:
                assert address == one.getsockname() == two.getpeername()
                assert one.getpeername() == (HERE, 8080)
                assert (one.family, one.type, two.proto) == (
                    socket.AF_INET,
                    socket.SOCK_STREAM,
                    0,
                )
                assert "raddr=('127.0.0.1', 8080)" in repr(one)
    assert listener.fileno() == -1
    assert "[closed]" in repr(listener)


def test_bulk_both_ways(loopback: Loopback) -> None:
    blob = os.urandom(3_000_001)
    with pair() as (one, two):
        for a, b in ((one, two), (two, one)):
            thread = in_thread(lambda a=a: (a.sendall(blob), a.shutdown(socket.SHUT_WR)))  # type: ignore[misc]
            digest = hashlib.sha256()
            while data := b.recv(65536):
                digest.update(data)
            thread.join()
            assert digest.digest() == hashlib.sha256(blob).digest()


def test_small_and_odd_sizes(loopback: Loopback) -> None:
    with pair() as (one, two):
        one.sendall(b"")
        one.sendall(b"abcdef")
        assert two.recv(0) == b""
        assert two.recv(2) == b"ab"
        assert two.recv(10, socket.MSG_PEEK) == b"cdef"
        buffer = bytearray(10)
        assert two.recv_into(buffer, 3) == 3
        assert buffer[:3] == b"cde"
        assert two.recvfrom(5) == (b"f", None)
        assert one.sendmsg([b"one", bytearray(b"two"), memoryview(b"three")]) == 11
        views = [bytearray(4), bytearray(10)]
        assert two.recvmsg_into(views) == (11, [], 0, None)
        assert bytes(views[0] + views[1])[:11] == b"onetwothree"
        with pytest.raises(ValueError, match="negative"):
            two.recv(-1)
        with pytest.raises(ValueError, match="too small"):
            two.recv_into(bytearray(1), 2)


def test_recv_into_of_big_data(loopback: Loopback) -> None:
    blob = os.urandom(200_000)
    with pair() as (one, two):
        thread = in_thread(lambda: one.sendall(blob))
        buffer = bytearray(len(blob))
        assert two.recv_into(buffer, 0, socket.MSG_WAITALL) == len(blob)
        thread.join()
        assert buffer == blob


def test_timeouts(loopback: Loopback) -> None:
    with pair() as (one, _), socket.create_server((HERE, 0)) as listener:
        one.settimeout(0.01)
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError, match="timed out"):
            one.recv(1)
        with pytest.raises(TimeoutError):
            listener.accept()
        with pytest.raises(TimeoutError):
            one.sendall(bytes(20_000_000))
        one.setblocking(False)
        assert (one.gettimeout(), one.getblocking()) == (0.0, False)
        with pytest.raises(BlockingIOError):
            one.recv(1)
        with pytest.raises(ValueError, match="out of range"):
            one.settimeout(-1)


def test_connect_errors(loopback: Loopback) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, 1))
    with pytest.raises(OSError, match="unreachable") as e:
        socket.create_connection(("10.1.2.3", 1))
    assert e.value.errno == errno.ENETUNREACH
    with pytest.raises(TimeoutError):
        socket.create_connection((HERE, 9), timeout=0.01)
    with socket.socket() as sock:
        assert sock.connect_ex((HERE, 1)) == errno.ECONNREFUSED
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex((HERE, 9)) == errno.EINPROGRESS
        assert sock.connect_ex((HERE, 9)) == errno.EALREADY
        with pytest.raises(BlockingIOError):
            sock.connect((HERE, 9))


def test_errors(loopback: Loopback) -> None:
    with socket.socket() as sock:
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        with pytest.raises(TypeError):
            sock.bind("127.0.0.1")
        with pytest.raises(OverflowError):
            sock.bind((HERE, 70000))
        with pytest.raises(TypeError):
            pickle.dumps(sock)
        sock.bind((HERE, 5000))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HERE, 5000))
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv(1)
    sock.close()
    with pytest.raises(OSError, match="Address family not supported"):
        socket.socket(socket.AF_INET6)


def test_reset(loopback: Loopback) -> None:
    with pair() as (one, two):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()
        with pytest.raises(ConnectionResetError):
            two.recv(1)
        assert two.recv(1) == b""


def test_options(loopback: Loopback) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10000)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 20000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes(8)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        with pytest.raises(OSError, match="Protocol not available"):
            sock.setsockopt(socket.SOL_SOCKET, 9999, 1)
        with pytest.raises(OSError, match="Invalid argument"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, b"\1")
        with pytest.raises(OverflowError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 40)


def test_makefile(loopback: Loopback) -> None:
    with pair() as (one, two):
        with one.makefile("rwb") as file, two.makefile("r", encoding="ascii") as text:
            one.close()
            file.write(b"line one\nline two\n")
            file.flush()
            assert text.readline() == "line one\n"
            two.sendall(b"answer")
            assert file.read(6) == b"answer"
        # with the last file the socket is closed
        assert two.recv(10) == b""
        assert two.recv(10) == b""


def test_sendfile(loopback: Loopback) -> None:
    with pair() as (one, two):
        assert one.sendfile(io.BytesIO(b"0123456789"), 2, 5) == 5
        assert two.recv(100) == b"23456"


def test_datagrams(loopback: Loopback) -> None:
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as one, socket.socket(*kind) as two:
        one.bind((HERE, 53))
        assert two.sendto(b"q" * 60000, (HERE, 53)) == 60000
        data, sender = one.recvfrom(65536)
        assert data == b"q" * 60000
        assert one.sendto(b"", 0, sender) == 0
        assert two.recvmsg(10) == (b"", [], 0, (HERE, 53))
        two.connect((HERE, 53))
        two.send(b"0123456789")
        assert one.recvmsg(4)[::2] == (b"0123", socket.MSG_TRUNC)
        with pytest.raises(OSError, match="Message too long"):
            two.send(bytes(70000))
        two.connect((HERE, 54))
        two.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            two.recv(1)


@pytest.mark.parametrize("module", [stdlib, socket], ids=["machine", "skbus"])
def test_messages_and_their_flags(loopback: Loopback, module: Any) -> None:
    """The same calls on the machine's sockets and on ours."""
    peek, trunc = stdlib.MSG_PEEK, stdlib.MSG_TRUNC
    with (
        module.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as server,
        module.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as client,
    ):
        server.bind((HERE, 0))
        server.settimeout(60)
        client.connect(server.getsockname())
        who = client.getsockname()
        assert client.sendmsg([b"01234", bytearray(b"56789")]) == 10
        assert server.recv(4, peek) == b"0123"
        assert len(server.recv(4, peek | trunc)) == 10
        buffer = bytearray(4)
        assert server.recv_into(buffer, 4, peek | trunc) == 10
        assert buffer == b"0123"
        assert server.recvmsg(4, 0, peek) == (b"0123", [], trunc, who)
        one, two = bytearray(3), bytearray(4)
        assert server.recvmsg_into([one, two]) == (7, [], trunc, who)
        assert bytes(one + two) == b"0123456"
        server.setsockopt(stdlib.SOL_IP, uapi.IP_PKTINFO, 1)
        client.sendmsg([b"x"], [(stdlib.SOL_IP, 8, bytes(12))])
        data, ((level, kind, value),), flags, _ = server.recvmsg(10, 100)
        assert (data, level, kind, value[8:], flags) == (b"x", 0, 8, stdlib.inet_aton(HERE), 0)
        client.send(b"y")
        assert server.recvmsg(10, 0)[2] == stdlib.MSG_CTRUNC
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recvmsg(10, 100, stdlib.MSG_ERRQUEUE)
        with pytest.raises(OSError, match="Invalid argument"):
            client.sendmsg([b"x"], [(stdlib.SOL_IP, 99, b"")])


def test_dup_and_detach(loopback: Loopback) -> None:
    with pair() as (one, two):
        three = one.dup()
        one.close()
        with socket.socket(fileno=three.detach()) as four:
            assert four.type == socket.SOCK_STREAM
            four.sendall(b"x")
            assert two.recv(1) == b"x"
            assert three.fileno() == -1


def test_the_descriptor_is_level_correct(loopback: Loopback) -> None:
    with pair() as (one, two):
        assert select.select([two], [two], [], 0) == ([], [two], [])
        one.sendall(b"ab")
        loopback.settle()
        assert select.select([two], [], [], 5) == ([two], [], [])
        two.recv(1)
        assert select.select([two], [], [], 0) == ([two], [], [])
        two.recv(1)
        assert select.select([two], [], [], 0) == ([], [], [])
        two.setblocking(False)
        fill(two)
        assert select.select([], [two], [], 0) == ([], [], [])
        while one.recv(1 << 20, socket.MSG_DONTWAIT):
            loopback.settle()
            if select.select([], [two], [], 0)[1]:
                break
        with selectors.DefaultSelector() as selector:
            selector.register(two, selectors.EVENT_READ)
            assert selector.select(0) == []
            one.close()
            ((key, _),) = selector.select(5)
            assert key.fileobj is two


def test_a_listener_is_readable(loopback: Loopback) -> None:
    with socket.create_server((HERE, 0)) as listener:
        assert select.select([listener], [], [], 0) == ([], [], [])
        with socket.create_connection(listener.getsockname()):
            assert select.select([listener], [], [], 5) == ([listener], [], [])
            listener.accept()[0].close()
            assert select.select([listener], [], [], 0) == ([], [], [])


def test_a_refused_connect_is_writable(loopback: Loopback) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((HERE, 1))
        assert select.select([], [sock], [], 5) == ([], [sock], [])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def a_call_that_waits(
    loopback: Loopback, sock: socket.socket
) -> tuple[threading.Thread, list[OSError]]:
    """A thread that is in recv, and where its error will be."""
    errors: list[OSError] = []

    def wait() -> None:
        try:
            sock.recv(1)
        except OSError as e:
            errors.append(e)

    thread = in_thread(wait)
    while not sum(len(c.calls) for c in loopback.net.clients.values()):
        pass
    return thread, errors


def test_closing_ends_another_threads_call(loopback: Loopback) -> None:
    with pair() as (one, _):
        waiting, errors = a_call_that_waits(loopback, one)
        one.close()
        waiting.join()
        assert [e.errno for e in errors] == [errno.EBADF]


class _Interrupt(Exception):
    pass


def test_a_signal_interrupts_and_loses_nothing(loopback: Loopback) -> None:
    def interrupt(*_: object) -> None:
        raise _Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pair() as (one, two):
            main = threading.main_thread().ident
            assert main is not None

            def strike() -> None:
                while not sum(len(c.calls) for c in loopback.net.clients.values()):
                    pass
                signal.pthread_kill(main, signal.SIGUSR1)

            thread = in_thread(strike)
            with pytest.raises(_Interrupt):
                two.recv(100)
            thread.join()
            loopback.settle()
            assert not any(c.calls for c in loopback.net.clients.values())
            one.sendall(b"not lost")
            assert two.recv(100) == b"not lost"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_rescued_result_is_the_next_ones(loopback: Loopback) -> None:
    """What an interrupted call has brought goes back, and select shows it."""
    with pair() as (one, two):
        one.sendall(b"early")
        payload = two.recv(100)
        two._keep_stream(((5,), None, 0, ()), payload)
        assert select.select([two], [], [], 30.0)[0]
        assert two.recv(2, socket.MSG_PEEK) == b"ea"
        assert two.recv(2) == b"ea"
        with two.dup() as other:
            assert other.recv(20) == b"rly"
    with socket.create_server((HERE, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, address = listener.accept()
        number, two._fd = two._fd, -1
        listener._unaccept((number, (2, address[1], b"\x7f\0\0\1")), b"")
        assert select.select([listener], [], [], 30.0)[0]
        two, again = listener.accept()
        assert again == address == one.getsockname()
        one.close()
        two.close()


def test_a_stash_is_used_where_nothing_can_be_given_back(loopback: Loopback) -> None:
    with pair() as (_, two):
        two._stash.append((((5,), None, 0, ()), b"early"))
        assert two.recv(2, socket.MSG_PEEK) == b"ea"
        assert two.recv(2) == b"ea"
        assert two.recv(20) == b"rly"


def test_a_forked_child_has_no_sockets_of_its_parent(loopback: Loopback) -> None:
    with pair() as (one, two):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            text = b""
            try:
                one.send(b"x")
            except OSError as e:
                text = str(e).encode()
            try:
                with socket.create_server((HERE, 0)) as own:
                    text += b" %d" % own.getsockname()[1]
            finally:
                os.write(write, text)
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        assert b"before fork()" in text
        assert int(text.split()[-1]) > 40000
        one.sendall(b"still ours")
        assert two.recv(20) == b"still ours"


def test_a_killed_process_leaves_nothing(loopback: Loopback) -> None:
    code = """if True:
        from skbus import socket
        listener = socket.create_server(("127.0.0.1", 7000))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        print(listener.fileno() > 0, flush=True)
        sock, _ = listener.accept()
        sock.sendall(bytes(1 << 20))
        print("sent", flush=True)
        sock.recv(10)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        with socket.create_connection((HERE, 7000)) as sock:
            sock.recv(10)
            child.send_signal(signal.SIGKILL)
            child.wait()
            total = 10
            with suppress(ConnectionResetError):
                while data := sock.recv(65536):
                    total += len(data)
    loopback.settle()
    assert len(loopback.net.clients) == 1
    assert loopback.net.limits.nr_files == 0
    assert total > 10


def test_no_stack(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKBUS_DIR", str(tmp_path / "none"))
    with pytest.raises(OSError, match="is the stack up") as e:
        socket.socket()
    assert e.value.errno == errno.ENETDOWN
    (tmp_path / "none").mkdir(0o700)
    with pytest.raises(OSError, match="no socket layer answers"):
        socket.socket()


def test_the_stack_ends(loopback: Loopback) -> None:
    with pair() as (one, two):
        waiting, errors = a_call_that_waits(loopback, one)
        loopback.stop()
        waiting.join()
        assert [e.errno for e in errors] == [errno.ENETDOWN]
        with pytest.raises(OSError, match="has ended"):
            two.send(b"x")
    client._clients.pop(loopback.run.path).close()


# ---- unmodified programs ------------------------------------------------------------------


def test_install_and_uninstall(loopback: Loopback) -> None:
    before: Any = stdlib.socket
    with socket.install():
        made: Any = stdlib.socket()
        with made:
            assert type(made) is socket.socket
        a, b = stdlib.socketpair()
        a.close()
        b.close()
        assert type(a) is before
    assert stdlib.socket is before


def _serving(server: socketserver.BaseServer) -> threading.Thread:
    return in_thread(lambda: server.serve_forever(poll_interval=0.01))


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_http(loopback: Loopback) -> None:
    with socket.install(), http.server.ThreadingHTTPServer((HERE, 0), _Page) as server:
        thread = _serving(server)
        connection = http.client.HTTPConnection(HERE, server.server_address[1])
        for path in ("/a", "/bc"):
            connection.request("GET", path)
            assert connection.getresponse().read() == path.encode() * 1000
        connection.close()
        server.shutdown()
        thread.join()


def test_xmlrpc(loopback: Loopback) -> None:
    def double(x: Any, /) -> Any:
        return 2 * x

    with (
        socket.install(),
        xmlrpc.server.SimpleXMLRPCServer((HERE, 0), logRequests=False) as server,
    ):
        server.register_function(double)
        thread = _serving(server)
        with xmlrpc.client.ServerProxy(f"http://{HERE}:{server.server_address[1]}") as proxy:
            assert proxy.double("ab") == "abab"
        server.shutdown()
        thread.join()


def test_asyncio(loopback: Loopback) -> None:
    import asyncio

    blob = os.urandom(500_000)

    async def main() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(echo, HERE, 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(HERE, port)
            writer.write(blob)
            writer.write_eof()
            got = await reader.read()
            writer.close()
            await writer.wait_closed()
            return got

    with socket.install():
        assert asyncio.run(main()) == blob


def test_run_helper(loopback: Loopback, tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import socket, sys\n"
        "with socket.create_server(('127.0.0.1', 0)) as s:\n"
        "    print(type(s).__module__, s.getsockname()[1] > 40000, sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "skbus.run", str(script), "arg"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "skbus.socket True ['arg']\n"


def test_https(loopback: Loopback, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, client_side = contexts
    with socket.install(), http.server.ThreadingHTTPServer((HERE, 0), _Page) as server:
        port = server.server_address[1]
        server.socket = server_side.wrap_socket(server.socket, server_side=True)
        thread = _serving(server)
        connection = http.client.HTTPSConnection(HERE, port, context=client_side)
        for path in ("/a", "/b" * 50):
            connection.request("GET", path)
            assert connection.getresponse().read() == path.encode() * 1000
        assert type(connection.sock).__module__ == "skbus.app.tls"
        connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection(HERE, port, context=ssl.create_default_context()).request(
                "GET", "/"
            )
        server.shutdown()
        thread.join()


def test_tls_by_hand(loopback: Loopback, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, client_side = contexts
    blob = os.urandom(300_000)
    with socket.install(), pair() as ends:
        one: Any = ends[0]
        two: Any = ends[1]
        sockets: list[Any] = []
        thread = in_thread(lambda: sockets.append(server_side.wrap_socket(one, server_side=True)))
        b: Any = client_side.wrap_socket(two, server_hostname="localhost")
        thread.join()
        (a,) = sockets
        with a, b:
            assert (b.version(), b.cipher()[2] >= 128) == ("TLSv1.3", True)
            assert b.getpeercert()["subject"] == ((("commonName", "localhost"),),)
            thread = in_thread(lambda: a.sendall(blob))
            got = b""
            while len(got) < len(blob):
                got += b.recv(65536)
            thread.join()
            assert got == blob
            b.settimeout(0.01)
            with pytest.raises(TimeoutError):
                b.recv(1)
            b.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                b.recv(1)
            with pytest.raises(ValueError, match="flags"):
                b.recv(1, socket.MSG_PEEK)
            b.setblocking(True)
            plain = []
            thread = in_thread(lambda: plain.append(a.unwrap()))
            other = b.unwrap()
            thread.join()
            with other, plain[0]:
                other.sendall(b"in the clear")
                assert plain[0].recv(20) == b"in the clear"


FINALISED = """if True:
    import atexit, sys
    told = []

    def last():  # registered first: it runs when all of ours have run
        for sock in (late, two):
            sock.sendall(b"x")
            sock.close()
        sys.stdout.write("used and closed\\n")
        sys.stdout.flush()

    atexit.register(last)
    from skbus import socket

    class Keeper:
        def __init__(self, sock):
            self.sock = sock

        def __del__(self):
            self.sock.close()

    listener = socket.create_server(("127.0.0.1", 0))
    late, two, three = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    kept = Keeper(three)
    circle = Keeper(listener)
    circle.circle = circle
    del listener
    three.fileno()
"""


def test_sockets_may_be_used_and_closed_until_the_very_end(loopback: Loopback) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FINALISED],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("used and closed\n", "", 0)
    while loopback.net.clients:
        loopback.settle()
    assert not loopback.net.limits.nr_files


def test_nothing_of_a_dead_channel_is_sent_elsewhere(loopback: Loopback) -> None:
    """What could not be sent to a socket layer that has gone is not sent by a finaliser, to
    whatever has the descriptor's number then."""
    dealer = get_client().dealer()
    number = dealer.fileno()
    loopback.stop()
    with pytest.raises(OSError, match="Broken pipe"):
        dealer.send(b"a request that nobody takes")
    a, b = stdlib.socketpair()  # before the number is free
    dealer.close()
    with a, b:
        os.dup2(a.fileno(), number)
        del dealer
        gc.collect()
        b.setblocking(False)
        with pytest.raises(BlockingIOError):
            b.recv(100)
        os.close(number)
    client._clients.pop(loopback.run.path).close()
