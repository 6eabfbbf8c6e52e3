# SPDX-License-Identifier: MIT
"""Whether the processes of a stack answer. `skbus health` for people; `python -m skbus.stack.health
[LAYER]` for checks that run every few seconds, without the imports of the whole command line.
"""

import json
import sys

from skbus.bus.ctl import ControlError, ctl_ask
from skbus.bus.rundir import RunDir, RunDirError
from skbus.inet.rps import tcp_processes


def _is_of(process: str, layer: str | None) -> bool:
    """Is it meant by "tcp.0", or by "tcp"? None means all."""
    return layer is None or layer in (process, process.split(".")[0])


def processes(run: RunDir, layer: str | None = None) -> list[str]:
    """The processes that are meant: "nic" is each nic, None all. RunDirError if there is none."""
    run.require()
    found = run.processes()
    chosen = [p for p in found if _is_of(p, layer)]
    if not found:
        raise RunDirError(f"no process has started in {run.path}: is the stack up?")
    if not chosen:
        raise RunDirError(f"no process {layer} in {run.path}; there are: {', '.join(found)}")
    return chosen


def lacking(run: RunDir) -> list[str]:
    """The processes that the stack's configuration has, and that have not started: in containers,
    each layer starts by itself."""
    try:
        config = json.loads(run.read_text("config.json"))
        wanted = [f"nic.{device['name']}" for device in config["devices"]]
        for layer in config["layers"]:
            wanted += tcp_processes(config["tcp_shards"]) if layer == "tcp" else (layer,)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    have = run.processes()
    return [process for process in wanted if process not in have]


def look(
    run: RunDir, layer: str | None = None, seconds: float = 5.0
) -> dict[str, int | ControlError]:
    """The life that each process is in, by its answer, or why there is none; also of those that
    should be there, and are not."""
    run.require()
    missing = [p for p in lacking(run) if _is_of(p, layer)]
    have = [p for p in run.processes() if _is_of(p, layer)]
    if not missing and not have:
        processes(run, layer)  # says what there is
    asked = ctl_ask(run, dict.fromkeys(have, ("ping", None)), seconds)
    lives = {p: a if isinstance(a, ControlError) else int(a["epoch"]) for p, a in asked.items()}
    text = f"has not started in {run.path}, though the configuration has it"
    return {**lives, **{p: ControlError(f"{p} {text}") for p in missing}}


def check(run: RunDir, layer: str | None = None, seconds: float = 5.0) -> dict[str, int]:
    """The life that each process is in. ControlError names all that give no answer."""
    found = look(run, layer, seconds)
    errors = [str(e) for e in found.values() if isinstance(e, ControlError)]
    if errors:
        raise ControlError("\n".join(errors))
    return {p: life for p, life in found.items() if isinstance(life, int)}


def main(argv: list[str]) -> int:
    """`python -m skbus.stack.health [LAYER]`: exit status 0 or 1."""
    try:
        check(RunDir(), argv[0] if argv else None)
    except (ControlError, RunDirError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
