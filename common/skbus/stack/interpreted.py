# SPDX-License-Identifier: MIT
"""One layer interpreted among compiled ones (`--interpreted tcp`), where breakpoints, py-spy and
replaced functions work (docs/performance.md).

In a compiled build each compiled module lies beside its source, and Python prefers it. A process
that was forked has the modules of its parent. So a layer that is to be interpreted becomes a fresh
Python, which takes all of skbus from the sources.

    python -P -m skbus.stack.interpreted MODULE ARGUMENT...

MODULE is `skbus.stack.layer` for a child of the supervisor, `skbusd.cli` for a layer in a container
of its own. This module imports nothing of skbus before it has seen to where that comes from.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from skbus.stack.config import Config

PACKAGES: Final = frozenset(("skbus", "skbusd", "skbustest"))
"""What is compiled lies in these."""


class SourceFinder(MetaPathFinder):
    """Finds the modules of our packages by their sources alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of ours, None for any other."""
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        for entry in sys.path if path is None else path:
            spec = FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        return None


def wanted(config: "Config", process: str) -> bool:
    """Is this process to be interpreted, and does it run compiled code?"""
    if not config.is_interpreted(process):
        return False
    from skbus.bus.version import is_compiled

    return is_compiled()


def become(module: str, *arguments: object) -> NoReturn:
    """Become a fresh Python that calls a module's `main` with these arguments. Process number,
    parent, processors and inheritable descriptors stay."""
    sys.stdout.flush()
    sys.stderr.flush()
    argv = [sys.executable, "-P", "-m", "skbus.stack.interpreted", module, *map(str, arguments)]
    os.execv(sys.executable, argv)


def main(argv: Sequence[str]) -> int:
    """Run the `main` of a module that is found by its source, as are all that it imports."""
    sys.meta_path.insert(0, SourceFinder())
    module, *arguments = argv
    status: int = importlib.import_module(module).main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
