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
    """The limits on objects that all clients share, and the numbers in use."""

    __slots__ = ("nr_files", "sockets", "sockets_in_use", "socks")

    def __init__(self) -> None:
        self.socks = 0
        """Socks there may be (`sk_init`)."""
        self.sockets = 0
        """struct sockets there may be (`init_inodecache`); fs.file-max also bounds them."""
        self.sockets_in_use = 0
        self.nr_files = 0


class Numbers:
    """The number under which transports will know the next sock."""

    __slots__ = ("next", "step")

    def __init__(self, step: int) -> None:
        self.step = step
        self.next = step


class Requests:
    """Questions to transports (request.py) that have no answer yet, and the last number given."""

    __slots__ = ("last", "waiting")

    def __init__(self) -> None:
        self.last = 0
        self.waiting: dict[int, TransportRequest] = {}


class Polls:
    """The changes that the shell must show in descriptors that applications poll."""

    __slots__ = ("closed", "dirty")

    def __init__(self) -> None:
        self.dirty: dict[Socket, None] = {}
        """Sockets with such a descriptor and a state that may have changed."""
        self.closed: list[Socket] = []


class Reads:
    """Work that is put off to a batch's end, when all of the batch is there."""

    __slots__ = ("recvmmsg", "taken", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Sock, None] = {}
        """Socks with a reader that waits: the transport hears of it with its next message."""
        self.taken: dict[Sock, None] = {}
        """Socks with taken bytes of which their transport must hear."""
        self.recvmmsg: dict[RecvmmsgCall, UdpSock] = {}
        """Calls of recvmmsg that will take the queued datagrams."""


class Accepts:
    """Accepted children of which tcp shall hear with the next message."""

    __slots__ = ("pending", "timer")

    def __init__(self) -> None:
        self.pending: list[tuple[str, Accept]] = []  # (process, ...)
        self.timer: Timer[SocketNet] | None = None


class Posts:
    """Clients with posts that wait for room (post.py)."""

    __slots__ = ("resumed", "stalled")

    def __init__(self) -> None:
        self.stalled: dict[Client, None] = {}
        self.resumed: list[bytes] = []
        """Clients with pipes that the shell may read again."""


class Regions:
    """The state of the pool's regions."""

    __slots__ = ("gone", "pressure", "refs", "sweep_timer")

    def __init__(self) -> None:
        self.gone: list[int] = []
        """Dead clients' regions, for the shell to remove."""
        self.refs: dict[int, int] = {}
        """region -> entries of write queues that lie in it."""
        self.pressure: dict[tuple[int, int], tuple[int, bool]] = {}
        """(region, size of its slots) -> (until when it holds, are they getting short)"""
        self.sweep_timer: Timer[SocketNet] | None = None
        """Sweeps the slots of an earlier life of this process."""


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
        """Listeners with a long accept queue -> its length when the shards were told."""


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
        """Loaded modules (`module.Module`)."""
        self.modprobe: ModProbe | None = None
        """The shell's function to load a plug-in; None: there are no plug-ins."""
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
        # callers
        self.sock_mnt: SockFs | None = None
        self.clients: dict[bytes, Client] = {}
        self.current: Client | None = None
        """`current`: the process that made the call in hand."""
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
        """`ns_capable`: has the calling process a capability (a field of `Cred`)? Code inside this
        process has all."""
        return self.current is None or bool(getattr(self.current.cred, name))

    def capable_net(self) -> bool:
        """CAP_NET_RAW or CAP_NET_ADMIN"""
        return self.capable("net_raw") or self.capable("net_admin")
