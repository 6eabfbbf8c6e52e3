# SPDX-License-Identifier: MIT
"""The supervisor: runs every layer of a stack as a process of its own, and restarts the dead.

It is one plain loop around sigtimedwait(2), without threads, and stays so small that it has no
reason to die. If it is killed nevertheless, the kernel kills its layers (PR_SET_PDEATHSIG).

Layers are forked from it, after their modules have been imported once: a layer is up again some
tens of milliseconds after its death. A restarted layer runs the code that is on the disk then:
where that has changed, it becomes a fresh Python, which takes longer (`skbus.stack.sources`).

State that must outlive a layer is held here or lies in the run directory. The supervisor keeps the
descriptor of each device open, so that frames wait in the kernel while nic is away.

`skbus up` runs one in the foreground (`skbus.cli.up`); `skbus.stack.lab` runs one in namespaces.
"""

import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from skbus.bus import settings
from skbus.bus.linux import Pid, die_with_parent, identify, set_name
from skbus.bus.rundir import RunDir
from skbus.bus.state import StateFile, read_state
from skbus.stack.config import Config, Device
from skbus.stack.placement import Placement, read_usage, set_processors

if TYPE_CHECKING:
    from skbus.stack.sources import Sources

__all__ = ["SuperviseError", "Supervisor", "preload", "read_state"]

PRELOAD: Final = (
    "trio",
    "zmq",
    "msgpack",
    "numpy",
    "skbus.bus.log",
    "skbus.bus.service",
    "skbus.stack.layer",
)
"""Imported once, before the layers are forked."""

BACKOFF: Final = 0.05
"""Seconds until a layer is started again that has died twice; the first time it is at once, and
then twice as long each time, up to BACKOFF_MAX."""
BACKOFF_MAX: Final = 5.0
SETTLE_TIME: Final = 0.5
"""Seconds that a layer may use any processor after its start."""
STEADY: Final = 10.0
"""A layer that lived so long (seconds) has its failures forgiven."""
STOP_TIME: Final = 3.0
"""Seconds that a layer has to end after SIGTERM, before it is killed."""
READY_TIME: Final = 30.0
_MOMENT: Final = 0.002
"""Seconds between two looks whether a layer is there."""
LINK_TIME: Final = 2.0
"""Seconds that devices have to get a link: the kernel tells of one up to a second late."""

_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SuperviseError(Exception):
    """The stack could not be started; the text says which layer failed, and how."""


class Program(Protocol):
    """What runs one layer in its process until SIGTERM (`skbus.stack.layer.run_process`)."""

    def __call__(self, run: RunDir, config: Config, process: str, fd: int | None) -> None: ...


@dataclass(slots=True)
class Child:
    """One layer: how it fares, and when it is to be started (again).

    process: its name. layers: it, and those that live in the same process (`--fuse`): they die
    together, and are started again together.
    """

    process: str
    layers: tuple[str, ...]
    fd: int | None = None
    pid: Pid | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0
    restarts: int = 0
    settled: bool = False
    """Does it run where the placement has it? While it starts, it may run anywhere."""

    @property
    def name(self) -> str:
        """For people: "tcp", or "ip+tcp+udp+socket"."""
        return "+".join(self.layers)


@dataclass
class Supervisor:
    """The processes of one stack.

    program: what a child runs. open_device: opens a device's descriptor in the supervisor, or
    returns None if nic shall do that. attached: layers write to our standard error; otherwise to
    RUN/log/PROCESS.err. others: further processes of ours whose end is the end of the stack.
    notes: what else the state file shall tell (`skbus.stack.lab`: namespaces and addresses).
    """

    run: RunDir
    config: Config
    program: Program
    open_device: Callable[[Device], int | None] | None = None
    attached: bool = True
    others: Mapping[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    logger: Any = None

    def __post_init__(self) -> None:
        self.children: dict[str, Child] = {}
        self.placement = Placement(self.config.placement, os.sched_getaffinity(0))
        self._old_mask: Any = None
        self._state: StateFile | None = None

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Fork all layers at once. Signals are blocked from here on, until `stop`."""
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        os.umask(0o077)  # the sockets, too, are for nobody else
        try:
            self._state = StateFile(self.run)
        except OSError as e:
            self._give_up(f"no room in {self.run.path}: {e.strerror}")
        settings.clear(self.run)
        for stale in self.run.path.iterdir():
            if stale.suffix in (".in", ".ctl", ".sys", ".life"):
                stale.unlink()
        devices = {d.process: d for d in self.config.devices}
        for process in self.config.processes():
            layers = self.config.living_with(process)
            if process != layers[0]:
                continue
            fd = None
            if self.open_device is not None and process in devices:
                try:
                    fd = self.open_device(devices[process])
                except OSError as e:
                    self._give_up(f"cannot open {devices[process].name}: {e.strerror}")
            self.children[process] = Child(process, layers, fd)
        for child in self.children.values():
            self._fork(child)
        self._write_state()

    def wait_ready(self, seconds: float = READY_TIME) -> None:
        """Wait until every layer answers on its control socket, and has heard all from the others.
        ip then knows of each device and transport, and tcp of each address.

        The layers are asked from the lowest up, and once more. A layer's news for the others goes
        out after its answer, and is with them before they are asked for the second time.
        SuperviseError if one ends before, or is not ready in time, or a signal asks us to end; the
        layers are stopped then.
        """
        deadline = monotonic() + seconds
        layers = [layer for child in self.children.values() for layer in child.layers]
        for process in (*layers, *layers):
            while missing := self._missing(process):
                self._wait_a_moment(_MOMENT)
                if monotonic() > deadline:
                    self._give_up(f"{process}: no {', '.join(missing)} within {seconds:g} s")
        self._settle(0.0)

    def _missing(self, process: str) -> list[str]:
        from skbus.bus.ctl import ControlError, ctl_call

        if not os.path.exists(self.run.ctl(process).removeprefix("ipc://")):
            return ["answer"]
        try:
            found: list[str] = ctl_call(self.run, process, "ping", seconds=0.5).get("missing", [])
        except ControlError:
            return ["answer"]
        return found

    def wait_links(self, seconds: float = LINK_TIME) -> list[str]:
        """Wait until ip has each device up, and with it addresses and routes. Returns those that
        have no link by then: that is nobody's fault, and they come up when it does."""
        from skbus.bus.ctl import ControlError, ctl_call

        names = {device.name for device in self.config.devices}
        down = names if "ip" in self.config.layers else set()
        deadline = monotonic() + seconds
        while down:
            try:
                devices = ctl_call(self.run, "ip", "status")["core"]["addresses"]
            except ControlError:
                devices = []
            down = names - {dev["dev"] for dev in devices if dev["up"]}
            if monotonic() > deadline:
                break
            if down:
                self._wait_a_moment(0.02)
        return sorted(down)

    def wait_until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait for a condition of the whole stack, as `wait_ready` does for each layer's."""
        deadline = monotonic() + seconds
        while not condition():
            self._wait_a_moment(0.005)
            if monotonic() > deadline:
                self._give_up(f"{otherwise} within {seconds:g} s")

    def _wait_a_moment(self, seconds: float) -> None:
        got = signal.sigtimedwait(_SIGNALS, seconds)
        if got is not None and got.si_signo != signal.SIGCHLD:
            self._give_up(f"stopped by {signal.Signals(got.si_signo).name}")
        dead = self._reap()
        for process, status in dead:
            self._give_up(f"{process} {status} while starting")

    def _give_up(self, why: str) -> None:
        self.stop()
        tails = "".join(self._stderr_tail(p) for p in self.children)
        raise SuperviseError(f"the stack did not start: {why}{tails}")

    def _stderr_tail(self, process: str) -> str:
        if self.attached:
            return ""
        try:
            text = self.run.read_text(f"log/{process}.err").strip()
        except OSError:
            return ""
        return "".join(f"\n  {process}: {line}" for line in text.splitlines()[-12:])

    def supervise(self) -> int:
        """Restart what dies, until a signal asks to end; returns that signal's number."""
        while True:
            now = monotonic()
            due = [c.due for c in self.children.values() if c.pid is None]
            timeout = max(0.0, min(due) - now) if due else 3600.0
            if not all(child.settled for child in self.children.values()):
                timeout = min(timeout, SETTLE_TIME / 2)
            tick = self.placement.timeout()
            got = signal.sigtimedwait(_SIGNALS, timeout if tick is None else min(timeout, tick))
            if tick is not None:
                self._place()
            if got is not None and got.si_signo != signal.SIGCHLD:
                return got.si_signo
            for process, status in self._reap():
                child = self.children[process]
                self._log(
                    "warning",
                    "layer_died",
                    name=child.name,
                    how=status,
                    again_in=round(child.due - monotonic(), 3),
                )
            for name, pid in self.others.items():
                if _reap_one(pid) is not None:
                    self._log("error", "helper_died", name=name)
                    return signal.SIGCHLD
            self._restart_due()
            self._settle(SETTLE_TIME)

    def _settle(self, after: float) -> None:
        """Put layers that were started so many seconds ago on their processors."""
        now = monotonic()
        for child in self.children.values():
            if child.pid is not None and not child.settled and now - child.started >= after:
                child.settled = True
                if not self._affinity(child):
                    set_processors(child.pid.pid, self.placement.processors())

    def _place(self) -> None:
        """Look whether the layers are on the right processors."""
        pids = [c.pid.pid for c in self.children.values() if c.pid and not self._affinity(c)]
        usage = {pid: found for pid in pids if (found := read_usage(pid)) is not None}
        if self.placement.look(monotonic(), usage):
            cpus = self.placement.processors()
            for pid in pids:
                set_processors(pid, cpus)

    def _affinity(self, child: Child) -> list[int] | None:
        """What the configuration says of one process."""
        return self.config.affinity_of(child.process)

    def _restart_due(self) -> None:
        now = monotonic()
        for child in self.children.values():
            if child.pid is None and child.due <= now:
                child.restarts += 1
                self._fork(child)
                self._write_state()
                self._log("info", "layer_restarted", name=child.name, times=child.restarts)

    def stop(self) -> None:
        """End all layers: SIGTERM, and SIGKILL for those that do not heed it."""
        for sig, seconds in ((signal.SIGTERM, STOP_TIME), (signal.SIGKILL, STOP_TIME)):
            for child in self.children.values():
                if child.pid is not None:
                    os.kill(child.pid.pid, sig)
            deadline = monotonic() + seconds
            while any(c.pid for c in self.children.values()) and monotonic() < deadline:
                self._reap()
                if any(c.pid for c in self.children.values()):
                    signal.sigtimedwait([signal.SIGCHLD], max(0.0, deadline - monotonic()))
        for child in self.children.values():
            if child.fd is not None:
                os.close(child.fd)
                child.fd = None
        if self._state is not None:
            self._state.close()
            self._state = None
        if self._old_mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
            self._old_mask = None

    # ---- children ----------------------------------------------------------------------------

    def _fork(self, child: Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._become(child, parent)
                self.program(self.run, self.config, child.process, child.fd)
                code = 0
            except BaseException:  # noqa: BLE001 the child must never return into the parent's code
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        child.pid = identify(pid)
        child.started = monotonic()
        child.settled = False

    def _become(self, child: Child, parent: int) -> None:
        """In the child: shed what is the supervisor's."""
        die_with_parent(signal.SIGKILL, parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us all; the parent decides
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        set_name(f"skbusd {child.process}")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        if not self.attached:
            name = f"log/{child.process}.err"
            err = self.run.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(null, 1)
            os.dup2(err, 2)
            os.close(err)
        os.close(null)
        for other in self.children.values():
            if other is not child and other.fd is not None:
                os.close(other.fd)
        # Woken up, a layer does not preempt the one that woke it: batches get larger.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.sched_setaffinity(0, self._affinity(child) or self.placement.allowed)

    def _reap(self) -> list[tuple[str, str]]:
        """Collect ended children and arrange for their return; (process, how it ended)."""
        ended: list[tuple[str, str]] = []
        for child in self.children.values():
            if child.pid is None:
                continue
            status = _reap_one(child.pid.pid)
            if status is None:
                continue
            now = monotonic()
            if now - child.started > STEADY:
                child.failures = 0
            child.due = now + backoff(child.failures)
            child.failures += 1
            child.pid = None
            ended.append((child.process, _describe(status)))
        return ended

    def _write_state(self) -> None:
        assert self._state is not None
        pids = {layer: c.pid for c in self.children.values() for layer in c.layers}
        state = {
            **self.notes,
            "supervisor": identify(os.getpid()),
            "layers": {layer: pids[layer] for layer in self.config.processes()},
            "others": {name: identify(pid) for name, pid in self.others.items()},
        }
        try:
            self._state.write(state)
        except OSError as e:  # the directory is gone, say: no reason to end a stack
            self._log("error", "state_not_written", problem=str(e))

    def _log(self, level: str, event: str, **details: object) -> None:
        if self.logger is not None:
            getattr(self.logger, level)(event, **details)


def backoff(failures: int) -> float:
    """Seconds until a layer that has failed so often before is started again."""
    return min(BACKOFF * 2 ** (failures - 1), BACKOFF_MAX) if failures else 0.0


def preload(processes: Iterable[str]) -> "Sources":
    """Import what the layers need, before they are forked. Returns what has been loaded of us."""
    # A BLAS would start threads at import, which we neither use nor could fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in PRELOAD:
        importlib.import_module(name)
    from skbus.stack import layer

    sources = layer.load(processes)
    gc.collect()
    gc.freeze()  # so that a child's collector leaves the shared pages alone
    return sources


def _reap_one(pid: int) -> int | None:
    try:
        got, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if got else None


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"
