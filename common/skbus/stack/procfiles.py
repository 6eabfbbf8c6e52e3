# SPDX-License-Identifier: MIT
"""/proc/net of a running stack: its processes are asked by their control sockets, and
`skbus.inet.proc` makes the text. Used by `skbus proc` and by packetdrill's live backend.
"""

from typing import Any

from skbus.bus.ctl import ctl_call
from skbus.bus.rundir import RunDir
from skbus.inet import proc as files
from skbus.stack.health import processes


def asker(run: RunDir) -> Any:
    """How `skbus.inet.proc.read` asks a running stack."""
    everyone = processes(run)

    def ask(process: str, name: str) -> Any:
        if not process:
            total: dict[str, int] = {}
            for each in everyone:
                for counter, value in ctl_call(run, each, "counters").items():
                    total[counter] = total.get(counter, 0) + value
            return total
        if process == "nic":
            nics = [p for p in everyone if p.startswith("nic.")]
            return [line for p in nics for line in ctl_call(run, p, "proc", name) or ()]
        if process == "tcp":
            tcps = [p for p in everyone if p.split(".")[0] == "tcp"]
            return files.merge_tcp([ctl_call(run, p, "proc", name) for p in tcps or ["tcp"]])
        return ctl_call(run, process, "proc", name)

    return ask
