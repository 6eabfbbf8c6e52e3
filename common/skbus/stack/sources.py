# SPDX-License-Identifier: MIT
"""Whether the code that a process has loaded is still the code on the disk.

The supervisor loads all layers' modules once, and forks the layers from itself: so a layer that has
died is back at once. A layer must run the code that is on the disk then, so it looks whether that
has changed (`skbus.stack.layer`).
"""

import os
import sys
from typing import Final

_PACKAGES: Final = ("skbus", "skbusd")


class Sources:
    """The files of skbus's modules that are loaded, as they are at this moment."""

    def __init__(self) -> None:
        files = {
            module.__file__
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in _PACKAGES and getattr(module, "__file__", None)
        }
        self._stamps = {file: _stamp(file) for file in files if file is not None}

    def __len__(self) -> int:
        return len(self._stamps)

    def changed(self) -> list[str]:
        """The files that have been changed since."""
        return [file for file, stamp in self._stamps.items() if _stamp(file) != stamp]


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
