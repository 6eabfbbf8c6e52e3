# SPDX-License-Identifier: MIT
"""`inet_init`, the part that is udp's (`net/ipv4/af_inet.c`): `inet_add_protocol(IPPROTO_UDP)`,
`udp_init`, `udplite4_register`. Called by core.py at start.
"""

import errno
from typing import Final

from skbus.core.abi import InetAddProtocol, InetDelProtocol, InetProtocolRet
from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.interfaces import Ip, UdpProtocol
from skbusd.udp.netns import IPPROTO_UDP, IPPROTO_UDPLITE, UdpNet, UdpTable


def inet_add_protocol(net: UdpNet) -> None:
    """`inet_add_protocol(&udp_protocol, IPPROTO_UDP)`, which ip carries out."""
    item = InetAddProtocol(
        IPPROTO_UDP, net.name, UdpProtocol.udp_rcv.name, UdpProtocol.udp_err.name
    )
    net.call("ip", Ip.inet_add_protocol, item)


def inet_del_protocol(net: UdpNet) -> None:
    """`inet_del_protocol`"""
    net.call("ip", Ip.inet_del_protocol, InetDelProtocol(IPPROTO_UDP, net.name))


def inet_add_protocol_ret(net: UdpNet, item: InetProtocolRet) -> None:
    """ip does not want us: there is another UDP."""
    net.warning("inet_add_protocol", protocol=item.protocol, err=errno.errorcode.get(item.err))


def udp_init(net: UdpNet) -> None:
    """`udp_init`: the table of sockets, and the secret by which SO_REUSEPORT chooses."""
    net.udp_table_set(UdpTable("Udp"))
    net.udp_ehash_secret = net.rand.getrandbits(88) | 1


def udp_exit(net: UdpNet) -> None:
    """What `udp_init` did, taken back."""
    net.udp_table_set(UdpTable(""))
    net.udp_ehash_secret = 0


def udplite_add_protocol(net: UdpNet) -> None:
    """`inet_add_protocol(&udplite_protocol, IPPROTO_UDPLITE)`"""
    item = InetAddProtocol(
        IPPROTO_UDPLITE, net.name, UdpProtocol.udplite_rcv.name, UdpProtocol.udplite_err.name
    )
    net.call("ip", Ip.inet_add_protocol, item)


def udplite4_register(net: UdpNet) -> None:
    """`udplite4_register`, udp's part: a table of its own, and ip hears of it."""
    net.udplite_table = UdpTable("UdpLite")
    udplite_add_protocol(net)


def udplite4_unregister(net: UdpNet) -> None:
    """What `udplite4_register` did, taken back."""
    net.call("ip", Ip.inet_del_protocol, InetDelProtocol(IPPROTO_UDPLITE, net.name))
    net.udplite_table = UdpTable("")


INET_INIT: Final = (
    InitStep("inet_add_protocol(UDP)", inet_add_protocol, inet_del_protocol),
    InitStep("udp_init", udp_init, udp_exit),
    InitStep("udplite4_register", udplite4_register, udplite4_unregister),
)
"""The steps of `inet_init` that are udp's, in the kernel's order."""


def inet_init(net: UdpNet) -> None:
    """`inet_init`, udp's part."""
    do_initcalls(net, "inet_init", INET_INIT)
