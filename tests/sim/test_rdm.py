# SPDX-License-Identifier: MIT
"""examples/rdm in virtual time: a transport that plugs into running stacks, carries messages over
a bad link, and is pulled out again."""

import errno
import sys
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.core.abi import GetPort, InitSock
from skbus.core.entry import AnyEntry
from skbus.core.interfaces import TransportProto
from skbus.core.net import SEC
from skbusd.socket.modalias import ModAlias
from skbusd.socket.module import ModuleError, delete_module
from skbustest.harness import Harness, small_pool
from skbustest.host import Host
from skbustest.hostile import calls
from skbustest.process import Process
from skbustest.world import World

RDM = Path(__file__).parents[2] / "examples" / "rdm"
sys.path.insert(0, str(RDM))

from skbus_rdm.core import SERVES, RdmCore  # noqa: E402
from skbus_rdm.netns import RdmNet  # noqa: E402

SOCK_RDM, IPPROTO_RDM = 4, 253
ALIAS = {"net-pf-2-proto-253-type-4": str(RDM / "skbus_rdm" / "rdm_prot.py")}
A, B = "10.0.0.1", "10.0.0.2"


async def refused(awaitable: Awaitable[object]) -> int:
    """The errno of a call that fails."""
    try:
        await awaitable
    except OSError as e:
        return e.errno or 0
    return 0


def plug(host: Host, name: str = "rdm", epoch: int = 1) -> RdmCore:
    """Start the plug-in's process in a host that runs."""
    rand = Random(f"{host.name} {name} {epoch}")
    net = RdmNet(name, rand=rand, pool=host.pool, sysctl=host.sysctl, epoch=epoch)
    net.now = host.world.now
    net.tracing = host.world.trace
    core = RdmCore(net)
    process = host.processes[name] = Process(host.world, host, core, ("ip", "socket"))
    process.dispatcher.start()
    process.flush()
    process.wake()
    socket = host.net("socket")
    socket.modprobe = ModAlias(socket, ALIAS)
    return core


def pull(host: Host) -> None:
    """End it as SIGTERM does."""
    process = host.processes["rdm"]
    core = process.core
    assert isinstance(core, RdmCore)
    core.exit()
    process.flush()
    host.world.settle()
    del host.processes["rdm"]


def hosts(world: World, **link: float) -> tuple[Host, Host]:
    a, b = world.host("a", A + "/24"), world.host("b", B + "/24")
    world.link(a, b, **link)
    world.advance(SEC)
    plug(a)
    plug(b)
    world.advance(SEC)
    return a, b


def counters(host: Host) -> dict[str, int]:
    found: dict[str, int] = host.net("rdm").counters
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_messages_come_once_and_in_order(seed: int) -> None:
    messages = [bytes([i]) * (1 + 997 * i % 4000) for i in range(30)]

    def once() -> tuple[list[bytes], list[bytes], str]:
        with World(seed=seed) as world:
            a, b = hosts(world, loss=0.05, dup=0.1, corrupt=0.02, reorder=0.2, delay=2_000_000)

            async def echo() -> list[bytes]:
                sock = await b.socket(SOCK_RDM, IPPROTO_RDM)
                await sock.bind(("0.0.0.0", 7))
                got = []
                for _ in messages:
                    data, peer = await sock.recvfrom(65536)
                    assert peer is not None
                    got.append(data)
                    await sock.sendto(data[::-1], peer)
                return got

            async def client() -> list[bytes]:
                sock = await a.socket(SOCK_RDM, IPPROTO_RDM)
                await sock.connect((B, 7))
                back = []
                for message in messages:
                    assert await sock.send(message) == len(message)
                    back.append(await sock.recv(65536))
                await sock.close()
                return back

            server = world.start(echo())
            back = world.run(world.start(client()))
            got = world.run(server)
            assert back is not None
            assert got is not None
            assert counters(a)["RetransMsgs"] > 0
            assert counters(b)["InMsgs"] == counters(a)["InMsgs"] == len(messages)
            assert counters(a)["InDups"] + counters(b)["InDups"] > 0
            world.advance(10 * SEC)
            world.check_conservation()
            return got, back, world.digest()

    got, back, digest = once()
    assert got == messages
    assert back == [m[::-1] for m in messages]
    assert once()[2] == digest


def test_errors() -> None:
    with World(seed=3) as world:
        a, b = hosts(world)

        async def client() -> None:
            sock = await a.socket(SOCK_RDM, IPPROTO_RDM)
            for address, err in (
                ((B, 9), errno.ECONNREFUSED),  # nobody has the port
                (("10.0.0.77", 9), errno.ETIMEDOUT),  # nobody has the address
                (("192.0.2.1", 9), errno.ENETUNREACH),  # there is no way
            ):
                assert await refused(sock.sendto(b"hello", address)) == err, address
            assert await refused(sock.send(b"to whom?")) == errno.EDESTADDRREQ
            assert await refused(sock.sendto(bytes(65500), (B, 9))) == errno.EMSGSIZE
            two = [await b.socket(SOCK_RDM, IPPROTO_RDM) for _ in range(2)]
            await two[0].bind(("0.0.0.0", 7))
            assert await refused(two[1].bind(("0.0.0.0", 7))) == errno.EADDRINUSE
            pull(b)
            assert await refused(sock.sendto(b"hello", (B, 7))) == errno.ENOPROTOOPT  # ICMP says so

        world.run(world.start(client()))
        assert b.net("ip").mib["IpInUnknownProtos"] == 1
        world.check_conservation()


def test_a_slow_reader_is_waited_for() -> None:
    with World(seed=4) as world:
        a, b = hosts(world)
        count, size = 12, 50_000  # more than a receive buffer holds

        async def server() -> int:
            sock = await b.socket(SOCK_RDM, IPPROTO_RDM)
            await sock.bind(("0.0.0.0", 7))
            got = 0
            for i in range(count):
                await world.sleep(SEC)
                got += (await sock.recv(65536)) == bytes([i]) * size
            return got

        async def client() -> None:
            sock = await a.socket(SOCK_RDM, IPPROTO_RDM)
            for i in range(count):
                await sock.sendto(bytes([i]) * size, (B, 7))

        task = world.start(server())
        world.run(world.start(client()))
        assert world.run(task) == count
        assert b.net("rdm").drops["SKB_DROP_REASON_SOCKET_RCVBUFF"] > 0
        assert b.net("socket").drops == {}
        world.check_conservation()


def test_plugged_in_and_pulled_out() -> None:
    with World(seed=5) as world:
        host = world.host("a", A + "/24")
        world.advance(SEC)
        net = host.net("socket")

        async def no_socket() -> int:
            return await refused(host.socket(SOCK_RDM, IPPROTO_RDM))

        def errno_of_socket() -> int | None:
            return world.run(world.start(no_socket()))

        assert errno_of_socket() == errno.ESOCKTNOSUPPORT
        plug(host)
        world.advance(SEC)
        assert host.net("ip").inet_protos[IPPROTO_RDM].process == "rdm"
        assert host.processes["ip"].core.barrier_edges()[0] == ["rdm", "tcp", "udp", "socket"]
        assert not net.modules  # nobody has asked for a socket yet

        async def use() -> None:
            sock = await host.socket(SOCK_RDM, IPPROTO_RDM)
            assert list(net.modules) == ["rdm_prot"]
            with pytest.raises(ModuleError, match="in use by 1 sockets"):
                delete_module(net, "rdm_prot")
            await sock.bind((A, 7))
            await sock.sendto(b"to myself", (A, 7))
            assert await sock.recv(100) == b"to myself"
            await host.sys("barrier", -1)
            # a second transport of that number is refused
            other = plug(host, "rdm2")
            await world.sleep(SEC)
            assert other.rdm.refused == errno.EEXIST
            assert host.net("ip").inet_protos[IPPROTO_RDM].process == "rdm"
            del host.processes["rdm2"]
            net.peers.discard("rdm2")
            # the process dies, and comes back: its sockets are told to it anew
            again = plug(host, epoch=2)
            await world.sleep(SEC)
            assert sorted(again.rdm.ports) == [7]
            await sock.sendto(b"again", (A, 7))
            assert await sock.recv(100) == b"again"
            await sock.close()

        world.run(world.start(use()))
        delete_module(net, "rdm_prot")
        host.processes["socket"].wake()
        world.advance(SEC)
        assert not net.modules
        assert "RDM" not in net.proto_list
        net.modprobe = None
        assert errno_of_socket() == errno.ESOCKTNOSUPPORT
        pull(host)
        assert IPPROTO_RDM not in host.net("ip").inet_protos
        assert "rdm" not in net.peers
        world.run(world.start(_barrier(host)))
        world.check_conservation()


async def _barrier(host: Host) -> None:
    await host.sys("barrier", -1)


@settings(max_examples=40)
@given(st.lists(calls(SERVES), max_size=10))
def test_hostile_messages(messages: list[tuple[AnyEntry, Any]]) -> None:
    """Whatever ip and the socket layer say: no exception, and every skb is accounted for."""
    pool, _ = small_pool()
    net = RdmNet(rand=Random(1), pool=pool)
    host = Harness(RdmCore(net))
    host.call(TransportProto.init, InitSock(2, 2, IPPROTO_RDM, 4))
    host.call(TransportProto.bind, GetPort(2, 1, bytes(4), 7, 0, 0))
    for entry, item in messages:
        host.deliver(entry, item)
    host.run_for(60)
