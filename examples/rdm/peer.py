# SPDX-License-Identifier: MIT
"""RDM on Linux's stack, by a raw socket: the smallest peer. The script answers each message on a
port with the same in capitals. (The kernel hands protocol 253 to all raw sockets of it.)

    peer.py [PORT] [IGNORE]      ignores the first IGNORE packets, as a bad link would
"""

import socket
import struct
import sys
from typing import Final

IPPROTO_RDM: Final = 253
DATA, ACK, RST = 1, 2, 3
HDR: Final = struct.Struct("!HHBBHII")


def checksum(saddr: str, daddr: str, segment: bytes) -> int:
    """RFC 1071, over pseudo-header and segment."""
    pseudo = socket.inet_aton(saddr) + socket.inet_aton(daddr)
    data = pseudo + struct.pack("!HH", IPPROTO_RDM, len(segment)) + segment + bytes(1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    ignore = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_RDM)
    expected: dict[tuple[str, int, int], int] = {}
    replies: dict[tuple[str, int], int] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    def send(us: str, them: str, head: tuple[int, int, int, int, int], data: bytes = b"") -> None:
        source, dest, type, assoc, seq = head
        segment = HDR.pack(source, dest, type, 0, 0, assoc, seq) + data
        check = checksum(us, them, segment)
        sock.sendto(segment[:6] + struct.pack("!H", check) + segment[8:], (them, 0))

    while True:
        packet = sock.recv(65536)
        if ignore:
            ignore -= 1
            continue
        them, us = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        segment = packet[(packet[0] & 15) * 4 :]
        if len(segment) < HDR.size or checksum(them, us, segment):
            continue
        source, dest, type, _, _, assoc, seq = HDR.unpack_from(segment)
        if type != DATA:
            continue  # no DATA: this peer does not care whether its messages arrive
        if dest != port:
            send(us, them, (dest, source, RST, assoc, seq))
            continue
        send(us, them, (dest, source, ACK, assoc, seq))
        if expected.get((them, source, assoc), 0) != seq:
            continue  # it had come before
        expected[them, source, assoc] = seq + 1
        number = replies.get((them, source), 0)
        replies[them, source] = number + 1
        send(us, them, (port, source, DATA, 0x5EED, number), segment[HDR.size :].upper())


if __name__ == "__main__":
    main()
