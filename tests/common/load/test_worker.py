# SPDX-License-Identifier: MIT
"""The loops of a worker, in virtual time, against clients that take as long as they are told."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import trio
import trio.testing

from skbus.load.client import Client, LoadFailure
from skbus.load.curve import Curve
from skbus.load.histogram import Histogram
from skbus.load.scenario import Flow
from skbus.load.worker import FlowRunner


class Scripted(Client):
    """Does what the test says, and notes when."""

    protocol = "scripted"
    script: ClassVar[Callable[["Scripted"], Awaitable[None]]]
    begun: ClassVar[list[float]]
    closed: ClassVar[list[float]]

    async def request(self) -> None:
        self.begun.append(trio.current_time())
        await type(self).script(self)

    async def close(self) -> None:
        self.closed.append(trio.current_time())


def run(
    flow: dict[str, Any],
    phases: list[tuple[float, float, float]],
    script: Callable[[Scripted], Awaitable[None]],
    share: tuple[int, int] = (0, 1),
    until: float | None = None,
    made: list[FlowRunner] | None = None,
) -> tuple[FlowRunner, list[float]]:
    """Run a flow in virtual time; returns the runner, and when requests began."""
    begun: list[float] = []
    Mine = type("Mine", (Scripted,), {"script": script, "begun": begun, "closed": []})
    given = Flow.model_validate({"name": "f", "protocol": "scripted", **flow})
    runner = FlowRunner(given, Curve(phases), Mine, ("127.0.0.1", 1), share, "seed")
    offset = 0.0
    if made is not None:
        made.append(runner)

    async def main() -> None:
        nonlocal offset
        offset = trio.current_time()
        with trio.move_on_at(offset + until if until is not None else float("inf")):
            await runner.run(offset)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return runner, [t - offset for t in begun]


def takes(seconds: float) -> Callable[[Scripted], Awaitable[None]]:
    async def script(_: Scripted) -> None:
        await trio.sleep(seconds)

    return script


def latencies(runner: FlowRunner, piece: int = 0) -> Histogram:
    return runner.cells[piece].latency


def test_an_open_loop_keeps_its_rate() -> None:
    runner, begun = run({"rate": 10, "arrivals": "even", "clients": 5}, [(2, 1, 1)], takes(0.05))
    assert begun == pytest.approx([0.05 + i / 10 for i in range(20)], abs=0.0011)
    assert latencies(runner).count == 20
    assert latencies(runner).maximum == pytest.approx(0.05, rel=0.01)


def test_a_stall_is_charged_with_the_requests_that_had_to_wait() -> None:
    """No coordinated omission: one client, 10 requests a second, a stall of 1 s."""
    first = True

    async def script(_: Scripted) -> None:
        nonlocal first
        await trio.sleep(1.0 if first else 0.001)
        first = False

    runner, _ = run({"rate": 10, "arrivals": "even"}, [(2, 1, 1)], script)
    assert latencies(runner).count == 20
    # 0.1 s after the other, ten requests wait for 1 s, 0.9 s, ... 0.1 s
    for percent, seconds in ((100, 1.0), (95, 0.9), (80, 0.6), (60, 0.2)):
        assert latencies(runner).percentile(percent) == pytest.approx(seconds, abs=0.02)
    # what a tool tells that counts from the actual start
    service = runner.cells[0].service
    assert service.percentile(95) == pytest.approx(0.001, abs=0.0005)


def test_a_beat_is_charged_likewise() -> None:
    first = True

    async def script(_: Scripted) -> None:
        nonlocal first
        await trio.sleep(1.0 if first else 0.001)
        first = False

    runner, begun = run({"pace": "100ms"}, [(2, 1, 1)], script)
    assert len(begun) == 20
    assert latencies(runner).percentile(95) == pytest.approx(0.9, abs=0.02)


def test_beats_of_many_clients_are_spread() -> None:
    _, begun = run({"pace": "1s", "clients": 4}, [(2, 1, 1)], takes(0.01))
    assert begun == pytest.approx([i / 4 for i in range(8)], abs=0.0011)


def test_beats_are_spread_however_the_clients_woke() -> None:
    """A ramp of 3 beats wakes 12 clients, 4 in a beat: not in bursts of 3 from then on."""
    _, begun = run({"pace": "1s", "clients": 12}, [(3, 0, 1), (3, 1, 1)], takes(0.01))
    hold = sorted(t for t in begun if t >= 3.999)
    assert hold == pytest.approx([4 + i / 12 for i in range(24)], abs=0.0011)


def test_a_closed_loop_waits_for_its_answer_and_thinks() -> None:
    runner, begun = run({"think": "100ms"}, [(2, 1, 1)], takes(0.3))
    gaps = [b - a for a, b in pairwise(begun)]
    assert gaps == pytest.approx([0.4] * (len(begun) - 1), abs=0.0011)
    assert latencies(runner).maximum == pytest.approx(0.3, rel=0.01)


def test_clients_come_and_go_with_the_load() -> None:
    _, begun = run({"clients": 10, "pace": "1s"}, [(10, 0.2, 0.2), (10, 1, 1)], takes(0.01))
    assert sum(t < 9.99 for t in begun) == 20
    assert sum(t > 9.99 for t in begun) == 100


def test_shares_split_clients_and_rate() -> None:
    both = [
        run({"rate": 10, "arrivals": "even"}, [(2, 1, 1)], takes(0.01), (i, 2))[1] for i in (0, 1)
    ]
    assert sorted(both[0] + both[1]) == pytest.approx(
        [0.05 + i / 10 for i in range(20)], abs=0.0011
    )
    closed = [
        run({"clients": 5, "pace": "1s"}, [(1, 1, 1)], takes(0.01), (i, 2))[1] for i in (0, 1)
    ]
    assert [len(c) for c in closed] == [3, 2]


def test_errors_are_counted_by_kind_and_have_no_latency() -> None:
    failures = iter(
        [ConnectionRefusedError(111, "no"), LoadFailure("corrupt"), KeyError("my protocol"), None]
    )

    async def script(_: Scripted) -> None:
        await trio.sleep(0.01)
        if (failure := next(failures, None)) is not None:
            raise failure

    runner, _ = run({"rate": 4, "arrivals": "even"}, [(1, 1, 1)], script)
    cell = runner.cells[0]
    assert cell.errors == {"refused": 1, "corrupt": 1, "KeyError": 1}
    assert cell.latency.count == 1
    assert cell.samples["refused"] == "ConnectionRefusedError: [Errno 111] no"
    assert cell.samples["corrupt"] == ""


def test_a_request_that_takes_too_long_is_a_timeout() -> None:
    runner, _ = run({"rate": 1, "arrivals": "even", "timeout": "2s"}, [(1, 1, 1)], takes(60))
    assert runner.cells[0].errors == {"timeout": 1}


def test_a_failing_client_does_not_spin() -> None:
    async def script(_: Scripted) -> None:
        raise ConnectionRefusedError

    runner, begun = run({"clients": 1}, [(0.95, 1, 1)], script)
    assert begun == pytest.approx([i / 10 for i in range(10)])
    assert runner.cells[0].errors["refused"] == 10


def test_requests_count_for_the_phase_in_which_they_were_due() -> None:
    runner, _ = run(
        {"rate": 10, "arrivals": "even", "clients": 20}, [(1, 1, 1), (1, 2, 2)], takes(0.5)
    )
    assert [runner.cells[i].latency.count for i in (0, 1)] == [10, 20]


def test_what_is_not_answered_in_the_end_is_an_error() -> None:
    runners: list[FlowRunner] = []

    async def script(client: Scripted) -> None:
        if len(client.begun) == 2:
            await trio.sleep_until(trio.current_time() + 1.5)
            runners[0].unfinished(1.0)
        await trio.sleep(1000)

    run(
        {"rate": 10, "arrivals": "even", "clients": 2, "timeout": "1min"},
        [(1, 1, 1)],
        script,
        until=2,
        made=runners,
    )
    assert runners[0].cells[0].errors == {"unfinished": 2, "unstarted": 8}


def test_a_tick_tells_only_what_is_new() -> None:
    runner, _ = run({"rate": 10, "arrivals": "even"}, [(1, 1, 1)], takes(0.01))
    runner.tally.bytes_in = 500
    first = runner.tick(1.0)
    assert Histogram.decode(first["cells"]["0"]["latency"]).count == 10
    assert first["bytes_in"] == 500
    runner.tally.bytes_in = 600
    second = runner.tick(2.0)
    assert second["cells"] == {}
    assert second["bytes_in"] == 100
