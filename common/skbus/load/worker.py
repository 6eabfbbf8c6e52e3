# SPDX-License-Identifier: MIT
"""One process of clients. `skbus.load.runner` starts as many as the scenario wants, as

    python -m skbus.load.child worker '{"scenario": ..., "side": "linux", "share": [0, 2], ...}'

    worker: {"ready": true}
    runner: "go 81234.5\\n", the time on the monotonic clock at which the load begins
    worker: {"tick": ...} every `sample` seconds, {"done": true} in the end

The end of standard input ends the worker at once; it still sends what it has.

Latency is measured from the time at which a request was meant to start, not from when the client
got round to it. A stack that stalls for a second is charged with all the requests that would have
been sent in that second (no "coordinated omission"). In an open loop that time is the arrival. In a
closed loop it is the beat of `pace`, or the end of thinking. `service` is the time from the actual
start, and the difference between the two is the waiting.
"""

import json
import runpy
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, Final

import trio

from skbus.load import place
from skbus.load.client import BUILT_IN, Client, LoadFailure, Tally, error_kind
from skbus.load.curve import Curve
from skbus.load.histogram import Histogram
from skbus.load.scenario import Flow, Scenario, validate

_EARLY: Final = 0.001
"""Seconds by which a request may be early: epoll counts in whole milliseconds and rounds up, and
that must not pass for the stack's latency. A request that starts early counts from its start."""
_AFTER_ERROR: Final = 0.1
"""Seconds until a client of a closed loop tries again."""


@dataclass
class Cell:
    """What happened to one flow in one phase, since the last tick."""

    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    connect: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    """One text for each kind of error."""

    def to_json(self) -> dict[str, Any]:
        """As the runner takes it."""
        return {
            "latency": self.latency.encode(),
            "service": self.service.encode(),
            "connect": self.connect.encode(),
            "errors": dict(self.errors),
            "samples": self.samples,
        }


class FlowRunner:
    """The clients of one flow that are this worker's."""

    def __init__(
        self,
        flow: Flow,
        curve: Curve,
        client: type[Client],
        address: tuple[str, int],
        share: tuple[int, int],
        seed: str,
    ) -> None:
        self.flow = flow
        self.curve = curve
        self.address = address
        self.share = share
        self.tally = Tally()
        self.cells: dict[int, Cell] = {}
        self.lag = Histogram()
        self.running = 0
        self.waiting = 0
        self._client = client
        self._seed = seed
        self._start = 0.0
        self._sent = Tally()

    def cell(self, t: float) -> Cell:
        """Of the phase in which `t` (seconds since the start) lies."""
        piece = self.curve.piece_at(t)
        cell = self.cells.get(piece)
        if cell is None:
            cell = self.cells[piece] = Cell()
        return cell

    async def run(self, start: float) -> None:
        """Make the load; `start` is on trio's clock. Ends when the last request has."""
        self._start = start
        if self.flow.rate:
            await self._open_loop()
        else:
            await self._closed_loop()

    # ---- loops ---------------------------------------------------------------------------

    def _mine(self, total: int) -> range:
        """Which of so many clients are this worker's."""
        index, count = self.share
        return range(index, total, count)

    def _make(self, number: int) -> Client:
        rand = Random(f"{self._seed} {self.flow.name} {number}")
        return self._client(self.flow, self.address, rand, self.tally, self._connected)

    def _connected(self, took: float) -> None:
        self.cell(trio.current_time() - self._start).connect.record(took)

    async def _open_loop(self) -> None:
        send, receive = trio.open_memory_channel[float](inf)
        async with trio.open_nursery() as nursery:
            for number in self._mine(max(self.flow.clients, self.share[1])):
                nursery.start_soon(self._open_client, number, receive)
            async with send:
                await self._arrive(send)

    async def _until(self, due: float) -> float:
        """Sleep until it is time; returns the time from which the request's latency counts."""
        now = trio.current_time() - self._start
        if due > now:
            await trio.sleep_until(self._start + due - _EARLY)
            now = trio.current_time() - self._start
            self.lag.record(max(0.0, now - due))
        return min(due, now)

    async def _arrive(self, send: trio.MemorySendChannel[float]) -> None:
        flow = self.flow
        rand = Random(f"{self._seed} {flow.name} arrivals {self.share[0]}")
        poisson = rand if flow.arrivals == "poisson" else None
        for due in self.curve.arrivals(flow.rate, poisson, self.share):
            due = await self._until(due)
            self.waiting += 1
            send.send_nowait(due)

    async def _open_client(self, number: int, receive: trio.MemoryReceiveChannel[float]) -> None:
        client = self._make(number)
        try:
            async for due in receive:
                self.waiting -= 1
                await self._one(client, due)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await client.close()

    async def _closed_loop(self) -> None:
        total = self.curve.population(self.flow.clients)
        async with trio.open_nursery() as nursery:
            for number in self._mine(total):
                spans = self.curve.awake(number, self.flow.clients)
                if spans:
                    nursery.start_soon(self._closed_client, number, spans)

    async def _closed_client(self, number: int, spans: list[tuple[float, float]]) -> None:
        client = self._make(number)
        try:
            for begin, end in spans:
                await trio.sleep_until(self._start + begin)
                if self.flow.pace:
                    await self._paced(client, number, begin, end)
                else:
                    await self._thinking(client, begin, end)
                await client.close()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await client.close()

    async def _paced(self, client: Client, number: int, begin: float, end: float) -> None:
        """A request at each beat. Beats that were missed are made up for, and count as late.

        A client's part of a beat follows from its number, not from when it woke. Otherwise clients
        that a ramp wakes one after the other would come in bursts."""
        place = self.flow.pace * (number % self.flow.clients) / self.flow.clients
        due = begin + (place - begin) % self.flow.pace
        if due >= end:
            due = begin + place  # awake for less than a beat
        while due < end:
            if trio.current_time() - self._start > end:
                return
            await self._one(client, await self._until(due))
            due += self.flow.pace

    async def _thinking(self, client: Client, begin: float, end: float) -> None:
        think, rand = self.flow.think.draw, client.rand
        due = begin + think(rand) * rand.random()
        while due < end:
            if due > trio.current_time() - self._start:
                await trio.sleep_until(self._start + due)
                self.lag.record(max(0.0, trio.current_time() - self._start - due))
            # Who thinks a little longer than meant is not late: nothing was to happen before.
            good = await self._one(client, trio.current_time() - self._start)
            due = trio.current_time() - self._start + think(rand)
            if not good:
                due += _AFTER_ERROR

    async def _one(self, client: Client, due: float) -> bool:
        """One request, meant for `due`; whether it was answered."""
        began = trio.current_time()
        self.running += 1
        try:
            with trio.fail_after(self.flow.timeout):
                await client.request()
        except Exception as e:  # noqa: BLE001 a user's protocol may raise anything: it is counted
            cell = self.cell(due)
            kind = error_kind(e)
            cell.errors[kind] += 1
            if kind not in cell.samples:
                text = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
                cell.samples[kind] = "" if isinstance(e, LoadFailure) else text
            await client.close()
            return False
        finally:
            self.running -= 1
        now = trio.current_time()
        cell = self.cell(due)
        cell.latency.record(now - self._start - due)
        cell.service.record(now - began)
        return True

    # ---- telling -------------------------------------------------------------------------

    def unfinished(self, t: float) -> None:
        """The load is over: what has no answer yet is an error."""
        if self.running:
            self.cell(t).errors["unfinished"] += self.running
        if self.waiting:
            self.cell(t).errors["unstarted"] += self.waiting

    def tick(self, t: float) -> dict[str, Any]:
        """What has happened since the last tick; `t` is now, in seconds since the start."""
        tally, sent = self.tally, self._sent
        cells, self.cells = self.cells, {}
        result = {
            "cells": {str(piece): cell.to_json() for piece, cell in cells.items()},
            "piece": self.curve.piece_at(max(0.0, t - 1e-6)),
            "bytes_in": tally.bytes_in - sent.bytes_in,
            "bytes_out": tally.bytes_out - sent.bytes_out,
            "connects": tally.connects - sent.connects,
            "running": self.running,
            "waiting": self.waiting,
            "lag": self.lag.encode(),
        }
        self._sent = Tally(tally.bytes_in, tally.bytes_out, tally.connects)
        self.lag = Histogram()
        return result


class Worker:
    """All flows of one side, or this process's share of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        scenario: Scenario = validate(job["scenario"])
        self.scenario = scenario
        self.job = job
        clients = dict(BUILT_IN)
        if scenario.file and scenario.file.endswith(".py"):
            clients.update(_own_clients(scenario.file))
        share = (job["share"][0], job["share"][1])
        self.runners: list[FlowRunner] = []
        for flow in scenario.flows:
            if scenario.side_of(flow) != job["as"]:
                continue
            if flow.protocol not in clients:
                raise ValueError(f"flow {flow.name}: no protocol {flow.protocol!r}")
            address = job["servers"][flow.name]
            self.runners.append(
                FlowRunner(
                    flow,
                    scenario.curve(flow.name),
                    clients[flow.protocol],
                    (address[0], address[1]),
                    share,
                    str(scenario.seed),
                )
            )
        self._start = 0.0
        self._cpu = 0.0

    async def main(self) -> None:
        """The worker's life."""
        place.use_side(self.job["side"])
        _say({"ready": True})
        stdin = trio.lowlevel.FdStream(0)
        word = b""
        while not word.endswith(b"\n"):
            more = await stdin.receive_some()
            if not more:
                return
            word += more
        # Both clocks are the machine's monotonic one; trio's has an offset of its own.
        self._cpu = time.process_time()
        self._start = float(word.split()[1]) + trio.current_time() - time.monotonic()
        stopped = False

        async def watch() -> None:
            nonlocal stopped
            while await stdin.receive_some():
                pass
            stopped = True
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(self._ticks)
            nursery.start_soon(self._limit, nursery.cancel_scope)
            async with trio.open_nursery() as flows:
                for runner in self.runners:
                    flows.start_soon(self._flow, runner)
            nursery.cancel_scope.cancel()
        t = trio.current_time() - self._start
        self._tick(t)
        _say({"done": True, "stopped": stopped, "cpu": time.process_time() - self._cpu})

    async def _limit(self, scope: trio.CancelScope) -> None:
        """The load is over, and so is the time for what was under way."""
        await trio.sleep_until(self._start + self.scenario.duration + self.scenario.settle)
        for runner in self.runners:
            runner.unfinished(self.scenario.duration)
        scope.cancel()

    async def _flow(self, runner: FlowRunner) -> None:
        await trio.sleep_until(self._start)
        await runner.run(self._start)

    async def _ticks(self) -> None:
        """Report at every `sample`, and at the boundaries of phases, so that bytes are counted
        where they belong."""
        edges = [p.end for p in self.scenario.curve(self.scenario.flows[0].name).pieces]
        at = 0.0
        while True:
            beat = at + self.scenario.sample
            at = min([beat, *(e for e in edges if at + 1e-6 < e < beat)])
            await trio.sleep_until(self._start + at)
            self._tick(at)

    def _tick(self, t: float) -> None:
        flows = {r.flow.name: r.tick(t) for r in self.runners}
        _say({"tick": t, "cpu": time.process_time() - self._cpu, "flows": flows})


def _own_clients(file: str) -> dict[str, type[Client]]:
    """The protocols in a scenario's own file."""
    return {
        value.protocol: value
        for value in runpy.run_path(file).values()
        if isinstance(value, type) and issubclass(value, Client) and hasattr(value, "protocol")
    }


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def start(job: dict[str, Any]) -> None:
    """Run a worker; called by `skbus.load.child`."""
    trio.run(Worker(job).main)
