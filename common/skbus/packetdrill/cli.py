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


Live = Annotated[
    bool,
    typer.Option(
        "--live/--sim",
        help="Against the running lab's processes, or (the default) against the cores in "
        "virtual time.",
    ),
]
Defines = Annotated[
    list[str] | None,
    typer.Option("--define", "-D", metavar="NAME=VALUE", help="A symbol of the scripts."),
]
Tolerance = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="How far from its time a packet may be, in us (what a script says, or 4000).",
    ),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Of the simulation: 0 if not said (--sim).")
]
Sysctls = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Set before each script (--sim)."),
]
CongestionControls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE.py:CLASS",
        help="A congestion control of your own, for scripts to name (--sim).",
    ),
]
StrictEnd = Annotated[
    bool, typer.Option(help="Packets after the last that a script lists are failures.")
]
Captures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep a capture of each script, under its name with .pcapng (--sim).",
    ),
]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="All results as JSON.")]
JUnit = Annotated[Path | None, typer.Option(metavar="FILE", help="All results as JUnit XML.")]
DryRun = Annotated[bool, typer.Option(help="Parse only.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No lines for passes.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="All that happened, also where all is well.")
]


def packetdrill(
    scripts: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Scripts, or directories of them.")
    ],
    live: Live = False,
    define: Defines = None,
    tolerance_usecs: Tolerance = None,
    seed: Seed = None,
    sysctl: Sysctls = None,
    congestion_control: CongestionControls = None,
    strict_end: StrictEnd = False,
    pcap: Captures = None,
    json: Json = None,
    junit: JUnit = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
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
    _named_somewhere(defines, paths)
    if live:
        _not_live(seed=seed, sysctl=sysctl, congestion_control=congestion_control, pcap=pcap)
    sysctls, own = dict(map(_pair, sysctl or ())), congestion_control or []
    make: MakeBackend | None = None
    if live and not dry_run:
        make = _live()
    elif not live:
        captures = captures_of(scripts, paths, pcap) if pcap is not None and not dry_run else {}
        sim = _sim(seed or 0, captures, sysctls, own)
        make = None if dry_run else sim
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

    for path, text in ((json, report.as_json(results)), (junit, report.as_junit(results))):
        if path is not None:
            try:
                path.write_text(text)
            except OSError as e:
                _fail(f"cannot write {path}: {e.strerror}")
    if len(results) != 1:
        typer.echo(report.summary(results))


def _named_somewhere(defines: dict[str, str], paths: list[Path]) -> None:
    """A symbol that no script has is a mistake."""
    import re

    texts = [path.read_text(errors="replace") for path in paths] if defines else []
    for name in defines:
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
            which = (
                "the script has no" if len(texts) == 1 else f"none of {len(texts)} scripts has a"
            )
            _fail(f"--define {name}: {which} symbol of that name")


def _not_live(**given: object) -> None:
    """What is of the simulation alone must not be said to no effect."""
    for name, value in given.items():
        if value is not None and value != []:
            option = name.replace("_", "-")
            remedy = {
                "pcap": "`skbus lab exec -- tcpdump -i veth0 -w FILE` captures a lab's wire",
                "sysctl": "`skbus sysctl NAME=VALUE` sets one in the lab",
            }.get(name, "leave it out, or leave out --live")
            _fail(f"--{option} is for --sim: {remedy}")


def captures_of(named: list[Path], found: list[Path], directory: Path) -> dict[Path, Path]:
    """Where each script's capture goes: below `directory` as the script lies below what was named
    on the command line. No two have the same place."""
    out: dict[Path, Path] = {}
    for path in found:
        root = next((n for n in named if n.is_dir() and path.is_relative_to(n)), path.parent)
        wanted = directory / path.relative_to(root).with_suffix(".pcapng")
        place, n = wanted, 1
        while place in out.values():
            n += 1
            place = wanted.with_stem(f"{wanted.stem}-{n}")
        out[path] = place
    return out


def _sim(
    seed: int, captures: dict[Path, Path], sysctl: dict[str, str], controls: list[str]
) -> "MakeBackend":
    from skbus.packetdrill.backend import PLAIN
    from skbus.packetdrill.sim import SimBackend
    from skbustest.congestion import CongestionControlError, load_congestion_control

    try:
        own = tuple(load_congestion_control(spec) for spec in controls)
    except CongestionControlError as e:
        _fail(f"--congestion-control {e}")
    try:
        for place in captures.values():
            place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        _fail(f"--pcap {e.filename}: {e.strerror}")

    def make(path: Path) -> SimBackend:
        capture = captures.get(path)
        return SimBackend(seed, pcap=capture, sysctl=sysctl, congestion_control=own)

    if sysctl:  # said once, and not for each script
        trial = make(Path())
        try:
            trial.start(PLAIN, 1500)
        except ValueError as e:
            _fail(f"--sysctl {e}")
        trial.close()

    return make


def _live() -> "MakeBackend":
    from skbus.bus.rundir import RunDir
    from skbus.packetdrill.live import LiveBackend

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
