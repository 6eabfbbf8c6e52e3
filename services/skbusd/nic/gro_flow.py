# SPDX-License-Identifier: MIT
"""The flows that GRO holds during a batch (`struct napi_gro_cb`): types, for `tcp_gro`, `udp_gro`,
`rx_buffer` and `netdev`.
"""

import struct
from typing import Final

from skbus.core.skbuff import MAX_SKB_FRAGS, Frag, SkBuff
from skbusd.nic.frame import UDP_DATA

UDP_HEADERS: Final = struct.Struct("!18sH4sH12sHH")
"""Fields of a plain UDP frame: Ethernet header, TOS and length; identification; fragment field, TTL
and protocol; checksum; addresses and ports; UDP's length and checksum."""
UDP_PAYLOAD_MAX: Final = 65535 - 28
"""Bytes that fit one IPv4 packet without options."""


class GroFlow:
    """A held TCP skb, and the form that the next segment must have."""

    __slots__ = (
        "constant", "count", "flags", "frags", "hlen", "id", "mss", "next_seq", "payload", "room",
        "same", "skb", "vnet",
    )  # fmt: skip

    def __init__(
        self, skb: SkBuff, hlen: int, constant: tuple[object, ...], mss: int, seq: int, id_: int
    ) -> None:
        self.skb = skb
        self.hlen = hlen
        """Bytes of headers, from the Ethernet header on."""
        self.constant = constant
        """The header fields that must be equal in all segments."""
        self.mss = mss
        self.payload = len(skb.head) - hlen + skb.data_len
        self.next_seq = (seq + self.payload) & 0xFFFFFFFF
        self.id = id_
        """The IP identification of the last segment, -1 where it does not matter (DF)."""
        self.room = MAX_SKB_FRAGS - len(skb.frags) - (len(skb.head) > hlen)
        """How many frags may be added."""
        self.flags = 0
        """FIN and PSH of those that were joined."""
        self.frags: list[Frag] = []
        self.count = skb.gso_segs or 1
        self.same = -1
        """The header bits that all super-segments share; -1 before a next one was looked for."""
        self.vnet = b""
        """The `virtio_net_hdr` that they share."""


class UdpGroFlow:
    """A held datagram, and those that go with it."""

    __slots__ = (
        "dgram", "end", "eth_len", "id", "more", "payload", "room", "skb", "step", "sum", "tci",
        "ttl", "ulen",
    )  # fmt: skip

    def __init__(self, skb: SkBuff) -> None:
        self.skb = skb
        self.tci = skb.vlan_tci
        self.eth_len, self.id, self.ttl, check, _, self.ulen, _ = UDP_HEADERS.unpack_from(skb.head)
        self.sum = self.id + check
        """Modulo 0xFFFF the sum is the same for all, as is the rest of the IP header."""
        self.step = -1
        """The step of the identification from one to the next; -1: not known yet."""
        self.dgram = self.ulen - 8
        """Bytes in each, but the last."""
        self.end = UDP_DATA + self.dgram
        self.payload = self.dgram
        self.room = UDP_PAYLOAD_MAX - self.dgram
        """Up to so much payload, one more fits; -1 after a shorter one, which is the last."""
        self.more: list[bytes] = []
