# SPDX-License-Identifier: MIT
"""Whose packet an skb is, and what is asked for by a flow."""

from ipaddress import IPv4Address

import pytest

from skbus.core.abi import DataReadyCb, RcvCb, UdpSendmsgCb, XmitCb
from skbus.core.flow_dissector import (
    NO_PORT,
    Flow,
    FlowFilter,
    FlowFilterError,
    details_flow,
    frame_flow,
    icmp_about,
    ip_flow,
    named_dest,
    skb_flow_dissect,
    sock_flow,
)
from skbus.core.skbuff import ETH_P_ARP, ETH_P_IP, SkBuff
from skbus.inet.headers import ipv4

A, B = bytes((10, 77, 0, 1)), bytes((10, 77, 0, 2))
MACS = bytes(12)
PORTS = (40112).to_bytes(2, "big") + (80).to_bytes(2, "big")


def packet(protocol: int, payload: bytes, *, frag_off: int = 0, options: bytes = b"") -> bytes:
    length = 20 + len(options) + len(payload)
    header = ipv4.build(A, B, protocol, length, frag_off=frag_off, options=options)
    return header + payload


@pytest.mark.parametrize("protocol", [6, 17, 136])
@pytest.mark.parametrize("options", [b"", bytes(8)])
def test_ports_are_behind_the_header_with_its_options(protocol: int, options: bytes) -> None:
    head = packet(protocol, PORTS + bytes(16), options=options)
    assert str(ip_flow(head, 0)) == "10.77.0.1:40112->10.77.0.2:80"
    assert str(ip_flow(b"xx" + head, 2)) == "10.77.0.1:40112->10.77.0.2:80"
    frame = MACS + ETH_P_IP.to_bytes(2, "big") + head
    assert frame_flow(frame, 0) == frame_flow(b"x" + frame, 1) == Flow(A, 40112, B, 80)
    tagged = MACS + b"\x81\x00\x00\x07" + ETH_P_IP.to_bytes(2, "big") + head
    assert frame_flow(tagged, 0) == Flow(A, 40112, B, 80)


def test_no_ports_where_there_are_none() -> None:
    for head in (
        packet(1, b"\x08\0" + bytes(6)),  # ICMP
        packet(17, PORTS + bytes(16), frag_off=1),  # a later fragment
        packet(17, PORTS[:3]),  # cut off
    ):
        assert str(ip_flow(head, 0)) == "10.77.0.1->10.77.0.2"
    first = packet(17, PORTS + bytes(16), frag_off=0x2000)
    assert ip_flow(first, 0) == Flow(A, 40112, B, 80)


@pytest.mark.parametrize("head", [b"", bytes(19), bytes(40), b"\x60" + bytes(39)])
def test_what_is_no_ipv4_has_no_flow(head: bytes) -> None:
    assert ip_flow(head, 0) is None
    assert frame_flow(head, 0) is None
    assert icmp_about(head, 0) is None


def test_arp_is_from_who_asks_to_who_is_asked() -> None:
    arp = b"\0\x01\x08\0\x06\x04\0\x01" + bytes(6) + A + bytes(6) + B
    frame = MACS + ETH_P_ARP.to_bytes(2, "big") + arp
    assert frame_flow(frame, 0) == Flow(A, NO_PORT, B, NO_PORT)
    skb = SkBuff(frame, data=14, protocol=ETH_P_ARP)
    skb.network_header = 14
    assert str(skb_flow_dissect(skb, frame)) == "10.77.0.1->10.77.0.2"


@pytest.mark.parametrize(("type_", "about"), [(3, True), (11, True), (8, False), (0, False)])
def test_an_icmp_error_is_about_the_flow_that_it_quotes(type_: int, about: bool) -> None:
    quoted = packet(6, PORTS + bytes(4))
    head = packet(1, bytes((type_, 0)) + bytes(6) + quoted)
    assert icmp_about(head, 0) == (Flow(A, 40112, B, 80) if about else None)
    assert icmp_about(head[:40], 0) is None


@pytest.mark.parametrize(
    ("cb", "head", "flow"),
    [
        (XmitCb(A, B, 6, 0, 0, True, 0, b""), PORTS, "10.77.0.1:40112->10.77.0.2:80"),
        (XmitCb(A, B, 1, 0, 0, True, 0, b""), b"\x08\0", "10.77.0.1->10.77.0.2"),
        (DataReadyCb(2, A, 7, B, 80, 1, 0, 0), b"", "10.77.0.1:7->10.77.0.2:80"),
        (DataReadyCb(2, A, 0, B, 0, 1, 0, 0), b"", "10.77.0.1->10.77.0.2"),
        (RcvCb(A, B, 0, 64, 1500), b"", "10.77.0.1->10.77.0.2"),
        (UdpSendmsgCb(2, 0, b"", 0, 0, -1, 0), b"", None),
        ((), b"", None),
    ],
)
def test_without_headers_what_travels_with_it_tells(
    cb: tuple[object, ...], head: bytes, flow: str | None
) -> None:
    found = skb_flow_dissect(SkBuff(cb=cb), head)
    assert (None if found is None else str(found)) == flow


def test_of_socks_and_details() -> None:
    assert sock_flow(bytes(4), 0, bytes(4), 0) is None
    assert str(sock_flow(b"", 80, b"", 0)) == "0.0.0.0:80->0.0.0.0:*"
    assert details_flow({"saddr": A, "daddr": B, "sport": 1, "dport": 2}) == Flow(A, 1, B, 2)
    assert details_flow({"saddr": A, "daddr": B}) == Flow(A, NO_PORT, B, NO_PORT)
    assert details_flow({"daddr": B, "dport": 2}) is None
    assert named_dest(None, {"daddr": B, "dport": 2}) == (B, 2)
    sends = SkBuff(cb=UdpSendmsgCb(2, 0, B, 53, 0, -1, 0))
    assert named_dest(sends, {}) == (B, 53)
    six = Flow(bytes(15) + b"\1", 1, bytes(15) + b"\2", 2)
    assert str(six) == "[::1]:1->[::2]:2"


FLOWS = (
    "10.77.0.1:40112->10.77.0.2:80",
    "10.77.0.2:80->10.77.0.1:40112",
    "10.77.0.1:8090->10.77.0.2:8080",
    "10.77.0.10:40112->10.77.0.2:443",
    "10.77.0.1->10.77.0.2",
    "0.0.0.0:80->0.0.0.0:*",
    "[::1]:80->[::2]:40112",
    "",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (":80", {0, 1, 5, 6}),
        (":8090", {2}),
        (":8", set()),
        ("10.77.0.1", {0, 1, 2, 4}),
        ("10.77.0.1:40112", {0, 1}),
        ("10.77.0.10", {3}),
        ("10.77.0.1:40112->10.77.0.2:80", {0, 1}),
        ("10.77.0.2:80 -> 10.77.0.1:40112", {0, 1}),
        ("10.77.0.1->10.77.0.2", {0, 1, 2, 4}),
        ("10.77.0.1->10.77.0.2:80", {0, 1}),
        ("->:443", {3}),
        (":080", {0, 1, 5, 6}),
        ("::1", {6}),
        ("[::1]:80", {6}),
        ("0.0.0.0:80", {5}),
    ],
)
def test_a_filter_is_exact_and_takes_both_directions(text: str, found: set[int]) -> None:
    matches = FlowFilter(text)
    assert {i for i, flow in enumerate(FLOWS) if matches(flow)} == found


@pytest.mark.parametrize(
    "text", ["", "80", "->", ":", ":x", ":65536", "10.77.0", "a->b", "1.2.3.4->1.2.3.4->:1", ":-1"]
)
def test_what_is_no_flow_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(FlowFilterError, match=r"is no flow: it takes :PORT, ADDRESS"):
        FlowFilter(text)


def test_the_texts_of_flows_are_what_the_filter_reads() -> None:
    for addr in (A, B, bytes(4), b"\xff" * 4):
        flow = Flow(addr, 5, bytes((9, 9, 9, 9)), 65535)
        assert FlowFilter(str(flow))(str(flow))
        assert FlowFilter(str(IPv4Address(addr)))(str(flow))
