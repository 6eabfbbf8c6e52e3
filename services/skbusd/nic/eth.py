# SPDX-License-Identifier: MIT
"""A frame becomes an skb (`net/ethernet/eth.c`, `include/linux/virtio_net.h`).

Called by `dev.napi_poll` for each frame that the driver read, and by `netem` for those that come
out of an impaired link. The skb then goes to `napi_gro_receive`. IEEE 802.3, 802.1Q.

    frame   [ Ethernet | IP | TCP, UDP |            payload                ]
    skb     [           head           ]  frags: small: in head
                                                 middle: copied to a small slot
                                                 large: stays where the driver read it
"""

import struct
from typing import Final
from zlib import crc32

from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    ETH_P_IP,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    SKB_GSO_DODGY,
    SKB_GSO_TCP_ECN,
    SKB_GSO_TCPV4,
    SKB_GSO_UDP_L4,
    Place,
    SkBuff,
)
from skbus.inet.headers import Buffer
from skbus.inet.headers.ethernet import BROADCAST, ETH_ALEN, ETH_HLEN
from skbus.inet.headers.ipv4 import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE
from skbus.inet.headers.tcp import TCP_HLEN
from skbus.inet.headers.udp import UDP_HLEN
from skbusd.nic.frame import (
    ETH_PROTO,
    FRAGMENT_BITS,
    IP,
    IP_FRAG_OFF,
    IP_PROTOCOL,
    IP_SADDR,
    IP_TOS,
    IP_VERSION_IHL,
    L4,
    PLAIN_IP,
    PORTS_END,
    TCP_DOFF,
    TCP_OPTIONS,
    TH_DOFF,
    TYPE_IP,
    TYPE_PLAIN_IP,
)
from skbusd.nic.netdev import COPYBREAK, SMALL_SLOT, NicNet

# include/uapi/linux/virtio_net.h
VIRTIO_NET_HDR: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset"""
VIRTIO_NET_HDR_LEN: Final = 10
VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 1
VIRTIO_NET_HDR_F_DATA_VALID: Final = 2
VIRTIO_NET_HDR_GSO_TCPV4: Final = 1
VIRTIO_NET_HDR_GSO_UDP_L4: Final = 5
VIRTIO_NET_HDR_GSO_ECN: Final = 0x80
# where its fields lie
VNET_FLAGS: Final = 0
VNET_GSO_TYPE: Final = 1
VNET_GSO_SIZE: Final = 4
VNET_CSUM_START: Final = 6
NO_VNET: Final = bytes(VIRTIO_NET_HDR_LEN)

Vnet = tuple[int, int, int, int, int, int]
"""The fields of a `struct virtio_net_hdr`."""
VNET_NONE: Final[Vnet] = (0, 0, 0, 0, 0, 0)
VNET_VALID: Final[Vnet] = (VIRTIO_NET_HDR_F_DATA_VALID, 0, 0, 0, 0, 0)

_GSO_TYPES: Final = {
    VIRTIO_NET_HDR_GSO_TCPV4: SKB_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_UDP_L4: SKB_GSO_UDP_L4,
}
_WITH_PORTS: Final = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE)
_HEADERS_OF_8: Final = (IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_UDPLITE)
"""Protocols with a header of 8 bytes."""
_PEEK: Final = 144
"""Ethernet, tag, and the longest IPv4 and TCP headers: 138 bytes."""
VLAN_HLEN: Final = 4
"""Bytes of an 802.1Q tag."""
_VID: Final = 0xFFF
_TPIDS: Final = (b"\x81\x00", b"\x88\xa8")
"""ETH_P_8021Q, ETH_P_8021AD"""


def eth_get_headlen(peek: bytes, size: int) -> int:
    """How many bytes of a frame are headers: Ethernet, IPv4 and the transport's.

    Bytes that are no such headers count as payload; their parsers find the faults.
    """
    if len(peek) < L4 or peek[ETH_PROTO:IP] != TYPE_IP:
        return min(size, ETH_HLEN)
    l4 = IP + ((peek[IP_VERSION_IHL] & 0xF) << 2)
    protocol = peek[IP_PROTOCOL]
    if peek[IP_FRAG_OFF] & FRAGMENT_BITS or peek[IP_FRAG_OFF + 1]:
        return min(l4, size)  # a fragment: anything may follow
    if protocol == IPPROTO_TCP and len(peek) >= l4 + TCP_HLEN:
        return min(l4 + max((peek[l4 + TH_DOFF] >> 4) << 2, TCP_HLEN), size)
    if protocol in _HEADERS_OF_8:
        return min(l4 + UDP_HLEN, size)
    return min(l4, size)


def napi_build_skb(
    net: NicNet,
    buf: Buffer,
    size: int,
    vnet: Vnet,
    place: Place | None,
    vlan_tci: int = -1,
) -> tuple[SkBuff, bool]:
    """Make an skb of a frame: the first `size` bytes of `buf`; `place` names them if they lie in
    the pool. The second value is True if the skb has taken the slot."""
    peek = bytes(buf[:_PEEK]) if size >= _PEEK else bytes(buf[:size])
    # the usual frame first: TCP over IPv4 without IP options
    if (
        peek[ETH_PROTO:IP_TOS] == TYPE_PLAIN_IP
        and size >= TCP_OPTIONS
        and peek[IP_PROTOCOL] == IPPROTO_TCP
    ):
        hlen = L4 + ((peek[TCP_DOFF] >> 4) << 2)
        if (
            hlen > size
            or peek[IP_FRAG_OFF] & FRAGMENT_BITS
            or peek[IP_FRAG_OFF + 1]
            or hlen < TCP_OPTIONS
        ):
            hlen = eth_get_headlen(peek, size)
    elif peek[ETH_PROTO:IP] in _TPIDS and size >= ETH_HLEN + VLAN_HLEN:
        return _untag(net, buf, size, vnet, vlan_tci)
    else:
        hlen = eth_get_headlen(peek, size)
    kept = False
    payload = size - hlen
    skb: SkBuff
    if payload <= COPYBREAK:
        head = peek if size <= _PEEK else bytes(buf[:size])
        skb = net.alloc_skb(head, (), data_len=0)
    elif payload > SMALL_SLOT and place is not None:
        region, slot, gen, offset, _ = place
        frag = (region, slot, gen, offset + hlen, payload)
        skb = net.alloc_skb(peek[:hlen], (frag,), data_len=payload)
        kept = True
    else:
        copied = net.region.put(memoryview(buf)[hlen:size])
        if copied is None:
            skb = net.alloc_skb(peek[:hlen])
            skb.protocol = -1  # napi_gro_receive drops it: NOMEM
            return skb, False
        skb = net.alloc_skb(peek[:hlen], (copied,), data_len=payload)
    skb.skb_iif = skb.dev = net.device.ifindex
    skb.mac_header = 0
    skb.vlan_tci = vlan_tci
    if vnet[0] or vnet[1]:
        virtio_net_hdr_to_skb(skb, vnet)
    eth_type_trans(net, skb)
    return skb, kept


def _untag(net: NicNet, buf: Buffer, size: int, vnet: Vnet, outer: int) -> tuple[SkBuff, bool]:
    """`skb_vlan_untag`: take the tag out of a frame that has it inside. outer: a tag that was
    around it, -1 for none.

    A tag that names no network (VID 0) only has a priority (802.1Q 9.6), and is ignored. A frame
    with an outer tag that names a network is for another host.
    """
    mem = memoryview(buf)
    tci = mem[ETH_HLEN] << 8 | mem[ETH_HLEN + 1]
    bare = bytes(mem[:ETH_PROTO]) + bytes(mem[ETH_PROTO + VLAN_HLEN : size])
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = vnet
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        vnet = (flags, gso_type, hdr_len, gso_size, max(csum_start - VLAN_HLEN, 0), csum_offset)
    if outer >= 0 and outer & _VID:
        skb = net.alloc_skb(bare[: ETH_HLEN + VLAN_HLEN])
        skb.pkt_type = PACKET_OTHERHOST
        skb.vlan_tci = outer
        return skb, False
    return napi_build_skb(net, bare, size - VLAN_HLEN, vnet, None, tci)


def eth_type_trans(net: NicNet, skb: SkBuff) -> None:
    """Set protocol and pkt_type by the Ethernet header, and the flow's hash.

    Differs from Linux: `data` still is at the Ethernet header; `netif_receive_skb` pulls it.
    """
    head = skb.head
    if len(head) < ETH_HLEN:
        skb.protocol = 0
        return
    skb.protocol = head[ETH_PROTO] << 8 | head[ETH_PROTO + 1]
    dest = head[:ETH_ALEN]
    if dest == net.dev_addr:
        skb.pkt_type = PACKET_HOST
    elif head[0] & 1:
        skb.pkt_type = PACKET_BROADCAST if dest == BROADCAST else PACKET_MULTICAST
    else:
        skb.pkt_type = PACKET_OTHERHOST
        return
    vlan = net.config.vlan
    if (vlan or skb.vlan_tci >= 0) and skb.vlan_tci & _VID != vlan:
        skb.pkt_type = PACKET_OTHERHOST  # as Linux, where there is no such VLAN device
    if skb.protocol == ETH_P_IP and len(head) >= L4:
        skb.hash = skb_get_hash(head, net.config.hashrnd)


def skb_get_hash(head: bytes, hashrnd: int) -> int:
    """The flow's hash: of addresses and ports, or of the addresses alone where there are no
    ports or where it is a fragment. `head` begins at the Ethernet header and has 38 bytes."""
    if (
        head[IP_PROTOCOL] not in _WITH_PORTS
        or head[IP_FRAG_OFF] & FRAGMENT_BITS
        or head[IP_FRAG_OFF + 1]
    ):
        flow = head[IP_SADDR:L4]
    elif head[IP_VERSION_IHL] == PLAIN_IP:
        flow = head[IP_SADDR:PORTS_END]
    else:
        l4 = IP + ((head[IP_VERSION_IHL] & 0xF) << 2)
        flow = head[IP_SADDR:L4] + head[l4 : l4 + PORTS_END - L4]
    return crc32(flow, hashrnd)


def virtio_net_hdr_to_skb(skb: SkBuff, vnet: Vnet) -> None:
    """Take over the kernel's word on checksum and segments.

    A checksum that a local sender left out is valid, even if its field lies behind head (a protocol
    that we do not know). Then nobody can fill it in, and nobody need verify it.
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = vnet
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        if csum_start + csum_offset + 2 > len(skb.head):
            skb.ip_summed = CHECKSUM_UNNECESSARY
        else:
            skb.ip_summed = CHECKSUM_PARTIAL
            skb.csum_start = csum_start
            skb.csum_offset = csum_offset
    elif flags & VIRTIO_NET_HDR_F_DATA_VALID:
        skb.ip_summed = CHECKSUM_UNNECESSARY
    if gso_type and gso_size:
        kind = _GSO_TYPES.get(gso_type & ~VIRTIO_NET_HDR_GSO_ECN)
        if kind is not None:
            payload = skb.data_len or 1
            skb.gso_size = gso_size
            skb.gso_type = kind | SKB_GSO_DODGY
            if gso_type & VIRTIO_NET_HDR_GSO_ECN:
                skb.gso_type |= SKB_GSO_TCP_ECN
            skb.gso_segs = -(-payload // gso_size)


def virtio_net_hdr_from_skb(skb: SkBuff) -> bytes:
    """The kernel's orders for an skb that it sends (docs/architecture.md, "AF_PACKET")."""
    if skb.ip_summed != CHECKSUM_PARTIAL:
        return NO_VNET
    start = skb.csum_start - skb.data
    gso_type = 0
    gso_size = skb.gso_size
    hdr_len = 0
    if gso_size:
        if skb.gso_type & SKB_GSO_TCPV4 and skb.csum_start + TCP_HLEN <= len(skb.head):
            hdr_len = start + ((skb.head[skb.csum_start + TH_DOFF] >> 4) << 2)
            gso_type = VIRTIO_NET_HDR_GSO_TCPV4
            if skb.gso_type & SKB_GSO_TCP_ECN:
                gso_type |= VIRTIO_NET_HDR_GSO_ECN
        elif skb.gso_type & SKB_GSO_UDP_L4:
            hdr_len = start + UDP_HLEN
            gso_type = VIRTIO_NET_HDR_GSO_UDP_L4
        if skb.len - hdr_len <= gso_size or not gso_type:
            gso_type = gso_size = hdr_len = 0
    return VIRTIO_NET_HDR.pack(
        VIRTIO_NET_HDR_F_NEEDS_CSUM, gso_type, hdr_len, gso_size, start, skb.csum_offset
    )
