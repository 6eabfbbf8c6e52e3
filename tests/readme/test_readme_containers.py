# SPDX-License-Identifier: MIT
"""The commands of README.md's "Containers" and of docs/containers.md, typed into a terminal, under
a real Docker engine (`.ci/run compose`, which makes a base image where no registry answers).

Nothing is typed but what the pages print, with these exceptions:

- COMPOSE_PROJECT_NAME, SKBUS_BASE and DOCKER_HOST are set in the environment.
- `curl` may have to be repeated for some seconds after containers were started.
- Lines of docs/containers.md that need a registry, a proxy or another Python (`NOT_HERE`) are left
  out.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from terminal import ROOT, Output, Terminal, commands, sections

pytestmark = [pytest.mark.readme, pytest.mark.compose]

EXPECT: Final = {
    "curl": r"<title>skbus</title>",
    "docker-compose logs tcp": r'"event": ?"started"',
    "docker-compose exec tcp skbus logs -n 20": r"(?s)(nic\.eth0|ip|tcp|socket) .*\n",
    "docker-compose exec tcp skbus logs --flow :80": r"(?s)tcp_v4_rcv.*tcp_transmit_skb",
    "docker-compose logs --no-log-prefix": r"started",
    "docker-compose exec tcp skbus status": r"(?s)nic\.eth0.*socket",
    "docker-compose exec tcp sh -c 'kill -9 -1'": "",
    "docker-compose ps": r"(?s)tcp.*Up",
    "docker-compose run --rm load smoke": r"(?s)every one is accounted for.*ok +errors == 0",
}
"""Beginning of a command -> what it prints at least; status 0 is asked of all."""

NOT_HERE: Final = (
    "SKBUS_BASE=", "SKBUS_BUILD_BASE=", "SKBUS_COMPILE=", "https_proxy=", "PIP_INDEX_URL=",
    "make wheels", "debootstrap", "tar -C base",
)  # fmt: skip


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    env = {**os.environ, "COMPOSE_PROJECT_NAME": f"skbusreadme{os.getpid()}"}
    with Terminal(ROOT, env) as shell:
        yield shell
        shell.run("docker-compose down -v", 120)


def run(terminal: Terminal, command: str) -> Output:
    deadline = time.monotonic() + 60
    while True:
        out = terminal.run(command, 900)
        if not command.startswith("curl") or not out.status or time.monotonic() > deadline:
            return out


def check(terminal: Terminal, block: str) -> None:
    for command in commands(block):
        if command.startswith(NOT_HERE):
            continue
        text, status = run(terminal, command)
        assert status == 0, f"{command}: status {status}\n{text}"
        for beginning, expected in EXPECT.items():
            if command.startswith(beginning):
                assert re.search(expected, text), f"{command}: no {expected} in\n{text}"


def test_readme_as_printed(terminal: Terminal) -> None:
    for block in sections(ROOT / "README.md")["Containers"]:
        check(terminal, block)


@pytest.mark.parametrize("heading", list(sections(ROOT / "docs/containers.md")))
def test_the_page_as_printed(heading: str, terminal: Terminal) -> None:
    for block in sections(ROOT / "docs/containers.md")[heading]:
        if not block.startswith(("x-", "FROM", "services")):
            check(terminal, block)
