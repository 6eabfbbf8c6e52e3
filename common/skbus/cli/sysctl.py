# SPDX-License-Identifier: MIT
"""`skbus sysctl`: sysctl(8) for a running stack, with the same options, output and errors.

Differs from sysctl(8): a line below the error says what is wrong with a value. A pattern that
nothing matches is an error, and so is a file that sets nothing.
"""

import os
import re
import sys
from collections.abc import Iterator
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import Annotated, Any

import typer

from skbus.bus.rundir import RunDir
from skbus.cli import names as completion

_CONGESTION = "net.ipv4.tcp_congestion_control"


def register(app: typer.Typer) -> None:
    app.command()(sysctl)


class _Failure(Exception):
    """One key that could not be read or set; the others are gone on with."""


class _Command:
    """One call of the command: whom it speaks with, and how it prints."""

    def __init__(self, *, values: bool, names: bool, quiet: bool, ignore: bool) -> None:
        from skbus.stack.health import processes

        self.run = RunDir().require()
        # tcp last, which is asked: it alone knows which congestion controls there are
        self.processes = sorted(processes(self.run), key=_is_tcp)
        self.values = values
        self.names = names
        self.quiet = quiet
        self.ignore = ignore
        self.failed = False

    def show(self, name: str, value: object) -> None:
        shown = "\t".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(name if self.names else shown if self.values else f"{name} = {shown}")

    def known(self, name: str) -> bool:
        """Is there such a key? Says so if not, unless that is to be ignored."""
        from skbus.core.sysctl import SPECS

        if name in SPECS:
            return True
        if not self.ignore:
            path = name.replace(".", "/")
            self.error(f"cannot stat /proc/sys/{path}: {os.strerror(ENOENT)}")
        return False

    def error(self, text: str) -> None:
        sys.stderr.write(f"sysctl: {text}\n")
        self.failed = True

    def read(self, name: str) -> None:
        from skbus.bus.ctl import ctl_call

        if self.known(name):
            self.show(name, ctl_call(self.run, self.processes[-1], "sysctl_get", name))

    def read_all(self, pattern: str | None) -> None:
        from skbus.bus.ctl import ctl_call

        try:
            wanted = re.compile(pattern or "")
        except re.error as e:
            raise typer.BadParameter(f"{pattern!r}: {e}", param_hint="-r") from None
        values = ctl_call(self.run, self.processes[-1], "sysctl_get")
        found = [name for name in sorted(values) if wanted.search(name)]
        for name in found:
            self.show(name, values[name])
        if not found:
            self.error(f"none of {len(values)} sysctls matches {pattern!r} (-a prints all)")

    def write(self, assignment: str) -> None:
        """NAME=VALUE, in all processes, and for those that are restarted."""
        from skbus.bus.ctl import ctl_call

        name, _, given = (part.strip() for part in assignment.partition("="))
        name = _dots(name)
        if not self.known(name):
            return
        try:
            self.check(name, given)
        except _Failure as e:
            errno, text = e.args
            self.error(f'setting key "{name}": {os.strerror(errno)}')
            sys.stderr.write(f"  {text}\n")
            return
        answers = [ctl_call(self.run, p, "sysctl_set", (name, given)) for p in self.processes]
        _remember(self.run, name, given)
        if not self.quiet:
            self.show(name, answers[0])

    def check(self, name: str, given: str) -> None:
        """Would every process take it? _Failure: errno and why not."""
        from skbus.bus.ctl import ctl_call
        from skbus.core.sysctl import Sysctl, SysctlError

        try:
            Sysctl().set(name, given)
        except SysctlError as e:
            raise _Failure(EINVAL, str(e)) from None
        if name == _CONGESTION and _is_tcp(self.processes[-1]):
            status: dict[str, Any] = ctl_call(self.run, self.processes[-1], "status")
            have = status["core"]["congestion_controls"]
            if given not in have:
                raise _Failure(ENOENT, f"no congestion control {given}; there are: {have}")


def _is_tcp(process: str) -> bool:
    return process.split(".")[0] == "tcp"


def _dots(name: str) -> str:
    """net/ipv4/tcp_sack is net.ipv4.tcp_sack; a dot after a first slash is a slash, as there."""
    first = re.search(r"[./]", name)
    if first is None or first[0] == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def _from_line(arguments: list[str] | None) -> Iterator[tuple[str, str]]:
    return (("command line(0)", argument) for argument in arguments or ())  # always 0, there too


def _from_file(file: Path) -> Iterator[tuple[str, str]]:
    """(where, assignment) of a file of sysctl.conf(5). RunDirError where it cannot be read."""
    from skbus.bus.rundir import RunDirError

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as e:
        raise RunDirError(f"cannot read {file}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise RunDirError(f"cannot read {file}: {e}") from None
    for number, line in enumerate(text.splitlines(), 1):
        assignment = line.strip().removeprefix("-")
        if assignment and assignment[0] not in "#;":
            yield f"{file}({number})", assignment


def sysctl(
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|NAME=VALUE", help="Read, or set.", autocompletion=completion.sysctls
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("-a", "-A", "-X", "--all", help="All there are.")] = False,
    write: Annotated[
        bool, typer.Option("-w", "--write", help="Everything named is NAME=VALUE.")
    ] = False,
    values: Annotated[bool, typer.Option("-n", "--values", help="Values without names.")] = False,
    names: Annotated[bool, typer.Option("-N", "--names", help="Names without values.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Do not print what was set.")] = (
        False
    ),
    ignore: Annotated[
        bool, typer.Option("-e", "--ignore", help="Unknown names are no error.")
    ] = False,
    pattern: Annotated[
        str | None,
        typer.Option("-r", "--pattern", metavar="REGEX", help="Of all, those that match."),
    ] = None,
    load: Annotated[
        Path | None, typer.Option("-p", "--load", metavar="FILE", help="Set what a file says.")
    ] = None,
) -> None:
    """Read sysctls, or set them in all processes at once, under Linux's names; output and errors
    are those of sysctl(8). What is set also holds for processes that are restarted, until the
    stack ends."""
    if not (assignments or all_ or pattern or load):
        raise typer.BadParameter("which? Name one, or give -a for all")
    command = _Command(values=values, names=names, quiet=quiet, ignore=ignore)
    if all_ or (pattern and not assignments):
        command.read_all(pattern)
    from_file = list(_from_file(load)) if load else []
    if load and not from_file:
        command.error(f"{load}: sets nothing")
    for where, assignment in [*from_file, *_from_line(assignments)]:
        if "=" in assignment:
            command.write(assignment)
        elif write or load:
            command.error(f"{where}: invalid syntax, continuing...")
        else:
            command.read(_dots(assignment.strip()))
    if command.failed:
        sys.exit(1)


def _remember(run: RunDir, name: str, value: str) -> None:
    from skbus.stack.config import Config

    def change(config: Config) -> None:
        config.sysctl = {**config.sysctl, name: value}

    Config.update(run, change)
