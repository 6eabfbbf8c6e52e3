# SPDX-License-Identifier: MIT
"""Our pipes with libzmq at the other end, and what happens when an end goes, or does not read."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from skbus.bus.codec import Message, encode
from skbus.bus.pipe import MAX_MESSAGES, Dealer, Inbox, Listener, Outlet
from skbus.core.abi import RtCacheFlush
from skbus.core.interfaces import InetTransport


class Loop:
    """An epoll for outlets: what a service does for them."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.outlets: dict[int, Outlet] = {}

    def watch(self, fd: int, mask: int, outlet: Outlet) -> None:
        if fd in self.outlets:
            self.epoll.modify(fd, mask)
        else:
            self.outlets[fd] = outlet
            self.epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        del self.outlets[fd]
        self.epoll.unregister(fd)

    def turn(self, *outlets: Outlet) -> None:
        for fd, mask in self.epoll.poll(0.01):
            self.outlets[fd].event(mask)
        for outlet in outlets:
            if outlet.retry_at and outlet.retry_at <= time.monotonic():
                outlet.connect()


def batch(n: int) -> tuple[bytes, bytes]:
    return encode("left", 1, [(InetTransport.rt_cache_flush, RtCacheFlush(n))])


def number(message: Message) -> int:
    item = message.batch[0][1]
    assert isinstance(item, RtCacheFlush)
    return item.genid


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    for outlet in found.outlets.values():
        outlet.close()
    found.epoll.close()


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    with zmq.Context() as found:
        yield found
        found.destroy(linger=0)


def taken(inbox: Inbox, count: int) -> list[int]:
    """The next messages' numbers."""
    got: list[int] = []
    limit = time.monotonic() + 60
    while len(got) < count and time.monotonic() < limit:
        select.select([inbox.filenos()[0]], [], [], 0.05)
        inbox.drain(64, lambda message: got.append(number(message)))
    return got


def test_libzmq_pushes_into_our_inbox(
    tmp_path: Path, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    inbox = Inbox(f"ipc://{tmp_path}/in")
    with context.socket(zmq.PUSH) as push:
        push.connect(f"ipc://{tmp_path}/in")
        for n in range(300):
            push.send_multipart(batch(n)[: 2 if n % 2 else 1])
        assert taken(inbox, 300) == list(range(300))
    assert inbox.refused == 0
    inbox.close()


def test_our_outlet_pushes_into_libzmq(
    tmp_path: Path, loop: Loop, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    with context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVTIMEO, 20_000)
        pull.bind(f"ipc://{tmp_path}/in")
        outlet = Outlet(f"ipc://{tmp_path}/in", loop)
        payload = bytes(range(256)) * 8000  # two megabytes: more than the socket holds
        assert outlet.send(b"first", b"")
        assert outlet.send(b"long", payload)
        assert outlet.send(b"last", b"")
        got: list[list[bytes]] = []
        while len(got) < 3:
            loop.turn(outlet)
            with contextlib.suppress(zmq.Again):
                got.append(pull.recv_multipart(zmq.NOBLOCK))
        assert got == [[b"first"], [b"long", payload], [b"last"]]
        outlet.close()


def test_what_is_sent_before_the_other_side_is_there_waits_and_is_bounded(
    tmp_path: Path, loop: Loop
) -> None:
    outlet = Outlet(f"ipc://{tmp_path}/in", loop)
    assert outlet.retry_at
    assert [outlet.send(*batch(n)) for n in range(MAX_MESSAGES + 2)] == [
        *[True] * MAX_MESSAGES,
        False,
        False,
    ]
    inbox = Inbox(f"ipc://{tmp_path}/in")
    got: list[int] = []
    while len(got) < MAX_MESSAGES:
        loop.turn(outlet)
        inbox.drain(64, lambda message: got.append(number(message)))
    assert got == list(range(MAX_MESSAGES))
    assert not outlet.retry_at
    inbox.close()


def test_an_inbox_that_does_not_read_fills_the_pipe_and_loses_nothing_that_was_taken(
    tmp_path: Path, loop: Loop
) -> None:
    inbox = Inbox(f"ipc://{tmp_path}/in")
    outlet = Outlet(f"ipc://{tmp_path}/in", loop)
    while not outlet.connected:
        inbox.drain(64, lambda message: None)
        loop.turn()
    sent = 0
    while outlet.send(*batch(sent)):
        sent += 1
    assert sent > MAX_MESSAGES
    got: list[int] = []
    while len(got) < sent:
        loop.turn(outlet)
        inbox.drain(64, lambda message: got.append(number(message)))
    assert got == list(range(sent))
    assert outlet.send(*batch(sent))
    inbox.close()


def test_an_outlet_finds_the_inbox_that_was_started_anew(tmp_path: Path, loop: Loop) -> None:
    inbox = Inbox(f"ipc://{tmp_path}/in")
    outlet = Outlet(f"ipc://{tmp_path}/in", loop)
    assert outlet.send(*batch(1))
    while not outlet.connected:
        inbox.drain(64, lambda message: None)
        loop.turn()
    assert taken(inbox, 1) == [1]
    inbox.close()
    while not outlet.retry_at:
        loop.turn()
    assert outlet.send(*batch(2))
    again = Inbox(f"ipc://{tmp_path}/in")
    got: list[int] = []
    while not got:
        loop.turn(outlet)
        again.drain(64, lambda message: got.append(number(message)))
    assert got == [2]
    again.close()


def test_a_stranger_is_cut_off_and_the_others_go_on(tmp_path: Path, loop: Loop) -> None:
    inbox = Inbox(f"ipc://{tmp_path}/in")
    outlet = Outlet(f"ipc://{tmp_path}/in", loop)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(f"{tmp_path}/in")
        stranger.sendall(b"GET / HTTP/1.1\r\n" * 8)
        assert outlet.send(*batch(7))
        got: list[int] = []
        while not got:
            loop.turn()
            inbox.drain(64, lambda message: got.append(number(message)))
        assert got == [7]
        while inbox.refused < 1:
            inbox.drain(64, lambda message: None)
        assert inbox.last_error == "not ZMTP"
        stranger.settimeout(60)
        with contextlib.suppress(ConnectionResetError):  # it had more to say
            while stranger.recv(1000):
                pass
    inbox.close()


def serve(listener: Listener, epoll: select.epoll, count: int) -> list[tuple[bytes, list[bytes]]]:
    got: list[tuple[bytes, list[bytes]]] = []
    while len(got) < count:
        for fd, mask in epoll.poll(60):
            assert listener.handles(fd)
            peer, messages, _ = listener.event(fd, mask)
            got += [(peer.identity, frames) for frames in messages if peer is not None]
    return got


def test_libzmq_dealer_asks_our_router(
    tmp_path: Path, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    with select.epoll() as epoll, context.socket(zmq.DEALER) as dealer:
        listener = Listener(f"ipc://{tmp_path}/sys", b"ROUTER", epoll, 1 << 20, named=True)
        dealer.setsockopt(zmq.IDENTITY, b"somebody")
        dealer.setsockopt(zmq.RCVTIMEO, 20_000)
        dealer.connect(f"ipc://{tmp_path}/sys")
        dealer.send_multipart([b"ask", b"data"])
        assert serve(listener, epoll, 1) == [(b"somebody", [b"ask", b"data"])]
        assert listener.send(b"somebody", (b"answer", b"x" * 1000), 10)
        assert listener.send(b"nobody", (b"answer",), 10)
        assert dealer.recv_multipart() == [b"answer", b"x" * 1000]
        listener.close()


def test_our_dealer_asks_libzmq_router(
    tmp_path: Path, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    with context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.RCVTIMEO, 20_000)
        router.bind(f"ipc://{tmp_path}/sys")
        dealer = Dealer(f"ipc://{tmp_path}/sys", b"me", 1 << 20)
        dealer.send(b"ask", b"")
        assert router.recv_multipart() == [b"me", b"ask", b""]
        assert dealer.recv_nowait() is None
        router.send_multipart([b"me", b"one"])
        router.send_multipart([b"me", b"two", b"2"])
        assert dealer.recv() == [b"one"]
        assert dealer.recv() == [b"two", b"2"]
        assert not dealer.poll(0)
        dealer.close()


def connected(tmp_path: Path, listener: Listener, epoll: select.epoll) -> Dealer:
    """A dealer, whose constructor waits for the other side."""
    with ThreadPoolExecutor(1) as pool:
        dealer = pool.submit(Dealer, f"ipc://{tmp_path}/sys", b"me", 1 << 20)
        while not dealer.done():
            for fd, mask in epoll.poll(0.01):
                listener.event(fd, mask)
    return dealer.result()


def test_an_identity_that_is_taken_is_refused(tmp_path: Path) -> None:
    with select.epoll() as epoll:
        listener = Listener(f"ipc://{tmp_path}/sys", b"ROUTER", epoll, 1 << 20, named=True)
        first = connected(tmp_path, listener, epoll)
        first.send(b"1")
        assert serve(listener, epoll, 1) == [(b"me", [b"1"])]
        second = connected(tmp_path, listener, epoll)
        while not listener.refused:
            for fd, mask in epoll.poll(60):
                listener.event(fd, mask)
        with pytest.raises(ConnectionError):
            second.recv()
        first.send(b"2")
        assert serve(listener, epoll, 1) == [(b"me", [b"2"])]
        first.close()
        second.close()
        listener.close()


def test_a_client_that_does_not_read_is_told_of(tmp_path: Path) -> None:
    with select.epoll() as epoll:
        listener = Listener(f"ipc://{tmp_path}/sys", b"ROUTER", epoll, 1 << 20, named=True)
        dealer = connected(tmp_path, listener, epoll)
        dealer.send(b"1")
        serve(listener, epoll, 1)
        sent = 0
        while listener.send(b"me", (sent.to_bytes(4, "big"), bytes(1000)), 50):
            sent += 1
        assert sent > 50
        for n in range(sent + 1):  # the one that was too much goes all the same
            for fd, mask in epoll.poll(0):
                listener.event(fd, mask)
            assert dealer.recv()[0] == n.to_bytes(4, "big")
        dealer.close()
        listener.close()
