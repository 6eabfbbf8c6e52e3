# SPDX-License-Identifier: MIT
"""`skbus serve`: sample servers on our stack (`skbus.serve`)."""

import errno
import ipaddress
import sys
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from skbus.bus.rundir import RunDir


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
        int | None,
        typer.Option(
            metavar="N", min=0, max=65535, help="By default the well-known one; 0: any free one."
        ),
    ] = None,
    address: Annotated[str, typer.Option(metavar="ADDR", help="By default all of ours.")] = "",
) -> None:
    """Run a server on our stack until Ctrl-C. It says where it is, and what to type at the other
    end."""
    from skbus.serve import reach

    run_dir = RunDir().require()
    number = _PORTS[kind] if port is None else port
    if address:
        _check(address)

    def greeting(at: int) -> list[str]:
        return [*reach.lines(run_dir, kind.value, address, at)]

    try:
        if kind is Kind.iperf3:
            from skbus.serve import iperf3

            sys.exit(iperf3.serve(address, number, greeting=greeting))
        from skbus.serve.run import run

        run(kind.value, address, number, greeting)
    except KeyboardInterrupt:
        pass
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            _fail(
                f"port {number} of our stack is taken: --port N takes another one (`skbus proc "
                "net/tcp net/udp` shows which are)"
            )
        if e.errno == errno.EADDRNOTAVAIL:
            ours = ", ".join(reach.addresses(run_dir)) or "none yet"
            _fail(f"--address {address}: our stack does not have it; its addresses: {ours}")
        if e.errno == errno.EACCES:
            _fail(f"port {number} is for root alone: --port N takes one from 1024 on")
        raise


def _check(address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        _fail(f"--address {address}: takes an IPv4 address of our stack")


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"skbus serve: {text}\n")
    sys.exit(1)
