# SPDX-License-Identifier: MIT
"""For the tests that send nonsense: a lab for each."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SKBUS = Path(sys.executable).with_name("skbus")


@pytest.fixture
def lab() -> Iterator[dict[str, Any]]:
    """What `skbus lab up` says of it."""
    name = f"fuzz{os.getpid()}"
    try:
        done = subprocess.run(
            [SKBUS, "lab", "up", "--name", name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.splitlines()[-1])
    finally:
        subprocess.run([SKBUS, "lab", "down", "--name", name], check=False, capture_output=True)
