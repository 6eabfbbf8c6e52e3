# SPDX-License-Identifier: MIT
"""`skbus lab`: our stack and the Linux kernel at the two ends of a cable (`skbus.stack.lab`)."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skbus.cli import options
from skbus.cli.help import Group
from skbus.stack.lab import ADDRESS, DEV, PEER_ADDRESS, PREFIX

if TYPE_CHECKING:
    from skbus.bus.rundir import RunDir

app = typer.Typer(
    help=f"Our stack at {ADDRESS} and the Linux kernel at {PEER_ADDRESS}, in namespaces of "
    "their own: no root, no Docker.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="lab")


def _names() -> list[str]:
    """For the shell, which completes them."""
    from skbus.stack.lab import labs

    return [run.path.name for run in labs()]


Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Which lab, where several are up side by side.",
        autocompletion=_names,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="JSON, as where the output is no terminal; one line a lab.")
]


@app.command()
def up(
    name: Name = None,
    config: options.ConfigFile = None,
    mtu: options.Mtu = None,
    gso_max_size: options.GsoMaxSize = None,
    time_scale: options.TimeScale = None,
    log_level: options.LogLevel = None,
    sysctl: options.Sysctls = None,
    module: options.Modules = None,
    affinity: options.Affinity = None,
    tcp_shards: options.TcpShards = None,
    interpreted: options.Interpreted = None,
    fuse: options.Fuse = None,
    loss: options.Loss = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    reorder: options.Reorder = None,
    dup: options.Dup = None,
    corrupt: options.Corrupt = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    as_json: AsJson = False,
) -> None:
    """Start a lab. Returns when the stack answers, and prints where it is and what to do next.
    Where the output is no terminal, it prints one JSON line: addresses, run directory, pids. --loss
    to --rate hold in both directions, between nic and wire."""
    from skbus.stack import lab
    from skbus.stack.config import Config

    run = lab.lab_dir(name)
    impair = {
        "loss": loss,
        "delay": delay,
        "jitter": jitter,
        "reorder": reorder,
        "dup": dup,
        "corrupt": corrupt,
        "rate": rate,
        "seed": seed,
    }
    device = options.device(DEV, impair, addr=f"{ADDRESS}/{PREFIX}", gateway=PEER_ADDRESS, mtu=mtu)
    flags = options.overrides(
        time_scale=time_scale,
        log_level=log_level,
        sysctls=sysctl,
        modules=module,
        affinity=affinity,
        tcp_shards=tcp_shards,
        interpreted=interpreted,
        fuse=fuse,
    )
    effective = Config.load(config, {**flags, "devices": [device], "run_dir": str(run.path)})
    options.say_if_all_are_interpreted(effective)
    cable = lab.Cable(mtu or 0, gso_max_size or 0)
    found = lab.up(run, effective.to_json(), cable, last=True)
    if as_json or not sys.stdout.isatty():
        print(json.dumps(found))
        return
    _welcome(run, found)


def _welcome(run: "RunDir", found: dict[str, Any]) -> None:
    """Where it is, and the next commands, as they are to be typed for this lab."""
    from skbus.bus.rundir import ENV, RunDir

    default = RunDir().path == run.path
    where = "" if default else f" --name {found['lab']}"
    env = "" if default else f"{ENV}={run.path} "
    print(f"The lab {found['lab']!r} is up: our stack at {ADDRESS}, Linux at {PEER_ADDRESS}.")
    print(f"  {env}skbus serve http --port 80 &")
    print(f"  skbus lab exec{where} -- curl http://{ADDRESS}/")
    print(f"  skbus lab down{where}")


@app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def exec_(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run, and its arguments."),
    ],
    name: Name = None,
    stack: Annotated[
        bool, typer.Option("--stack", help="In the stack's namespace, not the peer's (tcpdump).")
    ] = False,
) -> None:
    """Run a command in the peer's namespace: an ordinary program on the Linux kernel's stack,
    for which ours is another machine. SKBUS_DIR is set for it."""
    from skbus.stack import lab

    try:
        lab.exec_(lab.lab_dir(name), command, stack)
    except FileNotFoundError:
        sys.stderr.write(f"skbus: no such command: {command[0]}\n")
        sys.exit(127)
    except PermissionError:
        sys.stderr.write(f"skbus: not executable: {command[0]}\n")
        sys.exit(126)


@app.command()
def status(name: Name = None, as_json: AsJson = False) -> None:
    """Print how a lab is now: addresses, run directory, pids; where the output is no terminal, the
    JSON line that `up` prints. Exit status 1 if a process of the lab is not there."""
    from skbus.stack import lab

    found = lab.status(lab.lab_dir(name))
    if as_json or not sys.stdout.isatty():
        print(json.dumps(found))
    else:
        print(_line(found))
        for process, pid in found["pids"].items():
            print(f"  {process:<12} {'is not there' if pid is None else f'pid {pid}'}")
    if not found["up"] or None in found["pids"].values():
        sys.exit(1)


def _line(found: dict[str, Any]) -> str:
    from skbus.bus.rundir import RunDir

    remedy = RunDir(found["run_dir"]).remedy("down")
    state = "up" if found["up"] else f"has died: {remedy} clears it away"
    return f"{found['lab']:<20} {found['run_dir']:<40} {state}"


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Print a line for each of this user's labs, even for the remains of one that has died. Where
    the output is no terminal, it is JSON as `status` prints it."""
    from skbus.stack import lab

    labs = lab.labs()
    if not labs:
        sys.stderr.write("skbus: there is no lab; `skbus lab up` starts one\n")
    for run in labs:
        found = lab.told(run)
        print(json.dumps(found) if as_json or not sys.stdout.isatty() else _line(found))


@app.command()
def down(
    name: Name = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All labs of this user, and what is left of others.")
    ] = False,
) -> None:
    """End a lab and everything that runs in its namespaces; also clears away after a crash."""
    from skbus.stack import lab

    if all_ and name is not None:
        raise typer.BadParameter("it is either --name or --all", param_hint="--all")
    for run in lab.labs() if all_ else [lab.lab_dir(name)]:
        if not lab.down(run) and not all_:
            sys.stderr.write(f"skbus: no lab in {run.path}: nothing to do\n")
