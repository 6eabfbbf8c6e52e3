# SPDX-License-Identifier: MIT
"""Who uses a server while it is flooded: connections that were there before, and new ones.

See `end.py`; the server is one that echoes.
"""

import threading
import time
from typing import Any

from tests.interop.end import Module, end, tell, wait

TIMEOUT = 60.0


def _echo(sock: Any, data: bytes) -> bool:
    sock.sendall(data)
    room = b""
    while len(room) < len(data):
        more = sock.recv(len(data) - len(room))
        if not more:
            return False
        room += more
    return room == data


@end
def use(net: Module, host: str, port: int, established: int, seconds: float) -> Any:
    """Echo on `established` connections all the time, and on a new one again and again; begins
    when the test says so."""
    socks = [net.create_connection((host, port), timeout=TIMEOUT) for _ in range(established)]
    if not all(_echo(sock, b"before") for sock in socks):
        raise OSError("no echo before the flood")
    tell(ready=True)
    wait()
    end = time.monotonic() + seconds
    told: dict[str, Any] = {"echoes": [0] * established, "opened": 0, "errors": []}
    lock = threading.Lock()

    def failed(error: OSError | str) -> None:
        with lock:
            told["errors"].append(str(error))

    def old(i: int) -> None:
        try:
            while time.monotonic() < end:
                if not _echo(socks[i], b"during the flood"):
                    return failed("established: wrong echo")
                told["echoes"][i] += 1
                time.sleep(0.02)
        except OSError as e:
            failed(f"established: {e}")

    def new() -> None:
        while time.monotonic() < end:
            try:
                with net.create_connection((host, port), timeout=TIMEOUT) as sock:
                    if _echo(sock, b"new"):
                        with lock:
                            told["opened"] += 1
                    else:
                        failed("new: wrong echo")
            except OSError as e:
                failed(f"new: {e}")
            time.sleep(0.05)

    threads = [threading.Thread(target=old, args=(i,)) for i in range(established)]
    threads += [threading.Thread(target=new) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told
