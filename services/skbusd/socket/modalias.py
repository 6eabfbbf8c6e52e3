# SPDX-License-Identifier: MIT
"""The module meant by "net-pf-2-proto-132-type-1" (`modprobe`, modprobe.d(5)'s alias).

The shell's half of `request_module` (modprobe.py). A name is looked for among the aliases of the
configuration, then among the entry points `skbus.modules` of the installed distributions. The
module is loaded before the caller goes on.

    [module_alias]
    "net-pf-2-proto-253-type-4" = "examples/rdm/skbus_rdm/rdm_prot.py"
"""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Final

from skbusd.socket.kmod import ENTRY_POINTS, find_module
from skbusd.socket.kthread import kthreads, run_kthreads
from skbusd.socket.module import MODULE_STATE_LIVE, load_module
from skbusd.socket.netns import SocketNet

_KNOWN_FOR: Final = 1.0
"""Seconds for which the list of entry points is believed: reading it takes milliseconds, and every
socket(2) that fails needs it."""


class ModAlias:
    """`net.modprobe` of a socket process."""

    def __init__(
        self,
        net: SocketNet,
        aliases: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.net = net
        self.aliases = dict(aliases)
        self._clock = clock
        self._installed: dict[str, str] = {}
        self._read = -_KNOWN_FOR

    def __call__(self, name: str) -> bool:
        """Load the module of that name; False where there is none. ModuleError where the code is no
        module, or does not load."""
        where = self.aliases.get(name) or self._entry_point(name)
        if not where:
            return False
        module_name, code = find_module(where)
        have = self.net.modules.get(module_name)
        if have is not None:
            return bool(have.state == MODULE_STATE_LIVE)
        module = load_module(self.net, module_name, code)
        # The caller waits, and may be a thread itself.
        threads = kthreads(self.net)
        before = threads.current
        run_kthreads(self.net)
        threads.current = before
        return module.state == MODULE_STATE_LIVE

    def _entry_point(self, name: str) -> str:
        now = self._clock()
        if now - self._read >= _KNOWN_FOR:
            self._read = now
            self._installed = {
                point.name: point.module for point in entry_points(group=ENTRY_POINTS)
            }
        return self._installed.get(name, "")
