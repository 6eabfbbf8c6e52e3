# SPDX-License-Identifier: MIT
"""A process of a simulated host, in place of `skbus.bus.service` on a real machine."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from skbus.bus.codec import Message, decode, encode
from skbus.bus.dispatch import Dispatcher
from skbus.core.net import Core

if TYPE_CHECKING:
    from skbustest.host import Host
    from skbustest.world import World

_BUDGET: Final = 64


class Process:
    """One core of one host, with its inbox."""

    def __init__(
        self,
        world: "World",
        host: "Host",
        core: Core,
        neighbours: tuple[str, ...],
    ) -> None:
        self.world = world
        self.host = host
        self.core = core
        self.net = core.net
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.handed: deque[Message] = deque()
        """What came past the codec (`World.codec`)."""
        self.dispatcher = Dispatcher(core, neighbours)
        self.messages = 0
        self.poll: Callable[[], object] | None = None
        """Takes the frames that a device has received."""
        self.after: Callable[[], object] | None = None
        """Sends the core's output for a device or for applications."""
        self._queued = False
        self._armed = -1

    def wake(self) -> None:
        """Let the process run before time moves on."""
        if not self._queued:
            self._queued = True
            self.world.runnable.append(self)

    def run(self) -> None:
        """One pass: a budget of messages, timers, and calls into other processes."""
        self._queued = False
        self.net.now = self.world.now
        for _ in range(min(len(self.inbox), _BUDGET)):
            meta, data = self.inbox.popleft()
            self.messages += 1
            self.dispatcher.deliver(decode(meta, data))
        if self.handed:
            self._take_handed()
        if self.inbox:
            self.wake()
        if self.poll is not None and self.poll() == _BUDGET:
            self.wake()  # there may be more
        self.dispatcher.finish()
        if self.after is not None:
            self.after()
        self.flush()
        expiry = self.net.timers.next_expiry()
        if expiry is not None and expiry != self._armed:
            self._armed = expiry
            self.world.at(max(expiry, self.world.now), self._timer)

    def _take_handed(self) -> None:
        for _ in range(min(len(self.handed), _BUDGET)):
            self.messages += 1
            self.dispatcher.deliver(self.handed.popleft())
        if self.handed:
            self.wake()

    def flush(self) -> None:
        """Send the outbox: through the codec, or as it is (`World.codec`)."""
        net = self.net
        if net.trace_events:
            self.host.traced(net.trace_events)
            net.trace_events = []
        net.log_events.clear()
        if not net.outbox:
            return
        outbox, net.outbox = net.outbox, {}
        for name, batch in outbox.items():
            other = self.host.processes.get(name)
            if other is not None:
                if self.world.codec:
                    other.inbox.append(encode(net.name, net.epoch, batch))
                else:
                    other.handed.append(Message(net.name, net.epoch, batch, 0))
                other.wake()

    def _timer(self) -> None:
        self._armed = -1
        self.wake()
