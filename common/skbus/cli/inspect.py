# SPDX-License-Identifier: MIT
"""Commands that ask the processes of a running stack: status, counters, log-level,
health, barrier.

They speak with the control socket of each process (`skbus.bus.ctl`). Whoever does not answer is
named on standard error, and the exit status is 1; what the others say is printed.
"""

import json
import sys
import time
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

import typer

from skbus.bus.rundir import RunDir
from skbus.cli import names

Layer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        "-l",
        metavar="LAYER",
        help="One process: nic.eth0, ip, tcp, ...",
        autocompletion=names.processes,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(counters)
    app.command("log-level")(log_level)
    app.command()(health)
    app.command()(barrier)


def _ask(run: RunDir, layer: str | None, method: str, argument: Any = None) -> dict[str, Any]:
    """What each process answers, or the ControlError of one that does not."""
    from skbus.bus.ctl import ctl_ask
    from skbus.stack.health import processes

    return ctl_ask(run, dict.fromkeys(processes(run, layer), (method, argument)))


def _split(answers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(answers, errors)"""
    from skbus.bus.ctl import ControlError

    errors = {p: str(a) for p, a in answers.items() if isinstance(a, ControlError)}
    return {p: a for p, a in answers.items() if p not in errors}, errors


def _fail_if(errors: dict[str, str]) -> None:
    if errors:
        sys.stdout.flush()
        sys.stderr.write("".join(f"skbus: {text}\n" for text in errors.values()))
        sys.exit(1)


# ---- status ----------------------------------------------------------------------------------


def status(layer: Layer = None, as_json: AsJson = False) -> None:
    """Print how each process fares: its life, what it did with skbs, its drops by reason."""
    run = RunDir()
    answers, errors = _split(_ask(run, layer, "status"))
    if as_json:
        gone = {process: {"error": text} for process, text in errors.items()}
        print(json.dumps({**answers, **gone}, default=_address))
    else:
        _print_status(run, answers)
    _fail_if(errors)


def _address(value: object) -> str:
    """What JSON has no type for: addresses, as bytes, in their usual form."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} in a status")
    return ".".join(map(str, value)) if len(value) == 4 else value.hex(":")


_FLOWS: Final = ("born", "received", "sent", "consumed", "dropped", "held")


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right. Each is as wide as
    its longest cell, so that nothing is cut, on whatever terminal."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *others in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(" ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def _print_status(run: RunDir, answers: dict[str, Any]) -> None:
    print(f"run directory {run.path}")
    compiled = {process for process, answer in answers.items() if answer.get("compiled")}
    if compiled:
        others = ", ".join(process for process in answers if process not in compiled)
        print(f"compiled by mypyc{others and f', but interpreted: {others}'}")
    if not answers:
        return
    rows = [
        [process, str(a["epoch"]), *(str(a["conservation"][flow]) for flow in _FLOWS)]
        for process, a in answers.items()
    ]
    print("\n".join(columns(["process", "life", *_FLOWS], rows)))
    fused = {a["pid"]: a["fused"] for a in answers.values() if len(a["fused"]) > 1}
    for pid, layers in fused.items():
        print(f"  {', '.join(layers)} are one process, pid {pid}")
    for process, answer in answers.items():
        if answer.get("pool_no_room"):
            print(f"  {process}: no memory for more of its pool: {run.pool_dir} is full")
        for reason, count in sorted(answer.get("drops", {}).items()):
            print(f"  {process}: {reason} {count}")
        for key, value in answer.get("core", {}).items():
            if isinstance(value, (str, int, float)):
                print(f"  {process}: {key} {value}")


# ---- counters --------------------------------------------------------------------------------


def counters(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Names, or patterns as in nstat(8): 'TcpExt*'; without any, all.",
            autocompletion=names.counters,
        ),
    ] = None,
    layer: Layer = None,
    all_: Annotated[bool, typer.Option("-a", "--all", help="Also those that are zero.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print Linux's SNMP counters in the form of `nstat -a`; each process counts its own."""
    from skbus.core.snmp import NAMES

    answers, errors = _split(_ask(RunDir(), layer, "counters"))
    total: dict[str, int] = dict.fromkeys(NAMES, 0)
    for answer in answers.values():
        for name, value in answer.items():
            total[name] = total.get(name, 0) + value
    chosen = _chosen(patterns or [], total)
    shown = {name: n for name, n in chosen.items() if n or all_ or name in (patterns or ())}
    if as_json:
        print(json.dumps(shown))
    else:
        print("#kernel")
        for name in sorted(shown):
            print(f"{name:<32}{shown[name]:<18} 0.0")
    if not shown and not errors:
        sys.stderr.write(f"skbus: all of {len(chosen)} counters are zero; -a prints those, too\n")
    _fail_if(errors)


def _chosen(patterns: list[str], total: dict[str, int]) -> dict[str, int]:
    """The counters that are named. BadParameter for a name that there is not."""
    import difflib

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in total):
            near = difflib.get_close_matches(pattern, total, 3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise typer.BadParameter(
                f"no counter {pattern}; {hint}`skbus counters -a` has all", param_hint="NAME"
            )
    if not patterns:
        return total
    return {n: v for n, v in total.items() if any(fnmatchcase(n, p) for p in patterns)}


# ---- log-level -------------------------------------------------------------------------------


def log_level(
    level: Annotated[
        str | None,
        typer.Argument(
            metavar="LEVEL",
            help="debug, info, warning or error; without it, what is set is printed.",
            autocompletion=names.levels,
        ),
    ] = None,
    layer: Layer = None,
) -> None:
    """Change how much a running stack logs, also for layers that are restarted later. `debug`
    logs each step of each packet."""
    if level is not None and level not in names.LEVELS:
        levels = ", ".join(names.LEVELS)
        raise typer.BadParameter(f"no log level {level!r}: it takes {levels}", param_hint="LEVEL")
    method = "log_level_get" if level is None else "log_level"
    answers, errors = _split(_ask(RunDir(), layer, method, level))
    for process, answer in answers.items():
        print(f"{process} {answer}")
    _fail_if(errors)


# ---- health, barrier -------------------------------------------------------------------------


def health(
    layer: Layer = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="Keep asking for so long.")
    ] = 0.0,
) -> None:
    """Say whether the processes answer, by the exit status: 0 or 1. For health checks."""
    from skbus.bus.ctl import ControlError
    from skbus.bus.rundir import RunDirError
    from skbus.stack.health import look

    deadline = time.monotonic() + wait
    while True:
        try:
            found = look(RunDir(), layer)
        except RunDirError:
            if time.monotonic() >= deadline:
                raise
        else:
            errors = {p: str(e) for p, e in found.items() if isinstance(e, ControlError)}
            if not errors or time.monotonic() >= deadline:
                for process, life in found.items():
                    if process not in errors:
                        print(f"{process} answers (life {life})")
                _fail_if(errors)
                return
        time.sleep(0.1)


def barrier(
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of the stack's time; fails if it is over.")
    ] = 10.0,
) -> None:
    """Wait until all that was under way in the stack has been processed. A token goes through
    all layers and back, twice, behind what was in the pipes."""
    from skbus.bus.ctl import ControlError
    from skbus.stack.health import look

    if timeout <= 0:
        raise typer.BadParameter(f"{timeout:g}: it takes more than 0", param_hint="--timeout")
    run = RunDir().require()
    from skbus.socket import barrier as pass_through

    started = time.monotonic()
    try:
        pass_through(timeout)
    except (TimeoutError, BlockingIOError):
        pass  # the time is over
    else:
        print(f"{(time.monotonic() - started) * 1e3:.3f} ms")
        return
    sys.stderr.write(f"skbus: the token has not come back within {timeout:g} s\n")
    errors = {p: str(e) for p, e in look(run, seconds=1.0).items() if isinstance(e, ControlError)}
    if not errors:
        sys.stderr.write("  every layer answers: they have much to do, or it takes longer\n")
    _fail_if(errors)
    sys.exit(1)
