# SPDX-License-Identifier: MIT
"""nic's part of `skbus proc`: its device's line of /proc/net/dev (`net/core/net-procfs.c`)."""

from typing import Any

from skbus.inet.proc import DevLine, dev_stats
from skbusd.nic.dev import count_missed
from skbusd.nic.netdev import NicNet


def proc_net(net: NicNet, name: str) -> Any:
    """nic's part of one file; None where it has none."""
    if name != "dev":
        return None
    count_missed(net)
    return [DevLine(net.device.ifindex, net.device.name, dev_stats(net.mib))]
