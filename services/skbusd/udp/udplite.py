# SPDX-License-Identifier: MIT
"""UDP-Lite (`net/ipv4/udplite.c`): UDP whose checksum may cover a part of the datagram, so that
damage behind that part does not lose it (RFC 3828).

    ip -> udplite_rcv -> __udp4_lib_rcv -> ... as UDP, with tables and counters of its own

The header's length field says how many bytes the checksum covers; 0 is all of them. The pseudo-
header has the datagram's whole length (RFC 3828 3.1).
"""

import struct
from typing import Final

from skbus.core.abi import ErrHandler, RcvCb
from skbus.core.checksum import csum_fold, csum_partial, csum_tcpudp_nofold
from skbus.core.pool import PoolError
from skbus.core.pskb import pskb_may_pull
from skbus.core.skbuff import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, SkBuff
from skbus.core.uapi import UDPLITE_SEND_CSCOV
from skbus.inet.headers.udp import UDP_HLEN
from skbusd.udp import udp
from skbusd.udp.netns import IPPROTO_UDPLITE, UdpNet, UdpSock

_UDP: Final = struct.Struct("!HHHH")


def udplite_rcv(net: UdpNet, skb: SkBuff) -> None:
    """A UDP-Lite datagram from ip; `data` is at its header."""
    if net.tracing:
        net.trace("udplite_rcv", skb, len=skb.len)
    cb = skb.cb
    assert isinstance(cb, RcvCb)
    table = net.udplite_table
    size = skb.len
    if size < UDP_HLEN or not pskb_may_pull(net, skb, UDP_HLEN) or len(cb.saddr + cb.daddr) != 8:
        udp.udp_error(net, skb, table, "PKT_TOO_SMALL")
        return
    sport, dport, cscov, check = _UDP.unpack_from(skb.head, skb.data)
    full = cscov in (0, size)
    skb.csum = 0 if full else cscov
    if not check or (not full and not UDP_HLEN <= cscov < size):
        # a checksum is a must, and must cover the header (RFC 3828 3.1)
        net.mib["UdpLiteInCsumErrors"] += 1
        udp.udp_error(net, skb, table, "UDP_CSUM")
        return
    if skb.ip_summed not in (CHECKSUM_UNNECESSARY, CHECKSUM_PARTIAL):
        total = _csum(net, skb, size if full else cscov, cb.saddr, cb.daddr)
        if total is None:
            udp.udp_error(net, skb, table, "SKBUS_STALE_PLACE")
            return
        if total % 0xFFFF:
            net.mib["UdpLiteInCsumErrors"] += 1
            udp.udp_error(net, skb, table, "UDP_CSUM")
            return
    udp.udp4_lib_rcv(net, skb, cb, sport, dport, table)


def _csum(net: UdpNet, skb: SkBuff, cscov: int, saddr: bytes, daddr: bytes) -> int | None:
    """The sum of the covered bytes and the pseudo-header; None where bytes are gone."""
    try:
        covered = net.skb_bytes(skb)[:cscov]
    except PoolError:
        return None
    return csum_partial(covered, csum_tcpudp_nofold(saddr, daddr, skb.len, IPPROTO_UDPLITE))


def udplite_err(net: UdpNet, item: ErrHandler) -> None:
    """An ICMP error about a UDP-Lite datagram of ours."""
    udp.udp4_lib_err(net, item, net.udplite_table)


def udplite_sender_cscov(sk: UdpSock, length: int) -> int:
    """The header's length field for a datagram of `length` bytes."""
    return sk.pcslen if sk.pcslen_set and sk.pcslen < length else length


def udplite_csum(
    net: UdpNet, sk: UdpSock, skb: SkBuff, saddr: bytes, daddr: bytes, dport: int
) -> bool:
    """Put the UDP-Lite header in front, with its checksum. No device does that for us. False
    where bytes of the payload are gone."""
    length = skb.len + UDP_HLEN
    field = udplite_sender_cscov(sk, length)
    skb.head = _UDP.pack(sk.inet_num, dport, field, 0) + skb.head[skb.data :]
    skb.data = 0
    total = _csum(net, skb, field or length, saddr, daddr)
    if total is None:
        return False
    check = csum_fold(total) or 0xFFFF
    skb.head = skb.head[:6] + check.to_bytes(2, "big") + skb.head[8:]
    return True


def set_cscov(sk: UdpSock, optname: int, value: int) -> None:
    """UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV: 1 to 7 count as 8 (the header), 0 is all."""
    if value and value < UDP_HLEN:
        value = UDP_HLEN
    value = min(value, 0xFFFF)
    if optname == UDPLITE_SEND_CSCOV:
        sk.pcslen, sk.pcslen_set = value, True
    else:
        sk.pcrlen, sk.pcrlen_set = value, True
