# SPDX-License-Identifier: MIT
"""A model check of TCP: two cores, and between them a wire on which anything may happen.

A run is a sequence of calls at both ends, segments that arrive, are lost, copied, or arrive in any
order, segments that someone forges, and time that passes. After each step hold the invariants of
`skbustest.tcpcheck` and those of the model: each byte comes once and in order, no number
leaves the peer's window, an offered window is not taken back, nothing forged by a blind attacker
has an effect (RFC 5961). At the end both sides close, and nothing of the connection is left.

    pytest tests/services/tcp/test_model.py                 some 150 runs, always the same
    python tests/services/tcp/test_model.py 10000 [SEED]    so many, with others for each seed
"""

import sys
from collections.abc import Callable
from random import Random
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from skbus.core import uapi
from skbus.core.abi import RcvCb
from skbus.core.interfaces import TcpProtocol
from skbus.core.seq import HALF, MASK
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpOptions, parse
from skbusd.tcp.inet_hashtables import inet_ehashfn
from skbusd.tcp.sock import TcpSock
from skbustest.tcpcheck import check_tcp, not_after
from skbustest.tcphost import ACK, FIN, PSH, RST, SYN, SimApp, SimHost, TcpPair

STREAM: Final = Random(7).randbytes(1 << 17)
MSG_OOB, MSG_EOR, MSG_MORE = 1, 0x80, 0x8000
ESTABLISHED, CLOSE_WAIT = 1, 8
SYNCHRONISED: Final = frozenset((1, 4, 5, 8, 9, 11))
"""ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING"""

OPTIONS: Final = (
    (uapi.SOL_SOCKET, uapi.SO_RCVBUF, 4096),
    (uapi.SOL_SOCKET, uapi.SO_RCVBUF, 60000),
    (uapi.SOL_SOCKET, uapi.SO_SNDBUF, 20000),
    (uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 1),
    (uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 0),
    (uapi.SOL_SOCKET, uapi.SO_RCVLOWAT, 4000),
    (uapi.SOL_TCP, uapi.TCP_NODELAY, 1),
    (uapi.SOL_TCP, uapi.TCP_NODELAY, 0),
    (uapi.SOL_TCP, uapi.TCP_CORK, 1),
    (uapi.SOL_TCP, uapi.TCP_CORK, 0),
    (uapi.SOL_TCP, uapi.TCP_MAXSEG, 536),
    (uapi.SOL_TCP, uapi.TCP_KEEPIDLE, 1),
    (uapi.SOL_TCP, uapi.TCP_KEEPINTVL, 1),
    (uapi.SOL_TCP, uapi.TCP_KEEPCNT, 2),
    (uapi.SOL_TCP, uapi.TCP_LINGER2, 3),
    (uapi.SOL_TCP, uapi.TCP_LINGER2, 60),
    (uapi.SOL_TCP, uapi.TCP_WINDOW_CLAMP, 3000),
    (uapi.SOL_TCP, uapi.TCP_QUICKACK, 1),
    (uapi.SOL_TCP, uapi.TCP_QUICKACK, 0),
    (uapi.SOL_TCP, uapi.TCP_USER_TIMEOUT, 5000),
    (uapi.SOL_TCP, uapi.TCP_USER_TIMEOUT, 0),
    (uapi.SOL_TCP, uapi.TCP_NOTSENT_LOWAT, 2000),
)
"""level, option, value"""


class ModelApp(SimApp):
    """An application that checks what it gets, byte by byte."""

    sent = 0
    closed = False
    shut = False


class ModelHost(SimHost):
    """A host that checks what its applications get."""

    trusted = True
    """No handshake has been forged: the bytes can only be the peer's."""

    def sk_data_ready(self, skb: SkBuff) -> None:
        cb: Any = skb.cb
        data = self.tcp.net.skb_bytes(skb)
        at = self.apps[cb.sk].received
        same = data == STREAM[at : at + len(data)]
        assert same or not self.trusted, f"bytes {at} and on are not the peer's"
        super().sk_data_ready(skb)


class Wire(TcpPair):
    """A link on which nothing moves by itself; `flying` are the packets to each host."""

    a: ModelHost
    b: ModelHost

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a, self.b = (self.model(host) for host in (self.a, self.b))
        self.flying: dict[int, list[SkBuff]] = {id(self.a): [], id(self.b): []}
        self.resets = 0

    @staticmethod
    def model(host: SimHost) -> ModelHost:
        found = ModelHost.__new__(ModelHost)
        found.__dict__.update(host.__dict__)
        return found

    def _wire(self, host: SimHost, other: SimHost, packet: SkBuff) -> None:
        th = parse(packet.head)
        cb = packet.cb
        assert isinstance(cb, RcvCb)
        key = inet_ehashfn(cb.saddr, cb.daddr, th.source, th.dest)
        if th.flags & RST and isinstance(host.tcp.net.ehash.get(key), TcpSock):
            self.resets += 1  # and not for an old segment of a connection that has ended
        self.flying[id(other)].append(packet)

    def land(self, host: SimHost, at: int, *, keep: bool = False) -> None:
        """The packet at a place of the queue arrives."""
        queue = self.flying[id(host)]
        packet = queue[at] if keep else queue.pop(at)
        packet = packet.clone() if keep else packet
        packet.lent = False
        host.tcp.net.now = self.now
        host.tcp.rcv(TcpProtocol.tcp_v4_rcv, packet)
        self.flush()

    def sleep(self, ns: int) -> None:
        """Time passes; timers fire at both ends."""
        end = self.now + ns
        while True:
            due = [t for t in (self._next(self.a), self._next(self.b)) if t is not None]
            at = min([*due, end])
            self.now = max(self.now, at)
            for host in (self.a, self.b):
                host.tcp.net.now = self.now
                host.tcp.net.timers.run(host.tcp.net, self.now)
            self.flush()
            if self.now >= end:
                return


sides = st.sampled_from("ab")
places = st.integers(0, 30)
offsets = st.one_of(
    st.sampled_from([-1, 0, 1, 1448, -1448, 65535, 1 << 20, -(1 << 20), 1 << 30, -(1 << 30)]),
    st.integers(-100_000, 100_000),
)


class TcpModel(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.conn: dict[str, ModelApp] = {}
        self.listener: SimApp | None = None
        self.pure = True
        """Nothing has happened that lets a connection end before its time."""
        self.time = 0

    # ---- helpers ------------------------------------------------------------------------------

    def host(self, side: str) -> SimHost:
        return self.wire.a if side == "a" else self.wire.b

    def tp(self, side: str) -> TcpSock | None:
        app = self.conn.get(side)
        return self.host(side).tcp.net.socks.get(app.sk) if app else None

    def own(self, app: SimApp) -> ModelApp:
        app.__class__ = ModelApp
        assert isinstance(app, ModelApp)
        return app

    def accepted(self, app: SimApp) -> None:
        if "b" not in self.conn:
            self.conn["b"] = self.own(app)

    # ---- the beginning --------------------------------------------------------------------------

    @initialize(
        timestamps=st.booleans(),
        sack=st.booleans(),
        scaling=st.booleans(),
        isn=st.tuples(
            st.sampled_from([0xFFFF0000, 0xFFFFFFFF, 0x7FFFFFFF, 1, 0]),
            st.sampled_from([0xFFFFFFF0, 0xFFFFFFFF, 0x80000000, 7]),
        ),
        mtu=st.sampled_from([1500, 576, 9000]),
        cookies=st.sampled_from([1, 1, 2]),
        simultaneous=st.sampled_from([False, False, False, True]),
        done=st.sampled_from([True, True, True, False]),
        cong=st.sampled_from(["cubic", "reno"]),
    )
    def begin(
        self,
        timestamps: bool,
        sack: bool,
        scaling: bool,
        isn: tuple[int, int],
        mtu: int,
        cookies: int,
        simultaneous: bool,
        done: bool,
        cong: str,
    ) -> None:
        sysctl: dict[str, object] = {
            "net.ipv4.tcp_timestamps": int(timestamps),
            "net.ipv4.tcp_sack": int(sack),
            "net.ipv4.tcp_window_scaling": int(scaling),
            "net.ipv4.tcp_syncookies": cookies,
            "net.ipv4.tcp_congestion_control": cong,
        }
        self.wire = wire = Wire(isn=isn, sysctl=sysctl, mtu=mtu)
        if simultaneous:
            for host, port, peer in ((wire.a, 1111, 2222), (wire.b, 2222, 1111)):
                app = self.own(host.app())
                assert host.tcp.bind(app.sk, port) == 0
                assert not host.tcp.connect(app.sk, peer, host.peer).err
                self.conn["a" if host is wire.a else "b"] = app
        else:
            wire.b.on_accept = self.accepted
            self.listener = wire.b.listen(80)
            self.conn["a"] = self.own(wire.a.connect(80))
        wire.flush()
        if done:
            self.back_and_forth(2)

    # ---- the wire -------------------------------------------------------------------------------

    def flying(self, side: str) -> list[SkBuff]:
        return self.wire.flying[id(self.host(side))]

    @rule(side=sides, at=places)
    def arrives(self, side: str, at: int) -> None:
        """A packet arrives, perhaps out of order."""
        if queue := self.flying(side):
            self.wire.land(self.host(side), min(at, len(queue) - 1))

    @rule(side=sides, most=st.integers(1, 12))
    def arrive_in_order(self, side: str, most: int) -> None:
        """The next packets arrive."""
        for _ in range(min(most, len(self.flying(side)))):
            self.wire.land(self.host(side), 0)

    @rule(rounds=st.integers(1, 4))
    def back_and_forth(self, rounds: int) -> None:
        """Round trips without trouble."""
        for _ in range(rounds):
            for side in "ba":
                self.arrive_in_order(side, 60)

    @rule(side=sides, at=places)
    def lost(self, side: str, at: int) -> None:
        """A packet is lost."""
        if queue := self.flying(side):
            del queue[min(at, len(queue) - 1)]

    @rule(side=sides, at=places)
    def copied(self, side: str, at: int) -> None:
        """A packet arrives, and stays on the wire."""
        if queue := self.flying(side):
            self.wire.land(self.host(side), min(at, len(queue) - 1), keep=True)

    @rule(ms=st.sampled_from([1, 5, 20, 45, 210, 450, 1100, 3100, 7000]))
    def time_passes(self, ms: int) -> None:
        """Some of it; but not so much that TCP may give up."""
        if self.time + ms < 60_000:
            self.time += ms
            self.wire.sleep(ms * 1_000_000)

    # ---- calls ----------------------------------------------------------------------------------

    @rule(
        side=sides,
        size=st.sampled_from([1, 100, 536, 1448, 1449, 4000, 16000, 40000]),
        flags=st.sampled_from([0, 0, 0, MSG_MORE, MSG_EOR, MSG_OOB]),
    )
    def send(self, side: str, size: int, flags: int) -> None:
        app = self.conn.get(side)
        if app is None or app.closed or app.shut or app.state not in (ESTABLISHED, CLOSE_WAIT):
            return
        data = STREAM[app.sent : app.sent + size]
        if not data:
            return
        app.sent += len(data)
        app.queued += len(data)
        self.host(side).tcp.send(app.sk, data, flags)
        self.wire.flush()

    @rule(side=sides, sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=4))
    def bulk(self, side: str, sizes: list[int]) -> None:
        """Several writes, and what they set going arrives with a loss."""
        for size in sizes:
            self.send(side, size, 0)
        other = "b" if side == "a" else "a"
        self.arrives(other, size % 7)
        self.lost(other, size % 5)
        self.back_and_forth(2)

    @rule(side=sides)
    def stop_reading(self, side: str) -> None:
        if side in self.conn:
            self.conn[side].reading = False

    @rule(side=sides, part=st.sampled_from([1, 1000, 1 << 30]))
    def read(self, side: str, part: int) -> None:
        if app := self.conn.get(side):
            take = min(app.unread, part)
            app.unread -= take
            app.reading = part == 1 << 30
            if take and not app.closed:
                self.host(side).tcp.recvmsg(app.sk, take)
                self.wire.flush()

    @rule(side=sides, option=st.sampled_from(OPTIONS))
    def setsockopt(self, side: str, option: tuple[int, int, int]) -> None:
        app = self.conn.get(side)
        if app is not None and not app.closed:
            if option[:2] == (6, 18) and option[2]:
                self.pure = False  # a user timeout may end it
            if option == (1, 9, 1):
                self.pure = False  # keepalive may, too
            self.host(side).tcp.setsockopt(app.sk, *option)
            self.wire.flush()

    @rule(side=sides, really=st.sampled_from([False, False, True]))
    def shutdown(self, side: str, really: bool) -> None:
        app = self.conn.get(side)
        if really and app is not None and not app.closed:
            app.shut = True
            if app.state not in (ESTABLISHED, CLOSE_WAIT):
                self.pure = False
            self.host(side).tcp.shutdown(app.sk, 2)
            self.wire.flush()

    @rule(side=sides, linger=st.sampled_from([None, None, None, None, None, -1, -1, 0]))
    def close(self, side: str, linger: int | None) -> None:
        """None: not yet, after all (a run that closes at once shows little)."""
        app = self.conn.get(side)
        if linger is not None and app is not None and not app.closed:
            app.closed = True
            self.pure = False
            self.host(side).tcp.close(app.sk, app.unread, linger)
            self.wire.flush()

    @precondition(lambda self: self.listener is not None)
    @rule()
    def stop_listening(self) -> None:
        assert self.listener is not None
        if "b" not in self.conn:
            self.pure = False
        self.wire.b.tcp.close(self.listener.sk)
        self.listener = None
        self.wire.flush()

    @rule(side=sides)
    def icmp(self, side: str) -> None:
        """A soft error about something that is out (RFC 5461)."""
        tp = self.tp(side)
        if tp is not None and tp.state in SYNCHRONISED:
            self.host(side).tcp.icmp(3, 1, tp.snd_una, sport=tp.sport, dport=tp.dport)
            self.wire.flush()

    # ---- a blind attacker (RFC 5961) ------------------------------------------------------------

    def forge(self, side: str, flags: int, seq: int, ack: int, data: bytes = b"") -> None:
        """A segment in the peer's name, without timestamp or with one of now."""
        tp = self.tp(side)
        assert tp is not None
        opt = None
        if tp.tstamp_ok and not flags & RST:
            opt = TcpOptions(saw_tstamp=True, tsval=tp.ts_recent, tsecr=0)
        host = self.host(side).tcp
        host.net.now = self.wire.now
        host.arrive(flags, seq, ack, data, sport=tp.dport, dport=tp.sport, saddr=tp.daddr, opt=opt)
        self.wire.flush()

    def attacked(self, side: str) -> TcpSock | None:
        tp = self.tp(side)
        return tp if tp is not None and tp.state in SYNCHRONISED else None

    def unmoved(self, side: str, attack: Callable[[], None]) -> None:
        """What the attacker does changes neither state nor numbers nor data."""
        app, tp = self.conn[side], self.tp(side)
        assert tp is not None
        tables = self.host(side).tcp.net.ehash
        before = (tp.state, tp.rcv_nxt, tp.snd_una, app.received, app.fin, tp.ofo_bytes)
        attack()
        after = (tp.state, tp.rcv_nxt, tp.snd_una, app.received, app.fin, tp.ofo_bytes)
        assert before == after, f"a forged segment had an effect: {before} {after}"
        assert tables.get(tp.key) is tp

    @rule(side=sides, off=offsets)
    def forged_reset(self, side: str, off: int) -> None:
        """RFC 5961 3.2: only a RST with exactly the next number counts."""
        tp = self.attacked(side)
        if tp is None or off == 0 or (off == -1 and tp.fin_received):
            return
        seq = (tp.rcv_nxt + off) & MASK
        if tp.selective_acks and seq == max(
            (end for _, end in tp.selective_acks), key=lambda end: (end - tp.rcv_nxt) & MASK
        ):
            return
        self.unmoved(side, lambda: self.forge(side, RST, seq, 0))

    @rule(side=sides, off=offsets, ack=offsets)
    def forged_syn(self, side: str, off: int, ack: int) -> None:
        """RFC 5961 4.2: a SYN is answered with an ACK, and changes nothing."""
        tp = self.attacked(side)
        if tp is None:
            return
        seq = (tp.rcv_nxt + off) & MASK
        flags = SYN | ACK if ack & 1 else SYN
        self.unmoved(side, lambda: self.forge(side, flags, seq, (tp.snd_nxt + ack) & MASK))

    @rule(
        side=sides,
        off=offsets,
        ack=st.one_of(st.integers(1, HALF - 1), st.integers(-HALF, -1)),
        size=st.sampled_from([0, 1, 1000]),
        fin=st.booleans(),
    )
    def forged_ack(self, side: str, off: int, ack: int, size: int, fin: bool) -> None:
        """RFC 5961 5.2: an ACK beyond what was sent, or too far behind it, and what comes with
        it, count for nothing."""
        tp = self.attacked(side)
        if tp is None:
            return
        base = tp.snd_nxt if ack > 0 else tp.snd_una - max(tp.max_window, 1)
        number = (base + ack) & MASK
        if not_after(tp.snd_una - tp.max_window, number) and not_after(number, tp.snd_nxt):
            return
        seq = (tp.rcv_nxt + off) & MASK
        flags = ACK | (FIN if fin else 0)
        self.unmoved(side, lambda: self.forge(side, flags, seq, number, bytes(size)))

    @rule(side=sides, off=st.integers(1, HALF - 100_000), size=st.sampled_from([0, 1, 1000]))
    def forged_data(self, side: str, off: int, size: int) -> None:
        """RFC 9293 3.10.7.4, first: what lies outside the window is dropped."""
        tp = self.attacked(side)
        if tp is None:
            return
        seq = (tp.rcv_wup + tp.rcv_wnd + off) & MASK
        self.unmoved(side, lambda: self.forge(side, ACK | PSH, seq, tp.snd_una, bytes(size)))

    @rule(side=sides, flags=st.sampled_from([ACK, SYN, RST, SYN | ACK, FIN | ACK, 0]), off=offsets)
    def forged_at_any_time(self, side: str, flags: int, off: int) -> None:
        """To a connection that is being made, or to none; what it does there is not for the
        oracle, but nothing may be left behind."""
        app = self.conn.get("a")
        if app is None or not app.addresses or self.attacked(side) is not None:
            return
        self.pure = False
        self.wire.a.trusted = self.wire.b.trusted = False
        saddr, sport, daddr, dport = (*app.addresses[:4],)
        assert isinstance(saddr, bytes)
        assert isinstance(daddr, bytes)
        assert isinstance(sport, int)
        assert isinstance(dport, int)
        if side == "b":
            saddr, sport, daddr, dport = daddr, dport, saddr, sport
        host = self.host(side).tcp
        tp = self.tp(side)
        ack = tp.snd_nxt if tp is not None else 0
        host.net.now = self.wire.now
        host.arrive(flags, off & MASK, ack + off, sport=dport, dport=sport, saddr=daddr)
        self.wire.flush()

    # ---- what must hold -------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        for host in (self.wire.a, self.wire.b):
            host.tcp.check()
            check_tcp(host.tcp.net)

    @invariant()
    def streams(self) -> None:
        """No end knows more than the other has said."""
        for side, other in (("a", "b"), ("b", "a")):
            here, there = self.conn.get(side), self.conn.get(other)
            if here is None or there is None or not self.wire.a.trusted:
                continue
            assert here.received <= there.sent
            assert not here.fin or there.shut or there.closed, "a FIN that nobody sent"
            tp, peer = self.tp(side), self.tp(other)
            if tp is None or peer is None or not self.pure:
                continue
            if tp.state in SYNCHRONISED and peer.state in SYNCHRONISED:
                assert not_after(tp.snd_una, peer.rcv_nxt), "acknowledged what has not come"
                assert not_after(peer.rcv_nxt, tp.snd_nxt), "received what was not sent"
                edge = (peer.rcv_wup + peer.rcv_wnd) & MASK
                assert not_after(tp.snd_nxt, edge), "sent beyond the window"

    @invariant()
    def unharmed(self) -> None:
        """As long as nothing has happened that may end it, it lives."""
        if self.pure:
            assert not self.wire.resets, "a RST for no reason"
            for app in self.conn.values():
                assert not app.errors, f"{app.errors} for no reason"

    # ---- the end --------------------------------------------------------------------------------

    def deliver_all(self, seconds: float) -> None:
        """The wire is good from now on."""
        end = self.wire.now + round(seconds * 1e9)
        quiet = 0
        while self.wire.now < end and quiet < 3:
            moved = True
            while moved:
                moved = False
                for side in "ab":
                    while self.flying(side):
                        self.wire.land(self.host(side), 0)
                        moved = True
            due = [t for t in map(self.wire._next, (self.wire.a, self.wire.b)) if t is not None]
            if not due:
                return
            self.wire.sleep(max(min(min(due), end) - self.wire.now, 1))

    def teardown(self) -> None:
        for side in self.conn:
            self.setsockopt(side, (uapi.SOL_TCP, uapi.TCP_CORK, 0))
            self.read(side, 1 << 30)
        self.deliver_all(400)
        for side in tuple(self.conn):
            self.read(side, 1 << 30)
        self.deliver_all(10)
        self.complete()
        for side in tuple(self.conn):
            self.conn[side].unread = 0
            self.close(side, -1)
        if self.listener is not None:
            self.stop_listening()
        self.deliver_all(4000)
        for app in (*self.wire.a.apps.values(), *self.wire.b.apps.values()):
            app.host.tcp.close(app.sk)
        self.deliver_all(4000)
        self.nothing_left()
        super().teardown()

    def complete(self) -> None:
        """All that was written has come."""
        if not self.pure or len(self.conn) < 2:
            return
        for side, other in (("a", "b"), ("b", "a")):
            here, there = self.conn[side], self.conn[other]
            assert here.received == there.sent, f"{here.received} of {there.sent} bytes came"
            assert here.fin == there.shut

    def nothing_left(self) -> None:
        for host in (self.wire.a, self.wire.b):
            host.tcp.check()
            net = host.tcp.net
            assert not net.socks, f"left: {list(net.socks.values())!r}"[:2000]
            assert not net.ehash
            assert not net.lhash
            assert not net.bhash
            assert (net.tw_count, net.orphan_count, net.ofo_skbs) == (0, 0, 0)
            assert not net.write_space
            assert not host.tcp.alloc.in_use()


def run(runs: int, seed: int | None = None) -> None:
    """So many runs; hypothesis shows the least steps that fail, where some do."""
    machine = type("TcpModel", (TcpModel,), {})
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=40,
            deadline=None,
            derandomize=seed is None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_two_tcps_and_a_bad_wire() -> None:
    run(150)


def main() -> None:
    """RUNS [SEED]: in lots, so that hypothesis's memory of what it has tried stays small."""
    runs = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    done = 0
    while done < runs:
        lot = min(250, runs - done)
        run(lot, seed * 1_000_000 + done)
        done += lot
        sys.stdout.write(f"\r{done} of {runs} runs, seed {seed}: ok")
        sys.stdout.flush()
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
