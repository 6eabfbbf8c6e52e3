# SPDX-License-Identifier: MIT
"""The common part of all layers' `main` modules: from run directory and configuration to a Net's
arguments and a running shell."""

import os
import zlib
from collections.abc import Iterable
from random import Random
from typing import Any

from skbus.bus.clock import StackClock
from skbus.bus.pooldir import PoolDir
from skbus.bus.rundir import RunDir
from skbus.bus.service import boot_epoch
from skbus.core.pool import DEFAULT_CLASSES, Allocator
from skbus.core.sysctl import Sysctl
from skbus.stack.config import Config


def net_arguments(run: RunDir, config: Config, process: str) -> dict[str, Any]:
    """The arguments that every layer's Net takes."""
    affinity = config.affinity.get(process)
    if affinity:
        os.sched_setaffinity(0, affinity)
    return {
        "name": process,
        "rand": Random(os.urandom(32)),
        "pool": PoolDir(run.pool_dir).pool(),
        "sysctl": Sysctl(config.sysctl),
        "epoch": boot_epoch(run.journal_dir, process),
    }


def region_number(process: str) -> int:
    """The number of the pool region in which a process allocates: the same in all its lives."""
    return zlib.crc32(process.encode()) | 1


def allocator(
    run: RunDir,
    arguments: dict[str, Any],
    classes: Iterable[tuple[int, int]] = DEFAULT_CLASSES,
) -> Allocator:
    """The region of a process that allocates, which its pool also finds."""
    number = region_number(arguments["name"])
    alloc = PoolDir(run.pool_dir).adopt_or_create(number, classes)
    arguments["pool"].regions[number] = alloc
    arguments["alloc"] = alloc
    return alloc


def clock(config: Config) -> StackClock:
    """The stack's clock."""
    return StackClock(config.clock.time_scale)


def plug_ins(run: RunDir, config: Config) -> tuple[str, ...]:
    """Processes besides the stack's own. A layer that starts anew also says hello to them, so that
    a plug-in transport registers again."""
    own = set(config.processes())
    return tuple(sorted({p.stem for p in run.path.glob("*.in")} - own))


def nics(config: Config) -> tuple[str, ...]:
    """The nic processes of the stack."""
    return tuple(device.process for device in config.devices)
