# SPDX-License-Identifier: MIT
"""The receive queue of a slow reader: small skbs join, big ones stay as they are."""

from typing import TYPE_CHECKING

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
    err, result, data = stack.call("recvmsg", fd, 20_000, 0, 0, -1)
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
