# SPDX-License-Identifier: MIT
"""The tests mirror the tree: what tests one module of a package lies in the package's folder."""

from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
ROOT: Final = TESTS.parent
LIBRARY: Final = {"app", "bus", "cli", "core", "inet", "load", "serve", "stack"}
"""The packages of `common/skbus` whose tests lie in `tests/common`. Those of packetdrill lie beside
its scripts, and those of the public faces lie with the package that they lead to."""


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}


WINGS: Final = {name: modules(ROOT / "common/skbus" / name) for name in LIBRARY} | {
    "skbustest": modules(ROOT / "common/skbustest"),
    "inet/headers": modules(ROOT / "common/skbus/inet/headers"),
}
LAYERS: Final = {"ip", "nic", "socket", "tcp", "udp"}


def misplaced(tests: Path, packages: dict[str, set[str]]) -> list[str]:
    """Files that are named after a module, and not in the folder of a package that has it."""
    found = []
    for package in packages:
        for path in sorted((tests / package).glob("test_*.py")):
            module = path.stem.removeprefix("test_")
            where = sorted(name for name, known in packages.items() if module in known)
            if where and package not in where:
                found.append(f"{path.relative_to(tests)}: {module} is a module of {where}")
    return found


def test_a_file_is_where_its_module_is() -> None:
    assert misplaced(TESTS / "common", WINGS) == []


def test_each_folder_is_a_package() -> None:
    folders = {p.parent.relative_to(TESTS / "common") for p in TESTS.glob("common/**/test_*.py")}
    assert {str(folder) for folder in folders} <= set(WINGS)
    assert {p.parent.name for p in TESTS.glob("services/*/test_*.py")} == LAYERS


def test_a_file_that_is_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core/test_codec.py").touch()
    (tmp_path / "core/test_pool.py").touch()
    assert misplaced(tmp_path, WINGS) == ["core/test_codec.py: codec is a module of ['bus']"]
