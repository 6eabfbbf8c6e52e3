# SPDX-License-Identifier: MIT
"""struct netns_ipv4 as far as TCP goes: the state of one tcp process.

Made by `TcpCore`; every function of this layer takes it first. It holds the hash tables, the
secrets, the registry of congestion controls and the counts that limits are about.
"""

from collections.abc import Callable, Container
from random import Random
from typing import TYPE_CHECKING, Any, Final

from siphash24 import siphash24

from skbus.core.abi import InetdevEvent
from skbus.core.flow_dissector import Flow, sock_flow
from skbus.core.net import Net
from skbus.core.pool import Allocator, Pool
from skbus.core.share import Share
from skbus.core.sysctl import Sysctl
from skbus.core.timer import Timer
from skbus.inet.rps import SHARD_BITS, flow_hash, reciprocal_scale, tcp_shard
from skbusd.tcp.request_sock import TcpRequestSock, TcpTimewaitSock
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_metrics import TcpMetrics

if TYPE_CHECKING:
    from skbusd.tcp.inet_hashtables import InetBindBucket
    from skbusd.tcp.sk_lock import Prequeue, SockLock
    from skbusd.tcp.tcp_cong import TcpCongestionOps

ANY: Final = bytes(4)

Established = TcpSock | TcpRequestSock | TcpTimewaitSock


class TcpNet(Net):
    """The `net` of a tcp process.

    isn: for tests and experiments, takes the place of RFC 6528's initial sequence numbers; called
    with (saddr, daddr, sport, dport). shards, rss_key: the number of tcp processes, and the key
    that spreads connections among them (`skbus.inet.rps`).
    """

    def __init__(
        self,
        name: str = "tcp",
        *,
        rand: Random,
        pool: Pool,
        alloc: Allocator | None = None,
        sysctl: Sysctl | None = None,
        epoch: int = 1,
        isn: Callable[[bytes, bytes, int, int], int] | None = None,
        shards: int = 1,
        rss_key: bytes = b"",
    ) -> None:
        super().__init__(name, rand=rand, pool=pool, alloc=alloc, sysctl=sysctl, epoch=epoch)
        self.isn = isn
        self.state_changes: Container[tuple[int, int]] | None = None
        """The (old, new) that `tcp_set_state` may make; None: no check. The simulation sets
        `tcp_states.STATE_CHANGES`."""
        self.shards = shards
        self.shard = tcp_shard(name) if shards > 1 else 0
        """The shard that this process is."""
        self.rss_key = rss_key
        self.socks: dict[int, TcpSock] = {}
        self.ehash: dict[bytes, Established] = {}
        self.lhash: dict[tuple[bytes, int], list[TcpSock]] = {}
        self.bhash: dict[int, InetBindBucket] = {}
        self.cong: dict[str, TcpCongestionOps] = {}
        self.inetdev: dict[bytes, InetdevEvent] = {}
        self.rt_genid = 0
        # secrets: of tcp_v4_init and tcp_init
        self.net_secret = b""
        self.ts_secret = b""
        self.syncookie_secret = b""
        self.fastopen_secret = b""
        self.tcp_metrics: TcpMetrics = TcpMetrics()
        self.tfo_active_disable_stamp = 0
        self.tfo_active_disable_times = 0
        self.table_perturb: list[int] = []
        self.tw_count = 0
        self.orphan_count = 0
        self.ofo_skbs = 0
        self.share = Share()
        self.tcp_memory_allocated = 0
        """Pages that are charged to sockets."""
        self.tcp_memory_pressure = 0
        """When TCP came under pressure, ns; 0: it is not."""
        self.sk_owned: dict[int, SockLock] = {}
        """Sockets that a request owns beyond its batch."""
        self.tcp_prequeues: dict[int, Prequeue] = {}
        self.slice_timer: Timer[TcpNet] = Timer(_no_timer, 0)
        self.autocork: dict[TcpSock, bool] = {}
        """Sockets with writes of this batch that are yet to be sent -> will more come?"""
        self.autocorked: dict[TcpSock, tuple[bool, int, int]] = {}
        """Sockets with a last write that waits for the next one -> the same, since when, and from
        which sequence number on."""
        self.autocork_timer: Timer[TcpNet] | None = None
        self.write_space: dict[int, TcpSock] = {}
        self.bad_requests = 0
        """Messages of the socket layer that made no sense."""
        self.last_synq_overflow = -(1 << 62)
        self.challenge_second = -1
        self.challenge_count = 0
        self._child = 0
        self._req = 0
        self.route_reqs: dict[int, int] = {}
        # Linux's own function pointers, set by TcpCore: the function that takes a backlog's
        # segments (sk->sk_backlog_rcv), and the handlers of a socket's timers
        # (tcp_init_xmit_timers).
        self.sk_backlog_rcv: Callable[..., None] = _no_timer
        self.tcp_pace_kick: Callable[..., None] = _no_timer
        self.tcp_compressed_ack_kick: Callable[..., None] = _no_timer
        self.tcp_write_timer: Callable[..., None] = _no_timer
        self.tcp_delack_timer: Callable[..., None] = _no_timer
        self.tcp_keepalive_timer: Callable[..., None] = _no_timer

    def child_number(self) -> int:
        """A number for a socket that tcp itself makes: odd, as the socket layer's are even. Each of
        several shards has its own numbers: the upper bits are epoch and shard."""
        self._child += 1
        life = self.epoch & 0x3FFFFFFF
        if self.shards > 1:
            life = (self.epoch & 0xFFFFFF) << SHARD_BITS | self.shard
        return (life << 32 | self._child & 0xFFFFFFFF) << 1 | 1

    def shard_of(self, key: bytes) -> int:
        """The shard to which ip steers the segments of a connection (`inet_ehashfn`)."""
        return reciprocal_scale(flow_hash(key, self.rss_key), self.shards)

    def shard_limit(self, limit: int) -> int:
        """Our part of a limit that is for all of TCP."""
        return -(-limit // self.shards)

    def req_number(self) -> int:
        """A number for a request of ours to ip."""
        self._req += 1
        return self._req

    def sk_flow(self, number: int) -> Flow | None:
        """As `Net.sk_flow`."""
        tp = self.socks.get(number)
        return None if tp is None else sock_flow(tp.saddr, tp.sport, tp.daddr, tp.dport)

    def siphash(self, data: bytes, secret: bytes) -> int:
        """SipHash-2-4, 64 bits."""
        return int.from_bytes(siphash24(data, key=secret).digest(), "little")

    def secure_tcp_seq(self, saddr: bytes, daddr: bytes, sport: int, dport: int) -> int:
        """The initial sequence number (RFC 6528): a keyed hash plus a clock of 64 ns."""
        if self.isn is not None:
            return self.isn(saddr, daddr, sport, dport) & 0xFFFFFFFF
        ports = sport << 16 | dport
        data = saddr + daddr + ports.to_bytes(4, "big")
        return (self.siphash(data, self.net_secret) + (self.now >> 6)) & 0xFFFFFFFF

    def secure_tcp_ts_off(self, saddr: bytes, daddr: bytes) -> int:
        """The offset of a connection's timestamps (RFC 7323 5.4)."""
        if self.sysctl["net.ipv4.tcp_timestamps"] != 1:
            return 0
        return self.siphash(saddr + daddr, self.ts_secret) & 0xFFFFFFFF


def _no_timer(net: Any, number: int) -> None:
    raise NotImplementedError("TcpCore sets the function pointers")
