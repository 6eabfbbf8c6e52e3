# SPDX-License-Identifier: MIT
"""Help as people read it: in the list of commands, each command's first sentence, whole.

Typer cuts what does not fit into one line off, and writes "..." in its place.
"""

import re
from typing import Any

from typer.core import TyperGroup

_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)


def summary(text: str) -> str:
    """The first sentence of a help text, without the full stop, in one line."""
    paragraph = text.strip().split("\n\n")[0]
    found = _SENTENCE.match(paragraph)
    sentence = found[1] if found else paragraph
    return " ".join(sentence.split()).rstrip(".")


class Group(TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands; long lines are wrapped."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, summary(command.help or "")))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


__all__ = ["Group", "summary"]
