# SPDX-License-Identifier: MIT
"""Datagrams that travel as one skb (SKB_GSO_BATCH), where udp lets them and where it does not."""

import errno
import struct
from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.abi import Close, RcvCb, Recvmsg, Setsockopt, Shutdown, UdpSendmsgCb
from skbus.core.checksum import csum_from32to16, csum_tcpudp_nofold
from skbus.core.interfaces import Ip, SkCallbacks, TransportProto, UdpProtocol
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.inet.headers import ipv4
from skbustest.udphost import ANY, PEER, US, UdpHost

TRUESIZE = 256


@pytest.fixture
def host() -> UdpHost:
    return UdpHost()


def post(host: UdpHost, sk: int, data: bytes, size: int, addr: bytes = b"", **more: Any) -> None:
    """A batch from the socket layer."""
    place = host.alloc.put(data) if more.pop("pool", False) else None
    skb = SkBuff(b"", (place,)) if place is not None else SkBuff(data)
    skb.cb = UdpSendmsgCb(sk, 0, addr, 53 if addr else 0, 0, -1, 0)
    skb.gso_size, skb.gso_segs = size, -(-len(data) // size)
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    host.rcv(TransportProto.sendmsg, skb)
    host.core.idle()


def room(host: UdpHost) -> int:
    """The room that the socket layer was told of, which is told once a batch."""
    items = host.out("socket", SkCallbacks.sk_write_space)
    assert len(items) <= 1
    return sum(item.acked for item in items)


def setsockopt(host: UdpHost, level: int, name: int, value: int) -> None:
    host.call(TransportProto.setsockopt, Setsockopt(1, 0, level, name, struct.pack("=i", value)))


@pytest.mark.parametrize("pool", [False, True])
def test_a_batch_goes_to_ip_as_one(host: UdpHost, pool: bool) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    post(host, 1, b"0123456789", 3, pool=pool)
    (skb,) = host.sent()
    assert (skb.gso_size, skb.gso_segs) == (3, 4)
    assert skb.gso_type == SKB_GSO_UDP_L4 | SKB_GSO_BATCH | SKB_GSO_TCP_FIXEDID
    assert host.net.skb_bytes(skb)[8:] == b"0123456789"
    assert struct.unpack("!HHH", skb.head[:6]) == (4000, 53, 18)
    assert skb.cb[5] is True, "may not be fragmented, as each of them alone"
    assert host.net.mib["UdpOutDatagrams"] == 4
    assert room(host) == 10 + 4 * TRUESIZE
    host.check()


def split_cases() -> list[Any]:
    return [
        pytest.param(
            lambda host: setsockopt(host, uapi.SOL_SOCKET, uapi.SO_NO_CHECK, 1), id="no checksum"
        ),
        pytest.param(
            lambda host: setsockopt(host, uapi.SOL_UDP, uapi.UDP_SEGMENT, 100), id="UDP_SEGMENT"
        ),
        pytest.param(lambda host: host.udp.dst_cache.clear(), id="no route"),
    ]


@pytest.mark.parametrize("change", split_cases())
def test_where_each_goes_for_itself(host: UdpHost, change: Any) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    change(host)
    post(host, 1, b"0123456789", 3, pool=True)
    if not host.udp.dst_cache:
        assert (host.core.held(), room(host)) == (4, 0)
        host.answer_route()
        host.core.idle()
    skbs = host.sent()
    assert [host.net.skb_bytes(skb)[8:] for skb in skbs] == [b"012", b"345", b"678", b"9"]
    assert {skb.gso_size for skb in skbs} == {0}
    assert room(host) == 10 + 4 * TRUESIZE
    assert host.alloc.in_use() == 0
    host.check()


def test_longer_than_the_mtu(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    host.connect(1)
    post(host, 1, bytes(3 * 1473), 1473)
    assert [(skb.gso_size, skb.cb[5]) for skb in host.sent()] == [(0, False)] * 3
    setsockopt(host, uapi.SOL_IP, uapi.IP_MTU_DISCOVER, 2)  # IP_PMTUDISC_DO
    assert room(host) == 3 * (1473 + TRUESIZE)
    post(host, 1, bytes(3 * 1473), 1473)
    reports = host.out("socket", SkCallbacks.sk_error_report)
    assert [item.err for item in reports] == [errno.EMSGSIZE] * 3
    post(host, 1, bytes(3 * 1472), 1472)
    (skb,) = host.sent()
    assert skb.gso_segs == 3
    host.check()


def test_errors_are_pending_ones(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    post(host, 1, b"0123", 2)
    assert [i.err for i in host.out("socket", SkCallbacks.sk_error_report)] == [
        errno.EDESTADDRREQ
    ] * 2
    post(host, 9, b"0123", 2)
    assert {(i.sk, i.err) for i in host.out("socket", SkCallbacks.sk_error_report)} == {
        (9, errno.EBADF)
    }
    host.connect(1)
    host.call(TransportProto.shutdown, Shutdown(1, 2))
    host.out("socket")
    post(host, 1, b"0123", 2)
    entries = [entry for entry, _ in host.udp.outbox["socket"]]
    assert entries == [
        SkCallbacks.sk_error_report,
        SkCallbacks.sk_error_report,
        SkCallbacks.sk_write_space,
    ]
    assert room(host) == 4 + 2 * TRUESIZE
    assert not host.sent()
    host.check()


def test_broadcasts_and_multicasts(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    for addr, rt_type in ((b"\x0a\0\0\xff", 3), (b"\xe0\0\0\x09", 5)):
        post(host, 1, b"0123", 2, addr)
        host.answer_route(rt_type=rt_type)
        post(host, 1, b"0123", 2, addr)
        assert all(not skb.gso_size for skb in host.sent())
    assert host.out("socket", SkCallbacks.sk_error_report)[0].err == errno.EACCES
    host.check()


# ---- receiving ---------------------------------------------------------------------------


def arrive(host: UdpHost, data: bytes, size: int, daddr: bytes = US, port: int = 4000) -> None:
    """A batch from ip, as nic's GRO makes it."""
    ulen = 8 + len(data)
    seed = csum_from32to16(csum_tcpudp_nofold(PEER, daddr, ulen, 17))
    header = ipv4.build(PEER, daddr, 17, 20 + ulen, id=7)
    skb = SkBuff(bytes(14) + header + struct.pack("!HHHH", 5000, port, ulen, seed) + data, id=1)
    skb.protocol, skb.dev, skb.skb_iif = 0x0800, 2, 2
    skb.mac_header, skb.network_header, skb.transport_header, skb.data = 0, 14, 34, 34
    skb.ip_summed, skb.csum_start, skb.csum_offset = CHECKSUM_PARTIAL, 34, 6
    skb.gso_size, skb.gso_segs = size, -(-len(data) // size)
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    skb.cb = RcvCb(PEER, daddr, 0, 64, 1500)
    host.rcv(UdpProtocol.udp_rcv, skb)


def up(host: UdpHost) -> list[SkBuff]:
    return host.out("socket", SkCallbacks.sk_data_ready)


def test_a_batch_for_one_socket_stays_one(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    arrive(host, b"0123456789", 3)
    (skb,) = up(host)
    assert (host.net.skb_bytes(skb), skb.gso_size, skb.gso_segs) == (b"0123456789", 3, 4)
    assert host.udp.socks[1].sk_rmem_alloc == 10 + 4 * TRUESIZE
    host.call(TransportProto.recvmsg, Recvmsg(1, 6, False, 2))
    assert host.udp.socks[1].sk_rmem_alloc == 4 + 2 * TRUESIZE == host.udp.udp_memory_allocated
    assert host.net.mib["UdpInDatagrams"] == 2
    host.check()


def test_a_full_buffer_drops_each_that_does_not_fit(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    setsockopt(host, uapi.SOL_SOCKET, uapi.SO_RCVBUF, 2304)
    arrive(host, b"x" * 5000, 1000)
    assert [(skb.len, skb.gso_size) for skb in up(host)] == [(1000, 0)] * 3
    assert host.dropped("SOCKET_RCVBUFF") == 2
    assert host.net.mib["UdpRcvbufErrors"] == host.net.mib["UdpInErrors"] == 2
    assert host.udp.socks[1].sk_drops == 2
    host.check()


def test_udp_mem_bounds_each() -> None:
    host = UdpHost({"net.ipv4.udp_mem": (1, 1, 1)})  # pages
    host.socket(1, ANY, 4000)
    arrive(host, b"x" * 5000, 1000)
    assert (len(up(host)), host.dropped("PROTO_MEM")) == (3, 2)
    host.call(TransportProto.close, Close(1, 0, -1))
    assert not host.udp.udp_memory_allocated


def test_nobody_there_is_told_for_each(host: UdpHost) -> None:
    arrive(host, b"0123456789", 3)
    told = host.out("ip", Ip.icmp_send)
    assert host.net.mib["UdpNoPorts"] == host.dropped("NO_SOCKET") == len(told) == 4
    for skb, size in zip(told, (3, 3, 3, 1), strict=True):
        assert ipv4.parse(skb.head, skb.network_header).tot_len == 28 + size
        assert ipv4.ip_fast_csum_ok(skb.head, skb.network_header, 20)
        assert not skb.gso_size
    host.check()


def test_a_broadcast_goes_to_all(host: UdpHost) -> None:
    host.socket(1, ANY, 4000, reuse=1)
    host.socket(2, ANY, 4000, reuse=1)
    arrive(host, b"012345", 3, b"\x0a\0\0\xff")
    got = [(skb.cb[0], host.net.skb_bytes(skb)) for skb in up(host)]
    assert sorted(got) == [(sk, text) for sk in (1, 2) for text in (b"012", b"345")]
    host.check()


def test_with_udp_gro_it_is_one_for_the_application_too(host: UdpHost) -> None:
    host.socket(1, ANY, 4000)
    setsockopt(host, uapi.SOL_UDP, uapi.UDP_GRO, 1)
    arrive(host, b"0123456789", 3)
    (skb,) = up(host)
    assert (skb.gso_size, skb.gso_type & SKB_GSO_BATCH, skb.len) == (3, 0, 10)
    assert host.udp.socks[1].sk_rmem_alloc == 10 + TRUESIZE
