# SPDX-License-Identifier: MIT
"""The SACK scoreboard (`net/ipv4/tcp_input.c`, `tcp_sacktag_write_queue`): which segments of the
retransmit queue the peer has.

Called by tcp_ack. Blocks that earlier ACKs told (`TcpSock.sacked_ranges`) are skipped, and SACKed
neighbours become one, so that an ACK costs by its own news. RFC 2018, RFC 2883 (D-SACK), RFC 6675.
"""

from typing import Final

from skbus.core.seq import MASK, after, before
from skbus.core.skbuff import frags_joined
from skbusd.tcp.const import (
    EVER_RETRANS,
    FIN,
    FLAG_DATA_SACKED,
    FLAG_DSACK_TLP,
    FLAG_DSACKING_ACK,
    FLAG_ORIG_SACK_ACKED,
    LOST,
    SACKED_ACKED,
    SACKED_RETRANS,
    SYN,
    TAGBITS,
    TCP_CA_LOSS,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_cong import RateSample
from skbusd.tcp.tcp_fastretrans import tcp_check_sack_reordering
from skbusd.tcp.tcp_lost import rtx_index
from skbusd.tcp.tcp_rate import tcp_rate_skb_delivered
from skbusd.tcp.tcp_recovery import tcp_rack_advance
from skbusd.tcp.tcp_retransmit import tcp_rtx_fragment

Block = tuple[int, int]

_MAX_FRAGS: Final = 64
"""The most places for the bytes of SACKed segments that became one."""


class SackState:
    """The findings from one ACK's SACK blocks (`struct tcp_sacktag_state`)."""

    __slots__ = (
        "delivered_bytes",
        "first_sackt",
        "flag",
        "last_sackt",
        "now",
        "prior_delivered",
        "reord",
        "rs",
        "sack_delivered",
    )

    def __init__(self, reord: int, now: int, rs: RateSample) -> None:
        self.reord = reord
        """The lowest number that was delivered late."""
        self.now = now
        self.rs = rs
        self.first_sackt = 0
        self.last_sackt = 0
        self.sack_delivered = 0
        self.flag = 0
        self.prior_delivered = 0
        """Segments delivered before this ACK."""
        self.delivered_bytes = 0
        """Bytes of newly SACKed segments, less those of SACKed segments that are now acknowledged.
        """


def tcp_is_sackblock_valid(tp: TcpSock, is_dsack: bool, start: int, end: int) -> bool:
    """Does the block name bytes that we have sent?"""
    if after(end, tp.snd_nxt) or not before(start, end):
        return False
    if not before(start, tp.snd_nxt):
        return False
    if after(start, tp.snd_una):
        return True
    if not is_dsack or not tp.undo_marker:
        return False
    if after(end, tp.snd_una):
        return False
    if not before(start, tp.undo_marker):
        return True
    if not after(end, tp.undo_marker):
        return False
    return not before(start, end - tp.max_window)


def tcp_dsack_seen(tp: TcpSock, start: int, end: int, state: SackState) -> int:
    """Count a D-SACK; returns how many segments it reports."""
    dup_segs = 1
    length = (end - start) & MASK
    if not 0 < length <= tp.max_window:
        return 0
    if length > tp.mss_cache:
        dup_segs = -(-length // tp.mss_cache)
    elif tp.tlp_high_seq and end == tp.tlp_high_seq:
        state.flag |= FLAG_DSACK_TLP
    tp.dsack_dups += dup_segs
    if tp.dsack_dups > tp.total_retrans:
        return 0  # not ours: all segments that we have sent twice have been reported
    # A duplicate that we made shows that RACK was too quick.
    if tp.reord_seen and not state.flag & FLAG_DSACK_TLP:
        tp.rack_dsack_seen = True
    state.flag |= FLAG_DSACKING_ACK
    return dup_segs


def tcp_check_dsack(
    net: TcpNet, tp: TcpSock, ack: int, sacks: tuple[Block, ...], state: SackState
) -> bool:
    """Is the first block a D-SACK (RFC 2883 4)?"""
    start, end = sacks[0]
    if before(start, ack):
        net.mib["TcpExtTCPDSACKRecv"] += 1
    elif len(sacks) > 1 and not before(sacks[1][1], end) and not before(start, sacks[1][0]):
        net.mib["TcpExtTCPDSACKOfoRecv"] += 1
    else:
        return False
    dup_segs = tcp_dsack_seen(tp, start, end, state)
    if not dup_segs:
        net.mib["TcpExtTCPDSACKIgnoredDubious"] += 1
        return False
    net.mib["TcpExtTCPDSACKRecvSegs"] += dup_segs
    if (
        tp.undo_marker
        and tp.undo_retrans > 0
        and not before(ack, end)
        and after(end, tp.undo_marker)
    ):
        tp.undo_retrans = max(0, tp.undo_retrans - dup_segs)
    return True


def tcp_sacktag_one(tp: TcpSock, seg: TcpSeg, dup_sack: bool, state: SackState) -> None:
    """The peer has all of this segment."""
    sacked = seg.sacked
    pcount = seg.pcount
    if dup_sack and sacked & EVER_RETRANS:
        if tp.undo_marker and tp.undo_retrans > 0 and after(seg.end_seq, tp.undo_marker):
            tp.undo_retrans = max(0, tp.undo_retrans - pcount)
        if sacked & SACKED_ACKED and before(seg.seq, state.reord):
            state.reord = seg.seq
    if not sacked & SACKED_ACKED:
        tcp_rack_advance(tp, sacked, seg.end_seq, seg.mstamp, state.now)
        if sacked & SACKED_RETRANS:
            if sacked & LOST:
                sacked &= ~(LOST | SACKED_RETRANS)
                tp.lost_out -= pcount
                tp.retrans_out -= pcount
        else:
            if not sacked & EVER_RETRANS:
                # Delivered although it lay in a hole: reordered
                if before(seg.seq, tp.highest_sack) and before(seg.seq, state.reord):
                    state.reord = seg.seq
                if not before(tp.high_seq, seg.end_seq):
                    state.flag |= FLAG_ORIG_SACK_ACKED
                if not state.first_sackt:
                    state.first_sackt = seg.mstamp
                state.last_sackt = seg.mstamp
            if sacked & LOST:
                sacked &= ~LOST
                tp.lost_out -= pcount
        sacked |= SACKED_ACKED
        state.flag |= FLAG_DATA_SACKED
        tp.sacked_out += pcount
        tp.delivered += pcount
        state.sack_delivered += pcount
        state.delivered_bytes += (seg.end_seq - seg.seq) & MASK
        seg.sacked = sacked
        tcp_rate_skb_delivered(tp, seg, state.rs)
        tp.tsorted.remove(seg)
        if after(seg.end_seq, tp.highest_sack):
            tp.highest_sack = seg.end_seq
    if dup_sack and sacked & SACKED_RETRANS:
        sacked &= ~SACKED_RETRANS
        tp.retrans_out -= pcount
    seg.sacked = sacked


def _split(net: TcpNet, tp: TcpSock, index: int, start: int, end: int) -> bool:
    """`tcp_match_skb_to_sack`: the segment at `index` overlaps the block, and reaches beyond it at
    one end: cut it at whole segments. True: the segment at `index` now lies in the block."""
    seg = tp.rtx_queue[index]
    if seg.pcount <= 1:
        return False
    mss = seg.mss or tp.mss_cache
    dlen = seg.dlen()
    inside = not after(start, seg.seq)
    if not inside:
        front = (start - seg.seq) & MASK
        length = -(-front // mss) * mss  # the part in front of the block
    else:
        length = ((end - seg.seq) & MASK) // mss * mss
    if not 0 < length < dlen:
        return False
    return tcp_rtx_fragment(net, tp, index, length, mss) and inside


def _merge_sacked(net: TcpNet, tp: TcpSock, index: int) -> bool:
    """`tcp_shift_skb_data`: join a SACKed segment to a SACKed one in front of it."""
    queue = tp.rtx_queue
    if not 0 < index < len(queue):
        return False
    prev, seg = queue[index - 1], queue[index]
    if (
        prev.sacked & TAGBITS != SACKED_ACKED
        or seg.sacked & TAGBITS != SACKED_ACKED
        or prev.mss != seg.mss
        or (prev.flags | seg.flags) & (SYN | FIN)
        or prev.dlen() != prev.pcount * prev.mss
    ):
        return False
    frags = frags_joined(prev.frags, seg.frags)
    if len(frags) > _MAX_FRAGS:
        return False
    prev.end_seq = seg.end_seq
    prev.frags = frags
    prev.pcount += seg.pcount
    prev.flags |= seg.flags
    prev.sacked |= seg.sacked
    del queue[index]
    net.mib["TcpExtTCPSackMerged"] += 1
    return True


def _tag_range(
    net: TcpNet,
    tp: TcpSock,
    at: int,
    until: int,
    start: int,
    end: int,
    dup_sack: bool,
    state: SackState,
) -> None:
    """Tag the segments within [at, until), which is a part of the block [start, end)."""
    queue = tp.rtx_queue
    index = rtx_index(tp, at)
    while index < len(queue):
        seg = queue[index]
        if not before(seg.seq, until):
            break
        if seg.sacked & SACKED_ACKED and not dup_sack:
            index += 1
            continue
        whole = not before(seg.seq, start) and not before(end, seg.end_seq)
        if not whole and not _split(net, tp, index, start, end):
            index += 1
            continue
        seg = queue[index]
        if seg.sacked & SACKED_ACKED:
            tcp_sacktag_one(tp, seg, dup_sack, state)
            index += 1
            continue
        tcp_sacktag_one(tp, seg, dup_sack, state)
        _sack_ranges_add(tp, seg.seq, seg.end_seq)
        if not _merge_sacked(net, tp, index):
            index += 1
    _merge_sacked(net, tp, index)  # a hole is filled, so segments behind it are covered


# ---- what is SACKed already ------------------------------------------------------------------


def _sack_ranges_index(tp: TcpSock, seq: int) -> int:
    """The first of `sacked_ranges` that ends at seq or behind it."""
    ranges = tp.sacked_ranges
    low, high = 0, len(ranges)
    while low < high:
        mid = (low + high) >> 1
        if before(ranges[mid][1], seq):
            low = mid + 1
        else:
            high = mid
    return low


def _sack_ranges_add(tp: TcpSock, start: int, end: int) -> None:
    """Add the range of a newly SACKed segment."""
    ranges = tp.sacked_ranges
    index = _sack_ranges_index(tp, start)
    upto = index
    if upto < len(ranges) and ranges[upto][1] == start:
        start = ranges[upto][0]
        upto += 1
    if upto < len(ranges) and ranges[upto][0] == end:
        end = ranges[upto][1]
        upto += 1
    ranges[index:upto] = [(start, end)]


def tcp_sack_ranges_acked(tp: TcpSock) -> int:
    """snd_una has moved: drop the ranges below it. Returns their bytes."""
    una = tp.snd_una
    ranges = tp.sacked_ranges
    done = acked = 0
    for start, end in ranges:
        if after(end, una):
            if not before(una, start):
                acked += (una - start) & MASK
                ranges[done] = (una, end)
            break
        acked += (end - start) & MASK
        done += 1
    del ranges[:done]
    return acked


def _tag_block(net: TcpNet, tp: TcpSock, start: int, end: int, state: SackState) -> None:
    """Tag the part of the block that is not SACKed yet, at a cost by that part alone. The
    scoreboard remembers more than Linux's `recv_sack_cache`, which has the last ACK's blocks. So a
    peer that takes turns with its blocks cannot make us walk known ranges."""
    at = start
    while after(end, at):
        index = _sack_ranges_index(tp, (at + 1) & MASK)
        until = end
        known_end = end
        if index < len(tp.sacked_ranges):
            known, known_end = tp.sacked_ranges[index]
            if not before(at, known):
                at = known_end
                continue
            if not before(end, known):
                until = known
            else:
                known_end = end
        _tag_range(net, tp, at, until, start, end, False, state)
        at = known_end


def tcp_sacktag_write_queue(
    net: TcpNet, tp: TcpSock, ack: int, sacks: tuple[Block, ...], prior_snd_una: int, s: SackState
) -> int:
    """Enter an ACK's SACK blocks into the scoreboard; returns FLAG_ bits."""
    s.flag = 0
    if not tp.sacked_out:
        tp.highest_sack = tp.snd_una
    found_dup = tcp_check_dsack(net, tp, ack, sacks, s)
    if before(ack, prior_snd_una - tp.max_window) or not tp.packets_out:
        return s.flag
    valid: list[tuple[int, Block, bool]] = []
    una = tp.snd_una
    for i, (start, end) in enumerate(sacks):
        dup = found_dup and i == 0
        if not tcp_is_sackblock_valid(tp, dup, start, end):
            if dup:
                name = "NoUndo" if not tp.undo_marker else "Old"
                net.mib["TcpExtTCPDSACKIgnored" + name] += 1
            elif before(end, una) or start == end:
                continue  # an old block that the network delayed
            else:
                net.mib["TcpExtTCPSACKDiscard"] += 1
            continue
        if not after(end, una):
            continue
        valid.append(((start - una) & MASK, (start, end), dup))
    valid.sort()
    for _, (start, end), dup in valid:
        if dup:
            _tag_range(net, tp, start, end, start, end, True, s)
        else:
            _tag_block(net, tp, start, end, s)
    if tp.ca_state != TCP_CA_LOSS or tp.undo_marker:
        tcp_check_sack_reordering(net, tp, s.reord, False)
    return s.flag
