# SPDX-License-Identifier: MIT
"""Raw and ping sockets in ip: who gets a copy, what is filled in, which errors are whose."""

import struct
from errno import (
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EBADF,
    ECONNREFUSED,
    EDESTADDRREQ,
    EHOSTUNREACH,
    EINVAL,
    EMSGSIZE,
    ENODEV,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPROTO,
)

import pytest

from skbus.core import uapi
from skbus.core.abi import (
    Close,
    Connect,
    DataReadyCb,
    Disconnect,
    GetPort,
    Getsockopt,
    McDropSocket,
    McSetsockopt,
    Recvmsg,
    SkErrorReport,
    UdpSendmsgCb,
)
from skbus.core.checksum import ip_compute_csum
from skbus.core.interfaces import (
    InetTransport,
    Ip,
    NetifReceive,
    SkCallbacks,
    TcpProtocol,
    TransportProto,
)
from skbus.core.skbuff import SkBuff
from skbus.core.uapi import SOCK_DGRAM, SOCK_RAW
from skbus.inet import mcast
from skbus.inet.headers import icmp, ipv4
from skbustest.iphost import FAR, GW, PEER, US, IpHost
from skbustest.packets import inet_aton, ip_skb

ANY = bytes(4)
ICMP, TCP, RAW = 1, 6, 255
SOL_RAW, SOL_IP, SOL_SOCKET = 255, 0, 1


class Sockets(IpHost):
    """ip with a socket layer above that is only an outbox."""

    def __init__(self, **options: int) -> None:
        super().__init__(sysctl=dict(options))
        self.learn()
        self.learn(GW)

    def raw(self, sk: int, protocol: int) -> None:
        self.init(sk, SOCK_RAW, protocol)

    def ping(self, sk: int) -> None:
        self.init(sk, SOCK_DGRAM, ICMP)

    def ret(self) -> int:
        """The errno of the last request."""
        return self.answer(self.req).err

    def bind(self, sk: int, addr: bytes, port: int = 0, reuse: int = 0) -> int:
        return self.ask(TransportProto.bind, lambda req: GetPort(sk, req, addr, port, reuse, 0)).err

    def connect(self, sk: int, addr: bytes) -> int:
        return self.ask(TransportProto.connect, lambda req: Connect(sk, req, addr, 0)).err

    def get(self, sk: int, level: int, option: int, size: int = 4) -> object:
        """An option's bytes, or the errno."""
        ret = self.ask(
            TransportProto.getsockopt, lambda req: Getsockopt(sk, req, level, option, size)
        )
        return ret.err or ret.val

    def send(self, sk: int, data: bytes, addr: bytes = b"", flags: int = 0) -> int:
        self.req += 1
        place = self.alloc.put(data) if len(data) > 1000 else None
        skb = SkBuff(b"", (place,)) if place else SkBuff(data)
        skb.cb = UdpSendmsgCb(sk, self.req, addr, 0, flags, -1, 0)
        self.rcv(TransportProto.sendmsg, skb)
        return self.ret()

    def delivered(self) -> list[tuple[int, bytes]]:
        """(socket, bytes) of what went up; the slots are given back."""
        out = []
        for skb in self.out("socket", SkCallbacks.sk_data_ready):
            assert isinstance(skb.cb, DataReadyCb)
            out.append((skb.cb.sk, self.net.skb_bytes(skb)))
            if skb.frags:
                self.pool.free_frags(skb.frags)
        return out

    def errors(self) -> list[tuple[int, int]]:
        reports: list[SkErrorReport] = self.out("socket", SkCallbacks.sk_error_report)
        return [(r.sk, r.err) for r in reports]


@pytest.fixture
def host() -> Sockets:
    return Sockets()


def echo(ident: int = 7, type_: int = icmp.ICMP_ECHO) -> bytes:
    return icmp.build_message(type_, 0, ident << 16 | 3, b"data")


# ---- receiving -------------------------------------------------------------------------------


def test_every_match_gets_a_copy_and_the_protocol_its_packet(host: Sockets) -> None:
    for sk in (2, 4, 6, 8):
        host.raw(sk, TCP)
    assert host.connect(4, PEER) == 0
    assert host.connect(6, FAR) == 0
    assert host.bind(8, US) == 0
    skb = ip_skb(b"S" * 20 + b"payload", PEER, US, TCP)
    packet = skb.head[14:]
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.delivered() == [(2, packet), (4, packet), (8, packet)]
    assert len(host.out("tcp", TcpProtocol.tcp_v4_rcv)) == 1


def test_copies_of_large_packets_are_the_sockets_own(host: Sockets) -> None:
    host.raw(2, 253)
    payload = bytes(range(256)) * 5
    skb = ip_skb(b"", PEER, US, 253)
    place = host.alloc.put(payload)
    assert place is not None
    header = ipv4.build(PEER, US, 253, 20 + len(payload))
    skb.head = skb.head[:14] + header
    skb.frags, skb.data_len = (place,), len(payload)
    host.rcv(NetifReceive.ip_rcv, skb)
    assert host.delivered() == [(2, header + payload)]
    assert host.alloc.in_use() == 0


def test_no_protocol_unreachable_where_a_raw_socket_takes_it(host: Sockets) -> None:
    host.raw(2, 253)
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"x", PEER, US, 253))
    assert host.packets() == []
    assert host.net.mib["IpInDelivers"] == 1
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"x", PEER, US, 252))
    ((_, message),) = host.packets()
    assert message[:2] == bytes((icmp.ICMP_DEST_UNREACH, icmp.ICMP_PROT_UNREACH))


def test_icmp_filter(host: Sockets) -> None:
    host.raw(2, ICMP)
    host.raw(4, ICMP)
    assert (
        host.setsockopt(2, SOL_RAW, uapi.ICMP_FILTER, struct.pack("=I", 1 << icmp.ICMP_ECHO)) == 0
    )
    assert host.get(2, SOL_RAW, uapi.ICMP_FILTER) == struct.pack("=I", 1 << icmp.ICMP_ECHO)
    host.rcv(NetifReceive.ip_rcv, ip_skb(echo(), PEER, US, ICMP))
    assert [sk for sk, _ in host.delivered()] == [4]
    assert len(host.packets()) == 1  # the kernel's own answer
    host.rcv(NetifReceive.ip_rcv, ip_skb(echo(7, icmp.ICMP_ECHOREPLY), PEER, US, ICMP))
    assert [sk for sk, _ in host.delivered()] == [2, 4]
    host.rcv(NetifReceive.ip_rcv, ip_skb(echo(7, 40), PEER, US, ICMP))  # an unknown type passes
    assert [sk for sk, _ in host.delivered()] == [2, 4]


def test_icmp_filter_is_for_icmp(host: Sockets) -> None:
    host.raw(2, 253)
    assert host.setsockopt(2, SOL_RAW, uapi.ICMP_FILTER, 1) == EOPNOTSUPP
    assert host.get(2, SOL_RAW, uapi.ICMP_FILTER) == EOPNOTSUPP
    assert host.setsockopt(2, SOL_RAW, 200, 1) == ENOPROTOOPT


def test_a_full_receive_buffer_drops_until_it_is_read(host: Sockets) -> None:
    host.raw(2, 253)
    assert host.setsockopt(2, SOL_SOCKET, uapi.SO_RCVBUF, 1200) == 0  # twice that
    for _ in range(5):
        host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(1000), PEER, US, 253))
    assert len(host.delivered()) == 1
    assert host.dropped("SOCKET_RCVBUFF") == 4
    host.call(TransportProto.recvmsg, Recvmsg(2, 1020))
    host.rcv(NetifReceive.ip_rcv, ip_skb(bytes(1000), PEER, US, 253))
    assert len(host.delivered()) == 1


# ---- sending ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "addr", "flags", "err"),
    [
        (b"x", b"", 0, EDESTADDRREQ),
        (b"x", b"abc", 0, EINVAL),
        (b"x", PEER, 1, EOPNOTSUPP),
        (b"x", inet_aton("10.0.0.255"), 0, EACCES),
        (bytes(65536), PEER, 0, EMSGSIZE),
        (bytes(65535), PEER, 0, EMSGSIZE),
    ],
)
def test_what_cannot_be_sent(host: Sockets, data: bytes, addr: bytes, flags: int, err: int) -> None:
    host.raw(2, 253)
    assert host.send(2, data, addr, flags=flags) == err
    assert host.packets() == []
    assert host.send(77, b"x", PEER) == EBADF


def test_a_large_packet_is_cut_unless_it_must_not_be(host: Sockets) -> None:
    host.raw(2, 253)
    assert host.send(2, bytes(3000), PEER) == 0
    assert [len(payload) for _, payload in host.packets()] == [1480, 1480, 40]
    assert host.setsockopt(2, SOL_IP, uapi.IP_MTU_DISCOVER, uapi.IP_PMTUDISC_DO) == 0
    assert host.send(2, bytes(3000), PEER) == EMSGSIZE


def test_hdrincl_keeps_what_the_application_says(host: Sockets) -> None:
    host.raw(2, RAW)
    assert host.get(2, SOL_IP, uapi.IP_HDRINCL) == struct.pack("=i", 1)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 4, 9, 99, 0, 3, ICMP, 1, FAR, PEER)
    assert host.send(2, header + echo(), PEER) == 0
    ((iph, payload),) = host.packets()
    assert (iph.tos, iph.tot_len, iph.id, iph.ttl, iph.saddr) == (4, 32, 99, 3, FAR)
    assert payload == echo()
    assert host.net.mib["IcmpOutEchos"] == 1
    assert host.setsockopt(2, SOL_IP, uapi.IP_HDRINCL, 0) == 0
    assert host.send(2, b"bare", PEER) == 0
    ((iph, payload),) = host.packets()
    assert (iph.protocol, payload) == (RAW, b"bare")


def test_ttl_tos_and_multicast_options_go_into_the_header(host: Sockets) -> None:
    host.raw(2, 253)
    group = inet_aton("239.1.1.1")
    for option, value in ((1, 0x10), (2, 9), (33, 5), (34, 0)):
        assert host.setsockopt(2, SOL_IP, option, value) == 0
    assert host.setsockopt(2, SOL_IP, mcast.IP_MULTICAST_IF, US) == 0
    assert host.setsockopt(2, SOL_IP, mcast.IP_ADD_MEMBERSHIP, group + US) == 0
    assert host.send(2, b"one", PEER) == 0
    assert host.send(2, b"all", group) == 0
    (one, _), (many, _) = host.packets()
    assert (one.ttl, one.tos) == (9, 0x10)
    assert (many.ttl, many.daddr) == (5, group)
    assert host.delivered() == []  # IP_MULTICAST_LOOP is off
    assert host.setsockopt(2, SOL_IP, mcast.IP_MULTICAST_LOOP, 1) == 0
    assert host.setsockopt(2, SOL_IP, mcast.IP_MULTICAST_TTL, 0) == 0
    assert host.send(2, b"self", group) == 0
    assert host.packets() == []  # TTL 0 stays here
    assert [data[20:] for _, data in host.delivered()] == [b"self"]


# ---- binding, connecting, options ------------------------------------------------------------


def test_bind_and_connect(host: Sockets) -> None:
    host.raw(2, 253)
    assert host.bind(2, PEER) == EADDRNOTAVAIL
    assert host.bind(2, US, 4000) == 0
    assert host.bind(2, ANY) == 0  # as often as one likes
    assert host.connect(2, inet_aton("10.0.0.255")) == EACCES
    assert host.connect(2, PEER) == 0
    assert host.bind(2, US) == EINVAL
    assert host.send(2, b"to the peer") == 0
    assert len(host.packets()) == 1
    host.req += 1
    host.call(TransportProto.disconnect, Disconnect(2, host.req))
    assert host.ret() == 0
    assert host.send(2, b"x") == EDESTADDRREQ


def test_options_that_do_not_fit(host: Sockets) -> None:
    host.raw(2, 253)
    assert host.setsockopt(2, SOL_IP, uapi.IP_TTL, 256) == EINVAL
    assert host.setsockopt(2, SOL_IP, uapi.IP_TTL, b"") == EINVAL
    assert host.setsockopt(2, SOL_IP, 999, 1) == ENOPROTOOPT
    assert host.setsockopt(2, uapi.SOL_TCP, uapi.TCP_NODELAY, 1) == ENOPROTOOPT
    assert host.setsockopt(2, SOL_SOCKET, uapi.SO_BINDTODEVICE, b"eth9\0") == ENODEV
    assert host.setsockopt(2, SOL_IP, uapi.IP_TTL, b"\x07") == 0  # one byte will do
    assert host.get(2, SOL_IP, uapi.IP_TTL, 1) == b"\x07"


# ---- errors ----------------------------------------------------------------------------------


def unreach(inner: bytes, code: int, type_: int = icmp.ICMP_DEST_UNREACH) -> SkBuff:
    return ip_skb(icmp.build_message(type_, code, 0, inner), GW, US, ICMP)


@pytest.mark.parametrize(
    ("type_", "code", "err"),
    [
        (3, icmp.ICMP_PORT_UNREACH, ECONNREFUSED),
        (3, icmp.ICMP_PROT_UNREACH, ENOPROTOOPT),
        (3, icmp.ICMP_FRAG_NEEDED, EMSGSIZE),
        (3, icmp.ICMP_HOST_UNREACH, 0),
        (icmp.ICMP_TIME_EXCEEDED, 0, 0),
        (icmp.ICMP_PARAMETERPROB, 0, EPROTO),
    ],
)
def test_hard_errors_reach_the_connected(host: Sockets, type_: int, code: int, err: int) -> None:
    for sk in (2, 4, 6):
        host.raw(sk, 253)
    host.connect(2, FAR)
    host.connect(4, PEER)
    inner = ipv4.build(US, FAR, 253, 28) + bytes(8)
    host.rcv(NetifReceive.ip_rcv, unreach(inner, code, type_))
    assert host.errors() == ([(2, err)] if err else [])
    assert host.setsockopt(6, SOL_IP, uapi.IP_RECVERR, 1) == 0  # all of them, even unconnected
    host.rcv(NetifReceive.ip_rcv, unreach(inner, code, type_))
    assert (6, err or EHOSTUNREACH) in host.errors()


# ---- ping ------------------------------------------------------------------------------------


def test_a_ping_socket_sends_its_identifier_and_gets_the_reply(host: Sockets) -> None:
    host.ping(2)
    assert host.bind(2, ANY, 4242) == 0
    assert host.send(2, echo(1), PEER) == 0
    ((iph, message),) = host.packets()
    assert (iph.daddr, ip_compute_csum(message)) == (PEER, 0)
    assert icmp.parse(message)[3] == 4242 << 16 | 3
    host.rcv(NetifReceive.ip_rcv, ip_skb(echo(4242, icmp.ICMP_ECHOREPLY), PEER, US, ICMP))
    host.rcv(NetifReceive.ip_rcv, ip_skb(echo(4243, icmp.ICMP_ECHOREPLY), PEER, US, ICMP))
    assert host.delivered() == [(2, echo(4242, icmp.ICMP_ECHOREPLY))]


def test_identifiers_are_given_out_and_not_shared(host: Sockets) -> None:
    for sk in (2, 4, 6):
        host.ping(sk)
    assert host.bind(2, ANY, 1) == 0
    assert host.bind(4, ANY, 1) == EADDRINUSE
    assert host.bind(4, PEER, 3) == EADDRNOTAVAIL
    assert host.bind(4, US) == 0
    assert host.bind(4, US) == EINVAL
    assert host.send(6, echo(), PEER) == 0
    assert sorted(host.ip.ping_table) == [1, 2, 3]
    host.call(TransportProto.close, Close(2, 0, -1))
    assert sorted(host.ip.ping_table) == [2, 3]


@pytest.mark.parametrize("data", [echo()[:7], echo(1, 0), b"\x08\1" + bytes(6)])
def test_only_echo_requests_are_sent(host: Sockets, data: bytes) -> None:
    host.ping(2)
    assert host.send(2, data, PEER) == EINVAL
    assert host.packets() == []


def test_an_error_about_a_ping(host: Sockets) -> None:
    host.ping(2)
    host.bind(2, ANY, 9)
    host.connect(2, FAR)
    inner = ipv4.build(US, FAR, ICMP, 28) + echo(9)[:8]
    host.rcv(NetifReceive.ip_rcv, unreach(inner, icmp.ICMP_PORT_UNREACH))
    assert host.errors() == [(2, ECONNREFUSED)]
    host.rcv(NetifReceive.ip_rcv, unreach(inner, icmp.ICMP_HOST_UNREACH))
    host.rcv(NetifReceive.ip_rcv, unreach(ipv4.build(US, FAR, ICMP, 28) + echo(8)[:8], 3))
    assert host.errors() == []


# ---- groups ----------------------------------------------------------------------------------


def test_packets_to_groups_nobody_is_in_are_dropped_and_filters_hold(host: Sockets) -> None:
    group = inet_aton("239.1.1.1")
    host.raw(2, 253)
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"x", PEER, group, 253, pkt_type=2))
    assert host.dropped("NOT_SPECIFIED") == 1
    assert host.setsockopt(2, SOL_IP, mcast.IP_ADD_MEMBERSHIP, group + US) == 0
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"x", PEER, group, 253, pkt_type=2))
    assert len(host.delivered()) == 1
    assert host.setsockopt(2, SOL_IP, mcast.IP_BLOCK_SOURCE, group + US + PEER) == 0
    host.rcv(NetifReceive.ip_rcv, ip_skb(b"x", PEER, group, 253, pkt_type=2))
    assert host.delivered() == []
    host.call(TransportProto.close, Close(2, 0, -1))
    assert (group in host.ip.devices["eth0"].mc_list, host.ip.mc_socks) == (False, {})


def test_another_transports_groups_end_with_its_socket_or_its_process(host: Sockets) -> None:
    group = inet_aton("239.1.1.1")
    for sk in (2, 4):
        host.call(Ip.ip_mc_setsockopt, McSetsockopt("udp", sk, 5, 35, group + US))
        (answer,) = host.out("udp", InetTransport.ip_mc_ret)
        assert (answer.sk, answer.req, answer.err) == (sk, 5, 0)
        assert isinstance(answer.mc_list, tuple)
        assert answer.mc_list[0][:2] == (group, 2)
    device = host.ip.devices["eth0"]
    assert device.mc_list[group].users == 2
    host.call(Ip.ip_mc_drop_socket, McDropSocket("udp", 2))
    assert device.mc_list[group].users == 1
    host.core.peer_up("udp")
    assert group not in device.mc_list


def test_the_socket_layer_reborn_tells_of_its_sockets_anew(host: Sockets) -> None:
    host.raw(2, 253)
    host.ping(4)
    host.core.peer_up("socket")
    assert (host.ip.inet_socks, host.ip.raw_hash, host.ip.ping_table) == ({}, {}, {})
    assert "socket" in host.core.barrier_edges()[0]
