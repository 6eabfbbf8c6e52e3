# SPDX-License-Identifier: MIT
"""What is installed."""

from importlib.metadata import version as installed

from skbus.core.compiled import is_compiled


def version() -> str:
    """The version of skbus, and whether it is compiled: what `--version` prints."""
    return f"{installed('skbus')}{', compiled by mypyc' if is_compiled() else ''}"
