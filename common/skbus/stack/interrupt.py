# SPDX-License-Identifier: MIT
"""Ctrl-C while a command starts and ends: no traceback of imports, but exit status 130, at once.

An import that a KeyboardInterrupt breaks off may end with another error: whoever builds a class in
it (pydantic does) wraps what comes. So before a command has begun Ctrl-C ends the process, and once
it has begun, and has something to clear away, Ctrl-C waits until an import is done.
"""

import builtins
import os
import signal
from _thread import get_ident

TYPE_CHECKING = False  # typing's own is behind an import that takes its time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATUS = 130
"""128 + SIGINT, as a shell has it."""


def _end(*_: object) -> None:
    os._exit(STATUS)


def run(load: "Callable[[], Callable[[], Any]]", *, begins: bool = False) -> "Any":
    """Run a command, which `load` imports.

    Until it is there, and after it has ended, Ctrl-C ends this process without a word: there is
    nothing to clear away. In between it is a KeyboardInterrupt, as ever; one that the command does
    not catch ends the process likewise. begins: the command calls `begin` when it has read its
    arguments, and has nothing to clear away before. Where SIGINT is ignored, before or by the
    command, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return load()()
    signal.signal(signal.SIGINT, _end)
    command = load()
    real_import = builtins.__import__
    try:
        if not begins:
            begin()
        try:
            return command()
        finally:
            builtins.__import__ = real_import
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        raise SystemExit(STATUS) from None


def begin() -> None:
    """Within `run`: from here on Ctrl-C is a KeyboardInterrupt, which waits for imports."""
    if signal.getsignal(signal.SIGINT) is _end:
        builtins.__import__ = _patient(builtins.__import__)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _patient(real_import: "Callable[..., Any]") -> "Callable[..., Any]":
    """An `__import__` that SIGINT does not break off: its handler is called afterwards."""
    main = get_ident()
    busy = False

    def importing(*args: "Any", **named: "Any") -> "Any":
        nonlocal busy
        if busy or get_ident() != main:
            return real_import(*args, **named)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            return real_import(*args, **named)
        waiting: list[tuple[Any, ...]] = []
        busy = True
        signal.signal(signal.SIGINT, lambda *signalled: waiting.append(signalled))
        try:
            return real_import(*args, **named)
        finally:
            busy = False
            signal.signal(signal.SIGINT, handler)
            if waiting:
                handler(*waiting[0])

    return importing
