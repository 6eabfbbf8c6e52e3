# SPDX-License-Identifier: MIT
"""The interpreter's own socket tests on our sockets, over a real running stack.

    python tests/common/app/cpython_socket.py            a lab of its own, all classes, a table
        --json CLASS...   these alone, one JSON object      --here       in the stack of SKBUS_DIR
        --linux           on the kernel's own sockets       --imagined   over imagined transports

The tests' addresses are the loopback's, so their packets go through socket, tcp or udp, and ip.
The table is a section of docs/conformance.md; test_cpython.py runs a part of it.
"""

import argparse
import fnmatch
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_SECONDS: Final = 60

OTHERS: Final = {
    "*UDP6*": "IPv6",
    "*UDPLITE6*": "IPv6",
    "*UDPLITE6Test": "IPv6",
    "*Unix*": "Unix sockets are the system's",
    "*SCMRights*": "Unix sockets are the system's",
    "SendRecvFdsTests": "Unix sockets are the system's",
    "TestLinuxAbstractNamespace": "Unix sockets are the system's",
    "BasicSocketPairTest": "Unix sockets are the system's",
    "*CAN*": "CAN",
    "ISOTPTest": "CAN",
    "J1939Test": "CAN",
    "*RDS*": "RDS",
    "*QIPCRTR*": "Qualcomm IPC router",
    "*VSOCK*": "virtual machine sockets",
    "*Bluetooth*": "Bluetooth",
    "*SCTP*": "SCTP",
    "TIPC*": "TIPC",
    "LinuxKernelCryptoAPI": "AF_ALG",
    "TestMacOSTCPFlags": "macOS",
    "TestMSWindowsTCPFlags": "Windows",
    "TestSocketSharing": "Windows",
    "CmsgMacroTests": "functions without a socket",
}
"""Classes about what is not ours, and what that is."""

NOT_OURS: Final = {
    "GeneralModuleTests.test_SocketType_is_socketobject": "our sockets are not _socket.socket",
    "GeneralModuleTests.test_socket_fileno*": "Unix sockets are the system's",
    "SendfileUsingSendfileTest.*": "sendfile(2) is the kernel's; SendfileUsingSendTest applies",
    "GeneralModuleTests.test__sendfile_use_sendfile": "sendfile(2) is the kernel's",
    "NetworkConnectionNoServer.test_create_connection_timeout": "puts a class of its own in the "
    "place of socket.socket, which ours is already",
}
"""Single tests about what is not ours."""


def excuse(test: str) -> str:
    """Why a test does not apply; "" where it does."""
    group = test.split(".")[0]
    for pattern, why in OTHERS.items():
        if fnmatch.fnmatchcase(group, pattern):
            return why
    for pattern, why in NOT_OURS.items():
        if fnmatch.fnmatchcase(test, pattern):
            return why
    return ""


def _alarm(*_: Any) -> None:
    raise TimeoutError(f"the test took more than {_SECONDS} s")


class _Result(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.outcome: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        signal.signal(signal.SIGALRM, _alarm)
        signal.alarm(_SECONDS)
        super().startTest(test)
        self.outcome[name(test)] = ("passed", "")

    def stopTest(self, test: unittest.TestCase) -> None:
        signal.alarm(0)
        super().stopTest(test)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._failed(test, err)

    def addError(self, test: Any, err: Any) -> None:
        self._failed(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: Any, err: Any) -> None:
        if err is not None:
            self._failed(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        self.outcome[name(test)] = ("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        pass

    def _failed(self, test: Any, err: Any) -> None:
        text = f"{err[0].__name__}: {err[1]}".strip().splitlines()
        self.outcome[name(test)] = ("failed", " ".join(" ".join(text).split())[:300])


def name(test: Any) -> str:
    """Class.method"""
    return ".".join(str(test.id()).split(".")[-2:])


def run(patterns: list[str], strict: bool = False) -> dict[str, tuple[str, str]]:
    """test -> (passed, failed, skipped or other, why), of the classes that match. strict: run
    also what does not apply within them."""
    support: Any = importlib.import_module("test.support")
    support.LOOPBACK_TIMEOUT = 60.0  # as the machine may be busy; 5 s otherwise
    cpython = importlib.import_module("test.test_socket")
    loader = unittest.TestLoader()
    suite = unittest.TestSuite()
    outcome: dict[str, tuple[str, str]] = {}
    for group in vars(cpython).values():
        if not (isinstance(group, type) and issubclass(group, unittest.TestCase)):
            continue
        for test in loader.loadTestsFromTestCase(group):
            assert isinstance(test, unittest.TestCase)
            if patterns and not any(
                fnmatch.fnmatchcase(name(test), p) or fnmatch.fnmatchcase(group.__name__, p)
                for p in patterns
            ):
                continue
            why = excuse(name(test))
            if why and not (strict and name(test) in NOT_OURS):
                outcome[name(test)] = ("other", why)
            else:
                suite.addTest(test)
    result = _Result()
    suite.run(result)
    # What failed in setUpClass stands under the class's name.
    return {**outcome, **result.outcome}


# ---- where --------------------------------------------------------------------------------


@contextmanager
def lab() -> Iterator[None]:
    """A lab of our own, whose stack SKBUS_DIR names meanwhile."""
    skbus = str(Path(sys.executable).with_name("skbus"))
    called = f"cpython{os.getpid()}"
    up = [skbus, "lab", "up", "--name", called, "--sysctl", "net.ipv4.ping_group_range=0 65535"]
    try:
        done = subprocess.run(up, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        os.environ["SKBUS_DIR"] = json.loads(done.stdout.splitlines()[-1])["run_dir"]
        yield
    finally:
        subprocess.run([skbus, "lab", "down", "--name", called], check=False, capture_output=True)


@contextmanager
def imagined() -> Iterator[None]:
    """A socket layer over imagined transports, in this process."""
    from skbus.bus.rundir import RunDir
    from skbustest.loopback import Loopback

    with tempfile.TemporaryDirectory(prefix="skb", dir="/dev/shm") as path:
        os.environ["SKBUS_DIR"] = os.path.join(path, "r")
        with Loopback(RunDir()):
            yield


# ---- what is printed ----------------------------------------------------------------------


def table(outcome: dict[str, tuple[str, str]]) -> Iterator[str]:
    """The section of docs/conformance.md."""
    groups: dict[str, dict[str, int]] = {}
    for test, (how, _) in outcome.items():
        row = groups.setdefault(test.split(".")[0], {})
        row[how] = row.get(how, 0) + 1
    columns = ("passed", "failed", "skipped", "other")
    total = {c: sum(row.get(c, 0) for row in groups.values()) for c in columns}
    applies = total["passed"] + total["failed"]
    yield (
        f"Of the {applies} tests that apply, **{total['passed']} pass: "
        f"{total['passed'] * 100 / max(applies, 1):.1f} %**."
    )
    yield ""
    yield "| class | tests | passed | failed | skipped by itself | not applicable |"
    yield "|---|--:|--:|--:|--:|--:|"
    for group, row in (*groups.items(), ("**all**", total)):
        if row.get("other", 0) < sum(row.values()):
            cells = " | ".join(str(row.get(c, 0)) for c in columns)
            yield f"| {group} | {sum(row.values())} | {cells} |"
    for how, title in (("failed", "Failed"), ("skipped", "Skipped by the test itself")):
        chosen = {test: why for test, (found, why) in outcome.items() if found == how}
        yield from _reasons(title, chosen)
    others: dict[str, int] = {}
    for how, why in outcome.values():
        if how == "other":
            others[why] = others.get(why, 0) + 1
    yield from ("", "Not applicable:", "", "| what it is about | tests |", "|---|--:|")
    for why, count in sorted(others.items()):
        yield f"| {why} | {count} |"


def _reasons(title: str, chosen: dict[str, str]) -> Iterator[str]:
    if chosen:
        yield from ("", f"{title}:", "", "| test | why |", "|---|---|")
    for test, why in chosen.items():
        yield f"| {test} | {why.replace('|', '/')} |"


def main() -> None:
    """See the module's text."""
    from skbus import socket

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tests", nargs="*", metavar="CLASS[.TEST]", help="patterns; all if none")
    parser.add_argument("--json", action="store_true")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--here", action="store_true", help="in the stack of SKBUS_DIR")
    where.add_argument("--imagined", action="store_true")
    where.add_argument("--linux", action="store_true")
    parser.add_argument("--strict", action="store_true", help="run what does not apply, too")
    options = parser.parse_args()
    chosen = (options.tests, options.strict)
    if options.linux:
        outcome = run(*chosen)
    elif options.here:
        with socket.install():
            outcome = run(*chosen)
    else:
        with imagined() if options.imagined else lab(), socket.install():
            outcome = run(*chosen)
    if options.json:
        json.dump(outcome, sys.stdout)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in table(outcome)))


if __name__ == "__main__":
    main()
