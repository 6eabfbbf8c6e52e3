# SPDX-License-Identifier: MIT
"""The wings of the code and who may import whom: what `walls.toml` says, held against every import.

    python tests/walls.py          what breaks a rule, with its line and the remedy
    python tests/walls.py --draw   draws docs/architecture.md's picture and table anew

Every import counts: at the head of a module, within a function, under `if TYPE_CHECKING`, and
`import_module` of a name that is written out. `tests/test_walls.py` is the test.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
RULES: Final = Path(__file__).with_name("walls.toml")
PAGE: Final = ROOT / "docs" / "architecture.md"
TOPS: Final = ("common/skbus", "common/skbustest", "services/skbusd")
BEGIN: Final = "<!-- the wings: drawn by `python tests/walls.py --draw` -->"
END: Final = "<!-- the end of the wings -->"


@dataclass(frozen=True)
class Wing:
    """A set of modules. See `walls.toml` for the fields."""

    name: str
    what: str
    modules: tuple[str, ...]
    may: frozenset[str]
    apart: bool
    pure: bool


class Import(NamedTuple):
    """One name that a module imports; `what` is a module, or a name in `module`."""

    line: int
    module: str
    what: str


class Rules:
    """What `walls.toml` says."""

    def __init__(self, text: str) -> None:
        data: dict[str, Any] = tomllib.loads(text)
        self.wings = {
            name: Wing(
                name,
                each["is"],
                tuple(each["modules"]),
                frozenset(each["may"]),
                each.get("apart", False),
                each.get("pure", False),
            )
            for name, each in data["wing"].items()
        }
        self.pure = frozenset(data["pure"]["modules"])
        self.pure_names = frozenset(data["pure"]["names"])
        self.outside: Mapping[str, list[str]] = data["outside"]
        unknown = {may for wing in self.wings.values() for may in wing.may} - self.wings.keys()
        assert not unknown, f"walls.toml: no such wing: {', '.join(sorted(unknown))}"

    @cached_property
    def prefixes(self) -> dict[str, Wing]:
        """Module or package -> its wing."""
        return {module: wing for wing in self.wings.values() for module in wing.modules}

    def floors(self) -> dict[str, int]:
        """How high a wing stands: one above the highest that it may import."""
        found: dict[str, int] = {}
        while len(found) < len(self.wings):
            ready = [
                w for w in self.wings.values() if w.name not in found and w.may <= found.keys()
            ]
            assert ready, f"walls.toml: a circle in {self.wings.keys() - found.keys()}"
            found |= {w.name: 1 + max((found[m] for m in w.may), default=-1) for w in ready}
        return found

    def place(self, module: str) -> tuple[Wing, str] | None:
        """A module's wing, and the entry of `modules` that says so."""
        name = module
        while name:
            if name in self.prefixes:
                return self.prefixes[name], name
            name = name.rpartition(".")[0]
        return None

    def broken(self, module: str, found: Import, known: Mapping[str, Path]) -> str | None:
        """The rule that an import breaks, and the remedy; None where it is allowed."""
        here = self.place(module)
        assert here is not None, f"{module} is in no wing: add it to tests/walls.toml"
        wing, part = here
        there = self.place(found.module) if found.module in known else None
        if there is None:
            return self._outside(wing, found)
        other, other_part = there
        if other is wing:
            if part == other_part or not wing.apart:
                return None
            return (
                f"{part} imports {found.module}: the parts of {wing.name} do not import each other."
                f" Put what both need into {_below(wing)}"
            )
        if other.name in wing.may:
            return None
        return (
            f"{wing.name} imports {other.name} ({found.module}): {wing.name} may import "
            f"{_listed(sorted(wing.may)) or 'no wing'}. Put what it needs into {_below(wing)}, move"
            f" {module} to another wing, or have its caller pass it in"
        )

    def _outside(self, wing: Wing, found: Import) -> str | None:
        top = found.module.split(".")[0]
        if wing.pure and top not in self.pure and found.what not in self.pure_names:
            return (
                f"{wing.name} imports {found.what}: {wing.name} does no I/O and asks no clock. Let"
                " the shell do it (bus, or the layer's main.py) and pass the result in; or, if it"
                " is harmless, add it to [pure] in tests/walls.toml"
            )
        only = self.outside.get(top)
        if only is not None and wing.name not in only:
            return (
                f"{wing.name} imports {top}: that is for {_listed(only)} alone. Call what is there"
            )
        return None


def _below(wing: Wing) -> str:
    return _listed(sorted(wing.may), "or") or f"{wing.name} itself"


def _listed(names: list[str], word: str = "and") -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


# ---- what is imported ---------------------------------------------------------------------------


def modules(root: Path) -> dict[str, Path]:
    """All modules of a tree by their names; a package by its own."""
    found = {}
    for top in TOPS:
        base = (root / top).parent
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    """All that a module imports, wherever in it."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(node.lineno, full if full in known else base, full)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(node.lineno, str(first.value), str(first.value))


def check(rules: Rules, root: Path) -> list[str]:
    """Every import that breaks a rule: file, line, rule, remedy."""
    known = modules(root)
    return [
        f"{path.relative_to(root)}:{found.line}: {broken}"
        for name, path in known.items()
        for found in imports(name, path, known)
        if (broken := rules.broken(name, found, known))
    ]


if __name__ == "__main__":
    broken = check(Rules(RULES.read_text()), ROOT)
    sys.stdout.write("".join(f"{line}\n" for line in broken) or "every import keeps the rules\n")
    sys.exit(bool(broken))
