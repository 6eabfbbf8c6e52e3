# SPDX-License-Identifier: MIT
"""The lab's holder: the process that makes a lab's namespaces and cable, and supervises its stack.

`skbus.stack.lab.up` starts `python -m skbus.stack.holder`, which says one JSON line when the lab is
up, or why it is not. As long as it lives, the lab does; when it dies, however it dies, the kernel
takes namespaces, cable and layers away. An orderly end (SIGTERM) also takes the run directory
away.

Without root the namespaces belong to a new user namespace, in which the user stays who they are,
and has all rights. Programs that give root up at once, such as tcpdump, so have nothing to give up.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from skbus.bus import rtnetlink
from skbus.bus.gso_size import set_gso_ipv4_max_size
from skbus.bus.linux import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    die_with_parent,
    keep_capabilities,
    set_name,
    setns,
    unshare,
)
from skbus.bus.rundir import RunDir, RunDirError
from skbus.stack.lab import (
    ADDRESS,
    DEV,
    PEER_ADDRESS,
    PEER_DEV,
    PREFIX,
    Cable,
    LabError,
    wait,
    within,
)

_PROBE_TIME: Final = 30.0
_PROBE_PORT: Final = 9  # discard: nobody listens, so that a RST is the sign of life
_LOOPBACK: Final = 1  # the index of `lo` in every namespace
_GUEST_TIME: Final = 2.0
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def make_namespaces() -> bool:
    """Leave for new namespaces; returns whether a user namespace was needed (we are not root).
    In that one our user has all capabilities, and so have the programs that we become.

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
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        keep_capabilities()
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
    _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    _sysctl("net/ipv4/ip_forward", "0")
    group = os.getegid()
    _sysctl("net/ipv4/ping_group_range", f"{group} {group}")  # all that a user namespace knows
    _sysctl("net/ipv4/ping_group_range", "0 2147483647")
    _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    rtnetlink.add_veth(PEER_DEV, DEV, stack)
    index = socket.if_nametoindex(PEER_DEV)
    rtnetlink.add_address(index, PEER_ADDRESS, PREFIX)
    if cable.mtu:
        rtnetlink.set_mtu(index, cable.mtu)
    rtnetlink.set_up(index)
    rtnetlink.set_up(_LOOPBACK)


def _ready_cable(cable: Cable) -> None:
    """In the stack's namespace: its end of the cable up, and the kernel there silent."""
    _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    _sysctl(f"net/ipv6/conf/{DEV}/disable_ipv6", "1")
    _sysctl("net/ipv4/ip_forward", "0")
    _sysctl("net/ipv4/conf/all/arp_ignore", "8")
    index = socket.if_nametoindex(DEV)
    if cable.mtu:
        rtnetlink.set_mtu(index, cable.mtu)
    if cable.gso_max_size:
        set_gso_ipv4_max_size(index, cable.gso_max_size)
    rtnetlink.set_up(index)
    rtnetlink.set_up(_LOOPBACK)


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
        if isinstance(e, OSError):
            reason = f"{e}. {_namespace_remedy()}"
        os.write(done, f"cannot make the lab's cable: {reason}".encode())
        os._exit(1)
    os.close(done)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        signal.pause()


def _inode(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def hold(run: RunDir, cable: Cable, parent: int, say: Callable[[dict[str, Any]], None]) -> int:
    """The holder's life: namespaces, cable, supervisor; until SIGTERM. Returns the exit status.

    parent: the process whose end is the lab's end; 0 for none.
    """
    rootless = make_namespaces()
    if parent:
        if os.getppid() != parent:
            raise BrokenPipeError
        # not before: a process whose rights change forgets it
        die_with_parent(signal.SIGTERM, parent)
    go_r, go_w = os.pipe()
    done_r, done_w = os.pipe()
    me = os.getpid()
    peer = os.fork()
    if peer == 0:
        os.close(done_r)
        _peer(me, go_r, done_w, cable)
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
    from skbus.stack.config import Config
    from skbus.stack.supervise import SuperviseError, Supervisor, preload

    config = Config.read(run)
    sources = preload(config.processes())
    if trouble := os.read(cable, 4096).decode():
        raise LabError(trouble)
    from skbus.bus import log
    from skbus.bus.clock import StackClock
    from skbus.stack.layer import open_device, run_supervised

    supervisor = Supervisor(
        run,
        config,
        partial(run_supervised, sources=sources),
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
        logger=log.configure(
            "supervisor",
            config.log.level,
            path=run.log_file("supervisor"),
            clock=StackClock(config.clock.time_scale),
        ),
    )
    try:
        supervisor.start()
        supervisor.wait_ready()
        if "tcp" in config.layers:
            supervisor.wait_until(probe, _PROBE_TIME, f"no TCP answer from {ADDRESS}")
    except SuperviseError as e:
        raise LabError(str(e)) from None
    try:
        say({"up": True})  # BrokenPipeError: `up` was killed, nobody knows of this lab
        supervisor.supervise()
    finally:
        supervisor.stop()
        _end_guests(run, peer)
    return 0


def _end_guests(run: RunDir, peer: int) -> None:
    """End what runs in our namespaces besides us, as `lab down` does."""
    guests = within([_inode(peer), _inode(os.getpid())], run, True)
    for how, seconds in ((signal.SIGTERM, _GUEST_TIME), (signal.SIGKILL, _GUEST_TIME)):
        for pid in guests:
            pid.kill(how)
        guests = wait(guests, seconds)


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
    """`python -m skbus.stack.holder RUN LOCK PARENT MTU GSO_MAX_SIZE`: started by
    `skbus.stack.lab.up`."""
    # Until the supervisor looks at them signals wait, so that the end is always an orderly one.
    signal.pthread_sigmask(signal.SIG_SETMASK, _SIGNALS)
    run = RunDir(argv[0])
    out = os.fdopen(os.dup(1), "w")

    def say(result: dict[str, Any]) -> None:
        with out:
            out.write(json.dumps(result) + "\n")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)

    os.umask(0o077)
    set_name("skbus holder")
    try:
        status = hold(run, Cable(*map(int, argv[3:])), int(argv[2]), say)
    except BrokenPipeError:
        status = 1
    except (LabError, RunDirError, OSError) as e:
        try:
            say({"error": str(e)})
            return 1  # `up` clears away
        except BrokenPipeError:
            status = 1
    run.remove()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
