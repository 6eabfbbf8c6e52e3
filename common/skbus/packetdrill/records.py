# SPDX-License-Identifier: MIT
"""Records between `live` and `peer`: length, time, bytes."""

import struct
from typing import Final

RECORD: Final = struct.Struct("=IQ")


def read_records(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(time, bytes) of each whole record, and what is left over."""
    out = []
    at = 0
    while at + RECORD.size <= len(data):
        size, when = RECORD.unpack_from(data, at)
        end = at + RECORD.size + size
        if end > len(data):
            break
        out.append((when, data[at + RECORD.size : end]))
        at = end
    return out, data[at:]
