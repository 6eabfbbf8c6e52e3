# SPDX-License-Identifier: MIT
"""`python -m skbus.run script.py ARGS...` or `-m module ARGS...`: an unmodified program whose
sockets are on the skbus stack of SKBUS_DIR (`skbus.socket.install`).

The program finds its modules where `python script.py` or `python -m module` would: first in the
script's directory, or in the working directory. We ourselves do not look there for ours.
"""

import sys

_first = sys.path.pop(0) if __name__ == "__main__" and not sys.flags.safe_path else None
"""What `python -m` has put there: the working directory. Not with `python -P`."""

import os  # noqa: E402 (not from the working directory)
import runpy  # noqa: E402

from skbus import socket  # noqa: E402


def main(argv: list[str], first: str | None = None) -> None:
    """Install our sockets, and run the program as `python` would.

    first: the working directory as `python -m` has it in `sys.path`; None for `python -P`, with
    which the program's own directory is not there either.
    """
    if not argv or argv == ["-m"]:
        sys.exit("usage: python -m skbus.run SCRIPT [ARG...] | -m MODULE [ARG...]")
    socket.install()
    if argv[0] == "-m":
        sys.argv = argv[1:]
        if first is not None:
            sys.path.insert(0, first)
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        if first is not None and os.path.isfile(argv[0]):  # a directory or a zip puts itself there
            sys.path.insert(0, os.path.dirname(os.path.realpath(argv[0])))
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:], _first)
