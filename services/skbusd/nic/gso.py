# SPDX-License-Identifier: MIT
"""Generic segmentation offload in software (`net/core/gso.c`, `net/ipv4/tcp_offload.c`,
`net/ipv4/udp_offload.c`) and `skb_checksum_help` (`net/core/dev.c`).

Used where frames must be as on a wire: the device takes no `virtio_net_hdr`, or an impairment acts
on frames (then also on incoming ones). The bytes are copied out of the pool, so that the segments
own no slot. RFC 9293 3.1 (checksum), RFC 6864 (id), RFC 3168 6.1.2 (CWR).
"""

import struct
from typing import Final

from skbus.core.checksum import csum_blocks, csum_fold, csum_partial, csum_tcpudp_nofold
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.inet.headers import udp
from skbus.inet.headers.ethernet import ETH_HLEN
from skbus.inet.headers.ipv4 import IPPROTO_TCP, IPPROTO_UDP
from skbus.inet.headers.tcp import TCP_HLEN, TCPHDR_CWR, TCPHDR_FIN, TCPHDR_PSH
from skbusd.nic.frame import (
    ETH_DEST,
    ETH_PROTO,
    IP,
    IP_CHECK,
    IP_DADDR,
    IP_FRAG_OFF,
    IP_ID,
    IP_PROTOCOL,
    IP_SADDR,
    IP_TOT_LEN,
    IP_VERSION_IHL,
    L4,
    PORTS_END,
    TH_ACK_SEQ,
    TH_CHECK,
    TH_DOFF,
    TH_FLAGS,
    TH_SEQ,
    TH_URG_PTR,
    TH_WINDOW,
    TYPE_IP,
)
from skbusd.nic.netdev import NicNet

_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")


class GsoError(ValueError):
    """An skb that cannot be cut; the drop reason is SKB_GSO_SEG."""


def skb_checksum_help(frame: bytes, csum_start: int, csum_offset: int) -> bytes:
    """A frame with the checksum that was left to hardware filled in. GsoError where the field
    is outside."""
    at = csum_start + csum_offset
    if csum_start < ETH_HLEN or csum_offset < 0 or at + 2 > len(frame):
        raise GsoError(f"checksum at {csum_start}+{csum_offset} of a frame of {len(frame)} bytes")
    # the field holds the folded pseudo-header sum, so it is summed with the rest
    check = csum_fold(csum_partial(memoryview(frame)[csum_start:]))
    if not check and csum_offset == udp.CSUM_OFFSET:
        check = udp.CSUM_MANGLED_0
    return b"".join((frame[:at], _U16.pack(check), frame[at + 2 :]))


def skb_gso_segment(net: NicNet, skb: SkBuff) -> list[SkBuff]:
    """Frames as they go over a wire, checksums filled in, in one linear skb each.

    The segments have the id of `skb`, which remains the caller's to consume. GsoError where the
    skb cannot be cut; StalePlaceError where its payload is gone.
    """
    frame = net.skb_bytes(skb)
    if skb.gso_size <= 0 or skb.gso_segs == 1:
        if skb.ip_summed == CHECKSUM_PARTIAL:
            frame = skb_checksum_help(frame, skb.csum_start - skb.data, skb.csum_offset)
        return [_segment(net, skb, frame)]
    if len(frame) < L4 or frame[ETH_PROTO:IP] != TYPE_IP or frame[IP_VERSION_IHL] >> 4 != 4:
        raise GsoError("only IPv4 is segmented")
    l4 = IP + ((frame[IP_VERSION_IHL] & 0xF) << 2)
    if skb.gso_type & SKB_GSO_UDP_L4:
        frames = _udp_gso_segment(frame, l4, skb.gso_size, bool(skb.gso_type & SKB_GSO_TCP_FIXEDID))
    else:
        frames = _tcp_gso_segment(frame, l4, skb.gso_size)
    net.mib["DevGsoPackets"] += 1
    net.mib["DevGsoSegs"] += len(frames)
    return [_segment(net, skb, f) for f in frames]


def _segment(net: NicNet, skb: SkBuff, frame: bytes) -> SkBuff:
    net.skb_born += 1
    seg = SkBuff(frame, (), id=skb.id, data_len=0)
    seg.protocol = skb.protocol
    seg.dev = skb.dev
    seg.skb_iif = skb.skb_iif
    seg.pkt_type = skb.pkt_type
    seg.hash = skb.hash
    seg.mark = skb.mark
    seg.priority = skb.priority
    seg.tstamp = skb.tstamp
    seg.vlan_tci = skb.vlan_tci
    seg.mac_header = 0
    seg.ip_summed = CHECKSUM_NONE
    return seg


def _ip_headers(
    frame: bytes, l4: int, l4_len: int, sizes: list[int], fixed_id: bool = False
) -> list[bytes]:
    """Ethernet and IP header for each segment: tot_len, id and checksum anew. l4_len: of the
    transport header; sizes: of each segment's payload."""
    ihl = l4 - IP
    before = frame[ETH_DEST:IP_TOT_LEN]
    fragment = frame[IP_FRAG_OFF:IP_CHECK]  # and ttl, protocol
    after = frame[IP_SADDR:l4]
    first_id = _U16.unpack_from(frame, IP_ID)[0]
    constant = csum_partial(frame[IP:IP_TOT_LEN] + fragment + after)
    out = []
    for i, size in enumerate(sizes):
        tot_len = ihl + l4_len + size
        id_ = first_id if fixed_id else (first_id + i) & 0xFFFF
        check = csum_fold(constant + tot_len + id_)
        out.append(
            b"".join(
                (before, _U16.pack(tot_len), _U16.pack(id_), fragment, _U16.pack(check), after)
            )
        )
    return out


def _sizes(total: int, mss: int) -> list[int]:
    whole, rest = divmod(total, mss)
    return [mss] * whole + ([rest] if rest else [])


def _tcp_gso_segment(frame: bytes, l4: int, mss: int) -> list[bytes]:
    """`tcp_gso_segment`: sequence numbers go on; FIN and PSH on the last, CWR on the first."""
    if len(frame) < l4 + TCP_HLEN or frame[IP_PROTOCOL] != IPPROTO_TCP:
        raise GsoError("gso_type says TCP, the packet is not")
    thlen = (frame[l4 + TH_DOFF] >> 4) << 2
    hlen = l4 + thlen
    if thlen < TCP_HLEN or hlen > len(frame):
        raise GsoError(f"TCP header length {thlen}")
    payload = memoryview(frame)[hlen:]
    sizes = _sizes(len(payload), mss)
    if len(sizes) < 2:
        sizes = [len(payload)]
    sums = csum_blocks(payload, mss) if len(payload) else [0]
    ip_headers = _ip_headers(frame, l4, thlen, sizes)
    seq = _U32.unpack_from(frame, l4 + TH_SEQ)[0]
    ports, ack, doff, flags = (
        frame[l4 : l4 + TH_SEQ],
        frame[l4 + TH_ACK_SEQ : l4 + TH_DOFF],
        frame[l4 + TH_DOFF],
        frame[l4 + TH_FLAGS],
    )
    window = frame[l4 + TH_WINDOW : l4 + TH_CHECK]
    tail = frame[l4 + TH_URG_PTR : hlen]
    constant = csum_tcpudp_nofold(frame[IP_SADDR:IP_DADDR], frame[IP_DADDR:L4], thlen, IPPROTO_TCP)
    constant += csum_partial(ports + ack + window + tail) + (doff << 8)
    out = []
    last = len(sizes) - 1
    for i, size in enumerate(sizes):
        f = flags
        if i:
            f &= ~TCPHDR_CWR
        if i < last:
            f &= ~(TCPHDR_FIN | TCPHDR_PSH)
        at = (seq + i * mss) & 0xFFFFFFFF
        check = csum_fold(constant + size + (at >> 16) + (at & 0xFFFF) + f + sums[i])
        out.append(
            b"".join(
                (
                    ip_headers[i],
                    ports,
                    _U32.pack(at),
                    ack,
                    bytes((doff, f)),
                    window,
                    _U16.pack(check),
                    tail,
                    payload[i * mss : i * mss + size],
                )
            )
        )
    return out


def _udp_gso_segment(frame: bytes, l4: int, mss: int, fixed_id: bool) -> list[bytes]:
    """`__udp_gso_segment`: a datagram for each `mss` bytes of payload."""
    hlen = l4 + udp.UDP_HLEN
    if len(frame) < hlen or frame[IP_PROTOCOL] != IPPROTO_UDP:
        raise GsoError("gso_type says UDP, the packet is not")
    payload = memoryview(frame)[hlen:]
    sizes = _sizes(len(payload), mss) or [0]
    sums = csum_blocks(payload, mss) if len(payload) else [0]
    ip_headers = _ip_headers(frame, l4, udp.UDP_HLEN, sizes, fixed_id)
    ports = frame[l4 : l4 + PORTS_END - L4]
    constant = csum_tcpudp_nofold(
        frame[IP_SADDR:IP_DADDR], frame[IP_DADDR:L4], udp.UDP_HLEN, IPPROTO_UDP
    )
    constant += csum_partial(ports) + udp.UDP_HLEN
    out = []
    for i, size in enumerate(sizes):
        # the length counts twice: in the pseudo-header and in the UDP header
        check = csum_fold(constant + 2 * size + sums[i]) or udp.CSUM_MANGLED_0
        out.append(
            b"".join(
                (
                    ip_headers[i],
                    ports,
                    _U16.pack(udp.UDP_HLEN + size),
                    _U16.pack(check),
                    payload[i * mss : i * mss + size],
                )
            )
        )
    return out
