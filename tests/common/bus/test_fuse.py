# SPDX-License-Identifier: MIT
"""Several layers in one loop (`--fuse`): what they send to each other is handed over as it is, in
order, within a budget; to all others it goes by the pipes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.common.bus.cores import StillCore

from skbus.bus import log, loop, service
from skbus.bus.ctl import ctl_call
from skbus.bus.loop import Loop
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service
from skbus.core.abi import RtCacheFlush
from skbus.core.interfaces import InetTransport, NetifReceive
from skbus.core.net import Net
from skbus.core.skbuff import SkBuff


class Hop(StillCore):
    """Passes skbs on to `to`, as often as `left` says; keeps them when there is no `to`."""

    def __init__(self, name: str, to: str = "", left: int = 1 << 30) -> None:
        super().__init__(name)
        self.to = to
        self.left = left
        self.got: list[Any] = []
        self.batches = 0
        self.entries = {
            NetifReceive.ip_rcv: self.take,
            InetTransport.rt_cache_flush: lambda _, item: self.got.append(item),
        }

    def take(self, net: Net, skb: SkBuff) -> None:
        self.got.append(skb)
        if self.to and self.left:
            self.left -= 1
            net.call_skb(self.to, NetifReceive.ip_rcv, skb, None)

    def idle(self) -> None:
        self.batches += 1

    def held(self) -> int:
        return len(self.got) if not self.to else 0


def fused(run: RunDir, *cores: Hop, neighbours: tuple[str, ...] = ()) -> tuple[Loop, list[Service]]:
    one = Loop()
    return one, [Service(core, run, neighbours=neighbours, loop=one) for core in cores]


def running(one: Loop, body: Callable[[], Any]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(one.run)
            await body()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.002)


def balance(told: Service) -> int:
    flows: Any = told.status()["conservation"]
    came = int(flows["born"]) + int(flows["received"])
    return came - sum(int(flows[k]) for k in ("sent", "consumed", "dropped", "held"))


def test_an_skb_is_handed_over_itself_and_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    a, b, c = Hop("a", "b"), Hop("b", "c"), Hop("c")
    one, services = fused(run, a, b, c, neighbours=("a", "b", "c"))

    async def body() -> None:
        skbs = [a.net.alloc_skb(b"x") for _ in range(600)]
        for skb in skbs:
            a.net.call_skb("b", NetifReceive.ip_rcv, skb, None)
        a.net.call("b", InetTransport.rt_cache_flush, RtCacheFlush(3))
        before = c.batches
        services[0].pass_once()
        assert c.got == skbs, "the same objects, in the same pass"
        assert b.got == [*skbs, RtCacheFlush(3)]
        assert c.batches == before + 1, "one batch, one turn"
        assert [balance(each) for each in services] == [0, 0, 0]
        assert (a.net.skb_sent, b.net.skb_received, b.net.skb_sent, c.net.skb_received) == (
            600,
        ) * 4
        # each has heard of the others, and of none twice
        assert [sorted(core.up) for core in (a, b, c)] == [["a", "b", "c"]] * 3

    running(one, body)


def test_two_that_never_stop_leave_the_others_their_turn(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    a, b = Hop("a", "b"), Hop("b", "a")
    one, services = fused(run, a, b)
    sink = Hop("outside")
    outside = Service(sink, run)

    async def body() -> None:
        a.net.call_skb("b", NetifReceive.ip_rcv, a.net.alloc_skb(b"x"), None)
        assert services[0].pass_once(), "there is more"
        assert len(a.got) + len(b.got) <= loop.TURNS
        async with trio.open_nursery() as nursery:
            await nursery.start(outside.run)
            outside.net.call("b", InetTransport.rt_cache_flush, RtCacheFlush(1))
            outside.pass_once()
            await until(lambda: RtCacheFlush(1) in b.got)
            b.net.call("outside", InetTransport.rt_cache_flush, RtCacheFlush(2))
            await until(lambda: sink.got == [RtCacheFlush(2)])
            a.left = 0
            rounds = len(a.got)
            await until(lambda: a.left == 0 and len(a.got) <= rounds + 1)
            nursery.cancel_scope.cancel()

    running(one, body)


def test_what_is_for_others_goes_by_the_pipe(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    a, b, sink = Hop("a", "b"), Hop("b", "outside"), Hop("outside")
    one, services = fused(run, a, b)
    outside = Service(sink, run)

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(outside.run)
            skbs = [a.net.alloc_skb(b"x") for _ in range(service.MAX_BATCH + 1)]
            for skb in skbs:
                a.net.call_skb("b", NetifReceive.ip_rcv, skb, None)
            services[0].pass_once()
            await until(lambda: len(sink.got) == len(skbs))
            assert [skb.id for skb in sink.got] == [skb.id for skb in skbs]
            assert sink.got[0] is not skbs[0]
            assert [balance(each) for each in (*services, outside)] == [0, 0, 0]
            nursery.cancel_scope.cancel()

    running(one, body)


def test_each_has_its_control_socket_and_its_level(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r").create()
    (run.path / "log").mkdir(exist_ok=True)
    for name in ("a", "b"):
        log.configure(name, "info", path=run.log_file(name), beside=name == "b")
    a, b = Hop("a"), Hop("b")
    one, services = fused(run, a, b)

    async def body() -> None:
        async def ask(process: str, method: str, argument: object = None) -> Any:
            return await trio.to_thread.run_sync(ctl_call, run, process, method, argument)

        told = [await ask(name, "status") for name in ("a", "b")]
        assert [each["process"] for each in told] == ["a", "b"]
        assert told[0]["pid"] == told[1]["pid"]
        assert told[0]["fused"] == told[1]["fused"] == ["a", "b"]
        await ask("b", "log_level", "debug")
        assert [await ask(name, "log_level_get") for name in ("a", "b")] == ["info", "debug"]
        assert (a.net.tracing, b.net.tracing) == (False, True)
        fds = [fd for each in services for source in each.sources for fd in source.filenos()]
        parts = [one.owner(fd) for fd in fds]
        assert [part is not None and part.ready for part in parts] == [[], []], "nobody takes them"
        for each in services:
            each.logger.debug("whispered")
            each.net.info("said", whose=each.net.name)
            each.net.trace("traced", None)
        services[0].pass_once()
        services[1].pass_once()
        lines = [run.log_file(name).read_text() for name in ("a", "b")]
        assert ["whispered" in text for text in lines] == [False, True]
        assert ["traced" in text for text in lines] == [False, True]
        assert '"whose":"a"' in lines[0]
        assert '"whose":"a"' not in lines[1]
        assert '"whose":"b"' in lines[1]

    running(one, body)


@pytest.mark.parametrize("layers", [("a",), ("a", "b")])
def test_a_loop_that_ends_closes_all(tmp_path: Path, layers: tuple[str, ...]) -> None:
    run = RunDir(tmp_path / "r").create()
    one, services = fused(run, *map(Hop, layers))

    async def body() -> None:
        services[-1].stop()

    running(one, body)
    assert one.epoll.closed
    assert one.context.closed
