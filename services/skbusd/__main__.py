# SPDX-License-Identifier: MIT
"""`skbusd LAYER` and `python -m skbusd LAYER`."""

import sys
from collections.abc import Callable

from skbus.stack import interrupt


def main() -> int:
    """The entry point: can be interrupted before anything heavy is imported."""
    return int(interrupt.run(_load))


def _load() -> Callable[[], int]:
    from skbusd.cli import main

    return main


if __name__ == "__main__":
    sys.exit(main())
