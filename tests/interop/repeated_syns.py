# SPDX-License-Identifier: MIT
"""`repeated_syns.py HOST PORT KIND`: 2,500 SYNs that lead to nothing, then three of them again each
half second, while this host itself connects 20 times. Prints how many of those worked, as JSON.

KIND: checksum, with a wrong one; closed, to a port without a listener. It takes CAP_NET_RAW.
"""

import json
import socket
import sys
import threading

from skbus.core.checksum import csum_partial, csum_tcpudp_magic
from skbus.inet.headers import ipv4, tcp

SYN = 2


def syn(i: int, daddr: bytes, port: int, wrong: int) -> bytes:
    """One of them, from an address that nobody has (RFC 2544)."""
    saddr = bytes((198, 18, i >> 8 & 0xFF, i & 0xFF))
    head = tcp.build(1024 + i, port, i, 0, SYN, 512)
    check = csum_tcpudp_magic(saddr, daddr, len(head), 6, csum_partial(head)) ^ wrong
    head = head[:16] + check.to_bytes(2, "big") + head[18:]
    return ipv4.build(saddr, daddr, 6, 20 + len(head), id=i) + head


def main(host: str, port: int, kind: str) -> None:
    daddr = socket.inet_aton(host)
    wrong = 0x1234 if kind == "checksum" else 0
    syns = [syn(i, daddr, port if wrong else 9, wrong) for i in range(2500)]
    done = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:

        def repeat() -> None:
            while not done.wait(0.5):
                for one in syns[:3]:
                    raw.sendto(one, (host, 0))

        for i, one in enumerate(syns):
            raw.sendto(one, (host, 0))
            if i % 100 == 99:
                done.wait(0.01)
        thread = threading.Thread(target=repeat)
        thread.start()
        told: dict[str, int] = {"ok": 0, "failed": 0}
        for _ in range(20):
            try:
                socket.create_connection((host, port), timeout=10).close()
                told["ok"] += 1
            except OSError:
                told["failed"] += 1
            done.wait(0.1)
        done.set()
        thread.join()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
