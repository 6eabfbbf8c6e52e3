# SPDX-License-Identifier: MIT
"""Harness: one core alone, driven as by its shell, for tests that look at its outbox.

For tests of a layer: hand in entries and skbs, let time pass, see what came out. After every
call the conservation of skbs is checked. The neighbours of the core are outboxes, or imitations.
An imitation is a table of `skbus.core.entry.serve`, like the real process's; `carry` gives it the
calls.

`TransportHarness` adds the neighbours of a transport: a socket layer above, which calls by
`TransportProto`, and an ip below, which answers questions for routes.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from skbus.core.abi import (
    Close,
    DataReadyCb,
    Disconnect,
    Getsockopt,
    InitSock,
    IpRouteOutputKey,
    Recvmsg,
    RouteRet,
    Setsockopt,
    Shutdown,
    SkRet,
)
from skbus.core.entry import AnyEntry, Entry, Handler, Request, SkbEntry, T
from skbus.core.interfaces import InetTransport, Ip, SkCallbacks, TransportProto
from skbus.core.net import SEC, Core
from skbus.core.pool import Allocator, Pool
from skbus.core.skbuff import SkBuff

R = TypeVar("R")


def small_pool(number: int = 7) -> tuple[Pool, Allocator]:
    """A pool with one region of 4 MB, in plain memory."""
    pool = Pool()
    alloc = Allocator.format(number, bytearray(1 << 22), [(2048, 512), (66560, 32)])
    pool.regions[number] = alloc
    return pool, alloc


class Harness:
    """Drives `core` from a given time on. Its clock stands until `run_for` or `advance`."""

    def __init__(self, core: Core, now: int = 1000 * SEC) -> None:
        self.core = core
        self.net = core.net
        self.net.now = now
        core.start()

    def call(self, entry: Entry[T], item: T) -> None:
        """A call without payload comes in."""
        self.deliver(entry, item)

    def rcv(self, entry: SkbEntry[Any], skb: SkBuff) -> None:
        """An skb comes in."""
        self.deliver(entry, skb)

    def deliver(self, entry: AnyEntry, item: Any) -> None:
        """A call or an skb comes in, and is the last of its batch."""
        self.enter(entry, item)
        self.core.idle()
        self.check()

    def enter(self, entry: AnyEntry, item: Any) -> None:
        """A call or an skb comes in, and others of the same batch follow."""
        if isinstance(item, SkBuff):
            self.net.skb_received += 1
        self.core.entries[entry](self.net, item)

    def conserved(self) -> bool:
        """Is every skb accounted for, and each drop by its reason?"""
        net = self.net
        got = net.skb_born + net.skb_received
        gone = net.skb_sent + net.skb_consumed + net.skb_dropped
        return got == gone + self.core.held() and net.skb_dropped == sum(net.drops.values())

    def check(self) -> None:
        """Conservation: AssertionError where an skb is neither here nor there."""
        if not self.conserved():
            net = self.net
            got = net.skb_born + net.skb_received
            gone = net.skb_sent + net.skb_consumed + net.skb_dropped
            held = self.core.held()
            raise AssertionError(f"{got} skbs in, {gone} out, {held} held: {net.drops}")

    def run_for(self, seconds: float) -> None:
        """Let time pass, firing timers on the way."""
        self.advance(round(seconds * SEC))

    def advance(self, ns: int) -> None:
        """The same in ns."""
        end = self.net.now + ns
        while True:
            due = self.net.timers.next_expiry()
            if due is None or due > end:
                break
            self.net.now = max(self.net.now, due)
            self.net.timers.run(self.net, self.net.now)
            self.core.idle()
            self.check()
        self.net.now = end

    @overload
    def out(self, process: str) -> list[tuple[AnyEntry, Any]]: ...

    @overload
    def out(self, process: str, entry: Entry[T]) -> list[T]: ...

    @overload
    def out(self, process: str, entry: SkbEntry[Any]) -> list[Any]: ...

    def out(self, process: str, entry: AnyEntry | None = None) -> list[Any]:
        """The calls into another process since the last look: the items of one entry, or
        (entry, item) of all."""
        box = self.net.outbox.pop(process, [])
        if entry is None:
            return box
        rest = [(e, item) for e, item in box if e is not entry]
        if rest:
            self.net.outbox[process] = rest
        return [item for e, item in box if e is entry]

    def carry(self, process: str, serves: Mapping[AnyEntry, Handler], by: object) -> bool:
        """Give the calls into another process to its imitation, as `function(by, item)` of the
        function that serves the entry. Was there any call?"""
        batch = self.out(process)
        for entry, item in batch:
            serves[entry](by, item)
        return bool(batch)

    def dropped(self, reason: str) -> int:
        """How many skbs were dropped for a reason, without its prefix."""
        return self.net.drops.get("SKB_DROP_REASON_" + reason, 0)


class TransportHarness(Harness):
    """A core that serves `TransportProto`, between a socket layer and an ip that are outboxes.

    us, mtu: our address, and the MTU of the routes in ip's answers.
    """

    def __init__(self, core: Core, us: bytes, mtu: int = 1500) -> None:
        super().__init__(core)
        self.us = us
        self.mtu = mtu
        self.req = 0

    # ---- the socket layer ------------------------------------------------------------------

    def ask(self, entry: Request[T, R], make: Callable[[int], T]) -> SkRet:
        """A request that is answered at once. make: its item, from the request's number."""
        self.req += 1
        req = self.req
        self.call(entry, make(req))
        return self.answer(req)

    def answer(self, req: int) -> SkRet:
        """The answer to a request, which must be there. Other answers are forgotten."""
        for item in self.out("socket", SkCallbacks.sk_ret):
            if item.req == req:
                return SkRet._make(item)
        raise AssertionError(f"no answer to request {req}")

    def init(self, sk: int, type: int, protocol: int) -> None:
        """socket(2)"""
        self.call(TransportProto.init, InitSock(sk, 2, protocol, type))

    def setsockopt(self, sk: int, level: int, name: int, value: int | bytes) -> int:
        """setsockopt(2): an errno."""
        raw = value if isinstance(value, bytes) else value.to_bytes(4, "little", signed=True)
        return self.ask(
            TransportProto.setsockopt, lambda req: Setsockopt(sk, req, level, name, raw)
        ).err

    def getsockopt(self, sk: int, level: int, name: int, optlen: int = 0) -> Any:
        """getsockopt(2): the value, an int where it is four bytes; -errno."""
        ret = self.ask(
            TransportProto.getsockopt, lambda req: Getsockopt(sk, req, level, name, optlen)
        )
        if ret.err:
            return -ret.err
        val = ret.val
        if isinstance(val, bytes) and len(val) == 4:
            return int.from_bytes(val, "little", signed=True)
        return val

    def recvmsg(self, sk: int, copied: int) -> None:
        """The application took bytes."""
        self.call(TransportProto.recvmsg, Recvmsg(sk, copied))

    def shutdown(self, sk: int, how: int = 2) -> None:
        """shutdown(2)"""
        self.call(TransportProto.shutdown, Shutdown(sk, how))

    def close(self, sk: int, unread: int = 0, linger: int = -1) -> None:
        """close(2)"""
        self.call(TransportProto.close, Close(sk, unread, linger))

    def disconnect(self, sk: int) -> int:
        """connect(2) to AF_UNSPEC: an errno."""
        return self.ask(TransportProto.disconnect, lambda req: Disconnect(sk, req)).err

    def data_ready(self) -> list[tuple[DataReadyCb, bytes]]:
        """The data handed up since the last look: cb (socket, sender) and payload."""
        found = []
        for skb in self.out("socket", SkCallbacks.sk_data_ready):
            if not isinstance(skb.cb, DataReadyCb):
                raise AssertionError(f"cb is {skb.cb!r}")
            found.append((skb.cb, self.net.skb_bytes(skb)))
        return found

    # ---- ip --------------------------------------------------------------------------------

    def asks_route(self) -> bool:
        """Has the transport asked ip for a route?"""
        return any(e is Ip.ip_route_output_key for e, _ in self.net.outbox.get("ip", ()))

    def answer_route(
        self,
        *,
        err: int = 0,
        rt_type: int = 1,
        mtu: int = 0,
        saddr: bytes = b"",
        genid: int = 1,
    ) -> list[IpRouteOutputKey]:
        """ip answers all questions for routes; returns the questions. mtu, saddr: given in place
        of this host's."""
        if not self.asks_route():
            raise AssertionError("ip was not asked for a route")
        asked = [IpRouteOutputKey._make(i) for i in self.out("ip", Ip.ip_route_output_key)]
        for ask in asked:
            source = ask.saddr or saddr or self.us
            answer = RouteRet(ask.req, err, source, ask.daddr, 2, mtu or self.mtu, rt_type, genid)
            self.call(InetTransport.ip_route_output_ret, answer)
        return asked
