# SPDX-License-Identifier: MIT
"""Accurate ECN (RFC 9768): who agrees to what, the counter, and what the fast path makes of it."""

import pytest

from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp import const as c
from skbusd.tcp import tcp_accecn
from skbustest.tcphost import ACK, PSH, SYN, Conn, TcpHost

ECE, CWR, AE = 0x40, 0x80, 0x100
ACE = ECE | CWR | AE
MSS = 1460
NOT_ECT, ECT_1, ECT_0, CE = range(4)


def ace(value: int) -> int:
    """The header flags of a counter."""
    return value << 6


def accecn_conn(host: TcpHost, *, ts: bool = False, third: int = CWR) -> Conn:
    """A child of a listener that agreed to Accurate ECN; third: flags of the handshake's ACK."""
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.net.sysctl.set("net.ipv4.tcp_ecn_option", 0)
    return Conn(host, mss=MSS, wscale=0, ts=ts, syn_flags=ACE, ack_flags=third)


@pytest.mark.parametrize(
    ("mode", "plain", "accurate"),
    [(0, 0, 0), (1, ECE, ECE), (2, ECE, ECE), (3, ECE, CWR), (4, ECE, CWR), (5, ECE, CWR)],
)
def test_what_a_server_agrees_to(host: TcpHost, mode: int, plain: int, accurate: int) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", mode)
    host.listen(2, 80)
    answers = []
    for i, flags in enumerate((0, ECE | CWR, ACE)):
        host.arrive(SYN | flags, 1000, sport=5000 + i, opt=TcpOptions(mss=MSS))
        answers.append(host.one().th.flags & ACE)
    assert answers == [0, plain, accurate]


@pytest.mark.parametrize(
    ("mode", "asks"), [(0, 0), (1, ECE | CWR), (2, 0), (3, ACE), (4, ECE | CWR), (5, 0)]
)
def test_what_a_client_asks_for(host: TcpHost, mode: int, asks: int) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", mode)
    host.socket(2)
    host.connect(2, 5000)
    assert host.one().th.flags & ACE == asks


@pytest.mark.parametrize("field", range(4))
def test_the_syn_ack_says_how_the_syn_came(host: TcpHost, field: int) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.listen(2, 80)
    host.arrive(SYN | ACE, 1000, opt=TcpOptions(mss=MSS), tos=field)
    said = tcp_accecn.tcp_accecn_ace(host.one().th.flags)
    assert said == (0b010, 0b011, 0b100, 0b110)[field]
    assert tcp_accecn.tcp_accecn_extract_syn_ect(said) == field


def test_what_a_network_may_do_to_the_field() -> None:
    valid = {
        (a, b) for a in range(4) for b in range(4) if tcp_accecn.tcp_ect_transition_valid(a, b)
    }
    assert valid == {(a, a) for a in range(4)} | {(ECT_0, CE), (ECT_1, CE)}


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (0, 0),
        (ECE, c.TCP_ECN_MODE_RFC3168),
        (ECE | AE, c.TCP_ECN_MODE_RFC3168),
        (CWR, c.TCP_ECN_MODE_ACCECN),
        (ECE | CWR, c.TCP_ECN_MODE_ACCECN),
        (AE, c.TCP_ECN_MODE_ACCECN),
        (AE | CWR, c.TCP_ECN_MODE_ACCECN),
        (ACE, 0),
    ],
)
def test_what_a_syn_ack_makes_of_it(host: TcpHost, flags: int, mode: int) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    tp = host.socket(2)
    ret = host.connect(2, 5000)
    assert isinstance(ret.val, tuple)
    syn = host.one()
    host.run_for(0.1)
    opt = TcpOptions(mss=MSS, wscale=7, sack_ok=True)
    port = int(ret.val[1])
    host.arrive(SYN | ACK | flags, 77, syn.th.seq + 1, sport=5000, dport=port, opt=opt)
    assert tp.ecn_flags & c.TCP_ECN_MODE_ANY == mode
    assert (tp.accecn is not None) == (mode == c.TCP_ECN_MODE_ACCECN)
    if tp.accecn is not None:
        assert bool(tp.accecn.fail_mode) == (flags != CWR), "our SYN was not ECN-capable"
    host.one()


def test_an_unchanged_counter_stays_on_the_fast_path(host: TcpHost) -> None:
    conn = accecn_conn(host)
    for i in range(4):
        conn.rcv(ACK | PSH | ace(5), i * 100, 0, bytes(100), tos=ECT_0)
    assert conn.mib("TcpExtTCPHPHits") >= 3
    conn.send(2 * MSS)
    before = conn.mib("TcpExtTCPHPAcks")
    conn.rcv(ACK | ace(5), 400, 2 * MSS)
    assert conn.mib("TcpExtTCPHPAcks") == before + 1
    conn.send(2 * MSS)
    conn.rcv(ACK | ace(6), 400, 4 * MSS)
    assert conn.mib("TcpExtTCPHPAcks") == before + 1
    assert conn.tp.delivered_ce == conn.mib("TcpExtTCPDeliveredCE") == 1
    conn.send(2 * MSS)
    conn.rcv(ACK | ace(6), 400, 6 * MSS)
    assert conn.mib("TcpExtTCPHPAcks") == before + 2
    assert conn.tp.delivered_ce == 1


def test_every_mark_counts_that_of_an_ack_too_and_of_each_of_a_super_segment(
    host: TcpHost,
) -> None:
    conn = accecn_conn(host)
    acc = conn.tp.accecn
    assert acc is not None
    conn.rcv(ACK | ace(5), tos=CE)
    assert acc.received_ce == 1
    conn.rcv(ACK | PSH | ace(5), 0, 0, bytes(3000), tos=CE, gso_size=1000)
    assert acc.received_ce == 4
    conn.rcv(ACK | PSH | ace(5), 0, 0, bytes(1000), tos=CE)
    assert acc.received_ce == 4, "what is out of the window is not valid"
    assert host.sent()[-1].th.flags & ACE == ace((5 + 4) % 8)


def test_six_marked_acks_are_answered(host: TcpHost) -> None:
    conn = accecn_conn(host)
    for _ in range(5):
        conn.rcv(ACK | ace(5), tos=CE)
    assert conn.sent() == []
    conn.rcv(ACK | ace(5), tos=CE)
    assert host.one().th.flags & ACE == ace((5 + 6) % 8)


def test_an_ack_without_progress_tells_nothing_but_by_its_timestamp(host: TcpHost) -> None:
    conn = accecn_conn(host, ts=True)
    conn.rcv(ACK | ace(6))
    assert conn.tp.delivered_ce == 0, "it may be old"
    conn.tsval += 10
    conn.rcv(ACK | ace(6))
    assert conn.tp.delivered_ce == 1


def test_without_the_fallback_a_mangled_field_is_believed(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn_fallback", 0)
    conn = accecn_conn(host, third=AE | CWR)
    acc = conn.tp.accecn
    assert acc is not None
    assert not acc.fail_mode
    assert conn.tp.delivered_ce == 1
    conn.send(100)
    assert host.one().cb.tos & 3 == ECT_0


def test_all_is_marked_also_what_is_sent_again(host: TcpHost) -> None:
    conn = accecn_conn(host)
    conn.send(4 * MSS)
    host.run_for(0.5)
    sent = host.sent()
    assert len(sent) >= 2
    assert {seg.cb.tos & 3 for seg in sent} == {ECT_0}
    assert {seg.th.flags & ACE for seg in sent} == {ace(5)}


def test_a_counter_with_cwr_s_bit_is_not_cut(host: TcpHost) -> None:
    conn = accecn_conn(host)
    conn.rcv(ACK | PSH | ace(5), 0, 0, bytes(100), tos=CE)
    assert host.one().th.flags & ACE == ace(6)
    conn.send(4 * MSS)
    sent = host.sent()
    assert [(len(seg.data), seg.skb.gso_size) for seg in sent] == [(MSS, 0)] * 4
    assert {seg.th.flags & ACE for seg in sent} == {ace(6)}


def test_a_cookie_has_no_room_for_it(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    host.net.sysctl.set("net.ipv4.tcp_syncookies", 2)
    host.listen(2, 80)
    host.arrive(SYN | ACE, 1000, opt=TcpOptions(mss=MSS))
    synack = host.one()
    assert synack.th.flags & ACE == 0
    host.arrive(ACK | ACE & ~CWR, 1001, synack.th.seq + 1)
    (child,) = (tp for tp in host.net.socks.values() if tp.parent)
    assert child.state == c.TCP_ESTABLISHED
    assert (child.ecn_flags, child.accecn) == (0, None)


def test_a_second_connection_of_a_socket_begins_anew(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_ecn", 3)
    tp = host.socket(2)
    ret = host.connect(2, 5000)
    assert isinstance(ret.val, tuple)
    syn = host.one()
    opt = TcpOptions(mss=MSS)
    host.arrive(SYN | ACK | CWR, 7, syn.th.seq + 1, dport=int(ret.val[1]), opt=opt)
    assert tp.accecn is not None
    host.disconnect(2)
    host.net.sysctl.set("net.ipv4.tcp_ecn", 2)
    host.sent()
    host.connect(2, 5001)
    now: tuple[object, ...] = (tp.accecn, tp.ecn_flags, tp.pred_ack)
    assert now == (None, 0, ACK)
    assert host.one().th.flags & ACE == 0
