# SPDX-License-Identifier: MIT
"""The accept queue of a listener (`net/ipv4/inet_connection_sock.c`): tcp puts the children in,
accept(2) takes them out.

Called by core.py with what tcp reports, by af_inet.py, and by tcp_sock.py at a listener's end.
"""

from collections import deque

from skbus.abi import Accept, ReqskQueueAdd
from skbusd.socket import tcp_shards, uapi
from skbusd.socket.sock import (
    SNDBUF_START,
    InetSock,
    SocketNet,
    TcpSock,
    inet_csk_clone_lock,
    sk_free,
    sk_wake,
)
from skbusd.socket.stream import sk_stream_sndbuf


def inet_csk_reqsk_queue_add(net: SocketNet, item: ReqskQueueAdd) -> None:
    """tcp has finished a handshake: the child waits in the listener's accept queue.

    It has the listener's options.
    """
    parent = net.socks.get(item.sk)
    if net.tcp_prots:
        parent = tcp_shards.sock_of(net, item.sk)
    if not isinstance(parent, TcpSock) or parent.sk_state != uapi.TCP_LISTEN:
        # The listener has been closed meanwhile; tcp closes what was not accepted.
        return
    sk = inet_csk_clone_lock(parent, item.child)
    if net.tcp_prots:
        sk.sk_prot = tcp_shards.child_prot(net, item.child)
    if not sk.sk_sndbuf_lock:
        sk.sk_sndbuf = sk_stream_sndbuf(net, SNDBUF_START)
    sk.sk_state = uapi.TCP_ESTABLISHED
    sk.inet_saddr = sk.inet_rcv_saddr = item.saddr
    sk.inet_sport = sk.inet_num = item.sport
    sk.inet_daddr = item.daddr
    sk.inet_dport = item.dport
    sk.parent = parent
    net.socks[item.child] = sk
    if parent.icsk_accept_queue is None:
        parent.icsk_accept_queue = deque()
    parent.icsk_accept_queue.append(sk)
    if net.tracing:
        net.trace("inet_csk_reqsk_queue_add", sk=item.sk, child=item.child)
    sk_wake(net, parent)


def inet_csk_accept(net: SocketNet, sk: TcpSock) -> InetSock | None:
    """`inet_csk_accept`: the oldest child that waits, if one does."""
    queue = sk.icsk_accept_queue
    if not queue:
        return None
    child = queue.popleft()
    if isinstance(child, TcpSock):
        child.parent = None
    number = tcp_shards.listener_number(net, sk, child) if net.tcp_prots else sk.number
    net.call(child.sk_prot.process, "inet_csk_accept", Accept(number, child.number))
    if net.tracing:
        net.trace("inet_csk_accept", sk=sk.number, child=child.number)
    return child


def inet_csk_listen_stop(net: SocketNet, sk: TcpSock) -> None:
    """`inet_csk_listen_stop`: nobody will accept those who wait. tcp resets them."""
    while sk.icsk_accept_queue:
        sk_free(net, sk.icsk_accept_queue.popleft())
