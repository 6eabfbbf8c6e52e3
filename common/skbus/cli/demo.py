# SPDX-License-Identifier: MIT
"""`skbus demo`: the whole thing once, in a quarter of a minute (`skbus.cli.demonstration`)."""

import typer


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo() -> None:
    """Fetch a page each way between Linux and our stack, and print the path of one request through
    all processes. It starts a lab, and ends it."""
    from skbus.cli.demonstration import run_demo

    run_demo()
