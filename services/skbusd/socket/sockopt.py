# SPDX-License-Identifier: MIT
"""Options of SOL_SOCKET (`sock_setsockopt`, `sock_getsockopt` of `net/core/sock.c`).

Called by socket.py. What a transport must know too is passed on to it, without an answer: the
values have been checked here.
"""

import errno
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from skbus.abi import Setsockopt
from skbus.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.sock import (
    SOCK_MIN_RCVBUF,
    SOCK_MIN_SNDBUF,
    Sock,
    SocketNet,
    sk_wake,
    sock_error,
)

if TYPE_CHECKING:
    from skbusd.socket.socket import Socket

_INT: Final = struct.Struct("=i")
_LINGER: Final = struct.Struct("=ii")
_TIMEVAL: Final = struct.Struct("=qq")
_USEC: Final = 1_000_000
_MAX_LINGER: Final = (1 << 31) - 1

PASSED_ON: Final = frozenset({
    uapi.SO_REUSEADDR, uapi.SO_REUSEPORT, uapi.SO_SNDBUF, uapi.SO_RCVBUF, uapi.SO_SNDBUFFORCE,
    uapi.SO_RCVBUFFORCE, uapi.SO_KEEPALIVE, uapi.SO_OOBINLINE, uapi.SO_BROADCAST, uapi.SO_PRIORITY,
    uapi.SO_MARK, uapi.SO_BINDTODEVICE, uapi.SO_DONTROUTE,
})  # fmt: skip
"""Options that the transport hears of."""

FLAGS: Final = frozenset({
    uapi.SO_DEBUG, uapi.SO_DONTROUTE, uapi.SO_BROADCAST, uapi.SO_KEEPALIVE, uapi.SO_OOBINLINE,
    uapi.SO_NO_CHECK, uapi.SO_TIMESTAMP,
})  # fmt: skip
"""Options that are on or off."""


def _int(value: bytes) -> int:
    if len(value) < 4:
        raise SysCallError(errno.EINVAL)
    return int(_INT.unpack_from(value)[0])


def sock_setsockopt(net: SocketNet, sock: "Socket", optname: int, optval: bytes) -> None:
    """`sock_setsockopt`. ENOPROTOOPT for what is unknown, EINVAL, EDOM for a bad value."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    setter = _SETTERS.get(optname)
    if setter is not None:
        setter(net, sk, optval)
    elif optname in FLAGS:
        sk.sk_flags[optname] = int(_int(optval) != 0)
    else:
        raise SysCallError(errno.ENOPROTOOPT)
    if optname in PASSED_ON:
        item = Setsockopt(sk.number, 0, uapi.SOL_SOCKET, optname, optval)
        net.call(sk.sk_prot.process, sk.sk_prot.setsockopt_entry, item)


def _set_reuse(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_reuse = int(_int(value) != 0)


def _set_reuseport(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_reuseport = int(_int(value) != 0)


def _set_sndbuf(net: SocketNet, sk: Sock, value: bytes) -> None:
    # Doubled, because Linux charges its overhead to the buffer, and programs know that.
    size = min(_int(value) & 0xFFFFFFFF, net.sysctl["net.core.wmem_max"])
    sk.sk_sndbuf = max(2 * size, SOCK_MIN_SNDBUF)
    sk.sk_sndbuf_lock = True
    sk_wake(net, sk)


def _set_rcvbuf(net: SocketNet, sk: Sock, value: bytes) -> None:
    size = min(_int(value) & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
    sk.sk_rcvbuf = max(2 * size, SOCK_MIN_RCVBUF)


def _set_priority(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_priority = _int(value)


def _set_mark(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_mark = _int(value) & 0xFFFFFFFF


def _set_linger(net: SocketNet, sk: Sock, value: bytes) -> None:
    if len(value) < _LINGER.size:
        raise SysCallError(errno.EINVAL)
    on, seconds = _LINGER.unpack_from(value)
    sk.sk_lingertime = min(seconds & 0xFFFFFFFF, _MAX_LINGER) if on else -1


def _set_rcvlowat(net: SocketNet, sk: Sock, value: bytes) -> None:
    n = _int(value)
    sk.sk_rcvlowat = _MAX_LINGER if n < 0 else max(n, 1)
    sk_wake(net, sk)


def _timeval(value: bytes) -> int:
    """ns; 0 for no limit. EDOM where the microseconds are none (`sock_set_timeout`)."""
    if len(value) < _TIMEVAL.size:
        raise SysCallError(errno.EINVAL)
    sec, usec = _TIMEVAL.unpack_from(value)
    if not 0 <= usec < _USEC:
        raise SysCallError(errno.EDOM)
    if sec < 0:
        return 1
    return min(int(sec), 1 << 32) * 1_000_000_000 + int(usec) * 1000


def _set_rcvtimeo(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_rcvtimeo = _timeval(value)


def _set_sndtimeo(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_sndtimeo = _timeval(value)


def _set_bindtodevice(net: SocketNet, sk: Sock, value: bytes) -> None:
    # Which devices there are is ip's to know: the transport resolves the name.
    if len(value) > 16:
        raise SysCallError(errno.EINVAL)


def _set_readonly(net: SocketNet, sk: Sock, value: bytes) -> None:
    raise SysCallError(errno.ENOPROTOOPT)


_SETTERS: Final[dict[int, Callable[[SocketNet, Sock, bytes], None]]] = {
    uapi.SO_REUSEADDR: _set_reuse,
    uapi.SO_REUSEPORT: _set_reuseport,
    uapi.SO_SNDBUF: _set_sndbuf,
    uapi.SO_SNDBUFFORCE: _set_sndbuf,
    uapi.SO_RCVBUF: _set_rcvbuf,
    uapi.SO_RCVBUFFORCE: _set_rcvbuf,
    uapi.SO_PRIORITY: _set_priority,
    uapi.SO_MARK: _set_mark,
    uapi.SO_LINGER: _set_linger,
    uapi.SO_RCVLOWAT: _set_rcvlowat,
    uapi.SO_RCVTIMEO: _set_rcvtimeo,
    uapi.SO_SNDTIMEO: _set_sndtimeo,
    uapi.SO_BINDTODEVICE: _set_bindtodevice,
    uapi.SO_TYPE: _set_readonly,
    uapi.SO_ERROR: _set_readonly,
    uapi.SO_DOMAIN: _set_readonly,
    uapi.SO_PROTOCOL: _set_readonly,
    uapi.SO_ACCEPTCONN: _set_readonly,
    uapi.SO_SNDLOWAT: _set_readonly,
}


def _get_linger(sk: Sock) -> bytes:
    return _LINGER.pack(int(sk.sk_lingertime >= 0), max(sk.sk_lingertime, 0))


def _get_timeval(ns: int) -> bytes:
    return _TIMEVAL.pack(ns // 1_000_000_000, ns % 1_000_000_000 // 1000)


_GETTERS: Final[dict[int, Callable[[Sock], int | bytes]]] = {
    uapi.SO_REUSEADDR: lambda sk: sk.sk_reuse,
    uapi.SO_REUSEPORT: lambda sk: sk.sk_reuseport,
    uapi.SO_SNDBUF: lambda sk: sk.sk_sndbuf,
    uapi.SO_RCVBUF: lambda sk: sk.sk_rcvbuf,
    uapi.SO_PRIORITY: lambda sk: sk.sk_priority,
    uapi.SO_MARK: lambda sk: sk.sk_mark - (sk.sk_mark >> 31 << 32),
    uapi.SO_LINGER: _get_linger,
    uapi.SO_RCVLOWAT: lambda sk: sk.sk_rcvlowat,
    uapi.SO_SNDLOWAT: lambda sk: 1,
    uapi.SO_RCVTIMEO: lambda sk: _get_timeval(sk.sk_rcvtimeo),
    uapi.SO_SNDTIMEO: lambda sk: _get_timeval(sk.sk_sndtimeo),
    uapi.SO_BINDTODEVICE: lambda sk: b"",
    uapi.SO_TYPE: lambda sk: sk.sk_type,
    uapi.SO_DOMAIN: lambda sk: sk.sk_family,
    uapi.SO_PROTOCOL: lambda sk: sk.sk_protocol,
    uapi.SO_ACCEPTCONN: lambda sk: int(sk.sk_state == uapi.TCP_LISTEN),
}


def sock_getsockopt(net: SocketNet, sock: "Socket", optname: int) -> bytes:
    """`sock_getsockopt`: the option's bytes. ENOPROTOOPT for what is unknown."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    if optname == uapi.SO_ERROR:
        err = sock_error(sk)
        if not err:
            err, sk.sk_err_soft = sk.sk_err_soft, 0
        sk_wake(net, sk)
        return _INT.pack(err)
    if optname in FLAGS:
        return _INT.pack(sk.sk_flags.get(optname, 0))
    getter = _GETTERS.get(optname)
    if getter is None:
        raise SysCallError(errno.ENOPROTOOPT)
    value = getter(sk)
    return value if isinstance(value, bytes) else _INT.pack(value)
