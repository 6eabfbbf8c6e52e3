# SPDX-License-Identifier: MIT
"""A small web server on our stack: a page, and `/bytes/N` for N bytes.

HTTP/1.1 (RFC 9112) with keep-alive and pipelining; GET and HEAD; what a request carries as its
content is read and ignored. What is no HTTP is answered with 400, and the connection closed.
`skbus serve http` runs it, and the test servers use it.
"""

import re
from typing import Any, Final

import trio

from skbus.serve.loop import Connection, ServerLoop

PAGE: Final = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>skbus</title></head>
<body>
<h1>It works</h1>
<p>This page came to you through skbus: the Linux network stack, taken apart into processes
that pass sk_buffs to each other over ZeroMQ.</p>
<p>socket &rarr; tcp &rarr; ip &rarr; nic &rarr; you</p>
<p><a href="/bytes/1000000">/bytes/N</a> sends N bytes.</p>
</body>
</html>
"""

MAX_HEAD: Final = 65536
"""Bytes of a request's head"""
MAX_CONTENT: Final = 1 << 24
MAX_BYTES: Final = 1 << 40
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/1\.([0-9])")
"""RFC 9112 3: method, target, and the minor version."""
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":[^\x00\r\n]*(?:\r\n|\Z))*")
"""RFC 9112 5: no folded lines, no space before the colon."""
_BLOCK: Final = bytes(range(256)) * 4096
"""What `/bytes/N` repeats: 1 MiB."""


def _head(status: str, length: int, keep: bool, kind: str = "text/html; charset=utf-8") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nServer: skbus\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    ).encode("ascii")


_PAGE_KEEP: Final = _head("200 OK", len(PAGE), True) + PAGE
_PAGE_CLOSE: Final = _head("200 OK", len(PAGE), False) + PAGE


class Web(Connection):
    """One connection of a browser."""

    def __init__(self, loop: ServerLoop, fd: int) -> None:
        super().__init__(loop, fd)
        self._buffer = b""
        self._skip = 0
        """Bytes of a request's content that are still to come."""
        self._body = 0
        """Bytes of `/bytes/N` that are still to be sent."""
        self._keep = True

    def received(self, data: bytes) -> None:
        if not data:
            self.finish()
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._work()

    def _work(self) -> None:
        """Answer the requests that are complete; one at a time where the answer is long."""
        while not self._body:
            if self._skip:
                n = min(self._skip, len(self._buffer))
                self._buffer = self._buffer[n:]
                self._skip -= n
                if self._skip:
                    break
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    self._refuse("431 Request Header Fields Too Large")
                    return
                break
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._request(head)
            if not self._keep:
                if not self._body:
                    self.finish()
                return
        if not self._body:
            self.recv()

    def _request(self, head: bytes) -> None:
        line, _, fields = head.partition(b"\r\n")
        found = _LINE.fullmatch(line)
        if found is None or not _FIELDS.fullmatch(fields):
            self._refuse("400 Bad Request")
            return
        method, target, minor = found.groups()
        keep = minor != b"0"
        lower = fields.lower()
        if b"connection" in lower:
            options = _tokens(lower, b"connection")
            if b"close" in options:
                keep = False
            elif b"keep-alive" in options:
                keep = True
        if b"transfer-encoding" in lower and _field(lower, b"transfer-encoding"):
            self._refuse("411 Length Required")
            return
        if b"content-length" in lower and not self._content(lower):
            return
        self._keep = keep
        self._answer(method, target.partition(b"?")[0], keep)

    def _content(self, lower: bytes) -> bool:
        """How much content follows the head; False where that has been refused."""
        lengths = set(_tokens(lower, b"content-length"))
        if not lengths:
            return True
        length = lengths.pop()
        if lengths or not _DIGITS.fullmatch(length):  # RFC 9112 6.3: the same twice is one
            self._refuse("400 Bad Request")
            return False
        size = number(length, MAX_CONTENT)
        if size is None:
            self._refuse("413 Content Too Large")
            return False
        self._skip = size
        return True

    def _answer(self, method: bytes, path: bytes, keep: bool) -> None:
        if method not in (b"GET", b"HEAD"):
            self._short("405 Method Not Allowed", b"Only GET and HEAD.\n", False)
        elif path in (b"/", b"/index.html"):
            if method == b"HEAD":
                self.send(_head("200 OK", len(PAGE), keep))
            else:
                self.send(_PAGE_KEEP if keep else _PAGE_CLOSE)
        elif path.startswith(b"/bytes/") and (n := number(path[7:], MAX_BYTES)) is not None:
            kind = "application/octet-stream"
            response = _head("200 OK", n, keep, kind)
            if method == b"GET" and n <= 2048:
                response += _BLOCK[:n]
            elif method == b"GET":
                self._body = n
            self.send(response)
        else:
            self._short("404 Not Found", b"There is nothing here.\n", method == b"HEAD")

    def _short(self, status: str, text: bytes, only_head: bool) -> None:
        response = _head(status, len(text), self._keep, "text/plain")
        self.send(response if only_head else response + text)

    def _refuse(self, status: str) -> None:
        self._keep = False
        self._buffer = b""
        self._short(status, status.encode() + b"\n", False)
        self.finish()

    def sent(self) -> None:
        if self._body:
            n = min(self._body, len(_BLOCK))
            self._body -= n
            last = not self._body
            self.send(memoryview(_BLOCK)[:n])
            if last and not self._keep:
                self.finish()
            elif last and self._buffer:
                self._work()
            return
        super().sent()


_DIGITS: Final = re.compile(rb"[0-9]+")


def number(digits: bytes, most: int) -> int | None:
    """A decimal number from 0 to `most`; None for anything else, however long it is."""
    if not _DIGITS.fullmatch(digits):
        return None
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > len(str(most)):
        return None
    value = int(digits)
    return value if value <= most else None


def _field(fields: bytes, name: bytes) -> list[bytes]:
    """All values of a header field, of fields in lower case."""
    start = name + b":"
    size = len(start)
    return [line[size:].strip(b" \t") for line in fields.split(b"\r\n") if line[:size] == start]


def _tokens(fields: bytes, name: bytes) -> list[bytes]:
    """The members of a header field that is a list (RFC 9110 5.6.1)."""
    values = _field(fields, name)
    if len(values) == 1 and b"," not in values[0]:
        return values
    members = (member.strip(b" \t") for member in b",".join(values).split(b","))
    return [member for member in members if member]


async def http(host: str, port: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """The web server, until cancelled. host "" is all our addresses."""
    await ServerLoop(host, port, Web).run(task_status=task_status)
