# SPDX-License-Identifier: MIT
"""DCTCP (RFC 8257; `net/ipv4/tcp_dctcp.c`): cwnd goes down by the marked share of a window. So a
short queue that marks early keeps a link full.

It needs ECN, asks for it in the SYN whatever `net.ipv4.tcp_ecn` says, and is Reno where the peer
refuses. The receiver's side echoes each change of the CE mark at once (RFC 8257 3.2), so that the
sender can count marked bytes.
"""

from typing import Final

from skbus.core.seq import before
from skbusd.tcp.const import (
    CA_EVENT_ECN_IS_CE,
    CA_EVENT_ECN_NO_CE,
    CA_EVENT_LOSS,
    ICSK_ACK_NOW,
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    TCP_CA_RECOVERY,
    TCP_ECN_DEMAND_CWR,
    TCP_ECN_MODE_ANY,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_cong import TcpCongestionOps
from skbusd.tcp.tcp_output import tcp_send_ack

MAX_ALPHA: Final = 1024
"""alpha is in 1024ths."""
SHIFT_G: Final = 4
"""g, the weight of the last window: 1/16 (RFC 8257 4.2)."""
ALPHA_ON_INIT: Final = MAX_ALPHA
"""Cautious at first (RFC 8257 4.2)."""

# Where things stand in tp.ca_priv, which is empty where there is no ECN: then this is Reno
(
    ALPHA,
    OLD_DELIVERED,
    OLD_DELIVERED_CE,
    NEXT_SEQ,  # the end of this window
    CE_STATE,  # the mark of the last segment that came
    LOSS_CWND,
) = range(6)


class TcpDctcp(TcpCongestionOps):
    """DCTCP."""

    name = "dctcp"
    needs_ecn = True

    def init(self, net: TcpNet, tp: TcpSock) -> None:
        if tp.ecn_flags & TCP_ECN_MODE_ANY:
            tp.ca_priv = [ALPHA_ON_INIT, 0, 0, 0, 0, 0]
            _new_window(tp)

    def ssthresh(self, net: TcpNet, tp: TcpSock) -> int:
        """RFC 8257 3.3 (4): reduce by half of the marked share."""
        ca = tp.ca_priv
        if not ca:
            return super().ssthresh(net, tp)
        ca[LOSS_CWND] = tp.snd_cwnd
        return max(tp.snd_cwnd - (tp.snd_cwnd * ca[ALPHA] >> 11), 2)

    def pkts_acked(self, net: TcpNet, tp: TcpSock, pkts_acked: int, rtt_us: int) -> None:
        """Once a window, take the share of marked segments into alpha (RFC 8257 3.3)."""
        ca = tp.ca_priv
        if not ca or before(tp.snd_una, ca[NEXT_SEQ]):
            return
        alpha = ca[ALPHA]
        alpha -= min(alpha, (alpha >> SHIFT_G) or alpha)
        marked = tp.delivered_ce - ca[OLD_DELIVERED_CE]
        if marked:
            delivered = max(tp.delivered - ca[OLD_DELIVERED], 1)
            alpha = min(alpha + (marked << (10 - SHIFT_G)) // delivered, MAX_ALPHA)
        ca[ALPHA] = alpha
        _new_window(tp)

    def set_state(self, net: TcpNet, tp: TcpSock, state: int) -> None:
        """A loss is answered as Reno does (RFC 8257 3.5)."""
        if tp.ca_priv and state == TCP_CA_RECOVERY and tp.ca_state != TCP_CA_RECOVERY:
            _react_to_loss(tp)

    def cwnd_event(self, net: TcpNet, tp: TcpSock, event: int) -> None:
        if not tp.ca_priv:
            return
        if event in (CA_EVENT_ECN_IS_CE, CA_EVENT_ECN_NO_CE):
            _ece_ack_update(net, tp, event == CA_EVENT_ECN_IS_CE)
        elif event == CA_EVENT_LOSS:
            _react_to_loss(tp)

    def undo_cwnd(self, net: TcpNet, tp: TcpSock) -> int:
        if not tp.ca_priv:
            return super().undo_cwnd(net, tp)
        return max(tp.snd_cwnd, tp.ca_priv[LOSS_CWND])


def _new_window(tp: TcpSock) -> None:
    ca = tp.ca_priv
    ca[NEXT_SEQ] = tp.snd_nxt
    ca[OLD_DELIVERED] = tp.delivered
    ca[OLD_DELIVERED_CE] = tp.delivered_ce


def _react_to_loss(tp: TcpSock) -> None:
    tp.ca_priv[LOSS_CWND] = tp.snd_cwnd
    tp.snd_ssthresh = max(tp.snd_cwnd >> 1, 2)


def _ece_ack_update(net: TcpNet, tp: TcpSock, ce: bool) -> None:
    """A segment has come with or without the mark, and is not counted in rcv_nxt yet. Where the
    mark has changed, waiting segments are acknowledged first, with the old echo, and this one at
    once (RFC 8257 3.2, figure 1)."""
    ca = tp.ca_priv
    if ca[CE_STATE] != ce:
        if tp.ack_pending & ICSK_ACK_TIMER:
            _echo(tp, bool(ca[CE_STATE]))
            tcp_send_ack(net, tp)
        tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_NOW
        ca[CE_STATE] = int(ce)
    _echo(tp, ce)


def _echo(tp: TcpSock, ce: bool) -> None:
    if ce:
        tp.ecn_flags |= TCP_ECN_DEMAND_CWR
    else:
        tp.ecn_flags &= ~TCP_ECN_DEMAND_CWR
