# SPDX-License-Identifier: MIT
"""Entries and interfaces: how a call into another process is named, typed and found.

An `Entry` is one call that a process takes. An `Interface` is a class of entries that one process
serves to another. The caller names the entry, and mypy checks the item:

    net.call("tcp", TransportProto.bind, GetPort(...))
    net.call_skb("ip", Ip.ip_queue_xmit, skb, XmitCb(...))

The process that is called says which of its functions takes each entry, and mypy checks those:

    SERVES = serve(
        TransportProto,
        TransportProto.bind.by(tcp.tcp_v4_get_port),
        ...
    )

`serve` fails at import where an entry of the interface is missing. So "find all references" on an
entry leads from any caller to the function that takes the call. On the wire an entry is its name
alone. The interfaces of the stack are in `skbus.core.interfaces`; `skbus abi` and docs/messages.md
print them. From the same objects the codec has the layout of the items, and the shell the rule for
a full pipe.
"""

import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar

from skbus.core.compiled import mypyc_attr
from skbus.core.layout import Layout, fits
from skbus.core.skbuff import SkBuff

Handler = Callable[[Any, Any], None]
"""A function of a core that takes an entry: (net, item or skb)."""

T = TypeVar("T", bound=tuple[Any, ...])
R = TypeVar("R")
C = TypeVar("C", bound=tuple[Any, ...] | None)


@mypyc_attr(native_class=False)
class EntryError(TypeError):
    """An interface, or a process that serves one, contradicts itself; the text says how."""


@mypyc_attr(allow_interpreted_subclasses=True)
class AnyEntry:
    """What `Entry` and `SkbEntry` have in common.

    name: on the wire. interface: the name of its class. kind: the NamedTuple of the item, or of
    the skb's cb; None for an skb that crosses without cb. layout: how the NamedTuple lies in a
    message. lossless: a full pipe holds the item back; without it, a full pipe drops the item.
    """

    __slots__ = (
        "head", "interface", "is_skb", "kind", "layout", "lossless", "name", "reply",
        "reply_signature",
    )  # fmt: skip

    def __init__(self, kind: Any, reply: Any, is_skb: bool, lossless: bool) -> None:
        self.name = ""
        self.interface = ""
        self.kind = kind
        self.reply = reply
        self.is_skb = is_skb
        self.lossless = lossless
        self.layout: Layout | None = Layout(kind) if kind is not None else None
        self.reply_signature: tuple[Any, ...] = ()
        self.head: Head | None = None
        """Of the last message by this entry."""

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.interface}.{self.name}"


class Entry(AnyEntry, Generic[T]):
    """A call without payload. A full pipe never drops it."""

    __slots__ = ()

    def __init__(self, kind: type[T]) -> None:
        super().__init__(kind, None, False, True)

    def by(self, function: Callable[[Any, T], None]) -> "Served":
        """This entry is taken by `function(net, item)`."""
        return Served(self, function)


class Request(Entry[T], Generic[T, R]):
    """A call that `SkCallbacks.sk_ret` answers. reply: the type of `SkRet.val` on success, a
    NamedTuple or a plain type; `type(None)` where there is nothing to tell."""

    __slots__ = ()

    def __init__(self, kind: type[T], reply: type[R]) -> None:
        super().__init__(kind)
        self.reply = reply
        self.reply_signature = reply_signature_of(reply)


class SkbEntry(AnyEntry, Generic[C]):
    """A call whose item is an skb with a cb of type C."""

    __slots__ = ()

    def __init__(self, kind: type[C], *, lossless: bool = False) -> None:
        super().__init__(None if kind is type(None) else kind, None, True, lossless)

    def by(self, function: Callable[[Any, SkBuff], None]) -> "Served":
        """This entry is taken by `function(net, skb)`."""
        return Served(self, function)


class SkbRequest(SkbEntry[C], Generic[C, R]):
    """A call with an skb that `SkCallbacks.sk_ret` answers, as `Request`."""

    __slots__ = ()

    def __init__(self, kind: type[C], reply: type[R], *, lossless: bool = False) -> None:
        super().__init__(kind, lossless=lossless)
        self.reply = reply
        self.reply_signature = reply_signature_of(reply)


class Head:
    """With what a run of items begins on the wire (`skbus.bus.codec`): the sender, its epoch and
    the entry, which are the same in most messages.

    entry: None where no interface has the name. one, many: its bytes, where one item or more
    follow.
    """

    __slots__ = ("entry", "epoch", "many", "name", "one", "sender")

    def __init__(
        self, sender: str, epoch: int, name: str, entry: AnyEntry | None, one: bytes, many: bytes
    ) -> None:
        self.sender = sender
        self.epoch = epoch
        self.name = name
        self.entry = entry
        self.one = one
        self.many = many


class Served:
    """An entry, and the function that takes it."""

    __slots__ = ("entry", "function")

    def __init__(self, entry: AnyEntry, function: Handler) -> None:
        self.entry = entry
        self.function = function


BY_NAME: Final[dict[str, AnyEntry]] = {}
"""All entries of all interfaces that have been imported, by their names on the wire."""

HEADS: Final[dict[bytes, Head]] = {}
"""The codec's memory of heads, by their bytes; a new interface begins it anew."""

INTERFACES: Final[list[type["Interface"]]] = []
"""All interfaces that have been imported, in that order."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Interface:
    """What one process serves to another: subclasses have entries as attributes.

    callers, callees: the processes that call and serve it: nic, ip, tcp, udp, socket, "plug-ins"
    for transports that are plug-ins. Empty means every process.
    """

    callers: ClassVar[tuple[str, ...]] = ()
    callees: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Names the entries. EntryError where a name is taken by another interface."""
        for name, entry in vars(cls).items():
            if not isinstance(entry, AnyEntry):
                continue
            if name in BY_NAME:
                raise EntryError(f"{cls.__name__}.{name}: {BY_NAME[name]!r} has that name")
            entry.name = name
            entry.interface = cls.__name__
            BY_NAME[name] = entry
        HEADS.clear()
        INTERFACES.append(cls)


def entries_of(interface: type[Interface]) -> list[AnyEntry]:
    """The entries of an interface, in their order."""
    return [entry for entry in vars(interface).values() if isinstance(entry, AnyEntry)]


def serve(
    interface: type[Interface], *served: Served, without: Iterable[AnyEntry] = ()
) -> dict[AnyEntry, Handler]:
    """Which function takes each entry of an interface.

    without: entries that this process does not take; a call by one is counted as
    SKBUS_BAD_MESSAGE. EntryError where an entry is missing, is of another interface, or is given
    twice.
    """
    want = entries_of(interface)
    table: dict[AnyEntry, Handler] = {}
    for one in served:
        if one.entry not in want:
            raise EntryError(f"{one.entry!r} is not an entry of {interface.__name__}")
        if one.entry in table:
            raise EntryError(f"{one.entry!r} is served twice")
        table[one.entry] = one.function
    left_out = list(without)
    missing = [repr(entry) for entry in want if entry not in table and entry not in left_out]
    if missing:
        raise EntryError(f"nothing serves {', '.join(missing)}")
    return table


def signature_of(kind: Any) -> tuple[Any, ...]:
    """The types of a NamedTuple's fields; `object` stands for any."""
    hints = typing.get_type_hints(kind)
    return tuple([hints[field] for field in kind._fields])


def reply_signature_of(reply: Any) -> tuple[Any, ...]:
    """As `signature_of`; empty where an answer is a plain value, or nothing."""
    return signature_of(reply) if hasattr(reply, "_fields") else ()


def reply_of(entry: AnyEntry, err: int, value: object) -> Any:
    """`SkRet.val` as the type that the answer to a request has; None where there is nothing to
    tell. EntryError where the value does not fit that type."""
    want = entry.reply
    if want is None or want is type(None):
        return None
    if value is None and (err or want is tuple):
        return None
    signature = entry.reply_signature
    if signature:
        if isinstance(value, (tuple, list)) and fits(tuple(value), signature):
            return want._make(value)
    elif type(value) is want:
        return value
    raise EntryError(f"{entry!r} is answered by {want.__name__}, not by {value!r}")
