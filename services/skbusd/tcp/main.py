# SPDX-License-Identifier: MIT
"""The tcp process: its core in the generic shell."""

from skbus.config import Config
from skbus.rundir import RunDir
from skbus.service import Service
from skbusd.shell import clock, net_arguments
from skbusd.tcp.core import TcpCore
from skbusd.tcp.netns import TcpNet


def make_service(run: RunDir, config: Config, process: str, fd: int | None = None) -> Service:
    """tcp, ready to run."""
    net = TcpNet(**net_arguments(run, config, process))
    neighbours = tuple(layer for layer in ("ip", "socket") if layer in config.layers)
    return Service(TcpCore(net), run, neighbours=neighbours, clock=clock(config))
