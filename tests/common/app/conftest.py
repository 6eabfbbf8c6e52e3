# SPDX-License-Identifier: MIT
"""A running socket layer over imagined transports, for clients of all kinds."""

import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.common.app.programs import make_certificate

from skbus.app import client
from skbus.bus.rundir import RunDir
from skbustest.loopback import Loopback


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """SKBUS_DIR names it; afterwards nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="skb", dir="/dev/shm") as path:
        monkeypatch.setenv("SKBUS_DIR", os.path.join(path, "r"))
        run = RunDir()
        with Loopback(run) as stack:
            yield stack
            mine = client._clients.pop(run.path, None)
            if mine is not None:
                stack.settle()
                if stack.failure is not None:
                    raise stack.failure
                net = stack.net
                left = {fd: s.sk for c in net.clients.values() for fd, s in c.fdt.items()}
                assert not left
                assert not net.socks
                assert stack.core.held() == 0
                assert stack.nic.in_use() == 0
                assert net.alloc is not None
                assert net.alloc.in_use() == 0
                mine.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key), for localhost, made for the occasion."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the test's certificate")
    return make_certificate(tmp_path, "127.0.0.1")


@pytest.fixture
def contexts(certificate: tuple[Path, Path]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's)"""
    cert, key = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=cert)
