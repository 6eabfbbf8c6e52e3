# SPDX-License-Identifier: MIT
"""Options of SOL_SOCKET (`sock_setsockopt`, `sock_getsockopt` of `net/core/sock.c`).

Called by socket.py. Options that a transport must also know are passed on without an answer, as the
values are checked here. Only SO_BINDTODEVICE waits for one, as ip knows the devices. socket(7).
"""

import errno
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from skbus.core.abi import Getsockopt, Setsockopt
from skbus.core.interfaces import TransportProto
from skbus.core.syscall import SysCallError
from skbusd.socket import uapi
from skbusd.socket.call import Call, hold, sk_wake, sys_return
from skbusd.socket.ip_sockglue import SOCK_RCVTSTAMP, SOCK_RCVTSTAMPNS, SOCK_RXQ_OVFL
from skbusd.socket.netns import SocketNet
from skbusd.socket.sock import (
    InetSock,
    Sock,
    TcpSock,
    UdpSock,
    sk_set_flag,
    sk_set_option,
    sock_error,
)
from skbusd.socket.uapi import SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF

if TYPE_CHECKING:
    from skbusd.socket.socket import Socket

_INT: Final = struct.Struct("=i")
_LINGER: Final = struct.Struct("=ii")
_TIMEVAL: Final = struct.Struct("=qq")
_USEC: Final = 1_000_000
_INT_MAX: Final = (1 << 31) - 1
_IFNAMSIZ: Final = 16

PASSED_ON: Final = frozenset({
    uapi.SO_REUSEADDR, uapi.SO_REUSEPORT, uapi.SO_SNDBUF, uapi.SO_RCVBUF, uapi.SO_SNDBUFFORCE,
    uapi.SO_RCVBUFFORCE, uapi.SO_KEEPALIVE, uapi.SO_OOBINLINE, uapi.SO_BROADCAST, uapi.SO_PRIORITY,
    uapi.SO_MARK, uapi.SO_DONTROUTE, uapi.SO_NO_CHECK, uapi.SO_RCVLOWAT, uapi.SO_MAX_PACING_RATE,
})  # fmt: skip
"""Options that the transport hears of."""

FLAGS: Final = frozenset({
    uapi.SO_DEBUG, uapi.SO_DONTROUTE, uapi.SO_BROADCAST, uapi.SO_KEEPALIVE, uapi.SO_OOBINLINE,
    uapi.SO_NO_CHECK,
})  # fmt: skip
"""Options that are on or off."""


def _int(value: bytes) -> int:
    return int(_INT.unpack_from(value)[0])


def sock_setsockopt(net: SocketNet, sock: "Socket", optname: int, optval: bytes) -> None:
    """`sock_setsockopt`. EINVAL for less than an int, ENOPROTOOPT for an unknown option, EDOM or
    EINVAL for a bad value, EPERM without the capability."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    if len(optval) < _INT.size:
        raise SysCallError(errno.EINVAL)
    setter = _SETTERS.get(optname)
    if setter is not None:
        setter(net, sk, optval)
    elif optname in FLAGS:
        if optname == uapi.SO_DEBUG and _int(optval) and not net.capable("net_admin"):
            raise SysCallError(errno.EACCES)
        sk_set_flag(sk, optname, int(_int(optval) != 0))
    else:
        raise SysCallError(errno.ENOPROTOOPT)
    if optname in PASSED_ON:
        pass_on(net, sk, optname, optval, 0)


def pass_on(net: SocketNet, sk: Sock, optname: int, optval: bytes, req: int) -> None:
    """Tell the transport of an option of SOL_SOCKET, and tell a restarted one again."""
    if isinstance(sk, InetSock):
        sk_set_option(sk, uapi.SOL_SOCKET, optname, optval)
    item = Setsockopt(sk.number, req, uapi.SOL_SOCKET, optname, optval)
    sk.sk_prot.tell(net, sk, TransportProto.setsockopt, item)


def sock_setbindtodevice(net: SocketNet, call: Call, sock: "Socket", optval: bytes) -> None:
    """`sock_setbindtodevice`: only by that device, or (an empty name) by any. ENODEV; EPERM where a
    process without the capability would leave a device."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    name = optval[: _IFNAMSIZ - 1].split(b"\0", 1)[0]
    if sk.sk_bound_dev and not net.capable("net_raw"):
        raise SysCallError(errno.EPERM)

    def answered(net: SocketNet, err: int, _: object) -> None:
        if not err:
            sk.sk_bound_dev = name
            if isinstance(sk, InetSock):
                sk_set_option(sk, uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, name + b"\0")
        sys_return(net, call, err)

    hold(net, call)
    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.setsockopt,
        lambda number, req: Setsockopt(
            number, req, uapi.SOL_SOCKET, uapi.SO_BINDTODEVICE, name + b"\0"
        ),
        answered,
    )


def _set_reuse(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_reuse = int(_int(value) != 0)


def _set_reuseport(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_reuseport = int(_int(value) != 0)


def _set_sndbuf(net: SocketNet, sk: Sock, value: bytes) -> None:
    # Doubled, because Linux charges its overhead to the buffer, and programs know that.
    size = min(_int(value) & 0xFFFFFFFF, net.sysctl["net.core.wmem_max"])
    _sndbuf(net, sk, size)


def _set_sndbufforce(net: SocketNet, sk: Sock, value: bytes) -> None:
    if not net.capable("net_admin"):
        raise SysCallError(errno.EPERM)
    _sndbuf(net, sk, max(_int(value), 0))


def _sndbuf(net: SocketNet, sk: Sock, size: int) -> None:
    sk.sk_sndbuf = max(2 * min(size, _INT_MAX >> 1), SOCK_MIN_SNDBUF)
    sk.sk_sndbuf_lock = True
    sk_wake(net, sk)


def _set_rcvbuf(net: SocketNet, sk: Sock, value: bytes) -> None:
    size = min(_int(value) & 0xFFFFFFFF, net.sysctl["net.core.rmem_max"])
    _rcvbuf(sk, size)


def _set_rcvbufforce(net: SocketNet, sk: Sock, value: bytes) -> None:
    if not net.capable("net_admin"):
        raise SysCallError(errno.EPERM)
    _rcvbuf(sk, max(_int(value), 0))


def _rcvbuf(sk: Sock, size: int) -> None:
    sk.sk_rcvbuf = max(2 * min(size, _INT_MAX >> 1), SOCK_MIN_RCVBUF)
    sk.sk_rcvbuf_lock = True


def _set_priority(net: SocketNet, sk: Sock, value: bytes) -> None:
    priority = _int(value)
    if not 0 <= priority <= 6 and not net.capable_net():
        raise SysCallError(errno.EPERM)
    sk.sk_priority = priority


def _set_mark(net: SocketNet, sk: Sock, value: bytes) -> None:
    if not net.capable_net():
        raise SysCallError(errno.EPERM)
    sk.sk_mark = _int(value) & 0xFFFFFFFF


def _set_max_pacing_rate(net: SocketNet, sk: Sock, value: bytes) -> None:
    """B/s, of 4 or 8 bytes; all ones is no limit. tcp paces; others only remember it."""
    rate = _int(value) & 0xFFFFFFFF
    if len(value) >= 8:
        rate = int.from_bytes(value[:8], "little")
    elif rate == 0xFFFFFFFF:
        rate = 2**64 - 1
    sk.sk_max_pacing_rate = rate


def _set_timestamp(net: SocketNet, sk: Sock, value: bytes) -> None:
    _timestamp(sk, _int(value) != 0, False)


def _set_timestampns(net: SocketNet, sk: Sock, value: bytes) -> None:
    _timestamp(sk, _int(value) != 0, True)


def _timestamp(sk: Sock, on: bool, ns: bool) -> None:
    """`sock_set_timestamp`: turn timestamps on, of one kind (us or ns), or off."""
    if isinstance(sk, InetSock):
        sk.set_cmsg(SOCK_RCVTSTAMP, on)
        sk.set_cmsg(SOCK_RCVTSTAMPNS, on and ns)


def _set_rxq_ovfl(net: SocketNet, sk: Sock, value: bytes) -> None:
    if isinstance(sk, InetSock):
        sk.set_cmsg(SOCK_RXQ_OVFL, _int(value) != 0)


def _set_nothing(net: SocketNet, sk: Sock, value: bytes) -> None:
    """SO_BSDCOMPAT: accepted, and long without meaning."""


def _set_incoming_cpu(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk_set_flag(sk, uapi.SO_INCOMING_CPU, _int(value))


def _set_peek_off(net: SocketNet, sk: Sock, value: bytes) -> None:
    # The answer of a protocol without `set_peek_off`.
    raise SysCallError(errno.EOPNOTSUPP)


def _set_linger(net: SocketNet, sk: Sock, value: bytes) -> None:
    if len(value) < _LINGER.size:
        raise SysCallError(errno.EINVAL)
    on, seconds = _LINGER.unpack_from(value)
    if on:
        sk.sk_lingertime = min(seconds & 0xFFFFFFFF, _INT_MAX)
        sk_set_flag(sk, uapi.SO_LINGER, sk.sk_lingertime)
    else:
        sk.sk_lingertime = -1


def _set_rcvlowat(net: SocketNet, sk: Sock, value: bytes) -> None:
    n = _int(value)
    n = _INT_MAX if n < 0 else max(n, 1)
    if isinstance(sk, TcpSock):
        # tcp_set_rcvlowat: more than half of the buffer would never come.
        rmem: int = sk.sk_rcvbuf if sk.sk_rcvbuf_lock else net.sysctl["net.ipv4.tcp_rmem"][2]
        n = min(n, rmem >> 1)
    sk.sk_rcvlowat = n
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
    return int(sec) * 1_000_000_000 + int(usec) * 1000


def _set_rcvtimeo(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_rcvtimeo = _timeval(value)


def _set_sndtimeo(net: SocketNet, sk: Sock, value: bytes) -> None:
    sk.sk_sndtimeo = _timeval(value)


def _set_readonly(net: SocketNet, sk: Sock, value: bytes) -> None:
    raise SysCallError(errno.ENOPROTOOPT)


_SETTERS: Final[dict[int, Callable[[SocketNet, Sock, bytes], None]]] = {
    uapi.SO_REUSEADDR: _set_reuse,
    uapi.SO_REUSEPORT: _set_reuseport,
    uapi.SO_SNDBUF: _set_sndbuf,
    uapi.SO_SNDBUFFORCE: _set_sndbufforce,
    uapi.SO_RCVBUF: _set_rcvbuf,
    uapi.SO_RCVBUFFORCE: _set_rcvbufforce,
    uapi.SO_PRIORITY: _set_priority,
    uapi.SO_MARK: _set_mark,
    uapi.SO_MAX_PACING_RATE: _set_max_pacing_rate,
    uapi.SO_LINGER: _set_linger,
    uapi.SO_RCVLOWAT: _set_rcvlowat,
    uapi.SO_RCVTIMEO: _set_rcvtimeo,
    uapi.SO_SNDTIMEO: _set_sndtimeo,
    uapi.SO_TIMESTAMP: _set_timestamp,
    uapi.SO_TIMESTAMPNS: _set_timestampns,
    uapi.SO_RXQ_OVFL: _set_rxq_ovfl,
    uapi.SO_BSDCOMPAT: _set_nothing,
    uapi.SO_INCOMING_CPU: _set_incoming_cpu,
    uapi.SO_PEEK_OFF: _set_peek_off,
    uapi.SO_TYPE: _set_readonly,
    uapi.SO_ERROR: _set_readonly,
    uapi.SO_DOMAIN: _set_readonly,
    uapi.SO_PROTOCOL: _set_readonly,
    uapi.SO_ACCEPTCONN: _set_readonly,
    uapi.SO_SNDLOWAT: _set_readonly,
}


def _get_linger(sk: Sock) -> bytes:
    return _LINGER.pack(int(sk.sk_lingertime >= 0), sk.sk_flags.get(uapi.SO_LINGER, 0))


def _cmsg_flags(sk: Sock) -> int:
    return sk.cmsg_flags if isinstance(sk, InetSock) else 0


def _get_timeval(ns: int) -> bytes:
    return _TIMEVAL.pack(ns // 1_000_000_000, ns % 1_000_000_000 // 1000)


_GETTERS: Final[dict[int, Callable[[Sock], int | bytes]]] = {
    uapi.SO_REUSEADDR: lambda sk: sk.sk_reuse,
    uapi.SO_REUSEPORT: lambda sk: sk.sk_reuseport,
    uapi.SO_SNDBUF: lambda sk: sk.sk_sndbuf,
    uapi.SO_RCVBUF: lambda sk: sk.sk_rcvbuf,
    uapi.SO_PRIORITY: lambda sk: sk.sk_priority,
    uapi.SO_MARK: lambda sk: sk.sk_mark - (sk.sk_mark >> 31 << 32),
    uapi.SO_MAX_PACING_RATE: lambda sk: sk.sk_max_pacing_rate.to_bytes(8, "little"),
    uapi.SO_LINGER: _get_linger,
    uapi.SO_RCVLOWAT: lambda sk: sk.sk_rcvlowat,
    uapi.SO_SNDLOWAT: lambda sk: 1,
    uapi.SO_RCVTIMEO: lambda sk: _get_timeval(sk.sk_rcvtimeo),
    uapi.SO_SNDTIMEO: lambda sk: _get_timeval(sk.sk_sndtimeo),
    uapi.SO_TIMESTAMP: lambda sk: int(
        _cmsg_flags(sk) & (SOCK_RCVTSTAMP | SOCK_RCVTSTAMPNS) == SOCK_RCVTSTAMP
    ),
    uapi.SO_TIMESTAMPNS: lambda sk: int(bool(_cmsg_flags(sk) & SOCK_RCVTSTAMPNS)),
    uapi.SO_RXQ_OVFL: lambda sk: int(bool(_cmsg_flags(sk) & SOCK_RXQ_OVFL)),
    uapi.SO_BSDCOMPAT: lambda sk: 0,
    uapi.SO_INCOMING_CPU: lambda sk: sk.sk_flags.get(uapi.SO_INCOMING_CPU, -1),
    uapi.SO_TYPE: lambda sk: sk.sk_type,
    uapi.SO_DOMAIN: lambda sk: sk.sk_family,
    uapi.SO_PROTOCOL: lambda sk: sk.sk_protocol,
    uapi.SO_ACCEPTCONN: lambda sk: int(sk.sk_state == uapi.TCP_LISTEN),
}


def sock_getsockopt(net: SocketNet, sock: "Socket", optname: int, optlen: int = 64) -> bytes:
    """`sock_getsockopt`: the option's bytes. ENOPROTOOPT for unknown ones."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    if optname == uapi.SO_ERROR:
        err = sock_error(sk)
        if not err:
            err, sk.sk_err_soft = sk.sk_err_soft, 0
        sk_wake(net, sk)
        return _INT.pack(err)
    if optname == uapi.SO_PEEK_OFF:
        raise SysCallError(errno.EOPNOTSUPP)
    if optname == uapi.SO_BINDTODEVICE:
        if sk.sk_bound_dev and optlen < _IFNAMSIZ:
            raise SysCallError(errno.EINVAL)
        return sk.sk_bound_dev + b"\0" if sk.sk_bound_dev else b""
    if optname in FLAGS:
        return _INT.pack(sk.sk_flags.get(optname, 0))
    getter = _GETTERS.get(optname)
    if getter is None:
        raise SysCallError(errno.ENOPROTOOPT)
    value = getter(sk)
    return value if isinstance(value, bytes) else _INT.pack(value)


def sock_getmeminfo(net: SocketNet, call: Call, sock: "Socket", optlen: int) -> None:
    """SO_MEMINFO (`sk_get_meminfo`): nine numbers. tcp knows those of its sockets."""
    sk = sock.sk
    if sk is None:
        raise SysCallError(errno.EBADF)
    if not isinstance(sk, TcpSock):
        drops = sk.sk_drops if isinstance(sk, UdpSock) else 0
        queued = sk.sk_wmem_queued
        numbers = (sk.sk_rmem_alloc, sk.sk_rcvbuf, queued, sk.sk_sndbuf, 0, queued, 0, 0, drops)
        sys_return(net, call, 0, struct.pack("=9I", *numbers)[:optlen])
        return

    def answered(net: SocketNet, err: int, value: Any) -> None:
        if err or not isinstance(value, bytes):
            sys_return(net, call, err or errno.ENOPROTOOPT)
            return
        held = int.from_bytes(value[:4], "little") - sk.rcv_told  # bytes unknown to tcp yet
        sys_return(net, call, 0, (max(held, 0).to_bytes(4, "little") + value[4:])[:optlen])

    hold(net, call)
    sk.sk_prot.ask(
        net,
        sk,
        TransportProto.getsockopt,
        lambda number, req: Getsockopt(number, req, uapi.SOL_SOCKET, uapi.SO_MEMINFO, optlen),
        answered,
    )
