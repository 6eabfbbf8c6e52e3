# SPDX-License-Identifier: MIT
"""nic's place in the generic shell: a `skbus.service.Source` made of a core and its device."""

from skbusd.nic.core import NicCore
from skbusd.nic.netdev import KernelDevice


class NicSource:
    """Wakes the core when frames are there, and sends what it left."""

    def __init__(self, core: NicCore, device: KernelDevice) -> None:
        self.core = core
        self.device = device

    def filenos(self) -> list[int]:
        """The packet socket or TAP, and the descriptor that tells of link changes."""
        return self.device.filenos()

    def drain(self, budget: int) -> int:
        """Take frames from the device."""
        core = self.core
        n = core.poll_rx(budget)
        if self.device.link_event():
            core.link_changed()
        return n

    def flush(self) -> None:
        """Send what is queued."""
        self.core.flush_tx()

    def close(self) -> None:
        """Close the device."""
        self.device.close()
