# SPDX-License-Identifier: MIT
"""A core that does nothing by itself, for the tests of what drives cores."""

from collections.abc import Mapping
from random import Random

from skbus.core.entry import AnyEntry, Handler
from skbus.core.net import Net
from skbus.core.pool import Pool


class StillCore:
    """Subclasses say what they take. up: the neighbours that have come up."""

    entries: Mapping[AnyEntry, Handler]

    def __init__(self, name: str, epoch: int = 1) -> None:
        self.net = Net(name, rand=Random(name), pool=Pool(), epoch=epoch)
        self.up: list[str] = []

    def start(self) -> None: ...

    def peer_up(self, process: str) -> None:
        self.up.append(process)

    def idle(self) -> None: ...

    def held(self) -> int:
        return 0

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        return [], []

    def status(self) -> dict[str, object]:
        return {}
