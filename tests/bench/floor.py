# SPDX-License-Identifier: MIT
"""What a crossing between two processes costs at least: rings that only pass the same bytes on.

    python tests/bench/crossings.py --floor

Each ring does a little more than the one before: `socketpair` blocks in recv and sends; `epoll`
waits in epoll first, as our shell does; `framed` takes the message out of its ZMTP frame and puts
it into a new one; `coded` also decodes and encodes it. The message is one that ip sends to tcp
with one byte of payload. The loop of a ring is plain Python, in the compiled build too.

`cores` is the floor for what a ring does not do: the cores' own time for a round trip in the
simulation, where they are in one process and find their caches warm.
"""

import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import counting
from skbus.bus.codec import decode, encode
from skbus.bus.zmtp import Decoder, encode_message, preamble
from skbus.testing import World

RINGS: Final = ("socketpair", "epoll", "framed", "coded")
HOPS: Final = 8
ROUNDS: Final = 1500
ROOM: Final = 1 << 16


class Crossing(NamedTuple):
    """us of one crossing: processor time of both sides, and the median of what passed."""

    cpu: float
    wall: float


def message() -> tuple[bytes, bytes]:
    """(meta, data) of the message from ip to tcp that carries one byte."""
    with World(seed=12) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b)
        listener = world.run(world.start(b.listen(7)))
        accepted = world.start(listener.accept())
        sock = world.run(world.start(a.connect("10.0.0.2", 7)))
        world.run(accepted)
        inbox = b.processes["tcp"].inbox
        found: list[tuple[bytes, bytes]] = []

        class Kept(type(inbox)):  # type: ignore[misc]
            def append(self, item: tuple[bytes, bytes]) -> None:
                found.append(item)
                super().append(item)

        b.processes["tcp"].inbox = Kept()
        world.run(world.start(sock.send(b"x")))
        world.advance("1ms")
    return found[0]


def passer(ring: str, meta: bytes, data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """(the bytes that go round, what a process does with them)."""
    frames = (meta, data) if data else (meta,)
    first = encode_message(frames)
    if ring in ("socketpair", "epoll"):
        return first, lambda message: message
    decoder = Decoder(b"PULL", 1 << 20)
    decoder.feed(preamble(b"PUSH"))

    def framed(message: bytes) -> bytes:
        (found,) = decoder.feed(message)
        return encode_message(found)

    def coded(message: bytes) -> bytes:
        (found,) = decoder.feed(message)
        told = decode(*found)
        meta, data = encode("ip", told.epoch, told.batch)
        return encode_message((meta, data) if data else (meta,))

    return first, framed if ring == "framed" else coded


def relay(
    ring: str, here: socket.socket, there: socket.socket, change: Callable[[bytes], bytes], n: int
) -> list[int]:
    """Pass n messages on; the times at which they came, ns."""
    times = []
    recv, send, clock = here.recv, there.send, time.monotonic_ns
    if ring == "socketpair":
        for _ in range(n):
            send(change(recv(ROOM)))
            times.append(clock())
        return times
    here.setblocking(False)
    epoll = select.epoll()
    epoll.register(here, select.EPOLLIN)
    for _ in range(n):
        epoll.poll()
        send(change(recv(ROOM)))
        times.append(clock())
    return times


def run_ring(ring: str, one_core: bool) -> Crossing:
    """Measure one ring."""
    first, change = passer(ring, *message())
    ends = [socket.socketpair() for _ in range(HOPS)]
    cores = os.sched_getaffinity(0)
    if one_core:
        os.sched_setaffinity(0, {min(cores)})
    before = os.times()
    children = []
    for i in range(1, HOPS):
        pid = os.fork()
        if not pid:
            relay(ring, ends[i - 1][1], ends[i][0], change, ROUNDS)
            os._exit(0)
        children.append(pid)
    ends[0][0].send(first)
    times = relay(ring, ends[-1][1], ends[0][0], change, ROUNDS)
    for pid in children:
        os.waitpid(pid, 0)
    after = os.times()
    os.sched_setaffinity(0, cores)
    for a, b in ends:
        a.close()
        b.close()
    wall = statistics.median((y - x) / 1000 for x, y in pairwise(times))
    return Crossing((sum(after[:4]) - sum(before[:4])) / (HOPS * ROUNDS) * 1e6, wall / HOPS)


def cores(work: str) -> float:
    """us that all cores of a host take for one round of a work; decoding and encoding included."""
    found = []
    for _ in range(3):
        counts = counting.count(work, meter=time.process_time_ns, times=60, warm_up=60)
        found.append(sum(n["allocations"] for n in counts.values()) / 60 / 1000)
    return min(found)


class Floor(NamedTuple):
    """All floors of one build, us."""

    rings: dict[str, Crossing]
    cores: dict[str, float]
    """work -> all cores"""


def measure(one_core: bool = True) -> dict[str, Crossing]:
    """All rings, by this interpreter: the best of three, since a floor is asked for."""
    found = [{ring: run_ring(ring, one_core) for ring in RINGS} for _ in range(3)]
    return {
        ring: Crossing(min(f[ring].cpu for f in found), min(f[ring].wall for f in found))
        for ring in RINGS
    }


def measure_by(python: str | Path, one_core: bool = True) -> Floor | None:
    """All floors, by another interpreter; None where it is not there."""
    if not os.path.exists(python):
        return None
    done = subprocess.run(
        [str(python), str(Path(__file__)), "one" if one_core else "all"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    rings = {ring: Crossing(*values) for ring, values in found["rings"].items()}
    return Floor(rings, found["cores"])


if __name__ == "__main__":
    every = Floor(measure(sys.argv[1:] != ["all"]), {work: cores(work) for work in ("rr", "crr")})
    sys.stdout.write(json.dumps(every._asdict()))
