# SPDX-License-Identifier: MIT
"""`tcp_recovery`, one function at a time and at its limits: what `make mutants` found that no other
test noticed. `test_loss.py` has whole recoveries."""

import pytest

from skbus.core.seq import MASK
from skbusd.tcp import tcp_recovery
from skbusd.tcp.const import (
    EVER_RETRANS,
    ICSK_TIME_REO_TIMEOUT,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    TCP_SYN_SENT,
)
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbustest.tcphost import ACK, Conn, TcpHost

MS = 1000


@pytest.fixture
def tp(host: TcpHost) -> TcpSock:
    """A connection with nothing under way; its numbers wrap soon."""
    found = Conn(host).tp
    found.mss_cache = 1000
    host.net.now = 10**12
    return found


def put(tp: TcpSock, at: int, length: int = 1000, *, pcount: int = 1, mss: int = 1000) -> TcpSeg:
    """A segment in the retransmit queue, `at` bytes behind snd_una."""
    start = tp.snd_una + at
    seg = TcpSeg(start & MASK, (start + length) & MASK, ACK, (bytes(length),) if length else ())
    seg.pcount, seg.mss = pcount, mss
    tp.rtx_queue.append(seg)
    tp.tsorted.append(seg)
    tp.packets_out += pcount
    tp.snd_nxt = seg.end_seq
    return seg


def test_the_least_rtt_is_large_while_there_is_none(tp: TcpSock) -> None:
    tp.rtt_min = ()
    assert tcp_recovery.tcp_min_rtt(tp) == MASK
    tp.rtt_min = ((0, 5), (1, 7))
    assert tcp_recovery.tcp_min_rtt(tp) == 5


@pytest.mark.parametrize(
    ("before", "after", "lost_out", "lost", "retrans_out", "again", "waits"),
    [
        (0, LOST, 7, 9, 9, 0, True),
        (EVER_RETRANS, EVER_RETRANS | LOST, 7, 9, 9, 0, True),
        (SACKED_RETRANS, SACKED_RETRANS | LOST, 7, 9, 9, 0, False),
        (LOST, LOST, 5, 7, 9, 0, False),
        (LOST | SACKED_RETRANS, LOST, 5, 9, 7, 2, True),
        (0x87 & ~SACKED_ACKED, LOST | EVER_RETRANS, 5, 9, 7, 2, True),
        (SACKED_ACKED, SACKED_ACKED, 5, 7, 9, 0, False),
    ],
)
def test_marking_a_segment_lost(
    host: TcpHost,
    tp: TcpSock,
    before: int,
    after: int,
    lost_out: int,
    lost: int,
    retrans_out: int,
    again: int,
    waits: bool,
) -> None:
    seg = put(tp, 0, 2000, pcount=2)
    seg.sacked = before
    tp.lost_out, tp.lost, tp.retrans_out = 5, 7, 9
    tcp_recovery.tcp_mark_skb_lost(host.net, tp, seg)
    assert seg.sacked == after
    assert (tp.lost_out, tp.lost, tp.retrans_out) == (lost_out, lost, retrans_out)
    assert host.net.mib["TcpExtTCPLostRetransmit"] == again
    assert (seg in tp.lost_queue) == waits
    assert seg.tsorted_on == (not waits)


def test_retransmissions_that_are_lost_are_counted_together(host: TcpHost, tp: TcpSock) -> None:
    for at in (0, 2000):
        seg = put(tp, at, 2000, pcount=2)
        seg.sacked = LOST | SACKED_RETRANS
        tcp_recovery.tcp_mark_skb_lost(host.net, tp, seg)
    assert host.net.mib["TcpExtTCPLostRetransmit"] == 4


@pytest.mark.parametrize(
    ("reord_seen", "state", "sacked_out", "policy", "srtt_us", "expected"),
    [
        (1, TCP_CA_OPEN, 0, 1, 800_000, 6_000),  # three quarters of the least RTT
        (1, TCP_CA_RECOVERY, 9, 1, 800_000, 6_000),
        (1, TCP_CA_OPEN, 0, 1, 32_000, 4_000),  # no more than the smoothed RTT
        (0, TCP_CA_RECOVERY, 0, 1, 800_000, 0),
        (0, TCP_CA_LOSS, 0, 1, 800_000, 0),
        (0, TCP_CA_DISORDER, 2, 1, 800_000, 6_000),
        (0, TCP_CA_DISORDER, 3, 1, 800_000, 0),  # as many as were SACKed by dupthresh
        (0, TCP_CA_DISORDER, 3, 5, 800_000, 6_000),  # TCP_RACK_NO_DUPTHRESH
    ],
)
def test_the_reordering_window(
    host: TcpHost,
    tp: TcpSock,
    reord_seen: int,
    state: int,
    sacked_out: int,
    policy: int,
    srtt_us: int,
    expected: int,
) -> None:
    host.net.sysctl.set("net.ipv4.tcp_recovery", policy)
    tp.rtt_min, tp.rack_reo_wnd_steps, tp.srtt_us = ((0, 8_000),), 3, srtt_us
    tp.reord_seen, tp.ca_state, tp.sacked_out, tp.reordering = reord_seen, state, sacked_out, 3
    assert tcp_recovery.tcp_rack_reo_wnd(host.net, tp) == expected


@pytest.fixture
def rack(host: TcpHost, tp: TcpSock) -> int:
    """What was delivered last was sent 100 ms ago, and the window is 10 ms; the time, in us."""
    now = host.net.now // 1000
    tp.reord_seen, tp.rtt_min, tp.rack_reo_wnd_steps, tp.srtt_us = 1, ((0, 40 * MS),), 1, 10**6
    tp.rack_rtt_us, tp.rack_mstamp = 100 * MS, now - 100 * MS
    return now


def test_what_was_sent_too_long_ago_is_lost(host: TcpHost, tp: TcpSock, rack: int) -> None:
    ages = [120 * MS, 110 * MS, 110 * MS - 1, 105 * MS, 100 * MS, 100 * MS, 90 * MS]
    segs = [put(tp, 1000 * i) for i in range(len(ages))]
    for seg, age in zip(segs, ages, strict=True):
        seg.mstamp = rack - age
    tp.rack_end_seq = segs[5].end_seq  # the second of those that were sent at one time
    assert tcp_recovery.tcp_rack_detect_loss(host.net, tp) == 10 * MS
    assert [seg.sacked for seg in segs] == [LOST, LOST, 0, 0, 0, 0, 0]
    assert [seg.tsorted_on for seg in segs] == [False, False, True, True, True, True, True]


def test_what_was_sent_after_it_is_not(host: TcpHost, tp: TcpSock, rack: int) -> None:
    """Nor is it waited for: no ACK has said anything about it."""
    segs = [put(tp, 1000 * i) for i in range(2)]
    for seg in segs:
        seg.mstamp = tp.rack_mstamp
    tp.rack_end_seq = segs[0].end_seq
    tp.rack_rtt_us = 0  # they would be due
    assert tcp_recovery.tcp_rack_detect_loss(host.net, tp) == 0
    tp.rack_end_seq = segs[1].end_seq
    assert tcp_recovery.tcp_rack_detect_loss(host.net, tp) == 0
    assert [seg.sacked for seg in segs] == [LOST, 0]


def test_a_retransmission_that_is_lost_is_out_of_the_order(
    host: TcpHost, tp: TcpSock, rack: int
) -> None:
    seg = put(tp, 0)
    seg.mstamp, seg.sacked = rack - 120 * MS, SACKED_RETRANS
    tcp_recovery.tcp_rack_detect_loss(host.net, tp)
    assert seg.sacked == SACKED_RETRANS | LOST
    assert not seg.tsorted_on


@pytest.mark.parametrize(("at", "seen"), [(64, True), (65, False)])
def test_sixty_five_that_are_not_due_are_enough(
    host: TcpHost, tp: TcpSock, rack: int, at: int, seen: bool
) -> None:
    segs = [put(tp, 1000 * i) for i in range(70)]
    for seg in segs:
        seg.mstamp = rack - 109 * MS
    segs[at].mstamp = rack - 120 * MS
    assert tcp_recovery.tcp_rack_detect_loss(host.net, tp) == 10 * MS
    assert (segs[at].sacked == LOST) == seen


def test_the_timer_of_the_reordering_window(host: TcpHost, tp: TcpSock, rack: int) -> None:
    seg = put(tp, 0)
    seg.mstamp = rack - 105 * MS
    tp.icsk_pending = 0
    assert not tcp_recovery.tcp_rack_mark_lost(host.net, tp)  # no ACK has brought anything
    assert tp.icsk_pending == 0
    tp.rack_advanced = True
    assert tcp_recovery.tcp_rack_mark_lost(host.net, tp) is True
    assert tp.rack_advanced is False
    assert tp.icsk_pending == ICSK_TIME_REO_TIMEOUT
    assert tp.icsk_timeout == host.net.now + 7 * 10**6  # and 2 ms
    tp.icsk_pending, tp.rack_advanced = 0, True
    seg.mstamp = rack - 120 * MS
    assert tcp_recovery.tcp_rack_mark_lost(host.net, tp) is False
    assert seg.sacked == LOST
    assert tp.icsk_pending == 0


@pytest.mark.parametrize(
    ("sacked", "rtt", "counts"),
    [
        (0, 39 * MS, True),
        (SACKED_ACKED, 39 * MS, True),
        (SACKED_RETRANS, 39 * MS, False),
        (EVER_RETRANS, 39 * MS, False),
        (EVER_RETRANS, 40 * MS, True),
    ],
)
def test_too_early_an_ack_of_a_retransmission(
    tp: TcpSock, rack: int, sacked: int, rtt: int, counts: bool
) -> None:
    tp.rack_advanced = False
    tcp_recovery.tcp_rack_advance(tp, sacked, 5, rack - rtt, rack)
    assert tp.rack_advanced is counts
    assert tp.rack_rtt_us == (rtt if counts else 100 * MS)
    assert tp.rack_end_seq == (5 if counts else 0)


@pytest.mark.parametrize(
    ("later", "end", "moved"),
    [(1, 0x10, True), (0, 0x21, True), (0, 0x20, False), (0, 0x1F, False), (-1, 0x30, False)],
)
def test_the_segment_that_was_sent_last(
    tp: TcpSock, rack: int, later: int, end: int, moved: bool
) -> None:
    sent = tp.rack_mstamp
    tp.rack_end_seq = 0x20
    tcp_recovery.tcp_rack_advance(tp, 0, end, sent + later, rack)
    assert tp.rack_rtt_us == 100 * MS - later
    assert (tp.rack_mstamp, tp.rack_end_seq) == ((sent + later, end) if moved else (sent, 0x20))


@pytest.mark.parametrize(
    ("policy", "seen", "steps", "persist", "prior", "expected"),
    [
        (3, True, 1, 5, 50, (True, 1, 5, 50)),  # TCP_RACK_STATIC_REO_WND
        (1, False, 1, 0, 50, (False, 1, 0, 50)),
        (1, True, 1, 5, 50, (False, 2, 16, 99)),
        (1, True, 254, 5, 50, (False, 255, 16, 99)),
        (1, True, 255, 5, 50, (False, 255, 16, 99)),
        (1, True, 7, 5, 49, (False, 7, 5, 50)),  # of the round trip that has widened it
        (1, True, 7, 0, 49, (False, 1, 0, 50)),
        (1, False, 7, 5, 50, (False, 7, 5, 50)),
        (1, False, 7, 0, 50, (False, 1, 0, 50)),
        (1, False, 2, 0, 50, (False, 1, 0, 50)),
    ],
)
def test_the_window_is_widened_by_dsacks(
    host: TcpHost,
    tp: TcpSock,
    policy: int,
    seen: bool,
    steps: int,
    persist: int,
    prior: int,
    expected: tuple[bool, int, int, int],
) -> None:
    host.net.sysctl.set("net.ipv4.tcp_recovery", policy)
    tp.rack_dsack_seen, tp.rack_reo_wnd_steps, tp.rack_reo_wnd_persist = seen, steps, persist
    tp.rack_last_delivered, tp.delivered = 50, 99
    tcp_recovery.tcp_rack_update_reo_wnd(host.net, tp, prior)
    assert tp.rack_dsack_seen is expected[0]
    found = (tp.rack_reo_wnd_steps, tp.rack_reo_wnd_persist, tp.rack_last_delivered)
    assert found == expected[1:]


@pytest.mark.parametrize(
    ("state", "sacked_out", "advanced", "lost"),
    [
        (TCP_CA_OPEN, 3, False, True),
        (TCP_CA_DISORDER, 3, False, True),
        (TCP_CA_DISORDER, 2, True, False),
        (TCP_CA_RECOVERY, 3, False, False),
        (TCP_CA_RECOVERY, 0, True, True),
        (TCP_CA_LOSS, 3, True, False),
    ],
)
def test_newreno_marks_the_first_one(
    host: TcpHost, tp: TcpSock, state: int, sacked_out: int, advanced: bool, lost: bool
) -> None:
    segs = [put(tp, 0), put(tp, 1000)]
    tp.ca_state, tp.sacked_out, tp.reordering = state, sacked_out, 3
    tcp_recovery.tcp_newreno_mark_lost(host.net, tp, advanced)
    assert [seg.sacked for seg in segs] == [LOST if lost else 0, 0]
    assert tp.lost_out == lost


@pytest.mark.parametrize(
    ("length", "pcount", "first"),
    [(3000, 3, 1000), (2000, 2, 1000), (1500, 1, 1500), (1000, 2, 1000), (900, 2, 900)],
)
def test_newreno_marks_one_segment_alone(
    host: TcpHost, tp: TcpSock, length: int, pcount: int, first: int
) -> None:
    put(tp, 0, length, pcount=pcount)
    put(tp, length, 5000, pcount=5)
    tp.ca_state = TCP_CA_RECOVERY
    tcp_recovery.tcp_newreno_mark_lost(host.net, tp, True)
    assert tp.rtx_queue[0].dlen() == first
    assert [seg.sacked & LOST for seg in tp.rtx_queue][:2] == [LOST, 0]
    assert len(tp.rtx_queue) == (3 if first < length else 2)
    assert tp.rtx_queue[-1].dlen() == 5000


def test_newreno_leaves_what_is_lost_already(host: TcpHost, tp: TcpSock) -> None:
    seg = put(tp, 0, 3000, pcount=3)
    seg.sacked = LOST | SACKED_RETRANS
    tp.ca_state, tp.retrans_out = TCP_CA_RECOVERY, 3
    tcp_recovery.tcp_newreno_mark_lost(host.net, tp, True)
    assert seg.sacked == LOST | SACKED_RETRANS
    assert len(tp.rtx_queue) == 1


def simple(host: TcpHost, tp: TcpSock) -> list[bool]:
    """After `tcp_simple_retransmit`: which segments have been lost."""
    segs = list(tp.rtx_queue)
    tp.snd_wnd = tp.max_window = 0  # nothing leaves
    tcp_recovery.tcp_simple_retransmit(host.net, tp)
    return [bool(seg.sacked & LOST) for seg in segs]


def test_what_was_too_big_is_lost(host: TcpHost, tp: TcpSock) -> None:
    put(tp, 0, 1000, mss=1000)
    put(tp, 1000, 1001, mss=1001)
    put(tp, 3000, 3000, pcount=6, mss=500)
    put(tp, 6000, 3000, pcount=3, mss=0)
    assert simple(host, tp) == [False, True, False, True]
    assert tp.ca_state == TCP_CA_LOSS


def test_what_fits_is_not(host: TcpHost, tp: TcpSock) -> None:
    put(tp, 0, 1000)
    assert simple(host, tp) == [False]
    assert tp.ca_state == TCP_CA_OPEN


def test_a_retransmission_that_was_too_big(host: TcpHost, tp: TcpSock) -> None:
    seg = put(tp, 0, 2000, mss=2000)
    seg.sacked, tp.lost_out, tp.retrans_out = LOST | SACKED_RETRANS, 1, 1
    tp.snd_wnd = 0
    tcp_recovery.tcp_simple_retransmit(host.net, tp)
    assert host.net.mib["TcpExtTCPLostRetransmit"] == 1


@pytest.mark.parametrize(
    ("syn_data", "state", "lost"),
    [(True, TCP_SYN_SENT, True), (False, TCP_SYN_SENT, False), (True, 1, False)],
)
def test_a_syn_and_its_data_are_one_packet(
    host: TcpHost, tp: TcpSock, syn_data: bool, state: int, lost: bool
) -> None:
    put(tp, 0, 0, mss=0)
    put(tp, 0, 500)
    tp.syn_data, tp.state = syn_data, state
    assert simple(host, tp) == [lost, lost]


@pytest.mark.parametrize(
    ("sack_ok", "sacked_out", "lost_before", "expected"),
    [(False, 3, 0, 2), (False, 1, 0, 1), (False, 3, 9, 0), (True, 3, 0, 3)],
)
def test_without_sack_what_is_lost_was_not_delivered(
    host: TcpHost, tp: TcpSock, sack_ok: bool, sacked_out: int, lost_before: int, expected: int
) -> None:
    for at in range(3):
        put(tp, 2000 * at, 2000 if not at else 1000, mss=2000 if not at else 1000)
    tp.sack_ok, tp.sacked_out, tp.lost_out = sack_ok, sacked_out, lost_before
    simple(host, tp)
    assert tp.sacked_out == expected
