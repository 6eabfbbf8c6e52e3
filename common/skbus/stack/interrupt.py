# SPDX-License-Identifier: MIT
"""Ctrl-C while a command starts and ends: no traceback of imports, but exit status 130, at once."""

import os
import signal

TYPE_CHECKING = False  # typing's own is behind an import that takes its time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATUS = 130
"""128 + SIGINT, as a shell has it."""


def _end(*_: object) -> None:
    os._exit(STATUS)


class Importing:
    """A block that imports: Ctrl-C ends this process without a word, as within `run`'s `load`."""

    def __enter__(self) -> None:
        self._old = signal.getsignal(signal.SIGINT)
        if self._old is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)

    def __exit__(self, *_: object) -> None:
        if self._old is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._old)


def run(load: "Callable[[], Callable[[], Any]]") -> "Any":
    """Run a command, which `load` imports.

    Until it is there, and after it has ended, Ctrl-C ends this process without a word: there is
    nothing to clear away. In between it is a KeyboardInterrupt, as ever; one that the command does
    not catch ends the process likewise. Where SIGINT is ignored it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return load()()
    signal.signal(signal.SIGINT, _end)
    command = load()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return command()
        finally:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        raise SystemExit(STATUS) from None
