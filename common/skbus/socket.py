# SPDX-License-Identifier: MIT
"""`from skbus import socket`: the standard library's `socket`, on the skbus stack.

The names are those of the standard module, and so are arguments, results and errors: blocking,
timeouts and non-blocking, OSErrors with Linux's errno. Which stack: the one whose run directory
`SKBUS_DIR` names when a socket is made. `fileno()` is a real descriptor that shows the socket's
state to select, poll, epoll, selectors and asyncio; it is not for reading or writing.

`install()` puts these sockets into the standard module, so that unmodified programs use them;
`python -m skbus.run script.py` does that for a whole program.

Only IPv4 goes over the stack (`AF_INET`); a socket of another family is a real one. Names are
resolved by the system. A child of fork() does not have its parent's sockets.

The names only: the class is `skbus.app.sock`'s, the functions are `skbus.app.sockfuncs`'s and
`skbus.app.install`'s.
"""

import socket as _std
from typing import Any

from skbus.app.install import install as install
from skbus.app.sock import Address as Address
from skbus.app.sock import getdefaulttimeout as getdefaulttimeout
from skbus.app.sock import setdefaulttimeout as setdefaulttimeout
from skbus.app.sock import socket as socket
from skbus.app.sockfuncs import barrier as barrier
from skbus.app.sockfuncs import close as close
from skbus.app.sockfuncs import create_connection as create_connection
from skbus.app.sockfuncs import create_server as create_server
from skbus.app.sockfuncs import fromfd as fromfd
from skbus.app.sockfuncs import getaddrinfo as getaddrinfo
from skbus.app.sockfuncs import has_dualstack_ipv6 as has_dualstack_ipv6

SocketType = socket


def __getattr__(name: str) -> Any:
    """Constants and functions that are not ours are the standard module's."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_std, name)


__all__ = [name for name in dir(_std) if not name.startswith("_")] + ["barrier", "install"]
