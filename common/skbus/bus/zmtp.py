# SPDX-License-Identifier: MIT
"""ZMTP 3.0, the protocol of ZeroMQ's pipes (RFC 23/ZMTP, mechanism NULL): bytes and frames.

Sans-I/O, used by `skbus.bus.pipe`. Any PUSH, PULL, DEALER or ROUTER of libzmq, or of another ZeroMQ
library, can be connected to ours.

    greeting (64 bytes) -> READY command -> messages of frames
    frame: flags, length of one or eight bytes, body
"""

import struct
from collections.abc import Sequence
from typing import Final

_GREETING: Final = struct.Struct(">10s2s20sB31s")
_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_NULL: Final = b"NULL".ljust(20, b"\0")
_LONG: Final = struct.Struct(">BQ")
_LENGTH: Final = struct.Struct(">I")
_SHORT: Final = [bytes((0, size)) for size in range(256)]
"""Flags and length of a message's only frame, by its length."""
_SHORT_HEADER: Final = 2
_FLAG_MORE: Final = 1
_FLAG_LONG: Final = 2
_FLAG_COMMAND: Final = 4
_MAX_FRAMES: Final = 64
"""Frames of one message."""
_MAX_COMMAND: Final = 4096

PEERS: Final = {
    b"PULL": (b"PUSH",),
    b"PUSH": (b"PULL",),
    b"ROUTER": (b"DEALER", b"REQ", b"ROUTER"),
    b"DEALER": (b"ROUTER", b"REP", b"DEALER"),
}
"""Socket type -> types that it may be connected to."""


class ZmtpError(ValueError):
    """A peer that does not speak ZMTP 3, or has an unfit socket type; the text says why."""


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + _LENGTH.pack(len(value)) + value


def preamble(socket_type: bytes, identity: bytes = b"") -> bytes:
    """The greeting and READY, which go before all messages. Nobody need await their answers, as
    NULL has nothing to agree on. A message may follow once the peer's READY is there: libzmq
    forgets, until more comes, the bytes that it reads together with READY."""
    body = b"\x05READY" + _property(b"Socket-Type", socket_type)
    if identity:
        body += _property(b"Identity", identity)
    greeting = _GREETING.pack(_SIGNATURE, b"\x03\x00", _NULL, 0, bytes(31))
    return greeting + bytes((_FLAG_COMMAND, len(body))) + body


def encode_frame(frame: bytes) -> bytes:
    """A message of one frame."""
    size = len(frame)
    return (_SHORT[size] if size < 256 else _LONG.pack(_FLAG_LONG, size)) + frame


def encode_message(frames: Sequence[bytes]) -> bytes:
    """A message of one frame or more."""
    if len(frames) == 1:
        return encode_frame(frames[0])
    out = []
    last = len(frames) - 1
    for i, frame in enumerate(frames):
        size = len(frame)
        more = _FLAG_MORE if i < last else 0
        out.append(bytes((more, size)) if size < 256 else _LONG.pack(more | _FLAG_LONG, size))
        out.append(frame)
    return b"".join(out)


class Decoder:
    """Decodes what a peer sends, piece by piece.

    socket_type: ours, which decides the peer's possible types. limit: bytes in a message.
    """

    __slots__ = (
        "_frames", "_have", "_limit", "_need", "_parts", "_size", "_socket_type", "greeted",
        "identity", "ready",
    )  # fmt: skip

    def __init__(self, socket_type: bytes, limit: int) -> None:
        self._socket_type = socket_type
        self._limit = limit
        self._parts: list[bytes] = []
        """Bytes that are no whole frame yet."""
        self._have = 0
        self._need = _GREETING.size
        """With fewer bytes than this, there is no whole frame yet."""
        self._frames: list[bytes] = []
        self._size = 0
        self.greeted = False
        self.ready = False
        self.identity = b""
        """The identity that the peer gave; b"" if none."""

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that are complete now, each a list of frames. On ZmtpError, close the
        connection."""
        size = len(data) - _SHORT_HEADER
        if (
            0 <= size <= self._limit
            and data[0] == 0
            and data[1] == size
            and self.ready
            and not self._parts
            and not self._frames
        ):  # one short message, whole
            return [[data[_SHORT_HEADER:]]]
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
        at = 0
        if not self.greeted:
            if len(data) < _GREETING.size:
                return self._keep(data, 0, _GREETING.size, [])
            self._greeting(data)
            at = _GREETING.size
        out: list[list[bytes]] = []
        end = len(data)
        while at < end:
            flags = data[at]
            body = at + 9 if flags & _FLAG_LONG else at + 2
            if body > end:
                return self._keep(data, at, body - at, out)
            size = int.from_bytes(data[at + 1 : body], "big")
            if flags > 7 or size > self._limit:
                raise ZmtpError(f"a frame with flags {flags:#x} and {size} bytes")
            stop = body + size
            if stop > end:
                return self._keep(data, at, stop - at, out)
            frame = data[body:stop]
            at = stop
            if flags & _FLAG_COMMAND:
                self._command(frame)
            elif not self.ready:
                raise ZmtpError("a message before READY")
            elif not flags & _FLAG_MORE and not self._frames:
                out.append([frame])
            else:
                self._frames.append(frame)
                self._size += size
                if self._size > self._limit or len(self._frames) > _MAX_FRAMES:
                    raise ZmtpError(f"a message of over {len(self._frames) - 1} frames")
                if not flags & _FLAG_MORE:
                    out.append(self._frames)
                    self._frames = []
                    self._size = 0
        return out

    def _keep(self, data: bytes, at: int, need: int, out: list[list[bytes]]) -> list[list[bytes]]:
        """Keep the rest, which is no whole frame yet."""
        rest = data[at:]
        self._parts.append(rest)
        self._have = len(rest)
        self._need = need
        return out

    def _greeting(self, data: bytes) -> None:
        signature, version, mechanism, _, _ = _GREETING.unpack_from(data)
        if signature[0] != 0xFF or signature[9] != 0x7F:
            raise ZmtpError("not ZMTP")
        if version[0] < 3:
            raise ZmtpError(f"ZMTP {version[0]}.{version[1]}, not 3")
        if mechanism != _NULL:
            name = mechanism.rstrip(b"\0").decode("ascii", "replace")
            raise ZmtpError(f"mechanism {name!r}, not NULL")
        self.greeted = True

    def _command(self, body: bytes) -> None:
        """Take READY and ERROR. Others are ignored, such as PING, for which we did not ask."""
        name = body[1 : 1 + body[0]] if body else b""
        if name == b"ERROR":
            text = body[7 : 7 + body[6]] if len(body) > 6 else b""
            raise ZmtpError(f"refused: {text.decode('ascii', 'replace')}")
        if name != b"READY" or self.ready:
            return
        if len(body) > _MAX_COMMAND:
            raise ZmtpError(f"READY of {len(body)} bytes")
        found = _properties(body[6:])
        theirs = found.get(b"socket-type", b"")
        if theirs not in PEERS[self._socket_type]:
            raise ZmtpError(
                f"{theirs.decode('ascii', 'replace') or 'nothing'} is no peer for "
                f"{self._socket_type.decode()}"
            )
        self.identity = found.get(b"identity", b"")
        self.ready = True


def _properties(raw: bytes) -> dict[bytes, bytes]:
    """READY's properties, their names in lower case (they are case-insensitive)."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(raw):
        name_end = at + 1 + raw[at]
        value = name_end + _LENGTH.size
        if value > len(raw):
            raise ZmtpError("READY is cut off")
        (size,) = _LENGTH.unpack_from(raw, name_end)
        if value + size > len(raw):
            raise ZmtpError("READY is cut off")
        found[raw[at + 1 : name_end].lower()] = raw[value : value + size]
        at = value + size
    return found
