# SPDX-License-Identifier: MIT
"""udp's state: sockets, the tables that find them, routes that ip told (`struct udp_sock`,
`struct udp_table`). Types alone; the functions are in `udp`, `udp_output`, `datagram`, `table`,
`route` and `ip_sockglue`.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from skbus.core.abi import Connect
from skbus.core.flow_dissector import Flow, sock_flow
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import SkBuff
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer
from skbus.inet.transport import TransportNet, TransportSock

INADDR_BROADCAST: Final = b"\xff\xff\xff\xff"
IPPROTO_UDP: Final = 17
IPPROTO_UDPLITE: Final = 136
RTN_BROADCAST: Final = 3
IP_HLEN: Final = 20


class UdpSock(TransportSock):
    """`struct udp_sock`: one socket."""

    __slots__ = (
        "corkflag", "gro_enabled", "gso_size", "no_check", "no_check6_rx", "no_check6_tx", "pcrlen",
        "pcrlen_set", "pcslen", "pcslen_set",
    )  # fmt: skip

    def __init__(self, sk: int, rcvbuf: int, protocol: int = IPPROTO_UDP) -> None:
        super().__init__(sk, rcvbuf, protocol)
        self.no_check = False
        self.pcslen = 0
        self.pcslen_set = False
        self.pcrlen = 0
        self.pcrlen_set = False
        """UDP-Lite: the coverage to send with, and the least to receive; 0 is all."""
        self.gso_size = 0
        self.corkflag = False
        """UDP_CORK; the socket layer, which has the bytes, carries it out."""
        self.gro_enabled = False
        self.no_check6_tx = False
        self.no_check6_rx = False
        """UDP_NO_CHECK6_TX and _RX mean nothing for IPv4."""


class Dst(NamedTuple):
    """A route that ip told (`RouteRet`), until `expires` or a newer genid."""

    saddr: bytes
    daddr: bytes
    oif: int
    mtu: int
    rt_type: int
    expires: int


RouteKey = tuple[bytes, bytes, int]
"""(daddr, saddr, oif)"""


class Waiter(NamedTuple):
    """A datagram (`skb`) or connect(2) (`item`) that waits for a route, and how it goes on."""

    then: Callable[["UdpNet", "Waiter", int, Dst | None], None]
    """Called with an errno, or with 0 and the route."""
    skb: SkBuff | None = None
    dport: int = 0
    """The datagram's port; its address is the route's."""
    item: Connect | None = None


class RouteRequest:
    """A question to ip that is not answered yet."""

    __slots__ = ("key", "req", "timer", "tos", "waiters")

    def __init__(self, req: int, key: RouteKey) -> None:
        self.req = req
        self.key = key
        self.tos = 0
        self.waiters: deque[Waiter] = deque()
        self.timer: Timer[Any] | None = None


class UdpTable:
    """`struct udp_table`: the sockets of UDP, or of UDP-Lite, and how their counters begin."""

    __slots__ = ("hash2", "hash4", "mib", "ports")

    def __init__(self, mib: str) -> None:
        self.mib = mib
        self.ports: dict[int, list[UdpSock]] = {}
        """All sockets by local port."""
        self.hash2: dict[tuple[bytes, int], list[UdpSock]] = {}
        """Unconnected sockets by bound address and port, the latest first."""
        self.hash4: dict[tuple[bytes, int, bytes, int], list[UdpSock]] = {}
        """Connected sockets by local and peer address and port."""


class UdpNet(TransportNet):
    """`struct net`, with udp's fields."""

    def __init__(
        self,
        name: str = "udp",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.socks: dict[int, UdpSock] = {}
        # udp_table
        self.udplite_table = UdpTable("")
        self.ports: dict[int, list[UdpSock]]
        self.hash2: dict[tuple[bytes, int], list[UdpSock]]
        self.hash4: dict[tuple[bytes, int, bytes, int], list[UdpSock]]
        self.udp_table_set(UdpTable(""))
        self.udp_ehash_secret = 0
        self.udp_memory_allocated = 0
        """Bytes in all receive buffers."""
        # routes
        self.rt_genid = 0
        self.dst_cache: dict[RouteKey, Dst] = {}
        self.requests: dict[int, RouteRequest] = {}
        self.asked: dict[RouteKey, int] = {}
        self.pending = 0
        """Waiters of all requests together."""
        self.wspace: dict[int, int] = {}
        """socket -> room in its send buffer, to be announced at the end of the batch"""

    def sk_flow(self, sk: int) -> Flow | None:
        """As `Net.sk_flow`."""
        up = self.socks.get(sk)
        if up is None:
            return None
        return sock_flow(up.inet_saddr, up.inet_num, up.inet_daddr, up.inet_dport)

    def udp_table_set(self, table: UdpTable) -> None:
        """Use `table` for UDP from now on."""
        self.udp_table = table
        self.ports = table.ports
        self.hash2 = table.hash2
        self.hash4 = table.hash4
