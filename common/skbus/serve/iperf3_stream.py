# SPDX-License-Identifier: MIT
"""The data streams of an iperf3 test: one thread for each, which moves bytes as fast as it can.

Made by `skbus.serve.iperf3`. Bytes are received into one large buffer that is never looked at,
and sent from one that never changes. A UDP server has one port for all streams, so one thread
receives for all of them and tells them apart by the client's address.
"""

import socket as stdlib
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Final, Literal

Direction = Literal["send", "receive"]

CHUNK: Final = 1 << 20
"""Bytes of one call on a TCP stream, unless the client wants smaller ones."""
_DEFAULT_LENGTH: Final = 131072
"""iperf3's block for TCP where nobody chose one: a byte stream need not keep to it."""

_UDP_CONNECT_MSG: Final = struct.pack("=I", 0x36373839)
_UDP_CONNECT_REPLY: Final = struct.pack("=I", 0x39383736)
_UDP_LEGACY_MSG: Final = struct.pack("=I", 123456789)
_UDP_LEGACY_REPLY: Final = struct.pack("=I", 987654321)

_TCPI_TOTAL_RETRANS: Final = 100
"""Offset in struct tcp_info (`include/uapi/linux/tcp.h`): after 8 bytes and 23 words."""

Address = tuple[str, int]


class Stream:
    """One data stream, seen from the server."""

    def __init__(self, direction: Direction, length: int, bandwidth: int, limit: int) -> None:
        self.direction: Direction = direction
        self.length = length
        self.bandwidth = bandwidth
        self.limit = limit
        self.total = 0
        """Bytes since the start, the omitted ones included."""
        self.omitted = 0
        self.packets = 0
        self.omitted_packets = 0
        self.lost = 0
        self.jitter = 0.0
        """Seconds, RFC 1889 A.8."""
        self.retransmits = -1
        self.error = ""
        self.final: int | None = None
        self._omit_until = 0.0
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def counted(self) -> int:
        """Bytes that count: up to the end of the test, without the omitted ones."""
        return (self.total if self.final is None else self.final) - self.omitted

    def start(self, omit: float) -> None:
        """Begin to move bytes; those of the first `omit` seconds do not count."""
        self._omit_until = time.monotonic() + omit if omit else 0.0
        self._thread = threading.Thread(target=self._guard, name="iperf3", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The test has ended: what comes now no longer counts."""
        self.final = self.total
        self._stopping = True

    def join(self, seconds: float) -> None:
        """Wait for the thread, which may still throw away what was under way."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _guard(self) -> None:
        try:
            self._work()
        except OSError as e:
            if not self._stopping:
                self.error = f"stream: {e}"

    def _work(self) -> None:
        raise NotImplementedError

    def _omit(self) -> None:
        """Where the omitted seconds have just ended, begin to count."""
        if self._omit_until and time.monotonic() >= self._omit_until:
            self._omit_until = 0.0
            self.omitted = self.total
            self.omitted_packets = self.packets

    def _wait_for_turn(self, started: float) -> None:
        """Sleep until the rate that was asked for allows the next block."""
        ahead = self.total * 8 / self.bandwidth - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(min(ahead, 1.0))

    def results(self, seconds: float) -> dict[str, Any]:
        """This stream's part of the results that are sent to the client."""
        return {
            "bytes": self.counted,
            "retransmits": self.retransmits,
            "jitter": self.jitter,
            "errors": self.lost,
            "omitted_errors": 0,
            "packets": self.packets - self.omitted_packets,
            "omitted_packets": self.omitted_packets,
            "start_time": 0,
            "end_time": seconds,
        }


class TcpStream(Stream):
    """A TCP connection of its own."""

    def __init__(
        self, sock: stdlib.socket, direction: Direction, length: int, bandwidth: int, limit: int
    ) -> None:
        super().__init__(direction, length, bandwidth, limit)
        self.sock = sock

    def _work(self) -> None:
        self.sock.settimeout(1.0)
        if self.direction == "send":
            self._send()
        else:
            self._receive()

    def _receive(self) -> None:
        buffer = bytearray(CHUNK)
        recv_into = self.sock.recv_into
        while True:
            try:
                got = recv_into(buffer)
            except TimeoutError:
                if self._stopping:
                    return
                continue
            if not got:
                return
            self.total += got
            if self._omit_until:
                self._omit()

    def _send(self) -> None:
        size = CHUNK if self.length >= _DEFAULT_LENGTH and not self.bandwidth else self.length
        block = memoryview(bytes(size))
        send = self.sock.send
        started = time.monotonic()
        base = _total_retrans(self.sock)
        while not self._stopping:
            part = block
            if self.limit:
                left = self.limit - self.counted
                if left <= 0:
                    break
                part = block[:left]
            try:
                self.total += send(part)
            except TimeoutError:
                continue
            if self._omit_until:
                self._omit()
            if self.bandwidth:
                self._wait_for_turn(started)
        after = _total_retrans(self.sock)
        self.retransmits = after - base if min(base, after) >= 0 else 0
        if self._stopping:
            with suppress(OSError):
                self.sock.shutdown(stdlib.SHUT_WR)

    def stop(self) -> None:
        super().stop()
        if self.direction == "send" and self._thread is not None:
            # It gives its retransmissions before the results are sent; a send that is stuck
            # at a client that no longer reads ends with its timeout.
            self._thread.join(1.5)


def _total_retrans(sock: stdlib.socket) -> int:
    """TCP_INFO's tcpi_total_retrans; -1 where the stack does not say."""
    try:
        info = sock.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, 232)
    except OSError:
        return -1
    if len(info) < _TCPI_TOTAL_RETRANS + 4:
        return -1
    total: int = struct.unpack_from("=I", info, _TCPI_TOTAL_RETRANS)[0]
    return total


class UdpPort:
    """The server's UDP port, and the thread that receives for all streams."""

    def __init__(self, sock: stdlib.socket, counters_64bit: bool) -> None:
        self.sock = sock
        self.streams: dict[Address, UdpStream] = {}
        self.header = struct.Struct("!IIQ" if counters_64bit else "!III")
        self._thread: threading.Thread | None = None
        self._closing = False

    def greet(self, seconds: float) -> Address:
        """Wait for the datagram with which a client makes a stream, and answer it."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no datagram from the client")
            self.sock.settimeout(left)
            data, peer = self.sock.recvfrom(65536)
            if peer in self.streams:
                continue
            if data[:4] == _UDP_CONNECT_MSG:
                self.sock.sendto(_UDP_CONNECT_REPLY, peer)
            elif data[:4] == _UDP_LEGACY_MSG:
                self.sock.sendto(_UDP_LEGACY_REPLY, peer)
            else:
                continue
            return peer[0], peer[1]

    def start(self) -> None:
        """Begin to receive."""
        self._thread = threading.Thread(target=self._receive, name="iperf3 udp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and the socket."""
        self._closing = True
        if self._thread is not None:
            self._thread.join()
        self.sock.close()

    def _receive(self) -> None:
        self.sock.settimeout(0.25)
        buffer = bytearray(65536)
        recvfrom_into = self.sock.recvfrom_into
        streams = self.streams
        unpack = self.header.unpack_from
        least = self.header.size
        while not self._closing:
            try:
                got, peer = recvfrom_into(buffer)
            except TimeoutError:
                continue
            except ConnectionError:
                continue  # an ICMP error from a client that has gone
            except OSError:
                return
            stream = streams.get(peer)
            if stream is not None and got >= least:
                stream.arrived(got, *unpack(buffer))


class UdpStream(Stream):
    """One client's datagrams on the server's port."""

    def __init__(
        self,
        port: UdpPort,
        peer: Address,
        direction: Direction,
        length: int,
        bandwidth: int,
        limit: int,
    ) -> None:
        super().__init__(direction, length, bandwidth, limit)
        self.port = port
        self.peer = peer
        self._transit: float | None = None
        self._counting = threading.Lock()
        port.streams[peer] = self

    def start(self, omit: float) -> None:
        if self.direction == "send":
            super().start(omit)
        elif omit:
            self._omit_until = time.monotonic() + omit

    def stop(self) -> None:
        """The test has ended: bytes and packets as of one moment."""
        with self._counting:
            super().stop()

    def arrived(self, got: int, sec: int, usec: int, number: int) -> None:
        """A datagram with its sender's clock and number (counted from 1)."""
        with self._counting:
            if not self._stopping:
                self._count(got, sec + usec / 1e6, number)

    def _sent(self, sent: int) -> None:
        with self._counting:
            if not self._stopping:
                self.packets += 1
                self.total += sent

    def _count(self, got: int, sent_at: float, number: int) -> None:
        self.total += got
        if number > self.packets:
            self.lost += number - self.packets - 1
            self.packets = number
        elif self.lost:
            self.lost -= 1  # it was late, not lost
        transit = time.time() - sent_at
        if self._transit is not None:
            self.jitter += (abs(transit - self._transit) - self.jitter) / 16
        self._transit = transit
        if self._omit_until:
            before = self._omit_until
            self._omit()
            if before and not self._omit_until:
                self.lost = 0

    def _work(self) -> None:
        header = self.port.header
        block = bytearray(self.length)
        sendto = self.port.sock.sendto
        started = time.monotonic()
        while not self._stopping:
            if self.limit and self.counted >= self.limit:
                break
            now = time.time()
            header.pack_into(block, 0, int(now), int(now % 1 * 1e6), self.packets + 1)
            try:
                sent = sendto(block, self.peer)
            except (TimeoutError, ConnectionError):
                continue
            self._sent(sent)
            if self._omit_until:
                self._omit()
            if self.bandwidth:
                self._wait_for_turn(started)
