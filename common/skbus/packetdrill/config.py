# SPDX-License-Identifier: MIT
"""How a script is to be run: packetdrill's options, from the script and from the command."""

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
    strict_segments: super-segments of the script are not what may be sent in pieces.
    strict_end: a packet that the script does not list is a failure also when it is the last.
    """

    addresses: Addresses = PLAIN
    mtu: int = 1500
    tolerance: int = 4000 * US
    tolerance_percent: float = 12.5
    ts_tick: int = 0
    ts_ecr_scaled: bool = False
    strict_segments: bool = False
    strict_end: bool = False
    fixed: bool = False
    """whether the script says which addresses it has"""
    non_fatal: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    """options that were given with the command, and which a script's own do not change"""

    def within(self, delta: int) -> int:
        """The tolerance of an event that lies `delta` after the one before."""
        return max(self.tolerance, int(self.tolerance_percent / 100 * delta))


_IGNORED: Final = frozenset(
    """code_command code_format code_sockopt define init_scripts speed dry_run send_omit_free
    debug verbose is_anyip so_filename so_flags gateway_ip netmask_ip mss""".split()
)
"""Options that say nothing here. `mss` is the segment size of an inbound super-segment: what is
injected is given to the stack whole."""


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
    where = config.addresses
    match name:
        case "tolerance_usecs":
            return replace(config, tolerance=int(value) * US)
        case "tolerance_percent":
            return replace(config, tolerance_percent=float(value))
        case "tcp_ts_tick_usecs":
            return replace(config, ts_tick=int(value) * US)
        case "tcp_ts_ecr_scaled":
            return replace(config, ts_ecr_scaled=True)
        case "strict_segments":
            return replace(config, strict_segments=True)
        case "non_fatal":
            return replace(config, non_fatal=frozenset(value.replace(",", " ").split()))
        case "mtu":
            return replace(config, mtu=int(value))
        case "local_ip":
            return replace(config, addresses=where._replace(local=value), fixed=True)
        case "remote_ip":
            remote = value.split("/")[0]
            return replace(config, addresses=where._replace(remote=remote), fixed=True)
        case "bind_port":
            return replace(config, addresses=where._replace(bind_port=int(value)))
        case "connect_port":
            return replace(config, addresses=where._replace(connect_port=int(value)))
        case "ip_version":
            if value != "ipv4":
                raise Unsupported(f"--ip_version={value}: only IPv4")
            return config
    if name.startswith("wire_") or name == "psp_udp_port":
        raise Unsupported(f"--{name}: the remote mode of packetdrill")
    if name not in _IGNORED:
        raise ValueError("no such option")
    return config
