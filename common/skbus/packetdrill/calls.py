# SPDX-License-Identifier: MIT
"""System calls of scripts: made of `skbus.core.syscall`'s, and their outcome held against the
script.

`Calls.start` begins one; what it returns says when it is done, and whether the outcome is right.
Descriptors in scripts are the script's own; they are mapped to the stack's here. What is sent is
the known pattern (`flow.pattern`), and what is received has to be it.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, Final

from skbus.core.syscall import RecvmsgArgs, SendmsgArgs
from skbus.packetdrill.backend import Backend, Pending, Reply
from skbus.packetdrill.config import Config
from skbus.packetdrill.epoll import Epolls
from skbus.packetdrill.flow import Flow, FlowState, pattern
from skbus.packetdrill.script import (
    Array,
    Ellipsis_,
    Expr,
    ScriptError,
    Str,
    Struct,
    SysCall,
    Unsupported,
)
from skbus.packetdrill.sockets import Sockets
from skbus.packetdrill.symbols import SYMBOLS
from skbus.packetdrill.values import (
    bracketed,
    control_differs,
    iovecs,
    is_ellipsis,
    known_members,
    message,
    number,
    option_value,
)

AF_INET: Final = 2
AF_UNSPEC: Final = 0
SOCK_TYPE_MASK: Final = 0xF
SOCK_RAW: Final = 3
_PROTOCOL_OF_TYPE: Final = {1: 6, 2: 17}
MSG_PEEK: Final = 2
MSG_OOB: Final = 1
MSG_ERRQUEUE: Final = 0x2000
MSG_FASTOPEN: Final = 0x20000000
MSG_ZEROCOPY: Final = 0x4000000
SO_ZEROCOPY: Final = 60
SO_TIMESTAMPING: Final = 37
CONTROL_LEN: Final = 1024

NOT_APPLICABLE: Final = {
    "splice": "splice() between descriptors of the kernel",
    "sendfile": "sendfile() from a file of the kernel",
    "pipe": "pipes of the kernel",
    "open": "files of the kernel",
    "cap_set": "capabilities",
    "psp_rx_assoc": "PSP",
    "psp_tx_assoc": "PSP",
}
"""Calls about what is the kernel's own, and why they are not ours."""

ARGUMENTS: Final[dict[str, tuple[int, int]]] = {
    "socket": (3, 3), "bind": (3, 3), "listen": (2, 2), "accept": (3, 3), "connect": (3, 3),
    "close": (1, 1), "shutdown": (2, 2), "read": (3, 3), "readv": (3, 3), "recv": (4, 4),
    "recvfrom": (6, 6), "recvmsg": (3, 3), "write": (3, 3), "writev": (3, 3), "send": (4, 4),
    "sendto": (6, 6), "sendmsg": (3, 3), "fcntl": (2, 3), "ioctl": (2, 3), "getsockopt": (5, 5),
    "setsockopt": (5, 5), "poll": (3, 3), "epoll_create": (1, 1), "epoll_ctl": (4, 4),
    "epoll_wait": (4, 4),
}  # fmt: skip
"""How many arguments each call has."""

_FILLED_IN: Final[dict[str, tuple[int, ...]]] = {
    "accept": (1, 2), "read": (1,), "recv": (1,), "recvfrom": (1, 4, 5), "write": (1,),
    "send": (1,), "sendto": (1,),
}  # fmt: skip
"""Arguments that are the interpreter's choice: `...`, or NULL."""

_LENGTHS: Final = {"bind": 2, "connect": 2, "sendto": 5}
"""Arguments that are the length of an address: `...`, or SOCKADDR_IN."""
SOCKADDR_IN: Final = 16

Check = Callable[[Reply], str | None]
"""Says what is wrong with a reply whose number and errno are right; None: nothing."""
Value = Callable[[Reply], int]
"""The number that the call gives a script."""


class Started:
    """A call of the script that was begun."""

    def __init__(self, call: SysCall, pending: Pending, value: Value, check: Check) -> None:
        self.call = call
        self.pending = pending
        self._value = value
        self._check = check
        self.is_fd = False
        """any descriptor is the script's"""

    @property
    def done(self) -> bool:
        return self.pending.done

    @property
    def reply(self) -> Reply:
        return self.pending.reply

    @property
    def finished(self) -> int:
        return self.pending.finished

    def verdict(self) -> tuple[str, list[str]]:
        """(the call as it was, what is wrong with its outcome)"""
        reply = self.reply
        wanted = number(self.call.result)
        value = -1 if reply.errno else self._value(reply)
        if self.call.errno and self.call.errno not in SYMBOLS:
            raise ScriptError(f"unknown error {self.call.errno}")
        text = f"{self.call.name}() = {_result(value, reply.errno)}"
        expected = _result(wanted, SYMBOLS.get(self.call.errno or "", 0))
        right = value >= 0 if self.is_fd and wanted >= 0 else value == wanted
        if right and self.call.errno and reply.errno != SYMBOLS.get(self.call.errno):
            right = False
        if not right:
            lines = [f"expected {expected}, returned {_result(value, reply.errno)}"]
            if isinstance(reply.result, str) and reply.errno:
                lines.append(f"the socket layer says: {reply.result}")
            return text, lines
        wrong = None if reply.errno else self._check(reply)
        return text, [wrong] if wrong else []


class Answered:
    """A call that needs no stack."""

    done = True

    def __init__(self, reply: Reply, now: int) -> None:
        self.reply = reply
        self.finished = now


class Calls:
    """The system calls of one run."""

    def __init__(self, backend: Backend, sockets: Sockets, config: Config) -> None:
        self.backend = backend
        self.sockets = sockets
        self.config = config
        self.fds: dict[int, int] = {}
        """the script's descriptors -> the stack's"""
        self.epolls = Epolls(backend)

    def start(self, call: SysCall) -> Started:
        """Begin a call. ScriptError, Unsupported."""
        if call.name in NOT_APPLICABLE:
            raise Unsupported(NOT_APPLICABLE[call.name])
        handler: Callable[[SysCall], Started] | None = getattr(self, f"_sys_{call.name}", None)
        if handler is None:
            raise ScriptError(f"unknown system call {call.name}()")
        check_arguments(call)
        return handler(call)

    # ---- helpers -----------------------------------------------------------------------

    def _fd(self, call: SysCall, index: int = 0) -> int:
        script_fd = number(call.args[index])
        if script_fd not in self.fds:
            raise ScriptError(f"the script has no descriptor {script_fd}")
        return self.fds[script_fd]

    def _flow(self, call: SysCall) -> Flow | None:
        return self.sockets.by_script_fd(number(call.args[0]))

    def _plain(
        self, call: SysCall, name: str, *args: object, check: Check | None = None
    ) -> Started:
        """A call whose number is 0 or its result."""
        pending = self.backend.call(name, *args)
        return Started(call, pending, _int_result, check or _right)

    def _address(self, expr: Expr, port: int, default: str) -> tuple[int, int, bytes]:
        """`...` is where the script's configuration puts it."""
        if isinstance(expr, Struct):
            return _sockaddr(expr)
        if not is_ellipsis(expr):
            family = number(expr)
            if family == AF_UNSPEC:
                return AF_UNSPEC, 0, b""
        packed = self.sockets.local if default == "local" else self.sockets.remote
        return AF_INET, port, packed

    # ---- sockets -----------------------------------------------------------------------

    def _sys_socket(self, call: SysCall) -> Started:
        domain = AF_INET if is_ellipsis(call.args[0]) else number(call.args[0])
        kind, protocol = number(call.args[1]), number(call.args[2])
        script_fd = number(call.result)

        def opened(reply: Reply) -> str | None:
            fd = int(reply.result)
            self.fds[script_fd] = fd
            number_of = protocol or _PROTOCOL_OF_TYPE.get(kind & SOCK_TYPE_MASK, 0)
            self.sockets.opened(number_of, script_fd, fd, kind & SOCK_TYPE_MASK == SOCK_RAW)
            return None

        started = self._plain(call, "socket", domain, kind, protocol, check=opened)
        started.is_fd = True
        return started

    def _sys_bind(self, call: SysCall) -> Started:
        address = self._address(call.args[1], self.config.addresses.bind_port, "local")

        def bound(_: Reply) -> str | None:
            if (flow := self._flow(call)) is not None and address[2]:
                self.sockets.bound(flow, address[2], address[1])
            return None

        return self._plain(call, "bind", self._fd(call), address, check=bound)

    def _sys_listen(self, call: SysCall) -> Started:
        def listening(_: Reply) -> str | None:
            if (flow := self._flow(call)) is not None:
                flow.state = FlowState.LISTENING
            return None

        backlog = number(call.args[1])
        return self._plain(call, "listen", self._fd(call), backlog, check=listening)

    def _sys_accept(self, call: SysCall) -> Started:
        script_fd = number(call.result)

        def accepted(reply: Reply) -> str | None:
            fd, (_, port, _) = reply.result
            self.fds[script_fd] = fd
            if not self.sockets.accepted(script_fd, fd, port):
                return f"a connection that the script does not know, from port {port}"
            return None

        pending = self.backend.call("accept4", self._fd(call), 0, -1)
        started = Started(call, pending, lambda reply: int(reply.result[0]), accepted)
        started.is_fd = True
        return started

    def _connecting(self, call: SysCall, address: tuple[int, int, bytes]) -> None:
        flow = self._flow(call)
        if flow is None:
            return
        if address[0] == AF_UNSPEC:
            flow.disconnected()
        else:
            self.sockets.connecting(flow, address[2], address[1])

    def _sys_connect(self, call: SysCall) -> Started:
        address = self._address(call.args[1], self.config.addresses.connect_port, "remote")
        self._connecting(call, address)
        return self._plain(call, "connect", self._fd(call), address, -1)

    def _sys_close(self, call: SysCall) -> Started:
        fd = self._fd(call)
        if self.epolls.close(fd):
            return Started(call, Answered(Reply(0, 0), self.backend.now()), _int_result, _right)
        self.epolls.forget(fd)
        return self._plain(call, "close", fd)

    def _sys_shutdown(self, call: SysCall) -> Started:
        return self._plain(call, "shutdown", self._fd(call), number(call.args[1]))

    # ---- sending -----------------------------------------------------------------------

    def _send(
        self, call: SysCall, size: int, flags: int, address: Any, null: bool, control: Any = ()
    ) -> Started:
        flow = self._flow(call)
        data = b""
        if not null:
            data = flow.outgoing(size) if flow is not None else pattern(0, size)

        def sent(reply: Reply) -> str | None:
            if flow is not None:
                flow.sent += int(reply.result)
            return None

        # a NULL pointer is None on the wire to the socket layer, which finds it no better
        places: Any = None if null and size else ()
        pending = self.backend.call(
            "sendmsg",
            *SendmsgArgs(self._fd(call), flags=flags, addr=address, places=places, control=control),
            data=data,
        )
        return Started(call, pending, _int_result, sent)

    def _sys_write(self, call: SysCall) -> Started:
        return self._send(call, number(call.args[2]), 0, None, _is_null(call.args[1]))

    def _sys_writev(self, call: SysCall) -> Started:
        return self._send(call, self._iovecs(call), 0, None, False)

    def _sys_send(self, call: SysCall) -> Started:
        size, flags = number(call.args[2]), self._flags(call.args[3])
        return self._send(call, size, flags, None, _is_null(call.args[1]))

    def _sys_sendto(self, call: SysCall) -> Started:
        size, flags = number(call.args[2]), self._flags(call.args[3])
        address = self._address(call.args[4], self.config.addresses.connect_port, "remote")
        flow = self._flow(call)
        if flow is not None and (flow.protocol != 6 or flags & MSG_FASTOPEN):
            self._connecting(call, address)
        return self._send(call, size, flags, address, _is_null(call.args[1]))

    def _sys_sendmsg(self, call: SysCall) -> Started:
        msg = message(call.args[1])
        flags = self._flags(call.args[2])
        flow = self._flow(call)
        address = None
        if flow is not None and (flow.protocol != 6 or flags & MSG_FASTOPEN):
            port = self.config.addresses.connect_port
            address = self._address(msg.name or Ellipsis_(), port, "remote")
            self._connecting(call, address)
        elif isinstance(msg.name, Struct):
            address = _sockaddr(msg.name)
        return self._send(call, msg.size, flags, address, False, msg.control)

    @staticmethod
    def _iovecs(call: SysCall) -> int:
        size, count = iovecs(call.args[1]), number(call.args[2])
        if isinstance(call.args[1], Array) and count != len(call.args[1].items):
            raise ScriptError(f"{call.name}() has {len(call.args[1].items)} iovecs, not {count}")
        return size

    @staticmethod
    def _flags(expr: Expr) -> int:
        flags = number(expr)
        if flags & MSG_ZEROCOPY:
            raise Unsupported("zerocopy: the application's memory is not the stack's")
        return flags

    # ---- receiving ---------------------------------------------------------------------

    def _recv(self, call: SysCall, size: int | None, flags: int, check: Check) -> Started:
        flow = self._flow(call)

        def received(reply: Reply) -> str | None:
            return check(reply) or _wrong_bytes(flow, reply, flags)

        room: Any = size  # None is a bad pointer, which the stack has to refuse
        pending = self.backend.call(
            "recvmsg", *RecvmsgArgs(self._fd(call), room, controllen=CONTROL_LEN, flags=flags)
        )
        return Started(call, pending, _received_length, received)

    def _sys_read(self, call: SysCall) -> Started:
        size = None if _is_null(call.args[1]) else number(call.args[2])
        return self._recv(call, size, 0, _right)

    def _sys_readv(self, call: SysCall) -> Started:
        return self._recv(call, self._iovecs(call), 0, _right)

    def _sys_recv(self, call: SysCall) -> Started:
        size = None if _is_null(call.args[1]) else number(call.args[2])
        return self._recv(call, size, number(call.args[3]), _right)

    def _sys_recvfrom(self, call: SysCall) -> Started:
        return self._sys_recv(call)

    def _sys_recvmsg(self, call: SysCall) -> Started:
        msg = message(call.args[1])
        flags = number(call.args[2])
        if isinstance(msg.name, Struct):
            raise Unsupported("the address that recvmsg() gives, compared with one of the script's")

        def check(reply: Reply) -> str | None:
            _, msg_flags, control = reply.result
            msg_flags &= _MSG_FLAGS
            if msg_flags != msg.flags:
                return f"expected msg_flags {msg.flags:#x}, got {msg_flags:#x}"
            return control_differs(msg.control, tuple(map(tuple, control)))

        return self._recv(call, msg.size, flags, check)

    # ---- options, fcntl, ioctl ---------------------------------------------------------

    def _sys_setsockopt(self, call: SysCall) -> Started:
        level, name = number(call.args[1]), number(call.args[2])
        if level == 1 and name == SO_ZEROCOPY:
            raise Unsupported("zerocopy: the application's memory is not the stack's")
        if level == 1 and name == SO_TIMESTAMPING:
            raise Unsupported("time stamps of the driver")
        value = option_value(call.args[3], number(call.args[4]))
        return self._plain(call, "setsockopt", self._fd(call), level, name, value)

    def _sys_getsockopt(self, call: SysCall) -> Started:
        level, name = number(call.args[1]), number(call.args[2])
        size = bracketed(call.args[4])
        wanted = call.args[3]

        def check(reply: Reply) -> str | None:
            value = bytes(reply.result)
            if len(value) != size:
                return f"expected an option of {size} bytes, got {len(value)}"
            if is_ellipsis(wanted):
                return None
            expected = option_value(wanted, size)
            if expected == value:
                return None
            if isinstance(wanted, Str):
                return f"expected {expected!r}, got {value!r}"
            have = int.from_bytes(value, "little", signed=True)
            return f"expected [{bracketed(wanted)}], got [{have}]"

        pending = self.backend.call("getsockopt", self._fd(call), level, name, size)
        return Started(call, pending, lambda _: 0, check)

    def _sys_fcntl(self, call: SysCall) -> Started:
        arg = number(call.args[2]) if len(call.args) > 2 else 0
        return self._plain(call, "fcntl", self._fd(call), number(call.args[1]), arg)

    def _sys_ioctl(self, call: SysCall) -> Started:
        wanted = bracketed(call.args[2]) if len(call.args) > 2 else None

        def check(reply: Reply) -> str | None:
            if wanted is not None and reply.result != wanted:
                return f"expected [{wanted}], got [{reply.result}]"
            return None

        pending = self.backend.call("ioctl", self._fd(call), number(call.args[1]))
        return Started(call, pending, lambda _: 0, check)

    # ---- poll and epoll ----------------------------------------------------------------

    def _sys_poll(self, call: SysCall) -> Started:
        if not isinstance(call.args[0], Array):
            raise ScriptError("poll() takes an array of pollfds")
        fds, wanted = [], []
        for item in call.args[0].items:
            if not isinstance(item, Struct) or not {"fd", "events"} <= item.fields.keys():
                raise ScriptError("expected a pollfd: {fd=3, events=POLLIN, revents=POLLIN}")
            known_members(item, {"fd", "events", "revents"}, "a pollfd")
            script_fd = number(item.fields["fd"])
            if script_fd not in self.fds:
                raise ScriptError(f"the script has no descriptor {script_fd}")
            fds.append((self.fds[script_fd], number(item.fields["events"])))
            revents = item.fields.get("revents")
            wanted.append(number(revents) if revents is not None else 0)

        def check(reply: Reply) -> str | None:
            ready = dict(reply.result)
            seen = [ready.get(fd, 0) for fd, _ in fds]
            if seen == wanted:
                return None
            return f"expected revents {[hex(w) for w in wanted]}, got {[hex(s) for s in seen]}"

        if number(call.args[1]) != len(fds):
            raise ScriptError(f"poll() has {len(fds)} pollfds, not {number(call.args[1])}")
        timeout = _milliseconds(call.args[2])
        pending = self.backend.call("poll", tuple(fds), timeout)
        return Started(call, pending, lambda reply: sum(bool(r) for _, r in reply.result), check)

    def _sys_epoll_create(self, call: SysCall) -> Started:
        self.fds[number(call.result)] = self.epolls.create()
        started = Started(call, Answered(Reply(0, 0), self.backend.now()), _int_result, _right)
        started.is_fd = True
        return started

    def _sys_epoll_ctl(self, call: SysCall) -> Started:
        events = _epoll_event(call.args[3])
        err = self.epolls.ctl(
            self._fd(call), number(call.args[1]), self._fd(call, 2),
            number(events.fields["events"]), self._epoll_data(events),
        )  # fmt: skip
        answered = Answered(Reply(err, 0), self.backend.now())
        return Started(call, answered, _int_result, _right)

    def _epoll_data(self, event: Struct) -> int:
        for name in ("fd", "ptr", "u32", "u64"):
            if name in event.fields:
                return number(event.fields[name])
        return 0

    def _sys_epoll_wait(self, call: SysCall) -> Started:
        event = _epoll_event(call.args[1])
        wanted = number(event.fields["events"]), self._epoll_data(event)

        def check(reply: Reply) -> str | None:
            if not reply.result:
                return None
            events, data = reply.result[0]
            if (events, data) != wanted:
                return f"expected events {wanted[0]:#x} of {wanted[1]}, got {events:#x} of {data}"
            if len(reply.result) > 1:
                return f"{len(reply.result)} events, of which the script describes one"
            return None

        size, timeout = number(call.args[2]), _milliseconds(call.args[3])
        pending = self.epolls.wait(self._fd(call), size, timeout)
        return Started(call, pending, lambda reply: len(reply.result), check)


def _right(_: Reply) -> str | None:
    return None


def _int_result(reply: Reply) -> int:
    return reply.result if isinstance(reply.result, int) else 0


def check_arguments(call: SysCall) -> None:
    """ScriptError where a call has too few or too many arguments, or says what is not its."""
    least, most = ARGUMENTS[call.name]
    have = len(call.args)
    if not least <= have <= most:
        few = "few" if have < least else "many"
        takes = str(least) if least == most else f"{least} or {most}"
        raise ScriptError(f"{call.name}() has too {few} arguments: {have}, and takes {takes}")
    for index in _FILLED_IN.get(call.name, ()):
        if not is_ellipsis(call.args[index]) and not _is_null(call.args[index]):
            raise ScriptError(
                f"{call.name}(), argument {index + 1}: takes `...`, which the interpreter fills in"
                " (what is sent and received is a known pattern)"
            )
    index = _LENGTHS.get(call.name, -1)
    if index >= 0 and not is_ellipsis(call.args[index]):
        size = number(call.args[index])
        if size != SOCKADDR_IN and not _is_null(call.args[index - 1]):
            raise Unsupported(f"{call.name}() with an address of {size} bytes")


def _epoll_event(expr: Expr) -> Struct:
    if not isinstance(expr, Struct) or "events" not in expr.fields:
        raise ScriptError("expected an epoll_event: {events=EPOLLIN, fd=4}")
    known_members(expr, {"events", "fd", "ptr", "u32", "u64"}, "an epoll_event")
    return expr


_MSG_FLAGS: Final = 0xFFFFFFFF
"""msg_flags; above them is how long what was cut off or thrown away was (`skbus.core.syscall`)."""


def _received_length(reply: Reply) -> int:
    """What recv() gives: more than there is, where MSG_TRUNC asks for the real length."""
    return int(reply.result[1]) >> 32 or len(reply.data)


def _is_null(expr: Expr) -> bool:
    return getattr(expr, "name", "") == "NULL"


def _milliseconds(expr: Expr) -> int:
    timeout = number(expr)
    return timeout * 1_000_000 if timeout >= 0 else -1


def _result(value: int, err: int) -> str:
    if not err:
        return str(value)
    return f"{value} {errno.errorcode.get(err, err)} ({os.strerror(err)})"


def _sockaddr(expr: Struct) -> tuple[int, int, bytes]:
    """`{sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("1.2.3.4")}`"""
    import ipaddress

    if any(name.startswith("sin6_") for name in expr.fields):
        raise Unsupported("IPv6 (sin6_addr)")
    members = {"sa_family", "sin_port", "sin_addr"}
    known_members(expr, members, "a sockaddr_in")
    if missing := sorted(members - expr.fields.keys()):
        raise ScriptError(f"a sockaddr_in without {missing[0]}")
    port = expr.fields["sin_port"]
    addr = expr.fields["sin_addr"]
    text = getattr(addr, "args", (Str(b"0.0.0.0"),))[0]
    if not isinstance(text, Str):
        raise ScriptError('sin_addr is not inet_addr("...")')
    port_number = number(getattr(port, "args", (port,))[0])
    try:
        packed = ipaddress.IPv4Address(text.value.decode()).packed
    except ValueError as e:
        raise ScriptError(f"sin_addr: {e}") from None
    return number(expr.fields["sa_family"]), port_number, packed


def _wrong_bytes(flow: Flow | None, reply: Reply, flags: int) -> str | None:
    """What is wrong with bytes that were received on a connection."""
    data = reply.data
    if flow is None or flow.protocol != 6 or flags & (MSG_OOB | MSG_ERRQUEUE):
        return None
    start = flow.received
    if not flags & MSG_PEEK:
        flow.received += _received_length(reply)
    if data == pattern(start, len(data)):
        return None
    wanted = pattern(start, len(data))
    at = next(i for i, (a, b) in enumerate(zip(data, wanted, strict=True)) if a != b)
    return f"byte {start + at} of the stream is {data[at]:#x}, not {wanted[at]:#x}"
