# SPDX-License-Identifier: MIT
"""Accurate ECN (RFC 9768; the `tcp_accecn_` functions of `include/net/tcp_ecn.h` and
`net/ipv4/tcp_input.c`): the handshake that agrees on it, and the counter in the header. The option
is `tcp_accecn_option`'s.

Where both ends agree, AE, CWR and ECE of every segment after the handshake are one number, ACE. It
is five more than the CE marks that the receiver has seen, modulo 8. The sender learns how many
marks there were in a round trip, not only whether. During the handshake the same bits tell with
which ECN field in the IP header the SYN, or the SYN-ACK, arrived.

Called by tcp_ecn (the handshake, what a segment carries), tcp_input (every valid segment) and
tcp_ack (what the peer counts). All is in `TcpSock.accecn`, which is None for other connections.

Differs from Linux: while the counter has the bit that is also CWR, data goes in single segments.
The cutting of a super-segment would clear that bit in all but the first. Marks are believed even
where the ECN field of a handshake's packet was mangled (3.2.2.3), but not where the counter was
(3.2.2.4). Linux believes neither.
"""

from typing import Final

from skbus.core.abi import RcvCb
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TCPHDR_AE
from skbusd.tcp.const import (
    ACK,
    CWR,
    ECE,
    FLAG_ECE,
    FLAG_FORWARD_PROGRESS,
    FLAG_SLOWPATH,
    FLAG_SYN_ACKED,
    FLAG_TS_PROGRESS,
    ICSK_ACK_NOW,
    ICSK_ACK_SCHED,
    INET_ECN_MASK,
    TCP_CA_CWR,
    TCP_CA_OPEN,
    TCP_ECN_SEEN,
    TCP_SYN_RECV,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpAccEcn, TcpSock
from skbusd.tcp.tcp_accecn_option import (
    TCP_ACCECN_ACE_FAIL_RECV,
    tcp_accecn_option_init,
    tcp_accecn_process_option,
)

TCPHDR_ACE: Final = ECE | CWR | TCPHDR_AE
_ACE_SHIFT: Final = 6
_ACE_MASK: Final = 7
_INIT: Final = 5
"""TCP_ACCECN_CEP_INIT_OFFSET: the counters' first value (RFC 9768 3.2.1)."""
TCP_ACCECN_ACE_MAX_DELTA: Final = 6
"""The most marks that wait for a segment to carry the counter (RFC 9768 3.2.2.5.1)."""
_DATA_DELTA: Final = 2
"""The same, where the marks came with data."""
_PKTS_ACKED_WEIGHT: Final = 6
_PKTS_ACKED_PREC: Final = 6
_ACK_COMP_THRESH: Final = 4
_NO_INFO: Final = (0,) * 8

_NOT_ECT, _ECT_1, _ECT_0, _CE = range(4)
_REFLECTED: Final = tuple(ace << _ACE_SHIFT for ace in (0b010, 0b011, 0b100, 0b110))
"""By ECN field: the header flags that tell it, in a SYN-ACK or in the ACK of one (RFC 9768 tables 2
and 3)."""


def tcp_accecn_ace(flags: int) -> int:
    """AE, CWR, ECE as a number."""
    return flags >> _ACE_SHIFT & _ACE_MASK


def tcp_accecn_syn_requested(flags: int) -> bool:
    """Does a SYN ask for it? All three bits do; ECE and CWR alone ask for RFC 3168. Other
    combinations are taken for a later version of Accurate ECN (RFC 9768 3.1.3)."""
    return tcp_accecn_ace(flags) not in (0b000, 0b011)


def tcp_accecn_reflector_flags(ect: int) -> int:
    """The header flags that tell which ECN field came with a SYN or a SYN-ACK."""
    return _REFLECTED[ect]


def tcp_accecn_extract_syn_ect(ace: int) -> int:
    """The ECN field that the header flags of a SYN-ACK, or of the ACK of one, tell."""
    if ace & 0b001:
        return _ECT_1
    if not ace & 0b010:
        return _ECT_0
    return _CE if ace & 0b100 else _NOT_ECT


def tcp_ect_transition_valid(sent: int, received: int) -> bool:
    """May a correct network turn one ECN field into the other? Only ECT into CE."""
    return received == sent or (sent in (_ECT_0, _ECT_1) and received == _CE)


def tcp_accecn_validate_syn_feedback(net: TcpNet, acc: TcpAccEcn, ace: int) -> bool:
    """Did the peer see our SYN's or SYN-ACK's ECN field as we sent it, or marked? If not, somebody
    mangles it, and we send nothing ECN-capable from now on (RFC 9768 3.2.2.3)."""
    if not net.sysctl["net.ipv4.tcp_ecn_fallback"]:
        return True
    if not tcp_ect_transition_valid(acc.syn_ect_snt, tcp_accecn_extract_syn_ect(ace)):
        acc.fail_mode |= TCP_ACCECN_ACE_FAIL_RECV
        return False
    return True


def tcp_accecn_start(tp: TcpSock, ect_snt: int, ect_rcv: int) -> TcpAccEcn:
    """Both ends agree."""
    acc = tp.accecn = TcpAccEcn(ect_snt, ect_rcv)
    _predict(tp)
    return acc


def _predict(tp: TcpSock) -> None:
    """`tcp_fast_path_on`: predict the header of the next ACK, if there is no new mark."""
    tp.pred_ack = ACK | (_INIT + tp.delivered_ce & _ACE_MASK) << _ACE_SHIFT


def tcp_accecn_third_ack(
    net: TcpNet, tp: TcpSock, acc: TcpAccEcn, flags: int, has_data: bool, has_sacks: bool
) -> None:
    """The first segment after our SYN-ACK; a pure ACK tells how the SYN-ACK arrived (RFC 9768 table
    3)."""
    ace = tcp_accecn_ace(flags)
    acc.checked = True
    if acc.rx_option is not None:
        tcp_accecn_option_init(acc, acc.rx_option)
    if not ace:
        if not has_sacks:
            # somebody clears the bits, or the client has no ECN (RFC 9768 3.2.2.1)
            acc.fail_mode |= TCP_ACCECN_ACE_FAIL_RECV
            acc.deaf = True
    elif (
        ace not in (0b001, 0b101, 0b111)
        and not has_data
        and not has_sacks
        and tcp_accecn_validate_syn_feedback(net, acc, ace)
        and tcp_accecn_extract_syn_ect(ace) == _CE
        and not tp.delivered_ce
    ):
        tp.delivered_ce = 1
        net.mib["TcpExtTCPDeliveredCE"] += 1
        _predict(tp)


def tcp_accecn_set_ace(acc: TcpAccEcn) -> int:
    """The header flags of a segment: how many marks have come."""
    acc.received_ce_pending = 0
    return (_INIT + acc.received_ce & _ACE_MASK) << _ACE_SHIFT


def tcp_accecn_no_tso(acc: TcpAccEcn) -> bool:
    """Would a super-segment lose a bit of the counter where it is cut?"""
    return bool(_INIT + acc.received_ce & 0b010)


def tcp_ecn_received_counters(tp: TcpSock, acc: TcpAccEcn, skb: SkBuff, length: int) -> None:
    """A valid segment, with data or without: count its mark. A change of the ECN field, and
    every second mark that comes with data, is told at once (RFC 9768 3.2.2.5.1)."""
    cb = skb.cb
    field = cb.tos & INET_ECN_MASK if isinstance(cb, RcvCb) else _NOT_ECT
    if field == _CE:
        count = skb.gso_segs or 1
        acc.received_ce += count
        acc.received_ce_pending += count
        if length and acc.received_ce_pending >= _DATA_DELTA:
            tp.ack_pending |= ICSK_ACK_NOW
        elif acc.received_ce_pending >= TCP_ACCECN_ACE_MAX_DELTA:
            tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_NOW
    if field:
        tp.ecn_flags |= TCP_ECN_SEEN
        if length:
            acc.dup_data = 0
            before = acc.received_bytes[field - 1]
            acc.received_bytes[field - 1] = before + length
            acc.changed |= 1 << field - 1
            if (before ^ before + length) >> 22:
                acc.opt_demand = max(acc.opt_demand, 1)  # before 24 bits go round (3.2.3.3)
    if acc.prev_ecnfield != field:
        acc.prev_ecnfield = field
        acc.opt_demand = 2
        if length:
            tp.ack_pending |= ICSK_ACK_NOW
    elif field == _CE:
        acc.opt_demand = 2


def tcp_accecn_process(
    net: TcpNet, tp: TcpSock, hdr_flags: int, flag: int, delivered: int, delivered_bytes: int
) -> int:
    """An ACK: FLAG_ECE if any of our packets were marked since the last one. hdr_flags: the
    header's; flag: tcp_ack's; delivered, delivered_bytes: the segments and bytes that it
    acknowledges."""
    acc = tp.accecn
    if acc is None or not flag & (FLAG_FORWARD_PROGRESS | FLAG_TS_PROGRESS):
        return 0  # perhaps older than the last one
    if flag & FLAG_SYN_ACKED or tp.state == TCP_SYN_RECV:
        return 0  # during the handshake the bits mean something else
    ace = tcp_accecn_ace(hdr_flags)
    if not acc.checked:
        acc.checked = True
        if not ace and delivered < 3:
            # RFC 9768 3.2.2.4: the counter cannot be 0 so soon: somebody clears the bits
            acc.fail_mode |= TCP_ACCECN_ACE_FAIL_RECV
            acc.deaf = True
    old_ceb = acc.delivered_bytes[_CE - 1]
    valid = tcp_accecn_process_option(tp, acc, delivered_bytes)
    ceb = acc.delivered_bytes[_CE - 1] - old_ceb if valid else -1
    if acc.deaf:
        return 0
    delta = _ce_delta(tp, acc, ace, flag, delivered, delivered_bytes, ceb)
    acc.cep_pending += delta
    if ceb > 0 and acc.rx_option is not None:
        if not acc.cep_pending and delivered <= _DATA_DELTA:
            acc.fail_mode |= TCP_ACCECN_ACE_FAIL_RECV  # 3.2.3.2.5: one of the two is mangled
        acc.cep_pending = 0
    if not delta:
        return 0
    tp.delivered_ce += delta
    net.mib["TcpExtTCPDeliveredCE"] += delta
    _predict(tp)
    if net.tracing:
        net.trace("tcp_accecn_process", sk=tp.number, delta=delta, ace=ace, delivered=delivered)
    return FLAG_ECE


def _ce_delta(
    tp: TcpSock,
    acc: TcpAccEcn,
    ace: int,
    flag: int,
    delivered: int,
    delivered_bytes: int,
    ceb: int,
) -> int:
    """The marks of which an ACK tells. The counter may have gone round where one ACK acknowledges
    more than 7 segments. Then the worst is assumed, unless such ACKs are usual on this path, or the
    option's bytes say better (RFC 9768 3.2.2.5.2, appendix A.2). ceb: new marked bytes by the
    option; below 0: not told."""
    if delivered:
        ewma = acc.pkts_acked_ewma
        now = delivered << _PKTS_ACKED_PREC
        if ewma:
            now = min(((ewma << _PKTS_ACKED_WEIGHT) - ewma + now) >> _PKTS_ACKED_WEIGHT, 0xFFFF)
        acc.pkts_acked_ewma = now
    if not flag & FLAG_SLOWPATH and delivered <= _ACE_MASK:
        return 0  # header prediction has looked at the counter
    delta = ace - _INIT - tp.delivered_ce & _ACE_MASK
    if delivered <= _ACE_MASK:
        return delta
    safe = delivered - (delivered - delta & _ACE_MASK)
    if ceb < 0:
        smooth = acc.pkts_acked_ewma > _ACK_COMP_THRESH << _PKTS_ACKED_PREC
        return delta if smooth else safe
    if not ceb:
        return delta
    if delivered > 2 * _ACE_MASK + 1 and (tp.sack_ok or tp.ca_state in (TCP_CA_OPEN, TCP_CA_CWR)):
        if delivered_bytes <= ceb:
            return safe
        # the same share of the segments as of the bytes, as far as the counter's bits allow
        share = -(-ceb * delivered // delivered_bytes)
        return min(safe, delta + (share & ~_ACE_MASK))
    if ceb > delta * tp.mss_cache:
        return safe
    return delta if 2 * ceb < safe * tp.mss_cache else safe


def tcp_accecn_info(tp: TcpSock) -> tuple[int, ...]:
    """tcpi_received_ce to tcpi_accecn_opt_seen."""
    acc = tp.accecn
    if acc is None:
        return _NO_INFO
    seen = acc.fail_mode | acc.opt_seen << 16
    return (acc.received_ce, *acc.delivered_bytes, *acc.received_bytes, seen)
