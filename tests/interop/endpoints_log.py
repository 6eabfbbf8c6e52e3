# SPDX-License-Identifier: MIT
"""Ends of the tests that read the layers' logs: see `endpoints.py`, of whose kind this is.

Every step waits for the test, which marks the place in the logs.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

Module = Any


def step(name: str) -> None:
    """Tell the test that a step is done, and wait until it has looked."""
    sys.stdout.write(json.dumps({name: True}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


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


def datagram_client(net: Module, host: str, port: int, size: int) -> Any:
    """One datagram out, and one in."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        step("connected")
        sock.send(b"d" * size)
        data = sock.recv(size)
        step("received")
    return len(data)


def datagram_server(net: Module, port: int) -> Any:
    """Sends one datagram back."""
    with net.socket(net.AF_INET, net.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        step("ready")
        data, peer = sock.recvfrom(65535)
        sock.sendto(data, peer)
    return len(data)


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


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (stream_client, stream_server, datagram_client, datagram_server, pinger)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="socket")
    parser.add_argument("name", choices=FUNCTIONS)
    parser.add_argument("arguments", type=json.loads)
    told = parser.parse_args()
    net = importlib.import_module(told.socket)
    sys.stdout.write(json.dumps({"result": FUNCTIONS[told.name](net, **told.arguments)}) + "\n")


if __name__ == "__main__":
    main()
