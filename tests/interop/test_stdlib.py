# SPDX-License-Identifier: MIT
"""The standard library's servers and clients, unmodified, on our stack against Linux, both ways
round: http, socketserver, xmlrpc, smtplib, ftplib (PASV and PORT), asyncio, selectors; and trio."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.common.app import programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

BLOB = bytes(range(256)) * 800
MAIL = b"Subject: test\n\n" + b"0123456789" * 6 + b"\n.\n..dots\n" + b"line\n" * 20_000


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


EXPECTED: dict[str, Any] = {
    "http": [digest(b"/a"), digest(BLOB), digest(BLOB[::-1])],
    "socketserver tcp": [digest(b"ONE\n"), digest(b"TWO\n"), digest(b"X" * 50_000 + b"\n")],
    "socketserver udp": [digest(b"cba"), digest(b""), digest((bytes(range(256)) * 20)[::-1])],
    "xmlrpc": [1024, digest(BLOB[::-1]), True],
    "asyncio": digest(BLOB),
    "trio": digest(BLOB),
    "select": digest(BLOB),
    "poll": digest(BLOB),
    "epoll": digest(BLOB),
    "smtp": [
        250,
        f"a@example.org b@example.org,c@example.org {digest(MAIL)}",
        ["8bitmime", "help", "size"],
    ],
    "ftp": [digest(BLOB), True, ["blob", "up"]] * 2,
}


@pytest.mark.ends("endpoints_stdlib")
@pytest.mark.parametrize("server", ["skbus", "linux"])
def test_unmodified_servers_and_clients(lab: Lab, ports: Iterator[int], server: str) -> None:
    pytest.importorskip("aiosmtpd")
    pytest.importorskip("pyftpdlib")
    chosen = {name: next(ports) for name in EXPECTED}
    serve, host, ask = (
        (lab.ours, lab.address, lab.linux)
        if server == "skbus"
        else (lab.linux, lab.peer_address, lab.ours)
    )
    end = serve("serve", ports=chosen)
    assert end.heard("ready", 60.0)
    found = ask("ask", host=host, ports=chosen).result(120.0)
    end.go_on()
    assert found == EXPECTED


@pytest.mark.parametrize("name", ["processes", "sendfile", "paho", "tornado", "aiohttp"])
def test_programs_on_the_whole_stack(lab: Lab, tmp_path: Path, name: str) -> None:
    """The rest of them is tried on the socket layer alone (tests/common/app)."""
    where = [*map(str, programs.make_certificate(tmp_path, lab.address, "127.0.0.1")), "TLSv1_3"]
    found = []
    for before, host in ((["-m", "skbus.run"], lab.address), ([], "127.0.0.1")):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *before, programs.__file__, name, host, *where],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **lab.env},
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
