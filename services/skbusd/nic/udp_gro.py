# SPDX-License-Identifier: MIT
"""GRO of UDP (`net/ipv4/udp_offload.c`: `udp_gro_receive`, `udp_gro_complete`).

Datagrams of one flow that come in one batch, all of one size but the last, which may be shorter, go
up as one skb (SKB_GSO_BATCH); the socket layer hands them out one by one. Nothing waits longer than
its batch. `gro.napi_gro_receive` gives an skb to `udp4_gro_receive`; `dev.napi_poll` asks
`udp_gro_frame` first, so that most frames never become an skb.

Rules as in Linux: the same Ethernet header, TOS, TTL and fragment field, no IP options, a checksum,
and it is right. The identification counts up, or is always the same; so each can be told again.

    Differs from Linux: it does that for every socket, and not only for those with UDP_GRO or with
    rx-udp-gro-forwarding; and udp counts, drops and hands out datagrams as if they had come singly.
"""

import struct
from typing import TYPE_CHECKING, Final

from skbus.core.checksum import csum_from32to16, csum_partial, csum_tcpudp_nofold
from skbus.core.net import StalePlaceError
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    PACKET_HOST,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.inet.headers.ipv4 import IP_DF
from skbusd.nic.eth import VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM

if TYPE_CHECKING:
    from skbusd.nic.netdev import NicNet

_HLEN: Final = 42
"""Ethernet, IPv4 without options, UDP."""
_U16: Final = struct.Struct("!H")
_HEADERS: Final = struct.Struct("!18sH4sH12sHH")
"""Ethernet header, TOS and length; identification; fragment field, TTL and protocol; checksum;
addresses and ports; UDP's length and checksum."""
_VALID: Final = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID
_IPPROTO_UDP: Final = 17
_UDP_MAX: Final = 65535 - 28
HEAD_MAX: Final = 4096
"""Payload of a batch up to this travels in the skb's head."""


class UdpGroFlow:
    """A held datagram, and those that go with it."""

    __slots__ = (
        "dgram", "end", "eth_len", "id", "more", "payload", "room", "skb", "step", "sum", "tci",
        "ttl", "ulen",
    )  # fmt: skip

    def __init__(self, skb: SkBuff) -> None:
        self.skb = skb
        self.tci = skb.vlan_tci
        self.eth_len, self.id, self.ttl, check, _, self.ulen, _ = _HEADERS.unpack_from(skb.head)
        self.sum = self.id + check
        """Modulo 0xFFFF it is the same for all, as the rest of the IP header is."""
        self.step = -1
        """What is added to the identification from one to the next; -1: not known yet."""
        self.dgram = self.ulen - 8
        """Bytes in each, but the last."""
        self.end = _HLEN + self.dgram
        self.payload = self.dgram
        self.room = _UDP_MAX - self.dgram
        """Up to so much payload, one more fits; -1 after a shorter one, which is the last."""
        self.more: list[bytes] = []


def udp_gro_frame(net: "NicNet", room: memoryview, size: int, flags: int, tci: int) -> bool:
    """A frame as the driver read it: is it the next datagram of a flow that is held? flags: of its
    `virtio_net_hdr`. False: it is to become an skb as others."""
    if size < _HLEN:
        return False
    eth_len, id_, ttl, sum_, key, ulen, check = _HEADERS.unpack_from(room)
    flow = net.udp_gro.get(key)
    if flow is None or ttl != flow.ttl or tci != flow.tci:
        return False
    if (
        eth_len != flow.eth_len
        or ulen != flow.ulen
        or (id_ - flow.id) & 0xFFFF != flow.step
        or (id_ + sum_ - flow.sum) % 0xFFFF
        or not check
        or not flags & _VALID
        or flow.payload > flow.room
        or size < flow.end
    ):
        end = (room[16] << 8 | room[17]) + 14
        if end > size:
            return False
        return _join(flow, bytes(room[:_HLEN]), bytes(room[_HLEN:end]), bool(flags & _VALID))
    flow.id = id_
    flow.payload += flow.dgram
    flow.more.append(bytes(room[_HLEN : flow.end]))
    return True


def _join(flow: UdpGroFlow, head: bytes, data: bytes, verified: bool) -> bool:
    """`udp_gro_receive_segment`: join a datagram to a held one, if it fits. A shorter one ends it:
    what is held then goes up when the next one comes, or with the batch."""
    size = len(data)
    eth_len, id_, ttl, _, _, ulen, check = _HEADERS.unpack(head)
    if (
        not 0 < size <= flow.dgram
        or eth_len[:16] != flow.eth_len[:16]
        or ttl != flow.ttl
        or ulen != size + 8
        or flow.payload > flow.room
        or not check
        or int.from_bytes(head[14:34], "big") % 0xFFFF
    ):
        return False
    step = (id_ - flow.id) & 0xFFFF
    if step != flow.step and (
        flow.step >= 0 or not (step == 1 or (not step and head[20] << 8 & IP_DF))
    ):
        return False
    if not verified and _csum(head, data) % 0xFFFF:
        return False
    flow.step = step
    flow.id = id_
    flow.payload += size
    flow.more.append(data)
    if size < flow.dgram:
        flow.room = -1
    return True


def _csum(head: bytes, data: bytes) -> int:
    """The sum over pseudo-header, header and payload; a multiple of 0xFFFF where it is right."""
    total = csum_tcpudp_nofold(head[26:30], head[30:34], len(data) + 8, _IPPROTO_UDP)
    return csum_partial(data, csum_partial(head[34:_HLEN], total))


def udp4_gro_receive(net: "NicNet", skb: SkBuff, deliver: list[SkBuff]) -> None:
    """A UDP datagram, or a fragment of one: join it, hold it, or let it go. It does not overtake
    one of its flow."""
    if net.tracing:
        net.trace("udp_gro_receive", skb, len=skb.len)
    head = skb.head
    if (
        len(head) < _HLEN
        or head[14] != 0x45
        or head[20] & 0x3F
        or head[21]
        or skb.pkt_type != PACKET_HOST
        or head[30] & 0xF0 == 0xE0
    ):
        if net.udp_gro:
            udp_gro_flush(net, deliver)  # a fragment's flow is not known
        deliver.append(skb)
        return
    key = head[26:38]
    flow = net.udp_gro.get(key)
    size = (head[38] << 8 | head[39]) - 8
    plain = (
        not skb.gso_size
        and size > 0
        and head[16] << 8 | head[17] == size + 28
        and len(head) + skb.data_len >= size + _HLEN
    )
    data = b""
    verified = skb.ip_summed != CHECKSUM_NONE
    if plain and (flow is not None or not verified):
        try:
            data = (head[_HLEN:] + net.pool.gather(skb.frags))[:size]
        except StalePlaceError:
            plain = False
    if flow is not None:
        if (
            plain
            and skb.vlan_tci == flow.skb.vlan_tci
            and _join(flow, head[:_HLEN], data, verified)
        ):
            net.consume_skb(skb)
            return
        deliver.append(udp_gro_complete(net, flow))
        del net.udp_gro[key]
    if (
        plain
        and (head[40] or head[41])
        and not int.from_bytes(head[14:34], "big") % 0xFFFF
        and (verified or not _csum(head[:_HLEN], data) % 0xFFFF)
    ):
        net.udp_gro[key] = UdpGroFlow(skb)
        return
    deliver.append(skb)


def udp_gso_plain(skb: SkBuff) -> bool:
    """Is this super-packet of a local sender (UDP_SEGMENT), which the kernel did not cut for us,
    what we would have made of its datagrams? Then it is a batch."""
    head = skb.head
    size = len(head) - _HLEN + skb.data_len
    if (
        len(head) < _HLEN
        or size <= skb.gso_size
        or head[12:15] != b"\x08\0\x45"
        or head[23] != _IPPROTO_UDP
        or head[20] & 0x3F
        or head[21]
        or skb.pkt_type != PACKET_HOST
        or head[16] << 8 | head[17] != size + 28
        or head[38] << 8 | head[39] != size + 8
        or not (head[40] or head[41])
        or int.from_bytes(head[14:34], "big") % 0xFFFF
    ):
        return False
    skb.gso_segs = -(-size // skb.gso_size)
    skb.gso_type |= SKB_GSO_BATCH
    return True


def udp_gro_complete(net: "NicNet", flow: UdpGroFlow) -> SkBuff:
    """`udp_gro_complete`: headers for all of them. The skb is CHECKSUM_PARTIAL then, so that it
    can be cut again."""
    skb = flow.skb
    if not flow.more:
        return skb
    head = skb.head
    try:
        first = (head[_HLEN:] + net.pool.gather(skb.frags))[: flow.dgram]
    except StalePlaceError:
        first = bytes(flow.dgram)  # our own slot, so it cannot be
    if skb.frags:
        net.pool.free_frags(skb.frags)
    payload = b"".join([first, *flow.more])
    ulen = len(payload) + 8
    tot_len = ulen + 20
    check = (0xFFFF ^ (head[24] << 8 | head[25])) + (0xFFFF ^ (head[16] << 8 | head[17])) + tot_len
    ip_check = 0xFFFF - (check % 0xFFFF or 0xFFFF)
    seed = csum_from32to16(csum_tcpudp_nofold(head[26:30], head[30:34], ulen, _IPPROTO_UDP))
    place = net.region.put(payload) if len(payload) > HEAD_MAX else None
    skb.head = b"".join(
        (
            head[:16],
            _U16.pack(tot_len),
            head[18:24],
            _U16.pack(ip_check),
            head[26:38],
            _U16.pack(ulen),
            _U16.pack(seed),
            b"" if place else payload,
        )
    )
    skb.frags = (place,) if place else ()
    skb.data_len = len(payload) if place else 0
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = 34
    skb.csum_offset = 6
    skb.gso_size = flow.dgram
    skb.gso_segs = 1 + len(flow.more)
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    if not flow.step:
        skb.gso_type |= SKB_GSO_TCP_FIXEDID
    net.mib["DevGroMerged"] += len(flow.more)
    net.mib["DevGroPackets"] += 1
    return skb


def udp_gro_flush(net: "NicNet", deliver: list[SkBuff]) -> None:
    """Nothing is held any longer."""
    flows, net.udp_gro = net.udp_gro, {}
    deliver += [udp_gro_complete(net, flow) for flow in flows.values()]
