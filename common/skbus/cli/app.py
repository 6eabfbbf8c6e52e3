# SPDX-License-Identifier: MIT
"""`skbus`: one command for everything that a person does with a stack.

Each group of commands has a module here, and each tool has one in its own package
(`skbus.load.cli`). It is imported when one of its commands is called (`skbus.cli.commands` has
their names), and imports what it works with only then: `skbus status` must not wait for trio.
Errors that are the user's to mend end as one line on standard error that names cause and remedy,
with exit status 1.
"""

import sys
from typing import Annotated, Final

import typer

from skbus.cli.commands import HELP
from skbus.cli.help import Commands

app = typer.Typer(
    name="skbus",
    help=HELP,
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from skbus.bus.version import version

        print(f"skbus {version()}")
        raise typer.Exit


@app.callback()
def skbus(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The options of the command itself."""


_ERRORS: Final = (
    ("skbus.bus.rundir", "RunDirError"),
    ("skbus.stack.config", "ConfigError"),
    ("skbus.bus.ctl", "ControlError"),
    ("skbus.core.sysctl", "SysctlError"),
    ("skbus.stack.lab", "LabError"),
    ("skbus.stack.supervise", "SuperviseError"),
    ("skbus.stack.takeover", "TakeoverError"),
    ("skbus.cli.demonstration", "DemoError"),
)
"""What is the user's to mend. By name, so that this module need not import them all: who raises
one has imported it."""


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_ours, error.exceptions))
    if isinstance(error, OSError):
        return True  # EADDRINUSE, ENETDOWN, EACCES: the text says it
    for module, name in _ERRORS:
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return True
    return False


def _first(error: BaseException) -> BaseException:
    """What a trio nursery has wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> None:
    """The entry point."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as e:
        if not _is_ours(e):
            raise
        sys.stderr.write(f"skbus: {_first(e)}\n")
        sys.exit(1)
