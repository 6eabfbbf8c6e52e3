# SPDX-License-Identifier: MIT
"""`python -m skbus.load.synflood HOST PORT RATE`: SYNs from made-up addresses, RATE a second, until
it is ended.

For the scenario `syn-flood`, where no hping3 is installed, as in the image of docker-compose.yml.
It takes CAP_NET_RAW. Sources are of 198.18.0.0/15 (RFC 2544), which nobody has.
"""

import random
import signal
import socket
import sys
import time

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.inet.headers import ipv4, tcp

BATCH = 0.005
"""Seconds between two bursts."""


def syn(rand: random.Random, daddr: bytes, port: int) -> bytes:
    """One SYN with its IP header."""
    saddr = bytes((198, 18 | rand.getrandbits(1))) + rand.randbytes(2)
    head = tcp.build(rand.randrange(1024, 65536), port, rand.getrandbits(32), 0, 2, 512)
    check = csum_tcpudp_magic(saddr, daddr, len(head), 6, csum_partial(head))
    head = head[:16] + check.to_bytes(2, "big") + head[18:]
    return ipv4.build(saddr, daddr, 6, 20 + len(head), id=rand.getrandbits(16)) + head


def flood(host: str, port: int, rate: float) -> int:
    """Send until SIGTERM; how many that were."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    rand = random.Random()
    daddr = socket.inet_aton(socket.gethostbyname(host))
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        start = time.monotonic()
        while not ended:
            due = (time.monotonic() - start) * rate
            while sent < due:
                try:
                    sock.sendto(syn(rand, daddr, port), (host, 0))
                except BlockingIOError:
                    pass  # a full queue loses it
                sent += 1
            time.sleep(BATCH)
    return sent


if __name__ == "__main__":
    try:
        flood(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    except OSError as e:
        sys.exit(f"{e.strerror}; a raw socket takes CAP_NET_RAW")
