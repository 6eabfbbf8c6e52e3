# SPDX-License-Identifier: MIT
"""Neighbours: states, retries, queues, what ARP is believed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbus.core.abi import XmitCb
from skbus.core.interfaces import Ip, NetifReceive, TcpProtocol
from skbus.core.skbuff import PACKET_BROADCAST, PACKET_HOST, SkBuff
from skbus.inet.headers import arp, ethernet, icmp
from skbusd.ip import neighbour
from skbusd.ip.netns import IpNet, Neighbour, NeighOps, NeighTable
from skbustest.iphost import FAR, GW, PEER, US, US2, IpHost
from skbustest.packets import MAC, PEER_MAC, arp_skb, frame_skb, inet_aton

MakeHost = Callable[..., IpHost]
OTHER_MAC = bytes.fromhex("02000000cc01")


def send(host: IpHost, daddr: bytes = PEER, data: bytes = b"T" * 20) -> None:
    skb = SkBuff(data, cb=XmitCb(US, daddr, 6, 0, 0, True, 0, b""))
    host.rcv(Ip.ip_queue_xmit, skb)


def requests(host: IpHost) -> list[tuple[bytes, arp.ArpHdr]]:
    """ARP requests that went out: to which hardware address, and for what. Other frames stay."""
    out = []
    for skb in host.frames():
        eth = ethernet.parse(skb.head)
        if eth.h_proto == 0x0806:
            out.append((eth.h_dest, arp.parse(skb.head, 14)))
    return out


def state(host: IpHost, addr: bytes = PEER) -> object:
    return {n["addr"]: n["state"] for n in host.ipcore.neighbours()}.get(addr)


def reply(host: IpHost, mac: bytes = PEER_MAC, addr: bytes = PEER) -> None:
    host.rcv(NetifReceive.arp_rcv, arp_skb(2, mac, addr, US, tha=MAC, pkt_type=0))


def test_nobody_answers(host: IpHost) -> None:
    send(host)
    for second in range(3):
        ((dest, request),) = requests(host)
        assert dest == ethernet.BROADCAST
        assert (request.ar_sip, request.ar_tip) == (US, PEER)
        assert state(host) == "INCOMPLETE"
        assert host.core.held() == 1, second
        host.run_for(1.2)
    assert requests(host) == []
    assert state(host) == "FAILED"
    assert host.dropped("NEIGH_FAILED") == 1
    assert host.net.mib["ArpResolveFailed"] == 1
    assert host.net.mib["ArpSentRequests"] == 3 + 1  # and the announcement
    (error,) = host.out("tcp", TcpProtocol.tcp_v4_err)
    assert (error.type, error.code) == (icmp.ICMP_DEST_UNREACH, icmp.ICMP_HOST_UNREACH)
    assert (error.saddr, error.daddr, error.payload) == (US, PEER, b"T" * 20)


def test_a_failed_one_is_tried_again(host: IpHost) -> None:
    send(host)
    host.run_for(5)
    host.frames()
    send(host)
    assert len(requests(host)) == 1
    reply(host)
    assert len(host.packets()) == 1
    assert state(host) == "REACHABLE"


def test_the_queue_keeps_the_latest(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.neigh.default.unres_qlen": 3})
    for n in range(5):
        send(host, data=bytes((n,)) * 20)
    assert host.dropped("NEIGH_QUEUEFULL") == 2
    host.frames()
    reply(host)
    assert [payload[0] for _, payload in host.packets()] == [2, 3, 4]


def test_the_queue_is_bounded_in_bytes(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.neigh.default.unres_qlen_bytes": 3000})
    for _ in range(4):
        send(host, data=bytes(1000))
    assert host.core.held() == 2
    assert host.dropped("NEIGH_QUEUEFULL") == 2


def test_requests_are_few_however_much_waits(host: IpHost) -> None:
    for _ in range(50):
        send(host)
    assert len(requests(host)) == 1


def test_a_reachable_one_grows_stale_and_is_probed(host: IpHost) -> None:
    send(host)
    reply(host)
    host.frames()
    host.run_for(60)
    assert state(host) == "STALE"
    send(host)
    assert len(host.packets()) == 1  # a stale address still serves
    assert state(host) == "DELAY"
    host.run_for(5.5)
    assert state(host) == "PROBE"
    ((dest, request),) = requests(host)
    assert (dest, request.ar_tip) == (PEER_MAC, PEER)  # to the neighbour alone
    reply(host)
    assert state(host) == "REACHABLE"


def test_a_probe_without_answer_fails(host: IpHost) -> None:
    send(host)
    reply(host)
    host.run_for(60)
    send(host)
    host.run_for(12)
    assert state(host) == "FAILED"
    host.frames()
    send(host)
    assert [dest for dest, _ in requests(host)] == [ethernet.BROADCAST]


def test_unused_ones_are_forgotten(host: IpHost) -> None:
    host.learn()
    assert state(host) == "STALE"
    host.run_for(200)
    assert state(host) is None
    assert host.ip.arp_tbl.entries == {}


def test_the_table_is_bounded(make_host: MakeHost) -> None:
    host = make_host(sysctl={"net.ipv4.neigh.default.gc_thresh3": 16})
    for n in range(1, 100):
        host.learn(bytes((10, 0, 0, 100 + n % 150)), OTHER_MAC)
    assert len(host.ip.arp_tbl.entries) <= 16
    host.ip.arp_tbl.entries.clear()
    for n in range(20):  # these are all being asked for: nothing can go
        send(host, bytes((10, 0, 0, 100 + n)))
    assert len(host.ip.arp_tbl.entries) == 16
    assert host.dropped("NEIGH_CREATEFAIL") == 4
    host.run_for(10)


def test_by_the_gateway(host: IpHost) -> None:
    send(host, FAR)
    ((_, request),) = requests(host)
    assert request.ar_tip == GW
    reply(host, OTHER_MAC, GW)
    (skb,) = host.frames()
    assert ethernet.parse(skb.head).h_dest == OTHER_MAC


@pytest.mark.parametrize(
    ("daddr", "mac"),
    [
        ("224.1.2.3", "01005e010203"),
        ("239.129.2.3", "01005e010203"),
        ("255.255.255.255", "ffffffffffff"),
        ("10.0.0.255", "ffffffffffff"),
    ],
)
def test_mapped_addresses(host: IpHost, daddr: str, mac: str) -> None:
    send(host, inet_aton(daddr))
    (skb,) = host.frames()
    assert ethernet.parse(skb.head).h_dest == bytes.fromhex(mac)


# ---- what is believed --------------------------------------------------------------------


def test_replies_nobody_asked_for_add_nothing(host: IpHost) -> None:
    reply(host)
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, PEER, inet_aton("10.0.0.77")))
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, PEER, PEER))  # gratuitous
    assert state(host) is None


def test_gratuitous_arp_renews(host: IpHost) -> None:
    host.learn()
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, OTHER_MAC, PEER, PEER))
    send(host)
    (skb,) = host.frames()
    assert ethernet.parse(skb.head).h_dest == OTHER_MAC


def test_a_rival_reply_is_ignored_at_first(host: IpHost) -> None:
    send(host)
    reply(host)
    reply(host, OTHER_MAC)
    send(host)
    assert [ethernet.parse(s.head).h_dest for s in host.frames()][-1] == PEER_MAC
    host.run_for(2)
    reply(host, OTHER_MAC)
    send(host)
    assert [ethernet.parse(s.head).h_dest for s in host.frames()] == [OTHER_MAC]


ELSE = inet_aton("10.0.0.77")
SAME = b"same"
"""The target's hardware address is the sender's."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("op", "tip", "tha", "at_once"),
    [
        (2, US, MAC, False),
        (2, PEER, SAME, True),
        (2, PEER, bytes(6), False),
        (2, PEER, ethernet.BROADCAST, False),
        (2, ELSE, SAME, False),
        (1, PEER, bytes(6), True),
        (1, US, bytes(6), True),
        (1, ELSE, bytes(6), False),
    ],
)
@pytest.mark.parametrize("pkt_type", [PACKET_HOST, PACKET_BROADCAST])
def test_who_may_replace_an_address(
    host: IpHost, op: int, tip: bytes, tha: bytes, at_once: bool, after: bool, pkt_type: int
) -> None:
    """Within the lock time only who tells of itself, or asks us; a reply about itself is for all
    only if it says so (`arp_is_garp`). Linux 6.18 does the same for each."""
    send(host)
    reply(host)
    if after:
        host.run_for(2)
    target = OTHER_MAC if tha is SAME else tha
    host.rcv(NetifReceive.arp_rcv, arp_skb(op, OTHER_MAC, PEER, tip, tha=target, pkt_type=pkt_type))
    replaced = at_once or after
    (neigh,) = host.ip.arp_tbl.entries.values()
    assert neigh.ha == (OTHER_MAC if replaced else PEER_MAC)
    if replaced:
        reachable = op == 2 and pkt_type == PACKET_HOST
        assert state(host) == ("REACHABLE" if reachable else "STALE")


def test_what_is_no_news_does_not_keep_news_away(host: IpHost) -> None:
    """The lock time begins with a change, not with each confirmation."""
    send(host)
    reply(host)
    for _ in range(15):
        host.run_for(0.1)
        reply(host)
    reply(host, OTHER_MAC)
    (neigh,) = host.ip.arp_tbl.entries.values()
    assert neigh.ha == OTHER_MAC


@pytest.mark.parametrize(
    ("mode", "op", "sip", "tip", "made"),
    [
        (0, 1, PEER, PEER, False),
        (1, 1, PEER, PEER, True),
        (1, 2, PEER, US, True),
        (1, 1, PEER, ELSE, False),
        (1, 2, FAR, FAR, True),
        (2, 1, PEER, PEER, True),
        (2, 2, FAR, US, False),
        (1, 2, inet_aton("10.0.0.255"), US, False),
    ],
)
def test_arp_accept(
    make_host: MakeHost, mode: int, op: int, sip: bytes, tip: bytes, made: bool
) -> None:
    host = make_host(sysctl={"net.ipv4.conf.all.arp_accept": mode})
    host.rcv(NetifReceive.arp_rcv, arp_skb(op, PEER_MAC, sip, tip, tha=PEER_MAC))
    assert bool(host.ip.arp_tbl.entries) == made


def test_a_probe_for_our_address_is_answered(host: IpHost) -> None:
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, b"\0" * 4, US))
    (skb,) = host.frames()
    assert arp.parse(skb.head, 14).ar_sip == US
    assert host.ip.arp_tbl.entries == {}


def test_a_duplicate_address_is_warned_of_once(host: IpHost) -> None:
    host.net.log_events.clear()
    for _ in range(5):
        host.rcv(NetifReceive.arp_rcv, arp_skb(1, OTHER_MAC, US, PEER))
        host.rcv(NetifReceive.arp_rcv, arp_skb(1, OTHER_MAC, US, US))
    warnings = [e for e in host.net.log_events if e[0] == "warning"]
    assert len(warnings) == 1
    assert host.ip.arp_tbl.entries == {}
    assert US in host.ip.local_addrs


@pytest.mark.parametrize(
    ("mode", "sip", "tip", "answered"),
    [
        (0, PEER, US2, True),
        (1, PEER, US2, False),
        (1, PEER, US, True),
        (1, FAR, US, True),
        (2, PEER, US, True),
        (2, FAR, US, False),
        (2, bytes(4), US, True),
        (3, PEER, US2, True),
        (8, PEER, US, False),
    ],
)
def test_arp_ignore(make_host: MakeHost, mode: int, sip: bytes, tip: bytes, answered: bool) -> None:
    host = make_host(sysctl={"net.ipv4.conf.all.arp_ignore": mode}, two=True)
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, sip, tip))
    assert bool(host.frames()) == answered


def test_not_for_others_and_not_for_lo(host: IpHost) -> None:
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, PEER, inet_aton("10.0.0.3")))
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, PEER_MAC, PEER, inet_aton("127.0.0.1")))
    assert host.frames() == []


def test_malformed(host: IpHost) -> None:
    good = arp_skb(1, PEER_MAC, PEER, US)
    bad = [
        good.head[:30],
        good.head[:14] + b"\x00\x06\x86\xdd" + good.head[18:],
        good.head[:20] + b"\x00\x09" + good.head[22:],
    ]
    for frame in bad:
        host.rcv(NetifReceive.arp_rcv, frame_skb(frame, protocol=0x0806))
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, b"\x01" + bytes(5), PEER, US))
    host.rcv(NetifReceive.arp_rcv, arp_skb(1, bytes(6), PEER, US))
    assert host.net.mib["ArpInvalid"] == 5
    assert host.frames() == []
    assert host.ip.arp_tbl.entries == {}


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_arbitrary_arp_raises_nothing(frames: list[bytes]) -> None:
    host = IpHost()
    good = arp_skb(2, PEER_MAC, PEER, US).head
    for data in frames:
        host.rcv(NetifReceive.arp_rcv, frame_skb(bytes(14) + data, protocol=0x0806))
        mixed = good[:14] + data + good[14 + len(data) :]
        host.rcv(NetifReceive.arp_rcv, frame_skb(mixed, protocol=0x0806))


def test_a_family_brings_its_own_resolution(host: IpHost) -> None:
    """Another family's table beside ARP's, with 16-byte addresses: its constructor and its
    operations are called, and its Ethernet type stands in the header."""
    net = host.ip
    dev = net.devices["eth0"]
    addr = bytes.fromhex("fe80000000000000000000000000beef")
    asked: list[bytes] = []
    failed: list[SkBuff] = []

    def error_report(net: IpNet, neigh: Neighbour, skb: SkBuff) -> None:
        failed.append(skb)
        net.kfree_skb(skb, "NEIGH_FAILED")

    def constructor(net: IpNet, neigh: Neighbour) -> None:
        neigh.ops = NeighOps(lambda net, neigh: asked.append(neigh.primary_key), error_report)

    tbl = NeighTable(bytes.fromhex("86dd"), "net.ipv4.neigh.default.")
    tbl.constructor = constructor
    neighbour.neigh_table_init(net, tbl)
    neigh = neighbour.neigh_create(net, tbl, dev, addr)
    assert neigh is not None
    assert neighbour.neigh_lookup(tbl, dev, addr) is neigh
    assert net.arp_tbl.entries == {}
    neighbour.neigh_resolve_output(net, neigh, net.alloc_skb(b"first"))
    assert asked == [addr]
    neighbour.neigh_update(net, neigh, PEER_MAC, neighbour.NUD_REACHABLE)
    (frame,) = [skb for skb in host.frames() if skb.head.endswith(b"first")]
    assert frame.head == PEER_MAC + dev.dev_addr + bytes.fromhex("86dd") + b"first"
    # another one, of whom nothing is heard
    other = neighbour.neigh_create(net, tbl, dev, bytes(15) + b"\1")
    assert other is not None
    neighbour.neigh_resolve_output(net, other, net.alloc_skb(b"second"))
    host.run_for(5)
    assert [skb.head for skb in failed] == [b"second"]
    assert state(host, other.primary_key) == "FAILED"
    assert requests(host) == []  # ARP had no part in it
    # the device goes, and the neighbours of all families with it
    neighbour.neigh_ifdown(net, dev)
    assert tbl.entries == {}
