# SPDX-License-Identifier: MIT
"""`skbus insmod`, `rmmod`, `lsmod`: code that runs inside the socket process."""

import sys
import time
from typing import Annotated, Final

import typer

from skbus.cli import names, options

_UNLOAD_TIME: Final = 10.0


def register(app: typer.Typer) -> None:
    app.command()(insmod)
    app.command()(rmmod)
    app.command()(lsmod)


def insmod(
    name: Annotated[
        str,
        typer.Argument(
            help="A Python file, entry point of skbus.modules or dotted module.",
            autocompletion=names.module_names,
        ),
    ],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="PARAMETER=VALUE", help="What it is told.")
    ] = None,
) -> None:
    """Load code into the running socket process. What it says is in that process's log."""
    from skbus.bus.ctl import ctl_call
    from skbus.bus.rundir import RunDir

    spec = options.module(" ".join((name, *(parameters or ()))))
    print(ctl_call(RunDir().require(), "socket", "insmod", spec))


def rmmod(
    name: Annotated[
        str, typer.Argument(help="As lsmod shows it.", autocompletion=names.loaded_modules)
    ],
) -> None:
    """Unload a module: its threads are asked to end. Returns when they have."""
    from skbus.bus.ctl import ctl_call
    from skbus.bus.rundir import RunDir

    run = RunDir().require()
    ctl_call(run, "socket", "rmmod", name)
    end = time.monotonic() + _UNLOAD_TIME
    while any(m["module"] == name for m in ctl_call(run, "socket", "lsmod")):
        if time.monotonic() > end:
            sys.stderr.write(f"skbus: module {name} has not ended after {_UNLOAD_TIME:g} s\n")
            sys.exit(1)
        time.sleep(0.02)


def lsmod() -> None:
    """List the modules in the socket process: name, state, parameters."""
    from skbus.bus.ctl import ctl_call
    from skbus.bus.rundir import RunDir

    loaded = ctl_call(RunDir().require(), "socket", "lsmod")
    if not loaded:
        sys.stderr.write("skbus: no module is loaded; `skbus insmod` loads one\n")
    for module in loaded:
        words = (f"{key}={value}" for key, value in module["params"].items())
        print(module["module"], module["state"], *words)
