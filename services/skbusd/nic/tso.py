# SPDX-License-Identifier: MIT
"""Super-segments that are longer than an IPv4 packet (BIG TCP; `gso_ipv4_max_size` of Linux 6.3).

Between our processes a TCP skb may have up to GSO_MAX_SIZE bytes, so that every layer works once
for eight times as many. The kernel behind AF_PACKET takes 64 KB at a time: `tso_xmit` sends
the beginning in packets of that size, which the kernel segments as it does with its own, and leaves
the last of them to `dev.dev_hard_start_xmit`. Each packet costs one header here, and no copy.
"""

import errno
import struct
from typing import Final

from skbus.checksum import csum_fold, csum_from32to16, csum_partial, csum_tcpudp_nofold
from skbus.headers import Buffer
from skbus.skbuff import GSO_LEGACY_MAX_SIZE, SKB_GSO_TCPV4, SkBuff, frags_slice
from skbusd.nic.eth import virtio_net_hdr_from_skb
from skbusd.nic.netdev import NicNet

_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_CWR: Final = 0x80
_FIN_PSH: Final = 0x09


def tso_xmit(net: NicNet, skb: SkBuff) -> int:
    """Send all of a long super-segment but the last packet, which `skb` is then.

    0, or the errno of what could not be sent: `skb` begins with it. EINVAL where the skb is not
    TCP over IPv4 behind an Ethernet header, whole in head. StalePlaceError.
    """
    head = skb.head[skb.data :]
    l4 = skb.csum_start - skb.data
    if not skb.gso_type & SKB_GSO_TCPV4 or skb.gso_size <= 0 or l4 < 34 or l4 + 20 > len(head):
        return errno.EINVAL
    hlen = l4 + ((head[l4 + 12] >> 4) << 2)
    if len(head) != hlen or head[12:14] != b"\x08\x00":
        return errno.EINVAL
    mss = skb.gso_size
    most = (GSO_LEGACY_MAX_SIZE - 1 - (hlen - 14)) // mss * mss
    if most <= 0:
        return errno.EINVAL
    vnet = virtio_net_hdr_from_skb(skb)
    skb.head = head
    skb.csum_start = l4
    skb.data = 0
    left = skb.data_len
    done = 0
    err = 0
    mib = net.mib
    try:
        while left > most:
            err = _xmit_first(net, skb, done, most, hlen, vnet)
            if err:
                break
            done += most
            left -= most
            mib["DevTxPackets"] += 1
            mib["DevTxBytes"] += hlen + most
    finally:
        if done:
            skb.head = tso_build_hdr(head, l4, done, mss, min(left, most), True)
            skb.eat_frags(done)
            skb.gso_segs = -(-left // mss)
        elif not err:
            skb.head = tso_build_hdr(head, l4, 0, mss, left, True)
    return err


def _xmit_first(net: NicNet, skb: SkBuff, offset: int, size: int, hlen: int, vnet: bytes) -> int:
    """One packet of `size` bytes of payload, from `offset` on."""
    header = tso_build_hdr(skb.head, skb.csum_start, offset, skb.gso_size, size, False)
    iov: list[Buffer] = [header]
    view = net.pool.view
    frags = frags_slice(skb.frags, offset, size)
    iov += [frag if isinstance(frag, bytes) else view(frag) for frag in frags]
    return net.device.send(vnet, iov)


def tso_build_hdr(head: bytes, l4: int, offset: int, mss: int, size: int, is_last: bool) -> bytes:
    """Headers of the packet that begins `offset` bytes into the super-segment of `head`.

    As `tso_build_hdr` of net/core/tso.c: length, identification and sequence number go on; CWR
    is the first's, FIN and PSH the last's; the TCP checksum is seeded.
    """
    ip = bytearray(head[14:l4])
    ip[2:4] = _U16.pack(len(head) - 14 + size)
    ident = (ip[4] << 8 | ip[5]) + offset // mss
    ip[4:6] = _U16.pack(ident & 0xFFFF)
    ip[10:12] = b"\0\0"
    ip[10:12] = _U16.pack(csum_fold(csum_partial(ip)))
    seq = (_U32.unpack_from(head, l4 + 4)[0] + offset) & 0xFFFFFFFF
    flags = head[l4 + 13]
    if offset:
        flags &= ~_CWR
    if not is_last:
        flags &= ~_FIN_PSH
    thlen = len(head) - l4
    seed = csum_from32to16(csum_tcpudp_nofold(head[26:30], head[30:34], thlen + size, 6))
    return b"".join(
        (
            head[:14],
            ip,
            head[l4 : l4 + 4],
            _U32.pack(seq),
            head[l4 + 8 : l4 + 13],
            bytes((flags,)),
            head[l4 + 14 : l4 + 16],
            _U16.pack(seed),
            head[l4 + 18 :],
        )
    )
