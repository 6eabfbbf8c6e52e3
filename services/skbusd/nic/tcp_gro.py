# SPDX-License-Identifier: MIT
"""GRO of TCP (`net/ipv4/tcp_offload.c`), and the filter of acknowledgements.

`gro.INET_OFFLOADS` names the functions: `tcp4_gro_frame` for a frame as the driver read it,
`tcp4_gro_receive` for an skb, `tcp4_gro_flush` for a batch's end. `dev.napi_poll` calls
`tcp_gro_next` for a frame that was read behind the one it is likely to continue.

Rules as in Linux: the same Ethernet header, TOS, TTL, DF, options, window and acknowledgement; in
sequence; of one size. PSH, URG or a shorter segment end an skb. An skb may already be a
super-segment, when the sender's kernel or ours has made it one. Pure ACKs in a row become the last
of them (`tcp_ack_filter`).
"""

import struct
import sys
from typing import Final

from skbus.core.checksum import csum_from32to16, csum_partial, csum_replace2, csum_tcpudp_nofold
from skbus.core.net import StalePlaceError
from skbus.core.seq import MASK, before, seq_ahead
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    ETH_P_IP,
    GRO_MAX_SIZE,
    GSO_LEGACY_MAX_SIZE,
    PACKET_HOST,
    SKB_GSO_TCPV4,
    Place,
    SkBuff,
)
from skbus.inet.headers.ipv4 import IP_DF, IP_HLEN, IPPROTO_TCP
from skbus.inet.headers.tcp import (
    CSUM_OFFSET,
    MAX_TCP_OPTION_SPACE,
    TCP_HLEN,
    TCPHDR_ACK,
    TCPHDR_CWR,
    TCPHDR_FIN,
    TCPHDR_PSH,
    TCPHDR_RST,
    TCPHDR_SYN,
    TCPHDR_URG,
    TCPOLEN_TSTAMP_ALIGNED,
)
from skbusd.nic.eth import (
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VNET_CSUM_START,
    VNET_FLAGS,
    VNET_GSO_SIZE,
    VNET_GSO_TYPE,
    Vnet,
)
from skbusd.nic.frame import (
    ETH_DEST,
    ETH_PROTO,
    FRAGMENT_BITS,
    IP,
    IP_CHECK,
    IP_DADDR,
    IP_FRAG_OFF,
    IP_ID,
    IP_PROTOCOL,
    IP_SADDR,
    IP_TOS,
    IP_TOT_LEN,
    IP_VERSION_IHL,
    L4,
    PLAIN_IP,
    PORTS_END,
    TCP_ACK_SEQ,
    TCP_CHECK,
    TCP_DOFF,
    TCP_FLAGS,
    TCP_OPTIONS,
    TCP_SEQ,
    TCP_TSECR,
    TCP_TSTAMP_END,
    TCP_TSVAL,
    TCP_URG_PTR,
    TCP_WINDOW,
    TYPE_PLAIN_IP,
)
from skbusd.nic.gro_flow import GroFlow
from skbusd.nic.netdev import NicNet

_HEADERS: Final = struct.Struct(f"!{IP}sxBHHHB{TCP_SEQ - IP_PROTOCOL}xIIHH")
"""Ethernet header; TOS, tot_len, id, frag_off, TTL; seq, ack_seq, data offset and flags, window."""
_CHANGES: Final = struct.Struct(
    f"!{IP_TOT_LEN}xHH{TCP_SEQ - IP_FRAG_OFF}xI{TCP_FLAGS - TCP_ACK_SEQ}xB"
    f"{TCP_TSTAMP_END - TCP_WINDOW}x"
)
"""Fields that differ between frames of a stream: tot_len, id, seq, flags; and tsval, read last."""


def _same_bits() -> int:
    """Of the headers with a timestamp: all bits but `_CHANGES`, PSH, and the checksums."""
    mask = bytearray(b"\xff" * TCP_TSTAMP_END)
    for start, end in (
        (IP_TOT_LEN, IP_FRAG_OFF),
        (IP_CHECK, IP_SADDR),
        (TCP_SEQ, TCP_ACK_SEQ),
        (TCP_CHECK, TCP_URG_PTR),
        (TCP_TSVAL, TCP_TSECR),
    ):
        mask[start:end] = bytes(end - start)
    mask[TCP_FLAGS] &= ~TCPHDR_PSH
    return int.from_bytes(mask, "big")


_SAME_BITS: Final = _same_bits()
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_TOT_LEN_ID: Final = struct.Struct("!HH")
_HEAD_MAX: Final = TCP_OPTIONS + MAX_TCP_OPTION_SPACE
"""Bytes of Ethernet, IPv4 and TCP headers, the latter with all options."""
_ACK_BARE: Final = bytes((TCP_HLEN << 2, TCPHDR_ACK))
_ACK_TSTAMP: Final = bytes(((TCP_HLEN + TCPOLEN_TSTAMP_ALIGNED) << 2, TCPHDR_ACK))
"""Data offset and flags of a pure ACK without options, and of one with a timestamp."""
_TIMESTAMP: Final = b"\x01\x01\x08\x0a"
"""NOP NOP TIMESTAMP, and its length"""
_DOFF_SHIFT: Final = 12
"""Where the data offset, in words, lies in the 16 bits before the window; then come the flags."""
_ALL_FLAGS: Final = 0x1FF
_OPENING: Final = TCPHDR_SYN | TCPHDR_RST | TCPHDR_ACK
"""Of these a segment with data has ACK alone."""
_END_FLAGS: Final = TCPHDR_PSH | TCPHDR_URG | TCPHDR_FIN | TCPHDR_SYN | TCPHDR_RST
"""Flags of a segment that ends a held skb."""
_BIG_END_FLAGS: Final = _END_FLAGS & ~TCPHDR_PSH
_SAME_FLAGS: Final = _ALL_FLAGS & ~(TCPHDR_CWR | TCPHDR_FIN | TCPHDR_PSH)
_SUPER_FLAGS: Final = 0xFF & ~(TCPHDR_PSH | TCPHDR_ACK)
"""Flags of which a super-segment that continues another has none."""
_BIG: Final = 32000
"""A segment with more payload is a sender's super-segment already. PSH does not end an skb of such
segments: the sender's kernel has set it at the end of each write."""


# ---- frames ------------------------------------------------------------------------------
def tcp_ack_filter(net: NicNet, deliver: list[SkBuff], skb: SkBuff) -> bool:
    """Put a pure ACK in the place of the one before it, if it says the same and acknowledges more.
    The upper layers then work once for both; `gso_segs` counts them.

    Differs from Linux: its GRO leaves ACKs alone, and its CAKE scheduler has this filter. Here it
    is off where packets are forwarded.
    """
    last = deliver[-1]
    if (
        last.data_len
        or skb.protocol != ETH_P_IP
        or skb.pkt_type != PACKET_HOST
        or skb.vlan_tci != last.vlan_tci
        or not _ack_supersedes(last.head, skb.head)
        or net.ipv4.sysctl_ip_forward
        or not _valid(net, skb, len(skb.head), 0)
    ):
        return False
    skb.gso_segs = (last.gso_segs or 1) + 1
    deliver[-1] = skb
    net.consume_skb(last)
    net.mib["DevGroMerged"] += 1
    return True


def _ack_supersedes(old: bytes, head: bytes) -> bool:
    """Are both frames pure ACKs of one flow, and does the second acknowledge more? They must have
    the same sequence number and TOS, no option but a timestamp, and no flag but ACK."""
    size = len(head)
    return (
        size in (TCP_TSTAMP_END, TCP_OPTIONS)
        and len(old) == size
        and head[IP_SADDR:TCP_ACK_SEQ] == old[IP_SADDR:TCP_ACK_SEQ]
        and head[ETH_DEST:IP_TOT_LEN] == old[ETH_DEST:IP_TOT_LEN]
        and head[TCP_DOFF:TCP_WINDOW]
        == old[TCP_DOFF:TCP_WINDOW]
        == (_ACK_TSTAMP if size == TCP_TSTAMP_END else _ACK_BARE)
        and (
            size == TCP_OPTIONS
            or head[TCP_OPTIONS:TCP_TSVAL] == old[TCP_OPTIONS:TCP_TSVAL] == _TIMESTAMP
        )
        and head[ETH_PROTO:IP_TOS] == TYPE_PLAIN_IP
        and head[IP_PROTOCOL] == old[IP_PROTOCOL] == IPPROTO_TCP
        and not head[IP_FRAG_OFF] & FRAGMENT_BITS
        and not head[IP_FRAG_OFF + 1]
        and seq_ahead(_U32.unpack_from(head, TCP_ACK_SEQ)[0], _U32.unpack_from(old, TCP_ACK_SEQ)[0])
        > 0
    )


def _seq_at(head: bytes, offset: int) -> int:
    """The 32 bits of a sequence number or a timestamp."""
    seq: int = _U32.unpack_from(head, offset)[0]
    return seq


def tcp4_gro_receive(net: NicNet, skb: SkBuff, deliver: list[SkBuff]) -> None:
    """`tcp4_gro_receive`: join the segment of an skb to a held one, hold it, or let it go."""
    head = skb.head
    held = net.gro_hash
    if (
        not held
        and not skb.data_len
        and len(head) >= TCP_OPTIONS
        and len(head) == L4 + (head[TCP_DOFF] >> 4 << 2)
    ):
        # a pure ACK, and nothing that it could overtake
        if not deliver or not tcp_ack_filter(net, deliver, skb):
            deliver.append(skb)
        return
    if (
        skb.pkt_type != PACKET_HOST
        or len(head) < TCP_OPTIONS
        or head[IP_VERSION_IHL] != PLAIN_IP
        or head[IP_FRAG_OFF] & FRAGMENT_BITS
        or head[IP_FRAG_OFF + 1]
    ):
        deliver.append(skb)  # not a plain segment for us. Linear data is at most COPYBREAK.
        return
    key = head[IP_SADDR:PORTS_END]
    flow = held.get(key) if held else None
    if flow is None and head[TCP_FLAGS] & _END_FLAGS and skb.data_len < _BIG:
        deliver.append(skb)  # the end of a write, and nothing held to which it could belong
        return
    eth, tos, tot_len, id_, frag_off, ttl, seq, ack, word, window = _HEADERS.unpack_from(head)
    hlen = L4 + (word >> _DOFF_SHIFT << 2)
    payload = tot_len + IP - hlen
    flags = word & _ALL_FLAGS
    if not TCP_OPTIONS <= hlen <= len(head) or payload <= 0 or flags & _OPENING != TCPHDR_ACK:
        # a pure ACK, SYN or RST, or nonsense: it must not overtake
        if flow is not None:
            deliver.append(tcp_gro_complete(net, flow))
            del held[key]
        deliver.append(skb)
        return
    end_flags = _END_FLAGS if payload < _BIG else _BIG_END_FLAGS
    constant = (eth, tos, ttl, frag_off, flags & _SAME_FLAGS, ack, window, hlen, skb.vlan_tci)
    if flow is not None:
        if skb_gro_receive(net, flow, skb, hlen, payload, seq, id_, flags, constant):
            if flags & end_flags or payload < flow.mss or payload % flow.mss:
                deliver.append(tcp_gro_complete(net, flow))
                del held[key]
            return
        deliver.append(tcp_gro_complete(net, flow))
        del held[key]
    mss = skb.gso_size or payload
    if (
        flags & (end_flags | TCPHDR_CWR)
        or payload % mss
        or payload != len(head) - hlen + skb.data_len
        or not _valid(net, skb, hlen, payload)
    ):
        deliver.append(skb)
        return
    held[key] = GroFlow(skb, hlen, constant, mss, seq, -1 if frag_off & IP_DF else id_)


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
    """Join `skb` to the held one; False if it does not fit. A joined skb has ended: its bytes and
    slots are the held one's."""
    head, held = skb.head, flow.skb.head
    linear = len(head) - hlen
    if (
        seq != flow.next_seq
        or constant != flow.constant
        or (
            head[TCP_OPTIONS:hlen] != held[TCP_OPTIONS:hlen]
            and not _later(net, held, head, hlen, payload)
        )
        or flags & TCPHDR_CWR
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
    flow.next_seq = (seq + payload) & MASK
    flow.flags |= flags & (TCPHDR_FIN | TCPHDR_PSH)
    flow.count += skb.gso_segs or 1
    if flow.id >= 0:
        flow.id = id_
    net.skb_consumed += 1  # without giving slots back
    return True


def tcp4_gro_frame(
    net: NicNet,
    room: memoryview,
    size: int,
    vnet: Vnet,
    place: Place | None,
    vlan_tci: int,
    deliver: list[SkBuff],
) -> bool:
    """Take a frame as the driver read it (`NetOffload.gro_frame`), if it is a super-segment that
    continues a held one. An ACK may replace the last (as by `tcp_ack_filter`)."""
    if net.gro_hash:
        return (
            vnet[1] != 0
            and place is not None
            and _gro_frame(net, room, size, vnet, place, vlan_tci)
        )
    if size > TCP_TSTAMP_END or not deliver:
        return False
    last = deliver[-1]
    if last.data_len or last.pkt_type != PACKET_HOST or vlan_tci != last.vlan_tci:
        return False
    flags = vnet[0]
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        summed = CHECKSUM_PARTIAL
    elif flags & VIRTIO_NET_HDR_F_DATA_VALID:
        summed = CHECKSUM_UNNECESSARY
    else:
        return False
    head = bytes(room[:size])
    if (
        summed != last.ip_summed
        or not _ack_supersedes(last.head, head)
        or int.from_bytes(head[IP:L4], "big") % 0xFFFF
        or net.ipv4.sysctl_ip_forward
    ):
        return False
    last.head = head
    last.gso_segs = (last.gso_segs or 1) + 1
    net.mib["DevGroMerged"] += 1
    return True


def _gro_frame(
    net: NicNet, room: memoryview, size: int, vnet: Vnet, place: Place, vlan_tci: int
) -> bool:
    """Does a frame continue a held super-segment, and is it one itself? Then its payload is the
    held skb's, and `place`'s slot with it; no skb is made for it.

    The same fields must be equal as in `tcp4_gro_receive`, which gets doubtful frames.
    """
    head = bytes(room[:_HEAD_MAX])
    flow = net.gro_hash.get(head[IP_SADDR:PORTS_END])
    if flow is None:
        return False
    hlen = flow.hlen
    held = flow.skb.head
    payload = size - hlen
    seq = _U32.unpack_from(head, TCP_SEQ)[0]
    tot_len, id_ = _TOT_LEN_ID.unpack_from(head, IP_TOT_LEN)
    summed, gso_type, _, gso_size, _, _ = vnet
    if (
        gso_type != VIRTIO_NET_HDR_GSO_TCPV4
        or not summed & VIRTIO_NET_HDR_F_NEEDS_CSUM
        or gso_size != flow.mss
        or seq != flow.next_seq
        or payload < _BIG
        or payload % flow.mss
        or head[ETH_DEST:IP_TOT_LEN] != held[ETH_DEST:IP_TOT_LEN]
        or head[IP_FRAG_OFF:IP_CHECK] != held[IP_FRAG_OFF:IP_CHECK]
        or head[TCP_ACK_SEQ:TCP_FLAGS] != held[TCP_ACK_SEQ:TCP_FLAGS]
        or head[TCP_WINDOW:TCP_CHECK] != held[TCP_WINDOW:TCP_CHECK]
        or (
            head[TCP_OPTIONS:hlen] != held[TCP_OPTIONS:hlen]
            and not _later(net, held, head, hlen, payload)
        )
        or (head[TCP_FLAGS] ^ held[TCP_FLAGS]) & ~TCPHDR_PSH
        or head[TCP_FLAGS] & _SUPER_FLAGS
        or not head[TCP_FLAGS] & TCPHDR_ACK
        or tot_len + IP != size
        or vlan_tci != flow.skb.vlan_tci
        or (flow.id >= 0 and id_ != (flow.id + 1) & 0xFFFF)
        or hlen + flow.payload + payload > GRO_MAX_SIZE
        or len(flow.frags) + 1 > flow.room
        or int.from_bytes(head[IP:L4], "big") % 0xFFFF
    ):
        return False
    _add_place(flow, place, hlen, payload)
    _continued(flow, payload, head[TCP_FLAGS], id_)
    region, slot, gen, _, _ = place
    net.rx_buffer.taken(flow, head[IP_SADDR:PORTS_END], (region, slot, gen, hlen, payload))
    return True


def tcp_gro_next(
    net: NicNet, flow: GroFlow, room: memoryview, size: int, vnet: bytearray, place: Place
) -> bool:
    """As `_gro_frame`, for a frame that was read behind `flow` and is likely to continue it. The
    frame must have a timestamp, and the flow's `same` bits. Others are for `tcp4_gro_frame`.

    vnet: the frame's virtio_net_hdr. This costs half of `_gro_frame`, and runs for each 64 KB of a
    stream.
    """
    head = bytes(room[:TCP_TSTAMP_END])
    if flow.same < 0:
        held = flow.skb.head
        if (
            flow.hlen != TCP_TSTAMP_END
            or held[TCP_OPTIONS:TCP_TSVAL] != _TIMESTAMP
            or not vnet[VNET_FLAGS] & VIRTIO_NET_HDR_F_NEEDS_CSUM
            or vnet[VNET_GSO_TYPE] != VIRTIO_NET_HDR_GSO_TCPV4
            or flow.mss != int.from_bytes(vnet[VNET_GSO_SIZE:VNET_CSUM_START], sys.byteorder)
            or held[TCP_FLAGS] & ~TCPHDR_PSH != TCPHDR_ACK
        ):
            return False
        flow.same = int.from_bytes(held, "big") & _SAME_BITS
        flow.vnet = bytes(vnet)
    payload = size - TCP_TSTAMP_END
    tot_len, id_, seq, flags = _CHANGES.unpack(head)
    if (
        int.from_bytes(head, "big") & _SAME_BITS != flow.same
        or seq != flow.next_seq
        or vnet != flow.vnet
        or tot_len + IP != size
        or payload < _BIG
        or payload % flow.mss
        or TCP_TSTAMP_END + flow.payload + payload > GRO_MAX_SIZE
        or (flow.id >= 0 and id_ != (flow.id + 1) & 0xFFFF)
        or int.from_bytes(head[IP:L4], "big") % 0xFFFF
        or net.gro_hash.get(head[IP_SADDR:PORTS_END]) is not flow
    ):
        return False
    held = flow.skb.head
    if head[TCP_TSVAL:TCP_TSECR] != held[TCP_TSVAL:TCP_TSECR] and not _later(
        net, held, head, TCP_TSTAMP_END, payload
    ):
        return False
    _add_place(flow, place, TCP_TSTAMP_END, payload)
    _continued(flow, payload, flags, id_)
    return True


def _continued(flow: GroFlow, payload: int, flags: int, id_: int) -> None:
    """Count one more super-segment."""
    flow.payload += payload
    flow.next_seq = (flow.next_seq + payload) & MASK
    flow.flags |= flags & TCPHDR_PSH
    flow.count += payload // flow.mss
    if flow.id >= 0:
        flow.id = id_


def _add_place(flow: GroFlow, place: Place, hlen: int, payload: int) -> None:
    """Append the payload of a frame at `place` to a flow; payload that lies just behind the flow's
    last bytes joins their place."""
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
    """Do two super-segments' options differ in the timestamp alone, and is the second's newer? One
    ACK of both has to echo the first's (RFC 7323 4.3), so that stands for both.

    Differs from Linux: its GRO joins only equal timestamps, as ours does where packets are
    forwarded.
    """
    return (
        payload >= _BIG
        and hlen == TCP_TSTAMP_END
        and head[TCP_OPTIONS:TCP_TSVAL] == held[TCP_OPTIONS:TCP_TSVAL] == _TIMESTAMP
        and head[TCP_TSECR:TCP_TSTAMP_END] == held[TCP_TSECR:TCP_TSTAMP_END]
        and not before(_seq_at(head, TCP_TSVAL), _seq_at(held, TCP_TSVAL))
        and not net.ipv4.sysctl_ip_forward
    )


def _valid(net: NicNet, skb: SkBuff, hlen: int, payload: int) -> bool:
    """Are the IP header's and the TCP checksum right? Bad segments must stay single, so that tcp
    can drop just them. A verified skb becomes CHECKSUM_UNNECESSARY."""
    head = skb.head
    if int.from_bytes(head[IP:L4], "big") % 0xFFFF:
        return False
    if skb.ip_summed != CHECKSUM_NONE:
        return True
    length = hlen - L4 + payload
    total = csum_tcpudp_nofold(head[IP_SADDR:IP_DADDR], head[IP_DADDR:L4], length, IPPROTO_TCP)
    total = csum_partial(head[L4:], total)
    offset = len(head) - L4
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


def tcp_gro_complete(net: NicNet, flow: GroFlow) -> SkBuff:
    """`inet_gro_complete`, `tcp_gro_complete`: write the headers for the whole joined skb.

    The skb becomes CHECKSUM_PARTIAL, so that it can be forwarded and cut again.
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
    length = hlen - IP + flow.payload
    tot_len = length if length < GSO_LEGACY_MAX_SIZE else 0  # BIG TCP (`iph_set_totlen`)
    old_len, old_check = _U16.unpack_from(head, IP_TOT_LEN)[0], _U16.unpack_from(head, IP_CHECK)[0]
    pseudo = csum_tcpudp_nofold(
        head[IP_SADDR:IP_DADDR], head[IP_DADDR:L4], length - IP_HLEN, IPPROTO_TCP
    )
    skb.head = b"".join(
        (
            head[ETH_DEST:IP_TOT_LEN],
            _U16.pack(tot_len),
            head[IP_ID:IP_CHECK],
            _U16.pack(csum_replace2(old_check, old_len, tot_len)),
            head[IP_SADDR:TCP_FLAGS],
            bytes((head[TCP_FLAGS] | flow.flags,)),
            head[TCP_WINDOW:TCP_CHECK],
            _U16.pack(csum_from32to16(pseudo)),
            head[TCP_URG_PTR:hlen],
        )
    )
    skb.data_len = flow.payload
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = L4
    skb.csum_offset = CSUM_OFFSET
    skb.gso_size = flow.mss
    skb.gso_segs = flow.count
    skb.gso_type = SKB_GSO_TCPV4 | (skb.gso_type & ~SKB_GSO_TCPV4)
    net.mib["DevGroMerged"] += flow.count - 1
    net.mib["DevGroPackets"] += 1
    return skb


def tcp4_gro_flush(net: NicNet, deliver: list[SkBuff]) -> None:
    """The batch ends: nothing is held any longer."""
    if net.gro_hash:
        deliver += [tcp_gro_complete(net, flow) for flow in net.gro_hash.values()]
        net.gro_hash = {}
