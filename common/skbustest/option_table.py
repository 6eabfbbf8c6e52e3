# SPDX-License-Identifier: MIT
"""Every socket option, with values to set on each kind of socket, for comparing two stacks
(tests/services/socket/test_option_table.py compares ours with the machine's).

A *transcript* has the answers of one socket to the sequence of one option. The sequence reads the
value of a new socket, sets each value, and tries lengths that are too short or too long. An answer
is the option's bytes as hexadecimal digits, or the name of an errno.
"""

import errno
import struct
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

SOL_IP: Final = 0
SOL_SOCKET: Final = 1
SOL_TCP: Final = 6
SOL_UDP: Final = 17
SOL_RAW: Final = 255

ANY: Final = ("stream", "dgram", "raw", "ping")
STREAM: Final = ("stream",)
DGRAM: Final = ("dgram",)
RAW: Final = ("raw",)
KINDS: Final = {
    "stream": (1, 0),
    "dgram": (2, 0),
    "raw": (3, 253),
    "ping": (2, 1),
}
"""kind -> (type, protocol)"""

FLAG: Final = (1, 0, 2, -1)
INT: Final = (0, 1, 7, 255, 256, 65536, -1, -2, 2**31 - 1)


class Option(NamedTuple):
    """One option. values: to be set, one after the other. kinds: of sockets."""

    level: int
    number: int
    name: str
    values: tuple[int | bytes, ...] = INT
    kinds: tuple[str, ...] = ANY


def _timeval(sec: int, usec: int) -> bytes:
    return struct.pack("=qq", sec, usec)


def _linger(on: int, seconds: int) -> bytes:
    return struct.pack("=ii", on, seconds)


_GROUP: Final = bytes((224, 1, 2, 3))
_LO: Final = bytes((127, 0, 0, 1))
_NOBODY: Final = bytes((192, 0, 2, 1))
_SOURCE: Final = bytes((192, 0, 2, 7))


def _req(ifindex: int, *addrs: bytes) -> bytes:
    return struct.pack("=I4x", ifindex) + b"".join(
        struct.pack("=HH4s120x", 2, 0, addr) for addr in addrs
    )


OPTIONS: Final = (
    Option(SOL_SOCKET, 1, "SO_DEBUG", FLAG),
    Option(SOL_SOCKET, 2, "SO_REUSEADDR", FLAG),
    Option(SOL_SOCKET, 3, "SO_TYPE", (1,)),
    Option(SOL_SOCKET, 4, "SO_ERROR", (1,)),
    Option(SOL_SOCKET, 5, "SO_DONTROUTE", FLAG),
    Option(SOL_SOCKET, 6, "SO_BROADCAST", FLAG),
    Option(SOL_SOCKET, 7, "SO_SNDBUF", (1, 0, -1, 5000, 50000, 2**31 - 1)),
    Option(SOL_SOCKET, 8, "SO_RCVBUF", (1, 0, -1, 5000, 50000, 2**31 - 1)),
    Option(SOL_SOCKET, 9, "SO_KEEPALIVE", FLAG),
    Option(SOL_SOCKET, 10, "SO_OOBINLINE", FLAG),
    Option(SOL_SOCKET, 11, "SO_NO_CHECK", FLAG),
    Option(SOL_SOCKET, 12, "SO_PRIORITY", (0, 1, 6, 7, -1)),
    Option(
        SOL_SOCKET,
        13,
        "SO_LINGER",
        (_linger(1, 5), _linger(0, 7), _linger(2, 0), _linger(1, -1), _linger(1, 2**31 - 1)),
    ),
    Option(SOL_SOCKET, 14, "SO_BSDCOMPAT", FLAG),
    Option(SOL_SOCKET, 15, "SO_REUSEPORT", FLAG),
    Option(SOL_SOCKET, 18, "SO_RCVLOWAT", (0, 1, 7, 3000, -1, -2, 2**31 - 1)),
    Option(SOL_SOCKET, 19, "SO_SNDLOWAT", (1,)),
    *(
        Option(
            SOL_SOCKET,
            number,
            name,
            (
                _timeval(1, 500000),
                _timeval(0, 0),
                _timeval(0, 1),
                _timeval(3, 1000000),
                _timeval(3, -1),
                _timeval(-1, 0),
                _timeval(2**40, 0),
            ),
        )
        for number, name in ((20, "SO_RCVTIMEO"), (21, "SO_SNDTIMEO"))
    ),
    Option(SOL_SOCKET, 25, "SO_BINDTODEVICE", (b"lo\0", b"", b"lo", b"nosuchdevice\0", b"\0")),
    Option(SOL_SOCKET, 29, "SO_TIMESTAMP", FLAG),
    Option(SOL_SOCKET, 30, "SO_ACCEPTCONN", (1,)),
    Option(SOL_SOCKET, 32, "SO_SNDBUFFORCE", (1, 5000, -1)),
    Option(SOL_SOCKET, 33, "SO_RCVBUFFORCE", (1, 5000, -1)),
    Option(SOL_SOCKET, 35, "SO_TIMESTAMPNS", FLAG),
    Option(SOL_SOCKET, 36, "SO_MARK", (0, 1, -1, 2**31 - 1)),
    Option(SOL_SOCKET, 38, "SO_PROTOCOL", (1,)),
    Option(SOL_SOCKET, 39, "SO_DOMAIN", (1,)),
    Option(SOL_SOCKET, 40, "SO_RXQ_OVFL", FLAG),
    Option(SOL_SOCKET, 42, "SO_PEEK_OFF", (0, 1, -1)),
    Option(SOL_SOCKET, 49, "SO_INCOMING_CPU", (0,)),
    Option(SOL_SOCKET, 9999, "SO_unknown", (1,)),
    Option(SOL_IP, 1, "IP_TOS", (0, 0x10, 0xB8, 3, 255, 256, 0x1FF, -1)),
    Option(SOL_IP, 2, "IP_TTL", (1, 64, 255, 0, 256, -1, -2)),
    Option(SOL_IP, 3, "IP_HDRINCL", FLAG),
    Option(
        SOL_IP,
        4,
        "IP_OPTIONS",
        (
            bytes((7, 7, 4, 0, 0, 0, 0, 0)),
            bytes((7, 11, 4)) + bytes(8) + b"\0",
            b"\1\1\1\1",
            bytes((68, 12, 5, 0)) + bytes(8),
            bytes((7, 3, 4, 0)),
            bytes((7, 7, 3, 0, 0, 0, 0, 0)),
            bytes((7, 40, 4, 0)),
            bytes((131, 7, 4, 192, 0, 2, 1, 0)),
            bytes((148, 4, 0, 0)),
            bytes((99, 4, 1, 2)),
            bytes(44),
            b"",
        ),
    ),
    Option(SOL_IP, 5, "IP_ROUTER_ALERT", (1, 0)),
    Option(SOL_IP, 6, "IP_RECVOPTS", FLAG),
    Option(SOL_IP, 7, "IP_RETOPTS", FLAG),
    Option(SOL_IP, 8, "IP_PKTINFO", FLAG),
    Option(SOL_IP, 10, "IP_MTU_DISCOVER", (0, 1, 2, 3, 4, 5, 6, -1)),
    Option(SOL_IP, 11, "IP_RECVERR", FLAG),
    Option(SOL_IP, 12, "IP_RECVTTL", FLAG),
    Option(SOL_IP, 13, "IP_RECVTOS", FLAG),
    Option(SOL_IP, 14, "IP_MTU", (1,)),
    Option(SOL_IP, 15, "IP_FREEBIND", FLAG),
    Option(SOL_IP, 18, "IP_PASSSEC", FLAG),
    Option(SOL_IP, 19, "IP_TRANSPARENT", FLAG),
    Option(SOL_IP, 20, "IP_RECVORIGDSTADDR", FLAG),
    Option(SOL_IP, 21, "IP_MINTTL", (0, 1, 255, 256, -1)),
    Option(SOL_IP, 22, "IP_NODEFRAG", FLAG),
    Option(SOL_IP, 23, "IP_CHECKSUM", FLAG),
    Option(SOL_IP, 24, "IP_BIND_ADDRESS_NO_PORT", FLAG),
    Option(SOL_IP, 25, "IP_RECVFRAGSIZE", FLAG),
    Option(SOL_IP, 26, "IP_RECVERR_RFC4884", FLAG),
    Option(
        SOL_IP,
        32,
        "IP_MULTICAST_IF",
        (
            _LO,
            bytes(4),
            _NOBODY,
            _GROUP + _LO,
            _GROUP + bytes(4) + struct.pack("=i", 1),
            _GROUP + bytes(4) + struct.pack("=i", 999),
            b"\1\2\3",
        ),
    ),
    Option(SOL_IP, 33, "IP_MULTICAST_TTL", (0, 1, 255, -1, 256, -2)),
    Option(SOL_IP, 34, "IP_MULTICAST_LOOP", FLAG),
    Option(
        SOL_IP,
        35,
        "IP_ADD_MEMBERSHIP",
        (_GROUP + _LO, _GROUP + _LO, _NOBODY + _LO, _GROUP + _NOBODY, b"\0\0\0\0"),
    ),
    Option(SOL_IP, 36, "IP_DROP_MEMBERSHIP", (_GROUP + _LO, b"\0\0\0\0")),
    Option(SOL_IP, 37, "IP_UNBLOCK_SOURCE", (_GROUP + _LO + _SOURCE, bytes(8))),
    Option(SOL_IP, 38, "IP_BLOCK_SOURCE", (_GROUP + _LO + _SOURCE, bytes(8))),
    Option(
        SOL_IP,
        39,
        "IP_ADD_SOURCE_MEMBERSHIP",
        (_GROUP + _LO + _SOURCE, _GROUP + _LO + _SOURCE, bytes(8)),
    ),
    Option(SOL_IP, 40, "IP_DROP_SOURCE_MEMBERSHIP", (_GROUP + _LO + _SOURCE, bytes(8))),
    Option(SOL_IP, 42, "MCAST_JOIN_GROUP", (_req(1, _GROUP), _req(1, _GROUP), bytes(8))),
    Option(SOL_IP, 45, "MCAST_LEAVE_GROUP", (_req(1, _GROUP), bytes(8))),
    Option(SOL_IP, 49, "IP_MULTICAST_ALL", FLAG),
    Option(SOL_IP, 50, "IP_UNICAST_IF", (0, 1 << 24, 99 << 24)),
    Option(SOL_IP, 51, "IP_LOCAL_PORT_RANGE", (0, 20000 | 30000 << 16, 30000 | 20000 << 16, 5)),
    Option(SOL_IP, 52, "IP_PROTOCOL", (1,)),
    Option(SOL_IP, 999, "IP_unknown", (1,)),
    Option(SOL_TCP, 1, "TCP_NODELAY", FLAG, STREAM),
    Option(SOL_TCP, 2, "TCP_MAXSEG", (88, 1000, 47, 48, 87, 32767, 32768, 0, -1), STREAM),
    Option(SOL_TCP, 3, "TCP_CORK", FLAG, STREAM),
    Option(SOL_TCP, 4, "TCP_KEEPIDLE", (1, 100, 32767, 0, 32768, -1), STREAM),
    Option(SOL_TCP, 5, "TCP_KEEPINTVL", (1, 100, 32767, 0, 32768, -1), STREAM),
    Option(SOL_TCP, 6, "TCP_KEEPCNT", (1, 100, 127, 0, 128, -1), STREAM),
    Option(SOL_TCP, 7, "TCP_SYNCNT", (1, 127, 0, 128, -1), STREAM),
    Option(SOL_TCP, 8, "TCP_LINGER2", (0, 1, 60, 120, 121, 1000, -1, -5), STREAM),
    Option(SOL_TCP, 9, "TCP_DEFER_ACCEPT", (0, 1, 2, 5, 100, 100000, -1), STREAM),
    Option(SOL_TCP, 10, "TCP_WINDOW_CLAMP", (0, 1, 5000, 1 << 20, -1), STREAM),
    Option(SOL_TCP, 12, "TCP_QUICKACK", FLAG, STREAM),
    Option(
        SOL_TCP,
        13,
        "TCP_CONGESTION",
        (b"reno", b"cubic\0", b"nosuchcc", b"", b"reno\0junk"),
        STREAM,
    ),
    Option(SOL_TCP, 18, "TCP_USER_TIMEOUT", (0, 1, 30000, -1, 2**31 - 1), STREAM),
    Option(SOL_TCP, 19, "TCP_REPAIR", (), STREAM),
    Option(SOL_TCP, 23, "TCP_FASTOPEN", (0, 5, -1, 1 << 20), STREAM),
    Option(SOL_TCP, 25, "TCP_NOTSENT_LOWAT", (0, 1, 5000, -1), STREAM),
    Option(SOL_TCP, 30, "TCP_FASTOPEN_CONNECT", (1, 0, 2, -1), STREAM),
    Option(SOL_TCP, 33, "TCP_FASTOPEN_KEY", (bytes(16), bytes(range(32)), bytes(15)), STREAM),
    Option(SOL_TCP, 34, "TCP_FASTOPEN_NO_COOKIE", (1, 0, 2, -1), STREAM),
    Option(SOL_TCP, 36, "TCP_INQ", (1, 0, 2, -1), STREAM),
    Option(SOL_TCP, 999, "TCP_unknown", (1,), STREAM),
    Option(SOL_TCP, 1, "TCP_NODELAY of another protocol", (1,), ("dgram", "raw", "ping")),
    Option(SOL_UDP, 1, "UDP_CORK", FLAG, DGRAM),
    Option(SOL_UDP, 101, "UDP_NO_CHECK6_TX", FLAG, DGRAM),
    Option(SOL_UDP, 103, "UDP_SEGMENT", (0, 1, 1400, 65535, 65536, -1), DGRAM),
    Option(SOL_UDP, 104, "UDP_GRO", FLAG, DGRAM),
    Option(SOL_UDP, 999, "UDP_unknown", (1,), DGRAM),
    Option(SOL_UDP, 1, "UDP_CORK of another protocol", (1,), ("stream", "raw", "ping")),
    Option(SOL_RAW, 1, "ICMP_FILTER", (1,), RAW),
    Option(SOL_RAW, 999, "RAW_unknown", (1,), RAW),
    Option(777, 1, "an option of an unknown level", (1,)),
)

UNKNOWN: Final[dict[int, dict[str, int]]] = {
    SOL_SOCKET: {
        "SO_ATTACH_BPF": 50,
        "SO_ATTACH_FILTER": 26,
        "SO_ATTACH_REUSEPORT_CBPF": 51,
        "SO_ATTACH_REUSEPORT_EBPF": 52,
        "SO_BINDTOIFINDEX": 62,
        "SO_BUF_LOCK": 72,
        "SO_BUSY_POLL": 46,
        "SO_BUSY_POLL_BUDGET": 70,
        "SO_CNX_ADVICE": 53,
        "SO_COOKIE": 57,
        "SO_DETACH_FILTER": 27,
        "SO_INCOMING_NAPI_ID": 56,
        "SO_LOCK_FILTER": 44,
        "SO_NETNS_COOKIE": 71,
        "SO_NOFCS": 43,
        "SO_PREFER_BUSY_POLL": 69,
        "SO_RCVMARK": 75,
        "SO_RCVPRIORITY": 82,
        "SO_RESERVE_MEM": 73,
        "SO_SELECT_ERR_QUEUE": 45,
        "SO_TIMESTAMPING": 37,
        "SO_TXREHASH": 74,
        "SO_TXTIME": 61,
        "SO_WIFI_STATUS": 41,
        "SO_ZEROCOPY": 60,
    },
    SOL_IP: {"IP_IPSEC_POLICY": 16, "IP_PKTOPTIONS": 9, "IP_XFRM_POLICY": 17},
    SOL_TCP: {
        "TCP_CC_INFO": 26,
        "TCP_DELACK_MAX_US": 46,
        "TCP_IS_MPTCP": 43,
        "TCP_MD5SIG": 14,
        "TCP_MD5SIG_EXT": 32,
        "TCP_REPAIR": 19,
        "TCP_RTO_MAX_MS": 44,
        "TCP_RTO_MIN_US": 45,
        "TCP_SAVED_SYN": 28,
        "TCP_SAVE_SYN": 27,
        "TCP_THIN_DUPACK": 17,
        "TCP_THIN_LINEAR_TIMEOUTS": 16,
        "TCP_TX_DELAY": 37,
        "TCP_ULP": 31,
        "TCP_ZEROCOPY_RECEIVE": 35,
    },
    SOL_UDP: {"UDP_ENCAP": 100},
}
"""Options of Linux that our stack does not know, by level: an option that is added leaves this
table and docs/socket-options.md."""

Set = Callable[[int, int, bytes], Awaitable[None]]
Get = Callable[[int, int, int], Awaitable[bytes]]


def _errno(e: OSError) -> str:
    return errno.errorcode.get(e.errno or 0, str(e.errno))


async def transcript(option: Option, set_: Set, get: Get) -> dict[str, str]:
    """Step of the sequence -> the socket's answer."""
    out: dict[str, str] = {}
    level, number = option.level, option.number

    async def got(size: int) -> str:
        try:
            return (await get(level, number, size)).hex() or "nothing"
        except OSError as e:
            return _errno(e)

    async def done(value: bytes, size: int) -> str:
        try:
            await set_(level, number, value)
        except OSError as e:
            return _errno(e)
        return await got(size)

    size = 4
    if any(isinstance(value, bytes) for value in option.values):
        size = max(len(v) for v in option.values if isinstance(v, bytes))
        size = min(max(size, 4), 64)
    out["get"] = await got(size)
    for i, value in enumerate(option.values):
        raw = value if isinstance(value, bytes) else struct.pack("=i", value)
        what = str(value) if isinstance(value, int) else value[:16].hex() or "nothing"
        out[f"{i}: set {what}"] = await done(raw, size)
    for length in (0, 1, 2, 3, 5):
        out[f"set {length} bytes"] = await done((b"\1" + bytes(4))[:length], size)
    for length in (0, 1, 3, 5, 64):
        out[f"get {length} bytes"] = await got(length)
    return out
