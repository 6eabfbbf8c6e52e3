# SPDX-License-Identifier: MIT
"""`skbus load`: clients by script, and what came of them (`skbus.load`)."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    app.command()(load)


List = Annotated[
    bool,
    typer.Option(
        "--list",
        help="The scenarios that come with skbus, and those in the directory SKBUS_SCENARIOS.",
    ),
]
Where = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="stack: what runs in SKBUS_DIR, a lab or `skbus up`; new-lab: a lab for this "
        "run alone; loopback: Linux at both ends.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.html and NAME.json go.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the scenario, as in flow.web.rate=500; repeatable.",
    ),
]
Clients = Annotated[
    str | None,
    typer.Option(metavar="SIDE", help="linux or skbus: whose stack the clients are on."),
]
Host = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="Our stack as clients reach it, if it is not a lab's."),
]
Time = Annotated[
    float, typer.Option(metavar="X", help="Make all phases and events X times as long.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Read the scenario, say what is wrong, and end.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No live progress.")]


def load(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A .toml or .py file (docs/load.md), or a name of --list.",
        ),
    ] = "",
    list_: List = False,
    on: Where = "stack",
    out: Out = Path("load-out"),
    changes: Changes = None,
    clients: Clients = None,
    host: Host = None,
    time: Time = 1.0,
    check: Check = False,
    quiet: Quiet = False,
) -> None:
    """Run a scenario of load. Exit status: 0 if its assertions hold, 1 if not, 2 if it
    could not be run, 130 after Ctrl-C (which still writes the report)."""
    try:
        from skbus.load.command import main, show_library
    except ModuleNotFoundError as e:
        sys.stderr.write(f"skbus load: {e.name} is missing: `pip install skbus[load]` brings it\n")
        sys.exit(2)

    if list_:
        sys.exit(show_library())
    if not scenario:
        sys.stderr.write("skbus load: which scenario? `skbus load --list` says which there are\n")
        sys.exit(2)
    sys.exit(
        main(
            scenario,
            on=on,
            out=out,
            changes=dict(map(_change, changes or [])),
            clients=clients,
            host=host,
            time=time,
            check=check,
            quiet=quiet,
        )
    )


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: it takes KEY=VALUE", param_hint="--set")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()
