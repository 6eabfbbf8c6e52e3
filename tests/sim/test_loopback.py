# SPDX-License-Identifier: MIT
"""A host talks to itself: by 127/8, by its own address, by none; bound to devices or not. What is
expected is what Linux 6.18 does (RFC 1122 3.2.1.3 (g), `inet_iif`)."""

import errno
import struct
from collections.abc import Iterator

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC, SEC
from skbus.core.uapi import IP_MTU, IP_PKTINFO, SO_BINDTODEVICE, SO_BROADCAST
from skbus.testing import Host, SimSocket, World
from skbustest.packets import inet_aton

OWN, LO = "10.0.0.2", "127.0.0.1"
ON = struct.pack("=i", 1)


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=8) as world:
        yield world


def a_host(world: World, **options: object) -> Host:
    """With a neighbour that answers nothing."""
    host = world.host("a", f"{OWN}/24", "10.0.0.3/24", **options)
    world.link(host, world.port("wire"))
    world.settle()
    return host


async def sock(host: Host, kind: int, dev: str, port: int = 0) -> SimSocket:
    made = await host.socket(kind)
    if dev:
        await made.setsockopt(uapi.SOL_SOCKET, SO_BINDTODEVICE, dev.encode() + b"\0")
    if port:
        await made.bind(("0.0.0.0", port))
    return made


async def stream(host: Host, dst: str, listener: str, client: str) -> str:
    """What becomes of a connection: the address that the listener sees."""
    server = await sock(host, 1, listener, 80)
    await server.listen()
    mine = await sock(host, 1, client)
    try:
        await mine.connect((dst, 80), timeout=2 * SEC)
    except OSError as e:
        return "refused" if e.errno == errno.ECONNREFUSED else "nothing"
    there, peer = await server.accept()
    await mine.send(b"hello")
    assert await there.recv(9) == b"hello"
    assert (await there.getsockname())[0] == (await mine.getpeername())[0]
    return peer[0]


async def datagram(host: Host, dst: str, listener: str, client: str) -> str:
    """The address that the receiver sees, and the device."""
    server = await sock(host, 2, listener, 7)
    await server.setsockopt(uapi.SOL_IP, IP_PKTINFO, ON)
    mine = await sock(host, 2, client)
    await mine.sendto(b"x", (dst, 7))
    try:
        _, control, _, peer = await server.recvmsg(9, 100, timeout=100 * MSEC)
    except BlockingIOError:
        return "nothing"
    assert peer is not None
    index = struct.unpack("=i", control[0][2][:4])[0]
    return f"{peer[0]} by {'lo' if index == 1 else 'eth0'}"


# rows: the destination; columns: listener and client bound to ("", lo, eth0) each
STREAMS = {
    LO: [LO, LO, "nothing", LO, LO, "nothing", "refused", "refused", "nothing"],
    "127.3.2.1": [LO, LO, "nothing", LO, LO, "nothing", "refused", "refused", "nothing"],
    OWN: [OWN, "nothing", OWN, "refused", OWN, "refused", OWN, "nothing", OWN],
    "0.0.0.0": [LO, LO, OWN, LO, LO, "refused", "refused", "refused", OWN],
}
BY_LO, OWN_LO, OWN_ETH = f"{LO} by lo", f"{OWN} by lo", f"{OWN} by eth0"
DATAGRAMS = {
    LO: [BY_LO, BY_LO, "nothing", BY_LO, BY_LO, "nothing", *["nothing"] * 3],
    "127.3.2.1": [BY_LO, BY_LO, "nothing", BY_LO, BY_LO, "nothing", *["nothing"] * 3],
    OWN: [OWN_ETH, OWN_LO, OWN_ETH, "nothing", OWN_LO, "nothing", OWN_ETH, "nothing", OWN_ETH],
    "0.0.0.0": [BY_LO, BY_LO, OWN_ETH, BY_LO, BY_LO, "nothing", "nothing", "nothing", OWN_ETH],
}
DEVICES = [(a, b) for a in ("", "lo", "eth0") for b in ("", "lo", "eth0")]


@pytest.mark.parametrize(("dst", "shards"), [*((dst, 1) for dst in STREAMS), (LO, 3), (OWN, 3)])
def test_streams(dst: str, shards: int) -> None:
    found = []
    for listener, client in DEVICES:
        with World(seed=8) as world:
            host = a_host(world, tcp_shards=shards)
            found.append(world.run(world.start(stream(host, dst, listener, client))))
    assert found == STREAMS[dst]


@pytest.mark.parametrize("dst", DATAGRAMS)
def test_datagrams(dst: str) -> None:
    found = []
    for listener, client in DEVICES:
        with World(seed=8) as world:
            found.append(world.run(world.start(datagram(a_host(world), dst, listener, client))))
    assert found == DATAGRAMS[dst]


@pytest.mark.parametrize("gone", ["device", "ip", "tcp", "udp", "socket"])
def test_whatever_else_is_gone(world: World, gone: str) -> None:
    """Without a link, and after a layer's rebirth."""
    host = a_host(world)
    if gone == "device":
        host.devices["eth0"].up = False
        host.processes["nic.eth0"].core.link_changed()  # type: ignore[attr-defined]
    else:
        host.start(gone)
    world.settle()
    assert world.run(world.start(stream(host, LO, "", ""))) == LO
    assert world.run(world.start(datagram(host, LO, "", ""))) == BY_LO


def test_the_broadcast_of_lo(world: World) -> None:
    """127.255.255.255 is one: it takes SO_BROADCAST."""
    host = a_host(world)

    async def go() -> tuple[int, str]:
        server = await sock(host, 2, "", 7)
        mine = await host.socket(2)
        try:
            await mine.sendto(b"x", ("127.255.255.255", 7))
            err = 0
        except OSError as e:
            err = e.errno or 0
        await mine.setsockopt(uapi.SOL_SOCKET, SO_BROADCAST, ON)
        await mine.sendto(b"y", ("127.255.255.255", 7))
        data, peer = await server.recvfrom(9)
        assert data == b"y"
        assert peer is not None
        return err, peer[0]

    assert world.run(world.start(go())) == (errno.EACCES, LO)


def test_its_mtu(world: World) -> None:
    """lo takes 65536 bytes, of which an IP packet can have one less."""
    host = a_host(world)

    async def go() -> tuple[int, list[int]]:
        server = await sock(host, 2, "", 7)
        mine = await host.socket(2)
        await mine.connect((LO, 7))
        mtu = int.from_bytes(await mine.getsockopt(uapi.SOL_IP, IP_MTU), "little")
        sizes = []
        for size in (0, 1, 1472, 1473, 65507):
            await mine.send(bytes(size))
            sizes.append(len(await server.recv(70000)))
        return mtu, sizes

    assert world.run(world.start(go())) == (65535, [0, 1, 1472, 1473, 65507])
    assert not host.net("ip").mib["IpFragCreates"]


def test_nothing_of_127_comes_or_goes_by_the_wire(world: World) -> None:
    """RFC 1122 3.2.1.3 (g)"""
    host = a_host(world)
    out: list[bytes] = []
    host.ports["eth0"].link.ends[1].receive = out.extend  # type: ignore[union-attr]

    async def go(source: str) -> int:
        mine = await host.socket(2)
        await mine.bind((source, 0))
        try:
            await mine.sendto(b"x", ("10.0.0.9", 7))
        except OSError as e:
            return e.errno or 0
        return 0

    assert world.run(world.start(go(LO))) == errno.EINVAL
    assert world.run(world.start(go("127.8.8.8"))) == errno.EINVAL
    assert not [frame for frame in out if inet_aton(LO) in frame]
