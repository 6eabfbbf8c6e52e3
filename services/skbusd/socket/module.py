# SPDX-License-Identifier: MIT
"""Modules of the socket process (`kernel/module/main.c`): code that is loaded into it and runs in
its threads. A module is anything that has

    async def init_module(net, params): ...         -> its data; OSError: it does not load
    async def cleanup_module(net, data): ...        ends its threads and sockets (may be left out)

`params` are the words NAME=VALUE behind its name. Its state is in its data, not in variables of the
Python module, which two stacks in one process would share. Both functions run in a kernel thread of
their own, so they may wait.

Without I/O: kmod.py finds the code, main.py and a simulation call `load_module`.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from skbusd.socket.kthread import TaskStruct, kill_kthreads, kthread_run, run_kthreads
from skbusd.socket.modprobe import module_refcount
from skbusd.socket.netns import SocketNet

MODULE_STATE_LIVE: Final = "Live"
MODULE_STATE_COMING: Final = "Loading"
MODULE_STATE_GOING: Final = "Unloading"

_EXIT_ROUNDS: Final = 16


class ModuleCode(Protocol):
    """The functions that a loadable Python module must have."""

    init_module: Callable[[SocketNet, Mapping[str, str]], Coroutine[Any, Any, object]]


class Module:
    """`struct module`: a loaded module. data: what its init_module returned."""

    __slots__ = ("code", "data", "error", "name", "params", "state", "task")

    def __init__(self, name: str, code: ModuleCode, params: Mapping[str, str]) -> None:
        self.name = name
        self.code = code
        self.params = params
        self.state = MODULE_STATE_COMING
        self.data: Any = None
        self.error = ""
        """The reason why its cleanup_module failed."""
        self.task: TaskStruct | None = None


class ModuleError(ValueError):
    """A module cannot be loaded or unloaded; the text says why."""


def load_module(
    net: SocketNet, name: str, code: ModuleCode, params: Mapping[str, str] | None = None
) -> Module:
    """`load_module`: run a module's init_module, in a thread. ModuleError (EEXIST) where the name
    is taken."""
    if name in net.modules:
        raise ModuleError(f"module {name} is loaded already")
    module = net.modules[name] = Module(name, code, dict(params or {}))
    module.task = kthread_run(net, _do_init_module, module, f"insmod/{name}")
    return module


async def _do_init_module(net: SocketNet, module: Module) -> None:
    """`do_init_module`"""
    try:
        module.data = await module.code.init_module(net, module.params)
    except BaseException as e:
        net.modules.pop(module.name, None)
        module.error = str(e) or repr(e)
        net.warning("init_module", module=module.name, error=module.error)
        if not isinstance(e, OSError):
            raise
        return
    module.state = MODULE_STATE_LIVE
    net.info("init_module", module=module.name)


def delete_module(net: SocketNet, name: str) -> Module:
    """`delete_module`: run a module's cleanup_module, in a thread. The module is gone when that has
    ended. ModuleError where there is none (ENOENT), or it is not live (EBUSY)."""
    module: Module | None = net.modules.get(name)
    if module is None:
        raise ModuleError(f"no module {name} is loaded")
    if module.state != MODULE_STATE_LIVE:
        raise ModuleError(f"module {name} is busy: {module.state}")
    if users := module_refcount(net, name):
        raise ModuleError(f"module {name} is in use by {users} sockets")
    module.state = MODULE_STATE_GOING
    module.task = kthread_run(net, _free_module, module, f"rmmod/{name}")
    return module


async def _free_module(net: SocketNet, module: Module) -> None:
    """`free_module`"""
    cleanup = getattr(module.code, "cleanup_module", None)
    try:
        if cleanup is not None:
            await cleanup(net, module.data)
    except BaseException as e:
        module.error = str(e) or repr(e)
        net.warning("cleanup_module", module=module.name, error=module.error)
        if not isinstance(e, OSError):
            raise
    finally:
        net.modules.pop(module.name, None)
    if not module.error:
        net.info("cleanup_module", module=module.name)


def modules_exit(net: SocketNet) -> None:
    """The process ends: unload every module, as far as that takes no waiting. Threads that wait for
    others are thrown out where they stand."""
    for module in tuple(net.modules.values()):
        if module.state == MODULE_STATE_LIVE:
            delete_module(net, module.name)
    if net.kthreads is not None:
        for _ in range(_EXIT_ROUNDS):
            if not net.kthreads.runqueue:
                break
            run_kthreads(net)
        kill_kthreads(net)


def lsmod(net: SocketNet) -> list[dict[str, object]]:
    """`lsmod`: the loaded modules"""
    return [
        {"module": m.name, "state": m.state, "params": dict(m.params)} for m in net.modules.values()
    ]
