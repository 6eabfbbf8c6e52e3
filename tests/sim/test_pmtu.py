# SPDX-License-Identifier: MIT
"""Path MTU discovery (RFC 1191) over a router with a narrow link, and blind "fragmentation needed"
(RFC 5927): what a path takes is found, and only by messages about packets that were sent."""

import struct
from collections.abc import Iterator

import pytest

from skbus.core import uapi
from skbus.core.checksum import csum_fold, csum_partial
from skbus.core.net import SEC
from skbus.core.uapi import (
    IP_MTU,
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    IP_PMTUDISC_PROBE,
)
from skbus.inet.headers import ethernet, icmp, ipv4, udp
from skbus.testing import Host, SimSocket, World
from skbustest.packets import inet_aton

A, B = "10.0.1.2", "10.0.2.2"
DF, MF = 0x4000, 0x2000


class Path:
    """a -- router -- b, where the router's links take `mtu` bytes."""

    def __init__(self, world: World, mtu: int, **options: object) -> None:
        self.world = world
        self.a = world.host("a", f"{A}/24", gateway="10.0.1.1", **options)
        router = world.host(
            "r",
            "10.0.1.1/24",
            interfaces={"eth1": ("10.0.2.1/24",)},
            sysctl={"net.ipv4.ip_forward": 1},
            mtu=mtu,
        )
        self.b = world.host("b", f"{B}/24", gateway="10.0.2.1")
        self.link = world.link(self.a, router)
        world.link(router, self.b)
        self.sent: list[tuple[int, int]] = []
        send = self.a.devices["eth0"].transmit

        def note(frame: bytes) -> None:
            if frame[12:14] == b"\x08\x00":
                iph = ipv4.parse(frame, 14)
                self.sent.append((iph.tot_len, iph.frag_off))
            send(frame)

        self.a.devices["eth0"].transmit = note

    def mtu(self) -> int:
        """What a thinks that the path takes."""
        known = self.a.net("ip").fnhe.get(inet_aton(B))
        return known.fnhe_pmtu if known is not None else 1500


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=5) as world:
        yield world


MTUS = [68, 400, 551, 552, 1280]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("mtu", MTUS)
def test_a_stream_gets_through(world: World, mtu: int, shards: int) -> None:
    path = Path(world, mtu, tcp_shards=shards)
    data = bytes(n * 7 & 0xFF for n in range(20000))

    async def sender() -> None:
        sock = await path.a.connect(B, 80)
        await sock.sendall(data)
        await sock.close()

    async def receiver(listener: SimSocket) -> bytes:
        sock, _ = await listener.accept()
        return await sock.recv_all()

    listener = world.run(world.start(path.b.listen(80)))
    assert listener is not None
    world.start(sender())
    assert world.run(world.start(receiver(listener))) == data
    assert path.mtu() == max(mtu, 552)
    assert all(size <= max(mtu, 552) for size, _ in path.sent[-10:])
    assert all(bool(frag & DF) == (mtu >= 552) for _, frag in path.sent[-10:])


async def datagram_socket(host: Host, mode: int | None = None) -> SimSocket:
    sock = await host.socket(2)
    if mode is not None:
        await sock.setsockopt(uapi.SOL_IP, IP_MTU_DISCOVER, struct.pack("=i", mode))
    return sock


@pytest.mark.parametrize("mtu", MTUS)
@pytest.mark.parametrize("mode", [None, IP_PMTUDISC_DONT])
def test_datagrams_get_through(world: World, mtu: int, mode: int | None) -> None:
    """The first one finds out, where it had DF; all later ones arrive."""
    path = Path(world, mtu)
    got = []

    async def go() -> None:
        theirs = await datagram_socket(path.b)
        await theirs.bind((B, 7))
        ours = await datagram_socket(path.a, mode)
        for size in (1400, 1400, 500, 100, 3000):
            await ours.sendto(bytes(size), (B, 7))
            await world.sleep(SEC)
            try:
                got.append(len(await theirs.recv(9000, timeout=SEC)))
            except BlockingIOError:  # timed out
                got.append(-1)

    world.run(world.start(go()))
    assert got == [1400 if mode is not None else -1, 1400, 500, 100, 3000]
    if mode is None:
        assert path.mtu() == max(mtu, 552)


@pytest.mark.parametrize("mode", [IP_PMTUDISC_DO, IP_PMTUDISC_PROBE])
def test_who_insists_on_df_keeps_it(world: World, mode: int) -> None:
    path = Path(world, 400)

    async def go() -> None:
        ours = await datagram_socket(path.a, mode)
        for _ in range(3):
            await ours.sendto(bytes(500), (B, 7))
            await world.sleep(SEC)

    world.run(world.start(go()))
    assert path.sent == [(528, DF)] * 3


def error(quoted: bytes, mtu: int) -> bytes:
    """ "Fragmentation needed" from anybody, about a packet that it makes up."""
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    body = body[:2] + csum_fold(csum_partial(body)).to_bytes(2, "big") + body[4:]
    return ipv4.build(inet_aton("203.0.113.9"), inet_aton(A), 1, 20 + len(body)) + body


def test_nobody_learns_from_a_stranger(world: World) -> None:
    """With a connection, a UDP socket, and a host that answers pings: whoever does not know what
    was sent changes nothing; who knows it does."""
    path = Path(world, 1500)
    mac = path.a.devices["eth0"].dev_addr

    def blind(protocol: int, payload: bytes) -> None:
        quoted = ipv4.build(inet_aton(A), inet_aton(B), protocol, 1400, frag_off=DF) + payload
        frame = ethernet.build(mac, b"\x02\0\0\0\x06\x66", 0x0800) + error(quoted, 600)
        path.link.carry(path.link.ends[1], frame)
        world.settle()

    async def go() -> tuple[int, int, int]:
        listener = await path.b.listen(80)
        theirs = await datagram_socket(path.b)
        await theirs.bind((B, 7))
        ours = await datagram_socket(path.a)
        await ours.sendto(b"x", (B, 7))
        here = await ours.getsockname()
        sock = await path.a.connect(B, 80)
        await listener.accept()
        return here[1], (await sock.getsockname())[1], 0

    found = world.run(world.start(go()))
    assert found is not None
    uport, tport, _ = found
    (tp,) = [tp for tp in path.a.net("tcp").socks.values() if tp.dport == 80]

    def segment(sport: int, dport: int, seq: int) -> bytes:
        return struct.pack("!HHI", sport, dport, seq & 0xFFFFFFFF)

    blind(6, segment(tport ^ 1, 80, tp.snd_nxt))
    blind(6, segment(tport, 81, tp.snd_nxt))
    blind(6, segment(tport, 80, tp.snd_nxt + 1))
    blind(6, segment(tport, 80, tp.snd_una - 1))
    blind(17, udp.build(uport ^ 1, 7, 1380))
    blind(1, icmp.build(icmp.ICMP_ECHO, 0, 77 << 16, 0))
    blind(1, icmp.build(icmp.ICMP_ECHOREPLY, 0, 77 << 16, 0))
    for protocol in (0, 2, 47, 132, 255):
        blind(protocol, bytes(8))
    assert path.mtu() == 1500
    assert tp.pmtu == 1500
    assert path.a.net("tcp").mib["TcpExtOutOfWindowIcmps"] == 2
    blind(17, udp.build(uport, 7, 1380))
    assert path.mtu() == 600
    path.a.net("ip").fnhe.clear()
    path.a.net("ip").rt_out.clear()
    blind(6, segment(tport, 80, tp.snd_una))
    assert path.mtu() == tp.pmtu == 600


@pytest.mark.parametrize("shards", [1, 2])
def test_all_hear_of_it_and_all_forget_it(world: World, shards: int) -> None:
    """What one connection finds out holds for the others to that address, and for UDP; ten minutes
    later the old size is tried again (RFC 1191 6.3)."""
    path = Path(world, 1280, tcp_shards=shards)

    async def go() -> None:
        listener = await path.b.listen(80)
        socks, theirs = [], []
        for _ in range(4):
            socks.append(await path.a.connect(B, 80))
            theirs.append((await listener.accept())[0])
        udp = await path.a.socket(2)
        await udp.connect((B, 7))
        assert await mtu(udp) == 1500
        assert [await mtu(sock) for sock in socks] == [1500] * 4
        await socks[0].sendall(bytes(20000))
        await theirs[0].recv_exactly(20000)
        assert [await mtu(sock) for sock in socks] == [1280] * 4
        assert await mtu(udp) == 1280
        await world.sleep(601 * SEC)
        assert [await mtu(sock) for sock in socks] == [1500] * 4
        assert await mtu(udp) == 1500
        for sock, there in zip(socks, theirs, strict=True):
            await sock.sendall(bytes(20000))
            await there.recv_exactly(20000)
        assert [await mtu(sock) for sock in socks] == [1280] * 4

    async def mtu(sock: SimSocket) -> int:
        return int.from_bytes(await sock.getsockopt(uapi.SOL_IP, IP_MTU), "little")

    world.run(world.start(go()))
