# SPDX-License-Identifier: MIT
"""How a script is to be run: packetdrill's options, from the script and from the command."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from skbus.packetdrill.backend import PLAIN, Addresses
from skbus.packetdrill.script import ScriptError, Unsupported

DEFINES: Final = {
    "CODE": "host_unreachable",
    "CMSG_LEVEL_IP": "SOL_IP",
    "CMSG_TYPE_RECVERR": "IP_RECVERR",
    "TFO_COOKIE": "3021b9d889017eeb",
    "TFO_COOKIE_ZERO": "b7c12350a90dc8f5",
}
"""What Google's suite has defined for it where it is run with IPv4 and our default addresses."""

US: Final = 1000


@dataclass(frozen=True, slots=True)
class Config:
    """Options of a run. Times in ns.

    tolerance: how far a packet may be from its time; tolerance_percent: or by how much of the
    time since the event before. ts_tick: ns of a timestamp's tick, 0: timestamps do not count.
    mss: an inbound segment that is longer arrives in pieces of so many bytes, all at one time; 0:
    whole. init_scripts: commands that are run first. dry_run: nothing is run.
    strict_segments: super-segments of the script are not what may be sent in pieces.
    strict_end: a packet that the script does not list is a failure even when it is the last.
    """

    addresses: Addresses = PLAIN
    mtu: int = 1500
    mss: int = 0
    tolerance: int = 4000 * US
    tolerance_percent: float = 12.5
    ts_tick: int = 0
    ts_ecr_scaled: bool = False
    strict_segments: bool = False
    strict_end: bool = False
    init_scripts: tuple[str, ...] = ()
    dry_run: bool = False
    fixed: bool = False
    """whether the script says which addresses it has"""
    non_fatal: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    """options that were given with the command, and which a script's own do not change"""

    def within(self, delta: int) -> int:
        """The tolerance of an event that lies `delta` after the one before."""
        return max(self.tolerance, int(self.tolerance_percent / 100 * delta))


_SAID_ELSEWHERE: Final = frozenset({"define", "debug", "verbose"})
"""`define` is the lexer's; the others only make the real packetdrill say more."""

_REFUSED: Final = {
    "so_filename": "the stack is the one of this command",
    "so_flags": "the stack is the one of this command",
    "send_omit_free": "the stack is the one of this command",
    "is_anyip": "a network that is local as a whole (AnyIP)",
    "speed": "an interface's speed",
}
"""Options that no stack of this kind follows, and why."""

SOCKOPTS: Final = ("TCP_INFO", "SO_MEMINFO")
"""What code blocks see."""


def with_options(config: Config, options: Mapping[str, str | None], path: str = "") -> Config:
    """The configuration with a script's options; ScriptError where one is unknown or wrong."""
    for name, value in options.items():
        if name in config.given:
            continue
        try:
            config = _with_option(config, name, value or "")
        except ValueError as e:
            raise ScriptError(f"--{name}={value}: {e}", path) from None
    return config


def _with_option(config: Config, name: str, value: str) -> Config:
    addresses = _with_address(config.addresses, name, value)
    if addresses is not None:
        fixed = config.fixed or name.endswith("_ip")
        return replace(config, addresses=addresses, fixed=fixed)
    match name:
        case "tolerance_usecs":
            return replace(config, tolerance=_within(value, 0, 10**9) * US)
        case "tolerance_percent":
            return replace(config, tolerance_percent=_percent(value))
        case "tcp_ts_tick_usecs":
            return replace(config, ts_tick=_within(value, 0, 1_000_000) * US)
        case "tcp_ts_ecr_scaled":
            return replace(config, ts_ecr_scaled=True)
        case "strict_segments":
            return replace(config, strict_segments=True)
        case "non_fatal":
            kinds = frozenset(value.replace(",", " ").split())
            if not kinds or kinds - {"packet", "syscall"}:
                raise ValueError("takes packet, syscall or both, with a comma")
            return replace(config, non_fatal=kinds)
        case "mtu":
            return replace(config, mtu=_within(value, 68, 65521))
        case "mss":
            return replace(config, mss=_within(value, 1, 65495))
        case "init_scripts":
            return replace(config, init_scripts=tuple(value.split(",")))
        case "dry_run":
            return replace(config, dry_run=True)
        case "code_sockopt":
            if value not in SOCKOPTS:
                raise Unsupported(f"--{name}={value}: code blocks see {' and '.join(SOCKOPTS)}")
            return config
        case "code_format" | "code_command":
            if not re.fullmatch(r"(\S*/)?python[\d.]*", value):
                raise Unsupported(f"--{name}={value}: code blocks are Python")
            return config
        case "ip_version":
            if value != "ipv4":
                raise Unsupported(f"--ip_version={value}: only IPv4")
            return config
    if name.startswith("wire_"):
        raise Unsupported(f"--{name}: the remote mode of packetdrill")
    if name == "psp_udp_port":
        raise Unsupported(f"--{name}: PSP")
    if name in _REFUSED:
        raise Unsupported(f"--{name}: {_REFUSED[name]}")
    if name not in _SAID_ELSEWHERE:
        raise ValueError("no such option")
    return config


def _with_address(where: Addresses, name: str, value: str) -> Addresses | None:
    """The addresses with an option that is about them; None for any other option."""
    match name:
        case "local_ip":
            return where._replace(local=_ipv4(value))
        case "remote_ip":
            return where._replace(remote=_ipv4(value.split("/")[0]))
        case "gateway_ip":
            return where._replace(gateway=_ipv4(value))
        case "netmask_ip":
            length = ipaddress.IPv4Network(f"0.0.0.0/{value}").prefixlen
            return where._replace(prefixlen=length)
        case "bind_port":
            return where._replace(bind_port=_within(value, 1, 65535))
        case "connect_port":
            return where._replace(connect_port=_within(value, 1, 65535))
    return None


def _within(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d+", text) or not low <= int(text) <= high:
        raise ValueError(f"takes a number from {low} to {high}")
    return int(text)


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError("takes a number from 0 to 100")
    return value


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))
