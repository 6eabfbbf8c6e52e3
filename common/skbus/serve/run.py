# SPDX-License-Identifier: MIT
"""Run one of the sample servers in this thread."""

import signal
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from skbus.serve.simple import chargen, discard, echo
from skbus.serve.web import http

SERVERS: Final[dict[str, Callable[..., Any]]] = {
    "chargen": chargen,
    "discard": discard,
    "echo": echo,
    "http": http,
}

Greeting = Callable[[int], Iterable[str]]
"""What to say when it listens, at a port."""


def run(kind: str, host: str = "", port: int = 0, greeting: Greeting | None = None) -> None:
    """Serve until SIGINT (Ctrl-C) or SIGTERM. kind: http, echo, discard or chargen; ValueError
    else. OSError where the port is taken, or the stack ends."""
    server = SERVERS.get(kind)
    if server is None:
        raise ValueError(f"no server {kind!r}; there are {', '.join(sorted(SERVERS))}")
    trio.run(_main, server, host, port, greeting)


async def _main(
    server: Callable[..., Any], host: str, port: int, greeting: Greeting | None
) -> None:
    """The server beside who waits for its end. Its own error leaves alone, not as a group."""
    failure: OSError | None = None

    async def serve(*, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal failure
        try:
            await server(host, port, task_status=task_status)
        except OSError as e:
            failure = e
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

    async def watch(*, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        loop = await nursery.start(serve)
        for line in greeting(loop.port) if greeting is not None else ():
            print(line, flush=True)  # noqa: T201 what a person runs it for
    if failure is not None:
        raise failure
