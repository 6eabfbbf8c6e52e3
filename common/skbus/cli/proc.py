# SPDX-License-Identifier: MIT
"""`skbus proc`: the stack's /proc/net, in Linux's format (`skbus.inet.proc`)."""

from typing import Annotated

import typer

from skbus.bus.rundir import RunDir
from skbus.cli import names as completion


def register(app: typer.Typer) -> None:
    app.command()(proc)


def proc(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="net/NAME",
            help="Which: net/tcp, net/snmp and so on; without any, their names are listed.",
            autocompletion=completion.proc_files,
        ),
    ] = None,
) -> None:
    """Print files of the stack's /proc/net as Linux prints its own. Several are told apart as by
    head(1). Without a name: list them."""
    from skbus.bus.rundir import RunDirError
    from skbus.inet import proc as files
    from skbus.stack.procfiles import asker

    if not names:
        for name in files.NAMES:
            print(f"net/{name}")
        return
    short = [name.removeprefix("/proc/").removeprefix("net/") for name in names]
    for given, name in zip(names, short, strict=True):
        if name not in files.NAMES:
            have = " ".join(f"net/{name}" for name in files.NAMES)
            raise RunDirError(f"no such file: {given}; there are: {have}")
    ask = asker(RunDir())
    for i, name in enumerate(short):
        if len(names) > 1:
            print("\n" * bool(i) + f"==> net/{name} <==")
        print(files.read(name, ask), end="")
