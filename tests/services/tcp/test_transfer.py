# SPDX-License-Identifier: MIT
"""Two TCPs over a link that loses, reorders and duplicates: every byte arrives, once, in order."""

import pytest

from skbustest.tcphost import SimApp, TcpPair, digest, payload


def transfer(pair: TcpPair, size: int) -> float:
    """`size` bytes from a to b, closed by both; the virtual seconds it took."""
    data = payload(size, size)
    children: list[SimApp] = []
    pair.b.listen(80)
    pair.b.on_accept = children.append
    pair.b.on_fin = lambda app: app.close()
    app = pair.a.connect(80)
    app.send(data, then_close=True)
    took = pair.run(lambda: bool(children) and children[0].done and app.done)
    assert children[0].received == size
    assert children[0].hash.hexdigest() == digest(data)
    assert app.errors == children[0].errors == []
    assert app.queued == 0
    pair.check()
    return took


def test_a_clean_link_carries_a_megabyte_without_retransmission() -> None:
    pair = TcpPair()
    transfer(pair, 1 << 20)
    mib = pair.a.tcp.net.mib
    assert mib["TcpRetransSegs"] == 0
    assert mib["TcpActiveOpens"] == 1
    assert mib["TcpExtTCPOrigDataSent"] >= (1 << 20) // 1448
    assert pair.b.tcp.net.mib["TcpPassiveOpens"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_bad_link_carries_every_byte(seed: int) -> None:
    pair = TcpPair(seed=seed, loss=0.05, reorder=0.1, dup=0.01)
    transfer(pair, 300_000)
    assert pair.a.tcp.net.mib["TcpRetransSegs"] > 0


VARIANTS: list[tuple[dict[str, object], str, int]] = [
    ({"net.ipv4.tcp_sack": 0}, "0.5ms", 1500),
    ({"net.ipv4.tcp_timestamps": 0}, "0.5ms", 1500),
    ({"net.ipv4.tcp_sack": 0, "net.ipv4.tcp_timestamps": 0}, "10ms", 1500),
    ({"net.ipv4.tcp_window_scaling": 0}, "20ms", 9000),
    ({"net.ipv4.tcp_congestion_control": "reno"}, "10ms", 576),
    ({"net.ipv4.tcp_rmem": (4096, 8192, 16384)}, "10ms", 1500),
    ({"net.ipv4.tcp_early_retrans": 0, "net.ipv4.tcp_frto": 0}, "10ms", 1500),
    ({"net.ipv4.tcp_dsack": 0}, "50us", 1500),
]


@pytest.mark.parametrize(("sysctl", "delay", "mtu"), VARIANTS)
@pytest.mark.parametrize("loss", [0, 0.1])
def test_both_directions_at_once(
    sysctl: dict[str, object], delay: str, mtu: int, loss: float
) -> None:
    pair = TcpPair(
        seed=mtu,
        loss=loss,
        reorder=0.2,
        dup=0.05,
        delay=delay,
        mtu=mtu,
        sysctl=sysctl,
        rate="100mbit",
    )
    there, back = payload(1, 150_000), payload(2, 60_000)
    children: list[SimApp] = []

    def accepted(child: SimApp) -> None:
        children.append(child)
        child.send(back)

    pair.b.listen(80)
    pair.b.on_accept = accepted
    app = pair.a.connect(80)
    app.send(there)
    pair.run(lambda: bool(children) and children[0].received == len(there))
    pair.run(lambda: app.received == len(back))
    children[0].close()
    pair.run(lambda: app.fin)
    app.close()
    pair.run(lambda: app.done and children[0].done)
    assert app.hash.hexdigest() == digest(back)
    assert children[0].hash.hexdigest() == digest(there)
    assert app.errors == children[0].errors == []
    pair.run(seconds=130)
    for host in (pair.a, pair.b):
        assert not host.tcp.net.ehash
        assert host.tcp.core.held() == 0
    pair.check()


def test_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for _ in range(2):
        pair = TcpPair(seed=3, loss=0.05, reorder=0.1, dup=0.02)
        took = transfer(pair, 100_000)
        runs.append((took, pair.packets, pair.counters()))
    assert runs[0] == runs[1]


def test_loss_recovery_is_not_left_to_the_timer() -> None:
    """At 1 % loss the retransmissions are fast ones."""
    pair = TcpPair(seed=4, loss=0.01)
    transfer(pair, 4 << 20)
    mib = pair.a.tcp.net.mib
    assert mib["TcpRetransSegs"] > 10
    assert mib["TcpExtTCPTimeouts"] <= 1
    assert mib["TcpExtTCPLostRetransmit"] <= 2
    assert mib["TcpRetransSegs"] <= 1.2 * pair.lost


def test_a_link_that_damages_and_one_that_marks_are_survived() -> None:
    """What the checksum finds is dropped; marks become smaller windows, and no retransmission."""
    pair = TcpPair(seed=5, corrupt=0.02)
    transfer(pair, 300_000)
    assert pair.b.tcp.dropped("TCP_CSUM") == pair.links[id(pair.a)].corrupted > 0
    pair = TcpPair(rate="20mbit", delay="2ms", limit=1000, mark=5, sysctl={"net.ipv4.tcp_ecn": 1})
    transfer(pair, 300_000)
    assert pair.links[id(pair.a)].marked > 0
    assert pair.a.tcp.net.mib["TcpRetransSegs"] == 0


def test_a_reader_that_stops_stops_the_writer_and_nothing_is_lost() -> None:
    pair = TcpPair()
    data = payload(5, 500_000)
    children: list[SimApp] = []

    def accepted(child: SimApp) -> None:
        child.reading = False
        children.append(child)

    pair.b.listen(80)
    pair.b.on_accept = accepted
    app = pair.a.connect(80)
    app.send(data)
    pair.run(seconds=5)
    child = children[0]
    assert child.received < 200_000
    assert pair.b.tcp.net.socks[child.sk].rcv_wnd == 0
    assert pair.a.tcp.net.mib["TcpExtTCPWinProbe"] > 0
    child.reading = True
    pair.b.tcp.recvmsg(child.sk, child.unread)
    child.unread = 0
    pair.run(lambda: child.received == len(data))
    assert child.hash.hexdigest() == digest(data)
