# SPDX-License-Identifier: MIT
"""`python -m skbus.load.child MODULE JOB`: a server or worker of a load, where it belongs.

It enters the lab before it imports its module. numpy starts threads when it is imported, and a
process with several threads cannot enter another user namespace.
"""

import json
import sys
from importlib import import_module

from skbus.load import place
from skbus.stack.lab import LabError


def main(module: str, job: str) -> None:
    """Run `skbus.load.MODULE`'s `start`. Exit status 1 and a line of text where that cannot be."""
    given = json.loads(job)
    try:
        place.prepare(given)
    except LabError as e:
        sys.exit(f"skbus load: {e}")
    import_module(f"skbus.load.{module}").start(given)


if __name__ == "__main__":
    main(*sys.argv[1:])
