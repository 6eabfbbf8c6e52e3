# SPDX-License-Identifier: MIT
"""The generic shell: a layer as a process (docs/architecture.md, "Cores and shells").

    wait for a pipe, a device or the deadline          Loop  (skbus.bus.loop)
    drain a budget of each          (as NAPI does)     Service.turn
    fire timers, idle work
    flush the outbox: one message for each neighbour

Several layers may live in one process and one loop (`--fuse`). What one of them sends to another is
then handed over as it is: no codec, no pipe, no system call. All else is as between processes. Each
has its inbox, its control socket, its counters, its log and its epoch.
"""

import os
import select
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

import structlog
import trio

from skbus.bus import log, private
from skbus.bus.clock import StackClock
from skbus.bus.codec import Batch, Message, encode
from skbus.bus.ctl import ControlSource
from skbus.bus.dispatch import Dispatcher
from skbus.bus.loop import RETRY, Events, Loop, Member, Part, Source
from skbus.bus.pipe import Inbox, Outlet
from skbus.bus.rundir import RunDir
from skbus.bus.version import is_compiled
from skbus.core.net import Core
from skbus.core.skbuff import SkBuff

BUDGET: Final = 64
"""Messages taken from the inbox, or calls to a source, before the others have their turn."""
MAX_BATCH: Final = 256
"""Items in one message."""


class Service(Member):
    """One layer, as a process or in one.

    neighbours: the processes that hear of our start; others are connected at first use.
    sources: devices and client sockets. loop: that of the process, if other layers live there too.
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
        loop: Loop | None = None,
    ) -> None:
        super().__init__(core.net, clock or StackClock())
        self.core = core
        self.rundir = rundir
        self.loop = loop or Loop()
        self.net.trace_clock = self.clock.now
        self._inbox_part = Part(self.loop, self, None, None)
        self.inbox = Inbox(rundir.endpoint(self.net.name), cast("select.epoll", self._inbox_part))
        self.dispatcher = Dispatcher(core, neighbours, drain_device)
        self.control = ControlSource(self, self.loop.context, rundir.ctl(self.net.name))
        self.sources: tuple[Source, ...] = (*sources, self.control)
        self._own_sources = sources
        if self.net.alloc is not None:
            self.net.alloc.told = self._no_room
        self.logger: Any = structlog.get_logger(self.net.name)
        self._outlets: dict[str, Outlet] = {}
        self._unconnected: set[Outlet] = set()
        self._pending: dict[str, Batch] = {}
        self._spare: dict[str, Batch] = {}
        """An outbox that is not in use."""
        self._handed: list[Message] = []
        """Messages of other layers of this process."""
        self._refused = 0
        self.loop.add(self)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run the loop until cancelled. Cancellation closes the sockets; messages in them are
        lost."""
        await self.loop.run(task_status=task_status)

    def stop(self) -> None:
        """Leave the loop after this pass."""
        self.loop.stop()

    def pass_once(self, events: Events = ()) -> bool:
        """One pass of the loop; True if there may be more to do at once."""
        self.loop.wake(self)
        return self.loop.pass_once(events)

    def _no_room(self, problem: str) -> None:
        self.net.warning("shmem_fallocate", problem=problem)

    # ---- skbus.bus.loop.Member ---------------------------------------------------------------

    def begin(self) -> None:
        """The loop starts: watch our sources, start the core, and say hello."""
        for source in self.sources:
            for fd in source.filenos():
                Part(self.loop, self, source, None).register(fd, select.EPOLLIN)
        self.net.now = self.clock.now()
        self.dispatcher.start()

    def event(self, part: Part, fd: int, mask: int) -> None:
        """A descriptor of ours has an event."""
        outlet = part.outlet
        if outlet is not None:
            outlet.event(mask)
            if outlet.retry_at:
                self._unconnected.add(outlet)
        elif part.source is not None:
            if part.detailed:
                part.ready.append((fd, mask))
            self.hot.add(part.source)
        else:
            self.inbox.ready.append((fd, mask))

    def take(self, message: Message) -> None:
        """A message of another layer in this process. What is in it is ours from now on."""
        self._handed.append(message)
        self.loop.wake(self)

    def turn(self) -> bool:
        """Take what is there, run the core, and send; True if there may be more at once."""
        net = self.net
        inbox = self.inbox
        if self._unconnected:
            self._reconnect()
        if self._handed:
            handed, self._handed = self._handed, []
            for message in handed:
                self.dispatcher.deliver(message)
        more = bool(inbox.ready) and inbox.drain(BUDGET, self.dispatcher.deliver) >= BUDGET
        hot = self.hot
        if hot:
            for source in self.sources:
                if source in hot:
                    hot.discard(source)
                    if source.drain(BUDGET) >= BUDGET:
                        hot.add(source)
            if self.control.pending():
                hot.add(self.control)
        self.dispatcher.finish()
        if net.outbox or self._pending:
            self._flush()
        for source in self._own_sources:
            source.flush()
            if source.pending():
                hot.add(source)
        if net.outbox:
            self._flush()
        if net.log_events or net.trace_events or inbox.refused != self._refused:
            self._log()
        return more or bool(hot)

    def stirs(self) -> bool:
        """Is there something to do that no descriptor tells of?"""
        net = self.net
        if net.outbox or self._pending or self._unconnected or net.log_events:
            return True
        deadline = net.timers.next_expiry()
        return deadline is not None and deadline <= net.now

    def deadline(self) -> int:
        """When a turn is due, in ns of the stack's clock; -1: not before an event."""
        expiry = self.net.timers.next_expiry()
        deadline = -1 if expiry is None else expiry
        if self._pending:
            retry = self.net.now + RETRY
            if deadline < 0 or retry < deadline:
                deadline = retry
        if self._unconnected:
            seconds = min(outlet.retry_at for outlet in self._unconnected) - monotonic()
            retry = self.net.now + max(0, int(seconds * 1e9 / self.clock.scale))
            if deadline < 0 or retry < deadline:
                deadline = retry
        return deadline

    def _flush(self) -> None:
        """Send the outbox: one message a neighbour, or a few where there are many items.

        A layer of the same process gets all items at once, as they are. An skb is then that
        layer's, as it is anyway (`Net.call_skb`).
        """
        net = self.net
        outbox, net.outbox = net.outbox, self._spare
        if self._pending:
            held, self._pending = self._pending, {}
            for process, batch in held.items():
                outbox[process] = batch + outbox.get(process, [])
        fused = self.loop.members
        for process, batch in outbox.items():
            other = fused.get(process)
            if other is not None:
                other.take(Message(net.name, net.epoch, batch, 0))
                continue
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
        outbox.clear()
        self._spare = outbox

    def watch(self, fd: int, mask: int, outlet: Outlet) -> None:
        """As `skbus.bus.pipe.Watcher`."""
        part = self.loop.owner(fd)
        if part is not None:
            part.modify(fd, mask)
        else:
            Part(self.loop, self, None, outlet).register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """As `skbus.bus.pipe.Watcher`."""
        self.loop.unregister(fd)

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
            log.log_batch(self.logger, logged, traced, net.name)

    def close(self) -> None:
        """The loop ends: close all sockets."""
        for source in self.sources:
            source.close()
        self.inbox.close()
        for outlet in self._outlets.values():
            outlet.close()

    # ---- what the control socket asks for ----------------------------------------------

    def status(self) -> dict[str, object]:
        """Identity, conservation, drops and the core's own status."""
        net = self.net
        return {
            "process": net.name,
            "epoch": net.epoch,
            "now": net.now,
            "pid": os.getpid(),
            "fused": list(self.loop.members),
            "wakeups": self.loop.wakeups,
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
