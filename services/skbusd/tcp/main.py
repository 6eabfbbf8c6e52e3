# SPDX-License-Identifier: MIT
"""The tcp process: its core in the generic shell."""

from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.stack.config import Config, ConfigError
from skbusd.shell import clock, net_arguments
from skbusd.tcp.congestion_plugins import CongestionControlError, register_congestion_controls
from skbusd.tcp.core import TcpCore, tcp_register_own_congestion_controls
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sk_lock import tcp_release_slices
from skbusd.tcp.tcp_cong import CONGESTION_CONTROL


def _congestion_controls(net: TcpNet, config: Config) -> None:
    """Register our own controls, installed ones, and those of the configuration."""
    tcp_register_own_congestion_controls(net)
    try:
        register_congestion_controls(net, config.congestion_control)
    except CongestionControlError as e:
        raise ConfigError(f"congestion_control: {e}") from None
    wanted = net.sysctl[CONGESTION_CONTROL]
    if wanted not in net.cong:
        net.warning(
            "tcp_assign_congestion_control", wanted=wanted, used="reno", have=sorted(net.cong)
        )


class SliceSource:
    """A source without descriptors: sends that keep their sockets go on at once (sk_lock.py)."""

    def __init__(self, net: TcpNet) -> None:
        self.net = net

    def filenos(self) -> list[int]:
        return []

    def drain(self, budget: int) -> int:
        tcp_release_slices(self.net)
        return 0

    def flush(self) -> None:
        pass

    def pending(self) -> bool:
        return bool(self.net.sk_owned)

    def close(self) -> None:
        pass


def make_service(
    run: RunDir, config: Config, process: str, fd: int | None = None, loop: Loop | None = None
) -> Service:
    """tcp, ready to run."""
    net = TcpNet(
        **net_arguments(run, config, process),
        shards=config.tcp_shards,
        rss_key=bytes.fromhex(config.rss_key),
    )
    _congestion_controls(net, config)
    neighbours = config.neighbours("ip", "socket")
    service = Service(
        TcpCore(net),
        run,
        neighbours=neighbours,
        sources=(SliceSource(net),),
        clock=clock(config),
        loop=loop,
    )
    # `ip tcp_metrics flush`
    service.control.methods["tcp_metrics_flush"] = lambda _: net.tcp_metrics.clear()
    return service
