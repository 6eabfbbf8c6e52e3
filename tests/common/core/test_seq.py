# SPDX-License-Identifier: MIT
"""Sequence numbers, and that nobody compares them but `skbus.core.seq`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.seq import HALF, after, before, between, seq_add, seq_ahead, seq_sub

ROOT = Path(__file__).resolve().parents[3]
SEQ = ROOT / "common/skbus/core/seq.py"


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
def test_sequence_numbers_wrap(seq: int, n: int) -> None:
    later = seq_add(seq, n)
    assert before(seq, later)
    assert after(later, seq)
    assert not before(later, seq)
    assert not after(seq, later)
    assert seq_sub(later, seq) == n
    assert seq_sub(seq, later) == -n
    assert seq_ahead(later, seq) == n
    assert seq_ahead(seq, later) == 0
    assert between(seq_add(seq, n // 2), seq, later)
    assert not between(seq_add(later, 1), seq, later) or n == 2**31 - 1


@given(st.integers(0, 2**32 - 1))
def test_a_number_is_neither_before_nor_after_itself(seq: int) -> None:
    assert not before(seq, seq)
    assert not after(seq, seq)
    assert between(seq, seq, seq)
    assert seq_sub(seq, seq) == seq_ahead(seq, seq) == 0


@given(st.integers(0, 2**32 - 1))
def test_half_the_space_away_is_before_and_after_as_in_linux(seq: int) -> None:
    other = seq_add(seq, HALF)
    assert before(seq, other)
    assert after(seq, other)
    assert seq_sub(seq, other) == -HALF
    assert seq_ahead(seq, other) == 0


@given(st.integers(0, 2**32 - 1), st.integers(-(2**30), 2**30), st.integers(1, 2**30))
def test_what_is_compared_needs_no_mask(seq: int, n: int, window: int) -> None:
    assert before(seq + n, seq + window) == before(seq_add(seq, n), seq_add(seq, window))
    assert after(seq + n, seq - window) == after(seq_add(seq, n), seq_add(seq, -window))


def _half(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Attribute):
        return node.attr == "HALF"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return ast.unparse(node) == "1 << 31"
    return isinstance(node, ast.Constant) and node.value == HALF


def _compared_with_half(source: str) -> Iterator[int]:
    """The lines that compare, or add to a number, half of the space, or that import its name."""
    tree = ast.parse(source)
    names = {"HALF", "_HALF"}
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        if targets and isinstance(value, ast.AST) and _half(value, set()):
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            # (A number alone may be C's INT_MAX + 1.)
            operands = [
                n for n in (node.left, node.right) if isinstance(n, ast.Name | ast.Attribute)
            ]
        elif isinstance(node, ast.ImportFrom) and any(a.name == "HALF" for a in node.names):
            yield node.lineno
            continue
        else:
            continue
        if any(_half(operand, names) for operand in operands):
            yield node.lineno


def _sources() -> list[Path]:
    return [
        path
        for top in ("common", "services", "examples")
        for path in sorted((ROOT / top).rglob("*.py"))
        if path != SEQ
    ]


def test_half_of_the_space_is_named_in_seq_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _sources()
        for line in _compared_with_half(path.read_text())
    ]
    assert found == [], "compare by before, after, between or seq_sub of skbus.core.seq"


@pytest.mark.parametrize(
    "source",
    [
        "from skbus.core.seq import HALF",
        "x = (a - b) & MASK < HALF",
        "x = (a - b) & 0xFFFFFFFF >= 0x80000000",
        "x = 0 < (a - b) % 2**32 < 1 << 31",
        "base = (seq - seq_module.HALF) & MASK",
        "_TOP: Final = 1 << 31\ny = d >= _TOP",
    ],
)
def test_the_test_above_finds_every_shape(source: str) -> None:
    assert list(_compared_with_half(source))


def test_the_test_above_finds_seq_itself() -> None:
    assert list(_compared_with_half(SEQ.read_text()))
