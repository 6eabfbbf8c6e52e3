# SPDX-License-Identifier: MIT
"""`skbus proc`: the stack's /proc/net, in Linux's format (`skbus.inet.proc`)."""

from typing import Annotated, Any

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


def asker(run: RunDir) -> Any:
    """How `skbus.inet.proc.read` asks a running stack."""
    from skbus.bus.ctl import ctl_call
    from skbus.inet import proc as files
    from skbus.stack.health import processes

    everyone = processes(run)

    def ask(process: str, name: str) -> Any:
        if not process:
            total: dict[str, int] = {}
            for each in everyone:
                for counter, value in ctl_call(run, each, "counters").items():
                    total[counter] = total.get(counter, 0) + value
            return total
        if process == "nic":
            nics = [p for p in everyone if p.startswith("nic.")]
            return [line for p in nics for line in ctl_call(run, p, "proc", name) or ()]
        if process == "tcp":
            tcps = [p for p in everyone if p.split(".")[0] == "tcp"]
            return files.merge_tcp([ctl_call(run, p, "proc", name) for p in tcps or ["tcp"]])
        return ctl_call(run, process, "proc", name)

    return ask
