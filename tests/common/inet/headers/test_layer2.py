# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.inet.headers import HeaderError, arp, ethernet, vlan

mac = st.binary(min_size=6, max_size=6)
ip4 = st.binary(min_size=4, max_size=4)
u16 = st.integers(0, 0xFFFF)


@given(mac, mac, u16, st.binary(max_size=9))
def test_ethernet_round_trip(dest: bytes, source: bytes, proto: int, front: bytes) -> None:
    raw = ethernet.build(dest, source, proto)
    assert len(raw) == ethernet.ETH_HLEN
    assert ethernet.parse(front + raw, len(front)) == (dest, source, proto)


@given(u16, u16)
def test_vlan_round_trip(tci: int, proto: int) -> None:
    assert vlan.parse(vlan.build(tci, proto)) == (tci, proto)


@given(u16, mac, ip4, mac, ip4)
def test_arp_round_trip(op: int, sha: bytes, sip: bytes, tha: bytes, tip: bytes) -> None:
    raw = arp.build(op, sha, sip, tha, tip)
    assert len(raw) == arp.ARP_LEN
    assert arp.parse(raw) == (1, 0x0800, 6, 4, op, sha, sip, tha, tip)


@given(st.binary(max_size=40), st.integers(-3, 45))
def test_arbitrary_bytes_raise_nothing_but_header_error(data: bytes, offset: int) -> None:
    reasons = set()
    for parse in (ethernet.parse, vlan.parse, arp.parse):
        try:
            parse(data, offset)
        except HeaderError as e:
            reasons.add(e.drop_reason)
    assert reasons <= {"PKT_TOO_SMALL", "NOT_SPECIFIED"}


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [(1, 6 + 9, "hardware"), (3, 1, "protocol"), (4, 8, "hardware"), (5, 16, "protocol")],
)
def test_arp_that_is_not_for_ethernet_and_ipv4(at: int, value: int, word: str) -> None:
    raw = bytearray(arp.build(1, bytes(6), bytes(4), bytes(6), bytes(4)))
    raw[at] = value
    with pytest.raises(HeaderError, match=word):
        arp.parse(raw)


def test_short_headers_say_how_short() -> None:
    with pytest.raises(HeaderError, match="needs 14 bytes, there are 13") as e:
        ethernet.parse(bytes(13))
    assert e.value.drop_reason == "PKT_TOO_SMALL"


def test_multicast_bit() -> None:
    assert ethernet.is_multicast_ether_addr(ethernet.BROADCAST)
    assert not ethernet.is_multicast_ether_addr(b"\x02\0\0\0\0\x01")
