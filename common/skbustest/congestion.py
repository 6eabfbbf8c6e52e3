# SPDX-License-Identifier: MIT
"""Congestion controls for simulated hosts (`World.host(congestion_control=...)`): their class, and
a function that loads one by its name."""

from skbusd.tcp.congestion_plugins import CongestionControlError, load_congestion_control
from skbusd.tcp.tcp_cong import TcpCongestionOps

__all__ = ["CongestionControlError", "TcpCongestionOps", "load_congestion_control"]
