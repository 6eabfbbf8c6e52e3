# SPDX-License-Identifier: MIT
"""The application's calls (`net/ipv4/tcp.c`), which the socket layer sends: make, bind, listen,
connect, send, receive. Their end is in tcp_close.

    socket -> tcp_v4_init_sock, inet_csk_get_port, inet_csk_listen_start, tcp_v4_connect,
              tcp_sendmsg, tcp_cleanup_rbuf, inet_csk_accept

Calls tcp_output to send, and ip (`ip_route_output_key`) before a connection. RFC 9293 3.10.1 to
3.10.3.
"""

import errno
from typing import Final

from skbus.core.abi import (
    GET_PORT_AUTO,
    Accept,
    Connect,
    Connected,
    GetPort,
    InitSock,
    IpRouteOutputKey,
    ListenStart,
    LocalAddr,
    Recvmsg,
    RouteRet,
    TcpSendmsgCb,
    TcpSendmsgFastopenCb,
)
from skbus.core.interfaces import Ip
from skbus.core.seq import MASK
from skbus.core.skbuff import Frag, SkBuff, frag_slice
from skbus.inet.transport import sk_ret
from skbusd.tcp.const import (
    ACK,
    FIN,
    ICSK_ACK_PUSHED,
    ICSK_ACK_PUSHED2,
    ICSK_ACK_SCHED,
    MSG_EOR,
    MSG_MORE,
    MSG_OOB,
    PSH,
    PUSH_ONE,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SOCK_BINDADDR_LOCK,
    SOCK_BINDPORT_LOCK,
    TCP_CHRONO_BUSY,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_NAGLE_PUSH,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    WINDOW_CLAMP_LOCK,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_listen_start,
    tcp_set_state,
)
from skbusd.tcp.inet_hashtables import (
    KIND_REUSE_ANY,
    inet_csk_get_port,
    inet_ehashfn,
    inet_hash_connect,
    inet_put_port,
)
from skbusd.tcp.netns import ANY, TcpNet
from skbusd.tcp.sk_lock import (
    SK_OWNED,
    SK_READER,
    sk_sendmsg_slice,
    sk_wait_lock,
    tcp_prequeue_process,
)
from skbusd.tcp.sock import RARE_FIELDS, TcpSeg, TcpSock, TcpSockRare
from skbusd.tcp.tcp_cong import tcp_assign_congestion_control
from skbusd.tcp.tcp_data import tcp_rcv_space_adjust
from skbusd.tcp.tcp_fastopen import (
    TcpFastopenRequest,
    tcp_fastopen_defer_connect,
    tcp_fastopen_listen,
)
from skbusd.tcp.tcp_handshake import tcp_connect
from skbusd.tcp.tcp_memory import (
    SK_RECLAIM_THRESHOLD,
    sk_mem_free,
    sk_mem_reclaim,
    sk_wmem_schedule,
)
from skbusd.tcp.tcp_output import (
    __tcp_push_pending_frames,
    tcp_chrono_set,
    tcp_send_ack,
    tcp_send_skb,
    tcp_slow_start_after_idle_check,
    tcp_write_xmit,
)
from skbusd.tcp.tcp_rate import tcp_rate_check_app_limited
from skbusd.tcp.tcp_window import (
    __tcp_select_window,
    tcp_current_mss,
    tcp_receive_window,
    tcp_xmit_size_goal,
)
from skbusd.tcp.tcp_write_space import MERGE_FRAGS

# ---- begin -----------------------------------------------------------------------------------


def tcp_v4_init_sock(net: TcpNet, item: InitSock) -> None:
    """socket(2): a closed socket with the defaults."""
    if net.tracing:
        net.trace("tcp_v4_init_sock", sk=item.sk)
    if item.sk in net.socks:
        net.bad_requests += 1
        return
    tp = net.socks[item.sk] = TcpSock(item.sk)
    tp.rcvbuf = net.sysctl["net.ipv4.tcp_rmem"][1]
    tp.sndbuf = net.sysctl["net.ipv4.tcp_wmem"][1]
    tp.reordering = net.ipv4.sysctl_tcp_reordering
    tp.icsk_rto = tp.mdev_us = 1_000_000
    if net.sysctl["net.ipv4.ip_no_pmtu_disc"]:
        tp.pmtudisc = 0
    tcp_assign_congestion_control(net, tp)


def tcp_v4_get_port(net: TcpNet, item: GetPort) -> None:
    """bind(2) (`inet_csk_get_port`)."""
    tp = net.socks.get(item.sk)
    addr = item.addr or ANY
    err = 0
    if tp is None:
        err = errno.EBADF
    elif item.port == -1 and tp.state == TCP_CLOSE:
        inet_put_port(net, tp)
        tp.sport, tp.saddr = 0, b""
        tp.userlocks &= ~(SOCK_BINDADDR_LOCK | SOCK_BINDPORT_LOCK)
    elif (
        tp.state != TCP_CLOSE or tp.bound_port or not -65536 < item.port <= 65535 or len(addr) != 4
    ):
        err = errno.EINVAL
    elif (
        addr != ANY
        and addr not in net.inetdev
        and addr[0] != 127
        and net.inetdev
        and inet_bound_source(net, addr)  # a group or a broadcast may be bound to
        and not (tp.freebind or tp.transparent or net.sysctl["net.ipv4.ip_nonlocal_bind"])
    ):
        err = errno.EADDRNOTAVAIL
    else:
        err = inet_csk_get_port(net, tp, addr, item.port, item.reuse)
        if not err:
            tp.reuse = item.reuse & KIND_REUSE_ANY
            tp.saddr = inet_bound_source(net, addr)
            tp.sport = tp.bound_port
            tp.ifindex = tp.oif = item.ifindex or tp.oif
            if addr != ANY:
                tp.userlocks |= SOCK_BINDADDR_LOCK
            if item.port > 0 and not item.reuse & GET_PORT_AUTO:
                tp.userlocks |= SOCK_BINDPORT_LOCK
    sk_ret(net, item.sk, item.req, err, None if err or tp is None else LocalAddr(addr, tp.sport))


def inet_bound_source(net: TcpNet, addr: bytes) -> bytes:
    """The source address of a socket that is bound to `addr`. b"" is the route's: for no address, a
    multicast group or a broadcast address (`__inet_bind`: "use device")."""
    if addr == ANY or addr[0] & 0xF0 == 0xE0 or addr in (b"\xff" * 4, b"\x7f\xff\xff\xff"):
        return b""
    if addr not in net.inetdev and any(addr == d.broadcast for d in net.inetdev.values()):
        return b""
    return addr


def tcp_listen_start(net: TcpNet, item: ListenStart) -> None:
    """listen(2): RFC 9293 3.10.1, passive OPEN."""
    tp = net.socks.get(item.sk)
    if tp is None:
        sk_ret(net, item.sk, item.req, errno.EBADF)
        return
    if tp.state not in (TCP_CLOSE, TCP_LISTEN):
        sk_ret(net, item.sk, item.req, errno.EINVAL)
        return
    if tp.state == TCP_CLOSE and not tp.bound_port:
        err = inet_csk_get_port(net, tp, ANY, 0, tp.reuse)
        if err:
            sk_ret(net, item.sk, item.req, err)
            return
        tp.sport = tp.bound_port
    elif tp.state == TCP_CLOSE:
        tp.sport = tp.bound_port
        tp.saddr = b"" if tp.bound_addr == ANY else tp.bound_addr
        # SO_REUSEADDR shares a port with closed sockets, but not two listeners.
        bucket = net.bhash[tp.bound_port]
        bucket.remove(tp.bound_addr, tp.bind_kind)
        taken = bucket.conflict(tp.bound_addr, tp.reuse)
        bucket.add(tp.bound_addr, tp.bind_kind)
        if taken:
            sk_ret(net, item.sk, item.req, errno.EADDRINUSE)
            return
    tp.done_sent = False
    tcp_fastopen_listen(net, tp, item.backlog)
    inet_csk_listen_start(net, tp, item.backlog)
    sk_ret(net, item.sk, item.req, 0, LocalAddr(tp.saddr or ANY, tp.sport))


def tcp_accept(net: TcpNet, item: Accept) -> None:
    """accept(2): the child has an owner now, and its place in the queue is free."""
    listener = net.socks.get(item.sk)
    if listener is not None and listener.accept_queue is not None:
        listener.accept_queue.pop(item.child, None)
    child = net.socks.get(item.child)
    if child is not None:
        child.parent = 0


# ---- connect ---------------------------------------------------------------------------------

_KEPT: Final = frozenset(
    "userlocks ifindex ttl pmtudisc inet_opt recverr freebind transparent ip_kept oif rcvlowat"
    " keepopen linger user_mss notsent_lowat defer_accept keepalive_time keepalive_intvl"
    " keepalive_probes linger2 fastopenq_max_qlen fastopen_key fastopen_connect"
    " fastopen_no_cookie icsk_user_timeout icsk_syn_retries ca_setsockopt sk_timer pacing_timer"
    " compressed_ack_timer max_pacing_rate".split()
)
_REINIT: Final = tuple(name for name in RARE_FIELDS if name not in _KEPT)


def tcp_reinit(net: TcpNet, tp: TcpSock) -> None:
    """Make a closed socket as new, except its options and its port."""
    clamp = tp.window_clamp if tp.state == TCP_LISTEN else 0
    sk_mem_free(net, tp)
    tp.reset()
    defaults = TcpSockRare()
    for name in _REINIT:
        default = getattr(defaults, name)
        if getattr(tp, name) != default:
            setattr(tp, name, default)
    tp.window_clamp = clamp
    tp.sport = tp.bound_port
    tp.saddr = inet_bound_source(net, tp.bound_addr) if tp.bound_port else b""
    tp.reordering = net.ipv4.sysctl_tcp_reordering
    tp.icsk_rto = tp.mdev_us = 1_000_000


def tcp_v4_connect(net: TcpNet, item: Connect) -> None:
    """connect(2), first half: ask ip for the route (RFC 9293 3.10.1, active OPEN)."""
    if net.tracing:
        net.trace("tcp_v4_connect", sk=item.sk)
    tp = net.socks.get(item.sk)
    err = 0
    if tp is None:
        err = errno.EBADF
    elif tp.route_req or tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        err = errno.EALREADY
    elif tp.state != TCP_CLOSE or tp.dead:
        err = errno.EISCONN
    elif len(item.addr) != 4 or not 0 <= item.port <= 65535:
        err = errno.EINVAL
    elif item.addr[0] >= 224:
        err = errno.ENETUNREACH
    if err or tp is None:
        sk_ret(net, item.sk, item.req, err)
        return
    clamp = tp.window_clamp
    tcp_reinit(net, tp)
    tp.window_clamp = clamp if tp.userlocks & WINDOW_CLAMP_LOCK else 0
    tp.daddr = item.addr
    tp.dport = item.port
    tp.connect_req = item.req
    tp.route_req = req = net.req_number()
    net.route_reqs[req] = tp.number
    ip_route_connect(net, tp, req)


def ip_route_connect(net: TcpNet, tp: TcpSock, req: int) -> None:
    """Ask ip for the way to the peer; ip looks for the neighbour with the first packet.

    Differs from Linux: the answer comes later, to `ip_route_output_ret`.
    """
    if net.tracing:
        net.trace("ip_route_connect", sk=tp.number, daddr=tp.daddr, saddr=tp.saddr)
    ip_route_ask(net, tp, req)


def ip_route_ask(net: TcpNet, tp: TcpSock, req: int) -> None:
    """Which way is it to daddr?"""
    net.call(
        "ip",
        Ip.ip_route_output_key,
        IpRouteOutputKey(req, net.name, tp.daddr, tp.saddr, tp.oif, tp.tos),
    )


def ip_route_output_ret(net: TcpNet, ret: RouteRet) -> None:
    """connect(2), second half: the route is there: choose a port, send SYN."""
    number = net.route_reqs.pop(ret.req, None)
    tp = net.socks.get(number) if number is not None else None
    if tp is None or tp.route_req != ret.req:
        return
    tp.route_req = 0
    req, tp.connect_req = tp.connect_req, 0
    err = ret.err
    shard = -1
    if not err and ret.rt_type not in (0, 1, 2):  # RTN_UNSPEC, RTN_UNICAST, RTN_LOCAL
        err = errno.ENETUNREACH
    if not err:
        tp.saddr = tp.saddr or ret.saddr
        if ret.daddr:
            tp.daddr = ret.daddr
        tp.ts_recent = tp.ts_recent_stamp = 0
        tp.write_seq = 0
        err = inet_hash_connect(net, tp)
        if err == errno.EREMCHG:
            shard = net.shard_of(inet_ehashfn(tp.saddr, tp.daddr, tp.sport, tp.dport))
    if err:
        sport = tp.bound_port
        tcp_reinit(net, tp)
        tp.sport = sport
        if err in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            net.info("tcp_v4_connect", sk=tp.number, err=errno.errorcode.get(err, err))
        moved = Connected(b"", 0, shard=shard) if shard >= 0 else None
        sk_ret(net, tp.number, req, err, moved)
        return
    if not tp.write_seq:
        tp.write_seq = net.secure_tcp_seq(tp.saddr, tp.daddr, tp.sport, tp.dport)
    tp.tsoffset = net.secure_tcp_ts_off(tp.saddr, tp.daddr)
    dev = net.inetdev.get(tp.saddr)
    tp.gso_max_size = dev.gso_max_size if dev is not None else 0
    tp.mss_clamp = 536
    tcp_set_state(net, tp, TCP_SYN_SENT)
    if tp.fastopen_req is not None:
        _connect_fastopen(net, tp, ret.mtu)
    elif tcp_fastopen_defer_connect(net, tp):
        tp.pmtu = ret.mtu
        sk_ret(net, tp.number, req, 0, Connected(tp.saddr, tp.sport, True))
    else:
        sk_ret(net, tp.number, req, 0, Connected(tp.saddr, tp.sport))
        tcp_connect(net, tp, ret.mtu)
        if tp.fastopen_connect:
            tp.fastopen_req = None


def _connect_fastopen(net: TcpNet, tp: TcpSock, mtu: int) -> None:
    """Send the SYN of a sendmsg, with as many of its bytes as fit."""
    fo = tp.fastopen_req
    assert fo is not None
    tcp_connect(net, tp, mtu)
    tp.fastopen_req = None
    tp.write_pending = fo.wait and fo.copied < fo.total
    sk_ret(net, tp.number, fo.req, 0, Connected(tp.saddr, tp.sport, copied=fo.copied))


def tcp_sendmsg_fastopen(net: TcpNet, skb: SkBuff) -> None:
    """MSG_FASTOPEN, or the first data after a deferred connect(2): RFC 7413 4.2.1."""
    cb = skb.cb
    if net.tracing:
        net.trace("tcp_sendmsg_fastopen", skb, sk=getattr(cb, "sk", 0), len=skb.len)
    if not isinstance(cb, TcpSendmsgFastopenCb):
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return
    tp = net.socks.get(cb.sk)
    fo = TcpFastopenRequest(skb.frags, skb.data_len, cb.size, cb.req, cb.wait)
    net.consume_skb(skb)
    if tp is not None and tp.defer_connect and tp.state == TCP_SYN_SENT:
        tp.defer_connect = False
        tp.fastopen_req = fo
        _connect_fastopen(net, tp, tp.pmtu)
        return
    before = tp.route_req if tp is not None else 0
    tcp_v4_connect(net, Connect(cb.sk, cb.req, cb.addr, cb.port))
    if tp is not None and tp.route_req != before:
        tp.fastopen_req = fo


# ---- send ------------------------------------------------------------------------------------


def tcp_sendmsg(net: TcpNet, skb: SkBuff) -> None:
    """Queue bytes, and send those that may go. The socket layer keeps them until SkWriteSpace."""
    cb = skb.cb
    if net.tracing:
        net.trace("tcp_sendmsg", skb, sk=getattr(cb, "sk", 0), len=skb.len)
    if not isinstance(cb, TcpSendmsgCb):
        net.kfree_skb(skb, "SKBUS_BAD_MESSAGE")
        return
    tp = net.socks.get(cb.sk)
    if tp is not None and tp.sk_lock & SK_OWNED:
        sk_wait_lock(net, tp, tcp_sendmsg, skb)
        return
    if (
        tp is None
        or tp.state not in (TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_SYN_SENT, TCP_SYN_RECV)
        or tp.shutdown & SEND_SHUTDOWN
    ):
        net.kfree_skb(skb, "TCP_CLOSE", sk=cb.sk)
        return
    frags = skb.frags
    if skb.data < len(skb.head):
        frags = (skb.head[skb.data :], *frags)
    flags = cb.flags
    if cb.report:
        tp.report = True
        net.write_space[tp.number] = tp
    if frags:
        size = skb.len
        if ((tp.write_seq - tp.snd_una) & MASK) + size > tp.wmem_charged:
            sk_wmem_schedule(net, tp, size)
        if not tp.packets_out:
            tcp_slow_start_after_idle_check(net, tp)
        if not tp.chrono_type:
            tcp_chrono_set(net, tp, TCP_CHRONO_BUSY)
        skb_entail(net, tp, frags)
        if flags & MSG_EOR:
            tp.write_queue[-1].eor = True
        if flags & MSG_OOB:
            tp.urg_mode = True
            tp.snd_up = tp.write_seq
            flags &= ~MSG_MORE
        if flags & MSG_MORE:
            sk_sendmsg_slice(net, tp, size)
        tcp_rate_check_app_limited(tp)
    net.consume_skb(skb)
    if tp.state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) or tp.fastopen_rsk is not None:
        if not tp.packets_out or flags & (MSG_OOB | MSG_EOR) or not net.ipv4.sysctl_tcp_autocorking:
            tcp_send_skb(net, tp, bool(flags & MSG_MORE))
            net.autocork.pop(tp, None)
            return
        if tp in net.autocork:
            net.mib["TcpExtTCPAutoCorking"] += 1
        net.autocork[tp] = bool(flags & MSG_MORE)


def skb_entail(net: TcpNet, tp: TcpSock, frags: tuple[Frag, ...]) -> None:
    """Append bytes to the write queue, in segments of up to tcp_xmit_size_goal bytes. While more is
    to come, full segments may go already; PSH marks each half of the peer's window."""
    mss = tcp_current_mss(net, tp)
    goal = tcp_xmit_size_goal(tp, mss)
    queue = tp.write_queue
    seq = tp.write_seq
    last = frags[-1]
    for frag in frags:
        piece = frag
        size = len(frag) if isinstance(frag, bytes) else frag[4]
        while size:
            seg = queue[-1] if queue else None
            if seg is None or seg.eor or seg.flags & FIN or len(seg.frags) >= MERGE_FRAGS:
                room = 0
            else:
                room = goal - ((seg.end_seq - seg.seq) & MASK)
            if room <= 0:
                take = size if size < goal else goal
                part = piece if take == size else frag_slice(piece, 0, take)
                seg = TcpSeg(seq, (seq + take) & MASK, ACK, (part,))
                queue.append(seg)
            else:
                assert seg is not None
                take = size if size < room else room
                part = piece if take == size else frag_slice(piece, 0, take)
                _append_frag(seg, part)
                seg.end_seq = (seg.end_seq + take) & MASK
                seg.pcount = 0
            seq = (seq + take) & MASK
            size -= take
            if size:
                piece = frag_slice(piece, take, size)
            if ((seg.end_seq - seg.seq) & MASK) >= goal and (size or frag is not last):
                tp.write_seq = seq
                _push_full(net, tp, seg, mss)
    tp.write_seq = seq


def _push_full(net: TcpNet, tp: TcpSock, seg: TcpSeg, mss: int) -> None:
    """Push a segment of the write queue that is as large as it may get; more is to come."""
    if tp.state not in (TCP_ESTABLISHED, TCP_CLOSE_WAIT):
        return
    if ((tp.write_seq - tp.pushed_seq) & MASK) > tp.max_window >> 1:  # forced_push
        seg.flags |= PSH
        tp.pushed_seq = tp.write_seq
        __tcp_push_pending_frames(net, tp, mss, TCP_NAGLE_PUSH)
    elif seg is tp.write_queue[0]:
        tcp_write_xmit(net, tp, mss, TCP_NAGLE_PUSH, PUSH_ONE)


def _append_frag(seg: TcpSeg, frag: Frag) -> None:
    """Add a piece, joined to the last one where it continues that."""
    last = seg.frags[-1] if seg.frags else None
    if isinstance(last, tuple) and isinstance(frag, tuple):
        if last[:3] == frag[:3] and last[3] + last[4] == frag[3]:
            joined = (last[0], last[1], last[2], last[3], last[4] + frag[4])
            seg.frags = (*seg.frags[:-1], joined)
            return
    elif isinstance(last, bytes) and isinstance(frag, bytes) and len(last) + len(frag) <= 4096:
        seg.frags = (*seg.frags[:-1], last + frag)
        return
    seg.frags = (*seg.frags, frag)


# ---- receive ---------------------------------------------------------------------------------


def tcp_cleanup_rbuf(net: TcpNet, item: Recvmsg) -> None:
    """The application took bytes: the window may open."""
    if net.tracing:
        net.trace("tcp_cleanup_rbuf", sk=item.sk, copied=item.copied)
    tp = net.socks.get(item.sk)
    if tp is None:
        return
    if tp.sk_lock & SK_OWNED:
        sk_wait_lock(net, tp, tcp_cleanup_rbuf, item)
        return
    if tp.number in net.tcp_prequeues:
        tcp_prequeue_process(net, tp.number)
    tp.sk_lock = SK_READER if item.waiting and tp.state != TCP_CLOSE else 0
    if not item.copied:
        return
    copied = min(max(item.copied, 0), tp.rmem_alloc)
    tp.copied_seq = (tp.copied_seq + copied) & MASK
    tp.rmem_alloc -= copied
    if tp.rmem_charged - tp.rmem_alloc > SK_RECLAIM_THRESHOLD or net.tcp_memory_pressure:
        sk_mem_reclaim(net, tp)
    tcp_rcv_space_adjust(net, tp)
    __tcp_cleanup_rbuf(net, tp, copied)


def __tcp_cleanup_rbuf(net: TcpNet, tp: TcpSock, copied: int) -> None:
    """Send an ACK now if one is due, or if the window has opened well (RFC 9293 3.8.6.2.2)."""
    if tp.state in (TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT):
        return
    time_to_ack = False
    pending = tp.ack_pending
    if pending & ICSK_ACK_SCHED:
        time_to_ack = ((tp.rcv_nxt - tp.rcv_wup) & MASK) > tp.ack_rcv_mss or (
            copied > 0
            and not tp.rmem_alloc
            and bool(
                pending & ICSK_ACK_PUSHED2 or (pending & ICSK_ACK_PUSHED and not tp.ack_pingpong)
            )
        )
    if not time_to_ack and copied > 0 and not tp.shutdown & RCV_SHUTDOWN:
        window = tcp_receive_window(tp)
        if 2 * window <= tp.window_clamp:
            new = __tcp_select_window(net, tp)
            time_to_ack = new > 0 and new >= 2 * window
    if time_to_ack:
        tcp_send_ack(net, tp)
