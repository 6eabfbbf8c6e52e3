# SPDX-License-Identifier: MIT
"""The lab: our stack and the Linux kernel at the two ends of a cable, without root or Docker.

    peer's namespace                    stack's namespace
    Linux, 10.77.0.1/24  veth0 ======== eth0  nic.eth0, ip, tcp, udp, socket: 10.77.0.2/24

`up` starts a holder: a process in new network namespaces (and, where we are not root, a new user
namespace, in which we are), which makes the cable, runs the supervisor in the stack's namespace
and keeps one small process in the peer's. `exec` enters the peer's namespace. All is found again
through the run directory; nothing has a name in the file system or an `ip netns` entry, so when
the holder dies, however it dies, the kernel takes namespaces, cable and layers away.

Called by `skbus.cli.lab`; the namespaces are made by `hold`, which is `python -m skbus.lab`.
"""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from skbus import rundir
from skbus.gso_size import set_gso_ipv4_max_size
from skbus.linux import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    Pid,
    die_with_parent,
    identify,
    set_name,
    setns,
    unshare,
)
from skbus.rundir import RunDir, RunDirError

ADDRESS: Final = "10.77.0.2"
PEER_ADDRESS: Final = "10.77.0.1"
PREFIX: Final = 24
DEV: Final = "eth0"
PEER_DEV: Final = "veth0"

UP_TIME: Final = 90.0
"""Seconds after which `up` gives up."""
_PROBE_TIME: Final = 30.0
_PROBE_PORT: Final = 9  # discard: nobody listens, so that a RST is the sign of life


class LabError(Exception):
    """The lab could not be started or found; the text says why, and what to do."""


def lab_dir(name: str | None) -> RunDir:
    """The run directory of a lab. Without a name it is SKBUS_DIR, or else this user's default,
    in which commands and clients look when nothing is said."""
    if name is None:
        return RunDir()
    if not name or "/" in name or name.startswith("."):
        raise LabError(f"{name!r} is no name for a lab: it takes letters, digits, - and _")
    return RunDir(rundir.default_base() / name)


def labs() -> list[RunDir]:
    """The run directories of this user's labs."""
    base = rundir.default_base()
    return [RunDir(p.parent) for p in sorted(base.glob("*/state.json"))]


# ---- up --------------------------------------------------------------------------------------


class Cable(NamedTuple):
    """The veth pair between stack and peer.

    mtu: of both ends, 0 for the kernel's default. gso_max_size: how long super-segments to our
    end may be (`gso_ipv4_max_size`: more than 65536 is BIG TCP), 0 for the kernel's default.
    """

    mtu: int = 0
    gso_max_size: int = 0


CABLE: Final = Cable()


def up(run: RunDir, config_json: str, cable: Cable = CABLE) -> dict[str, Any]:
    """Start a lab; returns what `status` does, once the stack answers the kernel.

    config_json: `Config.to_json` with the device DEV. LabError if it does not come up: then
    nothing is left of it.
    """
    if run.locked():
        raise LabError(
            f"a lab is up in {run.path} already: `skbus lab down` ends it, "
            "`skbus lab up --name OTHER` starts another"
        )
    down(run)
    run.create()
    lock = run.lock()
    try:
        run.config_file.write_text(config_json)
        return _start(run, lock, cable)
    except BaseException:
        os.close(lock)
        lock = -1
        down(run)
        raise
    finally:
        if lock >= 0:
            os.close(lock)


def _start(run: RunDir, lock: int, cable: Cable) -> dict[str, Any]:
    argv = [sys.executable, "-m", "skbus.lab", str(run.path), str(lock), *map(str, cable)]
    holder: subprocess.Popen[bytes] | None = None
    try:
        with open(run.log_dir / "lab.err", "ab") as err, _uninterrupted():
            holder = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                pass_fds=(lock,),
                start_new_session=True,
            )
        assert holder.stdout is not None
        with holder.stdout as out:
            line = _read_line(out.fileno(), UP_TIME)
    except BaseException:
        if holder is not None:
            holder.terminate()
            try:
                holder.wait(10)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
        raise
    if not line:
        holder.kill()
        holder.wait()
        tail = (run.log_dir / "lab.err").read_text(errors="replace").strip()
        raise LabError(f"the lab's holder failed, or took more than {UP_TIME:g} s\n{tail}".strip())
    result: dict[str, Any] = json.loads(line)
    if "error" in result:
        holder.wait()
        raise LabError(result["error"])
    holder.returncode = 0  # it lives on: no warning that we leave it behind
    return status(run)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until this is over: a holder that has been started must be known."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


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
    from skbus.supervise import read_state

    state = read_state(run)
    if state is None or "lab" not in state:
        raise LabError(
            f"no lab in {run.path}: `skbus lab up` starts one, `skbus lab list` shows those "
            f"that there are (--name, or {rundir.ENV}, says which is meant)"
        )
    return state


def status(run: RunDir) -> dict[str, Any]:
    """The lab's addresses, directory, pids. LabError if there is none."""
    state = _state(run)
    holder, peer = state["supervisor"], state["others"]["peer"]
    pids = {"holder": holder, "peer": peer, **state["layers"]}
    return {
        "lab": state["lab"]["name"],
        "up": holder.alive() and peer.alive(),
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
    """Move this (single-threaded) process into the peer's namespace, or the stack's."""
    state = _state(run)
    target: Pid = state["supervisor"] if stack else state["others"]["peer"]
    if not target.alive():
        raise LabError(f"the lab in {run.path} has died: `skbus lab down` clears it away")
    for kind, flag in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)):
        path = f"/proc/{target.pid}/ns/{kind}"
        if kind == "user" and os.stat(path).st_ino == os.stat("/proc/self/ns/user").st_ino:
            continue  # one cannot enter the user namespace that one is in
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, flag)
        except OSError as e:
            raise LabError(
                f"cannot enter the lab's {kind} namespace: {e}; only the user who started it "
                "may, or root"
            ) from None
        finally:
            os.close(fd)
    os.environ[rundir.ENV] = str(run.path)


def exec_(run: RunDir, argv: Sequence[str], stack: bool = False) -> NoReturn:
    """Become a command in the peer's namespace: there it is an ordinary Linux program, for which
    our stack is another machine. OSError if there is no such command."""
    enter(run, stack)
    os.execvp(argv[0], list(argv))


def down(run: RunDir) -> bool:
    """End a lab, or what a crash has left of it, with all that runs in its namespaces.

    Returns whether there was anything. Processes are known by pid and start time, or by their
    namespace while that is known to be the lab's; never by name.
    """
    from skbus.supervise import read_state

    state = read_state(run)
    if state is None:
        there = run.path.is_dir() and run.pool_dir.is_dir() and not run.locked()
        if there:
            run.remove()
        return there
    if "lab" not in state:
        if run.locked():
            raise LabError(
                f"what runs in {run.path} is no lab, but `skbus up`: end that with Ctrl-C"
            )
        _clear_up(run)
        return True
    ours: list[Pid] = [state["supervisor"], *state["others"].values()]
    proven = any(p.alive() for p in ours)
    strangers = _within(state["lab"]["namespaces"], run, proven)
    state["supervisor"].kill(signal.SIGTERM)
    for pid in strangers:
        pid.kill(signal.SIGTERM)
    left = _wait([*ours, *strangers], 8.0)
    left += [p for p in state["layers"].values() if p and p.alive()]
    for pid in left:
        pid.kill(signal.SIGKILL)
    _wait(left, 5.0)
    run.remove()
    return True


def _clear_up(run: RunDir) -> None:
    """After an `skbus up` that was killed: the kernel gets its addresses back."""
    from skbus import takeover

    for record in run.path.glob("takeover.*.json"):
        takeover.give_back(run, record.name.removeprefix("takeover.").removesuffix(".json"))
    run.remove()


def _within(namespaces: Sequence[int], run: RunDir, proven: bool) -> list[Pid]:
    """Processes in the lab's network namespaces, other than its own.

    A namespace's number may be given to another one after its death. So, unless a process of
    the lab proves that the namespaces live, only those count that carry our run directory in
    their environment as well (`enter` puts it there).
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


def _wait(pids: Sequence[Pid], seconds: float) -> list[Pid]:
    """Wait for the end of processes that need not be our children; returns who is left."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid.pid)
            with os.fdopen(fd) as f:
                if pid.alive():
                    select.select([f], [], [], max(0.0, deadline - time.monotonic()))
    return [p for p in pids if p.alive()]


# ---- the holder --------------------------------------------------------------------------------


def make_namespaces() -> bool:
    """Leave for new namespaces; returns whether a user namespace was needed (we are not root).

    LabError says why that is not allowed here, and what can be done.
    """
    if os.geteuid() == 0:
        with suppress(OSError):
            unshare(CLONE_NEWNET)
            return False
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as e:
        raise LabError(f"no namespaces for the lab: {e.strerror}. {_namespace_remedy()}") from None
    return True


def _namespace_remedy() -> str:
    """Which of the usual switches forbids user namespaces, and how to throw it."""
    switches = (
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("/proc/sys/user/max_user_namespaces", "0", "10000"),
    )
    for path, forbids, allows in switches:
        with suppress(OSError):
            if Path(path).read_text().strip() == forbids:
                name = path.removeprefix("/proc/sys/").replace("/", ".")
                return f"{name} is {forbids}: run as root, or `sudo sysctl {name}={allows}`"
    return (
        "Run as root, or where unprivileged user namespaces are allowed; a container needs "
        "CAP_SYS_ADMIN for it (docker run --privileged)"
    )


def _sysctl(name: str, value: str) -> None:
    with suppress(OSError):  # /proc/sys is read-only in most containers; the defaults will do
        Path("/proc/sys/" + name).write_text(value)


def _make_cable(stack: int, cable: Cable) -> None:
    """In the peer's namespace: make the veth pair, and put its other end into the stack's."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        _sysctl("net/ipv4/ip_forward", "0")
        _sysctl("net/ipv4/ping_group_range", "0 0")  # all that a user namespace may say
        _sysctl("net/ipv4/ping_group_range", "0 2147483647")
        _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
        ip.link("add", ifname=PEER_DEV, kind="veth", peer={"ifname": DEV, "net_ns_fd": stack})
        index = ip.link_lookup(ifname=PEER_DEV)[0]
        ip.addr("add", index=index, address=PEER_ADDRESS, prefixlen=PREFIX)
        if cable.mtu:
            ip.link("set", index=index, mtu=cable.mtu)
        ip.link("set", index=index, state="up")
        ip.link("set", index=1, state="up")


def _ready_cable(cable: Cable) -> None:
    """In the stack's namespace: its end of the cable up, and the kernel there silent."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        _sysctl(f"net/ipv6/conf/{DEV}/disable_ipv6", "1")
        _sysctl("net/ipv4/ip_forward", "0")
        _sysctl("net/ipv4/conf/all/arp_ignore", "8")
        index = ip.link_lookup(ifname=DEV)[0]
        if cable.mtu:
            ip.link("set", index=index, mtu=cable.mtu)
        if cable.gso_max_size:
            set_gso_ipv4_max_size(index, cable.gso_max_size)
        ip.link("set", index=index, state="up")
        ip.link("set", index=1, state="up")


def _peer(parent: int, go: int, done: int, cable: Cable) -> NoReturn:
    """The one process in the peer's namespace: makes the cable, then keeps the namespace."""
    try:
        die_with_parent(signal.SIGKILL, parent)
        set_name("skbus peer")
        os.read(go, 1)
        mine = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack = os.open(f"/proc/{parent}/ns/net", os.O_RDONLY)
        _make_cable(stack, cable)
        setns(stack, CLONE_NEWNET)
        _ready_cable(cable)
        setns(mine, CLONE_NEWNET)
    except BaseException as e:  # noqa: BLE001 whatever it is, the holder must hear of it
        reason = f"{type(e).__name__}: {e}"
        if isinstance(e, OSError) or type(e).__name__ == "NetlinkError":
            reason = f"{e}. {_namespace_remedy()}"
        os.write(done, f"cannot make the lab's cable: {reason}".encode())
        os._exit(1)
    os.close(done)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        signal.pause()


def _inode(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def hold(run: RunDir, cable: Cable, say: Callable[[dict[str, Any]], None]) -> int:
    """The holder's life: namespaces, cable, supervisor; until SIGTERM. Returns the exit status."""
    rootless = make_namespaces()
    go_r, go_w = os.pipe()
    done_r, done_w = os.pipe()
    parent = os.getpid()
    peer = os.fork()
    if peer == 0:
        os.close(done_r)
        _peer(parent, go_r, done_w, cable)
    os.close(done_w)
    try:
        outside = os.open(f"/proc/{peer}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        unshare(CLONE_NEWNET)
        inside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        os.write(go_w, b"g")
        return _run(run, peer, rootless, done_r, _Probe(outside, inside), say)
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(peer, signal.SIGKILL)
            os.waitpid(peer, 0)


def _run(
    run: RunDir,
    peer: int,
    rootless: bool,
    cable: int,
    probe: Callable[[], bool],
    say: Callable[[dict[str, Any]], None],
) -> int:
    """In the stack's namespace: all layers, while the peer makes the cable."""
    from skbus.config import Config
    from skbus.supervise import SuperviseError, Supervisor, preload

    config = Config.read(run)
    preload()
    if trouble := os.read(cable, 4096).decode():
        raise LabError(trouble)
    from skbus import log
    from skbusd.cli import open_device, run_supervised

    supervisor = Supervisor(
        run,
        config,
        run_supervised,
        open_device=open_device,
        attached=False,
        others={"peer": peer},
        notes={
            "lab": {
                "name": run.path.name,
                "rootless": rootless,
                "namespaces": [_inode(peer), _inode(os.getpid())],
            }
        },
        logger=log.configure("supervisor", config.log.level, path=run.log_file("supervisor")),
    )
    try:
        supervisor.start()
        supervisor.wait_ready()
        if "tcp" in config.layers:
            supervisor.wait_until(probe, _PROBE_TIME, f"no TCP answer from {ADDRESS}")
    except SuperviseError as e:
        raise LabError(str(e)) from None
    try:
        say({"up": True})
        supervisor.supervise()
    except BrokenPipeError:
        # `up` was killed: nobody knows of this lab, so nobody would end it
        supervisor.stop()
        run.remove()
        return 1
    supervisor.stop()
    return 0


class _Probe:
    """Asks, over and over, whether the stack answers a SYN from the kernel at the other end."""

    def __init__(self, outside: int, inside: int) -> None:
        self._namespaces = (outside, inside)
        self._sock: socket.socket | None = None
        self._until = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._sock is not None and now < self._until:
            outcome = self._sock.connect_ex((ADDRESS, _PROBE_PORT))
            if outcome in (0, errno.EISCONN, errno.ECONNREFUSED):
                self._sock.close()
                return True
            return False
        if self._sock is not None:
            self._sock.close()
        # A socket belongs to the namespace in which it was made.
        outside, inside = self._namespaces
        setns(outside, CLONE_NEWNET)
        try:
            self._sock = socket.socket()
        finally:
            setns(inside, CLONE_NEWNET)
        self._sock.setblocking(False)
        self._until = now + 0.5
        return False


def main(argv: Sequence[str]) -> int:
    """`python -m skbus.lab RUN LOCK MTU GSO_MAX_SIZE`: the holder; started by `up`."""
    run = RunDir(argv[0])
    out = os.fdopen(os.dup(1), "w")

    def say(result: dict[str, Any]) -> None:
        out.write(json.dumps(result) + "\n")
        out.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)

    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # `up` started us with signals blocked
    set_name("skbus holder")
    try:
        return hold(run, Cable(*map(int, argv[2:])), say)
    except (LabError, RunDirError, OSError) as e:
        say({"error": str(e)})
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
