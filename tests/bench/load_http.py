# SPDX-License-Identifier: MIT
"""The cost of a request in `skbus load`'s HTTP client, and in one by h11.

    python tests/bench/load_http.py [ROUNDS]

One client over the loopback, 64 bytes an answer, keep-alive. Rounds of 3,000 requests take turns in
this process; the server is another process. Processor time is the client's alone, because that
limits a load.
"""

import json
import statistics
import subprocess
import sys
import time
from random import Random

import h11
import trio

from skbus.load import wire
from skbus.load.client import Client, Http, LoadFailure, Tally
from skbus.load.scenario import Flow

REQUESTS = 3000


class ByH11(Http):
    """The same client by h11."""

    protocol = "http by h11"

    async def request(self) -> None:
        if self.sock is None:
            await self.connect()
            self.http = h11.Connection(our_role=h11.CLIENT)
        http = self.http
        size = self.response_size()
        head = h11.Request(
            method="GET",
            target=f"/bytes/{size}",
            headers=[("Host", "127.0.0.1"), ("User-Agent", "skbus-load")],
        )
        await self.send(http.send(head) or b"")
        http.send(h11.EndOfMessage())
        got = 0
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self.receive_some())
            elif isinstance(event, h11.Data):
                if event.data != wire.piece(got, len(event.data)):
                    raise LoadFailure("corrupt")
                got += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        http.start_next_cycle()
        await self.finish()


async def measure(port: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of processor time a request, for each client and round."""
    flow = Flow(name="f", protocol="http")
    kinds: dict[str, type[Client]] = {"ours": Http, "h11": ByH11}
    clients = {
        name: kind(flow, ("127.0.0.1", port), Random(1), Tally(), lambda _: None)
        for name, kind in kinds.items()
    }
    took: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name, client in clients.items():
            began = time.process_time()
            for _ in range(REQUESTS):
                await client.request()
            took[name].append((time.process_time() - began) / REQUESTS * 1e6)
    for client in clients.values():
        await client.close()
    return took


def main(rounds: int) -> None:
    """Print a line for each client."""
    job = {"side": "linux", "address": "127.0.0.1", "any_port": True}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "skbus.load.child", "server", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = json.loads(server.stdout.readline())["ports"]["http"]
        for name, took in trio.run(measure, port, rounds).items():
            middle = statistics.median(took)
            each = " ".join(f"{t:.0f}" for t in took)
            sys.stdout.write(
                f"{name:<5} {middle:5.1f} us a request ({1e6 / middle:.0f}/s): {each}\n"
            )
        server.stdin.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
