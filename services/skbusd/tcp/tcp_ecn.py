# SPDX-License-Identifier: MIT
"""Explicit Congestion Notification (RFC 3168; the `tcp_ecn_` functions of `net/ipv4/tcp_input.c`,
`tcp_output.c` and `include/net/tcp_ecn.h`).

A router marks a packet CE instead of dropping it; the receiver echoes that (ECE) until the sender
says that it has reduced cwnd (CWR). Called by tcp_output (what a segment carries), tcp_handshake
(whether both ends want it), tcp_data (marks that came), tcp_ack (echoes).

Differs from Linux: Accurate ECN (`net.ipv4.tcp_ecn` 3 to 5) is not there; 3 and 4 are 1, 5 is 2.
"""

from typing import Final

from skbus.abi import RcvCb, XmitCb
from skbus.skbuff import SkBuff
from skbusd.tcp.const import (
    CA_EVENT_ECN_IS_CE,
    CA_EVENT_ECN_NO_CE,
    CWR,
    ECE,
    HALF,
    ICSK_ACK_NOW,
    MASK,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpRequestSock, TcpSeg, TcpSock
from skbusd.tcp.tcp_cong import tcp_ca_event, tcp_ca_needs_ecn

TCP_ECN_OK: Final = 1
TCP_ECN_QUEUE_CWR: Final = 2
TCP_ECN_DEMAND_CWR: Final = 4
TCP_ECN_SEEN: Final = 8

INET_ECN_NOT_ECT: Final = 0
INET_ECN_ECT_0: Final = 2
INET_ECN_CE: Final = 3
INET_ECN_MASK: Final = 3

_SETUP: Final = ECE | CWR


# ---- the handshake (RFC 3168 6.1.1) ----------------------------------------------------------


def tcp_ecn_send_syn(net: TcpNet, tp: TcpSock, syn: TcpSeg) -> None:
    """Ask for ECN in our SYN, if `net.ipv4.tcp_ecn` is 1 (2 is for servers only), or if the
    congestion control cannot do without."""
    tp.ecn_flags = 0
    if net.sysctl["net.ipv4.tcp_ecn"] in (1, 3, 4) or tcp_ca_needs_ecn(net, tp):
        syn.flags |= _SETUP
        tp.ecn_flags = TCP_ECN_OK


def tcp_ecn_clear_syn(net: TcpNet, syn: TcpSeg) -> None:
    """A SYN that is sent again: perhaps somebody drops those that ask (RFC 3168 6.1.1.1)."""
    if syn.flags & _SETUP == _SETUP and net.sysctl["net.ipv4.tcp_ecn_fallback"]:
        syn.flags &= ~_SETUP


def tcp_ecn_rcv_synack(tp: TcpSock, flags: int) -> None:
    """The peer agrees with ECE alone; both bits are an echo of what it does not understand."""
    if flags & _SETUP != ECE:
        tp.ecn_flags &= ~TCP_ECN_OK


def tcp_ecn_rcv_syn(tp: TcpSock, flags: int) -> None:
    """Simultaneous open: the peer wants it as well, or it is off."""
    if flags & _SETUP != _SETUP:
        tp.ecn_flags &= ~TCP_ECN_OK


def tcp_ecn_send_synack(tp: TcpSock, syn: TcpSeg) -> None:
    """The SYN-ACK of a simultaneous open agrees with ECE."""
    syn.flags &= ~_SETUP
    if tp.ecn_flags & TCP_ECN_OK:
        syn.flags |= ECE


def tcp_ecn_create_request(net: TcpNet, req: TcpRequestSock, flags: int, tos: int) -> None:
    """A SYN for a listener asks for ECN. Not where the SYN itself is marked: RFC 3168 6.1.1
    forbids that, so somebody plays with the bits; but DCTCP does so, and expects it."""
    listener = net.socks[req.listener]
    req.ecn_ok = flags & _SETUP == _SETUP and (
        (net.sysctl["net.ipv4.tcp_ecn"] > 0 and tos & INET_ECN_MASK == INET_ECN_NOT_ECT)
        or tcp_ca_needs_ecn(net, listener)
    )


# ---- sending ---------------------------------------------------------------------------------


def tcp_ecn_xmit(cb: tuple[object, ...]) -> XmitCb:
    """`INET_ECN_xmit`: the packet is marked ECT(0)."""
    assert isinstance(cb, XmitCb)
    return cb._replace(tos=cb.tos & ~INET_ECN_MASK | INET_ECN_ECT_0)


def tcp_ecn_send(
    net: TcpNet, tp: TcpSock, seq: int, dlen: int, flags: int
) -> tuple[int, tuple[object, ...]]:
    """(flags, cb for ip) of a segment: new data is marked ECT(0) and carries CWR, retransmissions
    and ACKs are not marked (RFC 3168 6.1.4, 6.1.5), unless the control wants all marked (DCTCP:
    an unmarked packet is lost where others are marked)."""
    cb = tp.xmit_cb
    new = dlen and ((seq - tp.snd_nxt) & MASK) < HALF
    if tp.ecn_flags & TCP_ECN_OK and (new or tcp_ca_needs_ecn(net, tp)):
        cb = tcp_ecn_xmit(cb)
        if new and tp.ecn_flags & TCP_ECN_QUEUE_CWR:
            tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR
            flags |= CWR
    if tp.ecn_flags & TCP_ECN_DEMAND_CWR:
        flags |= ECE
    return flags, cb


def tcp_ecn_queue_cwr(tp: TcpSock) -> None:
    """cwnd goes down: the peer may stop to echo."""
    if tp.ecn_flags & TCP_ECN_OK:
        tp.ecn_flags |= TCP_ECN_QUEUE_CWR


def tcp_ecn_withdraw_cwr(tp: TcpSock) -> None:
    """It did not go down after all."""
    tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR


def tcp_ecn_rcv_ecn_echo(tp: TcpSock, flags: int) -> bool:
    """Does this ACK echo a mark?"""
    return bool(flags & ECE and tp.ecn_flags & TCP_ECN_OK)


# ---- receiving (RFC 3168 6.1.3) --------------------------------------------------------------


def tcp_ecn_accept_cwr(tp: TcpSock, flags: int, has_data: bool) -> None:
    """The peer has reduced cwnd: no echo any more. It may wait for a single ACK now."""
    if flags & CWR:
        tp.ecn_flags &= ~TCP_ECN_DEMAND_CWR
        if has_data:
            tp.ack_pending |= ICSK_ACK_NOW


def tcp_ecn_check_ce(net: TcpNet, tp: TcpSock, skb: SkBuff) -> bool:
    """Note the mark of a segment with data. True: ACKs should not be delayed now, because the
    sender's cwnd may be small, or because it seems to retransmit."""
    cb = skb.cb
    mark = cb.tos & INET_ECN_MASK if isinstance(cb, RcvCb) else INET_ECN_NOT_ECT
    if mark == INET_ECN_NOT_ECT:
        return bool(tp.ecn_flags & TCP_ECN_SEEN)
    if tcp_ca_needs_ecn(net, tp):
        ce = mark == INET_ECN_CE
        tcp_ca_event(net, tp, CA_EVENT_ECN_IS_CE if ce else CA_EVENT_ECN_NO_CE)
    demand = mark == INET_ECN_CE and not tp.ecn_flags & TCP_ECN_DEMAND_CWR
    tp.ecn_flags |= TCP_ECN_SEEN
    if demand:
        tp.ecn_flags |= TCP_ECN_DEMAND_CWR
    return demand
