# SPDX-License-Identifier: MIT
"""Help and mistakes as people read them.

The list of commands has each command's first sentence, whole. (typer cuts what does not fit into
one line, and writes "..." in its place.) An error says what an option takes in the words of our
other errors, not in those of a library.
"""

import importlib
import re
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

import typer
from typer.core import TyperGroup

from skbus.cli.commands import COMMANDS
from skbus.stack import interrupt

_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)


def summary(text: str) -> str:
    """The first sentence of a help text, without the full stop, in one line."""
    paragraph = text.strip().split("\n\n")[0]
    found = _SENTENCE.match(paragraph)
    sentence = found[1] if found else paragraph
    return " ".join(sentence.split()).rstrip(".")


_WORDS: Final = (
    (r"Input should be a valid number.*", "it takes a number"),
    (r"Input should be a valid integer.*", "it takes a whole number"),
    (r"Input should be greater than or equal to (\S+)", r"it takes \1 or more"),
    (r"Input should be greater than (\S+)", r"it takes more than \1"),
    (r"Input should be less than or equal to (\S+)", r"it takes \1 at most"),
    (r"Input should be less than (\S+)", r"it takes less than \1"),
    (r"Input should be (.*)", r"it takes \1"),
    (r"Value error, '(.*)' is not one of (.*)\.", r"\1: it takes \2"),
    (r"Value error, (.*)", r"\1"),
)
"""What typer's parser (pydantic) says -> what we say."""


def plain_words(text: str) -> str:
    """What is wrong with an option, by what it takes."""
    for pattern, ours in _WORDS:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return text[: found.start()] + found.expand(ours).replace("'", "")
    return text


class _Begin(typer.Context):
    """Of a command whose arguments have been read."""

    def invoke(self, *args: Any, **named: Any) -> Any:
        """Call its function; Ctrl-C is for that from now on."""
        interrupt.begin()
        return super().invoke(*args, **named)


class Group(TyperGroup):
    """A group of commands."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, or None."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = _Begin
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a mistake in its options is said in our words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as e:
            e.message = plain_words(e.message)
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands; long lines are wrapped."""
        rows = self.summaries()
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def summaries(self) -> list[tuple[str, str]]:
        """(name, first sentence) of each command."""
        commands = self.commands.items()
        return [(name, summary(c.help or "")) for name, c in commands if not c.hidden]


class Commands(Group):
    """All commands, each of which is imported when it is called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Imported()

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return list(self.commands)

    def summaries(self) -> list[tuple[str, str]]:
        """As the table has them."""
        return [(name, text) for name, (_, text) in COMMANDS.items()]


class _Imported(MutableMapping[str, Any]):
    """Commands by name."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            module = importlib.import_module(COMMANDS[name][0])
            group = typer.Typer(cls=Group, rich_markup_mode=None)
            module.register(group)
            self._found |= typer.main.get_group(group).commands
        return self._found[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


__all__ = ["Commands", "Group", "plain_words", "summary"]
