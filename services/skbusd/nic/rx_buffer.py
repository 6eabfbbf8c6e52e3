# SPDX-License-Identifier: MIT
"""Where the driver reads the next frame to, so that a stream's payload lies in one piece.

Every later layer works for each place of a packet, up to the copy to the application. So the
super-segments that GRO joins should be one place, and not eight. While a flow's super-segments come
one behind the other, the next frame's payload is read to the end of the last one's. The slot holds
a whole joined skb:

    big slot   [ hdr | payload of frame 1 | payload of frame 2 | payload of frame 3 | ...     ]
                                     [hdr]: frame 2 was read to here; the bytes that its header
                                     lay on are put back when it has been looked at

A frame that turns out to be another flow's, or no continuation, is moved to a slot of its own. No
skb that was handed up is written to: a chain ends with its batch, as GRO's flows do. (A network
card's header split does the same with two rings.)
"""

from typing import Final

from skbus.core.pool import Allocator
from skbus.core.skbuff import GRO_MAX_SIZE, Place
from skbusd.nic.frame import IP_SADDR, PORTS_END
from skbusd.nic.gro_flow import GroFlow

SLOT_SIZE: Final = 66560
"""A slot that holds any frame: 65535 bytes of IP packet, Ethernet header and tag."""
BIG_SLOT: Final = GRO_MAX_SIZE + SLOT_SIZE
"""A slot that holds a joined skb, and room to read the frame that may be its last."""
CLASSES: Final = ((2048, 8192), (16384, 256), (SLOT_SIZE, 512), (BIG_SLOT, 96))
"""nic's region: 16, 4, 34 and 57 MB of address space (`skbus.core.pool`: memory as it is
needed)."""


class RxBuffer:
    """The slot for the next frame: an empty one, or the one whose flow is being continued."""

    __slots__ = (
        "_big", "_end", "_in_a_row", "_key", "_place", "_region", "_room", "_saved", "_scratch",
        "_supers", "flow", "slot",
    )  # fmt: skip

    def __init__(self, region: Allocator) -> None:
        self._region = region
        self._scratch = memoryview(bytearray(SLOT_SIZE))
        """Where frames are read to when the pool is full."""
        self.slot: tuple[int, int] | None = None
        """An empty slot, and its generation."""
        self._place: Place | None = None
        self._room = self._scratch
        """The slot's place and bytes: most frames are copied out of it, so the next gets it too."""
        self.flow: GroFlow | None = None
        """The flow that the next frame is expected to continue."""
        self._end: Place = (0, 0, 0, 0, 0)
        """Where the flow's payload ends, as a place in its slot."""
        self._saved = b""
        self._big = False
        """Are frames likely to be joined, so that a big slot is worth it?"""
        self._key = b""
        self._supers = 0
        self._in_a_row = 0

    def next(self) -> tuple[Place | None, memoryview]:
        """Where to read the next frame to. No place: the pool is full, and the frame is copied."""
        flow = self.flow
        if flow is None:
            return self._empty()
        region, slot, gen, end, _ = self._end
        at = end - flow.hlen
        start = self._region.starts[slot] + at
        room = self._region.mem[start : start + SLOT_SIZE]
        self._saved = bytes(room[: flow.hlen])
        return (region, slot, gen, at, SLOT_SIZE), room

    def _empty(self) -> tuple[Place | None, memoryview]:
        if self.slot is None:
            region = self._region
            slot = region.alloc(BIG_SLOT, must=False) if self._big else None
            slot = self.slot = slot or region.alloc(SLOT_SIZE)
            if slot is None:
                return None, self._scratch
            start = region.starts[slot[0]]
            self._place = (region.number, slot[0], slot[1], 0, SLOT_SIZE)
            self._room = region.mem[start : start + SLOT_SIZE]
        return self._place, self._room

    def joined(self, room: memoryview, payload: int) -> None:
        """The frame did continue the flow."""
        flow = self.flow
        assert flow is not None
        room[: flow.hlen] = self._saved
        self._supers += 1
        self._in_a_row += 1
        region, slot, gen, end, _ = self._end
        end += payload
        self._end = (region, slot, gen, end, 0)
        if flow.hlen + flow.payload + payload > GRO_MAX_SIZE:
            self.flow = None  # another one of that size would not fit

    def move(self, room: memoryview, size: int) -> tuple[Place | None, memoryview]:
        """The frame did not: move it to a slot of its own, and return its place and bytes there."""
        flow = self.flow
        assert flow is not None
        frame = bytes(room[:size])
        room[: flow.hlen] = self._saved
        self.flow = None
        if frame[IP_SADDR:PORTS_END] != self._key and size > SLOT_SIZE // 2:
            self._big = False  # flows take turns: each time would cost this copy
        place, room = self._empty()
        room[:size] = frame
        return place, room

    def taken(self, flow: GroFlow | None, key: bytes, place: Place) -> None:
        """A frame keeps the slot that it was read to. flow: holds the frame, if it is a
        super-segment; key: its addresses and ports; place: of its payload."""
        self.slot = None
        if flow is None:
            return
        self._supers += 1
        self._in_a_row += key == self._key
        self._key = key
        region, slot, gen, offset, size = place
        end = offset + size
        if (
            self._region.sizes[slot] >= end - flow.hlen + SLOT_SIZE
            and flow.hlen + flow.payload + size <= GRO_MAX_SIZE
        ):
            self.flow = flow
            self._end = (region, slot, gen, end, 0)

    def batch_ends(self) -> None:
        """The joined skb is handed up: its slot is not ours any more."""
        self.flow = None
        if self._supers:
            self._big = 2 * self._in_a_row > self._supers
            self._supers = self._in_a_row = 0
            slot = self.slot
            if slot is not None and (self._region.sizes[slot[0]] >= BIG_SLOT) != self._big:
                self._region.free(*slot)  # an empty one of the other size is wanted now
                self.slot = None
