# SPDX-License-Identifier: MIT
"""ZMTP: messages come whole however they are cut, and what is no ZMTP is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.bus.zmtp import Decoder, ZmtpError, encode_message, preamble

LIMIT = 1 << 20


def pull(*pieces: bytes) -> tuple[Decoder, list[list[bytes]]]:
    decoder = Decoder(b"PULL", LIMIT)
    out: list[list[bytes]] = []
    for piece in pieces:
        out += decoder.feed(piece)
    return decoder, out


MESSAGES = st.lists(
    st.lists(
        st.one_of(st.binary(max_size=40), st.integers(250, 70_000).map(bytes)),
        min_size=1,
        max_size=3,
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(MESSAGES, st.lists(st.integers(1, 400), min_size=1, max_size=50))
def test_messages_come_whole_however_they_are_cut(
    messages: list[list[bytes]], cuts: list[int]
) -> None:
    stream = preamble(b"PUSH", b"me") + b"".join(map(encode_message, messages))
    pieces = []
    at = 0
    for cut in cuts:
        pieces.append(stream[at : at + cut])
        at += cut
    pieces.append(stream[at:])
    decoder, out = pull(*filter(None, pieces))
    assert out == messages
    assert decoder.ready
    assert decoder.identity == b"me"


def test_byte_by_byte() -> None:
    stream = preamble(b"PUSH") + encode_message((b"a" * 300, b"", b"b"))
    _, out = pull(*(stream[i : i + 1] for i in range(len(stream))))
    assert out == [[b"a" * 300, b"", b"b"]]


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 254, 255, 256, 70_000])
def test_a_message_that_comes_alone(size: int) -> None:
    frame = bytes(size)
    message = encode_message((frame,))
    _, out = pull(preamble(b"PUSH"), message, message, encode_message((frame, b"x")), message)
    assert out == [[frame], [frame], [frame, b"x"], [frame]]
    _, out = pull(preamble(b"PUSH") + b"\x01\x01a", message)
    assert out == [[b"a", frame]]


def test_a_message_that_comes_alone_and_is_too_long_is_refused() -> None:
    message = encode_message((bytes(LIMIT + 1),))
    with pytest.raises(ZmtpError, match=f"{LIMIT + 1} bytes"):
        pull(preamble(b"PUSH"), message)


def test_a_short_message_before_ready_is_refused() -> None:
    with pytest.raises(ZmtpError, match="a message before READY"):
        pull(GREETING, b"\0\1a")


GREETING = preamble(b"PUSH")[:64]


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"GET / HTTP/1.1\r\n" * 5, "not ZMTP"),
        (GREETING[:10] + b"\x02\x00" + GREETING[12:], "ZMTP 2.0, not 3"),
        (GREETING[:12] + b"CURVE".ljust(20, b"\0") + GREETING[32:], "mechanism 'CURVE', not NULL"),
        (preamble(b"SUB"), "SUB is no peer for PULL"),
        (GREETING + b"\x04\x06\x05READY", "nothing is no peer for PULL"),
        (GREETING + b"\x04\x0e\x05READY\x03abc\0\0\0\x09", "READY is cut off"),
        (GREETING + b"\x04\x08\x05READY\x09a", "READY is cut off"),
        (GREETING + b"\x04\x0b\x05ERROR\x04none", "refused: none"),
        (GREETING + b"\x00\x01a", "a message before READY"),
        (preamble(b"PUSH") + b"\x08\x00", "flags 0x8"),
        (preamble(b"PUSH") + b"\x02" + (LIMIT + 1).to_bytes(8, "big"), f"{LIMIT + 1} bytes"),
        (preamble(b"PUSH") + b"\x01\x00" * 65, "over 64 frames"),
        (preamble(b"PUSH") + (b"\x03" + (LIMIT - 1).to_bytes(8, "big") + bytes(LIMIT - 1)) * 2,
         "over 1 frames"),
    ],
)  # fmt: skip
def test_who_is_refused(stream: bytes, text: str) -> None:
    with pytest.raises(ZmtpError, match=text):
        pull(stream)


def test_commands_that_nobody_asked_for_are_passed_over() -> None:
    ping = b"\x04\x07\x04PING\0\0"
    _, out = pull(preamble(b"PUSH") + ping + encode_message((b"x",)) + ping)
    assert out == [[b"x"]]
