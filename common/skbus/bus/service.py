# SPDX-License-Identifier: MIT
"""The generic shell: one trio loop that runs any core as a process
(docs/architecture.md, "Cores and shells").

    wait for a pipe, a device or the deadline
    drain a budget of each          (as NAPI does)
    fire timers, idle work
    flush the outbox: one message for each neighbour

The loop wakes up once a batch, never once a packet. It sleeps on one epoll descriptor, in which
every source's descriptors are registered.
"""

import os
import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any, Final, Protocol

import structlog
import trio
import zmq

from skbus.bus import log, private
from skbus.bus.clock import StackClock
from skbus.bus.codec import Batch, encode
from skbus.bus.ctl import ControlSource
from skbus.bus.dispatch import Dispatcher
from skbus.bus.pipe import Inbox, Outlet
from skbus.bus.rundir import RunDir
from skbus.bus.version import is_compiled
from skbus.core.net import Core
from skbus.core.skbuff import SkBuff

BUDGET: Final = 64
"""Messages taken from the inbox, or calls to a source, before the others have their turn."""
MAX_BATCH: Final = 256
"""Items in one message."""
_RETRY: Final = 1_000_000  # ns until a full pipe is tried again
_NAP: Final = 0.005  # s of waiting without trio


Events = Sequence[tuple[int, int]]


class Source(Protocol):
    """A wake-up of a layer besides its inbox: a device, system calls, control requests."""

    def filenos(self) -> list[int]:
        """Descriptors to watch for reading."""
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


class Service:
    """One layer as a process.

    neighbours: the processes that hear of our start; others are connected at first use.
    sources: devices and client sockets.
    """

    def __init__(
        self,
        core: Core,
        rundir: RunDir,
        *,
        neighbours: tuple[str, ...] = (),
        sources: tuple[Source, ...] = (),
        clock: StackClock | None = None,
        drain_device: Callable[[], None] | None = None,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
    ) -> None:
        self.core = core
        self.net = core.net
        self.rundir = rundir
        self.clock = clock or StackClock()
        self.net.trace_clock = self.clock.now
        self.context = context or zmq.Context(io_threads=1)
        self.context.setsockopt(zmq.MAX_SOCKETS, 65536)
        self._epoll = select.epoll()
        self.inbox = Inbox(rundir.endpoint(self.net.name), self._epoll)
        self.dispatcher = Dispatcher(core, neighbours, drain_device)
        self.control = ControlSource(self, self.context, rundir.ctl(self.net.name))
        self.sources: tuple[Source, ...] = (*sources, self.control)
        if self.net.alloc is not None:
            self.net.alloc.told = self._no_room
        self.logger: Any = structlog.get_logger(self.net.name)
        self.wakeups = 0
        self._outlets: dict[str, Outlet] = {}
        self._unconnected: set[Outlet] = set()
        self._pending: dict[str, Batch] = {}
        self._refused = 0
        self._stop = False
        self._by_fd: dict[int, Source | Outlet] = {}
        """The owner of each descriptor; the others are the inbox's."""
        self._hot: set[Source] = set()
        """Sources to be drained at once, whatever their descriptors say."""

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Cancellation closes the sockets; messages in them are lost."""
        with ExitStack() as stack:
            epoll = self._epoll
            stack.callback(epoll.close)
            stack.callback(self._close)
            for source in self.sources:
                for fd in source.filenos():
                    self._by_fd[fd] = source
                    epoll.register(fd, select.EPOLLIN)
            self.net.now = self.clock.now()
            self.dispatcher.start()
            self._flush()
            task_status.started()
            passes = 0
            events: Events = epoll.poll(0)
            while not self._stop:
                passes += 1
                if passes % 32 == 0:
                    await trio.lowlevel.checkpoint()
                if self.pass_once(events):
                    events = epoll.poll(0)
                    continue
                self.wakeups += 1
                events = self._nap()
                if not events:
                    await self._sleep()
                    events = epoll.poll(0)

    def _no_room(self, problem: str) -> None:
        self.net.warning("shmem_fallocate", problem=problem)

    def stop(self) -> None:
        """Leave the loop after this pass."""
        self._stop = True

    def _seconds(self) -> float:
        """Seconds until the next deadline."""
        deadline = self.net.timers.next_expiry()
        if self._pending:
            retry = self.net.now + _RETRY
            deadline = retry if deadline is None else min(deadline, retry)
        seconds = inf if deadline is None else self.clock.real_seconds_until(deadline)
        if self._unconnected:
            retry_at = min(outlet.retry_at for outlet in self._unconnected)
            seconds = min(seconds, max(retry_at - monotonic(), 0.0))
        return seconds

    def _nap(self) -> Events:
        """Wait for a source without trio, for a few milliseconds.

        Under load the next packet comes within that time. A crossing then costs half as much as
        through trio's scheduler (docs/tried.md). Other tasks, and cancellation, get their turn
        when nothing came, and after every 32 passes.
        """
        seconds = self._seconds()
        busy = self.net.sysctl["net.core.busy_poll"]
        if busy and seconds > 0:
            until = monotonic_ns() + busy * 1000
            while monotonic_ns() < until:
                events = self._epoll.poll(0)
                if events:
                    return events
            seconds = self._seconds()
        if seconds > _NAP:
            return self._epoll.poll(_NAP)
        # epoll.poll counts in whole milliseconds; select does not, but is one more system call
        if seconds >= 0.001:
            events = self._epoll.poll(int(seconds * 1000) / 1000)
            if events:
                return events
            seconds = self._seconds()
        if seconds > 0:
            select.select((self._epoll,), (), (), seconds)
        return self._epoll.poll(0)

    async def _sleep(self) -> None:
        """Nothing came: wait for a source or the deadline with the other tasks of the process."""
        seconds = self._seconds()
        if seconds > 0:
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(self._epoll.fileno())

    def pass_once(self, events: Events = ()) -> bool:
        """One pass of the loop; True if there may be more to do at once.

        events: the result of `epoll.poll`.
        """
        net = self.net
        net.now = self.clock.now()
        hot = self._hot
        inbox = self.inbox
        if events:
            by_fd = self._by_fd
            for event in events:
                source = by_fd.get(event[0])
                if source is None:
                    inbox.ready.append(event)
                elif isinstance(source, Outlet):
                    source.event(event[1])
                    if source.retry_at:
                        self._unconnected.add(source)
                else:
                    hot.add(source)
        if self._unconnected:
            self._reconnect()
        more = bool(inbox.ready) and inbox.drain(BUDGET, self.dispatcher.deliver) >= BUDGET
        if hot:
            self._hot = set()
            for source in self.sources:
                if source in hot and source.drain(BUDGET) >= BUDGET:
                    self._hot.add(source)
        self.dispatcher.finish()
        if net.outbox or self._pending:
            self._flush()
        for source in self.sources:
            source.flush()
            if source.pending():
                self._hot.add(source)
        if net.outbox:
            self._flush()
        if net.log_events or net.trace_events or inbox.refused != self._refused:
            self._log()
        return more or bool(self._hot)

    def _flush(self) -> None:
        """Send the outbox: one message a neighbour, or a few where there are many items."""
        net = self.net
        outbox, net.outbox = net.outbox, {}
        if self._pending:
            held, self._pending = self._pending, {}
            for process, batch in held.items():
                outbox[process] = batch + outbox.get(process, [])
        for process, batch in outbox.items():
            outlet = self._outlets.get(process)
            if outlet is None:
                outlet = self._outlets[process] = Outlet(self.rundir.endpoint(process), self)
            for at in range(0, len(batch), MAX_BATCH):
                part = batch[at : at + MAX_BATCH] if len(batch) > MAX_BATCH else batch
                meta, data = encode(net.name, net.epoch, part)
                if not outlet.send(meta, data):
                    self._pipe_full(process, batch[at:])
                    break
            if outlet.retry_at:
                self._unconnected.add(outlet)

    def watch(self, fd: int, mask: int, outlet: Outlet) -> None:
        """As `skbus.bus.pipe.Watcher`."""
        if fd in self._by_fd:
            self._epoll.modify(fd, mask)
        else:
            self._by_fd[fd] = outlet
            self._epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """As `skbus.bus.pipe.Watcher`."""
        del self._by_fd[fd]
        self._epoll.unregister(fd)

    def _reconnect(self) -> None:
        """Try again to connect the outlets whose time has come."""
        now = monotonic()
        for outlet in tuple(self._unconnected):
            if outlet.retry_at and outlet.retry_at <= now:
                outlet.connect()
            if not outlet.retry_at:
                self._unconnected.discard(outlet)

    def _pipe_full(self, process: str, batch: Batch) -> None:
        """Drop packets, as from a full ring. Lossless items wait: other limits bound them."""
        net = self.net
        kept: Batch = []
        for entry, item in batch:
            if not entry.lossless:
                net.skb_sent -= 1
                net.kfree_skb(item, "SKBUS_PIPE_FULL", entry=entry.name, process=process)
            else:
                kept.append((entry, item))
        if kept:
            self._pending[process] = kept

    def _log(self) -> None:
        net = self.net
        if self.inbox.refused != self._refused:
            net.warning(
                "message_refused",
                count=self.inbox.refused - self._refused,
                error=self.inbox.last_error,
            )
            self.dispatcher.bad_message(self.inbox.refused - self._refused)
            self._refused = self.inbox.refused
        if net.log_events or net.trace_events:
            logged, net.log_events = net.log_events, []
            traced, net.trace_events = net.trace_events, []
            log.log_batch(self.logger, logged, traced)

    def _close(self) -> None:
        for source in self.sources:
            source.close()
        self.inbox.close()
        for outlet in self._outlets.values():
            outlet.close()
        self.context.destroy(linger=0)

    # ---- what the control socket asks for ----------------------------------------------

    def status(self) -> dict[str, object]:
        """Identity, conservation, drops and the core's own status."""
        net = self.net
        return {
            "process": net.name,
            "epoch": net.epoch,
            "now": net.now,
            "wakeups": self.wakeups,
            "compiled": is_compiled(),
            "conservation": {
                "born": net.skb_born,
                "received": net.skb_received,
                "sent": net.skb_sent,
                "consumed": net.skb_consumed,
                "dropped": net.skb_dropped,
                "held": self.core.held()
                + sum(type(i) is SkBuff for b in self._pending.values() for _, i in b),
            },
            "drops": dict(net.drops),
            "late_places": net.pool.late,
            "pool_in_use": net.alloc.in_use() if net.alloc else 0,
            "pool_exhausted": net.alloc.exhausted if net.alloc else 0,
            "pool_reserved": net.alloc.reserved() if net.alloc else 0,
            "pool_no_room": net.alloc.no_room if net.alloc else 0,
            "core": self.core.status(),
        }


def boot_epoch(journal: Path, name: str) -> int:
    """A number greater than those of this process's earlier lives; kept in the run directory."""
    # Written over in place, which needs no room on a full file system.
    directory = private.open_dir(journal)
    try:
        fd = private.open_file(directory, f"{name}.epoch", os.O_RDWR | os.O_CREAT)
    finally:
        os.close(directory)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        text = file.read()
        epoch = int(text) + 1 if text.strip().isdigit() else 1
        file.seek(0)
        file.write(b"%d\n" % epoch)
    return epoch
