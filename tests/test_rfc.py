# SPDX-License-Identifier: MIT
"""`docs/rfc.md` names what is there, and a test for every MUST."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rfc.md"
COLUMNS = 6
LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"}
SECTIONS = ("RFC 9293, appendix B", "RFC 1122, 3.5", "RFC 1122, 4.1.5")


class Row(NamedTuple):
    """A line of one of the page's tables."""

    number: str
    requirement: str
    level: str
    ours: str
    where: str
    test: str
    section: str


def rows() -> list[Row]:
    found = []
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == COLUMNS and cells[0] != "number" and not cells[0].startswith("---"):
            number, requirement, level, ours, where, test = cells
            found.append(Row(number, requirement, level, ours, where, test, section))
    return found


ROWS = rows()


@cache
def functions(path: Path) -> frozenset[str]:
    """Functions and classes of a file, methods among them."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def missing(row: Row) -> list[str]:
    """What of a row is not as it must be."""
    found = []
    kind, _, reason = row.ours.partition(":")
    if kind not in ("yes", "no", "n/a"):
        found.append(f"{row.ours!r} is not yes, no or n/a")
    if kind != "yes" and not reason.strip():
        found.append("no reason")
    if row.level not in LEVELS:
        found.append(f"level {row.level!r}")
    tests = names(row.test)
    if row.level.startswith("MUST") and kind != "n/a" and not tests:
        found.append("a MUST without a test")
    if kind == "yes" and not names(row.where):
        found.append("nowhere")
    for name in names(row.where):
        path, _, function = name.partition(":")
        if not (ROOT / path).is_file():
            found.append(f"no file {path}")
        elif function not in functions(ROOT / path):
            found.append(f"no {function} in {path}")
    for name in tests:
        path, _, function = name.partition("::")
        if not (ROOT / path).is_file():
            found.append(f"no file {path}")
        elif path.endswith(".pkt"):
            continue
        elif function not in functions(ROOT / path) or not function.startswith("test_"):
            found.append(f"no test {function} in {path}")
    return found


def test_every_row_holds() -> None:
    wrong = {f"{row.section} {row.number}": what for row in ROWS if (what := missing(row))}
    assert not wrong, "\n".join(f"{number}: {'; '.join(what)}" for number, what in wrong.items())


@pytest.mark.parametrize("section", SECTIONS)
def test_each_number_once(section: str) -> None:
    numbers = [row.number for row in ROWS if section in row.section]
    assert len(numbers) == len(set(numbers)) > 15


def test_no_requirement_of_rfc_9293_is_left_out() -> None:
    told = " ".join(row.number for row in ROWS if "9293" in row.section)
    there = {(kind, int(n)) for kind, n in re.findall(r"(MUST|SHLD|MAY|REC)-(\d+)", told)}
    wanted = {("MUST", n) for n in range(1, 70)}
    wanted |= {("SHLD", n) for n in range(1, 32)} | {("REC", 1)}
    wanted |= {("MAY", n) for n in range(1, 19)}
    assert there == wanted


def test_what_rfc_1122_says_of_tcp_is_in_the_table_of_rfc_9293() -> None:
    known = {row.number for row in ROWS if "9293" in row.section}
    lines = re.findall(r"^\| (4\.2\.\S+) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) > 25
    for section, numbers in lines:
        assert {n.strip() for n in numbers.split(",")} <= known, section


def test_what_is_not_there_is_found() -> None:
    row = Row("1", "", "MUST", "yes", "`services/skbusd/tcp/tcp_close.py:tcp_close`", "", "")
    assert missing(row) == ["a MUST without a test"]
    assert missing(row._replace(test="`tests/test_rfc.py::test_nothing`"))
    assert missing(row._replace(test="`tests/nothing.pkt`")) == ["no file tests/nothing.pkt"]
    here = row._replace(test="`tests/test_rfc.py::test_every_row_holds`")
    assert missing(here) == []
    assert missing(here._replace(where="`services/skbusd/tcp/tcp.py:tcp_nothing`"))
    assert missing(here._replace(ours="no")) == ["no reason"]
