# SPDX-License-Identifier: MIT
"""The accept queue of a listener (`net/ipv4/inet_connection_sock.c`): tcp puts the children in,
accept(2) takes them out.

Called by core.py with tcp's reports, by af_inet.py, and by tcp_sock.py at a listener's end.
"""

from collections import deque
from typing import Final

from skbus.core.abi import Accept, ReqskQueueAdd
from skbus.core.interfaces import TransportProto
from skbus.core.timer import Timer
from skbusd.socket import uapi
from skbusd.socket.call import sk_wake
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import TcpSock, sk_by_number, sk_free
from skbusd.socket.stream import SNDBUF_START, sk_stream_sndbuf

ACCEPT_TELL: Final = 50_000_000
"""ns after which tcp hears of an accept(2) that no other message has followed."""


def inet_csk_clone_lock(sk: TcpSock, number: int) -> TcpSock:
    """`inet_csk_clone_lock`: a child of a listener, with its options."""
    child = TcpSock(number, sk.sk_family, sk.sk_type, sk.sk_protocol, sk.sk_prot)
    child.sk_rcvbuf = sk.sk_rcvbuf
    child.sk_sndbuf = sk.sk_sndbuf
    child.sk_sndbuf_lock = sk.sk_sndbuf_lock
    child.sk_rcvlowat = sk.sk_rcvlowat
    child.sk_rcvtimeo = sk.sk_rcvtimeo
    child.sk_sndtimeo = sk.sk_sndtimeo
    child.sk_lingertime = sk.sk_lingertime
    child.sk_reuse = sk.sk_reuse
    child.sk_reuseport = sk.sk_reuseport
    child.sk_bound_dev_if = sk.sk_bound_dev_if
    child.sk_priority = sk.sk_priority
    child.sk_mark = sk.sk_mark
    child.sk_max_pacing_rate = sk.sk_max_pacing_rate
    child.sk_rcvbuf_lock = sk.sk_rcvbuf_lock
    child.sk_bound_dev = sk.sk_bound_dev
    child.cmsg_flags = sk.cmsg_flags
    child.recvmsg_inq = sk.recvmsg_inq
    child.tos = sk.tos
    child.uc_ttl = sk.uc_ttl
    child.nonagle = sk.nonagle
    child.notsent_lowat = sk.notsent_lowat
    child.sk_flags = sk.sk_flags
    child.options = sk.options
    return child


def inet_csk_reqsk_queue_add(net: SocketNet, item: ReqskQueueAdd) -> None:
    """tcp has finished a handshake: the child waits in the listener's accept queue.

    It has the listener's options.
    """
    parent = sk_by_number(net, item.sk)
    if not isinstance(parent, TcpSock) or parent.sk_state != uapi.TCP_LISTEN:
        # The listener has been closed meanwhile; tcp closes children that were not accepted.
        return
    sk = inet_csk_clone_lock(parent, item.child)
    if sk.sk_prot.child_prot is not None:
        sk.sk_prot = sk.sk_prot.child_prot(net, parent, item.child)
    if not sk.sk_sndbuf_lock:
        sk.sk_sndbuf = sk_stream_sndbuf(net, SNDBUF_START)
    sk.sk_state = uapi.TCP_ESTABLISHED
    sk.inet_saddr = sk.inet_rcv_saddr = net.share(item.saddr)
    sk.inet_sport = sk.inet_num = net.share(item.sport)
    sk.inet_daddr = net.share(item.daddr)
    sk.inet_dport = item.dport
    sk.parent = parent
    net.socks[item.child] = sk
    if parent.icsk_accept_queue is None:
        parent.icsk_accept_queue = deque()
    parent.icsk_accept_queue.append(sk)
    parent.sk_prot.acceptq_changed(net, parent)
    if net.tracing:
        net.trace("inet_csk_reqsk_queue_add", sk=item.sk, child=item.child)
    sk_wake(net, parent)


def inet_csk_accept(net: SocketNet, sk: TcpSock) -> TcpSock | None:
    """`inet_csk_accept`: the oldest child that waits, if one does."""
    queue = sk.icsk_accept_queue
    if not queue:
        return None
    child = queue.popleft()
    if child.parent is None:  # `inet_csk_unaccept`: tcp was told before
        return child
    child.parent = None
    _tell_accept(net, sk, sk.sk_prot.accept(net, sk, child))
    sk.sk_prot.acceptq_changed(net, sk)
    if net.tracing:
        net.trace("inet_csk_accept", sk=sk.number, child=child.number)
    return child


def inet_csk_unaccept(net: SocketNet, sk: TcpSock, child: TcpSock) -> None:
    """Put back an accepted child that nobody has seen, as the oldest one that waits."""
    child.sk_socket = None
    if sk.icsk_accept_queue is None:
        sk.icsk_accept_queue = deque()
    sk.icsk_accept_queue.appendleft(child)
    if net.tracing:
        net.trace("inet_csk_unaccept", sk=sk.number, child=child.number)
    sk_wake(net, sk)


def _tell_accept(net: SocketNet, sk: TcpSock, accept: tuple[str, Accept]) -> None:
    """tcp, which counts the accept queue, hears of it with the next message, mostly the answer to
    the peer's request. Where the queue is short, or many are accepted, tcp hears at once."""
    net.accepts.pending.append(accept)
    if sk.sk_max_ack_backlog < 64 or len(net.accepts.pending) >= 8:
        flush_accepts(net)
        return
    timer = net.accepts.timer
    if timer is None:
        timer = net.accepts.timer = Timer(flush_accepts)
    if timer.expires < 0:
        net.mod_timer(timer, net.now + ACCEPT_TELL)


def flush_accepts(net: SocketNet) -> None:
    """Tell tcp of accepted children, before all else in this batch."""
    pending, net.accepts.pending = net.accepts.pending, []
    for process, item in reversed(pending):
        net.outbox.setdefault(process, []).insert(0, (TransportProto.accept, item))


def inet_csk_listen_stop(net: SocketNet, sk: TcpSock) -> None:
    """`inet_csk_listen_stop`: nobody will accept the waiting children, and tcp resets them."""
    while sk.icsk_accept_queue:
        child = sk.icsk_accept_queue.popleft()
        if child.parent is None:
            child.sk_prot.close(net, child, None)  # unaccepted: tcp knows no listener of it
        else:
            sk_free(net, child)
