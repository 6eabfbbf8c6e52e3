# SPDX-License-Identifier: MIT
"""Data both ways on an established connection: segments, Nagle, windows, ACKs, out of order
(RFC 9293 3.8, 3.10.7.4; RFC 2018, 2883, 7323)."""

import pytest

from skbus.core import uapi
from skbus.core.abi import DataReadyCb, SkWriteSpace, TcpFin
from skbus.core.interfaces import Ip, SkCallbacks, Tcp
from skbus.core.skbuff import CHECKSUM_PARTIAL, SKB_GSO_TCPV4, SkBuff
from skbusd.tcp.const import MSG_MORE, TCP_CORK, TCP_NODELAY
from skbusd.tcp.tcp_window import tcp_space
from skbustest.tcphost import ACK, FIN, PEER, PSH, US, Conn, TcpHost

# ---- sending -----------------------------------------------------------------------------------


def test_a_write_is_one_skb_with_partial_checksum_and_gso(host: TcpHost) -> None:
    conn = Conn(host, ts=True, rtt=0.0001)
    conn.send(5 * 1448)  # half of cwnd, so that two of them can be in flight
    seg = host.one()
    assert len(seg.data) == 5 * 1448
    skb = seg.skb
    assert (skb.gso_size, skb.gso_segs, skb.gso_type) == (1448, 5, SKB_GSO_TCPV4)
    assert (skb.ip_summed, skb.csum_start, skb.csum_offset) == (CHECKSUM_PARTIAL, 0, 16)
    assert (skb.data, skb.transport_header, skb.lent) == (0, 0, True)
    assert seg.cb[:8] == (US, PEER, 6, 0, 0, True, 0, b"")
    assert host.net.mib["TcpOutSegs"] == 1 + 5
    assert conn.tp.packets_out == 5


def test_one_segment_is_no_gso(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(1460)
    assert host.one().skb.gso_size == 0


def test_payload_keeps_its_places(host: TcpHost) -> None:
    """What is sent, and sent again, names the socket layer's bytes."""
    conn = Conn(host, ts=True, rtt=0.0001)
    places = ((7, 3, 1, 0, 2000), (7, 4, 1, 100, 3000))
    from skbus.core.abi import TcpSendmsgCb

    host.rcv(Tcp.tcp_sendmsg, SkBuff(b"", places, cb=TcpSendmsgCb(conn.sk, 0), lent=True))
    (skb,) = host.out("ip", Ip.ip_queue_xmit)
    assert skb.frags == places
    host.run_for(1.1)
    skbs = host.out("ip", Ip.ip_queue_xmit)
    assert skbs[-1].frags == ((7, 3, 1, 0, 1448),)


def test_the_initial_window_is_ten_segments(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(40000)
    assert sum(n for _, _, n, _ in conn.sent()) == 14600
    conn.rcv(ACK, 0, 2920)
    assert sum(n for _, _, n, _ in conn.sent()) == 4 * 1460
    assert conn.tp.snd_cwnd == 12


def test_acknowledged_bytes_are_told_once_a_batch(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(3000)
    conn.sent()
    conn.rcv(ACK, 0, 1460)
    conn.rcv(ACK, 0, 3000)
    told = [e for e in host.events() if isinstance(e, SkWriteSpace)]
    assert [e.acked for e in told] == [1460, 1540]
    assert not conn.tp.rtx_queue
    assert conn.tp.write_timer is not None
    assert not conn.tp.write_timer.pending()


def test_nagle_holds_a_small_segment_while_another_is_out(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(10)
    conn.send(10)
    conn.send(10)
    assert conn.sent() == [("PA", 0, 10, 0)]
    conn.rcv(ACK, 0, 10)
    assert conn.sent() == [("PA", 10, 20, 0)]


def test_minshall_lets_a_small_segment_follow_full_ones(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(1460)
    conn.send(10)
    assert conn.sent() == [("PA", 0, 1460, 0), ("PA", 1460, 10, 0)]


def test_nodelay_and_cork(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_NODELAY, 1)
    conn.send(10)
    conn.send(10)
    assert len(conn.sent()) == 2
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_CORK, 1)
    conn.rcv(ACK, 0, 20)
    conn.send(100)
    conn.send(1500)
    assert conn.sent() == [("A", 20, 1460, 0)]
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_CORK, 0)
    assert conn.sent() == [("PA", 1480, 140, 0)]


def test_msg_more_waits_for_more(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(10, MSG_MORE)
    assert conn.sent() == []
    conn.send(10)
    assert conn.sent() == [("PA", 0, 20, 0)]


def test_many_small_writes_become_full_segments(host: TcpHost) -> None:
    """The first goes at once. While it is not acknowledged only full segments go (RFC 9293 3.7.4),
    as many as the window of ten segments lets; then the rest, whose end need not be full."""
    conn = Conn(host)
    for _ in range(300):
        conn.send(50)
    sent = host.sent()
    assert [len(seg.data) for seg in sent] == [50] + [1460] * 9
    conn.rcv(ACK, 0, 50)
    (rest,) = host.sent()
    assert (len(rest.data), rest.skb.gso_size) == (300 * 50 - 50 - 9 * 1460, 1460)
    assert b"".join(seg.data for seg in (*sent, rest)) == bytes(range(50)) * 300


def test_the_peers_window_is_respected(host: TcpHost) -> None:
    conn = Conn(host, win=3000, wscale=None)
    conn.rcv(ACK, win=3000)
    conn.send(10000)
    sent = conn.sent()
    assert sum(n for _, _, n, _ in sent) == 2920
    conn.rcv(ACK, 0, 1460, win=1540)
    assert conn.sent() == []
    conn.rcv(ACK, 0, 2920, win=5000)
    assert sum(n for _, _, n, _ in conn.sent()) == 3 * 1460


def test_a_zero_window_is_probed_with_back_off(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK, win=0)
    conn.send(100)
    assert conn.sent() == []
    start = host.net.now
    probes = []
    for _ in range(1000):
        host.run_for(0.01)
        probes += [round((host.net.now - start) / 1e9, 1) for _ in host.out("ip")]
        if len(probes) == 4:
            break
    assert probes == pytest.approx([0.3, 0.9, 2.1, 4.5], abs=0.1)
    assert host.net.mib["TcpExtTCPWinProbe"] == 4
    conn.rcv(ACK, win=50000)
    assert conn.sent() == [("PA", 0, 100, 0)]


def test_a_probe_is_at_an_old_number(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK, win=0)
    conn.send(100)
    host.run_for(0.35)
    assert conn.sent() == [("A", -1, 0, 0)]


def test_a_window_smaller_than_the_segment_gets_what_fits(host: TcpHost) -> None:
    conn = Conn(host, win=50, wscale=None)
    conn.rcv(ACK, win=50)
    conn.send(100)
    assert conn.sent() == [("PA", 0, 50, 0)]  # PSH at each half of the peer's window
    conn.rcv(ACK, 0, 50, win=20)
    assert conn.sent() == []
    host.run_for(0.5)
    assert conn.sent() == [("PA", 50, 20, 0)]


def test_ip_pmtu_makes_segments_smaller(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(2920)
    conn.sent()
    host.icmp(3, 4, conn.iss + 1, info=1000)
    assert conn.tp.mss_cache == 960
    sent = conn.sent()
    assert sum(n for _, _, n, _ in sent) == 2920
    assert host.net.mib["TcpRetransSegs"] == 4


# ---- receiving ---------------------------------------------------------------------------------


def test_data_is_handed_up_before_it_is_acknowledged(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK | PSH, 0, 0, b"hello")
    (skb,) = host.out("socket", SkCallbacks.sk_data_ready)
    assert skb.cb == DataReadyCb(conn.sk, PEER, 5000, US, 80, 2, 1, (conn.irs + 1) & 0xFFFFFFFF)
    assert host.net.skb_bytes(skb) == b"hello"
    assert conn.sent() == [("A", 0, 0, 5)]  # quick ACKs at the start


def test_delayed_ack_after_the_quick_ones(host: TcpHost) -> None:
    conn = Conn(host)
    at = 0
    for _ in range(40):
        conn.rcv(ACK | PSH, at, 0, bytes(1460))
        host.run_for(0.0001)
        at += 1460
    host.recvmsg(conn.sk, at)
    host.run_for(0.1)
    conn.sent()
    conn.rcv(ACK | PSH, at, 0, bytes(1000))
    assert conn.sent() == []
    host.run_for(0.039)
    assert conn.sent() == []
    host.run_for(0.003)
    assert conn.sent() == [("A", 0, 0, at + 1000)]
    assert host.net.mib["TcpExtDelayedACKs"] >= 1
    at += 1000
    # two full segments are acknowledged at once
    host.net.socks[conn.sk].ack_quick = 0
    conn.rcv(ACK, at, 0, bytes(1460))
    assert conn.sent() == []
    conn.rcv(ACK, at + 1460, 0, bytes(1460))
    assert conn.sent() == [("A", 0, 0, at + 2920)]
    # and so is a super-segment
    conn.rcv(ACK, at + 2920, 0, bytes(4380), gso_size=1460)
    assert conn.sent() == [("A", 0, 0, at + 7300)]


def test_header_prediction_counts(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.rcv(ACK, 0, 0, b"x" * 100)
    conn.rcv(ACK, 100, 0, b"x" * 100)
    assert host.net.mib["TcpExtTCPHPHits"] == 2
    conn.send(100)
    conn.sent()
    conn.rcv(ACK, 200, 100)
    assert host.net.mib["TcpExtTCPHPAcks"] == 1


def test_out_of_order_data_is_sacked_and_kept(host: TcpHost) -> None:
    conn = Conn(host)
    base = conn.irs + 1
    conn.rcv(ACK, 1000, 0, b"b" * 1000)
    seg = host.one()
    assert seg.opt.sacks == (((base + 1000) & 0xFFFFFFFF, (base + 2000) & 0xFFFFFFFF),)
    conn.rcv(ACK, 3000, 0, b"d" * 1000)
    seg = host.one()
    assert [((a - base) & 0xFFFFFFFF, (b - base) & 0xFFFFFFFF) for a, b in seg.opt.sacks] == [
        (3000, 4000),
        (1000, 2000),
    ]
    assert host.core.held() == 2
    assert host.delivered() == b""
    conn.rcv(ACK, 2000, 0, b"c" * 1000)
    seg = host.one()
    assert [((a - base) & 0xFFFFFFFF, (b - base) & 0xFFFFFFFF) for a, b in seg.opt.sacks] == [
        (1000, 4000)
    ]
    conn.rcv(ACK, 0, 0, b"a" * 1000)
    assert host.delivered() == b"a" * 1000 + b"b" * 1000 + b"c" * 1000 + b"d" * 1000
    assert conn.sent() == [("A", 0, 0, 4000)]
    assert host.core.held() == 0
    assert host.net.mib["TcpExtTCPOFOQueue"] == 3


def test_overlaps_are_trimmed(host: TcpHost) -> None:
    conn = Conn(host)
    text = bytes(range(200)) * 20
    for start, end in ((1000, 2000), (500, 1500), (1800, 2600), (900, 2700), (3000, 3500)):
        conn.rcv(ACK, start, 0, text[start:end])
    conn.rcv(ACK, 0, 0, text[:700])
    conn.rcv(ACK, 100, 0, text[100:3100])
    assert host.delivered() == text[:3500]
    assert host.core.held() == 0


def test_a_duplicate_is_answered_with_dsack(host: TcpHost) -> None:
    conn = Conn(host)
    base = conn.irs + 1
    conn.rcv(ACK, 0, 0, b"a" * 1000)
    conn.sent()
    conn.rcv(ACK, 0, 0, b"a" * 1000)
    seg = host.one()
    assert [((a - base) & 0xFFFFFFFF, (b - base) & 0xFFFFFFFF) for a, b in seg.opt.sacks] == [
        (0, 1000)
    ]
    assert host.net.mib["TcpExtTCPDSACKOldSent"] == 1
    assert host.delivered() == b"a" * 1000
    assert conn.tp.duplicate_sack is None


def test_an_out_of_order_fin_waits(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK | FIN, 5, 0, b"world")
    assert TcpFin(conn.sk) not in host.events()
    conn.rcv(ACK, 0, 0, b"hello")
    assert host.delivered() == b"helloworld"
    assert TcpFin(conn.sk) in host.events()
    host.run_for(0.3)
    assert conn.sent()[-1] == ("A", 0, 0, 11)


def test_the_window_closes_and_opens(host: TcpHost) -> None:
    conn = Conn(host)
    at = 0
    while True:
        window = (conn.tp.rcv_wup + conn.tp.rcv_wnd - conn.tp.rcv_nxt) & 0xFFFFFFFF
        if window < 1460:
            break
        conn.rcv(ACK, at, 0, bytes(1460))
        at += 1460
        host.run_for(0.05)
    conn.rcv(ACK, at, 0, bytes(window))
    at += window
    host.run_for(0.3)
    assert host.sent()[-1].th.window == 0
    assert host.net.mib["TcpExtTCPToZeroWindowAdv"] == 1
    # a probe is answered, its byte is not taken
    conn.rcv(ACK, at, 0, b"p")
    assert conn.sent() == [("A", 0, 0, at)]
    assert host.dropped("TCP_INVALID_END_SEQUENCE") == 1
    assert host.net.mib["TcpExtBeyondWindow"] == 1
    # a little room is not told
    host.recvmsg(conn.sk, 100)
    assert conn.sent() == []
    host.recvmsg(conn.sk, at - 100)
    assert host.one().th.window > 100
    assert host.net.mib["TcpExtTCPFromZeroWindowAdv"] == 1


def test_the_receive_window_grows_with_what_the_application_takes(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    at = 0
    for _ in range(60):  # round trips of 10 ms
        window = (conn.tp.rcv_wup + conn.tp.rcv_wnd - conn.tp.rcv_nxt) & 0xFFFFFFFF
        size = min(window // 1448, 40) * 1448
        conn.rcv(ACK, at, 0, bytes(size), gso_size=1448)
        host.recvmsg(conn.sk, size)
        at += size
        host.run_for(0.01)
        conn.sent()
        conn.tsval += 10
        host.delivered()
    assert conn.tp.rcvbuf > 131072
    assert conn.tp.rcv_wnd > 100_000


@pytest.mark.parametrize(
    ("size", "locked", "window"), [(1448, 0, 65536), (57920, 0, 126464), (57920, 2, 65536)]
)
def test_most_of_the_buffer_is_window_for_a_sender_of_super_segments(
    host: TcpHost, size: int, locked: int, window: int
) -> None:
    """Their slots hold little but payload; the buffer of others is half overhead, as far as we
    know, and one that the user has set keeps its window."""
    conn = Conn(host, ts=True)
    conn.tp.userlocks |= locked
    conn.rcv(ACK, 0, 0, bytes(size), gso_size=1448)
    host.recvmsg(conn.sk, size)
    assert conn.tp.rcvbuf == 131072
    assert tcp_space(host.net, conn.tp) == window


def test_out_of_window_data_is_answered_not_taken(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK, 10_000_000, 0, b"far")
    assert conn.sent() == [("A", 0, 0, 0)]
    assert host.dropped("TCP_INVALID_SEQUENCE") == 1
    assert host.delivered() == b""


def test_urgent_data_is_in_the_stream(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK | PSH | 32, 0, 0, b"urg", urg=3)
    assert host.delivered() == b"urg"
    conn.sent()
    conn.send(5, 1)
    seg = host.one()
    assert seg.th.flags & 32
    assert seg.th.urg_ptr == 5


def test_idle_halves_the_window(host: TcpHost) -> None:
    conn = Conn(host)
    total = 0
    for _ in range(5):
        conn.send(60000)
        for _, _, n, _ in conn.sent():
            total += n
        conn.rcv(ACK, 0, total)
        for _, _, n, _ in conn.sent():
            total += n
        conn.rcv(ACK, 0, total)
    before = conn.tp.snd_cwnd
    assert before > 20
    host.run_for(30)
    conn.send(1000)
    assert conn.tp.snd_cwnd == 10


def test_keepalive_asks_and_gives_up(host: TcpHost) -> None:
    conn = Conn(host)
    for name, value in (
        (uapi.TCP_KEEPIDLE, 10),
        (uapi.TCP_KEEPINTVL, 2),
        (uapi.TCP_KEEPCNT, 3),
    ):
        assert host.setsockopt(conn.sk, 6, name, value) == 0
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 1)
    host.run_for(9.5)
    assert conn.sent() == []
    host.run_for(1)
    assert conn.sent() == [("A", -1, 0, 0)]
    conn.rcv(ACK, 0, 0)
    host.run_for(9)
    assert conn.sent() == []
    host.run_for(8)
    assert [f for f, *_ in conn.sent()] == ["A", "A", "A", "RA"]
    assert host.net.mib["TcpExtTCPKeepAlive"] == 4
    assert conn.tp.state == 7
