# SPDX-License-Identifier: MIT
"""Tests and tools say options of sockets by name: `SOL_TCP, TCP_NODELAY` and not `6, 1`."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
CALLS: Final = frozenset({"setsockopt", "getsockopt"})
LEVEL: Final = re.compile(r"(SOL|IPPROTO)_[A-Z]")
OPTION: Final = re.compile(r"(SO|IP|TCP|UDP|UDPLITE|MCAST|ICMP)_[A-Z]")
MADE_UP: Final = 90
"""Numbers from here on are no level and no option: tests ask for them because nothing has them."""


def name_of(node: ast.expr) -> str:
    """The last word of `uapi.SOL_TCP`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def digits(node: ast.expr) -> bool:
    """Is it a small number that stands there as such?"""
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value < MADE_UP


def arguments(node: ast.Call) -> list[ast.expr]:
    """Those of `setsockopt(...)`, and of `call("setsockopt", ...)`; none of other calls."""
    if name_of(node.func) in CALLS:
        return node.args
    first = node.args[0] if node.args else None
    if isinstance(first, ast.Constant) and first.value in CALLS:
        return node.args[1:]
    return []


def numbers(source: str) -> Iterator[int]:
    """The lines where a level or an option is a number."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        args = arguments(node)
        for one, two in pairwise(args):
            level, option = LEVEL.match(name_of(one)), OPTION.match(name_of(two))
            if (level and digits(two)) or (option and digits(one)):
                yield node.lineno
                break


FILES: Final = sorted(
    path
    for where in ("tests", "common/skbustest", "common/skbus/load", "examples", "deploy")
    for path in (ROOT / where).rglob("*.py")
)


def test_no_option_is_a_number() -> None:
    found = {}
    for path in FILES:
        source = path.read_text()
        if "sockopt" in source and (lines := list(numbers(source))):
            found[str(path.relative_to(ROOT))] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("sock.setsockopt(SOL_TCP, 1, 1)", [1]),
        ("host.setsockopt(2, uapi.SOL_IP, 1, 1)", [1]),
        ("sock.getsockopt(6, TCP_INFO, 8)", [1]),
        ("stack.call('setsockopt', fd, 1, uapi.SO_RCVBUF, b'')", [1]),
        ("sock.setsockopt(SOL_TCP, TCP_NODELAY, 1)", []),
        ("host.getsockopt(2, SOL_TCP, 999)", []),
        ("sock.settimeout(1, 6)", []),
    ],
)
def test_numbers_are_found(source: str, found: list[int]) -> None:
    assert list(numbers(source)) == found
