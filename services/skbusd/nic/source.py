# SPDX-License-Identifier: MIT
"""nic's place in the generic shell: a `skbus.bus.service.Source` made of a core and its device."""

from skbusd.nic.core import NicCore
from skbusd.nic.netdev import KernelDevice


class NicSource:
    """Wakes the core when frames are there, and sends the packets that it queued."""

    def __init__(self, core: NicCore, device: KernelDevice) -> None:
        self.core = core
        self.device = device
        self._passes = 0

    def filenos(self) -> list[int]:
        """The packet socket or TAP, and the descriptor that tells of link changes."""
        return self.device.filenos()

    def drain(self, budget: int) -> int:
        """Take frames from the device."""
        core = self.core
        n = core.poll_rx(budget)
        self._passes += 1
        # looking costs a system call: do it when it was not frames that woke us, or now and then
        if (not n or not self._passes % 32) and self.device.link_event():
            core.link_changed()
        return n

    def flush(self) -> None:
        """Send the queued packets."""
        self.core.flush_tx()

    def pending(self) -> bool:
        """The device's descriptors tell of everything."""
        return False

    def close(self) -> None:
        """Close the device."""
        self.device.close()
