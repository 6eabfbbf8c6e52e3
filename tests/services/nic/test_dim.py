# SPDX-License-Identifier: MIT
"""Interrupt moderation: a device that pours is left alone for a while, any other is not."""

import pytest

from skbus.core.skbuff import GRO_MAX_SIZE
from skbustest.nicrig import NicRig, data, segment, vnet

MSS = 1448
SUPER = vnet(flags=1, gso_type=1, gso_size=MSS)
BYTES = 44 * MSS
US = 1000


class Moderated(NicRig):
    """A rig whose device can be told not to tell of frames."""

    def __init__(self, *, able: bool = True) -> None:
        super().__init__(classes=((2048, 64), (16384, 4), (66560, 64)))
        self.irqs: list[bool] = []
        self.device.irq = self._irq  # type: ignore[method-assign]
        self.able = able
        self.seq = 1000
        self.ident = 0

    def _irq(self, on: bool) -> bool:
        self.irqs.append(on)
        return self.able

    @property
    def usecs(self) -> object:
        return self.core.status()["rx_usecs"]

    def come(self, frames: int) -> None:
        """Super-segments of one flow come to the device."""
        for _ in range(frames):
            self.device.deliver([segment(data(BYTES), seq=self.seq, id=self.ident)], SUPER)
            self.seq += BYTES
            self.ident += 1

    def pass_after(self, us: int, *, woken: bool) -> list[int]:
        """The next pass: `woken` by the device, or by the timer alone. Payload that goes up."""
        net = self.net
        net.now += us * US
        if woken:
            self.core.poll_rx(64)
        expires = net.timers.next_expiry()
        if expires is not None and expires <= net.now:
            net.timers.run(net, net.now)
        self.core.idle()
        skbs = self.up()
        sizes = [skb.data_len for skb in skbs]
        for skb in skbs:
            net.pool.free_frags(skb.frags)
        return sizes


def pouring(rig: Moderated) -> None:
    """Super-segments at 8 Gbit/s, until the device is left alone."""
    for _ in range(20):
        rig.come(1)
        rig.pass_after(64, woken=True)
        if rig.usecs:
            return
    pytest.fail("20 super-segments in a row are no bulk")


def test_bulk_is_taken_by_a_timer_and_goes_up_as_one() -> None:
    rig = Moderated()
    pouring(rig)
    assert rig.irqs == [False]
    for _ in range(5):
        rig.come(7)
        assert rig.pass_after(1000, woken=False) == [7 * BYTES]
    assert rig.irqs == [False]
    assert rig.conserved()


def test_the_time_is_that_in_which_one_skb_full_comes() -> None:
    rig = Moderated()
    pouring(rig)
    rig.come(8)
    rig.pass_after(1000, woken=False)
    first = rig.usecs
    rig.come(16)
    rig.pass_after(1000, woken=False)
    assert isinstance(first, int)
    assert first == 800 * US // 1000  # as long as anything may wait
    assert rig.usecs == GRO_MAX_SIZE * 1000 // (16 * (BYTES + 66))


def test_a_device_that_pours_no_longer_tells_of_each_frame_again() -> None:
    rig = Moderated()
    pouring(rig)
    rig.come(1)
    assert rig.pass_after(1000, woken=False) == [BYTES]
    assert rig.irqs == [False, True]
    assert rig.usecs == 0
    assert rig.pass_after(10_000, woken=False) == []


def test_requests_and_short_bursts_are_told_of_at_once() -> None:
    rig = Moderated()
    for _ in range(100):
        rig.device.deliver([segment(data(100), seq=rig.seq, flags=0x18)])
        rig.seq += 100
        assert rig.pass_after(200, woken=True) == [0]  # in the head, and at once
    for _ in range(20):  # 64 KB now and then
        rig.come(1)
        assert rig.pass_after(5000, woken=True) == [BYTES]
    assert rig.irqs == []


def test_a_driver_that_cannot_tells_of_each_frame() -> None:
    rig = Moderated(able=False)
    for _ in range(20):
        rig.come(1)
        assert rig.pass_after(64, woken=True) == [BYTES]
    assert rig.usecs == 0
