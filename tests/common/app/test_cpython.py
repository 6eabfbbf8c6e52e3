# SPDX-License-Identifier: MIT
"""CPython's own tests of `socket`, run on ours over a real stack: a part of them, of each kind.

`python tests/common/app/cpython_socket.py` runs all, and prints the table of
docs/conformance.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow]

CLASSES = """
    GeneralModuleTests BasicTCPTest BasicUDPTest BasicUDPLITETest NonBlockingTCPTests
    FileObjectClassTestCase UnbufferedFileObjectClassTestCase BufferIOTest
    NetworkConnectionNoServer NetworkConnectionAttributesTest NetworkConnectionBehaviourTest
    TCPTimeoutTest UDPTimeoutTest InterruptedRecvTimeoutTest
    SendmsgUDPTest RecvmsgUDPTest RecvmsgTCPTest RecvmsgIntoTCPTest
    ContextManagersTest InheritanceTest TestExceptions CreateServerTest
""".split()

DIFFERENT = {
    "GeneralModuleTests.test_SocketType_is_socketobject": "our sockets are not _socket.socket",
    "GeneralModuleTests.test__sendfile_use_sendfile": "sendfile(2) cannot write to our stack",
    "NetworkConnectionNoServer.test_create_connection_timeout": "patches a name",
}
"""What fails, and why; nothing else may, and none of these may pass unnoticed."""


def run(tests: list[str]) -> dict[str, list[str]]:
    """Their outcomes."""
    script = Path(__file__).with_name("cpython_socket.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--json", "--strict", *tests],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert done.stdout, done.stderr[-4000:]
    outcome: dict[str, list[str]] = json.loads(done.stdout)
    return outcome


def test_the_interpreters_own_tests() -> None:
    pytest.importorskip("test.test_socket", reason="the interpreter ships no tests")
    outcome = run(CLASSES)
    for test, (how, _) in tuple(outcome.items()):
        if how == "failed" and test not in DIFFERENT:
            # Once more, alone: some of them do not wait long.
            outcome[test] = run([test])[test]
    failed = {test: why for test, (how, why) in outcome.items() if how == "failed"}
    assert set(failed) == set(DIFFERENT), failed
    skipped = {test: why for test, (how, why) in outcome.items() if how == "skipped"}
    for test, why in skipped.items():
        assert any(word in why for word in ("IPv6", "Windows", "macOS", "available", "dual")), test
    assert {test.split(".")[0] for test in outcome} == set(CLASSES)
    assert sum(how == "passed" for how, _ in outcome.values()) > 180
