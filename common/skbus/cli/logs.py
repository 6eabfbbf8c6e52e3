# SPDX-License-Identifier: MIT
"""`skbus logs`: the logs of all processes of a stack as one, in the order of time.

`skbus.stack.logread` reads and chooses; here is what a person says and sees.
"""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from skbus.bus.rundir import RunDir, RunDirError
from skbus.cli import names

if TYPE_CHECKING:
    from skbus.stack.logread import Filter, Follower

_POLL: Final = 0.1  # seconds between looks at the files with -f
_LATE: Final = 1.0
"""Seconds by which a line may be written after its time."""
_LAST: Final = 10
"""Lines that -f begins with."""
_SHOWN: Final = 12
"""So many of the flows, or of the skbs, that there are, are named to who has found none."""

Event = dict[str, Any]
Show = Callable[[Event], None]


Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        help="Logs that were kept, or - for standard input, as from `docker-compose logs "
        "--no-log-prefix`; without any, those of the stack in SKBUS_DIR.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        metavar="LAYER",
        help="nic, nic.eth0, tcp, ...; repeatable.",
        autocompletion=names.logged,
    ),
]
Follow = Annotated[
    bool, typer.Option("-f", "--follow", help="Go on as logs grow, after the last lines.")
]
Lines = Annotated[
    int | None,
    typer.Option(
        "-n", "--lines", metavar="N", min=0, help="The last N lines (with -f: 10 by default)."
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="From then on: 10s, 5m, 2h (so long ago), 13:36, 13:36:25, or a date and time.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Up to then; as --since.")
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        metavar="LEVEL",
        help="This level and what is graver: debug, info, warning, error.",
        autocompletion=names.levels,
    ),
]
Skb = Annotated[
    str | None, typer.Option("--skb", metavar="ID", help="One packet, through all processes.")
]
Flow = Annotated[
    str | None,
    typer.Option(
        "--flow",
        metavar="FLOW",
        help="Packets and sockets of a flow, in both directions: :80, 10.77.0.1, "
        "10.77.0.1:80, or two of these with -> between.",
    ),
]
Grep = Annotated[
    str | None,
    typer.Option(
        "--grep", metavar="REGEX", help="Lines with a function, or a KEY=VALUE, like this."
    ),
]
StackTime = Annotated[
    bool,
    typer.Option("--stack-time", help="Times of the stack's clock, not of this machine's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines, as they were logged.")]


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    files: Files = None,
    layer: Layers = None,
    follow: Follow = False,
    lines: Lines = None,
    since: Since = None,
    until: Until = None,
    level: Level = "debug",
    skb: Skb = None,
    flow: Flow = None,
    grep: Grep = None,
    stack_time: StackTime = False,
    as_json: AsJson = False,
) -> None:
    """Print the logs of all layers, merged by the stack's time. What each packet meets is there
    at `--log-level debug` (`skbus log-level debug` sets it in a running stack). Exit status: 0 if
    there was a line to print, 1 if not; then standard error says what there is."""
    wanted = _filter(layer or [], level, skb, flow, grep, since, until)
    show = _shower(as_json, stack_time)
    if files:
        _from_files(files, wanted, show, follow=follow, lines=lines)
        return
    run = RunDir().require()
    if follow:
        begin = _LAST if since is None else sys.maxsize
        _follow(run, wanted, show, begin if lines is None else lines)
    elif not _print(run, wanted, show, lines):
        _say_what_there_is(wanted, _all(run), str(run.log_dir))
        sys.exit(1)


def _filter(
    layers: list[str],
    level: str,
    skb: str | None,
    flow: str | None,
    grep: str | None,
    since: str | None,
    until: str | None,
) -> "Filter":
    """What the options ask for. BadParameter where they are wrong, by themselves."""
    from skbus.core.flow_dissector import FlowFilter, FlowFilterError
    from skbus.stack import logread

    if level not in logread.LEVELS:
        levels = ", ".join(logread.LEVELS)
        raise typer.BadParameter(f"{level!r}: it takes {levels}", param_hint="--level")
    if skb is not None and not re.fullmatch(r"(0x)?[0-9a-fA-F]+", skb):
        raise typer.BadParameter(f"{skb!r}: it takes hex digits, as lines have", param_hint="--skb")
    now = logread.now()
    try:
        return logread.Filter(
            layers=layers,
            level=level,
            skb=None if skb is None else skb.lower().removeprefix("0x").lstrip("0"),
            flow=None if flow is None else FlowFilter(flow),
            since=None if since is None else logread.parse_when(since, now),
            until=None if until is None else logread.parse_when(until, now),
            grep=None if grep is None else re.compile(grep),
        )
    except FlowFilterError as e:
        raise typer.BadParameter(str(e), param_hint="--flow") from None
    except logread.LogReadError as e:
        raise typer.BadParameter(str(e), param_hint="--since, --until") from None
    except re.error as e:
        raise typer.BadParameter(f"{grep!r}: {e}", param_hint="--grep") from None


def _shower(as_json: bool, stack_time: bool) -> Show:
    from skbus.bus.log import render_console, render_json

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    out = sys.stdout.write

    def show(event: Event) -> None:
        if as_json:
            out(render_json(event) + "\n")
        else:
            out(render_console(event, colour, stack_time=stack_time) + "\n")

    return show


# ---- of a stack ------------------------------------------------------------------------------


def _all(run: RunDir) -> Iterable[Event]:
    from skbus.stack.logread import merged

    return merged(run)


def _print(run: RunDir, wanted: "Filter", show: Show, lines: int | None) -> int:
    """Print what is there now; returns how many lines that were (before `lines` took the last)."""
    from skbus.stack.logread import last_of, log_files, merged, time_of

    if lines is not None and wanted.flow is None:
        found = [e for f in log_files(run, wanted.layers) for e in last_of(f, wanted, lines or 1)]
        last = sorted(found, key=time_of)[-lines:] if lines else []
        for event in last:
            show(event)
        return len(found)
    if wanted.flow is not None:
        for event in merged(run):
            wanted.learn(event)
    having = b"" if wanted.skb is None else wanted.skb.encode()
    chosen = filter(wanted, merged(run, wanted.layers, having))
    return _show_last(chosen, show, lines)


def _show_last(chosen: Iterable[Event], show: Show, lines: int | None) -> int:
    count = 0
    last: deque[Event] = deque(maxlen=lines)
    for event in chosen:
        count += 1
        if lines is None:
            show(event)
        else:
            last.append(event)
    for event in last:
        show(event)
    return count


def _follow(run: RunDir, wanted: "Filter", show: Show, last: int) -> None:
    """Print the last lines, and what comes, until the stack ends."""
    from skbus.stack.logread import Follower

    with closing(Follower(run)) as follower:
        _follow_on(follower, run, wanted, show, last)
    if not run.path.is_dir():
        sys.stderr.write(f"skbus: the stack in {run.path} has ended\n")


def _follow_on(follower: "Follower", run: RunDir, wanted: "Filter", show: Show, last: int) -> None:
    shown = 0
    if wanted.flow is not None:
        for event in _all(run):
            wanted.learn(event)
    if last:
        for event in follower.last(wanted, last):
            show(event)
            shown += 1
    first = True
    while run.path.is_dir():
        for event in follower.read():
            wanted.learn(event)
            if wanted(event):
                show(event)
                shown += 1
        sys.stdout.flush()
        if first and not shown and last:
            _say_what_there_is(wanted, _all(run), str(run.log_dir))
            sys.stderr.write("waiting for more (Ctrl-C ends it)\n")
            sys.stderr.flush()
        first = False
        if wanted.until is not None and time.time() > wanted.until + _LATE:
            return
        time.sleep(_POLL)


# ---- of files --------------------------------------------------------------------------------


def _from_files(
    files: list[Path], wanted: "Filter", show: Show, *, follow: bool, lines: int | None
) -> None:
    """Print what files or standard input bring: sorted at the end of all, or as it comes."""
    from skbus.stack.logread import parse, time_of

    if follow:
        if [str(f) for f in files] != ["-"]:
            raise typer.BadParameter("takes standard input alone: -f -", param_hint="--follow")
        _as_it_comes(wanted, show)
        return
    events: list[Event] = []
    other = 0
    for file in files:
        try:
            with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
                for line in source:
                    event = parse(line if line.endswith(b"\n") else line + b"\n")
                    if event is not None:
                        events.append(event)
                    elif line.strip():
                        other += 1
        except OSError as e:
            layer = "" if file.suffix or len(file.parts) > 1 else f"; `-l {file}` is for a layer"
            raise RunDirError(f"cannot read {file}: {e.strerror}{layer}") from None
    events.sort(key=time_of)
    for event in events:
        wanted.learn(event)
    where = ", ".join("standard input" if str(f) == "-" else str(f) for f in files)
    if other:
        sys.stderr.write(f"skbus: {other} lines of {where} are none of skbus's\n")
    if not _show_last(filter(wanted, events), show, lines):
        _say_what_there_is(wanted, events, where)
        sys.exit(1)


def _as_it_comes(wanted: "Filter", show: Show) -> None:
    from skbus.stack.logread import Census, parse

    census, shown = Census(), 0
    for line in sys.stdin.buffer:
        event = parse(line)
        if event is None:
            continue
        census.add(event)
        wanted.learn(event)
        if wanted(event):
            show(event)
            sys.stdout.flush()
            shown += 1
    if not shown:
        _say(wanted, census, "standard input")
        sys.exit(1)


# ---- where nothing is found ------------------------------------------------------------------


def _say_what_there_is(wanted: "Filter", events: Iterable[Event], where: str) -> None:
    from skbus.stack.logread import Census

    census = Census()
    for event in events:
        census.add(event)
    _say(wanted, census, where)


def _say(wanted: "Filter", census: Any, where: str) -> None:
    """Why there is no line, as far as that can be told, and what there is."""
    said: list[str] = []
    if not census.lines:
        said.append(f"no line in {where}: is it the right stack? SKBUS_DIR names it")
    else:
        said.append(f"none of {census.lines} lines in {where} is what was asked for")
        have = ", ".join(f"{p} ({n})" for p, n in sorted(census.processes.items()))
        layers = {*census.processes, *(p.split(".")[0] for p in census.processes)}
        if unknown := sorted(wanted.layers - layers):
            said.append(f"no line of {', '.join(unknown)}; there are lines of: {have}")
        if wanted.level != "debug":
            levels = ", ".join(f"{n} {x}" for x, n in census.levels.items())
            said.append(f"by level there are: {levels}")
        if wanted.skb is not None:
            said.append(_sample("skb", f"no skb {wanted.skb}", list(census.skbs)))
        if wanted.flow is not None:
            flows = [f for f, _ in census.flows.most_common()]
            said.append(_sample("flow", f"no flow {wanted.flow.text}", flows))
        if wanted.grep is not None:
            functions = [f for f, _ in census.functions.most_common()]
            none = f"no function and no KEY=VALUE like {wanted.grep.pattern}"
            said.append(_sample("function", none, functions))
        if wanted.since is not None or wanted.until is not None:
            said.append(f"the lines are of {census.first} to {census.last}")
        packets = wanted.skb is not None or wanted.flow is not None or wanted.level == "debug"
        if packets and not census.levels["debug"]:
            said.append("packets are logged at debug alone: `skbus log-level debug`")
    sys.stderr.write("skbus: " + "\n  ".join(said) + "\n")


def _sample(what: str, none: str, have: list[str]) -> str:
    """The names that there are: the commonest, or the latest of skbs."""
    if not have:
        return f"{none}; no line names a {what}"
    if len(have) <= _SHOWN:
        return f"{none}; there are: {', '.join(have)}"
    latest = what == "skb"
    shown = have[-_SHOWN:] if latest else have[:_SHOWN]
    which = "the last" if latest else "those of most lines"
    return f"{none}; there are {len(have)}, {which}: {', '.join(shown)}"
