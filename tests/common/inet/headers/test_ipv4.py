# SPDX-License-Identifier: MIT
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.inet.headers import HeaderError, ipv4

ip4 = st.binary(min_size=4, max_size=4)
u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)


def error_of(parse: Callable[[bytes], object], data: bytes) -> HeaderError | None:
    try:
        parse(data)
    except HeaderError as e:
        return e
    return None


A, B = b"\x0a\x4d\0\x01", b"\x0a\x4d\0\x02"


@given(ip4, ip4, u8, st.integers(60, 65535), u16, u16, u8, u8, st.binary(max_size=40))
def test_round_trip(
    saddr: bytes,
    daddr: bytes,
    protocol: int,
    tot_len: int,
    id_: int,
    frag_off: int,
    ttl: int,
    tos: int,
    options: bytes,
) -> None:
    raw = ipv4.build(
        saddr,
        daddr,
        protocol,
        tot_len,
        id=id_,
        frag_off=frag_off,
        ttl=ttl,
        tos=tos,
        options=options,
    )
    hdr = ipv4.parse(b"xy" + raw, 2)
    assert hdr.ihl == len(raw)
    assert ipv4.ip_fast_csum_ok(b"xy" + raw, 2, hdr.ihl)
    assert hdr.options[: len(options)] == options
    assert not any(hdr.options[len(options) :])
    assert hdr[1:7] == (tos, tot_len, id_, frag_off, ttl, protocol)
    assert (hdr.saddr, hdr.daddr) == (saddr, daddr)


@given(st.binary(min_size=0, max_size=64), st.integers(-2, 70))
def test_arbitrary_bytes_raise_nothing_but_header_error(data: bytes, offset: int) -> None:
    try:
        hdr = ipv4.parse(data, offset)
    except HeaderError:
        return
    assert 20 <= hdr.ihl <= len(data) - offset
    assert hdr.ihl <= hdr.tot_len
    e = error_of(ipv4.parse_options, hdr.options)
    assert e is None or 20 <= e.pointer <= hdr.ihl


@given(st.binary(max_size=40))
def test_arbitrary_options(options: bytes) -> None:
    e = error_of(ipv4.parse_options, options)
    assert e is None or (e.drop_reason == "IP_INHDR" and e.pointer >= 20)
    try:
        assert len(ipv4.fragment_options(options)) == len(options)
    except HeaderError:
        assert e is not None


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(0, 0x65, "IP_INHDR"), (0, 0x44, "IP_INHDR"), (0, 0x46, "PKT_TOO_SMALL"), (3, 10, "IP_INHDR")],
)
def test_bad_headers(at: int, value: int, reason: str) -> None:
    raw = bytearray(ipv4.build(A, B, 6, 40))
    raw[at] = value
    with pytest.raises(HeaderError) as e:
        ipv4.parse(raw)
    assert e.value.drop_reason == reason


def test_a_flipped_bit_is_seen_by_the_checksum() -> None:
    raw = bytearray(ipv4.build(A, B, 6, 40))
    assert ipv4.ip_fast_csum_ok(raw, 0, 20)
    raw[8] ^= 1
    assert not ipv4.ip_fast_csum_ok(raw, 0, 20)


def test_too_many_options_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="44 bytes of IP options"):
        ipv4.build(A, B, 6, 100, options=bytes(41))


def test_options_are_found() -> None:
    rr = bytes([7, 11, 4]) + bytes(8)
    ts = bytes([68, 12, 5, 0]) + bytes(8)
    lsrr = bytes([131, 7, 4]) + A
    ra = bytes([148, 4, 0, 0])
    opts = ipv4.parse_options(rr + b"\x01" + lsrr + b"\x01" + ra)
    assert opts.rr == (7, 0, rr)
    assert opts.srr == (131, 12, lsrr)
    assert not opts.is_strictroute
    assert opts.router_alert
    assert opts.ts is None
    opts = ipv4.parse_options(ts + bytes([137, 7, 8]) + A + b"\0")
    assert opts.ts == (68, 0, ts)
    assert opts.is_strictroute
    assert opts.srr is not None
    assert opts.srr.pointer == 8


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ("07", 20),  # no length
        ("0701", 20),  # a length below 2
        ("070704", 20),  # longer than the options
        ("070203", 21),  # RR too short
        ("07070301020304", 22),  # pointer in front of the first slot
        ("07070501020304", 22),  # no room for a whole address
        ("0707040000000007070400000000", 27),  # twice
        ("44080501000000", 20),  # cut off
        ("4408050100000000", 22),  # timestamp with address: 8 bytes do not fit
        ("4408050200000000", 23),  # a flag that there is not
        ("440809f000000000", 23),  # overflow counter is full
        ("9403", 20),  # cut off
        ("940300", 21),  # router alert too short
    ],
)
def test_option_errors_point_at_the_byte(options: str, pointer: int) -> None:
    with pytest.raises(HeaderError) as e:
        ipv4.parse_options(bytes.fromhex(options))
    assert e.value.pointer == pointer


def test_only_options_with_the_copy_bit_are_in_later_fragments() -> None:
    rr, lsrr = bytes([7, 7, 4]) + A, bytes([131, 7, 4]) + B
    assert ipv4.fragment_options(rr + lsrr + b"\0\0") == b"\x01" * 7 + lsrr + b"\0\0"


def test_address_classes() -> None:
    assert ipv4.ipv4_is_multicast(b"\xe0\0\0\x01")
    assert not ipv4.ipv4_is_multicast(B)
    assert ipv4.is_loopback(b"\x7f\0\0\x01")
    assert ipv4.is_zeronet(bytes(4))
    assert ipv4.is_lbcast(b"\xff" * 4)
    assert ipv4.is_fragment(ipv4.parse(ipv4.build(A, B, 6, 40, frag_off=ipv4.IP_MF)))
    assert not ipv4.is_fragment(ipv4.parse(ipv4.build(A, B, 6, 40, frag_off=ipv4.IP_DF)))
