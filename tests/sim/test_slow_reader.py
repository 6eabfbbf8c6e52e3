# SPDX-License-Identifier: MIT
"""A reader that never reads slows its own sender and nobody else, and memory is bounded."""

from typing import Any

from skbus.core.net import MSEC
from skbus.testing import World
from skbustest.host import Host

READERS = 9
SIZE = 100_000
PAGE = 4096


class Watch:
    """The most that a host's processes held at once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.pages = 0
        self.rmem = 0

    def look(self) -> None:
        tcp: Any = self.host.net("tcp")
        self.pages = max(self.pages, tcp.tcp_memory_allocated)
        socks = self.host.net("socket").socks.values()
        self.rmem = max(self.rmem, sum(sk.sk_rmem_alloc for sk in socks))


async def serve(host: Host, readers: int, deaf: int) -> list[int]:
    """Accept all; those on port 81 are never read from. When each reader had everything, ns."""
    good, bad = await host.listen(80), await host.listen(81)
    ignored = [await bad.accept() for _ in range(deaf)]
    done = []

    async def read(sock: Any) -> None:
        got = await sock.recv_exactly(SIZE)
        assert len(got) == SIZE
        done.append(host.world.now)

    accepted = [(await good.accept())[0] for _ in range(readers)]
    tasks = [host.world.start(read(sock)) for sock in accepted]
    for task in tasks:
        await task
    assert len(ignored) == deaf
    return done


def run(deaf: int, sysctl: dict[str, object]) -> tuple[int, Watch, World]:
    """The time that the readers took; with so many beside them that do not read."""
    world = World(seed=3)
    sender = world.host("s", "10.0.0.1/24")
    receiver = world.host("r", "10.0.0.2/24", sysctl=sysctl)
    world.link(sender, receiver, delay=2 * MSEC, rate=200_000_000)
    watch = Watch(receiver)
    server = world.start(serve(receiver, READERS, deaf))

    async def send(port: int) -> None:
        sock = await sender.connect("10.0.0.2", port)
        await sock.sendall(b"x" * SIZE)

    async def forever() -> None:
        sock = await sender.connect("10.0.0.2", 81)
        while True:
            await sock.send(b"y" * 65536)

    for _ in range(deaf):
        world.start(forever())
    world.advance(2000 * MSEC)  # their windows are full by now
    begin = world.now
    for _ in range(READERS):
        world.start(send(80))
    while not server.done:
        world.advance(5 * MSEC)
        watch.look()
        assert world.now - begin < 60_000 * MSEC
    return max(server.result()) - begin, watch, world


def test_one_slow_reader_slows_nobody_else() -> None:
    alone, _, _ = run(0, {})
    beside, watch, world = run(1, {})
    assert beside <= alone * 1.1
    # All that is unread is what the windows allow: that of one socket, and little of the others.
    receiver = world.hosts["r"]
    rcvbuf = max(sk.rcvbuf for sk in receiver.net("tcp").socks.values())
    assert watch.rmem <= (READERS + 1) * rcvbuf
    assert not receiver.net("tcp").mib["TcpExtTCPRcvQDrop"]
    stuck = [sk for sk in receiver.net("tcp").socks.values() if sk.rmem_alloc > 20_000]
    assert len(stuck) == 1
    assert stuck[0].rcv_wnd < stuck[0].advmss  # the sender's window is shut
    sending = world.hosts["s"].net("socket")
    assert max(sk.sk_wmem_queued for sk in sending.socks.values()) <= 8_388_608 + 65536
    world.check_conservation()


def test_under_pressure_memory_stays_within_tcp_mem() -> None:
    pages = (64, 96, 128)
    time, watch, world = run(6, {"net.ipv4.tcp_mem": pages})
    receiver = world.hosts["r"].net("tcp")
    assert time < 30_000 * MSEC
    assert receiver.mib["TcpExtTCPMemoryPressures"] >= 1
    # Who has (nearly) nothing unread gets one segment in any case.
    assert watch.pages <= pages[2] + (READERS + 6) * ((65536 + 16384) // PAGE + 1)
    assert watch.rmem <= watch.pages * PAGE
    world.check_conservation()
