# SPDX-License-Identifier: MIT
"""The installed version, and whether the packet path is compiled (docs/performance.md)."""

from skbus.core import net


def is_compiled() -> bool:
    """Is the packet path machine code in this installation?"""
    return not str(net.__file__).endswith(".py")


def version() -> str:
    """The text that `--version` prints: the version of skbus, and whether it is compiled."""
    from importlib.metadata import version as installed  # no layer needs it

    return f"{installed('skbus')}{', compiled by mypyc' if is_compiled() else ''}"
