# SPDX-License-Identifier: MIT
"""Commands that ask the processes of a running stack: status, counters, log-level,
health, barrier.

They speak with the control socket of each process (`skbus.ctl`).
"""

import json
import sys
import time
from typing import Annotated, Any

import typer

from skbus.rundir import RunDir

Layer = Annotated[
    str | None,
    typer.Option("--layer", "-l", metavar="LAYER", help="One process: nic.eth0, ip, tcp, ..."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(counters)
    app.command("log-level")(log_level)
    app.command()(health)
    app.command()(barrier)


def _ask(run: RunDir, layer: str | None, method: str, argument: Any = None) -> dict[str, Any]:
    from skbus.ctl import ctl_call
    from skbus.health import processes

    return {p: ctl_call(run, p, method, argument) for p in processes(run, layer)}


def status(layer: Layer = None, as_json: AsJson = False) -> None:
    """Print how each process fares: its life, what it did with skbs, its drops by reason."""
    from skbus.ctl import ControlError, ctl_call
    from skbus.health import processes

    run = RunDir()
    answers: dict[str, Any] = {}
    failed = False
    for process in processes(run, layer):
        try:
            answers[process] = ctl_call(run, process, "status")
        except ControlError as e:
            answers[process] = {"error": str(e)}
            failed = True
    if as_json:
        print(json.dumps(answers, default=_address))
    else:
        _print_status(run, answers)
    if failed:
        sys.exit(1)


def _address(value: object) -> str:
    """What JSON has no type for: addresses, as bytes, in their usual form."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} in a status")
    return ".".join(map(str, value)) if len(value) == 4 else value.hex(":")


_FLOWS = ("born", "received", "sent", "consumed", "dropped", "held")


def _print_status(run: RunDir, answers: dict[str, Any]) -> None:
    print(f"run directory {run.path}")
    if any(answer.get("compiled") for answer in answers.values()):
        print("compiled by mypyc")
    print(f"{'process':<12} {'life':>4} " + " ".join(f"{f:>10}" for f in _FLOWS))
    for process, answer in answers.items():
        if "error" in answer:
            print(f"{process:<12} {answer['error']}")
            continue
        skbs = answer["conservation"]
        print(f"{process:<12} {answer['epoch']:>4} " + " ".join(f"{skbs[f]:>10}" for f in _FLOWS))
    for process, answer in answers.items():
        for reason, count in sorted(answer.get("drops", {}).items()):
            print(f"  {process}: {reason} {count}")
        for key, value in answer.get("core", {}).items():
            if isinstance(value, (str, int, float)):
                print(f"  {process}: {key} {value}")


def counters(
    layer: Layer = None,
    all_: Annotated[bool, typer.Option("-a", "--all", help="Also those that are zero.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print Linux's SNMP counters in the form of `nstat -a`; each process counts its own."""
    from skbus.snmp import NAMES

    total: dict[str, int] = dict.fromkeys(NAMES, 0) if all_ else {}
    for answer in _ask(RunDir(), layer, "counters").values():
        for name, value in answer.items():
            total[name] = total.get(name, 0) + value
    if as_json:
        print(json.dumps(total))
        return
    print("#kernel")
    for name in sorted(total):
        print(f"{name:<32}{total[name]:<18} 0.0")


def log_level(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="debug, info, warning or error.")],
    layer: Layer = None,
) -> None:
    """Change how much a running stack logs. `debug` logs each step of each packet."""
    for process, answer in _ask(RunDir(), layer, "log_level", level).items():
        print(f"{process} {answer}")


def health(
    layer: Layer = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="Keep asking for so long.")
    ] = 0.0,
) -> None:
    """Say whether the processes answer, by the exit status: 0 or 1. For health checks."""
    from skbus.ctl import ControlError
    from skbus.health import check
    from skbus.rundir import RunDirError

    deadline = time.monotonic() + wait
    while True:
        try:
            for process, epoch in check(RunDir(), layer).items():
                print(f"{process} answers (life {epoch})")
            return
        except (ControlError, RunDirError):
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def barrier(
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of the stack's time; fails if it is over.")
    ] = 10.0,
) -> None:
    """Wait until all that was under way in the stack has been processed: a token goes through
    all layers and back, twice, behind what was in the pipes."""
    RunDir().require()
    from skbus.socket import barrier as pass_through

    started = time.monotonic()
    pass_through(timeout)
    print(f"{(time.monotonic() - started) * 1e3:.3f} ms")
