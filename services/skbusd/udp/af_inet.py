# SPDX-License-Identifier: MIT
"""`inet_init`, the part that is udp's (`net/ipv4/af_inet.c`): `inet_add_protocol(IPPROTO_UDP)`,
`udp_init`, `udplite4_register`. Called by core.py at start.
"""

from typing import Final

from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.interfaces import UdpProtocol
from skbus.inet.transport import InetProto, inet_add_protocol, inet_del_protocol
from skbusd.udp.netns import IPPROTO_UDP, IPPROTO_UDPLITE, UdpNet, UdpTable

UDP_PROTOCOL: Final = InetProto(IPPROTO_UDP, UdpProtocol.udp_rcv, UdpProtocol.udp_err)
UDPLITE_PROTOCOL: Final = InetProto(
    IPPROTO_UDPLITE, UdpProtocol.udplite_rcv, UdpProtocol.udplite_err
)


def udp_init(net: UdpNet) -> None:
    """`udp_init`: the table of sockets, and the secret by which SO_REUSEPORT chooses."""
    net.udp_table_set(UdpTable("Udp"))
    net.udp_ehash_secret = net.rand.getrandbits(88) | 1


def udp_exit(net: UdpNet) -> None:
    """Undo `udp_init`."""
    net.udp_table_set(UdpTable(""))
    net.udp_ehash_secret = 0


def udplite4_register(net: UdpNet) -> None:
    """`udplite4_register`, udp's part: a table of its own, and ip hears of it."""
    net.udplite_table = UdpTable("UdpLite")
    inet_add_protocol(net, UDPLITE_PROTOCOL)


def udplite4_unregister(net: UdpNet) -> None:
    """Undo `udplite4_register`."""
    inet_del_protocol(net, UDPLITE_PROTOCOL)
    net.udplite_table = UdpTable("")


INET_INIT: Final = (
    InitStep(
        "inet_add_protocol(UDP)",
        lambda net: inet_add_protocol(net, UDP_PROTOCOL),
        lambda net: inet_del_protocol(net, UDP_PROTOCOL),
    ),
    InitStep("udp_init", udp_init, udp_exit),
    InitStep("udplite4_register", udplite4_register, udplite4_unregister),
)
"""The steps of `inet_init` that are udp's, in the kernel's order."""


def inet_init(net: UdpNet) -> None:
    """`inet_init`, udp's part."""
    do_initcalls(net, "inet_init", INET_INIT)
