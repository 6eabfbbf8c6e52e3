# SPDX-License-Identifier: MIT
"""What `skbus load` does: from the scenario's file to the exit status."""

import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from skbus.bus.rundir import RunDir
from skbus.load import place, report
from skbus.load.live import Display
from skbus.load.place import Place, PlaceError
from skbus.load.result import Result
from skbus.load.runner import Runner
from skbus.load.scenario import Scenario, ScenarioError, library
from skbus.load.scenario import find as find_scenario
from skbus.load.scenario import load as read

PASSED, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130


def main(
    file: str,
    *,
    on: str = "stack",
    out: Path = Path("load-out"),
    changes: Mapping[str, Any] | None = None,
    clients: str | None = None,
    host: str | None = None,
    time: float = 1.0,
    check: bool = False,
    quiet: bool = False,
) -> int:
    """Returns the exit status. Errors that are the user's to mend become one line each."""
    try:
        scenario = _scenario(file, changes or {}, clients, time)
        if check:
            _say(f"{scenario.name}: {scenario.duration:g} s, {len(scenario.flows)} flows: ok")
            return PASSED
        with _place(on, host) as where:
            result = run(scenario, where, quiet=quiet)
    except (ScenarioError, PlaceError) as e:
        sys.stderr.write(f"skbus load: {e}\n")
        return UNUSABLE
    for line in report.summary(result):
        _say(line)
    for path in report.write(result, out):
        _say(f"             {path}")
    if result.interrupted:
        return INTERRUPTED
    return PASSED if result.passed else FAILED


def show_library() -> int:
    """`--list`: the scenarios that can be called by name, and what they do."""
    from textwrap import wrap

    there = library()
    width = max(map(len, there))
    room = shutil.get_terminal_size((100, 24)).columns - width - 2 if sys.stdout.isatty() else 10000
    for name, path in there.items():
        try:
            said = " ".join(read(path).description.split())
        except ScenarioError as e:
            said = str(e)
        for i, line in enumerate(wrap(said, max(room, 30)) or [""]):
            _say(f"{'' if i else name:<{width}}  {line}".rstrip())
    return PASSED


def run(scenario: Scenario, where: Place, *, quiet: bool = True) -> Result:
    """Run a scenario; Ctrl-C ends it early, and a second one at once, without a report."""
    if quiet:
        return trio.run(_run, Runner(scenario, where))
    with Display() as display:
        return trio.run(_run, Runner(scenario, where, display.update))


async def _run(runner: Runner) -> Result:
    failure: PlaceError | None = None
    aborted = False

    async def watch(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal aborted
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if runner.result.interrupted:
                    aborted = True
                    nursery.cancel_scope.cancel()
                runner.stop()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        try:
            await runner.run()
        except PlaceError as e:  # not as a group of one
            failure = e
        nursery.cancel_scope.cancel()
    if aborted:
        raise KeyboardInterrupt
    if failure is not None:
        raise failure
    return runner.result


def _scenario(file: str, changes: Mapping[str, Any], clients: str | None, time: float) -> Scenario:
    if clients is not None:
        changes = {**changes, "side": clients}
    scenario = read(find_scenario(file), changes)
    if time <= 0:
        raise ScenarioError("--time: must be more than 0")
    return scenario if time == 1.0 else scenario.scaled(time)


@contextmanager
def _place(on: str, host: str | None) -> Iterator[Place]:
    if on not in ("stack", "new-lab", "loopback"):
        raise PlaceError(f"--on {on}: takes stack, new-lab or loopback")
    if on != "new-lab":
        yield place.find(on, RunDir(), host)
        return
    if host is not None:
        raise PlaceError(f"--host {host}: a new lab has addresses of its own")
    import os

    from skbus.stack import lab
    from skbus.stack.config import Config

    run = lab.lab_dir(f"load-{os.getpid()}")
    device = {
        "name": lab.DEV,
        "addr": f"{lab.ADDRESS}/{lab.PREFIX}",
        "gateway": lab.PEER_ADDRESS,
    }
    config = Config.load(None, {"devices": [device], "run_dir": str(run.path)})
    try:
        lab.up(run, config.to_json(), tied=True)
        yield place.Lab(run)
    except lab.LabError as e:
        raise PlaceError(str(e)) from None
    finally:
        lab.down(run)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
