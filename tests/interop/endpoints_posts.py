# SPDX-License-Identifier: MIT
"""Ends of the tests of posted sends (see `end.py`)."""

import os
import signal
import struct
import threading
import time
from typing import Any

from tests.interop.end import Module, end, error_name, listening

COUNT = 3000


def number(n: int) -> bytes:
    return b"%07d\n" % n


@end
def read_numbers(net: Module, host: str, port: int) -> Any:
    """Say that the server may begin, and read to the end: (how many numbers came, in order?)"""
    with net.create_connection((host, port)) as sock:
        sock.sendall(b"g")
        data = b""
        while more := sock.recv(1 << 16):
            data += more
    return [len(data) // 8, data == b"".join(map(number, range(len(data) // 8)))]


def accepted(net: Module, port: int) -> Any:
    with listening(net, port) as listener:
        sock, _ = listener.accept()
    sock.recv(1)
    return sock


@end
def send_and_die(net: Module, port: int) -> None:
    """Send, and be killed in the instant after the last send."""
    sock = accepted(net, port)
    for n in range(COUNT):
        sock.send(number(n))
    os.kill(os.getpid(), signal.SIGKILL)


@end
def send_and_close(net: Module, port: int) -> Any:
    """Send, and close at once."""
    sock = accepted(net, port)
    for n in range(COUNT):
        sock.sendall(memoryview(number(n)))
    sock.close()
    return "closed"


@end
def send_by_threads(net: Module, port: int) -> Any:
    """The numbers go out by several threads in turn, while others make calls, and one waits to
    receive: all have channels of their own. Another thread ends the sending."""
    sock = accepted(net, port)
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            sock.getsockname()
            sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)

    waiting = [threading.Thread(target=others, daemon=True) for _ in range(2)]
    waiting.append(threading.Thread(target=sock.recv, args=(1,), daemon=True))
    for thread in waiting:
        thread.start()
    turn = threading.Condition()
    left = list(reversed(range(COUNT)))

    def send() -> None:
        while True:
            with turn:
                if not left:
                    return
                sock.send(number(left.pop()))

    senders = [threading.Thread(target=send) for _ in range(3)]
    for thread in senders:
        thread.start()
    for thread in senders:
        thread.join()
    last = threading.Thread(target=sock.shutdown, args=(net.SHUT_WR,))
    last.start()
    last.join()
    over.set()
    waiting[-1].join(30)
    sock.close()
    return "closed"


@end
def reset_after_hello(net: Module, host: str, port: int) -> Any:
    """Connect, read a byte, and reset the connection."""
    with net.create_connection((host, port)) as sock:
        sock.sendall(b"g")
        sock.recv(1)
        sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, struct.pack("=ii", 1, 0))
    return "reset"


@end
def send_until_error(net: Module, port: int) -> Any:
    """Errors of sends to a connection that is reset meanwhile: the first, and those after it."""
    sock = accepted(net, port)
    told: list[str] = []
    sent = 0
    until = time.monotonic() + 30
    while len(told) < 3 and time.monotonic() < until:
        try:
            sock.send(b"x")
            sent += 1
        except OSError as e:
            told.append(error_name(e))
    sock.close()
    return [sent > 0, told]


@end
def send_after_the_end(net: Module, port: int) -> Any:
    """recv tells of the reset: the very next send must know."""
    sock = accepted(net, port)
    told: list[str] = []
    sock.send(b"x")
    for call, argument in ((sock.recv, 1), (sock.send, b"x"), (sock.send, b"x")):
        try:
            told.append(str(call(argument)))
        except OSError as e:
            told.append(error_name(e))
    sock.close()
    return told
