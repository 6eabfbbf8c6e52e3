# SPDX-License-Identifier: MIT
"""What goes wrong in mid-run, on purpose: the link, a layer's process, a command, a sysctl.

`skbus.load.runner` starts `play` beside the load; it never lets an event that cannot be done end
the run: that is noted, and the run fails.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import trio

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.rundir import RunDir
from skbus.load.place import Place, PlaceError, processes
from skbus.load.scenario import Event, Scenario
from skbus.stack.config import Impair

_PATIENCE: Final = 20.0
"""Seconds that a busy process has to answer."""


class Faults:
    """The events of one run."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        words: Mapping[str, object],
        happened: Callable[[str], None],
        trouble: Callable[[str], None],
    ) -> None:
        """words: what {host}, {http} and so on stand for in a command."""
        self._scenario = scenario
        self._place = place
        self._words = words
        self._happened = happened
        self._trouble = trouble
        self._paused: set[int] = set()
        self._impaired = False

    async def play(self, start: float) -> None:
        """Each event at its time; `start` is on trio's clock. In the end, even when cancelled, a
        stopped process goes on again, and the link is as before."""
        try:
            async with trio.open_nursery() as nursery:
                for event in self._scenario.all_events():
                    nursery.start_soon(self._one, event, start)
        finally:
            for pid in self._paused:
                _go_on(pid)
            self._paused.clear()

    def restore(self) -> None:
        """Take the impairment away again."""
        if self._impaired:
            try:
                self._impair(None)
            except (ControlError, PlaceError) as e:
                self._trouble(f"cannot restore the link: {e}")

    async def _one(self, event: Event, start: float) -> None:
        await trio.sleep_until(start + event.at)
        self._happened(event.say())
        try:
            if event.impair is not None:
                await trio.to_thread.run_sync(self._impair, event.impair)
            elif event.pause is not None:
                await self._pause(event.pause, event.lasting)
            elif event.restart is not None:
                await trio.to_thread.run_sync(self._restart, event.restart)
            elif event.run is not None:
                await self._run(event.run, event.lasting)
            elif event.sysctl is not None:
                await trio.to_thread.run_sync(set_sysctls, self._stack(), event.sysctl)
        except (ControlError, PlaceError, OSError, KeyError, IndexError, ValueError) as e:
            self._trouble(f"event at {event.at:g} s: {event.say()}: {e}")

    def _stack(self) -> RunDir:
        if self._place.run is None:
            raise PlaceError(f"there is no stack of ours on {self._place.name}")
        return self._place.run

    def _process(self, layer: str) -> tuple[str, int]:
        """The layer's process and its pid; 0 where that is to be asked by its control socket."""
        found = processes(self._stack())
        for name, pid in found.items():
            if layer in (name, name.split(".")[0]):
                return name, pid
        alive = f"there are {', '.join(found)}" if found else "no process of the stack is"
        raise PlaceError(f"no process {layer} is alive: {alive}")

    def _impair(self, impair: Impair | None) -> None:
        run = self._stack()
        nics = [p for p in run.processes() if p.startswith("nic.")]
        if not nics:
            raise PlaceError("there is no nic")
        wanted = (impair or configured_impair(run, nics[0])).model_dump(mode="json")
        for nic in nics:
            ctl_call(run, nic, "impair", wanted, _PATIENCE)
        self._impaired = impair is not None

    def _restart(self, layer: str) -> None:
        """Kill it; who watches over it starts it again."""
        process, pid = self._process(layer)
        if pid:
            _kill(pid, signal.SIGKILL)
        else:
            ctl_call(self._stack(), process, "signal", ("KILL", 0), _PATIENCE)

    async def _pause(self, layer: str, seconds: float) -> None:
        process, pid = self._process(layer)
        if not pid:
            stop = ("STOP", seconds)
            await trio.to_thread.run_sync(
                ctl_call, self._stack(), process, "signal", stop, _PATIENCE
            )
            await trio.sleep(seconds)
            self._happened(f"{layer} goes on")
            return
        _kill(pid, signal.SIGSTOP)
        self._paused.add(pid)
        await trio.sleep(seconds)
        _go_on(pid)
        self._paused.discard(pid)
        self._happened(f"{layer} goes on")

    async def _run(self, command: str, seconds: float) -> None:
        """In the clients' Linux namespace; ended after its time, or with us."""
        known = {**self._words, "python": sys.executable}
        words = [word.format_map(known) for word in shlex.split(command)]
        where = self._place.job("linux").get("enter", "-")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "skbus.load.within", where, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        said = b""
        try:
            with trio.move_on_after(seconds or self._scenario.duration):
                async for part in process.stderr:
                    said = (said + part)[-2000:]
                await process.wait()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await process.stdin.aclose()
                await process.wait()
            if process.returncode is None:
                process.kill()
        if process.returncode:
            tail = said.decode(errors="replace").strip().splitlines()[-1:]
            self._trouble(f"{command}: status {process.returncode} {' '.join(tail)}")


def configured_impair(run: RunDir, nic: str) -> Impair:
    """What the stack's configuration says of a nic's link."""
    from skbus.stack.config import Config

    config = Config.read(run)
    return next((d.impair for d in config.devices if d.process == nic), Impair())


def set_sysctls(run: RunDir, sysctls: Mapping[str, Any]) -> None:
    """In every process of the stack: each has its own copy."""
    for process in run.processes():
        for name, value in sysctls.items():
            ctl_call(run, process, "sysctl_set", (name, value), _PATIENCE)


def _kill(pid: int, sig: signal.Signals) -> None:
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        raise PlaceError(f"process {pid} has ended meanwhile") from None


def _go_on(pid: int) -> None:
    """Let a stopped process run again, unless another event has ended it meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
