# SPDX-License-Identifier: MIT
"""The few Linux calls that Python 3.11 lacks: unshare, setns, prctl. Besides, the identity of
processes, and their memory and processor time.

For the supervisor, the lab and the control socket; no layer's core needs them.
"""

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_NAME: Final = 15
_NS_GET_OWNER_UID: Final = 0xB704
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by CLONE_... flags. OSError as unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace that a descriptor of /proc/PID/ns/... names. OSError as setns(2)."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def die_with_parent(signal: int, parent: int) -> None:
    """Get `signal` when the parent ends, however it ends; end now if it has ended already.

    parent: the pid that the parent is known to have.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def parent_signal() -> int:
    """Which signal this process gets when its parent ends; 0: none."""
    found = ctypes.c_int()
    _check(_libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(found), 0, 0, 0), "prctl")
    return found.value


def owns_our_namespace(pid: int, uid: int) -> bool:
    """Whether a process is outside of our user namespace, and of the user who made the namespace.
    Such a process has all capabilities over us (user_namespaces(7)). uid: as we see it."""
    try:
        theirs = os.stat(f"/proc/{pid}/ns/user").st_ino
    except PermissionError:
        theirs = -1  # we have all capabilities in our namespace, so the process is outside of it
    except OSError:
        return False
    if theirs == os.stat("/proc/self/ns/user").st_ino:
        return False
    try:
        with open("/proc/self/ns/user", "rb") as f:
            owner: bytes = fcntl.ioctl(f, _NS_GET_OWNER_UID, bytes(4))
    except OSError:
        return False
    return owner == struct.pack("=I", uid)


def set_name(name: str) -> None:
    """Set the name that `ps -e` and `top` show, at most 15 bytes of it."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(os.fsencode(name)[:15]), 0, 0, 0)


def keep_capabilities() -> None:
    """Keep this process's capabilities in the programs that it becomes or starts, without being
    root: make them inheritable, and ambient (capabilities(7)). OSError where that fails."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    low = struct.unpack("=6I", data.raw)  # effective, permitted, inheritable; twice 32 bits
    new = struct.pack("=6I", low[0], low[1], low[1], low[3], low[4], low[4])
    _check(_libc.capset(header, new), "capset")
    permitted = low[1] | low[4] << 32
    for number in range(permitted.bit_length()):
        if permitted >> number & 1:
            raised = _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
            _check(raised, "prctl(PR_CAP_AMBIENT)")


class Pid(NamedTuple):
    """A process, for good: a pid is used again, but not a pid with its start time."""

    pid: int
    start: int
    """clock ticks after boot, field 22 of /proc/PID/stat"""

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.start and found[0] not in "ZX"

    def kill(self, signal: int) -> bool:
        """Send a signal, if the process still runs."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signal)
        except ProcessLookupError:
            return False
        return True


def identify(pid: int) -> Pid:
    """The Pid of a living process. ProcessLookupError if there is none."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(f"no process {pid}")
    return Pid(pid, found[1])


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[19])


def proc_status(pid: int) -> dict[str, int]:
    """Memory of a process in bytes, rss and anonymous (without the pool's shared pages), and its
    processor time in nanoseconds. Empty when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    ticks = stat.rsplit(")", 1)[1].split()
    cpu = (int(ticks[11]) + int(ticks[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    if "VmRSS" not in fields:
        return {}
    return {
        "rss": int(fields["VmRSS"].split()[0]) * 1024,
        "anon": int(fields["RssAnon"].split()[0]) * 1024,
        "cpu": cpu,
    }
