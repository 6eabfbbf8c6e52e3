# SPDX-License-Identifier: MIT
"""A parsed script: what `parser` makes and `interpreter` runs. Times are ns.

Names follow the language's own description (packetdrill's `syntax.md`); sequence numbers are
those of the script, which `flow` maps to those on the wire.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple


class ScriptError(Exception):
    """A script that cannot be understood; the text says why and where."""

    def __init__(self, text: str, path: str = "", line: int = 0) -> None:
        super().__init__(f"{path or 'script'}:{line}: {text}" if line else text)
        self.text = text
        self.path = path
        self.line = line


class Unsupported(Exception):
    """Valid in the language, but nothing that a stack of this kind can do: not applicable."""


class TimeKind(Enum):
    """How an event says when it happens."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"
    ANY = "any"
    """`*`: an outbound packet that may come at any time"""


class EventTime(NamedTuple):
    """When an event happens: `start`, or anywhere from `start` to `end` where `end` is given."""

    kind: TimeKind
    start: int = 0
    end: int | None = None


# ---- expressions -----------------------------------------------------------------------


class Ellipsis_(NamedTuple):
    """`...`: the interpreter's choice"""


class Int(NamedTuple):
    """A number."""

    value: int


class Word(NamedTuple):
    """A symbol, such as SOL_SOCKET."""

    name: str


class Str(NamedTuple):
    """A string, unescaped; `rest` for `"abc"...`"""

    value: bytes
    rest: bool = False


class Or(NamedTuple):
    """`a | b`"""

    left: "Expr"
    right: "Expr"


class Array(NamedTuple):
    """`[a, b]`"""

    items: tuple["Expr", ...]


class Call(NamedTuple):
    """`htons(80)`, `inet_addr("1.2.3.4")`"""

    name: str
    args: tuple["Expr", ...]


class Struct(NamedTuple):
    """`{a=1, b(...)=2}` or `{..., 100}`: named members, then those without a name."""

    fields: dict[str, "Expr"]
    items: tuple["Expr", ...] = ()


Expr = Ellipsis_ | Int | Word | Str | Or | Array | Call | Struct


# ---- packets ---------------------------------------------------------------------------


class IpInfo(NamedTuple):
    """`[ect0]`, `[tos 0x4]`, `[ttl 64]`; None: not said, not checked."""

    ecn: int | None = None
    ect01: bool = False
    """either of the two ECT code points"""
    tos: int | None = None
    ttl: int | None = None


PLAIN_IP: Final = IpInfo()


class TcpOption(NamedTuple):
    """One TCP option: its kind, and what follows kind and length on the wire.

    TS and SACK keep their numbers apart, since they are mapped.
    """

    kind: int
    body: bytes = b""
    numbers: tuple[int, ...] = ()


class Ports(NamedTuple):
    """`8080 > 1234` where the script names ports itself."""

    source: int
    dest: int


@dataclass(slots=True)
class TcpPacket:
    """A TCP segment. `options` None: `<...>`, not checked."""

    inbound: bool
    flags: str
    """of F S R P . U, and E W A; `.` is ACK"""
    ace: int | None
    """the Accurate ECN counter where the flags give it as a digit"""
    seq: int
    length: int
    ack: int
    window: int | None
    urgent: int
    options: tuple[TcpOption, ...] | None
    ip: IpInfo = PLAIN_IP
    ports: Ports | None = None


@dataclass(slots=True)
class UdpPacket:
    """A UDP datagram with so many bytes of payload."""

    inbound: bool
    length: int
    ip: IpInfo = PLAIN_IP
    ports: Ports | None = None


class Echoed(NamedTuple):
    """What an ICMP message quotes: `[1:1001(1000)]`, `[udp (100)]`, `[raw (8)]`. protocol "": the
    script does not say."""

    protocol: str = ""
    seq: int = 0
    length: int = 0


@dataclass(slots=True)
class IcmpPacket:
    """An ICMP message."""

    inbound: bool
    type: int
    code: int
    mtu: int | None
    echo_id: int | None
    echoed: Echoed
    ip: IpInfo = PLAIN_IP


Packet = TcpPacket | UdpPacket | IcmpPacket


# ---- the other actions -----------------------------------------------------------------


@dataclass(slots=True)
class SysCall:
    """A system call. `end`: for `+0...0.1`, when the blocking call returns (same kind of time)."""

    name: str
    args: tuple[Expr, ...]
    result: Expr
    errno: str | None = None
    end: int | None = None


@dataclass(slots=True)
class Command:
    """A shell command in backticks."""

    text: str


@dataclass(slots=True)
class Code:
    """Python between %{ and }%."""

    text: str


Action = Packet | SysCall | Command | Code


@dataclass(slots=True)
class Event:
    """One line of a script: when, and what."""

    line: int
    time: EventTime
    action: Action
    text: str = ""
    """as written, on one line"""


@dataclass(slots=True)
class Script:
    """A whole script."""

    path: str
    options: dict[str, str | None] = field(default_factory=dict)
    init: Command | None = None
    events: list[Event] = field(default_factory=list)
    cleanup: Command | None = None
