# SPDX-License-Identifier: MIT
"""Options that `skbus up` and `skbus lab up` have in common, and what they mean to `Config`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from skbus.stack.config import Config

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration in TOML.")
]
TimeScale = Annotated[
    float | None,
    typer.Option(metavar="X", help="Run the whole stack X times slower than the machine."),
]
Affinity = Annotated[
    str | None,
    typer.Option(
        metavar="auto|one|spread",
        help="Run all layers on one processor (best where there is little to do), spread over all "
        "(best where there is much), or by what there is to do.",
    ),
]
TcpShards = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Spread TCP's connections over N processes, by the hash of the flow."
    ),
]
Interpreted = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        help="Run a layer from its Python sources in a compiled build, for breakpoints and py-spy: "
        "nic, ip, tcp, udp, socket, or several with commas. May be given repeatedly.",
    ),
]
Fuse = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYERS",
        help="Let layers live in one process, for latency: ip,tcp,udp,socket, or all. They die and "
        "are started again together.",
    ),
]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
]
Sysctls = Annotated[
    list[str] | None,
    typer.Option("--sysctl", metavar="NAME=VALUE", help="Set a sysctl; may be given repeatedly."),
]
Mtu = Annotated[int | None, typer.Option(metavar="BYTES", help="MTU of the interface.")]
GsoMaxSize = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES",
        min=65536,
        max=524280,
        help="The interface's gso_ipv4_max_size: above 65536, nic sends as long frames (BIG TCP).",
    ),
]
Loss = Annotated[str | None, typer.Option(metavar="5%", help="Lose packets.")]
Delay = Annotated[str | None, typer.Option(metavar="20ms", help="Delay packets.")]
Jitter = Annotated[str | None, typer.Option(metavar="5ms", help="Vary the delay by so much.")]
Reorder = Annotated[str | None, typer.Option(metavar="10%", help="Let packets overtake others.")]
Dup = Annotated[str | None, typer.Option(metavar="1%", help="Duplicate packets.")]
Corrupt = Annotated[str | None, typer.Option(metavar="0.1%", help="Flip a bit in packets.")]
Rate = Annotated[str | None, typer.Option(metavar="100mbit", help="Limit the rate.")]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="'NAME [PARAMETER=VALUE]...'",
        help="Load code into the socket process: a Python file, an entry point of skbus.modules or "
        "a dotted module. May be given repeatedly.",
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of all the chance above.")]


def device(name: str, impair: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A device of the configuration, as flags give it; None means not given."""
    given = {k: v for k, v in impair.items() if v is not None}
    return {"name": name, **fields, "impair": given or None}


def overrides(
    *,
    time_scale: float | None,
    log_level: str | None,
    sysctls: list[str] | None,
    modules: list[str] | None = None,
    affinity: str | None = None,
    tcp_shards: int | None = None,
    interpreted: list[str] | None = None,
    fuse: list[str] | None = None,
) -> dict[str, Any]:
    """The rest of the common options, nested like the configuration."""
    table: dict[str, str] = {}
    for assignment in sysctls or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"{assignment!r}: it takes NAME=VALUE", param_hint="--sysctl")
        table[name.strip()] = value.strip()
    return {
        "clock": {"time_scale": time_scale},
        "log": {"level": log_level},
        "placement": affinity,
        "tcp_shards": tcp_shards,
        "interpreted": interpreted or None,
        "fuse": fuse or None,
        "sysctl": table or None,
        "modules": [module(spec) for spec in modules] if modules else None,
    }


def say_if_all_are_interpreted(config: "Config") -> None:
    """Where nothing is compiled, --interpreted changes nothing, and a line says so."""
    if not config.interpreted:
        return
    from skbus.bus.version import is_compiled  # it imports numpy

    if not is_compiled():
        sys.stderr.write("skbus: --interpreted: all layers are, as nothing is compiled here\n")


def module(spec: str) -> str:
    """A module as the socket process will find it: it has another working directory."""
    name, space, parameters = spec.strip().partition(" ")
    if name.endswith(".py") or "/" in name:
        path = Path(name).resolve()
        if not path.is_file():
            raise typer.BadParameter(f"there is no file {path}", param_hint="--module")
        name = str(path)
    return name + space + parameters
