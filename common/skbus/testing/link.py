# SPDX-License-Identifier: MIT
"""The wires of a simulation."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from skbus.impair import Impairment

if TYPE_CHECKING:
    from skbus.testing.world import World


class Port:
    """One end of a link: frames arrive by `receive`, and leave by `send`."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.link: Link | None = None
        self.receive: Callable[[list[bytes]], None] = lambda frames: None
        self._arrived: list[bytes] = []

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire; without a link it is gone."""
        if self.link is not None:
            self.link.carry(self, frame)

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

    def __init__(self, world: "World", a: Port, b: Port, **impairment: Any) -> None:
        self.world = world
        self.ends = (a, b)
        seed = int(impairment.pop("seed", world.rand.getrandbits(32)))
        self._impair = {
            id(a): Impairment(seed=seed * 2, **impairment),
            id(b): Impairment(seed=seed * 2 + 1, **impairment),
        }
        self.frames = 0
        a.link = b.link = self

    def impair(self, **impairment: Any) -> None:
        """Change the impairment, in both directions, from now on."""
        seed = int(impairment.pop("seed", self.world.rand.getrandbits(32)))
        for i, end in enumerate(self.ends):
            self._impair[id(end)] = Impairment(seed=seed * 2 + i, **impairment)

    def carry(self, sender: Port, frame: bytes) -> None:
        """Take a frame from one end to the other, or lose it."""
        world = self.world
        self.frames += 1
        world.note(sender.name, frame)
        receiver = self.ends[1] if sender is self.ends[0] else self.ends[0]
        for when, delivered in self._impair[id(sender)].admit(world.now, frame):
            if when <= world.now:
                receiver.arrive(delivered)
            else:
                world.at(when, partial(receiver.arrive, delivered))
