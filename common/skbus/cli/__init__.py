# SPDX-License-Identifier: MIT
"""The command `skbus`."""

from skbus.cli.app import main

__all__ = ["main"]
