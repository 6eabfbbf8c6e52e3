# SPDX-License-Identifier: MIT
"""Run the interpreter's own socket tests on our sockets; not a test by itself (test_cpython.py).

Prints one JSON object: how many ran, were skipped, and the names of those that failed.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import unittest
from typing import Any

from skbus import socket
from skbus.rundir import RunDir
from skbus.testing.loopback import Loopback

CLASSES = """
    BasicTCPTest BasicUDPTest NonBlockingTCPTests FileObjectClassTestCase
    UnbufferedFileObjectClassTestCase LineBufferedFileObjectClassTestCase
    SmallBufferedFileObjectClassTestCase UnicodeReadFileObjectClassTestCase
    UnicodeWriteFileObjectClassTestCase UnicodeReadWriteFileObjectClassTestCase
    NetworkConnectionNoServer NetworkConnectionAttributesTest NetworkConnectionBehaviourTest
    TCPTimeoutTest UDPTimeoutTest BufferIOTest ContextManagersTest InheritanceTest
    NonblockConstantTest SendmsgUDPTest RecvmsgUDPTest RecvmsgIntoUDPTest SendmsgTCPTest
    RecvmsgTCPTest RecvmsgIntoTCPTest InterruptedRecvTimeoutTest InterruptedSendTimeoutTest
    TCPCloserTest SendfileUsingSendTest CreateServerTest CreateServerFunctionalTest
    TestExceptions GeneralModuleTests
""".split()
_SECONDS = 30


def _alarm(*_: Any) -> None:
    raise TimeoutError(f"the test took more than {_SECONDS} s")


class _Result(unittest.TestResult):
    def startTest(self, test: unittest.TestCase) -> None:
        signal.signal(signal.SIGALRM, _alarm)
        signal.alarm(_SECONDS)
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        signal.alarm(0)
        super().stopTest(test)


def main() -> None:
    cpython = importlib.import_module("test.test_socket")
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(
        loader.loadTestsFromTestCase(getattr(cpython, name))
        for name in CLASSES
        if hasattr(cpython, name)
    )
    result = _Result()
    suite.run(result)
    failed = {
        f"{type(test).__name__}.{test.id().rsplit('.', 1)[-1]}": text
        for test, text in result.failures + result.errors
    }
    json.dump(
        {"ran": result.testsRun, "skipped": len(result.skipped), "failed": failed}, sys.stdout
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="skb", dir="/dev/shm") as path:
        os.environ["SKBUS_DIR"] = os.path.join(path, "r")
        with Loopback(RunDir()), socket.install():
            main()
