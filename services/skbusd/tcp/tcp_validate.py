# SPDX-License-Identifier: MIT
"""The checks that make a segment acceptable (`net/ipv4/tcp_input.c`: tcp_validate_incoming):
timestamp, number, RST and SYN; and the effect of a RST.

Called by tcp_input for every segment that does not take the fast path.
RFC 9293 3.10.7.4, first to fourth; RFC 5961 (blind attacks), RFC 7323 5 (PAWS).
"""

import errno

from skbus.core.abi import RcvCb, TcpRcvqAsk
from skbus.core.dropreason import SKB_NOT_DROPPED_YET, Checked
from skbus.core.interfaces import SkCallbacks
from skbus.core.seq import MASK, after, before, seq_sub
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpHdr, TcpOptions
from skbusd.tcp.const import (
    ACK,
    FIN,
    INET_ECN_MASK,
    RST,
    SYN,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_LAST_ACK,
    TCP_PAWS_24DAYS,
    TCP_PAWS_WINDOW,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from skbusd.tcp.inet_connection_sock import (
    sk_error_report,
    tcp_done,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_accecn import (
    TCPHDR_ACE,
    tcp_accecn_reflector_flags,
)
from skbusd.tcp.tcp_ack import (
    tcp_oow_rate_limited,
    tcp_send_challenge_ack,
)
from skbusd.tcp.tcp_data import (
    UNTOLD,
    tcp_send_dupack,
)
from skbusd.tcp.tcp_window import tcp_receive_window


def tcp_reset(net: TcpNet, tp: TcpSock) -> None:
    """A valid RST came (RFC 9293 3.10.7.4, second)."""
    if net.tracing:
        net.trace("tcp_reset", sk=tp.number)
    if tp.state == TCP_SYN_SENT:
        err = errno.ECONNREFUSED
    elif tp.state == TCP_CLOSE_WAIT:
        err = errno.EPIPE
    elif tp.state == TCP_CLOSE:
        return
    else:
        err = errno.ECONNRESET
    sk_error_report(net, tp, err, True)
    tcp_done(net, tp)


def _paws_discard(net: TcpNet, tp: TcpSock, th: TcpHdr, end_seq: int) -> Checked:
    """RFC 7323 5.3: an old duplicate by its timestamp?"""
    behind = seq_sub(tp.ts_recent, tp.rcv_tsval)
    if behind <= TCP_PAWS_WINDOW or not tp.ts_recent_stamp:
        return SKB_NOT_DROPPED_YET
    if net.now // 1_000_000_000 >= tp.ts_recent_stamp + TCP_PAWS_24DAYS:
        return SKB_NOT_DROPPED_YET
    return _disordered_ack(tp, th, end_seq, behind)


def _disordered_ack(tp: TcpSock, th: TcpHdr, end_seq: int, behind: int) -> Checked:
    """`tcp_disordered_ack_check`: an overtaken pure ACK is no old duplicate while it may be of this
    round trip. One that data has overtaken is a duplicate, but needs no answer."""
    seq = th.seq
    if not th.flags & ACK or seq != end_seq:
        return "TCP_RFC7323_PAWS"
    if seq != tp.rcv_nxt:
        overtaken = before(seq, tp.rcv_nxt)
        return "TCP_RFC7323_PAWS_ACK" if overtaken else "TCP_RFC7323_PAWS"
    window = th.window << tp.snd_wscale
    update = after(seq, tp.snd_wl1) or (seq == tp.snd_wl1 and (window > tp.snd_wnd or not window))
    if th.ack_seq != tp.snd_una or update or behind > tp.icsk_rto * 1200 // 1_000_000:
        return "TCP_RFC7323_PAWS"
    return SKB_NOT_DROPPED_YET


def _syn_challenge(net: TcpNet, tp: TcpSock, skb: SkBuff, flags: int) -> bool:
    """RFC 5961 4.2: a SYN on a connection is answered with a challenge ACK only."""
    if tp.state == TCP_ESTABLISHED:
        net.mib["TcpInErrs"] += 1
    net.mib["TcpExtTCPSYNChallenge"] += 1
    acc = tp.accecn
    reflect = 0
    if acc is not None and flags & TCPHDR_ACE:
        # A SYN-ACK once more: our ACK of it, with its feedback, was lost (RFC 9768 3.1.5).
        if isinstance(skb.cb, RcvCb):
            acc.syn_ect_rcv = skb.cb.tos & INET_ECN_MASK
        reflect = tcp_accecn_reflector_flags(acc.syn_ect_rcv)
    tcp_send_challenge_ack(net, tp, reflect)
    net.kfree_skb(skb, "TCP_INVALID_SYN", sk=tp.number)
    return False


def _reset_check(tp: TcpSock, seq: int) -> bool:
    """A RST for the number before rcv_nxt, after we took a FIN: some stacks send that."""
    return seq == (tp.rcv_nxt - 1) & MASK and tp.state in (
        TCP_CLOSE_WAIT,
        TCP_LAST_ACK,
        TCP_CLOSING,
    )


def tcp_sequence(tp: TcpSock, seq: int, end_seq: int, fin: int) -> Checked:
    """The first check: is any of the segment in the window?

    RFC 9293 3.10.7.4 trims a segment at the right edge. Linux takes all of it while nothing waits
    to be read, and drops all of it otherwise; so do we. A FIN needs no room, so it may lie at the
    edge.

    Differs from Linux: the socket layer tells of small reads only when asked. So a segment may be
    dropped at first, and taken when the peer sends it again.
    """
    if before(end_seq, tp.rcv_wup):
        return "TCP_OLD_SEQUENCE"
    edge = (tp.rcv_nxt + tcp_receive_window(tp)) & MASK
    if after(end_seq - fin, edge):
        if after(seq, edge):
            return "TCP_INVALID_SEQUENCE"
        if tp.rmem_alloc:
            return "TCP_INVALID_END_SEQUENCE"
    return SKB_NOT_DROPPED_YET


def tcp_validate_incoming(
    net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int, opt: TcpOptions
) -> bool:
    """RFC 9293 3.10.7.4, first to fourth, with RFC 5961; False: the skb is dropped."""
    flags, seq = th.flags, th.seq
    paws = tp.rx_saw_tstamp and tp.tstamp_ok and not flags & RST
    if paws and (old := _paws_discard(net, tp, th, end_seq)):
        if flags & SYN:
            return _syn_challenge(net, tp, skb, flags)
        if old == "TCP_RFC7323_PAWS_ACK":
            net.mib["TcpExtPAWSOldAck"] += 1
        else:
            net.mib["TcpExtPAWSEstab"] += 1
            if seq != end_seq or not tcp_oow_rate_limited(net, tp, "TcpExtTCPACKSkippedPAWS"):
                tcp_send_dupack(net, tp, seq, end_seq)
        net.kfree_skb(skb, old, sk=tp.number)
        return False
    reason = tcp_sequence(tp, seq, end_seq, flags & FIN)
    if reason:
        if not flags & RST:
            if flags & SYN:
                return _syn_challenge(net, tp, skb, flags)
            if reason != "TCP_OLD_SEQUENCE":
                net.mib["TcpExtBeyondWindow"] += 1
                if tp.rmem_alloc < UNTOLD:
                    net.call("socket", SkCallbacks.tcp_rcvq_ask, TcpRcvqAsk(tp.number))
            if seq != end_seq or not tcp_oow_rate_limited(net, tp, "TcpExtTCPACKSkippedSeq"):
                tcp_send_dupack(net, tp, seq, end_seq)
        elif _reset_check(tp, seq):
            tcp_reset(net, tp)
            net.kfree_skb(skb, "TCP_RESET", sk=tp.number)
            return False
        net.kfree_skb(skb, reason, sk=tp.number)
        return False
    if flags & RST:
        # RFC 5961 3.2: a RST must have exactly the next number, or the end of the SACKed data,
        # which the peer may take for it. For others a challenge ACK asks whether it is meant.
        top = seq
        if seq != tp.rcv_nxt and not _reset_check(tp, seq):
            top = tp.rcv_nxt
            for _, end in tp.selective_acks:
                if after(end, top):
                    top = end
        if top == seq:
            tcp_reset(net, tp)
        else:
            tcp_send_challenge_ack(net, tp)
        net.kfree_skb(skb, "TCP_RESET", sk=tp.number)
        return False
    if flags & SYN:
        if (
            tp.state == TCP_SYN_RECV
            and flags & ACK
            and (seq + 1) & MASK == end_seq == tp.rcv_nxt
            and th.ack_seq == tp.snd_nxt
        ):
            return True  # the SYN-ACK of a simultaneous open
        return _syn_challenge(net, tp, skb, flags)
    return True
