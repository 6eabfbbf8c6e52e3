# SPDX-License-Identifier: MIT
"""Names that the shell completes (`skbus --install-completion`): those of the running stack, where
there is one.

A completer says nothing where something is wrong: the command itself will say it.
"""

from collections.abc import Iterable

from skbus.bus.rundir import RunDir, RunDirError

LEVELS = ("debug", "info", "warning", "error")


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _with_layers(processes: Iterable[str]) -> list[str]:
    """Processes, and the layers that have several."""
    found = list(processes)
    layers = dict.fromkeys(p.split(".")[0] for p in found)
    return [*found, *(layer for layer in layers if layer not in found)]


def processes(incomplete: str) -> list[str]:
    """The processes of the stack."""
    try:
        return _beginning(_with_layers(RunDir().processes()), incomplete)
    except (RunDirError, OSError):
        return []


def logged(incomplete: str) -> list[str]:
    """Those that have logged something, with the supervisor."""
    from skbus.stack.logread import log_files

    try:
        return _beginning(_with_layers(path.stem for path in log_files(RunDir())), incomplete)
    except (RunDirError, OSError):
        return []


def levels(incomplete: str) -> list[str]:
    """How much is logged."""
    return _beginning(LEVELS, incomplete)


def sysctls(incomplete: str) -> list[str]:
    """All sysctls; with a slash, which sysctl(8) also takes."""
    from skbus.core.sysctl import SPECS

    if "/" in incomplete:
        return _beginning((name.replace(".", "/") for name in SPECS), incomplete)
    return _beginning(SPECS, incomplete)


def counters(incomplete: str) -> list[str]:
    """All counters."""
    from skbus.core.snmp import NAMES

    return _beginning(NAMES, incomplete)


def proc_files(incomplete: str) -> list[str]:
    """The files of /proc/net."""
    from skbus.inet.proc import NAMES

    return _beginning((f"net/{name}" for name in NAMES), incomplete)


def loaded_modules(incomplete: str) -> list[str]:
    """What `skbus lsmod` lists."""
    from skbus.bus.ctl import ControlError, ctl_call

    try:
        run = RunDir().require()
        loaded = ctl_call(run, "socket", "lsmod", seconds=1.0)
    except (ControlError, RunDirError, OSError):
        return []
    return _beginning((module["module"] for module in loaded), incomplete)


def module_names(incomplete: str) -> list[str]:
    """Entry points of skbus.modules that are installed."""
    from importlib.metadata import entry_points

    return _beginning((e.name for e in entry_points(group="skbus.modules")), incomplete)
