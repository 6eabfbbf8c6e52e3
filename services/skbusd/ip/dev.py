# SPDX-License-Identifier: MIT
"""Which frames are ip's (`net/core/dev.c`: the table of packet types, ip's side).

`inet_init` and arp register here; the drivers hear of it, and do the look-up (`nic/dev.py`).
"""

import errno

from skbus.core.abi import PacketType
from skbus.core.syscall import SysCallError
from skbusd.ip.netns import IpNet


def dev_add_pack(net: IpNet, type: int, func: str) -> None:
    """`dev_add_pack`: frames of an Ethernet type are ours, by the entry `func`; every driver hears
    of it, later ones when they register. EEXIST where it is taken."""
    if type in net.ptype_base:
        raise SysCallError(errno.EEXIST, f"Ethernet type {type:#06x} is taken")
    net.ptype_base[type] = func
    for dev in net.dev_by_index.values():
        if not dev.loopback:
            net.call(dev.process, "dev_add_pack", PacketType(type, net.name, func))


def dev_remove_pack(net: IpNet, type: int) -> None:
    """`dev_remove_pack`"""
    func = net.ptype_base.pop(type, "")
    for dev in net.dev_by_index.values():
        if func and not dev.loopback:
            net.call(dev.process, "dev_remove_pack", PacketType(type, net.name, func))
