# SPDX-License-Identifier: MIT
"""mutants.toml, as far as reading can tell; `make mutants` runs it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from run import PAGE, ROOT, Module, modules


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_what_is_explained_is_there(module: Module) -> None:
    """A line that has changed, or has moved to another function, needs its reason anew."""
    source = (ROOT / module.source).read_text()
    assert [test for test in module.tests if not (ROOT / test).is_file()] == []
    for found in module.explained:
        body = source.split(f"def {found.function}(")[1].split("\ndef ")[0]
        flat = " ".join(line.strip() for line in body.splitlines())
        assert found.old in flat, found


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_the_page_has_each_reason(module: Module) -> None:
    page = PAGE.read_text()
    assert [found for found in module.explained if found.why not in page] == []
