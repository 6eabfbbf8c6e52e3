# SPDX-License-Identifier: MIT
"""The udp process: its core in the generic shell."""

from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.stack.config import Config
from skbusd.shell import clock, net_arguments
from skbusd.udp.core import UdpCore
from skbusd.udp.netns import UdpNet


def make_service(
    run: RunDir, config: Config, process: str, fd: int | None = None, loop: Loop | None = None
) -> Service:
    """udp, ready to run."""
    net = UdpNet(**net_arguments(run, config, process))
    neighbours = config.neighbours("ip", "socket")
    return Service(UdpCore(net), run, neighbours=neighbours, clock=clock(config), loop=loop)
