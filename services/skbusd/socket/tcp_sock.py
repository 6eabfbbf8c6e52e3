# SPDX-License-Identifier: MIT
"""TCP as the socket layer sees it: `tcp_prot` (`net/ipv4/tcp.c`, `inet_connection_sock.c`, the
parts that run on behalf of an application).

Called by af_inet.py through `sk.sk_prot`, and by core.py with tcp's reports. Speaks to the process
"tcp" by the entries of `skbus.core.abi`. The bytes are here (docs/architecture.md, "Who owns
what"). Bytes to be sent stay in the pool until `sk_write_space` says that they were acknowledged.
Bytes that arrived were handed up before they were acknowledged. RFC 9293 3.9.1 (the user's calls).
"""

import errno
from typing import Any, Final

from skbus.core.abi import (
    DATA_TELL_READ,
    DATA_URG,
    Close,
    Connect,
    DataReadyCb,
    Setsockopt,
    Shutdown,
    SkErrorReport,
    SkStateChange,
    SkWriteSpace,
)
from skbus.core.interfaces import TransportProto
from skbus.core.pool import PoolError
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SysCallError
from skbus.core.timer import Timer
from skbusd.socket import uapi
from skbusd.socket.call import Call, SendCall, sk_wait_event, sk_wake, sys_return
from skbusd.socket.inet_connection_sock import inet_csk_listen_stop
from skbusd.socket.ip_sockglue import (
    TCP_CMSG_INQ,
    ip_cmsg_setsockopt,
)
from skbusd.socket.netns import SocketNet
from skbusd.socket.page_frag import (
    purge_write_queue,
    sk_wmem_acked,
)
from skbusd.socket.proto import (
    NO_INTENT,
    Proto,
    Result,
    proto_disconnect,
    proto_get_port,
    proto_getsockopt,
    proto_init,
    proto_replay,
    set_local,
    sk_intent,
)
from skbusd.socket.recv import skb_relieve
from skbusd.socket.sock import (
    TcpSock,
    purge_receive_queue,
    sk_free,
    sk_set_option,
)
from skbusd.socket.stream import (
    COALESCE_BELOW,
    COALESCE_FROM,
    SNDBUF_START,
    sk_stream_is_writeable,
    sk_stream_report,
    sk_stream_sndbuf,
    tcp_try_coalesce,
)
from skbusd.socket.tcp_recvmsg import tcp_recvmsg
from skbusd.socket.tcp_sendmsg import tcp_sendmsg
from skbusd.socket.tcp_urg import (
    TCP_URG_VALID,
    tcp_ioctl,
    tcp_readable,
    tcp_urg_queued,
)

_RARE: Final = DATA_URG | DATA_TELL_READ

_OPENING: Final = frozenset({uapi.TCP_SYN_SENT, uapi.TCP_SYN_RECV})


# ---- from birth to connection -------------------------------------------------------------


def tcp_v4_init_sock(net: SocketNet, sk: TcpSock) -> None:
    """`tcp_v4_init_sock`: buffers by `tcp_rmem` and `tcp_wmem`; tcp hears of the socket."""
    if net.tracing:
        net.trace("tcp_v4_init_sock", sk=sk.number)
    sk.sk_rcvbuf = net.sysctl["net.ipv4.tcp_rmem"][1]
    sk.sk_sndbuf = sk_stream_sndbuf(net, SNDBUF_START)
    sk.notsent_lowat = net.sysctl["net.ipv4.tcp_notsent_lowat"]
    proto_init(net, sk)


def tcp_v4_connect(net: SocketNet, sk: TcpSock, addr: bytes, port: int, then: Result) -> None:
    """`tcp_v4_connect`: `then` hears when the SYN is on its way, or could not be sent."""
    if net.tracing:
        net.trace("tcp_v4_connect", sk=sk.number, daddr=addr, dport=port)
    sk.inet_daddr = addr
    sk.inet_dport = port
    sk.sock_done = False

    def begun(net: SocketNet, err: int, value: Any) -> None:
        if not err:
            sk.defer_connect = value.deferred
            set_local(sk, value)
        else:
            sk.inet_dport = 0
        then(net, err, value)

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.connect,
        lambda number, req: Connect(number, req, addr, port),
        begun,
    )


def tcp_disconnect(net: SocketNet, sk: TcpSock, then: Result | None) -> None:
    """`tcp_disconnect`: back to CLOSE; once `then` is told, the socket may connect again."""
    was_listening = sk.sk_state == uapi.TCP_LISTEN
    sk.sk_state = uapi.TCP_CLOSE
    sk.sk_err = 0
    sk.sk_shutdown = 0
    sk.inet_dport = 0
    sk.inet_daddr = uapi.INADDR_ANY
    sk.sock_done = False
    sk.defer_connect = False
    if was_listening:
        inet_csk_listen_stop(net, sk)
    purge_receive_queue(net, sk)
    purge_write_queue(net, sk)
    proto_disconnect(net, sk, then)


# ---- sending: tcp_sendmsg.py ---------------------------------------------------------------


def sk_stream_write_space(net: SocketNet, sk: TcpSock, item: SkWriteSpace) -> None:
    """`sk_stream_write_space`: bytes were acknowledged, so their slots go back, and senders on.

    The send buffer grows up to `tcp_wmem`, as tcp thinks fit and while somebody waits for room.
    Under memory pressure it shrinks (`sk_stream_moderate_sndbuf`).
    """
    sk_wmem_acked(net, sk, item.acked)
    told = item.queued >= 0
    if told:
        sk_stream_report(sk, item)
    if not sk.sk_sndbuf_lock:
        limit = net.sysctl["net.ipv4.tcp_wmem"][2]
        want = item.sndbuf
        if want < 0:
            sk.sk_sndbuf = max(min(sk.sk_sndbuf, -want), uapi.SOCK_MIN_SNDBUF)
        elif item.acked and any(isinstance(c, SendCall) and c.chunks for c in sk.sk_wq):
            want = max(want, sk.sk_sndbuf + 2 * item.acked)
        if want > sk.sk_sndbuf:
            sk.sk_sndbuf = max(min(want, limit), sk.sk_sndbuf)
    if sk.sk_socket is None:
        _orphan_progress(net, sk)
    elif told or sk_stream_is_writeable(sk):
        sk_wake(net, sk)


# ---- receiving: tcp_recvmsg.py takes what is queued here ------------------------------------


def tcp_data_ready(net: SocketNet, sk: TcpSock, skb: SkBuff, cb: DataReadyCb) -> None:
    """`sk_data_ready`: bytes in order, for the receive queue."""
    sk.sk_receive_queue.append(skb)
    sk.sk_rmem_alloc += skb.len
    if cb.flags & _RARE:
        if cb.flags & DATA_TELL_READ:
            sk.rcv_tell = True
        if cb.flags & DATA_URG:
            tcp_urg_queued(net, sk, skb, cb)
    if sk.sk_wq or sk.sk_rmem_alloc >= sk.sk_rcvlowat:
        sk_wake(net, sk)
    if sk.sk_receive_queue and skb.frags and sk.sk_receive_queue[-1] is skb:
        try:
            skb_relieve(net, skb)
        except PoolError:
            pass  # the reader will find out
    if len(sk.sk_receive_queue) > COALESCE_FROM and skb.len < COALESCE_BELOW:
        tcp_try_coalesce(net, sk)


# ---- what tcp reports ---------------------------------------------------------------------


def tcp_state_change(net: SocketNet, sk: TcpSock, item: SkStateChange) -> None:
    """`sk_state_change`: the connection has got on, or is over."""
    if sk.sk_state == uapi.TCP_LISTEN and item.state != uapi.TCP_CLOSE:
        return
    sk.sk_state = item.state
    if item.state not in (uapi.TCP_CLOSE, uapi.TCP_LISTEN):
        sk.inet_saddr = sk.inet_rcv_saddr = item.saddr
        sk.inet_sport = sk.inet_num = item.sport
        sk.inet_daddr = item.daddr
        sk.inet_dport = item.dport
    sk_wake(net, sk)


def tcp_fin(net: SocketNet, sk: TcpSock) -> None:
    """`tcp_fin`: no more data follows the receive queue."""
    sk.sk_shutdown |= uapi.RCV_SHUTDOWN
    sk.sock_done = True
    if sk.sk_state != uapi.TCP_SYN_SENT:  # else news of the connection comes next
        sk_wake(net, sk)


def tcp_error_report(net: SocketNet, sk: TcpSock, item: SkErrorReport) -> None:
    """`sk_error_report`: a hard error ends the connection, a soft one is told if nothing better is
    known."""
    if not item.hard:
        if any(sk.options.get((uapi.SOL_IP, uapi.IP_RECVERR), b"")):
            sk.sk_err = item.err  # IP_RECVERR: the application wants to know at once
            sk_wake(net, sk)
        else:
            sk.sk_err_soft = item.err
        return
    sk.sk_err = item.err
    sk.sk_shutdown = uapi.SHUTDOWN_MASK
    if sk.sk_state != uapi.TCP_LISTEN:
        sk.sk_state = uapi.TCP_CLOSE
    purge_write_queue(net, sk)
    if sk.sk_socket is None:
        _orphan_progress(net, sk)
    sk_wake(net, sk)


def tcp_done(net: SocketNet, sk: TcpSock) -> None:
    """`tcp_done`: tcp will report no more on the connection."""
    sk.sk_state = uapi.TCP_CLOSE
    sk.sk_shutdown = uapi.SHUTDOWN_MASK
    purge_write_queue(net, sk)
    sk_wake(net, sk)
    if sk.sk_socket is None:
        _orphan_progress(net, sk)


# ---- the end ------------------------------------------------------------------------------


def tcp_shutdown(net: SocketNet, sk: TcpSock, how: int) -> None:
    """`tcp_shutdown`: sending ends with a FIN after the queued bytes."""
    sk.sk_prot.tell(net, sk, TransportProto.shutdown, Shutdown(sk.number, how))


def tcp_close(net: SocketNet, sk: TcpSock, call: Call | None) -> None:
    """`tcp_close`: tcp ends the connection; we keep bytes until they are acknowledged.

    With SO_LINGER the call waits for that. Unread bytes make tcp send a reset (RFC 2525 2.17).
    """
    unread = sk.sk_rmem_alloc
    if net.tracing:
        net.trace("tcp_close", sk=sk.number, unread=unread, linger=sk.sk_lingertime)
    purge_receive_queue(net, sk)
    if sk.sk_state == uapi.TCP_LISTEN:
        inet_csk_listen_stop(net, sk)
    sk.sk_shutdown = uapi.SHUTDOWN_MASK
    close = Close(sk.number, unread, sk.sk_lingertime)
    sk.sk_prot.tell(net, sk, TransportProto.close, close)
    if unread or sk.sk_lingertime == 0:
        purge_write_queue(net, sk)
    if call is None or sk.sk_lingertime <= 0 or not sk.sk_write_queue:
        if call is not None:
            sys_return(net, call, 0)
    else:
        call.timeout = sk.sk_lingertime * 1_000_000_000
        call.on_timeout = 0
        call.timer = Timer(_linger_over, call)
        net.mod_timer(call.timer, net.now + call.timeout)
        sk_wait_event(net, call, sk, _linger)
    _orphan_progress(net, sk)


def _linger(net: SocketNet, call: Call, sk: TcpSock) -> None:
    """Do nothing: `_orphan_progress` ends the call, when all is acknowledged."""


def _linger_over(net: SocketNet, call: Call) -> None:
    sys_return(net, call, 0)


def _orphan_progress(net: SocketNet, sk: TcpSock) -> None:
    """Forget a closed sock, once nothing of it is unacknowledged."""
    if sk.sk_write_queue or sk.parent is not None:
        return
    for call in tuple(sk.sk_wq):
        sys_return(net, call, 0)
    sk_free(net, sk)


# ---- options, poll, restart ---------------------------------------------------------------


def tcp_setsockopt(
    net: SocketNet, call: Call, sk: TcpSock, level: int, optname: int, optval: bytes
) -> None:
    """`tcp_setsockopt`: tcp's own options, and those of IP. tcp decides, and we remember.

    TCP_NODELAY is answered here: programs set it on every connection, and it cannot fail.
    """
    if level not in (uapi.SOL_TCP, uapi.SOL_IP):
        raise SysCallError(errno.ENOPROTOOPT)
    if level == uapi.SOL_IP and ip_cmsg_setsockopt(net, sk, optname, optval):
        sys_return(net, call, 0)
        return
    if level == uapi.SOL_TCP and optname == uapi.TCP_INQ:
        value = int.from_bytes(optval[:4], "little", signed=True)
        if len(optval) < 4 or not 0 <= value <= 1:
            raise SysCallError(errno.EINVAL)
        sk.recvmsg_inq = bool(value)
        sk.set_cmsg(TCP_CMSG_INQ, bool(value))
        sys_return(net, call, 0)
        return
    if level == uapi.SOL_TCP and optname == uapi.TCP_NODELAY and len(optval) >= 4:
        sk.nonagle = int(any(optval[:4]))
        sk_set_option(sk, level, optname, optval)
        item = Setsockopt(sk.number, 0, level, optname, optval)
        sk.sk_prot.tell(net, sk, TransportProto.setsockopt, item)
        sys_return(net, call, 0)
        return
    privileged = net.capable("net_admin")

    def answered(net: SocketNet, err: int, _: Any) -> None:
        if not err:
            sk_set_option(sk, level, optname, optval)
            if level == uapi.SOL_TCP and optname == uapi.TCP_NOTSENT_LOWAT:
                value = int.from_bytes(optval[:4], "little")
                sk.notsent_lowat = value or net.sysctl["net.ipv4.tcp_notsent_lowat"]
        sys_return(net, call, err)

    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.setsockopt,
        lambda number, req: Setsockopt(number, req, level, optname, optval, privileged),
        answered,
    )


def tcp_getsockopt(
    net: SocketNet, call: Call, sk: TcpSock, level: int, optname: int, optlen: int
) -> None:
    """`tcp_getsockopt`: ask tcp."""
    if level not in (uapi.SOL_TCP, uapi.SOL_IP):
        raise SysCallError(errno.EOPNOTSUPP)
    if level == uapi.SOL_TCP:
        own = {uapi.TCP_NODELAY: sk.nonagle, uapi.TCP_INQ: int(sk.recvmsg_inq)}.get(optname)
        if own is not None:
            sys_return(net, call, 0, own.to_bytes(4, "little")[:optlen])
            return
    proto_getsockopt(net, call, sk, level, optname, optlen)


def tcp_poll(net: SocketNet, sk: TcpSock) -> int:
    """`tcp_poll`: the events that are there."""
    state = sk.sk_state
    if state == uapi.TCP_LISTEN:
        return uapi.POLLIN | uapi.POLLRDNORM if sk.icsk_accept_queue else 0
    mask = 0
    shutdown = sk.sk_shutdown
    if shutdown == uapi.SHUTDOWN_MASK or state == uapi.TCP_CLOSE:
        mask |= uapi.POLLHUP
    if shutdown & uapi.RCV_SHUTDOWN:
        mask |= uapi.POLLIN | uapi.POLLRDNORM | uapi.POLLRDHUP
    if state not in _OPENING:
        if tcp_readable(sk) >= sk.sk_rcvlowat:
            mask |= uapi.POLLIN | uapi.POLLRDNORM
        if shutdown & uapi.SEND_SHUTDOWN or sk_stream_is_writeable(sk):
            mask |= uapi.POLLOUT | uapi.POLLWRNORM
    elif state == uapi.TCP_SYN_SENT and sk.defer_connect:
        mask |= uapi.POLLOUT | uapi.POLLWRNORM
    if sk.sk_err or sk.sk_error_queue:
        mask |= uapi.POLLERR
    if sk.urg_data & TCP_URG_VALID:
        mask |= uapi.POLLPRI
    return mask


def tcp_restart(net: SocketNet, sk: TcpSock) -> None:
    """tcp has been restarted, and knows nothing of sk.

    A listener, or a socket that is only bound, is told to it anew. A connection is lost.
    """
    if sk.parent is not None:
        if sk.parent.icsk_accept_queue and sk in sk.parent.icsk_accept_queue:
            sk.parent.icsk_accept_queue.remove(sk)
        sk_free(net, sk)
        return
    if sk.sk_socket is None:
        purge_write_queue(net, sk)
        _orphan_progress(net, sk)
        return
    if sk.sk_state in (uapi.TCP_CLOSE, uapi.TCP_LISTEN):
        proto_replay(net, sk, sk.sk_prot.process, sk.number, sk_intent(sk))
        return
    proto_replay(net, sk, sk.sk_prot.process, sk.number, NO_INTENT)
    tcp_error_report(net, sk, SkErrorReport(sk.number, errno.ECONNRESET, True))


TCP_PROT: Final[Proto[TcpSock]] = Proto(
    name="TCP",
    process="tcp",
    obj=TcpSock,
    init=tcp_v4_init_sock,
    close=tcp_close,
    get_port=proto_get_port,
    connect=tcp_v4_connect,
    disconnect=tcp_disconnect,
    sendmsg=tcp_sendmsg,
    recvmsg=tcp_recvmsg,
    shutdown=tcp_shutdown,
    setsockopt=tcp_setsockopt,
    getsockopt=tcp_getsockopt,
    poll=tcp_poll,
    data_ready=tcp_data_ready,
    error_report=tcp_error_report,
    state_change=tcp_state_change,
    write_space=sk_stream_write_space,
    restart=tcp_restart,
    ioctl=tcp_ioctl,
)
