# SPDX-License-Identifier: MIT
"""UDP over whole stacks: sockets, udp, ip, nic and a wire."""

import errno

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC, SEC
from skbustest.host import Host, SimSocket
from skbustest.world import World

SOCK_DGRAM = 2


async def error_of_an_answer(sock: SimSocket) -> int:
    """The errno that comes where an answer should; 0 where one does."""
    await sock.send(b"anybody?")
    try:
        await sock.recv(100)
    except OSError as e:
        return e.errno or 0
    return 0


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 9000, 65507])
def test_echo(size: int) -> None:
    """Datagrams of every size, in fragments where they must be."""
    data = bytes(n * 7 & 0xFF for n in range(size))
    with World(1) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def server() -> None:
            sock = await b.socket(SOCK_DGRAM)
            await sock.bind(("0.0.0.0", 7))
            got, peer = await sock.recvfrom(65535)
            assert peer is not None
            await sock.sendto(got, peer)

        async def client() -> bytes:
            sock = await a.socket(SOCK_DGRAM)
            await sock.connect(("10.0.0.2", 7))
            await sock.send(data)
            return await sock.recv(65535)

        world.start(server())
        world.settle()
        task = world.start(client())
        assert world.run(task) == data
        fragments = -(-(size + 8) // 1480) if size > 1472 else 0
        assert b.net("ip").mib["IpReasmReqds"] == fragments
        assert a.net("ip").mib["IpFragCreates"] == fragments
        assert b.net("udp").mib["UdpInDatagrams"] == a.net("udp").mib["UdpInDatagrams"] == 1


def test_nobody_listens() -> None:
    with World(2) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def client() -> int:
            sock = await a.socket(SOCK_DGRAM)
            await sock.connect(("10.0.0.2", 9))
            return await error_of_an_answer(sock)

        assert world.run(world.start(client())) == errno.ECONNREFUSED
        assert b.net("udp").mib["UdpNoPorts"] == b.net("ip").mib["IcmpOutDestUnreachs"] == 1


def test_no_such_host() -> None:
    with World(3) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b)

        async def client() -> int:
            sock = await a.socket(SOCK_DGRAM)
            await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, b"\1\0\0\0")
            await sock.connect(("10.0.0.77", 9))
            return await error_of_an_answer(sock)

        assert world.run(world.start(client())) == errno.EHOSTUNREACH
        assert a.net("ip").drops == {"SKB_DROP_REASON_NEIGH_FAILED": 1}


def test_to_ourselves_and_to_all() -> None:
    with World(4) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def bound(host: Host) -> SimSocket:
            sock = await host.socket(SOCK_DGRAM)
            await sock.bind(("0.0.0.0", 99))
            return sock

        async def run() -> list[tuple[bytes, object]]:
            on_a, on_b = await bound(a), await bound(b)
            sender = await a.socket(SOCK_DGRAM)
            await sender.bind(("0.0.0.0", 1234))
            await sender.sendto(b"self", ("127.0.0.1", 99))
            await sender.sendto(b"me", ("10.0.0.1", 99))
            with pytest.raises(PermissionError):
                await sender.sendto(b"all", ("10.0.0.255", 99))
            await sender.setsockopt(uapi.SOL_SOCKET, uapi.SO_BROADCAST, b"\1\0\0\0")
            await sender.sendto(b"all", ("10.0.0.255", 99))
            got = [await on_a.recvfrom(100) for _ in range(3)]
            return [*got, await on_b.recvfrom(100)]

        assert world.run(world.start(run())) == [
            (b"self", ("127.0.0.1", 1234)),
            (b"me", ("10.0.0.1", 1234)),
            (b"all", ("10.0.0.1", 1234)),
            (b"all", ("10.0.0.1", 1234)),
        ]


def test_through_a_router() -> None:
    """A host, a router, a host. The router's links are narrower than the host's: the first
    datagram that is too long is lost, its sender is told, and the path MTU is known."""
    with World(5) as world:
        a = world.host("a", "10.0.0.1/24", gateway="10.0.0.254")
        r = world.host(
            "r",
            "10.0.0.254/24",
            interfaces={"eth1": ("10.1.0.254/24",)},
            sysctl={"net.ipv4.ip_forward": 1},
            mtu=1200,
        )
        b = world.host("b", "10.1.0.1/24", gateway="10.1.0.254", mtu=1200)
        world.link(a, r, delay=MSEC)
        world.link(r, b, delay=MSEC)

        async def server() -> None:
            sock = await b.socket(SOCK_DGRAM)
            await sock.bind(("0.0.0.0", 7))
            while True:
                got, peer = await sock.recvfrom(65535)
                assert peer is not None
                await sock.sendto(got, peer)

        async def client() -> list[int]:
            sock = await a.socket(SOCK_DGRAM)
            await sock.connect(("10.1.0.1", 7))
            sizes = []
            for size in (100, 1400, 1400, 5000):
                await sock.send(bytes(size))
                try:
                    sizes.append(len(await sock.recv(65535, timeout=5 * SEC)))
                except OSError as e:
                    sizes.append(-(e.errno or 0))
            return sizes

        world.start(server())
        world.settle()
        assert world.run(world.start(client())) == [
            100,
            -errno.EMSGSIZE,
            1400,
            5000,
        ]
        assert r.net("ip").drops == {"SKB_DROP_REASON_PKT_TOO_BIG": 1}
        # There and back: 1 datagram, then 2 fragments, then 5.
        assert r.net("ip").mib["IpForwDatagrams"] == 2 * (1 + 2 + 5)


def test_ip_and_udp_may_be_started_anew() -> None:
    with World(6) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)
        socks: list[SimSocket] = []

        async def start() -> None:
            server = await b.socket(SOCK_DGRAM)
            await server.bind(("10.0.0.2", 7))
            client = await a.socket(SOCK_DGRAM)
            await client.connect(("10.0.0.2", 7))
            socks.extend((server, client))

        async def ping(data: bytes) -> bytes:
            server, client = socks
            await client.send(data)
            got, peer = await server.recvfrom(100)
            assert peer is not None
            await server.sendto(got, peer)
            return await client.recv(100)

        world.run(world.start(start()))
        assert world.run(world.start(ping(b"one"))) == b"one"
        for process in ("ip", "udp", "ip", "nic.eth0"):
            for host in (a, b):
                host.start(process)
                world.settle()
            assert world.run(world.start(ping(process.encode()))) == process.encode()
