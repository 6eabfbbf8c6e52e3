# SPDX-License-Identifier: MIT
"""Each line of a packet can be found by its flow: whole stacks, everything that they log."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from skbus.bus import log
from skbus.core.flow_dissector import FlowFilter
from skbus.core.uapi import IPPROTO_ICMP, SOCK_DGRAM, SOCK_RAW
from skbus.inet.headers import icmp
from skbus.stack.logread import Filter
from skbus.testing import Future, Host, World

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def tcp(world: World, client: Host, server: Host, port: int) -> None:
    """A connection, some bytes each way, an orderly end."""
    ready: Future[None] = Future()

    async def serve() -> None:
        listener = await server.listen(port)
        ready.set(None)
        sock, _ = await listener.accept()
        await sock.sendall(await sock.recv(100))
        await sock.close()
        await listener.close()

    async def ask() -> bytes:
        await ready
        sock = await client.connect("10.0.0.2", port)
        await sock.sendall(b"x" * 100)
        answer = await sock.recv_all()
        await sock.close()
        return answer

    world.start(serve())
    assert world.run(world.start(ask())) == b"x" * 100


def udp(world: World, client: Host, server: Host, port: int, size: int) -> None:
    """A datagram and its echo, in fragments where it is long."""
    ready: Future[None] = Future()

    async def serve() -> None:
        sock = await server.socket(SOCK_DGRAM)
        await sock.bind(("0.0.0.0", port))
        ready.set(None)
        data, peer = await sock.recvfrom(1 << 16)
        assert peer is not None
        await sock.sendto(data, peer)
        await sock.close()

    async def ask() -> int:
        await ready
        sock = await client.socket(SOCK_DGRAM)
        await sock.sendto(b"d" * size, ("10.0.0.2", port))
        data, _ = await sock.recvfrom(1 << 16)
        await sock.close()
        return len(data)

    world.start(serve())
    assert world.run(world.start(ask())) == size


def refused(world: World, client: Host, port: int) -> None:
    """An ICMP error about a datagram."""

    async def ask() -> None:
        sock = await client.socket(SOCK_DGRAM)
        await sock.connect(("10.0.0.2", port))
        await sock.sendto(b"?", ("10.0.0.2", port))
        with pytest.raises(ConnectionRefusedError):
            await sock.recvfrom(10)
        await sock.close()

    world.run(world.start(ask()))


def lines(host: Host) -> list[Event]:
    """What the host's processes would have logged."""
    out = io.StringIO()
    logger = log.configure("x", "debug", stream=out)
    log.log_trace_events(logger, host.events)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def found(events: list[Event], flow: str) -> list[Event]:
    wanted = Filter(flow=FlowFilter(flow))
    for event in events:
        wanted.learn(event)
    return [event for event in events if wanted(event)]


@pytest.mark.parametrize("side", ["client", "server"])
def test_every_line_of_an_skb_is_found_by_its_flow(side: str) -> None:
    with World(7, trace=True) as world:
        client, server = world.host("client", "10.0.0.1/24"), world.host("server", "10.0.0.2/24")
        world.link(client, server)
        tcp(world, client, server, 80)
        tcp(world, client, server, 8090)
        udp(world, client, server, 53, 10)
        udp(world, client, server, 53, 5000)
        udp(world, client, server, 5353, 10)
        refused(world, client, 9)
        events = lines({"client": client, "server": server}[side])
    of_packets = [e for e in events if "skb" in e]
    assert all("flow" in e for e in of_packets), "a packet is always somebody's"

    by_port = {port: found(events, f":{port}") for port in (80, 8090, 53, 5353, 9)}
    for port, its in by_port.items():
        layers = {"nic", "ip", "tcp" if port in (80, 8090) else "udp"}
        assert {e["layer"] for e in its} >= layers | ({"socket"} if port != 9 else set())
        named = {(e["flow"].split("->")[0].split(":")[1], e["flow"].split(":")[-1])
                 for e in its if e.get("flow", "").count(":") == 2}  # fmt: skip
        assert {str(port)} < {p for ends in named for p in ends}
        assert any(b == str(port) for _, b in named), "what the client sends"
        about = [e for e in its if "about" in e]
        assert any(a == str(port) for a, _ in named) or about, "and the server"
    # no line in two of them, and none of a packet but ARP's in none
    claimed = [id(e) for its in by_port.values() for e in its]
    assert len(claimed) == len(set(claimed))
    rest = [e for e in of_packets if id(e) not in set(claimed)]
    assert all(e["event"].startswith(("arp", "dev_", "napi", "netif", "neigh")) for e in rest)
    arp = {e["skb"] for e in events if e["event"] in ("arp_rcv", "arp_send")}
    assert {e["skb"] for e in rest} == arp


def test_the_forms_agree() -> None:
    with World(8, trace=True) as world:
        client, server = world.host("client", "10.0.0.1/24"), world.host("server", "10.0.0.2/24")
        world.link(client, server)
        tcp(world, client, server, 80)
        tcp(world, client, server, 81)
        events = lines(server)
    whole = found(events, ":80")
    flow = next(e["flow"] for e in whole if e["event"] == "tcp_rcv_established")
    other_way = "->".join(reversed(flow.split("->")))
    one = found(events, flow)
    assert one == found(events, other_way)
    assert {e["event"] for e in one} >= {"dev_queue_xmit", "tcp_v4_rcv", "tcp_set_state"}
    assert [e for e in whole if e not in one and "->0.0.0.0:*" not in e["flow"]] == [
        e for e in whole if e["event"] == "inet_lookup_listener"
    ]
    assert len(found(events, "10.0.0.1")) > len(one)
    assert not found(events, "10.0.0.3")
    assert not found(events, ":8")


def ping(world: World, host: Host, kind: int, dest: str) -> None:
    """An echo request and its reply, by a ping or a raw socket."""

    async def ask() -> None:
        sock = await host.socket(kind, IPPROTO_ICMP)
        await sock.sendto(icmp.build_message(icmp.ICMP_ECHO, 0, 1, b"ping"), (dest, 0))
        data, sender = await sock.recvfrom(1000)
        assert data.endswith(b"ping")
        assert sender is not None
        assert sender[0] == dest
        await sock.close()

    world.run(world.start(ask()))


@pytest.mark.parametrize("dest", ["10.0.0.2", "10.0.0.1", "127.0.0.1"])
def test_packets_without_ports_and_to_oneself(dest: str) -> None:
    with World(9, trace=True) as world:
        client = world.host("client", "10.0.0.1/24", sysctl={"net.ipv4.ping_group_range": "0 9"})
        server = world.host("server", "10.0.0.2/24")
        world.link(client, server)
        ping(world, client, SOCK_DGRAM, dest)
        ping(world, client, SOCK_RAW, dest)
        events = lines(client)
    of_packets = [e for e in events if "skb" in e]
    assert all("flow" in e for e in of_packets)
    its = found(events, dest)
    assert {e["event"] for e in its} >= {"ping_v4_sendmsg", "raw_sendmsg", "icmp_rcv", "ip_rcv"}
    assert all(":" not in e["flow"] for e in its if "flow" in e), "there are no ports"
