# SPDX-License-Identifier: MIT
"""A toy stack behind a backend: just enough TCP to run scripts against, and to be wrong on
purpose."""

import errno
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from skbus.packetdrill import wire
from skbus.packetdrill.backend import Addresses, Pending, Reply
from skbus.packetdrill.script import IpInfo, TcpOption, TcpPacket

MS = 1_000_000
ISN = 0xFFFFFF00
"""The toy's initial sequence number: it wraps soon."""


@dataclass
class Done:
    """A call that has returned, or will at `due`."""

    toy: "Toy"
    reply: Reply
    due: int = 0

    @property
    def done(self) -> bool:
        return self.toy.time >= self.due

    @property
    def finished(self) -> int:
        return self.due


@dataclass
class Toy:
    """Accepts one connection, acknowledges what comes, sends what is written in pieces of mss.

    delay: of all it sends. flags: of what it sends instead of PSH ACK. corrupt: payload byte.
    """

    delay: int = 0
    flags: str = "P."
    corrupt: bool = False
    tsval: int = 5000
    time: int = 0
    mss: int = 1000
    closed: bool = False
    set: dict[str, str] = field(default_factory=dict)
    """sysctls, and the MTU"""
    outbox: "deque[tuple[int, bytes]]" = field(default_factory=deque)
    peer: tuple[bytes, int] = (b"", 0)
    us: tuple[bytes, int] = (b"", 0)
    snd_nxt: int = ISN
    rcv_nxt: int = 0
    received: bytes = b""
    fds: int = 2
    ts: bool = False
    offloads: bool = False
    first_port: int = 40001
    peer_ts: int = 0

    # ---- backend.Backend ---------------------------------------------------------------

    def start(self, addresses: Addresses, mtu: int) -> Addresses:
        self.addresses = addresses
        return addresses

    def begin(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def wait(self, until: int, pending: Pending | None = None, *, packet: bool = False) -> None:
        if packet and self.outbox:
            until = min(until, max(self.time, self.outbox[0][0]))
        if isinstance(pending, Done):
            until = min(until, max(self.time, pending.due))
        self.time = max(self.time, until)

    def inject(self, *packets: bytes) -> None:
        for packet in packets:
            self._segment(packet)

    def _segment(self, packet: bytes) -> None:
        seen = wire.parse(packet)
        assert seen is not None
        assert seen.csum_ok
        self.peer, self.us = seen.source, seen.dest
        for option in seen.options:
            if option.kind == 8:
                self.ts, self.peer_ts = True, option.numbers[0]
        if seen.flags & 2:
            self.rcv_nxt = seen.seq + 1
            self._send("S.", b"")
            self.snd_nxt += 1
        elif seen.payload:
            assert seen.seq == self.rcv_nxt & 0xFFFFFFFF
            self.received += seen.payload
            self.rcv_nxt += len(seen.payload)
            self._send(".", b"")

    def settle(self) -> None:
        """An injected packet has been dealt with already."""

    def sent(self) -> tuple[int, bytes] | None:
        return self.outbox.popleft() if self.outbox and self.outbox[0][0] <= self.time else None

    def call(self, name: str, *args: object, data: bytes = b"") -> Pending:
        reply = Reply(0, 0)
        due = self.time
        if name == "socket":
            self.fds += 1
            reply = Reply(0, self.fds)
        elif name == "accept4":
            self.fds += 1
            reply = Reply(0, (self.fds, (2, self.peer[1], self.peer[0])))
        elif name == "sendmsg":
            for at in range(0, len(data), self.mss):
                last = at + self.mss >= len(data)
                self._send(self.flags if last else ".", data[at : at + self.mss])
            reply = Reply(0, len(data))
        elif name == "recvmsg":
            size = args[1]
            assert isinstance(size, int)
            taken, self.received = self.received[:size], self.received[size:]
            reply = Reply(0, (None, 0, ()), taken)
            if not taken:
                reply = Reply(errno.EAGAIN)
        elif name == "poll":
            due += 20 * MS
            reply = Reply(0, ((4, 1),))
        elif name == "getsockopt":
            reply = Reply(0, bytes(range(104)) if args[2] == 11 else b"\x05\0\0\0")
        return Done(self, reply, due)

    def tcp_metrics_flush(self) -> None:
        """There are none."""

    def sysctl(self, name: str, value: str) -> None:
        if name == "net.ipv4.unknown":
            raise ValueError("no such sysctl: net.ipv4.unknown")
        self.set[name] = value

    def sysctls(self) -> Mapping[str, object]:
        return {"net.ipv4.tcp_sack": 1, "net.ipv4.tcp_rmem": (4096, 131072, 6291456), **self.set}

    def mtu(self, mtu: int) -> None:
        self.set["mtu"] = str(mtu)

    def tso(self, on: bool) -> None:
        """There is none."""

    def counters(self) -> dict[str, int]:
        return {"TcpExtToy": 3}

    def proc(self, name: str) -> str | None:
        line = "0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7"
        return f"  sl ...\n   {line}\n" if name == "tcp" else None

    def close(self) -> None:
        self.closed = True

    # ---- inside ------------------------------------------------------------------------

    def _send(self, flags: str, payload: bytes) -> None:
        options: tuple[TcpOption, ...] = ()
        if flags == "S.":
            options = (TcpOption(2, b"\x05\xb4"),)
        if self.ts:
            options = (*options, TcpOption(1), TcpOption(1))
            options = (*options, TcpOption(8, b"", (self.tsval, self.peer_ts)))
        packet = TcpPacket(False, flags, None, 0, 0, 0, 100, 0, options, IpInfo())
        if self.corrupt and payload:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        data = wire.build_tcp(
            packet, self.us, self.peer, self.snd_nxt, self.rcv_nxt, options, payload
        )
        self.snd_nxt += len(payload)
        self.outbox.append((self.time + self.delay, data))
