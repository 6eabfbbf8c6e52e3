# SPDX-License-Identifier: MIT
"""The ROUTER and the life connections, asked by those who do not keep to the rules."""

import errno
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
import zmq

from skbus.bus.pooldir import PoolDir
from skbus.bus.rundir import RunDir
from skbus.core.syscall import POST, SYS_ABI, RecvmsgArgs, decode_reply, encode_request
from skbustest.loopback import Loopback


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with (
        tempfile.TemporaryDirectory(prefix="skb", dir="/dev/shm") as path,
        Loopback(RunDir(os.path.join(path, "r"))) as stack,
    ):
        yield stack


@pytest.fixture
def dealer(loopback: Loopback) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.IDENTITY, b"X" * 20)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RCVTIMEO, 10_000)
        sock.connect(loopback.run.syscall_endpoint)
        yield sock


HUGE = struct.pack("=IIII", 0x736B6275, 1, 0x80005678, 1) + struct.pack("=II", 1, 2**32 - 1)
"""A region's header that says that it has 2^32 - 1 slots."""


def live(loopback: Loopback, id: bytes = b"X" * 16) -> socket.socket:
    """A life connection, welcomed."""
    life = socket.socket(socket.AF_UNIX)
    life.settimeout(60)
    life.connect(str(loopback.run.life))
    life.sendall(id[:5])
    life.sendall(id[5:])
    assert life.recv(8) == struct.pack("=II", SYS_ABI, 0)
    return life


def test_no_client_without_a_life(dealer: "zmq.Socket[bytes]") -> None:
    dealer.send_multipart([encode_request(1, "socket", 2, 1, 0), b""])
    req, err, text = decode_reply(dealer.recv_multipart()[0])
    assert (req, err) == (1, errno.ENOTCONN)
    assert "life" in text


def test_wrong_frames(loopback: Loopback, dealer: "zmq.Socket[bytes]") -> None:
    with live(loopback):
        for frames in ([b""], [b"x"] * 5, [b"", b"", b""]):
            dealer.send_multipart(frames)
            assert decode_reply(dealer.recv_multipart()[0])[1] == errno.EINVAL
        dealer.send_multipart([msgpack.packb([7, 3, "close", 0]), b""])
        assert decode_reply(dealer.recv_multipart()[0])[:2] == (3, errno.EPROTO)
        dealer.send_multipart([encode_request(4, "socket", 2, 1, 0), b""])
        assert decode_reply(dealer.recv_multipart()[0]) == (4, 0, 0)


def test_an_id_is_one_processs(loopback: Loopback) -> None:
    with live(loopback), socket.socket(socket.AF_UNIX) as second:
        second.settimeout(60)
        second.connect(str(loopback.run.life))
        second.sendall(b"X" * 16)
        assert second.recv(8) == struct.pack("=II", SYS_ABI, errno.EEXIST)
        assert second.recv(8) == b""
    with live(loopback, b"Y" * 16):
        loopback.settle()
        assert set(loopback.net.clients) == {b"Y" * 16}


def test_poll_descriptors_need_two_ends(loopback: Loopback, dealer: "zmq.Socket[bytes]") -> None:
    with live(loopback) as life:
        life.sendall(struct.pack("=iI", 0, 1))
        assert life.recv(8) == struct.pack("=II", errno.EINVAL, 1)
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b:
            fds = [a.fileno(), b.fileno()]
            socket.send_fds(life, [struct.pack("=iI", 5, 2)], fds)
            assert life.recv(8) == struct.pack("=II", errno.EBADF, 2)
            dealer.send_multipart([encode_request(1, "socket", 2, 2, 0), b""])
            assert decode_reply(dealer.recv_multipart()[0])[2] == 0
            socket.send_fds(life, [struct.pack("=iI", 0, 3)], fds)
            assert life.recv(8) == struct.pack("=II", 0, 3)


def test_foreign_descriptors_do_no_harm(
    loopback: Loopback, dealer: "zmq.Socket[bytes]", tmp_path: Path
) -> None:
    """What is sent in place of a pair of datagram sockets is closed, and answered by EINVAL."""
    with live(loopback) as life:
        dealer.send_multipart([encode_request(1, "socket", 2, 2, 0), b""])
        assert decode_reply(dealer.recv_multipart()[0])[2] == 0
        before = len(os.listdir("/proc/self/fd"))
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.connect(("127.0.0.1", 9))
        a, b = socket.socketpair()
        lone = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        token = 0
        with udp, a, b, lone:
            pairs = (
                [file, file], [udp.fileno()] * 2, [a.fileno(), b.fileno()], [file], [file] * 4,
                [lone.fileno()] * 2,
            )  # fmt: skip
            for fds in pairs * 10:
                token += 1
                socket.send_fds(life, [struct.pack("=iI", 0, token)], fds)
                assert life.recv(8) == struct.pack("=II", errno.EINVAL, token)
        os.close(file)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_client_that_works_against_its_poll_descriptor(
    loopback: Loopback, dealer: "zmq.Socket[bytes]"
) -> None:
    """Both ends are in the client's hands, too: it may fill them and drain them at will."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with live(loopback) as life, a, b:
        dealer.send_multipart([encode_request(1, "socket", 2, 2, 0), b""])
        assert decode_reply(dealer.recv_multipart()[0])[2] == 0
        socket.send_fds(life, [struct.pack("=iI", 0, 1)], [a.fileno(), b.fileno()])
        assert life.recv(8) == struct.pack("=II", 0, 1)
        for end in (a, b):
            end.setblocking(False)
            with suppress(BlockingIOError, BrokenPipeError):
                while end.send(bytes(4096)):
                    pass
        dealer.send_multipart([encode_request(2, "shutdown", 0, 2), b""])
        assert decode_reply(dealer.recv_multipart()[0])[1] == errno.ENOTCONN
        a.shutdown(socket.SHUT_RDWR)
        dealer.send_multipart([encode_request(3, "close", 0), b""])
        assert decode_reply(dealer.recv_multipart()[0])[1] == 0


@pytest.mark.parametrize("content", [b"", b"x" * 10, bytes(4096), HUGE, b"ubks" + bytes(60)])
def test_a_region_that_is_none(
    loopback: Loopback, dealer: "zmq.Socket[bytes]", content: bytes
) -> None:
    (loopback.run.pool_dir / "80005678").write_bytes(content)
    with live(loopback):
        dealer.send_multipart([encode_request(1, "region", 0x80005678), b""])
        assert decode_reply(dealer.recv_multipart()[0])[1] == errno.EFAULT
        dealer.send_multipart([encode_request(2, "socket", 2, 1, 0), b""])
        assert decode_reply(dealer.recv_multipart()[0])[1] == 0


def test_a_dead_clients_region_goes(loopback: Loopback, dealer: "zmq.Socket[bytes]") -> None:
    pool_dir = PoolDir(loopback.run.pool_dir)
    number = 0x80001234
    region = pool_dir.create(number, ((2048, 16),))
    place = region.put(b"payload")
    assert place is not None
    with live(loopback):
        dealer.send_multipart([encode_request(1, "region", number), b""])
        assert decode_reply(dealer.recv_multipart()[0])[1] == 0
    loopback.settle()
    loopback.clock.offset += 20_000_000_000
    loopback.settle()
    assert not pool_dir.exists(number)
    # Its memory is the system's again, though we map it still.
    assert not any(region.words)
    assert not any(region.mem[region.starts[0] :])
    region.close()


def test_many_clients(loopback: Loopback) -> None:
    lives = [live(loopback, b"%016d" % i) for i in range(300)]
    loopback.settle()
    assert len(loopback.net.clients) == 300
    for life in lives:
        life.close()
    loopback.settle()
    assert not loopback.net.clients


def post_pipe(life: socket.socket) -> tuple[tuple[int, ...], list[int]]:
    """Ask for it on a life connection: ((errno, token), descriptors)"""
    life.sendall(struct.pack("=iI", -1, 7))
    answer, fds, _, _ = socket.recv_fds(life, 8, 4)
    return struct.unpack("=II", answer), fds


def test_the_post_pipe_takes_anything(loopback: Loopback, dealer: "zmq.Socket[bytes]") -> None:
    with live(loopback) as life:
        answer, fds = post_pipe(life)
        assert (answer, len(fds)) == ((0, 7), 2)
        try:
            assert post_pipe(life) == ((errno.EEXIST, 7), []), "one is enough"
            for text in (
                b"\xff" * 4096,
                os.urandom(4000),
                POST.pack(3, 9, 0, b"\x7f\0\0\1") + b"abc",
            ):
                os.write(fds[0], text)
                dealer.send_multipart([encode_request(1, "socket", 2, 2, 0)])
                assert decode_reply(dealer.recv_multipart()[0])[1] == 0
        finally:
            for fd in fds:
                os.close(fd)
        loopback.settle()
        dealer.send_multipart([encode_request(2, "close", 0)])
        assert decode_reply(dealer.recv_multipart()[0])[:2] == (2, 0)
        assert not loopback.source._post_fds, "nobody can write to it any more"


def test_a_post_comes_before_any_later_call(
    loopback: Loopback, dealer: "zmq.Socket[bytes]"
) -> None:
    """Also where the send buffer is full, and the pipe is left alone otherwise."""
    with live(loopback) as life:
        _, (fd, spare) = post_pipe(life)
        os.close(spare)

        def ask(call: str, *args: object) -> object:
            dealer.send_multipart([encode_request(1, call, *args)])
            _, err, result = decode_reply(dealer.recv_multipart()[0])
            assert not err, (call, err, result)
            return result

        for _ in range(2):
            ask("socket", 2, 2, 0)
        ask("bind", 0, (2, 999, bytes(4)))
        ask("bind", 1, (2, 998, bytes(4)))
        sk = next(iter(loopback.net.clients.values())).fdt[1].sk
        assert sk is not None
        sk.sk_sndbuf, sk.sk_wmem_queued = 1000, 900
        for i in range(100):
            os.write(fd, POST.pack(4, 999, 1, b"\x7f\0\0\1") + b"%04d" % i)
            if i == 50:
                loopback.settle()
                assert loopback.source._post_paused
        ask("close", 1)
        assert not loopback.source._post_paused
        for i in range(100):
            dealer.send_multipart([encode_request(1, "recvmsg", *RecvmsgArgs(0, 100))])
            assert dealer.recv_multipart()[1] == b"%04d" % i
        os.close(fd)
