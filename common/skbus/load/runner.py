# SPDX-License-Identifier: MIT
"""Runs a scenario: servers and workers as processes, faults and monitor beside them.

    runner --+-- server(s)     one on each side that clients talk to
             +-- worker(s)     clients; `processes` of them for each side that has clients
             +-- faults        events, at their times
             +-- monitor       ctl and /proc of the stack's processes, every `sample` seconds

All times are seconds since the start, which is one number on the machine's monotonic clock that
all workers are told. Called by `skbus.load.cli`; the outcome is a `skbus.load.result.Result`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import trio

from skbus.load.faults import Faults, set_sysctls
from skbus.load.monitor import Monitor, host
from skbus.load.place import Place, PlaceError
from skbus.load.result import Result
from skbus.load.scenario import Flow, Scenario, Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_READY: Final = 60.0
"""Seconds that servers and workers have to start."""
_LEAD: Final = 0.3
"""Seconds between the word to go and the start, so that all workers have heard it."""
_TAIL: Final = 10.0
"""Seconds that a worker may take to end, beyond what the scenario allows it."""
_MAX_LINE: Final = 64 << 20


class Child:
    """A server or worker: a process that speaks JSON lines, and ends with its standard input."""

    def __init__(self, process: trio.Process, what: str) -> None:
        self.process = process
        self.what = what
        self._rest = b""

    async def line(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        assert self.process.stdout is not None
        while (end := self._rest.find(b"\n")) < 0:
            more = await self.process.stdout.receive_some(1 << 20)
            if not more or len(self._rest) > _MAX_LINE:
                return None
            self._rest += more
        text, self._rest = self._rest[:end], self._rest[end + 1 :]
        message: dict[str, Any] = json.loads(text)
        return message

    async def say(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def hang_up(self) -> None:
        """End its standard input, which ends it."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()


@asynccontextmanager
async def _spawn(module: str, job: dict[str, Any], what: str) -> "AsyncIterator[Child]":
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "skbus.load.child", module, json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        process_group=0,  # the terminal's Ctrl-C is the runner's, from the first moment on
    )
    child = Child(process, what)
    try:
        yield child
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(3):
                await child.hang_up()
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


class Runner:
    """One run of one scenario at one place."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        progress: Callable[[Result, float], None] | None = None,
    ) -> None:
        """progress: called at each beat with the result so far, and the time."""
        self.scenario = scenario
        self.place = place
        self.monitor = Monitor(place.run)
        self.result = Result(scenario, self.monitor, place.name)
        self._progress = progress
        self._workers: list[Child] = []
        self._ports: dict[Side, dict[str, int]] = {}
        self._stop = trio.Event()

    def stop(self) -> None:
        """End the load now; what there is so far is the result."""
        self.result.interrupted = True
        self._stop.set()

    async def run(self) -> Result:
        """Until the load has ended, or `stop`. PlaceError or what a worker says if it cannot
        start."""
        scenario, result = self.scenario, self.result
        result.started = datetime.now(UTC).isoformat(timespec="seconds")
        result.host = dict(host(self.place.run))
        self._check()
        if scenario.sysctl:
            assert self.place.run is not None
            set_sysctls(self.place.run, scenario.sysctl)
        async with AsyncExitStack() as stack:
            with trio.move_on_after(_READY) as starting:
                await self._start_servers(stack)
                await self._start_workers(stack)
            if starting.cancelled_caught:
                raise PlaceError(f"servers and clients did not start within {_READY:g} s")
            await self._load()
        if self.place.run is not None:
            await self._settle()
            result.books = await trio.to_thread.run_sync(self.monitor.books)
        return result

    def _check(self) -> None:
        """What the place cannot do is said before anything starts."""
        if self.place.run is not None:
            return
        scenario = self.scenario
        wants = [e.say() for e in scenario.all_events() if e.run is None]
        if scenario.sysctl:
            wants.append("sysctl")
        if wants:
            raise PlaceError(
                f"{self.place.name} has no stack of ours, which this needs: {'; '.join(wants)}"
            )

    # ---- starting --------------------------------------------------------------------------

    async def _start_servers(self, stack: AsyncExitStack) -> None:
        sides = {_other(self.scenario.side_of(f)) for f in self.scenario.flows if f.host is None}
        for side in sorted(sides):
            child = await stack.enter_async_context(
                _spawn("server", self.place.job(side), f"server on {side}")
            )
            said = await child.line()
            if said is None:
                raise PlaceError(f"the {child.what} did not start (its error is above)")
            if "error" in said:
                raise PlaceError(f"the {child.what} {said['error']}")
            self._ports[side] = said["ports"]

    def _server(self, flow: Flow) -> tuple[str, int]:
        """Where a flow's clients go."""
        if flow.host is not None and flow.port is not None:
            return flow.host, flow.port
        side = _other(self.scenario.side_of(flow))
        kind = "echo" if flow.protocol == "connect-close" else flow.protocol
        ports = self._ports[side]
        return self.place.address(side), ports.get(kind, ports["echo"])

    async def _start_workers(self, stack: AsyncExitStack) -> None:
        scenario = self.scenario
        servers = {f.name: self._server(f) for f in scenario.flows}
        data = scenario.model_dump(mode="json", by_alias=True)
        for side in sorted({scenario.side_of(f) for f in scenario.flows}):
            for index in range(scenario.processes):
                job = {
                    **self.place.job(side),
                    "as": side,
                    "scenario": data,
                    "servers": servers,
                    "share": (index, scenario.processes),
                }
                what = f"client process {index + 1} on {side}"
                child = await stack.enter_async_context(_spawn("worker", job, what))
                self._workers.append(child)
                if side == "linux" and self.place.run is not None:
                    self.monitor.linux_pid = child.process.pid
        for child in self._workers:
            if await child.line() is None:
                raise PlaceError(f"{child.what} did not start (its error is above)")

    # ---- the load ----------------------------------------------------------------------------

    async def _load(self) -> None:
        scenario, result = self.scenario, self.result
        begin = time.monotonic() + _LEAD
        start = trio.current_time() + (begin - time.monotonic())
        for child in self._workers:
            await child.say(f"go {begin!r}\n")
        words: dict[str, object] = {"host": "", **dict.fromkeys(("echo", "http", "bulk", "udp"), 0)}
        for side, ports in self._ports.items():
            words |= {"host": self.place.address(side), **ports}

        def note(text: str) -> None:
            result.happened.append((trio.current_time() - start, text))

        faults = Faults(scenario, self.place, words, note, result.trouble.append)
        limit = start + scenario.duration + scenario.settle + _TAIL
        try:
            async with trio.open_nursery() as beside:
                beside.start_soon(self._hang_up_when_stopped)
                beside.start_soon(self._watch, start)
                beside.start_soon(faults.play, start)
                with trio.move_on_at(limit) as scope:
                    async with trio.open_nursery() as nursery:
                        for child in self._workers:
                            nursery.start_soon(self._hear, child)
                if scope.cancelled_caught:
                    result.trouble.append("client processes did not end in time")
                beside.cancel_scope.cancel()
        finally:
            result.elapsed = max(0.0, min(trio.current_time() - start, scenario.duration))
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(faults.restore)

    async def _hang_up_when_stopped(self) -> None:
        await self._stop.wait()
        for child in self._workers:
            await child.hang_up()

    async def _hear(self, child: Child) -> None:
        """Take in what a worker says, until it is done."""
        result = self.result
        while (said := await child.line()) is not None:
            if "done" in said:
                self._note_cpu(child, float(said["cpu"]))
                return
            if "tick" in said:
                t = float(said["tick"])
                for flow, given in said["flows"].items():
                    beats = result.beats.get(flow)
                    new = not beats or t > beats[-1].t + 1e-6
                    result.take_tick(t, flow, given, new)
                self._note_cpu(child, float(said["cpu"]))
        result.trouble.append(f"{child.what} died (its error is above)")

    def _note_cpu(self, child: Child, used: float) -> None:
        elapsed = max((b[-1].t for b in self.result.beats.values() if b), default=0.0)
        if elapsed > 0:
            self.result.cpu[child.what] = used / elapsed

    async def _watch(self, start: float) -> None:
        """Sample the stack at each beat, and show."""
        beat = 0
        while True:
            await trio.sleep_until(start + beat * self.scenario.sample)
            t = trio.current_time() - start
            await trio.to_thread.run_sync(self.monitor.sample, max(0.0, t))
            if self._progress is not None:
                self._progress(self.result, max(0.0, t))
            # A slow answer must not be followed by a hurry to catch up.
            beat = max(beat + 1, int((trio.current_time() - start) / self.scenario.sample))

    async def _settle(self) -> None:
        """Wait until the stack holds no more skbs than at first, but not for long."""
        with trio.move_on_after(self.scenario.settle):
            while not await trio.to_thread.run_sync(self.monitor.at_rest):
                await trio.sleep(0.2)


def _other(side: Side) -> Side:
    return "skbus" if side == "linux" else "linux"
