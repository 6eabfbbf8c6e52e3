# SPDX-License-Identifier: MIT
"""The commands by name, and `skbus --help` from that table alone.

typer costs more than Python's own start, and the modules of all commands as much again. So
`skbus.cli.app` imports the module of the command that is called, and no other. `skbus --help`
calls none, and does without typer. A test compares its text with typer's.
"""

import os
import sys

TYPE_CHECKING = False  # typing's own is behind an import that takes its time
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HELP = (
    "The Linux network stack taken apart into processes. SKBUS_DIR names the run directory of the "
    "stack that is meant; without it, it is the default lab's."
)

COMMANDS = {
    "up": (
        "skbus.cli.up",
        "Run all layers on an interface of this machine, until Ctrl-C",
    ),
    "serve": (
        "skbus.serve.cli",
        "Run a server on our stack until Ctrl-C",
    ),
    "demo": (
        "skbus.cli.demo",
        "Fetch a page each way between Linux and our stack, and print the path of one request "
        "through all processes",
    ),
    "load": (
        "skbus.load.cli",
        "Run a scenario of load",
    ),
    "logs": (
        "skbus.cli.logs",
        "Print the logs of all layers, merged by the stack's time",
    ),
    "status": (
        "skbus.cli.inspect",
        "Print how each process fares: its life, what it did with skbs, its drops by reason",
    ),
    "counters": (
        "skbus.cli.inspect",
        "Print Linux's SNMP counters in the form of `nstat -a`; each process counts its own",
    ),
    "log-level": (
        "skbus.cli.inspect",
        "Change how much a running stack logs, also for layers that are restarted later",
    ),
    "health": (
        "skbus.cli.inspect",
        "Say whether the processes answer, by the exit status: 0 or 1",
    ),
    "barrier": (
        "skbus.cli.inspect",
        "Wait until all that was under way in the stack has been processed",
    ),
    "insmod": (
        "skbus.cli.modules",
        "Load code into the running socket process",
    ),
    "rmmod": (
        "skbus.cli.modules",
        "Unload a module: its threads are asked to end",
    ),
    "lsmod": (
        "skbus.cli.modules",
        "List the modules in the socket process: name, state, parameters",
    ),
    "abi": (
        "skbus.cli.abi",
        "Print the messages between the processes: who sends what to whom, with the fields",
    ),
    "proc": (
        "skbus.cli.proc",
        "Print files of the stack's /proc/net as Linux prints its own",
    ),
    "sysctl": (
        "skbus.cli.sysctl",
        "Read sysctls, or set them in all processes at once, under Linux's names; output and "
        "errors are those of sysctl(8)",
    ),
    "packetdrill": (
        "skbus.packetdrill.cli",
        "Run packetdrill scripts: what must go in, and what must come out, at which times",
    ),
    "lab": (
        "skbus.cli.lab",
        "Our stack at 10.77.0.2 and the Linux kernel at 10.77.0.1, in namespaces of their own: no "
        "root, no Docker",
    ),
}
"""Command -> its module, and the first sentence of its own help. The order is that of the list."""

_OPTIONS = (
    ("--version", "Print the version and exit."),
    ("--install-completion", "Install completion for the current shell."),
    (
        "--show-completion",
        "Show completion for the current shell, to copy it or customize the installation.",
    ),
    ("-h, --help", "Show this message and exit."),
)


def is_help(argv: "Sequence[str]", environ: "Mapping[str, str]") -> bool:
    """Whether a command line is `skbus --help`, as `help_text` has it, and no question of a shell
    that completes commands."""
    return (
        argv[1:] in (["--help"], ["-h"])
        and argv[0].rpartition("/")[2] == "skbus"
        and "_SKBUS_COMPLETE" not in environ
        and sys.__stdout__ is not None  # closed: typer deals with that
    )


def print_help() -> None:
    """Print what `skbus --help` prints, and end."""
    try:
        sys.stdout.write(help_text(_columns()))
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as e:
        sys.stderr.write(f"skbus: {e}\n")
        sys.exit(1)


def _columns() -> int:
    """The terminal's width, as `shutil.get_terminal_size` finds it; that module imports much."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 80
    except (OSError, ValueError):  # no terminal, or closed
        return 80


def help_text(columns: int) -> str:
    """The help of the command itself, for a terminal of so many columns."""
    width = max(min(columns, 80) - 2, 50)
    commands = [(name, summary) for name, (_, summary) in COMMANDS.items()]
    lines = [
        "Usage: skbus [OPTIONS] COMMAND [ARGS]...",
        "",
        *(f"  {line}" for line in _wrap(HELP, width - 2)),
        "",
        "Options:",
        *_table(_OPTIONS, width),
        "",
        "Commands:",
        *_table(commands, width),
    ]
    return "\n".join(lines) + "\n"


def _table(rows: "Sequence[tuple[str, str]]", width: int) -> "Iterator[str]":
    first = max(len(name) for name, _ in rows) + 2
    for name, text in rows:
        for line in _wrap(text, width - first - 2):
            yield f"  {name:<{first}}{line}"
            name = ""


def _wrap(text: str, width: int) -> "Iterator[str]":
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
