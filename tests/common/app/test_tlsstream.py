# SPDX-License-Identifier: MIT
"""TLS over a transport that takes and gives as few bytes as the test says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import cycle

import pytest

from skbus.app.tlsstream import TlsStream

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
BLOB = bytes(range(256)) * 200


class Wire:
    """One end of a transport in memory. takes: bytes of each send, 0 for "would block"."""

    def __init__(self) -> None:
        self.inbox = bytearray()
        self.other: Wire = self
        self.takes: Iterator[int] = cycle((1 << 20,))
        self.ended = False
        self.unread: list[bytes] = []
        self.fault: Callable[[Callable[[int], None], memoryview], None] | None = None

    def tls_send(
        self, data: memoryview, timeout: float | None, settled: Callable[[int], None]
    ) -> int:
        if self.fault is not None:
            self.fault(settled, data)
        n = min(next(self.takes), len(data))
        if not n:
            if timeout == 0.0:
                raise BlockingIOError
            raise TimeoutError("timed out")
        self.other.inbox += data[:n]
        return n

    def tls_recv(self, size: int, timeout: float | None) -> bytes:
        if not self.inbox and not self.ended:
            assert timeout == 0.0, "it would wait for ever"
            raise BlockingIOError
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        return data

    def tls_unread(self, data: bytes) -> None:
        self.unread.append(data)
        self.inbox[:0] = data


class Ends:
    """A client and a server over two wires."""

    def __init__(self, contexts: Contexts, version: ssl.TLSVersion) -> None:
        for context in contexts:
            context.minimum_version = context.maximum_version = version
        self.wires = (Wire(), Wire())
        self.wires[0].other, self.wires[1].other = self.wires[1], self.wires[0]
        server, client = contexts
        self.client = TlsStream(self.wires[0], client, False, "localhost", None)
        self.server = TlsStream(self.wires[1], server, True, None, None)
        self.wanted: set[type] = set()

    def both(self, *todo: Callable[[], object]) -> list[object]:
        """Call each again and again until it has done what it is asked."""
        results: dict[int, object] = {}
        for _ in range(1_000_000):
            for i, one in enumerate(todo):
                if i not in results:
                    try:
                        results[i] = one()
                    except WANTS as e:
                        self.wanted.add(type(e))
            if len(results) == len(todo):
                return [results[i] for i in range(len(todo))]
        raise AssertionError("it comes to no end")

    def shake_hands(self) -> None:
        self.both(lambda: self.client.handshake(0.0), lambda: self.server.handshake(0.0))

    def reader(self, end: TlsStream, size: int) -> Callable[[], bytes]:
        got = bytearray()

        def read() -> bytes:
            while len(got) < size:
                got.extend(end.read(size - len(got), None, 0.0))
            return bytes(got)

        return read


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize(
    "takes", [(1, 0), (0, 1, 0, 0, 2), (3, 1 << 20, 0), (7, 0), (16384, 0), (16407, 1, 0)]
)
def test_a_whole_session_in_pieces(
    contexts: Contexts, version: ssl.TLSVersion, polled: bool, takes: tuple[int, ...]
) -> None:
    ends = Ends(contexts, version)
    for wire in ends.wires:
        wire.takes = cycle(takes)
    if polled:
        ends.client.be_shown()
        ends.server.be_shown()
    ends.shake_hands()
    blob = BLOB if max(takes) > 100 else BLOB[:2000]
    for there, back in ((blob, blob[::-1]), (b"a", b"b"), (blob[:17], blob)):
        got = ends.both(
            partial(ends.client.write, memoryview(there), 0.0),
            ends.reader(ends.server, len(there)),
            partial(ends.server.write, memoryview(back), 0.0),
            ends.reader(ends.client, len(back)),
        )
        assert got == [len(there), there, len(back), back]
    ends.both(lambda: ends.client.shutdown(0.0), lambda: ends.server.shutdown(0.0))
    assert ends.wanted == set(WANTS)


@VERSIONS
@pytest.mark.parametrize("timeout", [0.0, 30.0])
def test_a_record_cut_at_every_byte_goes_on_there(
    contexts: Contexts, version: ssl.TLSVersion, timeout: float
) -> None:
    ends = Ends(contexts, version)
    ends.shake_hands()
    wire = ends.wires[0]
    data = memoryview(b"one record of some bytes")
    ends.client.write(data, 0.0)
    record = len(ends.wires[1].inbox)
    assert ends.server.read(100, None, 0.0) == data
    for cut in range(record + 1):
        wire.takes = iter((cut, 0, 1 << 20) if 0 < cut < record else (0, 1 << 20))
        with pytest.raises(TimeoutError if timeout else ssl.SSLWantWriteError):
            ends.client.write(data, timeout)
        with pytest.raises(ssl.SSLError, match="BAD_LENGTH"):
            ends.client.write(data[:-1], timeout)
        with pytest.raises(ssl.SSLError, match="BAD_WRITE_RETRY"):
            ends.client.write(memoryview(b"another thing of the same size"), timeout)
        assert ends.client.write(data, timeout) == len(data)
        assert ends.server.read(100, None, 0.0) == data


@VERSIONS
def test_reading_goes_on_while_a_write_is_stuck(
    contexts: Contexts, version: ssl.TLSVersion
) -> None:
    ends = Ends(contexts, version)
    ends.shake_hands()
    ends.wires[0].takes = iter((100, 0, 0, 0, 50, 0, 0, 1 << 20))
    ends.server.write(memoryview(b"hello"), 0.0)
    with pytest.raises(ssl.SSLWantWriteError):
        ends.client.write(memoryview(BLOB), 0.0)
    assert ends.client.read(100, None, 0.0) == b"hello"
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.read(100, None, 0.0)
    with pytest.raises(ssl.SSLWantWriteError):
        ends.client.write(memoryview(BLOB), 0.0)
    ends.wires[0].takes = cycle((1 << 20,))
    assert ends.client.write(memoryview(BLOB + b"more"), 0.0) == len(BLOB) + 4
    assert ends.reader(ends.server, len(BLOB) + 4)() == BLOB + b"more"


@VERSIONS
def test_the_transport_is_readable_as_long_as_a_record_is_held(
    contexts: Contexts, version: ssl.TLSVersion
) -> None:
    """select and pending together show all that there is, and no more."""
    ends = Ends(contexts, version)
    ends.client.be_shown()
    ends.shake_hands()
    inbox = ends.wires[0].inbox
    with suppress(ssl.SSLWantReadError):
        ends.client.read(1, None, 0.0)  # the session's tickets
    for size in (1, 100, 16384):
        for _ in range(3):
            ends.server.write(memoryview(bytes(size)), 0.0)
        for left in (2, 1, 0):
            assert inbox, "there is a record to be read"
            assert ends.client.read(1, None, 0.0) == b"\0"
            assert ends.client.object.pending() == size - 1
            assert bool(inbox) == bool(left)
            assert size == 1 or len(ends.client.read(1 << 20, None, 0.0)) == size - 1
            assert not ends.client.object.pending()
            assert bool(inbox) == bool(left)
        with pytest.raises(ssl.SSLWantReadError):
            ends.client.read(1, None, 0.0)
    assert all(len(one) == 1 for one in ends.wires[0].unread)


@VERSIONS
def test_what_was_read_ahead_is_shown_to_a_late_poller(
    contexts: Contexts, version: ssl.TLSVersion
) -> None:
    ends = Ends(contexts, version)
    ends.shake_hands()
    for i in range(3):
        ends.server.write(memoryview(b"%d" % i * 10), 0.0)
    wire = ends.wires[0]
    assert ends.client.read(10, None, 0.0) == b"0" * 10
    assert not wire.inbox, "it is all read ahead"
    ends.client.be_shown()
    assert len(wire.inbox) == 1
    assert ends.client.read(10, None, 0.0) == b"1" * 10
    assert wire.inbox
    assert ends.client.read(10, None, 0.0) == b"2" * 10
    assert not wire.inbox


def test_the_clear_text_behind_tls_is_the_transports(contexts: Contexts) -> None:
    ends = Ends(contexts, ssl.TLSVersion.TLSv1_3)
    ends.shake_hands()
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.shutdown(0.0)
    ends.server.shutdown(0.0)
    ends.server.end()
    ends.wires[0].inbox += b"220 in the clear\r\n"
    ends.client.shutdown(0.0)
    ends.client.end()
    assert bytes(ends.wires[0].inbox) == b"220 in the clear\r\n"


@pytest.mark.parametrize("text", [b"GET / HTTP/1.0\r\n", b"GET /", bytes(8), b"220 x\r\n"])
def test_what_is_no_tls_is_told_at_once(contexts: Contexts, text: bytes) -> None:
    ends = Ends(contexts, ssl.TLSVersion.TLSv1_3)
    ends.server.be_shown()
    ends.wires[1].inbox += text
    with pytest.raises(ssl.SSLError) as told:
        ends.server.handshake(0.0)
    assert not isinstance(told.value, WANTS)


@VERSIONS
@pytest.mark.parametrize("how", ["in a record", "between records", "in order"])
def test_the_end_of_the_stream(contexts: Contexts, version: ssl.TLSVersion, how: str) -> None:
    ends = Ends(contexts, version)
    ends.shake_hands()
    ends.server.write(memoryview(b"last"), 0.0)
    wire = ends.wires[0]
    if how == "in order":
        with suppress(ssl.SSLWantReadError):
            ends.server.shutdown(0.0)
    elif how == "in a record":
        del wire.inbox[-3:]
    wire.ended = True
    if how != "in a record":
        assert ends.client.read(100, None, 0.0) == b"last"
    for _ in range(2):
        if how == "in order":
            assert ends.client.read(100, None, 0.0) == b""
        else:
            with pytest.raises(ssl.SSLEOFError):
                ends.client.read(100, None, 0.0)


@VERSIONS
def test_an_interrupted_write_goes_on_where_it_was(
    contexts: Contexts, version: ssl.TLSVersion
) -> None:
    ends = Ends(contexts, version)
    ends.shake_hands()
    wire = ends.wires[0]
    data = memoryview(b"some bytes")
    for cut in (0, 1, 20):

        def strike(settled: Callable[[int], None], view: memoryview, cut: int = cut) -> None:
            wire.fault = None
            wire.other.inbox += view[:cut]
            settled(cut)
            raise KeyboardInterrupt

        wire.fault = strike
        with pytest.raises(KeyboardInterrupt):
            ends.client.write(data, 0.0)
        assert ends.client.write(data, 0.0) == len(data)
        assert ends.server.read(100, None, 0.0) == data


def test_a_write_of_which_nobody_knows_is_not_made_worse(contexts: Contexts) -> None:
    ends = Ends(contexts, ssl.TLSVersion.TLSv1_3)
    ends.shake_hands()
    wire = ends.wires[0]

    def strike(_: Callable[[int], None], __: memoryview) -> None:
        wire.fault = None
        raise KeyboardInterrupt

    wire.fault = strike
    with pytest.raises(KeyboardInterrupt):
        ends.client.write(memoryview(b"some bytes"), 0.0)
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="nobody knows how much"):
            ends.client.write(memoryview(b"some bytes"), 0.0)
    assert not wire.other.inbox
    ends.server.write(memoryview(b"still heard"), 0.0)
    assert ends.client.read(100, None, 0.0) == b"still heard"


def test_a_broken_transport_says_so_each_time(contexts: Contexts) -> None:
    ends = Ends(contexts, ssl.TLSVersion.TLSv1_3)
    ends.shake_hands()

    def broken(_: Callable[[int], None], __: memoryview) -> None:
        raise BrokenPipeError

    ends.wires[0].fault = broken
    for data in (b"some bytes", b"QUIT"):
        with pytest.raises(BrokenPipeError):
            ends.client.write(memoryview(data), 0.0)
