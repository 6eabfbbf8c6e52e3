# SPDX-License-Identifier: MIT
"""`python -m skbus_rdm`: the rdm process, plugged into the stack of SKBUS_DIR until SIGTERM."""

import signal
import sys
from typing import Any, Final

import trio

from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.stack.config import Config
from skbus.stack.layer import start_log
from skbus_rdm.core import RdmCore
from skbus_rdm.netns import RdmNet
from skbusd.shell import clock, net_arguments

_LINGER: Final = 0.3
"""Seconds for what is said at the end to leave."""


async def _run(service: Service, core: RdmCore) -> None:
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


def main() -> int:
    """Run until a signal comes."""
    run = RunDir()
    config = Config.read(run)
    start_log(run, config, "rdm", to_file=True, to_stderr=sys.stderr.isatty())
    core = RdmCore(RdmNet(**net_arguments(run, config, "rdm")))
    service = Service(core, run, neighbours=("ip", "socket"), clock=clock(config))
    service.logger.info("started")
    trio.run(_run, service, core)
    return 0


sys.exit(main())
