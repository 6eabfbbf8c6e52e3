# SPDX-License-Identifier: MIT
"""Our sockets in unmodified programs: `skbus.socket.install`, and TLS over our sockets.

`install` puts our functions in the place of those of the standard modules `socket` and `os`.
"""

import contextlib
import functools
import os
import socket as std
import ssl
from typing import Any, Final

from skbus.app import osfuncs, sockfuncs
from skbus.app.sock import getdefaulttimeout, setdefaulttimeout, socket
from skbus.bus.rundir import RunDir

_PATCHED: Final[dict[str, Any]] = {
    "SocketType": socket,
    "close": sockfuncs.close,
    "create_connection": sockfuncs.create_connection,
    "create_server": sockfuncs.create_server,
    "fromfd": sockfuncs.fromfd,
    "getaddrinfo": sockfuncs.getaddrinfo,
    "getdefaulttimeout": getdefaulttimeout,
    "has_dualstack_ipv6": sockfuncs.has_dualstack_ipv6,
    "setdefaulttimeout": setdefaulttimeout,
    "socket": socket,
}

_std_wrap_socket: Final = ssl.SSLContext.wrap_socket


@functools.wraps(_std_wrap_socket)
def _wrap_socket(context: ssl.SSLContext, sock: Any, *args: Any, **kwargs: Any) -> Any:
    # Our sockets get an SSLSocket of ours. The standard one would do TLS on the descriptor.
    if not isinstance(sock, socket):
        return _std_wrap_socket(context, sock, *args, **kwargs)
    from skbus.app import tls

    return tls.SSLSocket._wrap(sock, context, *args, **kwargs)


# Even without `install`: it concerns our sockets alone.
setattr(ssl.SSLContext, "wrap_socket", _wrap_socket)  # noqa: B010 - mypy: a method


class Installed(contextlib.AbstractContextManager["Installed"]):
    """What `install` gives; leaving it, or `uninstall`, restores the standard modules."""

    def __init__(self) -> None:
        self._saved = {name: getattr(std, name) for name in _PATCHED}
        self._saved_os = {name: getattr(os, name) for name in osfuncs.PATCHED}
        for name, function in osfuncs.PATCHED.items():
            setattr(os, name, function)
        for name, value in _PATCHED.items():
            setattr(std, name, value)

    def uninstall(self) -> None:
        """Put the standard sockets back."""
        for name, value in self._saved.items():
            setattr(std, name, value)
        for name, value in self._saved_os.items():
            setattr(os, name, value)

    def __exit__(self, *args: object) -> None:
        self.uninstall()


def install(run: RunDir | None = None) -> Installed:
    """Make the standard `socket` module use this stack, until the result is left or uninstalled.

    What a program imported before by `from socket import socket` stays as it was. run: for
    another stack than that of SKBUS_DIR.
    """
    if run is not None:
        os.environ["SKBUS_DIR"] = str(run.path)
    return Installed()
