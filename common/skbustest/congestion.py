# SPDX-License-Identifier: MIT
"""Congestion controls for simulated hosts (`World.host(congestion_control=...)`): their class, and
how one is loaded by the name that a person gives."""

from skbusd.tcp.congestion_plugins import CongestionControlError, load_congestion_control
from skbusd.tcp.tcp_cong import TcpCongestionOps

__all__ = ["CongestionControlError", "TcpCongestionOps", "load_congestion_control"]
