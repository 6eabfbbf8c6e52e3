# SPDX-License-Identifier: MIT
"""Files in directories that nobody but this user can change.

A run directory holds what a stack obeys: its configuration, its sockets, its state. A user who can
swap one of these files, or put a link in its place, commands the stack with our rights. So a
directory must be ours and closed to everybody else, and nobody else may be able to replace a part
of its path. Its files are opened relative to its descriptor, never through a link.

Used by the modules of `skbus.bus` that open files there. Raises OSError alone, with the reason as
its text.
"""

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Final

_OPEN_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_TMPFS: Final = (0x01021994, 0x858458F6)
"""TMPFS_MAGIC, RAMFS_MAGIC"""
_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100


def refuse(path: str | os.PathLike[str], why: str) -> PermissionError:
    """The error for a place that is not safe."""
    return PermissionError(errno.EPERM, why, os.fspath(path))


def check_owner(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Check that something is ours, root or not. PermissionError names its owner."""
    if found.st_uid != os.geteuid():
        raise refuse(path, f"belongs to user {found.st_uid}, not to us ({os.geteuid()})")


def check_path(path: Path) -> None:
    """Check that nobody but root and we can put something else in the place of a part of the path.

    The path itself is not looked at, and need not be there. PermissionError names the part.
    """
    parts = [p for p in reversed(path.parents) if os.path.lexists(p)]
    for part in parts:
        found = part.lstat()
        if found.st_uid not in (0, os.geteuid()) and not _from_outside(found.st_uid):
            raise refuse(part, f"belongs to user {found.st_uid}, who can replace what is in it")
        if stat.S_ISLNK(found.st_mode):
            real = Path(os.path.realpath(path.parent))
            check_path(real / path.name)
            return
        if not found.st_mode & _OTHERS_WRITE or found.st_mode & stat.S_ISVTX:
            continue
        # Debian and Fedora give each user a group of their own
        if found.st_mode & stat.S_IWOTH or found.st_gid != os.getegid():
            raise refuse(
                part,
                f"has mode {stat.S_IMODE(found.st_mode):04o}: others can replace what is in it",
            )


def _from_outside(uid: int) -> bool:
    """Whether a user namespace shows unknown users, such as root, by this uid."""
    overflow = Path("/proc/sys/kernel/overflowuid").read_text()
    if uid != int(overflow):
        return False
    return outer_uid(uid) is None


def outer_uid(uid: int) -> int | None:
    """The uid of this user namespace's user in the namespace around it; None if there is none."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return None


def make_dir(path: Path) -> None:
    """Make a directory, or take an existing one if it is ours; either gets mode 0700."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    fd = _open_own(path)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def open_dir(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> int:
    """A descriptor of a directory that is ours and closed to all others, else an OSError."""
    fd = _open_own(path, dir_fd)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o077:
        os.close(fd)
        raise refuse(path, f"has mode {mode:04o}: it is open to others (chmod 700)")
    return fd


def _open_own(path: str | os.PathLike[str], dir_fd: int | None = None) -> int:
    try:
        fd = os.open(path, _OPEN_DIR, dir_fd=dir_fd)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", os.fspath(path)) from None
        raise
    try:
        check_owner(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_file(fd: int, name: str, flags: int) -> int:
    """Open a file in a directory that `open_dir` opened. A new file has mode 0600. Never opens
    through a link, nor another user's file."""
    file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        check_owner(os.fstat(file), name)
    except BaseException:
        os.close(file)
        raise
    return file


def replace_file(fd: int, name: str, data: bytes) -> None:
    """Write a file whole or not at all. OSError where there is no room: nothing has changed."""
    new = f"{name}.{os.urandom(4).hex()}.new"
    file = open_file(fd, new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(data)
        os.rename(new, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=fd)
        raise


class ReservedFile:
    """A file that can be written anew, whole or not at all, even when its file system is full.

    It has its room from the beginning, and so has its double. A write goes to the double, padded
    with newlines; then the two change names (renameat2(2), RENAME_EXCHANGE).
    """

    def __init__(self, path: Path, size: int) -> None:
        """size: bytes that it may hold. OSError where there is no room for twice that."""
        self.path = path
        self.size = size
        self._double = path.with_name(path.name + ".double")
        fd = open_dir(path.parent)
        try:
            self._files = [self._make(fd, p.name) for p in (self._double, self.path)]
        finally:
            os.close(fd)

    def _make(self, fd: int, name: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
        file = open_file(fd, name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.posix_fallocate(file, 0, self.size)
        except BaseException:
            os.close(file)
            os.unlink(name, dir_fd=fd)
            raise
        return file

    def write(self, data: bytes) -> None:
        """Replace the contents. OSError where they are longer than `size`, or the files are
        gone."""
        if len(data) > self.size:
            raise OSError(errno.EFBIG, f"{len(data)} bytes, {self.size} are reserved", self.path)
        double, file = self._files
        os.pwrite(double, data.ljust(self.size, b"\n"), 0)
        _exchange(self._double, self.path)
        self._files = [file, double]

    def close(self) -> None:
        """Close it; the file stays, its double goes."""
        for file in self._files:
            os.close(file)
        self._files = []
        self._double.unlink(missing_ok=True)


def _exchange(a: Path, b: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_uint(_RENAME_EXCHANGE)
    names = os.fsencode(a), os.fsencode(b)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(b))


def on_tmpfs(path: Path) -> bool:
    """Whether a path lies in memory: on a tmpfs or ramfs."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)  # struct statfs: f_type is its first long
    if libc.statfs(os.fsencode(path), buffer):
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF in _TMPFS


def free_bytes(path: Path) -> int:
    """Bytes that can still be written there."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
