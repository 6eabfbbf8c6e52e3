# SPDX-License-Identifier: MIT
"""`tcp_sack`, one function at a time and at its limits: what `make mutants` found that no other
test noticed. `test_loss.py` has whole recoveries."""

from itertools import pairwise
from random import Random

import pytest

from skbus.core.seq import MASK
from skbusd.tcp import tcp_sack
from skbusd.tcp.const import (
    EVER_RETRANS,
    FLAG_DATA_SACKED,
    FLAG_DSACK_TLP,
    FLAG_DSACKING_ACK,
    FLAG_ORIG_SACK_ACKED,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
)
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_cong import RateSample
from skbusd.tcp.tcp_sack import SackState
from skbustest.tcphost import ACK, FIN, SYN, Conn, TcpHost

NOW = 10**9
OTHER_FLAG = 1
RETRANSMITTED = SACKED_RETRANS | EVER_RETRANS


@pytest.fixture
def tp(host: TcpHost) -> TcpSock:
    """A connection with nothing under way; its numbers wrap soon."""
    found = Conn(host).tp
    found.mss_cache, found.max_window = 1000, 5000
    found.highest_sack = found.high_seq = found.snd_una
    found.rtt_min = ((0, 1),)
    host.net.now = NOW * 1000
    return found


def put(tp: TcpSock, at: int, length: int = 1000, *, pcount: int = 1, mss: int = 1000) -> TcpSeg:
    """A segment in the retransmit queue, `at` bytes behind snd_una."""
    start = tp.snd_una + at
    seg = TcpSeg(start & MASK, (start + length) & MASK, ACK, (bytes(length),))
    seg.pcount, seg.mss, seg.mstamp = pcount, mss, NOW - 50_000 + at
    tp.rtx_queue.append(seg)
    tp.tsorted.append(seg)
    tp.packets_out += pcount
    tp.snd_nxt = seg.end_seq
    return seg


def at(tp: TcpSock, *places: int) -> tuple[int, ...]:
    """Sequence numbers, so many bytes behind snd_una."""
    return tuple((tp.snd_una + place) & MASK for place in places)


def block(tp: TcpSock, start: int, end: int) -> tuple[int, int]:
    return (tp.snd_una + start) & MASK, (tp.snd_una + end) & MASK


def state_of(tp: TcpSock, reord: int = 10**6) -> SackState:
    state = SackState((tp.snd_una + reord) & MASK, NOW, RateSample())
    state.flag = OTHER_FLAG
    return state


def flags(state: SackState) -> int:
    """What was found; no other flag has gone."""
    assert state.flag & OTHER_FLAG
    return state.flag & ~OTHER_FLAG


# ---- blocks ------------------------------------------------------------------------------------


def test_nothing_is_found_yet(tp: TcpSock) -> None:
    rs = RateSample()
    state = SackState(5, 6, rs)
    assert (state.reord, state.now, state.rs) == (5, 6, rs)
    found = (state.first_sackt, state.last_sackt, state.sack_delivered, state.flag)
    assert found == (0, 0, 0, 0)
    assert (state.prior_delivered, state.delivered_bytes) == (0, 0)


ABSURD = 1 << 30


@pytest.mark.parametrize(
    ("dsack", "start", "end", "undo", "valid"),
    [
        (False, 1000, 2000, 0, True),
        (False, 1, 10_000, 0, True),
        (False, 1, 10_001, 0, False),
        (False, 2000, 1000, 0, False),
        (False, 1000, 1000, 0, False),
        (False, 10_000 - 3 * ABSURD, 10_000 - 3 * ABSURD // 2, 0, False),
        (False, 0, 1000, 0, False),
        (False, -500, 0, -400, False),
        (True, -500, 0, 0, False),  # nothing to undo
        (True, -500, 1, -400, False),
        (True, -400, 0, -400, True),
        (True, -300, 0, -400, True),
        (True, -500, -450, -400, False),
        (True, -500, -400, -400, False),
        (True, -500, -399, -400, True),
        (True, -5399, -399, -400, True),  # no longer than the window
        (True, -5400, -399, -400, False),
    ],
)
def test_blocks_that_name_what_was_sent(
    tp: TcpSock, dsack: bool, start: int, end: int, undo: int, valid: bool
) -> None:
    tp.snd_una = 0x2000
    tp.snd_nxt = (tp.snd_una + 10_000) & MASK
    tp.undo_marker = (tp.snd_una + undo) & MASK if undo else 0
    found = tcp_sack.tcp_is_sackblock_valid(tp, dsack, *block(tp, start, end))
    assert found is valid


@pytest.mark.parametrize(
    ("length", "segments"),
    [(0, 0), (1, 1), (1000, 1), (1001, 2), (2000, 2), (5000, 5), (5001, 0), (-1, 0)],
)
def test_how_many_segments_a_dsack_reports(tp: TcpSock, length: int, segments: int) -> None:
    tp.dsack_dups, tp.total_retrans = 10, 100
    state = state_of(tp)
    start, end = block(tp, -2, length - 2)
    assert tcp_sack.tcp_dsack_seen(tp, start, end, state) == segments
    assert tp.dsack_dups == 10 + segments
    assert flags(state) == (FLAG_DSACKING_ACK if segments else 0)


@pytest.mark.parametrize(("before", "counted"), [(97, 2), (98, 2), (99, 0)])
def test_more_duplicates_than_retransmissions_are_not_ours(
    tp: TcpSock, before: int, counted: int
) -> None:
    tp.dsack_dups, tp.total_retrans, tp.reord_seen = before, 100, 1
    state = state_of(tp)
    assert tcp_sack.tcp_dsack_seen(tp, *block(tp, -3000, -1000), state) == counted
    assert tp.dsack_dups == before + 2
    assert flags(state) == (FLAG_DSACKING_ACK if counted else 0)
    assert tp.rack_dsack_seen == bool(counted)


@pytest.mark.parametrize(
    ("length", "probe", "reord_seen", "is_probe", "too_quick"),
    [
        (1000, 0, 1, True, False),  # the end of the loss probe
        (1000, 0, 0, True, False),
        (1001, 0, 1, False, True),  # longer than a probe
        (1000, 7, 1, False, True),
        (1000, None, 1, False, True),
        (1000, None, 0, False, False),
    ],
)
def test_a_dsack_of_a_loss_probe(
    tp: TcpSock, length: int, probe: int | None, reord_seen: int, is_probe: bool, too_quick: bool
) -> None:
    tp.total_retrans, tp.reord_seen = 100, reord_seen
    tp.tlp_high_seq = 0 if probe is None else (tp.snd_una + probe) & MASK
    state = state_of(tp)
    assert tcp_sack.tcp_dsack_seen(tp, *block(tp, -length, 0), state)
    assert flags(state) == FLAG_DSACKING_ACK | (FLAG_DSACK_TLP if is_probe else 0)
    assert tp.rack_dsack_seen is too_quick


def test_no_probe_ends_at_number_zero(tp: TcpSock) -> None:
    tp.total_retrans, tp.tlp_high_seq = 100, 0
    state = state_of(tp)
    assert tcp_sack.tcp_dsack_seen(tp, MASK - 99, 0, state)
    assert flags(state) == FLAG_DSACKING_ACK


@pytest.mark.parametrize(
    ("blocks", "found", "counter"),
    [
        ([(-1000, 0)], True, "Recv"),
        ([(-1, 999)], True, "Recv"),
        ([(0, 1000)], False, ""),
        ([(2000, 3000), (1000, 4000)], True, "OfoRecv"),
        ([(2000, 3000), (2000, 3000)], True, "OfoRecv"),
        ([(2000, 3001), (2000, 3000)], False, ""),
        ([(1999, 3000), (2000, 3000)], False, ""),
        ([(2000, 3000), (5000, 6000), (1000, 4000)], False, ""),
        ([(2000, 3000), (1000, 4000), (5000, 6000)], True, "OfoRecv"),
    ],
)
def test_whether_the_first_block_is_a_dsack(
    host: TcpHost, tp: TcpSock, blocks: list[tuple[int, int]], found: bool, counter: str
) -> None:
    tp.total_retrans = 100
    sacks = tuple(block(tp, *pair) for pair in blocks)
    for _ in range(2):
        state = state_of(tp)
        assert tcp_sack.tcp_check_dsack(host.net, tp, tp.snd_una, sacks, state) is found
    mib = {name: host.net.mib["TcpExtTCPDSACK" + name] for name in ("Recv", "OfoRecv")}
    assert mib == {name: 2 if name == counter else 0 for name in mib}
    assert host.net.mib["TcpExtTCPDSACKRecvSegs"] == (2 if found else 0)
    assert host.net.mib["TcpExtTCPDSACKIgnoredDubious"] == 0
    assert bool(state.flag & FLAG_DSACKING_ACK) is found


def test_a_dsack_that_is_not_ours(host: TcpHost, tp: TcpSock) -> None:
    tp.total_retrans, tp.undo_marker, tp.undo_retrans = 0, tp.snd_una - 50, 4
    for _ in range(2):
        sacks = (block(tp, -1000, 0),)
        assert not tcp_sack.tcp_check_dsack(host.net, tp, tp.snd_una, sacks, state_of(tp))
    assert host.net.mib["TcpExtTCPDSACKIgnoredDubious"] == 2
    assert host.net.mib["TcpExtTCPDSACKRecvSegs"] == 0
    assert tp.undo_retrans == 4


@pytest.mark.parametrize(
    ("marker", "before", "end", "after"),
    [
        (-2500, 5, 0, 3),
        (-2500, 1, 0, 0),
        (-2500, 0, 0, 0),
        (-2500, -1, 0, -1),
        (None, 5, 0, 5),
        (-2500, 5, 1, 5),  # not acknowledged
        (-1, 5, 0, 3),
        (0, 5, 0, 5),  # before what can be undone
    ],
)
def test_a_dsack_undoes_a_retransmission(
    host: TcpHost, tp: TcpSock, marker: int | None, before: int, end: int, after: int
) -> None:
    tp.snd_una = 0x10000
    tp.total_retrans, tp.undo_retrans = 100, before
    tp.undo_marker = 0 if marker is None else tp.snd_una + marker
    sacks = (block(tp, end - 2000, end),)
    assert tcp_sack.tcp_check_dsack(host.net, tp, tp.snd_una, sacks, state_of(tp))
    assert tp.undo_retrans == after


# ---- one segment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "lost_out", "retrans_out"),
    [
        (0, SACKED_ACKED, 7, 7),
        (LOST, SACKED_ACKED, 5, 7),
        (EVER_RETRANS, SACKED_ACKED | EVER_RETRANS, 7, 7),
        (LOST | EVER_RETRANS, SACKED_ACKED | EVER_RETRANS, 5, 7),
        (RETRANSMITTED, SACKED_ACKED | RETRANSMITTED, 7, 7),
        (LOST | RETRANSMITTED, SACKED_ACKED | EVER_RETRANS, 5, 5),
    ],
)
def test_what_a_segment_was_before_it_was_sacked(
    tp: TcpSock, before: int, after: int, lost_out: int, retrans_out: int
) -> None:
    put(tp, 0)
    seg = put(tp, 1000, 2000, pcount=2)
    seg.sacked = before
    tp.lost_out = tp.retrans_out = 7
    tp.sacked_out = tp.delivered = 3
    state = state_of(tp)
    state.sack_delivered, state.delivered_bytes = 4, 100
    tcp_sack.tcp_sacktag_one(tp, seg, False, state)
    assert seg.sacked == after
    assert (tp.lost_out, tp.retrans_out) == (lost_out, retrans_out)
    assert (tp.sacked_out, tp.delivered) == (5, 5)
    assert (state.sack_delivered, state.delivered_bytes) == (6, 2100)
    assert not seg.tsorted_on
    assert tp.highest_sack == seg.end_seq
    assert tp.rack_advanced
    assert tp.rack_end_seq == seg.end_seq
    assert tp.rack_rtt_us == 49_000
    original = not before & EVER_RETRANS
    assert (state.first_sackt, state.last_sackt) == ((seg.mstamp,) * 2 if original else (0, 0))
    assert flags(state) == FLAG_DATA_SACKED


@pytest.mark.parametrize(("high", "original"), [(1999, False), (2000, True), (2001, True)])
def test_originals_up_to_high_seq(tp: TcpSock, high: int, original: bool) -> None:
    put(tp, 0)
    seg = put(tp, 1000)
    (tp.high_seq,) = at(tp, high)
    state = state_of(tp)
    tcp_sack.tcp_sacktag_one(tp, seg, False, state)
    assert flags(state) == FLAG_DATA_SACKED | (FLAG_ORIG_SACK_ACKED if original else 0)


@pytest.mark.parametrize(
    ("highest", "reord", "sacked", "expected"),
    [
        (3000, 3000, 0, 1000),
        (3000, 1000, 0, 1000),
        (3000, 999, 0, 999),
        (1001, 3000, 0, 1000),
        (1000, 3000, 0, 3000),  # it lies in no hole
        (3000, 3000, EVER_RETRANS, 3000),
        (3000, 3000, RETRANSMITTED, 3000),
    ],
)
def test_what_fills_a_hole_was_reordered(
    tp: TcpSock, highest: int, reord: int, sacked: int, expected: int
) -> None:
    put(tp, 0)
    seg = put(tp, 1000)
    seg.sacked = sacked
    (tp.highest_sack,) = at(tp, highest)
    state = state_of(tp, reord)
    tcp_sack.tcp_sacktag_one(tp, seg, False, state)
    assert (state.reord,) == at(tp, expected)
    assert (tp.highest_sack,) == at(tp, max(highest, 2000))


def test_the_first_and_the_last_that_were_sacked(tp: TcpSock) -> None:
    segs = [put(tp, 1000 * i) for i in range(3)]
    state = state_of(tp)
    for seg in segs:
        tcp_sack.tcp_sacktag_one(tp, seg, False, state)
    assert (state.first_sackt, state.last_sackt) == (segs[0].mstamp, segs[2].mstamp)


def test_a_sacked_segment_makes_a_rate_sample(tp: TcpSock) -> None:
    seg = put(tp, 0)
    seg.delivered_mstamp, seg.delivered = 5, 17
    state = state_of(tp)
    tcp_sack.tcp_sacktag_one(tp, seg, False, state)
    assert state.rs.prior_delivered == 17
    assert seg.delivered_mstamp == 0  # it is not counted again


@pytest.mark.parametrize(
    ("sacked", "marker", "before", "after"),
    [
        (EVER_RETRANS, 1999, 5, 3),
        (EVER_RETRANS, 1999, 1, 0),
        (EVER_RETRANS, 1999, 0, 0),
        (EVER_RETRANS, 1999, -1, -1),
        (EVER_RETRANS, 2000, 5, 5),
        (EVER_RETRANS, None, 5, 5),
        (0, 1999, 5, 5),
    ],
)
def test_a_duplicate_of_a_retransmission(
    tp: TcpSock, sacked: int, marker: int | None, before: int, after: int
) -> None:
    tp.snd_una = 0x10000
    seg = put(tp, 0, 2000, pcount=2)
    seg.sacked = sacked
    tp.undo_retrans = before
    tp.undo_marker = 0 if marker is None else tp.snd_una + marker
    tcp_sack.tcp_sacktag_one(tp, seg, True, state_of(tp))
    assert tp.undo_retrans == after
    tp.undo_retrans = before
    tcp_sack.tcp_sacktag_one(tp, seg, False, state_of(tp))
    assert tp.undo_retrans == before


@pytest.mark.parametrize(
    ("sacked", "reord", "expected"),
    [
        (SACKED_ACKED | EVER_RETRANS, 1001, 1000),
        (SACKED_ACKED | EVER_RETRANS, 1000, 1000),
        (SACKED_ACKED | EVER_RETRANS, 999, 999),
        (SACKED_ACKED, 3000, 3000),
        (EVER_RETRANS, 3000, 3000),
    ],
)
def test_a_duplicate_shows_reordering(tp: TcpSock, sacked: int, reord: int, expected: int) -> None:
    put(tp, 0)
    seg = put(tp, 1000)
    seg.sacked = sacked
    state = state_of(tp, reord)
    tcp_sack.tcp_sacktag_one(tp, seg, True, state)
    assert (state.reord,) == at(tp, expected)


@pytest.mark.parametrize(
    ("sacked", "dup", "after", "retrans_out"),
    [
        (SACKED_ACKED | RETRANSMITTED, True, SACKED_ACKED | EVER_RETRANS, 5),
        (SACKED_ACKED | RETRANSMITTED, False, SACKED_ACKED | RETRANSMITTED, 7),
        (SACKED_ACKED | EVER_RETRANS, True, SACKED_ACKED | EVER_RETRANS, 7),
        (SACKED_ACKED | LOST, True, SACKED_ACKED | LOST, 7),
    ],
)
def test_what_was_sacked_already(
    tp: TcpSock, sacked: int, dup: bool, after: int, retrans_out: int
) -> None:
    seg = put(tp, 0, 2000, pcount=2)
    seg.sacked, tp.retrans_out, tp.sacked_out = sacked, 7, 3
    state = state_of(tp)
    tcp_sack.tcp_sacktag_one(tp, seg, dup, state)
    assert seg.sacked == after
    assert (tp.retrans_out, tp.sacked_out, state.delivered_bytes) == (retrans_out, 3, 0)
    assert not flags(state)


# ---- cutting and joining -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "pcount", "mss", "lengths", "inside"),
    [
        (0, 2000, 4, 1000, [2000, 2000], True),
        (-5, 2000, 4, 1000, [2000, 2000], True),
        (0, 2999, 4, 1000, [2000, 2000], True),
        (0, 999, 4, 1000, [4000], False),
        (1000, 4000, 4, 1000, [1000, 3000], False),
        (1001, 4000, 4, 1000, [2000, 2000], False),
        (1, 4000, 4, 1000, [1000, 3000], False),
        (3001, 4000, 4, 1000, [4000], False),
        (0, 2000, 1, 1000, [4000], False),
        (0, 2000, 2, 1000, [2000, 2000], True),
        (0, 2000, 4, 0, [2000, 2000], True),  # by the MSS of today
        (0, 4000, 4, 1000, [4000], False),
        (0, 1000, 4, 1, [1000, 3000], True),
        (0, 1, 4, 1, [1, 3999], True),
    ],
)
def test_cutting_a_segment_at_a_block(
    host: TcpHost,
    tp: TcpSock,
    start: int,
    end: int,
    pcount: int,
    mss: int,
    lengths: list[int],
    inside: bool,
) -> None:
    put(tp, 0, 4000, pcount=pcount, mss=mss)
    assert tcp_sack._split(host.net, tp, 0, *block(tp, start, end)) is inside
    assert [seg.dlen() for seg in tp.rtx_queue] == lengths


def test_no_more_pieces_than_the_buffer_pays_for(host: TcpHost, tp: TcpSock) -> None:
    for i in range(3):
        put(tp, 4000 * i, 4000, pcount=4)
    tp.sndbuf = 0
    tp.write_seq = (tp.snd_una + 10**6) & MASK
    assert tcp_sack._split(host.net, tp, 1, *block(tp, 4000, 6000)) is False
    assert host.net.mib["TcpExtTCPWqueueTooBig"] == 1


def sacked_pair(tp: TcpSock) -> tuple[TcpSeg, TcpSeg]:
    first, second = put(tp, 0, 2000, pcount=2), put(tp, 2000)
    for seg in (first, second):
        seg.sacked = SACKED_ACKED
    return first, second


def test_sacked_neighbours_become_one(host: TcpHost, tp: TcpSock) -> None:
    first, second = sacked_pair(tp)
    put(tp, 3000)
    first.sacked |= EVER_RETRANS
    second.flags |= 8
    first.flags |= 32
    assert tcp_sack._merge_sacked(host.net, tp, 1) is True
    assert [seg.dlen() for seg in tp.rtx_queue] == [3000, 1000]
    assert first.frags == (bytes(2000), bytes(1000))
    assert (first.pcount, first.flags) == (3, ACK | 8 | 32)
    assert first.sacked == SACKED_ACKED | EVER_RETRANS
    put(tp, 4000)
    for seg in tp.rtx_queue:
        seg.sacked |= SACKED_ACKED
    assert tcp_sack._merge_sacked(host.net, tp, 2)
    assert host.net.mib["TcpExtTCPSackMerged"] == 2


@pytest.mark.parametrize(("index", "merged"), [(0, False), (1, True), (2, False), (-1, False)])
def test_there_must_be_two(host: TcpHost, tp: TcpSock, index: int, merged: bool) -> None:
    sacked_pair(tp)
    assert tcp_sack._merge_sacked(host.net, tp, index) is merged


def test_the_second_s_marks_stay(host: TcpHost, tp: TcpSock) -> None:
    first, second = sacked_pair(tp)
    second.sacked |= EVER_RETRANS
    assert tcp_sack._merge_sacked(host.net, tp, 1)
    assert first.sacked == SACKED_ACKED | EVER_RETRANS


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "fields",
    [
        {"sacked": 0},
        {"sacked": SACKED_ACKED | LOST},
        {"sacked": SACKED_ACKED | SACKED_RETRANS},
        {"mss": 999},
        {"flags": ACK | SYN},
        {"flags": ACK | FIN},
    ],
)
def test_what_does_not_become_one(
    host: TcpHost, tp: TcpSock, which: int, fields: dict[str, int]
) -> None:
    pair = sacked_pair(tp)
    for name, value in fields.items():
        setattr(pair[which], name, value)
    assert tcp_sack._merge_sacked(host.net, tp, 1) is False
    assert len(tp.rtx_queue) == 2


def test_the_first_must_be_whole_segments(host: TcpHost, tp: TcpSock) -> None:
    first, _ = sacked_pair(tp)
    first.pcount = 3
    assert tcp_sack._merge_sacked(host.net, tp, 1) is False


@pytest.mark.parametrize(("places", "merged"), [(63, True), (64, False)])
def test_so_many_places_at_most(host: TcpHost, tp: TcpSock, places: int, merged: bool) -> None:
    first, _ = sacked_pair(tp)
    first.frags = tuple(bytes([i]) for i in range(places))
    assert tcp_sack._merge_sacked(host.net, tp, 1) is merged


# ---- the whole scoreboard ----------------------------------------------------------------------


def ranges(tp: TcpSock) -> list[tuple[int, int]]:
    """What is SACKed, relative to snd_una."""
    return [((a - tp.snd_una) & MASK, (b - tp.snd_una) & MASK) for a, b in tp.sacked_ranges]


def sack(host: TcpHost, tp: TcpSock, *blocks: tuple[int, int], **fields: int) -> SackState:
    """An ACK of nothing new, with blocks."""
    state = state_of(tp)
    sacks = tuple(block(tp, *pair) for pair in blocks)
    prior = (tp.snd_una + fields.get("prior", 0)) & MASK
    ack = (tp.snd_una + fields.get("ack", 0)) & MASK
    found = tcp_sack.tcp_sacktag_write_queue(host.net, tp, ack, sacks, prior, state)
    assert found == state.flag
    return state


@pytest.mark.parametrize("seed", range(40))
def test_the_scoreboard_is_what_the_blocks_said(host: TcpHost, tp: TcpSock, seed: int) -> None:
    """Compared with a set of numbers: what of the queue the peer has, in whatever order it says
    so, in segments and in runs of segments."""
    rand = Random(seed)
    end = 0
    while end < 40:
        pcount = rand.choice((1, 1, 2, 5))
        put(tp, 1000 * end, 1000 * pcount, pcount=pcount)
        end += pcount
    tp.max_window = 10**6
    have: set[int] = set()
    for _ in range(12):
        blocks = []
        for _ in range(rand.randint(1, 4)):
            first = rand.randint(1, end - 1)
            last = rand.randint(first + 1, end)
            blocks.append((1000 * first, 1000 * last))
        sorted_in = [
            b for b in blocks if not any(o != b and o[0] <= b[0] and b[1] <= o[1] for o in blocks)
        ]
        blocks = list(dict.fromkeys(sorted_in))
        before = len(have)
        state = sack(host, tp, *blocks)
        have |= {n for a, b in blocks for n in range(a // 1000, b // 1000)}
        assert state.delivered_bytes == 1000 * (len(have) - before)
        assert state.sack_delivered == len(have) - before
        assert tp.sacked_out == len(have)
        found: set[int] = set()
        for seg in tp.rtx_queue:
            (start,) = ((seg.seq - tp.snd_una) & MASK,)
            numbers = set(range(start // 1000, start // 1000 + seg.pcount))
            assert numbers <= have if seg.sacked & SACKED_ACKED else not numbers & have
            assert seg.tsorted_on is not bool(seg.sacked & SACKED_ACKED)
            if seg.sacked & SACKED_ACKED:
                found |= numbers
        assert found == have
        assert ranges(tp) == runs(have)
        assert (tp.highest_sack,) == at(tp, 1000 * (max(have) + 1))
        marks = [seg.sacked for seg in tp.rtx_queue]
        assert all(not (a and b) for a, b in pairwise(marks))
        assert sum(seg.pcount for seg in tp.rtx_queue) == tp.packets_out == end
    ack = rand.randint(1, end)
    una = tp.snd_una
    tp.snd_una = (una + 1000 * ack) & MASK
    acked = {n for n in have if n < ack}
    assert tcp_sack.tcp_sack_ranges_acked(tp) == 1000 * len(acked)
    assert ranges(tp) == [(a - 1000 * ack, b - 1000 * ack) for a, b in runs(have - acked)]


def within(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one != other and other[0] <= one[0] and one[1] <= other[1]


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Runs of whole segments, in bytes."""
    found: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == 1000 * n:
            found[-1] = (found[-1][0], 1000 * n + 1000)
        else:
            found.append((1000 * n, 1000 * n + 1000))
    return found


def test_a_part_of_a_range_is_acknowledged(tp: TcpSock) -> None:
    tp.sacked_ranges = [block(tp, 1000, 2000), block(tp, 3000, 5000), block(tp, 7000, 8000)]
    una = tp.snd_una
    for acked, count, left in (
        (1000, 0, [(0, 1000), (2000, 4000), (6000, 7000)]),
        (1500, 500, [(0, 500), (1500, 3500), (5500, 6500)]),
        (3000, 500, [(0, 2000), (4000, 5000)]),
        (3999, 999, [(0, 1001), (3001, 4001)]),
        (8000, 2001, []),
    ):
        tp.snd_una = (una + acked) & MASK
        assert tcp_sack.tcp_sack_ranges_acked(tp) == count
        assert ranges(tp) == left


def test_blocks_that_end_inside_a_segment(host: TcpHost, tp: TcpSock) -> None:
    for i in range(4):
        put(tp, 1000 * i)
    assert sack(host, tp, (1500, 3500)).delivered_bytes == 1000
    assert [seg.sacked for seg in tp.rtx_queue] == [0, 0, SACKED_ACKED, 0]
    assert sack(host, tp, (1000, 3999)).delivered_bytes == 1000
    assert sack(host, tp, (1000, 4000)).delivered_bytes == 1000
    assert ranges(tp) == [(1000, 4000)]


def test_a_block_is_no_duplicate(host: TcpHost, tp: TcpSock) -> None:
    put(tp, 0)
    seg = put(tp, 1000)
    seg.sacked = RETRANSMITTED
    tp.retrans_out, tp.undo_retrans = 1, 5
    tp.undo_marker = (tp.snd_una - 1) & MASK
    sack(host, tp, (1000, 2000))
    assert seg.sacked == SACKED_ACKED | RETRANSMITTED
    assert (tp.retrans_out, tp.undo_retrans) == (1, 5)


def test_a_dsack_of_what_is_not_sacked_yet(host: TcpHost, tp: TcpSock) -> None:
    """Each segment of it is looked at once."""
    segs = [put(tp, 1000 * i, mss=1000 + i) for i in range(6)]
    for seg in segs:
        seg.sacked = RETRANSMITTED
    tp.total_retrans, tp.retrans_out, tp.undo_retrans = 100, 6, 9
    tp.undo_marker = (tp.snd_una - 1) & MASK
    state = sack(host, tp, (1000, 4000), (1000, 5000))
    assert (tp.retrans_out, tp.undo_retrans) == (3, 6)
    assert state.delivered_bytes == 4000
    assert ranges(tp) == [(1000, 5000)]


def test_blocks_are_taken_in_the_order_of_their_numbers(host: TcpHost, tp: TcpSock) -> None:
    """Across the wrap, whatever the order in the ACK."""
    tp.snd_una = tp.highest_sack = MASK - 1499
    segs = [put(tp, 1000 * i) for i in range(5)]
    state = sack(host, tp, (3000, 4000), (1000, 2000))
    assert (state.first_sackt, state.last_sackt) == (segs[1].mstamp, segs[3].mstamp)
    assert tp.reord_seen == 0


def test_what_a_dsack_covers_becomes_one(host: TcpHost, tp: TcpSock) -> None:
    for i in range(5):
        put(tp, 1000 * i)
    tp.total_retrans = 100
    sack(host, tp, (1000, 3000), (1000, 4000))
    assert [seg.pcount for seg in tp.rtx_queue] == [1, 3, 1]
    assert host.net.mib["TcpExtTCPSackMerged"] == 2


def test_what_is_sacked_is_passed_by(host: TcpHost, tp: TcpSock) -> None:
    """Even where the ranges did not say so."""
    segs = [put(tp, 1000 * i, mss=1000 + i) for i in range(6)]
    for seg in segs[:3]:
        seg.sacked = SACKED_ACKED
    state = state_of(tp)
    (end,) = at(tp, 5000)
    tcp_sack._tag_range(host.net, tp, tp.snd_una, end, tp.snd_una, end, False, state)
    assert [seg.sacked for seg in segs] == [SACKED_ACKED] * 5 + [0]
    assert state.delivered_bytes == 2000
    assert ranges(tp) == [(3000, 5000)]


def test_a_segment_that_may_not_be_cut_is_passed_by(host: TcpHost, tp: TcpSock) -> None:
    for i in range(4):
        put(tp, 4000 * i, 4000, pcount=4)
    tp.sndbuf, tp.max_window = 0, 10**6
    tp.write_seq = (tp.snd_una + 10**6) & MASK
    assert sack(host, tp, (4000, 6000), (8000, 12_000)).delivered_bytes == 4000
    assert ranges(tp) == [(8000, 12_000)]
    assert host.net.mib["TcpExtTCPWqueueTooBig"] == 1


def test_what_begins_below_snd_una_is_cut(host: TcpHost, tp: TcpSock) -> None:
    """A D-SACK, that can be undone, of what is acknowledged; and a block that is valid."""
    for i in range(3):
        put(tp, 1000 * i)
    tp.total_retrans, tp.undo_retrans = 100, 5
    tp.undo_marker = (tp.snd_una - 4000) & MASK
    state = sack(host, tp, (-2000, 0), (1000, 2000))
    assert state.flag & FLAG_DSACKING_ACK
    assert host.net.mib["TcpExtTCPDSACKIgnoredOld"] == 0
    assert tp.undo_retrans == 3
    assert state.delivered_bytes == 1000
    assert tp.sacked_out == 1


def test_a_dsack_of_what_is_sacked(host: TcpHost, tp: TcpSock) -> None:
    segs = [put(tp, 1000 * i) for i in range(5)]
    for seg in segs:
        seg.mss = 1000 + (seg.seq & 1)  # neighbours are not joined
    sack(host, tp, (1000, 4000))
    tp.total_retrans, tp.undo_retrans = 100, 9
    tp.undo_marker = tp.snd_una or 1
    for seg in tp.rtx_queue:
        if seg.sacked:
            seg.sacked |= RETRANSMITTED
    tp.retrans_out = 3
    state = sack(host, tp, (1000, 3000), (1000, 4000))
    assert tp.sacked_out == 3
    assert state.delivered_bytes == 0
    assert host.net.mib["TcpExtTCPDSACKOfoRecv"] == 1
    assert (tp.retrans_out, tp.undo_retrans) == (1, 7)  # two of the three


@pytest.mark.parametrize(
    ("blocks", "marker", "counter"),
    [
        ([(-1000, 500)], 0, "TcpExtTCPDSACKIgnoredNoUndo"),
        ([(-1000, 500)], -2000, "TcpExtTCPDSACKIgnoredOld"),
        ([(1000, 20_000)], 0, "TcpExtTCPSACKDiscard"),
        ([(2000, 3000), (0, 1000)], 0, "TcpExtTCPSACKDiscard"),
        ([(2000, 3000), (-1000, 0)], 0, "TcpExtTCPSACKDiscard"),
        ([(2000, 3000), (-1000, -1)], 0, ""),
        ([(2000, 3000), (1000, 1000)], 0, ""),
        ([(1000, 1000), (2000, 3000)], 0, ""),
        ([(1000, 20_000), (2000, 3000)], 0, "TcpExtTCPSACKDiscard"),
    ],
)
def test_blocks_that_are_left_out(
    host: TcpHost, tp: TcpSock, blocks: list[tuple[int, int]], marker: int, counter: str
) -> None:
    for i in range(5):
        put(tp, 1000 * i)
    tp.total_retrans = 100
    tp.undo_marker = (tp.snd_una + marker) & MASK if marker else 0
    names = ["TcpExtTCPSACKDiscard", "TcpExtTCPDSACKIgnoredNoUndo", "TcpExtTCPDSACKIgnoredOld"]
    for n in (1, 2):
        sack(host, tp, *blocks)
        assert {name: host.net.mib[name] for name in names} == {
            name: n if name == counter else 0 for name in names
        }
    assert tp.sacked_out == (len(blocks) > 1)


@pytest.mark.parametrize(
    ("ack", "out", "done"), [(-5000, 3, True), (-5001, 3, False), (0, 0, False)]
)
def test_acks_that_are_too_old(host: TcpHost, tp: TcpSock, ack: int, out: int, done: bool) -> None:
    for i in range(3):
        put(tp, 1000 * i)
    tp.packets_out = out
    state = sack(host, tp, (1000, 2000), ack=ack)
    assert bool(tp.sacked_out) is done
    assert bool(state.flag & FLAG_DATA_SACKED) is done


def test_where_nothing_is_sacked_the_highest_is_snd_una(host: TcpHost, tp: TcpSock) -> None:
    for i in range(3):
        put(tp, 1000 * i)
    (tp.highest_sack,) = at(tp, 2500)
    sack(host, tp, (1000, 2000))
    assert (tp.highest_sack,) == at(tp, 2000)
    assert host.net.mib["TcpExtTCPSACKReorder"] == 0
    sack(host, tp, (2000, 3000))
    assert (tp.highest_sack,) == at(tp, 3000)


@pytest.mark.parametrize(
    ("state", "marker", "seen"),
    [(TCP_CA_OPEN, 0, 1), (TCP_CA_LOSS, 0, 0), (TCP_CA_LOSS, 1, 1), (TCP_CA_OPEN, 1, 1)],
)
def test_reordering_is_seen(host: TcpHost, tp: TcpSock, state: int, marker: int, seen: int) -> None:
    for i in range(4):
        put(tp, 1000 * i)
    tp.ca_state = state
    tp.undo_marker = (tp.snd_una - marker) & MASK if marker else 0
    sack(host, tp, (3000, 4000))
    assert tp.reord_seen == 0
    sack(host, tp, (1000, 2000))
    assert tp.reord_seen == host.net.mib["TcpExtTCPSACKReorder"] == seen


def test_each_ack_begins_without_flags(host: TcpHost, tp: TcpSock) -> None:
    put(tp, 0)
    assert sack(host, tp, (5000, 6000)).flag == 0
