# SPDX-License-Identifier: MIT
"""What is set in a running process, and holds for its next life, too: sysctls, the log level, the
link's impairment.

A process notes each setting in RUN/journal/PROCESS.settings, and makes them all again when it is
started anew, before its first packet. A new stack begins without any: its supervisor clears them
away.

Called by the control socket (`skbus.bus.ctl`), whose methods they are.
"""

import json
from typing import Any, Final

from skbus.bus.rundir import RunDir

_SUFFIX: Final = ".settings"


class Settings:
    """The settings of one process, by its run directory."""

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
        """A setting has been made; it takes the place of an earlier one of its kind. OSError where
        it cannot be written down: then it ends with the process."""
        key = _key(method, argument)
        self._made.pop(key, None)
        self._made[key] = (method, argument)
        self._run.write_text(self._name, json.dumps(list(self._made.values())))


def _key(method: str, argument: Any) -> str:
    """What of two settings are one: sysctl_set's argument begins with the name."""
    return f"{method} {argument[0]}" if isinstance(argument, list | tuple) else method


def clear(run: RunDir) -> None:
    """Forget the settings of a stack that ran here before."""
    for file in run.journal_dir.glob(f"*{_SUFFIX}"):
        file.unlink(missing_ok=True)
