# SPDX-License-Identifier: MIT
"""Run one of the sample servers in this thread."""

from typing import Final

import trio

from skbus.serve.simple import chargen, discard, echo
from skbus.serve.web import http

SERVERS: Final = {"chargen": chargen, "discard": discard, "echo": echo, "http": http}


def run(kind: str, host: str = "", port: int = 0) -> None:
    """Serve until KeyboardInterrupt. kind: http, echo, discard or chargen; ValueError else."""
    server = SERVERS.get(kind)
    if server is None:
        raise ValueError(f"no server {kind!r}; there are {', '.join(sorted(SERVERS))}")
    trio.run(server, host, port)
