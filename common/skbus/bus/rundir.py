# SPDX-License-Identifier: MIT
"""The run directory: where the processes of one stack, and its clients, meet.

It holds the pipes' sockets, the pool of payload, the configuration, journals and logs. A user who
can change it can use the stack, and run code as the stack's user. So it belongs to the stack's
user, has mode 0700, and lies where nobody else can replace it (`skbus.bus.private`). It should lie
on a tmpfs: the pool's bytes are packets, and have no business on a disk.

Every process, command and client finds it by `SKBUS_DIR`. Where that is not set, the run directory
is `default` in `default_base`.
"""

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from skbus.bus import private

ENV: Final = "SKBUS_DIR"

SUN_PATH_MAX: Final = 107
"""Bytes of a Unix socket's path (`struct sockaddr_un`, less the final NUL)."""

_LONGEST_NAME: Final = len("nic.123456789012345.ctl")
"""The longest file name of a socket: a device's name has at most IFNAMSIZ - 1 = 15 bytes."""

_SUFFIXES: Final = frozenset({".in", ".ctl", ".sys", ".life", ".json", ".new", ".double"})

_ROOTS: Final = Path("/run")
"""Only root can make files there."""
_SHM: Final = Path("/dev/shm")
_POOL_PREFIX: Final = "skbus-pool-"
POOL_ROOM: Final = 64 << 20
"""Bytes that should be free where a pool lies. A pool begins with some 10 MB."""


class RunDirError(Exception):
    """The run directory is missing, unsafe or unfit; the text says why, and what to do."""


def default_base() -> Path:
    """Where this user's run directories lie, without regard to SKBUS_DIR.

    root's: /run/skbus, which nobody else can make. Other users': in $XDG_RUNTIME_DIR or else
    /run/user/UID, if that is theirs alone; or else /dev/shm/skbus-UID.
    """
    return _bases()[0]


def _bases() -> list[Path]:
    """The default base first, and then others that it may have been when a stack was started. The
    beginning of a session makes $XDG_RUNTIME_DIR, its end removes it."""
    uid = os.geteuid()
    if uid == 0 and _is_ours(_ROOTS):
        return [_ROOTS / "skbus"]
    outer = private.outer_uid(uid)
    user = uid if outer is None else outer
    given = os.environ.get("XDG_RUNTIME_DIR")
    homes = [Path(given)] if given else []
    homes.append(Path(f"/run/user/{user}"))
    found = [home / "skbus" for home in homes if _is_private(home)]
    return [*dict.fromkeys(found), _SHM / f"skbus-{user}"]


def _is_ours(path: Path) -> bool:
    """Whether we own it, nobody else can write to it, and we can."""
    try:
        found = path.stat()
    except OSError:
        return False
    ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    writable = os.access(path, os.W_OK, effective_ids=True)
    return ours and (writable or (path / "skbus").is_dir())


def _is_private(path: Path) -> bool:
    """Whether a directory is as the XDG Base Directory Specification wants XDG_RUNTIME_DIR: owned
    by the user, mode 0700. `su` passes on another user's."""
    try:
        return path.is_dir() and path.stat().st_mode & 0o077 == 0 and _is_ours(path)
    except OSError:
        return False


def find_all() -> "list[RunDir]":
    """All run directories of this user in the places where commands look for them by name: of
    stacks that are up, and remains of others."""
    found: list[RunDir] = []
    for base in _bases():
        with suppress(OSError, RunDirError):
            os.close(private.open_dir(base))
            found += [
                RunDir(path)
                for path in sorted(base.iterdir())
                if any(os.path.lexists(path / part) for part in ("state.json", "pool", "lock"))
            ]
    return found


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

        RunDirError if it, a file in it or a part of its path is another user's, open to others, or
        a link. RunDirError if it holds other files, because a stack that ends removes its run
        directory.
        """
        default = self.path.parent in _bases()
        try:
            if default:
                private.check_path(self.path.parent)
                private.make_dir(self.path.parent)
            else:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private.check_path(self.path)
            new = not self.path.exists()
            private.make_dir(self.path)
            if not new:
                self._check_contents()
            if default and not os.path.lexists(self.pool_dir):
                self._place_pool()
            for path in (self.pool_dir, self.log_dir, self.journal_dir):
                if not path.is_symlink():
                    private.make_dir(path)
        except OSError as e:
            raise self._refusal("cannot make the run directory", e) from e
        return self

    def _check_contents(self) -> None:
        """Check that a directory that was there holds only our files, and those of a stack."""
        entries = list(os.scandir(self.path))
        for entry in entries:
            private.check_owner(entry.stat(follow_symlinks=False), entry.path)
            if entry.is_symlink() and entry.name != "pool":
                raise private.refuse(entry.path, "is a link")
        if entries and not any(entry.name == "pool" for entry in entries):
            raise RunDirError(
                f"{self.path} is not empty, and no run directory; choose another with {ENV}"
            )

    def _place_pool(self) -> None:
        """Put the pool on /dev/shm where the run directory is not on a tmpfs, or on one with little
        room. Nobody can have guessed the name of its directory there."""
        if private.on_tmpfs(self.path) and private.free_bytes(self.path) >= POOL_ROOM:
            return
        if not private.on_tmpfs(_SHM) or private.free_bytes(_SHM) < POOL_ROOM:
            return
        place = _SHM / f"{_POOL_PREFIX}{os.urandom(8).hex()}"
        self.pool_dir.symlink_to(place)  # first of all, so that the pool can always be found
        place.mkdir(mode=0o700)

    def require(self) -> "RunDir":
        """Check that there is a run directory that is ours; RunDirError says what to do if not."""
        try:
            if not os.path.lexists(self.path):
                others = " ".join(str(run.path) for run in find_all() if run.locked())
                raise RunDirError(
                    f"no run directory {self.path}: is the stack up? Start it (`skbus up`, "
                    f"`skbus lab up`), or set {ENV} to the run directory of one that is"
                    f"{f'; there are: {others}' if others else ''}"
                )
            private.check_path(self.path)
            os.close(private.open_dir(self.path))
        except OSError as e:
            raise self._refusal("cannot use the run directory", e) from e
        return self

    def _refusal(self, what: str, error: OSError) -> RunDirError:
        where = f": {error.filename}" if error.filename not in (None, str(self.path)) else ""
        said = f"{what} {self.path}{where} {error.strerror}"
        if isinstance(error.filename, str) and not where:
            said = f"{what}: {self.path} {error.strerror}"
        return RunDirError(f"{said}; choose another with {ENV}")

    def lock(self) -> int:
        """Take the directory for one stack; returns the descriptor that holds it.

        The lock lives as long as the descriptor and its copies in children, so a crash frees
        it. RunDirError if a stack runs here already.
        """
        fd = self.open("lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RunDirError(
                f"a stack runs in {self.path} already; end it ({self.remedy('down')}, or Ctrl-C "
                f"in its `skbus up`), or choose another directory with {ENV}"
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

    def remedy(self, command: str) -> str:
        """`skbus lab COMMAND` as it is to be typed for this directory, whatever SKBUS_DIR is."""
        if self.path == RunDir().path:
            return f"`skbus lab {command}`"
        if self.path.parent in _bases():
            return f"`skbus lab {command} --name {self.path.name}`"
        return f"`{ENV}={self.path} skbus lab {command}`"

    def remove(self) -> None:
        """Remove a stack's files, and the directory if nothing else is in it."""
        self._remove_pool()
        for inner in (self.log_dir, self.journal_dir):
            shutil.rmtree(inner, ignore_errors=True)
        for path in self.path.glob("*"):
            if path.suffix in _SUFFIXES:
                path.unlink(missing_ok=True)
        (self.path / "lock").unlink(missing_ok=True)  # the last: until then nobody begins anew
        try:
            self.path.rmdir()
            if self.path.parent in _bases():
                self.path.parent.rmdir()
        except OSError:
            pass  # somebody keeps something there, or it is a mount point

    def _remove_pool(self) -> None:
        pool = self.pool_dir
        place = Path(os.readlink(pool)) if pool.is_symlink() else pool
        if place != pool and not (place.parent == _SHM and place.name.startswith(_POOL_PREFIX)):
            return
        for _ in range(100):  # a client that does not know yet may make a region meanwhile
            shutil.rmtree(place, ignore_errors=True)
            if not place.exists():
                pool.unlink(missing_ok=True)
                return

    # ---- endpoints -----------------------------------------------------------------------

    def _ipc(self, name: str) -> str:
        return f"ipc://{self.path}/{name}"

    def endpoint(self, process: str) -> str:
        """Where a process pulls the calls of its neighbours (PULL)."""
        return self._ipc(f"{process}.in")

    def ctl(self, process: str) -> str:
        """Where a process answers status, counters, sysctl, log level and ping (ROUTER)."""
        return self._ipc(f"{process}.ctl")

    @property
    def syscall_endpoint(self) -> str:
        """Where the socket layer takes system calls (ROUTER)."""
        return self._ipc("socket.sys")

    def processes(self) -> list[str]:
        """The processes that have a control socket here, in the order of the layers."""
        found = sorted(p.name.removesuffix(".ctl") for p in self.path.glob("*.ctl"))
        order = ("nic", "ip", "tcp", "udp", "socket")
        rank = {name: i for i, name in enumerate(order)}
        return sorted(found, key=lambda name: (rank.get(name.split(".")[0], len(order)), name))

    # ---- files ---------------------------------------------------------------------------

    def open(self, name: str, flags: int) -> int:
        """Open one of the files within, such as "log/tcp.err": never through a link, never another
        user's, and a new one with mode 0600. OSError as open(2)."""
        directory, _, base = name.rpartition("/")
        fd = private.open_dir(self.path / directory)
        try:
            return private.open_file(fd, base, flags)
        finally:
            os.close(fd)

    def read_text(self, name: str) -> str:
        """The text of one of the files within. OSError as open(2)."""
        with os.fdopen(self.open(name, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            return file.read()

    def write_text(self, name: str, text: str) -> None:
        """Write one of the files within, whole or not at all. OSError where there is no room."""
        directory, _, base = name.rpartition("/")
        fd = private.open_dir(self.path / directory)
        try:
            private.replace_file(fd, base, text.encode())
        finally:
            os.close(fd)

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
        """What processes write down for their next lives."""
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
        """The processes that run here: pids with start times, namespaces (`skbus.stack.lab`,
        `skbus.stack.supervise`)."""
        return self.path / "state.json"
