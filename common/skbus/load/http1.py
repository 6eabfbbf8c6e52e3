# SPDX-License-Identifier: MIT
"""A client's half of HTTP/1.1 (RFC 9112) and 1.0, without I/O: heads, and where a body ends.

`skbus.load.client.Http` feeds it, and tests hold it against h11, which does the same. A request by
h11 takes three times as much of the processor, and the clients are what limits a load.
"""

import re
from typing import Final

MAX_HEAD: Final = 65536
_MAX_DIGITS: Final = 18

_STATUS: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [^\x00\r\n]*)?")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":[^\x00\r\n]*(?:\r\n|\Z))*")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")


class BadHttp(Exception):
    """What the server says is no HTTP; the text is the kind of error."""


class Head:
    """The head of a response. length: of its body; -1 where that ends with the connection, or
    (`chunked`) with its last chunk. keep: may the connection be used again?"""

    __slots__ = ("chunked", "keep", "length", "status")

    def __init__(self, status: int, keep: bool, length: int, chunked: bool) -> None:
        self.status = status
        self.keep = keep
        self.length = length
        self.chunked = chunked

    @property
    def interim(self) -> bool:
        """RFC 9110 15.2: another response follows. 101 is a protocol of its own."""
        return self.status < 200 and self.status != 101


def parse_head(data: bytes, method: str = "GET") -> Head:
    """A head, up to its empty line. BadHttp.

    RFC 9112 6.3: no body for HEAD, 1xx, 204 and 304, whatever the fields say; else chunks, else
    Content-Length, else all until the connection ends.
    """
    line, _, fields = data.partition(b"\r\n")
    found = _STATUS.fullmatch(line)
    if found is None:
        raise BadHttp("no HTTP")
    if not _FIELDS.fullmatch(fields):
        # a space before a colon, a folded line: RFC 9112 5.1 and 5.2 let a client take them away
        fields = _mended(fields)
    status = int(found[2])
    lower = fields.lower()
    keep = found[1] != b"0"
    if b"connection" in lower:
        options = tokens(lower, b"connection")
        if b"close" in options:
            keep = False
        elif b"keep-alive" in options:
            keep = True
    if method == "HEAD" or status < 200 or status in (204, 304):
        return Head(status, keep, 0, False)
    if b"transfer-encoding" in lower:
        codings = tokens(lower, b"transfer-encoding")
        if codings.count(b"chunked") > 1:  # RFC 9112 7.1
            raise BadHttp("chunks in chunks")
        if codings and codings[-1] == b"chunked":
            return Head(status, keep, -1, True)
        if codings:
            return Head(status, False, -1, False)
    lengths = set(tokens(lower, b"content-length")) if b"content-length" in lower else ()
    if not lengths:
        return Head(status, False, -1, False)
    if len(lengths) > 1:
        raise BadHttp("several Content-Lengths")
    (text,) = lengths
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise BadHttp("no Content-Length")
    return Head(status, keep, int(text), False)


def _mended(fields: bytes) -> bytes:
    fields = re.sub(rb"\r\n[ \t]+", b" ", fields)
    fields = re.sub(rb"(?m)^(" + _TOKEN + rb")[ \t]+:", rb"\1:", fields)
    if not _FIELDS.fullmatch(fields):
        raise BadHttp("no HTTP")
    return fields


def tokens(fields: bytes, name: bytes) -> list[bytes]:
    """The members of a field that is a list (RFC 9110 5.6.1), of fields in lower case."""
    start = name + b":"
    size = len(start)
    values = [line[size:] for line in fields.split(b"\r\n") if line[:size] == start]
    if len(values) == 1 and b"," not in values[0]:
        return [values[0].strip(b" \t")]
    members = (member.strip(b" \t") for member in b",".join(values).split(b","))
    return [member for member in members if member]


class Chunks:
    """A body in chunks (RFC 9112 7.1)."""

    __slots__ = ("_buffer", "_left", "_state", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._state = "size"
        self.done = False
        self.rest = b""
        """What came behind the body."""

    def feed(self, data: bytes) -> bytes:
        """What of the body these bytes bring. BadHttp."""
        self._buffer += data
        out: list[bytes] = []
        while not self.done and self._step(out):
            pass
        if self.done:
            self.rest, self._buffer = self._buffer, b""
        return b"".join(out)

    def _step(self, out: list[bytes]) -> bool:
        """One line or one piece; False where more is needed."""
        buffer = self._buffer
        if self._state == "data":
            piece, self._buffer = buffer[: self._left], buffer[self._left :]
            self._left -= len(piece)
            out.append(piece)
            if not self._left:
                self._state = "end"
            return bool(piece)
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise BadHttp("bad chunk")
            return False
        line, self._buffer = buffer[:end], buffer[end + 2 :]
        if self._state == "end":
            if line:
                raise BadHttp("bad chunk")
            self._state = "size"
        elif self._state == "size":
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise BadHttp("bad chunk")
            self._left = int(found[1], 16)
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True
        return True
