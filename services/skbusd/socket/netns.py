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
    from skbusd.socket.call import Call
    from skbusd.socket.files import Client, SockFs
    from skbusd.socket.modprobe import ModProbe
    from skbusd.socket.proto import Proto
    from skbusd.socket.protosw import InetProtosw
    from skbusd.socket.request import TransportRequest
    from skbusd.socket.sock import InetSock, Sock
    from skbusd.socket.socket import NetProtoFamily, Socket
    from skbusd.socket.tcp_shards import Bound


class SocketNet(Net):
    """The socket layer's `struct net`."""

    net_families: "list[NetProtoFamily | None]"
    inetsw: "list[list[InetProtosw]]"
    proto_list: "dict[str, Proto]"

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
        self.tcp_shards = tcp_shards
        self.tcp_prots: tuple[Proto, ...] = ()
        """TCP by shard, where there are several (tcp_shards.py)."""
        self.tcp_next_shard = 0
        self.tcp_replicas: dict[InetSock, Bound] = {}
        """Sockets that all shards know."""
        self.tcp_backlogs: dict[InetSock, int] = {}
        """Listeners with a long accept queue: how long, when the shards were told."""
        self.net_families = [None] * uapi.NPROTO
        self.inetsw = [[] for _ in range(uapi.SOCK_MAX)]
        self.proto_list = {}
        self.modprobe: ModProbe | None = None
        """How the shell loads a plug-in; None: there are none."""
        self.packet_warned = False
        self.socks: dict[int, InetSock] = {}
        self.max_socks = 0
        """Socks there may be (`sk_init`)."""
        self.sockets_max = 0
        """struct sockets there may be (`init_inodecache`); fs.file-max bounds them too."""
        self.sockets_in_use = 0
        self.sock_mnt: SockFs | None = None
        self.clients: dict[bytes, Client] = {}
        self.requests: dict[int, TransportRequest] = {}
        self.replies: list[tuple[bytes, bytes, bytes]] = []
        """(identity, meta, data) for the shell to send."""
        self.poll_dirty: dict[Socket, None] = {}
        """Sockets with a descriptor to poll whose state may have changed."""
        self.poll_closed: list[Socket] = []
        self.regions_gone: list[int] = []
        """Pool regions of dead clients, for the shell to remove."""
        self.region_refs: dict[int, int] = {}
        self.region_pressure: dict[tuple[int, int], tuple[int, bool]] = {}
        """region -> (until when it holds, are its slots getting short)"""
        self.reader_pending: dict[Sock, None] = {}
        """Socks with a reader that waits: the transport hears it with what it is told next."""
        self.accept_pending: list[tuple[str, Accept]] = []  # (process, ...)
        """Children that were accepted, and of which tcp shall hear with the next message."""
        self.accept_timer: Timer[SocketNet] | None = None
        self.share = Share()
        self.rcv_pending: dict[Sock, None] = {}
        """Socks whose transport is to hear at the batch's end how much was taken."""
        self.recvmmsg_pending: dict[Call, None] = {}
        """Calls of recvmmsg that wait for the batch's end, to take all that it brings."""
        self.post_stalled: dict[Client, None] = {}
        """Clients whose posts wait for room."""
        self.post_resumed: list[bytes] = []
        """Those of them whose pipe the shell may read again."""
        self.sweep_timer: Timer[SocketNet] | None = None
        self.nr_files = 0
        self.next_req = 0
        self.sk_step = 2 * tcp_shards
        self.next_sk = self.sk_step
        self.peers: set[str] = set()
        self.calls = 0
        self.tk_real_offset = 0
        """ns between the stack's clock and the time of day, for SO_TIMESTAMP."""
        self.current: Client | None = None
        """`current`: the process whose call is being worked on."""
        self.kthreads: Any = None
        """The threads of code inside this process (`kthread.KThreads`), once there are any."""
        self.next_kernel_req = 0
        self.modules: dict[str, Any] = {}
        """What is loaded (`module.Module`)."""

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
