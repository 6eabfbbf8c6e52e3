# SPDX-License-Identifier: MIT
"""Each link of the documentation leads somewhere: to a file, and to a heading of that file. So does
each citation in code, which has the form `docs/PAGE.md, "HEADING"`."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
)
SOURCES: Final = ("common", "services", "tests", "examples", "deploy")
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
CITED: Final = re.compile(r'(docs/[a-z0-9-]+\.md)(?:,\s+(?:#\s+)?"([^"]+)")?')


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w -]", "", text).replace(" ", "-")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(    .*\n+)+", "\n", text)


@cache
def headings(page: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^#+ (.+?) *$", prose(page), re.MULTILINE))


def missing(page: Path, text: str) -> Iterator[str]:
    """The links in a page's text that lead nowhere."""
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in {slug(h) for h in headings(target)}):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(missing(page, prose(page))) == []


NAMED: Final = re.compile(r"`((?:common|services|tests|docs|examples|deploy)/[\w./-]+)(?=[:`])")
MADE: Final = {"deploy/wheels"}
"""Made by a command of the page."""
NAMING: Final = [page for page in PAGES if page.name not in ("CHANGELOG.md", "kernel-map.md")]
"""CHANGELOG tells of files as they were, and kernel-map.md has a test of its own."""
IDENTIFIER: Final = re.compile(r"`(_[A-Z_]{3,}|_?[a-z0-9]+(?:_[a-z0-9]+)+|[A-Z][a-z]+[A-Z]\w+)`")


@pytest.mark.parametrize("page", NAMING, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = {name for name in NAMED.findall(page.read_text()) if not re.search("[A-Z]{4}", name)}
    assert {name for name in named - MADE if not (ROOT / name).exists()} == set()


def test_what_the_recipes_name_is_in_the_code() -> None:
    """Functions, classes and tables of CONTRIBUTING: a recipe must not outlive them."""
    code = "".join(
        path.read_text()
        for top in ("common", "services", "tests")
        for path in (ROOT / top).rglob("*.py")
    )
    named = set(IDENTIFIER.findall((ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 25
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()


def test_the_index_has_every_page() -> None:
    linked = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    assert {page.name for page in ROOT.glob("docs/*.md")} - linked == {"README.md"}


def uncited(text: str) -> Iterator[str]:
    """The pages and headings that a source file cites, and that are not there. A program that
    writes a page may name it before it has run."""
    for name, heading in CITED.findall(text):
        if f'/ "{name}"' in text and ".write_text(" in text:
            continue
        heading = re.sub(r"\s+(# )?", " ", heading)
        if not (ROOT / name).is_file():
            yield name
        elif heading and heading not in headings(ROOT / name):
            yield f"{name}, {heading!r}"


def test_citations_in_code_lead_somewhere() -> None:
    found = []
    for directory in SOURCES:
        for path in sorted((ROOT / directory).rglob("*.py")):
            if path != Path(__file__):
                found += [f"{path.relative_to(ROOT)}: {what}" for what in uncited(path.read_text())]
    assert found == []


def test_what_is_not_there_is_found() -> None:
    page = ROOT / "README.md"
    text = "[a](nothing.md) [b](#nothing) [c](docs/logs.md#nothing) [d](docs/logs.md#levels)"
    assert list(missing(page, text)) == ["nothing.md", "#nothing", "docs/logs.md#nothing"]
    assert slug("`Net`, and what it has: 2 things") == "net-and-what-it-has-2-things"
    cited = (
        'docs/nothing.md docs/logs.md, "Levels" docs/logs.md, "Bounds,\nholes" docs/logs.md, "No"'
    )
    assert list(uncited(cited)) == ["docs/nothing.md", "docs/logs.md, 'No'"]
