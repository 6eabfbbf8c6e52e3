# SPDX-License-Identifier: MIT
"""A scenario in Python, with a protocol of its own: a session of several steps is one request.

The server is the built-in echo server, so that the scenario runs as it is; a protocol of yours
would give `host` and `port`.
"""

import trio

from skbus.load.client import Client, LoadFailure
from skbus.load.wire import ECHO, payload


class Login(Client):
    """Connects, asks three times with a short look at each answer, and leaves."""

    protocol = "login"

    async def request(self) -> None:
        await self.connect()
        for step, size in enumerate((40, 200, self.response_size())):
            await self.send(ECHO.pack(20, size) + payload(20))
            if await self.receive(size) != payload(size):
                raise LoadFailure(f"wrong answer in step {step}")
            await trio.sleep(self.rand.uniform(0.001, 0.01))
        await self.close()


def scenario() -> dict[str, object]:
    """A busy morning: more and more people log in."""
    return {
        "description": "People log in, more and more of them.",
        "assert": ["errors == 0", "morning.p99 < 1s"],
        "flow": [
            {
                "name": "morning",
                "protocol": "login",
                "rate": 20,
                "clients": 50,
                "response": "lognormal(2KiB, 1) max 64KiB",
            }
        ],
        "phase": [
            {"name": f"hour-{hour}", "duration": "2s", "load": hour / 4} for hour in range(1, 5)
        ],
    }
