# SPDX-License-Identifier: MIT
"""The driver for a TAP interface (`drivers/net/tun.c`): the kernel's stack is our peer on it.

`NicCore` calls `recv` and `send` through `netdev.Device`. Frames carry the same
`virtio_net_hdr` as those of `af_packet`. The interface's MAC and address are the kernel's, so
our own must differ. TUNSETOFFLOAD tells the kernel that it may hand us super-segments and leave
checksums to us.
"""

import errno
import fcntl
import os
import struct
from typing import Final

from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE
from skbus.inet.headers import Buffer
from skbusd.nic.eth import VIRTIO_NET_HDR_LEN
from skbusd.nic.link import Link, RxInterrupt

_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO_ECN: Final = 0x08


def open_tap(name: str) -> int:
    """A descriptor of TAP interface `name`, which is made if it is not there. OSError where
    /dev/net/tun cannot be used or CAP_NET_ADMIN is missing."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VIRTIO_NET_HDR_LEN))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO_ECN)
    except BaseException:
        os.close(fd)
        raise
    return fd


class TapDevice:
    """`netdev.Device` on a TAP. fd: from `open_tap`, e.g. in a supervisor."""

    def __init__(self, name: str, *, fd: int | None = None) -> None:
        self.name = name
        self._fd = open_tap(name) if fd is None else fd
        os.set_blocking(self._fd, False)
        self._irq = RxInterrupt(self._fd)
        self.link = Link(name)
        self.vnet_hdr = True
        self.gso_udp = False
        self.gso_max_size = GSO_LEGACY_MAX_SIZE
        self.rx_vnet = bytearray(VIRTIO_NET_HDR_LEN)
        self.rx_csum_valid = False
        self.rx_csum_partial = False
        self.rx_vlan_tci = -1

    @property
    def ifindex(self) -> int:
        """The interface's number."""
        return self.link.ifindex

    @property
    def dev_addr(self) -> bytes:
        """A MAC for our end: the interface's, which is the kernel's end, with one bit changed."""
        theirs = self.link.dev_addr
        return bytes([theirs[0] | 0x02]) + theirs[1:5] + bytes([theirs[5] ^ 0x01])

    @property
    def mtu(self) -> int:
        """Bytes of IP packet."""
        return self.link.mtu

    @property
    def up(self) -> bool:
        """Up and running."""
        return self.link.up

    def filenos(self) -> list[int]:
        """The TAP and the news of links."""
        return [self._irq.fileno(), self.link.fileno()]

    def irq(self, on: bool) -> bool:
        """As `netdev.Device.irq`."""
        self._irq.enable(on)
        return True

    def link_event(self) -> bool:
        """Was there news of links?"""
        return self.link.event()

    def poll_link(self) -> bool:
        """As `netdev.Device.poll_link`."""
        return self.link.refresh()

    def recv(self, room: memoryview) -> int:
        """As `netdev.Device.recv`."""
        try:
            return os.readv(self._fd, (self.rx_vnet, room)) - VIRTIO_NET_HDR_LEN
        except BlockingIOError:
            return 0
        except OSError as e:
            if e.errno in (errno.EIO, errno.EINVAL, errno.EINTR, errno.ENETDOWN):
                return -1 if e.errno != errno.EIO else 0
            raise

    def send(self, vnet: bytes, iov: list[Buffer]) -> int:
        """As `netdev.Device.send`."""
        try:
            os.writev(self._fd, [vnet, *iov])
        except OSError as e:
            return e.errno or errno.EIO
        return 0

    def missed(self) -> int:
        """None: a TAP counts frames that its queue had no room for as its own tx_dropped."""
        return 0

    def close(self) -> None:
        """Close the TAP and the news of links."""
        self._irq.close()
        os.close(self._fd)
        self.link.close()
