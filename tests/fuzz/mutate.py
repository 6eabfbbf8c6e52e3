# SPDX-License-Identifier: MIT
"""Mutated packets at a running stack: sent by AF_PACKET from the other end of its cable.

Bases are the captures of `corpus.pcap` (a Linux host talking to another) and, so that numbers and
ports are those of living connections, frames of connections that this program itself keeps open
to an echo server on the stack under test. Mutations lie mostly in the headers; half of the packets
then get correct lengths and checksums, or nearly all would end at the first check.

Between rounds a fresh connection to the echo server must work. As its packets queue behind the
mutated ones, this also keeps us from sending more than the stack has taken.

Prints a JSON line when it begins, one a round, and one at the end. Linux only; run by
`test_mutated_packets.py` in the peer's namespace.
"""

import argparse
import json
import random
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

ETH_P_ALL: Final = 3
ETH_P_ARP: Final = b"\x08\x06"
ETH_P_IP: Final = b"\x08\x00"
PACKET_OUTGOING: Final = 4
CORPUS: Final = Path(__file__).with_name("corpus.pcap")
CAPTURED: Final = socket.inet_aton("10.77.0.2")
"""the stack that is asked in the captures"""
ROUND: Final = 500
INTERESTING: Final = (0, 1, 2, 0x0F, 0x10, 0x7F, 0x80, 0xFE, 0xFF)
INTERESTING16: Final = (0, 1, 7, 8, 19, 20, 59, 60, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
CHECKSUM_AT: Final = {1: 2, 2: 2, 6: 16, 17: 6}


def read_pcap(path: Path) -> list[bytes]:
    """The frames of a little-endian pcap file."""
    data = path.read_bytes()
    if data[:4] != b"\xd4\xc3\xb2\xa1":
        raise ValueError(f"{path} is not a little-endian pcap file")
    frames = []
    at = 24
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        frames.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return frames


def towards(frame: bytes, mac: bytes, own_mac: bytes) -> bytes:
    """A captured frame as one that goes to the stack under test, whichever way it went."""
    kind = frame[12:14]
    body = bytearray(frame[14:])
    if kind == ETH_P_IP and bytes(body[12:16]) == CAPTURED:
        body[12:16], body[16:20] = body[16:20], body[12:16]
    elif kind == ETH_P_ARP and bytes(body[14:18]) == CAPTURED:
        body[8:18], body[18:28] = body[18:28], body[8:18]
    if kind == ETH_P_ARP:
        body[8:14] = own_mac
    return mac + own_mac + kind + bytes(body)


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def put_right(frame: bytearray, lengths: bool) -> None:
    """Give an IPv4 packet the checksums (and lengths) that it should have, so far as it has room
    for them: to get past the first check and fail at a later one."""
    if len(frame) < 34 or frame[12:14] != ETH_P_IP:
        return
    ip = 14
    if lengths:
        frame[ip] = 0x40 | max(5, frame[ip] & 15)
        struct.pack_into("!H", frame, ip + 2, min(len(frame) - ip, 65535))
    header = (frame[ip] & 15) * 4
    if header < 20 or ip + header > len(frame):
        return
    at = ip + header
    fragment = struct.unpack_from("!H", frame, ip + 6)[0] & 0x3FFF
    field = CHECKSUM_AT.get(frame[ip + 9])
    end = min(len(frame), ip + struct.unpack_from("!H", frame, ip + 2)[0])
    if field is not None and not fragment and at + field + 2 <= end:
        if frame[ip + 9] == 17 and lengths and end - at >= 8:
            struct.pack_into("!H", frame, at + 4, end - at)
        frame[at + field : at + field + 2] = b"\0\0"
        pseudo = b""
        if frame[ip + 9] in (6, 17):
            pseudo = bytes(frame[ip + 12 : ip + 20]) + struct.pack("!HH", frame[ip + 9], end - at)
        struct.pack_into("!H", frame, at + field, checksum(pseudo + bytes(frame[at:end])))
    frame[ip + 10 : ip + 12] = b"\0\0"
    struct.pack_into("!H", frame, ip + 10, checksum(bytes(frame[ip : ip + header])))


class Mutator:
    """Makes packets; the same seed and bases make the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def mutate(self, base: bytes) -> bytes:
        """One to four changes, and half of the time lengths and checksums to fit."""
        rnd = self._random
        frame = bytearray(base)
        for _ in range(rnd.choice((1, 1, 1, 2, 2, 3, 4))):
            rnd.choice(self._OPERATIONS)(self, frame)
        choice = rnd.random()
        if choice < 0.5:
            put_right(frame, lengths=choice < 0.3)
        if rnd.random() < 0.9:
            frame[0:6] = base[0:6]
            frame[6:12] = base[6:12]
        return bytes(frame[:1514].ljust(14, b"\0"))

    def _where(self, frame: bytearray) -> int:
        """Mostly in the headers behind Ethernet's."""
        rnd = self._random
        choice = rnd.random()
        if choice < 0.9 and len(frame) > 14:
            return rnd.randrange(14, min(len(frame), 84))
        return rnd.randrange(max(1, len(frame)))

    def _flip(self, frame: bytearray) -> None:
        if frame:
            frame[self._where(frame) % len(frame)] ^= 1 << self._random.randrange(8)

    def _byte(self, frame: bytearray) -> None:
        if frame:
            frame[self._where(frame) % len(frame)] = self._random.choice(INTERESTING)

    def _random_byte(self, frame: bytearray) -> None:
        if frame:
            frame[self._where(frame) % len(frame)] = self._random.randrange(256)

    def _word(self, frame: bytearray) -> None:
        at = self._where(frame) & ~1
        if at + 2 <= len(frame):
            struct.pack_into("!H", frame, at, self._random.choice(INTERESTING16))

    def _add(self, frame: bytearray) -> None:
        """A number moved a little: sequence and acknowledgement numbers, lengths, offsets."""
        at = self._where(frame) & ~3
        if at + 4 <= len(frame):
            value = struct.unpack_from("!I", frame, at)[0]
            step = self._random.choice((-1, 1, -1448, 1448, 65535, 1 << 20, 1 << 31))
            struct.pack_into("!I", frame, at, (value + step) & 0xFFFF_FFFF)

    def _truncate(self, frame: bytearray) -> None:
        del frame[self._random.randrange(14, max(15, len(frame))) :]

    def _extend(self, frame: bytearray) -> None:
        frame += self._random.randbytes(self._random.choice((1, 2, 4, 40, 400)))

    def _insert(self, frame: bytearray) -> None:
        at = self._where(frame)
        frame[at:at] = self._random.randbytes(self._random.choice((1, 2, 4, 8)))

    def _remove(self, frame: bytearray) -> None:
        at = self._where(frame)
        del frame[at : at + self._random.choice((1, 2, 4, 8))]

    def _options(self, frame: bytearray) -> None:
        """A longer IP or TCP header, its options anything."""
        if len(frame) < 54 or frame[12:14] != ETH_P_IP:
            return
        header = (frame[14] & 15) * 4
        if frame[23] == 6 and self._random.random() < 0.7 and len(frame) >= 14 + header + 20:
            at = 14 + header
            size = 4 * self._random.randrange(1, 11)
            frame[at + 20 : at + 20] = self._random_options(size)
            frame[at + 12] = (5 + size // 4) << 4
        else:
            size = 4 * self._random.randrange(1, 11)
            frame[34:34] = self._random_options(size)
            frame[14] = 0x40 | (5 + size // 4)

    def _random_options(self, size: int) -> bytes:
        rnd = self._random
        out = b""
        while len(out) < size:
            kind = rnd.choice((0, 1, 2, 3, 4, 5, 7, 8, 34, 68, 131, 137, 148, rnd.randrange(256)))
            length = rnd.choice((0, 1, 2, 3, 4, 10, 40, 255))
            out += bytes((kind, length)) + rnd.randbytes(min(length, 8))
        return out[:size]

    def _tag(self, frame: bytearray) -> None:
        """One VLAN tag, or two."""
        for _ in range(self._random.choice((1, 1, 2))):
            frame[12:12] = b"\x81\x00" + self._random.randbytes(2)

    def _fragment(self, frame: bytearray) -> None:
        """A piece of something, anywhere in it."""
        if len(frame) >= 34:
            flags = self._random.choice((0, 0x2000, 0x2000, 0x4000, 0x8000))
            offset = self._random.choice((0, 0, 1, 2, 8, 185, 370, 0x1FFF))
            struct.pack_into("!H", frame, 20, flags | offset)
            frame[18] = frame[18] & 0xFC  # few identities, so that pieces meet

    def _flags(self, frame: bytearray) -> None:
        if len(frame) > 47:
            frame[47] = self._random.randrange(256)

    _OPERATIONS = (
        _flip, _flip, _flip, _byte, _byte, _random_byte, _word, _word, _add, _add, _truncate,
        _extend, _insert, _remove, _options, _tag, _fragment, _flags,
    )  # fmt: skip


class Target:
    """The stack under test, as its neighbour sees it."""

    def __init__(self, dev: str, host: str, own: str, port: int) -> None:
        self.host, self.own, self.port = host, own, port
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.raw.bind((dev, ETH_P_ALL))
        self.raw.setblocking(False)
        self.own_mac = self.raw.getsockname()[4]
        self.echo()
        self.mac = self._neighbour()
        self._connections: list[socket.socket] = []

    def _neighbour(self) -> bytes:
        text = subprocess.run(
            ["ip", "-j", "neigh", "show", self.host], capture_output=True, text=True, check=True
        ).stdout
        return bytes.fromhex(json.loads(text)[0]["lladdr"].replace(":", ""))

    def echo(self) -> int:
        """A fresh connection must work; returns how often it was tried. A mutated ARP packet may
        have given our address away for a while: so we claim it again first, as any host would."""
        deadline = time.monotonic() + 60
        attempt = 0
        while time.monotonic() < deadline:
            attempt += 1
            if attempt > 1:
                self.claim()
            try:
                with socket.create_connection((self.host, self.port), timeout=5) as sock:
                    ask = attempt.to_bytes(4, "big") * 8
                    sock.sendall(ask)
                    answer = b""
                    while len(answer) < len(ask) and (more := sock.recv(100)):
                        answer += more
                    if answer == ask:
                        return attempt
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the echo server at {self.host}:{self.port} has stopped answering")

    def claim(self) -> None:
        """Ask for the stack's address with our own: RFC 826 makes it note ours."""
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + self.own_mac
        body += socket.inet_aton(self.own) + bytes(6) + socket.inet_aton(self.host)
        self.raw.send(b"\xff" * 6 + self.own_mac + ETH_P_ARP + body)

    def robs(self, frame: bytes) -> bool:
        """Whether an ARP packet gives our address to another station: a stack that believes it
        is right, and then talks past us for a second or more."""
        own = socket.inet_aton(self.own)
        return frame[12:14] == ETH_P_ARP and frame[28:32] == own and frame[22:28] != self.own_mac

    def live_frames(self) -> list[bytes]:
        """Frames that the kernel sends for connections which stay open."""
        while len(self._connections) < 4:
            sock = socket.create_connection((self.host, self.port), timeout=30)
            sock.setblocking(False)
            self._connections.append(sock)
        self._drain()
        kept = []
        for sock in self._connections:
            try:
                sock.send(b"x" * 100)
                while sock.recv(65536):
                    pass
            except BlockingIOError:
                pass
            except OSError:
                sock.close()
                continue
            kept.append(sock)
        self._connections = kept
        return [f for f in self._drain() if f[:6] == self.mac and len(f) <= 1514]

    def _drain(self) -> list[bytes]:
        frames = []
        try:
            while True:
                frame, address = self.raw.recvfrom(65536)
                if address[2] == PACKET_OUTGOING:
                    frames.append(frame)
        except BlockingIOError:
            pass
        return frames

    def send(self, frame: bytes) -> bool:
        """Whether the kernel took it: what is longer than the MTU it does not."""
        try:
            self.raw.send(frame)
        except (BlockingIOError, OSError):
            return False
        return True


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", required=True)
    parser.add_argument("--host", required=True, help="the stack under test")
    parser.add_argument("--own", required=True, help="our address")
    parser.add_argument("--port", type=int, required=True, help="its echo server")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    target = Target(options.dev, options.host, options.own, options.port)
    mutator = Mutator(options.seed)
    chooser = random.Random(options.seed)
    corpus = [towards(f, target.mac, target.own_mac) for f in read_pcap(CORPUS)]
    say(began=True, bases=len(corpus))
    sent = refused = retries = 0
    while sent < options.count:
        bases = corpus + 4 * target.live_frames()
        end = min(sent + ROUND, options.count)
        while sent < end:
            frame = mutator.mutate(chooser.choice(bases))
            if target.robs(frame) and chooser.random() < 0.98:
                continue
            if target.send(frame):
                sent += 1
            else:
                refused += 1
                if refused > 10 * options.count:
                    raise RuntimeError(f"the kernel takes no packets: {refused} refused")
        retries += target.echo() - 1
        say(sent=sent)
        if sent % 10_000 == 0:
            say(checkpoint=sent)
            sys.stdin.readline()
    say(done=True, sent=sent, refused=refused, retries=retries)


if __name__ == "__main__":
    main()
