# SPDX-License-Identifier: MIT
"""TcpHost: one tcp core between an ip and a socket layer that are only outboxes. TcpPair: two of
them with an impaired link, in virtual time.

A TcpHost's own address is 10.0.0.2 and the peer's 10.0.0.9, where no others are given.
"""

import hashlib
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from random import Random
from typing import Any, Final, NamedTuple

from skbus.core import uapi
from skbus.core.abi import (
    Accept,
    Connect,
    ErrHandler,
    GetPort,
    InetdevEvent,
    ListenStart,
    RcvCb,
    ReqskQueueAdd,
    SkErrorReport,
    SkRet,
    SkStateChange,
    SkWriteSpace,
    TcpDone,
    TcpFin,
    TcpSendmsgCb,
    XmitCb,
)
from skbus.core.checksum import csum_partial, csum_tcpudp_magic, csum_tcpudp_nofold
from skbus.core.entry import serve
from skbus.core.interfaces import InetTransport, Ip, SkCallbacks, Tcp, TcpProtocol, TransportProto
from skbus.core.net import SEC
from skbus.core.seq import seq_sub
from skbus.core.skbuff import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    ETH_P_IP,
    SkBuff,
    frags_slice,
)
from skbus.core.sysctl import Sysctl
from skbus.core.uapi import IPPROTO_TCP, SOCK_STREAM, TCP_CLOSE_WAIT, TCP_ESTABLISHED
from skbus.inet.headers import ethernet, ipv4
from skbus.inet.headers.tcp import TcpHdr, TcpOptions, build, build_options, parse, parse_options
from skbus.inet.impair import Impairment
from skbusd.tcp.core import TcpCore
from skbusd.tcp.netns import TcpNet
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_states import STATE_CHANGES
from skbustest.harness import TransportHarness, small_pool
from skbustest.packets import MAC, PEER_MAC, inet_aton

US: Final = inet_aton("10.0.0.2")
PEER: Final = inet_aton("10.0.0.9")
ANY: Final = b"\0\0\0\0"
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_TOS: Final = ethernet.ETH_HLEN + 1
_TCP: Final = ethernet.ETH_HLEN + ipv4.IP_HLEN
"""Where they lie in a frame."""


class Seg(NamedTuple):
    """A segment that was handed to ip."""

    th: TcpHdr
    opt: TcpOptions
    data: bytes
    skb: SkBuff
    cb: XmitCb

    def __repr__(self) -> str:
        letters = "".join(
            c
            for c, bit in zip("FSRPAU", (FIN, SYN, RST, PSH, ACK, URG), strict=True)
            if self.th.flags & bit
        )
        th = self.th
        return f"<{letters} {th.seq}({len(self.data)}) ack {th.ack_seq} win {th.window}>"


class TcpHost(TransportHarness):
    """A tcp core that knows its address. isn: our first sequence number."""

    net: TcpNet

    def __init__(
        self,
        *,
        isn: int = 0xFFFFFF00,
        sysctl: dict[str, object] | None = None,
        addr: bytes = US,
        mtu: int = 1500,
        seed: int = 1,
    ) -> None:
        self.pool, self.alloc = small_pool()
        net = TcpNet(rand=Random(seed), pool=self.pool, sysctl=Sysctl(sysctl))
        net.state_changes = STATE_CHANGES
        net.isn = lambda saddr, daddr, sport, dport: isn
        super().__init__(TcpCore(net), addr, mtu)
        self.call(
            InetTransport.inetdev_event, InetdevEvent(2, "eth0", addr, 24, ANY, mtu, 0, 65536, True)
        )
        net.outbox.clear()

    # ---- the socket layer -----------------------------------------------------------------

    def socket(self, sk: int) -> TcpSock:
        """socket(2)"""
        self.init(sk, SOCK_STREAM, IPPROTO_TCP)
        return self.net.socks[sk]

    def bind(self, sk: int, port: int, addr: bytes = ANY, reuse: int = 0) -> int:
        """bind(2): an errno."""
        return self.ask(TransportProto.bind, lambda req: GetPort(sk, req, addr, port, reuse, 0)).err

    def listen(self, sk: int = 2, port: int = 80, backlog: int = 16) -> TcpSock:
        """A socket that listens."""
        tp = self.socket(sk)
        self.setsockopt(sk, uapi.SOL_SOCKET, uapi.SO_REUSEADDR, 1)
        err = self.bind(sk, port, reuse=1)
        ret = self.ask(TransportProto.listen, lambda req: ListenStart(sk, req, backlog))
        if err or ret.err:
            raise AssertionError(f"listen: {err} {ret}")
        return tp

    def connect(self, sk: int, port: int, addr: bytes = PEER) -> SkRet:
        """connect(2), with ip's answer."""
        self.req += 1
        req = self.req
        self.call(TransportProto.connect, Connect(sk, req, addr, port))
        if self.asks_route():
            self.answer_route()
        return self.answer(req)

    def send(self, sk: int, data: bytes, flags: int = 0) -> None:
        """send(2): the bytes stay with the socket layer."""
        skb = SkBuff(b"", (data,), id=1, cb=TcpSendmsgCb(sk, flags), lent=True)
        self.rcv(Tcp.tcp_sendmsg, skb)

    def accept(self, sk: int, child: int) -> None:
        """accept(2)"""
        self.call(TransportProto.accept, Accept(sk, child))

    def delivered(self) -> bytes:
        """The bytes that were handed up since the last look."""
        return b"".join(data for _, data in self.data_ready())

    def events(self) -> list[tuple[Any, ...]]:
        """The calls into the socket layer, but for data and answers."""
        skip = (SkCallbacks.sk_data_ready, SkCallbacks.sk_ret)
        box = self.net.outbox.get("socket", [])
        self.net.outbox["socket"] = [(e, item) for e, item in box if e in skip]
        return [item for e, item in box if e not in skip]

    # ---- ip ---------------------------------------------------------------------------------

    def sent(self) -> list[Seg]:
        """The segments handed to ip since the last look; their checksums are verified."""
        return [self.parse_sent(skb) for skb in self.out("ip", Ip.ip_queue_xmit)]

    def parse_sent(self, skb: SkBuff) -> Seg:
        """The Seg of an skb handed to ip; its checksum's seed is verified."""
        cb = skb.cb
        if not isinstance(cb, XmitCb) or skb.ip_summed != CHECKSUM_PARTIAL or skb.csum_start:
            raise AssertionError(f"not a packet for ip: {skb!r} {cb!r}")
        th = parse(skb.head)
        data = self.net.pool.gather(skb.frags)
        if len(data) != skb.data_len or skb.len != len(skb.head) + len(data):
            raise AssertionError(f"{len(data)} bytes of data, data_len {skb.data_len}")
        seed = csum_tcpudp_nofold(cb.saddr, cb.daddr, skb.len, 6)
        if th.check != seed:
            raise AssertionError(f"seed of the checksum is {th.check:#x}, not {seed:#x}")
        opt = parse_options(skb.head[20 : th.doff], bool(th.flags & SYN))
        return Seg(th, opt, data, skb, cb)

    def one(self) -> Seg:
        """The only segment sent since the last look."""
        (seg,) = self.sent()
        return seg

    def arrive(
        self,
        flags: int,
        seq: int,
        ack: int = 0,
        data: bytes = b"",
        *,
        win: int = 65535,
        sport: int = 5000,
        dport: int = 80,
        opt: TcpOptions | bytes | None = None,
        urg: int = 0,
        saddr: bytes = PEER,
        csum: bool | None = None,
        gso_size: int = 0,
        tos: int = 0,
    ) -> None:
        """A segment comes from ip. csum: None for verified by the device, else right or wrong."""
        raw = opt if isinstance(opt, bytes) else build_options(opt) if opt else b""
        mask = 0xFFFFFFFF
        header = build(sport, dport, seq & mask, ack & mask, flags, win, raw, urg)
        if csum is not None:
            total = csum_partial(header + data)
            check = csum_tcpudp_magic(saddr, self.us, len(header) + len(data), 6, total)
            check ^= 0 if csum else 0x1234
            header = header[:16] + check.to_bytes(2, "big") + header[18:]
        skb = SkBuff(bytes(20) + header, (data,) if data else (), id=1, data=20)
        skb.network_header, skb.transport_header, skb.skb_iif = 0, 20, 2
        skb.ip_summed = CHECKSUM_UNNECESSARY if csum is None else 0
        skb.cb = RcvCb(saddr, self.us, tos, 64, self.mtu)
        if gso_size:
            skb.gso_size = gso_size
            skb.gso_segs = -(-len(data) // gso_size)
        self.rcv(TcpProtocol.tcp_v4_rcv, skb)

    def icmp(
        self, kind: int, code: int, seq: int, *, info: int = 0, sport: int = 80, dport: int = 5000
    ) -> None:
        """An ICMP error about a segment of ours."""
        quoted = build(sport, dport, seq & 0xFFFFFFFF, 0, ACK, 0)[:8]
        self.call(TcpProtocol.tcp_v4_err, ErrHandler(kind, code, info, PEER, self.us, PEER, quoted))


class Conn:
    """An established connection of a TcpHost, with the peer played by the test.

    `rcv` is the peer's next number and `snd` ours, as the test has counted them. Segments are
    given and checked relative to the first data byte of each side. syn_flags, ack_flags, ack_tos:
    further bits of the peer's SYN and of the ACK of our SYN-ACK (ECN).
    """

    def __init__(
        self,
        host: TcpHost,
        *,
        active: bool = False,
        irs: int = 0xFFFFFFF0,
        mss: int = 1460,
        wscale: int | None = 7,
        sack: bool = True,
        ts: bool = False,
        win: int = 65535,
        sk: int = 2,
        port: int = 80,
        rport: int = 5000,
        accept: bool = True,
        rtt: float = 0.1,
        syn_flags: int = 0,
        ack_flags: int = 0,
        ack_tos: int = 0,
    ) -> None:
        self.host = host
        self.ts = ts
        self.tsval = 1000
        self.tsecr = 0
        self.win = win
        self.port, self.rport = port, rport
        opt = TcpOptions(mss=mss, wscale=wscale, sack_ok=sack, saw_tstamp=ts, tsval=self.tsval)
        if active:
            host.socket(sk)
            ret = host.connect(sk, rport)
            if ret.err or not isinstance(ret.val, tuple):
                raise AssertionError(f"connect: {ret}")
            self.port = int(ret.val[1])
            self.syn = host.one()
            opt.tsecr = self.syn.opt.tsval
            host.run_for(rtt)
            self.irs, self.iss = irs, self.syn.th.seq
            host.arrive(
                SYN | ACK, irs, self.iss + 1, sport=rport, dport=self.port, opt=opt, win=65535
            )
            self.sk = sk
            self.ack = host.one()
        else:
            if sk not in host.net.socks:
                host.listen(sk, port)
            self.irs = irs
            host.arrive(SYN | syn_flags, irs, sport=rport, dport=port, opt=opt, win=65535)
            self.syn = host.one()
            self.iss = self.syn.th.seq
            self.tsecr = self.syn.opt.tsval
            self.sk = 0
            host.run_for(rtt)
            self.rcv(ACK | ack_flags, tos=ack_tos)
            for item in host.events():
                if isinstance(item, ReqskQueueAdd):
                    self.sk = item.child
            if accept:
                host.accept(sk, self.sk)
        host.events()
        self.tsecr = self.syn.opt.tsval

    @property
    def tp(self) -> TcpSock:
        """The control block."""
        return self.host.net.socks[self.sk]

    def rcv(
        self,
        flags: int,
        seq: int = 0,
        ack: int = 0,
        data: bytes = b"",
        *,
        win: int | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        tsecr: int | None = None,
        **kwargs: Any,
    ) -> None:
        """A segment of the peer arrives; seq, ack and sacks relative to the first data byte."""
        blocks = tuple(
            ((self.iss + 1 + a) & 0xFFFFFFFF, (self.iss + 1 + b) & 0xFFFFFFFF) for a, b in sacks
        )
        opt = TcpOptions(sacks=blocks)
        if self.ts:
            opt.saw_tstamp, opt.tsval = True, self.tsval
            opt.tsecr = self.tsecr if tsecr is None else tsecr
        self.host.arrive(
            flags,
            self.irs + 1 + seq,
            self.iss + 1 + ack if flags & ACK else 0,
            data,
            win=self.win if win is None else win,
            sport=self.rport,
            dport=self.port,
            opt=opt if self.ts or sacks else None,
            **kwargs,
        )

    def sent(self) -> list[tuple[str, int, int, int]]:
        """The segments that we sent: (flags, seq, length, ack), numbers relative, flags as
        letters."""
        out = []
        for seg in self.host.sent():
            letters = "".join(
                c
                for c, bit in zip("FSRPAU", (FIN, SYN, RST, PSH, ACK, URG), strict=True)
                if seg.th.flags & bit
            )
            self.tsecr = seg.opt.tsval if seg.opt.saw_tstamp else self.tsecr
            seq = seq_sub(seg.th.seq, self.iss + 1)
            ack = seq_sub(seg.th.ack_seq, self.irs + 1) if "A" in letters else 0
            out.append((letters, seq, len(seg.data), ack))
        return out

    def send(self, size: int, flags: int = 0) -> None:
        """The application writes `size` bytes."""
        self.host.send(self.sk, bytes(i & 0xFF for i in range(size)), flags)

    def mib(self, name: str) -> int:
        """A counter."""
        return self.host.net.mib[name]


# ---- two hosts -------------------------------------------------------------------------------


class SimApp:
    """One socket, in place of its application and the socket layer."""

    def __init__(self, host: "SimHost", sk: int) -> None:
        self.host = host
        self.sk = sk
        self.state = 0
        self.received = 0
        self.hash = hashlib.sha256()
        self.fin = False
        self.told_done = False
        self.errors: list[int] = []
        self.children: list[SimApp] = []
        self.sndbuf = 87040
        self.queued = 0
        self.pending = b""
        self.close_when_sent = False
        self.reading = True
        self.unread = 0
        self.addresses: tuple[object, ...] = ()

    @property
    def done(self) -> bool:
        """Has tcp ended the socket, by TcpDone or by forgetting its number?"""
        return self.told_done or self.sk not in self.host.tcp.net.socks

    def send(self, data: bytes, *, then_close: bool = False) -> None:
        """Write all data, as the buffer allows; then close the socket, if wanted."""
        self.pending += data
        self.close_when_sent = then_close
        self.pump()

    def pump(self) -> None:
        """Write as much as the send buffer has room for, on a connection."""
        if self.state not in (TCP_ESTABLISHED, TCP_CLOSE_WAIT):
            return
        at = 0
        while at < len(self.pending) and self.queued < self.sndbuf:
            chunk = self.pending[at : at + 65536]
            at += len(chunk)
            self.queued += len(chunk)
            self.host.tcp.send(self.sk, chunk)
        if at:
            self.pending = self.pending[at:]
        if not self.pending and self.close_when_sent:
            self.close_when_sent = False
            self.close()

    def close(self) -> None:
        """close(2)"""
        self.host.tcp.close(self.sk, self.unread)


class SimHost:
    """A TcpHost with applications on it, one end of a TcpPair."""

    def __init__(self, addr: bytes, peer: bytes, **kwargs: Any) -> None:
        self.tcp = TcpHost(addr=addr, **kwargs)
        self.peer = peer
        self.apps: dict[int, SimApp] = {}
        self.on_accept: Callable[[SimApp], None] = lambda app: None
        self.on_fin: Callable[[SimApp], None] = lambda app: None
        self._sk = 0

    def app(self) -> SimApp:
        """A new socket."""
        self._sk += 2
        self.tcp.socket(self._sk)
        app = self.apps[self._sk] = SimApp(self, self._sk)
        return app

    def listen(self, port: int, backlog: int = 64) -> SimApp:
        """A listener."""
        self._sk += 2
        self.tcp.listen(self._sk, port, backlog)
        app = self.apps[self._sk] = SimApp(self, self._sk)
        return app

    def connect(self, port: int) -> SimApp:
        """A connection to the other host."""
        app = self.app()
        ret = self.tcp.connect(app.sk, port, self.peer)
        if ret.err:
            raise AssertionError(f"connect: {ret}")
        return app

    def events(self) -> None:
        """Serve tcp's calls, as a socket layer does."""
        while self.tcp.carry("socket", SIM_SERVES, self):
            pass

    def sk_data_ready(self, skb: SkBuff) -> None:
        """Bytes have come; the application reads them, unless it has stopped."""
        cb: Any = skb.cb
        app = self.apps[cb.sk]
        data = self.tcp.net.skb_bytes(skb)
        app.received += len(data)
        app.hash.update(data)
        if app.reading:
            self.tcp.recvmsg(app.sk, len(data))
        else:
            app.unread += len(data)

    def _state(self, item: SkStateChange) -> None:
        if app := self.apps.get(item.sk):
            app.state = item.state
            app.addresses = item[2:]
            app.pump()

    def _child(self, item: ReqskQueueAdd) -> None:
        if app := self.apps.get(item.sk):
            child = self.apps[item.child] = SimApp(self, item.child)
            child.state = TCP_ESTABLISHED
            app.children.append(child)
            self.tcp.accept(app.sk, item.child)
            self.on_accept(child)

    def _write_space(self, item: SkWriteSpace) -> None:
        if app := self.apps.get(item.sk):
            app.queued -= item.acked
            app.sndbuf = max(app.sndbuf, item.sndbuf)
            app.pump()

    def _error(self, item: SkErrorReport) -> None:
        if app := self.apps.get(item.sk):
            app.errors.append(item.err)

    def _fin(self, item: TcpFin) -> None:
        if app := self.apps.get(item.sk):
            app.fin = True
            self.on_fin(app)

    def _done(self, item: TcpDone) -> None:
        if app := self.apps.get(item.sk):
            app.told_done = True

    def _ignore(self, item: object) -> None:
        """Ignore the item: an answer, or a call that no application of a test needs."""


SIM_SERVES: Final = serve(
    SkCallbacks,
    SkCallbacks.sk_ret.by(SimHost._ignore),
    SkCallbacks.sk_state_change.by(SimHost._state),
    SkCallbacks.sk_data_ready.by(lambda host, skb: host.sk_data_ready(skb)),
    SkCallbacks.sk_write_space.by(SimHost._write_space),
    SkCallbacks.sk_error_report.by(SimHost._error),
    SkCallbacks.sock_queue_err_skb.by(SimHost._ignore),
    SkCallbacks.inet_csk_reqsk_queue_add.by(SimHost._child),
    SkCallbacks.tcp_rcvq_ask.by(SimHost._ignore),
    SkCallbacks.tcp_fin.by(SimHost._fin),
    SkCallbacks.tcp_done.by(SimHost._done),
    SkCallbacks.proto_unregister.by(SimHost._ignore),
)
"""The functions of a SimHost that take tcp's calls into the socket layer."""


class TcpPair:
    """Two hosts and a link, impaired by `skbus.inet.impair`; the default is a delay of 0.5 ms. A
    super-segment is cut on the link, as by nic."""

    def __init__(
        self,
        *,
        seed: int = 1,
        isn: tuple[int, int] = (0xFFFF0000, 0xFFFFFFF0),
        sysctl: dict[str, object] | None = None,
        mtu: int = 1500,
        **impairment: float | str,
    ) -> None:
        a, b = inet_aton("10.0.0.1"), inet_aton("10.0.0.2")
        self.a = SimHost(a, b, isn=isn[0], seed=seed, sysctl=sysctl, mtu=mtu)
        self.b = SimHost(b, a, isn=isn[1], seed=seed + 1, sysctl=sysctl, mtu=mtu)
        self.seed = seed
        self.impair(**impairment)
        self.now = self.a.tcp.net.now
        self._heap: list[tuple[int, int, SimHost, SkBuff]] = []
        self._n = 0
        self.packets = 0

    def impair(self, **impairment: float | str) -> None:
        """Change the link's impairment from now on."""
        options = {"delay": "0.5ms", **impairment, "seed": self.seed}
        self.links = {
            id(host): Impairment.of(options, direction)
            for host, direction in ((self.a, "there"), (self.b, "back"))
        }
        """Each way of the link, by its sender."""

    @property
    def lost(self) -> int:
        """Packets that the link has lost since it was last changed."""
        return sum(link.lost + link.overflowed for link in self.links.values())

    def flush(self) -> None:
        """Carry the calls into other layers, until none is left."""
        again = True
        while again:
            again = False
            for host, other in ((self.a, self.b), (self.b, self.a)):
                host.tcp.core.idle()
                host.events()
                for entry, item in host.tcp.out("ip"):
                    again = True
                    if entry is Ip.ip_queue_xmit:
                        self._transmit(host, other, item)

    def _transmit(self, host: SimHost, other: SimHost, skb: SkBuff) -> None:
        seg = host.tcp.parse_sent(skb)
        size = skb.gso_size or max(len(seg.data), 1)
        for at in range(0, len(seg.data) or 1, size):
            part = seg.data[at : at + size]
            last = at + size >= len(seg.data)
            flags = seg.th.flags if last else seg.th.flags & ~(PSH | FIN)
            header = build(
                seg.th.source,
                seg.th.dest,
                (seg.th.seq + at) & 0xFFFFFFFF,
                seg.th.ack_seq,
                flags,
                seg.th.window,
                skb.head[20 : seg.th.doff],
                seg.th.urg_ptr,
            )
            packet = SkBuff(header, frags_slice((part,), 0, len(part)), id=skb.id)
            packet.cb = RcvCb(seg.cb.saddr, seg.cb.daddr, seg.cb.tos, 64, host.tcp.mtu)
            packet.ip_summed = CHECKSUM_UNNECESSARY
            self._wire(host, other, packet)

    def _wire(self, host: SimHost, other: SimHost, packet: SkBuff) -> None:
        self.packets += 1
        frame = self._frame(host, packet)
        for when, passed in self.links[id(host)].admit(self.now, frame):
            arrived = packet.clone()
            if passed is not frame:
                arrived.cb = self._cb(packet)._replace(tos=passed[_TOS])
                if passed[_TCP:] != frame[_TCP:]:
                    arrived.head, arrived.frags = passed[_TCP:], ()
                    arrived.ip_summed = CHECKSUM_NONE
            self._n += 1
            heappush(self._heap, (when, self._n, other, arrived))

    @staticmethod
    def _cb(packet: SkBuff) -> RcvCb:
        if not isinstance(packet.cb, RcvCb):
            raise AssertionError(f"not a packet of the link: {packet.cb!r}")
        return packet.cb

    def _frame(self, host: SimHost, packet: SkBuff) -> bytes:
        """The packet as it would be on a cable, but for its TCP checksum."""
        cb = self._cb(packet)
        header = ipv4.build(cb.saddr, cb.daddr, IPPROTO_TCP, ipv4.IP_HLEN + packet.len, tos=cb.tos)
        link = ethernet.build(MAC, PEER_MAC, ETH_P_IP)
        return link + header + packet.head + host.tcp.net.pool.gather(packet.frags)

    def run(
        self, until: Callable[[], bool] | None = None, *, seconds: float = 600, slack: float = 0
    ) -> float:
        """Let time pass until `until` holds; returns the seconds. AssertionError where it never
        does."""
        begin = self.now
        end = begin + round(seconds * SEC)
        self.flush()
        while until is None or not until():
            due = [t for t in (self._next(self.a), self._next(self.b)) if t is not None]
            if self._heap:
                due.append(self._heap[0][0])
            at = min(due, default=end + 1)
            if at > end:
                if until is not None:
                    raise AssertionError(f"not after {seconds} s: {self.describe()}")
                at = end
            self.now = max(self.now, at)
            for host in (self.a, self.b):
                host.tcp.net.now = self.now
                host.tcp.net.timers.run(host.tcp.net, self.now)
            while self._heap and self._heap[0][0] <= self.now:
                _, _, host, packet = heappop(self._heap)
                packet.lent = False
                host.tcp.rcv(TcpProtocol.tcp_v4_rcv, packet)
            self.flush()
            if self.now >= end and until is None:
                break
        return (self.now - begin) / SEC

    @staticmethod
    def _next(host: SimHost) -> int | None:
        return host.tcp.net.timers.next_expiry()

    def describe(self) -> str:
        """The state of both ends, for messages of failure."""
        out = []
        for host in (self.a, self.b):
            out += [f"{tp!r}"[:1500] for tp in host.tcp.net.socks.values()]
        return "\n".join(out)

    def check(self) -> None:
        """Conservation at both ends."""
        self.a.tcp.check()
        self.b.tcp.check()

    def counters(self) -> dict[str, tuple[int, int]]:
        """The counters of both ends."""
        a, b = self.a.tcp.net.mib, self.b.tcp.net.mib
        return {name: (a[name], b[name]) for name in a if a[name] or b[name]}


def payload(seed: int, size: int) -> bytes:
    """Bytes that do not repeat."""
    return Random(seed).randbytes(size)


def digest(data: bytes | Iterable[bytes]) -> str:
    """SHA-256 of bytes, as SimApp keeps it."""
    h = hashlib.sha256()
    for part in (data,) if isinstance(data, bytes) else data:
        h.update(part)
    return h.hexdigest()
