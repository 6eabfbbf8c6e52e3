# SPDX-License-Identifier: MIT
"""The ip process: its core in the generic shell."""

from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.stack.config import Config
from skbusd.ip.core import IpCore
from skbusd.ip.netns import DeviceConfig, IpConfig, IpNet, RouteConfig
from skbusd.shell import allocator, clock, net_arguments, nics, plug_ins


def ip_config(config: Config) -> IpConfig:
    """ip's part of the configuration of a stack."""
    return IpConfig(
        devices=tuple(
            DeviceConfig(d.name, tuple(d.addr), d.gateway or "", d.process) for d in config.devices
        ),
        routes=tuple(
            RouteConfig(
                r.dst,
                r.gateway or "",
                r.dev or "",
                type=r.type,
                metric=r.metric,
                prefsrc=r.prefsrc or "",
                mtu=r.mtu,
            )
            for r in config.routes
        ),
        tcp_shards=config.tcp_shards,
        rss_key=bytes.fromhex(config.rss_key),
    )


def make_service(
    run: RunDir, config: Config, process: str, fd: int | None = None, loop: Loop | None = None
) -> Service:
    """ip, ready to run."""
    arguments = net_arguments(run, config, process)
    # Reassembled datagrams, and copies for the loopback, lie in a region of ip's own.
    allocator(run, arguments, ((2048, 1024), (16384, 128), (66560, 256)))
    net = IpNet(**arguments, config=ip_config(config))
    transports = config.neighbours("tcp", "udp", "socket")
    neighbours = (*nics(config), *transports, *plug_ins(run, config))
    return Service(IpCore(net), run, neighbours=neighbours, clock=clock(config), loop=loop)
