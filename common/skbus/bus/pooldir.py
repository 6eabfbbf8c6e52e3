# SPDX-License-Identifier: MIT
"""The pool directory: where the regions of `skbus.core.pool` are files that processes map.

A region's file lies in tmpfs and is named by its number in hex. It is as long as all its slots, but
the allocator reserves memory in steps (posix_fallocate), before a slot is used for the first time.
Otherwise a page would be made at its first touch. On a file system that is full by then, the touch
is SIGBUS, the end of the process. So on a full file system, only slots with memory are used.

Called by every process of a stack and by its clients. `skbus.bus.private` says why a directory
must be ours alone.
"""

import contextlib
import errno
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from skbus.bus import private
from skbus.core.pool import (
    DEFAULT_CLASSES,
    Allocator,
    Pool,
    PoolError,
    Region,
    StalePlaceError,
    data_start,
)


class MappedFile:
    """A region's file, mapped (`skbus.core.pool.Backing`).

    fd: the descriptor by which its allocator reserves memory, ours from now on; -1 in processes
    that only read.
    """

    def __init__(self, mapped: mmap.mmap, fd: int = -1) -> None:
        self._mapped = mapped
        self._fd = fd

    def reserve(self, start: int, length: int) -> None:
        """Reserve memory for these bytes. OSError where the file system is full."""
        os.posix_fallocate(self._fd, start, length)

    def punch(self, start: int) -> None:
        """Give the memory from `start` on back to the file system."""
        with contextlib.suppress(OSError, ValueError):
            self._mapped.madvise(mmap.MADV_REMOVE, start, len(self._mapped) - start)

    def unmap(self) -> None:
        """Take the mapping away. BufferError where a view of it is left."""
        self._mapped.close()

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PoolDir:
    """The pool directory: where regions are files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(
        self, number: int, classes: Iterable[tuple[int, int]] = DEFAULT_CLASSES
    ) -> Allocator:
        """Make a region. FileExistsError where the number is taken, OSError where there is no room
        for its table."""
        classes = list(classes)
        start = data_start(sum(n for _, n in classes))
        size = start + sum(s * n for s, n in classes)
        fd = self._open(number, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.posix_fallocate(fd, 0, start)
            os.ftruncate(fd, size)
            mapped = mmap.mmap(fd, size)
            return Allocator.format(number, mapped, classes, MappedFile(mapped, fd))
        except BaseException:
            os.close(fd)
            self.unlink(number)
            raise

    def adopt_or_create(
        self, number: int, classes: Iterable[tuple[int, int]] = DEFAULT_CLASSES
    ) -> Allocator:
        """The region that an earlier life of this process left behind, or a new one."""
        try:
            fd = self._open(number, os.O_RDWR)
            try:
                mapped = mmap.mmap(fd, 0)
                return Allocator(number, mapped, MappedFile(mapped, fd))
            except BaseException:
                os.close(fd)
                raise
        except (PoolError, OSError, ValueError):
            self.unlink(number)
        try:
            alloc = self.create(number, classes)
            alloc.reserve()
        except OSError as e:
            self.unlink(number)
            if e.errno != errno.ENOSPC:
                raise
            free = private.free_bytes(self.path)
            raise OSError(
                e.errno, f"{e.strerror}: {free} bytes are free in {self.path} for the pool"
            ) from None
        return alloc

    def open(self, number: int) -> Region:
        """Map someone else's region. PoolError where there is none."""
        try:
            fd = self._open(number, os.O_RDWR)
            try:
                mapped = mmap.mmap(fd, 0)
                return Region(number, mapped, MappedFile(mapped))
            finally:
                os.close(fd)
        except (OSError, ValueError) as e:  # ValueError: an empty file
            raise StalePlaceError(f"no region {number:08x} in {self.path}: {e}") from e

    def unlink(self, number: int) -> None:
        """Remove the region's file; mappings of it stay."""
        self._file(number).unlink(missing_ok=True)

    def exists(self, number: int) -> bool:
        """Is the region's file still there?"""
        return self._file(number).exists()

    def pool(self) -> Pool:
        """A Pool that finds its regions here."""
        return Pool(self.open, self.exists)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:08x}"

    def _open(self, number: int, flags: int) -> int:
        """Open a region's file: in a directory that is ours alone, and never through a link."""
        directory = private.open_dir(os.path.realpath(self.path))
        try:
            return private.open_file(directory, f"{number:08x}", flags)
        finally:
            os.close(directory)
