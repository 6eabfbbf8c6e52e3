# SPDX-License-Identifier: MIT
"""The loop of a process: waits on one epoll descriptor, and gives each layer that lives there its
turn. Mostly there is one, and with `--fuse` there are several (`skbus.bus.service`).

A pass takes the events of one epoll_wait(2), and gives a turn to each layer that they concern, or
whose timer is due. A layer that gets a message from another one of the process has its turn in the
same pass, until none has anything left, or the budget is used up. Then devices and pipes are looked
at again. So nothing recurses, and nobody starves.

The loop wakes up once a batch, never once a packet. Under load it waits without trio: the next
packet comes within milliseconds, and a crossing then costs half as much as through trio's scheduler
(docs/tried.md). Other tasks, and cancellation, get their turn when nothing came, and after every 32
passes.
"""

import select
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
import zmq

from skbus.bus.clock import StackClock
from skbus.bus.codec import Message
from skbus.core.net import Net

if TYPE_CHECKING:
    from skbus.bus.pipe import Outlet

TURNS: Final = 64
"""Turns in one pass, before devices and pipes are looked at again."""
RETRY: Final = 1_000_000
"""ns until a full pipe is tried again."""
_NAP: Final = 0.005
"""Seconds of waiting without trio."""
_NAP_NS: Final = 5_000_000
_TASKS_EVERY: Final = 256
"""Passes in a row, after which other tasks, and cancellation, get their turn."""

Events = Sequence[tuple[int, int]]


class Source(Protocol):
    """A wake-up of a layer besides its inbox: a device, system calls, control requests."""

    def filenos(self) -> list[int]:
        """Descriptors to watch for reading, besides those that a `Part` has."""
        ...

    def drain(self, budget: int) -> int:
        """One of the descriptors is readable: take what is there, at most about `budget`.

        Returns how much that was. Less than `budget` means that nothing is left. A source that
        stops earlier for other reasons says so by `pending`.
        """
        ...

    def flush(self) -> None:
        """The core has run: send what it left for this source."""
        ...

    def pending(self) -> bool:
        """After `flush`: is there input of which the descriptors may not tell?

        libzmq's descriptor (the control socket's) is silent about input that came while a message
        was sent on it.
        """
        ...

    def close(self) -> None: ...


class Part:
    """What one owner has in the loop's epoll: its inbox, a source or an outlet of a layer.

    It takes the place of a `select.epoll` of the owner's own, which would be one more system call
    for each message. ready: the events for a source that wants to know which of its descriptors
    they are of (`belong`), and takes them in `drain`.
    """

    def __init__(
        self,
        loop: "Loop",
        member: "Member | None",
        source: Source | None,
        outlet: "Outlet | None",
    ) -> None:
        self._loop = loop
        self.member = member
        self.source = source
        self.outlet = outlet
        self.detailed = False
        self.ready: list[tuple[int, int]] = []

    def belong(self, member: "Member", source: Source) -> None:
        """Whom the events concern: a source that takes them from `ready`."""
        self.member = member
        self.source = source
        self.detailed = True

    def register(self, fd: int, mask: int) -> None:
        """As `select.epoll.register`."""
        self._loop.register(fd, mask, self)

    def modify(self, fd: int, mask: int) -> None:
        """As `select.epoll.modify`."""
        self._loop.epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """As `select.epoll.unregister`."""
        self._loop.unregister(fd)


class Member:
    """A layer in a loop, as the loop sees it; `skbus.bus.service.Service` is the one there is.

    hot: sources to be drained at once, whatever their descriptors say.
    """

    def __init__(self, net: Net, clock: StackClock) -> None:
        self.net = net
        self.clock = clock
        self.hot: set[Source] = set()
        self.waits = False
        """Is it in the loop's queue?"""

    def begin(self) -> None:
        """The loop starts."""
        raise NotImplementedError

    def event(self, part: Part, fd: int, mask: int) -> None:
        """A descriptor of its has an event."""
        raise NotImplementedError

    def take(self, message: Message) -> None:
        """A message of another member."""
        raise NotImplementedError

    def turn(self) -> bool:
        """Do what there is to do; True if there may be more."""
        raise NotImplementedError

    def stirs(self) -> bool:
        """Is there something to do that no event tells of?"""
        raise NotImplementedError

    def deadline(self) -> int:
        """When a turn is due, in ns of the stack's clock; -1: not before an event."""
        raise NotImplementedError

    def close(self) -> None:
        """The loop ends."""
        raise NotImplementedError


class Loop:
    """The loop of one process. Layers add themselves, the lowest first."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.context.setsockopt(zmq.MAX_SOCKETS, 65536)
        self.members: dict[str, Member] = {}
        self.wakeups = 0
        self._parts: dict[int, Part] = {}
        self._all: list[Member] = []
        self._work: deque[Member] = deque()
        self._stop = False
        self._far = 2 * _NAP_NS
        """ns of the stack's clock that are longer than a nap, in any case."""

    def add(self, member: Member) -> None:
        """Let a layer live here."""
        if not self._all:
            self._far = int(2 * _NAP_NS / member.clock.scale)
        self.members[member.net.name] = member
        self._all.append(member)
        self.wake(member)

    def wake(self, member: Member) -> None:
        """Give a layer its turn in this pass, or in the next."""
        if not member.waits:
            member.waits = True
            self._work.append(member)

    def owner(self, fd: int) -> Part | None:
        """Whose descriptor it is."""
        return self._parts.get(fd)

    def register(self, fd: int, mask: int, part: Part) -> None:
        """Watch a descriptor."""
        self._parts[fd] = part
        self.epoll.register(fd, mask)

    def unregister(self, fd: int) -> None:
        """Watch it no more."""
        del self._parts[fd]
        self.epoll.unregister(fd)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Cancellation closes the sockets; messages in them are lost."""
        with ExitStack() as stack:
            epoll = self.epoll
            stack.callback(epoll.close)
            stack.callback(self._close)
            for member in self._all:
                member.begin()
            self.pass_once(())
            task_status.started()
            passes = 0
            events: Events = epoll.poll(0)
            while not self._stop:
                passes += 1
                if passes % _TASKS_EVERY == 0:
                    await trio.lowlevel.checkpoint()
                if self.pass_once(events):
                    events = epoll.poll(0)
                    continue
                self.wakeups += 1
                events = self._nap()
                if not events:
                    await self._sleep()
                    events = epoll.poll(0)

    def stop(self) -> None:
        """Leave the loop after this pass."""
        self._stop = True

    def pass_once(self, events: Events) -> bool:
        """One pass; True if there may be more to do at once. events: of the epoll."""
        work = self._work
        now = self._all[0].clock.now()
        for fd, mask in events:
            part = self._parts.get(fd)
            if part is not None:
                member = part.member
                if member is not None:
                    member.event(part, fd, mask)
                    if not member.waits:
                        member.waits = True
                        work.append(member)
        for member in self._all:
            member.net.now = now
            if not member.waits and member.stirs():
                member.waits = True
                work.append(member)
        turns = TURNS
        again: list[Member] | None = None
        while work and turns:
            turns -= 1
            member = work.popleft()
            member.waits = False
            if member.turn():
                if again is None:
                    again = [member]
                else:
                    again.append(member)
        if again is not None:
            for member in again:
                self.wake(member)
        return bool(work)

    def _deadline(self) -> int:
        """When the first turn is due, in ns of the stack's clock; -1: not before an event."""
        first = -1
        for member in self._all:
            deadline = member.deadline()
            if deadline >= 0 and (first < 0 or deadline < first):
                first = deadline
        return first

    def _nap(self) -> Events:
        """Wait for a source without trio, for a few milliseconds."""
        member = self._all[0]
        deadline = self._deadline()
        if member.net.sysctl["net.core.busy_poll"]:
            events = self._spin(deadline)
            if events:
                return events
        if deadline < 0 or deadline - member.net.now > self._far:
            return self.epoll.poll(_NAP)
        seconds = member.clock.real_seconds_until(deadline)
        if seconds > _NAP:
            return self.epoll.poll(_NAP)
        # epoll.poll counts in whole milliseconds; select does not, but is one more system call
        if seconds >= 0.001:
            events = self.epoll.poll(int(seconds * 1000) / 1000)
            if events:
                return events
            seconds = member.clock.real_seconds_until(deadline)
        if seconds > 0:
            select.select((self.epoll,), (), (), seconds)
        return self.epoll.poll(0)

    def _spin(self, deadline: int) -> Events:
        """`net.core.busy_poll`: look again and again for so many microseconds."""
        member = self._all[0]
        until = monotonic_ns() + int(member.net.sysctl["net.core.busy_poll"]) * 1000
        while monotonic_ns() < until and not 0 <= deadline <= member.clock.now():
            events: Events = self.epoll.poll(0)
            if events:
                return events
        return ()

    async def _sleep(self) -> None:
        """Nothing came: wait for a source or the deadline with the other tasks of the process."""
        deadline = self._deadline()
        if deadline < 0:
            await trio.lowlevel.wait_readable(self.epoll.fileno())
            return
        seconds = self._all[0].clock.real_seconds_until(deadline)
        if seconds > 0:
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(self.epoll.fileno())

    def _close(self) -> None:
        """The highest layer first: what it says in leaving is still carried down."""
        for member in reversed(self._all):
            member.close()
        self.context.destroy(linger=0)
