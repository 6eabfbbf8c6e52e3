# SPDX-License-Identifier: MIT
"""Receiving (`net/ipv4/udp.c`).

    ip -> udp_rcv -> __udp4_lib_rcv -> __udp4_lib_lookup -> udp_queue_rcv_skb
        -> socket: sk_data_ready

ICMP errors come by `udp_err`. RFC 768; RFC 1122 4.1.
"""

import struct
from typing import Final

from skbus.core.abi import (
    DataReadyCb,
    ErrHandler,
    IcmpSendCb,
    RcvCb,
    Recvmsg,
    Redirect,
)
from skbus.core.checksum import csum_tcpudp_nofold
from skbus.core.dropreason import SkbDropReason
from skbus.core.interfaces import Ip, SkCallbacks
from skbus.core.pool import PoolError
from skbus.core.pskb import pskb_may_pull, skb_checksum
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    SKB_GSO_BATCH,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.core.uapi import IP_PMTUDISC_DONT
from skbus.inet.headers.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_PORT_UNREACH,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    NR_ICMP_UNREACH,
)
from skbus.inet.headers.ipv4 import ipv4_is_multicast
from skbus.inet.headers.udp import UDP_HLEN
from skbus.inet.ip_sockglue import icmp_error
from skbus.inet.transport import SKB_TRUESIZE, sk_icmp_error
from skbus.inet.udp_offload import udp_gso_segment
from skbusd.udp import route, table
from skbusd.udp.netns import (
    INADDR_BROADCAST,
    IPPROTO_UDP,
    UdpNet,
    UdpSock,
    UdpTable,
)

PAGE_SIZE: Final = 4096
_QUOTE: Final = 576
_UDP: Final = struct.Struct("!HHHH")


# ---- receiving ---------------------------------------------------------------------------


def udp_rcv(net: UdpNet, skb: SkBuff) -> None:
    """A UDP datagram from ip (RFC 768); `data` is at the UDP header."""
    if net.tracing:
        net.trace("udp_rcv", skb, len=skb.len)
    cb = skb.cb
    assert isinstance(cb, RcvCb)
    if len(cb.saddr) != 4 or len(cb.daddr) != 4:
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return
    size = len(skb.head) - skb.data + skb.data_len
    if size < UDP_HLEN or (
        len(skb.head) - skb.data < UDP_HLEN and not pskb_may_pull(net, skb, UDP_HLEN)
    ):
        udp_error(net, skb, net.udp_table, "PKT_TOO_SMALL")
        return
    sport, dport, ulen, check = _UDP.unpack_from(skb.head, skb.data)
    if ulen != size and not skb.gso_size:
        if ulen > size or ulen < UDP_HLEN:
            udp_error(net, skb, net.udp_table, "PKT_TOO_SMALL")
            return
        skb.trim(ulen)
    if check and skb.ip_summed not in (CHECKSUM_UNNECESSARY, CHECKSUM_PARTIAL):
        pseudo = csum_tcpudp_nofold(cb.saddr, cb.daddr, ulen, IPPROTO_UDP)
        total = skb_checksum(net, skb, skb.data, pseudo)
        if total is None:
            udp_error(net, skb, net.udp_table, "SKBUS_STALE_PLACE")
            return
        if total % 0xFFFF:
            net.mib["UdpInCsumErrors"] += 1
            udp_error(net, skb, net.udp_table, "UDP_CSUM")
            return
    udp4_lib_rcv(net, skb, cb, sport, dport, net.udp_table)


def udp_error(net: UdpNet, skb: SkBuff, udptable: UdpTable, reason: SkbDropReason) -> None:
    """A datagram that is no good, or for which there is no room."""
    net.mib[udptable.mib + "InErrors"] += 1
    net.kfree_skb(skb, reason)


def udp4_lib_rcv(
    net: UdpNet, skb: SkBuff, cb: RcvCb, sport: int, dport: int, udptable: UdpTable
) -> None:
    """`__udp4_lib_rcv`: to the socket, to all that fit, or to none (RFC 1122 4.1.3.1)."""
    saddr, daddr, _, _, _ = cb
    if net.tracing:
        net.trace("__udp4_lib_rcv", skb, sport=sport, dport=dport)
    if skb.gso_type & SKB_GSO_BATCH:
        udp_rcv_batch(net, skb, cb, sport, dport)
        return
    if daddr in net.broadcasts or daddr == INADDR_BROADCAST or ipv4_is_multicast(daddr):
        udp4_lib_mcast_deliver(net, skb, cb, sport, dport, udptable)
        return
    sk = table.udp4_lib_lookup(net, saddr, sport, daddr, dport, skb.skb_iif, udptable)
    if sk is None:
        net.mib[udptable.mib + "NoPorts"] += 1
        _send_port_unreach(net, skb, cb)
        net.kfree_skb(skb, "NO_SOCKET")
        return
    if skb.gso_size and not sk.gro_enabled:
        udp_rcv_segment(net, sk, skb, cb, sport, dport)
    else:
        udp_queue_rcv_skb(net, sk, skb, cb, sport, dport)


def udp_rcv_batch(net: UdpNet, skb: SkBuff, cb: RcvCb, sport: int, dport: int) -> None:
    """Datagrams that nic's GRO has put together stay so if one socket takes all and has room. If
    not, each is received for itself."""
    daddr = cb.daddr
    sk = None
    if daddr not in net.broadcasts and not ipv4_is_multicast(daddr):
        sk = table.udp4_lib_lookup(net, cb.saddr, sport, daddr, dport, skb.skb_iif, net.udp_table)
    if sk is not None and sk.gro_enabled:
        skb.gso_type &= ~SKB_GSO_BATCH  # UDP_GRO: one for the application
        udp_queue_rcv_skb(net, sk, skb, cb, sport, dport)
        return
    size = len(skb.head) - skb.data + skb.data_len - UDP_HLEN + skb.gso_segs * SKB_TRUESIZE
    if sk is not None and sk.sk_rmem_alloc + size <= sk.sk_rcvbuf and udp_rmem_schedule(net, size):
        udp_queue_rcv_skb(net, sk, skb, cb, sport, dport)
        return
    for single in udp_gso_segment(net, skb):
        udp4_lib_rcv(net, single, cb, sport, dport, net.udp_table)


def _send_port_unreach(net: UdpNet, skb: SkBuff, cb: RcvCb) -> None:
    """Have ip tell the sender. ip gets a copy of as much as ICMP quotes."""
    if skb.network_header < 0 or not pskb_may_pull(net, skb, min(skb.len, _QUOTE)):
        return
    copy = net.skb_clone(skb)
    copy.frags = ()
    copy.data_len = 0
    copy.gso_size = 0
    error = IcmpSendCb(ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
    net.call_skb("ip", Ip.icmp_send, copy, error)


def udp4_lib_mcast_deliver(
    net: UdpNet, skb: SkBuff, cb: RcvCb, sport: int, dport: int, udptable: UdpTable
) -> None:
    """`__udp4_lib_mcast_deliver`: a broadcast or multicast goes to every socket that fits; the
    last one gets the skb itself, the others a copy."""
    socks = table.udp_mcast_socks(udptable, cb.saddr, sport, cb.daddr, dport, skb.skb_iif)
    if not socks:
        net.mib[udptable.mib + "IgnoredMulti"] += 1
        net.consume_skb(skb)
        return
    for sk in socks[:-1]:
        try:
            data = net.pool.gather(skb.frags)
        except PoolError:
            break
        copy = net.skb_clone(skb)
        copy.head = skb.head + data
        copy.frags = ()
        copy.data_len = 0
        copy.lent = False
        udp_queue_rcv_skb(net, sk, copy, cb, sport, dport)
    udp_queue_rcv_skb(net, socks[-1], skb, cb, sport, dport)


def udp_rcv_segment(
    net: UdpNet, sk: UdpSock, skb: SkBuff, cb: RcvCb, sport: int, dport: int
) -> None:
    """Cut a super-segment (UDP_SEGMENT over the loopback, or a device that merged) to datagrams.
    They are copies: each may end at another time."""
    if not skb.gso_type & SKB_GSO_UDP_L4:
        udp_error(net, skb, net.udp_table, "NOT_SPECIFIED")
        return
    try:
        data = net.skb_bytes(skb)[UDP_HLEN:]
    except PoolError:
        udp_error(net, skb, net.udp_table, "SKBUS_STALE_PLACE")
        return
    header = skb.head[: skb.data + UDP_HLEN]
    for at in range(0, len(data), skb.gso_size):
        part = net.skb_clone(skb)
        part.head = header + data[at : at + skb.gso_size]
        part.frags = ()
        part.data_len = part.gso_size = part.gso_segs = part.gso_type = 0
        part.lent = False
        udp_queue_rcv_skb(net, sk, part, cb, sport, dport)
    net.consume_skb(skb)


def _cscov_suffices(sk: UdpSock, skb: SkBuff) -> bool:
    """UDPLITE_RECV_CSCOV: does the checksum of a UDP-Lite datagram cover as much as the socket
    asks for? A socket that has asked for all (0) takes nothing less. (`udplite_rcv` leaves the
    coverage in `skb.csum`, 0 for all; Linux tests it in `udp_queue_rcv_one_skb`, as we do.)"""
    return not skb.csum or 0 < sk.pcrlen <= skb.csum


def udp_queue_rcv_skb(
    net: UdpNet, sk: UdpSock, skb: SkBuff, cb: RcvCb, sport: int, dport: int
) -> None:
    """One datagram for one socket, if there is room in its receive buffer."""
    skb.data += UDP_HLEN
    count = skb.gso_segs if skb.gso_type & SKB_GSO_BATCH else 1
    size = len(skb.head) - skb.data + skb.data_len + count * SKB_TRUESIZE
    if net.tracing:
        net.trace("udp_queue_rcv_skb", skb, sk=sk.sk, rmem=sk.sk_rmem_alloc)
    if sk.pcrlen_set and not _cscov_suffices(sk, skb):
        udp_error(net, skb, net.udplite_table, "UDP_CSUM")
        return
    if sk.sk_rmem_alloc and sk.sk_rmem_alloc + size > sk.sk_rcvbuf:
        sk.sk_drops += 1
        udptable = table.udp_table(net, sk)
        net.mib[udptable.mib + "RcvbufErrors"] += 1
        udp_error(net, skb, udptable, "SOCKET_RCVBUFF")
        return
    if not udp_rmem_schedule(net, size):
        sk.sk_drops += 1
        udptable = table.udp_table(net, sk)
        net.mib[udptable.mib + "MemErrors"] += 1
        udp_error(net, skb, udptable, "PROTO_MEM")
        return
    net.udp_memory_allocated += size
    sk.sk_rmem_alloc += size
    daddr = cb.daddr
    iif = skb.skb_iif
    spec_dst = b"" if daddr in net.addrs else fib_compute_spec_dst(net, daddr, iif)
    up = DataReadyCb(sk.sk, cb.saddr, sport, daddr, dport, iif, 0, sk.sk_drops, spec_dst)
    net.call_skb("socket", SkCallbacks.sk_data_ready, skb, up)


def fib_compute_spec_dst(net: UdpNet, daddr: bytes, ifindex: int) -> bytes:
    """The address of ours from which to answer a multicast or broadcast: one of the device that
    received it. b'' where daddr itself will do."""
    if ipv4_is_multicast(daddr) or daddr == INADDR_BROADCAST or daddr in net.broadcasts:
        for addr, dev in net.addrs.items():
            if dev.ifindex == ifindex:
                return addr
    return b""


def udp_rmem_schedule(net: UdpNet, size: int) -> bool:
    """`__sk_mem_raise_allocated` for UDP: all sockets together hold no more than the third number
    of `net.ipv4.udp_mem`, in pages. Bytes are counted as they are."""
    limit: int = net.sysctl["net.ipv4.udp_mem"][2] * PAGE_SIZE
    return net.udp_memory_allocated + size <= limit


def udp_recvmsg(net: UdpNet, item: Recvmsg) -> None:
    """The application took datagrams of `copied` bytes together (`udp_rmem_release`)."""
    sk = net.socks.get(item.sk)
    count = item.datagrams
    net.mib[f"{table.udp_table(net, sk).mib if sk else 'Udp'}InDatagrams"] += count
    if sk is not None:
        size = min(item.copied + count * SKB_TRUESIZE, sk.sk_rmem_alloc)
        sk.sk_rmem_alloc -= size
        net.udp_memory_allocated -= size


# ---- errors ------------------------------------------------------------------------------


def udp_err(net: UdpNet, item: ErrHandler) -> None:
    """An ICMP error about a UDP datagram of ours."""
    udp4_lib_err(net, item, net.udp_table)


def udp4_lib_err(net: UdpNet, item: ErrHandler, udptable: UdpTable) -> None:
    """`__udp4_lib_err`: an ICMP error about a datagram of ours (RFC 1122 4.1.3.3).

    `sk_icmp_error` decides which sockets the error reaches.
    """
    if net.tracing:
        net.trace(
            "udp_err",
            saddr=item.saddr,
            sport=int.from_bytes(item.payload[:2], "big"),
            daddr=item.daddr,
            dport=int.from_bytes(item.payload[2:4], "big"),
            type=item.type,
            code=item.code,
            info=item.info,
        )
    if len(item.payload) < UDP_HLEN or len(item.saddr) != 4 or len(item.daddr) != 4:
        net.mib["IcmpInErrors"] += 1
        return
    sport, dport, _, _ = _UDP.unpack_from(item.payload)
    sk = table.udp4_lib_lookup(net, item.daddr, dport, item.saddr, sport, item.ifindex, udptable)
    if sk is None:
        net.mib["IcmpInErrors"] += 1
        return
    if item.type == ICMP_SOURCE_QUENCH:
        return
    if item.type == ICMP_REDIRECT:
        gateway = item.info.to_bytes(4, "big")
        redirect = Redirect(item.daddr, gateway, item.offender, item.ifindex)
        net.call("ip", Ip.ipv4_redirect, redirect)
        return
    if item.type == ICMP_DEST_UNREACH:
        if item.code > NR_ICMP_UNREACH:
            return
        if item.code == ICMP_FRAG_NEEDED:
            route.ipv4_sk_update_pmtu(net, sk, item.daddr, item.info)
            if sk.pmtudisc == IP_PMTUDISC_DONT:
                return
    sk_icmp_error(
        net,
        sk,
        icmp_error(item.type, item.code, sk.pmtudisc),
        (item.type, item.code, item.info),
        item.offender,
        (item.daddr, dport),
        item.payload[UDP_HLEN:],
    )
