# SPDX-License-Identifier: MIT
"""Imports without what a library imports for its own convenience, where a process's start waits."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Within, these modules are as if they were not installed, unless they are loaded already.
    Other threads must not import them meanwhile."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
