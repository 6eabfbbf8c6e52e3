# SPDX-License-Identifier: MIT
"""examples/note in virtual time: the smallest plug-in. Its sockets, options, groups and errors are
the library's."""

import errno
import socket as kernel
import sys
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.core.abi import GetPort, InitSock
from skbus.core.entry import AnyEntry
from skbus.core.interfaces import TransportProto
from skbus.core.net import SEC
from skbus.inet.dgram import DgramCore, DgramNet
from skbusd.socket.modalias import ModAlias
from skbustest.harness import Harness, small_pool
from skbustest.host import Host
from skbustest.hostile import calls
from skbustest.process import Process
from skbustest.world import World

NOTE = Path(__file__).parents[2] / "examples" / "note"
sys.path.insert(0, str(NOTE))

from skbus_note.note import IPPROTO_NOTE, SERVES, note_core, note_net  # noqa: E402

SOCK_DGRAM = 2
ALIAS = {"net-pf-2-proto-254-type-2": str(NOTE / "skbus_note" / "note_prot.py")}
A, B = "10.0.0.1", "10.0.0.2"
PATTERN = bytes(range(251)) * 300


def plug(host: Host, name: str = "note", epoch: int = 1) -> DgramCore:
    """Start the plug-in's process in a host that runs."""
    rand = Random(f"{host.name} {name} {epoch}")
    net = note_net(name, rand=rand, pool=host.pool, sysctl=host.sysctl, epoch=epoch)
    net.now = host.world.now
    core = note_core(net)
    process = host.processes[name] = Process(host.world, host, core, ("ip", "socket"))
    process.dispatcher.start()
    process.flush()
    process.wake()
    socket = host.net("socket")
    socket.modprobe = ModAlias(socket, ALIAS)
    return core


def hosts(world: World, **link: float) -> tuple[Host, Host]:
    a, b = world.host("a", A + "/24"), world.host("b", B + "/24")
    world.link(a, b, **link)
    world.advance(SEC)
    plug(a)
    plug(b)
    world.advance(SEC)
    return a, b


def note(host: Host) -> DgramNet:
    found = host.net("note")
    assert isinstance(found, DgramNet)
    return found


async def refused(awaitable: Awaitable[object]) -> int:
    """The errno of a call that fails."""
    try:
        await awaitable
    except OSError as e:
        return e.errno or 0
    return 0


def test_two_hosts_exchange_notes() -> None:
    """Of every size: empty, odd, longer than the MTU, the longest."""
    sizes = [0, 1, 7, 1000, 1474, 1475, 9001, 65507]
    with World(seed=1) as world:
        a, b = hosts(world)

        async def echo() -> None:
            sock = await b.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await sock.bind((B, 7))
            for _ in sizes:
                data, peer = await sock.recvfrom(70000)
                assert peer is not None
                await sock.sendto(data[::-1], peer)

        async def client() -> list[bytes]:
            sock = await a.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await sock.connect((B, 7))
            back = []
            for size in sizes:
                assert await sock.send(PATTERN[:size]) == size
                back.append(await sock.recv(70000))
            return back

        server = world.start(echo())
        back = world.run(world.start(client()))
        world.run(server)
        assert back == [PATTERN[:size][::-1] for size in sizes]
        assert note(a).counters == {
            "InNotes": len(sizes), "OutNotes": len(sizes), "InErrors": 0, "NoPorts": 0
        }  # fmt: skip
        world.check_conservation()


def test_a_damaged_note_is_not_delivered() -> None:
    with World(seed=2) as world:
        a, b = hosts(world, corrupt=0.3)
        sent = 60
        got: list[bytes] = []

        async def client() -> None:
            sock = await a.socket(SOCK_DGRAM, IPPROTO_NOTE)
            server = await b.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await server.bind(("0.0.0.0", 7))
            for i in range(sent):
                await sock.sendto(bytes([i]) * 1000, (B, 7))
            await world.sleep(SEC)
            count = note(b).counters["InNotes"]
            got.extend([await server.recv(2000) for _ in range(count)])

        world.run(world.start(client()))
        assert 0 < len(got) < sent
        assert all(len(set(data)) == 1 and len(data) == 1000 for data in got)
        assert note(b).counters["InErrors"] > 0
        world.check_conservation()


def test_errors_and_options_are_the_librarys() -> None:
    with World(seed=3) as world:
        a, b = hosts(world)

        async def client() -> None:
            sock = await a.socket(SOCK_DGRAM, IPPROTO_NOTE)
            assert await refused(sock.send(b"to whom?")) == errno.EDESTADDRREQ
            assert await refused(sock.sendto(bytes(65535 - 25), (B, 9))) == errno.EMSGSIZE
            assert await refused(sock.bind(("10.9.9.9", 1))) == errno.EADDRNOTAVAIL
            two = [await b.socket(SOCK_DGRAM, IPPROTO_NOTE) for _ in range(2)]
            await two[0].bind(("0.0.0.0", 7))
            assert await refused(two[1].bind(("0.0.0.0", 7))) == errno.EADDRINUSE
            # nobody has port 9: a connected socket hears so
            await sock.connect((B, 9))
            await sock.send(b"is anybody there?")
            assert await refused(sock.recv(100)) == errno.ECONNREFUSED
            # an option of level IP is in the header
            await sock.setsockopt(kernel.IPPROTO_IP, kernel.IP_TTL, pack("=i", 7))
            await sock.connect((B, 7))
            await sock.send(b"seven hops")
            assert await two[0].recv(100) == b"seven hops"

        world.run(world.start(client()))
        assert note(b).counters["NoPorts"] == 1
        assert next(iter(note(a).ports.values())).uc_ttl == 7
        world.check_conservation()


def test_a_group_is_joined_and_left() -> None:
    group = bytes((239, 1, 2, 3))
    with World(seed=4) as world:
        a, b = hosts(world)

        async def go() -> None:
            member = await b.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await member.bind(("0.0.0.0", 7))
            mreq = group + bytes((10, 0, 0, 2))
            await member.setsockopt(kernel.IPPROTO_IP, kernel.IP_ADD_MEMBERSHIP, mreq)
            await world.sleep(SEC)
            sock = await a.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await sock.setsockopt(kernel.IPPROTO_IP, kernel.IP_MULTICAST_IF, bytes((10, 0, 0, 1)))
            await sock.sendto(b"to all", ("239.1.2.3", 7))
            assert await member.recv(100) == b"to all"
            await member.close()

        world.run(world.start(go()))
        world.advance(SEC)
        assert all(group not in dev.mc_list for dev in b.net("ip").devices.values())
        world.check_conservation()


def test_it_outlives_its_neighbours_and_itself() -> None:
    with World(seed=5) as world:
        a, _ = hosts(world)

        async def use() -> None:
            sock = await a.socket(SOCK_DGRAM, IPPROTO_NOTE)
            await sock.bind((A, 7))
            again = plug(a, epoch=2)  # it dies, and comes back: its sockets are told to it anew
            await world.sleep(SEC)
            assert sorted(again.net.ports) == [7]
            await sock.sendto(b"to myself", (A, 7))
            assert await sock.recv(100) == b"to myself"
            other = plug(a, "note2")  # a second transport of that number is refused
            await world.sleep(SEC)
            assert other.net.refused == errno.EEXIST
            del a.processes["note2"]
            a.net("socket").peers.discard("note2")
            await sock.close()
            again.exit()
            a.processes["note"].flush()

        world.run(world.start(use()))
        world.advance(SEC)
        assert IPPROTO_NOTE not in a.net("ip").inet_protos
        world.check_conservation()


@pytest.mark.parametrize("name", ["note.py", "note_prot.py", "__main__.py"])
def test_how_little_it_is(name: str) -> None:
    """A page: what is not the protocol has its place in the library."""
    lines = (NOTE / "skbus_note" / name).read_text().splitlines()
    assert len(lines) <= 120


@settings(max_examples=40)
@given(st.lists(calls(SERVES), max_size=10))
def test_hostile_messages(messages: list[tuple[AnyEntry, Any]]) -> None:
    """Whatever ip and the socket layer say: no exception, and every skb is accounted for."""
    pool, _ = small_pool()
    host = Harness(note_core(note_net(rand=Random(1), pool=pool)))
    host.call(TransportProto.init, InitSock(2, 2, IPPROTO_NOTE, 2))
    host.call(TransportProto.bind, GetPort(2, 1, bytes(4), 7, 0, 0))
    for entry, item in messages:
        host.deliver(entry, item)
    host.run_for(60)
