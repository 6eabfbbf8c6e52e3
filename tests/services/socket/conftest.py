# SPDX-License-Identifier: MIT
"""A socket core with applications in front and imagined transports behind it."""

from random import Random
from typing import Any

import msgpack
import pytest

from skbus.core.abi import (
    Connected,
    DataReadyCb,
    LocalAddr,
    ReqskQueueAdd,
    SkErrorReport,
    SkRet,
    SkStateChange,
    SkWriteSpace,
    TcpFin,
)
from skbus.core.entry import AnyEntry, Request, SkbRequest
from skbus.core.interfaces import SkCallbacks, TransportProto
from skbus.core.pool import Allocator, Pool, Region, StalePlaceError
from skbus.core.skbuff import SkBuff
from skbus.core.syscall import SYS_ABI, RecvmsgArgs, encode_request
from skbusd.socket.core import SocketCore
from skbusd.socket.netns import SocketNet
from skbustest.harness import Harness

CLASSES = ((2048, 64), (16384, 16), (66560, 16), (1048576, 2))
LOCAL = b"\x0a\x4d\0\x02"
PEER = b"\x0a\x4d\0\x01"
INET = 2
STREAM = 1
DGRAM = 2


def region(number: int) -> Allocator:
    """An empty region in plain memory."""
    size = 4096 + sum(s * n for s, n in CLASSES) + 4096
    return Allocator.format(number, bytearray(size), CLASSES)


class Stack:
    """The core under test. `client` is the id of its first application."""

    def __init__(self) -> None:
        self.own = region(1)
        self.nic = region(2)
        self.app = region(4)
        self.pool = Pool(self._open)
        self.pool.regions.update({1: self.own, 2: self.nic})
        self.net = SocketNet(rand=Random(1), pool=self.pool, alloc=self.own)
        self.core = SocketCore(self.net)
        self.harness = Harness(self.core, now=self.net.now)
        self.client = b"A" * 16
        assert self.core.client_up(self.client)
        self.req = 0
        self.delivered = 0

    def _open(self, number: int) -> Region:
        if number != 4:
            raise StalePlaceError(f"no region {number}")
        return self.app

    # ---- the application's side ----------------------------------------------------------

    def begin(self, call: str, *args: object, data: bytes = b"", client: bytes = b"") -> int:
        """Send a request; its number."""
        self.req += 1
        identity = (client or self.client) + b"\0\0\0\1"
        self.core.request(identity, encode_request(self.req, call, *args), data)
        self.core.idle()
        return self.req

    def replies(self) -> dict[int, tuple[int, Any, bytes]]:
        """req -> (errno, result, data) of all that has been answered since."""
        out = {}
        for _, meta, data in self.net.replies:
            abi, req, err, result = msgpack.unpackb(meta, use_list=False)
            assert abi == SYS_ABI
            out[req] = (err, result, data)
        self.net.replies.clear()
        return out

    def call(
        self, call: str, *args: object, data: bytes = b"", client: bytes = b""
    ) -> tuple[int, Any, bytes]:
        """A call that is answered at once, with the transports' answers: (errno, result, data)."""
        req = self.begin(call, *args, data=data, client=client)
        self.answer_all()
        return self.replies()[req]

    # ---- the transports' side ------------------------------------------------------------

    def outbox(self, process: str = "tcp") -> list[tuple[AnyEntry, Any]]:
        """What the core has called in a transport since the last time."""
        return self.harness.out(process)

    def answer_all(self, err: int = 0) -> list[tuple[AnyEntry, Any]]:
        """Answer every request in the outbox with success; returns all that was in it."""
        seen: list[tuple[AnyEntry, Any]] = []
        while self.net.outbox:
            for process in list(self.net.outbox):
                for entry, item in self.outbox(process):
                    seen.append((entry, item))
                    fields: Any = item.cb if isinstance(item, SkBuff) else item
                    if isinstance(item, SkBuff) and not item.lent:
                        self.pool.free_frags(item.frags)
                    if getattr(fields, "report", False):
                        self.acked(fields.sk, 0)
                    if isinstance(entry, (Request, SkbRequest)) and fields.req:
                        self.ret(fields.sk, fields.req, err, self._value(entry, fields))
        return seen

    def _value(self, entry: AnyEntry, item: Any) -> Any:
        """What a transport answers: of the type that the request promises."""
        if entry.reply is LocalAddr:
            listens = entry is TransportProto.listen
            return (
                LocalAddr(bytes(4), 40001) if listens else LocalAddr(item.addr, item.port or 40000)
            )
        if entry.reply is Connected:
            return Connected(LOCAL, 40002)
        return b"\x07\0\0\0" if entry.reply is bytes else None

    def ret(self, sk: int, req: int, err: int = 0, val: object = None) -> None:
        self.deliver(SkCallbacks.sk_ret, SkRet(sk, req, err, val))

    def deliver(self, entry: AnyEntry, item: Any) -> None:
        """A report of a transport, and the end of its batch."""
        self.harness.deliver(entry, item)

    def advance(self, ns: int) -> None:
        """Time passes."""
        self.net.now += ns
        # A timer fires late by at most its grain.
        self.net.timers.run(self.net, self.net.now + ns // 50 + 200_000)
        self.core.idle()

    def state(self, sk: int, state: int) -> None:
        self.deliver(SkCallbacks.sk_state_change, SkStateChange(sk, state, LOCAL, 40002, PEER, 80))

    def error(self, sk: int, err: int, *, hard: bool = True) -> None:
        self.deliver(SkCallbacks.sk_error_report, SkErrorReport(sk, err, hard))

    def fin(self, sk: int) -> None:
        self.deliver(SkCallbacks.tcp_fin, TcpFin(sk))

    def acked(self, sk: int, n: int, sndbuf: int = 0) -> None:
        """n bytes are acknowledged; where it was asked, tcp also tells what its queue looks like:
        everything is sent, in segments of 3072 bytes."""
        sock: Any = self.net.socks.get(sk)
        if getattr(sock, "asked", False):
            left = max(sock.sk_wmem_queued - n, 0)
            item = SkWriteSpace(sk, n, sndbuf, left, 0, 0, 3072)
        else:
            item = SkWriteSpace(sk, n, sndbuf)
        self.deliver(SkCallbacks.sk_write_space, item)

    def data(self, sk: int, payload: bytes, *, in_pool: bool = False) -> None:
        """Bytes arrive for sk."""
        cb = DataReadyCb(sk, PEER, 80, LOCAL, 40002, 1, 0, 0)
        if in_pool:
            place = self.nic.put(payload)
            assert place is not None
            skb = SkBuff(b"", (place,), cb=cb)
        else:
            skb = SkBuff(b"hdr" + payload, data=3, cb=cb)
        self.deliver(SkCallbacks.sk_data_ready, skb)

    def child(self, listener: int, child: int) -> None:
        item = ReqskQueueAdd(listener, child, LOCAL, 80, PEER, 5555)
        self.deliver(SkCallbacks.inet_csk_reqsk_queue_add, item)

    # ---- shortcuts -----------------------------------------------------------------------

    def socket(self, type: int = STREAM) -> tuple[int, int]:
        """A new socket: (descriptor, the transport's number)."""
        err, fd, _ = self.call("socket", INET, type, 0)
        assert err == 0
        sock = self.net.clients[self.client].fdt[fd]
        assert sock.sk is not None
        return fd, sock.sk.number

    def connected(self) -> tuple[int, int]:
        """A connected stream socket."""
        fd, sk = self.socket()
        req = self.begin("connect", fd, (INET, 80, PEER), -1)
        self.answer_all()
        self.state(sk, 1)
        assert self.replies()[req][0] == 0
        return fd, sk

    def recv(self, fd: int, size: int, flags: int = 0) -> tuple[int, Any, bytes]:
        return self.call("recvmsg", *RecvmsgArgs(fd, size, flags=flags, timeout=0))

    def check_conserved(self) -> None:
        """Every skb is accounted for."""
        self.harness.check()


@pytest.fixture
def stack() -> Stack:
    """A core with one application and imagined transports."""
    return Stack()
