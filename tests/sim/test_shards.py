# SPDX-License-Identifier: MIT
"""TCP spread over several processes (`tcp_shards`): every segment reaches the process that has its
connection, whatever way the connection came about; and binds, listeners, options and the end of a
socket are of one stack, not of several."""

import errno
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC, SEC
from skbus.core.syscall import SendmsgArgs
from skbus.core.uapi import (
    IP_RECVERR,
    SO_ERROR,
    SO_REUSEADDR,
    SOL_IP,
    SOL_SOCKET,
    SOL_TCP,
    TCP_FASTOPEN,
    TCP_INFO,
    TCP_MAXSEG,
    TCP_NODELAY,
)
from skbus.testing import Host, SimSocket, World
from skbusd.ip.netns import RouteConfig
from skbustest.packets import inet_aton

MSG_FASTOPEN = 0x20000000
ON = (1).to_bytes(4, "little")


def count(host: Host, name: str) -> list[int]:
    """A counter of each tcp process."""
    return [host.net(process).mib[name] for process in host.tcp_processes]


def check(world: World, *, resets: int = 0) -> None:
    """Each connection is in the process to which ip steers it; nothing is lost or made up; no
    segment found nobody."""
    for host in world.hosts.values():
        for process in host.tcp_processes if host.tcp_shards > 1 else ():
            net = host.net(process)
            assert all(net.shard_of(key) == net.shard for key in net.ehash)
            assert not net.bad_requests
            assert "SKB_DROP_REASON_NO_SOCKET" not in net.drops or resets
        assert sum(count(host, "TcpOutRsts")) <= resets
        assert not host.net("socket").requests.waiting
    world.check_conservation()


@pytest.fixture(params=[2, 3])
def shards(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=11) as world:
        yield world


def pair(world: World, shards: int, other: int = 1, **options: Any) -> tuple[Host, Host]:
    """A host with shards, and one with `other`."""
    a = world.host("a", "10.0.0.1/24", "10.0.0.3/24", tcp_shards=shards, **options)
    b = world.host("b", "10.0.0.2/24", tcp_shards=other)
    world.link(a, b, delay=MSEC)
    return a, b


def do(world: World, coro: Coroutine[Any, Any, Any]) -> Any:
    return world.run(world.start(coro))


async def fails(coro: Coroutine[Any, Any, Any]) -> int:
    """The errno of a call that must fail."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await coro
    return int(caught.value.errno or 0)


async def talk(sock: SimSocket, text: bytes) -> None:
    """Send, end, and see it come back."""
    await sock.sendall(text)
    await sock.shutdown(1)
    assert await sock.recv_all() == text
    await sock.close()


async def echo(peer: SimSocket) -> None:
    await peer.sendall(await peer.recv_all())
    await peer.close()


def serve(world: World, host: Host, port: int, *, backlog: int = 128) -> SimSocket:
    """An echo server; it runs until its listener is closed."""
    listener: SimSocket = do(world, host.listen(port, backlog))

    async def accept() -> None:
        try:
            while True:
                peer, _ = await listener.accept()
                world.start(echo(peer))
        except OSError:
            pass

    world.start(accept())
    return listener


def run_all(world: World, tasks: list[Coroutine[Any, Any, Any]]) -> None:
    for task in [world.start(task) for task in tasks]:
        world.run(task)


# ---- flows --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_flows_both_ways_each_in_its_shard(shards: int, seed: int) -> None:
    """Accepted and connected, with loss: no reset, all bytes, and all shards have their part."""
    with World(seed=seed) as world:
        a = world.host("a", "10.0.0.1/24", tcp_shards=shards)
        b = world.host("b", "10.0.0.2/24", tcp_shards=shards)
        world.link(a, b, delay=MSEC, loss=0.01)
        for host in (a, b):
            serve(world, host, 80)

        async def one(host: Host, to: str, i: int) -> None:
            await talk(await host.connect(to, 80), b"%d." % i * (1 + i * 37 % 4000))

        run_all(
            world,
            [one(a, "10.0.0.2", i) for i in range(40)] + [one(b, "10.0.0.1", i) for i in range(40)],
        )
        check(world)
        for host in (a, b):
            assert max(count(host, "TcpActiveOpens")) <= 40 // shards + 1
            passive = count(host, "TcpPassiveOpens")
            assert sum(passive) == 40
            assert min(passive) > 40 / shards / 3


def test_a_host_talks_to_itself(world: World, shards: int) -> None:
    """Each end of a connection over the loopback is where its own segments come in."""
    a, _ = pair(world, shards)
    serve(world, a, 80)

    async def one(to: str) -> None:
        await talk(await a.connect(to, 80), b"x" * 5000)

    run_all(world, [one(to) for to in ("127.0.0.1", "10.0.0.1", "10.0.0.3") * 6])
    check(world)
    assert min(count(a, "TcpActiveOpens")) >= 18 // shards


def test_one_shard_is_what_it_was(world: World) -> None:
    a, _ = pair(world, 1)
    world.advance(MSEC)
    assert a.tcp_processes == ("tcp",)
    assert not a.net("socket").shards.prots
    assert a.net("ip").inet_protos[6].shards == ()


# ---- bind and connect ----------------------------------------------------------------------


def test_a_bound_socket_connects_in_the_shard_of_its_port(world: World, shards: int) -> None:
    """To a wildcard or an address, to a port or to any: what was bound is what the peer sees."""
    a, b = pair(world, shards)
    serve(world, b, 80)
    seen: set[int] = set()

    async def one(addr: str, port: int) -> None:
        sock = await a.socket()
        await sock.setsockopt(SOL_TCP, TCP_MAXSEG, (700).to_bytes(4, "little"))
        await sock.bind((addr, port))
        name = await sock.getsockname()
        assert name[0] == addr
        assert port in (0, name[1])
        await sock.connect(("10.0.0.2", 80))
        assert (await sock.getsockname())[1] == name[1]
        assert (await sock.getsockname())[0] == (addr if addr != "0.0.0.0" else "10.0.0.1")
        # the shard to which it moved knows its options
        assert int.from_bytes(await sock.getsockopt(SOL_TCP, TCP_MAXSEG), "little") <= 700
        seen.add(name[1])
        await talk(sock, b"y" * 3000)

    run_all(
        world,
        [one("0.0.0.0", 5000 + i) for i in range(12)]
        + [one("10.0.0.3", 6000 + i) for i in range(12)]
        + [one("0.0.0.0", 0) for _ in range(12)],
    )
    assert len(seen) == 36
    check(world)
    assert all(count(a, "TcpActiveOpens"))
    assert not a.net("socket").shards.replicas
    world.advance(120 * SEC)
    assert [len(a.net(p).socks) + len(a.net(p).bhash) for p in a.tcp_processes] == [0] * shards


def test_ports_run_out_at_all_shards_together(world: World, shards: int) -> None:
    """A shard without a port for this peer does not end the search."""
    a, b = pair(world, shards, sysctl={"net.ipv4.ip_local_port_range": [40000, 40009]})
    do(world, b.listen(80))

    async def scenario() -> None:
        for _ in range(10):
            await a.connect("10.0.0.2", 80)
        assert await fails(a.connect("10.0.0.2", 80)) == errno.EADDRNOTAVAIL

    do(world, scenario())
    check(world)
    assert sum(len(a.net(p).ehash) for p in a.tcp_processes) == 10


def test_a_connection_is_refused_and_tried_again(world: World, shards: int) -> None:
    a, b = pair(world, shards)

    async def scenario() -> None:
        sock = await a.socket()
        await sock.bind(("0.0.0.0", 5001))
        assert await fails(sock.connect(("10.0.0.2", 80))) == errno.ECONNREFUSED
        assert await fails(sock.connect(("10.0.0.2", 81))) == errno.ECONNREFUSED
        listener = await b.listen(82)
        await sock.connect(("10.0.0.2", 82))
        peer, address = await listener.accept()
        assert address == ("10.0.0.1", 5001)
        await sock.close()
        await peer.close()

    do(world, scenario())
    check(world, resets=2)


# ---- who has which port ---------------------------------------------------------------------


def test_one_port_is_bound_once(world: World, shards: int) -> None:
    """Whoever has it: a bound socket, a listener, a connection of any shard, a TIME_WAIT."""
    a, b = pair(world, shards)
    do(world, b.listen(80))

    async def scenario() -> None:
        first = await a.socket()
        await first.bind(("10.0.0.1", 7000))
        for addr in ("10.0.0.1", "0.0.0.0"):
            assert await fails((await a.socket()).bind((addr, 7000))) == errno.EADDRINUSE
        other = await a.socket()
        await other.bind(("10.0.0.3", 7000))
        await other.close()
        await first.close()
        again = await a.socket()
        await again.bind(("0.0.0.0", 7000))
        assert await fails(again.bind(("0.0.0.0", 7001))) == errno.EINVAL
        await again.listen(5)
        assert await fails((await a.socket()).bind(("10.0.0.1", 7000))) == errno.EADDRINUSE
        await again.close()
        for _ in range(4):  # of each shard
            sock = await a.connect("10.0.0.2", 80)
            _, port = await sock.getsockname()
            late = await a.socket()
            assert await fails(late.bind(("0.0.0.0", port))) == errno.EADDRINUSE
            await late.bind(("0.0.0.0", port ^ 0x4000))  # nothing of the refused port stayed
            await late.close()
            assert await fails((await a.socket()).bind(("10.0.0.1", port))) == errno.EADDRINUSE

    do(world, scenario())
    check(world)


def test_port_0_is_the_same_port_at_all_shards(world: World, shards: int) -> None:
    """Also where some are taken by connections of another shard; and when there is none left."""
    a, b = pair(world, shards, sysctl={"net.ipv4.ip_local_port_range": [40000, 40019]})
    do(world, b.listen(80))

    async def scenario() -> None:
        taken = set()
        for _ in range(10):
            sock = await a.connect("10.0.0.2", 80)
            taken.add((await sock.getsockname())[1])
        for _ in range(10):
            sock = await a.socket()
            if len(taken) % 2:
                await sock.bind(("0.0.0.0", 0))
            await sock.listen(5)
            port = (await sock.getsockname())[1]
            assert port not in taken
            taken.add(port)
            for process in a.tcp_processes:
                assert (bytes(4), port) in a.net(process).lhash
        assert taken == set(range(40000, 40020))
        assert await fails((await a.socket()).bind(("0.0.0.0", 0))) == errno.EADDRINUSE

    do(world, scenario())
    check(world)


def test_time_wait_keeps_its_port(world: World, shards: int) -> None:
    """In the shard of the connection; with SO_REUSEADDR another may have it."""
    a, b = pair(world, shards)
    serve(world, b, 80)

    async def scenario() -> None:
        for port in range(7000, 7006):
            sock = await a.socket()
            await sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, ON)
            await sock.bind(("0.0.0.0", port))
            await sock.connect(("10.0.0.2", 80))
            await talk(sock, b"bye")
            await world.sleep(10 * MSEC)
            assert await fails((await a.socket()).bind(("0.0.0.0", port))) == errno.EADDRINUSE
        assert sum(a.net(p).tw_count for p in a.tcp_processes) == 6
        listener = await a.listen(7000)  # with SO_REUSEADDR
        await (await b.connect("10.0.0.1", 7000)).close()
        await listener.accept()

    do(world, scenario())
    check(world)


# ---- listeners -----------------------------------------------------------------------------


def test_a_listener_ends_at_all_shards(world: World, shards: int) -> None:
    """Who waits in its queue is reset, wherever it came in; then nobody listens any more."""
    a, b = pair(world, shards)

    async def scenario() -> None:
        listener = await a.listen(80)
        waiting = [await b.connect("10.0.0.1", 80) for _ in range(8)]
        await world.sleep(10 * MSEC)
        info = await listener.getsockopt(SOL_TCP, TCP_INFO, 104)
        assert int.from_bytes(info[24:28], "little") == 8  # tcpi_unacked: in the queue
        assert int.from_bytes(info[28:32], "little") == 128
        await listener.close()
        for sock in waiting:
            assert await fails(sock.recv(1)) == errno.ECONNRESET
        for _ in range(4):
            assert await fails(b.connect("10.0.0.1", 80)) == errno.ECONNREFUSED
        await (await a.listen(80)).close()

    do(world, scenario())
    check(world, resets=12)
    assert all(not a.net(p).lhash for p in a.tcp_processes)


@pytest.mark.parametrize("backlog", [0, 1, 4, 16])
def test_the_backlog_is_of_all_shards_together(world: World, shards: int, backlog: int) -> None:
    """One more than the backlog waits, as in Linux; then SYNs go unanswered, until one is taken."""
    a, b = pair(world, shards, sysctl={"net.ipv4.tcp_syncookies": 1})
    done: list[int] = []

    async def connect() -> None:
        await b.connect("10.0.0.1", 80)
        done.append(world.now)

    async def scenario() -> None:
        listener = await a.listen(80, backlog)
        for _ in range(backlog + 8):
            world.start(connect())
            await world.sleep(20 * MSEC)
        waiting = len(next(iter(a.net("socket").shards.replicas)).icsk_accept_queue)
        assert backlog + 1 <= waiting <= backlog + shards
        assert sum(count(a, "TcpExtListenOverflows")) or sum(count(a, "TcpExtListenDrops"))
        for _ in range(backlog + 8):
            await listener.accept()
        assert not a.net("socket").shards.backlogs
        for _ in range(backlog // 2):  # and all of it is there again
            await b.connect("10.0.0.1", 80)

    do(world, scenario())
    check(world)


def test_a_listener_that_is_shut_down_may_listen_again(world: World, shards: int) -> None:
    a, b = pair(world, shards)

    async def scenario() -> None:
        for port in (80, 0):
            listener = await a.socket()
            await listener.bind(("0.0.0.0", port))
            await listener.listen(4)
            await listener.shutdown(0)
            await listener.listen(4)
            port = (await listener.getsockname())[1]
            for _ in range(4):
                sock = await b.connect("10.0.0.1", port)
                peer, _ = await listener.accept()
                await sock.sendall(b"hello")
                assert await peer.recv(100) == b"hello"
                await sock.close()
                await peer.close()
            await listener.close()

    do(world, scenario())
    check(world)


def test_children_have_the_options_of_their_listener(world: World, shards: int) -> None:
    """Set before bind, between bind and listen, and while it listens."""
    a, b = pair(world, shards)

    async def scenario() -> None:
        listener = await a.socket()
        await listener.setsockopt(SOL_TCP, TCP_MAXSEG, (600).to_bytes(4, "little"))
        await listener.bind(("0.0.0.0", 80))
        await listener.setsockopt(SOL_TCP, TCP_NODELAY, ON)
        await listener.listen(64)
        await listener.setsockopt(SOL_IP, uapi.IP_TOS, (0x10).to_bytes(4, "little"))
        for _ in range(8):
            await b.connect("10.0.0.1", 80)
            await listener.accept()

    do(world, scenario())
    check(world)
    for process in a.tcp_processes:
        children = [tp for tp in a.net(process).socks.values() if tp.number > 0xFFFFFFFF]
        assert children
        for tp in children:
            assert (tp.user_mss, tp.nonagle & 1, tp.tos) == (600, 1, 0x10)


def test_syn_cookies_are_checked_where_they_were_made(world: World, shards: int) -> None:
    a, b = pair(world, shards, sysctl={"net.ipv4.tcp_syncookies": 2})
    serve(world, a, 80)

    async def one() -> None:
        await talk(await b.connect("10.0.0.1", 80), b"cookie")

    run_all(world, [one() for _ in range(24)])
    check(world)
    assert sum(count(a, "TcpExtSyncookiesRecv")) == 24
    assert all(count(a, "TcpExtSyncookiesRecv"))


def test_a_fast_open_cookie_is_good_at_every_shard(world: World, shards: int) -> None:
    a, b = pair(world, shards, sysctl={"net.ipv4.tcp_fastopen": 3})
    b.sysctl.set("net.ipv4.tcp_fastopen", 1)
    for process in b.processes:
        b.net(process).sysctl.set("net.ipv4.tcp_fastopen", 1)

    async def scenario() -> None:
        listener = await a.socket()
        await listener.bind(("0.0.0.0", 80))
        await listener.setsockopt(SOL_TCP, TCP_FASTOPEN, (16).to_bytes(4, "little"))
        await listener.listen(16)
        to = (uapi.AF_INET, 80, inet_aton("10.0.0.1"))
        for _ in range(12):
            sock = await b.socket()
            await sock.host.sys(
                "sendmsg", *SendmsgArgs(sock.fd, flags=MSG_FASTOPEN, addr=to), data=b"hello"
            )
            peer, _ = await listener.accept()
            assert await peer.recv_exactly(5) == b"hello"
            await peer.close()
            await sock.close()

    do(world, scenario())
    check(world)
    passive = count(a, "TcpExtTCPFastOpenPassive")
    assert sum(passive) == 11  # the first asked for the cookie
    assert all(passive)
    assert not sum(count(a, "TcpExtTCPFastOpenPassiveFail"))


def test_fast_open_of_a_bound_socket(world: World, shards: int) -> None:
    """MSG_FASTOPEN goes where the port belongs, and its bytes with it."""
    a, b = pair(world, shards, sysctl={"net.ipv4.tcp_fastopen": 1})

    async def scenario() -> None:
        listener = await b.listen(80)
        to = (uapi.AF_INET, 80, inet_aton("10.0.0.2"))
        for port in range(5000, 5006):
            sock = await a.socket()
            await sock.bind(("0.0.0.0", port))
            await sock.host.sys(
                "sendmsg", *SendmsgArgs(sock.fd, flags=MSG_FASTOPEN, addr=to), data=b"hello"
            )
            peer, address = await listener.accept()
            assert address == ("10.0.0.1", port)
            assert await peer.recv_exactly(5) == b"hello"
            await peer.close()
            await sock.close()

    do(world, scenario())
    check(world)
    assert all(count(a, "TcpActiveOpens"))


# ---- fragments and ICMP -----------------------------------------------------------------------


def narrow(world: World, shards: int, **sysctl: object) -> tuple[Host, Host]:
    """Two hosts, and a router between them that takes 600 bytes at a time."""
    a = world.host("a", "10.1.0.1/24", gateway="10.1.0.254", tcp_shards=shards, sysctl=dict(sysctl))
    b = world.host("b", "10.2.0.1/24", gateway="10.2.0.254", tcp_shards=shards, sysctl=dict(sysctl))
    router = world.host(
        "r",
        "10.1.0.254/24",
        interfaces={"eth1": ("10.2.0.254/24",)},
        sysctl={"net.ipv4.ip_forward": 1},
        routes=(RouteConfig("10.9.0.0/16", type="unreachable"),),
        mtu=600,
    )
    world.link(a, router, delay=MSEC)
    world.link(router, b, delay=MSEC)
    return a, b


def test_segments_that_come_in_fragments(world: World, shards: int) -> None:
    """They are steered when they are whole again: a fragment has no ports."""
    a, b = narrow(world, shards, **{"net.ipv4.ip_no_pmtu_disc": 1})
    listener = do(world, b.listen(80))

    async def one() -> None:
        sock = await a.connect("10.2.0.1", 80)
        peer, _ = await listener.accept()
        for _ in range(5):
            await sock.sendall(b"f" * 1400)
            assert await peer.recv_exactly(1400) == b"f" * 1400
            await peer.sendall(b"g" * 1400)
            assert await sock.recv_exactly(1400) == b"g" * 1400

    async def all_of_them() -> None:
        for _ in range(8):
            await one()

    do(world, all_of_them())
    check(world)
    assert b.net("ip").mib["IpReasmOKs"] >= 8 * 5
    assert a.net("ip").mib["IpReasmOKs"] >= 8 * 5
    assert all(count(b, "TcpPassiveOpens"))


def test_fragmentation_needed_reaches_the_shard_of_the_flow(world: World, shards: int) -> None:
    """Each connection hears of its path's MTU, without waiting for a timeout."""
    a, b = narrow(world, shards)
    serve(world, b, 80)
    socks: list[SimSocket] = []

    async def one() -> None:
        sock = await a.connect("10.2.0.1", 80)
        socks.append(sock)
        await sock.sendall(b"m" * 20000)
        await sock.shutdown(1)
        assert await sock.recv_all() == b"m" * 20000

    run_all(world, [one() for _ in range(8)])
    for process in a.tcp_processes:
        assert {tp.pmtu for tp in a.net(process).socks.values()} == {600}
    assert not sum(count(a, "TcpExtTCPTimeouts"))
    check(world)


def test_unreachable_reaches_the_shard_of_the_flow(world: World, shards: int) -> None:
    """With IP_RECVERR, connect(2) hears at once that there is no way."""
    a, _ = narrow(world, shards)

    async def one() -> None:
        sock = await a.socket()
        await sock.setsockopt(SOL_IP, IP_RECVERR, ON)
        assert await fails(sock.connect(("10.9.0.1", 80))) == errno.EHOSTUNREACH

    began = world.now
    run_all(world, [one() for _ in range(6)])
    assert world.now - began < SEC
    check(world)


# ---- restarts ---------------------------------------------------------------------------------


def test_the_restart_of_one_shard_ends_its_connections_alone(world: World, shards: int) -> None:
    """Listeners and bound sockets are told to it anew."""
    a, b = pair(world, shards)

    async def scenario() -> None:
        listener = await a.listen(80)
        bound = await a.socket()
        await bound.bind(("0.0.0.0", 7000))
        await b.listen(90)
        pairs = []
        for _ in range(24):
            sock = await b.connect("10.0.0.1", 80)
            peer, _ = await listener.accept()
            pairs.append((sock, peer))
        lost = count(a, "TcpPassiveOpens")[1]
        assert 0 < lost < 24
        a.start("tcp.1")
        await world.sleep(10 * MSEC)
        ended = 0
        for sock, peer in pairs:
            if await peer.getsockopt(SOL_SOCKET, SO_ERROR) != bytes(4):
                ended += 1
                continue
            await peer.sendall(b"still here")
            assert await sock.recv_exactly(10) == b"still here"
        assert ended == lost
        for _ in range(12):
            sock = await b.connect("10.0.0.1", 80)
            peer, _ = await listener.accept()
            await sock.sendall(b"new")
            assert await peer.recv(3) == b"new"
        assert count(a, "TcpPassiveOpens")[1]
        assert await fails((await a.socket()).bind(("0.0.0.0", 7000))) == errno.EADDRINUSE
        await bound.connect(("10.0.0.2", 90))

    do(world, scenario())
    for process in a.tcp_processes:
        net = a.net(process)
        assert all(net.shard_of(key) == net.shard for key in net.ehash)
        assert (bytes(4), 80) in net.lhash
        assert 7000 in net.bhash


def test_ip_and_the_socket_layer_start_anew(world: World, shards: int) -> None:
    """Every shard registers with ip again, and forgets what the socket layer has forgotten."""
    a, b = pair(world, shards)
    serve(world, b, 80)

    async def one() -> None:
        await talk(await a.connect("10.0.0.2", 80), b"after")

    a.start("ip")
    world.advance(SEC)
    assert a.net("ip").inet_protos[6].shards == a.tcp_processes
    run_all(world, [one() for _ in range(6)])
    a.start("socket")
    world.advance(SEC)
    assert all(not a.net(p).socks for p in a.tcp_processes)
    run_all(world, [one() for _ in range(6)])
    check(world)
