# SPDX-License-Identifier: MIT
"""What the load's own clients and servers say to each other, beside HTTP.

    echo   client: 4 bytes length, 4 bytes length of the answer, payload     server: payload
    bulk   client: "B", "u" or "d", 8 bytes length; then that many bytes one way; for "u"
           the server answers with one byte when it has all
    udp    client: 4 bytes number, 4 bytes length of the answer, payload
           server: 4 bytes number, payload

Payload is always the beginning of the same pattern, so that either end can check it. Its period
is a prime, so that a lost or doubled segment does not go unseen.
"""

import struct
from functools import lru_cache
from random import Random
from typing import Final

ECHO: Final = struct.Struct("!II")
BULK: Final = struct.Struct("!ccQ")
UDP: Final = struct.Struct("!II")

PERIOD: Final = 65521
"""The greatest prime below 65536."""
CHUNK: Final = 1 << 18
"""Bytes of one call in bulk."""
MAX_ECHO: Final = 64 << 20
MAX_DATAGRAM: Final = 65507 - UDP.size


@lru_cache(maxsize=1)
def pattern() -> bytes:
    """CHUNK + PERIOD bytes of the pattern: any CHUNK of it begins within the first PERIOD."""
    period = Random("skbus load").randbytes(PERIOD)
    return (period * (CHUNK // PERIOD + 3))[: CHUNK + PERIOD]


def piece(offset: int, length: int) -> bytes:
    """`length` (at most CHUNK) bytes of the pattern from `offset` on."""
    start = offset % PERIOD
    return pattern()[start : start + length]


@lru_cache(maxsize=64)
def payload(length: int) -> bytes:
    """The first `length` bytes of the pattern."""
    if length <= CHUNK:
        return pattern()[:length]
    period = pattern()[:PERIOD]
    return (period * (length // PERIOD + 1))[:length]
