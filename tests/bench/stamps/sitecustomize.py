# SPDX-License-Identifier: MIT
"""Times of the stages of a message within a process, for `timeline.py`, which puts this directory
into PYTHONPATH for one lab.

A few public functions are replaced, when their module is imported, by ones that note when they were
entered and left. A note costs less than a microsecond, and goes into a file that `timeline.py`
reads: no system call is added. Compiled callers call the functions directly and are not seen.
"""

import importlib.util
import mmap
import os
import struct
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from time import monotonic_ns
from types import ModuleType
from typing import Any

STAGES = {
    "skbus.bus.codec": {"decode": 1, "encode": 3},
    "skbus.bus.dispatch": {"Dispatcher.deliver": 2},
    "skbus.core.syscall": {
        "decode_request": 1,
        "decode_reply": 1,
        "encode_request": 3,
        "encode_reply": 3,
    },
}
"""module -> name -> the number of its stage: 1 decoded, 2 delivered, 3 encoded"""
NOTE = struct.Struct("=qqq")
ROOM = 120_000
DIRECTORY = "SKBUS_STAMPS"


class Notes:
    """A file of this process, made at the first note: begin, end (ns), stage."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.map: mmap.mmap | None = None
        self.at = 0
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """A forked process has a file of its own."""
        self.map = None
        self.at = 0

    def _open(self) -> mmap.mmap:
        size = NOTE.size * ROOM
        path = os.path.join(self.directory, str(os.getpid()))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        found = mmap.mmap(fd, size)
        os.close(fd)
        self.map = found
        return found

    def wrap(self, function: Callable[..., Any], stage: int) -> Callable[..., Any]:
        """The function, with notes. When the file is full, it begins again."""
        pack, size, clock = NOTE.pack_into, NOTE.size, monotonic_ns
        end = size * ROOM

        def noted(*arguments: Any) -> Any:
            begin = clock()
            result = function(*arguments)
            left = clock()
            pack(self.map or self._open(), self.at, begin, left, stage)
            self.at += size
            if self.at == end:
                self.at = 0
            return result

        return noted


class Finder:
    """Finds the modules of STAGES as they are found anyway, and has their functions replaced."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in STAGES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for path, stage in STAGES[name].items():
                *owners, last = path.split(".")
                owner: Any = module
                for part in owners:
                    owner = getattr(owner, part)
                setattr(owner, last, self.notes.wrap(getattr(owner, last), stage))

        loader.exec_module = exec_module
        return spec


if directory := os.environ.get(DIRECTORY):
    sys.meta_path.insert(0, Finder(Notes(directory)))
