# SPDX-License-Identifier: MIT
"""Any text is a quantity, a distribution or an assertion, or is refused with a sentence; any bytes
end no built-in server."""

from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.core.quantities import parse_rate, parse_time
from skbus.load import quantity, server, wire
from skbus.load.assertion import Assertion
from skbus.load.quantity import Distribution

PART = st.sampled_from(
    ["9" * 400, "9" * 5000, "1e999", "nan", "inf", "-1", "0", "1", "2.5", "s", "ms", "min", "GiB",
     "kbit", "/s", "%", "exp(", "uniform(", "pareto(", "lognormal(", "normal(", "choice(", ")",
     ",", ":", " max ", " ", "p", "p99", "errors", ".", "@", "<", "==", "\u0663", "\u00b2"]
)  # fmt: skip
TEXT = st.lists(st.one_of(PART, st.text(max_size=4)), max_size=7).map("".join)


@settings(deadline=None, max_examples=300)
@given(TEXT)
@pytest.mark.parametrize(
    "read",
    [quantity.seconds, quantity.size, quantity.bit_rate, quantity.per_second, parse_time,
     parse_rate],
)  # fmt: skip
def test_quantities(read: Callable[[object], float], text: str) -> None:
    try:
        value = read(text)
    except ValueError:
        return
    assert isfinite(value)


@settings(deadline=None, max_examples=300)
@given(TEXT, st.sampled_from(["size", "time"]))
def test_distributions(text: str, kind: quantity.Kind) -> None:
    try:
        distribution = Distribution.parse(text, kind)
    except ValueError:
        return
    for seed in range(5):
        assert distribution.draw(Random(seed)) >= 0


@settings(deadline=None, max_examples=300)
@given(TEXT)
def test_assertions(text: str) -> None:
    try:
        bound = Assertion.parse(text).bound
    except ValueError:
        return
    assert isfinite(bound)


class _Stream:
    """A client that says some bytes, takes a megabyte at most, and is gone."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._taken = 0

    async def receive_some(self, most: int) -> bytes:
        data, self._data = self._data[:most], self._data[most:]
        await trio.lowlevel.checkpoint()
        return data

    async def send_all(self, data: bytes) -> None:
        self._taken += len(data)
        await trio.lowlevel.checkpoint()
        if self._taken > 1 << 20:
            raise trio.BrokenResourceError


SAID = st.sampled_from(
    [b"GET /bytes/", b"9" * 5000, b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"Connection: a, close\r\n",
     wire.ECHO.pack(3, 1 << 31), wire.ECHO.pack(1, 9), wire.BULK.pack(b"B", b"d", 1 << 63),
     wire.BULK.pack(b"B", b"u", 5), wire.BULK.pack(b"B", b"x", 5), b"x" * 20000]
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(SAID, st.binary(max_size=30)), max_size=6).map(b"".join))
@pytest.mark.parametrize("handler", [server.echo, server.bulk, server.http])
def test_the_built_in_servers_given_any_bytes(handler: Any, data: bytes) -> None:
    stream: Any = _Stream(data)
    with suppress(trio.BrokenResourceError):
        trio.run(handler, server.Reader(stream))
