# SPDX-License-Identifier: MIT
"""A slot of a megabyte is sent in parts, as the send buffer has room, and goes back once."""

import errno
from typing import TYPE_CHECKING

import pytest

from skbus.core.interfaces import Tcp
from skbus.core.pool import StalePlaceError
from skbus.core.syscall import SendmsgArgs
from skbus.core.uapi import SO_SNDBUF, SOL_SOCKET

if TYPE_CHECKING:
    from tests.services.socket.conftest import Stack

SIZE = 1_000_000
WHOLE = bytes(n * 7 + (n >> 8) & 0xFF for n in range(SIZE))


def begin(stack: "Stack", sndbuf: int, timeout: int = -1) -> tuple[int, int, int]:
    """A call that sends all of a slot through a small buffer: (descriptor, socket, request)."""
    fd, sk = stack.connected()
    assert stack.call("region", 4)[0] == 0
    value = (sndbuf // 2).to_bytes(4, "little")
    assert stack.call("setsockopt", fd, SOL_SOCKET, SO_SNDBUF, value)[0] == 0
    assert stack.net.socks[sk].sk_sndbuf == sndbuf
    place = stack.app.put(WHOLE)
    assert place is not None
    return fd, sk, stack.begin("sendmsg", *SendmsgArgs(fd, places=(place,), timeout=timeout))


def taken(stack: "Stack", sk: int) -> list[bytes]:
    """What tcp got since the last time: all of it in the application's slot."""
    pieces = []
    for entry, skb in stack.outbox():
        if entry is Tcp.tcp_sendmsg and skb.frags:
            assert all(frag[0] == 4 for frag in skb.frags)
            pieces.append(stack.pool.gather(skb.frags))
    return pieces


@pytest.mark.parametrize("sndbuf", [8192, 65534, 200_000, 900_000])
def test_the_parts_are_the_whole(stack: "Stack", sndbuf: int) -> None:
    _, sk, req = begin(stack, sndbuf)
    sock = stack.net.socks[sk]
    got = taken(stack, sk)
    for _ in range(1000):
        if stack.replies().get(req):
            break
        assert sock.sk_wmem_queued <= sndbuf + 65536
        assert stack.app.in_use() == 1
        stack.acked(sk, min(sock.sk_wmem_queued, 30_000))
        got += taken(stack, sk)
    assert b"".join(got) == WHOLE
    assert len(got) > 1
    while sock.sk_wmem_queued:
        assert stack.app.in_use() == 1
        stack.acked(sk, min(sock.sk_wmem_queued, 30_000))
    assert stack.app.in_use() == 0
    assert stack.net.regions.refs == {}
    stack.check_conserved()


def test_a_call_that_must_not_wait_leaves_the_rest(stack: "Stack") -> None:
    _, sk, req = begin(stack, 200_000, 0)
    assert stack.replies()[req] == (0, 200_000, b"")
    assert b"".join(taken(stack, sk)) == WHOLE[:200_000]
    assert stack.app.in_use() == 1
    stack.acked(sk, 200_000)
    assert stack.app.in_use() == 0
    assert stack.net.regions.refs == {}


def test_nor_does_it_go_back_before_what_was_taken_is_acknowledged(stack: "Stack") -> None:
    _, sk, req = begin(stack, 200_000, 10**9)
    stack.acked(sk, 100_000)
    stack.advance(2 * 10**9)
    err, sent, _ = stack.replies()[req]
    assert (err, sent) == (0, len(b"".join(taken(stack, sk))))
    assert 200_000 < sent < SIZE
    stack.acked(sk, sent - 100_000 - 1)
    assert stack.app.in_use() == 1
    stack.acked(sk, 1)
    assert stack.app.in_use() == 0
    assert stack.net.regions.refs == {}


def test_a_reset_gives_it_back(stack: "Stack") -> None:
    _, sk, req = begin(stack, 200_000)
    taken(stack, sk)
    stack.error(sk, errno.ECONNRESET)
    stack.state(sk, 7)
    assert stack.replies()[req][:2] == (0, 200_000)
    stack.answer_all()
    assert stack.app.in_use() == 0
    assert stack.net.regions.refs == {}


def test_so_does_the_applications_end_when_all_is_acknowledged(stack: "Stack") -> None:
    _, sk, _ = begin(stack, 200_000)
    taken(stack, sk)
    stack.core.client_gone(stack.client)
    stack.core.idle()
    assert stack.net.regions.refs == {4: 1}
    stack.acked(sk, 200_000)
    assert stack.net.regions.refs == {}
    assert stack.app.in_use() == 0


def test_a_slot_that_went_back_too_early_is_not_freed_again(stack: "Stack") -> None:
    """An application that gives its slot back while it is being sent harms itself alone."""
    _, sk, req = begin(stack, 200_000)
    (first, *_) = stack.outbox()
    place = first[1].frags[0]
    assert stack.app.free(place[1], place[2])
    with pytest.raises(StalePlaceError):
        stack.pool.view(place)
    while queued := stack.net.socks[sk].sk_wmem_queued:
        stack.acked(sk, queued)
    assert stack.replies()[req] == (0, SIZE, b"")
    assert stack.net.pool.late == 1
