# SPDX-License-Identifier: MIT
"""GRO of UDP (`net/ipv4/udp_offload.c`: `udp_gro_receive`, `udp_gro_complete`).

Datagrams of one flow that come in one batch go up as one skb (SKB_GSO_BATCH), and the socket layer
hands them out one by one. All must be of one size, but the last may be shorter. Nothing waits
longer than its batch. `gro.INET_OFFLOADS` names the functions. `udp4_gro_frame` takes a frame as
the driver read it, so that most never become an skb; `udp4_gro_receive` an skb; `udp4_gro_flush`
ends a batch.

Rules as in Linux: the same Ethernet header, TOS, TTL and fragment field, no IP options, and a
checksum that is right. The identification counts up, or is always the same, so that each datagram's
can be restored.

Differs from Linux: all sockets have this GRO, not only those with UDP_GRO or with
rx-udp-gro-forwarding. udp counts, drops and hands out datagrams as if they had come singly.
"""

import struct
from typing import Final

from skbus.core.checksum import csum_from32to16, csum_partial, csum_replace2, csum_tcpudp_nofold
from skbus.core.net import StalePlaceError
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    PACKET_HOST,
    SKB_GSO_BATCH,
    SKB_GSO_TCP_FIXEDID,
    SKB_GSO_UDP_L4,
    Place,
    SkBuff,
)
from skbus.inet.headers.ipv4 import IP_DF, IP_HLEN, IPPROTO_UDP, ipv4_is_multicast
from skbus.inet.headers.udp import CSUM_OFFSET, UDP_HLEN
from skbusd.nic.eth import VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, Vnet
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
    TYPE_PLAIN_IP,
    UDP_CHECK,
    UDP_DATA,
    UDP_LEN,
)
from skbusd.nic.gro_flow import UDP_HEADERS, UdpGroFlow
from skbusd.nic.netdev import NicNet

_U16: Final = struct.Struct("!H")
_VALID: Final = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID
_NO_CHECK: Final = b"\0\0"
"""The checksum field of a datagram without one."""
HEAD_MAX: Final = 4096
"""Payload of a batch up to this travels in the skb's head."""


def udp4_gro_frame(
    net: NicNet,
    room: memoryview,
    size: int,
    vnet: Vnet,
    place: Place | None,
    vlan_tci: int,
    deliver: list[SkBuff],
) -> bool:
    """Join a frame as the driver read it (`NetOffload.gro_frame`), if it is a held flow's next
    datagram. Its bytes are copied, so that its slot is free again."""
    if vnet[1] or size < UDP_DATA:
        return False
    eth_len, id_, ttl, sum_, key, ulen, check = UDP_HEADERS.unpack_from(room)
    flow = net.udp_gro.get(key)
    if flow is None or ttl != flow.ttl or vlan_tci != flow.tci:
        return False
    flags = vnet[0]
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
        end = (room[IP_TOT_LEN] << 8 | room[IP_TOT_LEN + 1]) + IP
        if end > size:
            return False
        return _join(flow, bytes(room[:UDP_DATA]), bytes(room[UDP_DATA:end]), bool(flags & _VALID))
    flow.id = id_
    flow.payload += flow.dgram
    flow.more.append(bytes(room[UDP_DATA : flow.end]))
    return True


def _join(flow: UdpGroFlow, head: bytes, data: bytes, verified: bool) -> bool:
    """`udp_gro_receive_segment`: join a datagram to a held one, if it fits. A shorter one is the
    last: the joined datagrams go up when the flow's next one comes, or with the batch."""
    size = len(data)
    eth_len, id_, ttl, _, _, ulen, check = UDP_HEADERS.unpack(head)
    if (
        not 0 < size <= flow.dgram
        or eth_len[ETH_DEST:IP_TOT_LEN] != flow.eth_len[ETH_DEST:IP_TOT_LEN]
        or ttl != flow.ttl
        or ulen != size + UDP_HLEN
        or flow.payload > flow.room
        or not check
        or int.from_bytes(head[IP:L4], "big") % 0xFFFF
    ):
        return False
    step = (id_ - flow.id) & 0xFFFF
    if step != flow.step and (
        flow.step >= 0 or not (step == 1 or (not step and head[IP_FRAG_OFF] << 8 & IP_DF))
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
    return csum_partial(data, csum_partial(head[L4:UDP_DATA], _pseudo(head, len(data) + UDP_HLEN)))


def _pseudo(head: bytes, ulen: int) -> int:
    """The sum of the pseudo-header."""
    return csum_tcpudp_nofold(head[IP_SADDR:IP_DADDR], head[IP_DADDR:L4], ulen, IPPROTO_UDP)


def udp4_gro_receive(net: NicNet, skb: SkBuff, deliver: list[SkBuff]) -> None:
    """A UDP datagram, or a fragment of one: join it, hold it, or let it go. It never overtakes
    another of its flow."""
    if net.tracing:
        net.trace("udp_gro_receive", skb, len=skb.len)
    head = skb.head
    if (
        len(head) < UDP_DATA
        or head[IP_VERSION_IHL] != PLAIN_IP
        or head[IP_FRAG_OFF] & FRAGMENT_BITS
        or head[IP_FRAG_OFF + 1]
        or skb.pkt_type != PACKET_HOST
        or ipv4_is_multicast(head[IP_DADDR:L4])
    ):
        if net.udp_gro:
            udp4_gro_flush(net, deliver)  # a fragment's flow is not known
        deliver.append(skb)
        return
    key = head[IP_SADDR:PORTS_END]
    flow = net.udp_gro.get(key)
    size = _U16.unpack_from(head, UDP_LEN)[0] - UDP_HLEN
    plain = (
        not skb.gso_size
        and size > 0
        and _U16.unpack_from(head, IP_TOT_LEN)[0] == size + UDP_DATA - IP
        and len(head) + skb.data_len >= size + UDP_DATA
    )
    data = b""
    verified = skb.ip_summed != CHECKSUM_NONE
    if plain and (flow is not None or not verified):
        try:
            data = (head[UDP_DATA:] + net.pool.gather(skb.frags))[:size]
        except StalePlaceError:
            plain = False
    if flow is not None:
        if (
            plain
            and skb.vlan_tci == flow.skb.vlan_tci
            and _join(flow, head[:UDP_DATA], data, verified)
        ):
            net.consume_skb(skb)
            return
        deliver.append(udp_gro_complete(net, flow))
        del net.udp_gro[key]
    if (
        plain
        and head[UDP_CHECK:UDP_DATA] != _NO_CHECK
        and not int.from_bytes(head[IP:L4], "big") % 0xFFFF
        and (verified or not _csum(head[:UDP_DATA], data) % 0xFFFF)
    ):
        net.udp_gro[key] = UdpGroFlow(skb)
        return
    deliver.append(skb)


def udp_gso_plain(skb: SkBuff) -> bool:
    """Is a local sender's super-packet (UDP_SEGMENT), which the kernel did not cut for us, like one
    that GRO makes? Then it is marked as a batch."""
    head = skb.head
    size = len(head) - UDP_DATA + skb.data_len
    if (
        len(head) < UDP_DATA
        or size <= skb.gso_size
        or head[ETH_PROTO:IP_TOS] != TYPE_PLAIN_IP
        or head[IP_PROTOCOL] != IPPROTO_UDP
        or head[IP_FRAG_OFF] & FRAGMENT_BITS
        or head[IP_FRAG_OFF + 1]
        or skb.pkt_type != PACKET_HOST
        or _U16.unpack_from(head, IP_TOT_LEN)[0] != size + UDP_DATA - IP
        or _U16.unpack_from(head, UDP_LEN)[0] != size + UDP_HLEN
        or head[UDP_CHECK:UDP_DATA] == _NO_CHECK
        or int.from_bytes(head[IP:L4], "big") % 0xFFFF
    ):
        return False
    skb.gso_segs = -(-size // skb.gso_size)
    skb.gso_type |= SKB_GSO_BATCH
    return True


def udp_gro_complete(net: NicNet, flow: UdpGroFlow) -> SkBuff:
    """Write the headers for all joined datagrams. The skb becomes CHECKSUM_PARTIAL, so that it can
    be cut again."""
    skb = flow.skb
    if not flow.more:
        return skb
    head = skb.head
    try:
        first = (head[UDP_DATA:] + net.pool.gather(skb.frags))[: flow.dgram]
    except StalePlaceError:
        first = bytes(flow.dgram)  # never, as the slot is ours
    if skb.frags:
        net.pool.free_frags(skb.frags)
    payload = b"".join([first, *flow.more])
    ulen = len(payload) + UDP_HLEN
    tot_len = ulen + IP_HLEN
    old_len, old_check = _U16.unpack_from(head, IP_TOT_LEN)[0], _U16.unpack_from(head, IP_CHECK)[0]
    seed = csum_from32to16(_pseudo(head, ulen))
    place = net.region.put(payload) if len(payload) > HEAD_MAX else None
    skb.head = b"".join(
        (
            head[ETH_DEST:IP_TOT_LEN],
            _U16.pack(tot_len),
            head[IP_ID:IP_CHECK],
            _U16.pack(csum_replace2(old_check, old_len, tot_len)),
            head[IP_SADDR:UDP_LEN],
            _U16.pack(ulen),
            _U16.pack(seed),
            b"" if place else payload,
        )
    )
    skb.frags = (place,) if place else ()
    skb.data_len = len(payload) if place else 0
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start = L4
    skb.csum_offset = CSUM_OFFSET
    skb.gso_size = flow.dgram
    skb.gso_segs = 1 + len(flow.more)
    skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_BATCH
    if not flow.step:
        skb.gso_type |= SKB_GSO_TCP_FIXEDID
    net.mib["DevGroMerged"] += len(flow.more)
    net.mib["DevGroPackets"] += 1
    return skb


def udp4_gro_flush(net: NicNet, deliver: list[SkBuff]) -> None:
    """The batch ends: nothing is held any longer."""
    if net.udp_gro:
        flows, net.udp_gro = net.udp_gro, {}
        deliver += [udp_gro_complete(net, flow) for flow in flows.values()]
