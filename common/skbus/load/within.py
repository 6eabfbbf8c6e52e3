# SPDX-License-Identifier: MIT
"""`python -m skbus.load.within RUN COMMAND...`: run a command in a lab's peer namespace (RUN "-":
here).

The command ends when our standard input does. That is when the process that started us ends.

Started by `skbus.load.faults` for a scenario's commands: a flood must not outlive its test.
"""

import os
import select
import signal
import subprocess
import sys

from skbus.bus.rundir import RunDir
from skbus.stack import lab


def main(run: str, argv: list[str]) -> int:
    """Returns the command's exit status; 0 if it was ended by us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if run != "-":
        lab.enter(RunDir(run))
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    except OSError as e:
        sys.stderr.write(f"{argv[0]}: {e.strerror}\n")
        return 127
    pidfd = os.pidfd_open(child.pid)
    ready = select.select([0, pidfd], [], [])[0]
    if pidfd in ready:
        return child.wait()
    child.terminate()
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
