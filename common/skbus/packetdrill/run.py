# SPDX-License-Identifier: MIT
"""Many scripts: find them, run each against a stack of its own, one after another."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from skbus.packetdrill.backend import Backend
from skbus.packetdrill.config import DEFINES, Config
from skbus.packetdrill.interpreter import run_script
from skbus.packetdrill.parser import parse_file
from skbus.packetdrill.report import Result, Status
from skbus.packetdrill.script import ScriptError, Unsupported

MakeBackend = Callable[[Path], Backend]


def find(paths: Iterable[str | Path]) -> list[Path]:
    """The scripts: files as they are named, of directories all *.pkt below. FileNotFoundError
    where one does not exist, or a directory has none."""
    out: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = sorted(path.rglob("*.pkt"))
            if not below:
                raise FileNotFoundError(f"no *.pkt below {path}")
            out += below
        elif path.exists():
            out.append(path)
        else:
            raise FileNotFoundError(f"no such script: {path}")
    return out


def run_file(
    path: Path,
    make: MakeBackend | None,
    config: Config,
    defines: Mapping[str, str] | None = None,
) -> Result:
    """Parse a script and run it. make: a fresh backend for a script; None: parse only."""
    try:
        script = parse_file(path, {**DEFINES, **(defines or {})})
    except ScriptError as e:
        return Result(str(path), Status.ERROR, e.line, e.text)
    except Unsupported as e:
        return Result(str(path), Status.NOT_APPLICABLE, 0, str(e).removeprefix(f"{path}:"))
    except (OSError, UnicodeDecodeError) as e:
        return Result(str(path), Status.ERROR, 0, str(e))
    if make is None:
        return Result(str(path), Status.PASSED)
    try:
        return run_script(script, make(path), config)
    except Exception as e:  # noqa: BLE001 (whatever the stack raises is this script's failure)
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}, {last.name}"
        return Result(str(path), Status.FAILED, 0, f"{type(e).__name__} in {where}: {e}")


def run_files(
    paths: Iterable[Path],
    make: MakeBackend | None,
    config: Config,
    defines: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    """Run scripts one after another."""
    for path in paths:
        yield run_file(path, make, config, defines)
