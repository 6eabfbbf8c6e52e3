# SPDX-License-Identifier: MIT
"""The end of a connection (`net/ipv4/tcp.c`): shutdown, close and disconnect, which the socket
layer sends.

    socket -> tcp_shutdown, tcp_close, tcp_disconnect

Calls tcp_output for the FIN, tcp_handshake for a RST, tcp_timewait for the socks that stay behind.
RFC 9293 3.10.4, 3.10.5.
"""

import errno

from skbus.core.abi import (
    Close,
    Disconnect,
    Shutdown,
)
from skbus.inet.transport import sk_ret
from skbusd.tcp.const import (
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIMEWAIT_LEN,
)
from skbusd.tcp.inet_connection_sock import (
    inet_csk_destroy_sock,
    inet_csk_listen_stop,
    inet_csk_reset_keepalive_timer,
    sock_orphan,
    tcp_clear_xmit_timers,
    tcp_done,
    tcp_purge_queues,
    tcp_set_state,
)
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp import tcp_reinit
from skbusd.tcp.tcp_cong import tcp_init_congestion_control
from skbusd.tcp.tcp_handshake import tcp_send_active_reset
from skbusd.tcp.tcp_input import tcp_fin_time
from skbusd.tcp.tcp_memory import (
    tcp_check_oom,
)
from skbusd.tcp.tcp_output import (
    tcp_send_fin,
)
from skbusd.tcp.tcp_timewait import tcp_time_wait
from skbusd.tcp.tcp_write_space import tcp_flush_write_space


def tcp_close_state(net: TcpNet, tp: TcpSock, tell: bool = True) -> bool:
    """The state after close or shutdown (RFC 9293 3.10.4); True: a FIN must go. tell: a user wants
    to hear of it."""
    state = tp.state
    if state in (TCP_ESTABLISHED, TCP_SYN_RECV):
        if state == TCP_SYN_RECV and tp.fastopen_rsk is None:
            tcp_init_congestion_control(net, tp)  # it will not become established first
        tcp_set_state(net, tp, TCP_FIN_WAIT1, tell)
        return True
    if state == TCP_CLOSE_WAIT:
        tcp_set_state(net, tp, TCP_LAST_ACK, tell)
        return True
    return False


def tcp_shutdown(net: TcpNet, item: Shutdown) -> None:
    """shutdown(2): the sending side ends with a FIN behind the queued data."""
    tp = net.socks.get(item.sk)
    if tp is None:
        return
    if tp.state == TCP_LISTEN:
        if item.how & RCV_SHUTDOWN:
            _stop_listening(net, tp)
        return
    tp.shutdown |= item.how & SHUTDOWN_MASK
    if item.how & SEND_SHUTDOWN and tp.state in (
        TCP_ESTABLISHED,
        TCP_SYN_SENT,
        TCP_CLOSE_WAIT,
    ):
        if tp.state == TCP_SYN_SENT:
            tcp_done(net, tp)
        elif tcp_close_state(net, tp):
            tcp_send_fin(net, tp)


def _stop_listening(net: TcpNet, tp: TcpSock) -> None:
    """No more listener: children that nobody accepted are reset."""
    for child in inet_csk_listen_stop(net, tp):
        child.parent = 0
        sock_orphan(net, child)
        if _need_reset(child):
            tcp_send_active_reset(net, child)
        tcp_done(net, child)
    tcp_set_state(net, tp, TCP_CLOSE)


def _need_reset(tp: TcpSock) -> bool:
    """`tcp_need_reset`"""
    return tp.state in (
        TCP_ESTABLISHED,
        TCP_CLOSE_WAIT,
        TCP_FIN_WAIT1,
        TCP_FIN_WAIT2,
        TCP_SYN_RECV,
    ) or (tp.state in (TCP_LAST_ACK, TCP_CLOSING) and tp.snd_nxt != tp.write_seq)


def tcp_close(net: TcpNet, item: Close) -> None:
    """close(2) (RFC 9293 3.10.4): a FIN behind the queued data, or a RST where data is lost anyway
    (RFC 2525 2.17) or SO_LINGER says so."""
    tp = net.socks.get(item.sk)
    if tp is None or tp.dead:
        return
    if net.tracing:
        net.trace("tcp_close", sk=tp.number, state=tp.state)
    tp.shutdown = SHUTDOWN_MASK
    state = tp.state
    if tp.parent:
        listener = net.socks.get(tp.parent)
        if listener is not None and listener.accept_queue is not None:
            listener.accept_queue.pop(tp.number, None)
    if state == TCP_LISTEN:
        _stop_listening(net, tp)
    elif state == TCP_CLOSE:
        pass
    elif item.unread > 0:
        net.mib["TcpExtTCPAbortOnClose"] += 1
        if state not in (TCP_SYN_SENT,):
            tcp_send_active_reset(net, tp)
        tcp_set_state(net, tp, TCP_CLOSE)
    elif item.linger == 0:
        net.mib["TcpExtTCPAbortOnData"] += 1
        if _need_reset(tp):
            tcp_send_active_reset(net, tp)
        tcp_set_state(net, tp, TCP_CLOSE)
    elif state == TCP_SYN_SENT:
        tcp_done(net, tp)
    else:
        if not (tp.parent or tp.write_queue or tp.rtx_queue):
            # All is acknowledged, so the socket layer keeps nothing that waits for TcpDone.
            tp.done_sent = True
        if tcp_close_state(net, tp, False):
            tcp_send_fin(net, tp)
    sock_orphan(net, tp)
    if tp.state == TCP_FIN_WAIT2:
        if tp.linger2 < 0:
            tcp_send_active_reset(net, tp)
            net.mib["TcpExtTCPAbortOnLinger"] += 1
            tcp_set_state(net, tp, TCP_CLOSE)
        else:
            timeo = tcp_fin_time(net, tp)
            if timeo > TCP_TIMEWAIT_LEN:
                inet_csk_reset_keepalive_timer(net, tp, timeo - TCP_TIMEWAIT_LEN)
            else:
                tcp_time_wait(net, tp, TCP_FIN_WAIT2, timeo)
                return
    if tp.state != TCP_CLOSE and tcp_check_oom(net, tp, 0):
        net.mib["TcpExtTCPAbortOnMemory"] += 1
        tcp_send_active_reset(net, tp)
        tcp_set_state(net, tp, TCP_CLOSE)
    if tp.state == TCP_CLOSE and tp.number in net.socks:
        tcp_done(net, tp)
        inet_csk_destroy_sock(net, tp)


def tcp_disconnect_sock(net: TcpNet, tp: TcpSock) -> None:
    """`tcp_disconnect`: back to a closed socket, from any state."""
    state = tp.state
    if state == TCP_LISTEN:
        _stop_listening(net, tp)
    elif _need_reset(tp):
        tcp_send_active_reset(net, tp)
    if tp.number in net.write_space:
        tcp_flush_write_space(net)
    if state != TCP_CLOSE:
        tcp_set_state(net, tp, TCP_CLOSE)
    tcp_clear_xmit_timers(tp)
    tcp_purge_queues(net, tp)
    if tp.route_req:
        net.route_reqs.pop(tp.route_req, None)
    tcp_reinit(net, tp)


def tcp_disconnect(net: TcpNet, item: Disconnect) -> None:
    """connect(2) to AF_UNSPEC."""
    tp = net.socks.get(item.sk)
    if tp is None:
        sk_ret(net, item.sk, item.req, errno.EBADF)
        return
    if tp.connect_req:
        sk_ret(net, tp.number, tp.connect_req, errno.ECONNABORTED)
    tcp_disconnect_sock(net, tp)
    sk_ret(net, item.sk, item.req, 0)
