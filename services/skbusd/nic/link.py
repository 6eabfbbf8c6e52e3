# SPDX-License-Identifier: MIT
"""An interface's state, as drivers see it: index, MAC, MTU, up or down, and word of changes.

Read by ioctls, with an rtnetlink socket that only says "look again", so that neither a library nor
a capability is needed. Used by `af_packet` and `tun`.
"""

import fcntl
import select
import socket
import struct
from typing import Final

from skbus.bus.gso_size import gso_ipv4_max_size
from skbus.core.skbuff import GSO_LEGACY_MAX_SIZE

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_SIOCGIFHWADDR: Final = 0x8927
_SIOCGIFINDEX: Final = 0x8933
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40
_RTMGRP_LINK: Final = 1
_IFREQ_INT: Final = struct.Struct("16si20x")
_IFREQ_SHORT: Final = struct.Struct("16sh22x")


class RxInterrupt:
    """A descriptor to watch for a device's: readable if that is, while the interrupt is on."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._epoll = select.epoll()
        self._epoll.register(fd, select.EPOLLIN)
        self.fileno = self._epoll.fileno
        self.close = self._epoll.close

    def enable(self, on: bool) -> None:
        """Switch the interrupt on or off (`napi_complete_done`, `napi_schedule`)."""
        self._epoll.modify(self._fd, select.EPOLLIN if on else 0)


class Link:
    """The kernel's view of one interface, which may come, go, and come back under its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ifindex = 0
        self.dev_addr = bytes(6)
        self.mtu = 1500
        self.gso_max_size = GSO_LEGACY_MAX_SIZE
        self.up = False
        self.exists = False
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._events.setblocking(False)
        self._events.bind((0, _RTMGRP_LINK))
        self.refresh()

    def fileno(self) -> int:
        """Readable when some interface of this namespace changed."""
        return self._events.fileno()

    def event(self) -> bool:
        """Was there word of a change since the last call? Takes it."""
        seen = False
        while True:
            try:
                if not self._events.recv(65536):
                    return seen
            except BlockingIOError:
                return seen
            except OSError:  # ENOBUFS: more news than room, so there was news
                seen = True
                continue
            seen = True

    def refresh(self) -> bool:
        """Look; True if anything changed."""
        before = self._state()
        try:
            self.ifindex = self._int(_SIOCGIFINDEX)
            self.mtu = self._int(_SIOCGIFMTU)
            raw = fcntl.ioctl(self._control, _SIOCGIFHWADDR, self.name.encode().ljust(40, b"\0"))
            self.dev_addr = raw[18:24]
            flags = self._flags()
            self.up = flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
            self.exists = True
            self.gso_max_size = gso_ipv4_max_size(self.ifindex)
        except OSError:
            self.up = self.exists = False
        return before != self._state()

    def _state(self) -> tuple[object, ...]:
        return (
            self.ifindex, self.dev_addr, self.mtu, self.gso_max_size, self.up, self.exists
        )  # fmt: skip

    def set_up(self) -> None:
        """`ip link set NAME up`; OSError where that is not allowed."""
        request = _IFREQ_SHORT.pack(self.name.encode(), self._flags() | _IFF_UP)
        fcntl.ioctl(self._control, _SIOCSIFFLAGS, request)

    def close(self) -> None:
        """Close both descriptors."""
        self._control.close()
        self._events.close()

    def _int(self, request: int) -> int:
        raw = fcntl.ioctl(self._control, request, self.name.encode().ljust(40, b"\0"))
        value: int = _IFREQ_INT.unpack(raw)[1]
        return value

    def _flags(self) -> int:
        raw = fcntl.ioctl(self._control, _SIOCGIFFLAGS, self.name.encode().ljust(40, b"\0"))
        value: int = _IFREQ_SHORT.unpack(raw)[1]
        return value & 0xFFFF
