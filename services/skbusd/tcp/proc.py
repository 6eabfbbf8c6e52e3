# SPDX-License-Identifier: MIT
"""tcp's values for `skbus proc` (`net/ipv4/tcp_ipv4.c`: get_tcp4_sock, get_openreq4,
get_timewait4_sock): its part of /proc/net/tcp, sockstat and protocols, as plain values.

Asked by the control socket; `skbus.inet.proc` puts the parts of all processes together and prints
them.
"""

from typing import Any

from skbus.core.seq import MASK, seq_ahead
from skbus.inet.proc import USER_HZ_NS, TcpLine
from skbusd.tcp.const import (
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
    TCP_CLOSE,
    TCP_INFINITE_SSTHRESH,
    TCP_LISTEN,
    TCP_SYN_RECV,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock, TcpTimewaitSock
from skbusd.tcp.sock import TcpSock

_ANY = bytes(4)


def proc_net(net: TcpNet, name: str) -> Any:
    """tcp's part of one file; None where it has none."""
    if name == "tcp":
        return tcp_lines(net)
    if name == "sockstat":
        bound = sum(tp.state != TCP_CLOSE or tp.bound_port > 0 for tp in net.socks.values())
        return {"inuse": bound, "orphan": net.orphan_count, "tw": net.tw_count,
                "alloc": len(net.socks), "mem": net.tcp_memory_allocated}  # fmt: skip
    if name == "protocols":
        return {"TCP": (net.tcp_memory_allocated, bool(net.tcp_memory_pressure))}
    return None


def tcp_lines(net: TcpNet) -> list[TcpLine]:
    """Listeners, then sockets with two addresses. A new or merely bound socket has no line, as in
    Linux."""
    lines = [_sock(net, tp) for tp in net.socks.values() if tp.state == TCP_LISTEN]
    for sk in net.ehash.values():
        if isinstance(sk, TcpSock):
            lines.append(_sock(net, sk))
        elif isinstance(sk, TcpRequestSock):
            lines.append(_openreq(net, sk))
        elif isinstance(sk, TcpTimewaitSock):
            lines.append(_timewait(net, sk))
    return lines


def _clock(net: TcpNet, expires: int) -> int:
    """`jiffies_delta_to_clock_t`"""
    return max(expires - net.now, 0) // USER_HZ_NS


def _unread(tp: TcpSock) -> int:
    """Bytes that the application has not taken; a FIN counts 1, as in Linux."""
    return seq_ahead(tp.rcv_nxt, tp.copied_seq)


def _sock(net: TcpNet, tp: TcpSock) -> TcpLine:
    timer, when = 0, net.now
    if tp.icsk_pending in (ICSK_TIME_RETRANS, ICSK_TIME_REO_TIMEOUT, ICSK_TIME_LOSS_PROBE):
        timer, when = 1, tp.icsk_timeout
    elif tp.icsk_pending == ICSK_TIME_PROBE0:
        timer, when = 4, tp.icsk_timeout
    elif tp.sk_timer is not None and tp.sk_timer.pending():
        timer, when = 2, tp.sk_timer.expires
    listening = tp.state == TCP_LISTEN
    initial = tp.snd_ssthresh >= TCP_INFINITE_SSTHRESH
    return TcpLine(
        tp.number
        if net.shards == 1 or tp.number > 0xFFFFFFFF
        else tp.number - tp.number % (2 * net.shards),
        tp.state,
        (tp.saddr or tp.bound_addr or _ANY, tp.sport or tp.bound_port),
        (tp.daddr or _ANY, tp.dport),
        0 if listening else (tp.write_seq - tp.snd_una) & MASK,
        len(tp.accept_queue or ()) if listening else _unread(tp),
        timer,
        _clock(net, when),
        tp.icsk_retransmits,
        tp.icsk_probes_out,
        (
            tp.icsk_rto * 1000 // USER_HZ_NS,
            tp.ack_ato // USER_HZ_NS,
            tp.ack_quick << 1 | (tp.ack_pingpong > 0),
            tp.snd_cwnd,
            tp.fastopenq_max_qlen if listening else -1 if initial else tp.snd_ssthresh,
        ),
    )


def _openreq(net: TcpNet, req: TcpRequestSock) -> TcpLine:
    when = _clock(net, req.timer.expires) if req.timer is not None else 0
    return TcpLine(
        0,
        TCP_SYN_RECV,
        (req.saddr, req.sport),
        (req.daddr, req.dport),
        0,
        0,
        1,
        when,
        req.num_timeout,
        0,
        (),
    )


def _timewait(net: TcpNet, tw: TcpTimewaitSock) -> TcpLine:
    when = _clock(net, tw.timer.expires) if tw.timer is not None else 0
    return TcpLine(
        0, tw.substate, (tw.saddr, tw.sport), (tw.daddr, tw.dport), 0, 0, 3, when, 0, 0, ()
    )
