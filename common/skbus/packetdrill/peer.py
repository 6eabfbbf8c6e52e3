# SPDX-License-Identifier: MIT
"""`python -m skbus.packetdrill.peer RUNDIR DEV ADDRESS`: frames to and from a lab's wire.

Run by `live`. It enters the lab's peer namespace, finds the stack's MAC address by ARP, and says so
in a line. Then it carries frames. Each record on standard input is a frame to send. Each record on
standard output is a frame that the stack has sent, with its time. A record is length and
CLOCK_MONOTONIC ns (`=IQ`), then the bytes. A record of length 0 says that a frame has been sent.
"""

import os
import select
import socket
import sys
import time
from typing import Final

from skbus.packetdrill.records import RECORD, read_records

ETH_P_ALL: Final = 3
SOL_PACKET: Final = 263
PACKET_IGNORE_OUTGOING: Final = 23
MAX_FRAME: Final = 70_000


def open_wire(dev: str) -> socket.socket:
    """An AF_PACKET socket that gets all that comes, and not what we send."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.bind((dev, ETH_P_ALL))
    return sock


def resolve(sock: socket.socket, address: str) -> bytes:
    """The MAC address of an IP address, by ARP. TimeoutError."""
    mac = sock.getsockname()[4]
    target = socket.inet_aton(address)
    # an ARP probe (RFC 5227 2.1.1): from no address, so that nobody learns a wrong one
    head = b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04"
    request = head + b"\x00\x01" + mac + bytes(4) + bytes(6) + target
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        sock.send(request)
        again = time.monotonic() + 0.5
        while (left := again - time.monotonic()) > 0:
            if not select.select([sock], [], [], left)[0]:
                break
            frame = sock.recv(MAX_FRAME)
            if frame[12:14] == b"\x08\x06" and frame[28:32] == target:
                return frame[22:28]
    raise TimeoutError(f"nobody answers ARP for {address}")


def carry(sock: socket.socket) -> None:
    """Carry frames until standard input ends."""
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    buffer = b""
    while True:
        ready, _, _ = select.select([stdin, sock], [], [])
        if sock in ready:
            now = time.monotonic_ns()
            frame = sock.recv(MAX_FRAME)
            os.write(stdout, RECORD.pack(len(frame), now) + frame)
        if stdin in ready:
            data = os.read(stdin, 1 << 20)
            if not data:
                return
            records, buffer = read_records(buffer + data)
            for _, frame in records:
                sock.send(frame)
                os.write(stdout, RECORD.pack(0, time.monotonic_ns()))


def main(argv: list[str]) -> int:
    """The program."""
    from skbus.bus.rundir import RunDir
    from skbus.stack.lab import enter

    run, dev, address = argv
    enter(RunDir(run))
    sock = open_wire(dev)
    stack = resolve(sock, address)
    own = sock.getsockname()[4]
    sys.stdout.write(f"{stack.hex()} {own.hex()}\n")
    sys.stdout.flush()
    carry(sock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
