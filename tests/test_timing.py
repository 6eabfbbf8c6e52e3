# SPDX-License-Identifier: MIT
"""What `make quick` leaves out is there, and what it keeps is a part of everything."""

import ast
import json
import re
from pathlib import Path

import pytest
from tests import timing

ROOT = timing.TESTS.parent
LONG: dict[str, float] = json.loads(timing.RECORD.read_text())


def functions(path: Path) -> set[str]:
    """The tests of a file, in the record's words."""
    file = path.relative_to(timing.TESTS)
    return {
        f"{file}::{node.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_record_names_what_there_is() -> None:
    files = {timing.TESTS / name.partition("::")[0] for name in LONG}
    missing = [str(file) for file in files if not file.exists()]
    assert not missing, "record anew: make durations"
    known = set().union(*map(functions, files))
    assert set(LONG) - known == set(), "record anew: make durations"


@pytest.mark.parametrize(
    "part",
    [
        "common/core", "common/inet", "common/bus", "common/app", "common/stack", "common/cli",
        "services/nic", "services/ip", "services/udp", "services/tcp", "services/socket", "sim",
        "common/bus/test_codec.py", "common/app/test_socket.py",
    ],
)  # fmt: skip
def test_quick_has_tests_of_every_part(part: str) -> None:
    where = timing.TESTS / part
    files = [where] if where.is_file() else sorted(where.rglob("test_*.py"))
    kept = {name for path in files for name in functions(path)} - set(LONG)
    assert len(kept) >= 5


def test_the_guide_has_the_budgets() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    section = guide[guide.index("## How long tests take") :]
    told = [float(number) for number in re.findall(r"\| (\d+) s \|", section)]
    assert told == list(timing.BUDGETS.values())
    assert f"more than {timing.LONG:g} s" in section


def test_the_record_is_of_functions() -> None:
    name = timing.function_of("tests/sim/test_pmtu.py::test_a_stream_gets_through[68-1]")
    assert name == "sim/test_pmtu.py::test_a_stream_gets_through"


def test_what_has_run_is_recorded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TESTS", tmp_path)
    monkeypatch.setattr(timing, "RECORD", tmp_path / "durations.json")
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).touch()
    before = {"test_a.py::test_one": 9.0, "test_b.py::test_kept": 1.0, "test_c.py::test_gone": 1.0}
    (tmp_path / "durations.json").write_text(json.dumps(before))
    timing.record(
        [
            ("unit", "tests/test_a.py::test_one", 0.1),
            ("unit", "tests/test_a.py::test_two[1]", 0.2),
            ("unit", "tests/test_a.py::test_two[2]", 0.2),
        ]
    )
    after = json.loads((tmp_path / "durations.json").read_text())
    assert after == {"test_a.py::test_two": 0.4, "test_b.py::test_kept": 1.0}
