# SPDX-License-Identifier: MIT
"""What every shell does with a message: the same for the processes and for the simulation.

`Dispatcher.deliver` takes a decoded message, refuses dead epochs, answers hellos, and calls the
core's functions. `finish` runs the core's idle work, timers and barriers at a batch's end.
"""

from collections.abc import Callable

from skbus.bus.barrier import Barriers
from skbus.bus.codec import Batch, Message
from skbus.core.abi import Barrier, Hello
from skbus.core.dropreason import SkbDropReason
from skbus.core.interfaces import Neighbour
from skbus.core.net import Core
from skbus.core.skbuff import SkBuff


class Dispatcher:
    """Drives one core."""

    def __init__(
        self,
        core: Core,
        neighbours: tuple[str, ...],
        drain_device: Callable[[], None] | None = None,
    ) -> None:
        self.core = core
        self.net = core.net
        self.neighbours = neighbours
        self.barriers = Barriers(core, drain_device)
        self.net.barriers = self.barriers
        self._entries = core.entries
        self._epochs: dict[str, int] = {}
        self._tokens: list[tuple[str, Barrier]] = []
        self.bad_messages = 0

    def start(self) -> None:
        """Begin: the core first, then say hello to the neighbours."""
        self.core.start()
        for process in self.neighbours:
            self.net.call(process, Neighbour.hello, Hello(self.net.name, self.net.epoch, False))

    def deliver(self, message: Message) -> None:
        """Hand a message's items to the core, in order."""
        net = self.net
        sender, epoch, batch, bad = message
        if bad:
            self.bad_message(bad)
        known = self._epochs.get(sender)
        if known != epoch:
            if known is not None and epoch < known:
                self._drop(batch, "SKBUS_STALE_EPOCH")
                return
            self._epochs[sender] = epoch
            if sender in self.neighbours and not any(
                entry is Neighbour.hello and item.answer for entry, item in batch
            ):
                # The sender is new, or has forgotten us: it must hear of our epoch first of all.
                net.call(sender, Neighbour.hello, Hello(net.name, net.epoch, True))
            self.core.peer_up(sender)
        entries = self._entries
        for entry, item in batch:
            if type(item) is SkBuff:
                net.skb_received += 1
            function = entries.get(entry)
            if function is not None:
                function(net, item)
            elif entry is Neighbour.barrier:
                self._tokens.append((sender, item))
            elif entry is not Neighbour.hello:
                self.bad_message(1)
                if type(item) is SkBuff:
                    net.kfree_skb(item, "SKBUS_BAD_MESSAGE")

    def finish(self) -> int:
        """The end of a batch: timers, idle work, barriers. Returns how many timers fired."""
        net = self.net
        expires = net.timers.next_expiry()
        fired = 0 if expires is None or expires > net.now else net.timers.run(net, net.now)
        self.core.idle()
        if self._tokens:
            tokens, self._tokens = self._tokens, []
            for sender, item in tokens:
                self.barriers.received(sender, item)
            self.core.idle()
        return fired

    def bad_message(self, n: int) -> None:
        """Count items or messages that the ABI's table does not know."""
        self.bad_messages += n
        name = "SKB_DROP_REASON_SKBUS_BAD_MESSAGE"
        self.net.drops[name] = self.net.drops.get(name, 0) + n

    def _drop(self, batch: Batch, reason: SkbDropReason) -> None:
        for entry, item in batch:
            if entry.is_skb:
                self.net.skb_received += 1
                self.net.kfree_skb(item, reason)
