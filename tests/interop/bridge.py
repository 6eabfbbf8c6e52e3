# SPDX-License-Identifier: MIT
"""A bad cable between two interfaces: what comes in at one goes out at the other, as far as
`skbus.inet.impair` lets it.

`bridge.py DEV DEV` runs in a namespace between two ends, whatever stacks they have, so that our
stack and the kernel's meet the same impairment, done by the same process. Each line of standard
input is an impairment ("loss 1% delay 20ms rate 100mbit seed 7"; empty: none) for both directions
from now on; the answer is a JSON object with what the last one did. It ends with its input.

The frames must be as long as on a wire: turn offload off on the cables.
"""

import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from skbus.inet.impair import Impairment
from skbusd.nic.af_packet import PACKET_ADD_MEMBERSHIP, SOL_PACKET, open_socket

PACKET_MR_PROMISC = 1
BATCH = 64
ROOM = 65536


class Bridge:
    """Two packet sockets and what is on its way between them."""

    def __init__(self, names: list[str]) -> None:
        self.socks = [open_socket(name, vnet_hdr=False) for name in names]
        for sock, name in zip(self.socks, names, strict=True):
            request = struct.pack("=iHH8s", socket.if_nametoindex(name), PACKET_MR_PROMISC, 0, b"")
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        self.way: list[tuple[int, int, Callable[[bytes], int], bytes]] = []
        self.order = count()
        self.impairments: list[Impairment] = []
        self.frames = self.failed = 0
        self.impair("")

    def impair(self, text: str) -> dict[str, int]:
        """Begin anew; what the old impairment did."""
        told = {"frames": self.frames, "failed": self.failed}
        for one in self.impairments:
            for name, times in one.status().items():
                told[name] = told.get(name, 0) + times
        self.frames = self.failed = 0
        self.way.clear()
        self.impairments = [Impairment.parse(text, direction) for direction in ("there", "back")]
        return told

    def take(self, at: int) -> None:
        """Frames have come in at one end."""
        sock, admit = self.socks[at], self.impairments[at].admit
        send = self.socks[1 - at].send
        for _ in range(BATCH):
            try:
                frame = sock.recv(ROOM)
            except BlockingIOError:
                return
            self.frames += 1
            now = time.monotonic_ns()
            for when, passed in admit(now, frame):
                if when <= now:
                    self.put(send, passed)
                else:
                    heappush(self.way, (when, next(self.order), send, passed))

    def put(self, send: Callable[[bytes], int], frame: bytes) -> None:
        """A frame goes out; one for which there is no room is lost, and counted."""
        try:
            send(frame)
        except OSError:
            self.failed += 1

    def due(self) -> float | None:
        """Let out what is due; seconds until the next."""
        way = self.way
        while way:
            left = way[0][0] - time.monotonic_ns()
            if left > 0:
                return left / 1e9
            _, _, send, frame = heappop(way)
            self.put(send, frame)
        return None

    def run(self) -> None:
        """Until the end of standard input."""
        told = b""
        numbers = [sock.fileno() for sock in self.socks]
        while True:
            ready, _, _ = select.select([*numbers, 0], [], [], self.due())
            for at, number in enumerate(numbers):
                if number in ready:
                    self.take(at)
            if 0 in ready:
                data = os.read(0, 4096)
                if not data:
                    return
                *lines, told = (told + data).split(b"\n")
                for line in lines:
                    answer = self.impair(line.decode())
                    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    Bridge(sys.argv[1:3]).run()
