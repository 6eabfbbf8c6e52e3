# SPDX-License-Identifier: MIT
"""README, CONTRIBUTING and docs/*.md are in plain English: short sentences, and none of the habits
below. Tables, code, headings and generated blocks are left out.

    python tests/test_prose.py [PAGE...]    what is wrong, with its line
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
LONGEST: Final = 25
"""Words in a sentence. A term in backticks counts as one word, however many it holds."""

_ALSO: Final = "'too' or 'also' at the end: put 'also' before the verb, or leave it out"
HABITS: Final = {
    r"\b(too|also)[.;:)]*$": _ALSO,
    r"\b(too|also)[;:)](?= )": _ALSO,
    r", too,": _ALSO,
    r"\bas well(?! as\b)": "'as well': put 'also' before the verb, or leave it out",
    r"\balso (after|if|when|where|without)\b": "'also if': write 'even if'",
    r"\bit was (decided|rejected)\b": "say who decided: 'we rejected'",
    r"^Who\b(?!.*\?$)": "'Who' begins a statement: name the person or the process",
}
"""What to look for in a sentence -> what to do about it. Each one finds no correct sentence."""


_END: Final = r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!\.\.\.)[)\"']*\s+"
"""Between two sentences. The second may begin with a small letter: nic, tcp."""


class Sentence(NamedTuple):
    """A sentence of a page, and the line on which its paragraph begins."""

    line: int
    text: str

    @property
    def words(self) -> int:
        return sum(1 for word in self.text.split() if re.search(r"\w", word))


def paragraphs(page: str) -> Iterator[Sentence]:
    """Paragraphs and list items, each joined to one line."""
    found: list[str] = []
    begin = 0
    fenced = generated = in_list = False
    for number, line in enumerate([*page.splitlines(), ""], 1):
        text = line.strip()
        if text.startswith("```"):
            fenced = not fenced
        if text.startswith("<!--"):
            generated = not re.match(r"<!-- (end\b|until here)", text)
        item = re.match(r"([-*]|\d+\.) ", text)
        indent = len(line) - len(line.lstrip())
        code = indent >= (6 if in_list else 4) and not found
        skip = fenced or generated or code or re.match(r"[#|>!]|<!--|```", text)
        if (not text or skip or item) and found:
            yield Sentence(begin, " ".join(found))
            found = []
        if text and indent == 0:
            in_list = bool(item)
        if text and not skip:
            begin = begin if found else number
            found.append(text[item.end() :] if item else text)


def sentences(page: str) -> Iterator[Sentence]:
    """The sentences of a page's prose."""
    for line, text in paragraphs(page):
        plain = re.sub(r"`[^`]*`", "CODE", text)
        plain = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", plain).replace("**", "")
        for part in re.split(_END, plain):
            yield Sentence(line, part)


def faults(page: str) -> list[str]:
    """What is wrong with a page: `LINE: what: the sentence`."""
    found = []
    for sentence in sentences(page):
        if sentence.words > LONGEST:
            found.append(f"{sentence.line}: {sentence.words} words: {sentence.text}")
        for habit, advice in HABITS.items():
            if re.search(habit, sentence.text):
                found.append(f"{sentence.line}: {advice}: {sentence.text}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_plain_english(page: Path) -> None:
    assert faults(page.read_text()) == []


if __name__ == "__main__":
    for path in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        for fault in faults(path.read_text()):
            sys.stdout.write(f"{path.relative_to(ROOT)}:{fault}\n")
