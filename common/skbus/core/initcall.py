# SPDX-License-Identifier: MIT
"""How a layer starts: its part of the kernel's initcalls, step by step (`init/main.c`).

In Linux `sock_init` and `inet_init` start the whole stack. Here each process does its own steps,
in the kernel's order, from its core's `start`. Where a step fails, the steps before it are taken
back in reverse order, the log names the step, and the process does not start.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from skbus.core.net import Net
from skbus.core.syscall import SysCallError


class InitStep(NamedTuple):
    """One step: a function that does it, and one that takes it back. Both get the process's
    `net`."""

    name: str
    init: Callable[[Any], None]
    exit: Callable[[Any], None]


class InitError(Exception):
    """A layer cannot start: the step that failed, its errno (0 where there was none), and why."""

    def __init__(self, step: str, err: int, text: str) -> None:
        super().__init__(f"{step}: {errno.errorcode.get(err, 'failed')}: {text}")
        self.step = step
        self.errno = err
        self.text = text


def do_initcalls(net: Net, name: str, steps: Sequence[InitStep]) -> None:
    """`do_initcalls`: carry out the steps in order. `name`: the function that they belong to.

    At debug the log has a line for each step, at info one for all. InitError where a step fails,
    raised when the steps before it have been taken back.
    """
    done: list[InitStep] = []
    for step in steps:
        if net.tracing:
            net.trace(step.name, initcall=name)
        try:
            step.init(net)
        except Exception as e:
            err = e.errno if isinstance(e, (SysCallError, OSError)) and e.errno else 0
            text = (e.text or "") if isinstance(e, SysCallError) else str(e)
            net.warning(
                name,
                failed=step.name,
                err=errno.errorcode.get(err, type(e).__name__),
                text=text,
                unwound=[s.name for s in reversed(done)],
            )
            unwind(net, name, done)
            raise InitError(step.name, err, text) from e
        done.append(step)
    net.info(name, steps=[step.name for step in steps])


def unwind(net: Net, name: str, done: Sequence[InitStep]) -> None:
    """Take steps back in reverse order: of a start that failed, or at the end of a layer."""
    for step in reversed(done):
        if net.tracing:
            net.trace(step.name, initcall=name, exit=True)
        step.exit(net)
