# SPDX-License-Identifier: MIT
"""Connections that are not yet sockets (`net/ipv4/tcp_minisocks.c`): the request sock's answers,
and the child that a completed handshake makes.

Called by tcp_ipv4. Calls the socket layer: `inet_csk_reqsk_queue_add`. RFC 9293 3.10.7.4
(SYN-RECEIVED), RFC 7323, RFC 5961.
"""

from typing import Final

from skbus.core.abi import ReqskQueueAdd
from skbus.core.interfaces import SkCallbacks
from skbus.core.seq import MASK, before, between
from skbus.core.timer import Timer
from skbus.inet.headers.tcp import TcpHdr, TcpOptions
from skbusd.tcp.const import (
    ACK,
    RST,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    SYN,
    TCP_HDR,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCPOLEN_TSTAMP_ALIGNED,
)
from skbusd.tcp.inet_connection_sock import (
    sk_acceptq_is_full,
)
from skbusd.tcp.inet_hashtables import KIND_LISTEN, inet_bind_hash
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_ack import (
    tcp_challenge_ack_allowed,
    tcp_rtt_estimator,
    tcp_set_rto,
    tcp_update_rtt_min,
)
from skbusd.tcp.tcp_ecn import tcp_ecn_openreq_child, tcp_ecn_rcv_syn_again
from skbusd.tcp.tcp_handshake import tcp_make_synack, tcp_rsk_tsval, tcp_v4_send_ack
from skbusd.tcp.tcp_timewait import tcp_in_window
from skbusd.tcp.tcp_window import tcp_build_xmit_cb, tcp_sync_mss, tcp_update_pacing_rate

REQ_DROP = 0
REQ_RESET = 1
REQ_CHILD = 2
REQ_FASTOPEN_RST = 3


# ---- the SYN queue ---------------------------------------------------------------------------


def inet_csk_reqsk_queue_hash_add(net: TcpNet, listener: TcpSock, req: TcpRequestSock) -> None:
    """Enter the request sock where the connection will stand."""
    net.ehash[req.key] = req
    listener.qlen += 1
    listener.qlen_young += 1
    req.timer = Timer(reqsk_timer_handler, req.key)
    net.mod_timer(req.timer, net.now + 1_000_000_000)


def inet_csk_reqsk_queue_drop(net: TcpNet, req: TcpRequestSock) -> None:
    """Forget a request sock."""
    if req.timer is not None:
        net.del_timer(req.timer)
        req.timer = None
    if net.ehash.get(req.key) is req:
        del net.ehash[req.key]
        listener = net.socks.get(req.listener)
        if listener is not None and listener.qlen:
            listener.qlen -= 1
            if not req.num_timeout and listener.qlen_young:
                listener.qlen_young -= 1


def reqsk_timer_handler(net: TcpNet, key: bytes) -> None:
    """No ACK came for the SYN-ACK: send it again, or give up (`net.ipv4.tcp_synack_retries`)."""
    req = net.ehash.get(key)
    if type(req) is not TcpRequestSock:
        return
    listener = net.socks.get(req.listener)
    if listener is None or listener.state != TCP_LISTEN:
        inet_csk_reqsk_queue_drop(net, req)
        return
    max_retries = listener.icsk_syn_retries or net.sysctl["net.ipv4.tcp_synack_retries"]
    # A crowded queue gives up early: half of it is kept for young ones.
    limit = max_retries
    if listener.qlen << 1 > max(8, listener.max_ack_backlog):
        young = listener.qlen_young << 1
        while limit > 2 and listener.qlen >= young:
            limit -= 1
            young <<= 1
    if (
        req.num_timeout >= limit
        and not (req.acked and listener.defer_accept and req.num_timeout < listener.defer_accept)
        and (req.num_timeout >= max_retries or not req.acked)
    ):
        inet_csk_reqsk_queue_drop(net, req)
        return
    if not req.acked or req.num_timeout >= max(listener.defer_accept - 1, 0):
        rtx_syn_ack(net, listener, req, req.num_timeout + 1)
    if not req.num_timeout and listener.qlen_young:
        listener.qlen_young -= 1
    req.num_timeout += 1
    timeout = min(1_000_000_000 << req.num_timeout, 120_000_000_000)
    if req.timer is not None:
        net.mod_timer(req.timer, net.now + timeout)


def rtx_syn_ack(net: TcpNet, listener: TcpSock, req: TcpRequestSock, timeouts: int) -> None:
    """`inet_rtx_syn_ack`: the SYN-ACK once more. timeouts: how often no ACK came for it in time."""
    tcp_make_synack(net, listener, req, retrans=max(timeouts, 1))
    net.mib["TcpRetransSegs"] += 1
    net.mib["TcpExtTCPSynRetrans"] += 1
    req.num_retrans += 1


def tcp_check_req(
    net: TcpNet,
    listener: TcpSock,
    req: TcpRequestSock,
    th: TcpHdr,
    end_seq: int,
    opt: TcpOptions,
    fastopen: bool = False,
    tos: int = 0,
) -> int:
    """A segment for a request sock. REQ_CHILD: it completes the handshake.

    Differs from Linux: the peer may echo the timestamp of a challenge ACK, not only that of a
    SYN-ACK.

    fastopen: there is a child already, which stands here as its own listener; REQ_CHILD: the
    segment is for the child. REQ_FASTOPEN_RST: it ends the child. tos: of the IP header.
    """
    flags, seq = th.flags, th.seq
    paws_reject, tsecr_reject = _timestamps_rejected(req, opt, fastopen)
    if flags & (SYN | ACK | RST) == SYN and seq == req.rcv_isn and not paws_reject:
        # Our SYN-ACK was lost, or the SYN came twice.
        if _oow_limited(net, req, "TcpExtTCPACKSkippedSynRecv", False):
            return REQ_DROP
        if not tcp_ecn_rcv_syn_again(net, req, flags, tos):
            inet_csk_reqsk_queue_drop(net, req)
            return REQ_RESET
        rtx_syn_ack(net, listener, req, req.num_timeout)
        return REQ_DROP
    if flags & ACK and not flags & RST and not fastopen and th.ack_seq != (req.snt_isn + 1) & MASK:
        return REQ_RESET
    if paws_reject or tsecr_reject or not tcp_in_window(seq, end_seq, req.rcv_nxt, req.rcv_wnd):
        data = seq != end_seq and not flags & SYN
        if not flags & RST and not _oow_limited(net, req, "TcpExtTCPACKSkippedSynRecv", data):
            tcp_v4_reqsk_send_ack(net, listener, req)
        if paws_reject:
            net.mib["TcpExtPAWSEstab"] += 1
        elif tsecr_reject:
            net.mib["TcpExtTSEcrRejected"] += 1
        return REQ_DROP
    if opt.saw_tstamp and req.tstamp_ok and not before(req.rcv_nxt, seq):
        req.ts_recent = opt.tsval
    if seq == req.rcv_isn:
        flags &= ~SYN  # the SYN once more, with an ACK: its number is before the window
    if flags & RST and seq != req.rcv_nxt:
        # RFC 5961 3.2: in the window, but not the next number: is it meant?
        limited = _oow_limited(net, req, "TcpExtTCPACKSkippedChallenge", False)
        if not limited and tcp_challenge_ack_allowed(net):
            tcp_v4_reqsk_send_ack(net, listener, req)
        return REQ_DROP
    if flags & (RST | SYN):
        net.mib["TcpAttemptFails"] += 1
        if fastopen:
            return REQ_FASTOPEN_RST if flags & RST else REQ_RESET
        net.mib["TcpExtEmbryonicRsts"] += 1
        inet_csk_reqsk_queue_drop(net, req)
        return REQ_DROP if flags & RST else REQ_RESET
    if not flags & ACK:
        return REQ_DROP
    if fastopen:
        return REQ_CHILD
    return _completes(net, listener, req, end_seq)


def _timestamps_rejected(req: TcpRequestSock, opt: TcpOptions, fastopen: bool) -> tuple[bool, bool]:
    """Does PAWS reject the segment (RFC 7323 5.3), and does its echo?"""
    if not (opt.saw_tstamp and req.tstamp_ok):
        return False, False
    paws_reject = req.ts_recent != 0 and before(opt.tsval, req.ts_recent)
    # RFC 7323 3.2: an echo of a timestamp that was never sent proves nothing.
    tsecr_reject = (
        opt.tsecr != 0
        and not fastopen
        and not between(opt.tsecr, req.snt_tsval_first, req.snt_tsval_last)
    )
    return paws_reject, tsecr_reject


def _completes(net: TcpNet, listener: TcpSock, req: TcpRequestSock, end_seq: int) -> int:
    """An ACK completes the handshake: may there be a child yet?"""
    if req.num_timeout < listener.defer_accept and end_seq == (req.rcv_isn + 1) & MASK:
        req.acked = True
        net.mib["TcpExtTCPDeferAcceptDrop"] += 1
        return REQ_DROP
    if sk_acceptq_is_full(listener):
        net.mib["TcpExtListenOverflows"] += 1
        net.mib["TcpExtListenDrops"] += 1
        if net.sysctl["net.ipv4.tcp_abort_on_overflow"]:
            inet_csk_reqsk_queue_drop(net, req)
            net.mib["TcpExtEmbryonicRsts"] += 1
            return REQ_RESET
        req.acked = True
        return REQ_DROP
    return REQ_CHILD


def tcp_v4_reqsk_send_ack(net: TcpNet, listener: TcpSock, req: TcpRequestSock) -> None:
    """Send an ACK with the handshake's numbers; a child that Fast Open made may be further."""
    tcp_v4_send_ack(
        net,
        req,
        (req.snt_isn + 1) & MASK if listener.state == TCP_LISTEN else listener.snd_nxt,
        req.rcv_nxt,
        req.rcv_wnd >> req.rcv_wscale,
        tcp_rsk_tsval(net, req),
        req.ts_recent,
        req.tstamp_ok,
    )


def _oow_limited(net: TcpNet, req: TcpRequestSock, name: str, data: bool) -> bool:
    """Limit answers to segments out of window, except data, which cannot make a loop of ACKs."""
    if data:
        return False
    if req.last_oow_ack_time:
        elapsed = net.now - req.last_oow_ack_time
        if 0 <= elapsed < net.sysctl["net.ipv4.tcp_invalid_ratelimit"] * 1_000_000:
            net.mib[name] += 1
            return True
    req.last_oow_ack_time = net.now
    return False


# ---- the child -------------------------------------------------------------------------------

_INHERITED: Final = tuple(
    (name, getattr(TcpSock, name))
    for name in (
        "ttl pmtudisc keepopen linger user_mss keepalive_time keepalive_intvl keepalive_probes"
        " linger2 icsk_user_timeout icsk_syn_retries notsent_lowat rcvlowat oif max_pacing_rate"
        " recverr freebind transparent ip_kept"
    ).split()
)
"""Options that few listeners set, with their defaults."""


def _inherit(tp: TcpSock, listener: TcpSock) -> None:
    """`inet_csk_clone_lock`: a child has its listener's options."""
    tp.tos = listener.tos
    tp.mark = listener.mark
    tp.priority = listener.priority
    tp.rcvbuf = listener.rcvbuf
    tp.sndbuf = listener.sndbuf
    tp.reuse = listener.reuse
    tp.nonagle = listener.nonagle
    tp.ca_name = listener.ca_name
    tp.pacing_status = listener.pacing_status
    tp.min_ttl = listener.min_ttl
    userlocks = listener.userlocks & ~(SOCK_BINDADDR_LOCK | SOCK_BINDPORT_LOCK)
    if userlocks:
        tp.userlocks = userlocks
    for name, default in _INHERITED:
        value = getattr(listener, name)
        if value != default:
            setattr(tp, name, value)


def tcp_synack_rtt_meas(net: TcpNet, tp: TcpSock, req: TcpRequestSock) -> None:
    """The SYN-ACK's round trip, unless it was sent more than once (RFC 6298 3)."""
    if not req.num_retrans:
        rtt = max(net.now // 1000 - req.snt_synack, 1)
        tcp_update_rtt_min(net, tp, rtt)
        tcp_rtt_estimator(net, tp, rtt)
        tcp_set_rto(net, tp)
        tcp_update_pacing_rate(net, tp)


def tcp_create_openreq_child(
    net: TcpNet, listener: TcpSock, req: TcpRequestSock, th: TcpHdr, fastopen: bool = False
) -> TcpSock:
    """`tcp_v4_syn_recv_sock`: the child of a listener, in SYN_RECV, in the accept queue.

    fastopen: the SYN makes the child, so there is no round trip to measure yet.
    """
    tp = TcpSock(net.child_number())
    _inherit(tp, listener)
    tp.state = TCP_SYN_RECV
    tp.parent = listener.number
    tp.saddr, tp.sport = req.saddr, req.sport
    tp.daddr, tp.dport = req.daddr, req.dport
    tp.window_clamp = min(listener.window_clamp or 65535 << 14, 65535 << req.rcv_wscale)
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = (req.rcv_isn + 1) & MASK
    tp.snd_una = tp.snd_sml = tp.snd_nxt = tp.snd_up = tp.write_seq = (req.snt_isn + 1) & MASK
    tp.pushed_seq = tp.snd_nxt
    tp.icsk_rto = 1_000_000
    tp.mdev_us = 1_000_000
    tp.reordering = net.ipv4.sysctl_tcp_reordering
    tp.rcv_wnd = tp.rcv_ssthresh = req.rcv_wnd
    tp.snd_wl1 = req.rcv_isn
    _openreq_options(net, tp, req, th)
    tcp_ecn_openreq_child(tp, req)
    if req.num_retrans or req.num_timeout:
        _synack_was_late(net, tp, req)
    dev = net.inetdev.get(tp.saddr)
    if dev is not None:
        tp.gso_max_size = dev.gso_max_size
    tcp_sync_mss(net, tp, req.mtu)
    tp.tcp_mstamp = tp.lsndtime = net.now // 1000
    tp.ack_lrcvtime = net.now
    tcp_build_xmit_cb(tp)
    net.socks[tp.number] = tp
    inet_bind_hash(net, tp, listener.bound_addr, tp.sport, listener.bind_kind & ~KIND_LISTEN)
    tp.key = req.key
    inet_csk_reqsk_queue_drop(net, req)
    net.ehash[tp.key] = tp
    if not fastopen:
        tcp_synack_rtt_meas(net, tp, req)
    net.mib["TcpPassiveOpens"] += 1
    inet_csk_reqsk_queue_add(net, listener, tp)
    return tp


def _openreq_options(net: TcpNet, tp: TcpSock, req: TcpRequestSock, th: TcpHdr) -> None:
    """Take the options on which both SYNs agreed: window scale, SACK, timestamps, MSS."""
    tp.wscale_ok = req.wscale_ok
    if req.wscale_ok:
        tp.rcv_wscale, tp.snd_wscale = req.rcv_wscale, req.snd_wscale
    else:
        tp.window_clamp = min(tp.window_clamp, 65535)
    tp.snd_wnd = tp.max_window = th.window << tp.snd_wscale
    tp.tstamp_ok = req.tstamp_ok
    tp.sack_ok = req.sack_ok
    tp.tsoffset = req.ts_off
    tp.tcp_header_len = TCP_HDR
    tp.mss_clamp = req.mss
    tp.advmss = max(min(req.mtu - 40, 65495), net.sysctl["net.ipv4.route.min_adv_mss"])
    if tp.user_mss:
        tp.advmss = min(tp.advmss, tp.user_mss)
    if req.tstamp_ok:
        tp.ts_recent = req.ts_recent
        tp.ts_recent_stamp = net.now // 1_000_000_000 or 1
        tp.tcp_header_len += TCPOLEN_TSTAMP_ALIGNED
        tp.advmss -= TCPOLEN_TSTAMP_ALIGNED


def _synack_was_late(net: TcpNet, tp: TcpSock, req: TcpRequestSock) -> None:
    """The child begins with the request sock's retransmissions and timeouts."""
    if req.num_retrans:
        tp.total_retrans = req.num_retrans
        tp.undo_marker = tp.snd_una or 1
    if req.num_timeout:
        tp.total_rto = req.num_timeout
        tp.total_rto_recoveries = 1
        tp.total_rto_time = (net.now // 1000 - req.snt_synack) // 1000


def inet_csk_reqsk_queue_add(net: TcpNet, listener: TcpSock, child: TcpSock) -> None:
    """The child waits for accept(2): the socket layer has the queue, its length is counted here."""
    if listener.accept_queue is not None:
        listener.accept_queue[child.number] = None
    if net.tracing:
        net.trace("inet_csk_reqsk_queue_add", sk=listener.number, child=child.number)
    net.call(
        "socket",
        SkCallbacks.inet_csk_reqsk_queue_add,
        ReqskQueueAdd(
            listener.number, child.number, child.saddr, child.sport, child.daddr, child.dport
        ),
    )
