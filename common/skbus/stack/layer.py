# SPDX-License-Identifier: MIT
"""One layer of the stack, run in this process: its logs, its service, until a signal ends it. With
`--fuse`, several layers run in one process and one loop.

Called in each child of the supervisor (`skbus.stack.supervise`), and by the command `skbusd LAYER`.
What is a layer's own (its core, its devices and sockets) comes from `make_service` in the module
`main` of the layer's package. The library does not import the layers: this module loads one by its
name, and no other does.
"""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from skbus.bus import log
from skbus.bus.clock import StackClock
from skbus.bus.linux import set_name
from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.stack import interpreted
from skbus.stack.config import Config, Device
from skbus.stack.sources import Sources

LAYERS_PACKAGE: Final = "skbusd"
"""Where the layers are: a package each, with a module `main`."""

_NAME: Final = "skbus.stack.layer"
"""This module's name, even where it is the program."""


def run_process(
    run: RunDir,
    config: Config,
    process: str,
    fd: int | None = None,
    others: Sequence[str] = (),
) -> None:
    """Run one layer until SIGTERM or SIGINT. The caller has set the logs up.

    process: "nic.eth0", "ip", "tcp" (of several: "tcp.0", ...), "udp" or "socket". fd: nic's open
    device, if the supervisor holds it. others: layers above it that live in the same process.
    """
    loop = Loop()
    services = [_main_of(process).make_service(run, config, process, fd, loop)]
    services += [_main_of(other).make_service(run, config, other, None, loop) for other in others]
    for service in services:
        service.net.tracing = log.get_level(service.net.name) == "debug"
        service.control.restore()
        _say_started(service)
    gc.collect()
    gc.freeze()  # what is there now stays: no need to look through it again and again
    gc.set_threshold(50_000, 20, 50)  # packets make no cycles
    try:
        trio.run(_until_signal, loop)
    except BaseException as e:
        for service in services:
            net = service.net
            log.log_batch(service.logger, net.log_events, net.trace_events, net.name)
            service.logger.error("crashed", exc_info=e)
        raise
    for service in services:
        service.logger.info("stopped")


def _say_started(service: Any) -> None:
    """The first line of a life; of a later one, that the trace has a hole here."""
    epoch = service.net.epoch
    if epoch == 1:
        service.logger.info("started", pid=os.getpid(), epoch=epoch)
    else:
        text = f"life {epoch}: what was in flight in this process, and not logged, is lost"
        service.logger.warning("restarted", pid=os.getpid(), epoch=epoch, text=text)


def load(processes: Iterable[str]) -> Sources:
    """Load the modules of layers, before these are forked. Returns what is loaded then."""
    for process in processes:
        with suppress(Exception):  # it fails once more in its own process, which says so
            _main_of(process)
    return Sources()


def run_supervised(
    run: RunDir,
    config: Config,
    process: str,
    fd: int | None,
    *,
    to_stderr: bool = False,
    sources: Sources | None = None,
) -> None:
    """A child of the supervisor: logs to RUN/log, and to standard error if there is a person.

    It reads the configuration anew: `skbus sysctl` may have changed it since the stack began.
    sources: what the supervisor has loaded. Where that is no longer what is on the disk, this
    becomes a fresh Python.
    """
    if run.config_file.exists():
        config = Config.read(run)
    arguments = (run.path, process, fd, int(to_stderr))
    if interpreted.wanted(config, process):
        _keep(fd)
        interpreted.become(_NAME, *arguments)
    if sources is not None and sources.changed():
        _keep(fd)
        os.execv(sys.executable, [sys.executable, "-P", "-m", _NAME, *map(str, arguments)])
    others = config.living_with(process)[1:]
    start_log(run, config, process, to_file=True, to_stderr=to_stderr)
    for other in others:
        start_log(run, config, other, to_file=True, to_stderr=to_stderr, beside=True)
    run_process(run, config, process, fd, others)


def _keep(fd: int | None) -> None:
    """A descriptor outlives the program."""
    if fd is not None:
        os.set_inheritable(fd, True)


def main(argv: Sequence[str]) -> int:
    """A child of the supervisor that has become a fresh Python.

    argv: the run directory, the process, nic's descriptor or "None", and 1 if it logs to standard
    error as well.
    """
    path, process, descriptor, to_stderr = argv
    set_name(f"skbusd {process}")
    fd = None if descriptor == "None" else int(descriptor)
    if fd is not None:
        os.set_inheritable(fd, False)
    run = RunDir(path)
    run_supervised(run, Config.read(run), process, fd, to_stderr=to_stderr == "1")
    return 0


def open_device(device: Device) -> int | None:
    """Open a device's descriptor for the supervisor to hold; nic gets it by `fd`."""
    fd: int | None = _main_of(device.process).open_device(device)
    return fd


def _main_of(process: str) -> Any:
    """The module that makes a layer's service."""
    return importlib.import_module(f"{LAYERS_PACKAGE}.{process.split('.')[0]}.main")


async def _until_signal(loop: Loop) -> None:
    async def watch(*, task_status: Any) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        await loop.run()
        nursery.cancel_scope.cancel()


def start_log(
    run: RunDir,
    config: Config,
    process: str,
    *,
    to_file: bool,
    to_stderr: bool,
    beside: bool = False,
) -> Any:
    """Set up this process's logs as the configuration has it. beside: it has others already."""
    return log.configure(
        process,
        config.log.level_of(process),
        path=run.log_file(process) if to_file else None,
        stream=sys.stderr if to_stderr else None,
        format=config.log.format,
        clock=StackClock(config.clock.time_scale),
        beside=beside,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
