# SPDX-License-Identifier: MIT
"""One end of work that is done an exact number of times, so that what it takes can be counted
(`operations.py`). Orders come as for `agent.py`: {"op": "serve" or "ask", "work", "port", "host"}
makes the socket and warms up; {"op": "do", "count"} does the work so often."""

import argparse
import importlib
import json
import sys
from typing import Any, Final

REQUEST: Final = 64
DATAGRAM: Final = 64
WARM_UP: Final = 20


def say(answer: dict[str, Any]) -> None:
    """One line to the orderer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Agent:
    """Carries out orders with one socket module."""

    def __init__(self, module: str) -> None:
        self.socket = importlib.import_module(module)
        self.sock: Any = None
        self.once: Any = None
        self.address: tuple[str, int] = ("", 0)

    def serve(self, order: dict[str, Any]) -> None:
        """Be the end that answers."""
        s = self.socket
        kind = s.SOCK_DGRAM if order["work"] == "datagram" else s.SOCK_STREAM
        sock = s.socket(s.AF_INET, kind)
        sock.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", order["port"]))
        if order["work"] != "datagram":
            sock.listen(16)
        say({"ready": True})
        if order["work"] == "rr":
            sock, _ = sock.accept()
            sock.setsockopt(s.IPPROTO_TCP, s.TCP_NODELAY, 1)
        self.sock = sock
        self.once = getattr(self, f"serve_{order['work']}")

    def ask(self, order: dict[str, Any]) -> None:
        """Be the end that begins."""
        s = self.socket
        self.address = order["host"], order["port"]
        if order["work"] != "crr":
            kind = s.SOCK_DGRAM if order["work"] == "datagram" else s.SOCK_STREAM
            self.sock = s.socket(s.AF_INET, kind)
            if order["work"] == "rr":
                self.sock.setsockopt(s.IPPROTO_TCP, s.TCP_NODELAY, 1)
            self.sock.connect(self.address)
        self.once = getattr(self, f"ask_{order['work']}")

    def serve_rr(self) -> None:
        self.sock.send(self.sock.recv(1))

    def ask_rr(self) -> None:
        self.sock.send(b"x")
        self.sock.recv(1)

    def serve_crr(self) -> None:
        sock, _ = self.sock.accept()
        with sock:
            sock.recv(REQUEST)
            sock.sendall(bytes(REQUEST))
            sock.recv(1)

    def ask_crr(self) -> None:
        s = self.socket
        with s.socket(s.AF_INET, s.SOCK_STREAM) as sock:
            sock.setsockopt(s.IPPROTO_TCP, s.TCP_NODELAY, 1)
            sock.connect(self.address)
            sock.sendall(bytes(REQUEST))
            sock.recv(REQUEST)

    def serve_datagram(self) -> None:
        data, address = self.sock.recvfrom(DATAGRAM)
        self.sock.sendto(data, address)

    def ask_datagram(self) -> None:
        self.sock.send(bytes(DATAGRAM))
        self.sock.recv(DATAGRAM)

    def do(self, count: int) -> None:
        """Do the work."""
        for _ in range(count):
            self.once()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="socket", help="socket, or skbus.socket")
    agent = Agent(parser.parse_args().socket)
    say({"started": True})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["op"] == "do":
                agent.do(order["count"])
            else:
                (agent.serve if order["op"] == "serve" else agent.ask)(order)
                agent.do(WARM_UP)
            say({"done": True})
        except (OSError, RuntimeError, ValueError, KeyError) as e:
            say({"error": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    main()
