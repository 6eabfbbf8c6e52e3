# SPDX-License-Identifier: MIT
"""Programs that know nothing of us (programs.py): what they find on our stack, and on Linux."""

import errno
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.common.app import programs

from skbus import socket
from skbustest.loopback import Loopback

HERE = "127.0.0.1"
NEEDS = {
    "paho": "paho.mqtt", "tornado": "tornado", "websocket": "websocket", "urllib3": "urllib3",
    "requests": "requests", "httpx": "httpx", "aiohttp": "aiohttp", "smtp": "aiosmtpd",
    "paramiko": "paramiko", "gevent": "gevent",
}  # fmt: skip
"""What each takes from elsewhere: the extra "dev" has it all."""
WITHOUT_TLS = {"sendfile", "paramiko", "connection", "descriptor", "fork", "gevent"}
CASES = [
    (name, version)
    for name in programs.PROGRAMS
    if name != "processes"  # SO_REUSEPORT wants a real stack: tests/interop/test_stdlib.py
    for version in ("TLSv1_3", "TLSv1_2")
    if version == "TLSv1_3" or name not in WITHOUT_TLS
]


def run(name: str, version: str, certificate: tuple[Path, Path], *before: str) -> Any:
    """What the program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *before, programs.__file__, name, HERE,
         *map(str, certificate), version],
        capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "version"), CASES)
def test_a_program_finds_what_it_finds_on_linux(
    loopback: Loopback, certificate: tuple[Path, Path], name: str, version: str
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert hasattr(ssl.TLSVersion, version)
    here = run(name, version, certificate, "-m", "skbus.run")
    there = run(name, version, certificate)
    assert here == there


GEVENT_FIRST = """if True:
    import gevent.monkey
    gevent.monkey.patch_all()
    import gevent
    from skbus import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            sock, _ = listener.accept()
            gevent.spawn(echo, sock)

    def echo(sock):
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    def ask(n):
        with socket.create_connection(listener.getsockname()) as sock:
            sock.sendall(b"%d" % n * 100_000)
            return len(sock.recv(100_000, socket.MSG_WAITALL))

    server = gevent.spawn(serve)
    clients = [gevent.spawn(ask, n) for n in range(5)]
    gevent.joinall(clients, timeout=60)
    print([one.value for one in clients], flush=True)
    import os
    os._exit(0)
"""


def test_gevents_greenlets_take_turns_where_it_was_first(loopback: Loopback) -> None:
    """It makes the sockets by which we ask the socket layer its own: a call that waits lets others
    run. Imported after us it cannot, and such a call stops the thread."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GEVENT_FIRST],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == f"{[100_000] * 5}\n", done.stderr[-2000:]


UVLOOP = """if True:
    import asyncio, uvloop
    from skbus import socket

    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        one = socket.socket()
        one.setblocking(False)
        accept = asyncio.create_task(loop.sock_accept(listener))
        await loop.sock_connect(one, listener.getsockname())
        two, _ = await accept
        await loop.sock_sendall(one, b"hello")
        told = [(await loop.sock_recv(two, 10)).decode()]
        try:
            await asyncio.open_connection(sock=one)
        except OSError as e:
            told.append(e.errno)
        return told

    print(uvloop.run(main()), flush=True)
    import os
    os._exit(0)
"""


def test_uvloops_transports_refuse_our_sockets_and_sock_calls_take_them(
    loopback: Loopback,
) -> None:
    pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UVLOOP],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == f"{['hello', errno.EOPNOTSUPP]}\n", done.stderr[-2000:]


def test_a_module_of_the_standard_library(loopback: Loopback, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"page" * 1000)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "skbus.run", "-m", "http.server", "8001", "--bind", HERE,
         "--directory", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with server:
        try:
            assert server.stdout is not None
            assert "port 8001" in server.stdout.readline()
            with socket.create_connection((HERE, 8001)) as sock:
                sock.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                answer = b""
                while data := sock.recv(65536):
                    answer += data
        finally:
            server.kill()
    assert answer.endswith(b"\r\n\r\n" + b"page" * 1000)


SPAWNED = """if True:
    import multiprocessing, sys
    from skbus import socket

    def child():
        import socket
        sys.stdout.write(socket.socket.__module__ + "\\n")
        sys.stdout.flush()

    if __name__ == "__main__":
        socket.install()
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
"""


def test_a_forked_child_makes_sockets_of_ours(loopback: Loopback) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SPAWNED],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "skbus.socket\n", done.stderr[-2000:]
