# SPDX-License-Identifier: MIT
"""The socket layer's `struct net`. Types alone: all other modules may import this one, and it
imports none of them at run time.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from skbus.core.flow_dissector import NO_PORT, Flow, sock_flow
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool
from skbus.core.share import Share
from skbus.core.sysctl import Sysctl
from skbusd.socket import uapi

if TYPE_CHECKING:
    from skbus.core.abi import Accept
    from skbus.core.timer import Timer
    from skbusd.socket.call import RecvmmsgCall
    from skbusd.socket.files import Client, SockFs
    from skbusd.socket.modprobe import ModProbe
    from skbusd.socket.proto import Proto
    from skbusd.socket.protosw import InetProtosw
    from skbusd.socket.request import TransportRequest
    from skbusd.socket.sock import InetSock, Sock, TcpSock, UdpSock
    from skbusd.socket.socket import NetProtoFamily, Socket
    from skbusd.socket.tcp_shards import Bound


class Limits:
    """How many there may be of what all clients share, and how many there are."""

    __slots__ = ("nr_files", "sockets", "sockets_in_use", "socks")

    def __init__(self) -> None:
        self.socks = 0
        """Socks there may be (`sk_init`)."""
        self.sockets = 0
        """struct sockets there may be (`init_inodecache`); fs.file-max bounds them too."""
        self.sockets_in_use = 0
        self.nr_files = 0


class Numbers:
    """Under which number transports will know the next sock."""

    __slots__ = ("next", "step")

    def __init__(self, step: int) -> None:
        self.step = step
        self.next = step


class Requests:
    """Questions to transports (request.py): those without an answer yet, and the last one's
    number."""

    __slots__ = ("last", "waiting")

    def __init__(self) -> None:
        self.last = 0
        self.waiting: dict[int, TransportRequest] = {}


class Polls:
    """What the shell is to show in descriptors that applications poll."""

    __slots__ = ("closed", "dirty")

    def __init__(self) -> None:
        self.dirty: dict[Socket, None] = {}
        """Sockets with such a descriptor whose state may have changed."""
        self.closed: list[Socket] = []


class Reads:
    """What is put off to the end of a batch, when all is there that the batch brings."""

    __slots__ = ("recvmmsg", "taken", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Sock, None] = {}
        """Socks with a reader that waits: the transport hears it with its next message."""
        self.taken: dict[Sock, None] = {}
        """Socks whose transport is to hear how much was taken."""
        self.recvmmsg: dict[RecvmmsgCall, UdpSock] = {}
        """Calls of recvmmsg that will take what is there."""


class Accepts:
    """Children that were accepted, and of which tcp shall hear with the next message."""

    __slots__ = ("pending", "timer")

    def __init__(self) -> None:
        self.pending: list[tuple[str, Accept]] = []  # (process, ...)
        self.timer: Timer[SocketNet] | None = None


class Posts:
    """Clients whose posts wait for room (post.py)."""

    __slots__ = ("resumed", "stalled")

    def __init__(self) -> None:
        self.stalled: dict[Client, None] = {}
        self.resumed: list[bytes] = []
        """Those whose pipe the shell may read again."""


class Regions:
    """What is known of the pool's regions."""

    __slots__ = ("gone", "pressure", "refs", "sweep_timer")

    def __init__(self) -> None:
        self.gone: list[int] = []
        """Those of dead clients, for the shell to remove."""
        self.refs: dict[int, int] = {}
        """How many entries of write queues lie in a region."""
        self.pressure: dict[tuple[int, int], tuple[int, bool]] = {}
        """(region, size of its slots) -> (until when it holds, are they getting short)"""
        self.sweep_timer: Timer[SocketNet] | None = None
        """When slots of an earlier life of this process are swept."""


class Shards:
    """TCP by shard, where there are several (tcp_shards.py)."""

    __slots__ = ("backlogs", "count", "next", "prots", "replicas")

    def __init__(self, count: int) -> None:
        self.count = count
        self.prots: tuple[Proto[TcpSock], ...] = ()
        """TCP's struct proto by shard; none where there is one shard."""
        self.next = 0
        self.replicas: dict[TcpSock, Bound] = {}
        """Sockets that all shards know."""
        self.backlogs: dict[TcpSock, int] = {}
        """Listeners with a long accept queue: how long, when the shards were told."""


class SocketNet(Net):
    """The socket layer's `struct net`."""

    net_families: "list[NetProtoFamily | None]"
    inetsw: "list[list[InetProtosw]]"
    proto_list: "dict[str, Proto[Any]]"

    def __init__(
        self,
        name: str = "socket",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
        tcp_shards: int = 1,
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        # families and protocols
        self.net_families = [None] * uapi.NPROTO
        self.inetsw = [[] for _ in range(uapi.SOCK_MAX)]
        self.proto_list = {}
        self.packet_warned = False
        self.modules: dict[str, Any] = {}
        """What is loaded (`module.Module`)."""
        self.modprobe: ModProbe | None = None
        """How the shell loads a plug-in; None: there are none."""
        # socks and their transports
        self.socks: dict[int, InetSock] = {}
        self.numbers = Numbers(2 * tcp_shards)
        self.limits = Limits()
        self.peers: set[str] = set()
        self.requests = Requests()
        self.reads = Reads()
        self.accepts = Accepts()
        self.regions = Regions()
        self.share = Share()
        self.tk_real_offset = 0
        """ns between the stack's clock and the time of day, for SO_TIMESTAMP."""
        self.shards = Shards(tcp_shards)
        # those who call
        self.sock_mnt: SockFs | None = None
        self.clients: dict[bytes, Client] = {}
        self.current: Client | None = None
        """`current`: the process whose call is being worked on."""
        self.kthreads: Any = None
        """The threads of code inside this process (`kthread.KThreads`), once there are any."""
        self.calls = 0
        self.replies: list[tuple[bytes, bytes, bytes]] = []
        """(identity, meta, data) for the shell to send."""
        self.polls = Polls()
        self.posts = Posts()

    def sk_flow(self, sk: int) -> Flow | None:
        """As `Net.sk_flow`."""
        inet = self.socks.get(sk)
        if inet is None:
            return None
        saddr = inet.inet_rcv_saddr if not any(inet.inet_saddr) else inet.inet_saddr
        if inet.sk_type == uapi.SOCK_RAW or inet.sk_protocol == uapi.IPPROTO_ICMP:
            # their inet_sport is the protocol, or the identifier
            named = any(saddr) or any(inet.inet_daddr)
            return Flow(saddr, NO_PORT, inet.inet_daddr, NO_PORT) if named else None
        return sock_flow(saddr, inet.inet_sport, inet.inet_daddr, inet.inet_dport)

    def capable(self, name: str) -> bool:
        """`ns_capable`: has the process whose call this is a capability (a field of `Cred`)? Code
        inside this process has all."""
        return self.current is None or bool(getattr(self.current.cred, name))

    def capable_net(self) -> bool:
        """CAP_NET_RAW or CAP_NET_ADMIN"""
        return self.capable("net_raw") or self.capable("net_admin")
