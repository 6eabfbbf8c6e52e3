# SPDX-License-Identifier: MIT
"""Path MTU probing (RFC 4821) where packets that are too big vanish and nobody says so."""

import pytest

from skbus.core import uapi
from skbus.core.net import MSEC
from skbus.testing import Future, World
from skbustest.tcphost import ACK, Conn, TcpHost

PORT = 5001


def transfer(
    world: World, probing: int, size: int, limit: int, ecn: int = 2
) -> tuple[object, object]:
    """a sends `size` bytes to b over a link that swallows frames longer than `limit`; returns a's
    tcp, and the socket's MSS at the end."""
    settings = {"net.ipv4.tcp_mtu_probing": probing, "net.ipv4.tcp_ecn": ecn}
    a = world.host("a", "10.0.0.1/24", sysctl=settings)
    b = world.host("b", "10.0.0.2/24", sysctl={"net.ipv4.tcp_ecn": ecn})
    world.link(a, b, delay=5 * MSEC, size=limit)
    ready: Future[None] = Future()

    async def server() -> int:
        listener = await b.listen(PORT)
        ready.set(None)
        peer, _ = await listener.accept()
        got = len(await peer.recv_exactly(size))
        await peer.sendall(b"!")
        return got

    async def client() -> int:
        await ready
        sock = await a.connect("10.0.0.2", PORT)
        await sock.sendall(bytes(size))
        assert await sock.recv(1) == b"!"
        return int.from_bytes(await sock.getsockopt(uapi.SOL_TCP, uapi.TCP_MAXSEG), "little")

    serving = world.start(server())
    mss = world.run(world.start(client()))
    assert world.run(serving) == size
    world.check_conservation()
    return a.net("tcp"), mss


@pytest.mark.parametrize("ecn", [2, 3])
@pytest.mark.parametrize("probing", [1, 2])
def test_a_black_hole_is_found_and_gone_around(probing: int, ecn: int) -> None:
    """ecn 3: with an option in each segment, which counts as the rest of the header does."""
    with World(3) as world:
        net, mss = transfer(world, probing, 800_000, 14 + 1300, ecn)
        # within tcp_probe_threshold of what passes: an MTU of 1300, less 52 bytes of headers
        assert isinstance(mss, int)
        assert 1300 - 52 - 8 <= mss <= 1300 - 52
        mib = net.mib  # type: ignore[attr-defined]
        assert mib["TcpExtTCPMTUPFail"] > 0
        assert mib["TcpExtTCPMTUPSuccess"] > 0
        # only a black hole that is discovered by timeouts costs any
        assert (mib["TcpExtTCPTimeouts"] >= 3) == (probing == 1)


def test_a_path_without_a_hole_is_searched_to_its_end() -> None:
    with World(4) as world:
        net, mss = transfer(world, 2, 800_000, 0)
        assert isinstance(mss, int)
        assert 1448 - 8 <= mss <= 1448
        assert net.mib["TcpExtTCPMTUPFail"] == 0  # type: ignore[attr-defined]
        assert net.mib["TcpRetransSegs"] == 0  # type: ignore[attr-defined]


def test_nothing_is_probed_unless_asked_for(host: TcpHost) -> None:
    conn = Conn(host)
    for _ in range(5):
        conn.send(30_000)
        at = max(seq + n for _, seq, n, _ in conn.sent())
        host.run_for(0.1)
        conn.rcv(ACK, 0, at)
    assert not conn.tp.mtup_enabled
    assert conn.tp.mss_cache == 1460


def test_the_base_size_falls_where_it_does_not_help(host: TcpHost) -> None:
    for name, value in (
        ("tcp_mtu_probing", 1),
        ("tcp_base_mss", 1024),
        ("tcp_mtu_probe_floor", 200),
        ("tcp_retries1", 1),
    ):
        host.net.sysctl.set(f"net.ipv4.{name}", value)
    conn = Conn(host, rtt=0.01)
    conn.send(1460)
    sizes = []
    for _ in range(3000):
        host.run_for(0.02)
        sizes += [n for _, _, n, _ in conn.sent()]
    assert list(dict.fromkeys(sizes)) == [1460, 1024, 512, 256, 200]


def test_the_search_begins_again_after_a_while(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_mtu_probing", 2)
    host.net.sysctl.set("net.ipv4.tcp_probe_interval", 10)
    host.net.sysctl.set("net.ipv4.tcp_slow_start_after_idle", 0)
    conn = Conn(host)
    tp = conn.tp
    tp.snd_cwnd = 40
    tp.mtup_search_high = tp.mtup_search_low + 4
    host.run_for(1)
    conn.send(20_000)
    assert not tp.mtup_probe_size
    conn.rcv(ACK, 0, sum(n for _, _, n, _ in conn.sent()))
    host.run_for(10)
    conn.send(20_000)
    assert tp.mtup_search_high == 1500
    tp.snd_cwnd = 40
    conn.send(20_000)
    assert tp.mtup_probe_size > 1040
