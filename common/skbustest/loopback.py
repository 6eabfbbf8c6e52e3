# SPDX-License-Identifier: MIT
"""A socket layer with imagined transports: for tests of clients, without a network.

The real core and the real ROUTER run in a thread. In place of tcp and udp, `Loopback` carries
bytes from one socket to another in the same stack. It has flow control, refusals, resets and
half-close, but no packets: its answers follow `skbus.core.abi`.
"""

import errno
import select
import threading
from collections import deque
from random import Random
from typing import Any, Final

from skbus.bus.clock import StackClock
from skbus.bus.pooldir import PoolDir
from skbus.bus.rundir import RunDir
from skbus.core.abi import (
    Accept,
    Close,
    Connect,
    Connected,
    DataReadyCb,
    Disconnect,
    GetPort,
    Getsockopt,
    InitSock,
    ListenStart,
    Recvmsg,
    ReqskQueueAdd,
    Setsockopt,
    Shutdown,
    SkErrorReport,
    SkRet,
    SkStateChange,
    SkWriteSpace,
    TcpDone,
    TcpFin,
)
from skbus.core.entry import AnyEntry, Handler, serve
from skbus.core.interfaces import SkCallbacks, Tcp, TransportProto
from skbus.core.pool import Allocator
from skbus.core.skbuff import SkBuff
from skbusd.socket.core import SocketCore
from skbusd.socket.netns import SocketNet
from skbusd.socket.router import SyscallSource

LOCALHOST: Final = b"\x7f\0\0\1"
ANY: Final = bytes(4)
_CLASSES: Final = ((2048, 512), (16384, 256), (66560, 64))
_WINDOW: Final = 262144


class _Conn:
    """One end of an imagined connection, or a listener, or a datagram socket."""

    def __init__(self, sk: int) -> None:
        self.sk = sk
        self.addr = ANY
        self.port = 0
        self.peer: _Conn | None = None
        self.dport = 0
        self.backlog = -1
        self.waiting: deque[bytes] = deque()
        """Bytes from the peer for which our receiver has no room yet."""
        self.outstanding = 0
        self.fin = False
        self.closed = False
        self.reuse = 0


class Loopback:
    """A running stack in `run`. A context manager; tests may look at `core` when it is idle."""

    def __init__(self, run: RunDir) -> None:
        self.run = run.create()
        pool_dir = PoolDir(run.pool_dir)
        pool = pool_dir.pool()
        own = pool_dir.adopt_or_create(1, _CLASSES)
        self.nic: Allocator = pool_dir.adopt_or_create(2, _CLASSES)
        pool.regions.update({1: own, 2: self.nic})
        self.net = SocketNet(rand=Random(7), pool=pool, alloc=own)
        self.core = SocketCore(self.net)
        self.source = SyscallSource(self.core, run)
        self.clock = StackClock()
        self._conns: dict[int, _Conn] = {}
        self._ports: dict[tuple[str, int], list[_Conn]] = {}
        self._next_port = 40000
        self._next_child = 1 << 32
        self._idle_passes = 0
        self._wake = select.epoll()
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="loopback", daemon=True)

    def __enter__(self) -> "Loopback":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End the socket layer, as if its process had died."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()

    def settle(self) -> None:
        """Return when the socket layer has had nothing to do for a moment, or has ended."""
        idle = self._idle_passes
        while self._idle_passes < idle + 3 and self._thread.is_alive():
            self._stop.wait(0.005)

    # ---- the loop ------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            self.core.start()
            self.core.peer_up("tcp")
            self.core.peer_up("udp")
            for fd in self.source.filenos():
                self._wake.register(fd, select.EPOLLIN)
            while not self._stop.is_set():
                if not self._pass():
                    self._idle_passes += 1
                    self._wake.poll(0.01)
        except BaseException as e:  # noqa: BLE001 - shown by __exit__
            self.failure = e
        finally:
            self.source.close()
            self._wake.close()

    def _pass(self) -> int:
        net = self.net
        net.now = self.clock.now()
        work = self.source.drain(64)
        work += net.timers.run(net, net.now)
        self.core.idle()
        while net.outbox:
            outbox, net.outbox = net.outbox, {}
            for process, batch in outbox.items():
                for entry, item in batch:
                    SERVES[process][entry](self, item)
                    work += 1
            self.core.idle()
        self.source.flush()
        net.trace_events.clear()
        net.log_events.clear()
        return work

    def _up(self, entry: AnyEntry, item: Any) -> None:
        if type(item) is SkBuff:
            self.net.skb_received += 1
        self.core.entries[entry](self.net, item)

    def _ret(self, item: Any, err: int = 0, val: object = None) -> None:
        if item.req:
            self._up(SkCallbacks.sk_ret, SkRet(item.sk, item.req, err, val))

    # ---- both transports -----------------------------------------------------------------

    def _init(self, item: InitSock) -> None:
        self._conns[item.sk] = _Conn(item.sk)

    def _bind(self, kind: str, conn: _Conn, port: int, reuse: int) -> int:
        while not port:
            self._next_port += 1
            if (kind, self._next_port) not in self._ports:
                port = self._next_port
        others = self._ports.setdefault((kind, port), [])
        for other in others:
            if other.backlog >= 0 or not (reuse and other.reuse):
                return errno.EADDRINUSE
        others.append(conn)
        conn.port = port
        conn.reuse = reuse
        return 0

    def _get_port(self, kind: str, item: GetPort) -> None:
        conn = self._conns[item.sk]
        if item.addr not in (ANY, LOCALHOST):
            self._ret(item, errno.EADDRNOTAVAIL)
            return
        err = self._bind(kind, conn, item.port, item.reuse)
        conn.addr = item.addr
        self._ret(item, err, (item.addr, conn.port))

    def _tcp_bind(self, item: GetPort) -> None:
        self._get_port("tcp", item)

    def _udp_bind(self, item: GetPort) -> None:
        self._get_port("udp", item)

    def _setsockopt(self, item: Setsockopt) -> None:
        self._ret(item, 0 if item.optname < 100 else errno.ENOPROTOOPT)

    def _getsockopt(self, item: Getsockopt) -> None:
        err = 0 if item.optname < 100 else errno.ENOPROTOOPT
        self._ret(item, err, item.optname.to_bytes(4, "little"))

    def _forget(self, kind: str, conn: _Conn) -> None:
        others = self._ports.get((kind, conn.port), [])
        if conn in others:
            others.remove(conn)
            if not others:
                del self._ports[kind, conn.port]

    # ---- tcp -----------------------------------------------------------------------------

    def _tcp_listen(self, item: ListenStart) -> None:
        conn = self._conns[item.sk]
        if not conn.port:
            self._bind("tcp", conn, 0, 0)
        conn.backlog = item.backlog
        self._ret(item, 0, (conn.addr, conn.port))

    def _tcp_connect(self, item: Connect) -> None:
        conn = self._conns[item.sk]
        if item.addr != LOCALHOST:
            self._ret(item, errno.ENETUNREACH)
            return
        if not conn.port:
            self._next_port += 1
            conn.port = self._next_port
        self._ret(item, 0, Connected(LOCALHOST, conn.port))
        listener = next(
            (c for c in self._ports.get(("tcp", item.port), ()) if c.backlog >= 0), None
        )
        if listener is None:
            if item.port != 9:  # port 9 answers nothing at all
                self._up(
                    SkCallbacks.sk_error_report, SkErrorReport(item.sk, errno.ECONNREFUSED, True)
                )
            return
        self._next_child += 2
        child = self._conns[self._next_child] = _Conn(self._next_child)
        child.port = item.port
        child.peer, conn.peer = conn, child
        child.dport, conn.dport = conn.port, item.port
        add = ReqskQueueAdd(listener.sk, child.sk, LOCALHOST, item.port, LOCALHOST, conn.port)
        self._up(SkCallbacks.inet_csk_reqsk_queue_add, add)
        self._up(
            SkCallbacks.sk_state_change,
            SkStateChange(item.sk, 1, LOCALHOST, conn.port, LOCALHOST, item.port),
        )

    def _tcp_accept(self, item: Accept) -> None:
        assert item.child in self._conns

    def _tcp_disconnect(self, item: Disconnect) -> None:
        conn = self._conns[item.sk]
        self._reset_peer(conn)
        self._ret(item)

    def _tcp_sendmsg(self, skb: SkBuff) -> None:
        cb: Any = skb.cb
        conn = self._conns[cb.sk]
        payload = self.net.pool.gather(skb.frags)
        peer = conn.peer
        if peer is None:
            return
        if payload:
            peer.waiting.append(payload)
            self._deliver(peer)
        if cb.report:
            self._write_space(conn, 0)

    def _deliver(self, conn: _Conn) -> None:
        """Hand up the bytes that the receiver has room for, and acknowledge them."""
        while conn.waiting and conn.outstanding < _WINDOW:
            payload = conn.waiting.popleft()
            conn.outstanding += len(payload)
            peer = conn.peer
            place = self.nic.put(payload)
            frag = place if place is not None else payload
            cb = DataReadyCb(conn.sk, LOCALHOST, conn.dport, LOCALHOST, conn.port, 1, 0, 0)
            self._up(SkCallbacks.sk_data_ready, SkBuff(b"", (frag,), cb=cb))
            if peer is not None:
                self._write_space(peer, len(payload))
        if not conn.waiting and conn.peer is not None and conn.peer.fin and not conn.closed:
            self._up(SkCallbacks.tcp_fin, TcpFin(conn.sk))

    def _write_space(self, conn: _Conn, acked: int) -> None:
        """`acked` bytes of conn have arrived; all others wait unsent."""
        left = sum(map(len, conn.peer.waiting)) if conn.peer is not None else 0
        self._up(SkCallbacks.sk_write_space, SkWriteSpace(conn.sk, acked, 0, left, left, 0, 65536))

    def _tcp_recvmsg(self, item: Recvmsg) -> None:
        conn = self._conns.get(item.sk)
        if conn is not None:
            conn.outstanding -= item.copied
            if conn.waiting:
                self._deliver(conn)

    def _tcp_shutdown(self, item: Shutdown) -> None:
        conn = self._conns[item.sk]
        if item.how & 2:
            conn.fin = True
            if conn.peer is not None and not conn.peer.waiting:
                self._deliver(conn.peer)

    def _reset_peer(self, conn: _Conn) -> None:
        peer, conn.peer = conn.peer, None
        if peer is not None:
            peer.peer = None
            if not peer.closed:
                self._up(
                    SkCallbacks.sk_error_report, SkErrorReport(peer.sk, errno.ECONNRESET, True)
                )

    def _tcp_close(self, item: Close) -> None:
        conn = self._conns.get(item.sk)
        if conn is None:
            return
        if conn.backlog >= 0 or conn.peer is None:
            for other in tuple(self._conns.values()):
                if conn.backlog >= 0 and other.port == conn.port and other.sk >> 32:
                    pass  # whether accepted or not: the other end finds out by itself
            self._forget("tcp", conn)
            del self._conns[item.sk]
            self._up(SkCallbacks.tcp_done, TcpDone(item.sk))
            return
        conn.closed = True
        if item.unread or item.linger == 0 or conn.waiting:
            self._reset_peer(conn)
        else:
            conn.fin = True
            if not conn.peer.waiting:
                self._deliver(conn.peer)
        if conn.peer is None or conn.peer.closed:
            for end in (conn.peer, conn):
                if end is not None:
                    self._forget("tcp", end)
                    self._conns.pop(end.sk, None)
                    self._up(SkCallbacks.tcp_done, TcpDone(end.sk))

    # ---- udp -----------------------------------------------------------------------------

    def _udp_connect(self, item: Connect) -> None:
        conn = self._conns[item.sk]
        if not conn.port:
            self._bind("udp", conn, 0, 0)
        conn.dport = item.port
        self._ret(item, 0, Connected(LOCALHOST, conn.port))

    def _udp_disconnect(self, item: Disconnect) -> None:
        self._conns[item.sk].dport = 0
        self._ret(item)

    def _udp_sendmsg(self, skb: SkBuff) -> None:
        cb: Any = skb.cb
        conn = self._conns[cb.sk]
        payload = skb.head[skb.data :] + self.net.pool.gather(skb.frags)
        self.net.pool.free_frags(skb.frags)
        err = 0 if cb.addr in (b"", LOCALHOST) else errno.ENETUNREACH
        if cb.req:
            self._ret(cb, err)
        else:
            size = len(payload) + 256 * (skb.gso_segs or 1)
            self._up(SkCallbacks.sk_write_space, SkWriteSpace(cb.sk, size, 0))
            if err:
                self._up(SkCallbacks.sk_error_report, SkErrorReport(cb.sk, err, False))
        if err:
            return
        size = skb.gso_size or max(len(payload), 1)
        for at in range(0, max(len(payload), 1), size):
            self._udp_deliver(conn, cb, payload[at : at + size])

    def _udp_deliver(self, conn: _Conn, cb: Any, payload: bytes) -> None:
        others = self._ports.get(("udp", cb.port or conn.dport))
        if not others:
            if conn.dport:
                self._up(
                    SkCallbacks.sk_error_report, SkErrorReport(conn.sk, errno.ECONNREFUSED, False)
                )
            return
        to = DataReadyCb(others[0].sk, LOCALHOST, conn.port, LOCALHOST, others[0].port, 1, 0, 0)
        place = self.nic.put(payload) if len(payload) > 4096 else None
        up = SkBuff(b"", (place,), cb=to) if place else SkBuff(payload, cb=to)
        self._up(SkCallbacks.sk_data_ready, up)

    def _udp_ignore(self, item: object) -> None:
        """Ignore the item: a read or a shutdown means nothing to an imagined udp."""

    def _udp_close(self, item: Close) -> None:
        conn = self._conns.pop(item.sk, None)
        if conn is not None:
            self._forget("udp", conn)


SERVES: Final[dict[str, dict[AnyEntry, Handler]]] = {
    "tcp": serve(
        TransportProto,
        TransportProto.init.by(Loopback._init),
        TransportProto.bind.by(Loopback._tcp_bind),
        TransportProto.listen.by(Loopback._tcp_listen),
        TransportProto.accept.by(Loopback._tcp_accept),
        TransportProto.connect.by(Loopback._tcp_connect),
        TransportProto.disconnect.by(Loopback._tcp_disconnect),
        TransportProto.recvmsg.by(Loopback._tcp_recvmsg),
        TransportProto.shutdown.by(Loopback._tcp_shutdown),
        TransportProto.close.by(Loopback._tcp_close),
        TransportProto.setsockopt.by(Loopback._setsockopt),
        TransportProto.getsockopt.by(Loopback._getsockopt),
        without=[TransportProto.sendmsg],
    )
    | serve(Tcp, Tcp.tcp_sendmsg.by(Loopback._tcp_sendmsg), without=[Tcp.tcp_sendmsg_fastopen]),
    "udp": serve(
        TransportProto,
        TransportProto.init.by(Loopback._init),
        TransportProto.bind.by(Loopback._udp_bind),
        TransportProto.connect.by(Loopback._udp_connect),
        TransportProto.disconnect.by(Loopback._udp_disconnect),
        TransportProto.sendmsg.by(Loopback._udp_sendmsg),
        TransportProto.recvmsg.by(Loopback._udp_ignore),
        TransportProto.shutdown.by(Loopback._udp_ignore),
        TransportProto.close.by(Loopback._udp_close),
        TransportProto.setsockopt.by(Loopback._setsockopt),
        TransportProto.getsockopt.by(Loopback._getsockopt),
        without=[TransportProto.listen, TransportProto.accept],
    ),
}
"""The entries that the imagined tcp and udp take, with their functions."""
