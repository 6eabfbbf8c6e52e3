# SPDX-License-Identifier: MIT
"""Connections that are there while one process of a sharded tcp is killed, and those that come
after it. Run as `endpoints.py`; both wait for the test between the two. One of them asks, and the
other echoes: to be Linux, whom nobody tells that a connection is lost before it sends something.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
endpoints: Any = __import__("endpoints")

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


def serve(net: Any, port: int, count: int, again: int, asks: bool) -> Any:
    """Accept `count`; echo or ask once on each when the test says so; then `again` new ones."""
    with net.create_server(("0.0.0.0", port), backlog=128) as listener:
        endpoints.tell(ready=True)
        socks = [listener.accept()[0] for _ in range(count)]
        endpoints.tell(accepted=len(socks))
        sys.stdin.readline()
        for sock in socks:
            sock.settimeout(TIMEOUT)
        use = _ask if asks else _echo
        kept = sum(map(use, socks))
        endpoints.tell(kept=kept)
        new = 0
        for _ in range(again):
            sock, _ = listener.accept()
            sock.settimeout(TIMEOUT)
            new += use(sock)
            sock.close()
        for sock in socks:
            sock.close()
    return {"kept": kept, "new": new}


def connect(net: Any, host: str, port: int, count: int, again: int, asks: bool) -> Any:
    """The other end: every other socket is bound to a port of its own choice before."""
    socks = []
    for i in range(count):
        sock = net.socket()
        sock.settimeout(TIMEOUT)
        if i % 2:
            sock.bind(("0.0.0.0", 0))
        sock.connect((host, port))
        socks.append(sock)
    endpoints.tell(connected=len(socks))
    sys.stdin.readline()
    use = _ask if asks else _echo
    kept = sum(map(use, socks))
    endpoints.tell(kept=kept)
    sys.stdin.readline()
    new = 0
    for _ in range(again):
        sock = net.create_connection((host, port), timeout=TIMEOUT)
        new += use(sock)
        sock.close()
    for sock in socks:
        sock.close()
    return {"kept": kept, "new": new}


endpoints.FUNCTIONS = {f.__name__: f for f in (serve, connect)}

if __name__ == "__main__":
    endpoints.main()
