# SPDX-License-Identifier: MIT
"""Counts of what the cores do for one small piece of work, in the simulation: exact, and the same
on every machine.

Two hosts of a `World` talk; the host `b` is counted, process by process:

    wakeups      passes of its loop
    messages     that came into its inbox, and their bytes
    calls        Python functions called, and functions written in C called by them
    allocations  memory blocks that Python took (not those from its free lists); needs a C compiler

Function calls depend on the version of Python: 3.12 and newer have comprehensions without a call.
Applications, and the shell around a core (sockets, epoll), are not in here.
"""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from skbus.testing import Host, SimSocket, World
from skbusd.socket.core import SocketCore

WORK: Final = ("rr", "crr", "datagram")
TITLES: Final = {
    "rr": "1-byte round trip",
    "crr": "connect-ask-close",
    "datagram": "a datagram each way",
}
WARM_UP: Final = 10
TIMES: Final = 20
"""How often a work is done for its counts, which are then divided by this."""
REQUEST: Final = 64
DATAGRAM: Final = 64
PORT: Final = 7
COLUMNS: Final = ("wakeups", "messages", "bytes", "calls", "c_calls", "allocations")
Counts = dict[str, dict[str, int]]
"""process -> column -> count"""

ALLOCATOR: Final = r"""
#include <Python.h>
static unsigned long long made;
static PyMemAllocatorEx below[2];
static void *count_malloc(void *c, size_t n) { made++; PyMemAllocatorEx *b = c; return b->malloc(b->ctx, n); }
static void *count_calloc(void *c, size_t k, size_t n) { made++; PyMemAllocatorEx *b = c; return b->calloc(b->ctx, k, n); }
static void *count_realloc(void *c, void *p, size_t n) { made += !p; PyMemAllocatorEx *b = c; return b->realloc(b->ctx, p, n); }
static void count_free(void *c, void *p) { PyMemAllocatorEx *b = c; b->free(b->ctx, p); }
unsigned long long allocations(void) { return made; }
void begin(void) {
    PyMemAllocatorDomain domains[2] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    for (int i = 0; i < 2; i++) {
        PyMem_GetAllocator(domains[i], &below[i]);
        PyMemAllocatorEx ours = {&below[i], count_malloc, count_calloc, count_realloc, count_free};
        PyMem_SetAllocator(domains[i], &ours);
    }
}
"""  # noqa: E501


def allocation_counter() -> Callable[[], int] | str:
    """A function that tells how many memory blocks this process has taken; or why there is none.

    Its library stays loaded, and counts until the process ends.
    """
    import sysconfig

    compiler = shutil.which("cc") or shutil.which("gcc")
    include = sysconfig.get_path("include")
    if compiler is None:
        return "no C compiler (apt-get install gcc)"
    if not Path(include, "Python.h").is_file():
        return "no Python.h (apt-get install python3-dev)"
    with tempfile.TemporaryDirectory() as directory:
        source, library = Path(directory, "count.c"), Path(directory, "count.so")
        source.write_text(ALLOCATOR)
        done = subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", f"-I{include}", "-o", library, source],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"the C compiler failed: {done.stderr.strip()[-200:]}"
        loaded = ctypes.PyDLL(str(library))
    loaded.allocations.restype = ctypes.c_ulonglong
    loaded.begin()
    counter: Callable[[], int] = loaded.allocations
    return counter


class Inbox(deque[tuple[bytes, bytes]]):
    """A process's inbox that counts what is put into it."""

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__()
        self.counts = counts

    def append(self, message: tuple[bytes, bytes]) -> None:
        self.counts["messages"] += 1
        self.counts["bytes"] += sum(map(len, message))
        super().append(message)


class Counter:
    """Counts of one host's processes.

    meter: a number that grows; the column "allocations" has by how much. calls: count calls.
    """

    def __init__(self, host: Host, meter: Callable[[], int] | None, calls: bool) -> None:
        self.counts: Counts = {name: dict.fromkeys(COLUMNS, 0) for name in host.processes}
        self._meter = meter
        self._calls = calls
        for name, process in host.processes.items():
            assert not process.inbox
            process.inbox = Inbox(self.counts[name])
            process.run = self._counted(name, process.run, 1)  # type: ignore[method-assign]

    def reset(self) -> None:
        """Begin again at 0."""
        for counts in self.counts.values():
            counts.update(dict.fromkeys(COLUMNS, 0))

    def requests(self, request: Callable[..., None], core: SocketCore) -> Callable[..., None]:
        """SocketCore.request, counted where it is that core's."""
        counted = self._counted("socket", request, 0)

        def called(self: SocketCore, *arguments: Any) -> None:
            (counted if self is core else request)(self, *arguments)

        return called

    def _counted(self, name: str, run: Callable[..., None], wakeups: int) -> Callable[..., None]:
        counts = self.counts[name]
        meter = self._meter

        def profile(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                counts["calls"] += 1
            elif event == "c_call":
                counts["c_calls"] += 1

        def called(*arguments: Any) -> None:
            counts["wakeups"] += wakeups
            if meter is not None:
                before = meter()
                run(*arguments)
                counts["allocations"] += meter() - before
            elif self._calls:
                sys.setprofile(profile)
                run(*arguments)
                sys.setprofile(None)
                counts["c_calls"] -= 1  # sys.setprofile itself
            else:
                run(*arguments)

        return called


@contextmanager
def _requests_counted(counter: Counter, host: Host) -> Iterator[None]:
    core = host.processes["socket"].core
    assert isinstance(core, SocketCore)
    before = SocketCore.request
    SocketCore.request = counter.requests(before, core)  # type: ignore[method-assign]
    try:
        yield
    finally:
        SocketCore.request = before  # type: ignore[method-assign]


async def _echo(sock: SimSocket) -> None:
    while data := await sock.recv(1):
        await sock.send(data)


async def _connections(listener: SimSocket) -> None:
    while True:
        sock, _ = await listener.accept()
        await sock.recv(REQUEST)
        await sock.send(bytes(REQUEST))
        await sock.recv(1)
        await sock.close()


async def _datagrams(sock: SimSocket) -> None:
    while True:
        data, address = await sock.recvfrom(DATAGRAM)
        assert address is not None
        await sock.sendto(data, address)


def _prepare(world: World, work: str, a: Host, b: Host) -> Callable[[], Coroutine[Any, Any, None]]:
    """Start the server of a work; returns what does the work once, from the other host."""
    if work == "datagram":
        server = world.run(world.start(b.socket(2)))
        world.run(world.start(server.bind(("0.0.0.0", PORT))))
        world.start(_datagrams(server))
        client = world.run(world.start(a.socket(2)))
        world.run(world.start(client.connect(("10.0.0.2", PORT))))

        async def datagram() -> None:
            await client.send(bytes(DATAGRAM))
            assert len(await client.recv(DATAGRAM)) == DATAGRAM

        return datagram
    listener = world.run(world.start(b.listen(PORT)))
    if work == "crr":
        world.start(_connections(listener))

        async def connection() -> None:
            sock = await a.connect("10.0.0.2", PORT)
            await sock.send(bytes(REQUEST))
            assert len(await sock.recv(REQUEST)) == REQUEST
            await sock.close()

        return connection
    accepted = world.start(listener.accept())
    sock = world.run(world.start(a.connect("10.0.0.2", PORT)))
    world.start(_echo(world.run(accepted)[0]))

    async def round_trip() -> None:
        await sock.send(b"x")
        assert await sock.recv(1) == b"x"

    return round_trip


def count(
    work: str,
    *,
    meter: Callable[[], int] | None = None,
    calls: bool = False,
    times: int = TIMES,
    warm_up: int = WARM_UP,
) -> Counts:
    """The counts of doing a work so often, after a warm-up: process -> column -> count."""
    with World(seed=12) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b)
        do = _prepare(world, work, a, b)
        counter = Counter(b, meter, calls)
        with _requests_counted(counter, b):
            for n in range(warm_up + times):
                if n == warm_up:
                    counter.reset()
                world.run(world.start(do()))
                world.settle()
        return counter.counts


def count_all(work: str, allocations: Callable[[], int] | None) -> Counts:
    """All columns, each counted in a run of its own, since one changes the others."""
    found = count(work)
    for name, counts in count(work, calls=True).items():
        found[name] |= {column: counts[column] for column in ("calls", "c_calls")}
    if allocations is not None:
        for name, counts in count(work, meter=allocations).items():
            found[name]["allocations"] = counts["allocations"]
    return found
