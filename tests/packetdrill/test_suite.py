# SPDX-License-Identifier: MIT
"""Our own suite: every tests/packetdrill/**/*.pkt in simulation.

A packet that a script does not list is a failure also at its end, and no skb may get lost.
"""

from pathlib import Path

import pytest

from skbus.packetdrill.config import Config
from skbus.packetdrill.report import Status, show
from skbus.packetdrill.run import run_file
from skbus.packetdrill.sim import SimBackend

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.rglob("*.pkt"))


class CheckedBackend(SimBackend):
    """Looks at the end whether every skb is accounted for."""

    def close(self) -> None:
        self.world.check_conservation()
        super().close()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(HERE)))
def test_script(path: Path) -> None:
    result = run_file(path, lambda _: CheckedBackend(), Config(strict_end=True))
    assert result.status is Status.PASSED, "\n" + show(result)


def test_a_run_is_the_same_every_time() -> None:
    digests = []
    for _ in range(2):
        backend = SimBackend()
        run_file(HERE / "loss/fast_retransmit_sack.pkt", lambda _, b=backend: b, Config())  # type: ignore[misc]
        digests.append(backend.world.digest())
    assert digests[0] == digests[1]
