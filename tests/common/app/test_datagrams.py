# SPDX-License-Identifier: MIT
"""Datagrams without a round trip for each: those read ahead, and those posted."""

import os
import select
import signal
import socket as stdlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from skbus import socket
from skbus.app import sockmsg
from skbus.app.sockmsg import POSTS_MAX
from skbus.core import uapi
from skbus.core.syscall import POST
from skbustest.loopback import Loopback

HERE = "127.0.0.1"
FIONREAD = 0x541B
DGRAM = (socket.AF_INET, socket.SOCK_DGRAM)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a sender is a busy one."""
    monkeypatch.setattr(sockmsg, "_POST_PAUSE", 3600.0)


@contextmanager
def udp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(receiver, sender connected to it)"""
    with socket.socket(*DGRAM) as one, socket.socket(*DGRAM) as two:
        one.bind((HERE, 0))
        one.settimeout(60)
        two.connect(one.getsockname())
        yield one, two


class Counter:
    """How often each system call is asked."""

    def __init__(self, loopback: Loopback) -> None:
        self.calls: dict[str, int] = {}
        core = loopback.core
        ask = core.request

        def request(identity: bytes, meta: bytes, data: bytes) -> None:
            for name in ("recvmmsg", "recvmsg", "sendmsg", "unread"):
                if name.encode() in meta and meta[meta.index(name.encode()) - 1] & 31 == len(name):
                    self.calls[name] = self.calls.get(name, 0) + 1
            ask(identity, meta, data)

        take = core.posts

        def posts(id: bytes, data: bytes, force: bool) -> bool:
            at = 0
            while at < len(data):
                at += POST.size + POST.unpack_from(data, at)[0]
                self.calls["post"] = self.calls.get("post", 0) + 1
            return take(id, data, force)

        core.request = request  # type: ignore[method-assign]
        core.posts = posts  # type: ignore[method-assign]

    def taken(self) -> dict[str, int]:
        found, self.calls = self.calls, {}
        return found


def numbered(n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") + b"." * (i % 50) for i in range(n)]


@pytest.mark.interpreted
def test_many_datagrams_cost_few_calls(loopback: Loopback) -> None:
    count = Counter(loopback)
    texts = numbered(300)
    with udp_pair() as (one, two):
        for text in texts:
            assert two.send(text) == len(text)
        loopback.settle()
        sent = count.taken()
        assert sent == {"post": POSTS_MAX + 43, "sendmsg": 2}
        assert [one.recv(100) for _ in texts] == texts
        assert count.taken() == {"recvmmsg": 10}  # 1 2 4 8 16 32 and then 64 at a time


@pytest.mark.interpreted
def test_one_at_a_time_costs_what_it_did(loopback: Loopback) -> None:
    count = Counter(loopback)
    with udp_pair() as (one, two):
        for text in numbered(10):
            two.send(text)
            assert one.recv(100) == text
        calls = count.taken()
        assert calls["recvmmsg"] == 10
        assert calls["sendmsg"] + calls["post"] == 10


def stashed(loopback: Loopback, one: socket.socket, two: socket.socket, texts: list[bytes]) -> None:
    """Send texts, after two that are read; now the others are read ahead."""
    one._ahead = 32
    two.send(b"before")
    for text in texts:
        two.send(text)
    loopback.settle()
    assert one.recv(100) == b"before"
    assert len(one._stash) == len(texts)


def test_each_call_has_its_own_size(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        who = two.getsockname()
        stashed(loopback, one, two, [b"0123456789"] * 8)
        trunc = socket.MSG_TRUNC
        assert one.recv(4) == b"0123"
        assert one.recvmsg(4) == (b"0123", [], trunc, who)
        assert one.recvmsg(100) == (b"0123456789", [], 0, who)
        assert one.recvfrom(3) == (b"012", who)
        room = bytearray(6)
        assert one.recv_into(room) == 6
        assert room == b"012345"
        assert one.recv_into(room, 2) == 2
        assert len(one.recv(1, trunc)) == 10
        assert one.recv(0) == b"", "which takes none"
        assert one.recvfrom(0) == (b"", who)
        assert not one._stash
        one.settimeout(0)
        with pytest.raises(BlockingIOError):
            one.recv(1)


def test_peek_and_fionread_see_the_next_one(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        stashed(loopback, one, two, [b"abc", b"defgh"])
        assert one.ioctl(FIONREAD) == 3
        assert one.recv(2, socket.MSG_PEEK) == b"ab"
        assert len(one.recv(2, socket.MSG_PEEK | socket.MSG_TRUNC)) == 3
        assert one.recv(100) == b"abc"
        assert one.ioctl(FIONREAD) == 5
        with pytest.raises(TimeoutError):
            one.recvmsg(10, 100, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        assert one.recv(100, socket.MSG_DONTWAIT) == b"defgh"
        assert one.ioctl(FIONREAD) == 0


@pytest.mark.interpreted
def test_a_descriptor_shows_what_was_read_ahead(loopback: Loopback) -> None:
    count = Counter(loopback)
    with udp_pair() as (one, two):
        stashed(loopback, one, two, [b"a", b"b"])
        assert select.select([one], [], [], 60)[0] == [one]
        assert not one._stash
        assert count.taken()["unread"] == 1
        assert one.recv(1) == b"a"
        assert select.select([one], [], [], 60)[0] == [one]
        assert one.recv(1) == b"b"
        assert select.select([one], [], [], 0)[0] == []
        assert count.taken() == {"recvmsg": 2}, "nothing is read ahead any more"


def test_a_duplicate_has_what_was_read_ahead(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        stashed(loopback, one, two, [b"a", b"b", b"c"])
        with one.dup() as three:
            assert (three.recv(1), one.recv(1), three.recv(1)) == (b"a", b"b", b"c")
        stashed_again = one.detach()
        with socket.socket(fileno=stashed_again) as again:
            two.send(b"d")
            assert again.recv(1) == b"d"


def test_connect_and_options_keep_what_was_read_ahead(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        stashed(loopback, one, two, [b"a", b"b"])
        one.connect(two.getsockname())
        assert one.recv(1) == b"a"
        one.setsockopt(socket.SOL_IP, uapi.IP_PKTINFO, 1)
        data, ((level, kind, _),), _, _ = one.recvmsg(10, 100)
        assert (data, level, kind) == (b"b", socket.SOL_IP, 8)


def test_close_drops_what_was_read_ahead(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        stashed(loopback, one, two, [b"a", b"b"])


def test_two_threads_share_a_socket(loopback: Loopback) -> None:
    """None waits while there are datagrams that another has read ahead."""
    with udp_pair() as (one, two):
        texts = numbered(600)
        got: list[list[bytes]] = [[], []]

        def read(mine: list[bytes]) -> None:
            while (text := one.recv(100)) != b"end":
                mine.append(text)

        threads = [threading.Thread(target=read, args=(mine,)) for mine in got]
        for thread in threads:
            thread.start()
        for text in [*texts, b"end", b"end"]:
            two.send(text)
        for thread in threads:
            thread.join()
        assert sorted(got[0] + got[1]) == texts
        assert (one._readers, len(one._stash)) == (0, 0)


@pytest.mark.interpreted
def test_a_waiting_thread_gets_what_another_read_ahead(loopback: Loopback) -> None:
    """It came to wait just before the other had its reply."""
    with udp_pair() as (one, two):
        two.send(b"a")
        two.send(b"b")
        two.send(b"c")
        loopback.settle()
        one._ahead = 8
        one._readers = 1  # the other has looked at the stash, and not yet asked
        client = one._client
        result = client.call("recvmmsg", one._fd, 65535, 8, 0, 0)
        one._readers = 0
        real = client.call

        def late(name: str, *args: Any, **kwargs: Any) -> Any:
            if name != "recvmmsg":
                return real(name, *args, **kwargs)
            one._readers += 1
            return result

        client.call = late  # type: ignore[method-assign]
        try:
            assert one.recv(1) == b"a"
        finally:
            del client.call
            one._readers = 0
        assert not one._stash
        assert one.recv(1, socket.MSG_DONTWAIT) == b"b"
        assert one.recv(1) == b"c"


def test_an_interrupted_recv_loses_nothing(loopback: Loopback) -> None:
    class Stop(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with udp_pair() as (one, two):
            main = threading.get_ident()

            def strike() -> None:
                while not sum(len(c.calls) for c in loopback.net.clients.values()):
                    pass
                signal.pthread_kill(main, signal.SIGUSR1)

            thread = threading.Thread(target=strike)
            thread.start()
            with pytest.raises(Stop):
                one.recv(100)
            thread.join()
            for text in (b"one", b"two", b"three"):
                two.send(text)
            loopback.settle()
            one._keep_all(*one._client.call("recvmmsg", one._fd, 65535, 8, 0, 0))
            assert [one.recv(100), one.recv(100)] == [b"one", b"two"]
            assert select.select([one], [], [], 60)[0] == [one]
            assert one.recv(100) == b"three"
            assert one._readers == 0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_posts_are_in_order_with_calls(loopback: Loopback) -> None:
    """A thread's next call, of whatever kind and socket, comes behind its posts."""
    with udp_pair() as (one, two):
        for i in range(100):
            two.send(b"a")
            two.send(b"b%d" % i)
            assert one.ioctl(FIONREAD) >= 0
            assert one.recv(10) == b"a"
            assert one.recv(10) == b"b%d" % i


def test_another_thread_closes(loopback: Loopback) -> None:
    with socket.socket(*DGRAM) as one:
        one.bind((HERE, 0))
        one.settimeout(60)
        for _ in range(20):
            two = socket.socket(*DGRAM)
            two.connect(one.getsockname())
            sender = threading.Thread(target=lambda two=two: [two.send(b"x") for _ in range(20)])
            sender.start()
            sender.join()
            two.close()
            assert [one.recv(10) for _ in range(20)] == [b"x"] * 20


def test_two_senders_one_after_the_other(loopback: Loopback) -> None:
    with udp_pair() as (one, two):
        for i in range(20):
            for text in (b"first", b"second"):
                sender = threading.Thread(
                    target=lambda text=text: [two.send(text) for _ in range(5)]
                )
                sender.start()
                sender.join()
            assert [one.recv(10) for _ in range(10)] == [b"first"] * 5 + [b"second"] * 5, i


@pytest.mark.interpreted
def test_the_first_datagram_anywhere_waits(loopback: Loopback) -> None:
    count = Counter(loopback)
    with udp_pair() as (one, two):
        where = one.getsockname()
        two.send(b"12")
        two.send(b"1")
        loopback.settle()
        assert count.taken() == {"sendmsg": 1, "post": 1}
        two.send(bytes(600))  # longer than what went before, and than what fits everywhere
        two.sendto(b"1", where)
        two.connect(where)
        two.send(b"1")
        two.settimeout(0)
        two.send(b"1")
        two.settimeout(60)
        two.sendmsg([b"1"])
        two.sendto(b"1", socket.MSG_DONTWAIT, where)
        two.send(bytes(5000))
        assert count.taken() == {"sendmsg": 7}
        two.sendto(b"1", where)
        two.sendto(b"1", where)
        loopback.settle()
        assert count.taken() == {"sendmsg": 1, "post": 1}  # a timeout is no reason to wait
        with pytest.raises(OSError, match="Network is unreachable"):
            two.sendto(b"1", ("9.9.9.9", 9))


def test_an_error_of_a_post_is_told_by_the_next_call(loopback: Loopback) -> None:
    with socket.socket(*DGRAM) as two:
        two.settimeout(60)
        two.connect((HERE, 54))
        two.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            two.recv(1)
        two.settimeout(None)
        with pytest.raises(ConnectionRefusedError):
            any(not two.send(b"x") for _ in range(2 * POSTS_MAX + 3))


PROGRAM = f"""
import sys
from skbus import socket
from skbus.app import sockmsg
sockmsg._POST_PAUSE = 3600.0
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("{HERE}", int(sys.argv[1])))
for i in range(int(sys.argv[2])):
    sock.send(b"%d" % (i + 100))
if len(sys.argv) > 3:
    sock.close()
"""


@pytest.mark.parametrize("more", [[], ["close"]])
def test_a_program_that_ends_loses_nothing(loopback: Loopback, more: list[str]) -> None:
    with socket.socket(*DGRAM) as one:
        one.bind((HERE, 0))
        one.settimeout(60)
        port = str(one.getsockname()[1])
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, port, "25", *more]
        subprocess.run(command, check=True, env=os.environ)
        assert [int(one.recv(10)) for _ in range(25)] == list(range(100, 125))


ZERO: dict[str, Callable[[Any, int], object]] = {
    "recv": lambda sock, flags: sock.recv(0, flags),
    "recv_into": lambda sock, flags: sock.recv_into(bytearray(), 0, flags),
    "recv_into of some": lambda sock, flags: sock.recv_into(bytearray(5), 0, flags),
    "recvfrom": lambda sock, flags: sock.recvfrom(0, flags)[0],
    "recvfrom_into": lambda sock, flags: sock.recvfrom_into(bytearray(), 0, flags)[0],
    "recvmsg": lambda sock, flags: sock.recvmsg(0, 0, flags)[::2],
    "recvmsg_into": lambda sock, flags: sock.recvmsg_into([bytearray()], 0, flags)[::2],
    "recvmsg_into nothing": lambda sock, flags: sock.recvmsg_into([], 0, flags)[::2],
}


def zero_bytes(net: Any, how: str, flags: int, settle: Callable[[], object]) -> list[object]:
    """What a call for no bytes gives, and what is left then: of datagrams, and of a stream."""

    def ask(sock: Any) -> object:
        try:
            return ZERO[how](sock, flags)
        except OSError as e:
            return e.errno or type(e).__name__

    def rest(sock: Any) -> list[bytes]:
        got = []
        sock.setblocking(False)
        with suppress(BlockingIOError):
            while data := sock.recv(10):
                got.append(data)
        sock.settimeout(30.0)
        return got

    told: list[object] = []
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as b, net.socket(net.AF_INET, net.SOCK_DGRAM) as a:
        b.bind((HERE, 0))
        a.connect(b.getsockname())
        b.settimeout(0.001)
        told.append(ask(b))
        b.settimeout(30.0)
        for text in (b"one", b"two"):
            a.send(text)
        settle()
        told += [ask(b), rest(b)]
    with net.socket() as unconnected, net.create_server((HERE, 0)) as listener:
        one = net.create_connection(listener.getsockname())
        two, _ = listener.accept()
        told.append(ask(unconnected))
    with one, two:
        two.settimeout(0.001)
        told.append(ask(two))
        two.settimeout(30.0)
        one.sendall(b"stream")
        settle()
        told += [ask(two), rest(two)]
        one.close()
        settle()
        told.append(ask(two))
    return told


@pytest.mark.parametrize("flags", [0, stdlib.MSG_PEEK, stdlib.MSG_DONTWAIT])
@pytest.mark.parametrize("how", ZERO)
def test_no_bytes_are_asked_for_as_in_linux(loopback: Loopback, how: str, flags: int) -> None:
    """Some of these take a datagram, and wait for it; others ask nobody."""
    ours = zero_bytes(socket, how, flags, loopback.settle)
    assert ours == zero_bytes(stdlib, how, flags, lambda: None)
