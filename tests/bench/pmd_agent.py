# SPDX-License-Identifier: MIT
"""The serving end of a measured round on pmd-pytcp, the maintained pure-Python stack on PyPI.

Takes the same orders as `agent.py`. pmd-pytcp runs on the application's event loop. So this end is
a coroutine for each order, in the stack's own process: its fastest arrangement. Its `send` takes
any amount at once, so we wait while too much is queued, as with a kernel's send buffer.

pmd-pytcp is GPL: it is installed separately and used by its documented interface. None of its code
is here.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Any, Final

from agent import CHUNK, DATAGRAM, FIN, LAST_REQUEST, REQUEST, WINDOW, say

QUEUED_MAX: Final = 256 * 1024
"""bytes in pmd-pytcp's send queue above which the application waits"""

TIMED_OUT: Final = (TimeoutError, asyncio.TimeoutError)


class PmdAgent:
    """Carries out the serving orders."""

    def __init__(self) -> None:
        from pmd_pytcp import socket

        self.socket = socket

    def _listen(self, order: dict[str, Any]) -> Any:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_STREAM)
        sock.bind(("0.0.0.0", order["port"]))
        sock.listen(backlog=128)
        say({"ready": True})
        return sock

    async def _accept_one(self, order: dict[str, Any]) -> Any:
        listener = self._listen(order)
        sock, _ = await listener.accept()
        listener.close()
        sock.setsockopt(self.socket.IPPROTO_TCP, self.socket.TCP_NODELAY, 1)
        return sock

    async def serve_sink(self, order: dict[str, Any]) -> dict[str, Any]:
        sock = await self._accept_one(order)
        received = 0
        start = time.perf_counter()
        while data := await sock.recv(CHUNK):
            received += len(data)
        elapsed = time.perf_counter() - start
        sock.close()
        return {"bytes": received, "seconds": elapsed}

    async def serve_source(self, order: dict[str, Any]) -> dict[str, Any]:
        sock = await self._accept_one(order)
        chunk = bytes(QUEUED_MAX // 4)
        sent = 0
        start = time.perf_counter()
        end = start + order["seconds"]
        while time.perf_counter() < end:
            if sock.status().tx_buffer_len < QUEUED_MAX:
                sent += await sock.send(chunk)
            await asyncio.sleep(0)
        while sock.status().tx_buffer_len:
            await asyncio.sleep(0.001)
        sock.close()
        return {"bytes": sent, "seconds": time.perf_counter() - start}

    async def serve_echo(self, order: dict[str, Any]) -> dict[str, Any]:
        sock = await self._accept_one(order)
        n = 0
        while data := await sock.recv(1):
            await sock.send(data)
            n += 1
        sock.close()
        return {"bytes": n}

    async def serve_connections(self, order: dict[str, Any]) -> dict[str, Any]:
        listener = self._listen(order)
        n = 0
        last = False
        while not last:
            sock, _ = await listener.accept()
            request = await sock.recv(REQUEST)
            while len(request) < REQUEST:
                request += await sock.recv(REQUEST - len(request))
            last = request[:1] == LAST_REQUEST
            await sock.send(bytes(REQUEST))
            n += 1
            await sock.recv(1)
            sock.close()
        listener.close()
        return {"bytes": n}

    async def _datagram_peer(self, order: dict[str, Any]) -> tuple[Any, tuple[str, int]]:
        sock = self.socket.socket(self.socket.AF_INET, self.socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", order["port"]))
        say({"ready": True})
        _, peer = await sock.recvfrom(DATAGRAM)
        return sock, peer

    async def serve_datagram_sink(self, order: dict[str, Any]) -> dict[str, Any]:
        sock, peer = await self._datagram_peer(order)
        await sock.sendto(b"hello", peer)
        received = 0
        start = last = 0.0
        while True:
            data, _ = await sock.recvfrom(DATAGRAM)
            if data[:4] == b"\xff\xff\xff\xff":
                break
            if not received:
                start = time.perf_counter()
            received += 1
            if not received % (WINDOW // 4):
                last = time.perf_counter()
                await sock.sendto(received.to_bytes(4, "big"), peer)
        for _ in range(3):
            await sock.sendto(data, peer)
        sock.close()
        return {"bytes": received, "seconds": last - start}

    async def serve_datagram_source(self, order: dict[str, Any]) -> dict[str, Any]:
        sock, peer = await self._datagram_peer(order)
        filler = bytes(DATAGRAM - 4)
        sent = acked = 0
        start = time.perf_counter()
        end = start + order["seconds"]
        while time.perf_counter() < end:
            while sent - acked < WINDOW:
                await sock.sendto(sent.to_bytes(4, "big") + filler, peer)
                sent += 1
            try:
                answer, _ = await sock.recvfrom(DATAGRAM, timeout=0.05)
                acked = max(acked, int.from_bytes(answer, "big"))
            except TIMED_OUT:
                acked = sent
        elapsed = time.perf_counter() - start
        for _ in range(20):
            await sock.sendto(FIN.to_bytes(4, "big") + filler, peer)
            try:
                answer, _ = await sock.recvfrom(DATAGRAM, timeout=0.1)
                if answer[:4] == b"\xff\xff\xff\xff":
                    break
            except TIMED_OUT:
                pass
        sock.close()
        return {"bytes": sent, "seconds": elapsed}


async def run(interface: str, address: str) -> None:
    """Bring the stack up on a TAP, then carry out orders until standard input ends."""
    from pmd_net_addr import Ip4IfAddr
    from pmd_pytcp import stack

    stack.init()
    stack.add_interface(
        **stack.initialize_interface__tap(interface_name=interface),
        ip4_host=Ip4IfAddr(address),
        ip6_support=False,
    )
    await stack.start()
    agent = PmdAgent()
    say({"started": True})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            say(await getattr(agent, order["op"])(order))
        except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as e:
            say({"error": f"{type(e).__name__}: {e}"})
    await stack.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interface", default="tap7")
    parser.add_argument("--address", required=True, help="such as 10.78.0.2/24")
    options = parser.parse_args()
    asyncio.run(run(options.interface, options.address))


if __name__ == "__main__":
    main()
