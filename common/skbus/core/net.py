# SPDX-License-Identifier: MIT
"""struct net: what a core is given instead of globals (`include/net/net_namespace.h`).

The first argument of a layer's functions is the `Net` of its process. It carries the time,
randomness, counters, sysctls, timers, the pool, the trace, and the outbox. Where the kernel would
call into another layer, a core calls `net.call(process, entry, item)`.

A layer subclasses Net for its own state. Nothing here does I/O: the shell (`skbus.bus.service`) or
the simulation (`skbus.testing`) sets `now`, delivers entries and empties the outbox.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from skbus.core.compiled import mypyc_attr
from skbus.core.dropreason import REASONS, SkbDropReason
from skbus.core.entry import AnyEntry, C, Entry, Handler, SkbEntry, T
from skbus.core.flow_dissector import (
    NO_PORT,
    Flow,
    details_flow,
    icmp_about,
    named_dest,
    skb_flow_dissect,
)
from skbus.core.pool import Allocator, Pool, PoolError, StalePlaceError
from skbus.core.skbuff import Frag, SkBuff, frags_slice
from skbus.core.snmp import snmp_mib_init
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer, Timers

MSEC: Final = 1_000_000
SEC: Final = 1_000_000_000
_PRUNE_EVERY: Final = 5 * SEC
_PORTS_LEN: Final = 4
"""Bytes of the two ports with which a transport's header begins."""


class Clock(Protocol):
    """Where a shell's time comes from."""

    def now(self) -> int: ...


class TraceEvent(NamedTuple):
    """One function that a packet came through.

    time: ns of the stack's clock. skb: its id. flow: that of the packet or the socket; "" where it
    cannot be told. about: the flow of the packet that an ICMP error quotes.
    """

    time: int
    process: str
    function: str
    skb: int
    details: Mapping[str, object]
    flow: str = ""
    about: str = ""


class LogEvent(NamedTuple):
    """Something that a person wants to know. time: ns of the stack's clock."""

    level: str
    function: str
    details: Mapping[str, object]
    time: int


Self = TypeVar("Self", bound="Net")


@mypyc_attr(allow_interpreted_subclasses=True)
class Net:
    """The state of one process of one stack.

    name: the process's name, e.g. "tcp" or "nic.eth0": where messages for it are sent.
    now: ns of the stack's clock, the same for everything in a batch.
    """

    def __init__(
        self,
        name: str,
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
    ) -> None:
        self.name = name
        self.now = 0
        self.rand = rand
        self.pool = pool
        self.alloc = alloc
        self.sysctl = sysctl or Sysctl()
        self.ipv4 = self.sysctl.ipv4
        self.epoch = epoch
        self.mib = snmp_mib_init()
        self.drops: dict[str, int] = {}
        self.timers: Timers[Any] = Timers()
        self.outbox: dict[str, list[tuple[AnyEntry, Any]]] = {}
        self.tracing = False
        """True while someone listens: `if net.tracing: net.trace(...)`."""
        self.trace_events: list[TraceEvent] = []
        self.log_events: list[LogEvent] = []
        self.trace_clock: Callable[[], int] | None = None
        """The clock of trace and log events: a shell sets it, so that each function of a batch has
        a time of its own. Without it (in a simulation) their time is `now`."""
        # conservation: born + received == sent + consumed + dropped + held
        self.skb_born = 0
        self.skb_received = 0
        self.skb_sent = 0
        self.skb_consumed = 0
        self.skb_dropped = 0
        self.barriers: Any = None
        """The `skbus.bus.barrier.Barriers` of this process, set by its shell."""
        # Of 16 hexadecimal digits, so that columns of logs stand below each other.
        self._next_id = ((rand.getrandbits(31) | 1 << 30) << 32) | 1
        self._prune_timer: Timer[Any] = Timer(_prune_regions)
        pool.mapped = self._region_mapped

    # ---- calls into other processes ----------------------------------------------------

    def call(self, process: str, entry: Entry[T], item: T) -> None:
        """Append a call of `entry` in another process, with a NamedTuple of `skbus.core.abi`."""
        box = self.outbox.get(process)
        if box is None:
            box = self.outbox[process] = []
        box.append((entry, item))

    def call_skb(self, process: str, entry: SkbEntry[C], skb: SkBuff, cb: C) -> None:
        """The same with an skb, which is then the other process's. cb: the skb's new cb; None,
        where the entry has none, leaves the old one."""
        if cb is not None:
            skb.cb = cb
        self.skb_sent += 1
        box = self.outbox.get(process)
        if box is None:
            box = self.outbox[process] = []
        box.append((entry, skb))

    # ---- skbs --------------------------------------------------------------------------

    def alloc_skb(
        self,
        head: bytes = b"",
        frags: tuple[Frag, ...] = (),
        data_len: int = -1,
        protocol: int = 0,
        dev: int = 0,
        cb: tuple[object, ...] = (),
        lent: bool = False,
    ) -> SkBuff:
        """A new skb with a new id. data_len: bytes of the frags; -1: to be counted."""
        self.skb_born += 1
        self._next_id += 1
        skb = SkBuff(head, frags, self._next_id, 0, data_len, protocol, dev, cb, lent)
        skb.tstamp = self.now
        return skb

    def skb_clone(self, skb: SkBuff) -> SkBuff:
        """The same packet once more, under the same id; the clone owns no pool slot."""
        self.skb_born += 1
        return skb.clone()

    def consume_skb(self, skb: SkBuff) -> None:
        """The skb has served its purpose: its pool slots are given back."""
        self.skb_consumed += 1
        if skb.frags and not skb.lent:
            self.pool.free_frags(skb.frags)

    def kfree_skb(self, skb: SkBuff, reason: SkbDropReason, **details: object) -> None:
        """`kfree_skb_reason`: drop, count and trace. Counters and traces name the reason with
        the prefix SKB_DROP_REASON_."""
        name = "SKB_DROP_REASON_" + reason
        if name not in REASONS:
            raise ValueError(f"no such drop reason: {name} (skbus.core.dropreason lists them)")
        self.skb_dropped += 1
        self.drops[name] = self.drops.get(name, 0) + 1
        if skb.frags and not skb.lent:
            self.pool.free_frags(skb.frags)
        if self.tracing:
            self.trace("kfree_skb_reason", skb, reason=name, **details)

    def skb_bytes(self, skb: SkBuff) -> bytes:
        """The skb's bytes from `data` on, copied together. StalePlaceError as from `Pool.view`."""
        head = skb.head[skb.data :] if skb.data else skb.head
        return head + self.pool.gather(skb.frags) if skb.frags else head

    def get_random_u32(self) -> int:
        """32 random bits, from the source that the shell or the simulation gave."""
        return self.rand.getrandbits(32)

    # ---- seeing inside -----------------------------------------------------------------

    def trace(self, function: str, skb: SkBuff | None = None, **details: object) -> None:
        """One event of a packet's journey; call it only `if net.tracing`.

        The event has the packet's flow (see `flow`), so the details need not name it.
        """
        now = self.now if self.trace_clock is None else self.trace_clock()
        flow = self.flow(skb, details)
        about = None
        if skb is not None and flow is not None and flow.sport == NO_PORT:
            about = icmp_about(skb.head, self.skb_network_header(skb))
        self.trace_events.append(
            TraceEvent(
                now,
                self.name,
                function,
                skb.id if skb else 0,
                details,
                str(flow) if flow is not None else "",
                str(about) if about is not None else "",
            )
        )

    def flow(self, skb: SkBuff | None, details: Mapping[str, object]) -> Flow | None:
        """The flow of a trace event: by its details, by the packet's headers, or by the sock that
        the details or the skb's cb name."""
        flow = details_flow(details)
        if flow is not None and flow.sport != NO_PORT:
            return flow
        found = self.skb_flow(skb, skb.head) if skb is not None else flow
        if found is not None and found.sport == NO_PORT and skb is not None and skb.frags:
            found = self.skb_flow(skb, self._longer_head(skb)) or found
        if found is not None:
            return found
        sk = details.get("sk") or getattr(skb and skb.cb, "sk", None)
        flow = self.sk_flow(sk) if isinstance(sk, int) else flow
        dest = named_dest(skb, details)
        if dest is None:
            return flow
        saddr, sport = (flow.saddr, flow.sport) if flow is not None else (bytes(4), 0)
        daddr, dport = dest
        if sport == NO_PORT or not (sport or dport):  # raw and ping sockets
            sport = dport = NO_PORT
        return Flow(saddr, sport, daddr, dport)

    def skb_flow(self, skb: SkBuff, head: bytes) -> Flow | None:
        """The flow of an skb in this layer; None where the skb does not tell. head: skb.head, and
        perhaps more of the skb's bytes."""
        return skb_flow_dissect(skb, head)

    def _longer_head(self, skb: SkBuff) -> bytes:
        """An skb's head and the first bytes of its frags, where the ports may lie."""
        try:
            return skb.head + self.pool.gather(frags_slice(skb.frags, 0, _PORTS_LEN))
        except PoolError:
            return skb.head

    def skb_network_header(self, skb: SkBuff) -> int:
        """Where the IP header of an skb is in its head; negative where that is not known."""
        return skb.network_header

    def sk_flow(self, sk: int) -> Flow | None:
        """The flow of a sock, from us to its peer. None where this layer has no such sock, or the
        sock has no address and no port yet."""
        return None

    def info(self, function: str, **details: object) -> None:
        """Log something that a person running the stack wants to know; never once a packet."""
        self._log("info", function, details)

    def warning(self, function: str, **details: object) -> None:
        """Log a problem, with its cause and remedy in the details."""
        self._log("warning", function, details)

    def _log(self, level: str, function: str, details: Mapping[str, object]) -> None:
        now = self.now if self.trace_clock is None else self.trace_clock()
        self.log_events.append(LogEvent(level, function, details, now))

    def _region_mapped(self) -> None:
        if not self._prune_timer.pending():
            self.mod_timer(self._prune_timer, self.now + _PRUNE_EVERY)

    # ---- timers ------------------------------------------------------------------------

    def mod_timer(self, timer: Timer[Any], expires: int) -> None:
        """Arm or move a `skbus.core.timer.Timer`; expires in ns of the stack's clock."""
        self.timers.mod_timer(timer, expires, self.now)

    def del_timer(self, timer: Timer[Any]) -> bool:
        """Disarm; True if it was pending."""
        return self.timers.del_timer(timer)


def _prune_regions(net: Net) -> None:
    """Unmap the regions of clients that have died; the socket layer has removed their files."""
    if net.pool.prune():
        net.mod_timer(net._prune_timer, net.now + _PRUNE_EVERY)


N = TypeVar("N", bound=Net, contravariant=True)


class Core(Protocol):
    """A layer without I/O, driven by the shell or the simulation.

    `entries` maps each entry that this layer takes to a function `(net, item)` (see
    `entry.serve`). `start` runs once, `peer_up` whenever a neighbour says hello with a new epoch
    (the neighbour has started or restarted, and knows nothing of us). `idle` runs once after each
    batch, before the flush.
    """

    @property
    def net(self) -> Net: ...

    entries: Mapping[AnyEntry, Handler]

    def start(self) -> None: ...

    def peer_up(self, process: str) -> None: ...

    def idle(self) -> None: ...

    def held(self) -> int:
        """skbs that are neither consumed nor passed on (queues); for conservation."""
        ...

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        """(processes above, processes below) that a barrier passes through."""
        ...

    def status(self) -> dict[str, object]:
        """What `skbus status` shows of this layer."""
        ...


__all__ = [
    "MSEC",
    "SEC",
    "Clock",
    "Core",
    "LogEvent",
    "Net",
    "StalePlaceError",
    "TraceEvent",
]
