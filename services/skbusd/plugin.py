# SPDX-License-Identifier: MIT
"""A plug-in transport as a process: its core in the generic shell, plugged into the stack of
SKBUS_DIR until SIGTERM or SIGINT. `examples/note` and `examples/rdm` are two.
"""

import signal
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.core.net import Core
from skbus.stack.config import Config
from skbus.stack.layer import start_log
from skbusd.shell import clock, net_arguments

_LINGER: Final = 0.3
"""Seconds for the last messages to leave."""


class PlugIn(Core, Protocol):
    """The core of a transport that can be pulled out."""

    def exit(self) -> None:
        """Tell ip and the socket layer that the transport is gone."""
        ...


async def _run(service: Service, core: PlugIn) -> None:
    async def watch(*, task_status: Any) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                core.exit()
                service.pass_once()
                await trio.sleep(_LINGER)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        await service.run()


def run_plug_in(process: str, make: Callable[..., PlugIn]) -> int:
    """Run until a signal comes. make: the core, from the arguments of a `Net`."""
    run = RunDir()
    config = Config.read(run)
    start_log(run, config, process, to_file=True, to_stderr=sys.stderr.isatty())
    core = make(**net_arguments(run, config, process))
    service = Service(core, run, neighbours=("ip", "socket"), clock=clock(config))
    service.logger.info("started")
    trio.run(_run, service, core)
    return 0
