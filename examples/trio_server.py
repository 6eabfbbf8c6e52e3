# SPDX-License-Identifier: MIT
"""A trio server on our stack: it tells each client its own address, and ends after COUNT of them.

skbus lab up
python examples/trio_server.py 7777 3 &
skbus lab exec -- nc 10.77.0.2 7777
"""

import sys
from functools import partial

import trio

from skbus import trio as skbus_trio


async def main(port: int, count: int) -> None:
    """Serve `count` clients, one line each."""
    skbus_trio.install()  # trio's sockets are ours from here on
    served = 0

    async with trio.open_nursery() as nursery:

        async def greet(stream: trio.SocketStream) -> None:
            nonlocal served
            host, port = stream.socket.getpeername()
            await stream.send_all(f"hello, {host} port {port}\n".encode())
            await stream.aclose()
            served += 1
            if served == count:
                nursery.cancel_scope.cancel()

        await nursery.start(partial(trio.serve_tcp, greet, port))
        sys.stdout.write("listening\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
