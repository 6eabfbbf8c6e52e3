# SPDX-License-Identifier: MIT
"""What a script's ip, tc, ethtool and ifconfig mean for the stack under test.

`shell` notes how they were called; `obey` does it, or refuses: a command that changes nothing would
let a script pass for the wrong reason. Called by `interpreter`.
"""

from collections.abc import Sequence
from typing import Final

from skbus.packetdrill.backend import Backend
from skbus.packetdrill.script import ScriptError, Unsupported

MIN_MTU: Final = 68
"""RFC 791 3.2: what every module must be able to forward."""
MAX_MTU: Final = 65521
"""Of Linux's tun device (`MAX_MTU` of drivers/net/tun.c, without an Ethernet header)."""

_FIFOS: Final = frozenset("pfifo pfifo_fast fq fq_codel noqueue mq".split())
"""Queueing disciplines that, without a limit of the script's, pass everything on in order, as our
devices' queue does: what they pace, TCP paces itself."""


def switched(args: Sequence[str], feature: str) -> bool | None:
    """What `ethtool -K DEV ...` says of a feature: on, off, or nothing."""
    if args[:1] != ["-K"] or feature not in args[2:-1]:
        return None
    return args[args.index(feature, 2) + 1] == "on"


def obey(backend: Backend, program: str, args: Sequence[str]) -> None:
    """Do what a command says. Unsupported where no stack of this kind can, ScriptError where a
    value is impossible."""
    line = " ".join([program, *args])
    known = {"ip": _ip, "tc": _tc, "ethtool": _ethtool, "ifconfig": _ifconfig}.get(program)
    if program == "modprobe":
        return  # all that Linux has as modules is here
    if known is None:
        raise Unsupported(f"a command that has no stand-in: {line}")
    known(backend, list(args), line)


def _mtu(backend: Backend, text: str, line: str) -> None:
    if not text.isdigit() or not MIN_MTU <= int(text) <= MAX_MTU:
        raise ScriptError(f"{line}: an MTU is {MIN_MTU} to {MAX_MTU}")
    backend.mtu(int(text))


def _ip(backend: Backend, args: list[str], line: str) -> None:
    while args and args[0] in ("-4", "-o", "-d", "-s", "-n"):
        del args[0]
    if args[:1] == ["-6"]:
        raise Unsupported(f"IPv6: {line}")
    thing, action, rest = (*args[:2], "", "")[0], (*args[1:2], "")[0], args[2:]
    if thing in ("tcp_metrics", "tcpmetrics") and action == "flush":
        backend.tcp_metrics_flush()
    elif thing in ("link", "l") and action in ("set", "s"):
        if rest[:1] == ["dev"]:
            del rest[0]
        _link(backend, rest[1:], line)
    elif thing in ("route", "ro", "r"):
        raise Unsupported(f"routes with metrics of their own: {line}")
    else:
        raise Unsupported(f"ip has no stand-in for this: {line}")


def _link(backend: Backend, words: list[str], line: str) -> None:
    """`ip link set DEV` mtu N, up, txqueuelen N (a queue that never fills)."""
    while words:
        word = words.pop(0)
        if word == "mtu" and words:
            _mtu(backend, words.pop(0), line)
        elif word in ("txqueuelen", "qlen") and words and words[0] != "0":
            words.pop(0)
        elif word != "up":
            raise Unsupported(f"ip link set has no stand-in for {word}: {line}")


def _ifconfig(backend: Backend, args: list[str], line: str) -> None:
    words = args[1:]
    if not words:
        raise Unsupported(f"ifconfig has no stand-in for this: {line}")
    _link(backend, words, line)


def _tc(backend: Backend, args: list[str], line: str) -> None:
    del backend
    if args[:1] == ["qdisc"]:
        if args[1:2] in (["del"], ["delete"]) and args[-1] == "root":
            return  # back to the queue that there is
        if args[-2:] == ["limit", "0"]:
            raise Unsupported(f"a queueing discipline that drops all: {line}")
        changes = args[1:2] in (["add"], ["replace"], ["change"]) and args[-2:-1] == ["root"]
        if changes and args[-1] in _FIFOS:
            return
    raise Unsupported(f"tc has no stand-in for this: {line}")


def _ethtool(backend: Backend, args: list[str], line: str) -> None:
    pairs = list(zip(args[2::2], args[3::2], strict=False))
    known = all(name in ("tso", "gso") and word in ("on", "off") for name, word in pairs)
    if args[:1] != ["-K"] or not pairs or len(args) % 2 or not known:
        raise Unsupported(f"ethtool has no stand-in for this (-K DEV tso on|off): {line}")
    for name, word in pairs:
        if name == "tso":  # gso cuts what tso has not, above the wire: nobody sees a difference
            backend.tso(word == "on")
