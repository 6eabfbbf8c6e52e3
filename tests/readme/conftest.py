# SPDX-License-Identifier: MIT
"""A newcomer's machine: a fresh clone, a login's environment, a terminal in the clone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from terminal import ROOT, Terminal


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What git has, and what is changed and not committed yet."""
    path = tmp_path_factory.mktemp("readme") / "skbus"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(path)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-mo", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, path / name)
        else:
            (path / name).unlink(missing_ok=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def environment(clone: Path) -> Iterator[dict[str, str]]:
    """A login's, with a run directory of its own."""
    kept = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")
    prefixes = ("PIP_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY", "REQUESTS_")
    env = {k: v for k, v in os.environ.items() if k in kept or k.startswith(prefixes)}
    # not the environment that pytest runs in: a newcomer has none
    env["PATH"] = os.pathsep.join(
        p for p in env["PATH"].split(os.pathsep) if not (Path(p) / "activate").exists()
    )
    base = Path("/run") if os.geteuid() == 0 else Path("/dev/shm")
    env["SKBUS_DIR"] = str(base / f"skbus-readme-{os.getpid()}")
    yield env
    skbus = clone / ".venv/bin/skbus"
    if skbus.exists():
        subprocess.run([skbus, "lab", "down"], env=env, check=False, capture_output=True)


@pytest.fixture(scope="module")
def terminal(clone: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    with Terminal(clone, environment) as shell:
        yield shell
