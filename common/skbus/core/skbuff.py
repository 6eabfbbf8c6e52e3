# SPDX-License-Identifier: MIT
"""sk_buff: one packet on its way through the processes (`include/linux/skbuff.h`).

    head   [ mac | network | transport header | small payload ]    bytes, travel in the message
                 ^data: where the current layer's part begins
    frags  ( place, place, b"...", ... )                           the payload behind head

A *place* names bytes in the shared-memory pool: `(region, slot, gen, offset, length)`
(see `skbus.core.pool`). A frag is a place, or the bytes themselves where no pool is shared.
`head` is immutable: a header is pulled by moving `data`, and pushed by building a new head.

An skb owns the pool slots of its frags, unless `lent` is set: the end of the skb gives them back
(`Net.consume_skb`, `Net.kfree_skb`). The frags of a lent skb stay with their owner: TCP's sent
bytes stay with the socket layer until they are acknowledged. A lent skb is just forgotten at the
end. A place that went away meanwhile is noticed by its generation.
"""

from typing import Final

Place = tuple[int, int, int, int, int]
"""(region, slot, gen, offset, length): `length` bytes in the pool."""
Frag = Place | bytes

ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_8021Q: Final = 0x8100
ETH_P_IPV6: Final = 0x86DD

# pkt_type (include/uapi/linux/if_packet.h)
PACKET_HOST: Final = 0
PACKET_BROADCAST: Final = 1
PACKET_MULTICAST: Final = 2
PACKET_OTHERHOST: Final = 3
PACKET_OUTGOING: Final = 4
PACKET_LOOPBACK: Final = 5

# ip_summed (include/linux/skbuff.h)
CHECKSUM_NONE: Final = 0
CHECKSUM_UNNECESSARY: Final = 1
CHECKSUM_COMPLETE: Final = 2
CHECKSUM_PARTIAL: Final = 3

# gso_type (include/linux/skbuff.h)
SKB_GSO_TCPV4: Final = 1 << 0
SKB_GSO_DODGY: Final = 1 << 1
SKB_GSO_TCP_ECN: Final = 1 << 2
SKB_GSO_TCP_FIXEDID: Final = 1 << 3
"""All segments have the same identification. Here the flag is also for datagrams."""
SKB_GSO_UDP_L4: Final = 1 << 17
SKB_GSO_BATCH: Final = 1 << 28
"""With SKB_GSO_UDP_L4: datagrams that were put together by us, or on their way to us. Nobody must
notice: each one is counted, and code that cannot treat them as one takes them apart. Linux has no
such flag; the `skb->fraglist` of its UDP GRO is the nearest to it."""

MAX_SKB_FRAGS: Final = 17
GSO_LEGACY_MAX_SIZE: Final = 65536
"""The longest packet that a driver takes; IPv4's total length can tell no more."""
GSO_MAX_SIZE: Final = 16 * GSO_LEGACY_MAX_SIZE
"""The longest super-segment that tcp makes (BIG TCP, `gso_ipv4_max_size`)."""
GRO_MAX_SIZE: Final = 8 * GSO_LEGACY_MAX_SIZE
"""The longest super-segment that nic makes of received frames (`gro_ipv4_max_size`). Two of them
fit into a reader's buffer of a megabyte, and are lent to the reader without a copy."""


def frag_len(frag: Frag) -> int:
    """The number of bytes that a frag stands for."""
    return len(frag) if isinstance(frag, bytes) else frag[4]


def frag_slice(frag: Frag, offset: int, length: int) -> Frag:
    """Bytes `offset .. offset+length` of a frag, as a frag (no copy of pool bytes)."""
    if isinstance(frag, bytes):
        return frag[offset : offset + length]
    return (frag[0], frag[1], frag[2], frag[3] + offset, length)


def frags_slice(frags: tuple[Frag, ...], offset: int, length: int) -> tuple[Frag, ...]:
    """Bytes `offset .. offset+length` of a run of frags."""
    out: list[Frag] = []
    for frag in frags:
        size = len(frag) if isinstance(frag, bytes) else frag[4]
        if offset >= size:
            offset -= size
            continue
        take = min(size - offset, length)
        if take <= 0:
            break
        out.append(frag if take == size else frag_slice(frag, offset, take))
        length -= take
        offset = 0
    return tuple(out)


def frags_joined(first: tuple[Frag, ...], second: tuple[Frag, ...]) -> tuple[Frag, ...]:
    """Two runs of frags as one. Where the second goes on in the pool's slot in which the first
    ends, the two frags become one."""
    if first and second:
        one, other = first[-1], second[0]
        if (
            isinstance(one, tuple)
            and isinstance(other, tuple)
            and one[:3] == other[:3]
            and one[3] + one[4] == other[3]
        ):
            joined = (one[0], one[1], one[2], one[3], one[4] + other[4])
            return (*first[:-1], joined, *second[1:])
    return first + second


class SkBuff:
    """One packet; the fields are those of Linux's struct sk_buff.

    Offsets (`data`, `mac_header`, `network_header`, `transport_header`, `csum_start`) count
    bytes from the beginning of `head`; -1 means not set. `tstamp` is in ns of the stack's clock.
    `cb` belongs to the layer that holds the skb. At a crossing it carries the callee's arguments,
    which `skbus.core.abi` lists for each entry.
    """

    __slots__ = (
        "cb",
        "csum",
        "csum_offset",
        "csum_start",
        "data",
        "data_len",
        "dev",
        "frags",
        "gso_segs",
        "gso_size",
        "gso_type",
        "hash",
        "head",
        "id",
        "ip_summed",
        "lent",
        "mac_header",
        "mark",
        "network_header",
        "pkt_type",
        "priority",
        "protocol",
        "skb_iif",
        "transport_header",
        "tstamp",
        "vlan_tci",
    )

    def __init__(
        self,
        head: bytes = b"",
        frags: tuple[Frag, ...] = (),
        id: int = 0,
        data: int = 0,
        data_len: int = -1,
        protocol: int = 0,
        dev: int = 0,
        cb: tuple[object, ...] = (),
        lent: bool = False,
    ) -> None:
        """data_len: bytes of the frags; -1: to be counted."""
        self.id = id
        self.head = head
        self.frags = frags
        self.data = data
        if data_len < 0:
            data_len = 0
            for frag in frags:
                data_len += len(frag) if isinstance(frag, bytes) else frag[4]
        self.data_len = data_len
        self.protocol = protocol
        self.dev = dev
        self.skb_iif = 0
        self.pkt_type = PACKET_HOST
        self.mac_header = -1
        self.network_header = -1
        self.transport_header = -1
        self.ip_summed = CHECKSUM_NONE
        self.csum = 0
        self.csum_start = -1
        self.csum_offset = 0
        self.gso_size = 0
        self.gso_segs = 0
        self.gso_type = 0
        self.hash = 0
        self.mark = 0
        self.priority = 0
        self.vlan_tci = -1
        self.tstamp = 0
        self.lent = lent
        self.cb: tuple[object, ...] = cb

    @property
    def len(self) -> int:
        """Bytes from `data` to the end, head and frags together."""
        return len(self.head) - self.data + self.data_len

    def headlen(self) -> int:
        """Bytes of the linear part from `data` on (Linux's `skb_headlen`)."""
        return len(self.head) - self.data

    def pull(self, n: int) -> None:
        """`skb_pull`: n bytes of header are done with. ValueError if head has fewer."""
        if self.data + n > len(self.head):
            raise ValueError(f"skb_pull of {n} bytes, head has {len(self.head) - self.data}")
        self.data += n

    def push(self, header: bytes) -> None:
        """`skb_push`: put a header in front of `data`; the bytes that were there are dropped.

        The offsets move with the bytes that they point at.
        """
        shift = len(header) - self.data
        self.head = header + self.head[self.data :]
        self.data = 0
        if shift:
            if self.mac_header >= 0:
                self.mac_header += shift
            if self.network_header >= 0:
                self.network_header += shift
            if self.transport_header >= 0:
                self.transport_header += shift
            if self.csum_start >= 0:
                self.csum_start += shift

    def trim(self, length: int) -> None:
        """`pskb_trim`: cut the packet to `length` bytes from `data`, where it is longer.

        A frag that is cut off whole stays, with length 0: its pool slot is still this skb's, and
        is given back with the others.
        """
        excess = self.len - length
        if excess <= 0:
            return
        frags = list(self.frags)
        for i in range(len(frags) - 1, -1, -1):
            if not excess:
                break
            size = frag_len(frags[i])
            cut = min(size, excess)
            frags[i] = frag_slice(frags[i], 0, size - cut)
            excess -= cut
            self.data_len -= cut
        self.frags = tuple(frags)
        if excess:
            self.head = self.head[: len(self.head) - excess]

    def eat(self, n: int) -> None:
        """Drop n bytes at `data`, from head first and then from the frags (`__pskb_pull`)."""
        from_head = min(n, len(self.head) - self.data)
        self.data += from_head
        n -= from_head
        if n:
            self.eat_frags(n)

    def eat_frags(self, n: int) -> None:
        """Drop the first n bytes of the frags. A frag that is dropped whole stays, with length 0,
        so that its slot is given back with the others."""
        frags = list(self.frags)
        for i, frag in enumerate(frags):
            cut = min(frag_len(frag), n)
            frags[i] = frag_slice(frag, cut, frag_len(frag) - cut)
            n -= cut
            self.data_len -= cut
            if not n:
                break
        self.frags = tuple(frags)

    def clone(self) -> "SkBuff":
        """`skb_clone`: the same packet once more, same id. The clone is lent: it owns no slot."""
        new = SkBuff(data_len=0) if COMPILED else SkBuff.__new__(SkBuff)
        new.cb = self.cb
        new.csum = self.csum
        new.csum_offset = self.csum_offset
        new.csum_start = self.csum_start
        new.data = self.data
        new.data_len = self.data_len
        new.dev = self.dev
        new.frags = self.frags
        new.gso_segs = self.gso_segs
        new.gso_size = self.gso_size
        new.gso_type = self.gso_type
        new.hash = self.hash
        new.head = self.head
        new.id = self.id
        new.ip_summed = self.ip_summed
        new.mac_header = self.mac_header
        new.mark = self.mark
        new.network_header = self.network_header
        new.pkt_type = self.pkt_type
        new.priority = self.priority
        new.protocol = self.protocol
        new.skb_iif = self.skb_iif
        new.transport_header = self.transport_header
        new.tstamp = self.tstamp
        new.vlan_tci = self.vlan_tci
        new.lent = True
        return new

    def __repr__(self) -> str:
        return (
            f"<SkBuff {self.id:x} len={self.len} protocol={self.protocol:#06x}"
            f" headlen={self.headlen()} frags={len(self.frags)} gso_size={self.gso_size}>"
        )


COMPILED: Final = not hasattr(SkBuff, "__slots__")
"""Then `SkBuff()` is the quickest way to an skb whose fields the caller sets; else it is `__new__`,
which compiled code cannot call without `__init__`."""
