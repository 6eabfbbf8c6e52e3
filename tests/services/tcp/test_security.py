# SPDX-License-Identifier: MIT
"""Against blind attacks and old duplicates: RFC 5961, 6528, 7323 (PAWS), 5927."""

from random import Random

import pytest

from skbus.core.abi import RcvCb
from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.core.interfaces import TcpProtocol
from skbus.core.skbuff import CHECKSUM_UNNECESSARY, SkBuff
from skbus.inet.headers.tcp import TcpOptions, build
from skbusd.tcp import tcp_data
from skbusd.tcp.af_inet import tcp_v4_init
from skbusd.tcp.const import TCP_CLOSE, TCP_ESTABLISHED, TCP_SYN_SENT
from skbusd.tcp.netns import TcpNet
from skbustest.harness import small_pool
from skbustest.tcphost import ACK, FIN, PEER, RST, SYN, US, Conn, TcpHost


@pytest.mark.parametrize("offset", [1, 100, 60000])
def test_rst_in_the_window_is_challenged(host: TcpHost, offset: int) -> None:
    conn = Conn(host)
    conn.rcv(RST, offset)
    assert conn.sent() == [("A", 0, 0, 0)]
    assert conn.tp.state == TCP_ESTABLISHED
    assert host.net.mib["TcpExtTCPChallengeACK"] == 1
    assert host.dropped("TCP_RESET") == 1


@pytest.mark.parametrize("offset", [-1, -(10**6), 10**7])
def test_rst_outside_the_window_is_silently_dropped(host: TcpHost, offset: int) -> None:
    conn = Conn(host)
    conn.rcv(RST, offset)
    assert conn.sent() == []
    assert conn.tp.state == TCP_ESTABLISHED


def test_rst_at_the_next_number_is_taken(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(RST, 0)
    assert conn.tp.state == TCP_CLOSE


def test_rst_at_the_end_of_what_is_sacked_is_taken(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK, 1000, 0, bytes(500))
    conn.rcv(RST, 1500)
    assert conn.tp.state == TCP_CLOSE
    assert host.core.held() == 0


@pytest.mark.parametrize("offset", [0, 1, 500, -1, 10**7])
def test_syn_on_a_connection_is_challenged(host: TcpHost, offset: int) -> None:
    conn = Conn(host)
    conn.rcv(SYN, offset)
    assert conn.sent() == [("A", 0, 0, 0)]
    assert conn.tp.state == TCP_ESTABLISHED
    assert host.net.mib["TcpExtTCPSYNChallenge"] == 1


def test_challenges_of_one_connection_are_limited(host: TcpHost) -> None:
    conn = Conn(host)
    for _ in range(5):
        conn.rcv(RST, 5)
    assert len(conn.sent()) == 1
    assert host.net.mib["TcpExtTCPACKSkippedChallenge"] == 4
    host.run_for(0.6)
    conn.rcv(RST, 5)
    assert len(conn.sent()) == 1


def test_challenges_of_all_connections_are_limited(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_challenge_ack_limit", 4)
    conns = [Conn(host, rport=i, rtt=0) for i in range(1, 20)]
    for conn in conns:
        conn.rcv(RST, 5)
    assert 2 <= len(host.sent()) <= 6


@pytest.mark.parametrize(
    ("ack", "reason"), [(5000, "TCP_ACK_UNSENT_DATA"), (-(10**6), "TCP_TOO_OLD_ACK")]
)
def test_an_ack_that_cannot_be_is_challenged(host: TcpHost, ack: int, reason: str) -> None:
    conn = Conn(host)
    conn.rcv(ACK, 0, ack, b"inject")
    assert conn.sent() == [("A", 0, 0, 0)]
    assert host.delivered() == b""
    assert host.dropped(reason) == 1


def test_paws_drops_an_old_duplicate(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.tsval += 1000
    conn.rcv(ACK, 0, 0, b"new")
    host.run_for(0.1)
    conn.sent()
    conn.tsval -= 500
    conn.rcv(ACK, 3, 0, b"old")
    assert conn.sent() == [("A", 0, 0, 3)]
    assert host.delivered() == b"new"
    assert host.net.mib["TcpExtPAWSEstab"] == 1
    assert host.dropped("TCP_RFC7323_PAWS") == 1


def test_paws_forgets_after_24_days(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    host.net.now += 25 * 24 * 3600 * 10**9
    conn.tsval -= 500
    conn.rcv(ACK, 0, 0, b"new")
    assert host.delivered() == b"new"


def test_timestamps_are_offset_for_each_pair_of_hosts(host: TcpHost) -> None:
    net = host.net
    a = net.secure_tcp_ts_off(US, PEER)
    assert a == net.secure_tcp_ts_off(US, PEER)
    assert a != net.secure_tcp_ts_off(US, US)
    net.sysctl.set("net.ipv4.tcp_timestamps", 2)
    assert net.secure_tcp_ts_off(US, PEER) == 0


def test_initial_numbers_follow_rfc_6528() -> None:
    pool, _ = small_pool()
    net = TcpNet(rand=Random(5), pool=pool)
    tcp_v4_init(net)
    net.now = 10**9
    one = net.secure_tcp_seq(US, PEER, 1, 2)
    assert net.secure_tcp_seq(US, PEER, 1, 3) != one
    net.now += 64_000
    assert net.secure_tcp_seq(US, PEER, 1, 2) == (one + 1000) & 0xFFFFFFFF
    other = TcpNet(rand=Random(6), pool=pool)
    tcp_v4_init(other)
    other.now = 10**9
    assert other.secure_tcp_seq(US, PEER, 1, 2) != one


@pytest.mark.parametrize(("code", "err"), [(1, 113), (3, 111), (0, 101), (13, 113)])
def test_icmp_ends_an_attempt_to_connect(host: TcpHost, code: int, err: int) -> None:
    host.socket(2)
    host.connect(2, 80)
    syn = host.one()
    host.icmp(3, code, syn.th.seq, sport=syn.th.source, dport=80)
    assert host.net.socks[2].state == TCP_CLOSE
    assert any(getattr(e, "err", 0) == err for e in host.events())


def test_icmp_about_numbers_that_are_not_out_is_ignored(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    syn = host.one()
    host.icmp(3, 3, syn.th.seq + 500, sport=syn.th.source, dport=80)
    assert host.net.socks[2].state == TCP_SYN_SENT
    assert host.net.mib["TcpExtOutOfWindowIcmps"] == 1
    conn = Conn(host, sk=4)
    host.icmp(3, 3, conn.iss + 1)
    assert conn.tp.state == TCP_ESTABLISHED  # soft (RFC 5461)
    host.icmp(3, 4, conn.iss + 10**6, info=600)
    assert conn.tp.mss_cache == 1460
    assert host.net.mib["TcpExtOutOfWindowIcmps"] == 2


def test_icmp_of_nobody_is_counted(host: TcpHost) -> None:
    host.icmp(3, 3, 5)
    assert host.net.mib["IcmpInErrors"] == 1


def test_icmp_ends_a_request(host: TcpHost) -> None:
    tp = host.listen()
    host.arrive(SYN, 7)
    synack = host.one()
    host.icmp(3, 1, synack.th.seq + 4)
    assert tp.qlen == 1
    host.icmp(3, 1, synack.th.seq)
    assert tp.qlen == 0


def test_too_small_a_path_mtu_is_not_believed(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(100)
    conn.sent()
    host.icmp(3, 4, conn.iss + 1, info=68)
    assert conn.tp.mss_cache == 552 - 40


def test_a_segment_without_ack_is_dropped(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(0, 0, 0, b"x")
    conn.rcv(FIN, 0)
    assert conn.sent() == []
    assert host.delivered() == b""
    assert host.dropped("TCP_FLAGS") == 2


@pytest.mark.interpreted
def test_the_out_of_order_queue_is_bounded(host: TcpHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_data, "TCP_OFO_MAX_SKBS", 100)
    conn = Conn(host)
    for i in range(1, 401, 2):
        conn.rcv(ACK, i, 0, b"x")
    assert len(conn.tp.ofo) == 100
    assert host.core.held() == 100
    assert host.net.mib["TcpExtTCPOFODrop"] == 100


def test_a_syn_may_carry_nothing_odd(host: TcpHost) -> None:
    host.listen()
    host.arrive(SYN, 5, data=b"data in a SYN", opt=TcpOptions(mss=0xFFFF))
    synack = host.one()
    assert synack.th.ack_seq == 6


def test_a_header_in_the_frags_is_pulled(host: TcpHost) -> None:
    host.listen()
    header = build(5000, 80, 5, 0, SYN, 65535)
    place = host.alloc.put(header)
    assert place is not None
    skb = SkBuff(bytes(20), (place,), id=1, data=20, cb=RcvCb(PEER, US, 0, 64, 1500))
    skb.ip_summed = CHECKSUM_UNNECESSARY
    host.rcv(TcpProtocol.tcp_v4_rcv, skb)
    assert host.one().th.ack_seq == 6
    assert host.alloc.in_use() == 0


def test_what_is_no_header_is_dropped(host: TcpHost) -> None:
    for raw in (b"", b"short", bytes(19), bytes(12) + b"\x40" + bytes(7), b"\xff" * 20):
        skb = SkBuff(raw, id=1, cb=RcvCb(PEER, US, 0, 64, 1500))
        host.rcv(TcpProtocol.tcp_v4_rcv, skb)
    assert host.dropped("PKT_TOO_SMALL") == 5
    assert host.net.mib["TcpInErrs"] == 5


def test_payload_that_is_gone_is_a_counted_drop(host: TcpHost) -> None:
    conn = Conn(host)
    header = build(5000, 80, (conn.irs + 1) & 0xFFFFFFFF, conn.iss + 1 & 0xFFFFFFFF, ACK, 500)
    skb = SkBuff(header, ((7, 5, 99, 0, 100),), id=1, cb=RcvCb(PEER, US, 0, 64, 1500))
    host.rcv(TcpProtocol.tcp_v4_rcv, skb)
    assert host.dropped("SKBUS_STALE_PLACE") == 1
    assert conn.sent() == []


def test_a_checksum_over_frags_of_odd_length(host: TcpHost) -> None:
    conn = Conn(host)
    header = build(5000, 80, (conn.irs + 1) & 0xFFFFFFFF, conn.iss + 1 & 0xFFFFFFFF, ACK, 500)
    parts = (b"abc", b"defgh", b"i")
    total = csum_partial(header + b"".join(parts))
    check = csum_tcpudp_magic(PEER, US, len(header) + 9, 6, total)
    header = header[:16] + check.to_bytes(2, "big") + header[18:]
    host.rcv(TcpProtocol.tcp_v4_rcv, SkBuff(header, parts, id=1, cb=RcvCb(PEER, US, 0, 64, 1500)))
    assert host.delivered() == b"abcdefghi"
