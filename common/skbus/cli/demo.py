# SPDX-License-Identifier: MIT
"""`skbus demo`: the whole thing once, in a quarter of a minute (`skbus.cli.demonstration`)."""

import typer


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo() -> None:
    """Start a lab, fetch a page from Linux on our stack and one from our stack on Linux, print
    the path of one request through all processes, end the lab."""
    from skbus.cli.demonstration import run_demo

    run_demo()
