# SPDX-License-Identifier: MIT
"""Ends of the tests that read the layers' logs: see `end.py`.

Every step waits for the test, which marks the place in the logs.
"""

from typing import Any

from tests.interop.end import Module, end, tell, wait


def step(name: str) -> None:
    """Tell the test that a step is done, and wait until it has looked."""
    tell(**{name: True})
    wait()


@end
def stream_client(net: Module, host: str, port: int) -> Any:
    """One request, step by step."""
    sock = net.socket(net.AF_INET, net.SOCK_STREAM)
    step("created")
    sock.connect((host, port))
    step("connected")
    sock.send(b"q" * 50)
    step("sent")
    data = sock.recv(100)
    step("received")
    sock.close()
    step("closed")
    return len(data)


@end
def stream_server(net: Module, port: int) -> Any:
    """The other end: answers when the test says so, and waits for the end."""
    with net.create_server(("0.0.0.0", port)) as listener:
        step("ready")
        sock, _ = listener.accept()
        with sock:
            data = sock.recv(100)
            step("asked")
            sock.send(data)
            rest = sock.recv(1)
    return len(rest)


@end
def datagram_client(net: Module, host: str, port: int, size: int) -> Any:
    """One datagram out, and one in."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        step("connected")
        sock.send(b"d" * size)
        data = sock.recv(size)
        step("received")
    return len(data)


@end
def datagram_server(net: Module, port: int) -> Any:
    """Sends one datagram back."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        step("ready")
        data, peer = sock.recvfrom(65535)
        sock.sendto(data, peer)
    return len(data)


@end
def pinger(net: Module, host: str) -> Any:
    """An echo request by a ping socket, with a raw socket of the same protocol beside it; and a
    group joined, so that a router's query is heard."""
    with (
        net.socket(net.AF_INET, net.SOCK_DGRAM, net.IPPROTO_ICMP) as ping,
        net.socket(net.AF_INET, net.SOCK_RAW, net.IPPROTO_ICMP) as raw,
    ):
        ping.sendto(b"\x08\0\0\0\0\0\0\x01echo", (host, 0))
        data = ping.recv(100)
        copy = raw.recv(100)
        step("received")
    return [len(data), len(copy)]
