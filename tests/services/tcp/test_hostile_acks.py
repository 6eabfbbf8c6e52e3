# SPDX-License-Identifier: MIT
"""What a hostile peer can make an ACK, or a segment out of order, cost: counted in executed lines,
never in time. The queue grows by eight, and the work for a packet stays what it was (CVE-2019-11477
to 11479 and what is like them).
"""

import sys
from collections.abc import Callable
from itertools import pairwise
from random import Random
from types import FrameType
from typing import Any

import pytest

from skbusd.tcp.const import LOST, SACKED_ACKED, SACKED_RETRANS, TCP_CA_LOSS
from skbusd.tcp.tcp_retransmit import SKB_OVERHEAD
from skbustest.tcpcheck import check_tcp
from skbustest.tcphost import ACK, Conn, TcpHost

pytestmark = pytest.mark.interpreted

MSS = 88
SMALL, BIG = 500, 4000
GROWTH = 1.6
"""Allowed for eight times the queue: a binary search has three steps more."""


class Lines:
    """Counts the lines of skbusd that run in a with block."""

    def __init__(self) -> None:
        self.count = 0

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if "skbusd" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.count += 1
        return self._trace

    def __enter__(self) -> "Lines":
        self.before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self.before)


def sender(n: int, *, sndbuf: int = 64 << 20, ts: bool = False, gap: float = 0.0) -> Conn:
    """A connection with n segments of 88 bytes out, a round trip old."""
    host = TcpHost()
    conn = Conn(host, mss=MSS + 12 if ts else MSS, wscale=10, ts=ts)
    tp = conn.tp
    tp.snd_cwnd = 1 << 20
    tp.sndbuf = sndbuf
    tp.userlocks |= 1
    if gap:  # as many different times of transmission
        for _ in range(n):
            host.run_for(gap)
            conn.send(MSS)
    else:
        conn.send(n * MSS)
    host.run_for(0.001)
    conn.sent()
    host.run_for(0.05)
    host.net.outbox.clear()
    assert tp.packets_out == n
    return conn


def sack(conn: Conn, *segments: tuple[int, int], ack: int = 0, tsecr: int | None = None) -> None:
    """An ACK with blocks of whole segments."""
    conn.host.net.outbox.clear()
    blocks = tuple((a * MSS, b * MSS) for a, b in segments)
    conn.rcv(ACK, 0, ack * MSS, sacks=blocks, tsecr=tsecr)


def cut(conn: Conn, n: int, first: int = 1) -> None:
    """Every other segment is SACKed, four with an ACK."""
    for i in range(first, n - 7, 8):
        sack(conn, *((i + j, i + j + 1) for j in (0, 2, 4, 6)))


Attack = Callable[[int], int]
"""Sets up a queue of n segments, and returns the lines that 64 packets cost."""
K = 64


def cut_forward(n: int) -> int:
    conn = sender(n)
    cut(conn, n // 2)
    with Lines() as lines:
        for i in range(n // 2 + 1, n // 2 + 1 + 4 * K, 4):
            sack(conn, (i, i + 1), (i + 2, i + 3))
    check_tcp(conn.host.net)
    return lines.count


def cut_backward(n: int) -> int:
    conn = sender(n)
    cut(conn, n // 2)
    sack(conn, (n - 2, n - 1))  # all between is lost, once
    with Lines() as lines:
        for i in range(n - 3, n - 3 - 4 * K, -4):
            sack(conn, (i, i + 1), (i + 2, i + 3))
    check_tcp(conn.host.net)
    return lines.count


def cut_anywhere(n: int) -> int:
    conn = sender(n)
    rng = Random(n)
    places = rng.sample(range(1, n - 2), n // 3)
    for i in places[K:]:
        sack(conn, (i, i + 1))
    with Lines() as lines:
        for i in places[:K]:
            sack(conn, (i, i + 1))
    check_tcp(conn.host.net)
    return lines.count


def known_blocks_by_turns(n: int) -> int:
    """Blocks that the last ACK did not have, over what no two of can become one."""
    conn = sender(n)
    cut(conn, n)
    conn.host.run_for(0.1)
    half = n // 2
    sack(conn, (1, half))
    sack(conn, (half + 1, n - 1))
    with Lines() as lines:
        for i in range(K):
            sack(conn, (1, half) if i & 1 else (half + 1, n - 1))
    check_tcp(conn.host.net)
    return lines.count


def many_holes_known(n: int) -> int:
    """The same where the known is in pieces: blocks within them, four by four."""
    conn = sender(n)
    cut(conn, n)
    with Lines() as lines:
        for i in range(K):
            at = 1 + i * 74 % (n // 3) // 8 * 8
            sack(conn, (at, at + 1), (at + 4, at + 5), (n // 2 + 1, n // 2 + 2))
    return lines.count


def dsacks_beyond_what_was_sent_again(n: int) -> int:
    """A D-SACK of all that is out, again and again. What was sent twice may be reported once, and
    pays for that."""
    conn = sender(n)
    cut(conn, n)
    conn.host.run_for(0.3)
    tp = conn.tp
    while tp.dsack_dups <= tp.total_retrans:
        sack(conn, (1, n - 1), (1, n))
    with Lines() as lines:
        for i in range(K):
            sack(conn, (1, n - 1 - i % 3), (1, n))
    return lines.count


def one_is_lost_again_and_again(n: int) -> int:
    """The first is lost again with each ACK, and much that was sent again lies behind it."""
    conn = sender(n)
    cut(conn, n - 200)
    tp = conn.tp
    assert tp.retrans_out > n // 4
    with Lines() as lines:
        for i in range(K):
            conn.host.run_for(0.06)
            sack(conn, (n - 200 + 3 * i, n - 199 + 3 * i))
    check_tcp(conn.host.net)
    return lines.count


def reordered_and_not_due(n: int) -> int:
    """RACK waits for what was sent just before what is SACKed: nearly all of it."""
    conn = sender(n)
    tp = conn.tp
    tp.reord_seen = 1
    tp.rtt_min = ((0, 40_000_000),)
    tp.srtt_us = 8 * 40_000_000
    with Lines() as lines:
        for i in range(K):
            sack(conn, (n - 2 - i, n - 1 - i))
    assert tp.lost_out == 0
    return lines.count


def acknowledged_one_by_one(n: int) -> int:
    conn = sender(n)
    cut(conn, n)
    with Lines() as lines:
        for i in range(1, K + 1):
            sack(conn, (n - 4, n - 3), ack=i)
    check_tcp(conn.host.net)
    return lines.count


def after_a_timeout(n: int) -> int:
    """All is lost, cwnd is small."""
    conn = sender(n)
    cut(conn, n // 2)
    conn.host.net.sysctl.set("net.ipv4.tcp_early_retrans", 0)
    conn.host.net.sysctl.set("net.ipv4.tcp_frto", 0)
    while conn.tp.ca_state != TCP_CA_LOSS:
        conn.host.run_for(1)
    with Lines() as lines:
        for i in range(K):
            sack(conn, (n - 4 - i, n - 3 - i))
    check_tcp(conn.host.net)
    return lines.count


def undone_again_and_again(n: int) -> int:
    """Each second ACK says, by its timestamp, that the retransmission was needless: all that was
    marked lost is not, and is found lost again with the next."""
    conn = sender(n, ts=True)
    conn.host.run_for(0.1)
    tp = conn.tp
    early = conn.tsecr
    acked = 0

    def undone(i: int) -> None:
        nonlocal acked
        tp.snd_cwnd = 1
        for _ in range(2):
            conn.tsval += 1
            sack(conn, (n // 2, n // 2 + 4 + 2 * i), ack=acked, tsecr=early)
            acked += tp.retrans_out
        conn.host.run_for(0.03)

    undone(0)
    with Lines() as lines:
        for i in range(1, K):
            undone(i)
    assert conn.mib("TcpExtTCPPartialUndo") > K // 2
    check_tcp(conn.host.net)
    return lines.count


def fragmentation_needed(n: int) -> int:
    """ICMP errors about a path MTU that is smaller each time, and never too small for the MSS."""
    conn = sender(n)
    with Lines() as lines:
        for i in range(K):
            conn.host.icmp(3, 4, conn.iss + 1, info=1400 - i)
    assert conn.tp.pmtu == 1400 - K + 1
    return lines.count


ATTACKS: list[Attack] = [
    cut_forward,
    cut_backward,
    cut_anywhere,
    known_blocks_by_turns,
    many_holes_known,
    dsacks_beyond_what_was_sent_again,
    one_is_lost_again_and_again,
    reordered_and_not_due,
    acknowledged_one_by_one,
    after_a_timeout,
    undone_again_and_again,
    fragmentation_needed,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_ack_costs_what_it_brings(attack: Attack) -> None:
    small, big = attack(SMALL), attack(BIG)
    assert big <= GROWTH * small, f"{small / K:.0f} lines a packet, then {big / K:.0f}"


# ---- out of order ----------------------------------------------------------------------------


def receiver(n: int) -> Conn:
    """A connection with n bytes out of order, each behind a hole."""
    conn = Conn(TcpHost(), wscale=7)
    conn.tp.rcv_wnd = 1 << 20
    for i in range(n):
        conn.rcv(ACK, 2 + 4 * i, 0, b"x")
    assert len(conn.tp.ofo) == n
    conn.host.net.outbox.clear()
    return conn


def holes(n: int) -> int:
    """More of the same, anywhere."""
    conn = receiver(n)
    with Lines() as lines:
        for i in range(K):
            conn.rcv(ACK, 4 * (i * 7919 % n), 0, b"y")
    return lines.count


def duplicates(n: int) -> int:
    conn = receiver(n)
    with Lines() as lines:
        for i in range(K):
            conn.rcv(ACK, 2 + 4 * (i * 7919 % n), 0, b"x")
    assert len(conn.tp.ofo) == n
    return lines.count


def over_the_last(n: int) -> int:
    """What covers the queue's end; it takes the place of what it covers, once."""
    conn = receiver(n)
    with Lines() as lines:
        for i in range(K):
            conn.rcv(ACK, 4 * n - 2 - 4 * i, 0, bytes(4))
    return lines.count


def the_first_hole_filled(n: int) -> int:
    conn = receiver(n)
    with Lines() as lines:
        for i in range(K):
            conn.rcv(ACK, 4 * i if i else 0, 0, bytes(4 if i else 2))
            conn.host.net.outbox.clear()
    return lines.count


OUT_OF_ORDER = [holes, duplicates, over_the_last, the_first_hole_filled]


@pytest.mark.parametrize("attack", OUT_OF_ORDER, ids=lambda attack: attack.__name__)
def test_a_segment_out_of_order_costs_what_it_brings(attack: Attack) -> None:
    small, big = attack(SMALL), attack(BIG)
    assert big <= GROWTH * small, f"{small / K:.0f} lines a packet, then {big / K:.0f}"


# ---- the bound -------------------------------------------------------------------------------


def pieces(conn: Conn) -> int:
    tp = conn.tp
    queued = (tp.write_seq - tp.snd_una) & 0xFFFFFFFF
    limit = tp.sndbuf + 2 * 65536
    return (2 * limit - queued) // SKB_OVERHEAD


def test_pieces_count_against_the_send_buffer() -> None:
    """Beyond twice the buffer nothing is cut any more, but for the first and the last
    (`tcp_fragment`); what cannot be cut is not SACKed, and the connection goes on."""
    n = 3000
    conn = sender(n, sndbuf=830_000)
    tp = conn.tp
    most = pieces(conn)
    assert len(tp.rtx_queue) < most < n
    cut(conn, n)
    assert most <= len(tp.rtx_queue) <= most + 4
    assert conn.mib("TcpExtTCPWqueueTooBig") > 0
    sacked = tp.sacked_out
    sack(conn, (n - 2, n - 1), ack=0)
    assert tp.sacked_out == sacked + 1, "the last is cut"
    check_tcp(conn.host.net)
    sack(conn, ack=n)
    assert not tp.rtx_queue
    assert not tp.sacked_ranges
    check_tcp(conn.host.net)


def test_least_segment_size() -> None:
    """`net.ipv4.tcp_min_snd_mss`: a peer that asks for less has no say (CVE-2019-11479)."""
    host = TcpHost()
    conn = Conn(host, mss=8)
    assert conn.tp.mss_cache == 48
    host.net.sysctl.set("net.ipv4.tcp_min_snd_mss", 200)
    assert Conn(host, mss=8, rport=5001).tp.mss_cache == 200


# ---- the scoreboard --------------------------------------------------------------------------


def test_sacked_neighbours_become_one_whichever_came_first() -> None:
    """`tcp_shift_skb_data`: a queue that was cut to pieces grows together again."""
    n = 400
    conn = sender(n)
    cut(conn, n)
    assert len(conn.tp.rtx_queue) > n - 20
    conn2 = sender(n)
    order = list(range(1, n - 1))
    Random(5).shuffle(order)
    for i in order:
        sack(conn2, (i, i + 1))
    tp = conn2.tp
    assert tp.sacked_ranges == [(conn2.iss + 1 + MSS & 0xFFFFFFFF, tp.sacked_ranges[0][1])]
    whole = [seg for seg in tp.rtx_queue if seg.sacked & 7 == SACKED_ACKED]
    left = len(tp.rtx_queue) - len(whole)
    twice = sum(bool(seg.sacked & SACKED_RETRANS) for seg in tp.rtx_queue)
    assert left <= twice + 2
    check_tcp(conn2.host.net)


def test_the_indices_are_what_the_queue_says() -> None:
    """Through anything that a peer may say."""
    for seed in range(30):
        rng = Random(seed)
        n = 120
        conn = sender(n, ts=seed % 2 == 0)
        conn.host.net.sysctl.set("net.ipv4.tcp_retries2", 15)
        tp = conn.tp
        early = conn.tsecr
        una = 0
        for _ in range(150):
            tp.snd_cwnd = rng.choice((1, 5, 1 << 20))
            blocks = []
            for _ in range(rng.randrange(4)):
                start = rng.randrange(una, n)
                blocks.append((start, min(n, start + rng.choice((1, 2, 9, n)))))
            if rng.random() < 0.1:
                una = rng.randrange(una, n - 1)
            conn.tsval += 1
            sack(conn, *blocks, ack=una, tsecr=rng.choice((early, conn.tsecr)))
            conn.host.run_for(rng.choice((0, 0.001, 0.01, 0.05, 0.4)))
            check_tcp(conn.host.net)
            ranges: list[list[int]] = []
            for seg in tp.rtx_queue:
                if seg.sacked & SACKED_ACKED:
                    if ranges and ranges[-1][1] == seg.seq:
                        ranges[-1][1] = seg.end_seq
                    else:
                        ranges.append([seg.seq, seg.end_seq])
            assert [list(r) for r in tp.sacked_ranges] == ranges
            waits = [seg for seg in tp.rtx_queue if seg.sacked & 7 == LOST]
            assert all(seg in tp.lost_queue for seg in waits)
            timely = list(tp.tsorted)
            assert not any(seg.sacked & SACKED_ACKED for seg in timely)
            assert all(a.tsorted_next is b and b.tsorted_prev is a for a, b in pairwise(timely))


def test_another_connection_goes_on() -> None:
    """The whole attack, and beside it someone who asks and is answered."""
    n = BIG
    conn = sender(n, sndbuf=1 << 20)
    host = conn.host
    other = Conn(host, rport=5001, ts=True)

    def ask(i: int) -> int:
        host.net.outbox.clear()
        with Lines() as lines:
            other.rcv(ACK, 3 * i, 100 * i, b"ask")
            other.send(100)
        assert ("PA", 100 * i, 100, 3 * i + 3) in other.sent()
        return lines.count

    quiet = [ask(i) for i in range(8)]
    cut(conn, n)
    tp = conn.tp
    assert len(tp.rtx_queue) > n // 2
    for i in range(8, 8 + K):
        with Lines() as lines:
            at = i * 40 % n // 2
            sack(conn, (at | 1, (at | 1) + 1), (n // 2 | 1, (n // 2 | 1) + 1), (n - i, n - i + 1))
        assert lines.count < 20 * max(quiet)
        assert ask(i) <= 2 * max(quiet)
        host.run_for(0.011)
    check_tcp(host.net)
