# SPDX-License-Identifier: MIT
"""The nic process: its core, and the driver that the configuration names, in the generic shell."""

import hashlib
from typing import Any

from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.inet.impair import Impairment
from skbus.stack.config import Config, Device, Impair
from skbusd.nic import af_packet, rx_buffer, tun
from skbusd.nic.core import NicCore
from skbusd.nic.netdev import KernelDevice, NicConfig, NicNet
from skbusd.nic.source import NicSource
from skbusd.shell import allocator, clock, net_arguments


def own_mac(device: Device) -> bytes:
    """A MAC of our own, the same in every life: locally administered, of name and address."""
    text = f"{device.name} {' '.join(device.addr)}"
    return b"\x02" + hashlib.sha256(text.encode()).digest()[:5]


def dev_addr(device: Device) -> bytes:
    """The MAC that the configuration asks for; b"" for the interface's."""
    if device.mac is not None:
        return bytes.fromhex(device.mac.replace(":", ""))
    if device.mode == "take-over" or device.backend == "tap":
        return b""
    return own_mac(device)


def impairment(impair: Impair, direction: str) -> Impairment | None:
    """One direction of the impaired link, None where there is none."""
    return Impairment(**dict(impair), direction=direction) if impair else None


def nic_config(device: Device) -> NicConfig:
    """nic's part of the configuration of a stack."""
    return NicConfig(
        device.name,
        dev_addr=dev_addr(device),
        mtu=device.mtu or 0,
        impair_rx=impairment(device.impair, "rx"),
        impair_tx=impairment(device.impair, "tx"),
    )


def open_device(device: Device) -> int | None:
    """For the supervisor: a descriptor to be given to each life of the nic process, so that
    frames wait in the kernel between them. It must be kept open, and closed at the very end."""
    if device.backend == "tap":
        return tun.open_tap(device.name)
    return af_packet.open_socket(device.name).detach()


def driver(device: Device, fd: int | None = None) -> KernelDevice:
    """The driver of a device. OSError where the interface cannot be opened."""
    if device.backend == "tap":
        return tun.TapDevice(device.name, fd=fd)
    return af_packet.AfPacketDevice(device.name, dev_addr=dev_addr(device), fd=fd)


def make_service(
    run: RunDir, config: Config, process: str, fd: int | None = None, loop: Loop | None = None
) -> Service:
    """nic, ready to run. fd: the device's descriptor, where the supervisor opened it."""
    device = config.device(process.removeprefix("nic."))
    kernel_device = driver(device, fd)
    arguments = net_arguments(run, config, process)
    allocator(run, arguments, rx_buffer.CLASSES)
    net = NicNet(**arguments, device=kernel_device, config=nic_config(device))
    if device.backend == "af_packet":
        conflict = af_packet.conflicts(device.name, net.dev_addr)
        if conflict:
            net.warning("register_netdevice", dev=device.name, problem=conflict)
    if isinstance(kernel_device, af_packet.AfPacketDevice) and kernel_device.trouble():
        net.warning("packet_setsockopt", dev=device.name, problem=kernel_device.trouble())
    core = NicCore(net)
    service = Service(
        core,
        run,
        neighbours=(net.ip,),
        sources=(NicSource(core, kernel_device),),
        clock=clock(config),
        drain_device=core.drain_device,
        loop=loop,
    )

    def impair(given: Any) -> dict[str, object]:
        """The control method "impair": keys of `skbus.stack.config.Impair`; others get their
        defaults."""
        wanted = Impair.model_validate(given or {})
        rx, tx = (Impairment(**dict(wanted), direction=d) for d in ("rx", "tx"))
        core.set_impair(rx, tx)
        return wanted.model_dump(mode="json")

    def tso(wanted: Any) -> bool:
        """The control method "tso": `ethtool -K DEV tso on|off`."""
        net.tso = bool(wanted)
        return net.tso

    service.control.methods["impair"] = impair
    service.control.methods["tso"] = tso
    service.control.lasting |= {"impair", "tso"}
    return service
