# SPDX-License-Identifier: MIT
"""Programs that know nothing of us (programs.py): what they find on our stack, and on Linux."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.common.client import programs

from skbus.testing.loopback import Loopback

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
