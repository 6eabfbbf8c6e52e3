# SPDX-License-Identifier: MIT
"""Control messages both ways, and the error queue, over whole stacks."""

import errno
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC
from skbus.core.skbuff import SkBuff
from skbustest.host import Host
from skbustest.world import World

ON = (1).to_bytes(4, "little")
A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
RR = bytes((7, 11, 4)) + bytes(8) + b"\0"
"""Record route, with room for two."""


def run(talk: Callable[[Host, Host], Awaitable[None]], *, sysctl: object = None) -> World:
    """Two hosts on one wire, 10.0.0.1 and 10.0.0.2."""
    with World(5) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def all_of_it() -> bool:
            await talk(a, b)
            return True

        assert world.run(world.start(all_of_it()))
        return world


def of(cmsgs: list[tuple[int, int, bytes]], level: int, kind: int) -> bytes:
    (found,) = [data for at, k, data in cmsgs if (at, k) == (level, kind)]
    return found


async def errno_of(call: Awaitable[object]) -> int:
    """What a call fails with; 0 where it does not."""
    try:
        await call
    except OSError as e:
        return e.errno or 0
    return 0


def test_what_a_datagram_came_with() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        for option in (
            uapi.IP_PKTINFO, uapi.IP_RECVTTL, uapi.IP_RECVTOS, uapi.IP_RECVORIGDSTADDR,
            uapi.IP_RECVOPTS, uapi.IP_RETOPTS,
        ):  # fmt: skip
            await server.setsockopt(uapi.SOL_IP, option, ON)
        await client.setsockopt(uapi.SOL_IP, uapi.IP_OPTIONS, RR)
        ancillary = [
            (uapi.SOL_IP, uapi.IP_TTL, (77).to_bytes(4, "little")),
            (uapi.SOL_IP, uapi.IP_TOS, b"\x2e"),
        ]
        await client.sendmsg(b"with", ancillary, 0, ("10.0.0.2", 53))
        data, got, flags, _ = await server.recvmsg(100, 1000)
        assert (data, flags) == (b"with", 0)
        assert [kind for _, kind, _ in got] == [
            uapi.IP_PKTINFO, uapi.IP_TTL, uapi.IP_TOS, uapi.IP_RECVOPTS, uapi.IP_RETOPTS,
            uapi.IP_ORIGDSTADDR,
        ]  # fmt: skip
        assert of(got, 0, uapi.IP_PKTINFO) == struct.pack("=i4s4s", 2, B, B)
        assert of(got, 0, uapi.IP_TTL) == (77).to_bytes(4, "little")
        assert of(got, 0, uapi.IP_TOS) == b"\x2e"
        route = bytes((7, 11, 8)) + A + bytes(4)
        assert of(got, 0, uapi.IP_RECVOPTS) == route + b"\0"
        assert of(got, 0, uapi.IP_RETOPTS) == route + b"\0"
        assert of(got, 0, uapi.IP_ORIGDSTADDR) == struct.pack("=H", 2) + b"\0\x35" + B + bytes(8)
        # without them: the socket's own again
        await client.sendto(b"x", ("10.0.0.2", 53))
        _, got, _, _ = await server.recvmsg(100, 1000)
        assert (of(got, 0, uapi.IP_TTL), of(got, 0, uapi.IP_TOS)) == (b"\x40\0\0\0", b"\0")

    run(talk)


def test_room_for_control_messages() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        await server.setsockopt(uapi.SOL_IP, uapi.IP_RECVTTL, ON)
        await server.setsockopt(uapi.SOL_IP, uapi.IP_RECVTOS, ON)
        want = {
            0: ([], uapi.MSG_CTRUNC),
            15: ([], uapi.MSG_CTRUNC),
            18: ([(0, 2, b"\x40\0")], uapi.MSG_CTRUNC),
            20: ([(0, 2, b"\x40\0\0\0")], uapi.MSG_CTRUNC),
            24: ([(0, 2, b"\x40\0\0\0")], uapi.MSG_CTRUNC),
            41: ([(0, 2, b"\x40\0\0\0"), (0, 1, b"\0")], 0),
        }
        for room, answer in want.items():
            await client.sendto(b"x", ("10.0.0.2", 53))
            _, got, flags, _ = await server.recvmsg(100, room)
            assert (got, flags) == answer, room

    run(talk)


def test_a_source_address_and_a_device_for_one_datagram() -> None:
    with World(6) as world:
        a = world.host("a", "10.0.0.1/24", "10.0.0.7/24")
        b = world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def talk() -> list[object]:
            server, client = await b.socket(2), await a.socket(2)
            await server.bind(("0.0.0.0", 53))
            out: list[object] = []
            for info in (
                (0, bytes((10, 0, 0, 7))),
                (2, bytes(4)),
                (0, bytes((192, 0, 2, 1))),
                (99, bytes(4)),
            ):
                pktinfo = struct.pack("=i4s4s", *info, bytes(4))
                try:
                    await client.sendmsg(b"x", [(0, uapi.IP_PKTINFO, pktinfo)], 0, ("10.0.0.2", 53))
                    out.append((await server.recvfrom(10))[1][0])  # type: ignore[index]
                except OSError as e:
                    out.append(e.errno)
            return out

        assert world.run(world.start(talk())) == [
            "10.0.0.7", "10.0.0.1", errno.EINVAL, errno.ENODEV,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "kind", "data", "err"),
    [
        (0, uapi.IP_TTL, b"\0\0\0\0", errno.EINVAL),
        (0, uapi.IP_TTL, b"\1", errno.EINVAL),
        (0, uapi.IP_TOS, b"\0\1\0\0", errno.EINVAL),
        (0, uapi.IP_PKTINFO, b"short", errno.EINVAL),
        (0, uapi.IP_RETOPTS, b"\7\2\0\0", errno.EINVAL),
        (0, 99, b"", errno.EINVAL),
        (1, 99, b"", errno.EINVAL),
        (17, uapi.UDP_SEGMENT, b"\1\0\0\0", errno.EINVAL),
        (6, 1, b"of another level", 0),
        (1, uapi.SO_MARK, b"\7\0\0\0", 0),
    ],
)
def test_control_messages_that_are_sent(level: int, kind: int, data: bytes, err: int) -> None:
    async def talk(a: Host, b: Host) -> None:
        sock = await a.socket(2)
        got = 0
        try:
            await sock.sendmsg(b"x", [(level, kind, data)], 0, ("10.0.0.2", 9))
        except OSError as e:
            got = e.errno or 0
        assert got == err

    run(talk)


def test_segments_asked_for_by_a_control_message() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        size = (1000).to_bytes(2, "little")
        await client.sendmsg(bytes(2500), [(17, uapi.UDP_SEGMENT, size)], 0, ("10.0.0.2", 53))
        assert [len(await server.recv(5000)) for _ in range(3)] == [1000, 1000, 500]

    run(talk)


@pytest.mark.parametrize("ns", [False, True])
def test_when_it_came(ns: bool) -> None:
    async def talk(a: Host, b: Host) -> None:
        b.net("socket").tk_real_offset = 1_700_000_000 * 10**9
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        option = uapi.SO_TIMESTAMPNS if ns else uapi.SO_TIMESTAMP
        await server.setsockopt(1, option, ON)
        await client.sendto(b"x", ("10.0.0.2", 53))
        skb: SkBuff | None = None
        while skb is None:
            await b.sys("poll", ((server.fd, 1),), -1)
            skb = b.net("socket").socks[b.net("socket").numbers.next - 2].sk_receive_queue[0]
        await a.sys("poll", ((client.fd, 0),), 50 * MSEC)
        _, got, _, _ = await server.recvmsg(10, 100)
        sec, fraction = struct.unpack("=qq", of(got, 1, option))
        at = skb.tstamp + b.net("socket").tk_real_offset
        assert (sec, fraction) == (at // 10**9, at % 10**9 // (1 if ns else 1000))
        assert skb.tstamp < b.world.now

    run(talk)


def test_the_error_queue_of_a_datagram_socket() -> None:
    async def talk(a: Host, b: Host) -> None:
        sock = await a.socket(2)
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, ON)
        assert await errno_of(sock.recvmsg(100, 100, uapi.MSG_ERRQUEUE)) == errno.EAGAIN
        await sock.sendto(b"anybody?", ("10.0.0.2", 9))
        events, _ = await a.sys("poll", ((sock.fd, 0),), -1)
        assert events == ((sock.fd, uapi.POLLERR),)
        data, got, flags, address = await sock.recvmsg(4, 100, uapi.MSG_ERRQUEUE)
        assert (data, address) == (b"anyb", ("10.0.0.2", 9))
        assert flags == uapi.MSG_ERRQUEUE | uapi.MSG_TRUNC
        err = struct.pack("=IBBBBII", errno.ECONNREFUSED, uapi.SO_EE_ORIGIN_ICMP, 3, 3, 0, 0, 0)
        offender = struct.pack("=HH4s8x", 2, 0, B)
        assert of(got, 0, uapi.IP_RECVERR) == err + offender
        # reading it took the pending error as well
        assert await sock.getsockopt(uapi.SOL_SOCKET, uapi.SO_ERROR) == bytes(4)
        assert (await a.sys("poll", ((sock.fd, 0),), 0))[0] == ()

    run(talk)


def test_an_error_of_our_own_is_on_the_queue() -> None:
    async def talk(a: Host, b: Host) -> None:
        sock = await a.socket(2)
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, ON)
        await sock.setsockopt(
            uapi.SOL_IP, uapi.IP_MTU_DISCOVER, uapi.IP_PMTUDISC_DO.to_bytes(4, "little")
        )
        assert await errno_of(sock.sendto(bytes(3000), ("10.0.0.2", 9))) == errno.EMSGSIZE
        _, got, _, address = await sock.recvmsg(4, 100, uapi.MSG_ERRQUEUE)
        number, origin, _, _, _, mtu, _ = struct.unpack(
            "=IBBBBII", of(got, 0, uapi.IP_RECVERR)[:16]
        )
        assert (number, origin, mtu) == (errno.EMSGSIZE, uapi.SO_EE_ORIGIN_LOCAL, 1500)
        assert address == ("10.0.0.2", 9)

    run(talk)


@pytest.mark.parametrize("kind", ["raw", "ping"])
def test_the_error_queue_of_raw_and_ping_sockets(kind: str) -> None:
    async def talk(a: Host, b: Host) -> None:
        a.net("socket").sysctl.set("net.ipv4.ping_group_range", (0, 65535))
        sock = await a.socket(*((3, 253) if kind == "raw" else (2, 1)))
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, ON)
        echo = b"\x08\0\0\0\0\0\0\1what was sent"
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_TTL, ON)
        to = "10.0.0.2" if kind == "raw" else "10.0.0.77"
        await sock.sendmsg(echo, (), 0, (to, 0))
        await a.sys("poll", ((sock.fd, 0),), -1)
        data, got, _, address = await sock.recvmsg(100, 100, uapi.MSG_ERRQUEUE)
        assert data[8:] == b"what was sent"
        assert address == (to, 0)
        number = errno.ENOPROTOOPT if kind == "raw" else errno.EHOSTUNREACH
        fields = struct.unpack("=IBBBBII", of(got, 0, uapi.IP_RECVERR)[:16])
        assert fields[:4] == (number, uapi.SO_EE_ORIGIN_ICMP, 3, 2 if kind == "raw" else 1)

    run(talk)


def test_the_error_queue_is_bounded_and_emptied() -> None:
    async def talk(a: Host, b: Host) -> None:
        sock = await a.socket(2)
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, ON)
        await sock.setsockopt(uapi.SOL_SOCKET, uapi.SO_RCVBUF, bytes(4))
        b.sysctl.set("net.ipv4.icmp_ratelimit", 0)
        idle = await a.socket(2)
        for port in range(1, 41):
            with suppress(ConnectionRefusedError):  # of the datagram before
                await sock.sendto(bytes(100), ("10.0.0.2", port))
            await a.sys("poll", ((idle.fd, 0),), 5 * MSEC)
        core = a.processes["socket"].core
        held = core.held()
        assert 3 < held < 10
        assert a.net("socket").drops["SKB_DROP_REASON_SOCKET_RCVBUFF"] > 0
        await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, bytes(4))
        assert core.held() == 0

    run(talk)


def test_a_corked_datagram() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        await client.setsockopt(uapi.SOL_UDP, uapi.UDP_CORK, ON)
        await client.sendto(b"one ", ("10.0.0.2", 53))
        await client.send(b"two ")
        await client.setsockopt(uapi.SOL_UDP, uapi.UDP_CORK, bytes(4))
        assert await server.recv(100) == b"one two "
        await client.sendmsg(b"three ", (), uapi.MSG_MORE, ("10.0.0.2", 53))
        assert await client.send(b"four") == 4
        assert await server.recv(100) == b"three four"
        await client.sendmsg(bytes(60000), (), uapi.MSG_MORE, ("10.0.0.2", 53))
        assert await errno_of(client.send(bytes(6000))) == errno.EMSGSIZE
        await client.sendto(b"after", ("10.0.0.2", 53))
        assert await server.recv(100) == b"after"
        await client.sendmsg(b"never", (), uapi.MSG_MORE, ("10.0.0.2", 53))
        await client.close()

    run(talk)


def test_no_checksum_on_the_wire() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        await client.setsockopt(uapi.SOL_SOCKET, uapi.SO_NO_CHECK, ON)
        await client.sendto(b"x", ("10.0.0.2", 53))
        await b.sys("poll", ((server.fd, 1),), -1)
        (skb,) = b.net("socket").socks[b.net("socket").numbers.next - 2].sk_receive_queue
        at = skb.transport_header
        assert skb.head[at + 6 : at + 8] == b"\0\0"

    run(talk)


def test_broadcast_must_be_asked_for() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        await server.setsockopt(uapi.SOL_IP, uapi.IP_PKTINFO, ON)
        assert await errno_of(client.sendto(b"all", ("10.0.0.255", 53))) == errno.EACCES
        await client.setsockopt(uapi.SOL_SOCKET, uapi.SO_BROADCAST, ON)
        await client.sendto(b"all", ("10.0.0.255", 53))
        _, got, _, _ = await server.recvmsg(10, 100)
        # where it went, and from where to answer
        pktinfo = struct.pack("=i4s4s", 2, B, bytes((10, 0, 0, 255)))
        assert of(got, 0, uapi.IP_PKTINFO) == pktinfo

    run(talk)


def test_how_many_were_dropped() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await b.socket(2), await a.socket(2)
        await server.bind(("0.0.0.0", 53))
        await server.setsockopt(uapi.SOL_SOCKET, uapi.SO_RCVBUF, bytes(4))
        await server.setsockopt(uapi.SOL_SOCKET, uapi.SO_RXQ_OVFL, ON)
        for _ in range(5):
            await client.sendto(bytes(1000), ("10.0.0.2", 53))
        await a.sys("poll", ((client.fd, 0),), 50 * MSEC)
        assert (await server.recvmsg(2000, 100))[1] == []
        await client.sendto(b"x", ("10.0.0.2", 53))
        await a.sys("poll", ((client.fd, 0),), 50 * MSEC)
        dropped = b.net("udp").mib["UdpRcvbufErrors"] + b.net("socket").mib["UdpRcvbufErrors"]
        assert dropped
        for _ in range(6 - dropped - 1):
            _, cmsgs, _, _ = await server.recvmsg(2000, 100)
        assert of(cmsgs, 1, uapi.SO_RXQ_OVFL) == dropped.to_bytes(4, "little")

    run(talk)


def test_super_segments_for_who_wants_them() -> None:
    async def talk(a: Host, b: Host) -> None:
        server, client = await a.socket(2), await a.socket(2)
        await server.bind(("127.0.0.1", 53))
        await server.setsockopt(uapi.SOL_UDP, uapi.UDP_GRO, ON)
        size = (1000).to_bytes(2, "little")
        await client.sendmsg(bytes(2500), [(17, uapi.UDP_SEGMENT, size)], 0, ("127.0.0.1", 53))
        data, cmsgs, _, _ = await server.recvmsg(5000, 100)
        assert (len(data), cmsgs) == (2500, [(17, uapi.UDP_GRO, (1000).to_bytes(4, "little"))])

    run(talk)


def test_nothing_below_the_least_ttl() -> None:
    """IP_MINTTL (RFC 5082): segments that have come too far do not count."""

    async def talk(a: Host, b: Host) -> None:
        listener = await b.listen(80)
        one = await a.connect("10.0.0.2", 80)
        two, _ = await listener.accept()
        await two.setsockopt(uapi.SOL_IP, uapi.IP_MINTTL, (255).to_bytes(4, "little"))
        await one.send(b"from afar")
        await a.sys("poll", ((listener.fd, 0),), 50 * MSEC)
        assert await errno_of(two.recv(10, 0, 0)) == errno.EAGAIN
        dropped = b.net("tcp").mib["TcpExtTCPMinTTLDrop"]
        assert dropped
        assert b.net("tcp").drops["SKB_DROP_REASON_TCP_MINTTL"] == dropped
        await one.setsockopt(uapi.SOL_IP, uapi.IP_TTL, (255).to_bytes(4, "little"))
        assert await two.recv(10) == b"from afar"

    run(talk)


def test_a_device_to_be_bound_to() -> None:
    async def talk(a: Host, b: Host) -> None:
        for kind in (1, 2):
            sock = await a.socket(kind)
            assert await errno_of(
                sock.setsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"eth7\0")
            ) == (errno.ENODEV)
            await sock.setsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"lo")
            assert await sock.getsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, 16) == b"lo\0"
            assert (
                await errno_of(sock.getsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, 3))
                == errno.EINVAL
            )
            await sock.setsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"eth0\0")
            assert await sock.getsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, 16) == b"eth0\0"
        server = await b.socket(2)
        await server.bind(("0.0.0.0", 53))
        assert await errno_of(sock.sendto(b"x", ("10.0.0.2", 53))) == 0
        assert await server.recv(10) == b"x"
        await server.setsockopt(uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, b"lo")
        await sock.sendto(b"not by lo", ("10.0.0.2", 53))
        await a.sys("poll", ((sock.fd, 0),), 50 * MSEC)
        assert await errno_of(server.recv(10, 0, 0)) == errno.EAGAIN

    run(talk)
