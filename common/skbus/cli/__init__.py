# SPDX-License-Identifier: MIT
"""The command `skbus`: its entry point, which can be interrupted before anything heavy is imported
(`skbus.cli.app` has the commands)."""

import os
import sys

from skbus.stack import interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run the command line."""
    interrupt.run(_load, begins=True)


def _load() -> "Callable[[], None]":
    from skbus.cli import commands

    if commands.is_help(sys.argv, os.environ):
        return commands.print_help

    from skbus.cli.app import main

    return main


__all__ = ["main"]
