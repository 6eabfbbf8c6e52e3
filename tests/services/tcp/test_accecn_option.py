# SPDX-License-Identifier: MIT
"""The option of Accurate ECN (RFC 9768 3.2.3): its form, when it goes, what is read of it."""

import pytest

from skbus.inet.headers.tcp import (
    TCPOPT_ACCECN0,
    TCPOPT_ACCECN1,
    TcpOptions,
    build_options,
    parse_options,
)
from skbusd.tcp.sock import TcpAccEcn
from skbusd.tcp.tcp_accecn_option import (
    TCP_ACCECN_OPT_COUNTER_SEEN,
    TCP_ACCECN_OPT_EMPTY_SEEN,
    TCP_ACCECN_OPT_FAIL_RECV,
    TCP_ACCECN_OPT_FAIL_SEEN,
    TCP_ACCECN_OPT_FAIL_SEND,
    TCP_ACCECN_OPT_NOT_SEEN,
    tcp_accecn_option,
    tcp_accecn_option_init,
    tcp_accecn_process_option,
)
from skbustest.tcphost import ACK, PSH, SYN, Conn, Seg, TcpHost

ACE = 0x1C0
CWR = 0x80
MSS = 1000
NOT_ECT, ECT_1, ECT_0, CE = range(4)


def accecn_conn(host: TcpHost, option: int = 2, *, ts: bool = False) -> Conn:
    """A child of a listener, with the option on."""
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.net.sysctl.set("net.ipv4.tcp_ecn_option", option)
    host.net.sysctl.set("net.ipv4.tcp_ecn_option_beacon", 0)
    conn = Conn(host, mss=MSS, wscale=0, ts=ts, syn_flags=ACE, ack_flags=CWR, ack_tos=ECT_0)
    host.sent()
    return conn


def ack(
    conn: Conn,
    flags: int,
    seq: int,
    acked: int,
    option: tuple[int, ...] | None,
    data: bytes = b"",
    tos: int = ECT_0,
) -> None:
    opt = TcpOptions(accecn=option)
    if conn.ts:
        opt.saw_tstamp, opt.tsval, opt.tsecr = True, conn.tsval, conn.tsecr
    mask = 0xFFFFFFFF
    conn.host.arrive(
        flags,
        conn.irs + 1 + seq & mask,
        conn.iss + 1 + acked & mask,
        data,
        sport=conn.rport,
        dport=conn.port,
        opt=opt,
        tos=tos,
    )


def acc_of(conn: Conn) -> TcpAccEcn:
    acc = conn.tp.accecn
    assert acc is not None
    return acc


# ---- the form --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TCPOPT_ACCECN0, TCPOPT_ACCECN1])
@pytest.mark.parametrize("counters", [(), (1,), (0xFFFFFF, 2), (7, 0, 0x010203)])
def test_what_is_written_is_read(kind: int, counters: tuple[int, ...]) -> None:
    raw = build_options(TcpOptions(accecn=(kind, *counters)))
    assert raw[:2] == bytes([kind, 2 + 3 * len(counters)])
    assert len(raw) % 4 == 0
    assert parse_options(raw, False).accecn == (kind, *counters)


@pytest.mark.parametrize("size", range(2, 20))
def test_any_length_is_read_as_far_as_whole_fields_go(size: int) -> None:
    """RFC 9768 3.2.3: what is over is padding."""
    body = bytes(range(1, size - 1))
    found = parse_options(bytes([TCPOPT_ACCECN0, size]) + body, False).accecn
    assert found is not None
    fields = min((size - 2) // 3, 3)
    assert found[1:] == tuple(int.from_bytes(body[3 * i : 3 * i + 3], "big") for i in range(fields))


# ---- sending ---------------------------------------------------------------------------------


def test_the_syn_ack_has_it_once(host: TcpHost) -> None:
    conn = accecn_conn(host)
    assert conn.syn.opt.accecn == (TCPOPT_ACCECN0, 1, 0, 1)
    host.arrive(SYN | ACE, 77, sport=5001, opt=TcpOptions(mss=MSS))
    assert host.one().opt.accecn is not None
    host.run_for(1.1)
    again = host.one()
    assert again.opt.accecn is None
    assert again.th.flags & ACE == CWR
    host.run_for(2.1)
    assert host.one().th.flags & ACE == 0


def test_a_syn_never_has_it(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.socket(2)
    host.connect(2, 5000)
    assert host.one().opt.accecn is None


def one(conn: Conn, flags: int, seq: int, size: int, tos: int) -> Seg:
    """What a segment of the peer's is answered with."""
    ack(conn, flags, seq, 0, None, bytes(size), tos)
    conn.host.run_for(0.05)
    return conn.host.sent()[-1]


def test_where_there_is_news(host: TcpHost) -> None:
    """`net.ipv4.tcp_ecn_option` 1: twice after a change of kind (the handshake's ACK was ECT(0)),
    with each mark, and not else."""
    conn = accecn_conn(host, 1)
    acc_of(conn).opt_demand = 0
    seen = []
    for i, tos in enumerate((ECT_0, ECT_0, ECT_0, CE, CE, ECT_0, ECT_0, ECT_0, ECT_0)):
        seen.append(one(conn, ACK | PSH | 5 << 6, 100 * i, 100, tos).opt.accecn is not None)
    assert seen == [False, False, False, True, True, True, True, False, False]


def test_a_counter_is_told_before_it_goes_round(host: TcpHost) -> None:
    """3.2.3.3: at least once in 2^22 bytes."""
    conn = accecn_conn(host, 1)
    acc = acc_of(conn)
    one(conn, ACK | PSH | 5 << 6, 0, 100, ECT_0)
    one(conn, ACK | PSH | 5 << 6, 100, 100, ECT_0)
    assert one(conn, ACK | PSH | 5 << 6, 200, 100, ECT_0).opt.accecn is None
    acc.received_bytes[ECT_0 - 1] = (1 << 22) - 50
    told = one(conn, ACK | PSH | 5 << 6, 300, 100, ECT_0).opt.accecn
    assert told == (TCPOPT_ACCECN0, (1 << 22) + 51, 0, 1)
    assert one(conn, ACK | PSH | 5 << 6, 400, 100, ECT_0).opt.accecn is None


def test_the_beacon(host: TcpHost) -> None:
    """`net.ipv4.tcp_ecn_option_beacon`: so often in a round trip."""
    conn = accecn_conn(host, 1)
    host.net.sysctl.set("net.ipv4.tcp_ecn_option_beacon", 4)
    acc_of(conn).opt_demand = 0
    tp = conn.tp
    tp.srtt_us = 8 * 400_000
    acc_of(conn).opt_tstamp = host.net.now // 1000
    acc_of(conn).prev_ecnfield = ECT_0
    told = [one(conn, ACK | PSH | 5 << 6, 100 * i, 100, ECT_0).opt.accecn for i in range(8)]
    assert 3 <= sum(option is not None for option in told) <= 4, "every 100 ms of 400"


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_a_segment_has_room_for_it(host: TcpHost, mode: int) -> None:
    conn = accecn_conn(host, mode, ts=True)
    acc_of(conn).opt_demand = 0
    conn.send(2500)
    for seg in host.sent():
        size = seg.skb.gso_size or len(seg.data)
        assert size <= MSS - 12 - (12 if seg.opt.accecn else 0)
        assert (seg.opt.accecn is not None) == (mode == 2)


def test_switched_off_by_a_failure_it_does_not_go(host: TcpHost) -> None:
    conn = accecn_conn(host)
    acc_of(conn).fail_mode = TCP_ACCECN_OPT_FAIL_SEND
    assert one(conn, ACK | PSH | 5 << 6, 0, 100, ECT_0).opt.accecn is None


def test_counters_go_round(host: TcpHost) -> None:
    acc = TcpAccEcn(0, 0)
    acc.received_bytes = [0xFFFFFF, 0x1000005, 3]
    raw = tcp_accecn_option(host.net, acc, 3)
    assert parse_options(raw, False).accecn == (TCPOPT_ACCECN0, 6, 3, 0)


# ---- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counters", "seen"),
    [
        ((), TCP_ACCECN_OPT_EMPTY_SEEN),
        ((1,), TCP_ACCECN_OPT_COUNTER_SEEN),
        ((1, 0), TCP_ACCECN_OPT_COUNTER_SEEN),
        ((9, 5, 1), TCP_ACCECN_OPT_COUNTER_SEEN),
        ((0,), TCP_ACCECN_OPT_FAIL_SEEN),
        ((0, 0, 1), TCP_ACCECN_OPT_FAIL_SEEN),
        ((1, 0, 0), TCP_ACCECN_OPT_FAIL_SEEN),
    ],
)
@pytest.mark.parametrize("kind", [TCPOPT_ACCECN0, TCPOPT_ACCECN1])
def test_a_first_option_of_zeros_is_a_cleared_one(
    kind: int, counters: tuple[int, ...], seen: int
) -> None:
    """3.2.3.2.4; any other first value is one (MUST NOT test for a specific one)."""
    acc = TcpAccEcn(0, 0)
    tcp_accecn_option_init(acc, (kind, *counters))
    assert acc.opt_seen == seen
    failed = seen == TCP_ACCECN_OPT_FAIL_SEEN
    assert acc.fail_mode == (TCP_ACCECN_OPT_FAIL_RECV if failed else 0)


def read(conn: Conn, option: tuple[int, ...] | None, delivered: int = 0) -> bool:
    acc = acc_of(conn)
    acc.rx_option = option
    return tcp_accecn_process_option(conn.tp, acc, delivered)


def test_bytes_by_their_mark(host: TcpHost) -> None:
    conn = accecn_conn(host)
    acc = acc_of(conn)
    read(conn, (TCPOPT_ACCECN0, 1001, 0, 1))
    assert acc.delivered_bytes == [0, 1000, 0]
    assert read(conn, (TCPOPT_ACCECN0, 1501, 500, 1)), "one more kind than before is clear"
    assert acc.delivered_bytes == [0, 1500, 500]
    assert not read(conn, (TCPOPT_ACCECN1, 101, 500, 2001)), "two others are not"
    assert acc.delivered_bytes == [100, 2000, 500]


def test_what_an_ack_without_it_delivered_is_of_the_last_kind(host: TcpHost) -> None:
    conn = accecn_conn(host)
    acc = acc_of(conn)
    read(conn, (TCPOPT_ACCECN0, 1001, 0, 1))
    assert read(conn, None, 700)
    assert acc.delivered_bytes == [0, 1700, 0]
    assert not read(conn, (TCPOPT_ACCECN0, 1501, 200, 1)), "it was another"
    assert acc.delivered_bytes == [0, 1500, 200]
    assert not read(conn, None, 100)


def test_counters_of_the_peer_go_round(host: TcpHost) -> None:
    conn = accecn_conn(host)
    acc = acc_of(conn)
    acc.opt_seen = TCP_ACCECN_OPT_COUNTER_SEEN
    acc.delivered_bytes = [0, 0xFFFFF0, 0]
    read(conn, (TCPOPT_ACCECN0, 0x11, 0, 1))
    assert acc.delivered_bytes == [0, 0x1000010, 0]


def test_after_eight_megabytes_it_is_too_late(host: TcpHost) -> None:
    conn = accecn_conn(host)
    assert acc_of(conn).opt_seen == TCP_ACCECN_OPT_NOT_SEEN
    conn.tp.bytes_sent = 1 << 23
    assert not read(conn, None)
    assert acc_of(conn).opt_seen == TCP_ACCECN_OPT_FAIL_SEEN
    assert not read(conn, (TCPOPT_ACCECN0, 1001, 0, 1))


@pytest.mark.parametrize(
    ("ceb", "marks"),
    [(0, 1), (3000, 9), (9000, 9)],
    ids=["no marked bytes", "more than one segment's", "all"],
)
def test_the_bytes_tell_how_often_the_counter_has_gone_round(
    host: TcpHost, ceb: int, marks: int
) -> None:
    """Appendix A.2.2: an ACK of ten segments, and the counter is one higher, or nine."""
    conn = accecn_conn(host)
    conn.tp.snd_cwnd = 100
    size = MSS - 12
    conn.send(12 * size)
    ack(conn, ACK | 5 << 6, 0, size, (TCPOPT_ACCECN0, 1 + size, 0, 1))
    ack(conn, ACK | 5 << 6, 0, 2 * size, (TCPOPT_ACCECN0, 1 + 2 * size, 0, 1))
    acc_of(conn).pkts_acked_ewma = 0
    e0b = 1 + 12 * size - ceb
    ack(conn, ACK | 6 << 6, 0, 12 * size, (TCPOPT_ACCECN0, e0b, ceb, 1))
    assert conn.tp.delivered_ce == marks


# ---- the rest --------------------------------------------------------------------------------


def test_syns_of_two_kinds_end_in_a_reset(host: TcpHost) -> None:
    """3.1.5: who asks for both kinds within one handshake."""
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.listen(2, 80)
    for i, (first, second) in enumerate(((ACE, 0xC0), (0xC0, ACE))):
        host.arrive(SYN | first, 1000, sport=6000 + i, opt=TcpOptions(mss=MSS))
        host.sent()
        host.arrive(SYN | second, 1000, sport=6000 + i, opt=TcpOptions(mss=MSS))
        assert host.one().th.flags & 4
    assert host.net.socks[2].qlen == 0


def test_the_latest_syn_s_field_is_told(host: TcpHost) -> None:
    """3.1.5; and one that asks for nothing leaves the mode, but nothing of ours is ECT."""
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.listen(2, 80)
    host.arrive(SYN | ACE, 1000, opt=TcpOptions(mss=MSS), tos=NOT_ECT)
    assert host.one().th.flags & ACE == 0b010 << 6
    host.run_for(0.6)
    host.arrive(SYN, 1000, opt=TcpOptions(mss=MSS), tos=CE)
    again = host.one()
    assert again.th.flags & ACE == 0b110 << 6
    host.arrive(ACK | CWR, 1001, again.th.seq + 1)
    (child,) = (tp for tp in host.net.socks.values() if tp.parent)
    host.accept(2, child.number)
    host.sent()
    host.send(child.number, bytes(10))
    assert host.one().cb.tos & 3 == NOT_ECT
