# SPDX-License-Identifier: MIT
"""`skbus serve`: sample servers on our stack (`skbus.serve`)."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from skbus.rundir import RunDir


class Kind(StrEnum):
    """What is served."""

    http = "http"
    echo = "echo"
    discard = "discard"
    chargen = "chargen"
    iperf3 = "iperf3"


_PORTS = {Kind.http: 80, Kind.echo: 7, Kind.discard: 9, Kind.chargen: 19, Kind.iperf3: 5201}


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    kind: Annotated[Kind, typer.Argument(help="What to serve.")],
    port: Annotated[
        int | None, typer.Option(metavar="N", help="By default the well-known one.")
    ] = None,
    address: Annotated[str, typer.Option(metavar="ADDR", help="By default all of ours.")] = "",
) -> None:
    """Run a server on our stack until Ctrl-C."""
    RunDir().require()
    number = _PORTS[kind] if port is None else port
    if kind is Kind.iperf3:
        from skbus.serve import iperf3

        sys.exit(iperf3.serve(address, number))
    from skbus.serve import run

    try:
        run(kind.value, address, number)
    except KeyboardInterrupt:
        pass
