# SPDX-License-Identifier: MIT
"""Build the drivers of the peers, in `build/peers`, from the sources in this folder.

    python tests/bench/peers/build.py       builds both, or says why not

A driver is the serving end of a round on one stack, as `agent.py` is on ours. It is built from
Debian's packages, by each run: compilers know better than we do what is out of date. Go's first
build takes half a minute, later ones a second.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
OUT: Final = HERE.parents[2] / "build" / "peers"
GOPATH: Final = Path("/usr/share/gocode")
"""where Debian's packages of Go sources lie"""

GO_PACKAGES: Final = "apt-get install golang-go golang-gvisor-gvisor-dev"
LWIP_PACKAGES: Final = "apt-get install gcc libc6-dev liblwip-dev"


class NotBuilt(Exception):
    """A driver could not be built; the text says why, and what helps."""


def _compile(name: str, command: list[str], env: dict[str, str] | None = None) -> Path:
    try:
        OUT.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
        )
    except OSError as e:
        raise NotBuilt(f"{name} cannot be built in {OUT}: {e}") from None
    if done.returncode:
        raise NotBuilt(f"{name} cannot be built: {command[0]} says {_complaint(done.stderr)}")
    return OUT / name


def _complaint(said: str) -> str:
    """The line of a compiler's text that says most."""
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "collect2:"))]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "nothing")


def gvisor() -> Path:
    """The driver of gVisor's netstack; NotBuilt where that cannot be built."""
    if shutil.which("go") is None:
        raise NotBuilt(f"there is no Go compiler ({GO_PACKAGES})")
    if not (GOPATH / "src/gvisor.dev/gvisor/pkg/tcpip").is_dir():
        raise NotBuilt(f"gVisor's sources are not in {GOPATH} ({GO_PACKAGES})")
    sources = [str(path) for path in sorted((HERE / "gvisor").glob("*.go"))]
    return _compile(
        "gvisor",
        ["go", "build", "-o", str(OUT / "gvisor"), *sources],
        {
            "GOPATH": str(GOPATH),
            "GO111MODULE": "off",
            "GOCACHE": str(OUT / "go-cache"),
            "GOFLAGS": "",
            "GOWORK": "off",
        },
    )


def lwip() -> Path:
    """The driver of lwIP; NotBuilt where that cannot be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotBuilt(f"there is no C compiler ({LWIP_PACKAGES})")
    headers = Path("/usr/include/lwip")
    if not (headers / "lwip" / "tcpip.h").exists():
        raise NotBuilt(f"lwIP's headers are not in {headers} ({LWIP_PACKAGES})")
    sources = [str(path) for path in sorted((HERE / "lwip").glob("*.c"))]
    out = ["-o", str(OUT / "lwip"), "-llwip", "-lpthread"]
    return _compile("lwip", [compiler, "-O2", "-Wall", "-Wextra", f"-I{headers}", *sources, *out])


def main() -> int:
    """Build all; 1 where one is missing."""
    status = 0
    for build in (gvisor, lwip):
        try:
            print(build())  # noqa: T201 what a person runs it for
        except NotBuilt as e:
            sys.stderr.write(f"{build.__name__}: {e}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
