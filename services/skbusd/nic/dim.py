# SPDX-License-Identifier: MIT
"""Dynamic interrupt moderation (`lib/dim/net_dim.c`): how long a busy device is left alone.

`NicCore.poll_rx` calls `net_dim` whenever it has emptied the device. While bulk data pours in, nic
does not wake for each frame. The device's interrupt (its descriptor) is off, and a timer polls when
one skb's worth of data should have come. GRO then hands up one skb where it would have handed up
several, and every later layer works once for them. A flow that has just begun, requests and
answers, and all data below `_LEAST` bytes a round wake nic at once, as without moderation. Nothing
waits longer than `_MOST` and the timer's grain (131 us).

Differs from Linux, which chooses among five profiles by trial; we compute the time from the rate.
`ethtool -C DEV adaptive-rx` switches it there; here it is on where the driver can.
"""

from collections.abc import Callable
from typing import Final

from skbus.core.skbuff import GRO_MAX_SIZE
from skbus.core.timer import Timer
from skbusd.nic.netdev import NicNet

_USEC: Final = 1000
_GOAL: Final = GRO_MAX_SIZE
"""Bytes that shall have come when the timer fires."""
_LEAST: Final = _GOAL // 4
"""With fewer than this in a round there is no bulk (any more)."""
_SAMPLE: Final = 500 * _USEC
_MOST: Final = 800 * _USEC


class Dim:
    """`struct dim`: bytes that a device has received, and when we looked."""

    __slots__ = ("octets", "stamp", "timer", "usecs")

    def __init__(self, poll: Callable[[NicNet], None]) -> None:
        """poll: `net_rx_action`, which takes all frames."""
        self.timer: Timer[NicNet] = Timer(poll)
        self.octets = 0
        """DevRxBytes at `stamp`."""
        self.stamp = 0
        """ns"""
        self.usecs = 0
        """For how long the device is left alone (`rx-usecs`); 0: it wakes us for each frame."""


def net_dim(net: NicNet, dim: Dim) -> None:
    """The device is empty: decide when to look again."""
    octets = net.mib["DevRxBytes"]
    elapsed = net.now - dim.stamp
    if elapsed < _SAMPLE and not dim.usecs:
        return
    came = octets - dim.octets
    dim.octets = octets
    dim.stamp = net.now
    usecs = 0
    if came >= _LEAST and came * _MOST >= _LEAST * elapsed:
        usecs = min(_GOAL * elapsed // came, _MOST) // _USEC
    if usecs and not dim.usecs and not net.device.irq(False):
        usecs = 0
    elif dim.usecs and not usecs:
        net.device.irq(True)
    if net.tracing and usecs != dim.usecs:
        net.trace("net_dim", usecs=usecs, came=came)
    dim.usecs = usecs
    if usecs:
        net.mod_timer(dim.timer, net.now + usecs * _USEC)
