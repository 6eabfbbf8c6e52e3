# SPDX-License-Identifier: MIT
"""Finding modules (`kernel/module/kmod.c`): from a module's name to code that can be loaded
(module.py). Part of the socket process's shell, not of its core.

    skbusd socket --module "examples/kernel/server.py port=7"

The first word is a Python file, an entry point of the group `skbus.modules`, or a dotted module;
the others are its parameters.
"""

import importlib
import importlib.util
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from skbus.stack.config import ConfigError
from skbusd.socket.core import SocketCore
from skbusd.socket.module import (
    Module,
    ModuleCode,
    ModuleError,
    delete_module,
    load_module,
    lsmod,
    modules_exit,
)

ENTRY_POINTS: Final = "skbus.modules"


def request_module(net: Any, spec: str) -> Module:
    """Find the module that `spec` names, and load it. ModuleError tells the fault."""
    words = spec.split()
    if not words:
        raise ModuleError("which module? NAME [PARAMETER=VALUE]...")
    params = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ModuleError(f"{word!r}: a module's parameters are NAME=VALUE")
        params[key] = value
    name, code = find_module(words[0])
    return load_module(net, name, code, params)


def find_module(where: str) -> tuple[str, ModuleCode]:
    """(name, code) of a file, an entry point or a dotted module."""
    name = Path(where).stem if _is_file(where) else where.rpartition(".")[2]
    try:
        code: Any = _from_file(where) if _is_file(where) else _by_name(where)
    except ModuleError:
        raise
    except Exception as e:
        raise ModuleError(f"module {where}: {type(e).__name__}: {e}") from e
    if not callable(getattr(code, "init_module", None)):
        raise ModuleError(f"{where} has no init_module(net, params): it is no module of skbus")
    return name, code


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _from_file(where: str) -> object:
    path = Path(where)
    if not path.is_file():
        raise ModuleError(f"no module {where}: there is no such file")
    name = "skbus_module_" + re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # dataclasses look there
    try:
        spec.loader.exec_module(code)
    except BaseException:
        del sys.modules[name]
        raise
    return code


def _by_name(where: str) -> object:
    for point in entry_points(group=ENTRY_POINTS, name=where):
        return point.load()
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as e:
        if e.name is not None and (where == e.name or where.startswith(e.name + ".")):
            raise ModuleError(
                f"no module {where}: it is no file, no entry point of {ENTRY_POINTS}, and cannot "
                "be imported"
            ) from e
        raise


class ModuleSource:
    """Loads modules at start, unloads them at the process's end, and answers `skbus insmod`,
    `rmmod` and `lsmod`: a `skbus.bus.service.Source` without descriptors."""

    def __init__(self, core: SocketCore, specs: list[str]) -> None:
        self.net = core.net
        self.service: Any = None
        """The running service, set by main.py: messages from unloading must still go out."""
        for spec in specs:
            try:
                request_module(self.net, spec)
            except ModuleError as e:
                raise ConfigError(f"modules: {e}") from e

    def methods(self) -> dict[str, Any]:
        """The methods for control requests."""
        return {
            "insmod": self._insmod,
            "rmmod": lambda name: delete_module(self.net, str(name)).name,
            "lsmod": lambda _: lsmod(self.net),
        }

    def _insmod(self, spec: Any) -> str:
        self.net.now = self.service.clock.now()
        return request_module(self.net, str(spec)).name

    def filenos(self) -> list[int]:
        return []

    def drain(self, budget: int) -> int:
        return 0  # a pass begins at once, and threads go on at its end

    def flush(self) -> None:
        pass

    def pending(self) -> bool:
        return self.net.kthreads is not None and bool(self.net.kthreads.runqueue)

    def close(self) -> None:
        if self.service is not None and self.net.modules:
            modules_exit(self.net)
            self.service.pass_once()
