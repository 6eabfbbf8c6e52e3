# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core import checksum as cs

words16 = st.integers(0, 0xFFFF)


def naive(data: bytes, initial: int = 0) -> int:
    """Word by word, as RFC 1071 section 1 says it."""
    total = initial
    for i in range(0, len(data), 2):
        total += data[i] << 8 | (data[i + 1] if i + 1 < len(data) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@given(st.binary(max_size=100), words16)
def test_csum_partial_equals_word_by_word_addition(data: bytes, initial: int) -> None:
    assert cs.csum_partial(data, initial) == naive(data, initial)


@given(st.binary(min_size=1, max_size=64), st.integers(1000, 5000), st.integers(0, 3), words16)
def test_csum_partial_of_large_buffers(seed: bytes, n: int, skip: int, initial: int) -> None:
    data = (seed * n)[:n]
    view = memoryview(bytes(skip) + data)[skip:]
    assert cs.csum_partial(view, initial) == naive(data, initial)


@pytest.mark.parametrize("n", [0, 1, 2, 1022, 1023, 1024, 1025, 1026, 1027, 65535])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_csum_partial_at_its_edges(n: int, byte: int) -> None:
    data = bytes([byte]) * n
    assert cs.csum_partial(data) == naive(data)


@given(st.binary(max_size=70), st.binary(max_size=2000))
def test_csum_block_add_at_odd_and_even_offsets(a: bytes, b: bytes) -> None:
    whole = cs.csum_partial(a + b)
    joined = cs.csum_block_add(cs.csum_partial(a), cs.csum_partial(b), len(a))
    assert cs.csum_fold(joined) == cs.csum_fold(whole)
    assert cs.csum_block_sub(whole, cs.csum_partial(b), len(a)) % 0xFFFF == (
        cs.csum_partial(a) % 0xFFFF
    )


@given(st.binary(min_size=1, max_size=64), st.integers(1, 6000), st.integers(1, 1500))
def test_csum_blocks(seed: bytes, n: int, size: int) -> None:
    data = (seed * n)[:n]
    want = [naive(data[at : at + size]) for at in range(0, n, size)]
    assert cs.csum_blocks(memoryview(data), size) == want


@given(st.binary(min_size=20, max_size=20), st.integers(0, 9), words16)
def test_csum_replace2_is_a_fresh_checksum(data: bytes, word: int, new: int) -> None:
    old = int.from_bytes(data[2 * word : 2 * word + 2], "big")
    changed = data[: 2 * word] + new.to_bytes(2, "big") + data[2 * word + 2 :]
    got = cs.csum_replace2(cs.csum_fold(cs.csum_partial(data)), old, new)
    assert got % 0xFFFF == cs.csum_fold(cs.csum_partial(changed)) % 0xFFFF


@given(st.binary(min_size=20, max_size=20), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_csum_replace4_is_a_fresh_checksum(data: bytes, word: int, new: int) -> None:
    at = 4 * word
    changed = data[:at] + new.to_bytes(4, "big") + data[at + 4 :]
    check = cs.csum_fold(cs.csum_partial(data))
    got = cs.csum_replace4(check, int.from_bytes(data[at : at + 4], "big"), new)
    assert got % 0xFFFF == cs.csum_fold(cs.csum_partial(changed)) % 0xFFFF


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1))
def test_csum_sub_undoes_csum_add(data: bytes, addend: int) -> None:
    csum = cs.csum_partial(data)
    assert cs.csum_sub(cs.csum_add(csum, addend), addend) % 0xFFFF == csum % 0xFFFF


@given(st.binary(min_size=8, max_size=1600))
def test_tcpudp_magic_of_a_whole_packet_is_zero(segment: bytes) -> None:
    saddr, daddr = b"\x0a\x4d\0\x01", b"\x0a\x4d\0\x02"
    zeroed = segment[:6] + b"\0\0" + segment[8:]
    check = cs.csum_tcpudp_magic(saddr, daddr, len(zeroed), 17, cs.csum_partial(zeroed))
    filled = segment[:6] + check.to_bytes(2, "big") + segment[8:]
    assert cs.csum_tcpudp_magic(saddr, daddr, len(filled), 17, cs.csum_partial(filled)) == 0


def test_rfc1071_example() -> None:
    # RFC 1071 section 3
    assert cs.csum_partial(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


def test_fold_of_the_two_zeros() -> None:
    assert cs.csum_fold(0) == 0xFFFF
    assert cs.csum_fold(0xFFFF) == 0
    assert cs.csum_fold(0x1FFFE) == 0
    assert cs.csum_from32to16(0x1FFFE) == 0xFFFF


def test_ip_fast_csum_of_a_captured_header() -> None:
    header = bytes.fromhex("4500003c1c4640004006b1e6ac100a63ac100a0c")
    assert cs.ip_fast_csum(header) == 0
    assert cs.ip_fast_csum(header[:10] + b"\0\0" + header[12:]) == 0xB1E6
