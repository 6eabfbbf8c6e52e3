# SPDX-License-Identifier: MIT
"""Expressions of scripts as values: numbers, option values, messages, control messages."""

import struct
from typing import Final, NamedTuple

from skbus.packetdrill.script import (
    Array,
    Ellipsis_,
    Expr,
    Int,
    Or,
    ScriptError,
    Str,
    Struct,
    Unsupported,
    Word,
)
from skbus.packetdrill.symbols import SYMBOLS

SOL_SOCKET: Final = 1
SCM_TIMESTAMPING: Final = 37

Cmsg = tuple[int, int, bytes]
"""(level, type, data)"""


def number(expr: Expr) -> int:
    """A number, a symbol, or several joined by |. ScriptError for anything else."""
    match expr:
        case Int(value):
            return value
        case Word(name):
            if name not in SYMBOLS:
                raise ScriptError(f"unknown symbol {name}")
            return SYMBOLS[name]
        case Or(left, right):
            return number(left) | number(right)
    raise ScriptError(f"expected a number, not {type(expr).__name__.lower().strip('_')}")


def bracketed(expr: Expr) -> int:
    """`[5]`: what a pointer points at."""
    if isinstance(expr, Array) and len(expr.items) == 1:
        return number(expr.items[0])
    raise ScriptError("expected a number in brackets")


def option_value(expr: Expr, size: int) -> bytes:
    """The value of a socket option as `size` bytes."""
    if isinstance(expr, Str):
        value = expr.value
    elif isinstance(expr, Array):
        value = (bracketed(expr) & 0xFFFFFFFF).to_bytes(4, "little")
    elif isinstance(expr, Struct) and "onoff" in expr.fields:
        value = struct.pack("=ii", number(expr.fields["onoff"]), number(expr.fields["linger"]))
    else:
        raise Unsupported("a socket option's value of this kind")
    return value[:size].ljust(size, b"\0") if size >= 0 else value


def known_members(expr: Struct, known: set[str], what: str) -> None:
    """ScriptError where a struct has a member that nobody would look at."""
    for name in expr.fields:
        if name not in known:
            raise ScriptError(
                f"{name} is no member of {what}: there are {', '.join(sorted(known))}"
            )


class Message(NamedTuple):
    """A struct msghdr of a script. name: the address, where the script says one."""

    size: int
    """bytes of all iovecs"""
    flags: int
    control: tuple[Cmsg, ...]
    name: Expr | None = None


def iovecs(expr: Expr) -> int:
    """`[{..., 100}, {..., 50}]`: how many bytes in all."""
    if not isinstance(expr, Array):
        raise ScriptError("expected an array of iovecs")
    size = 0
    for item in expr.items:
        if not isinstance(item, Struct) or len(item.items) != 2:
            raise ScriptError("expected an iovec: {..., length}")
        size += number(item.items[1])
    return size


def message(expr: Expr) -> Message:
    """A struct msghdr."""
    if not isinstance(expr, Struct) or "msg_iov" not in expr.fields:
        raise ScriptError("expected a msghdr: {msg_name(...)=..., msg_iov(1)=[...], ...}")
    fields = expr.fields
    known_members(expr, {"msg_name", "msg_iov", "msg_control", "msg_flags"}, "a msghdr")
    control = fields.get("msg_control", Array(()))
    if not isinstance(control, Array):
        raise ScriptError("msg_control is not an array")
    flags = fields.get("msg_flags", Int(0))
    cmsgs = tuple(map(_cmsg, control.items))
    return Message(iovecs(fields["msg_iov"]), number(flags), cmsgs, fields.get("msg_name"))


def _cmsg(expr: Expr) -> Cmsg:
    members = {"cmsg_level", "cmsg_type", "cmsg_data"}
    if not isinstance(expr, Struct) or not members <= expr.fields.keys():
        raise ScriptError("expected a cmsg: {cmsg_level=..., cmsg_type=..., cmsg_data=...}")
    known_members(expr, members, "a cmsg")
    level, kind = number(expr.fields["cmsg_level"]), number(expr.fields["cmsg_type"])
    return level, kind, _cmsg_data(expr.fields["cmsg_data"])


def _cmsg_data(expr: Expr) -> bytes:
    if isinstance(expr, Int | Word | Or):
        return (number(expr) & 0xFFFFFFFF).to_bytes(4, "little")
    if isinstance(expr, Struct) and "ee_errno" in expr.fields:
        get = expr.fields
        return struct.pack(
            "=IBBBxII",
            *(number(get[f"ee_{name}"]) for name in "errno origin type code info data".split()),
        )
    if isinstance(expr, Struct) and "scm_sec" in expr.fields:
        return struct.pack("=qq", number(expr.fields["scm_sec"]), number(expr.fields["scm_nsec"]))
    raise Unsupported("a control message of this kind")


def control_differs(wanted: tuple[Cmsg, ...], seen: tuple[Cmsg, ...]) -> str | None:
    """How control messages that were received differ from the script's, or None.

    An extended error is compared without the address that follows it, time stamps not at all.
    """
    if len(wanted) != len(seen):
        return f"expected {len(wanted)} control messages, got {len(seen)}"
    for i, (want, have) in enumerate(zip(wanted, seen, strict=True)):
        if want[:2] != have[:2]:
            return f"control message {i}: expected level {want[0]} type {want[1]}, got {have[:2]}"
        if want[:2] == (SOL_SOCKET, SCM_TIMESTAMPING):
            continue
        if want[2] != have[2][: len(want[2])]:
            return f"control message {i}: expected {want[2].hex()}, got {have[2].hex()}"
    return None


def is_ellipsis(expr: Expr) -> bool:
    """`...`"""
    return isinstance(expr, Ellipsis_)
