# SPDX-License-Identifier: MIT
"""Many client processes of one socket service, made by fork alone; run by test_crowd.py.

`crowd.py HOST PORT COUNT STATE`: one process serves an echo on HOST:PORT, COUNT others do what
STATE says, and say so; all stay in it until a line comes, and are then killed by SIGKILL, the
server last. Says as JSON lines how many there are, and that they have gone.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from skbus import socket

BLACK_HOLE = "10.77.0.77"
"""An address on the link that nobody has."""


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def serve(host: str, port: int, ready: int) -> None:
    """An echo; but a connection whose first byte is "!" is not read any more."""
    selector = select.epoll()
    listener = socket.create_server((host, port), backlog=1024)
    listener.setblocking(False)
    selector.register(listener.fileno(), select.EPOLLIN)
    socks: dict[int, Any] = {}
    os.write(ready, b"r")
    while True:
        for fd, _ in selector.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                socks[sock.fileno()] = sock
                selector.register(sock.fileno(), select.EPOLLIN)
                continue
            try:
                data = socks[fd].recv(1)
                if data == b"!":
                    selector.unregister(fd)
                    continue
                if data:
                    socks[fd].send(data + socks[fd].recv(65536))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                selector.unregister(fd)
                socks.pop(fd).close()


# ---- what a client may be doing when it is killed; each says `done` when it is in it ----------


def _connected(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=120)
    sock.sendall(b"hello" * 20)
    got = b""
    while len(got) < 100:
        got += sock.recv(100)
    if got != b"hello" * 20:
        raise ValueError(got)
    sock.settimeout(None)
    return sock


def idle(host: str, port: int, done: Callable[[], None]) -> None:
    with _connected(host, port):
        done()
        signal.pause()


def recv(host: str, port: int, done: Callable[[], None]) -> None:
    with _connected(host, port) as sock:
        done()
        sock.recv(100)


def connect(host: str, port: int, done: Callable[[], None]) -> None:
    with socket.socket() as sock:
        done()
        while True:
            try:
                sock.connect((BLACK_HOLE, 9))
            except OSError:
                time.sleep(0.01)


def send(host: str, port: int, done: Callable[[], None]) -> None:
    with _connected(host, port) as sock:
        sock.sendall(b"!")
        threading.Timer(0.5, done).start()
        while True:
            sock.sendall(bytes(1 << 22))


def listener(host: str, port: int, done: Callable[[], None]) -> None:
    """One that listens, with connections that wait to be accepted; and it waits for another."""
    with socket.create_server((host, 0)) as first, socket.create_server((host, 0)) as second:
        for _ in range(3):
            socket.create_connection(first.getsockname()).detach()
        done()
        second.accept()


def polled(host: str, port: int, done: Callable[[], None]) -> None:
    """With descriptors that are polled, datagrams that are unread, and a pool region."""
    with _connected(host, port) as sock, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind((host, 0))
        for size in (10, 9000, 60_000):
            udp.sendto(bytes(size), udp.getsockname())
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        select.select([udp], [], [])
        done()
        poll.poll()


STATES = {f.__name__: f for f in (idle, recv, connect, send, listener, polled)}


def main() -> None:
    host, port, count, state = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    read, write = os.pipe()

    def child(function: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            function()
        except BaseException as e:  # noqa: BLE001 - it is told, and the process ends
            sys.stderr.write(f"{state}: {e!r}\n")
        finally:
            os._exit(1)

    server = child(lambda: serve(host, port, write))
    if os.read(read, 1) != b"r":
        raise RuntimeError("no server")
    done = lambda: os.write(write, b"d")  # noqa: E731
    pids = [child(lambda: STATES[state](host, port, done)) for _ in range(count)]  # type: ignore[arg-type]
    ready = b""
    while len(ready) < count:
        ready += os.read(read, 4096)
    say(ready=count)
    sys.stdin.readline()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    codes = {os.waitpid(pid, 0)[1] for pid in pids}
    say(killed=codes == {signal.SIGKILL})
    sys.stdin.readline()
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    say(gone=True)


if __name__ == "__main__":
    main()
