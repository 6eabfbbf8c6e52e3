# SPDX-License-Identifier: MIT
"""`inet_init`, the part that is tcp's (`net/ipv4/af_inet.c`): `inet_add_protocol(IPPROTO_TCP)`,
`tcp_v4_init`, `tcp_init`. Called by core.py at start.
"""

import errno
from typing import Final

from skbus.core.initcall import InitStep, do_initcalls
from skbus.core.interfaces import TcpProtocol
from skbus.core.syscall import SysCallError
from skbus.inet.transport import InetProto, inet_add_protocol, inet_del_protocol
from skbusd.tcp.const import IPPROTO_TCP
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.tcp_cong import TcpReno, tcp_register_congestion_control
from skbusd.tcp.tcp_cubic import TcpCubic

_PERTURB: Final = 256
"""Entries of RFC 6056's table (`INET_TABLE_PERTURB_SIZE` is 65536 in Linux)."""


TCP_PROTOCOL: Final = InetProto(IPPROTO_TCP, TcpProtocol.tcp_v4_rcv, TcpProtocol.tcp_v4_err)


def shard_secret(net: TcpNet, purpose: bytes) -> bytes:
    """A secret that all shards have alike, for what depends on two addresses and not on ports. A
    Fast Open cookie of one shard must be good with another; timestamps between two hosts must not
    jump (RFC 7323 5.4)."""
    halves = (net.siphash(purpose + half, net.rss_key) for half in (b"0", b"1"))
    return b"".join(half.to_bytes(8, "little") for half in halves)


def tcp_v4_init(net: TcpNet) -> None:
    """`tcp_v4_init`: the secrets of initial sequence numbers (RFC 6528), timestamps (RFC 7323 5.4)
    and SYN cookies, which answers to packets without a socket need."""
    net.net_secret = net.rand.randbytes(16)
    net.ts_secret = net.rand.randbytes(16)
    net.syncookie_secret = net.rand.randbytes(16)
    if net.shards > 1:
        net.ts_secret = shard_secret(net, b"ts")


def tcp_v4_exit(net: TcpNet) -> None:
    """Undo `tcp_v4_init`."""
    net.net_secret = net.ts_secret = net.syncookie_secret = b""


def tcp_init(net: TcpNet) -> None:
    """`tcp_init`: Fast Open's secret, the table for the choice of ports (RFC 6056 3.3.4), our own
    congestion controls. EINVAL where one of them has no name to be listed by."""
    net.fastopen_secret = net.rand.randbytes(16)
    if net.shards > 1:
        net.fastopen_secret = shard_secret(net, b"fastopen")
    net.table_perturb = [net.rand.getrandbits(31) for _ in range(_PERTURB)]
    for ca in (TcpReno(), TcpCubic()):
        err = tcp_register_congestion_control(net, ca)
        if err and err != errno.EEXIST:
            tcp_exit(net)
            raise SysCallError(err, f"congestion control {ca.name}")


def tcp_exit(net: TcpNet) -> None:
    """Undo `tcp_init`."""
    net.fastopen_secret = b""
    net.table_perturb = []
    net.tcp_metrics.clear()


INET_INIT: Final = (
    InitStep(
        "inet_add_protocol(TCP)",
        lambda net: inet_add_protocol(net, TCP_PROTOCOL),
        lambda net: inet_del_protocol(net, TCP_PROTOCOL),
    ),
    InitStep("tcp_v4_init", tcp_v4_init, tcp_v4_exit),
    InitStep("tcp_init", tcp_init, tcp_exit),
)
"""The steps of `inet_init` that are tcp's, in the kernel's order."""


def inet_init(net: TcpNet) -> None:
    """`inet_init`, tcp's part."""
    do_initcalls(net, "inet_init", INET_INIT)
