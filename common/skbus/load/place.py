# SPDX-License-Identifier: MIT
"""Where a load runs: which namespaces, which stack, at which addresses.

    lab       Linux in the lab's peer namespace, ours in its processes
    stack     ours by `skbus up`; Linux is the machine we are on
    loopback  both ends on Linux's loopback: what the load itself costs, and its own tests

The runner asks a Place how to start a process on a side; that process then calls `prepare` and
`use_side`.
"""

import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from skbus.bus.rundir import ENV, RunDir
from skbus.bus.state import read_state
from skbus.load.scenario import Side


class PlaceError(Exception):
    """The load cannot run there; the text says why, and what to do."""


class Place(Protocol):
    """Where the two sides are."""

    @property
    def name(self) -> str:
        """As `--on` has it."""
        ...

    @property
    def run(self) -> RunDir | None:
        """The stack's run directory; None if no stack of ours takes part."""
        ...

    def job(self, side: Side) -> dict[str, Any]:
        """What a process on that side is told: `prepare` and `use_side` take it."""
        ...

    def address(self, side: Side) -> str:
        """Where a server on that side is reached from the other one."""
        ...


@dataclass(frozen=True)
class Loopback:
    """Both sides on Linux, here."""

    name: str = "loopback"

    @property
    def run(self) -> RunDir | None:
        return None

    def job(self, side: Side) -> dict[str, Any]:
        del side
        return {"side": "linux", "address": "127.0.0.1", "any_port": True}

    def address(self, side: Side) -> str:
        del side
        return "127.0.0.1"


@dataclass(frozen=True)
class Lab:
    """The lab in a run directory, which is up."""

    directory: RunDir
    name: str = "lab"

    @property
    def run(self) -> RunDir | None:
        return self.directory

    def job(self, side: Side) -> dict[str, Any]:
        path = str(self.directory.path)
        where = {"enter": path} if side == "linux" else {}
        return {"side": side, "address": "0.0.0.0", "any_port": False, "run_dir": path, **where}

    def address(self, side: Side) -> str:
        from skbus.stack.lab import ADDRESS, PEER_ADDRESS

        return PEER_ADDRESS if side == "linux" else ADDRESS


@dataclass(frozen=True)
class Up:
    """A stack by `skbus up`. Its neighbours reach it from here only if the interface's other end
    is on this machine; `--clients skbus` with `host` and `port` loads another machine."""

    directory: RunDir
    host: str | None = None
    """Our stack as its clients reach it; None for the first address that it has."""
    name: str = "stack"

    @property
    def run(self) -> RunDir | None:
        return self.directory

    def job(self, side: Side) -> dict[str, Any]:
        return {
            "side": side,
            "address": "0.0.0.0",
            "any_port": False,
            "run_dir": str(self.directory.path),
        }

    def address(self, side: Side) -> str:
        from skbus.stack.config import Config

        if side == "skbus" and self.host is not None:
            return self._numeric(self.host)
        devices = Config.read(self.directory).devices
        if side == "skbus":
            for device in devices:
                for addr in device.addr:
                    return addr.split("/")[0]
            raise PlaceError("which address has the stack? Say it with --host")
        for device in devices:
            if device.gateway is not None:
                return device.gateway
        raise PlaceError("which address has this machine for the stack? Give flows host and port")

    @staticmethod
    def _numeric(host: str) -> str:
        try:
            found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
        except OSError as e:
            raise PlaceError(f"--host {host}: {e}") from None
        return str(found[0][4][0])


def find(on: str, run: RunDir, host: str | None = None) -> Place:
    """`--on lab|stack|loopback`; PlaceError says what is missing."""
    if on == "loopback":
        _no_host(host, on)
        return Loopback()
    state = read_state(run)
    if state is None and run.processes():
        return Up(run, host)  # each layer by itself: in containers, for example
    if state is None:
        raise PlaceError(
            f"no stack in {run.path}: `skbus lab up` starts a lab, `--on new-lab` one for this "
            "run; `--on loopback` needs none"
        )
    if "lab" not in state:
        return Up(run, host)
    _no_host(host, "a lab")
    return Lab(run)


def _no_host(host: str | None, where: str) -> None:
    if host is not None:
        raise PlaceError(
            f"--host {host}: {where} has addresses of its own; --host is for a stack by `skbus up` "
            "or in containers. Flows take host and port for a server that runs already"
        )


# ---- in the processes that are started ---------------------------------------------------------


def prepare(job: dict[str, Any]) -> None:
    """Go where the job says. To be called first of all, while there is one thread.

    Ctrl-C is the runner's: it ends us by closing our standard input.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if "run_dir" in job:
        os.environ[ENV] = job["run_dir"]
    if "enter" in job:
        from skbus.stack import lab

        lab.enter(RunDir(job["enter"]))


def use_side(side: Side) -> None:
    """In trio: let `trio.socket` be Linux's or ours from here on."""
    if side == "linux":
        return
    from trio.socket import set_custom_socket_factory

    from skbus.trio import SocketFactory

    set_custom_socket_factory(SocketFactory())


def processes(run: RunDir | None) -> dict[str, int]:
    """The pids of the stack's processes that are alive, by their names. A process in a container
    of its own has 0, because its pid means nothing here."""
    if run is None:
        return {}
    state = read_state(run)
    if state is None:
        return dict.fromkeys(run.processes(), 0)
    layers = {name: pid for name, pid in state["layers"].items() if pid is not None}
    return {name: pid.pid for name, pid in layers.items() if pid.alive()}
