# SPDX-License-Identifier: MIT
"""No modules import each other in a circle, but those that `CIRCLES` names, each with a reason.

What counts is what is imported when the program runs: at the head of a module, or within a
function. What stands under `if TYPE_CHECKING` is for mypy alone.

    python tests/test_circles.py [ROOT]     prints all circles of a tree, this one or another
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TOPS: Final = ("common/skbus", "common/skbustest", "services/skbusd")

Graph = Mapping[str, set[str]]

CIRCLES: Final[Mapping[frozenset[str], str]] = {
    frozenset(
        f"skbusd.ip.{name}"
        for name in (
            "icmp", "igmp", "inet_sock", "ip_forward", "ip_fragment", "ip_input", "ip_output",
            "ping", "raw", "route",
        )
    ): (
        "Linux's own: a route names the functions that it leads to, each of these may have to send"
        " an ICMP error, and that needs a route. `skbusd/ip/core.py` has the reason for each."
    ),
}  # fmt: skip
"""The circles that may be, each with its reason."""


def modules(root: Path) -> dict[str, Path]:
    """All modules of a tree by their names; a package by its own."""
    found = {}
    for top in TOPS:
        base = (root / top).parent
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements below a node that are carried out when the program runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _statements(other)
        else:
            yield from _statements(child)


def imported(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules, of those known, that one imports."""
    found: set[str] = set()
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, *filter(None, [node.module])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            found.add(full if full in known else base)
    return {module for module in found if module in known and module != name}


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> what it imports."""
    known = modules(root)
    return {name: imported(name, path, known) for name, path in known.items()}


def reachable(arrows: Graph, start: str) -> set[str]:
    """All that can be come to from a module by at least one arrow."""
    seen: set[str] = set()
    rest = list(arrows[start])
    while rest:
        name = rest.pop()
        if name not in seen:
            seen.add(name)
            rest += arrows[name]
    return seen


def circles(arrows: Graph) -> list[frozenset[str]]:
    """The largest sets of modules each of which leads to all others, by their first name."""
    below = {name: reachable(arrows, name) for name in arrows}
    found = {
        frozenset(other for other in below[name] if name in below[other])
        for name in arrows
        if name in below[name]
    }
    return sorted(found, key=lambda circle: min(circle))


def report(arrows: Graph) -> str:
    """The circles, and the arrows of each."""
    lines = []
    for circle in circles(arrows):
        count = sum(len(arrows[name] & circle) for name in circle)
        lines.append(f"{len(circle)} modules, {count} arrows")
        lines += [
            f"  {name} -> {', '.join(sorted(arrows[name] & circle))}" for name in sorted(circle)
        ]
    return "\n".join(lines) or "no circles"


def test_no_circle_but_those_with_a_reason() -> None:
    arrows = graph(ROOT)
    found = circles(arrows)
    assert [circle for circle in found if circle not in CIRCLES] == [], "\n" + report(arrows)


def test_what_is_allowed_is_there() -> None:
    """A circle that has been cut must not come back unseen."""
    found = circles(graph(ROOT))
    assert [sorted(circle) for circle in CIRCLES if circle not in found] == []


def test_circles_are_found(tmp_path: Path) -> None:
    """At the head of a module and within a function, by each kind of statement; not for types."""
    package = tmp_path / "common/skbus"
    package.mkdir(parents=True)
    for top in TOPS[1:]:
        (tmp_path / top).mkdir(parents=True)
    texts = {
        "__init__": "",
        "a": "from skbus import b\n",
        "b": "def f():\n    from . import c\n",
        "c": "import skbus.a\n",
        "d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from skbus import e\n",
        "e": "from skbus.d import x\n",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    assert circles(graph(tmp_path)) == [frozenset({"skbus.a", "skbus.b", "skbus.c"})]


if __name__ == "__main__":
    tree = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    sys.stdout.write(report(graph(tree)) + "\n")
