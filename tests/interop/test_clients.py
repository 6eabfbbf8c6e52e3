# SPDX-License-Identifier: MIT
"""Unmodified HTTP clients on our stack against nginx on Linux."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable

pytestmark = pytest.mark.lab

CONFIG = """
daemon off;
master_process off;
user root;
error_log {root}/error.log;
pid {root}/pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    server {{ listen {port}; root {root}/www; }}
}}
"""

SIZES = {"small": 700, "large": 3_000_000}


@pytest.fixture
def nginx(
    cable: Cable, port: int, tmp_path: Path, need: Callable[..., None]
) -> dict[str, dict[str, Any]]:
    """nginx at the kernel's end; what it should give for each name, and the port."""
    need("nginx")
    www = tmp_path / "www"
    www.mkdir()
    expected = {}
    for name, size in SIZES.items():
        data = random.Random(size).randbytes(size)
        (www / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        expected[name] = {"status": 200, "size": size, "sha256": digest}
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(root=tmp_path, port=port))
    server = subprocess.Popen(
        [*cable.peer, "nginx", "-p", str(tmp_path), "-c", str(config)], stderr=subprocess.DEVNULL
    )
    cable.ends.callback(_end, server)
    waiter = cable.linux("wait_listening", host=cable.peer_address, port=port, seconds=45.0)
    assert waiter.result()["listening"]
    return expected


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(60)


@pytest.mark.parametrize("name", SIZES)
def test_http_client(cable: Cable, port: int, nginx: dict[str, dict[str, Any]], name: str) -> None:
    client = cable.ours("http_get", host=cable.peer_address, port=port, path=f"/{name}", times=3)
    assert client.result(60) == nginx[name]


@pytest.mark.parametrize("name", SIZES)
def test_httpx_under_trio(
    cable: Cable, port: int, nginx: dict[str, dict[str, Any]], name: str
) -> None:
    pytest.importorskip("httpx")
    url = f"http://{cable.peer_address}:{port}/{name}"
    client = cable.ours("httpx_get", url=url, times=3)
    assert client.result(60) == nginx[name]
