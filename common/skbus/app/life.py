# SPDX-License-Identifier: MIT
"""The life connection of an application's process (skbus.app.client), which ends with the process.

A module of its own, because mypyc compiles no class with a finaliser like this one.
"""

import socket
import sys
from collections.abc import Callable


class Life(socket.socket):
    """The life connection. Its end is the end of all our sockets, so the interpreter's end does not
    close it. `atexit` functions and finalisers may still use and close our sockets. The kernel
    closes the connection when the process has ended."""

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _is_finalizing():
            self.close()
