# SPDX-License-Identifier: MIT
"""World: whole stacks of several hosts in one process, in virtual time.

    world = World(seed=7)
    a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
    world.link(a, b, loss="5%", delay="20ms")

    async def server() -> bytes: ...
    task = world.start(server())
    world.run(task)

The cores are those of the real processes, and every crossing goes through the real codec. Only
time and wires are made up. The same seed gives the same run, bit for bit, and `digest` shows it.
Time moves only when nobody has anything left to do. Times are ns, or texts such as "20ms".
docs/simulation.md is an introduction, with a worked example.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, TypeVar, overload

from skbus.core.net import MSEC, SEC
from skbus.core.quantities import parse_time
from skbustest.host import Host
from skbustest.link import Link, Port
from skbustest.pcap import PcapWriter
from skbustest.process import Process
from skbustest.record import HasInfo, Recorder, Series
from skbustest.tasks import Future, Runner, Task

T = TypeVar("T")

_START: Final = 1000 * SEC


def _ns(time: int | str) -> int:
    return parse_time(time) if isinstance(time, str) else time


class WorldError(AssertionError):
    """The simulation cannot go on; the text says why, and names the seed."""


class World:
    """A network of hosts in virtual time.

    seed: of everything that is random. now: ns. trace: keep all trace events of all hosts.
    codec: messages are encoded and decoded, as between processes; without it, they are handed over
    as they are, as between the layers of a fused process (`--fuse`). The run is the same.
    As a context manager, it adds the seed to an AssertionError that leaves its block.
    """

    def __init__(self, seed: int = 0, *, trace: bool = False, codec: bool = True) -> None:
        self.seed = seed
        self.now = _START
        self.rand = Random(f"skbus world {seed}")
        self.trace = trace
        self.codec = codec
        self.hosts: dict[str, Host] = {}
        self.runnable: deque[Process] = deque()
        self.runner = Runner()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._order = 0
        self._hash = hashlib.sha256()
        self._pcap: PcapWriter | None = None
        self._recorder = Recorder(_START)

    # ---- building ----------------------------------------------------------------------

    def host(self, name: str, *addresses: str, **options: Any) -> "Host":
        """A host with one interface `eth0` (see `Host`)."""
        if name in self.hosts:
            raise WorldError(f"there is a host {name} already")
        host = self.hosts[name] = Host(self, name, addresses, **options)
        host.boot()
        return host

    def port(self, name: str) -> Port:
        """A bare end for a link, for tests that write frames by hand."""
        return Port(self, name)

    def link(self, a: "Host | Port", b: "Host | Port", **impairment: float | str) -> Link:
        """Join two hosts or ports.

        impairment: the arguments of `skbus.inet.impair.Impairment`, in its units or as the lab's
        options have them (loss="5%", delay="20ms", rate="100mbit", limit=50), for each direction.
        """
        ends = [x.port() if isinstance(x, Host) else x for x in (a, b)]
        return Link(self, ends[0], ends[1], **impairment)

    def capture(self, path: str | Path) -> None:
        """Write every frame of every link to a pcapng file, as its sender sent it."""
        names = tuple(p.name for h in self.hosts.values() for p in h.ports.values())
        self._pcap = PcapWriter(path, names)

    def record(
        self, what: HasInfo, *columns: str, every: int | str = 10 * MSEC, name: str = ""
    ) -> Series:
        """Sample a socket or a port from now on (see `skbustest.record`).

        columns: members of `skbus.inet.tcp_info.TcpInfo` for a socket, of `LinkInfo` for a port
        (outgoing frames); all, where none is named. every: ns, or a text such as "10ms".
        ValueError for an unknown column. OSError for a port without a link, and where
        `SimSocket.info` raises it.
        """
        series = Series(name, what.info, columns, _ns(every))
        self._recorder.add(self.now, series)
        return series

    # ---- running -----------------------------------------------------------------------

    def start(self, coro: Coroutine[Any, Any, T], name: str = "") -> Task[T]:
        """Begin an application."""
        return self.runner.start(coro, name)

    @overload
    def run(self, until: Future[T], *, limit: int | str = ...) -> T: ...

    @overload
    def run(self, until: None = None, *, limit: int | str = ...) -> None: ...

    def run(self, until: Future[T] | None = None, *, limit: int | str = 3600 * SEC) -> T | None:
        """Let time pass until `until` is known, and return its result; or until all tasks are done.

        WorldError after `limit` of virtual time, or when nothing can happen any more.
        """
        limit = _ns(limit)
        end = self.now + limit
        while True:
            self.settle()
            if until is not None and until.done:
                return until.result()
            if until is None and all(t.done for t in self.runner.tasks):
                for task in self.runner.tasks:
                    task.result()
                return None
            if not self._events:
                raise self.error(f"nothing can happen any more; waiting: {self._waiting()}")
            if self._events[0][0] > end:
                raise self.error(f"not done after {limit / SEC:g} s; waiting: {self._waiting()}")
            self._step()

    def advance(self, time: int | str) -> None:
        """Let exactly so much time pass."""
        end = self.now + _ns(time)
        self.settle()
        while self._events and self._events[0][0] <= end:
            self._step()
            self.settle()
        self._recorder.until(end, self._set_clock)
        self.now = end

    async def sleep(self, time: int | str) -> None:
        """Wait in a task."""
        future: Future[None] = Future()
        self.at(self.now + _ns(time), lambda: future.set(None))
        await future

    def settle(self) -> None:
        """Let everyone do what there is to do at this moment."""
        passes = 0
        while True:
            if self._soon:
                self._soon.popleft()()
            elif self.runnable:
                self.runnable.popleft().run()
            elif not self.runner.run_ready():
                return
            passes += 1
            if passes > 5_000_000:
                raise self.error("the processes keep each other busy for ever at one moment")

    def at(self, when: int, call: Callable[[], None]) -> None:
        """Call something at a time (ns)."""
        self._order += 1
        heappush(self._events, (when, self._order, call))

    def soon(self, call: Callable[[], None]) -> None:
        """Call something before time moves on."""
        self._soon.append(call)

    def _step(self) -> None:
        when, _, call = heappop(self._events)
        self._recorder.until(when, self._set_clock)
        self.now = max(self.now, when)
        call()
        while self._events and self._events[0][0] <= self.now:
            heappop(self._events)[2]()

    def _set_clock(self, now: int) -> None:
        self.now = max(self.now, now)

    # ---- what happened -----------------------------------------------------------------

    def note(self, port: str, frame: bytes) -> None:
        """A frame went out at a port."""
        self._hash.update(f"{self.now} {port} {len(frame)} ".encode())
        self._hash.update(frame)
        if self._pcap is not None:
            self._pcap.write(port, self.now, frame)

    def digest(self) -> str:
        """SHA-256 of every frame of every link, with its time: equal for equal runs."""
        return self._hash.hexdigest()

    def error(self, text: str) -> WorldError:
        """An error that names the seed."""
        return WorldError(f"{text} [World(seed={self.seed}), t={(self.now - _START) / SEC:.6f} s]")

    def check_conservation(self) -> None:
        """Check that no process has lost or made up an skb. WorldError names one that has."""
        for host in self.hosts.values():
            for name, process in host.processes.items():
                net = process.net
                came = net.skb_born + net.skb_received
                went = net.skb_sent + net.skb_consumed + net.skb_dropped + process.core.held()
                if came != went:
                    raise self.error(
                        f"{host.name} {name}: {net.skb_born} born + {net.skb_received} received"
                        f" != {net.skb_sent} sent + {net.skb_consumed} consumed"
                        f" + {net.skb_dropped} dropped + {process.core.held()} held"
                    )

    def close(self) -> None:
        """End all tasks and finish the capture."""
        self.runner.close()
        if self._pcap is not None:
            self._pcap.close()
            self._pcap = None

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, AssertionError) and f"seed={self.seed}" not in str(error):
            error.args = (f"{error} [World(seed={self.seed})]",)

    def _waiting(self) -> str:
        return ", ".join(t.name for t in self.runner.tasks if not t.done) or "nobody"
