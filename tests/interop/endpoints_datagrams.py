# SPDX-License-Identifier: MIT
"""The ends of a flow of numbered datagrams, and of programs that are hasty with them.

See `end.py`.
"""

import random
import select
import time
from typing import Any

from tests.interop.end import Module, end, tell, wait

WINDOW = 64
"""Datagrams that may be under way; each quarter of it is acknowledged."""


def numbered(i: int) -> bytes:
    """Datagram i: its number, and bytes that are made from it."""
    return i.to_bytes(4, "big") + random.Random(i).randbytes(i % 97)


@end
def serve_numbered(net: Module, port: int, count: int) -> Any:
    """Receive so many; where they began to be wrong, or -1."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        sock.settimeout(45)
        tell(ready=True)
        wrong = -1
        n = 0
        while n < count:
            try:
                data, address = sock.recvfrom(200)
            except TimeoutError:
                break
            if data != numbered(n) and wrong < 0:
                wrong = n
            n += 1
            if not n % (WINDOW // 4) or n == count:
                sock.sendto(n.to_bytes(4, "big"), address)
    return {"received": n, "wrong": wrong}


@end
def send_numbered(net: Module, host: str, port: int, count: int) -> Any:
    """Send so many, and wait until the peer has them."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        sent = acked = 0
        while acked < count:
            while sent < count and sent - acked < WINDOW:
                sock.send(numbered(sent))
                sent += 1
            sock.settimeout(45)
            try:
                acked = max(acked, int.from_bytes(sock.recv(4), "big"))
            except TimeoutError:
                break
            sock.settimeout(None)
    return {"sent": sent, "acked": acked}


@end
def send_and_exit(net: Module, host: str, port: int, count: int, close: bool) -> Any:
    """Send, and end at once."""
    sock = net.socket(net.AF_INET, net.SOCK_DGRAM)
    sock.connect((host, port))
    for i in range(count):
        sock.send(numbered(i))
    if close:
        sock.close()
    else:
        globals()["kept"] = sock  # it lives until the interpreter ends
    return {"sent": count}


@end
def serve_with_select(net: Module, port: int, count: int) -> Any:
    """Read half of the datagrams by recv, with too small a buffer; the others as select shows."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        sock.settimeout(45)
        tell(ready=True)
        wait()  # all of them are there
        plain = [int.from_bytes(sock.recv(4), "big") for _ in range(count // 2)]
        shown: list[tuple[int, bool]] = []
        while select.select([sock], [], [], 0.5 if len(shown) == count - count // 2 else 30)[0]:
            data, _, flags, _ = sock.recvmsg(4)
            shown.append((int.from_bytes(data, "big"), bool(flags & net.MSG_TRUNC)))
    return {"plain": plain, "shown": shown}


@end
def send_refused(net: Module, host: str, port: int) -> Any:
    """Send to a port where nobody is until a call tells so; whether recv tells it, too."""
    outcome = []
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        sock.send(b"first")
        sock.settimeout(45)
        try:
            sock.recv(1)
            outcome.append("data")
        except OSError as e:
            outcome.append(type(e).__name__)
        sock.settimeout(None)
        told = "nothing"
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                sock.send(b"more")
                time.sleep(0.0005)
        except OSError as e:
            told = type(e).__name__
        outcome.append(told)
    return outcome
