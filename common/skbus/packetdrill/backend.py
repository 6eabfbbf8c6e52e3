# SPDX-License-Identifier: MIT
"""What a script is run against: time, a wire, and system calls.

A backend is one stack with one interface, and everything beyond that interface. It carries the
script's packets, and answers for all hosts that the script does not mention (ARP). Times are ns
since the script began.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple, Protocol


class Reply(NamedTuple):
    """How a system call ended: `errno` 0 and its result, and bytes received."""

    errno: int
    result: Any = None
    data: bytes = b""


class Pending(Protocol):
    """A system call that was begun."""

    @property
    def done(self) -> bool: ...

    @property
    def reply(self) -> Reply: ...

    @property
    def finished(self) -> int:
        """When it returned."""
        ...


class Addresses(NamedTuple):
    """The addresses of both ends, by packetdrill's own defaults."""

    local: str = "192.168.0.1"
    prefixlen: int = 16
    gateway: str = "192.168.0.2"
    remote: str = "192.0.2.1"
    bind_port: int = 8080
    connect_port: int = 8080


PLAIN: Final = Addresses()


CONGESTION_CONTROLS: Final = (
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_allowed_congestion_control",
)


def check_congestion_control(name: str, value: str, have: Collection[str]) -> None:
    """ValueError where a sysctl names a congestion control that tcp does not have (ENOENT in
    Linux)."""
    for word in value.split() if name in CONGESTION_CONTROLS else ():
        if word not in have:
            known = ", ".join(sorted(have))
            raise ValueError(f"{name}: no congestion control {word}; there are: {known}")


class Backend(Protocol):
    """A stack under test."""

    offloads: bool
    """Whether super-segments and unfinished checksums may be seen on its wire."""

    first_port: int
    """The remote host's first port; where a stack outlives a script, another one each time."""

    def start(self, addresses: Addresses, mtu: int) -> Addresses:
        """Bring the stack up with this address on its one interface; returns who is who, where
        the stack has an address already."""
        ...

    def begin(self) -> None:
        """It is time 0 now."""
        ...

    def now(self) -> int: ...

    def wait(self, until: int, pending: Pending | None = None, *, packet: bool = False) -> None:
        """Let time pass: until then, or the call returns, or (`packet`) something is sent."""
        ...

    def inject(self, *packets: bytes) -> None:
        """Give the stack IP packets, all at one time."""
        ...

    def settle(self) -> None:
        """Return when all packets that were injected have been dealt with."""
        ...

    def sent(self) -> tuple[int, bytes] | None:
        """The next IP packet that the stack has sent, and when. None: there is none."""
        ...

    def call(self, name: str, *args: object, data: bytes = b"") -> Pending:
        """Begin a system call (`skbus.core.syscall`)."""
        ...

    def sysctl(self, name: str, value: str) -> None:
        """Set a sysctl. ValueError where there is none of that name, or the value is wrong."""
        ...

    def sysctls(self) -> Mapping[str, object]:
        """All sysctls, by name."""
        ...

    def mtu(self, mtu: int) -> None:
        """`ip link set dev DEV mtu N`. Unsupported where the interface is not the backend's."""
        ...

    def tcp_metrics_flush(self) -> None:
        """`ip tcp_metrics flush`: forget what is known of hosts (Fast Open's cookies)."""
        ...

    def tso(self, on: bool) -> None:
        """`ethtool -K DEV tso on|off`: may super-segments be seen on the wire?"""
        ...

    def counters(self) -> dict[str, int]:
        """All SNMP counters by their nstat names."""
        ...

    def proc(self, name: str) -> str | None:
        """The text of /proc/net/NAME; None where there is no such file."""
        ...

    def close(self) -> None:
        """The stack is needed no longer."""
        ...
