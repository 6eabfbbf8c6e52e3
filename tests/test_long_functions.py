# SPDX-License-Identifier: MIT
"""No function is longer than 60 lines, but those that `long_functions.toml` gives a reason for.

    python tests/test_long_functions.py     the functions of more than 60 lines, longest first

From `def` to the last line, with the docstring.
"""

import ast
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
REASONS: Final = Path(__file__).with_name("long_functions.toml")
TOPS: Final = ("common", "services")
LONGEST: Final = 60
"""Lines of a function that needs no reason."""


def functions(path: Path) -> dict[str, int]:
    """Each function of a file, `Class.name` of a method, and its lines."""
    found: dict[str, int] = {}

    def walk(node: ast.AST, within: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = within
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{within}.{child.name}" if within else child.name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[name] = (child.end_lineno or child.lineno) - child.lineno + 1
            walk(child, name)

    walk(ast.parse(path.read_text()), "")
    return found


def long_functions(root: Path) -> dict[str, int]:
    """`FILE:FUNCTION` and its lines, for those that are too long."""
    return {
        f"{path.relative_to(root)}:{name}": lines
        for top in TOPS
        for path in sorted((root / top).rglob("*.py"))
        for name, lines in functions(path).items()
        if lines > LONGEST
    }


def reasons() -> dict[str, str]:
    """`FILE:FUNCTION` and why it may be long."""
    data: dict[str, dict[str, str]] = tomllib.loads(REASONS.read_text())
    return {f"{file}:{name}": why for file, names in data.items() for name, why in names.items()}


def test_a_long_function_has_a_reason() -> None:
    known = reasons()
    found = [f"{name}, {n} lines" for name, n in long_functions(ROOT).items() if name not in known]
    assert not found, (
        f"more than {LONGEST} lines: split them; or, where the whole is one thing that reads best"
        f" in one piece, say so in {REASONS.name}\n" + "\n".join(found)
    )


def test_a_reason_has_its_long_function() -> None:
    """What has become shorter must not grow again unseen."""
    assert reasons().keys() - long_functions(ROOT).keys() == set()


def test_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("class A:\n    def f(self):\n        def g(): pass\n        return g\n")
    assert functions(file) == {"A.f": 3, "A.f.g": 1}


if __name__ == "__main__":
    for place, count in sorted(long_functions(ROOT).items(), key=lambda each: -each[1]):
        sys.stdout.write(f"{count:4} {place}\n")
