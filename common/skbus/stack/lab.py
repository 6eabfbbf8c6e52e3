# SPDX-License-Identifier: MIT
"""The lab: our stack and the Linux kernel at the two ends of a cable, without root or Docker.

    peer's namespace                    stack's namespace
    Linux, 10.77.0.1/24  veth0 ======== eth0  nic.eth0, ip, tcp, udp, socket: 10.77.0.2/24

`up` starts a holder (`skbus.stack.holder`): a process in new network namespaces (and, where we are
not root, a new user namespace). The holder makes the cable, runs the supervisor in the stack's
namespace, and keeps one small process in the peer's. `exec` enters the peer's namespace. All is
found again through the run directory. Nothing has a name in the file system or an `ip netns` entry.
So when the holder dies, however it dies, the kernel takes namespaces, cable and layers away.

Called by `skbus.cli.lab`.
"""

import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from skbus.bus import rundir
from skbus.bus.linux import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    Pid,
    die_with_parent,
    identify,
    keep_capabilities,
    parent_signal,
    setns,
)
from skbus.bus.rundir import RunDir, RunDirError
from skbus.bus.state import read_state

ADDRESS: Final = "10.77.0.2"
PEER_ADDRESS: Final = "10.77.0.1"
PREFIX: Final = 24
DEV: Final = "eth0"
PEER_DEV: Final = "veth0"

UP_TIME: Final = 90.0
"""Seconds after which `up` gives up."""
_END_TIME: Final = 10.0
"""Seconds that a holder may take to end its stack."""
_SYSTEM_PATH: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where network tools are that Debian's ordinary users do not find."""


class LabError(Exception):
    """The lab could not be started or found; the text says why, and what to do."""


def lab_dir(name: str | None) -> RunDir:
    """The run directory of a lab. Without a name it is SKBUS_DIR, or else this user's default,
    in which commands and clients look when nothing is said."""
    if name is None:
        return RunDir()
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise LabError(f"{name!r} is no name for a lab: it takes letters, digits, - and _")
    for run in rundir.find_all():
        if run.path.name == name:
            return run
    return RunDir(rundir.default_base() / name)


def labs() -> list[RunDir]:
    """The run directories of this user's labs, and of what else a lab or `skbus up` has left."""
    return [run for run in rundir.find_all() if not is_up(run)]


def is_up(run: RunDir) -> bool:
    """Whether `skbus up` runs there, which is no lab."""
    state = read_state(run)
    return state is not None and "lab" not in state and run.locked()


# ---- up --------------------------------------------------------------------------------------


class Cable(NamedTuple):
    """The veth pair between stack and peer.

    mtu: of both ends, 0 for the kernel's default. gso_max_size: how long super-segments to our
    end may be (`gso_ipv4_max_size`: more than 65536 is BIG TCP), 0 for the kernel's default.
    """

    mtu: int = 0
    gso_max_size: int = 0


CABLE: Final = Cable()


def up(
    run: RunDir, config_json: str, cable: Cable = CABLE, *, tied: bool = False, last: bool = False
) -> dict[str, Any]:
    """Start a lab; returns what `status` does, once the stack answers the kernel.

    config_json: `Config.to_json` with the device DEV. tied: it ends when this process does,
    however that ends. last: this process has no other task, so that SIGINT is ignored from the
    instant in which the lab is up; else a caller whom it reaches then ends the lab by `down`.
    LabError if it does not come up: then, and after Ctrl-C before that instant, nothing is left.
    """
    if is_up(run):
        raise LabError(f"`skbus up` runs in {run.path}: `skbus lab up --name NAME` is beside it")
    if run.locked():
        raise LabError(
            f"a lab is up in {run.path} already: {run.remedy('down')} ends it, "
            "`skbus lab up --name OTHER` starts another"
        )
    with _uninterrupted() as mask:
        try:
            down(run)
            run.create()
            lock = run.lock()
            try:
                run.write_text("config.json", config_json)
                found = _start(run, lock, cable, tied, mask)
                if last:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also one that waits already
                return found
            finally:
                os.close(lock)
        except RunDirError:
            raise  # not ours, or taken: nothing to clear away
        except BaseException:
            down(run)
            raise


def _start(
    run: RunDir, lock: int, cable: Cable, tied: bool, mask: "set[signal.Signals]"
) -> dict[str, Any]:
    parent = os.getpid() if tied else 0
    argv = [sys.executable, "-P", "-m", "skbus.stack.holder", run.path, lock, parent, *cable]
    with os.fdopen(run.open("log/lab.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as err:
        holder = subprocess.Popen(
            list(map(str, argv)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            pass_fds=(lock,),
            start_new_session=True,
        )
    assert holder.stdout is not None
    try:
        with holder.stdout as out, _interruptible(mask):
            line = _read_line(out.fileno(), UP_TIME)
    except BaseException:
        _end(holder)
        raise
    if not line:
        _end(holder)
        tail = run.read_text("log/lab.err").strip()
        raise LabError(f"the lab's holder failed, or took more than {UP_TIME:g} s\n{tail}".strip())
    result: dict[str, Any] = json.loads(line)
    if "error" in result:
        holder.wait()
        raise LabError(result["error"])
    holder.returncode = 0  # it lives on: no warning that we leave it behind
    return status(run)


def _end(holder: "subprocess.Popen[bytes]") -> None:
    holder.terminate()
    try:
        holder.wait(_END_TIME)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait()


@contextmanager
def _uninterrupted() -> "Iterator[set[signal.Signals]]":
    """Ctrl-C waits until this is over: what has been started must be known, and what has been
    begun to be cleared away must go. Gives the signal mask that was."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield {signal.Signals(s) for s in old}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@contextmanager
def _interruptible(mask: "set[signal.Signals]") -> Iterator[None]:
    """Within `_uninterrupted`: here Ctrl-C does come."""
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _read_line(fd: int, seconds: float) -> bytes:
    """All until the other end closes; b"" where it takes too long."""
    deadline = time.monotonic() + seconds
    got = b""
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(fd, 65536)
        if not chunk or chunk.endswith(b"\n"):
            return got + chunk
        got += chunk
    return b""


# ---- status, exec, down ------------------------------------------------------------------------


def _state(run: RunDir) -> dict[str, Any]:
    state = read_state(run)
    if state is None or "lab" not in state:
        raise LabError(
            f"no lab in {run.path}: {run.remedy('up')} starts one, `skbus lab list` shows those "
            f"that there are (--name, or {rundir.ENV}, says which is meant)"
        )
    return state


def status(run: RunDir) -> dict[str, Any]:
    """The lab's addresses, directory, pids. LabError if there is none."""
    return _told(run, _state(run))


def told(run: RunDir) -> dict[str, Any]:
    """The same, or of what is left of something: name, directory, and that it is not up."""
    state = read_state(run)
    if state is None or "lab" not in state:
        return {"lab": run.path.name, "up": False, "run_dir": str(run.path)}
    return _told(run, state)


def _told(run: RunDir, state: dict[str, Any]) -> dict[str, Any]:
    holder, peer = state["supervisor"], state["others"]["peer"]
    pids = {"holder": holder, "peer": peer, **state["layers"]}
    return {
        "lab": state["lab"]["name"],
        "up": bool(holder.alive() and peer and peer.alive()),
        "address": ADDRESS,
        "peer_address": PEER_ADDRESS,
        "prefix": PREFIX,
        "dev": DEV,
        "peer_dev": PEER_DEV,
        "run_dir": str(run.path),
        "rootless": state["lab"]["rootless"],
        "pids": {name: pid.pid if pid and pid.alive() else None for name, pid in pids.items()},
    }


def enter(run: RunDir, stack: bool = False) -> None:
    """Move this process, which must have one thread only, into the peer's namespace, or the
    stack's. Without root it keeps its user, and has all rights over the lab; so has what it starts.

    LabError says why not.
    """
    state = _state(run)
    target: Pid | None = state["supervisor"] if stack else state["others"]["peer"]
    if target is None or not target.alive():
        raise LabError(f"the lab in {run.path} has died: {run.remedy('down')} clears it away")
    parent, tie = os.getppid(), parent_signal()
    for kind, flag in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)):
        path = f"/proc/{target.pid}/ns/{kind}"
        if kind == "user" and os.stat(path).st_ino == os.stat("/proc/self/ns/user").st_ino:
            continue  # one cannot enter the user namespace that one is in
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, flag)
        except OSError as e:
            raise LabError(f"cannot enter the lab's {kind} namespace: {_why_not(e)}") from None
        finally:
            os.close(fd)
        if kind == "user":
            keep_capabilities()
    if tie:  # a process whose rights change forgets it
        die_with_parent(tie, parent)
    os.environ[rundir.ENV] = str(run.path)


def _why_not(error: OSError) -> str:
    """What setns(2) means."""
    threads = len(os.listdir("/proc/self/task"))
    if error.errno == errno.EINVAL and threads > 1:
        return (
            f"this process has {threads} threads, and only one with a single thread can change "
            "its user namespace: enter the lab before anything starts threads (numpy does)"
        )
    if error.errno == errno.EPERM:
        return f"{error.strerror}; only the user who started it may, or root"
    return str(error)


def exec_(run: RunDir, argv: Sequence[str], stack: bool = False) -> NoReturn:
    """Become a command in the peer's namespace: there it is an ordinary Linux program, for which
    our stack is another machine. OSError if there is no such command."""
    enter(run, stack)
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path += [place for place in _SYSTEM_PATH if place not in path]
    os.environ["PATH"] = os.pathsep.join(path)
    if os.geteuid() != 0:
        os.environ.setdefault("NMAP_PRIVILEGED", "1")  # nmap would ask for root by its number
    os.execvp(argv[0], list(argv))


def down(run: RunDir) -> bool:
    """End a lab, or what a crash has left of it, with all that runs in its namespaces.

    Returns whether there was anything. Processes are known by pid and start time, or by their
    namespace while that is known to be the lab's; never by name.
    """
    with _uninterrupted():
        return _down(run)


def _down(run: RunDir) -> bool:
    state = read_state(run)
    if state is None:
        if not os.path.lexists(run.path / "lock") and not os.path.lexists(run.pool_dir):
            return False
        run.require()
        # Where a holder has just died, its children, which hold the lock too, take a moment.
        _wait_unlocked(run)
        run.remove()
        return True
    if "lab" not in state:
        if run.locked():
            raise LabError(
                f"what runs in {run.path} is no lab, but `skbus up`: end that with Ctrl-C"
            )
        _clear_up(run)
        return True
    ours: list[Pid] = [p for p in (state["supervisor"], *state["others"].values()) if p]
    proven = any(p.alive() for p in ours)
    strangers = within(state["lab"]["namespaces"], run, proven)
    state["supervisor"].kill(signal.SIGTERM)
    for pid in strangers:
        pid.kill(signal.SIGTERM)
    left = wait([*ours, *strangers], 8.0)
    left += [p for p in state["layers"].values() if p and p.alive()]
    for pid in left:
        pid.kill(signal.SIGKILL)
    wait(left, 5.0)
    run.remove()
    return True


def _wait_unlocked(run: RunDir) -> None:
    deadline = time.monotonic() + _END_TIME
    while run.locked():
        if time.monotonic() > deadline:
            raise LabError(f"a lab is just starting in {run.path}: wait for its `skbus lab up`")
        time.sleep(0.01)


def _clear_up(run: RunDir) -> None:
    """After an `skbus up` that was killed: the kernel gets its addresses back."""
    from skbus.stack import takeover

    for record in run.path.glob("takeover.*.json"):
        takeover.give_back(run, record.name.removeprefix("takeover.").removesuffix(".json"))
    run.remove()


def within(namespaces: Sequence[int], run: RunDir, proven: bool) -> list[Pid]:
    """Processes in the lab's network namespaces, other than its own.

    A namespace's number may be given to another one after its death. So a process of the lab must
    prove that the namespaces live. Otherwise only processes count that also carry our run directory
    in their environment (`enter` puts it there).
    """
    mark = f"{rundir.ENV}={run.path}".encode()
    found: list[Pid] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if os.stat(entry / "ns" / "net").st_ino not in namespaces:
                continue
            if not proven and mark not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            comm = (entry / "comm").read_text()
            if not comm.startswith(("skbus ", "skbusd ")):
                found.append(identify(int(entry.name)))
        except OSError:
            continue  # it has ended, or is another user's
    return found


def wait(pids: Sequence[Pid], seconds: float) -> list[Pid]:
    """Wait for the end of processes that need not be our children; returns who is left."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid.pid)
            with os.fdopen(fd) as f:
                if pid.alive():
                    select.select([f], [], [], max(0.0, deadline - time.monotonic()))
    return [p for p in pids if p.alive()]
