# SPDX-License-Identifier: MIT
"""Tokens of packetdrill's language, each the longest that fits, as its own scanner takes them."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from skbus.packetdrill.script import ScriptError

OPTION: Final = "option"
FLOAT: Final = "float"
INT: Final = "int"
HEX: Final = "hex"
WORD: Final = "word"
STRING: Final = "string"
COMMAND: Final = "command"
CODE: Final = "code"
IPV4: Final = "ipv4"
IPV6: Final = "ipv6"
PUNCT: Final = "punct"
END: Final = "end"


class Token(NamedTuple):
    """A token: its kind, its text without delimiters, and where it stands."""

    kind: str
    text: str
    line: int
    start: int
    end: int


_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+ | //[^\n]* | /\*.*?\*/)
    | (?P<code>%\{.*?\}%)
    | "(?P<string>(?:\\.|[^"\\])*)"
    | `(?P<command>(?:\\.|[^`\\])*)`
    | --(?P<option>[A-Za-z0-9_]+)
    | (?P<ipv4>\d+\.\d+\.\d+\.\d+)
    | (?P<ipv6>(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}
              | (?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*)?::(?:[0-9A-Fa-f]{1,4}
                (?::[0-9A-Fa-f]{1,4})*)?(?:\d+\.\d+\.\d+\.\d+)?)
    | (?P<ellipsis>\.\.\.)
    | (?P<hex>0[xX][0-9A-Fa-f]+(?![A-Za-z0-9_]))
    | (?P<float>-?\d*\.\d+)
    | (?P<int>-?\d+(?![A-Za-z0-9_]))
    | (?P<sequence>sequence\#)
    | (?P<word>[A-Za-z0-9_]+)
    | (?P<punct>\S)
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(text: str, path: str = "", defines: Mapping[str, str] | None = None) -> list[Token]:
    """All tokens of a script, and an END. `defines`: symbols that stand for other text."""
    symbols = dict(defines or {})
    tokens: list[Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        value = match[kind]
        if kind != "space":
            tokens.append(_token(kind, value, line, match.start(), match.end(), symbols))
            _note_define(tokens, symbols)
        line += match[0].count("\n")
    for token in tokens:
        if token.kind == PUNCT and token.text in '"`':
            raise ScriptError(f"{token.text} is never closed", path, token.line)
    tokens.append(Token(END, "end of the script", line, len(text), len(text)))
    return tokens


def _token(
    kind: str, value: str, line: int, start: int, end: int, symbols: Mapping[str, str]
) -> Token:
    if kind in ("ellipsis", "sequence"):
        return Token(PUNCT if kind == "ellipsis" else WORD, value, line, start, end)
    if kind == "code":
        return Token(CODE, value[2:-2].strip(" \t"), line, start, end)
    if kind == "word" and value in symbols:
        return _defined(symbols[value], line, start, end)
    return Token(kind, value, line, start, end)


def _defined(value: str, line: int, start: int, end: int) -> Token:
    """What `-D SYMBOL=value` makes of the symbol."""
    if value[:1] == '"':
        return Token(STRING, value.strip('"'), line, start, end)
    if value[:1] == "`":
        return Token(COMMAND, value.strip("`"), line, start, end)
    if re.fullmatch(r"-?\d+", value):
        return Token(INT, value, line, start, end)
    if re.fullmatch(r"0[xX][0-9A-Fa-f]+", value):
        return Token(HEX, value, line, start, end)
    return Token(WORD, value, line, start, end)


def _note_define(tokens: list[Token], symbols: dict[str, str]) -> None:
    """`--define=SYMBOL=value` counts from here on."""
    if len(tokens) < 5:
        return
    option, first, name, second, value = tokens[-5:]
    if option.kind == OPTION and option.text == "define" and first.text == second.text == "=":
        quote = {STRING: '"', COMMAND: "`"}.get(value.kind, "")
        symbols[name.text] = f"{quote}{value.text}{quote}"
