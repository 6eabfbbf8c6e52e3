# SPDX-License-Identifier: MIT
"""TCP over IPv4 (`net/ipv4/tcp_ipv4.c`): the entries that ip calls, and all that concerns
addresses: look-up, SYN, RST without a connection, ICMP errors.

    ip -> tcp_v4_rcv -> tcp_v4_do_rcv -> tcp_rcv_established | tcp_rcv_state_process
       -> tcp_v4_err
       -> ip_route_output_ret (the answer to tcp_v4_connect's question)

RFC 9293 3.10.7, RFC 5461 and 5927 (ICMP errors), RFC 1191 (path MTU), RFC 4987 (SYN floods).
"""

import errno
from functools import partial
from typing import Final

from skbus.core.abi import DstMtu, ErrHandler, RcvCb, Redirect, UpdatePmtu, XmitCb
from skbus.core.checksum import csum_block_add, csum_partial, csum_tcpudp_magic
from skbus.core.dropreason import SKB_CONSUMED, SKB_NOT_DROPPED_YET, Verdict
from skbus.core.interfaces import Ip
from skbus.core.pool import StalePlaceError
from skbus.core.seq import MASK, between
from skbus.core.skbuff import (
    CHECKSUM_COMPLETE,
    CHECKSUM_NONE,
    PACKET_HOST,
    SkBuff,
    frag_len,
)
from skbus.core.uapi import (
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    IP_PMTUDISC_INTERFACE,
    IP_PMTUDISC_OMIT,
)
from skbus.inet.headers import HeaderError
from skbus.inet.headers.tcp import TcpHdr, TcpOptions, build, parse, parse_options
from skbus.inet.ip_sockglue import ICMP_ERR_CONVERT, ip_icmp_error
from skbusd.tcp.const import (
    ACK,
    FIN,
    ICSK_TIME_RETRANS,
    IPPROTO_TCP,
    RST,
    SOCK_RCVBUF_LOCK,
    SYN,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_reqsk_queue_is_full,
    inet_csk_reset_xmit_timer,
    sk_acceptq_is_full,
    sk_error_report,
    tcp_done,
)
from skbusd.tcp.inet_hashtables import (
    inet_ehashfn,
    inet_lookup_listener,
    inet_twsk_deschedule_put,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.request_sock import TcpRequestSock, TcpTimewaitSock
from skbusd.tcp.sk_lock import SK_OWNED, sk_add_backlog, tcp_prequeue
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.syncookies import (
    COOKIE_PERIOD,
    MAX_SYNCOOKIE_AGE,
    cookie_init_sequence,
    cookie_init_timestamp,
    cookie_timestamp_decode,
    cookie_v4_check,
)
from skbusd.tcp.tcp_ack import tcp_set_rto
from skbusd.tcp.tcp_ecn import tcp_ecn_create_request
from skbusd.tcp.tcp_fastopen_child import tcp_fastopen_create_child, tcp_try_fastopen
from skbusd.tcp.tcp_handshake import tcp_make_synack, tcp_queue_header
from skbusd.tcp.tcp_input import tcp_rcv_established, tcp_rcv_state_process
from skbusd.tcp.tcp_minisocks import (
    REQ_CHILD,
    REQ_RESET,
    inet_csk_reqsk_queue_drop,
    inet_csk_reqsk_queue_hash_add,
    tcp_check_req,
    tcp_create_openreq_child,
)
from skbusd.tcp.tcp_recovery import tcp_simple_retransmit
from skbusd.tcp.tcp_timer import tcp_retransmit_timer
from skbusd.tcp.tcp_timewait import (
    TCP_TW_ACK,
    TCP_TW_RST,
    TCP_TW_SYN,
    tcp_timewait_state_process,
    tcp_v4_timewait_ack,
)
from skbusd.tcp.tcp_window import tcp_full_space, tcp_select_initial_window, tcp_sync_mss

ICMP_DEST_UNREACH: Final = 3
ICMP_REDIRECT: Final = 5
ICMP_TIME_EXCEEDED: Final = 11
ICMP_PARAMETERPROB: Final = 12
ICMP_FRAG_NEEDED: Final = 4
_LD: Final = (0, 1)
"""ICMP_NET_UNREACH, ICMP_HOST_UNREACH: the way is broken (RFC 6069 4.2)."""


# ---- from ip ---------------------------------------------------------------------------------


def tcp_v4_rcv(net: TcpNet, skb: SkBuff) -> None:
    """Check a segment, find its socket, and pass it on."""
    net.mib["TcpInSegs"] += skb.gso_segs or 1
    if net.tracing:
        net.trace("tcp_v4_rcv", skb)
    cb = skb.cb
    if not isinstance(cb, RcvCb) or skb.pkt_type != PACKET_HOST:
        net.kfree_skb(skb, "NOT_SPECIFIED")
        return
    try:
        th = parse(skb.head, skb.data)
    except HeaderError:
        if not _pull_header(net, skb):
            return
        th = parse(skb.head, skb.data)
    if skb.ip_summed in (CHECKSUM_NONE, CHECKSUM_COMPLETE) and not _checksum_ok(net, skb, cb):
        return
    start = skb.data
    end_seq = th.seq + len(skb.head) - start + skb.data_len - th.doff
    end_seq = (end_seq + (th.flags & FIN) + (th.flags >> 1 & 1)) & MASK
    key = cb.saddr + cb.daddr + skb.head[start : start + 4]
    sk = net.ehash.get(key)
    if net.tracing:
        found = type(sk).__name__ if sk is not None else ""
        net.trace(
            "__inet_lookup_established",
            skb,
            saddr=cb.saddr,
            sport=th.source,
            daddr=cb.daddr,
            dport=th.dest,
            found=found,
        )
    if type(sk) is TcpSock and sk.oif and sk.oif != skb.skb_iif:
        sk = None  # bound to another device (`INET_MATCH`)
    if type(sk) is TcpSock:
        tp = sk
    elif sk is None:
        listener = inet_lookup_listener(net, cb.saddr, th.source, cb.daddr, th.dest, skb.skb_iif)
        if listener is None:
            tcp_v4_no_socket(net, skb, cb, th, end_seq)
        else:
            tcp_v4_listen_rcv(net, listener, skb, cb, th, end_seq, key)
        return
    elif type(sk) is TcpRequestSock:
        tcp_v4_req_rcv(net, sk, skb, cb, th, end_seq)
        return
    else:
        assert type(sk) is TcpTimewaitSock
        tcp_v4_timewait_rcv(net, sk, skb, cb, th, end_seq)
        return
    if tp.min_ttl and cb.ttl < tp.min_ttl:
        net.mib["TcpExtTCPMinTTLDrop"] += 1
        net.kfree_skb(skb, "TCP_MINTTL", sk=tp.number)
        return
    tp.segs_in += skb.gso_segs or 1
    if tp.sk_lock and _sk_busy(net, tp, skb, th, end_seq):
        return
    tcp_v4_do_rcv(net, tp, skb, th, end_seq)


def _sk_busy(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> bool:
    """A request owns the socket, or a reader waits for it; True: the skb is taken."""
    if not tp.sk_lock & SK_OWNED:
        return tcp_prequeue(net, tp, skb, th, end_seq)
    if not sk_add_backlog(net, tp, skb, th, end_seq):
        net.mib["TcpExtTCPBacklogDrop"] += 1
        net.kfree_skb(skb, "SOCKET_BACKLOG", sk=tp.number)
    return True


def tcp_v4_do_rcv(net: TcpNet, tp: TcpSock, skb: SkBuff, th: TcpHdr, end_seq: int) -> None:
    """A segment for a socket, by its state."""
    if net.tracing:
        net.trace("tcp_v4_do_rcv", skb, sk=tp.number, state=tp.state)
    cb = skb.cb
    if tp.state == TCP_ESTABLISHED:
        reason = tcp_rcv_established(net, tp, skb, th, end_seq)
    else:
        reason = tcp_rcv_state_process(net, tp, skb, th, end_seq)
    if reason != SKB_CONSUMED:
        assert isinstance(cb, RcvCb)
        tcp_v4_send_reset(net, skb, cb, th, end_seq)
        net.kfree_skb(skb, reason, sk=tp.number)


def _pull_header(net: TcpNet, skb: SkBuff) -> bool:
    """`pskb_may_pull`: the TCP header may lie in the frags; False: dropped."""
    if skb.frags:
        try:
            data = net.skb_bytes(skb)
        except StalePlaceError:
            net.kfree_skb(skb, "SKBUS_STALE_PLACE")
            return False
        if not skb.lent:
            net.pool.free_frags(skb.frags)
        skb.head = skb.head[: skb.data] + data
        skb.frags = ()
        skb.data_len = 0
        try:
            parse(skb.head, skb.data)
        except HeaderError:
            pass
        else:
            return True
    net.mib["TcpInErrs"] += 1
    net.kfree_skb(skb, "PKT_TOO_SMALL")
    return False


def _checksum_ok(net: TcpNet, skb: SkBuff, cb: RcvCb) -> bool:
    """Verify in software a checksum that no hardware has verified; False: dropped."""
    head = skb.head[skb.data :]
    total = csum_partial(head)
    at = len(head)
    try:
        for frag in skb.frags:
            total = csum_block_add(total, csum_partial(net.pool.view_frag(frag)), at)
            at += frag_len(frag)
    except StalePlaceError:
        net.kfree_skb(skb, "SKBUS_STALE_PLACE")
        return False
    if csum_tcpudp_magic(cb.saddr, cb.daddr, at, IPPROTO_TCP, total):
        net.mib["TcpInCsumErrors"] += 1
        net.mib["TcpInErrs"] += 1
        net.kfree_skb(skb, "TCP_CSUM")
        return False
    return True


def tcp_v4_no_socket(net: TcpNet, skb: SkBuff, cb: RcvCb, th: TcpHdr, end_seq: int) -> None:
    """No socket for the segment: answer with RST (RFC 9293 3.10.7.1)."""
    tcp_v4_send_reset(net, skb, cb, th, end_seq)
    net.kfree_skb(skb, "NO_SOCKET")


def tcp_v4_send_reset(net: TcpNet, skb: SkBuff, cb: RcvCb, th: TcpHdr, end_seq: int) -> None:
    """RST in answer to a segment (RFC 9293 3.5.2); never to a RST."""
    if th.flags & RST or skb.pkt_type != PACKET_HOST:
        return
    if th.flags & ACK:
        header = build(th.dest, th.source, th.ack_seq, 0, RST, 0)
    else:
        header = build(th.dest, th.source, 0, end_seq, RST | ACK, 0)
    net.mib["TcpOutRsts"] += 1
    out = XmitCb(cb.daddr, cb.saddr, IPPROTO_TCP, 0, 0, True, 0, b"", True, True)
    tcp_queue_header(net, "tcp_v4_send_reset", header, out)


# ---- listeners -------------------------------------------------------------------------------


def _options(skb: SkBuff, th: TcpHdr) -> TcpOptions:
    start = skb.data
    return parse_options(skb.head[start + 20 : start + th.doff], bool(th.flags & SYN))


def tcp_v4_listen_rcv(
    net: TcpNet,
    listener: TcpSock,
    skb: SkBuff,
    cb: RcvCb,
    th: TcpHdr,
    end_seq: int,
    key: bytes,
    isn: int | None = None,
) -> None:
    """A segment for a listener (RFC 9293 3.10.7.2). isn: from a TIME_WAIT that a SYN may follow."""
    flags = th.flags
    if flags & RST:
        net.kfree_skb(skb, "TCP_RESET", sk=listener.number)
    elif flags & ACK:
        if flags & SYN or not _cookie_child(net, listener, skb, cb, th, end_seq, key):
            tcp_v4_send_reset(net, skb, cb, th, end_seq)
            net.kfree_skb(skb, "TCP_FLAGS", sk=listener.number)
    elif flags & SYN and not flags & FIN:
        tcp_v4_conn_request(net, listener, skb, cb, th, key, isn)
    else:
        net.kfree_skb(skb, "TCP_FLAGS", sk=listener.number)


def tcp_v4_conn_request(
    net: TcpNet,
    listener: TcpSock,
    skb: SkBuff,
    cb: RcvCb,
    th: TcpHdr,
    key: bytes,
    isn: int | None,
) -> None:
    """A SYN for a listener: a request sock and a SYN-ACK, or a child at once; takes the skb.

    isn: from a TIME_WAIT that the SYN may follow (RFC 9293 3.6.1), else None.
    """
    verdict = _conn_request(net, listener, skb, cb, th, key, isn)
    if not verdict:
        net.consume_skb(skb)
    elif verdict != SKB_CONSUMED:
        net.kfree_skb(skb, verdict, sk=listener.number)


def _conn_request(
    net: TcpNet,
    listener: TcpSock,
    skb: SkBuff,
    cb: RcvCb,
    th: TcpHdr,
    key: bytes,
    isn: int | None,
) -> Verdict:
    """The work of `tcp_v4_conn_request`; SKB_CONSUMED: the skb is a child's data now."""
    # In one piece: each refusal has its own counters, and their order matters in a flood.
    opt = _options(skb, th)
    if net.tracing:
        net.trace("tcp_v4_conn_request", sk=listener.number, qlen=listener.qlen)
    sysctl = net.sysctl
    cookies = sysctl["net.ipv4.tcp_syncookies"]
    want_cookie = False
    if isn is None and (cookies == 2 or inet_csk_reqsk_queue_is_full(listener)):
        if not cookies:
            net.mib["TcpExtTCPReqQFullDrop"] += 1
            net.mib["TcpExtListenDrops"] += 1
            return "NOMEM"
        net.mib["TcpExtTCPReqQFullDoCookies"] += 1
        net.last_synq_overflow = net.now
        want_cookie = True
    if sk_acceptq_is_full(listener):
        net.mib["TcpExtListenOverflows"] += 1
        net.mib["TcpExtListenDrops"] += 1
        return "NOMEM"
    if (
        isn is None
        and not cookies
        and sysctl["net.ipv4.tcp_max_syn_backlog"] - listener.qlen
        < sysctl["net.ipv4.tcp_max_syn_backlog"] >> 2
    ):
        net.mib["TcpExtListenDrops"] += 1
        return "NOMEM"
    req = _openreq(net, listener, cb, th, opt, key)
    if want_cookie:
        req.ecn_ok = req.accecn_ok = False  # a SYN cookie has no room for it
        if not req.tstamp_ok:
            req.wscale_ok = req.sack_ok = False
        req.snt_isn = cookie_init_sequence(net, key, th.seq, req.mss)
        req.ts_off = cookie_init_timestamp(net, req)
    elif isn is not None:
        req.snt_isn = isn
    else:
        req.snt_isn = net.secure_tcp_seq(req.saddr, req.daddr, req.sport, req.dport)
    _openreq_init_rwin(net, listener, req)
    req.snt_synack = net.now // 1000
    if want_cookie:
        net.mib["TcpExtSyncookiesSent"] += 1
        tcp_make_synack(net, listener, req)
        return SKB_NOT_DROPPED_YET
    at_once, foc = tcp_try_fastopen(net, listener, req, th, opt, skb.len > th.doff)
    if at_once:
        child = tcp_fastopen_create_child(net, listener, req, th, skb)
        tcp_make_synack(net, child, req, foc, opt.fastopen_exp)
        return SKB_CONSUMED
    inet_csk_reqsk_queue_hash_add(net, listener, req)
    tcp_make_synack(net, listener, req, foc, opt.fastopen_exp)
    return SKB_NOT_DROPPED_YET


def _openreq(
    net: TcpNet, listener: TcpSock, cb: RcvCb, th: TcpHdr, opt: TcpOptions, key: bytes
) -> TcpRequestSock:
    """`tcp_openreq_init`: take the SYN's options into the request sock."""
    sysctl = net.sysctl
    req = TcpRequestSock(listener.number, key)
    req.saddr, req.sport = cb.daddr, th.dest
    req.daddr, req.dport = cb.saddr, th.source
    req.rcv_isn = th.seq
    req.rcv_nxt = (th.seq + 1) & MASK
    req.mtu = cb.mtu
    req.tos = listener.tos
    req.mss = opt.mss or 536
    if listener.user_mss and listener.user_mss < req.mss:
        req.mss = listener.user_mss
    req.tstamp_ok = opt.saw_tstamp and bool(sysctl["net.ipv4.tcp_timestamps"])
    req.ts_recent = opt.tsval if req.tstamp_ok else 0
    req.sack_ok = opt.sack_ok and bool(sysctl["net.ipv4.tcp_sack"])
    if opt.wscale is not None and sysctl["net.ipv4.tcp_window_scaling"]:
        req.wscale_ok = True
        req.snd_wscale = opt.wscale
    req.ts_off = net.secure_tcp_ts_off(req.saddr, req.daddr)
    tcp_ecn_create_request(net, req, th.flags, cb.tos)
    return req


def _openreq_init_rwin(net: TcpNet, listener: TcpSock, req: TcpRequestSock) -> None:
    """The window of the SYN-ACK."""
    mss = max(min(req.mtu - 40, 65495), int(net.sysctl["net.ipv4.route.min_adv_mss"]))
    if listener.user_mss:
        mss = min(mss, listener.user_mss)
    clamp = listener.window_clamp
    if listener.userlocks & SOCK_RCVBUF_LOCK:
        full = tcp_full_space(net, listener)
        if not clamp or clamp > full:
            clamp = full
    req.rcv_wnd, _, req.rcv_wscale = tcp_select_initial_window(
        net, listener.rcvbuf, mss - (12 if req.tstamp_ok else 0), clamp, req.wscale_ok
    )


def _cookie_child(
    net: TcpNet,
    listener: TcpSock,
    skb: SkBuff,
    cb: RcvCb,
    th: TcpHdr,
    end_seq: int,
    key: bytes,
) -> bool:
    """An ACK for a listener: does it bring back a cookie? True: the skb is taken."""
    if not net.sysctl["net.ipv4.tcp_syncookies"]:
        return False
    if net.now - net.last_synq_overflow > MAX_SYNCOOKIE_AGE * COOKIE_PERIOD:
        return False
    mss = cookie_v4_check(net, key, th)
    opt = _options(skb, th)
    if not mss:
        net.mib["TcpExtSyncookiesFailed"] += 1
        return False
    req = _openreq(net, listener, cb, th, TcpOptions(mss=mss), key)
    req.rcv_isn = (th.seq - 1) & MASK
    req.rcv_nxt = th.seq
    req.snt_isn = (th.ack_seq - 1) & MASK
    if not cookie_timestamp_decode(net, req, opt):
        return False
    if sk_acceptq_is_full(listener):
        net.mib["TcpExtListenOverflows"] += 1
        net.mib["TcpExtListenDrops"] += 1
        net.kfree_skb(skb, "NOMEM", sk=listener.number)
        return True
    net.mib["TcpExtSyncookiesRecv"] += 1
    _openreq_init_rwin(net, listener, req)
    req.ts_off = net.secure_tcp_ts_off(req.saddr, req.daddr)
    req.num_retrans = 1  # no round-trip time is known
    waiting = net.ehash.get(key)
    if type(waiting) is TcpRequestSock:
        inet_csk_reqsk_queue_drop(net, waiting)
    child = tcp_create_openreq_child(net, listener, req, th)
    child.total_retrans = 0
    child.undo_marker = 0
    tcp_v4_do_rcv(net, child, skb, th, end_seq)
    return True


def tcp_v4_req_rcv(
    net: TcpNet, req: TcpRequestSock, skb: SkBuff, cb: RcvCb, th: TcpHdr, end_seq: int
) -> None:
    """A segment for a connection in SYN_RECV (RFC 9293 3.10.7.4)."""
    listener = net.socks.get(req.listener)
    if listener is None or listener.state != TCP_LISTEN:
        inet_csk_reqsk_queue_drop(net, req)
        tcp_v4_no_socket(net, skb, cb, th, end_seq)
        return
    result = tcp_check_req(net, listener, req, th, end_seq, _options(skb, th), tos=cb.tos)
    if result == REQ_CHILD:
        child = tcp_create_openreq_child(net, listener, req, th)
        child.segs_in = skb.gso_segs or 1
        tcp_v4_do_rcv(net, child, skb, th, end_seq)
        return
    if result == REQ_RESET:
        # A SYN that came twice may have been answered with a cookie before; such an ACK also
        # counts.
        if th.flags & (ACK | SYN) == ACK and _cookie_child(
            net, listener, skb, cb, th, end_seq, req.key
        ):
            return
        tcp_v4_send_reset(net, skb, cb, th, end_seq)
    net.kfree_skb(skb, "TCP_RESET" if th.flags & RST else "NOT_SPECIFIED", sk=listener.number)


def tcp_v4_timewait_rcv(
    net: TcpNet, tw: TcpTimewaitSock, skb: SkBuff, cb: RcvCb, th: TcpHdr, end_seq: int
) -> None:
    """A segment for a connection in TIME_WAIT."""
    verdict = tcp_timewait_state_process(net, tw, th, end_seq, _options(skb, th))
    if verdict == TCP_TW_SYN:
        listener = inet_lookup_listener(net, cb.saddr, th.source, cb.daddr, th.dest, skb.skb_iif)
        if listener is not None:
            isn = (tw.snd_nxt + 65535 + 2) & MASK
            inet_twsk_deschedule_put(net, tw)
            tcp_v4_listen_rcv(net, listener, skb, cb, th, end_seq, tw.key, isn)
            return
        verdict = TCP_TW_ACK
    if verdict == TCP_TW_ACK:
        tcp_v4_timewait_ack(net, tw)
    elif verdict == TCP_TW_RST:
        tcp_v4_send_reset(net, skb, cb, th, end_seq)
        inet_twsk_deschedule_put(net, tw)
    net.kfree_skb(skb, "TCP_CLOSE")


# ---- ICMP errors -----------------------------------------------------------------------------


def tcp_v4_err(net: TcpNet, err: ErrHandler) -> None:
    """An ICMP error about a segment of ours. Only one that quotes a number in flight counts (RFC
    5927 4.1). Before ESTABLISHED it ends the attempt, later it is a hint (RFC 5461)."""
    payload = err.payload
    sport, dport = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    if net.tracing:
        net.trace(
            "tcp_v4_err",
            saddr=err.saddr,
            sport=sport,
            daddr=err.daddr,
            dport=dport,
            type=err.type,
            code=err.code,
            info=err.info,
        )
    if len(payload) < 8:
        net.mib["IcmpInErrors"] += 1
        return
    seq = int.from_bytes(payload[4:8], "big")
    sk = net.ehash.get(inet_ehashfn(err.saddr, err.daddr, sport, dport))
    if sk is None:
        net.mib["IcmpInErrors"] += 1
        return
    if type(sk) is TcpTimewaitSock:
        return
    if type(sk) is TcpRequestSock:
        if seq != sk.snt_isn:
            net.mib["TcpExtOutOfWindowIcmps"] += 1
        elif err.type in (ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB) or (
            err.type == ICMP_DEST_UNREACH and err.code in _LD
        ):
            listener = net.socks.get(sk.listener)
            if listener is not None:
                net.mib["TcpExtListenDrops"] += 1
            inet_csk_reqsk_queue_drop(net, sk)
        return
    assert type(sk) is TcpSock
    if sk.state == TCP_CLOSE:
        return
    una = sk.snd_una if sk.fastopen_rsk is None else sk.fastopen_rsk.snt_isn
    if not between(seq, una, sk.snd_nxt):
        net.mib["TcpExtOutOfWindowIcmps"] += 1
        return
    _icmp_error(net, sk, err, seq)


def _icmp_error(net: TcpNet, tp: TcpSock, err: ErrHandler, seq: int) -> None:
    """A plausible error about the segment at seq; only noted where a request owns the socket."""
    if err.type == ICMP_REDIRECT:
        if not tp.sk_lock & SK_OWNED:
            gateway = err.info.to_bytes(4, "big")
            item = Redirect(err.daddr, gateway, err.offender, err.ifindex)
            net.call("ip", Ip.ipv4_redirect, item)
        return
    if tp.sk_lock & SK_OWNED:
        if err.type == ICMP_DEST_UNREACH and err.code == ICMP_FRAG_NEEDED:
            net.sk_owned[tp.number].deferred.append(lambda: _icmp_error(net, tp, err, seq))
            return
        net.mib["TcpExtLockDroppedIcmps"] += 1
    if err.type == ICMP_DEST_UNREACH:
        if err.code >= len(ICMP_ERR_CONVERT):
            return
        if err.code == ICMP_FRAG_NEEDED:
            tcp_v4_mtu_reduced(net, tp, err.info)
            return
        code = ICMP_ERR_CONVERT[err.code][0]
        if err.code in _LD and tp.fastopen_rsk is None and not tp.sk_lock & SK_OWNED:
            tcp_ld_rto_revert(net, tp, seq)
    elif err.type == ICMP_TIME_EXCEEDED:
        code = errno.EHOSTUNREACH
    elif err.type == ICMP_PARAMETERPROB:
        code = errno.EPROTO
    else:
        return
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV) and (tp.fastopen_rsk is None or tp.parent):
        if tp.recverr:
            icmp = (err.type, err.code, err.info)
            to = (err.daddr, tp.dport)
            ip_icmp_error(net, tp.number, code, icmp, err.offender, to, err.payload)
        sk_error_report(net, tp, code, True)
        tcp_done(net, tp)
    elif tp.recverr:
        sk_error_report(net, tp, code, False)
    else:
        tp.err_soft = code


def tcp_ld_rto_revert(net: TcpNet, tp: TcpSock, seq: int) -> None:
    """`tcp_ld_RTO_revert`: the way is broken, and no congestion lost the RTO's segment, so undo one
    back-off (RFC 6069 4.2)."""
    if seq != tp.snd_una or not tp.icsk_retransmits or not tp.icsk_backoff or not tp.rtx_queue:
        return
    tp.icsk_backoff -= 1
    if tp.srtt_us:
        tcp_set_rto(net, tp)
    else:
        tp.icsk_rto = 1_000_000
    rto_max = net.ipv4.sysctl_tcp_rto_max_ms * 1000
    tp.icsk_rto = min(tp.icsk_rto << tp.icsk_backoff, rto_max)
    tp.tcp_mstamp = net.now // 1000
    left = tp.icsk_rto - (tp.tcp_mstamp - tp.rtx_queue[0].mstamp)
    if net.tracing:
        net.trace("tcp_ld_RTO_revert", sk=tp.number, rto=tp.icsk_rto, left=left)
    if left > 0:
        inet_csk_reset_xmit_timer(net, tp, ICSK_TIME_RETRANS, left)
    else:
        tcp_retransmit_timer(net, tp)


def tcp_dst_mtu(net: TcpNet, item: DstMtu) -> None:
    """The known MTU of the path to an address has changed, or was forgotten. Its connections follow
    (Linux's `tcp_current_mss` does this segment by segment)."""
    for tp in net.socks.values():
        if tp.daddr != item.daddr or tp.pmtu == item.mtu or tp.state in (TCP_LISTEN, TCP_CLOSE):
            continue
        if tp.sk_lock & SK_OWNED:
            net.sk_owned[tp.number].deferred.append(partial(_sync_mss, net, tp, item.mtu))
        else:
            tcp_sync_mss(net, tp, item.mtu)


def _sync_mss(net: TcpNet, tp: TcpSock, mtu: int) -> None:
    tcp_sync_mss(net, tp, mtu)


def tcp_v4_mtu_reduced(net: TcpNet, tp: TcpSock, mtu: int) -> None:
    """RFC 1191: tell ip of the MTU, make smaller segments from now on, and send those that were too
    big again. Segments do not get smaller than `min_pmtu`; on such a path ip sends without DF
    (`ip_dont_fragment`)."""
    if tp.state in (TCP_LISTEN, TCP_CLOSE):
        return
    cb = tp.xmit_cb
    daddr = cb.daddr if isinstance(cb, XmitCb) else tp.daddr
    net.call("ip", Ip.ipv4_update_pmtu, UpdatePmtu(daddr, mtu))
    least = int(net.sysctl["net.ipv4.route.min_pmtu"])
    if mtu < least and tp.pmtudisc == IP_PMTUDISC_DO:
        tp.err_soft = errno.EMSGSIZE
    mtu = max(mtu, least)
    if tp.pmtudisc in (IP_PMTUDISC_DONT, IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT):
        return
    if tp.pmtu > mtu:
        old_mss = tp.mss_cache
        tcp_sync_mss(net, tp, mtu)
        if tp.mss_cache == old_mss and not tp.syn_data:
            return  # nothing in flight has become too big: no need to search the queue
        if tp.state not in (TCP_SYN_SENT, TCP_SYN_RECV) or tp.syn_data:
            tcp_simple_retransmit(net, tp)
