# SPDX-License-Identifier: MIT
"""Connections that are there while one process of a sharded tcp is killed, and those that come
after it. See `end.py`; both wait for the test between the two. One of them asks, and the
other echoes: to be Linux, whom nobody tells that a connection is lost before it sends something.
"""

from typing import Any

from tests.interop.end import Module, end, listening, tell, wait

TIMEOUT = 60.0


def _exactly(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def _echo(sock: Any) -> bool:
    """Did it work? Not with an error, and not with an early end."""
    try:
        data = _exactly(sock, 4)
        if len(data) < 4:
            return False
        sock.sendall(data)
    except OSError:
        return False
    return True


def _ask(sock: Any) -> bool:
    try:
        sock.sendall(b"ping")
        return _exactly(sock, 4) == b"ping"
    except OSError:
        return False


@end
def serve(net: Module, port: int, count: int, again: int, asks: bool) -> Any:
    """Accept `count`; echo or ask once on each when the test says so; then `again` new ones."""
    with listening(net, port) as listener:
        socks = [listener.accept()[0] for _ in range(count)]
        tell(accepted=len(socks))
        wait()
        for sock in socks:
            sock.settimeout(TIMEOUT)
        use = _ask if asks else _echo
        kept = sum(map(use, socks))
        tell(kept=kept)
        new = 0
        for _ in range(again):
            sock, _ = listener.accept()
            sock.settimeout(TIMEOUT)
            new += use(sock)
            sock.close()
        for sock in socks:
            sock.close()
    return {"kept": kept, "new": new}


@end
def connect(net: Module, host: str, port: int, count: int, again: int, asks: bool) -> Any:
    """The other end: every other socket is bound to a port of its own choice before."""
    socks = []
    for i in range(count):
        sock = net.socket()
        sock.settimeout(TIMEOUT)
        if i % 2:
            sock.bind(("0.0.0.0", 0))
        sock.connect((host, port))
        socks.append(sock)
    tell(connected=len(socks))
    wait()
    use = _ask if asks else _echo
    kept = sum(map(use, socks))
    tell(kept=kept)
    wait()
    new = 0
    for _ in range(again):
        sock = net.create_connection((host, port), timeout=TIMEOUT)
        new += use(sock)
        sock.close()
    for sock in socks:
        sock.close()
    return {"kept": kept, "new": new}
