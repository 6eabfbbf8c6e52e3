# SPDX-License-Identifier: MIT
"""`python -m skbus.run script.py ARGS...` or `-m module ARGS...`: an unmodified program whose
sockets are on the skbus stack of SKBUS_DIR (`skbus.socket.install`)."""

import runpy
import sys

from skbus import socket


def main(argv: list[str]) -> None:
    """Install our sockets, and run the program as `python` would."""
    if not argv or argv == ["-m"]:
        sys.exit("usage: python -m skbus.run SCRIPT [ARG...] | -m MODULE [ARG...]")
    socket.install()
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
