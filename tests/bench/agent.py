# SPDX-License-Identifier: MIT
"""One end of a measured round, on the kernel's stack or on ours: the socket module is a parameter.

`bench.py` starts one agent per end. An agent reads orders from its standard input, one JSON object
a line, and answers each with one line when the round is over. An end that listens says
`{"ready": true}` first. Both ends count their bytes, and the orderer compares the counts.

The same blocking calls run on both socket modules, so every column of the table has the same cost
of the tool itself. No timeouts on streams: on the kernel's sockets they cost a poll per call. An
agent that hangs is ended by the orderer's deadline.
"""

import argparse
import importlib
import json
import resource
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

CHUNK: Final = 1 << 20
"""bytes per send and recv of the bulk rounds"""

REQUEST: Final = 64
"""bytes of a request and of a response of the connection rounds"""

DATAGRAM: Final = 64
"""bytes of a datagram: the "small packet" of RFC 2544"""

WINDOW: Final = 128
"""datagrams that may be under way; after every quarter, the answer is the count so far"""

FIN: Final = 0xFFFF_FFFF
"""instead of a datagram's number: the sender has finished"""

TCP_CONGESTION: Final = 13
LAST_REQUEST: Final = b"Q"


class Agent:
    """Carries out orders with one socket module."""

    def __init__(self, module: str) -> None:
        self.socket = importlib.import_module(module)
        self.is_kernel = module == "socket"
        self.holders: dict[int, Any] = {}
        self.held: list[Any] = []

    def _tuned(self, sock: Any, order: dict[str, Any], nodelay: bool) -> Any:
        if self.is_kernel and order.get("congestion"):
            sock.setsockopt(
                self.socket.IPPROTO_TCP, TCP_CONGESTION, str(order["congestion"]).encode()
            )
        if nodelay:
            sock.setsockopt(self.socket.IPPROTO_TCP, self.socket.TCP_NODELAY, 1)
        return sock

    def _listen(self, order: dict[str, Any]) -> Any:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_STREAM)
        self._tuned(sock, order, nodelay=False)
        sock.setsockopt(self.socket.SOL_SOCKET, self.socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", order["port"]))
        sock.listen(128)
        say({"ready": True})
        return sock

    def _connect(self, order: dict[str, Any], nodelay: bool) -> Any:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_STREAM)
        self._tuned(sock, order, nodelay)
        sock.connect((order["host"], order["port"]))
        return sock

    # ---- bulk ----------------------------------------------------------------------------

    def _send_for(self, sock: Any, seconds: float) -> dict[str, Any]:
        chunk = memoryview(bytes(CHUNK))
        sent = 0
        start = time.perf_counter()
        end = start + seconds
        while time.perf_counter() < end:
            sock.sendall(chunk)
            sent += CHUNK
        sock.shutdown(self.socket.SHUT_WR)
        if sock.recv(1):
            raise RuntimeError("the receiver of a bulk round sent data")
        return {"bytes": sent, "seconds": time.perf_counter() - start}

    def _receive(self, sock: Any) -> dict[str, Any]:
        room = memoryview(bytearray(CHUNK))
        received = 0
        start = time.perf_counter()
        while n := sock.recv_into(room):
            received += n
        return {"bytes": received, "seconds": time.perf_counter() - start}

    def serve_sink(self, order: dict[str, Any]) -> dict[str, Any]:
        """Receive until the peer has finished."""
        with self._listen(order) as listener:
            sock, _ = listener.accept()
            with sock:
                return self._receive(sock)

    def serve_source(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send for `seconds` and wait until the peer has received all."""
        with self._listen(order) as listener:
            sock, _ = listener.accept()
            with self._tuned(sock, order, nodelay=False):
                return self._send_for(sock, order["seconds"])

    def send(self, order: dict[str, Any]) -> dict[str, Any]:
        """Connect and send for `seconds`."""
        with self._connect(order, nodelay=False) as sock:
            return self._send_for(sock, order["seconds"])

    def receive(self, order: dict[str, Any]) -> dict[str, Any]:
        """Connect and receive until the peer has finished."""
        with self._connect(order, nodelay=False) as sock:
            return self._receive(sock)

    # ---- request-response ------------------------------------------------------------------

    def serve_echo(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send back all received bytes."""
        size = order.get("size", 1)
        n = 0
        with self._listen(order) as listener:
            sock, _ = listener.accept()
            with self._tuned(sock, order, nodelay=True):
                while data := sock.recv(size):
                    sock.sendall(data) if size > 1 else sock.send(data)
                    n += len(data)
        return {"bytes": n // size}

    def ping(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send messages, usually a byte, there and back, one at a time, for `seconds`."""
        size = order.get("size", 1)
        message = bytes(size)
        times: list[float] = []
        clock = time.perf_counter
        with self._connect(order, nodelay=True) as sock:
            start = before = clock()
            end = start + order["seconds"]
            while before < end:
                if size == 1:
                    sock.send(b"x")
                    left = 1 - len(sock.recv(1))
                else:
                    left = self._exchange(sock, message)
                if left:
                    raise RuntimeError("the echo closed the connection")
                after = clock()
                times.append(after - before)
                before = after
        times.sort()
        return {
            "bytes": len(times),
            "seconds": before - start,
            "p50_us": times[len(times) // 2] * 1e6,
            "p99_us": times[len(times) * 99 // 100] * 1e6,
        }

    def _exchange(self, sock: Any, message: bytes) -> int:
        """Send a message and receive the answer at the same time; returns the bytes missing."""
        sender = threading.Thread(target=sock.sendall, args=(message,))
        if len(message) > CHUNK // 2:
            sender.start()  # the echo stops reading when nobody reads its answers
        else:
            sock.sendall(message)
        left = len(message)
        while left and (got := len(sock.recv(left))):
            left -= got
        if len(message) > CHUNK // 2:
            sender.join()
        return left

    def serve_connections(self, order: dict[str, Any]) -> dict[str, Any]:
        """Accept, read a request, answer it, wait for the close; until the last request."""
        response = bytes(REQUEST)
        n = 0
        last = False
        with self._listen(order) as listener:
            while not last:
                sock, _ = listener.accept()
                with sock:
                    request = sock.recv(REQUEST)
                    while len(request) < REQUEST and (more := sock.recv(REQUEST - len(request))):
                        request += more
                    last = request[:1] == LAST_REQUEST
                    sock.sendall(response)
                    n += 1
                    if sock.recv(1):
                        raise RuntimeError("more than one request on a connection")
        return {"bytes": n}

    def connections(self, order: dict[str, Any]) -> dict[str, Any]:
        """Connect, ask, read the answer, close; one at a time, for `seconds`."""
        n = 0
        start = now = time.perf_counter()
        end = start + order["seconds"]
        last = False
        while not last:
            last = now >= end
            with self._connect(order, nodelay=True) as sock:
                sock.sendall((LAST_REQUEST if last else b"x") * REQUEST)
                left = REQUEST
                while left:
                    got = len(sock.recv(left))
                    if not got:
                        raise RuntimeError("closed in the middle of a response")
                    left -= got
            n += 1
            now = time.perf_counter()
        return {"bytes": n, "seconds": now - start}

    # ---- datagrams -------------------------------------------------------------------------

    def _datagrams_out(self, sock: Any, seconds: float) -> dict[str, Any]:
        """Send numbered datagrams, WINDOW under way at most: this measures the rate without loss,
        not the losses of a full queue. Where an answer is lost, the window opens after 50 ms."""
        filler = bytes(DATAGRAM - 4)
        sent = acked = 0
        start = time.perf_counter()
        end = start + seconds
        while time.perf_counter() < end:
            while sent - acked < WINDOW:
                sock.send(sent.to_bytes(4, "big") + filler)
                sent += 1
            sock.settimeout(0.05)
            try:
                acked = max(acked, int.from_bytes(sock.recv(DATAGRAM), "big"))
            except TimeoutError:
                acked = sent
            sock.settimeout(None)
        elapsed = time.perf_counter() - start
        sock.settimeout(0.1)
        for _ in range(20):
            try:
                sock.send(FIN.to_bytes(4, "big") + filler)
                while int.from_bytes(sock.recv(DATAGRAM), "big") != FIN:
                    pass
                break
            except (TimeoutError, ConnectionRefusedError):
                pass
        return {"bytes": sent, "seconds": elapsed}

    def _datagrams_in(self, sock: Any) -> dict[str, Any]:
        received = 0
        start = last = 0.0
        step = WINDOW // 4
        recv = sock.recv
        while True:
            data = recv(DATAGRAM)
            if data[:4] == b"\xff\xff\xff\xff":
                break
            if not received:
                start = time.perf_counter()
            received += 1
            if not received % step:
                last = time.perf_counter()
                sock.send(received.to_bytes(4, "big"))
        with suppress(ConnectionRefusedError):  # one has arrived, and the peer has closed
            for _ in range(3):
                sock.send(data)
        return {"bytes": received, "seconds": last - start}

    def _datagram_server(self, order: dict[str, Any]) -> Any:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", order["port"]))
        say({"ready": True})
        _, address = sock.recvfrom(DATAGRAM)
        sock.connect(address)
        return sock

    def _datagram_client(self, order: dict[str, Any]) -> Any:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_DGRAM)
        sock.connect((order["host"], order["port"]))
        sock.send(b"hello")
        return sock

    def serve_datagram_sink(self, order: dict[str, Any]) -> dict[str, Any]:
        """Count datagrams."""
        with self._datagram_server(order) as sock:
            sock.send(b"hello")
            return self._datagrams_in(sock)

    def serve_datagram_source(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send datagrams for `seconds`."""
        with self._datagram_server(order) as sock:
            return self._datagrams_out(sock, order["seconds"])

    def datagrams_send(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say hello, send datagrams for `seconds`."""
        with self._datagram_client(order) as sock:
            sock.recv(DATAGRAM)
            return self._datagrams_out(sock, order["seconds"])

    def datagrams_receive(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say hello, count datagrams."""
        with self._datagram_client(order) as sock:
            return self._datagrams_in(sock)

    # ---- idle connections --------------------------------------------------------------------

    def hold_accept(self, order: dict[str, Any]) -> dict[str, Any]:
        """Accept `count` connections and keep them."""
        holder = self.holders.get(order["port"])
        if holder is None:
            holder = self.holders[order["port"]] = self._listen(order)
        else:
            say({"ready": True})
        for _ in range(order["count"]):
            self.held.append(holder.accept()[0])
        return {"held": len(self.held)}

    def hold_connect(self, order: dict[str, Any]) -> dict[str, Any]:
        """Open `count` connections and keep them."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = len(self.held) + order["count"] + 100
        if soft < wanted:
            if hard < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            else:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        for _ in range(order["count"]):
            self.held.append(self._connect(order, nodelay=False))
        return {"held": len(self.held)}

    def hold_release(self, order: dict[str, Any]) -> dict[str, Any]:
        """Close them."""
        held, self.held = self.held, []
        for sock in held:
            sock.close()
        for holder in self.holders.values():
            holder.close()
        self.holders.clear()
        return {"held": len(held)}


OPS: Final = (
    "serve_sink serve_source send receive serve_echo ping serve_connections connections "
    "serve_datagram_sink serve_datagram_source datagrams_send datagrams_receive "
    "hold_accept hold_connect hold_release"
).split()


def say(answer: dict[str, Any]) -> None:
    """One line to the orderer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="socket", help="socket, or skbus.socket")
    agent = Agent(parser.parse_args().socket)
    say({"started": True})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["op"] not in OPS:
                raise ValueError(f"no such order: {order['op']}")
            say(getattr(agent, order["op"])(order))
        except (OSError, RuntimeError, ValueError, KeyError) as e:
            say({"error": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    main()
