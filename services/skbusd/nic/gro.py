# SPDX-License-Identifier: MIT
"""Generic receive offload (`net/core/gro.c`, `net/ipv4/tcp_offload.c`).

`dev.napi_poll` calls `napi_gro_receive` for each frame of a batch and `napi_gro_flush` at its
end; what comes out goes to `netif_receive_skb`. Consecutive TCP segments of one flow become one
skb, so that all later layers work once for many segments. Nothing waits longer than its batch.

Rules as in Linux: same Ethernet header, TOS, TTL, DF, options, window and acknowledgement; in
sequence; all segments but the last of one size; PSH, URG or a short segment end it. An skb may
already be a super-segment, when the sender's kernel or ours has made it one. Pure ACKs in a row
become the last of them (`tcp_ack_filter`).
"""

import struct
import sys
from typing import Final

from skbus.core.checksum import csum_from32to16, csum_partial, csum_tcpudp_nofold
from skbus.core.net import StalePlaceError
from skbus.core.seq import MASK, before, seq_ahead
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    ETH_P_IP,
    GRO_MAX_SIZE,
    GSO_LEGACY_MAX_SIZE,
    MAX_SKB_FRAGS,
    PACKET_HOST,
    SKB_GSO_TCPV4,
    Frag,
    Place,
    SkBuff,
)
from skbus.inet.headers.ipv4 import IP_DF
from skbusd.nic.eth import VIRTIO_NET_HDR_GSO_TCPV4, Vnet
from skbusd.nic.netdev import NicNet
from skbusd.nic.udp_gro import udp4_gro_receive, udp_gro_flush

_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_TCP: Final = struct.Struct("!HHIIHHH")
_CHANGES: Final = struct.Struct("!16xHH18xI5xB18x")
"""What differs between frames of a stream: tot_len, id, seq, flags; and tsval, looked at last."""
_SAME_BITS: Final = int.from_bytes(
    b"".join(
        (
            b"\xff" * 16 + bytes(4) + b"\xff" * 4 + bytes(2) + b"\xff" * 12 + bytes(4),
            b"\xff" * 5 + b"\xf7" + b"\xff" * 2 + bytes(2) + b"\xff" * 6 + bytes(4) + b"\xff" * 4,
        )
    ),
    "big",
)
"""Of such a header of 66 bytes: all but those, PSH, and the checksums."""
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_HEAD_MAX: Final = 114
"""Bytes of Ethernet, IPv4 and TCP headers, the latter with all options."""
ACK_FRAME_MAX: Final = 66
"""Bytes of a pure ACK with a timestamp."""
_TIMESTAMP: Final = b"\x01\x01\x08\x0a"
_END_FLAGS: Final = 0x08 | 0x20 | 0x01 | 0x02 | 0x04  # PSH URG FIN SYN RST
_BIG_END_FLAGS: Final = _END_FLAGS & ~0x08
_SAME_FLAGS: Final = 0x1FF & ~(0x80 | 0x01 | 0x08)  # all but CWR FIN PSH
_BIG: Final = 32000
"""A segment with more payload is a sender's super-segment already. PSH does not end what is made of
such ones: the sender's kernel has set it at the end of each write."""


class GroFlow:
    """A held skb (`struct napi_gro_cb`) and what the next segment must look like."""

    __slots__ = (
        "constant",
        "count",
        "flags",
        "frags",
        "hlen",
        "id",
        "mss",
        "next_seq",
        "payload",
        "room",
        "same",
        "skb",
        "vnet",
    )

    def __init__(
        self, skb: SkBuff, hlen: int, constant: tuple[object, ...], mss: int, seq: int, id_: int
    ) -> None:
        self.skb = skb
        self.hlen = hlen
        self.constant = constant
        """What must be equal in all segments."""
        self.mss = mss
        self.payload = len(skb.head) - hlen + skb.data_len
        self.next_seq = (seq + self.payload) & 0xFFFFFFFF
        self.id = id_
        """The IP identification of the last segment, -1 where it does not matter (DF)."""
        self.room = MAX_SKB_FRAGS - len(skb.frags) - (len(skb.head) > hlen)
        """How many frags may be added."""
        self.flags = 0
        self.frags: list[Frag] = []
        self.count = skb.gso_segs or 1
        self.same = -1
        """The header's bits that all super-segments have alike, once one has been looked for."""
        self.vnet = b""


def napi_gro_receive(net: NicNet, skb: SkBuff, deliver: list[SkBuff]) -> None:
    """Hold the skb, join it to the one that is held, or append it to `deliver`."""
    if net.tracing:
        net.trace("napi_gro_receive", skb, len=skb.len, gso_size=skb.gso_size)
    head = skb.head
    if len(head) >= 34 and head[23] == 17 and skb.protocol == ETH_P_IP:
        udp4_gro_receive(net, skb, deliver)
        return
    if (
        not net.gro_hash
        and not skb.data_len
        and len(head) >= 54
        and len(head) == 34 + ((head[46] >> 4) << 2)
    ):
        # a pure ACK, and nothing that it could overtake
        if not deliver or not tcp_ack_filter(net, deliver, skb):
            deliver.append(skb)
        return
    # what cannot be joined: not a plain TCP segment for us. Linear data is at most COPYBREAK.
    if (
        skb.protocol != ETH_P_IP
        or skb.pkt_type != PACKET_HOST
        or len(head) < 54
        or head[14] != 0x45
        or head[23] != 6
        or head[20] & 0x3F
        or head[21]
    ):
        deliver.append(skb)
        return
    tcp4_gro_receive(net, skb, deliver)


def tcp_ack_filter(net: NicNet, deliver: list[SkBuff], skb: SkBuff) -> bool:
    """Put a pure ACK in the place of the one before it, if it says all that that one said and
    more. The upper layers then work once for both; `gso_segs` counts them.

    Differs from Linux, whose GRO leaves ACKs alone; its CAKE scheduler has this filter. It is off
    where packets are forwarded.
    """
    last = deliver[-1]
    if (
        last.data_len
        or skb.protocol != ETH_P_IP
        or skb.pkt_type != PACKET_HOST
        or skb.vlan_tci != last.vlan_tci
        or not _ack_supersedes(last.head, skb.head)
        or net.sysctl["net.ipv4.ip_forward"]
        or not _valid(net, skb, len(skb.head), 0)
    ):
        return False
    skb.gso_segs = (last.gso_segs or 1) + 1
    deliver[-1] = skb
    net.consume_skb(last)
    net.mib["DevGroMerged"] += 1
    return True


def tcp_ack_filter_frame(
    net: NicNet, last: SkBuff, frame: memoryview, flags: int, vlan_tci: int
) -> bool:
    """The same for a frame that need not become an skb for it. flags: its virtio_net_hdr's."""
    if last.data_len or last.pkt_type != PACKET_HOST or vlan_tci != last.vlan_tci:
        return False
    summed = CHECKSUM_PARTIAL if flags & 1 else CHECKSUM_UNNECESSARY if flags & 2 else CHECKSUM_NONE
    head = bytes(frame)
    if (
        summed == CHECKSUM_NONE
        or summed != last.ip_summed
        or not _ack_supersedes(last.head, head)
        or int.from_bytes(head[14:34], "big") % 0xFFFF
        or net.sysctl["net.ipv4.ip_forward"]
    ):
        return False
    last.head = head
    last.gso_segs = (last.gso_segs or 1) + 1
    net.mib["DevGroMerged"] += 1
    return True


def _ack_supersedes(old: bytes, head: bytes) -> bool:
    """Two frames: pure ACKs of one flow with the same sequence number and TOS, no option but a
    timestamp and no flag but ACK, of which the second acknowledges more?"""
    size = len(head)
    return (
        (size == 66 or size == 54)
        and len(old) == size
        and head[26:42] == old[26:42]
        and head[:16] == old[:16]
        and head[46:48] == old[46:48] == (b"\x80\x10" if size == 66 else b"\x50\x10")
        and (size == 54 or head[54:58] == old[54:58] == _TIMESTAMP)
        and head[12:15] == b"\x08\x00\x45"
        and head[23] == old[23] == 6
        and not head[20] & 0x3F
        and not head[21]
        and seq_ahead(_U32.unpack_from(head, 42)[0], _U32.unpack_from(old, 42)[0]) > 0
    )


def tcp4_gro_receive(net: NicNet, skb: SkBuff, deliver: list[SkBuff]) -> None:
    """A TCP segment for us, without IP options: join it, hold it, or let it go."""
    head = skb.head
    key = head[26:38]
    flow = net.gro_hash.get(key)
    _, _, seq, ack, word, window, _ = _TCP.unpack_from(head, 34)
    hlen = 34 + ((word >> 12) << 2)
    _, tos, tot_len, id_, frag_off, ttl, _, _, _, _ = _IP.unpack_from(head, 14)
    payload = tot_len + 14 - hlen
    flags = word & 0x1FF
    if hlen < 54 or hlen > len(head) or payload <= 0 or flags & 0x06 or not flags & 0x10:
        # a pure ACK, SYN or RST, or nonsense: it must not overtake
        if flow is not None:
            deliver.append(gro_complete(net, flow))
            del net.gro_hash[key]
        deliver.append(skb)
        return
    end_flags = _END_FLAGS if payload < _BIG else _BIG_END_FLAGS
    constant = (
        head[:14],
        tos,
        ttl,
        frag_off,
        flags & _SAME_FLAGS,
        ack,
        window,
        hlen,
        skb.vlan_tci,
    )
    if flow is not None:
        if skb_gro_receive(net, flow, skb, hlen, payload, seq, id_, flags, constant):
            if flags & end_flags or payload < flow.mss or payload % flow.mss:
                deliver.append(gro_complete(net, flow))
                del net.gro_hash[key]
            return
        deliver.append(gro_complete(net, flow))
        del net.gro_hash[key]
    mss = skb.gso_size or payload
    if (
        flags & (end_flags | 0x80)
        or payload % mss
        or payload != len(head) - hlen + skb.data_len
        or not _valid(net, skb, hlen, payload)
    ):
        deliver.append(skb)
        return
    net.gro_hash[key] = GroFlow(skb, hlen, constant, mss, seq, -1 if frag_off & IP_DF else id_)


def skb_gro_receive(
    net: NicNet,
    flow: GroFlow,
    skb: SkBuff,
    hlen: int,
    payload: int,
    seq: int,
    id_: int,
    flags: int,
    constant: tuple[object, ...],
) -> bool:
    """Join `skb` to the held one; False if it does not fit. The skb is then at its end: its
    bytes and slots are the held one's."""
    head, held = skb.head, flow.skb.head
    linear = len(head) - hlen
    if (
        seq != flow.next_seq
        or constant != flow.constant
        or (head[54:hlen] != held[54:hlen] and not _later(net, held, head, hlen, payload))
        or flags & 0x80
        or payload != linear + skb.data_len
        or (skb.gso_size or payload) > flow.mss
        or (skb.gso_size and skb.gso_size != flow.mss)
        or (flow.id >= 0 and id_ != (flow.id + 1) & 0xFFFF)
        or flow.hlen + flow.payload + payload > GRO_MAX_SIZE
        or len(flow.frags) + len(skb.frags) + bool(linear) > flow.room
        or not _valid(net, skb, hlen, payload)
    ):
        return False
    if linear:
        flow.frags.append(head[hlen:])
    flow.frags += skb.frags
    flow.payload += payload
    flow.next_seq = (seq + payload) & 0xFFFFFFFF
    flow.flags |= flags & (0x01 | 0x08)
    flow.count += skb.gso_segs or 1
    if flow.id >= 0:
        flow.id = id_
    net.skb_consumed += 1  # without giving slots back
    return True


def tcp_gro_frame(
    net: NicNet, room: memoryview, size: int, vnet: Vnet, place: Place, vlan_tci: int
) -> GroFlow | None:
    """A frame as the driver read it: does it continue a held super-segment, and is it one itself?
    Then its payload is the held skb's, and `place`'s slot with it; no skb is made for it.

    What must be equal is what `tcp4_gro_receive` wants; whatever is doubtful goes that way.
    """
    head = bytes(room[:_HEAD_MAX])
    flow = net.gro_hash.get(head[26:38])
    if flow is None:
        return None
    hlen = flow.hlen
    held = flow.skb.head
    payload = size - hlen
    seq, id_ = _U32.unpack_from(head, 38)[0], head[18] << 8 | head[19]
    if (
        vnet[1] != VIRTIO_NET_HDR_GSO_TCPV4
        or not vnet[0] & 1
        or vnet[3] != flow.mss
        or seq != flow.next_seq
        or payload < _BIG
        or payload % flow.mss
        or head[:16] != held[:16]
        or head[20:24] != held[20:24]
        or head[42:47] != held[42:47]
        or head[48:50] != held[48:50]
        or (head[54:hlen] != held[54:hlen] and not _later(net, held, head, hlen, payload))
        or (head[47] ^ held[47]) & ~0x08
        or head[47] & 0xE7 != 0
        or not head[47] & 0x10
        or (head[16] << 8 | head[17]) + 14 != size
        or vlan_tci != flow.skb.vlan_tci
        or (flow.id >= 0 and id_ != (flow.id + 1) & 0xFFFF)
        or hlen + flow.payload + payload > GRO_MAX_SIZE
        or len(flow.frags) + 1 > flow.room
        or int.from_bytes(head[14:34], "big") % 0xFFFF
    ):
        return None
    _add_place(flow, place, hlen, payload)
    _continued(flow, payload, head[47], id_)
    return flow


def tcp_gro_next(
    net: NicNet, flow: GroFlow, room: memoryview, size: int, vnet: bytearray, place: Place
) -> bool:
    """The same for a frame that is likely to continue `flow`, which `place` does: with a timestamp,
    and like the first of the flow in all bits that must be. Others are for `tcp_gro_frame`.

    vnet: its virtio_net_hdr. Half of the price: this is done for each 64 KB of a stream.
    """
    head = bytes(room[:66])
    if flow.same < 0:
        held = flow.skb.head
        if flow.hlen != 66 or held[54:58] != _TIMESTAMP or not vnet[0] & 1 or vnet[1] != 1:
            return False
        if flow.mss != int.from_bytes(vnet[4:6], sys.byteorder) or held[47] & 0xF7 != 0x10:
            return False
        flow.same = int.from_bytes(held, "big") & _SAME_BITS
        flow.vnet = bytes(vnet)
    payload = size - 66
    tot_len, id_, seq, flags = _CHANGES.unpack(head)
    if (
        int.from_bytes(head, "big") & _SAME_BITS != flow.same
        or seq != flow.next_seq
        or vnet != flow.vnet
        or tot_len + 14 != size
        or payload < _BIG
        or payload % flow.mss
        or 66 + flow.payload + payload > GRO_MAX_SIZE
        or (flow.id >= 0 and id_ != (flow.id + 1) & 0xFFFF)
        or int.from_bytes(head[14:34], "big") % 0xFFFF
        or net.gro_hash.get(head[26:38]) is not flow
    ):
        return False
    held = flow.skb.head
    if head[58:62] != held[58:62] and not _later(net, held, head, 66, payload):
        return False
    _add_place(flow, place, 66, payload)
    _continued(flow, payload, flags, id_)
    return True


def _continued(flow: GroFlow, payload: int, flags: int, id_: int) -> None:
    """A super-segment more."""
    flow.payload += payload
    flow.next_seq = (flow.next_seq + payload) & MASK
    flow.flags |= flags & 0x08
    flow.count += payload // flow.mss
    if flow.id >= 0:
        flow.id = id_


def _add_place(flow: GroFlow, place: Place, hlen: int, payload: int) -> None:
    """The payload of a frame at `place` goes to the end of a flow; what lies behind its last
    bytes is one place with them."""
    region, slot, gen, offset, _ = place
    offset += hlen
    frags = flow.frags
    if not frags:
        frags = list(flow.skb.frags)
    if frags:
        last = frags[-1]
        if (
            not isinstance(last, bytes)
            and last[1] == slot
            and last[2] == gen
            and last[0] == region
            and last[3] + last[4] == offset
        ):
            frags[-1] = (region, slot, gen, last[3], last[4] + payload)
            if not flow.frags:
                flow.skb.frags = tuple(frags)
            return
    flow.frags.append((region, slot, gen, offset, payload))


def _later(net: NicNet, held: bytes, head: bytes, hlen: int, payload: int) -> bool:
    """Do two super-segments' options differ in the timestamp alone, and is the second's newer?
    The first's is what one ACK of both has to echo (RFC 7323 4.3), so it stands for both.

    Differs from Linux, whose timestamps are equal for all that it joins; nor do we where packets
    are forwarded.
    """
    return (
        payload >= _BIG
        and hlen == 66
        and head[54:58] == held[54:58] == _TIMESTAMP
        and head[62:66] == held[62:66]
        and not before(_U32.unpack_from(head, 58)[0], _U32.unpack_from(held, 58)[0])
        and not net.sysctl["net.ipv4.ip_forward"]
    )


def _valid(net: NicNet, skb: SkBuff, hlen: int, payload: int) -> bool:
    """Are the IP header's and the TCP checksum right? Segments that are not must stay single, so
    that tcp can drop just them. A verified skb becomes CHECKSUM_UNNECESSARY."""
    head = skb.head
    if int.from_bytes(head[14:34], "big") % 0xFFFF:
        return False
    if skb.ip_summed != CHECKSUM_NONE:
        return True
    total = csum_tcpudp_nofold(head[26:30], head[30:34], hlen - 34 + payload, 6)
    total = csum_partial(head[34:], total)
    offset = len(head) - 34
    try:
        for frag in skb.frags:
            data = net.pool.view_frag(frag)
            part = csum_partial(data)
            if offset & 1:
                part = part >> 8 | (part & 0xFF) << 8
            total += part
            offset += len(data)
    except StalePlaceError:
        return False
    if total % 0xFFFF:
        return False
    skb.ip_summed = CHECKSUM_UNNECESSARY
    return True


def gro_complete(net: NicNet, flow: GroFlow) -> SkBuff:
    """`inet_gro_complete`, `tcp_gro_complete`: headers for the whole of what was joined.

    The skb is CHECKSUM_PARTIAL then, so that it can be forwarded and cut again.
    """
    skb = flow.skb
    if flow.count == (skb.gso_segs or 1):
        return skb
    head = skb.head
    hlen = flow.hlen
    if len(head) > hlen:
        flow.frags.insert(0, head[hlen:])
        if skb.frags:
            flow.frags[1:1] = skb.frags
        skb.frags = tuple(flow.frags)
    else:
        skb.frags += tuple(flow.frags)
    length = hlen - 14 + flow.payload
    tot_len = length if length < GSO_LEGACY_MAX_SIZE else 0  # BIG TCP (`iph_set_totlen`)
    old_len = head[16] << 8 | head[17]
    check = (0xFFFF ^ (head[24] << 8 | head[25])) + (0xFFFF ^ old_len) + tot_len
    ip_check = 0xFFFF - (check % 0xFFFF or 0xFFFF)
    seed = csum_from32to16(csum_tcpudp_nofold(head[26:30], head[30:34], length - 20, 6))
    skb.head = b"".join(
        (
            head[:16],
            _U16.pack(tot_len),
            head[18:24],
            _U16.pack(ip_check),
            head[26:47],
            bytes((head[47] | flow.flags,)),
            head[48:50],
            _U16.pack(seed),
            head[52:hlen],
        )
    )
    skb.data_len = flow.payload
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = 34
    skb.csum_offset = 16
    skb.gso_size = flow.mss
    skb.gso_segs = flow.count
    skb.gso_type = SKB_GSO_TCPV4 | (skb.gso_type & ~SKB_GSO_TCPV4)
    net.mib["DevGroMerged"] += flow.count - 1
    net.mib["DevGroPackets"] += 1
    return skb


def napi_gro_flush(net: NicNet, deliver: list[SkBuff]) -> None:
    """The batch ends: nothing is held any longer."""
    if net.gro_hash:
        deliver += [gro_complete(net, flow) for flow in net.gro_hash.values()]
        net.gro_hash = {}
    if net.udp_gro:
        udp_gro_flush(net, deliver)
