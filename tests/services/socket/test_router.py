# SPDX-License-Identifier: MIT
"""The ROUTER and the life connections, asked by those who do not keep to the rules."""

import errno
import os
import socket
import struct
import tempfile
from collections.abc import Iterator

import msgpack
import pytest
import zmq

from skbus.pool import PoolDir
from skbus.rundir import RunDir
from skbus.syscall import decode_reply, encode_request
from skbus.testing.loopback import Loopback


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


def live(loopback: Loopback, id: bytes = b"X" * 16) -> socket.socket:
    """A life connection, welcomed."""
    life = socket.socket(socket.AF_UNIX)
    life.settimeout(10)
    life.connect(str(loopback.run.life))
    life.sendall(id[:5])
    life.sendall(id[5:])
    assert life.recv(8) == struct.pack("=II", 1, 0)
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
        second.settimeout(10)
        second.connect(str(loopback.run.life))
        second.sendall(b"X" * 16)
        assert second.recv(8) == struct.pack("=II", 1, errno.EEXIST)
        assert second.recv(8) == b""
    with live(loopback, b"Y" * 16):
        loopback.settle()
        assert set(loopback.net.clients) == {b"Y" * 16}


def test_poll_descriptors_need_two_ends(loopback: Loopback, dealer: "zmq.Socket[bytes]") -> None:
    with live(loopback) as life:
        life.sendall(struct.pack("=iI", 0, 1))
        assert life.recv(8) == struct.pack("=II", errno.EINVAL, 1)
        a, b = socket.socketpair()
        with a, b:
            fds = [a.fileno(), b.fileno()]
            socket.send_fds(life, [struct.pack("=iI", 5, 2)], fds)
            assert life.recv(8) == struct.pack("=II", errno.EBADF, 2)
            dealer.send_multipart([encode_request(1, "socket", 2, 2, 0), b""])
            assert decode_reply(dealer.recv_multipart()[0])[2] == 0
            socket.send_fds(life, [struct.pack("=iI", 0, 3)], fds)
            assert life.recv(8) == struct.pack("=II", 0, 3)


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
    assert bytes(region.mem[:64]) == bytes(64)
    region.close()


def test_many_clients(loopback: Loopback) -> None:
    lives = [live(loopback, b"%016d" % i) for i in range(300)]
    loopback.settle()
    assert len(loopback.net.clients) == 300
    for life in lives:
        life.close()
    loopback.settle()
    assert not loopback.net.clients
