# SPDX-License-Identifier: MIT
"""The way out: headers, identification, loopback, broadcast; forwarding; routes and devices."""

from collections.abc import Callable
from errno import EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH
from itertools import pairwise
from random import Random

import pytest

from skbus.core.abi import IpRouteOutputKey, RegisterNetdevice, RtCacheFlush, XmitCb
from skbus.core.entry import SkbEntry
from skbus.core.initcall import InitError
from skbus.core.interfaces import InetTransport, Ip, NetifReceive, TcpProtocol, UdpProtocol
from skbus.core.pool import Pool
from skbus.core.skbuff import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, SkBuff
from skbus.inet.headers import arp, ethernet, icmp, ipv4
from skbusd.ip import devinet
from skbusd.ip.core import IpCore
from skbusd.ip.netns import DeviceConfig, IpConfig, IpNet, RouteConfig
from skbustest.iphost import FAR, GW, MAC2, PEER, PEER2, US, US2, IpHost
from skbustest.packets import MAC, PEER_MAC, inet_aton, ip_skb

MakeHost = Callable[..., IpHost]


def xmit(
    host: IpHost,
    daddr: bytes = PEER,
    data: bytes = b"T" * 20,
    *,
    saddr: bytes = US,
    entry: SkbEntry[XmitCb] = Ip.ip_queue_xmit,
    df: bool = True,
    oif: int = 0,
    protocol: int = 6,
    ttl: int = 0,
    tos: int = 0,
    options: bytes = b"",
) -> None:
    cb = XmitCb(saddr, daddr, protocol, tos, ttl, df, oif, options)
    host.rcv(entry, SkBuff(data, cb=cb))


# ---- headers -----------------------------------------------------------------------------


def test_the_header(host: IpHost) -> None:
    host.learn()
    xmit(host, tos=0xB9, ttl=9, options=b"\x94\x04\0")
    xmit(host, saddr=b"", entry=Ip.ip_send_skb, protocol=17, df=False)
    (one, data), (two, _) = host.packets()
    assert (one.tos, one.ttl, one.protocol, one.frag_off) == (0xB9, 9, 6, ipv4.IP_DF)
    assert (one.saddr, one.daddr, one.options) == (US, PEER, b"\x94\x04\0\0")
    assert data == b"T" * 20
    assert (two.saddr, two.ttl, two.frag_off) == (US, 64, 0)
    assert host.net.mib["IpOutRequests"] == 2
    assert host.net.mib["IpExtOutOctets"] == 44 + 40


def test_offsets_for_the_device(host: IpHost) -> None:
    host.learn()
    skb = SkBuff(b"junk" + b"T" * 20, data=4, cb=XmitCb(US, PEER, 6, 0, 0, True, 0, b""))
    skb.ip_summed, skb.csum_start, skb.csum_offset = CHECKSUM_PARTIAL, 4, 16
    host.rcv(Ip.ip_queue_xmit, skb)
    (out,) = host.frames()
    assert (out.csum_start, out.csum_offset) == (34, 16)
    assert (out.mac_header, out.network_header, out.transport_header) == (0, 14, 34)
    assert (out.protocol, out.dev, out.len) == (0x0800, 2, 54)


def test_identification(host: IpHost) -> None:
    host.learn()
    for _ in range(5):
        xmit(host)
    ids = [iph.id for iph, _ in host.packets()]
    assert [(b - a) & 0xFFFF for a, b in pairwise(ids)] == [1] * 4
    for _ in range(5):
        xmit(host, entry=Ip.ip_send_skb, protocol=17)
    assert [iph.id for iph, _ in host.packets()] == [0] * 5  # atomic datagrams, RFC 6864
    for _ in range(200):
        xmit(host, entry=Ip.ip_send_skb, protocol=17, df=False)
    ids = [iph.id for iph, _ in host.packets()]
    assert len(set(ids)) == 200
    assert {(b - a) & 0xFFFF for a, b in pairwise(ids)} <= set(range(1, 10))


def test_a_super_segment_takes_as_many_ids_as_segments(host: IpHost) -> None:
    host.learn()
    skb = SkBuff(bytes(12) + b"\x50" + bytes(7 + 2800))
    skb.gso_size, skb.gso_segs, skb.gso_type = 1400, 2, 1
    skb.cb = XmitCb(US, PEER, 6, 0, 0, True, 0, b"")
    host.rcv(Ip.ip_queue_xmit, skb)
    xmit(host)
    (one, _), (two, _) = host.packets()
    assert (two.id - one.id) & 0xFFFF == 2


@pytest.mark.parametrize(
    ("cb", "reason"),
    [
        (XmitCb(US, b"bad", 6, 0, 0, True, 0, b""), "SKBUS_BAD_MESSAGE"),
        (XmitCb(US, PEER, 6, 0, 999, True, 0, b""), "SKBUS_BAD_MESSAGE"),
        (XmitCb(US, PEER, 6, 0, 0, True, 0, bytes(44)), "SKBUS_BAD_MESSAGE"),
        (XmitCb(FAR, PEER, 6, 0, 0, True, 0, b""), "IP_OUTNOROUTES"),
        (XmitCb(US, PEER, 6, 0, 0, True, 77, b""), "IP_OUTNOROUTES"),
    ],
)
def test_what_cannot_be_sent(host: IpHost, cb: XmitCb, reason: str) -> None:
    for entry in (Ip.ip_queue_xmit, Ip.ip_send_skb):
        host.rcv(entry, SkBuff(bytes(20), cb=cb))
    assert host.dropped(reason) == 2


def test_too_long_for_any_header(host: IpHost) -> None:
    xmit(host, data=bytes(65516))
    assert host.dropped("PKT_TOO_BIG") == 1


# ---- to ourselves ------------------------------------------------------------------------


@pytest.mark.parametrize("daddr", ["10.0.0.2", "127.0.0.1", "127.200.3.4"])
def test_what_is_for_us_never_leaves(host: IpHost, daddr: str) -> None:
    saddr = US if daddr.startswith("10") else inet_aton("127.0.0.1")
    xmit(host, inet_aton(daddr), bytes(20000), saddr=saddr)
    assert host.frames() == []
    (skb,) = host.out("tcp", TcpProtocol.tcp_v4_rcv)
    assert (skb.cb.saddr, skb.cb.daddr, skb.cb.mtu) == (saddr, inet_aton(daddr), 65535)
    assert skb.ip_summed == CHECKSUM_UNNECESSARY
    assert skb.len == 20000
    assert (skb.dev, skb.skb_iif) == (1, 2 if saddr == US else 1)  # as if by its own device


def test_lent_payload_is_copied_on_the_loopback(host: IpHost) -> None:
    place = host.alloc.put(b"p" * 5000)
    assert place is not None
    skb = SkBuff(bytes(20), (place,), lent=True, cb=XmitCb(US, US, 6, 0, 0, True, 0, b""))
    skb.ip_summed, skb.csum_start, skb.csum_offset = CHECKSUM_PARTIAL, 0, 16
    host.rcv(Ip.ip_queue_xmit, skb)
    host.pool.free(place)
    (got,) = host.out("tcp", TcpProtocol.tcp_v4_rcv)
    assert not got.lent
    assert got.ip_summed == CHECKSUM_PARTIAL
    assert host.net.skb_bytes(got)[20:] == b"p" * 5000
    host.pool.free_frags(got.frags)
    assert host.alloc.in_use() == 0


def test_lent_payload_that_is_gone(host: IpHost) -> None:
    place = host.alloc.put(b"p" * 5000)
    assert place is not None
    host.pool.free(place)
    skb = SkBuff(bytes(20), (place,), lent=True, cb=XmitCb(US, US, 6, 0, 0, True, 0, b""))
    host.rcv(Ip.ip_queue_xmit, skb)
    assert host.dropped("SKBUS_STALE_PLACE") == 1


def test_errors_to_ourselves(host: IpHost) -> None:
    xmit(host, US, bytes(20), protocol=99, entry=Ip.ip_send_skb)
    assert host.net.mib["IpInUnknownProtos"] == host.net.mib["IcmpOutDestUnreachs"] == 1
    assert host.net.mib["IcmpInDestUnreachs"] == 1
    assert host.core.held() == 0


def test_a_broadcast_reaches_us_too(host: IpHost) -> None:
    place = host.alloc.put(b"all of you")
    assert place is not None
    cb = XmitCb(US, inet_aton("10.0.0.255"), 17, 0, 0, False, 0, b"")
    host.rcv(Ip.ip_send_skb, SkBuff(bytes(8), (place,), cb=cb))
    (out,) = host.frames()
    assert ethernet.parse(out.head).h_dest == ethernet.BROADCAST
    assert out.frags == (place,)
    (got,) = host.out("udp", UdpProtocol.udp_rcv)
    host.pool.free(place)
    assert host.net.skb_bytes(got)[8:] == b"all of you"
    assert host.net.mib["IpExtOutBcastPkts"] == host.net.mib["IpExtInBcastPkts"] == 1


# ---- routes ------------------------------------------------------------------------------


def ask(host: IpHost, daddr: bytes, saddr: bytes = b"", oif: int = 0) -> tuple[int, bytes, int]:
    """(errno, source address, device)"""
    host.call(Ip.ip_route_output_key, IpRouteOutputKey(9, "tcp", daddr, saddr, oif, 0))
    (ret,) = host.out("tcp", InetTransport.ip_route_output_ret)
    assert ret.req == 9
    return ret.err, ret.saddr, ret.oif


def test_longest_prefix(make_host: MakeHost) -> None:
    host = make_host(
        two=True,
        routes=(
            RouteConfig("192.0.2.0/24", "10.1.0.1"),
            RouteConfig("192.0.2.128/25", "10.0.0.9", metric=5),
            RouteConfig("192.0.2.129/32", type="blackhole"),
            RouteConfig("198.51.100.0/24", type="unreachable"),
            RouteConfig("203.0.113.0/24", type="prohibit"),
            RouteConfig("192.0.2.128/25", "10.1.0.9", metric=1, prefsrc="10.0.0.2", mtu=1400),
        ),
    )
    assert ask(host, inet_aton("192.0.2.1")) == (0, US2, 3)
    assert ask(host, inet_aton("192.0.2.200")) == (0, US, 3)
    assert ask(host, inet_aton("192.0.2.129")) == (EINVAL, b"", 0)
    assert ask(host, inet_aton("198.51.100.1")) == (EHOSTUNREACH, b"", 0)
    assert ask(host, inet_aton("203.0.113.1")) == (EACCES, b"", 0)
    assert ask(host, inet_aton("8.8.8.8")) == (0, US, 2)
    assert ask(host, PEER2) == (0, US2, 3)
    assert ask(host, inet_aton("127.0.0.1"))[:2] == (0, inet_aton("127.0.0.1"))
    assert ask(host, US) == (0, US, 1)
    assert ask(host, b"\0" * 4) == (0, inet_aton("127.0.0.1"), 1)
    assert ask(host, FAR, inet_aton("127.0.0.1")) == (EINVAL, b"", 0)
    assert ask(host, PEER, oif=3) == (0, US2, 3)  # taken to be on that link
    xmit(host, inet_aton("192.0.2.200"))
    assert arp.parse(host.frames("eth1")[0].head, 14).ar_tip == inet_aton("10.1.0.9")


def test_no_route(make_host: MakeHost) -> None:
    host = make_host(register=False)
    assert ask(host, PEER) == (ENETUNREACH, b"", 0)
    assert host.net.mib["IpOutNoRoutes"] == 1
    xmit(host)
    assert host.dropped("IP_OUTNOROUTES") == 1


def test_a_change_flushes(host: IpHost) -> None:
    assert ask(host, FAR)[0] == 0
    before = host.ip.rt_genid
    devinet.ip_route_add(host.ip, RouteConfig("192.0.2.0/24", type="unreachable"))
    assert host.out("tcp", InetTransport.rt_cache_flush) == [RtCacheFlush(before + 1)]
    assert ask(host, FAR)[0] == EHOSTUNREACH
    assert devinet.ip_route_del(host.ip, RouteConfig("192.0.2.0/24", type="unreachable"))
    assert not devinet.ip_route_del(host.ip, RouteConfig("192.0.2.0/24", type="unreachable"))
    assert ask(host, FAR)[0] == 0


def test_the_caches_are_bounded(host: IpHost) -> None:
    for n in range(9000):
        ask(host, bytes((198, 18, n >> 8, n & 255)))
    assert len(host.ip.rt_out) <= 8192


# ---- devices -----------------------------------------------------------------------------


def test_an_address_is_announced(make_host: MakeHost) -> None:
    host = make_host(register=False)
    assert host.frames() == []
    host.register("eth0", 2, MAC)
    (skb,) = host.frames()
    announced = arp.parse(skb.head, 14)
    assert (announced.ar_op, announced.ar_sip, announced.ar_tip) == (1, US, US)
    assert ethernet.parse(skb.head).h_dest == ethernet.BROADCAST
    host.register("eth0", 2, MAC)  # nic was restarted: nothing has changed
    assert host.frames() == []


def test_down_and_up(host: IpHost) -> None:
    host.learn()
    xmit(host, GW)
    host.register("eth0", 2, MAC, up=False)
    assert host.dropped("NEIGH_DEAD") == 1
    assert host.ip.arp_tbl.entries == {}
    events = host.out("tcp")
    assert [e for e, _ in events] == [InetTransport.rt_cache_flush, InetTransport.inetdev_event]
    assert events[1][1].up is False
    assert ask(host, PEER)[0] == ENETUNREACH
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, US))
    assert host.dropped("DEV_READY") == 1
    host.register("eth0", 2, MAC)
    assert ask(host, PEER) == (0, US, 2)
    assert ask(host, FAR) == (0, US, 2)
    assert host.out("tcp", InetTransport.inetdev_event)[0].up is True


def test_an_mtu_changes(host: IpHost) -> None:
    host.register("eth0", 2, MAC, mtu=9000)
    (event,) = host.out("tcp", InetTransport.inetdev_event)
    assert (event.mtu, event.up) == (9000, True)
    xmit(host, data=bytes(8000))
    host.learn()
    assert host.net.mib["IpFragFails"] == 0


@pytest.mark.parametrize("mtu", [0, 67, 70000])
def test_a_device_that_makes_no_sense(make_host: MakeHost, mtu: int) -> None:
    host = make_host(register=False)
    host.register("eth0", 2, MAC, mtu=mtu)
    host.register("lo", 2, MAC)
    assert ask(host, PEER)[0] == ENETUNREACH


def test_interfaces_of_one_number(make_host: MakeHost) -> None:
    host = make_host(two=True)
    host.register("eth1", 2, MAC2)  # refused: eth0 has it
    assert ask(host, PEER) == (0, US, 2)
    host.register("eth9", 1, MAC2)  # lo makes room
    assert ask(host, US)[2] not in (1, 2, 3)
    xmit(host, US)
    assert len(host.out("tcp", TcpProtocol.tcp_v4_rcv)) == 1


def test_a_device_without_configuration(host: IpHost) -> None:
    item = RegisterNetdevice("nic.eth7", "eth7", 7, MAC2, 1500, 0, 65536, True)
    host.call(NetifReceive.register_netdevice, item)
    (dev,) = [d for d in host.ipcore.addresses() if d["dev"] == "eth7"]
    assert (dev["up"], dev["addresses"]) == (True, [])


def test_addresses_at_run_time(host: IpHost) -> None:
    eth0 = host.ip.devices["eth0"]
    ifa = devinet.parse_ifaddr("172.16.0.1/16")
    assert devinet.inet_insert_ifa(host.ip, eth0, ifa)
    assert not devinet.inet_insert_ifa(host.ip, eth0, ifa)
    assert ask(host, inet_aton("172.16.9.9")) == (0, inet_aton("172.16.0.1"), 2)
    assert len(host.frames()) == 1
    assert devinet.inet_del_ifa(host.ip, eth0, ifa.ifa_local)
    assert not devinet.inet_del_ifa(host.ip, eth0, ifa.ifa_local)
    assert ask(host, inet_aton("172.16.9.9")) == (0, US, 2)
    host.check()


@pytest.mark.parametrize(
    "config",
    [
        IpConfig((DeviceConfig("eth0", ("10.0.0.300/24",)),)),
        IpConfig((DeviceConfig("eth0", ("224.0.0.1/24",)),)),
        IpConfig((DeviceConfig("eth0"), DeviceConfig("eth0"))),
        IpConfig((DeviceConfig("eth0", (), "nowhere"),)),
        IpConfig((), (RouteConfig("10.0.0.0/8"),)),
        IpConfig((), (RouteConfig("10.0.0.1/8", "10.0.0.1"),)),
        IpConfig((), (RouteConfig("10.0.0.0/8", type="odd"),)),
        IpConfig((), (RouteConfig("10.0.0.0/8", dev="eth9"),)),
    ],
)
def test_bad_configuration(config: IpConfig) -> None:
    net = IpNet(rand=Random(1), pool=Pool(), config=config)
    with pytest.raises(InitError, match="ip_init"):
        IpCore(net).start()
    assert not net.devices
    assert not net.inet_local


# ---- forwarding --------------------------------------------------------------------------


@pytest.fixture
def router(make_host: MakeHost) -> IpHost:
    host = make_host(sysctl={"net.ipv4.ip_forward": 1}, two=True)
    host.learn()
    host.learn(PEER2, PEER_MAC, dev=3)
    return host


def test_a_packet_is_passed_on(router: IpHost) -> None:
    place = router.alloc.put(b"body")
    assert place is not None
    skb = ip_skb(b"ABCDbody", PEER, PEER2, 17, ttl=9, id=5, tos=3)
    skb.head, skb.frags, skb.data_len = skb.head[:-4], (place,), 4
    router.rcv(NetifReceive.ip_rcv, skb)
    (out,) = router.frames("eth1")
    assert (out.id, out.dev, out.lent) == (skb.id, 3, False)
    data = router.net.skb_bytes(out)
    assert ethernet.parse(data) == (PEER_MAC, MAC2, 0x0800)
    iph = ipv4.parse(data, 14)
    assert (iph.ttl, iph.id, iph.tos, data[34:]) == (8, 5, 3, b"ABCDbody")
    assert ipv4.ip_fast_csum_ok(data, 14, 20)
    assert router.net.mib["IpForwDatagrams"] == 1
    assert router.net.mib["IpOutRequests"] == 0


def test_every_ttl_has_a_good_checksum(router: IpHost) -> None:
    for ttl in range(2, 256):
        router.rcv(
            NetifReceive.ip_rcv, ip_skb(b"", PEER, PEER2, 17, ttl=ttl, id=ttl * 257 & 0xFFFF)
        )
    assert [iph.ttl for iph, _ in router.packets("eth1")] == list(range(1, 255))


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_that_is_used_up(router: IpHost, ttl: int) -> None:
    router.rcv(NetifReceive.ip_rcv, ip_skb(b"12345678", PEER, PEER2, 17, ttl=ttl))
    ((iph, message),) = router.packets()
    assert (icmp.parse(message).type, iph.saddr) == (icmp.ICMP_TIME_EXCEEDED, US)
    assert router.net.mib["IpInHdrErrors"] == 1


def test_too_long_to_pass(router: IpHost) -> None:
    router.register("eth1", 3, MAC2, mtu=1000)
    router.frames("eth1")
    router.learn(PEER2, PEER_MAC, dev=3)
    router.rcv(NetifReceive.ip_rcv, ip_skb(bytes(1200), PEER, PEER2, 17, frag_off=ipv4.IP_DF))
    ((_, message),) = router.packets()
    hdr = icmp.parse(message)
    assert (hdr.type, hdr.code, hdr.mtu) == (3, icmp.ICMP_FRAG_NEEDED, 1000)
    router.rcv(NetifReceive.ip_rcv, ip_skb(bytes(1200), PEER, PEER2, 17, id=77))
    got = router.packets("eth1")
    assert [(iph.tot_len, iph.id, iph.frag_off) for iph, _ in got] == [
        (996, 77, 0x2000),
        (244, 77, 122),
    ]


def test_a_super_segment_is_passed_on_whole(router: IpHost) -> None:
    skb = ip_skb(bytes(12) + b"\x50" + bytes(7 + 30000), PEER, PEER2, 6, frag_off=ipv4.IP_DF)
    skb.gso_size, skb.gso_segs, skb.gso_type = 1460, 21, 1
    router.rcv(NetifReceive.ip_rcv, skb)
    (out,) = router.frames("eth1")
    assert (out.gso_size, out.len) == (1460, 14 + 20 + 20 + 30000)


@pytest.mark.parametrize(
    ("kind", "code"), [("unreachable", 1), ("prohibit", 13), ("blackhole", None)]
)
def test_routes_that_lead_nowhere(make_host: MakeHost, kind: str, code: int | None) -> None:
    host = make_host(
        sysctl={"net.ipv4.ip_forward": 1}, routes=(RouteConfig("192.0.2.0/24", type=kind),)
    )
    host.learn()
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, FAR, 17))
    assert [icmp.parse(m).code for _, m in host.packets()] == ([] if code is None else [code])
    assert host.dropped("NOT_SPECIFIED" if code is None else "IP_INNOROUTES") == 1


def test_nobody_knows_the_way(make_host: MakeHost) -> None:
    net_unreach = make_host(sysctl={"net.ipv4.ip_forward": 1}, two=True)
    net_unreach.ip.static_routes.clear()
    devinet.ip_route_add(net_unreach.ip, RouteConfig("192.0.2.0/24", "10.1.0.9"))
    net_unreach.learn()
    net_unreach.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, inet_aton("8.8.8.8"), 17))
    ((_, message),) = net_unreach.packets()
    assert (icmp.parse(message).type, icmp.parse(message).code) == (3, 0)
    assert net_unreach.net.mib["IpExtInNoRoutes"] == 1


def test_broadcasts_on_the_link_are_not_passed_on(router: IpHost) -> None:
    router.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, PEER2, 17, pkt_type=1))
    assert router.frames("eth1") == []
    assert router.dropped("OTHERHOST") == 1


def test_forwarding_is_switched_while_running(make_host: MakeHost) -> None:
    host = make_host(two=True)
    host.learn()
    host.learn(PEER2, PEER_MAC, dev=3)
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, PEER2, 17))
    assert host.packets("eth1") == []
    host.ip.sysctl.set("net.ipv4.ip_forward", 1)
    host.core.idle()
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, PEER2, 17))
    assert len(host.packets("eth1")) == 1


def test_a_router_writes_itself_into_the_options(router: IpHost) -> None:
    options = b"\x07\x07\x04\0\0\0\0\x44\x0c\x05\x01" + bytes(8) + b"\0"
    router.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, PEER2, 17, options=options))
    ((iph, _),) = router.packets("eth1")
    assert iph.options[:7] == b"\x07\x07\x08" + US2
    assert iph.options[7:15] == b"\x44\x0c\x0d\x01" + US2
    assert int.from_bytes(iph.options[15:19], "big") == 1_000_000 | 0x80000000
    router.rcv(NetifReceive.ip_rcv, ip_skb(bytes(8), PEER, PEER2, 17, options=iph.options))
    ((full, _),) = router.packets("eth1")
    assert full.options[:7] == iph.options[:7]
    assert full.options[10] == 0x11  # one more that did not fit
