# SPDX-License-Identifier: MIT
"""Numbers of Linux's socket interface, for the socket layer: those of `skbus.core.uapi`."""

from skbus.core.uapi import *  # noqa: F403 - the same module under the socket layer's name
