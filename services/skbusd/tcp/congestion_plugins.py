# SPDX-License-Identifier: MIT
"""Congestion controls that are not ours: of installed packages, and of the configuration.

A package offers one through the entry point group `skbus.congestion_control`. Without a package,
the configuration names a class, `congestion_control = ["./mine.py:Mine"]`, or the command line of
`skbus packetdrill` does. Called by the tcp process's `main` and by packetdrill, before anything
else happens; the core knows only `tcp_register_congestion_control`.
"""

import errno
import importlib
import importlib.util
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from skbusd.tcp.netns import TcpNet
from skbusd.tcp.tcp_cong import TcpCongestionOps, tcp_register_congestion_control

GROUP: Final = "skbus.congestion_control"


class CongestionControlError(ValueError):
    """A congestion control cannot be loaded or registered; the text says which, and why."""


def _object(target: object, where: str) -> TcpCongestionOps:
    """The control that `where` named: itself, or an object made of the class."""
    if isinstance(target, type) and issubclass(target, TcpCongestionOps):
        target = target()
    if not isinstance(target, TcpCongestionOps):
        raise CongestionControlError(f"{where} is no TcpCongestionOps, but {target!r}")
    return target


def load_congestion_control(spec: str) -> TcpCongestionOps:
    """The control that "package.module:Class" or "path/to/file.py:Class" names.

    CongestionControlError.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise CongestionControlError(
            f"{spec!r}: it takes package.module:Class, or path/to/file.py:Class"
        )
    try:
        if where.endswith(".py"):
            path = Path(where)
            module_spec = importlib.util.spec_from_file_location(f"skbus_cc_{path.stem}", path)
            assert module_spec is not None
            assert module_spec.loader is not None
            module = importlib.util.module_from_spec(module_spec)
            module_spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        target = getattr(module, name)
    except Exception as e:  # whatever somebody else's module may do
        raise CongestionControlError(f"{spec!r}: {type(e).__name__}: {e}") from e
    return _object(target, spec)


def installed_congestion_controls(net: TcpNet) -> list[TcpCongestionOps]:
    """The controls of installed packages; one that cannot be loaded is logged and left out."""
    found = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            found.append(_object(point.load(), point.value))
        except Exception as e:  # noqa: BLE001  another package's fault must not keep us from starting
            net.warning("congestion_control", entry_point=point.value, error=f"{e}")
    return found


def register_congestion_controls(net: TcpNet, specs: Iterable[str]) -> None:
    """Register installed controls and those that the configuration names. CongestionControlError
    for the latter."""
    for ca in installed_congestion_controls(net):
        err = tcp_register_congestion_control(net, ca)
        if err:
            net.warning("congestion_control", name=ca.name, error=errno.errorcode[err])
    for spec in specs:
        ca = load_congestion_control(spec)
        err = tcp_register_congestion_control(net, ca)
        if err == errno.EEXIST:
            raise CongestionControlError(f"{spec!r}: there is a {ca.name!r} already")
        if err:
            raise CongestionControlError(f"{spec!r}: {ca.name!r} is no name for it")
