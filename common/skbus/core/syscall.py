# SPDX-License-Identifier: MIT
"""System calls: the table of applications' calls to the socket layer, and its codec.

An application's DEALER sends `[meta, data]` to the socket layer's ROUTER, and gets as much back:

    request  meta = [SYS_ABI, req, posted, call, args...]   data = bytes to be sent
    reply    meta = [SYS_ABI, req, errno, result]           data = bytes received

A data frame that would be empty may be left out. A call is named after its `sys_` function,
without the prefix. `req` is the asker's number; the reply carries it. errno 0 is success. With
another, `result` is a sentence about what was wrong, or None where the errno says it all.

A request with `req` POSTED gets no reply. The calls in POSTABLE may be posted, on a stream for
which an earlier reply has given *credit*: bytes that the send buffer has room for. A post costs its
bytes and POST_COST more. `posted` is how many posts the process had sent by all its DEALERs before
this request. The socket layer takes none that comes before one of those. -1 is for a process that
asks neither for that order nor for credit.

A
DEALER's identity begins with the 16 bytes of its process's client id, which the process announces
once on the life connection (`skbus.app.client`).

Socket addresses are `[family, port, addr]`, addr being 4 or 16 bytes. Timeouts are ns of the
stack's clock: -1 waits for ever, 0 does not wait (MSG_DONTWAIT). Big payload does not travel
here: it is named by its places in the pool (`skbus.core.skbuff`). In `sendmsg` the places come
after the data frame's bytes. Their slots become the socket layer's, which gives them back. In the
reply of `recvmsg`, `parts` lists the payload in order. An int is that many bytes of the data
frame. A place is bytes in the pool, and the application gives its slot back.

`skbus.app.client` and `skbusd.socket.core` speak this. An application's request is checked against
the table before it reaches the core. Wrong types are EFAULT (as a bad pointer is), values out of
bounds EINVAL, too much EMSGSIZE.
"""

import errno
import struct
from typing import Any, Final, NamedTuple

import msgpack

from skbus.core.skbuff import Place

SYS_ABI: Final = 3

CLIENT_ID_LEN: Final = 16
"""Bytes of a client id: the beginning of all identities of one process."""
MAX_IDENTITY: Final = 32

MAX_META: Final = 65536
MAX_DATA: Final = 1 << 20
"""Bytes in the data frame of one request or reply."""
MAX_PLACES: Final = 64
MAX_CMSGS: Final = 64
UIO_MAXIOV: Final = 1024
MAX_OPTLEN: Final = 65536
MAX_POLL: Final = 65536
MAX_VLEN: Final = 64
"""Datagrams in the reply of one recvmmsg."""
MAX_TIMEOUT: Final = 1 << 62

POSTED: Final = -1
"""`req` of a request that gets no reply."""
CREDIT_MAX: Final = 16384
"""Bytes of credit that a reply gives at most."""
POST_COST: Final = 64
"""What a post takes of the credit beside its bytes, so that many small ones are no flood."""

POST: Final = struct.Struct("=HHi4s")
"""The header of a datagram in a client's post pipe: length, port, fd, addr. Port 0: to the
connected peer. This is sendmsg without a reply: an error is the socket's pending one."""
POST_MAX: Final = 4096 - POST.size
"""Bytes of a datagram in the post pipe: a pipe takes PIPE_BUF bytes whole or not at all."""
POST_PIPE: Final = 65536
"""Bytes that the post pipe holds."""

_INT: Final = 0
_BYTES: Final = 1
_SOCKADDR: Final = 2
_PLACES: Final = 3
_CMSGS: Final = 4
_POLLFDS: Final = 5

SockAddr = tuple[int, int, bytes]
"""(family, port, addr)"""


class Arg:
    """One argument of a call, with its type and bounds."""

    __slots__ = ("high", "kind", "low", "name")

    def __init__(
        self, name: str, kind: int = _INT, low: int = -(2**31), high: int = 2**31 - 1
    ) -> None:
        self.name = name
        self.kind = kind
        self.low = low
        self.high = high


_FD: Final = Arg("fd")
_FLAGS: Final = Arg("flags", _INT, 0, 2**31 - 1)
_ADDR: Final = Arg("addr", _SOCKADDR)
_TIMEOUT: Final = Arg("timeout", _INT, -1, MAX_TIMEOUT)

CALLS: Final[dict[str, tuple[Arg, ...]]] = {
    # -> fd
    "socket": (Arg("family"), Arg("type"), Arg("protocol")),
    "bind": (_FD, _ADDR),
    "listen": (_FD, Arg("backlog")),
    # -> [fd, addr], or [fd, addr, credit]; flags: SOCK_NONBLOCK, SOCK_CLOEXEC
    "accept4": (_FD, _FLAGS, _TIMEOUT),
    # -> None or credit
    "connect": (_FD, _ADDR, _TIMEOUT),
    # -> number of bytes taken, or [that number, credit]
    "sendmsg": (_FD, _FLAGS, _ADDR, Arg("places", _PLACES), Arg("control", _CMSGS), _TIMEOUT),
    # Only posted: bytes of a stream. An error is the socket's pending one.
    "post": (_FD,),
    # -> [parts, addr, msg_flags, control]
    "recvmsg": (
        _FD,
        Arg("len", _INT, 0, 2**31 - 1),
        Arg("controllen", _INT, 0, 2**31 - 1),
        _FLAGS,
        _TIMEOUT,
    ),
    # As many datagrams as are queued, at most vlen -> [[parts, addr, msg_flags, control], ...];
    # their inline bytes are one data frame. One with places comes alone. A fifth field means that
    # the bytes of many datagrams come together: it is the size of each but the last.
    "recvmmsg": (
        _FD,
        Arg("len", _INT, 0, 2**31 - 1),
        Arg("vlen", _INT, 1, MAX_VLEN),
        _FLAGS,
        _TIMEOUT,
    ),
    # The application did not read the last `count` datagrams of recvmmsg: they are put back.
    "unread": (_FD, Arg("count", _INT, 1, MAX_VLEN)),
    # The application did not read the data frame's bytes, from a stream: they are put back.
    "unrecv": (_FD,),
    # The application did not take the connection of accept4: it is again the next to be accepted.
    "unaccept": (_FD, Arg("accepted")),
    "shutdown": (_FD, Arg("how")),
    # -> addr
    "getsockname": (_FD,),
    "getpeername": (_FD,),
    "setsockopt": (_FD, Arg("level"), Arg("optname"), Arg("optval", _BYTES, 0, MAX_OPTLEN)),
    # -> the option's bytes
    "getsockopt": (_FD, Arg("level"), Arg("optname"), Arg("optlen", _INT, 0, MAX_OPTLEN)),
    "close": (_FD,),
    "dup": (_FD,),
    # F_GETFL 3, F_SETFL 4
    "fcntl": (_FD, Arg("cmd"), Arg("arg")),
    # SIOCINQ (FIONREAD) 0x541B, SIOCOUTQ (TIOCOUTQ) 0x5411
    "ioctl": (_FD, Arg("cmd", _INT, 0, 2**32 - 1)),
    # [[fd, events], ...] -> [[fd, revents], ...]
    "poll": (Arg("fds", _POLLFDS), _TIMEOUT),
    # The request `req` of the same identity shall end now, with EINTR in its own reply.
    "cancel": (Arg("req", _INT, 0, 2**63 - 1),),
    # This client allocates in that region of the pool.
    "region": (Arg("number", _INT, 0, 2**32 - 1),),
    # A barrier goes through all layers and back (docs/architecture.md, "Time and barriers"), then
    # the call returns.
    "barrier": (_TIMEOUT,),
}
"""Each call with its arguments."""

POSTABLE: Final = frozenset({"post", "close"})
"""Calls that may be posted."""


class SendmsgArgs(NamedTuple):
    """The arguments of sendmsg by name: `call("sendmsg", *SendmsgArgs(fd, timeout=0))`.

    addr: None for the connected peer. timeout: ns, -1 for ever.
    """

    fd: int
    flags: int = 0
    addr: SockAddr | None = None
    places: tuple[Place, ...] = ()
    control: tuple[tuple[int, int, bytes], ...] = ()
    timeout: int = -1


class RecvmsgArgs(NamedTuple):
    """The arguments of recvmsg by name."""

    fd: int
    len: int
    controllen: int = 0
    flags: int = 0
    timeout: int = -1


class SysCallError(Exception):
    """A request that cannot be carried out: errno, and what was wrong if errno does not say."""

    def __init__(self, err: int, text: str | None = None, req: int = 0) -> None:
        super().__init__(err, text)
        self.errno = err
        self.text = text
        self.req = req


class Request(NamedTuple):
    """One decoded request."""

    req: int
    posted: int
    call: str
    args: tuple[Any, ...]


_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


def encode_request(req: int, call: str, *args: object) -> bytes:
    """The meta frame of a request by who posts nothing. It is not checked: the socket layer does
    that."""
    return bytes(_packer.pack((SYS_ABI, req, -1, call, *args)))


def encode_ordered(req: int, posted: int, call: str, args: tuple[object, ...]) -> bytes:
    """The same by who has sent so many posts."""
    return bytes(_packer.pack((SYS_ABI, req, posted, call, *args)))


def encode_reply(req: int, err: int, result: object) -> bytes:
    """The meta frame of a reply."""
    return bytes(_packer.pack((SYS_ABI, req, err, result)))


def decode_reply(meta: bytes | memoryview) -> tuple[int, int, Any]:
    """(req, errno, result) of a reply. ValueError where it has another ABI or is none."""
    reply = msgpack.unpackb(meta, use_list=False, raw=False)
    if type(reply) is not tuple or len(reply) != 4:
        raise ValueError("the socket layer's reply is not [SYS_ABI, req, errno, result]")
    if reply[0] != SYS_ABI:
        raise ValueError(
            f"the socket layer speaks system call ABI {reply[0]}, this library {SYS_ABI}"
        )
    return reply[1], reply[2], reply[3]


def decode_request(meta: bytes | memoryview, data: bytes | memoryview = b"") -> Request:
    """A request from its frames, checked against the table; SysCallError where it is none.

    The error carries the request's number where one could be read, so that it can be answered.
    """
    if len(meta) > MAX_META or len(data) > MAX_DATA:
        raise SysCallError(errno.EMSGSIZE, f"request of {len(meta)}+{len(data)} bytes")
    try:
        message = msgpack.unpackb(meta, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise SysCallError(errno.EINVAL, f"not msgpack: {e}") from e
    if type(message) is not tuple or len(message) < 4:
        raise SysCallError(errno.EINVAL, "not [SYS_ABI, req, posted, call, args...]")
    abi, req, posted, call = message[:4]
    if type(req) is not int or not POSTED <= req < 2**63:
        raise SysCallError(errno.EINVAL, "the request's number is not an int of -1 to 2^63-1")
    if abi != SYS_ABI:
        raise SysCallError(
            errno.EPROTO, f"the request has ABI {abi!r:.20}, the socket layer {SYS_ABI}", req
        )
    if type(posted) is not int or not -1 <= posted < 2**63:
        raise SysCallError(errno.EINVAL, "the number of posts is not an int of -1 to 2^63-1", req)
    table = CALLS.get(call) if type(call) is str else None
    if table is None:
        raise SysCallError(errno.ENOSYS, f"no such call: {call!r:.40}", req)
    if (req == POSTED) is not (call in POSTABLE) and (req == POSTED or call == "post"):
        raise SysCallError(errno.EINVAL, f"{call} cannot be posted, or only be posted", req)
    args = message[4:]
    if len(args) != len(table):
        raise SysCallError(
            errno.EINVAL, f"{call} takes {len(table)} arguments, not {len(args)}", req
        )
    for arg, value in zip(table, args, strict=True):
        if arg.kind == _INT:
            if type(value) is not int:
                raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not an int", req)
            if not arg.low <= value <= arg.high:
                raise SysCallError(errno.EINVAL, f"{call}: {arg.name} is out of bounds", req)
        else:
            _CHECKS[arg.kind](arg, value, call, req)
    return Request(req, posted, call, args)


def _check_bytes(arg: Arg, value: Any, call: str, req: int) -> None:
    if type(value) is not bytes:
        raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not bytes", req)
    if not arg.low <= len(value) <= arg.high:
        raise SysCallError(errno.EINVAL, f"{call}: {arg.name} has {len(value)} bytes", req)


def _check_sockaddr(arg: Arg, value: Any, call: str, req: int) -> None:
    if value is None:
        return
    if type(value) is not tuple or tuple(map(type, value)) != (int, int, bytes):
        raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not [family, port, addr]", req)
    family, port, addr = value
    if not 0 <= family <= 65535 or not 0 <= port <= 65535 or len(addr) not in (0, 4, 16):
        raise SysCallError(errno.EINVAL, f"{call}: {arg.name} is out of bounds", req)


def _check_places(arg: Arg, value: Any, call: str, req: int) -> None:
    if type(value) is not tuple:
        raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not an array", req)
    if len(value) > MAX_PLACES:
        raise SysCallError(errno.EMSGSIZE, f"{call}: more than {MAX_PLACES} places", req)
    for place in value:
        if type(place) is not tuple or tuple(map(type, place)) != (int, int, int, int, int):
            raise SysCallError(errno.EFAULT, f"{call}: not a place: {place!r:.60}", req)
        if min(place) < 0 or max(place) >= 2**32:
            raise SysCallError(errno.EINVAL, f"{call}: a place is out of bounds", req)


def _check_cmsgs(arg: Arg, value: Any, call: str, req: int) -> None:
    if type(value) is not tuple:
        raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not an array", req)
    if len(value) > MAX_CMSGS:
        raise SysCallError(errno.EINVAL, f"{call}: more than {MAX_CMSGS} control messages", req)
    for cmsg in value:
        if type(cmsg) is not tuple or tuple(map(type, cmsg)) != (int, int, bytes):
            raise SysCallError(errno.EFAULT, f"{call}: not [level, type, data]", req)
        if len(cmsg[2]) > MAX_OPTLEN or abs(cmsg[0]) >= 2**31 or abs(cmsg[1]) >= 2**31:
            raise SysCallError(errno.EINVAL, f"{call}: a control message is too big", req)


def _check_pollfds(arg: Arg, value: Any, call: str, req: int) -> None:
    if type(value) is not tuple:
        raise SysCallError(errno.EFAULT, f"{call}: {arg.name} is not an array", req)
    if len(value) > MAX_POLL:
        raise SysCallError(errno.EINVAL, f"{call}: more than {MAX_POLL} descriptors", req)
    for pollfd in value:
        if type(pollfd) is not tuple or tuple(map(type, pollfd)) != (int, int):
            raise SysCallError(errno.EFAULT, f"{call}: not [fd, events]", req)
        if abs(pollfd[0]) >= 2**31 or not 0 <= pollfd[1] < 65536:
            raise SysCallError(errno.EINVAL, f"{call}: [fd, events] is out of bounds", req)


_CHECKS: Final = {
    _BYTES: _check_bytes,
    _SOCKADDR: _check_sockaddr,
    _PLACES: _check_places,
    _CMSGS: _check_cmsgs,
    _POLLFDS: _check_pollfds,
}

__all__ = [
    "CALLS",
    "POSTABLE",
    "POSTED",
    "SYS_ABI",
    "Place",
    "RecvmsgArgs",
    "Request",
    "SendmsgArgs",
    "SockAddr",
    "SysCallError",
    "decode_reply",
    "decode_request",
    "encode_ordered",
    "encode_reply",
    "encode_request",
]
