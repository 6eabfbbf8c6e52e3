# SPDX-License-Identifier: MIT
"""The peers as subjects of `bench.py`.

    gvisor   Linux - veth - gVisor's netstack, on AF_PACKET
    lwip     Linux - TAP - lwIP

Each is one process: stack, driver of the device and application. `build` compiles it.
"""

import time
from collections.abc import Callable
from pathlib import Path

from netns import NetNs
from peers import build
from subjects import BenchError, Process, Subject, cable, tap


class Peer(Subject):
    """A stack in a program that is built first."""

    build: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self._missing: str | None = None
        self._program = Path()

    def missing(self) -> str:
        """Builds it, at the first call."""
        if self._missing is None:
            self._missing = ""
            try:
                self._program = type(self).build()
            except build.NotBuilt as e:
                self._missing = str(e)
        return self._missing

    def _start(self, there: NetNs, here: NetNs, *arguments: str) -> None:
        """The driver in one namespace, the client in the other; wait until it answers."""
        if why := self.missing():
            raise BenchError(why)
        self.server = Process([*there.prefix, str(self._program), *arguments])
        self.stack.callback(self.server.close)
        self.pids = [self.server.pid]
        give_up = time.monotonic() + 10
        while True:
            try:
                here.run("ping", "-q", "-c", "1", "-W", "1", self.address)
                break
            except RuntimeError:
                if time.monotonic() > give_up:
                    raise BenchError(f"{self.title} answers no ping for 10 s") from None
        self.client_prefix = here.prefix
        self.client = self._agent(here.prefix, "socket")


class Gvisor(Peer):
    """gVisor's netstack, on the same cable as Linux."""

    name = "gvisor"
    title = "gVisor"
    build = staticmethod(build.gvisor)

    def up(self) -> None:
        near, far = cable(self.stack, far_address="")
        self.address = "10.79.0.2"
        self._start(far, near, "-interface", "v1", "-address", "10.79.0.2/24")


class Lwip(Peer):
    """lwIP on a TAP, as pmd-pytcp is."""

    name = "lwip"
    title = "lwIP"
    build = staticmethod(build.lwip)

    def missing(self) -> str:
        return super().missing() or ("" if Path("/dev/net/tun").exists() else "no /dev/net/tun")

    def up(self) -> None:
        ns = tap(self.stack)
        self.address = "10.78.0.2"
        self._start(ns, ns, "tap7", "10.78.0.2", "255.255.255.0")
