# SPDX-License-Identifier: MIT
"""Families and protocols that are plug-ins: `request_module` (`kernel/module/kmod.c`).

    socket(2) -> __sock_create -> request_module("net-pf-38")
                 inet_create   -> request_module("net-pf-2-proto-132-type-1")
                               -> request_module("net-pf-2-proto-132")

Called by socket.py and af_inet.py. A plug-in is a module (module.py) that registers itself by
`proto_register`, `inet_register_protosw` and `sock_register`, with its own name as `owner`. The
shell turns a name into a module: `net.modprobe`.
"""

import errno
from collections.abc import Callable

from skbus.core.syscall import SysCallError
from skbusd.socket.netns import SocketNet

ModProbe = Callable[[str], bool]
"""Loads the plug-in of a name. False where there is none; it may raise anything, as an import may.
"""


def request_module(net: SocketNet, name: str) -> bool:
    """`request_module`: load the plug-in of that name, if there is one. A fault in it is logged,
    and the caller goes on without it.

    Differs from Linux: all callers wait while a plug-in is loaded, not only the one that asked.
    """
    if net.tracing:
        net.trace("request_module", name=name)
    if net.modprobe is None:
        return False
    try:
        return net.modprobe(name)
    except SysCallError as e:
        error = errno.errorcode.get(e.errno, str(e.errno))
        net.warning("request_module", name=name, error=error, text=e.text)
    except Exception as e:  # noqa: BLE001 a plug-in is somebody else's code
        net.warning("request_module", name=name, error=type(e).__name__, text=str(e))
    return False


def module_refcount(net: SocketNet, owner: str) -> int:
    """`module_refcount`: the sockets that a plug-in's functions are called for."""
    families = {ops.family for ops in net.net_families if ops is not None and ops.owner == owner}
    count = sum(sk.sk_prot.owner == owner for sk in net.socks.values())
    if families:
        count += sum(
            sock.ops.family in families
            for client in net.clients.values()
            for sock in client.fdt.values()
        )
    return count


__all__ = ["ModProbe", "module_refcount", "request_module"]
