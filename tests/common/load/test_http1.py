# SPDX-License-Identifier: MIT
"""HTTP's heads and bodies, held against h11, which is given the same bytes."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.load.http1 import BadHttp, Chunks, Head, parse_head

Outcome = tuple[int, bool, bytes] | None
"""status, may the connection be used again, body; None where the response is no HTTP, or cut."""


def ours(data: bytes, method: str) -> Outcome:
    """Our reading of all that a server sends before it closes."""
    try:
        head, rest = _head(data, method)
        while head.interim:
            head, rest = _head(rest, method)
        if head.chunked:
            chunks = Chunks()
            body = chunks.feed(rest)
            return (head.status, head.keep, body) if chunks.done else None
        if head.length < 0:
            return head.status, False, rest
        whole = len(rest) >= head.length
        return (head.status, head.keep, rest[: head.length]) if whole else None
    except BadHttp:
        return None


def _head(data: bytes, method: str) -> tuple[Head, bytes]:
    head, empty, rest = data.partition(b"\r\n\r\n")
    if not empty:
        raise BadHttp("eof")
    return parse_head(head, method), rest


def theirs(data: bytes, method: str) -> Outcome:
    """h11's."""
    client = h11.Connection(our_role=h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    status, body, ended = 0, b"", False
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                both = {client.our_state, client.their_state}
                return status, both == {h11.DONE} and not ended, body
            elif event is h11.NEED_DATA and not ended:
                ended = True
                client.receive_data(b"")
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


FIELD = st.sampled_from(
    [
        b"Content-Length: 3", b"Content-Length:3", b"content-length: 0", b"Content-Length: 3, 3",
        b"Content-Length: 9999999", b"Connection: close", b"Connection:close",
        b"CONNECTION: foo , Close", b"Connection: keep-alive", b"Connection: closed",
        b"Transfer-Encoding: chunked", b"X-Content-Length: 1", b"X: y",
    ]
)  # fmt: skip
LINE = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content",
     b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 500 Oops", b"HTTP/1.1 999 x", b"HTTP/1.1 20 OK",
     b"HTTP/1.1  200 OK", b"HTP/1.1 200 OK", b""]
)  # fmt: skip
INTERIM = st.sampled_from(
    [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
BODY = st.sampled_from(
    [b"", b"abc", b"abcdef", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
     b"3\r\nabcd\r\n0\r\n\r\n", b"z\r\n"]
)  # fmt: skip


@settings(deadline=None, max_examples=600)
@given(INTERIM, LINE, st.lists(FIELD, max_size=3), BODY, st.sampled_from(["GET", "HEAD"]))
def test_as_h11(interim: bytes, line: bytes, fields: list[bytes], body: bytes, method: str) -> None:
    data = interim + b"\r\n".join([line, *fields]) + b"\r\n\r\n" + body
    seen, right = ours(data, method), theirs(data, method)
    old = line.startswith(b"HTTP/1.0")
    if right is None and seen is not None:
        # h11 looks at what says nothing: the lengths where there is no body, chunks of HTTP/1.0
        assert method == "HEAD" or seen[0] in (204, 304) or (old and b"chunked" in data)
    elif right is not None and seen is not None and old:
        assert seen[::2] == right[::2]  # h11 keeps no connection of HTTP/1.0
    else:
        assert seen == right


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_chunks_are_the_same_however_they_come(body: bytes, places: list[int]) -> None:
    sizes = [7, 1, 64, 300]
    wire, at = b"", 0
    for size in sizes * 60:
        part = body[at : at + size]
        if not part:
            break
        wire += b"%X\r\n%b\r\n" % (len(part), part)
        at += size
    wire += b"0\r\n\r\nrest"
    edges = sorted({0, len(wire), *(min(p, len(wire)) for p in places)})
    chunks = Chunks()
    got = b""
    for a, b in pairwise(edges):
        if not chunks.done:
            got += chunks.feed(wire[a:b])
    assert chunks.done
    assert got == body


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_a_head_or_none(data: bytes, method: str) -> None:
    ours(data + b"\r\n\r\n", method)
    ours(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n" + data, method)


@pytest.mark.parametrize("fields", [b"Content-Length : 200", b"X: a\r\n b\r\nContent-Length: 200"])
def test_what_a_client_may_mend(fields: bytes) -> None:
    """RFC 9112 5.1 and 5.2: a space before the colon, a folded line."""
    assert parse_head(b"HTTP/1.1 200 OK\r\n" + fields).length == 200
