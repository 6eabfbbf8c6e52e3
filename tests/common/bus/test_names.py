# SPDX-License-Identifier: MIT
"""Names for numbers: of each kind, and that no line of the trace is left without."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from skbus.bus import names

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("function", "details", "key", "shown"),
    [
        ("netif_receive_skb", {"protocol": 0x0800}, "protocol", "ETH_P_IP"),
        ("netif_receive_skb", {"protocol": 0x88CC}, "protocol", "0x88cc"),
        ("netif_receive_skb", {"protocol": -1}, "protocol", -1),
        ("netif_receive_skb", {"pkt_type": 0}, "pkt_type", "PACKET_HOST"),
        ("dev_add_pack", {"type": 0x0806}, "type", "ETH_P_ARP"),
        ("ip_rcv_finish", {"protocol": 6}, "protocol", "IPPROTO_TCP"),
        ("ip_rcv_finish", {"protocol": 99}, "protocol", 99),
        ("ip_route_input", {"type": 2}, "type", "RTN_LOCAL"),
        ("ip_error", {"err": 113}, "err", "EHOSTUNREACH"),
        ("ip_route_output_key", {"err": 0}, "err", 0),
        ("icmp_rcv", {"type": 3, "code": 3}, "type", "ICMP_DEST_UNREACH"),
        ("icmp_rcv", {"type": 3, "code": 3}, "code", "ICMP_PORT_UNREACH"),
        ("icmp_rcv", {"type": 8, "code": 0}, "code", 0),
        ("icmp_rcv", {"type": 99, "code": 1}, "type", 99),
        ("arp_process", {"op": 1}, "op", "ARPOP_REQUEST"),
        ("igmp_send_report", {"type": 0x16}, "type", "IGMPV2_HOST_MEMBERSHIP_REPORT"),
        ("tcp_rcv_state_process", {"state": 9}, "state", "LAST_ACK"),
        ("tcp_rcv_state_process", {"state": 12}, "state", "NEW_SYN_RECV"),
        ("tcp_rcv_state_process", {"flags": 0x12}, "flags", "[S.]"),
        ("tcp_transmit_skb", {"flags": 0x10}, "flags", "[.]"),
        ("tcp_transmit_skb", {"flags": 0x1FF}, "flags", "[FSRP.UEWe]"),
        ("tcp_transmit_skb", {"flags": 0}, "flags", "[none]"),
        ("sock_sendmsg", {"flags": 0x8040}, "flags", "MSG_DONTWAIT|MSG_MORE"),
        ("sock_sendmsg", {"flags": 0x1000040}, "flags", "MSG_DONTWAIT|0x1000000"),
        ("sock_sendmsg", {"flags": 0}, "flags", 0),
        ("sys_socket", {"type": 0o2004001}, "type", "SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC"),
        ("sys_socket", {"family": 2, "protocol": 17}, "protocol", "IPPROTO_UDP"),
        ("sys_socket", {"family": 17, "protocol": 3}, "protocol", 3),
        ("sys_socket", {"family": 2}, "family", "AF_INET"),
        ("ip_setsockopt", {"level": 0, "optname": 2}, "optname", "IP_TTL"),
        ("udp_setsockopt", {"level": 17, "optname": 104}, "optname", "UDP_GRO"),
        ("udp_setsockopt", {"level": 1, "optname": 8}, "optname", "SO_RCVBUF"),
        ("udp_setsockopt", {"level": 6, "optname": 13}, "optname", "TCP_CONGESTION"),
        ("udp_setsockopt", {"level": 1, "optname": 8}, "level", "SOL_SOCKET"),
        ("ip_mc_setsockopt", {"optname": 35}, "optname", "IP_ADD_MEMBERSHIP"),
        ("ip_icmp_error", {"origin": 2}, "origin", "SO_EE_ORIGIN_ICMP"),
        ("x", {"len": 6}, "len", 6),
        ("x", {"err": True}, "err", True),
        ("x", {"err": "ENOENT"}, "err", "ENOENT"),
    ],
)
def test_names(function: str, details: dict[str, object], key: str, shown: object) -> None:
    assert names.named(function, key, details[key], details) == shown


def calls() -> Iterator[tuple[str, str, str]]:
    """(file, function, detail) of each trace call whose function is written out."""
    for root in ("common", "services"):
        for path in sorted((ROOT / root).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if node.func.attr in ("trace", "info", "warning") and node.args:
                    function = node.args[0]
                    if isinstance(function, ast.Constant) and isinstance(function.value, str):
                        for keyword in node.keywords:
                            if keyword.arg is not None:
                                yield path.name, function.value, keyword.arg


def test_each_number_that_may_have_a_name_has_one() -> None:
    """`type` and `flags` mean something else in each function: a new one needs its entry."""
    found = list(calls())
    assert len(found) > 300
    lacking = {
        f"{file}: {function}({key}=...)"
        for file, function, key in found
        if key in names.AMBIGUOUS and names.namer(function, key) is None
    }
    assert not lacking, "add them to skbus.bus.names._BY_FUNCTION"
