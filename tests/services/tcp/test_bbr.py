# SPDX-License-Identifier: MIT
"""BBR v1 and pacing (draft-cardwell-iccrg-bbr-congestion-control-00, `tcp_bbr.c`, `tcp_rate.c`)."""

import pytest

from skbus.core import uapi
from skbus.core.uapi import SO_MAX_PACING_RATE
from skbusd.tcp import const as c
from skbusd.tcp import tcp_bbr as bbr
from skbusd.tcp import tcp_cubic
from skbusd.tcp.tcp_cong import tcp_set_congestion_control
from skbusd.tcp.tcp_pacing import NO_LIMIT
from skbustest.tcphost import ACK, Conn, TcpHost

MSS = 1460


def bbr_conn(host: TcpHost, rtt: float = 0.1) -> Conn:
    host.net.sysctl.set("net.ipv4.tcp_congestion_control", "bbr")
    conn = Conn(host, rtt=rtt)
    conn.win = 65535
    return conn


def rounds(conn: Conn, n: int, rate: int, rtt: float = 0.1) -> int:
    """A path of `rate` segments a second: each segment is acknowledged a round trip after it was
    sent, but no sooner than the one before it left the bottleneck. Returns segments sent."""
    host = conn.host
    step = 0.004
    una = 0
    free = host.net.now
    due: list[tuple[int, int]] = []
    sent = 0
    for _ in range(round(n * rtt / step)):
        if len(conn.tp.write_queue) < 3:
            conn.send(100_000)
        for _, seq, length, _ in conn.sent():
            for at in range(seq, seq + length, MSS):
                free = max(free, host.net.now) + 1_000_000_000 // rate
                due.append((free + round(rtt * 1e9), min(at + MSS, seq + length)))
                sent += 1
        while due and due[0][0] <= host.net.now:
            una = due.pop(0)[1]
            conn.rcv(ACK, 0, una)
        host.run_for(step)
    return sent


def test_startup_finds_the_rate_then_drains_and_probes(host: TcpHost) -> None:
    conn = bbr_conn(host)
    tp = conn.tp
    assert tp.pacing_status == 1
    assert tp.ca_priv[bbr.MODE] == bbr.STARTUP
    first = tp.pacing_rate
    assert first == pytest.approx(2.89 * 10 * MSS / 0.1, rel=0.05)
    rounds(conn, 20, rate=500)
    assert tp.ca_priv[bbr.FULL_BW_REACHED]
    assert tp.ca_priv[bbr.MODE] == bbr.PROBE_BW
    found = tp.ca_priv[bbr.BW + 1] * 1_000_000 / bbr.BW_UNIT
    assert found == pytest.approx(500, rel=0.1)
    assert tp.ca_priv[bbr.MIN_RTT_US] == pytest.approx(100_000, rel=0.05)
    # twice the product of 500/s and 0.1 s, and three super-segments
    assert 100 <= tp.snd_cwnd <= 125


def test_the_rate_cycles_around_the_bandwidth(host: TcpHost) -> None:
    conn = bbr_conn(host)
    rounds(conn, 20, rate=500)
    gains = []
    for _ in range(16):
        rounds_once(conn)
        gains.append(conn.tp.ca_priv[bbr.PACING_GAIN_NOW])
    assert {320, 256, 192} >= set(gains) >= {256}


def rounds_once(conn: Conn) -> None:
    """What is out is acknowledged, and more goes."""
    conn.host.run_for(0.1)
    conn.rcv(ACK, 0, (conn.tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF)
    conn.send(30_000)
    conn.sent()


def test_a_loss_does_not_slow_it_down(host: TcpHost) -> None:
    conn = bbr_conn(host)
    rounds(conn, 20, rate=500)
    tp = conn.tp
    rate, cwnd = tp.pacing_rate, tp.snd_cwnd
    una = (tp.snd_una - conn.iss - 1) & 0xFFFFFFFF
    host.run_for(0.05)
    conn.sent()
    conn.rcv(ACK, 0, una, sacks=((una + MSS, una + 5 * MSS),))
    assert tp.ca_state == c.TCP_CA_RECOVERY
    assert tp.ca_priv[bbr.PACKET_CONSERVATION] == 1
    assert tp.pacing_rate >= rate * 3 // 4
    host.run_for(0.1)
    conn.rcv(ACK, 0, (tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF)
    assert tp.ca_state == c.TCP_CA_OPEN
    assert tp.snd_cwnd >= cwnd


def test_probe_rtt_after_ten_seconds(host: TcpHost) -> None:
    conn = bbr_conn(host)
    rounds(conn, 20, rate=200)
    tp = conn.tp
    host.run_for(0.2)
    conn.rcv(ACK, 0, (tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF)
    tp.ca_priv[bbr.MIN_RTT_STAMP] -= bbr.MIN_RTT_WIN_US
    tp.ca_priv[bbr.MIN_RTT_US] = 90_000  # less than what comes
    tp.app_limited = 0
    conn.send(50_000)
    conn.sent()
    host.run_for(0.1)
    una = (tp.snd_una - conn.iss - 1) & 0xFFFFFFFF
    conn.rcv(ACK, 0, una + 2 * MSS)
    assert tp.ca_priv[bbr.MODE] == bbr.PROBE_RTT
    assert tp.snd_cwnd == bbr.CWND_MIN_TARGET
    for _ in range(8):
        rounds_once(conn)
    assert tp.ca_priv[bbr.MODE] == bbr.PROBE_BW
    assert tp.snd_cwnd > bbr.CWND_MIN_TARGET


def test_a_socket_that_changes_to_bbr_in_mid_stream_and_away_again(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(20_000)
    rounds_once(conn)
    assert tcp_set_congestion_control(host.net, conn.tp, "bbr") == 0
    assert conn.tp.pacing_status == 1
    rounds_once(conn)
    assert tcp_set_congestion_control(host.net, conn.tp, "cubic") == 0
    rounds_once(conn)
    assert len(conn.tp.ca_priv) == tcp_cubic.SIZE


# ---- pacing ----------------------------------------------------------------------------------


def test_max_pacing_rate_spreads_what_would_be_a_burst(host: TcpHost) -> None:
    conn = Conn(host)
    assert host.setsockopt(conn.sk, uapi.SOL_SOCKET, SO_MAX_PACING_RATE, 100_000) == 0
    assert host.getsockopt(conn.sk, uapi.SOL_SOCKET, SO_MAX_PACING_RATE, 4) == 100_000
    conn.send(30 * MSS)
    sent = 0
    start = host.net.now
    at = 0
    for _ in range(1000):
        for _, _, length, _ in conn.sent():
            sent += length
        if host.net.now - start > 100_000_000:
            at = sent
            conn.rcv(ACK, 0, at)
        host.run_for(0.001)
        if sent == 30 * MSS:
            break
    # the first ten segments are not paced, the others are
    seconds = (host.net.now - start) / 1e9
    assert seconds == pytest.approx(20 * MSS / 100_000, rel=0.2)


def test_no_limit_is_all_ones_and_nobody_is_paced_who_did_not_ask(host: TcpHost) -> None:
    conn = Conn(host)
    rounds_once(conn)
    assert conn.tp.pacing_status == 0
    assert conn.tp.pacing_rate > 0
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, SO_MAX_PACING_RATE, b"\xff" * 4)
    assert conn.tp.max_pacing_rate == NO_LIMIT
    assert conn.tp.pacing_status == 0
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, SO_MAX_PACING_RATE, (10**10).to_bytes(8, "little"))
    assert conn.tp.max_pacing_rate == 10**10
    assert conn.tp.pacing_status == 1


def test_timers_wait_for_what_pacing_holds_back(host: TcpHost) -> None:
    """With 1000 B/s the second segment has its turn after 1.46 s: no probe, no timeout before."""
    conn = Conn(host)
    for at in (6, 12):
        conn.send(6 * MSS)
        conn.sent()
        host.run_for(0.1)
        conn.rcv(ACK, 0, at * MSS)
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, SO_MAX_PACING_RATE, 1000)
    conn.send(3 * MSS)
    assert [n for _, _, n, _ in conn.sent()] == [2 * MSS]
    host.run_for(0.1)
    conn.rcv(ACK, 0, 14 * MSS)
    host.run_for(1.0)
    assert conn.sent() == []
    host.run_for(2.0)
    assert [n for _, _, n, _ in conn.sent()] == [MSS]
    assert conn.mib("TcpExtTCPTimeouts") == conn.mib("TcpExtTCPWinProbe") == 0


def test_app_limited_samples_do_not_lower_the_bandwidth(host: TcpHost) -> None:
    conn = bbr_conn(host)
    rounds(conn, 20, rate=500)
    tp = conn.tp
    while tp.packets_out or tp.write_queue:
        host.run_for(0.1)
        conn.sent()
        conn.rcv(ACK, 0, (tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF)
    before = tp.ca_priv[bbr.BW + 1]
    rtts = tp.ca_priv[bbr.RTT_CNT]
    for _ in range(12):
        conn.send(100)
        conn.sent()
        assert tp.app_limited
        host.run_for(0.1)
        conn.rcv(ACK, 0, (tp.snd_nxt - conn.iss - 1) & 0xFFFFFFFF)
    assert tp.ca_priv[bbr.RTT_CNT] > rtts + bbr.BW_RTTS
    assert tp.ca_priv[bbr.BW + 1] >= before


# ---- small queues ----------------------------------------------------------------------------


def test_no_more_than_the_limit_waits_below_us(host: TcpHost) -> None:
    """tcp_limit_output_bytes: what goes beyond it waits until the first has left, by the rate."""
    conn = Conn(host)
    at = 0
    for _ in range(3):
        conn.send(10 * MSS)
        at += sum(n for _, _, n, _ in conn.sent())
        host.run_for(0.1)
        conn.rcv(ACK, 0, at)
    conn.tp.snd_cwnd = 40
    host.net.sysctl.set("net.ipv4.tcp_limit_output_bytes", 4 * MSS)
    rate = conn.tp.pacing_rate
    conn.send(20 * MSS)
    first = sum(n for _, _, n, _ in conn.sent())
    assert 4 * MSS < first < 20 * MSS
    assert conn.tp.pacing_status == 0, "it is no pacing: what fits goes in a burst"
    host.run_for((first - 4 * MSS) / rate + 0.001)
    assert sum(n for _, _, n, _ in conn.sent()) > 0
    host.run_for(20 * MSS / rate)
    # an ACK says that all has left
    conn.rcv(ACK, 0, at + first)
    assert conn.tp.tsq_bytes <= 20 * MSS


def test_the_default_limit_holds_nobody_back(host: TcpHost) -> None:
    conn = Conn(host)
    conn.tp.snd_cwnd = 1000
    conn.win = 65535
    conn.rcv(ACK, 0, 0)
    conn.send(500 * MSS)
    assert sum(n for _, _, n, _ in conn.sent()) == 500 * MSS
