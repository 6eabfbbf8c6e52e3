# SPDX-License-Identifier: MIT
"""The option of Accurate ECN (RFC 9768 3.2.3; kinds 172 and 174; in Linux: `include/net/tcp_ecn.h`,
`net/ipv4/tcp_input.c` and `tcp_output.c`).

It echoes how many bytes of payload came with ECT(0), with CE and with ECT(1), 24 bits each:

    AccECN0   172  11  EE0B  ECEB  EE1B        AccECN1   174  11  EE1B  ECEB  EE0B

The last fields may be left out: lengths 8, 5 and 2. With it the sender knows how many of the
acknowledged bytes were marked, and how often the three-bit counter in the header has gone round.

Called by tcp_output and tcp_handshake (what to send), tcp_window (its size), and tcp_accecn (what
came).

`net.ipv4.tcp_ecn_option` 0: never. 1: where another counter grows than before, marks come, or a
counter has grown by much; and some times in a round trip (`net.ipv4.tcp_ecn_option_beacon`). 2:
with every segment, if it fits.

Differs from Linux: we use the order that needs fewer fields, Linux AccECN1 alone. Ours goes whether
or not the peer's option has come (3.2.3.2.3).
"""

from typing import Final

from skbus.inet.headers.tcp import (
    MAX_TCP_OPTION_SPACE,
    TCP_ACCECN_NUMFIELDS,
    TCPOLEN_ACCECN_BASE,
    TCPOLEN_ACCECN_PERFIELD,
    TCPOLEN_SACK_BASE_ALIGNED,
    TCPOLEN_SACK_PERBLOCK,
    TCPOPT_ACCECN0,
    TCPOPT_ACCECN1,
    build_accecn,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpAccEcn, TcpSock

TCP_ACCECN_ACE_FAIL_SEND: Final = 1
TCP_ACCECN_ACE_FAIL_RECV: Final = 2
TCP_ACCECN_OPT_FAIL_SEND: Final = 4
TCP_ACCECN_OPT_FAIL_RECV: Final = 8

TCP_ACCECN_OPT_NOT_SEEN: Final = 0
TCP_ACCECN_OPT_EMPTY_SEEN: Final = 1
TCP_ACCECN_OPT_COUNTER_SEEN: Final = 2
TCP_ACCECN_OPT_FAIL_SEEN: Final = 3

TCP_ACCECN_OPTION_FULL: Final = 2
_LEAST_BLOCKS: Final = 2
"""SACK blocks that the option never takes the place of (RFC 9768 3.2.3.3)."""
_TOO_LATE: Final = (1 << 23) - 1
"""Bytes sent before the peer's first option after which its counters might have gone round."""

_DUP_DATA: Final = 2

# Counters stand by ECN field - 1: ECT(1), ECT(0), CE.
_INIT: Final = (1, 1, 0)
"""TCP_ACCECN_E1B_INIT_OFFSET, E0B_, CEB_: their first values on the wire (RFC 9768 3.2.1)."""
_ORDER0: Final = (1, 2, 0)
_ORDER1: Final = (0, 2, 1)


# ---- sending ---------------------------------------------------------------------------------


def _order(acc: TcpAccEcn) -> tuple[int, ...]:
    """The order that puts changed counters first."""
    return _ORDER1 if acc.changed & 0b011 == 0b001 else _ORDER0


def _required(acc: TcpAccEcn) -> int:
    """Fields that must not be left out (`accecn_minlen`): up to the last that has changed."""
    required = 0
    for place, counter in enumerate(_order(acc)):
        if acc.changed >> counter & 1:
            required = place + 1
    return required


def tcp_accecn_option_size(fields: int) -> int:
    """Its bytes in a header, padded; fields below 0: there is none."""
    if fields < 0:
        return 0
    return TCPOLEN_ACCECN_BASE + TCPOLEN_ACCECN_PERFIELD * fields + 3 & ~3


def _wanted(net: TcpNet, tp: TcpSock, acc: TcpAccEcn) -> bool:
    """Shall the next segment carry it (RFC 9768 3.2.3.3)?"""
    sysctl = net.sysctl
    mode = sysctl["net.ipv4.tcp_ecn_option"]
    if not mode or acc.fail_mode & TCP_ACCECN_OPT_FAIL_SEND:
        return False
    if mode >= TCP_ACCECN_OPTION_FULL or acc.opt_demand:
        return True
    beacon = int(sysctl["net.ipv4.tcp_ecn_option_beacon"])
    return beacon > 0 and (net.now // 1000 - acc.opt_tstamp) * beacon >= tp.srtt_us >> 3


def tcp_options_fit_accecn(
    net: TcpNet, tp: TcpSock, acc: TcpAccEcn, used: int, blocks: int
) -> tuple[int, int]:
    """(SACK blocks, fields of the option) for the next segment, where other options take `used`
    bytes; fields below 0: no option. All fields if they fit, else no fewer than required; SACK
    gives way, down to two blocks."""
    if not _wanted(net, tp, acc):
        return blocks, -1
    required = _required(acc)
    left = blocks
    while True:
        room = MAX_TCP_OPTION_SPACE - used
        if left:
            room -= TCPOLEN_SACK_BASE_ALIGNED + TCPOLEN_SACK_PERBLOCK * left
        for fields in range(TCP_ACCECN_NUMFIELDS, required - 1, -1):
            if tcp_accecn_option_size(fields) <= room:
                return left, fields
        if left <= _LEAST_BLOCKS or not required:
            return blocks, -1
        left -= 1


def tcp_accecn_option(net: TcpNet, acc: TcpAccEcn, fields: int) -> bytes:
    """Build the option for a segment that is being sent; its counters are no longer news."""
    order = _order(acc)
    kind = TCPOPT_ACCECN0 if order is _ORDER0 else TCPOPT_ACCECN1
    acc.changed = 0
    acc.opt_tstamp = net.now // 1000
    if acc.opt_demand:
        acc.opt_demand -= 1
    counters = [acc.received_bytes[i] + _INIT[i] for i in order[:fields]]
    return build_accecn(kind, tuple(counters))


def tcp_accecn_dup_data(acc: TcpAccEcn, seq: int) -> None:
    """Data came that we have acknowledged already. Where only the same comes again, somebody may
    drop ACKs with the option, so ACKs go without it (RFC 9768 3.2.3.2.2)."""
    if seq != acc.dup_seq:
        acc.dup_seq = seq
        acc.dup_data = 0
    acc.dup_data += 1
    if acc.dup_data >= _DUP_DATA:
        acc.fail_mode |= TCP_ACCECN_OPT_FAIL_SEND


def tcp_accecn_synack_option(net: TcpNet, used: int) -> tuple[int, ...] | None:
    """The option of a SYN-ACK, where other options take `used` bytes: the counters' first values.
    None where it does not fit, or is switched off."""
    if not net.sysctl["net.ipv4.tcp_ecn_option"]:
        return None
    for fields in range(TCP_ACCECN_NUMFIELDS, -1, -1):
        if tcp_accecn_option_size(fields) <= MAX_TCP_OPTION_SPACE - used:
            return (TCPOPT_ACCECN0, *[_INIT[i] for i in _ORDER0[:fields]])
    return None


# ---- receiving -------------------------------------------------------------------------------


def tcp_accecn_option_init(acc: TcpAccEcn, option: tuple[int, ...]) -> None:
    """The peer's first option. If somebody has cleared its counters on their way (3.2.3.2.4),
    options are not read; else they are from now on."""
    if len(option) == 1:
        acc.opt_seen = TCP_ACCECN_OPT_EMPTY_SEEN
    elif not option[1] or (len(option) == 4 and not option[3]):
        acc.opt_seen = TCP_ACCECN_OPT_FAIL_SEEN
        acc.fail_mode |= TCP_ACCECN_OPT_FAIL_RECV
    else:
        acc.opt_seen = TCP_ACCECN_OPT_COUNTER_SEEN


def tcp_accecn_process_option(tp: TcpSock, acc: TcpAccEcn, delivered_bytes: int) -> bool:
    """Take the counters of an ACK's option into `delivered_bytes`. True: they are reliable. Where
    an ACK has no option, its bytes count for the ECN field whose counter changed last."""
    if acc.fail_mode & TCP_ACCECN_OPT_FAIL_RECV:
        return False
    option = acc.rx_option
    estimate = acc.est_ecnfield
    if option is None:
        if not acc.opt_seen:
            if tp.bytes_sent >= _TOO_LATE:
                acc.opt_seen = TCP_ACCECN_OPT_FAIL_SEEN
                acc.fail_mode |= TCP_ACCECN_OPT_FAIL_RECV
            return False
        if estimate:
            acc.delivered_bytes[estimate - 1] += delivered_bytes
        return estimate > 0
    if acc.opt_seen < TCP_ACCECN_OPT_COUNTER_SEEN:
        tcp_accecn_option_init(acc, option)
        if acc.opt_seen == TCP_ACCECN_OPT_FAIL_SEEN:
            return False
    order = _ORDER0 if option[0] == TCPOPT_ACCECN0 else _ORDER1
    valid = estimate > 0
    ambiguous = changed = False
    for counter, value in zip(order, option[1:], strict=False):
        delta = (value - _INIT[counter] - acc.delivered_bytes[counter]) & 0xFFFFFF
        if not delta:
            continue
        if delta >= 0x800000:
            delta -= 0x1000000  # the estimate was too high
            ambiguous = True
        if counter + 1 != estimate:
            ambiguous = ambiguous or changed
            changed = True
            acc.est_ecnfield = counter + 1
        acc.delivered_bytes[counter] += delta
    if ambiguous:
        acc.est_ecnfield = 0
    return valid and not ambiguous
