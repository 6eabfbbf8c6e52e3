# SPDX-License-Identifier: MIT
"""The run directory: where the processes of one stack, and its clients, meet.

It holds the pipes' sockets, the pool of payload, the configuration, journals and logs. Whoever
can enter it can use the stack, so it belongs to one user and has mode 0700. It should lie on a
tmpfs: the pool's bytes are packets, and have no business on a disk.

Every process, every command and every client finds it by `SKBUS_DIR`; without that it is
`$XDG_RUNTIME_DIR/skbus`, or `/dev/shm/skbus-UID` where there is no such directory.
"""

import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Final

ENV: Final = "SKBUS_DIR"

SUN_PATH_MAX: Final = 107
"""Bytes of a Unix socket's path (`struct sockaddr_un`, less the final NUL)."""

_LONGEST_NAME: Final = len("nic.123456789012345.trace")
"""The longest file name of a socket: a device's name has at most IFNAMSIZ - 1 = 15 bytes."""

_SUFFIXES: Final = frozenset({".in", ".ctl", ".trace", ".sys", ".life", ".json", ".new"})


class RunDirError(Exception):
    """The run directory is missing, unsafe or unfit; the text says why, and what to do."""


def default_base() -> Path:
    """Where this user's run directories lie, without regard to SKBUS_DIR."""
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and os.path.isdir(xdg) and os.access(xdg, os.W_OK):
        return Path(xdg) / "skbus"
    return Path(f"/dev/shm/skbus-{os.getuid()}")


class RunDir:
    """The places in one run directory. Making a RunDir touches no file; see `create`.

    path: the directory; None for SKBUS_DIR, or else this user's default.
    RunDirError if the path is too long to hold a Unix socket.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        chosen = path if path is not None else os.environ.get(ENV) or default_base() / "default"
        self.path = Path(os.path.abspath(chosen))
        room = SUN_PATH_MAX - _LONGEST_NAME - 1
        if len(os.fsencode(self.path)) > room:
            raise RunDirError(
                f"the run directory's path is too long for a Unix socket: {self.path} has "
                f"{len(os.fsencode(self.path))} bytes, {room} are the limit; "
                f"choose a shorter one with {ENV}"
            )

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def create(self) -> "RunDir":
        """Make the directory and those within it, mode 0700.

        RunDirError if it exists and is another user's, or a link (in a world-writable place
        like /dev/shm somebody may have been there first), or is full of other things: a stack
        that ends removes its run directory.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.parent == default_base():
                self._check(self.path.parent)
            if self.path.is_dir() and not self.pool_dir.is_dir() and any(self.path.iterdir()):
                raise RunDirError(
                    f"{self.path} is not empty, and no run directory; choose another with {ENV}"
                )
            for path in (self.path, self.pool_dir, self.log_dir, self.journal_dir):
                path.mkdir(mode=0o700, exist_ok=True)
                self._check(path)
                path.chmod(0o700)
        except OSError as e:
            raise RunDirError(
                f"cannot make the run directory {self.path}: {e.strerror}; "
                f"choose another with {ENV}"
            ) from e
        return self

    def require(self) -> "RunDir":
        """Check that a stack has been started here; RunDirError says what to do if not."""
        if not self.path.is_dir():
            raise RunDirError(
                f"no run directory {self.path}: is the stack up? Start it (`skbus up`, "
                f"`skbus lab up`), or set {ENV} to the run directory of one that is"
            )
        self._check(self.path)
        return self

    def lock(self) -> int:
        """Take the directory for one stack; returns the descriptor that holds it.

        The lock lives as long as the descriptor and its copies in children, so a crash frees
        it. RunDirError if a stack runs here already.
        """
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RunDirError(
                f"a stack runs in {self.path} already; end it (`skbus lab down`, or Ctrl-C in "
                f"its `skbus up`), or choose another directory with {ENV}"
            ) from None
        return fd

    def locked(self) -> bool:
        """Whether a stack runs here."""
        try:
            fd = self.lock()
        except RunDirError:
            return True
        except FileNotFoundError:
            return False
        os.close(fd)
        return False

    def remove(self) -> None:
        """Remove what a stack has put here, and the directory if nothing else is in it."""
        for inner in (self.pool_dir, self.log_dir, self.journal_dir):
            shutil.rmtree(inner, ignore_errors=True)
        for path in self.path.glob("*"):
            if path.suffix in _SUFFIXES or path.name == "lock":
                path.unlink(missing_ok=True)
        try:
            self.path.rmdir()
            if self.path.parent == default_base():
                self.path.parent.rmdir()
        except OSError:
            pass  # somebody keeps something there, or it is a mount point

    def _check(self, path: Path) -> None:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise RunDirError(f"{path} is not a directory; choose another with {ENV}")
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            raise RunDirError(
                f"the run directory {path} belongs to user {found.st_uid}, not to us "
                f"({os.geteuid()}); choose another with {ENV}"
            )

    # ---- endpoints -----------------------------------------------------------------------

    def _ipc(self, name: str) -> str:
        return f"ipc://{self.path}/{name}"

    def endpoint(self, process: str) -> str:
        """Where a process pulls the calls of its neighbours (PULL)."""
        return self._ipc(f"{process}.in")

    def ctl(self, process: str) -> str:
        """Where a process answers status, counters, sysctl, log level and ping (ROUTER)."""
        return self._ipc(f"{process}.ctl")

    def trace(self, process: str) -> str:
        """Where a process publishes trace events (PUB)."""
        return self._ipc(f"{process}.trace")

    @property
    def syscall_endpoint(self) -> str:
        """Where the socket layer takes system calls (ROUTER)."""
        return self._ipc("socket.sys")

    def processes(self) -> list[str]:
        """The processes whose control socket is there, in the order of the layers."""
        found = sorted(p.name.removesuffix(".ctl") for p in self.path.glob("*.ctl"))
        order = ("nic", "ip", "tcp", "udp", "socket")
        rank = {name: i for i, name in enumerate(order)}
        return sorted(found, key=lambda name: (rank.get(name.split(".")[0], len(order)), name))

    # ---- files ---------------------------------------------------------------------------

    @property
    def life(self) -> Path:
        """A Unix socket that each client keeps open: its end is the client's end."""
        return self.path / "socket.life"

    @property
    def pool_dir(self) -> Path:
        """The shared-memory pool's regions, one file for each allocating process."""
        return self.path / "pool"

    @property
    def journal_dir(self) -> Path:
        """What a process writes down to survive its own death."""
        return self.path / "journal"

    @property
    def log_dir(self) -> Path:
        """One JSON stream for each process."""
        return self.path / "log"

    def log_file(self, process: str) -> Path:
        """A process's log: JSON lines."""
        return self.log_dir / f"{process}.jsonl"

    @property
    def config_file(self) -> Path:
        """The effective configuration, which the layers read at start."""
        return self.path / "config.json"

    @property
    def state_file(self) -> Path:
        """Who runs here: pids with start times, namespaces (`skbus.lab`, `skbus.supervise`)."""
        return self.path / "state.json"
