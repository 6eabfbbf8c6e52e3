# SPDX-License-Identifier: MIT
"""Posts on a stream: sends, and the close, for which the application waits for no reply.

A reply to connect, accept4 or sendmsg gives *credit* (`skbus.core.syscall`): room in the send
buffer, in advance. While it lasts, the application's library posts what it sends. So one byte sent
costs one message, and often the same wake-up brings the receive call that comes after it.

    client: post -> router.py -> core.request -> tcp_post -> tcp: tcp_sendmsg

There is no credit where a send could tell more than that it has gone: an error is pending, the
buffer must be kept to the segment (stream.py), closing lingers.
"""

from typing import Final

from skbus.core.syscall import CREDIT_MAX, POST_COST
from skbusd.socket import uapi
from skbusd.socket.call import Call
from skbusd.socket.files import Client
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import Sock, TcpSock
from skbusd.socket.stream import sk_stream_exact
from skbusd.socket.tcp_recvmsg import tcp_stream_broken
from skbusd.socket.tcp_sendmsg import TCP_SENDING, tcp_send_bytes

GIVERS: Final = frozenset({"accept4", "connect", "sendmsg"})
"""System calls whose replies give credit."""

_POSTED_MAX: Final = 4 * CREDIT_MAX
"""What may be posted in a row. It is more than the credit, which threads may overdraw a little."""


def tcp_credit(sk: Sock | None) -> int:
    """How much may be posted on this socket from now on."""
    if (
        not isinstance(sk, TcpSock)
        or sk.sk_state not in TCP_SENDING
        or sk.sk_err
        or sk.sk_shutdown & uapi.SEND_SHUTDOWN
        or sk.sk_lingertime >= 0
        or sk_stream_exact(sk)
    ):
        return 0
    sk.posted = 0
    return max(min(CREDIT_MAX, sk.sk_sndbuf - sk.sk_wmem_queued), 0)


def with_credit(call: Call, result: object) -> object:
    """The result of a call of GIVERS, and the credit, if there is any."""
    client = call.client
    assert client is not None
    sock = call.sock
    if isinstance(result, tuple):  # accept4: (fd, address)
        sock = client.fdt.get(result[0])
    credit = tcp_credit(sock.sk) if sock is not None else 0
    if not credit:
        return result
    if isinstance(result, tuple):
        return (*result, credit)
    return credit if result is None else (result, credit)


def tcp_post(net: SocketNet, client: Client, fd: int, data: bytes) -> None:
    """Posted bytes go to tcp, whatever else the buffer was filled with meanwhile. Where the
    connection has ended they are lost, as those in a send buffer are.

    What a system call goes through one after the other is one here, as nothing is to be chosen.
    """
    sock = client.fdt.get(fd)
    sk = sock.sk if sock is not None else None
    if not isinstance(sk, TcpSock) or not data:
        return
    net.current = client
    if sk.sk_state not in TCP_SENDING or sk.sk_err or sk.sk_shutdown & uapi.SEND_SHUTDOWN:
        return
    sk.posted += len(data) + POST_COST
    if sk.posted > _POSTED_MAX:
        # Refused bytes would be a hole in the stream.
        net.warning("tcp_post", sk=sk.number, text="posts without credit: the connection is reset")
        tcp_stream_broken(net, sk)
        return
    if net.tracing:
        for function in ("sock_write", "sock_sendmsg", "inet_sendmsg"):
            net.trace(function, sk=sk.number, size=len(data))
    tcp_send_bytes(net, sk, data, 0, sk_stream_exact(sk))
