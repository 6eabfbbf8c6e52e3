# SPDX-License-Identifier: MIT
"""The receive queue of a slow reader: small skbs join, big ones stay as they are."""

import errno
from typing import TYPE_CHECKING, Any

from skbus.core.interfaces import TransportProto
from skbus.core.syscall import MAX_DATA, RecvmsgArgs
from skbusd.socket import uapi
from skbusd.socket.tcp_recvmsg import RCV_TELL

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack


def test_single_bytes_do_not_cost_an_skb_each(stack: "Stack") -> None:
    fd, sk = stack.connected()
    want = bytes(n & 0xFF for n in range(10_000))
    for n in range(0, len(want), 2):
        stack.data(sk, want[n : n + 1])
        stack.data(sk, want[n + 1 : n + 2], in_pool=True)
    sock = stack.net.socks[sk]
    assert sock.sk_rmem_alloc == len(want)
    assert len(sock.sk_receive_queue) <= 5
    assert stack.net.mib["TcpExtTCPRcvCoalesce"] > 9_990
    err, result, data = stack.call("recvmsg", *RecvmsgArgs(fd, 20_000))
    assert (err, data) == (0, want)
    assert result[0] == (len(want),)
    assert not sock.sk_rmem_alloc
    net = stack.net
    assert net.skb_born + net.skb_received == (
        net.skb_sent + net.skb_consumed + net.skb_dropped + stack.core.held()
    )


def test_big_ones_stay(stack: "Stack") -> None:
    fd, sk = stack.connected()
    for n in range(5):
        stack.data(sk, bytes((n,)) * 6000, in_pool=True)
        stack.data(sk, b"small")
    assert len(stack.net.socks[sk].sk_receive_queue) == 10
    assert not stack.net.mib["TcpExtTCPRcvCoalesce"]
    stack.call("close", fd)


def test_unrecv_puts_back_what_was_read(stack: "Stack") -> None:
    fd, sk = stack.connected()
    sock: Any = stack.net.socks[sk]
    stack.data(sk, b"one two ")
    stack.data(sk, b"p" * 60000, in_pool=True)
    assert stack.recv(fd, 8)[2] == b"one two "
    assert stack.call("unrecv", fd, data=b"two ")[0] == 0
    assert stack.call("poll", ((fd, uapi.POLLIN),), 0)[1] == ((fd, uapi.POLLIN),)
    assert stack.call("ioctl", fd, uapi.SIOCINQ)[1] == 60004
    assert stack.recv(fd, 2, uapi.MSG_PEEK)[2] == b"tw"
    assert stack.recv(fd, 4)[2] == b"two "
    stack.check_conserved()
    assert stack.call("unrecv", fd, data=b"")[0] == 0
    assert stack.call("poll", ((fd, uapi.POLLIN),), 0)[1] == ((fd, uapi.POLLIN),)
    assert stack.call("unrecv", fd, data=bytes(MAX_DATA))[0] == 0
    assert stack.call("unrecv", fd, data=bytes(MAX_DATA))[0] == errno.ENOBUFS
    assert stack.call("close", fd)[0] == 0
    assert stack.core.held() == 0
    assert sock.sk_rmem_alloc == 0
    stack.check_conserved()
    listener, _ = stack.socket()
    assert stack.call("listen", listener, 5)[0] == 0
    udp, _ = stack.socket(uapi.SOCK_DGRAM)
    assert stack.call("unrecv", listener, data=b"x")[0] == errno.EOPNOTSUPP
    assert stack.call("unrecv", udp, data=b"x")[0] == errno.EOPNOTSUPP


def test_tcp_hears_of_unread_bytes_once(stack: "Stack") -> None:
    fd, sk = stack.connected()

    def read() -> list[int]:
        req = stack.begin("recvmsg", *RecvmsgArgs(fd, RCV_TELL, timeout=0))
        assert len(stack.replies()[req][2]) == RCV_TELL
        return [item.copied for entry, item in stack.outbox() if entry is TransportProto.recvmsg]

    stack.data(sk, bytes(RCV_TELL))
    stack.outbox()
    assert read() == [RCV_TELL]
    assert stack.call("unrecv", fd, data=bytes(RCV_TELL))[0] == 0
    stack.data(sk, bytes(RCV_TELL))
    assert read() == []
    assert read() == [RCV_TELL]


def test_a_readers_wait_ends_with_unrecv(stack: "Stack") -> None:
    fd, _ = stack.connected()
    req = stack.begin("recvmsg", *RecvmsgArgs(fd, 100))
    stack.begin("unrecv", fd, data=b"again")
    assert stack.replies()[req][2] == b"again"
