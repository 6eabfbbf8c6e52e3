# SPDX-License-Identifier: MIT
"""The functions of the standard library's `socket` module, for our sockets; `skbus.socket` has
their names, and `skbus.socket.install` puts them into the standard module.
"""

import os
import socket as std
from typing import Any, Final

from skbus.app.client import get_client, known_clients
from skbus.app.sock import socket, std_socket
from skbus.app.sockargs import timeout_ns

_real_close: Final = std.close
_close_fd: Final = os.close  # `skbus.socket.install` replaces the name
_real_getaddrinfo: Final = std.getaddrinfo
_GLOBAL_DEFAULT: Final = object()


def close(fd: int) -> None:
    """Close a descriptor that `fileno()` gave, without its socket object."""
    for client in known_clients():
        if fd in client.poll_fds:
            number = client.poll_fds.pop(fd)
            _close_fd(fd)
            client.call("close", number)
            return
    _real_close(fd)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> Any:
    """A socket of a descriptor, which is duplicated."""
    for client in known_clients():
        if fd in client.poll_fds:
            number, _ = client.call("dup", client.poll_fds[fd])
            return socket._make(client, number, family, type, proto)
    return std_socket(family, type, proto, fileno=os.dup(fd))


def has_dualstack_ipv6() -> bool:
    """IPv6 does not go over the stack."""
    return False


def getaddrinfo(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    """The system's answer, but for IPv4 alone where no family is named."""
    if family == 0:
        family = std.AF_INET
    return _real_getaddrinfo(host, port, family, type, proto, flags)


def create_connection(
    address: tuple[str | None, int],
    timeout: Any = _GLOBAL_DEFAULT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to (host, port), trying all its addresses."""
    host, port = address
    failures: list[OSError] = []
    for family, type, proto, _, where in getaddrinfo(host, port, 0, std.SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, type, proto)
            if timeout is not _GLOBAL_DEFAULT and timeout is not std._GLOBAL_DEFAULT_TIMEOUT:  # type: ignore[attr-defined]
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(where)
            return sock
        except OSError as e:
            failures.append(e)
            if sock is not None:
                sock.close()
    try:
        if not failures:
            raise OSError("getaddrinfo returns an empty list")
        if all_errors:
            raise ExceptionGroup("create_connection failed", failures)
        raise failures[0]
    finally:
        failures.clear()


def create_server(
    address: tuple[str, int],
    *,
    family: int = std.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """A listener on (host, port)."""
    if dualstack_ipv6:
        raise ValueError("dualstack_ipv6 not supported on this platform")
    sock = socket(family, std.SOCK_STREAM)
    try:
        sock.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(std.SOL_SOCKET, std.SO_REUSEPORT, 1)
        try:
            sock.bind(address)
        except OSError as e:
            text = f"{os.strerror(e.errno or 0)} (while attempting to bind on address {address!r})"
            raise OSError(e.errno, text) from None
        if backlog is None:
            sock.listen()
        else:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def barrier(timeout: float | None = None) -> None:
    """Return when all that was sent or received until now has been processed in all layers."""
    get_client().call("barrier", timeout_ns(timeout))
