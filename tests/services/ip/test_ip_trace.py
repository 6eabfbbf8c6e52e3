# SPDX-License-Identifier: MIT
"""A packet's way through ip, function by function
(docs/architecture.md, "The way of a packet")."""

from skbus.core.abi import XmitCb
from skbus.core.interfaces import Ip, NetifReceive
from skbus.core.skbuff import SkBuff
from skbus.inet.headers import icmp
from skbustest.iphost import PEER, PEER2, US, IpHost
from skbustest.packets import ip_skb


def functions(host: IpHost) -> list[str]:
    """What was traced since the last look."""
    out = [event[2] for event in host.net.trace_events]
    host.net.trace_events.clear()
    return out


def test_the_way_in(host: IpHost) -> None:
    host.net.tracing = True
    for _ in range(2):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(20), PEER, US, 6))
    way = ["ip_rcv", "ip_rcv_finish", "ip_local_deliver", "ip_local_deliver_finish"]
    first = functions(host)
    assert [f for f in first if f in way] == way * 2
    assert first.count("ip_route_input") == 2  # though the second found it in the cache


def test_the_way_out(host: IpHost) -> None:
    host.learn()
    host.net.tracing = True
    host.rcv(Ip.ip_queue_xmit, SkBuff(bytes(20), cb=XmitCb(US, PEER, 6, 0, 0, True, 0, b"")))
    way = [
        "ip_queue_xmit",
        "ip_queue_xmit2",
        "ip_output",
        "ip_finish_output",
        "ip_finish_output2",
        "neigh_resolve_output",
    ]
    assert [f for f in functions(host) if f in way] == way
    host.rcv(Ip.ip_send_skb, SkBuff(bytes(20), cb=XmitCb(US, PEER, 17, 0, 0, True, 0, b"")))
    way = ["ip_send_skb", "ip_route_output_key", "ip_local_out", "ip_output"]
    assert functions(host)[:4] == way


def test_one_packet_keeps_its_id(host: IpHost) -> None:
    host.learn()
    host.net.tracing = True
    skb = ip_skb(icmp.build_message(icmp.ICMP_ECHO, 0, 1, b"ping"), PEER, US, 1)
    skb.id = 0xABCD
    host.rcv(NetifReceive.ip_rcv, skb)
    of_it = [event[2] for event in host.net.trace_events if event[3] == 0xABCD]
    assert [of_it[0], of_it[-1]] == ["ip_rcv", "neigh_resolve_output"]
    assert "icmp_rcv" in of_it
    (out,) = host.frames()
    assert out.id == 0xABCD


def test_a_drop_names_its_reason(host: IpHost) -> None:
    host.net.tracing = True
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"", PEER, PEER2, 17))
    event = host.net.trace_events[-1]
    assert (event[2], event[4]["reason"]) == (
        "kfree_skb_reason",
        "SKB_DROP_REASON_IP_INADDRERRORS",
    )
    assert host.net.drops == {"SKB_DROP_REASON_IP_INADDRERRORS": 1}
