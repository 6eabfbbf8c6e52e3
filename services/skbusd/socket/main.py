# SPDX-License-Identifier: MIT
"""The socket process: its core in the generic shell, with system calls as its source."""

import time

from skbus.bus.loop import Loop, Part
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.stack.config import Config
from skbusd.shell import allocator, clock, net_arguments, plug_ins
from skbusd.socket.core import SocketCore
from skbusd.socket.kmod import ModuleSource
from skbusd.socket.modalias import ModAlias
from skbusd.socket.netns import SocketNet
from skbusd.socket.router import SyscallSource

POOL_CLASSES = ((2048, 8192), (16384, 2048), (66560, 512))
"""Slots for payload that applications send inline: small writes, and streams of them."""


def make_service(
    run: RunDir, config: Config, process: str, fd: int | None = None, loop: Loop | None = None
) -> Service:
    """The socket layer, ready to run."""
    arguments = net_arguments(run, config, process)
    allocator(run, arguments, POOL_CLASSES)
    net = SocketNet(**arguments, tcp_shards=config.tcp_shards)
    stack_clock = clock(config)
    net.tk_real_offset = time.time_ns() - stack_clock.now()
    core = SocketCore(net)
    core.net.modprobe = ModAlias(core.net, config.module_alias)
    modules = ModuleSource(core, config.modules)
    loop = loop or Loop()
    part = Part(loop, None, None, None)
    calls = SyscallSource(core, run, part)
    service = Service(
        core,
        run,
        neighbours=(
            *config.neighbours("ip", "tcp", "udp"),
            *plug_ins(run, config),
        ),
        sources=(modules, calls),
        clock=stack_clock,
        loop=loop,
    )
    part.belong(service, calls)
    modules.service = service
    service.control.methods.update(modules.methods())
    return service
