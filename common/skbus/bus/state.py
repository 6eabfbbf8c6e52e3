# SPDX-License-Identifier: MIT
"""The processes of a run directory: RUN/state.json, which the supervisor writes and commands read.

    {"boot": ..., "supervisor": [pid, start], "layers": {"tcp": [pid, start], ...},
     "others": {"peer": [pid, start]}, "lab": {"name": ..., "namespaces": [...]}}

A module of its own, because commands that only look for a process must not wait for pydantic.
"""

import json
from pathlib import Path
from typing import Any, Final

from skbus.bus.linux import Pid
from skbus.bus.private import ReservedFile
from skbus.bus.rundir import RunDir

NAME: Final = "state.json"
_SIZE: Final = 16384
"""Bytes; a stack of 64 processes has a state of 5,000."""
_NOBODY: Final = Pid(0, -1)


def boot_id() -> str:
    """The id of this boot of the machine: pids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class StateFile:
    """state.json for the supervisor. It has its room from the beginning, so it is up to date even
    when the file system is full. OSError where there is no room at the start."""

    def __init__(self, run: RunDir) -> None:
        self._file = ReservedFile(run.path / NAME, _SIZE)

    def write(self, state: dict[str, Any]) -> None:
        """Write it, whole or not at all."""
        self._file.write(json.dumps({"boot": boot_id(), **state}, indent=1).encode())

    def close(self) -> None:
        """Write no more; the file stays."""
        self._file.close()


def read_state(run: RunDir) -> dict[str, Any] | None:
    """The state that the supervisor wrote last; None if none has run here. Pids become `Pid`s;
    those of an earlier boot are not alive."""
    try:
        text = run.read_text(NAME)
    except FileNotFoundError:
        return None
    if not text.strip("\n\0"):
        return None  # the supervisor is just starting
    state: dict[str, Any] = json.loads(text)
    same = state.get("boot", boot_id()) == boot_id()
    state["supervisor"] = Pid(*state["supervisor"]) if same else _NOBODY
    for kind in ("layers", "others"):
        state[kind] = {k: Pid(*v) if v and same else None for k, v in state[kind].items()}
    return state
