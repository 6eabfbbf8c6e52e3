# SPDX-License-Identifier: MIT
"""Parser of packetdrill's language: text to `script.Script`, by recursive descent.

The grammar is that of packetdrill's `syntax.md`. Where a script is wrong, ScriptError names the
file, the line, and what was expected.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skbus.packetdrill import lexer
from skbus.packetdrill.lexer import CODE, COMMAND, END, FLOAT, HEX, INT, OPTION, STRING, WORD, Token
from skbus.packetdrill.packet_parser import PacketParser
from skbus.packetdrill.script import (
    Array,
    Call,
    Code,
    Command,
    Ellipsis_,
    Event,
    EventTime,
    Expr,
    Int,
    Or,
    Packet,
    Script,
    ScriptError,
    Str,
    Struct,
    SysCall,
    TimeKind,
    Word,
)

MAX_DEPTH: Final = 64
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "\\": "\\", "'": "'"}


def parse_file(path: str | Path, defines: Mapping[str, str] | None = None) -> Script:
    """Parse a script file. ScriptError; OSError where it cannot be read."""
    return parse_script(Path(path).read_text(), str(path), defines)


def parse_script(text: str, path: str = "", defines: Mapping[str, str] | None = None) -> Script:
    """Parse a script. defines: symbols as with `-D`."""
    return Parser(text, path, lexer.tokenize(text, path, defines)).script()


class Parser(PacketParser):
    """The parser of one script."""

    _depth = 0

    def script(self) -> Script:
        """The whole script."""
        script = Script(self.path)
        while self.peek().kind == OPTION:
            name, value = self._option()
            script.options[name] = value
        if self.peek().kind == COMMAND:
            script.init = Command(self.next().text)
        while self.peek().kind not in (END, COMMAND):
            script.events.append(self._event())
        if not script.events:
            raise self.error("a script needs at least one event")
        if self.peek().kind == COMMAND:
            script.cleanup = Command(self.next().text)
        if self.peek().kind != END:
            raise self.error(f"expected a time, not {self.peek().text!r}")
        return script

    def _option(self) -> tuple[str, str | None]:
        name = self.next().text
        if not self.take("="):
            return name, None
        value = self.next().text
        if self.take("="):
            value += "=" + self.next().text
        elif self.peek(-1).kind == WORD:
            # a comma-separated list, or a name with hyphens
            while self.peek().text in (",", "-") and self.peek().start == self.peek(-1).end:
                value += self.next().text + self.next().text
        return name, value

    # ---- events ------------------------------------------------------------------------

    def _event(self) -> Event:
        first = self.peek()
        time = self._event_time()
        line = self.peek(-1).line
        token = self.peek()
        action: Packet | SysCall | Command | Code
        if token.kind == COMMAND:
            action = Command(self.next().text)
        elif token.kind == CODE:
            action = Code(self.next().text)
        elif token.text in ("<", ">"):
            action = self.packet()
        else:
            action = self._syscall()
        self._check_time(time, action, line)
        text = " ".join(self.text[first.start : self.peek(-1).end].split())
        return Event(line, time, action, text)

    def _check_time(self, time: EventTime, action: object, line: int) -> None:
        if time.kind is not TimeKind.ANY and time.end is None:
            return
        if not isinstance(action, Packet) or action.inbound:
            raise ScriptError("only outbound packets may have * or a range", self.path, line)

    def _event_time(self) -> EventTime:
        if self.take("*"):
            return EventTime(TimeKind.ANY)
        relative = self.take("+")
        kind = TimeKind.RELATIVE if relative else TimeKind.ABSOLUTE
        start = self._time()
        if not self.take("~"):
            return EventTime(kind, start)
        if relative:
            self.expect("+")
        end = self._time()
        if end < start:
            raise self.error("a time range that ends before it begins")
        return EventTime(kind, start, end)

    def _time(self) -> int:
        token = self.next()
        if token.kind not in (FLOAT, INT):
            raise self.error(f"expected a time, not {token.text!r}", token)
        if token.text.startswith("-"):
            raise self.error("a time may not be negative", token)
        return round(float(token.text) * 1e9)

    # ---- system calls ------------------------------------------------------------------

    def _syscall(self) -> SysCall:
        end = self._time() if self.take("...") else None
        name = self.next()
        if name.kind != WORD:
            raise self.error(f"expected a packet or a system call, not {name.text!r}", name)
        self.expect("(")
        args: tuple[Expr, ...] = ()
        if not self.take(")"):
            args = self._expressions(")")
        self.expect("=")
        result = self.expression()
        errno = None
        if self.peek().kind == WORD:
            errno = self.next().text
        if self.take("("):
            while not self.take(")"):
                if self.next().kind == END:
                    raise self.error("a note is never closed")
        return SysCall(name.text, args, result, errno, end)

    def _expressions(self, close: str) -> tuple[Expr, ...]:
        out = [self.expression()]
        while self.take(","):
            out.append(self.expression())
        self.expect(close)
        return tuple(out)

    def expression(self) -> Expr:
        """One expression, with its `|`s."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error(f"brackets within brackets, more than {MAX_DEPTH} deep")
        expr = self._primary()
        while self.take("|"):
            expr = Or(expr, self._primary())
        self._depth -= 1
        return expr

    def _primary(self) -> Expr:
        token = self.next()
        if token.text == "..." and token.kind == lexer.PUNCT:
            return Ellipsis_()
        if token.kind == INT:
            return Int(int(token.text))
        if token.kind == HEX:
            return Int(int(token.text, 16))
        if token.kind == STRING:
            return self._string(token)
        if token.kind == WORD:
            return self._word(token)
        if token.text == "[":
            return Array(()) if self.take("]") else Array(self._expressions("]"))
        if token.text == "{":
            return self._struct()
        raise self.error(f"expected an expression, not {token.text!r}", token)

    def _word(self, token: Token) -> Expr:
        if self.peek().text == "(" and self.peek().kind == lexer.PUNCT:
            self.next()
            return Call(token.text, self._expressions(")"))
        return Word(token.text)

    def _string(self, token: Token) -> Str:
        value = _unescape(token.text)
        while self.peek().kind == STRING:
            value += _unescape(self.next().text)
        return Str(value, self.take("..."))

    def _struct(self) -> Struct:
        fields: dict[str, Expr] = {}
        items: list[Expr] = []
        while not self.take("}"):
            expr = self._member() if self.peek().text == "(" else self.expression()
            if isinstance(expr, Call | Word) and self.take("="):
                if expr.name in fields:
                    raise self.error(f"{expr.name} is there twice")
                fields[expr.name] = self._counted(expr, self.expression())
            else:
                items.append(expr)
            if not self.take(",") and self.peek().text != "}":
                raise self.error(f"expected , or }} and not {self.peek().text!r}")
        return Struct(fields, tuple(items))

    def _counted(self, name: Call | Word, value: Expr) -> Expr:
        """`msg_iov(1)=[...]` says how many there are."""
        match name, value:
            case Call(_, (Int(count),)), Array(items) if count != len(items):
                raise self.error(f"{name.name}({count}) has {len(items)}")
        return value

    def _member(self) -> Expr:
        """`(label 1, tc 0, [S], ttl 0)` of MPLS: kept as a call without a name."""
        depth = 0
        words: list[Expr] = []
        while True:
            token = self.next()
            depth += (token.text == "(") - (token.text == ")")
            if token.kind == END:
                raise self.error("a ( is never closed")
            if not depth:
                return Call("", tuple(words))
            words.append(Word(token.text))


def _unescape(text: str) -> bytes:
    def one(match: re.Match[str]) -> str:
        body = match[1]
        if body[0] == "x":
            return chr(int(body[1:], 16))
        return _ESCAPES.get(body, body)

    plain = re.sub(r"\\(x[0-9A-Fa-f]{1,2}|.)", one, text, flags=re.DOTALL)
    return plain.encode("latin-1", "replace")
