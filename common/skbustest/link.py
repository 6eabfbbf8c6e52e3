# SPDX-License-Identifier: MIT
"""The wires of a simulation."""

import errno
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from skbus.inet.impair import Impairment
from skbustest.record import LinkInfo

if TYPE_CHECKING:
    from skbustest.host import Host
    from skbustest.world import World


class Port:
    """One end of a link: frames arrive by `receive`, and leave by `send`."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.link: Link | None = None
        self.receive: Callable[[list[bytes]], None] = lambda frames: None
        self._arrived: list[bytes] = []

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire; without a link the frame is gone."""
        if self.link is not None:
            self.link.carry(self, frame)

    def info(self) -> LinkInfo:
        """The link's record of frames from this port. OSError while there is no link."""
        if self.link is None:
            raise OSError(errno.ENETDOWN, f"{self.name} has no link")
        return self.link.info(self)

    def arrive(self, frame: bytes) -> None:
        """A frame came over the link; all that come at one time are received together."""
        self._arrived.append(frame)
        if len(self._arrived) == 1:
            self.world.soon(self._deliver)

    def _deliver(self) -> None:
        frames, self._arrived = self._arrived, []
        self.receive(frames)


class Link:
    """A wire between two ports, with an impairment for each direction."""

    def __init__(self, world: "World", a: Port, b: Port, **impairment: float | str) -> None:
        self.world = world
        self.ends = (a, b)
        self._impair = self._impairments(impairment)
        self._sent = {id(a): [0, 0], id(b): [0, 0]}
        self._before: dict[int, tuple[int, ...]] = {id(a): (0,) * 6, id(b): (0,) * 6}
        """For each end, the counts of earlier impairments, up to the last change."""
        self._tamper: dict[int, Callable[[bytes], bytes | None]] = {}
        self.frames = 0
        a.link = b.link = self

    def _impairments(self, options: dict[str, float | str]) -> dict[int, Impairment]:
        """An impairment for each direction, each with random numbers of its own."""
        seed = int(options.pop("seed", self.world.rand.getrandbits(32)))
        return {
            id(end): Impairment.of({**options, "seed": seed * 2 + i})
            for i, end in enumerate(self.ends)
        }

    def impair(self, **impairment: float | str) -> None:
        """Change the impairment, in both directions, from now on."""
        self._before = {id(end): self._done(end) for end in self.ends}
        self._impair = self._impairments(impairment)

    def tamper(
        self, sender: "Port | Host", function: Callable[[bytes], bytes | None] | None
    ) -> None:
        """From now on, pass this end's frames through a function, which returns the frame that
        goes on, or None for none. Without a function, frames pass as they are (see
        `middlebox`)."""
        end = sender if isinstance(sender, Port) else self._end_of(sender)
        if function is None:
            self._tamper.pop(id(end), None)
        else:
            self._tamper[id(end)] = function

    def _end_of(self, host: "Host") -> Port:
        for end in self.ends:
            if end in host.ports.values():
                return end
        raise ValueError(f"the link does not end at {host.name}")

    def _done(self, end: Port) -> tuple[int, ...]:
        """lost, overflowed, duplicated, corrupted, reordered, marked"""
        now = self._impair[id(end)].status().values()
        return tuple(a + b for a, b in zip(self._before[id(end)], now, strict=True))

    def info(self, sender: Port) -> LinkInfo:
        """The record of the direction that begins at this end."""
        queued = self._impair[id(sender)].queued(self.world.now)
        frames, size = self._sent[id(sender)]
        return LinkInfo(frames, size, queued, *self._done(sender))

    def carry(self, sender: Port, frame: bytes) -> None:
        """Take a frame from one end to the other, or lose it."""
        world = self.world
        self.frames += 1
        sent = self._sent[id(sender)]
        sent[0] += 1
        sent[1] += len(frame)
        world.note(sender.name, frame)
        tamper = self._tamper.get(id(sender))
        if tamper is not None:
            changed = tamper(frame)
            if changed is None:
                return
            frame = changed
        receiver = self.ends[1] if sender is self.ends[0] else self.ends[0]
        for when, delivered in self._impair[id(sender)].admit(world.now, frame):
            if when <= world.now:
                receiver.arrive(delivered)
            else:
                world.at(when, partial(receiver.arrive, delivered))
