# SPDX-License-Identifier: MIT
"""Requirements of RFC 9293 that no other test is about; the names begin with their numbers.
`docs/rfc.md` has all of them."""

import errno
from typing import Any

from skbus.core import uapi
from skbus.core.abi import Connect, SkErrorReport, TcpDone
from skbus.core.entry import SkbEntry
from skbus.core.interfaces import TransportProto
from skbus.core.skbuff import PACKET_BROADCAST, PACKET_MULTICAST, SkBuff
from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp.const import TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN
from skbusd.tcp.tcp_window import tcp_receive_window
from skbustest.packets import inet_aton
from skbustest.tcphost import ACK, FIN, PSH, RST, SYN, URG, Conn, TcpHost

DAY = 24 * 3600


def errors(host: TcpHost) -> list[int]:
    return [e.err for e in host.events() if isinstance(e, SkErrorReport)]


def test_must_1_the_window_is_unsigned(host: TcpHost) -> None:
    conn = Conn(host, win=65535, wscale=None)
    conn.tp.snd_cwnd = 1000
    conn.send(65536)
    assert sum(size for _, _, size, _ in conn.sent()) > 60_000


def test_must_5_and_64_options_come_in_any_segment_and_at_any_offset(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    raw = b"\x01\x08\x0a" + (1005).to_bytes(4, "big") + bytes(4) + b"\x01"
    host.arrive(ACK | PSH, conn.irs + 1, conn.iss + 1, b"data", opt=raw)
    assert host.delivered() == b"data"
    assert conn.tp.ts_recent == 1005


def test_must_6_and_68_unknown_options_are_skipped_by_their_length(host: TcpHost) -> None:
    conn = Conn(host)
    raw = b"\xfd\x06\xde\xad\xbe\xef\xc8\x02" + b"\x05\x0a" + bytes(8) + b"\x01\x00"
    host.arrive(ACK | PSH, conn.irs + 1, conn.iss + 1, b"data", opt=raw)
    assert host.delivered() == b"data"
    assert conn.tp.state == TCP_ESTABLISHED


def test_must_7_illegal_lengths_do_no_harm(host: TcpHost) -> None:
    conn = Conn(host)
    for i, raw in enumerate((b"\x08\x00\x00\x00", b"\x08\x01\x00\x00", b"\x05\x28\x00\x00")):
        host.arrive(ACK | PSH, conn.irs + 1 + i, conn.iss + 1, b"x", opt=raw)
    assert host.delivered() == b"xxx"


def test_must_11_a_reset_in_syn_received_returns_to_where_it_came_from(host: TcpHost) -> None:
    tp = host.listen(2, 80)
    host.arrive(SYN, 5)
    host.sent()
    host.arrive(RST, 6)
    assert (tp.state, tp.qlen) == (TCP_LISTEN, 0)
    assert errors(host) == []
    host.socket(4)
    assert host.bind(4, 1234) == 0
    host.connect(4, 5000)
    host.sent()
    host.arrive(SYN, 100, dport=1234)  # simultaneous open
    host.sent()
    host.events()
    host.arrive(RST, 101, dport=1234)
    assert host.net.socks[4].state == TCP_CLOSE
    told = host.events()
    assert TcpDone(4) in told
    assert any(isinstance(e, SkErrorReport) and e.hard for e in told)


def test_must_15_without_an_mss_option_it_is_536(host: TcpHost) -> None:
    host.listen(2, 80)
    host.arrive(SYN, 5)
    iss = host.one().th.seq
    host.arrive(ACK, 6, iss + 1)
    child = next(sk for sk in host.net.socks if sk != 2)
    host.send(child, bytes(2000))
    assert {seg.skb.gso_size or len(seg.data) for seg in host.sent()} <= {536, 2000 % 536}


def test_must_25_keepalive_is_off(host: TcpHost) -> None:
    conn = Conn(host)
    host.run_for(30 * DAY)
    assert conn.sent() == []
    assert conn.tp.state == TCP_ESTABLISHED


def test_must_28_keepalive_begins_after_two_hours(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 1)
    host.run_for(7190)
    assert conn.sent() == []
    host.run_for(60)
    assert [(flags, seq, size) for flags, seq, size, _ in conn.sent()] == [("A", -1, 0)]


def test_must_34_a_window_that_shrinks_ends_nothing(host: TcpHost) -> None:
    conn = Conn(host, wscale=None)
    conn.send(14600)
    assert sum(size for _, _, size, _ in conn.sent()) == 14600
    conn.rcv(ACK, 0, 1460, win=1460)  # it was 65535
    conn.send(5000)
    assert [size for _, seq, size, _ in conn.sent() if seq >= 14600] == []  # SHLD-15
    host.run_for(1)
    again = conn.sent()
    assert again, "what is out is sent again (SHLD-16)"
    assert errors(host) == []
    conn.rcv(ACK, 0, 14600, win=65535)
    assert sum(size for _, seq, size, _ in conn.sent() if seq >= 14600) == 5000
    assert conn.tp.state == TCP_ESTABLISHED


def test_must_37_the_window_may_stay_shut_for_ever(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK, 0, 0, win=0)
    conn.send(100)
    probes = 0
    for _ in range(2000):
        host.run_for(121)
        for _, seq, _, _ in conn.sent():
            probes += 1
            assert seq == -1
            conn.rcv(ACK, 0, 0, win=0)
    assert probes > 1500
    assert conn.tp.state == TCP_ESTABLISHED
    assert errors(host) == []
    conn.rcv(ACK, 0, 0, win=1000)
    assert [size for _, _, size, _ in conn.sent()] == [100]


def test_must_44_to_46_an_address_that_no_host_has_is_refused(host: TcpHost) -> None:
    host.socket(2)
    assert host.connect(2, 80, inet_aton("224.0.0.1")).err == errno.ENETUNREACH
    assert host.connect(2, 80, b"\xff\xff\xff\xff").err == errno.ENETUNREACH
    host.req += 1
    host.call(TransportProto.connect, Connect(2, host.req, inet_aton("10.0.0.255"), 80))
    host.answer_route(rt_type=3)  # RTN_BROADCAST
    assert host.answer(host.req).err == errno.ENETUNREACH
    assert host.sent() == []


def test_must_55_a_source_quench_is_nothing(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(1000)
    conn.sent()
    before = conn.tp.snd_cwnd
    host.icmp(4, 0, conn.iss + 1)
    assert conn.tp.snd_cwnd == before
    assert conn.tp.err_soft == 0
    assert conn.sent() == []
    assert errors(host) == []


def test_must_56_soft_errors_abort_nothing(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(1000)
    conn.sent()
    for kind, code in ((3, 0), (3, 1), (3, 5), (11, 0), (11, 1), (12, 0)):
        host.icmp(kind, code, conn.iss + 1)
        assert conn.tp.state == TCP_ESTABLISHED
    assert errors(host) == []


def test_must_57_what_was_sent_to_many_is_dropped(host: TcpHost) -> None:
    host.listen(2, 80)
    arrive = host.rcv
    for kind in (PACKET_BROADCAST, PACKET_MULTICAST):

        def to_many(entry: SkbEntry[Any], skb: SkBuff, kind: int = kind) -> None:
            skb.pkt_type = kind
            arrive(entry, skb)

        host.rcv = to_many  # type: ignore[method-assign]
        host.arrive(SYN, 5)
    assert host.sent() == []
    assert not host.net.ehash


def test_must_59_what_waits_is_taken_before_the_ack(host: TcpHost) -> None:
    conn = Conn(host)
    for at in (1, 2, 3):
        conn.rcv(ACK, at * 100, 0, b"y" * 100)
    conn.sent()
    conn.rcv(ACK, 0, 0, b"x" * 100)
    assert [(flags, ack) for flags, _, _, ack in conn.sent()] == [("A", 400)]


def test_must_65_mss_is_in_no_segment_without_syn(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.send(3000)
    conn.rcv(ACK | PSH, 0, 0, b"data")
    host.close(conn.sk)
    segs = host.sent()
    assert segs
    assert not any(seg.opt.mss for seg in segs)


def test_must_66_a_shut_window_takes_rst_and_urg(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_SOCKET, uapi.SO_RCVBUF, 4000)
    at = 0
    while conn.tp.rcv_wnd and at < 200_000:
        conn.rcv(ACK | PSH, at, 0, b"x" * min(500, tcp_receive_window(conn.tp)))
        at = (conn.tp.rcv_nxt - conn.irs - 1) & 0xFFFFFFFF
        host.run_for(0.3)
    conn.sent()
    at = (conn.tp.rcv_nxt - conn.irs - 1) & 0xFFFFFFFF
    conn.rcv(ACK | URG, at, 0, urg=10)
    assert conn.tp.rcv_up == (conn.tp.rcv_nxt + 9) & 0xFFFFFFFF
    conn.send(10)
    conn.rcv(ACK, at, 10)
    assert conn.tp.snd_una == (conn.iss + 11) & 0xFFFFFFFF, "valid ACKs count as well"
    conn.rcv(RST, at)
    assert errors(host) == [errno.ECONNRESET]


def test_must_69_options_end_on_a_word(host: TcpHost) -> None:
    for ts in (False, True):
        conn = Conn(host, ts=ts, rport=5000 + ts)
        conn.rcv(ACK, 100, 0, b"out of order")
        (seg,) = host.sent()
        assert seg.th.doff % 4 == 0
        assert seg.th.doff == len(seg.skb.head)


def test_reserved_bits_are_sent_as_zero_and_not_looked_at(host: TcpHost) -> None:
    conn = Conn(host)
    host.arrive(0xE00 | ACK | PSH, conn.irs + 1, conn.iss + 1, b"data")
    assert host.delivered() == b"data"
    conn.send(10)
    for seg in host.sent():
        assert not seg.skb.head[12] & 0x0F


def test_may_7_and_shld_2_a_reset_may_carry_data(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(RST | ACK, 0, 0, b"why")
    assert errors(host) == [errno.ECONNRESET]
    assert host.delivered() == b""


def test_must_16_the_effective_size_counts_options(host: TcpHost) -> None:
    conn = Conn(host, mss=1000, ts=True)
    conn.send(5000)
    assert {seg.skb.gso_size or len(seg.data) for seg in host.sent()} <= {988, 5000 % 988}
    conn.rcv(ACK, 50, 988 * 5, b"gap")  # SACK takes 12 more
    host.sent()
    conn.send(2000)
    assert max(seg.skb.gso_size or len(seg.data) for seg in host.sent()) <= 976 + 12


def test_shld_23_and_21_the_traffic_class_changes_at_once(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_IP, uapi.IP_TOS, 0x10)
    conn.send(10)
    assert host.one().cb.tos == 0x10


def test_fin_and_data_wrap_with_the_numbers(host: TcpHost) -> None:
    conn = Conn(host, irs=0xFFFFFFFD)
    conn.rcv(ACK | PSH | FIN, 0, 0, b"four")
    assert host.delivered() == b"four"
    host.run_for(0.3)
    assert conn.sent()[-1][3] == 5


def test_options_of_a_syn_are_as_we_asked() -> None:
    host = TcpHost(sysctl={"net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_sack": 0})
    conn = Conn(host, active=True, wscale=None, sack=False)
    assert conn.syn.opt.mss == 1460
    assert conn.syn.opt.wscale is not None
    assert not conn.syn.opt.sack_ok
    assert TcpOptions().mss == 0
