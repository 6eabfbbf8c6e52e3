# SPDX-License-Identifier: MIT
"""Settings of a running process that also hold for its next life: sysctls, the log level, the
link's impairment.

A process notes each setting in RUN/journal/PROCESS.settings, and makes them all again when it is
started anew, before its first packet. A new stack begins without any: its supervisor removes them.

Called by the control socket (`skbus.bus.ctl`): a setting is a call of one of its methods.
"""

import json
from typing import Any, Final

from skbus.bus.rundir import RunDir

_SUFFIX: Final = ".settings"


class Settings:
    """The settings of one process, kept in its run directory."""

    def __init__(self, run: RunDir, process: str) -> None:
        self._run = run
        self._name = f"journal/{process}{_SUFFIX}"
        self._made: dict[str, tuple[str, Any]] = {}

    def load(self) -> list[tuple[str, Any]]:
        """The settings of the process's earlier lives: (method, argument), in their order."""
        try:
            found = json.loads(self._run.read_text(self._name))
            self._made = {_key(method, argument): (method, argument) for method, argument in found}
        except (FileNotFoundError, ValueError, TypeError):  # none, or not a file of ours
            self._made = {}
        return list(self._made.values())

    def note(self, method: str, argument: Any) -> None:
        """Note a setting in the place of an earlier one of its kind. OSError where it cannot be
        written down: then it ends with the process."""
        key = _key(method, argument)
        self._made.pop(key, None)
        self._made[key] = (method, argument)
        self._run.write_text(self._name, json.dumps(list(self._made.values())))


def _key(method: str, argument: Any) -> str:
    """Settings with equal keys replace each other: sysctl_set's argument begins with the name."""
    return f"{method} {argument[0]}" if isinstance(argument, list | tuple) else method


def clear(run: RunDir) -> None:
    """Forget the settings of a stack that ran here before."""
    for file in run.journal_dir.glob(f"*{_SUFFIX}"):
        file.unlink(missing_ok=True)
