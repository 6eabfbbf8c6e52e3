# SPDX-License-Identifier: MIT
"""`python -m skbus.stack.enter RUN peer|stack COMMAND...`: `skbus lab exec`, for programs that
enter a lab a thousand times: it does without the imports of the command line.
"""

import sys
from pathlib import Path

from skbus.bus.rundir import RunDir, RunDirError
from skbus.stack.lab import LabError, exec_


def prefix(run: Path, where: str) -> list[str]:
    """What to put before a command that is to run in a lab's namespace: "peer" or "stack"."""
    return [sys.executable, "-P", "-m", "skbus.stack.enter", str(run), where]


def main(argv: list[str]) -> int:
    """Does not return where all is well."""
    run, where, *command = argv
    try:
        exec_(RunDir(run), command, where == "stack")
    except FileNotFoundError:
        sys.stderr.write(f"no such command: {command[0]}\n")
        return 127
    except (LabError, RunDirError, OSError) as e:
        sys.stderr.write(f"{e}\n")
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
