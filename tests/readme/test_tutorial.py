# SPDX-License-Identifier: MIT
"""docs/tutorial.md as a student follows it: each command typed into a terminal in a fresh clone,
and what it prints compared with what the page shows, line by line.

A block whose first line begins with `$ ` is a session: commands, each with its output below it.
Where the page shows no output, none may come, except from `make` and what activates the
environment. What differs from run to run is matched by its shape (`SHAPES`), all else exactly.
An skb's id, a port of the peer's and the number of a process are bound where they are first
seen: the same text on the page is the same text in the run, in commands too.

Nothing is typed but what the page shows, with these exceptions:

- SKBUS_DIR names a run directory of the test's own. The page shows what is printed without it.
- After a server was started with `&` the next command waits for what it prints.
- A command that only reads (`READS`) is repeated for some seconds while it prints something
  else: a process writes its log after the packet has left.
"""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from terminal import ROOT, Terminal, assert_nothing_left, sections

pytestmark = [pytest.mark.readme, pytest.mark.lab]

PAGE: Final = ROOT / "docs/tutorial.md"

BOUND: Final = r"\b[0-9a-f]{13,16}\b"
"""An skb's id."""

SHAPES: Final = {
    BOUND: BOUND,
    r'(?<="time":)\d+\.\d+': r"\d+(\.\d+)?",
    r'(?<="wall":")[^"]+': r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00",
    r"(?<=time=)[\d.]+(?= ms)": r"\d+(\.\d+)?",
    r"(?<=, time )\d+(?=ms)": r"\d+",
    r"(?<=mdev = )[\d./]+(?= ms)": r"[\d.]+/[\d.]+/[\d.]+/[\d.]+",
    r"(?<=\.py:)\d+(?=:def)": r"\d+",
    r"(?<=SKB_DROP_REASON_NO_SOCKET )\d+": r"[1-9]\d*",
    r"(?<=SKB_DROP_REASON_SKBUS_IMPAIRED )\d+": r"[1-9]\d*",
    r"(?<=TcpRetransSegs {18})\d+": r"[1-9]\d*",
}
"""What differs from run to run, as the page shows it -> what it may be."""

READS: Final = ("skbus logs", "skbus status", "skbus counters", "skbus proc")
SILENT: Final = ("make ", ". ")
JOB: Final = re.compile(r"^\[\d+\][+-]? .*\n", re.MULTILINE)
"""What bash says of the jobs in the background."""


class Step(NamedTuple):
    """A command, and what the page shows below it."""

    command: str
    shown: list[str]


def steps(blocks: list[str]) -> Iterator[Step]:
    """Of a section: blocks that do not begin with a command are pictures and tables."""
    for block in blocks:
        if not block.startswith("$ "):
            continue
        step = Step("", [])
        for line in block.splitlines():
            if line.startswith("$ "):
                if step.command:
                    yield step
                step = Step(line.removeprefix("$ "), [])
            else:
                step.shown.append(line)
        yield step


def trimmed(lines: list[str]) -> list[str]:
    """Without spaces at the ends of lines, and without empty lines at the end of it all."""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")


class Page:
    """The page beside the run: what the page's ids are in this run."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}

    def command(self, text: str) -> str:
        """A command as it must be typed here."""
        return re.sub(BOUND, lambda found: self.bound[found[0]], text)

    def differences(self, shown: list[str], printed: list[str]) -> list[str]:
        """The lines where they are not the same, as in a diff; ids that are new are bound if all
        is well."""
        shown, printed = trimmed(shown), trimmed(printed)
        new: dict[str, str] = {}
        wrong = []
        for theirs, ours in zip(shown, printed, strict=False):
            found = re.fullmatch(self._pattern(theirs, new), ours)
            if found is None:
                wrong += ["- " + theirs, "+ " + ours]
            else:
                new |= {name[1:]: text for name, text in found.groupdict().items()}
        wrong += ["- " + line for line in shown[len(printed) :]]
        wrong += ["+ " + line for line in printed[len(shown) :]]
        if not wrong:
            self.bound |= new
        return wrong

    def _pattern(self, line: str, new: dict[str, str]) -> str:
        pattern, at = "", 0
        for found in re.finditer("|".join(SHAPES), line):
            pattern += re.escape(line[at : found.start()])
            at = found.end()
            text = found[0]
            known = self.bound.get(text) or new.get(text)
            if re.fullmatch(BOUND, text):
                pattern += known or f"(?P<_{text}>{BOUND})"
            else:
                pattern += self._shape(line, found)
        return pattern + re.escape(line[at:])

    @staticmethod
    def _shape(line: str, found: "re.Match[str]") -> str:
        for is_shown, may_be in SHAPES.items():
            if re.compile(is_shown).match(line, found.start()):
                return f"(?:{may_be})"
        raise AssertionError(line)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def run(terminal: Terminal, step: Step, command: str, directory: str) -> list[str]:
    """Type the command; what it prints in a lab that has the default's name and needs no
    SKBUS_DIR."""
    text, status = terminal.run(command, 300)
    if command.endswith("&"):
        terminal.wait_for(re.escape(trimmed(step.shown)[-1]))
        text += terminal.run("").text
    assert status == 0, f"{command}: status {status}\n{text}"
    assert "Traceback" not in text, text
    text = text.replace(f"SKBUS_DIR={directory} ", "")
    text = text.replace(f"'{Path(directory).name}'", "'default'")
    return JOB.sub("", text).splitlines()


@pytest.mark.parametrize("heading", [h for h, blocks in sections(PAGE).items() if blocks])
def test_as_printed(
    heading: str, page: Page, terminal: Terminal, environment: dict[str, str]
) -> None:
    """In the order of the page: each section goes on where the one before it ended."""
    for step in steps(sections(PAGE)[heading]):
        command = page.command(step.command)
        deadline = time.monotonic() + 15
        while True:
            printed = run(terminal, step, command, environment["SKBUS_DIR"])
            if step.command.startswith(SILENT) and not trimmed(step.shown)[0]:
                break
            wrong = page.differences(step.shown, printed)
            if not wrong:
                break
            if time.monotonic() > deadline or not command.startswith(READS):
                shown = "\n".join(wrong)
                raise AssertionError(f"$ {command}\nThe page (-), this run (+):\n{shown}")
            time.sleep(0.5)


def test_nothing_is_left_behind(terminal: Terminal, environment: dict[str, str]) -> None:
    """The last sentence about the lab is true."""
    assert_nothing_left(terminal, environment)
