# SPDX-License-Identifier: MIT
"""Whether the processes of a stack answer. `skbus health` for people; `python -m skbus.health
[LAYER]` for checks that run every few seconds, without the imports of the whole command line.
"""

import sys

from skbus.ctl import ControlError, ctl_call
from skbus.rundir import RunDir, RunDirError


def processes(run: RunDir, layer: str | None = None) -> list[str]:
    """The processes that are meant: "nic" is each nic, None all. RunDirError if there is none."""
    run.require()
    found = [p for p in run.processes() if layer is None or layer in (p, p.split(".")[0])]
    if not found:
        have = ", ".join(run.processes()) or "none: is the stack up?"
        raise RunDirError(f"no process {layer or ''} in {run.path}; there are: {have}")
    return found


def check(run: RunDir, layer: str | None = None, seconds: float = 5.0) -> dict[str, int]:
    """The life that each process is in, by its answer. ControlError for one that gives none."""
    return {p: ctl_call(run, p, "ping", seconds=seconds)["epoch"] for p in processes(run, layer)}


def main(argv: list[str]) -> int:
    """`python -m skbus.health [LAYER]`: exit status 0 or 1."""
    try:
        check(RunDir(), argv[0] if argv else None)
    except (ControlError, RunDirError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
