# SPDX-License-Identifier: MIT
"""The snapshots of goodput and fairness: true (a few are measured anew, to the byte), and as
theory has it (all of them)."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from skbus.core.net import MSEC, SEC
from skbus.testing import Future, World

if TYPE_CHECKING:
    from tests.sim import goodput as g
else:  # it lies beside us, in no package
    _spec = importlib.util.spec_from_file_location(
        "skbus_sim_goodput", Path(__file__).with_name("goodput.py")
    )
    g = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(g)

MSS = 1448
"""of frames of 1500 bytes with timestamps"""


def mbit(control: str, loss: float, delay_ms: int, buffer: int) -> float:
    """A cell of the goodput table."""
    cell = g.load("goodput")[g.Goodput(control, loss, delay_ms, buffer).name]
    return float(cell["bytes"] * 8 / g.SECONDS / 1e6)


def shares(controls: tuple[str, ...], flows: int) -> list[int]:
    """A cell of the fairness table."""
    delivered: list[int] = g.load("fairness")[g.Fairness(controls, flows).name]["bytes"]
    return delivered


# ---- are they true? --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        g.Goodput("reno", 0.05, 50, 10),
        g.Goodput("cubic", 0.05, 50, 100),
        g.Goodput("bbr", 0.05, 50, 10),
    ],
    ids=lambda cell: cell.name,
)
def test_the_snapshot_is_what_is_measured(cell: g.Goodput) -> None:
    assert g.measure_goodput(cell) == g.load("goodput")[cell.name], (
        "the behaviour has changed: if that is meant, run python tests/sim/goodput.py --update"
    )


def test_the_snapshots_have_every_cell_and_no_other() -> None:
    assert list(g.load("goodput")) == [c.name for c in g.GOODPUT_CELLS]
    assert list(g.load("fairness")) == [c.name for c in g.FAIRNESS_CELLS]


def test_the_tables_of_the_documentation_are_those_of_the_snapshots() -> None:
    text = g.DOC.read_text()
    assert g.goodput_table(g.load("goodput")) in text
    assert g.fairness_table(g.load("fairness")) in text


# ---- are they as they should be? -------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_reno_keeps_to_mathis_formula_within_a_factor_of_two(loss: float) -> None:
    """MSS/RTT * sqrt(3/(2bp)), b = 2 segments an ACK (Mathis et al. 1997)."""
    formula = MSS * 8 / 0.1 * math.sqrt(3 / (2 * 2 * loss)) / 1e6
    assert formula / 2 <= mbit("reno", loss, 50, 100) <= formula * 2


def test_bbr_holds_its_rate_at_five_percent_loss() -> None:
    for delay, buffer in ((5, 10), (5, 100), (50, 10), (50, 100)):
        assert mbit("bbr", 0.05, delay, buffer) >= 0.8 * mbit("bbr", 0, delay, buffer)


def test_at_five_percent_loss_bbr_has_twice_what_cubic_has() -> None:
    assert mbit("bbr", 0.05, 50, 100) >= 2 * mbit("cubic", 0.05, 50, 100)


@pytest.mark.parametrize("control", g.CONTROLS)
@pytest.mark.parametrize("delay", [5, 50])
def test_without_loss_and_with_a_buffer_the_link_is_used(control: str, delay: int) -> None:
    payload = MSS / (1500 + 14)
    assert mbit(control, 0, delay, 100) >= 0.85 * payload * g.RATE / 1e6


@pytest.mark.parametrize(("control", "flows", "least"), [
    ("reno", 2, 0.9),
    ("reno", 4, 0.9),
    ("reno", 16, 0.75),
    ("reno", 32, 0.75),
    ("cubic", 2, 0.9),
    ("cubic", 4, 0.8),
    ("bbr", 2, 0.9),
    ("bbr", 4, 0.9),
])  # fmt: skip
def test_flows_of_one_kind_share_fairly(control: str, flows: int, least: float) -> None:
    """Two or four have come to terms within ten seconds. More of them begin by losing most of
    what they send, and eight seconds are a few dozen round trips: they are still at it."""
    assert g.jain(shares((control,), flows)) > least


@pytest.mark.parametrize("control", g.CONTROLS)
def test_of_sixty_four_most_get_through(control: str) -> None:
    """Two and a half segments a second for each: all live on timeouts."""
    delivered = shares((control,), 64)
    assert sum(d > 0 for d in delivered) >= 48
    assert g.jain(delivered) > 1 / 4


@pytest.mark.parametrize("flows", [2, 8, 32])
def test_cubic_is_friendly_to_reno_on_a_short_path(flows: int) -> None:
    """RFC 9438 4.3: where Reno does well CUBIC takes no more than it, give or take."""
    delivered = shares(("reno", "cubic"), flows)
    reno, cubic = sum(delivered[::2]), sum(delivered[1::2])
    assert 0.4 <= reno / cubic <= 2.5


@pytest.mark.parametrize("cell", g.FAIRNESS_CELLS, ids=lambda cell: cell.name)
def test_together_they_use_the_link(cell: g.Fairness) -> None:
    used = sum(g.load("fairness")[cell.name]["bytes"]) * 8 / g.FAIR_SECONDS
    assert used >= 0.8 * g.FAIR_RATE


def test_jain() -> None:
    assert g.jain([5, 5, 5]) == 1
    assert g.jain([1, 0, 0, 0]) == 0.25


# ---- DCTCP and a queue that marks ------------------------------------------------------------


def queue_of(control: str) -> tuple[int, int, Any]:
    """(bytes delivered in 3 s, smoothed round trip in us, the link's state) over a link of
    2 Mbit/s and 5 ms, which marks what has more than 8 frames before it."""
    with World(9) as world:
        options = {"sysctl": {"net.ipv4.tcp_congestion_control": control}}
        a = world.host("a", "10.0.0.1/24", **options)
        b = world.host("b", "10.0.0.2/24", **options)
        link = world.link(a, b, rate=2_000_000, delay=5 * MSEC, mark=8, limit=100)
        got = [0]
        ready: Future[None] = Future()

        async def server() -> None:
            listener = await b.listen(g.PORT)
            ready.set(None)
            peer, _ = await listener.accept()
            while data := await peer.recv(1 << 20):
                got[0] += len(data)

        async def client() -> None:
            await ready
            sock = await a.connect("10.0.0.2", g.PORT)
            while True:
                await sock.send(bytes(1 << 16))

        world.start(server())
        world.start(client())
        world.advance(3 * SEC)
        (tp,) = (tp for tp in a.net("tcp").socks.values() if tp.dport == g.PORT)
        return got[0], tp.srtt_us >> 3, link


def test_dctcp_fills_the_link_with_a_short_queue() -> None:
    delivered, srtt, _ = queue_of("dctcp")
    assert delivered * 8 / 3 >= 0.8 * 2_000_000
    # eight frames take 48 ms, the path 10
    assert srtt < 100_000
    unmarked, long, _ = queue_of("cubic")
    assert long > 1.5 * srtt, "what does not listen to marks fills the whole buffer"
    assert delivered >= 0.9 * unmarked
