# SPDX-License-Identifier: MIT
"""The control socket of every process, for `skbus status`, `counters`, `sysctl` and health checks.
ROUTER in the process, `ctl_call` in the asker.

    request  [method, argument]        reply  [ok, result or error text]       (msgpack)
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgpack
import zmq

from skbus.bus.libzmq import readable
from skbus.bus.linux import proc_status
from skbus.bus.rundir import RunDir, RunDirError
from skbus.bus.settings import Settings
from skbus.core.snmp import nonzero
from skbus.core.sysctl import SysctlError

if TYPE_CHECKING:
    from skbus.bus.service import Service

_MAX_REQUEST: Final = 1 << 20


class ControlError(Exception):
    """The process did not answer, or refused; the text says which process and why."""


class ControlSource:
    """Answers control requests in a service's loop."""

    def __init__(
        self, service: "Service", context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str
    ) -> None:
        self._service = service
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_REQUEST)
        self._socket.bind(endpoint)
        self._answered = False
        self._settings = Settings(service.rundir, service.net.name)
        self.lasting = {"sysctl_set", "log_level"}
        """Methods whose effect outlives the process (`skbus.bus.settings`)."""
        self.methods: dict[str, Callable[[Any], Any]] = {
            "ping": lambda _: {
                "process": service.net.name,
                "epoch": service.net.epoch,
                "missing": self._missing(),
            },
            "status": lambda _: service.status(),
            "counters": lambda _: nonzero(service.net.mib),
            "sysctl_get": self._sysctl_get,
            "sysctl_set": self._sysctl_set,
            "log_level": self._log_level,
            "log_level_get": self._log_level_get,
            "usage": lambda _: {"pid": os.getpid(), **proc_status(os.getpid())},
            "signal": self._signal,
            "proc": self._proc,
        }

    def filenos(self) -> list[int]:
        return [int(self._socket.getsockopt(zmq.FD))]

    def drain(self, budget: int) -> int:
        self._answered = False
        for n in range(budget):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return n
            self._answered = True
            reply = msgpack.packb(self._answer(frames[-1]), default=str)
            try:
                self._socket.send_multipart([*frames[:-1], reply], zmq.NOBLOCK)
            except zmq.ZMQError:
                pass  # the asker is gone
        return budget

    def flush(self) -> None:
        pass

    def pending(self) -> bool:
        return self._answered and readable(self._socket)

    def close(self) -> None:
        self._socket.close()

    def _answer(self, request: bytes) -> tuple[bool, Any]:
        try:
            method, argument = msgpack.unpackb(request)
            function = self.methods[method]
        except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException):
            return False, f"not [method, argument] with a method of {', '.join(self.methods)}"
        try:
            answer = function(argument)
            if method in self.lasting:
                self._note(method, argument)
            return True, answer
        except (SysctlError, ValueError, TypeError, KeyError) as e:
            return False, f"{method}: {e}"

    def _note(self, method: str, argument: Any) -> None:
        try:
            self._settings.note(method, argument)
        except OSError as e:
            self._service.net.warning("setting_not_kept", method=method, problem=str(e))

    def restore(self) -> None:
        """Make the settings of this process's earlier lives again. Call this before `run`, when
        the layer's own methods are there."""
        for method, argument in self._settings.load():
            try:
                self.methods[method](argument)
            except (SysctlError, ValueError, TypeError, KeyError) as e:  # noted by other code
                self._service.net.warning("setting_not_kept", method=method, problem=str(e))

    def _sysctl_get(self, name: Any) -> Any:
        sysctl = self._service.net.sysctl
        return dict(sysctl) if name is None else sysctl[name]

    def _sysctl_set(self, pair: Any) -> Any:
        name, value = pair
        self._service.net.sysctl.set(name, value)
        return self._service.net.sysctl[name]

    def _missing(self) -> list[str]:
        """What this layer still lacks while the stack starts: the core's `missing`, if any, with
        the layer's neighbours as argument."""
        missing = getattr(self._service.core, "missing", None)
        return list(missing(self._service.dispatcher.neighbours)) if missing is not None else []

    def _proc(self, name: Any) -> Any:
        """The core's part of a file of /proc/net (`skbus.inet.proc`); None where it has none."""
        proc = getattr(self._service.core, "proc", None)
        return proc(str(name)) if proc is not None else None

    def _signal(self, what: Any) -> str:
        """["KILL", 0]: end at once, as if by accident. ["STOP", seconds]: stand still for so long.

        For faults on purpose, where the asker cannot see our pid, as in another container. A shell
        sends the signal, so that this answer gets out, and somebody is there to wake us up.
        """
        name, seconds = what
        kill = f"kill -{{}} {os.getpid()}"
        then = {
            "KILL": kill.format("KILL"),
            "STOP": f"{kill.format('STOP')}; sleep {float(seconds)}; {kill.format('CONT')}",
        }
        command = f"(sleep 0.05; {then[str(name)]}) &"
        subprocess.run(["/bin/sh", "-c", command], check=True, close_fds=True)
        return str(name)

    def _log_level_get(self, _: Any) -> str:
        from skbus.bus import log

        return log.get_level(self._service.net.name)

    def _log_level(self, level: Any) -> str:
        from skbus.bus import log

        log.set_level(str(level), self._service.net.name)
        self._service.net.tracing = str(level) == "debug"
        return str(level)


def ctl_call(
    rundir: RunDir, process: str, method: str, argument: Any = None, seconds: float = 5.0
) -> Any:
    """Ask a process. ControlError where it does not answer within `seconds`, or refuses."""
    answer = ctl_ask(rundir, {process: (method, argument)}, seconds)[process]
    if isinstance(answer, ControlError):
        raise answer
    return answer


def ctl_ask(
    rundir: RunDir, requests: Mapping[str, tuple[str, Any]], seconds: float = 5.0
) -> dict[str, Any]:
    """Ask several processes at once: process -> (method, argument). Returns each one's answer, or
    a ControlError where it gave none within `seconds`, or refused."""
    answers: dict[str, Any] = {}
    try:
        rundir.require()  # in another user's directory, that user could answer anything
    except RunDirError as e:
        raise ControlError(str(e)) from None
    with zmq.Context() as context, ExitStack() as stack:
        poller = zmq.Poller()
        waiting: dict[zmq.Socket[bytes], str] = {}
        for process, request in requests.items():
            sock = stack.enter_context(context.socket(zmq.REQ))
            sock.setsockopt(zmq.LINGER, 0)
            sock.connect(rundir.ctl(process))
            sock.send(msgpack.packb(request))
            poller.register(sock, zmq.POLLIN)
            waiting[sock] = process
        deadline = monotonic() + seconds
        while waiting:
            ready = poller.poll(max(0, int((deadline - monotonic()) * 1000)))
            if not ready:
                break
            for sock, _ in ready:
                poller.unregister(sock)
                process = waiting.pop(sock)
                ok, result = msgpack.unpackb(sock.recv(), strict_map_key=False)
                answers[process] = result if ok else ControlError(f"{process}: {result}")
        for process in waiting.values():
            answers[process] = ControlError(
                f"{process} does not answer within {seconds:g} s in {rundir.path}: "
                f"{why_silent(rundir, process)}"
            )
    return {process: answers[process] for process in requests}


def why_silent(rundir: RunDir, process: str) -> str:
    """Why a process does not answer, as far as this can be seen from outside."""
    from skbus.bus.state import read_state

    try:
        state = read_state(rundir)
    except (OSError, ValueError, KeyError, TypeError):
        state = None
    if state is None or process not in state["layers"]:
        there = os.path.exists(rundir.ctl(process).removeprefix("ipc://"))
        return "is it running?" if there else "it has not started"
    pid = state["layers"][process]
    if pid is None:
        return "it has died, and is about to be started again"
    if not pid.alive():
        return f"its process (pid {pid.pid}) is gone, and so is who should start it again"
    if stopped(pid.pid):
        return f"it stands still (`kill -CONT {pid.pid}` lets it go on)"
    return f"it is busy, or hangs (pid {pid.pid})"


def stopped(pid: int) -> bool:
    """Is the process stopped (SIGSTOP)?"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False
