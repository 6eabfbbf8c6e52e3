# SPDX-License-Identifier: MIT
"""Simulation for users and for our own tests: whole stacks in one process, in virtual time."""

from skbus.testing.host import Host, SimSocket
from skbus.testing.link import Link, Port
from skbus.testing.record import LinkInfo, Series
from skbus.testing.tasks import Future, Task
from skbus.testing.world import World, WorldError

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
