# SPDX-License-Identifier: MIT
"""A device without an interface: frames come from a list and go to a function. For simulations
and tests; behind it are the same queues, GRO and GSO as behind a real driver.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterable

from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE
from skbus.inet.headers import Buffer
from skbusd.nic.eth import NO_VNET, VIRTIO_NET_HDR_LEN


class MemoryDevice:
    """`netdev.Device` in memory.

    transmit: takes each frame that is sent. vnet_hdr False: frames are as on a wire, at most `mtu`
    long and with checksums. True: super-segments pass whole, and `transmit` gets the
    `struct virtio_net_hdr` in front of each frame.
    """

    def __init__(
        self,
        name: str = "eth0",
        dev_addr: bytes = b"\x02\0\0\0\0\x02",
        *,
        mtu: int = 1500,
        ifindex: int = 2,
        vnet_hdr: bool = False,
        transmit: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self.ifindex = ifindex
        self.dev_addr = dev_addr
        self.mtu = mtu
        self.up = True
        self.vnet_hdr = vnet_hdr
        self.gso_udp = vnet_hdr
        self.gso_max_size = GSO_LEGACY_MAX_SIZE
        self.rx_vnet = bytearray(VIRTIO_NET_HDR_LEN)
        self.rx_csum_valid = False
        self.rx_csum_partial = False
        self.rx_vlan_tci = -1
        self.sent: list[bytes] = []
        """The frames that were sent, where there is no `transmit`."""
        self.transmit = transmit or self.sent.append
        self.room = -1
        """Frames that the device still takes before it is full; -1 for any number."""
        self.lost = 0
        self.changed = False
        self._waiting: deque[tuple[bytes, bytes]] = deque()

    def deliver(self, frames: Iterable[bytes], vnet: bytes = NO_VNET) -> None:
        """Frames arrive at the device; `NicCore.poll_rx` takes them."""
        self._waiting.extend((vnet, frame) for frame in frames)

    def filenos(self) -> list[int]:
        """None: the deliverer of frames calls `poll_rx`."""
        return []

    def irq(self, on: bool) -> bool:
        """As `netdev.Device.irq`: the deliverer of frames calls."""
        return False

    def recv(self, room: memoryview) -> int:
        """As `netdev.Device.recv`."""
        if not self._waiting:
            return 0
        vnet, frame = self._waiting.popleft()
        if len(frame) > len(room) or not frame:
            return -1
        self.rx_vnet[:] = vnet
        room[: len(frame)] = frame
        return len(frame)

    def send(self, vnet: bytes, iov: list[Buffer]) -> int:
        """As `netdev.Device.send`; EMSGSIZE as the kernel has it."""
        if not self.room:
            return errno.EAGAIN
        if not self.up:
            return errno.ENETDOWN
        frame = b"".join(iov)
        if len(frame) > self.mtu + 18 and not (self.vnet_hdr and vnet[1]):
            return errno.EMSGSIZE
        if self.room > 0:
            self.room -= 1
        self.transmit(vnet + frame if self.vnet_hdr else frame)
        return 0

    def poll_link(self) -> bool:
        """Whether `set_link` has been called since."""
        changed, self.changed = self.changed, False
        return changed

    def set_link(self, *, up: bool | None = None, mtu: int | None = None) -> None:
        """Change the link; `NicCore.link_changed` notices."""
        self.up = self.up if up is None else up
        self.mtu = self.mtu if mtu is None else mtu
        self.changed = True

    def missed(self) -> int:
        """The count that was put into `lost`."""
        lost, self.lost = self.lost, 0
        return lost

    def close(self) -> None:
        """Nothing is open."""
