# SPDX-License-Identifier: MIT
"""Simulation for users and for our own tests: whole stacks in one process, in virtual time."""

from skbustest.host import Host, SimSocket
from skbustest.link import Link, Port
from skbustest.record import LinkInfo, Series
from skbustest.tasks import Future, Task
from skbustest.world import World, WorldError

__all__ = [
    "Future",
    "Host",
    "Link",
    "LinkInfo",
    "Port",
    "Series",
    "SimSocket",
    "Task",
    "World",
    "WorldError",
]
