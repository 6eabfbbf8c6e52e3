# SPDX-License-Identifier: MIT
"""`skbus packetdrill`: the command. docs/packetdrill.md describes it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from skbus.packetdrill.config import Config
    from skbus.packetdrill.report import Result
    from skbus.packetdrill.run import MakeBackend


def register(app: typer.Typer) -> None:
    """Add the command to `skbus`."""
    app.command()(packetdrill)


def packetdrill(
    scripts: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Scripts, or directories of them.")
    ],
    live: Annotated[
        bool,
        typer.Option(
            "--live/--sim",
            help="Against the running lab's processes, or (the default) against the cores in "
            "virtual time.",
        ),
    ] = False,
    define: Annotated[
        list[str] | None,
        typer.Option("--define", "-D", metavar="NAME=VALUE", help="A symbol of the scripts."),
    ] = None,
    tolerance_usecs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="How far from its time a packet may be (what a script says, or 4000)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the simulation.")] = 0,
    sysctl: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Set before each script (--sim)."),
    ] = None,
    congestion_control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:CLASS",
            help="A congestion control of your own, for scripts to name (--sim).",
        ),
    ] = None,
    strict_end: Annotated[
        bool, typer.Option(help="Packets after the last that a script lists are failures.")
    ] = False,
    pcap: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a capture of each script (--sim).")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="All results as JSON.")] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All results as JUnit XML.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Parse only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No lines for passes.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All that happened, also where all is well.")
    ] = False,
) -> None:
    """Run packetdrill scripts: what must go in, and what must come out, at which times.

    Exit status: 0 if all passed or do not apply, 1 if one failed, 2 if one cannot be understood.
    """
    from skbus.packetdrill import report
    from skbus.packetdrill.report import Status
    from skbus.packetdrill.run import find, run_files

    config = _config(strict_end, tolerance_usecs)
    try:
        paths = find(scripts)
    except FileNotFoundError as e:
        _fail(str(e))
    defines = dict(map(_pair, define or ()))
    make: MakeBackend | None = None
    if not dry_run:
        own = congestion_control or []
        make = _live() if live else _sim(seed, pcap, dict(map(_pair, sysctl or ())), own)
    results = []
    for result in run_files(paths, make, config, defines):
        results.append(result)
        if not (quiet and result.status is Status.PASSED):
            typer.echo(report.show(result, verbose=verbose))
    _write(results, json, junit)
    statuses = {r.status for r in results}
    if Status.ERROR in statuses:
        raise typer.Exit(2)
    if Status.FAILED in statuses:
        raise typer.Exit(1)


def _config(strict_end: bool, tolerance_usecs: int | None) -> "Config":
    from skbus.packetdrill.config import US, Config

    if tolerance_usecs is None:
        return Config(strict_end=strict_end)
    given = frozenset({"tolerance_usecs"})
    return Config(strict_end=strict_end, tolerance=tolerance_usecs * US, given=given)


def _write(results: list["Result"], json: Path | None, junit: Path | None) -> None:
    """The results for machines, and a line of all of them."""
    from skbus.packetdrill import report

    if json is not None:
        json.write_text(report.as_json(results))
    if junit is not None:
        junit.write_text(report.as_junit(results))
    if len(results) != 1:
        typer.echo(report.summary(results))


def _sim(
    seed: int, pcap: Path | None, sysctl: dict[str, str], controls: list[str]
) -> "MakeBackend":
    from skbus.packetdrill.sim import SimBackend
    from skbusd.tcp.congestion_plugins import CongestionControlError, load_congestion_control

    try:
        own = tuple(load_congestion_control(spec) for spec in controls)
    except CongestionControlError as e:
        _fail(f"--congestion-control {e}")
    if pcap is not None:
        pcap.mkdir(parents=True, exist_ok=True)

    def make(path: Path) -> SimBackend:
        capture = pcap / f"{path.stem}.pcapng" if pcap is not None else None
        return SimBackend(seed, pcap=capture, sysctl=sysctl, congestion_control=own)

    return make


def _live() -> "MakeBackend":
    from skbus.packetdrill.live import LiveBackend
    from skbus.rundir import RunDir

    run = RunDir().require()
    return lambda _: LiveBackend(run)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        _fail(f"expected NAME=VALUE, not {text}")
    return name, value


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"skbus packetdrill: {text}\n")
    raise typer.Exit(2)
