# SPDX-License-Identifier: MIT
"""A nic in memory, and frames as a peer would send them."""

from random import Random
from typing import Any

from skbus.core.abi import BacklogMark
from skbus.core.checksum import csum_fold, csum_from32to16, csum_partial, csum_tcpudp_nofold
from skbus.core.entry import AnyEntry
from skbus.core.interfaces import Netif, SynBacklog
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import (
    CHECKSUM_PARTIAL,
    GSO_LEGACY_MAX_SIZE,
    SKB_GSO_TCPV4,
    SKB_GSO_UDP_L4,
    SkBuff,
)
from skbus.inet.headers import ethernet, ipv4, tcp, udp
from skbusd.nic.core import NicCore
from skbusd.nic.eth import VIRTIO_NET_HDR
from skbusd.nic.memory import MemoryDevice
from skbusd.nic.netdev import NicConfig, NicNet
from skbustest.harness import Harness

OUR_MAC, PEER_MAC = b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x01"
OUR_IP, PEER_IP = b"\x0a\x4d\0\x02", b"\x0a\x4d\0\x01"
REGION = 7
CLASSES = ((2048, 64), (16384, 4), (66560, 8))


class NicRig(Harness):
    """One NicCore on a MemoryDevice."""

    net: NicNet
    core: NicCore

    def __init__(
        self, *, vnet_hdr: bool = True, classes: Any = CLASSES, now: int = 1000, **config: Any
    ) -> None:
        size = 65536 + sum(s * n for s, n in classes)
        alloc = Allocator.format(REGION, bytearray(size), classes)
        pool = Pool()
        pool.regions[REGION] = alloc
        self.alloc = alloc
        self.device = MemoryDevice(dev_addr=OUR_MAC, vnet_hdr=vnet_hdr)
        net = NicNet(
            "nic.eth0",
            rand=Random(1),
            pool=pool,
            alloc=alloc,
            device=self.device,
            config=NicConfig("eth0", **config),
        )
        super().__init__(NicCore(net), now)
        self.net.outbox.clear()
        self.net.log_events.clear()

    def receive(self, *frames: bytes, vnet: bytes = bytes(10)) -> list[SkBuff]:
        """Frames arrive in one batch. Returns the skbs that go up to ip."""
        self.device.deliver(frames, vnet)
        while self.core.poll_rx(64):
            pass
        return self.up()

    def up(self) -> list[SkBuff]:
        """The skbs that went up to ip since the last look. Marks come back, as if ip and tcp had
        taken all skbs."""
        batch = self.out("ip")
        for _, item in batch:
            if isinstance(item, BacklogMark):
                self.enter(SynBacklog.backlog_mark_ret, item)
        return [item for _, item in batch if isinstance(item, SkBuff)]

    def entries(self) -> list[AnyEntry]:
        """The entries of ip that were called since the last look."""
        return [entry for entry, _ in self.out("ip")]

    def xmit(self, *skbs: SkBuff) -> list[bytes]:
        """ip hands skbs down. Returns the frames that go out at the device."""
        for skb in skbs:
            self.enter(Netif.dev_queue_xmit, skb)
        self.core.flush_tx()
        return self.sent()

    def sent(self) -> list[bytes]:
        """The frames that went out since the last look."""
        sent, self.device.sent[:] = list(self.device.sent), []
        return sent

    def drops(self) -> dict[str, int]:
        """Drop reasons without their prefix."""
        return {k.removeprefix("SKB_DROP_REASON_"): v for k, v in self.net.drops.items()}

    def place(self, data: bytes) -> tuple[int, int, int, int, int]:
        """Bytes put into the pool."""
        place = self.alloc.put(data)
        assert place is not None
        return place


def data(n: int, start: int = 0) -> bytes:
    """n bytes whose values depend on their positions."""
    return bytes([(start + i * 7 + (i >> 8)) & 0xFF for i in range(n)])


def eth_ip(
    payload: bytes,
    protocol: int = 6,
    *,
    dest: bytes = OUR_MAC,
    id: int = 1,
    frag_off: int = ipv4.IP_DF,
    tos: int = 0,
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    """A frame from the peer around an IP payload."""
    tot_len = 20 + len(options) + len(payload)
    return (
        ethernet.build(dest, PEER_MAC, 0x0800)
        + ipv4.build(
            PEER_IP,
            OUR_IP,
            protocol,
            tot_len,
            id=id,
            frag_off=frag_off,
            tos=tos,
            ttl=ttl,
            options=options,
        )
        + payload
    )


def segment(
    payload: bytes = b"",
    *,
    seq: int = 1000,
    ack: int = 1,
    flags: int = 0x10,
    window: int = 500,
    options: bytes = b"\x01\x01\x08\x0a\0\0\0\1\0\0\0\2",
    sport: int = 5000,
    check: int | None = None,
    **ip: Any,
) -> bytes:
    """A TCP segment from the peer with its right checksum."""
    bare = tcp.build(sport, 80, seq, ack, flags, window, options) + payload
    if check is None:
        check = csum_fold(csum_tcpudp_nofold(PEER_IP, OUR_IP, len(bare), 6, csum_partial(bare)))
    return eth_ip(bare[:16] + check.to_bytes(2, "big") + bare[18:], **ip)


def datagram(payload: bytes, **ip: Any) -> bytes:
    """A UDP datagram from the peer with its right checksum."""
    bare = udp.build(5000, 53, 8 + len(payload)) + payload
    check = csum_fold(csum_tcpudp_nofold(PEER_IP, OUR_IP, len(bare), 17, csum_partial(bare)))
    return eth_ip(bare[:6] + (check or 0xFFFF).to_bytes(2, "big") + bare[8:], 17, **ip)


def out_segment(
    rig: NicRig,
    payload: bytes,
    *,
    mss: int = 0,
    flags: int = 0x18,
    seq: int = 0xFFFFF000,
    lent: bool = False,
    options: bytes = b"\x01\x01\x08\x0a\0\0\0\1\0\0\0\2",
    pieces: int = 1,
) -> SkBuff:
    """A TCP skb as ip hands it down: checksum left to hardware, payload in the pool."""
    length = 20 + len(options) + len(payload)
    seed = csum_from32to16(csum_tcpudp_nofold(OUR_IP, PEER_IP, length, 6))
    tot_len = 20 + length if 20 + length < GSO_LEGACY_MAX_SIZE else 0
    head = (
        ethernet.build(PEER_MAC, OUR_MAC, 0x0800)
        + ipv4.build(OUR_IP, PEER_IP, 6, tot_len, id=9, frag_off=ipv4.IP_DF)
        + tcp.build(80, 5000, seq, 1, flags, 500, options, check=seed)
    )
    step = -(-len(payload) // pieces) or 1
    frags = tuple([rig.place(payload[i : i + step]) for i in range(0, len(payload), step)])
    skb = SkBuff(head, frags, id=77, lent=lent)
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start, skb.csum_offset = 34, 16
    if mss:
        skb.gso_size, skb.gso_type = mss, SKB_GSO_TCPV4
        skb.gso_segs = -(-len(payload) // mss)
    return skb


def out_datagram(rig: NicRig, payload: bytes, *, mss: int = 0) -> SkBuff:
    """A UDP skb as ip hands it down."""
    length = 8 + len(payload)
    seed = csum_from32to16(csum_tcpudp_nofold(OUR_IP, PEER_IP, length, 17))
    head = (
        ethernet.build(PEER_MAC, OUR_MAC, 0x0800)
        + ipv4.build(OUR_IP, PEER_IP, 17, 20 + length, id=9)
        + udp.build(53, 5000, length, seed)
    )
    skb = SkBuff(head, (rig.place(payload),), id=78)
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_start, skb.csum_offset = 34, 6
    if mss:
        skb.gso_size, skb.gso_type = mss, SKB_GSO_UDP_L4
        skb.gso_segs = -(-len(payload) // mss)
    return skb


def checksums_right(frame: bytes) -> bool:
    """Are the IP and the transport checksum of a frame right, and its length?"""
    hdr = ipv4.parse(frame, 14)
    if not ipv4.ip_fast_csum_ok(frame, 14, hdr.ihl) or hdr.tot_len != len(frame) - 14:
        return False
    l4 = frame[14 + hdr.ihl :]
    total = csum_tcpudp_nofold(hdr.saddr, hdr.daddr, len(l4), hdr.protocol, csum_partial(l4))
    return csum_fold(total) == 0


def vnet(
    *, flags: int = 0, gso_type: int = 0, gso_size: int = 0, start: int = 34, offset: int = 16
) -> bytes:
    """A struct virtio_net_hdr."""
    hdr_len = 66 if gso_type else 0
    return VIRTIO_NET_HDR.pack(
        flags, gso_type, hdr_len, gso_size, start if flags & 1 else 0, offset if flags & 1 else 0
    )
