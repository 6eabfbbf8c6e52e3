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
END: Final = "<!-- end of the wings -->"


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


# ---- the picture --------------------------------------------------------------------------------

WIDTH: Final = 76
GAP: Final = 4
"""Columns between two names of a floor."""
UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
LINES: Final = " ╵╷│╴┘┐┤╶└┌├─┴┬┼"
"""A character for each sum of directions."""


class Node(NamedTuple):
    """A wing on its floor, or the line that leads down to it past a floor between."""

    wing: str
    floor: int


class Picture:
    """The wings on their floors, and lines down to what they import.

    Lines that are implied by others are left out: what a wing's wings may import. Lines to the
    same wing run together; those to different wings cross like │ between ─ and ─.
    """

    def __init__(self, rules: Rules) -> None:
        self.floors = rules.floors()
        self.below = {name: self._direct(rules, name) for name in rules.wings}
        self.arrows: dict[Node, list[Node]] = {}
        for name, targets in self.below.items():
            for target in targets:
                self._add(Node(name, self.floors[name]), target)
        self.x: dict[Node, int] = {}
        for floor in range(max(self.floors.values()) + 1):
            self._place([node for node in self._nodes(rules) if node.floor == floor])

    @staticmethod
    def _direct(rules: Rules, name: str) -> list[str]:
        may = rules.wings[name].may
        implied = {other for wing in may for other in rules.wings[wing].may}
        return [other for other in rules.wings if other in may - implied]

    def _add(self, node: Node, target: str) -> None:
        """The line from a node to a wing: floor by floor."""
        while node.floor > self.floors[target]:
            under = Node(target, node.floor - 1)
            if under not in self.arrows.setdefault(node, []):
                self.arrows[node].append(under)
            node = under

    def _nodes(self, rules: Rules) -> list[Node]:
        """In the order of the rules, lines behind the names of their wings."""
        nodes = {Node(name, floor) for name, floor in self.floors.items()} | self.arrows.keys()
        order = list(rules.wings)
        return sorted(nodes, key=lambda node: (order.index(node.wing), node.floor))

    def _text(self, node: Node) -> str:
        return node.wing if self.floors[node.wing] == node.floor else "│"

    def _place(self, nodes: list[Node]) -> None:
        """Put a floor's nodes above what they lead to, as near as their widths allow."""
        wanted = {}
        for node in nodes:
            under = [self.x[other] for other in self.arrows.get(node, ())]
            wanted[node] = sum(under) / len(under) if under else WIDTH / 2
        nodes = sorted(nodes, key=lambda node: wanted[node])
        at = 0.0
        for node in nodes:
            half = len(self._text(node)) / 2
            at = max(wanted[node], at + half)
            self.x[node] = int(at)
            at += half + GAP
        surplus = sum(self.x[node] - wanted[node] for node in nodes) / len(nodes)
        first = self.x[nodes[0]] - len(self._text(nodes[0])) // 2
        for node in nodes:
            self.x[node] -= int(min(max(surplus, 0), first))

    def lines(self) -> Iterator[str]:
        """The picture from top to bottom."""
        for floor in range(max(self.floors.values()), -1, -1):
            row = [" "] * WIDTH
            here = [node for node in self.x if node.floor == floor]
            for node in here:
                text = self._text(node)
                start = self.x[node] - len(text) // 2
                row[start : start + len(text)] = text
            yield "".join(row).rstrip()
            if floor:
                yield from self._between([node for node in here if node in self.arrows])

    def _between(self, sources: list[Node]) -> Iterator[str]:
        """The lines from one floor to the next."""
        rows = self._rows(sources)
        height = max(rows.values(), default=0) + 1
        cells: dict[tuple[int, int], list[tuple[bool, int]]] = {}
        for node in sources:
            start, row = self.x[node], rows[node]
            ends = [self.x[under] for under in self.arrows[node]]
            for y in range(row):
                cells.setdefault((y, start), []).append((False, UP | DOWN))
            for x in range(min(start, *ends), max(start, *ends) + 1):
                bits = (LEFT if x > min(start, *ends) else 0) | (
                    RIGHT if x < max(start, *ends) else 0
                )
                bits |= (UP if x == start else 0) | (DOWN if x in ends else 0)
                cells.setdefault((row, x), []).append((x in ends, bits))
            for y in range(row + 1, height):
                for x in ends:
                    cells.setdefault((y, x), []).append((True, UP | DOWN))
        for y in range(height):
            yield "".join(self._cell(cells.get((y, x), [])) for x in range(WIDTH)).rstrip()
        heads = {self.x[u]: self._text(u) for node in sources for u in self.arrows[node]}
        yield "".join(
            ("│" if heads[x] == "│" else "▼") if x in heads else " " for x in range(WIDTH)
        ).rstrip()

    def _rows(self, sources: list[Node]) -> dict[Node, int]:
        """The row in which each node's line turns: no two lines share a part of one."""
        taken: list[list[tuple[int, int]]] = []
        rows: dict[Node, int] = {}
        for node in sorted(sources, key=lambda node: self.x[node]):
            places = [self.x[node], *(self.x[under] for under in self.arrows[node])]
            low, high = min(places), max(places)
            row = 0
            while row < len(taken) and _near(taken[row], low, high):
                row += 1
            if row == len(taken):
                taken.append([])
            taken[row].append((low, high))
            rows[node] = row
        return rows

    @staticmethod
    def _cell(parts: list[tuple[bool, int]]) -> str:
        """Lines that end in the same place join; of others the upright one is seen."""
        if len(parts) > 1 and not all(joins for joins, _ in parts):
            upright = [bits for _, bits in parts if bits & UP and bits & DOWN]
            return LINES[upright[0] if upright else parts[0][1]]
        sum_of = 0
        for _, bits in parts:
            sum_of |= bits
        return LINES[sum_of]


def _near(taken: list[tuple[int, int]], low: int, high: int) -> bool:
    """Does a part of a row touch one that is taken?"""
    return any(low <= end + 1 and start <= high + 1 for start, end in taken)


def page(rules: Rules, root: Path) -> str:
    """The part of docs/architecture.md that is drawn: the picture and the table."""
    known = modules(root)
    lines = [BEGIN, "", "```text", *Picture(rules).lines(), "```", ""]
    lines += ["| wing | what it is | imports | holds |", "|---|---|---|---|"]
    for wing in reversed(rules.wings.values()):
        may = ", ".join(name for name in reversed(rules.wings) if name in wing.may) or "nothing"
        lines.append(f"| `{wing.name}` | {wing.what} | {may} | {_holds(wing, rules, known)} |")
    return "\n".join([*lines, "", END])


def _holds(wing: Wing, rules: Rules, known: Mapping[str, Path]) -> str:
    """The modules of a wing, without what all their names begin with; of a package with parts
    that stand apart, its parts."""
    if wing.apart:
        return " ".join(f"`{module}`" for module in wing.modules)
    found: dict[str, list[str]] = {}
    for module in wing.modules:
        here = (wing, module)
        inside = [name for name in known if rules.place(name) == here and name != module]
        inside = [name for name in inside if name.rpartition(".")[0] == module]
        top = next((top for top in found if module.startswith(f"{top}.")), None)
        if top is None:
            found[module] = inside
        else:
            found[top] += [module, *inside]
    return "; ".join(
        f"`{top}`" + (": " if names else "") + " ".join(n.removeprefix(f"{top}.") for n in names)
        for top, names in found.items()
    )


def drawn(text: str, rules: Rules, root: Path) -> str:
    """A page's text with its drawn part as it must be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"no {BEGIN}"
    assert end, f"no {END}"
    return before + page(rules, root) + after


def main(argv: list[str]) -> int:
    """The exit status: 1 where an import breaks a rule."""
    rules = Rules(RULES.read_text())
    if argv == ["--draw"]:
        PAGE.write_text(drawn(PAGE.read_text(), rules, ROOT))
        sys.stdout.write(page(rules, ROOT) + "\n")
        return 0
    broken = check(rules, ROOT)
    sys.stdout.write("".join(f"{line}\n" for line in broken) or "every import keeps the rules\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
