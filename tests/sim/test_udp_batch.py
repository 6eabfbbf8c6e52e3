# SPDX-License-Identifier: MIT
"""Datagrams that travel together do what single ones do: the same frames on the wire, the same
datagrams for the application, the same counters."""

from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC
from skbus.core.syscall import POST
from skbustest.host import _IDENTITY, Host, SimSocket
from skbustest.world import World

DGRAM = 2
MIXED = [64] * 70 + [10] + [64] * 5 + [0] + [1472] * 46 + [1473, 1473, 5000] + [3, 2, 1, 1, 1]


class Run:
    """One run of the same script, with posts in one batch or one by one."""

    def __init__(self, together: bool) -> None:
        self.together = together
        self.frames: list[tuple[str, bytes]] = []
        self.got: list[tuple[bytes, Any]] = []
        self.counters: dict[str, dict[str, int]] = {}
        self.drops: dict[str, dict[str, int]] = {}
        self.joined = 0

    def watch(self, world: World) -> None:
        real = world.note

        def note(port: str, frame: bytes) -> None:
            self.frames.append((port, frame))
            real(port, frame)

        world.note = note  # type: ignore[method-assign]

    def post(self, world: World, sock: SimSocket, texts: list[bytes]) -> None:
        """As the client library does."""
        process = sock.host.processes["socket"]
        core: Any = process.core
        records = [POST.pack(len(text), 0, sock.fd, bytes(4)) + text for text in texts]
        for data in [b"".join(records)] if self.together else records:
            core.net.now = world.now
            core.posts(_IDENTITY, data, True)
            process.wake()
            if self.together:
                world.settle()
            else:
                world.advance(MSEC)
        world.advance(100 * MSEC)

    def end(self, world: World) -> None:
        world.check_conservation()
        for host in world.hosts.values():
            for process in host.processes.values():
                net = process.net
                name = f"{host.name} {net.name}"
                self.joined += net.mib["DevGroMerged"] + net.mib["DevGsoSegs"]
                self.drops[name] = dict(net.drops)
                self.counters[name] = {
                    k: v for k, v in net.mib.items() if v and k[:6] not in ("DevGro", "DevGso")
                }


def connected(world: World, a: Host, b: str) -> SimSocket:
    async def connect() -> SimSocket:
        sock = await a.socket(DGRAM)
        await sock.bind(("0.0.0.0", 4000))
        await sock.connect((b, 7))
        await sock.send(b"the first, for the neighbours")
        return sock

    sock = world.run(world.start(connect()))
    assert sock is not None
    return sock


def texts(sizes: list[int]) -> list[bytes]:
    return [bytes([i & 0xFF]) * size for i, size in enumerate(sizes)]


def script(together: bool, sizes: list[int], *, routed: bool = False, **what: Any) -> Run:
    run = Run(together)
    with World(3) as world:
        run.watch(world)
        a = world.host("a", "10.0.0.1/24", gateway="10.0.0.254")
        if routed:
            r = world.host(
                "r",
                "10.0.0.254/24",
                interfaces={"eth1": ("10.0.1.254/24",)},
                sysctl={"net.ipv4.ip_forward": 1},
            )
            b = world.host("b", "10.0.1.2/24", gateway="10.0.1.254")
            world.link(a, r, delay=MSEC // 4)
            world.link(r, b, delay=MSEC // 4)
            to = "10.0.1.2"
        else:
            b = world.host("b", "10.0.0.2/24", mtu=what.get("mtu", 1500))
            world.link(a, b, delay=MSEC // 4)
            to = "10.0.0.2"
        if what.get("loopback"):
            b, to = a, "10.0.0.1"

        async def server() -> SimSocket:
            sock = await b.socket(DGRAM)
            if what.get("listen", True):
                await sock.bind(("0.0.0.0", 7))
            if "rcvbuf" in what:
                await sock.setsockopt(
                    uapi.SOL_SOCKET, uapi.SO_RCVBUF, what["rcvbuf"].to_bytes(4, "little")
                )
            if what.get("cmsg"):
                for level, name in (
                    (uapi.SOL_SOCKET, uapi.SO_TIMESTAMP),
                    (uapi.SOL_IP, uapi.IP_PKTINFO),
                    (uapi.SOL_IP, uapi.IP_RECVTTL),
                    (uapi.SOL_IP, uapi.IP_RECVTOS),
                ):
                    await sock.setsockopt(level, name, b"\1\0\0\0")
            return sock

        sock = world.run(world.start(server()))
        assert sock is not None
        sender = connected(world, a, to)
        world.advance(10 * MSEC)
        run.post(world, sender, texts(sizes))

        async def read() -> None:
            try:
                while True:
                    data, control, _, who = await sock.recvmsg(65535, 200, 0x40)
                    run.got.append((data, [c for c in control if c[1] != 29] + [who]))
            except BlockingIOError:
                pass

        world.run(world.start(read()))
        run.end(world)
    return run


CASES: dict[str, tuple[list[int], dict[str, Any]]] = {
    "mixed": (MIXED, {}),
    "routed": (MIXED, {"routed": True}),
    "loopback": (MIXED, {"loopback": True}),
    "small receive buffer": ([64] * 100, {"rcvbuf": 4608}),
    "nobody listens": ([64] * 20, {"listen": False}),
    "control messages": ([64] * 20 + [30], {"cmsg": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_together_and_one_by_one(case: str) -> None:
    sizes, what = CASES[case]
    one, two = script(False, sizes, **what), script(True, sizes, **what)
    arp = b"\x08\x06"
    mine = [[f for f in run.frames if f[1][12:14] != arp] for run in (one, two)]
    for frames in mine:
        frames.sort(key=lambda f: f[0])  # each port's are in order
    assert mine[0] == mine[1]
    assert one.got == two.got
    assert one.counters == two.counters
    assert one.drops == two.drops
    assert two.joined > 0 or case == "loopback"
    assert one.joined == 0
    if case in ("mixed", "routed", "loopback"):
        assert [data for data, _ in two.got[1:]] == texts(MIXED)
