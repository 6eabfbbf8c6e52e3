# SPDX-License-Identifier: MIT
"""Explicit Congestion Notification (RFC 3168; the `tcp_ecn_` functions of `net/ipv4/tcp_input.c`,
`tcp_output.c` and `include/net/tcp_ecn.h`).

A router marks a packet CE instead of dropping it. The receiver echoes the mark (ECE) until the
sender tells that it has reduced cwnd (CWR). Called by tcp_output (what a segment carries),
tcp_handshake (whether both ends want it), tcp_data (marks that came), tcp_ack (echoes).

`net.ipv4.tcp_ecn`: 0 off, 1 ask and accept, 2 accept. 3 is ask for and accept Accurate ECN (RFC
9768, `tcp_accecn`), 4 ask for this and accept either, 5 accept either. `TcpSock.ecn_flags` tells
which of the two a connection has; a peer that does not know the newer one answers with the older.
"""

from typing import Final

from skbus.core.abi import RcvCb, XmitCb
from skbus.core.seq import before
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TCPHDR_AE
from skbusd.tcp.const import (
    ACK,
    CA_EVENT_ECN_IS_CE,
    CA_EVENT_ECN_NO_CE,
    CWR,
    ECE,
    ICSK_ACK_NOW,
    INET_ECN_CE,
    INET_ECN_ECT_0,
    INET_ECN_MASK,
    INET_ECN_NOT_ECT,
    SYN,
    TCP_ECN_DEMAND_CWR,
    TCP_ECN_MODE_ACCECN,
    TCP_ECN_MODE_ANY,
    TCP_ECN_MODE_PENDING,
    TCP_ECN_MODE_RFC3168,
    TCP_ECN_QUEUE_CWR,
    TCP_ECN_SEEN,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock
from skbusd.tcp.sock import TcpSeg, TcpSock
from skbusd.tcp.tcp_accecn import (
    TCPHDR_ACE,
    tcp_accecn_ace,
    tcp_accecn_reflector_flags,
    tcp_accecn_set_ace,
    tcp_accecn_start,
    tcp_accecn_syn_requested,
    tcp_accecn_validate_syn_feedback,
)
from skbusd.tcp.tcp_accecn_option import (
    TCP_ACCECN_ACE_FAIL_RECV,
    TCP_ACCECN_ACE_FAIL_SEND,
    TCP_ACCECN_OPT_FAIL_SEND,
    tcp_accecn_option_init,
)
from skbusd.tcp.tcp_cong import tcp_ca_event, tcp_ca_needs_ecn

"""Accurate ECN was asked for; the SYN-ACK tells which of the two it will be."""


_SETUP: Final = ECE | CWR
_ACE_FAIL: Final = TCP_ACCECN_ACE_FAIL_SEND | TCP_ACCECN_ACE_FAIL_RECV


# ---- the handshake (RFC 3168 6.1.1) ----------------------------------------------------------


def tcp_ecn_send_syn(net: TcpNet, tp: TcpSock, syn: TcpSeg) -> None:
    """Ask for ECN in our SYN, if `net.ipv4.tcp_ecn` says so, or the congestion control needs it."""
    tp.ecn_flags = 0
    tp.accecn = None
    tp.pred_ack = ACK
    mode = net.sysctl["net.ipv4.tcp_ecn"]
    if mode == 3:
        syn.flags |= TCPHDR_ACE
        tp.ecn_flags = TCP_ECN_MODE_PENDING
    elif mode in (1, 4) or tcp_ca_needs_ecn(net, tp):
        syn.flags |= _SETUP
        tp.ecn_flags = TCP_ECN_MODE_RFC3168


def tcp_ecn_clear_syn(net: TcpNet, tp: TcpSock, syn: TcpSeg) -> None:
    """A SYN is sent again: perhaps somebody drops SYNs that ask (RFC 3168 6.1.1.1). The SYN-ACK's
    answer still counts, as the first SYN may have arrived after all.

    Differs from Linux: Accurate ECN is asked for once more, as RFC 9768 3.1.4.1 recommends.
    """
    if syn.flags & _SETUP != _SETUP or not net.sysctl["net.ipv4.tcp_ecn_fallback"]:
        return
    if syn.flags & TCPHDR_AE and not tp.total_retrans:
        return
    syn.flags &= ~TCPHDR_ACE


def _syn_ect_snt(net: TcpNet, tp: TcpSock) -> int:
    """The ECN field of our SYN."""
    return INET_ECN_ECT_0 if tcp_ca_needs_ecn(net, tp) else INET_ECN_NOT_ECT


def _ecn_field(skb: SkBuff) -> int:
    cb = skb.cb
    return cb.tos & INET_ECN_MASK if isinstance(cb, RcvCb) else INET_ECN_NOT_ECT


def tcp_ecn_rcv_synack(
    net: TcpNet, tp: TcpSock, flags: int, skb: SkBuff, option: tuple[int, ...] | None
) -> None:
    """Take the peer's answer (RFC 9768 table 2). ECE, alone or with AE, the nonce's bit, is RFC
    3168. No bit is no ECN, and so are all bits: an echo by a peer that does not understand them."""
    mode = tp.ecn_flags & TCP_ECN_MODE_ANY
    if mode != TCP_ECN_MODE_PENDING:
        if mode and flags & _SETUP != ECE:
            tp.ecn_flags &= ~TCP_ECN_MODE_ANY
        return
    ace = tcp_accecn_ace(flags)
    if ace in (0b000, 0b111):
        tp.ecn_flags &= ~TCP_ECN_MODE_ANY
    elif ace in (0b001, 0b101):
        tp.ecn_flags &= ~TCP_ECN_MODE_ACCECN
    else:
        tp.ecn_flags &= ~TCP_ECN_MODE_RFC3168
        field = _ecn_field(skb)
        acc = tcp_accecn_start(tp, _syn_ect_snt(net, tp), field)
        tcp_accecn_validate_syn_feedback(net, acc, ace)
        if option is not None:
            tcp_accecn_option_init(acc, option)
        if field == INET_ECN_CE:
            acc.received_ce = acc.received_ce_pending = 1


def tcp_ecn_rcv_syn(net: TcpNet, tp: TcpSock, flags: int, skb: SkBuff) -> None:
    """Simultaneous open: ECN is off unless the peer also asks for it."""
    mode = tp.ecn_flags & TCP_ECN_MODE_ANY
    if mode == TCP_ECN_MODE_PENDING and tcp_accecn_syn_requested(flags):
        tp.ecn_flags &= ~TCP_ECN_MODE_RFC3168
        tcp_accecn_start(tp, _syn_ect_snt(net, tp), _ecn_field(skb))
    elif mode:
        tp.ecn_flags &= ~TCP_ECN_MODE_ACCECN
        if flags & _SETUP != _SETUP:
            tp.ecn_flags &= ~TCP_ECN_MODE_RFC3168


def tcp_ecn_send_synack(tp: TcpSock, syn: TcpSeg) -> None:
    """The SYN-ACK of a simultaneous open agrees."""
    syn.flags &= ~TCPHDR_ACE
    if tp.accecn is not None:
        syn.flags |= tcp_accecn_reflector_flags(tp.accecn.syn_ect_rcv)
    elif tp.ecn_flags & TCP_ECN_MODE_RFC3168:
        syn.flags |= ECE


def tcp_ecn_create_request(net: TcpNet, req: TcpRequestSock, flags: int, tos: int) -> None:
    """Does a SYN for a listener ask for ECN? Not by RFC 3168 where the SYN itself is marked: 6.1.1
    forbids that, so somebody plays with the bits. DCTCP does mark SYNs."""
    mode = net.sysctl["net.ipv4.tcp_ecn"]
    field = tos & INET_ECN_MASK
    if mode >= 3 and flags & SYN and tcp_accecn_syn_requested(flags):
        req.ecn_ok = req.accecn_ok = True
        req.syn_ect_rcv = field
        return
    req.ecn_ok = flags & _SETUP == _SETUP and (
        (mode > 0 and field == INET_ECN_NOT_ECT) or tcp_ca_needs_ecn(net, net.socks[req.listener])
    )


def tcp_ecn_rcv_syn_again(net: TcpNet, req: TcpRequestSock, flags: int, tos: int) -> bool:
    """The SYN of a request sock once more: report its ECN field from now on (RFC 9768 3.1.5).
    False: it asks for another kind of ECN than the first; without a RST the ends might disagree."""
    ace = tcp_accecn_ace(flags)
    if req.accecn_ok:
        if ace == 0b011:
            return False
        req.syn_ect_rcv = tos & INET_ECN_MASK
        if not ace:
            req.accecn_fail_mode |= TCP_ACCECN_ACE_FAIL_SEND
    elif req.ecn_ok and net.sysctl["net.ipv4.tcp_ecn"] >= 3:
        return not tcp_accecn_syn_requested(flags)
    return True


def tcp_ecn_make_synack(net: TcpNet, req: TcpRequestSock, retrans: int = 0) -> int:
    """The header flags with which a SYN-ACK agrees. retrans: as for `tcp_make_synack`. The second
    SYN-ACK goes without the option, further ones without the flags. The agreement stays, but
    nothing of ours may be ECN-capable (RFC 9768 3.2.3.2.2, 3.1.5)."""
    if req.accecn_ok:
        if retrans and net.sysctl["net.ipv4.tcp_ecn_fallback"]:
            req.accecn_fail_mode |= TCP_ACCECN_OPT_FAIL_SEND
            if retrans > 1:
                req.accecn_fail_mode |= TCP_ACCECN_ACE_FAIL_SEND
                return 0
        return tcp_accecn_reflector_flags(req.syn_ect_rcv)
    return ECE if req.ecn_ok else 0


def tcp_ecn_openreq_child(tp: TcpSock, req: TcpRequestSock) -> None:
    """Give a child the kind of ECN to which its SYN-ACK agreed."""
    if req.accecn_ok:
        tp.ecn_flags = TCP_ECN_MODE_ACCECN
        acc = tcp_accecn_start(tp, INET_ECN_NOT_ECT, req.syn_ect_rcv)
        acc.fail_mode = req.accecn_fail_mode
    else:
        tp.ecn_flags = TCP_ECN_MODE_RFC3168 if req.ecn_ok else 0


# ---- sending ---------------------------------------------------------------------------------


def tcp_ecn_xmit(cb: tuple[object, ...]) -> XmitCb:
    """`INET_ECN_xmit`: the packet is marked ECT(0)."""
    assert isinstance(cb, XmitCb)
    return cb._replace(tos=cb.tos & ~INET_ECN_MASK | INET_ECN_ECT_0)


def tcp_ecn_send(net: TcpNet, tp: TcpSock, seq: int, dlen: int, flags: int) -> tuple[int, XmitCb]:
    """(flags, cb for ip) of a segment. New data is marked ECT(0) and carries CWR; retransmissions
    and ACKs are not marked (RFC 3168 6.1.4, 6.1.5). A control may want all marked (DCTCP: an
    unmarked packet is lost where others are marked). With Accurate ECN all are marked and carry the
    counter, except an ACK that tells how the SYN-ACK arrived."""
    cb = tp.xmit_cb
    acc = tp.accecn
    if acc is not None:
        if not flags & TCPHDR_ACE:
            flags |= tcp_accecn_set_ace(acc)
        return flags, cb if acc.fail_mode & _ACE_FAIL else tcp_ecn_xmit(cb)
    new = dlen and not before(seq, tp.snd_nxt)
    if tp.ecn_flags & TCP_ECN_MODE_RFC3168 and (new or tcp_ca_needs_ecn(net, tp)):
        cb = tcp_ecn_xmit(cb)
        if new and tp.ecn_flags & TCP_ECN_QUEUE_CWR:
            tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR
            flags |= CWR
    if tp.ecn_flags & TCP_ECN_DEMAND_CWR:
        flags |= ECE
    return flags, cb


def tcp_ecn_queue_cwr(tp: TcpSock) -> None:
    """cwnd goes down: tell the peer to stop the echo."""
    if tp.ecn_flags & TCP_ECN_MODE_RFC3168:
        tp.ecn_flags |= TCP_ECN_QUEUE_CWR


def tcp_ecn_withdraw_cwr(tp: TcpSock) -> None:
    """cwnd did not go down after all."""
    tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR


def tcp_ecn_rcv_ecn_echo(tp: TcpSock, flags: int) -> bool:
    """Does this ACK echo a mark?"""
    return bool(flags & ECE and tp.ecn_flags & TCP_ECN_MODE_RFC3168)


# ---- receiving (RFC 3168 6.1.3) --------------------------------------------------------------


def tcp_ecn_accept_cwr(tp: TcpSock, flags: int, has_data: bool) -> None:
    """The peer has reduced cwnd: stop the echo. It may wait for a single ACK now, so send that at
    once."""
    if flags & CWR and tp.accecn is None:
        tp.ecn_flags &= ~TCP_ECN_DEMAND_CWR
        if has_data:
            tp.ack_pending |= ICSK_ACK_NOW


def tcp_ecn_check_ce(net: TcpNet, tp: TcpSock, skb: SkBuff) -> bool:
    """Note the mark of a segment with data. True: ACKs should not be delayed now, because the
    sender's cwnd may be small, or because it seems to retransmit."""
    mark = _ecn_field(skb)
    if mark == INET_ECN_NOT_ECT:
        return bool(tp.ecn_flags & TCP_ECN_SEEN)
    if tcp_ca_needs_ecn(net, tp):
        ce = mark == INET_ECN_CE
        tcp_ca_event(net, tp, CA_EVENT_ECN_IS_CE if ce else CA_EVENT_ECN_NO_CE)
    if tp.accecn is not None:
        return False  # the counter tells of marks, and decides when to
    demand = mark == INET_ECN_CE and not tp.ecn_flags & TCP_ECN_DEMAND_CWR
    tp.ecn_flags |= TCP_ECN_SEEN
    if demand:
        tp.ecn_flags |= TCP_ECN_DEMAND_CWR
    return demand
