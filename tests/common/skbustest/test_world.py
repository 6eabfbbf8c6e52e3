# SPDX-License-Identifier: MIT
"""The simulation itself, and what whole stacks do in it besides bulk transfers."""

import errno
import shutil
import subprocess
from pathlib import Path

import pytest

from skbus.core.net import MSEC, SEC
from skbus.testing import Future, Host, SimSocket, World, WorldError
from skbusd.ip.netns import RouteConfig


def pair(world: World, **impairment: float) -> tuple[Host, Host]:
    a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
    world.link(a, b, **impairment)
    return a, b


async def echo_once(listener: SimSocket) -> None:
    peer, _ = await listener.accept()
    while data := await peer.recv(65536):
        await peer.sendall(data)
    await peer.close()


def listen(world: World, host: Host, port: int) -> SimSocket:
    listener = world.run(world.start(host.listen(port)))
    assert listener is not None
    return listener


# ---- the simulation --------------------------------------------------------------------------


def test_an_assertion_that_fails_names_the_seed() -> None:
    with pytest.raises(AssertionError, match=r"bad bytes \[World\(seed=77\)\]"), World(77):
        raise AssertionError("bad bytes")


def test_waiting_for_what_can_never_happen_is_an_error_that_says_who_waits() -> None:
    with World(5) as world:
        never: Future[None] = Future()

        async def patient() -> None:
            await never

        with pytest.raises(WorldError, match=r"waiting: patient \[World\(seed=5\)"):
            world.run(world.start(patient()))


def test_time_is_bounded() -> None:
    with World() as world:
        task = world.start(world.sleep(10 * SEC), "sleeper")
        with pytest.raises(WorldError, match="not done after 5 s; waiting: sleeper"):
            world.run(task, limit=5 * SEC)


def test_delay_is_the_links_and_nothing_else_takes_time() -> None:
    with World() as world:
        a, b = pair(world, delay=20 * MSEC)
        listener = listen(world, b, 7)
        world.start(echo_once(listener))

        async def client() -> int:
            sock = await a.connect("10.0.0.2", 7)
            begin = world.now
            await sock.sendall(b"x")
            assert await sock.recv(10) == b"x"
            elapsed = world.now - begin
            await sock.close()
            return elapsed

        assert world.run(world.start(client())) == 40 * MSEC


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_a_capture_is_what_tshark_takes_for_a_clean_connection(tmp_path: Path) -> None:
    file = tmp_path / "run.pcapng"
    with World(3) as world:
        a, b = pair(world, delay=1 * MSEC)
        world.capture(file)
        listener = listen(world, b, 7)
        world.start(echo_once(listener))

        async def client() -> None:
            sock = await a.connect("10.0.0.2", 7)
            await sock.sendall(bytes(50_000))
            await sock.shutdown(1)
            assert len(await sock.recv_all()) == 50_000
            await sock.close()

        world.run(world.start(client()))
        world.advance(1 * SEC)
    fields = ["-Tfields", "-eip.src", "-etcp.flags.str", "-etcp.len", "-e_ws.expert.message"]
    checks = ["-otcp.check_checksum:TRUE", "-oip.check_checksum:TRUE"]
    out = subprocess.run(
        ["tshark", "-r", str(file), *checks, "-Ytcp", *fields],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    rows = [line.split("\t") for line in out]
    assert sum(int(row[2]) for row in rows if row[0] == "10.0.0.1") == 50_000
    assert "S" in rows[0][1]
    for row in rows:
        for word in ("checksum", "alformed", "etransmission", "out-of-order", "uplicate"):
            assert word not in row[3], row


# ---- what stacks do --------------------------------------------------------------------------


def test_a_port_without_a_listener_refuses() -> None:
    with World() as world:
        a, _ = pair(world)

        async def client() -> None:
            with pytest.raises(ConnectionRefusedError):
                await a.connect("10.0.0.2", 9)

        world.run(world.start(client()))


def test_an_address_that_nobody_has_is_unreachable() -> None:
    with World() as world:
        a, _ = pair(world)

        async def client() -> int:
            with pytest.raises(OSError, match="No route to host") as caught:
                await a.connect("10.0.0.99", 9)
            return caught.value.errno or 0

        assert world.run(world.start(client())) == errno.EHOSTUNREACH


def test_datagrams_pass_whole_and_a_closed_port_is_reported() -> None:
    with World() as world:
        a, b = pair(world)

        async def main() -> None:
            server = await b.socket(2)
            await server.bind(("0.0.0.0", 53))
            sock = await a.socket(2)
            await sock.connect(("10.0.0.2", 53))
            big = bytes(range(256)) * 200
            await sock.send(big)
            data, peer = await server.recvfrom(65536)
            assert data == big
            assert peer is not None
            await server.sendto(b"answer", peer)
            assert await sock.recv(100) == b"answer"
            await server.close()
            await sock.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                await sock.recv(100)
            await sock.close()

        world.run(world.start(main()))
        assert world.hosts["a"].net("ip").mib["IpFragOKs"] == 1
        assert world.hosts["b"].net("ip").mib["IpReasmOKs"] == 1
        world.check_conservation()


def test_a_router_between_two_networks_forwards() -> None:
    with World() as world:
        a = world.host("a", "10.0.1.1/24", gateway="10.0.1.254")
        b = world.host("b", "10.0.2.1/24", gateway="10.0.2.254")
        router = world.host(
            "r",
            "10.0.1.254/24",
            interfaces={"eth1": ("10.0.2.254/24",)},
            sysctl={"net.ipv4.ip_forward": 1},
        )
        world.link(a, router, delay=1 * MSEC)
        world.link(b, router, delay=1 * MSEC)
        listener = listen(world, b, 7)
        world.start(echo_once(listener))

        async def client() -> None:
            sock = await a.connect("10.0.2.1", 7)
            await sock.sendall(bytes(100_000))
            await sock.shutdown(1)
            assert len(await sock.recv_all()) == 100_000
            await sock.close()

        world.run(world.start(client()))
        assert router.net("ip").mib["IpForwDatagrams"] >= 10  # super-segments, after GRO
        world.advance(300 * SEC)
        world.check_conservation()


def test_a_route_that_is_prohibited_is_reported_as_such() -> None:
    with World() as world:
        a = world.host("a", "10.0.0.1/24", routes=(RouteConfig("192.0.2.0/24", type="prohibit"),))

        async def client() -> int:
            with pytest.raises(PermissionError) as caught:
                await a.connect("192.0.2.1", 9)
            return caught.value.errno or 0

        assert world.run(world.start(client())) == errno.EACCES


@pytest.mark.parametrize("process", ["ip", "nic.eth0"])
def test_a_transfer_outlives_a_process_that_is_killed_in_the_middle(process: str) -> None:
    with World(9) as world:
        a, b = pair(world, delay=2 * MSEC, rate=100_000_000)
        listener = listen(world, b, 7)
        world.start(echo_once(listener))
        size = 3_000_000

        async def client() -> int:
            sock = await a.connect("10.0.0.2", 7)

            async def send() -> None:
                await sock.sendall(bytes(size))
                await sock.shutdown(1)

            world.start(send())
            received = 0
            killed = 0
            while data := await sock.recv(65536):
                received += len(data)
                if received > (killed + 1) * size // 4 and killed < 3:
                    killed += 1
                    (a, b, a)[killed - 1].start(process)
            await sock.close()
            assert killed == 3
            return received

        assert world.run(world.start(client()), limit=120 * SEC) == size
