# SPDX-License-Identifier: MIT
"""The two ends of the interoperability matrix: some connections at once, each of which sends so
many bytes in messages of one size, hashed at both ends and timed at the receiver's.

See `end.py`.
"""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.interop.end import Module, end, tell

from skbus.core.uapi import TCP_CONGESTION


def _choose(sock: Any, congestion: str) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, congestion.encode())


def _at_once(flow: Callable[[int], Any], flows: int) -> list[Any]:
    """Run all flows, each in a thread; the first error of one is the end."""
    found: list[Any] = [None] * flows
    errors: list[BaseException] = []

    def one(i: int) -> None:
        try:
            found[i] = flow(i)
        except BaseException as e:  # noqa: BLE001 told by the main thread
            errors.append(e)

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(flows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.2)
    if errors:
        raise errors[0]
    return found


@end
def serve_flows(net: Module, port: int, flows: int, congestion: str) -> Any:
    """Receive: for each flow the size, the seconds from its first byte, and SHA-256."""
    listener = net.create_server(("0.0.0.0", port), backlog=flows)
    _choose(listener, congestion)
    tell(ready=True)
    socks = [listener.accept()[0] for _ in range(flows)]

    def flow(i: int) -> Any:
        sock = socks[i]
        digest = hashlib.sha256()
        room = memoryview(bytearray(1 << 18))
        size, begin = 0, 0.0
        while n := sock.recv_into(room):
            begin = begin or time.monotonic()
            digest.update(room[:n])
            size += n
        seconds = time.monotonic() - begin
        sock.close()
        return {"size": size, "seconds": seconds, "sha256": digest.hexdigest()}

    found = _at_once(flow, flows)
    listener.close()
    return found


@end
def send_flows(
    net: Module,
    host: str,
    port: int,
    flows: int,
    congestion: str,
    size: int,
    message: int,
    seed: int,
) -> Any:
    """Connect and send: for each flow SHA-256 of what was sent."""

    def flow(i: int) -> Any:
        data = random.Random(seed + i).randbytes(size)
        view = memoryview(data)
        sock = net.socket()
        _choose(sock, congestion)
        sock.connect((host, port))
        for at in range(0, size, message):
            sock.sendall(view[at : at + message])
        sock.shutdown(net.SHUT_WR)
        rest = sock.recv(1)
        sock.close()
        return {"sha256": hashlib.sha256(data).hexdigest(), "rest": len(rest)}

    return _at_once(flow, flows)
