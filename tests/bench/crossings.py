# SPDX-License-Identifier: MIT
"""The cost of a crossing between two processes, and how a process should wait for one.

    python tests/bench/crossings.py [--hops 8] [--rounds 3000]
    python tests/bench/crossings.py --floor

A ring of processes passes one small message round, by the pipes of `skbus.bus.pipe` or by libzmq's
sockets. Three ways to wait are compared: plain (block in select, no trio), trio (`wait_readable`
each time), and nap. Nap blocks for up to 5 ms and then uses trio, like `skbus.bus.service`. Each is
run with the processes spread and on one core. Processor time is that of all processes, libzmq's
threads included, divided by the crossings.

--floor: instead, rings that do ever less than our pipes (`floor.py`), interpreted and compiled.
"""

import argparse
import os
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

import trio
import zmq
from rich.console import Console
from rich.table import Table

import floor
from report import print_table
from skbus.bus.codec import Message, decode, encode
from skbus.bus.libzmq import readable
from skbus.bus.pipe import Inbox, Outlet
from skbus.core.abi import Barrier
from skbus.core.interfaces import Neighbour
from subjects import Compiled

NAP = 0.005


class LibzmqInbox:
    """An inbox by libzmq's PULL."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self.context.socket(zmq.PULL)
        self._socket.bind(endpoint)

    def filenos(self) -> list[int]:
        return [int(self._socket.getsockopt(zmq.FD))]

    def drain(self, budget: int, deliver: Callable[[Message], None]) -> int:
        for n in range(budget):
            if not readable(self._socket):
                return n
            deliver(decode(self._socket.recv()))
        return budget

    def close(self) -> None:
        self._socket.close()


class LibzmqOutlet:
    """An outlet by libzmq's PUSH."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.connect(endpoint)

    def send(self, meta: bytes, data: bytes) -> bool:
        self._socket.send(meta)
        return True


class Watcher:
    """Connects an outlet; the ring never fills it."""

    def watch(self, fd: int, mask: int, outlet: Outlet) -> None:
        pass

    def unwatch(self, fd: int) -> None:
        pass


class Relay:
    """Passes the message on; the first of the ring notes the time of each round."""

    def __init__(self, outlet: Outlet | LibzmqOutlet, rounds: int, first: bool) -> None:
        self.outlet, self.rounds, self.first = outlet, rounds, first
        self.times: list[float] = []
        self.done = False

    def pass_on(self, last: bool) -> None:
        self.outlet.send(*encode("ring", 1, [(Neighbour.barrier, Barrier(int(last), 0))]))

    def __call__(self, message: Message) -> None:
        last = bool(message.batch[0][1].token)
        if self.first:
            self.times.append(time.perf_counter())
            self.done = last
            last = len(self.times) > self.rounds
        else:
            self.done = last
        if not (self.first and self.done):
            self.pass_on(last)


def wait_plain(epoll: select.epoll) -> None:
    select.select((epoll,), (), (), 1)


async def sleep_plain(epoll: select.epoll) -> None:
    wait_plain(epoll)


async def sleep_trio(epoll: select.epoll) -> None:
    with trio.move_on_after(1):
        await trio.lowlevel.wait_readable(epoll.fileno())


async def sleep_nap(epoll: select.epoll) -> None:
    if not select.select((epoll,), (), (), NAP)[0]:
        await sleep_trio(epoll)


WAYS: dict[str, Callable[[select.epoll], Awaitable[None]]] = {
    "plain": sleep_plain,
    "trio": sleep_trio,
    "nap": sleep_nap,
}


async def loop(
    inbox: Inbox | LibzmqInbox, relay: Relay, sleep: Callable[[select.epoll], Awaitable[None]]
) -> None:
    epoll = select.epoll()
    epoll.register(inbox.filenos()[0], select.EPOLLIN)
    while not relay.done:
        if not inbox.drain(64, relay):
            await sleep(epoll)


def run_process(
    directory: str, index: int, libzmq: bool, way: str, options: argparse.Namespace
) -> list[float]:
    here = f"ipc://{directory}/{index}.in"
    there = f"ipc://{directory}/{(index + 1) % options.hops}.in"
    inbox: Inbox | LibzmqInbox
    outlet: Outlet | LibzmqOutlet
    if libzmq:
        inbox = LibzmqInbox(here)
        outlet = LibzmqOutlet(inbox.context, there)
    else:
        inbox = Inbox(here)
        outlet = Outlet(there, Watcher())
        while not outlet.connected:
            time.sleep(0.01)
            if outlet.retry_at:
                outlet.connect()
            else:
                inbox.drain(64, lambda message: None)
                outlet.event(select.EPOLLIN)
    relay = Relay(outlet, options.rounds, index == 0)
    if index == 0:
        relay.pass_on(False)
    trio.run(loop, inbox, relay, WAYS[way])
    time.sleep(0.05)  # the last message leaves with libzmq's thread
    inbox.close()
    if isinstance(inbox, LibzmqInbox):
        inbox.context.destroy(linger=100)
    return relay.times


def measure(
    libzmq: bool, way: str, one_core: bool, options: argparse.Namespace
) -> tuple[list[float], float]:
    """Round-trip times of a ring, and processor time of a crossing, both in us."""
    before = os.times()
    with tempfile.TemporaryDirectory() as directory:
        children = []
        if one_core:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for index in range(1, options.hops):
            pid = os.fork()
            if not pid:
                run_process(directory, index, libzmq, way, options)
                os._exit(0)
            children.append(pid)
        times = run_process(directory, 0, libzmq, way, options)
        for pid in children:
            os.waitpid(pid, 0)
    if one_core:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    spent = sum(os.times()[:4]) - sum(before[:4])
    skip = len(times) // 10
    found = sorted((b - a) * 1e6 for a, b in zip(times[skip:], times[skip + 1 :], strict=False))
    return found, spent / (options.rounds * options.hops) * 1e6


def floor_table() -> Table:
    """The rings of `floor.py`, by both builds."""
    builds = {"interpreted": sys.executable, "compiled": Compiled.python}
    table = Table(title=f"a ring of {floor.HOPS} processes on one core, us a crossing")
    table.add_column("what a process does")
    found = {}
    for build, python in builds.items():
        measured = floor.measure_by(python)
        if measured is not None:
            found[build] = measured.rings
            for column in ("processor", "passed"):
                table.add_column(f"{build},\n{column}", justify="right")
    for ring in floor.RINGS:
        cells = [f"{value:.1f}" for rings in found.values() for value in rings[ring]]
        table.add_row(ring, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="What a crossing between processes costs.")
    parser.add_argument("--hops", type=int, default=8, help="processes in the ring")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--floor", action="store_true", help="what a crossing costs at least")
    options = parser.parse_args()
    if options.floor:
        print_table(Console(), floor_table())
        return
    table = Table(title=f"round trip through {options.hops} processes, us")
    for column in ("pipes", "way of waiting", "cores", "median", "p99", "processor, a crossing"):
        table.add_column(column, justify="right")
    for libzmq in (True, False):
        for one_core in (False, True):
            for way in WAYS:
                times, spent = measure(libzmq, way, one_core, options)
                table.add_row(
                    "libzmq" if libzmq else "ours",
                    way,
                    "one" if one_core else "all",
                    f"{statistics.median(times):.0f}",
                    f"{times[int(len(times) * 0.99)]:.0f}",
                    f"{spent:.0f}",
                )
    print_table(Console(), table)


if __name__ == "__main__":
    main()
