# SPDX-License-Identifier: MIT
"""Names, ports, the states of connect(2), and the ways to close: our stack against Linux, and
Linux in its place; where there is much to say, the two are asked the same and must say the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from skbus.bus.ctl import ctl_call

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, Lab, Reference

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_connect")]

Sysctl = Callable[[str, str], None]
NOBODY = "10.77.0.97"
SILENT = "192.0.2.1"
"""behind the peer, which passes nothing on, and says nothing about it"""


@contextmanager
def sysctl(cable: Any, **values: str) -> Iterator[None]:
    """Set sysctls of net.ipv4 at the end under test, for a while."""
    old: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        if hasattr(cable, "layers"):
            for layer in cable.layers:
                ctl_call(cable.run, layer, "sysctl_set", (f"net.ipv4.{name}", value), seconds=30)
        else:
            command = [*cable.inside, "sysctl", "-q", "-w", f"net.ipv4.{name}={value}"]
            subprocess.run(command, check=True)

    for name in values:
        if hasattr(cable, "layers"):
            old[name] = ctl_call(cable.run, "ip", "sysctl_get", f"net.ipv4.{name}", seconds=30)
        else:
            command = [*cable.inside, "sysctl", "-n", f"net.ipv4.{name}"]
            old[name] = subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout.strip()
    try:
        for name, value in values.items():
            put(name, value)
        yield
    finally:
        for name, value in old.items():
            put(name, value)


def accepting(cable: Cable, *ports: int) -> Any:
    end = cable.linux("accept_all", ports=ports)
    end.heard("ready")
    return end


# ---- the states of connect(2) ------------------------------------------------------------------


def test_what_connect_says_in_each_state(cable: Cable, port: int) -> None:
    accepting(cable, port)
    end = cable.ours("connect_states", host=cable.peer_address, port=port, nobody=NOBODY)
    assert end.result(60) == {
        "never connected": "ENOTCONN",
        "to nobody": ["EINPROGRESS", "EALREADY", "EALREADY"],
        "while connecting": ["ENOTCONN", "EAGAIN", "EAGAIN", "EINVAL"],
        "to somebody": ["EINPROGRESS"],
        "writable": True,
        "error": "ok",
        "again": ["ok", "EISCONN", "EISCONN"],
        "peer": True,
        "blocking, again": "EISCONN",
        "connected": ["EINVAL", "EINVAL"],
        "a listener": "EISCONN",
    }


def test_a_refusal_is_told_once(cable: Cable, port: int) -> None:
    end = cable.ours("connect_refused", host=cable.peer_address, port=port)
    heard = ["EINPROGRESS", "True"]
    assert end.result(60) == {
        "SO_ERROR": [*heard, "ECONNREFUSED", "ok"],
        "connect": [*heard, "ECONNREFUSED", "EINPROGRESS"],
        "send": [*heard, "ECONNREFUSED", "EPIPE"],
        "recv": [*heard, "ECONNREFUSED", "ok"],
    }


def test_unreachable_and_timed_out(cable: Cable, port: int) -> None:
    if not hasattr(cable, "layers"):
        # Our lab's gateway passes nothing on; here it may have been told to by its parent.
        silence = ["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"]
        subprocess.run([*cable.peer, *silence], check=True)
        way = f"ip route replace 192.0.2.0/24 via {cable.peer_address}"
        subprocess.run([*cable.inside, *way.split()], check=True)
    end = cable.ours("connect_unreachable", port=port, silent=SILENT)
    told = end.result(60)
    assert told.pop("240.0.0.1") in ("ENETUNREACH", "ETIMEDOUT")  # no route; a default route
    assert told == {
        "224.0.0.1": "ENETUNREACH",
        "255.255.255.255": "ENETUNREACH",
        "silent": "ETIMEDOUT",
        "afterwards": "ok",
        "SO_SNDTIMEO": ["EINPROGRESS", "EALREADY"],
    }


# ---- ports -------------------------------------------------------------------------------------


KINDS = ["stream bind", "stream connect", "datagram bind", "datagram connect"]


def test_automatic_ports_stay_in_their_range(cable: Cable, port: int) -> None:
    accepting(cable, port)
    with sysctl(cable, ip_local_port_range="41000 41099", ip_local_reserved_ports="41010-41059"):
        found = cable.ours(
            "automatic_ports", host=cable.peer_address, port=port, kinds=KINDS, count=20
        ).result(60)
    free = {*range(41000, 41010), *range(41060, 41100)}
    for kind in KINDS:
        assert len(set(found[kind])) == 20
        assert set(found[kind]) <= free
    assert {p % 2 for p in found["stream bind"]} == {1}  # connect(2) has the even ones
    assert {p % 2 for p in found["stream connect"]} == {0}


def test_when_there_is_no_port_left(cable: Cable, port: int) -> None:
    accepting(cable, port)
    with sysctl(cable, ip_local_port_range="42000 42007"):
        found = cable.ours(
            "automatic_ports", host=cable.peer_address, port=port, kinds=KINDS, count=9
        ).result(60)
    errors = ["EADDRINUSE", "EADDRNOTAVAIL", "EADDRINUSE", "EAGAIN"]
    for kind, error in zip(KINDS, errors, strict=True):
        assert sorted(found[kind][:8]) == list(range(42000, 42008))
        assert found[kind][8] == error


def test_a_port_serves_one_connection_to_each_peer(cable: Cable, ports: Iterator[int]) -> None:
    there = [next(ports), next(ports)]
    accepting(cable, *there)
    with sysctl(cable, ip_local_port_range="43000 43003"):
        found = cable.ours(
            "ports_of_two_peers", host=cable.peer_address, ports=there, count=4
        ).result(60)
    assert [sorted(f) for f in found] == [[43000, 43001, 43002, 43003]] * 2


def test_who_may_share_a_port(lab: Lab, reference: Reference, ports: Iterator[int]) -> None:
    server, port, _ = next(ports), next(ports), next(ports)
    told = []
    for cable in (lab, reference):
        accepting(cable, server)
        told.append(
            cable.ours(
                "binds", own=cable.address, host=cable.peer_address, server=server, port=port
            ).result(120)
        )
    ours, linux = told
    assert ours == linux
    assert linux["stream own A A"] == ["ok", "ok", "EADDRINUSE"]
    assert linux["stream own P P"] == ["ok", "ok", "ok"]
    assert linux["datagram own - A"] == ["EADDRINUSE"]
    assert linux["not ours"] == "EADDRNOTAVAIL"
    assert linux["bound"] == ["ok", "EINVAL"]
    assert linux["connected from"] == ["ok", "EADDRNOTAVAIL"]


def test_a_port_in_time_wait(cable: Cable, ports: Iterator[int]) -> None:
    server, port = next(ports), next(ports)
    accepting(cable, server)
    end = cable.ours("time_wait", host=cable.peer_address, server=server, port=port)
    assert end.result(60) == ["EADDRINUSE", "ok", "ok"]


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_a_reuseport_group_shares_by_the_flows_hash(cable: Cable, port: int, kind: str) -> None:
    flows = 60
    count = flows * 2 if kind == "datagram" else flows
    group = cable.ours("reuseport_group", port=port, kind=kind, size=3, count=count)
    group.heard("ready")
    cable.linux("many_flows", host=cable.address, port=port, kind=kind, count=flows).result(60)
    # That one of three gets none of 60 flows happens once in 10**10.
    assert group.result(60) == {"sum": count, "all": True, "strays": 0}


# ---- closing -----------------------------------------------------------------------------------


def test_lingering_ends_and_the_rest_still_arrives(cable: Cable, port: int) -> None:
    peer = cable.linux("read_late", port=port)
    peer.heard("ready")
    end = cable.ours("linger", host=cable.peer_address, port=port, seconds=1)
    end.heard("closed", 60)
    peer.go_on()
    told = peer.result(60)
    end.go_on()
    assert told == {"size": end.result(), "end": "end"}


def test_lingering_waits_until_all_is_acknowledged(cable: Cable, port: int) -> None:
    peer = cable.linux("read_late", port=port)
    peer.heard("ready")
    end = cable.ours("linger", host=cable.peer_address, port=port, seconds=300)
    end.heard("closing", 60)
    peer.go_on()
    end.heard("closed", 60)
    told = peer.result(60)
    end.go_on()
    assert told == {"size": end.result(), "end": "end"}


def test_how_a_close_is_seen_by_the_peer(cable: Cable, port: int) -> None:
    seen = {
        "read": ["end"],
        "unread": ["ECONNRESET"],
        "linger 0": ["ECONNRESET"],
        "shutdown, unread": ["end"],
    }
    peer = cable.linux("be_closed", port=port, count=len(seen))
    peer.heard("ready")
    cable.ours("closes", host=cable.peer_address, port=port, ways=list(seen)).result()
    assert peer.result() == list(seen.values())
