# SPDX-License-Identifier: MIT
"""Arguments of the standard library's socket methods, checked as it checks them, and brought into
the form of a system call (`skbus.core.syscall`). Used by `skbus.socket`.
"""

import errno
import operator
import socket
from typing import Any, Final

from skbus.core.syscall import MAX_CMSGS

MAX_CONTROL: Final = 32768
"""Bytes of ancillary data in one call (`net.core.optmem_max` is of that order)."""

# `skbus.socket.install` replaces the one in the standard module
_gethostbyname: Final = socket.gethostbyname


def check_timeout(timeout: Any) -> float | None:
    """What `settimeout` takes: None, or seconds that are not negative."""
    if timeout is None:
        return None
    if isinstance(timeout, (str, bytes)):
        raise TypeError(f"'{type(timeout).__name__}' object cannot be interpreted as a timeout")
    seconds = float(timeout)
    if seconds < 0:
        raise ValueError("Timeout value out of range")
    return seconds


def c_int(value: Any) -> int:
    """What an argument of C's type int takes."""
    number: int = operator.index(value)
    if not -(2**31) <= number < 2**31:
        raise OverflowError("signed integer is out of range")
    return number


def cmsg(item: Any) -> tuple[int, int, bytes]:
    """One item of ancillary data, checked."""
    if not isinstance(item, tuple) or len(item) != 3:
        raise TypeError("an item of ancillary data is a tuple of 3: level, type, bytes")
    return c_int(item[0]), c_int(item[1]), bytes(view(item[2]))


def cmsgs(ancdata: Any) -> tuple[tuple[int, int, bytes], ...]:
    """Ancillary data of `sendmsg`. OSError where there is more than a request takes."""
    items = tuple(map(cmsg, ancdata))
    if len(items) > MAX_CMSGS or sum(len(item[2]) for item in items) > MAX_CONTROL:
        raise OSError(errno.ENOBUFS, "too much ancillary data")
    return items


def view(data: Any) -> memoryview:
    """The bytes of a bytes-like object."""
    try:
        return memoryview(data)
    except TypeError:
        name = type(data).__name__
        raise TypeError(f"a bytes-like object is required, not '{name}'") from None


def timeout_ns(timeout: float | None) -> int:
    """Seconds as a system call takes them: ns, -1 for ever, 0 for not at all."""
    if timeout is None:
        return -1
    return min(int(timeout * 1e9), 1 << 61) if timeout else 0


def pack_host(host: str) -> bytes:
    """The four bytes of a host: numeric, a name, "" or "<broadcast>"."""
    if host == "":
        return b"\0\0\0\0"
    if host == "<broadcast>":
        return b"\xff\xff\xff\xff"
    try:
        return socket.inet_pton(socket.AF_INET, host)
    except OSError:
        pass
    return socket.inet_aton(_gethostbyname(host))


def pack_address(address: Any) -> tuple[int, int, bytes]:
    """A Python address as [family, port, addr]."""
    if not isinstance(address, tuple) or len(address) != 2:
        raise TypeError(f"an AF_INET address is a pair (host, port), not {type(address).__name__}")
    host, port = address
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii")
    if not isinstance(host, str):
        raise TypeError(f"the host must be a str or bytes, not {type(host).__name__}")
    port = port.__index__()
    if not 0 <= port <= 65535:
        raise OverflowError("bind(): port must be 0-65535.")
    return int(socket.AF_INET), port, pack_host(host)


def unpack_address(address: Any) -> tuple[str, int] | None:
    """[family, port, addr] as a Python address."""
    if address is None:
        return None
    return socket.inet_ntop(socket.AF_INET, address[2] or b"\0\0\0\0"), address[1]
