# SPDX-License-Identifier: MIT
"""What connections have in common (`net/ipv4/inet_connection_sock.c`, `inet_connection_sock.h`):
the timers of a socket, its change of state and its end, the listener's two queues.

One timer serves retransmission, zero-window probes, RACK's reordering and the tail loss probe, as
in Linux: `icsk_pending` says its purpose. RFC 9293 3.3.2 (states).
"""

from skbus.core.abi import SkErrorReport, SkStateChange, TcpDone
from skbus.core.interfaces import SkCallbacks
from skbus.core.timer import Timer
from skbusd.tcp.const import (
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    ICSK_TIME_NONE,
    SHUTDOWN_MASK,
    SOCK_BINDPORT_LOCK,
    STATE_NAMES,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from skbusd.tcp.inet_hashtables import (
    KIND_LISTEN,
    inet_hash_listener,
    inet_put_port,
    inet_unhash,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_fastopen import reqsk_fastopen_remove, tcp_fastopen_active_disable_ofo_check
from skbusd.tcp.tcp_memory import SK_MEM_QUANTUM, sk_mem_free, sk_mem_reclaim
from skbusd.tcp.tcp_write_space import tcp_flush_write_space


def inet_csk_reset_xmit_timer(net: TcpNet, tp: TcpSock, what: int, when_us: int) -> None:
    """Arm the write timer for `what` in `when_us`."""
    rto_max = net.ipv4.sysctl_tcp_rto_max_ms * 1000
    if when_us > rto_max:
        when_us = rto_max
    tp.icsk_pending = what
    expires = tp.icsk_timeout = net.now + when_us * 1000
    timer = tp.write_timer
    if timer is None:
        timer = tp.write_timer = Timer(net.tcp_write_timer, tp.number)
    net.timers.mod_timer(timer, expires, net.now)


def inet_csk_clear_xmit_timer(tp: TcpSock) -> None:
    """Nothing is awaited from the write timer."""
    tp.icsk_pending = ICSK_TIME_NONE
    if tp.write_timer is not None:
        tp.write_timer.expires = -1


def inet_csk_reset_delack_timer(net: TcpNet, tp: TcpSock, expires: int) -> None:
    """Arm the delayed-ACK timer; expires in ns."""
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_TIMER
    tp.ack_timeout = expires
    timer = tp.delack_timer
    if timer is None:
        timer = tp.delack_timer = Timer(net.tcp_delack_timer, tp.number)
    net.timers.mod_timer(timer, expires, net.now)


def inet_csk_clear_delack_timer(tp: TcpSock) -> None:
    """No delayed ACK is due any more."""
    tp.ack_pending = 0
    if tp.delack_timer is not None:
        tp.delack_timer.expires = -1


def inet_csk_reset_keepalive_timer(net: TcpNet, tp: TcpSock, when_ns: int) -> None:
    """Arm sk_timer: keepalive, or the end of an orphan in FIN_WAIT2."""
    timer = tp.sk_timer
    if timer is None:
        timer = tp.sk_timer = Timer(net.tcp_keepalive_timer, tp.number)
    net.mod_timer(timer, net.now + when_ns)


def inet_csk_delete_keepalive_timer(tp: TcpSock) -> None:
    """Disarm sk_timer."""
    if tp.sk_timer is not None:
        tp.sk_timer.expires = -1


def tcp_clear_xmit_timers(tp: TcpSock) -> None:
    """Disarm all timers of a socket."""
    inet_csk_clear_xmit_timer(tp)
    inet_csk_clear_delack_timer(tp)
    inet_csk_delete_keepalive_timer(tp)
    for timer in (tp.pacing_timer, tp.compressed_ack_timer):
        if timer is not None:
            timer.expires = -1


def tcp_set_state(net: TcpNet, tp: TcpSock, state: int, tell: bool = True) -> None:
    """Change the state, count it, and tell the socket layer unless the user has gone."""
    old = tp.state
    if old == state:
        return
    if net.state_changes is not None:
        assert (old, state) in net.state_changes, f"{STATE_NAMES[old]} to {STATE_NAMES[state]}"
    mib = net.mib
    if state == TCP_ESTABLISHED:
        mib["TcpCurrEstab"] += 1
    elif state == TCP_CLOSE_WAIT:
        if old == TCP_SYN_RECV:
            mib["TcpCurrEstab"] += 1
    else:
        if state == TCP_CLOSE:
            if old in (TCP_ESTABLISHED, TCP_CLOSE_WAIT):
                mib["TcpEstabResets"] += 1
            inet_unhash(net, tp)
            if not tp.userlocks & SOCK_BINDPORT_LOCK:
                inet_put_port(net, tp)
        if old in (TCP_ESTABLISHED, TCP_CLOSE_WAIT):
            mib["TcpCurrEstab"] -= 1
    tp.state = state
    if net.tracing:
        net.trace("tcp_set_state", sk=tp.number, old=STATE_NAMES[old], new=STATE_NAMES[state])
    if tell:
        sk_state_change(net, tp)


def sk_state_change(net: TcpNet, tp: TcpSock) -> None:
    """Tell the user of the connection's state, if there is a user."""
    if not tp.dead:
        net.call(
            "socket",
            SkCallbacks.sk_state_change,
            SkStateChange(tp.number, tp.state, tp.saddr, tp.sport, tp.daddr, tp.dport),
        )


def sk_error_report(net: TcpNet, tp: TcpSock, err: int, hard: bool) -> None:
    """Tell the user of an error, if there is a user."""
    if not tp.dead:
        net.call("socket", SkCallbacks.sk_error_report, SkErrorReport(tp.number, err, hard))


def tcp_purge_queues(net: TcpNet, tp: TcpSock) -> None:
    """`tcp_write_queue_purge` and the out-of-order queue: forget all data."""
    tp.write_queue.clear()
    tp.rtx_queue.clear()
    tp.tsorted.clear()
    tp.lost_queue.clear()
    tp.sacked_ranges.clear()
    tp.packets_out = tp.retrans_out = tp.lost_out = tp.sacked_out = 0
    for o in tp.ofo:
        net.ofo_skbs -= 1
        net.consume_skb(o.skb)
    tp.ofo.clear()
    tp.ofo_bytes = 0
    tp.wmem_charged, wmem = 0, tp.wmem_charged
    net.tcp_memory_allocated -= wmem // SK_MEM_QUANTUM
    sk_mem_reclaim(net, tp)
    tp.selective_acks = ()
    tp.duplicate_sack = None


def tcp_done(net: TcpNet, tp: TcpSock) -> None:
    """The connection is over: state CLOSE, nothing pending; an orphan is freed."""
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        net.mib["TcpAttemptFails"] += 1
    if net.tracing:
        net.trace("tcp_done", sk=tp.number)
    reqsk_fastopen_remove(net, tp, False)
    tcp_fastopen_active_disable_ofo_check(net, tp)
    if tp.number in net.write_space:
        tcp_flush_write_space(net)
    tcp_set_state(net, tp, TCP_CLOSE)
    tcp_clear_xmit_timers(tp)
    tcp_purge_queues(net, tp)
    tp.shutdown = SHUTDOWN_MASK
    if tp.route_req:
        net.route_reqs.pop(tp.route_req, None)
        tp.route_req = 0
    if not tp.done_sent:
        tp.done_sent = True
        net.call("socket", SkCallbacks.tcp_done, TcpDone(tp.number))
    if tp.dead:
        inet_csk_destroy_sock(net, tp)


def inet_csk_destroy_sock(net: TcpNet, tp: TcpSock) -> None:
    """Free an orphan: its port, its memory and its number."""
    inet_put_port(net, tp)
    sk_mem_free(net, tp)
    if net.socks.pop(tp.number, None) is not None and tp.dead:
        net.orphan_count -= 1


def sock_orphan(net: TcpNet, tp: TcpSock) -> None:
    """`sock_orphan`: the user has gone; the rest is between us and the peer."""
    if not tp.dead:
        tp.dead = True
        net.orphan_count += 1


# ---- the listener ----------------------------------------------------------------------------


def inet_csk_listen_start(net: TcpNet, tp: TcpSock, backlog: int) -> None:
    """LISTEN, with an accept queue of `backlog` (at most `net.core.somaxconn`)."""
    tp.max_ack_backlog = min(max(backlog, 0), net.sysctl["net.core.somaxconn"])
    if tp.state == TCP_LISTEN:
        return
    tp.accept_queue = {}
    tp.qlen = tp.qlen_young = 0
    bucket = net.bhash[tp.bound_port]
    bucket.remove(tp.bound_addr, tp.bind_kind)
    tp.bind_kind |= KIND_LISTEN
    bucket.add(tp.bound_addr, tp.bind_kind)
    tcp_set_state(net, tp, TCP_LISTEN)
    inet_hash_listener(net, tp)


def inet_csk_listen_stop(net: TcpNet, tp: TcpSock) -> list[TcpSock]:
    """No more listening. Returns the children that nobody will accept. Request socks notice when
    their timer fires that their listener has gone."""
    inet_unhash(net, tp)
    bucket = net.bhash.get(tp.bound_port)
    if bucket is not None and tp.bind_kind & KIND_LISTEN:
        bucket.remove(tp.bound_addr, tp.bind_kind)
        tp.bind_kind &= ~KIND_LISTEN
        bucket.add(tp.bound_addr, tp.bind_kind)
    children = [net.socks[child] for child in tp.accept_queue or () if child in net.socks]
    tp.accept_queue = None
    return children


def sk_acceptq_is_full(tp: TcpSock) -> bool:
    """Do more children wait than listen(2) allowed? One more than the backlog fits, as in Linux."""
    return len(tp.accept_queue or ()) > tp.max_ack_backlog


def inet_csk_reqsk_queue_is_full(tp: TcpSock) -> bool:
    """Are there as many request socks as the accept queue may hold?"""
    return tp.qlen >= tp.max_ack_backlog
