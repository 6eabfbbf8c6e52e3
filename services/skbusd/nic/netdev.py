# SPDX-License-Identifier: MIT
"""nic's state: its device, its configuration, its queues (`struct net_device`).

Types alone, for `dev`, `eth`, `gro`, `gso`, `netem` and the drivers. The packets that GRO holds are
in `gro_flow`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from skbus.core.entry import SkbEntry
from skbus.core.flow_dissector import Flow, frame_flow
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import SkBuff
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer
from skbus.inet.headers import Buffer
from skbus.inet.headers.ethernet import ETH_HLEN
from skbus.inet.impair import Impairment
from skbusd.nic.gro_flow import GroFlow, UdpGroFlow
from skbusd.nic.rx_buffer import RxBuffer

# include/linux/netdev_features.h
NETIF_F_SG: Final = 1 << 0
NETIF_F_HW_CSUM: Final = 1 << 3
NETIF_F_GRO: Final = 1 << 14
NETIF_F_TSO: Final = 1 << 16
NETIF_F_TSO_ECN: Final = 1 << 18
NETIF_F_GSO_UDP_L4: Final = 1 << 33
SOFTWARE_FEATURES: Final = (
    NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_GRO | NETIF_F_TSO | NETIF_F_TSO_ECN | NETIF_F_GSO_UDP_L4
)
"""Features that `dev_queue_xmit` takes for any device: done here where the device cannot."""

COPYBREAK: Final = 256
"""Payload up to so many bytes travels in the skb's head."""
SMALL_SLOT: Final = 2048
"""Payload up to so many bytes is copied, so that the large slots stay free."""
HASHRND: Final = 0x9E3779B9
"""Key of `skb.hash`. Not random by default: flows must stay with their tcp shard when nic is
restarted, and whichever device they come through."""


class Device(Protocol):
    """A driver: frames go through it. The only part of nic that does I/O."""

    name: str
    vnet_hdr: bool
    """Frames carry a `struct virtio_net_hdr`: checksums and segmentation are offloaded."""
    gso_udp: bool
    """With vnet_hdr: SKB_GSO_UDP_L4 is also offloaded."""
    rx_vnet: bytearray
    """With vnet_hdr: the header of the frame that `recv` gave."""
    rx_csum_valid: bool
    """Without vnet_hdr: the checksum of that frame is known to be right."""
    rx_csum_partial: bool
    """Without vnet_hdr: a local sender left the checksum of that frame to hardware."""
    rx_vlan_tci: int
    """The 802.1Q tag of that frame, -1 for none, where it is not in the frame itself."""

    @property
    def ifindex(self) -> int:
        """The interface's number."""
        ...

    @property
    def dev_addr(self) -> bytes:
        """Our MAC unless one is configured."""
        ...

    @property
    def mtu(self) -> int:
        """Bytes of IP packet."""
        ...

    @property
    def up(self) -> bool:
        """Frames can pass."""
        ...

    @property
    def gso_max_size(self) -> int:
        """With vnet_hdr: a super-segment's frame is shorter than this."""
        ...

    def filenos(self) -> list[int]:
        """Descriptors to watch for reading: frames, and changes of the link."""
        ...

    def recv(self, room: memoryview) -> int:
        """Read one frame into `room` and return its length. 0: none is there; -1: one was
        lost, or an error is over; go on."""
        ...

    def send(self, vnet: bytes, iov: list[Buffer]) -> int:
        """Send one frame; returns 0 or an errno. `vnet` is ignored without vnet_hdr."""
        ...

    def irq(self, on: bool) -> bool:
        """Shall the descriptors tell of frames? False: the device cannot switch that off."""
        ...

    def poll_link(self) -> bool:
        """Look whether up, mtu, address or index changed; True if so."""
        ...

    def missed(self) -> int:
        """Frames that the kernel had no room for since this was last asked."""
        ...

    def close(self) -> None: ...


class KernelDevice(Device, Protocol):
    """A driver of an interface that the kernel has."""

    def link_event(self) -> bool:
        """Was there news of links since the last call? Then `poll_link` shall look."""
        ...


@dataclass(frozen=True, slots=True)
class NicConfig:
    """How one nic is set up.

    dev_addr: our MAC, b"" for the interface's. mtu: 0 for the interface's. vlan: take part in this
    802.1Q network only, 0 for untagged frames. impair_rx, impair_tx: impairments of the link beyond
    its own; None for nothing. ip: the process that packets go to.
    """

    dev: str
    dev_addr: bytes = b""
    mtu: int = 0
    vlan: int = 0
    txqueuelen: int = 1000
    impair_rx: Impairment | None = None
    impair_tx: Impairment | None = None
    ip: str = "ip"
    hashrnd: int = HASHRND


@dataclass(slots=True)
class NicState:
    """Values that may change while nic runs."""

    registered: tuple[object, ...] = ()
    """The device's state as ip was last told."""
    rx_poll_at: int = -1
    """When the kernel was last asked for missed frames, ns."""


@dataclass(slots=True)
class SynBacklog:
    """SYNs on their way up (`synlimit`), counted since nic's start."""

    sent: int = 0
    marked: int = 0
    """How many of them have a mark behind them."""
    done: int = 0
    """How many of them had a mark behind them that came back."""
    moved: int = 0
    """When a mark came back last, or the first SYN went up, ns."""
    limit: int = 2048
    """How many may be under way: as many as the layers handle in `synlimit.TARGET`."""
    shrunk: int = 0
    """Marks up to this one are from before the limit shrank, and do not shrink it again."""
    refused: dict[bytes, int] = field(default_factory=dict)
    refused_before: dict[bytes, int] = field(default_factory=dict)
    """Addresses and ports of SYNs that were refused, and when: two generations."""
    marks: deque[tuple[int, int]] = field(default_factory=deque)
    """(mark, when it was sent) of those that have not come back."""


class Netem:
    """`struct netem_sched_data`: one direction of the impaired link, and the frames that are on it.
    `netem` has its functions.

    deliver: takes each frame at its time, with whether it is undamaged.
    """

    __slots__ = ("deliver", "heap", "impairment", "order", "timer")

    def __init__(
        self,
        impairment: Impairment,
        deliver: Callable[["NicNet", SkBuff, bool], None],
        dequeue: Callable[["NicNet", "Netem"], None],
    ) -> None:
        self.impairment = impairment
        self.deliver = deliver
        self.timer: Timer[NicNet] = Timer(dequeue, self)
        self.heap: list[tuple[int, int, SkBuff, bool]] = []
        """(when, order, frame, undamaged)"""
        self.order = 0
        """How many frames have had to wait; of two that are due at once, the earlier goes first."""

    def spares(self, segments: int) -> bool:
        """Does a super-segment of so many pass whole, as if there were no link? Where only a little
        loss is asked for, most do, and need not be cut."""
        return not self.heap and self.impairment.spares(segments)


class NicNet(Net):
    """`struct net`, with nic's fields."""

    def __init__(
        self,
        name: str = "nic.eth0",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator,
        device: Device,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
        config: NicConfig | None = None,
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.region: Allocator = alloc
        self.device = device
        self.config = config or NicConfig(device.name)
        self.ip = self.config.ip
        self.dev_addr = self.config.dev_addr or device.dev_addr
        self.mtu = self.config.mtu or device.mtu
        self.tso = True
        """Whether super-segments may go to a device that cuts them (`ethtool -K DEV tso`)."""
        self.state = NicState()
        self.syn_backlog = SynBacklog()
        self.txq: deque[SkBuff] = deque()
        """`struct Qdisc`: packets that wait for the device."""
        self.tx_timer: Timer[NicNet] | None = None
        self.missed_timer: Timer[NicNet] | None = None
        self.rx_buffer = RxBuffer(alloc)
        self.gro_hash: dict[bytes, GroFlow] = {}
        self.udp_gro: dict[bytes, UdpGroFlow] = {}
        """Addresses and ports -> the flow that GRO holds."""
        self.ptype_base: dict[int, tuple[str, SkbEntry[None]]] = {}
        """Ethernet type -> (process, entry)."""
        self.netem_rx: Netem | None = None
        self.netem_tx: Netem | None = None

    def skb_flow(self, skb: SkBuff, head: bytes) -> Flow | None:
        """As `Net.skb_flow`: here, every skb is a whole frame, with `data` at its beginning."""
        return frame_flow(head, skb.data)

    def skb_network_header(self, skb: SkBuff) -> int:
        """As `Net.skb_network_header`."""
        return skb.data + ETH_HLEN


__all__ = [
    "COPYBREAK",
    "SMALL_SLOT",
    "SOFTWARE_FEATURES",
    "Device",
    "KernelDevice",
    "NicConfig",
    "NicNet",
    "NicState",
]
