# SPDX-License-Identifier: MIT
"""Each option of each command has a test that gives it.

A guard: for each option that `--help` shows there must be a test function, in one of the files
that are about the command, with the command's name and the option among its words. What the option
does is for that test to see.
"""

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from skbus.cli import app
from skbusd.cli import _parser

TESTS: Final = Path(__file__).parents[2]

FILES: Final[dict[str, tuple[str, ...]]] = {
    "skbus": ("common/cli/test_width.py",),
    "skbusd": ("services/test_skbusd.py", "common/cli/test_width.py"),
    "logs": ("common/cli/test_logs.py",),
    "status": ("common/cli/test_inspect.py",),
    "counters": ("common/cli/test_inspect.py",),
    "log-level": ("common/cli/test_inspect.py",),
    "health": ("common/cli/test_inspect.py", "common/cli/test_app.py"),
    "barrier": ("common/cli/test_inspect.py",),
    "proc": ("common/cli/test_inspect.py",),
    "sysctl": ("common/cli/test_inspect.py",),
    "abi": ("test_messages.py",),
    "insmod": ("common/cli/test_inspect.py",),
    "rmmod": ("common/cli/test_inspect.py",),
    "lsmod": ("common/cli/test_inspect.py",),
    "demo": ("common/cli/test_demo.py",),
    "packetdrill": ("packetdrill/test_cli.py",),
    "load": ("load/test_cli.py", "load/test_load.py"),
    "serve": ("common/cli/test_serve.py", "common/cli/test_app.py"),
    "up": ("common/cli/test_up_options.py", "common/cli/test_up.py", "common/cli/test_app.py"),
    "lab up": (
        "common/cli/test_up_options.py",
        "common/stack/test_lab.py",
        "common/cli/test_app.py",
    ),
    "lab exec": ("common/stack/test_lab.py",),
    "lab status": ("common/stack/test_lab.py", "common/cli/test_app.py"),
    "lab list": ("common/cli/test_up_options.py", "common/stack/test_lab.py"),
    "lab down": ("common/cli/test_up_options.py", "common/stack/test_lab.py"),
}
DEDICATED: Final = {
    "common/cli/test_logs.py": "logs",
    "packetdrill/test_cli.py": "packetdrill",
    "services/test_skbusd.py": "skbusd",
    "load/test_load.py": "load",
    "load/test_cli.py": "load",
    "common/cli/test_serve.py": "serve",
    "common/stack/test_lab.py": "lab",
    "common/cli/test_up.py": "up",
}
"""Files all of whose tests are about one command, or one group: they need not name it each time."""
SHELL: Final = {"--install-completion", "--show-completion", "--help", "-h"}
"""Typer's own: help is in test_width.py, completion in `test_completion_is_installed`."""


def options() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(command, all names of one option)"""

    def walk(path: list[str], command: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
        for param in command.params:
            names = (*param.opts, *param.secondary_opts)
            if names[0].startswith("-") and not SHELL & set(names):
                yield " ".join(path) or "skbus", names
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk([*path, name], inner)

    yield from walk([], typer.main.get_command(app.app))
    for action in _parser()._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            yield "skbusd", tuple(action.option_strings)


def commands() -> set[str]:
    """All commands, also those without options."""

    def walk(path: list[str], command: Any) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if not inner:
            yield " ".join(path)
        for name, sub in inner.items():
            yield from walk([*path, name], sub)

    return {"skbus", "skbusd", *walk([], typer.main.get_command(app.app))}


def words(node: ast.AST) -> set[str]:
    """All words of all strings below a node."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            found.update(word.partition("=")[0] for word in inner.value.split())
    return found


def words_of_tests(file: Path) -> Iterator[tuple[str, set[str]]]:
    """(name, its words) of each test of a file: its parameters' too, and those of the functions and
    constants of the file that it names."""
    tree = ast.parse(file.read_text())
    named: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named.update({t.id: node for t in targets if isinstance(t, ast.Name)})
    for name, found in named.items():
        if name.startswith("test_"):
            used = {n.id for n in ast.walk(found) if isinstance(n, ast.Name)}
            used |= {a.arg for a in ast.walk(found) if isinstance(a, ast.arg)}
            helpers = [words(named[other]) for other in used & set(named) - {name}]
            yield name, words(found).union(*helpers)


def missing() -> set[str]:
    """Options that no test gives."""
    found = {file: list(words_of_tests(TESTS / file)) for files in FILES.values() for file in files
             if (TESTS / file).exists()}  # fmt: skip
    out = set()
    for command, names in options():
        given = False
        for file in FILES[command]:
            about = set() if DEDICATED.get(file) == command else set(command.split())
            about -= {DEDICATED.get(file, "")}
            if command in ("skbus", "skbusd"):
                about = set()
            given |= any(
                about <= said and not said.isdisjoint(names) for _, said in found.get(file, ())
            )
        if not given:
            out.add(f"{command} {names[0]}")
    return out


def test_each_option_has_a_test() -> None:
    assert not missing()


def test_each_command_is_known_here() -> None:
    assert commands() == set(FILES)


def test_the_guard_sees_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "status", ("common/bus/test_names.py",))
    assert {"status --layer", "status --json"} <= missing()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """`skbus --install-completion SHELL`, and what `--show-completion` prints."""
    env = {**os.environ, "HOME": str(tmp_path), "SHELL": f"/bin/{shell}"}
    skbus = Path(sys.executable).with_name("skbus")
    done = subprocess.run(
        [skbus, "--install-completion", shell], env=env, capture_output=True, text=True, check=True
    )
    assert "completion installed" in done.stdout
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any("skbus" in p.read_text() for p in written)
    shown = subprocess.run(
        [skbus, "--show-completion", shell], env=env, capture_output=True, text=True, check=True
    )
    assert "_SKBUS_COMPLETE" in shown.stdout
