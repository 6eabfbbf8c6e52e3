# SPDX-License-Identifier: MIT
"""ip steers what is for TCP to the process of its flow."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from skbus.core.abi import BacklogMark, ErrHandler, InetDelProtocol
from skbus.core.interfaces import InetTransport, Ip, NetifReceive, SynBacklog, TcpProtocol
from skbus.inet.headers import icmp, ipv4
from skbus.inet.rps import flow_hash, reciprocal_scale, tcp_processes
from skbustest.iphost import PEER, US, IpHost
from skbustest.packets import ip_skb

KEY = bytes(range(16))
TCP = 6


def ports(source: int, dest: int) -> bytes:
    return source.to_bytes(2, "big") + dest.to_bytes(2, "big")


def owner(source: int, dest: int) -> str:
    hash_ = flow_hash(PEER + US + ports(source, dest), KEY)
    return f"tcp.{reciprocal_scale(hash_, 3)}"


@pytest.fixture
def host() -> Iterator[IpHost]:
    """Three tcp processes, of which the last has not registered yet."""
    host = IpHost(register=False)
    host.ip.config = replace(host.ip.config, tcp_shards=3, rss_key=KEY)
    host.register("eth0", 2, bytes.fromhex("02000000aa01"))
    for process in tcp_processes(3)[:2]:
        host.add_protocol(TCP, process, "tcp_v4_rcv", "tcp_v4_err")
    host.ip.outbox.clear()
    yield host
    host.check()


def test_a_segment_goes_to_the_process_of_its_flow(host: IpHost) -> None:
    host.add_protocol(TCP, "tcp.2", "tcp_v4_rcv", "tcp_v4_err")
    seen = set()
    for port in range(1000, 1030):
        host.rcv(NetifReceive.ip_rcv, ip_skb(ports(port, 80) + bytes(16), PEER, US, TCP))
        (skb,) = host.out(owner(port, 80), TcpProtocol.tcp_v4_rcv)
        assert skb.hash == flow_hash(PEER + US + ports(port, 80), KEY)
        host.ip.pool.free_frags(skb.frags)
        seen.add(owner(port, 80))
    assert seen == set(tcp_processes(3))
    assert host.ip.mib["IpInDelivers"] == 30
    assert host.ip.transports() == ["tcp.0", "tcp.1", "tcp.2"]


def test_a_process_that_is_away_is_answered_for_with_silence(host: IpHost) -> None:
    port = next(p for p in range(1000, 2000) if owner(p, 80) == "tcp.2")
    host.rcv(NetifReceive.ip_rcv, ip_skb(ports(port, 80) + bytes(16), PEER, US, TCP))
    assert host.ip.drops == {"SKB_DROP_REASON_SKBUS_NO_PEER": 1}
    assert host.ip.mib["IpInDiscards"] == 1
    assert not host.ip.mib["IpInDelivers"]
    assert not host.frames()


def test_what_is_too_short_for_ports_is_for_the_first(host: IpHost) -> None:
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"abc", PEER, US, TCP))
    assert len(host.out("tcp.0", TcpProtocol.tcp_v4_rcv)) == 1


def test_an_error_goes_to_the_process_of_the_flow_that_it_is_about(host: IpHost) -> None:
    """A port unreachable about what we sent from port 80 to the peer's."""
    for port in range(1000, 1012):
        mine = ports(80, port) + bytes(4)
        quoted = ipv4.build(US, PEER, TCP, 20 + len(mine)) + mine
        message = icmp.build_message(icmp.ICMP_DEST_UNREACH, icmp.ICMP_PORT_UNREACH, 0, quoted)
        host.rcv(NetifReceive.ip_rcv, ip_skb(message, PEER, US, 1))
        told = [item for p in tcp_processes(3) for item in host.out(p, TcpProtocol.tcp_v4_err)]
        if owner(port, 80) == "tcp.2":
            assert not told  # it is away
            continue
        (item,) = told
        assert isinstance(item, ErrHandler)
        assert item.payload[:4] == mine[:4]


def test_a_stranger_is_refused_and_who_leaves_is_left_out(host: IpHost) -> None:
    host.add_protocol(TCP, "tcp.3", "tcp_v4_rcv", "tcp_v4_err")
    assert host.out("tcp.3", InetTransport.inet_add_protocol_ret)
    host.call(Ip.inet_del_protocol, InetDelProtocol(TCP, "tcp.0"))
    assert host.ip.inet_protos[TCP].shards == ("", "tcp.1", "")
    host.call(Ip.inet_del_protocol, InetDelProtocol(TCP, "tcp.1"))
    assert TCP not in host.ip.inet_protos


def test_a_mark_goes_to_all_who_share_a_protocol_and_back_when_all_have_answered(
    host: IpHost,
) -> None:
    mark = BacklogMark("nic.eth0", TCP, 256)
    host.call(SynBacklog.backlog_mark, mark)
    assert [host.out(p, SynBacklog.backlog_mark) for p in tcp_processes(3)] == [[mark], [mark], []]
    host.call(SynBacklog.backlog_mark_ret, mark)
    assert not host.out("nic.eth0", SynBacklog.backlog_mark_ret)
    host.call(SynBacklog.backlog_mark_ret, mark)
    host.call(SynBacklog.backlog_mark_ret, mark)  # of an earlier life of ours
    assert host.out("nic.eth0", SynBacklog.backlog_mark_ret) == [mark]


def test_a_mark_is_not_lost_with_the_process_that_has_it(host: IpHost) -> None:
    mark = BacklogMark("nic.eth0", TCP, 256)
    host.call(SynBacklog.backlog_mark, mark)
    host.core.peer_up("tcp.1")
    assert host.out("nic.eth0", SynBacklog.backlog_mark_ret) == [mark]
    assert not host.ip.backlog_marks


def test_a_mark_for_a_protocol_that_nobody_has_is_back_at_once(host: IpHost) -> None:
    mark = BacklogMark("nic.eth0", 132, 256)
    host.call(SynBacklog.backlog_mark, mark)
    assert host.out("nic.eth0", SynBacklog.backlog_mark_ret) == [mark]
