# SPDX-License-Identifier: MIT
"""Sample servers on our stack: `skbus serve KIND`."""

from skbus.serve.run import run
from skbus.serve.simple import chargen, discard, echo
from skbus.serve.web import http

__all__ = ["chargen", "discard", "echo", "http", "run"]
