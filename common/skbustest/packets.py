# SPDX-License-Identifier: MIT
"""Packets as nic hands them up, for tests of a layer."""

from typing import Any, Final

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.core.skbuff import ETH_P_ARP, ETH_P_IP, PACKET_BROADCAST, PACKET_HOST, SkBuff
from skbus.inet.headers import arp as arphdr
from skbus.inet.headers import ethernet, ipv4, udp

MAC: Final = bytes.fromhex("02000000aa01")
PEER_MAC: Final = bytes.fromhex("02000000bb01")


def inet_aton(text: str) -> bytes:
    """ "10.0.0.1" as four bytes."""
    return bytes(int(part) for part in text.split("."))


def frame_skb(
    frame: bytes, *, protocol: int = ETH_P_IP, pkt_type: int = PACKET_HOST, dev: int = 2
) -> SkBuff:
    """A frame of device `dev`; `data` is behind the Ethernet header."""
    skb = SkBuff(frame, id=1, protocol=protocol, dev=dev)
    skb.skb_iif = dev
    skb.mac_header = 0
    skb.network_header = skb.data = ethernet.ETH_HLEN
    skb.pkt_type = pkt_type
    return skb


def arp_skb(
    op: int,
    sha: bytes,
    sip: bytes,
    tip: bytes,
    *,
    tha: bytes = b"\0" * 6,
    pkt_type: int = PACKET_BROADCAST,
    dev: int = 2,
) -> SkBuff:
    """An ARP frame, padded as on the wire."""
    dest = ethernet.BROADCAST if pkt_type == PACKET_BROADCAST else MAC
    frame = ethernet.build(dest, sha, ETH_P_ARP) + arphdr.build(op, sha, sip, tha, tip)
    return frame_skb(frame + bytes(18), protocol=ETH_P_ARP, pkt_type=pkt_type, dev=dev)


def ip_skb(
    payload: bytes,
    saddr: bytes,
    daddr: bytes,
    protocol: int = 17,
    *,
    pkt_type: int = PACKET_HOST,
    dev: int = 2,
    **fields: Any,
) -> SkBuff:
    """An IPv4 packet; fields as for `ipv4.build`."""
    length = 20 + len(fields.get("options", b"")) + len(payload)
    header = ipv4.build(saddr, daddr, protocol, length, **fields)
    frame = ethernet.build(MAC, PEER_MAC, ETH_P_IP) + header + payload
    return frame_skb(frame, pkt_type=pkt_type, dev=dev)


def udp_datagram(
    data: bytes, saddr: bytes, sport: int, daddr: bytes, dport: int, *, csum: bool = True
) -> bytes:
    """A UDP header with its checksum (0 without csum), and data."""
    size = udp.UDP_HLEN + len(data)
    check = 0
    if csum:
        total = csum_partial(data, csum_partial(udp.build(sport, dport, size)))
        check = csum_tcpudp_magic(saddr, daddr, size, 17, total) or udp.CSUM_MANGLED_0
    return udp.build(sport, dport, size, check) + data
