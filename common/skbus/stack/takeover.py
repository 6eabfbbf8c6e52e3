# SPDX-License-Identifier: MIT
"""Taking an interface's address over from the kernel, and giving it back
(docs/architecture.md, "AF_PACKET").

While our stack has the address, the kernel must not answer for it: it is removed from the
interface, and the namespace stops forwarding. The address is written into the run directory before
it is removed. So a later start knows it, even if this one ends without giving it back.

Called by `skbus up --take-over`, and by `skbusd nic` where that runs alone (in a container).
"""

import ipaddress
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skbus.bus.rundir import RunDir
from skbus.stack.config import Config


class TakeoverError(Exception):
    """The interface has no address to take, or will not give it; the text says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was an interface's: its IPv4 addresses as CIDR, and its default gateway."""

    dev: str
    addr: list[str]
    gateway: str | None


def _record(run: RunDir, dev: str) -> Path:
    return run.path / f"takeover.{dev}.json"


def _recorded(run: RunDir, dev: str) -> Taken:
    return Taken(**json.loads(run.read_text(_record(run, dev).name)))


def take(run: RunDir, dev: str) -> Taken:
    """Take an interface's addresses; TakeoverError if there is none and none is on record."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    record = _record(run, dev)
    try:
        with IPRoute() as ip:
            index = _index(ip, dev)
            taken = _look(ip, dev, index)
            if not taken.addr:
                if record.exists():
                    return _recorded(run, dev)
                raise TakeoverError(
                    f"{dev} has no IPv4 address to take over: give it one, or use --addr CIDR "
                    "for an address of our own"
                )
            run.write_text(record.name, json.dumps(asdict(taken)))
            ip.flush_addr(index=index, family=2)
    except (NetlinkError, PermissionError) as e:
        raise TakeoverError(
            f"cannot take {dev}'s address over: {e}; it takes CAP_NET_ADMIN (run as root)"
        ) from None
    with suppress(OSError):  # read-only in a container, which sets it by its own configuration
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    return taken


def give_back(run: RunDir, dev: str) -> None:
    """Let the kernel have again what was taken; nothing happens where nothing was."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    record = _record(run, dev)
    if not record.exists():
        return
    taken = _recorded(run, dev)
    with IPRoute() as ip, suppress(NetlinkError):
        index = _index(ip, dev)
        for cidr in taken.addr:
            interface = ipaddress.IPv4Interface(cidr)
            ip.addr(
                "add",
                index=index,
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                broadcast=str(interface.network.broadcast_address),
            )
        if taken.gateway is not None:
            ip.route("add", dst="default", gateway=taken.gateway, oif=index)
    record.unlink()


def _index(ip: Any, dev: str) -> int:
    found = ip.link_lookup(ifname=dev)
    if not found:
        names = sorted(str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links())
        raise TakeoverError(f"no interface {dev}; there are: {', '.join(names)}")
    return int(found[0])


def _look(ip: Any, dev: str, index: int) -> Taken:
    addr = [
        f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in ip.get_addr(family=2, index=index)
    ]
    gateway = None
    for route in ip.get_default_routes(family=2):
        if route.get_attr("RTA_OIF") == index:
            gateway = route.get_attr("RTA_GATEWAY")
    return Taken(dev, addr, gateway)


def resolve(run: RunDir, config: Config) -> Config:
    """The configuration with the addresses of the devices that are to be taken over filled in,
    after taking them. A device that says `addr` itself keeps that."""
    new = config.model_copy(deep=True)
    for device in new.devices:
        if device.mode == "take-over":
            taken = take(run, device.name)
            device.addr = device.addr or taken.addr
            device.gateway = device.gateway or taken.gateway
    return new


def restore(run: RunDir, config: Config) -> None:
    """`give_back` for all devices that were taken over."""
    for device in config.devices:
        if device.mode == "take-over":
            give_back(run, device.name)
