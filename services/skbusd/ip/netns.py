# SPDX-License-Identifier: MIT
"""ip's state: devices, addresses, routes, neighbours, fragments (`struct netns_ipv4`).

Types alone; their functions lie where Linux has them (`devinet`, `fib`, `route`, `neighbour`,
`ip_fragment`, ...). All of them take an `IpNet` first.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from skbus.core.abi import ErrHandler, RcvCb
from skbus.core.entry import Entry, SkbEntry
from skbus.core.flow_dissector import NO_PORT, Flow
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import SkBuff
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer
from skbus.inet.mcast import McList
from skbus.inet.transport import TransportSock

# include/uapi/linux/rtnetlink.h
RTN_UNSPEC: Final = 0
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTN_BROADCAST: Final = 3
RTN_MULTICAST: Final = 5
RTN_BLACKHOLE: Final = 6
RTN_UNREACHABLE: Final = 7
RTN_PROHIBIT: Final = 8

RTN_NAMES: Final = {
    RTN_UNICAST: "unicast",
    RTN_LOCAL: "local",
    RTN_BROADCAST: "broadcast",
    RTN_MULTICAST: "multicast",
    RTN_BLACKHOLE: "blackhole",
    RTN_UNREACHABLE: "unreachable",
    RTN_PROHIBIT: "prohibit",
}

RTCF_DOREDIRECT: Final = 0x01000000
"""include/uapi/linux/in_route.h: the sender had better use the next hop itself."""

LOOPBACK_MTU: Final = 65536
IP_MAX_MTU: Final = 0xFFFF
INADDR_ANY: Final = b"\0\0\0\0"
INADDR_BROADCAST: Final = b"\xff\xff\xff\xff"
INADDR_ALLHOSTS_GROUP: Final = b"\xe0\0\0\x01"

IPPROTO_ICMP: Final = 1
IPPROTO_IGMP: Final = 2
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_UDPLITE: Final = 136
IPPROTO_RAW: Final = 255


# ---- configuration -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """One interface as the configuration has it.

    addresses: "10.77.0.2/24", the first is primary. gateway: a default route through it.
    process: where its driver runs; "" means `nic.<dev>`.
    """

    dev: str
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    process: str = ""


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One static route. dst: "10.0.0.0/8" or "default". type: a name of `RTN_NAMES`.

    mtu: 0 for the device's. metric: of two routes to one prefix, the smaller wins.
    """

    dst: str
    gateway: str = ""
    dev: str = ""
    type: str = "unicast"
    metric: int = 0
    prefsrc: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class NeighbourConfig:
    """One permanent neighbour (`ip neigh add ADDR lladdr LL dev DEV nud permanent`)."""

    addr: str
    lladdr: str
    dev: str


@dataclass(frozen=True, slots=True)
class IpConfig:
    """ip's configuration at start.

    protocols: the transports that this stack has, by IP protocol number. While one of them has
    not registered, nobody answers protocol unreachable for it (docs/architecture.md, "Who owns
    what").
    tcp_shards, rss_key: how many tcp processes there are, and how flows are spread
    (`skbus.inet.rps`).
    """

    devices: tuple[DeviceConfig, ...] = ()
    routes: tuple[RouteConfig, ...] = ()
    neighbours: tuple[NeighbourConfig, ...] = ()
    protocols: tuple[tuple[int, str], ...] = (
        (IPPROTO_TCP, "tcp"),
        (IPPROTO_UDP, "udp"),
        (IPPROTO_UDPLITE, "udp"),
    )
    tcp_shards: int = 1
    rss_key: bytes = b""


# ---- state -------------------------------------------------------------------------------


class InIfaddr(NamedTuple):
    """`struct in_ifaddr`: one address of a device."""

    ifa_local: bytes
    ifa_prefixlen: int
    ifa_broadcast: bytes
    """b"" where the prefix has none (/31, /32)."""


class IpMcList:
    """`struct ip_mc_list`: one group on one device, for all sockets together (RFC 3376 3.2).

    mode, state: the reception state that was last reported on: MCAST_INCLUDE or MCAST_EXCLUDE, and
    the sources. crcount, allow, block: how many state-change reports are still due, for the mode
    and for each source (RFC 3376 5.1).
    """

    __slots__ = (
        "allow",
        "block",
        "crcount",
        "gsquery",
        "mode",
        "multiaddr",
        "reporter",
        "sfcount",
        "sources",
        "state",
        "timer",
        "unsolicit_count",
        "users",
    )

    def __init__(self, multiaddr: bytes) -> None:
        self.multiaddr = multiaddr
        self.users = 0
        self.sfcount = [0, 0]
        """Filters of sockets, by mode."""
        self.sources: dict[bytes, list[int]] = {}
        """Source -> in how many filters it is, by mode."""
        self.mode = 1
        self.state: frozenset[bytes] = frozenset()
        self.crcount = 0
        self.allow: dict[bytes, int] = {}
        self.block: dict[bytes, int] = {}
        self.gsquery: set[bytes] | None = None
        """Sources that a group-and-source-specific query asked for; None: it asked for all."""
        self.timer: Timer[Any] | None = None
        self.unsolicit_count = 0
        self.reporter = False
        """We were the last to report it (RFC 2236 3)."""


class IgmpDevice:
    """`struct in_device`'s part for IGMP; times in ns (RFC 3376 section 8)."""

    __slots__ = (
        "gq_timer",
        "ifc_count",
        "ifc_timer",
        "mr_qi",
        "mr_qri",
        "mr_qrv",
        "mr_v1_seen",
        "mr_v2_seen",
        "tomb",
    )

    def __init__(self) -> None:
        self.mr_v1_seen = 0
        """Until when a querier of version 1 counts as present."""
        self.mr_v2_seen = 0
        self.mr_qrv = 0
        self.mr_qi = 125_000_000_000
        self.mr_qri = 10_000_000_000
        self.gq_timer: Timer[Any] | None = None
        self.ifc_timer: Timer[Any] | None = None
        self.ifc_count = 0
        self.tomb: dict[bytes, IpMcList] = {}
        """Groups that we left, with reports still due."""


class InetSock(TransportSock):
    """`struct raw_sock`, or the `struct inet_sock` of a ping socket.

    inet_num is a raw socket's protocol, or a ping socket's identifier, 0 while it has none.
    """

    __slots__ = ("filter", "ping")

    def __init__(self, sk: int, protocol: int, rcvbuf: int, *, ping: bool) -> None:
        super().__init__(sk, rcvbuf, protocol)
        self.ping = ping
        self.inet_num = 0 if ping else protocol
        self.hdrincl = not ping and protocol == IPPROTO_RAW
        self.filter = 0
        """ICMP_FILTER: the types that the socket does not want."""


class NetDevice:
    """`struct net_device`, the part that ip needs. `process` takes `dev_queue_xmit`."""

    __slots__ = (
        "dev_addr",
        "features",
        "gso_max_size",
        "ifa_list",
        "ifindex",
        "igmp",
        "loopback",
        "mc_list",
        "mtu",
        "name",
        "process",
        "registered",
        "up",
    )

    def __init__(self, name: str, process: str, *, loopback: bool = False) -> None:
        self.name = name
        self.process = process
        self.loopback = loopback
        self.ifindex = 0
        self.dev_addr = b"\0" * 6
        self.mtu = 1500
        self.features = 0
        self.gso_max_size = 65536
        self.up = False
        self.registered = False
        self.ifa_list: list[InIfaddr] = []
        self.mc_list: dict[bytes, IpMcList] = {}
        """Multicast groups that this host is in on this device."""
        self.igmp = IgmpDevice()


class FibInfo(NamedTuple):
    """`struct fib_info`: where packets for a prefix go."""

    fib_type: int
    fib_dev: NetDevice | None
    fib_gw: bytes
    """Gateway, b"" for on-link."""
    fib_prefsrc: bytes
    fib_metric: int
    fib_mtu: int
    fib_prefix: bytes
    fib_prefixlen: int
    fib_protocol: str
    """"kernel" for routes that follow from addresses, "static" for configured ones."""


class FibNhException(NamedTuple):
    """`struct fib_nh_exception`: facts learned of the path to one address."""

    fnhe_pmtu: int
    """0: not known"""
    fnhe_mtu_locked: bool
    fnhe_expires: int
    """ns"""
    fnhe_gw: bytes = b""
    """The gateway that a redirect named, b'' for the route's."""


class Rtable:
    """`struct rtable`: the outcome of a route look-up, cached until the genid moves."""

    __slots__ = (
        "dev",
        "error",
        "input",
        "mtu",
        "mtu_locked",
        "output",
        "peer_mtu",
        "rt_daddr",
        "rt_flags",
        "rt_gateway",
        "rt_id",
        "rt_iif",
        "rt_neigh",
        "rt_saddr",
        "rt_type",
    )

    def __init__(self, rt_type: int, dev: NetDevice, daddr: bytes, saddr: bytes) -> None:
        self.rt_type = rt_type
        self.dev = dev
        self.rt_daddr = daddr
        self.rt_saddr = saddr
        """Output: the source address to use."""
        self.rt_gateway = daddr
        """The next hop."""
        self.rt_iif = 0
        """Input: the device that the packet came by. Output to ourselves: the device that has the
        address, by which the packet is taken to have come."""
        self.mtu = min(dev.mtu, IP_MAX_MTU)
        self.mtu_locked = False
        """`ip_mtu_locked`: the path takes less than `route.min_pmtu`, and routers may fragment."""
        self.peer_mtu = 0
        """Input: MTU of the route back."""
        self.rt_flags = 0
        """RTCF_DOREDIRECT, or nothing."""
        self.rt_id = 0
        """The next IP identification for datagrams that must not be fragmented."""
        self.rt_neigh: Neighbour | None = None
        self.error = 0
        self.input: Callable[[Any, SkBuff, Any, Any], None] | None = None
        self.output: Callable[[Any, SkBuff, Any], None] | None = None


class NeighOps(NamedTuple):
    """`struct neigh_ops`: how a family's protocol resolves addresses. `arp.ARP_OPS` for IPv4;
    neighbour discovery (RFC 4861) would have its own."""

    solicit: Callable[["IpNet", "Neighbour"], None]
    """Ask for the neighbour's hardware address."""
    error_report: Callable[["IpNet", "Neighbour", SkBuff], None]
    """Nobody has answered: the waiting skb is dropped, and its sender told."""


def _no_constructor(net: "IpNet", neigh: "Neighbour") -> None:
    """The constructor of a table that no family has registered."""
    raise RuntimeError("neigh_create: this table has not been registered by neigh_table_init")


class NeighTable:
    """`struct neigh_table`: the neighbours of one address family.

    protocol: the family's Ethernet type, two bytes of the header. conf: how the names of its
    sysctls begin.
    """

    __slots__ = (
        "conf",
        "constructor",
        "entries",
        "gc_timer",
        "protocol",
        "reachable_time",
        "reachable_time_set",
    )

    def __init__(self, protocol: bytes, conf: str) -> None:
        self.protocol = protocol
        self.conf = conf
        self.constructor: Callable[[IpNet, Neighbour], None] = _no_constructor
        """Sets a new neighbour's `ops`, and its address where no question is needed."""
        self.entries: dict[tuple[int, bytes], Neighbour] = {}
        """By (ifindex, address)."""
        self.reachable_time = 0
        """ns; drawn anew now and then (`neigh_rand_reach_time`)."""
        self.reachable_time_set = -1
        self.gc_timer: Timer[Any] | None = None


NO_NEIGH_OPS: Final = NeighOps(
    lambda net, neigh: None, lambda net, neigh, skb: net.kfree_skb(skb, "NEIGH_FAILED")
)
"""For a neighbour that its table's constructor gave no others: never asked for."""


class Neighbour:
    """`struct neighbour`: a next hop on a device and its hardware address."""

    __slots__ = (
        "arp_queue",
        "arp_queue_len_bytes",
        "confirmed",
        "dead",
        "dev",
        "ha",
        "hh",
        "nud_state",
        "ops",
        "primary_key",
        "probes",
        "tbl",
        "timer",
        "updated",
        "used",
    )

    def __init__(self, tbl: NeighTable, dev: NetDevice, primary_key: bytes, now: int) -> None:
        self.tbl = tbl
        self.ops = NO_NEIGH_OPS
        self.dev = dev
        self.primary_key = primary_key
        self.nud_state = 0
        self.ha = b""
        self.hh = b""
        """The Ethernet header of packets to this neighbour (Linux's hh_cache)."""
        self.arp_queue: deque[SkBuff] = deque()
        self.arp_queue_len_bytes = 0
        self.probes = 0
        self.confirmed = now
        self.updated = now
        self.used = now
        self.dead = False
        self.timer: Timer[Any] | None = None


class InetProtocol(NamedTuple):
    """`struct net_protocol`, in another process."""

    process: str
    handler: SkbEntry[RcvCb]
    err_handler: Entry[ErrHandler] | None
    shards: tuple[str, ...] = ()
    """The processes that share it by `get_rps_cpu`; "" for one that has not registered yet."""


class Ipq:
    """`struct ipq`: the fragments of one datagram that have come so far."""

    __slots__ = (
        "flags",
        "key",
        "len",
        "meat",
        "mem",
        "offsets",
        "rid",
        "skbs",
        "timer",
        "tos",
    )

    def __init__(self, key: tuple[bytes, bytes, int, int, int]) -> None:
        self.key = key
        self.offsets: list[int] = []
        """Where each of `skbs` begins, ascending."""
        self.skbs: list[SkBuff] = []
        self.len = 0
        self.meat = 0
        self.mem = 0
        self.flags = 0
        self.tos = 0
        self.rid = 0
        """The sender's count of fragments at the last one of this datagram."""
        self.timer: Timer[Any] | None = None


class IpPacketType(NamedTuple):
    """`struct packet_type` of ip's own: the entry by which drivers call it, and the function."""

    entry: SkbEntry[None]
    func: Callable[["IpNet", SkBuff], None]


LocalHandler = Callable[["IpNet", SkBuff, Any, Any], None]
"""(net, skb, iph, rt): the handler of a protocol that is ip's own."""


@dataclass(slots=True)
class FibTable:
    """Prefixes by length: a look-up tries at most 33 dicts, the longest first."""

    zones: list[tuple[int, int, dict[int, list[FibInfo]]]] = field(default_factory=list)
    """(prefix length, mask, network -> routes by metric), by descending length."""


class IpNet(Net):
    """`struct net`, with ip's fields."""

    def __init__(
        self,
        name: str = "ip",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
        config: IpConfig | None = None,
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.config = config or IpConfig()
        # devinet
        self.devices: dict[str, NetDevice] = {}
        self.dev_by_index: dict[int, NetDevice] = {}
        self.loopback_dev = NetDevice("lo", "", loopback=True)
        self.local_addrs: dict[bytes, NetDevice] = {}
        self.backlog: deque[SkBuff] = deque()
        """Packets that `netif_rx` queued and `process_backlog` has not handed on."""
        self.in_backlog = False
        # routes
        self.fib = FibTable()
        self.static_routes: list[RouteConfig] = []
        self.rt_genid = 1
        self.rt_out: dict[tuple[bytes, bytes, int], Rtable] = {}
        self.rt_in: dict[tuple[bytes, bytes, int], Rtable] = {}
        self.fnhe: dict[bytes, FibNhException] = {}
        """daddr -> the exception for the path there."""
        self.fnhe_timer: Timer[Any] | None = None
        self.martians = 0
        """How many came since `martians_since`, ns."""
        self.martians_since = -1
        self.ip_idents: dict[int, int] = {}
        self.ip_idents_key = 0
        # neighbours
        self.neigh_tables: list[NeighTable] = []
        """Those that `neigh_table_init` has made: ARP's."""
        self.arp_tbl = NeighTable(b"", "")
        """ARP's; empty and of no family until `arp_init`."""
        self.duplicates: set[tuple[bytes, bytes]] = set()
        # protocols
        self.inet_protos: dict[int, InetProtocol] = {}
        self.inet_local: dict[int, LocalHandler] = {}
        """Protocols that are ip's own."""
        self.backlog_marks: dict[tuple[str, int], int] = {}
        """(nic, mark) -> how many processes must still send the mark back (`rps.backlog_mark`)."""
        self.ptype_base: dict[int, IpPacketType] = {}
        """By Ethernet type; drivers are told."""
        self.proc_net: Callable[[IpNet, str], Any] | None = None
        """Our part of /proc/net."""
        self.inet_known: dict[int, str] = dict(self.config.protocols)
        """Protocols that this stack has, registered now or not."""
        # raw and ping sockets
        self.inet_socks: dict[int, InetSock] = {}
        self.raw_hash: dict[int, list[InetSock]] = {}
        """Raw sockets by protocol."""
        self.ping_table: dict[int, list[InetSock]] = {}
        """Ping sockets by identifier."""
        self.ping_port_rover = 0
        self.socket_peer = False
        """The socket layer has said hello to us."""
        # multicast
        self.mc_socks: dict[tuple[str, int], McList] = {}
        """(process, socket) -> the groups that it is in."""
        self.mc_deferred: list[tuple[tuple[str, int], int, bytes]] = []
        """(socket, option, value) of memberships that wait for their device."""
        # fragments
        self.ip4_frags: dict[tuple[bytes, bytes, int, int, int], Ipq] = {}
        self.frag_mem = 0
        self.frag_rid: dict[bytes, int] = {}
        """Sender -> how many fragments have come from it (`inet_peer.rid`)."""
        # icmp
        self.icmp_global_credit = 0
        self.icmp_global_stamp = -1
        self.inet_peers: dict[bytes, tuple[int, int]] = {}
        """Host -> (tokens, time), both ns, of the rate limit."""
        self.redirect_peers: dict[bytes, tuple[int, int]] = {}
        """Host -> (redirects that it has not heeded, when the last was sent)."""

    def sk_flow(self, sk: int) -> Flow | None:
        """As `Net.sk_flow`: raw and ping sockets have no ports."""
        inet = self.inet_socks.get(sk)
        if inet is None or not any(inet.inet_saddr + inet.inet_daddr):
            return None
        return Flow(inet.inet_saddr, NO_PORT, inet.inet_daddr, NO_PORT)

    def device(self, skb: SkBuff) -> NetDevice | None:
        """The device that the skb came from."""
        return self.dev_by_index.get(skb.dev or skb.skb_iif)

    def transports(self) -> Sequence[str]:
        """The processes that have registered a protocol."""
        processes = {proto.process for proto in self.inet_protos.values() if not proto.shards}
        for proto in self.inet_protos.values():
            processes.update(filter(None, proto.shards))
        return sorted(processes)
