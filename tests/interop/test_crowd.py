# SPDX-License-Identifier: MIT
"""Five hundred client processes at once; and what is left of clients that are killed in the middle
of a call: no socket, no pool slot, no descriptor, no mapping, in any layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interop.conftest import Lab

pytestmark = pytest.mark.lab

CROWD = Path(__file__).with_name("crowd.py")
CLIENTS = int(os.environ.get("SKBUS_CROWD", "500"))


@contextmanager
def crowd(lab: Lab, port: int, count: int, state: str) -> Iterator[Callable[[], Any]]:
    """A crowd in that state; each call lets it go on, and gives what it says next."""
    with subprocess.Popen(
        [sys.executable, CROWD, lab.address, str(port), str(count), state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **lab.env},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def heard() -> Any:
            return json.loads(stdout.readline())

        def go_on() -> Any:
            stdin.write("\n")
            stdin.flush()
            return heard()

        assert heard() == {"ready": count}
        try:
            yield go_on
        finally:
            process.kill()


def held(lab: Lab) -> dict[str, int]:
    """Descriptors of each layer, without those of the regions that it maps: one for each. (Which
    layers' regions it maps depends on what it has met; clients' are looked for by themselves.)"""
    found = {}
    pool = str(lab.run.pool_dir.resolve())  # it may be a link to another tmpfs
    for name, pid in lab.layers.items():
        found[name] = 0
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found[name] += pool not in os.readlink(fd)
    return found


def sockets(lab: Lab) -> dict[str, Any]:
    status: dict[str, Any] = lab.layer_status("socket")["core"]
    return status


@pytest.fixture
def clean(lab: Lab, port: int, poll: Any) -> dict[str, int]:
    """What is held when a client has been there, and has gone."""
    with crowd(lab, port, 1, "polled") as go_on:
        go_on()
        go_on()
    poll(lab.empty, 60.0, "nothing is left of one client")
    poll(lambda: _no_region_of_clients(lab), 60.0, "its region is gone")
    return held(lab)


def _no_region_of_clients(lab: Lab) -> bool:
    """Clients' regions have even numbers; nobody maps one, nor a file that is gone."""
    pool = str(lab.run.pool_dir.resolve())
    for pid in lab.layers.values():
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if pool in line:
                path = line.split(maxsplit=5)[5]
                if path.endswith("(deleted)") or not int(Path(path).name, 16) & 1:
                    return False
    return all(int(path.name, 16) & 1 for path in lab.run.pool_dir.iterdir())


def leaves_nothing(lab: Lab, clean: dict[str, int], poll: Any) -> None:
    poll(lab.empty, 60.0, "a socket, a slot or a client is left")
    poll(lambda: _no_region_of_clients(lab), 60.0, "a region or a mapping is left")
    more: dict[str, int] = {}

    def no_more() -> bool:
        more.clear()
        more.update({k: n - clean[k] for k, n in held(lab).items() if n > clean[k]})
        return not more

    try:
        poll(no_more, 60.0, "a descriptor is left")
    finally:
        assert not more


def test_five_hundred_clients(
    lab: Lab, ports: Iterator[int], clean: dict[str, int], poll: Any
) -> None:
    with crowd(lab, next(ports), CLIENTS, "idle") as go_on:
        told = sockets(lab)
        assert told["clients"] == CLIENTS + 1
        assert told["files"] == 2 * CLIENTS + 1
        assert go_on() == {"killed": True}
        poll(lambda: sockets(lab)["clients"] == 1, 60.0, "the clients have gone")
        assert go_on() == {"gone": True}
    leaves_nothing(lab, clean, poll)


def test_clients_killed_in_a_call_leave_nothing(
    lab: Lab, ports: Iterator[int], clean: dict[str, int], poll: Any
) -> None:
    for state in ("connect", "recv", "send", "listener", "polled"):
        with crowd(lab, next(ports), 5, state) as go_on:
            assert sockets(lab)["clients"] == 6, state
            assert go_on() == {"killed": True}
            poll(lambda: sockets(lab)["clients"] == 1, 60.0, f"{state}: the clients have gone")
            poll(lambda: sockets(lab)["waiting"] == 0, 60.0, f"{state}: their calls have ended")
            assert go_on() == {"gone": True}
        poll(lab.empty, 60.0, f"{state}: a socket, a slot or a client is left")
    leaves_nothing(lab, clean, poll)
