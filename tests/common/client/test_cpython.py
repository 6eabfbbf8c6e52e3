# SPDX-License-Identifier: MIT
"""CPython's own tests of `socket`, run on ours over imagined transports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DIFFERENT = {
    "GeneralModuleTests.test_SocketType_is_socketobject": "our sockets are not _socket.socket",
    "GeneralModuleTests.test__sendfile_use_sendfile": "sendfile(2) cannot write to our stack",
    "NetworkConnectionNoServer.test_create_connection_timeout": "patches a name",
}
"""What is not as in the standard library, and why."""


@pytest.mark.slow
def test_the_interpreters_own_tests() -> None:
    pytest.importorskip("test.test_socket", reason="the interpreter ships no tests")
    script = Path(__file__).with_name("cpython_socket.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert done.stdout, done.stderr[-4000:]
    result = json.loads(done.stdout)
    failed = {name: text for name, text in result["failed"].items() if name not in DIFFERENT}
    assert not failed, "\n".join(failed.values())
    assert result["ran"] - result["skipped"] > 250
