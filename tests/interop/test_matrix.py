# SPDX-License-Identifier: MIT
"""Some cells of the interoperability matrix (`matrix.py` has them all): transfers over a bad link,
hashed, both ways, and of Linux alone over the same link."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

MATRIX = Path(__file__).with_name("matrix.py")


@pytest.mark.slow
def test_every_byte_over_bad_links(tmp_path: Path, need: Callable[..., None]) -> None:
    need("ethtool")
    found = tmp_path / "matrix.json"
    done = subprocess.run(
        [sys.executable, str(MATRIX), "--quick", "--json", str(found)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads(found.read_text())
    assert len(cells) == 2
    for cell in cells:
        assert not cell["errors"]
        assert cell["hashes"] == 3 * cell["cell"]["flows"]
        assert set(cell["goodput"]) == {"linux-skbus", "skbus-linux", "linux-linux"}
    # The bridge did what it should, to each of the three.
    lossy, disordered = cells
    assert all(did["lost"] for did in lossy["bridge"].values())
    assert all(did["reordered"] and did["duplicated"] for did in disordered["bridge"].values())
    assert not any(did["failed"] for cell in cells for did in cell["bridge"].values())
