# SPDX-License-Identifier: MIT
"""recvmsg on streams, over whole stacks: urgent data, MSG_TRUNC, MSG_WAITALL, MSG_PEEK, control
messages, the error queue. Linux's own answers to the same calls are those of the loopback test."""

import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC
from skbustest.host import Host, SimSocket
from skbustest.world import World

ON = (1).to_bytes(4, "little")
SIOCATMARK = uapi.SIOCATMARK
SIOCINQ = uapi.SIOCINQ


def run(talk: Callable[[Host, SimSocket, SimSocket], Awaitable[Any]]) -> Any:
    """What `talk` returns, with two ends of a connection: (the second's host, first, second)."""
    with World(8) as world:
        a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def all_of_it() -> list[Any]:
            listener = await b.listen(80)
            one = await a.connect("10.0.0.2", 80)
            two, _ = await listener.accept()
            return [await talk(b, one, two)]

        found = world.run(world.start(all_of_it()))
        assert found is not None
        return found[0]


async def settle(host: Host, ms: int = 20) -> None:
    idle = await host.socket(2)
    await host.sys("poll", ((idle.fd, 0),), ms * MSEC)


Step = tuple[Any, ...]
URGENT: dict[str, tuple[Step, ...]] = {
    "out of band": (
        ("send", b"before", 0), ("send", b"!", uapi.MSG_OOB), ("send", b"after", 0),
        ("pri",), ("inq",), ("mark",), ("recv", 100, 0), ("mark",), ("inq",),
        ("recv", 100, uapi.MSG_OOB | uapi.MSG_PEEK), ("recv", 100, uapi.MSG_OOB), ("pri",),
        ("recv", 100, uapi.MSG_OOB), ("mark",), ("recv", 100, 0), ("mark",),
        ("recv", 100, uapi.MSG_OOB),
    ),
    "inline": (
        ("inline",), ("send", b"before", 0), ("send", b"!", uapi.MSG_OOB), ("send", b"after", 0),
        ("recv", 100, uapi.MSG_OOB), ("recv", 3, 0), ("mark",), ("recv", 100, 0), ("mark",),
        ("recv", 100, 0), ("mark",),
    ),
    "the last of several bytes": (
        ("send", b"abc", uapi.MSG_OOB), ("recv", 100, 0), ("mark",), ("recv", 1, uapi.MSG_OOB),
        ("send", b"de", 0), ("recv", 100, 0),
    ),
    "never read": (
        ("send", b"a", uapi.MSG_OOB), ("send", b"b", 0), ("recv", 100, 0),
        ("recv", 1, uapi.MSG_OOB),
    ),
    "forgotten for the next": (
        ("send", b"a", uapi.MSG_OOB), ("send", b"bcd", 0), ("send", b"e", uapi.MSG_OOB),
        ("send", b"fg", 0), ("inq",), ("mark",), ("recv", 100, 0), ("mark",),
        ("recv", 1, uapi.MSG_OOB), ("recv", 100, 0),
    ),
    "forgotten, and alone": (
        ("send", b"a", uapi.MSG_OOB), ("send", b"b", uapi.MSG_OOB), ("send", b"c", 0),
        ("recv", 1, uapi.MSG_OOB), ("recv", 100, 0),
    ),
    "forgotten after it was read": (
        ("send", b"a", uapi.MSG_OOB), ("recv", 1, uapi.MSG_OOB), ("send", b"bc", uapi.MSG_OOB),
        ("recv", 100, 0), ("recv", 1, uapi.MSG_OOB),
    ),
    "forgotten, but inline": (
        ("inline",), ("send", b"a", uapi.MSG_OOB), ("send", b"bcd", 0),
        ("send", b"e", uapi.MSG_OOB), ("recv", 100, 0), ("recv", 100, 0),
    ),
    "waiting for all ends at the mark": (
        ("send", b"abc", 0), ("send", b"!", uapi.MSG_OOB), ("recv", 100, uapi.MSG_WAITALL),
        ("mark",),
    ),
    "peeked over": (
        ("send", b"a", uapi.MSG_OOB), ("send", b"bcd", 0), ("recv", 2, uapi.MSG_PEEK),
        ("recv", 100, 0),
    ),
    "none": (("recv", 1, uapi.MSG_OOB), ("send", b"x", 0), ("mark",), ("recv", 1, 0)),
    "thrown away": (
        ("send", b"0123456789", 0), ("recv", 4, uapi.MSG_TRUNC), ("recv", 100, 0),
    ),
    "peeked": (
        ("send", b"0123456789", 0), ("recv", 4, uapi.MSG_PEEK), ("recv", 100, uapi.MSG_PEEK),
        ("recv", 10, uapi.MSG_WAITALL), ("recv", 1, uapi.MSG_DONTWAIT),
    ),
}  # fmt: skip
"""What is done -> step by step."""


def machine(steps: Iterable[Step]) -> list[object]:
    """The kernel's answers, over its loopback."""
    import fcntl
    import select

    out: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    with one, two:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for what, *args in steps:
            if what == "send":
                one.send(*args)
                select.select([two], [], [two], 60)
                _await_bytes(two)
            elif what == "inline":
                two.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            elif what == "recv":
                try:
                    data, _, flags, _ = two.recvmsg(args[0], 0, args[1] | socket.MSG_DONTWAIT)
                    thrown = args[1] & socket.MSG_TRUNC
                    out.append((len(data) if thrown else data, flags))
                except OSError as e:
                    out.append(errno.errorcode[e.errno or 0])
            elif what == "pri":
                poll = select.poll()
                poll.register(two, select.POLLPRI)
                out.append(bool(poll.poll(0)))
            else:
                buffer = bytearray(4)
                request = {"mark": SIOCATMARK, "inq": SIOCINQ}[what]
                fcntl.ioctl(two, request, buffer)
                out.append(int.from_bytes(buffer, "little"))
    return out


def _await_bytes(sock: socket.socket) -> None:
    """Loopback delivery is done when the sender's queue is empty; that was in its send."""


async def ours(host: Host, one: SimSocket, two: SimSocket, steps: Iterable[Step]) -> list[object]:
    out: list[object] = []
    await one.setsockopt(uapi.SOL_TCP, uapi.TCP_NODELAY, ON)
    for what, *args in steps:
        if what == "send":
            await one.send(*args)
            await settle(host)
        elif what == "inline":
            await two.setsockopt(uapi.SOL_SOCKET, uapi.SO_OOBINLINE, ON)
        elif what == "recv":
            try:
                data, _, flags, _ = await two.recvmsg(args[0], 0, args[1], 0)
                thrown = args[1] & uapi.MSG_TRUNC
                out.append((flags >> 32 if thrown else data, flags & 0xFFFFFFFF))
            except OSError as e:
                out.append(errno.errorcode[e.errno or 0])
        elif what == "pri":
            events, _ = await host.sys("poll", ((two.fd, uapi.POLLPRI),), 0)
            out.append(bool(events))
        else:
            out.append(await two.ioctl(SIOCATMARK if what == "mark" else SIOCINQ))
    return out


@pytest.mark.parametrize("name", list(URGENT))
def test_as_the_machine_does(name: str) -> None:
    steps = URGENT[name]
    answers = run(lambda host, one, two: ours(host, one, two, steps))
    assert answers == machine(steps)


def test_control_messages_of_a_stream() -> None:
    async def talk(host: Host, one: SimSocket, two: SimSocket) -> None:
        host.net("socket").tk_real_offset = 10**18
        await two.setsockopt(uapi.SOL_SOCKET, uapi.SO_TIMESTAMPNS, ON)
        await two.setsockopt(uapi.SOL_TCP, uapi.TCP_INQ, ON)
        await one.send(b"0123456789")
        await settle(host)
        data, cmsgs, flags, _ = await two.recvmsg(4, 100)
        assert (data, flags) == (b"0123", 0)
        (_, kind, stamp), (_, inq, left) = cmsgs
        assert (kind, inq, left) == (uapi.SCM_TIMESTAMPNS, uapi.TCP_CM_INQ, b"\6\0\0\0")
        sec, ns = struct.unpack("=qq", stamp)
        now = host.world.now + 10**18
        assert 0 < now - (sec * 10**9 + ns) < 30 * MSEC
        assert (await two.recvmsg(4, 0))[2] == uapi.MSG_CTRUNC

    run(talk)


def test_waiting_for_all() -> None:
    async def talk(host: Host, one: SimSocket, two: SimSocket) -> None:
        await one.send(b"01234")
        await settle(host)
        task = host.world.start(two.recv(10, uapi.MSG_WAITALL | uapi.MSG_PEEK))
        await settle(host)
        await one.send(b"56789")
        await settle(host)
        assert host.world.run(task) == b"0123456789" if task.done else False
        assert await two.recv(10, uapi.MSG_WAITALL) == b"0123456789"

    run(talk)


def test_a_refused_connection_is_on_the_error_queue() -> None:
    """Not the RST, but an ICMP error about the SYN."""
    with World(9) as world:
        a = world.host("a", "10.0.0.1/24")
        b = world.host("b", "10.0.0.2/24")
        world.link(a, b, delay=MSEC)

        async def talk() -> list[object]:
            sock = await a.socket()
            await sock.setsockopt(uapi.SOL_IP, uapi.IP_RECVERR, ON)
            try:
                await sock.connect(("10.0.0.77", 80))
            except OSError as e:
                refused = e.errno
            _, cmsgs, flags, address = await sock.recvmsg(100, 100, uapi.MSG_ERRQUEUE)
            ((_, _, ee),) = cmsgs
            return [refused, flags, address, *struct.unpack("=IBBB", ee[:7])]

        assert world.run(world.start(talk())) == [
            errno.EHOSTUNREACH, uapi.MSG_ERRQUEUE, ("10.0.0.77", 80),
            errno.EHOSTUNREACH, uapi.SO_EE_ORIGIN_ICMP, 3, 1,
        ]  # fmt: skip


def test_ip_options_of_a_stream() -> None:
    """Record route in every segment; the segments are shorter by it."""

    async def talk(host: Host, one: SimSocket, two: SimSocket) -> int:
        before = struct.unpack("=I", await one.getsockopt(uapi.SOL_TCP, uapi.TCP_MAXSEG))[0]
        await one.setsockopt(uapi.SOL_IP, uapi.IP_OPTIONS, bytes((7, 7, 4, 0, 0, 0, 0, 0)))
        await one.sendall(bytes(20000))
        assert await two.recv_exactly(20000) == bytes(20000)
        after = struct.unpack("=I", await one.getsockopt(uapi.SOL_TCP, uapi.TCP_MAXSEG))[0]
        return int(before - after)

    assert run(talk) == 8


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_byte_of_a_big_skb_is_no_end_of_the_file(size: int) -> None:
    """A read that is shorter than the skb in front of it takes what it asks for."""

    async def talk(host: Host, one: SimSocket, two: SimSocket) -> list[int]:
        await one.sendall(bytes(100_000))
        await settle(host, 50)
        return [len(await two.recv(size)) for _ in range(5)]

    assert run(talk) == [size] * 5
