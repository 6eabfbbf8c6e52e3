# SPDX-License-Identifier: MIT
"""Super-segments that are longer than an IPv4 packet (BIG TCP; `gso_ipv4_max_size` of Linux 6.3).

Between our processes a TCP skb may have up to GSO_MAX_SIZE bytes, so that every layer works once
for eight times as many. The kernel behind AF_PACKET takes 64 KB at a time, unless the interface's
`gso_ipv4_max_size` says more. `tso_xmit` sends the beginning in packets of that size, which the
kernel segments like its own. The last of them is left to `dev.dev_hard_start_xmit`. Each packet
costs one header here, and no copy.
"""

import errno
import struct
from typing import Final

from skbus.core.checksum import csum_fold, csum_from32to16, csum_partial, csum_tcpudp_nofold
from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE, MAX_SKB_FRAGS, SKB_GSO_TCPV4, SkBuff
from skbus.inet.headers import Buffer
from skbus.inet.headers.ipv4 import IPPROTO_TCP
from skbus.inet.headers.tcp import TCP_HLEN, TCPHDR_CWR, TCPHDR_FIN, TCPHDR_PSH
from skbusd.nic.eth import virtio_net_hdr_from_skb
from skbusd.nic.frame import (
    ETH_PROTO,
    IP,
    IP_CHECK,
    IP_DADDR,
    IP_FRAG_OFF,
    IP_ID,
    IP_SADDR,
    IP_TOT_LEN,
    L4,
    TH_CHECK,
    TH_DOFF,
    TH_FLAGS,
    TH_SEQ,
    TYPE_IP,
)
from skbusd.nic.netdev import NicNet

_U16: Final = struct.Struct("!H")
_PAIR: Final = struct.Struct("!HH")
_U32: Final = struct.Struct("!I")
_PAGES: Final = 32768
_HANDY: Final = (MAX_SKB_FRAGS - 2) * _PAGES
"""Up to this length there are never too many."""


def tso_xmit(net: NicNet, skb: SkBuff) -> int:
    """Send all of a long super-segment but the last packet, which is left in `skb`.

    Returns 0, or the errno of a packet that could not be sent: `skb` then begins with it. EINVAL
    where the skb is not TCP over IPv4 behind an Ethernet header, whole in head. StalePlaceError
    where the payload is gone.
    """
    head = skb.head[skb.data :]
    l4 = skb.csum_start - skb.data
    if (
        not skb.gso_type & SKB_GSO_TCPV4
        or skb.gso_size <= 0
        or l4 < L4
        or l4 + TCP_HLEN > len(head)
    ):
        return errno.EINVAL
    hlen = l4 + ((head[l4 + TH_DOFF] >> 4) << 2)
    if len(head) != hlen or head[ETH_PROTO:IP] != TYPE_IP:
        return errno.EINVAL
    mss = skb.gso_size
    header = TsoHeader(head, l4)
    most = (longest(net.device.gso_max_size) - (hlen - IP)) // mss * mss
    if most <= 0:
        return errno.EINVAL
    handy = _HANDY // mss * mss
    if awkward(most):
        most = handy
    vnet = virtio_net_hdr_from_skb(skb)
    skb.head = head
    skb.csum_start = l4
    skb.data = 0
    left = skb.data_len
    done = packets = 0
    err = 0
    view = net.pool.view
    payload = _Payload([f if isinstance(f, bytes) else view(f) for f in skb.frags])
    send = net.device.send
    try:
        while left > most or awkward(left):
            size = most if left > most else handy
            err = send(vnet, [header.build(done, mss, size, False), *payload.take(size)])
            if err:
                break
            packets += 1
            done += size
            left -= size
    finally:
        mib = net.mib
        mib["DevTxPackets"] += packets
        mib["DevTxBytes"] += packets * hlen + done
        if done:
            skb.head = bytes(header.build(done, mss, min(left, most), True))
            skb.eat_frags(done)
            skb.gso_segs = -(-left // mss)
        elif not err:
            skb.head = bytes(header.build(0, mss, left, True))
    return err


def longest(gso_max_size: int) -> int:
    """Bytes of IP packet that a device with that limit takes. A frame is shorter than
    `gso_max_size`, and only BIG TCP exceeds IPv4's own limit."""
    return max(gso_max_size - 15, GSO_LEGACY_MAX_SIZE - 1)


def awkward(size: int) -> bool:
    """Is this a length of payload that no packet socket takes?

    The kernel puts it into pages of 32 KB, and the rest into the largest of 16, 8 and 4 KB that it
    fills (`alloc_skb_with_frags`). With more than MAX_SKB_FRAGS pages it fails with ENOBUFS.
    """
    if size <= _HANDY:
        return False
    pages = -(-(size % _PAGES) // 4096)
    return size // _PAGES + (1 if pages == 8 else pages.bit_count()) > MAX_SKB_FRAGS


class _Payload:
    """Buffers that are read from their beginning, as pieces of them."""

    __slots__ = ("_at", "_buffers", "_next")

    def __init__(self, buffers: list[Buffer]) -> None:
        self._buffers = buffers
        self._next = 0
        """Index of the buffer that is read next."""
        self._at = 0

    def take(self, size: int) -> list[Buffer]:
        """The next `size` bytes."""
        pieces: list[Buffer] = []
        at = self._at
        while size:
            buffer = self._buffers[self._next]
            end = at + size
            piece = buffer[at:end]
            pieces.append(piece)
            size -= len(piece)
            if end >= len(buffer):
                self._next += 1
                at = 0
            else:
                at = end
        self._at = at
        return pieces


class TsoHeader:
    """The headers of the packets of a super-segment.

    As `tso_build_hdr` of net/core/tso.c: length, identification and sequence number advance. CWR is
    the first packet's, FIN and PSH the last's; the TCP checksum is seeded. Constant fields are
    written and summed once.
    """

    __slots__ = ("_buffer", "_flags", "_id", "_l4", "_seq", "_size", "_sum")

    def __init__(self, head: bytes, l4: int) -> None:
        self._buffer = bytearray(head)
        self._l4 = l4
        self._id = _U16.unpack_from(head, IP_ID)[0]
        self._sum = csum_partial(
            head[IP:IP_TOT_LEN] + head[IP_FRAG_OFF:IP_CHECK] + head[IP_SADDR:l4]
        )
        """The IP header's sum without length, identification and checksum."""
        self._seq = _U32.unpack_from(head, l4 + TH_SEQ)[0]
        self._flags = head[l4 + TH_FLAGS]
        self._size = -1

    def build(self, offset: int, mss: int, size: int, is_last: bool) -> bytearray:
        """Headers of the packet of `size` bytes that begins `offset` bytes into the super-segment.
        Use them before the next are built."""
        head, l4 = self._buffer, self._l4
        if size != self._size:
            self._size = size
            total = csum_tcpudp_nofold(
                bytes(head[IP_SADDR:IP_DADDR]),
                bytes(head[IP_DADDR:L4]),
                len(head) - l4 + size,
                IPPROTO_TCP,
            )
            _U16.pack_into(head, l4 + TH_CHECK, csum_from32to16(total))
        tot_len = len(head) - IP + size
        if tot_len >= GSO_LEGACY_MAX_SIZE:
            tot_len = 0
        ident = (self._id + offset // mss) & 0xFFFF
        flags = self._flags
        if offset:
            flags &= ~TCPHDR_CWR
        if not is_last:
            flags &= ~(TCPHDR_FIN | TCPHDR_PSH)
        _PAIR.pack_into(head, IP_TOT_LEN, tot_len, ident)
        _U16.pack_into(head, IP_CHECK, csum_fold(self._sum + tot_len + ident))
        _U32.pack_into(head, l4 + TH_SEQ, (self._seq + offset) & 0xFFFFFFFF)
        head[l4 + TH_FLAGS] = flags
        return head
