# SPDX-License-Identifier: MIT
"""The shell over real ZeroMQ pipes: delivery, full pipes, garbage, control, restarts."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
import zmq
from tests.common.bus.cores import StillCore

from skbus.bus.ctl import ControlError, ctl_call
from skbus.bus.pipe import Outlet
from skbus.bus.rundir import RunDir
from skbus.bus.service import Service, boot_epoch
from skbus.core.abi import RtCacheFlush
from skbus.core.interfaces import InetTransport, NetifReceive
from skbus.core.net import Net
from skbus.core.skbuff import SkBuff


class Sink(StillCore):
    """Takes skbs and calls, and lets a test wait for them."""

    def __init__(self, name: str, epoch: int = 1) -> None:
        super().__init__(name, epoch)
        self.got: list[Any] = []
        self.entries = {
            NetifReceive.ip_rcv: self.take,
            InetTransport.rt_cache_flush: self.flush,
        }

    def take(self, net: Net, skb: SkBuff) -> None:
        self.got.append(skb.id)
        net.consume_skb(skb)

    def flush(self, net: Net, item: RtCacheFlush) -> None:
        self.got.append(item)

    def status(self) -> dict[str, object]:
        return {"got": len(self.got)}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.002)


def run_with(
    tmp_path: Path, body: Callable[[RunDir, Service, Service, trio.Nursery], Awaitable[None]]
) -> None:
    """Two services, `left` and `right`, over ipc in a run directory."""
    run = RunDir(tmp_path / "r").create()
    left = Service(Sink("left"), run, neighbours=("right",))
    right = Service(Sink("right"), run, neighbours=("left",))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(left.run)
            await nursery.start(right.run)
            await body(run, left, right, nursery)
            nursery.cancel_scope.cancel()

    trio.run(main)


def send(service: Service, process: str, n: int) -> None:
    for _ in range(n):
        service.net.call_skb(process, NetifReceive.ip_rcv, service.net.alloc_skb(b"x"), None)
    service.pass_once()


def test_batches_arrive_in_order_and_neighbours_say_hello(tmp_path: Path) -> None:
    async def body(run: RunDir, left: Service, right: Service, _: trio.Nursery) -> None:
        send(left, "right", 600)
        left.net.call("right", InetTransport.rt_cache_flush, RtCacheFlush(3))
        send(left, "right", 5)
        got = right.core.got  # type: ignore[attr-defined]
        await until(lambda: len(got) == 606)
        assert got[600] == RtCacheFlush(3)
        ids = got[:600] + got[601:]
        assert ids == sorted(ids)
        assert right.core.up == ["left"]  # type: ignore[attr-defined]
        await until(lambda: left.core.up == ["right"])  # type: ignore[attr-defined]
        assert left.net.skb_sent == right.net.skb_received == right.net.skb_consumed == 605

    run_with(tmp_path, body)


@pytest.mark.interpreted
def test_a_full_pipe_drops_packets_with_a_reason_and_keeps_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outlet, "send", lambda *_: False)

    async def body(run: RunDir, left: Service, right: Service, _: trio.Nursery) -> None:
        left.net.call("right", InetTransport.rt_cache_flush, RtCacheFlush(9))
        send(left, "right", 10)
        assert left.net.drops == {"SKB_DROP_REASON_SKBUS_PIPE_FULL": 10}
        assert left.net.skb_born == left.net.skb_dropped == 10
        monkeypatch.undo()
        await until(lambda: right.core.got == [RtCacheFlush(9)])  # type: ignore[attr-defined]

    run_with(tmp_path, body)


def test_garbage_in_the_inbox_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    async def body(run: RunDir, left: Service, right: Service, _: trio.Nursery) -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.connect(run.endpoint("right"))
            push.send(b"one frame, no message")
            push.send_multipart([b"\xff\xff", b"no msgpack"])
            push.send_multipart([msgpack.packb([99, "left", 1, []]), b""])
            push.send_multipart([b"a", b"b", b"c"])
            await until(lambda: right.inbox.refused == 4)
        send(left, "right", 1)
        await until(lambda: right.net.skb_consumed == 1)
        assert right.net.drops == {"SKB_DROP_REASON_SKBUS_BAD_MESSAGE": 4}

    run_with(tmp_path, body)


def test_the_control_socket_answers_and_refuses(tmp_path: Path) -> None:
    async def body(run: RunDir, left: Service, right: Service, _: trio.Nursery) -> None:
        async def ask(method: str, argument: object = None) -> Any:
            return await trio.to_thread.run_sync(ctl_call, run, "right", method, argument)

        assert await ask("ping") == {"process": "right", "epoch": 1, "missing": []}
        status = await ask("status")
        assert status["process"] == "right"
        assert set(status["conservation"]) == {
            "born", "received", "sent", "consumed", "dropped", "held"
        }  # fmt: skip
        assert await ask("sysctl_set", ["net.ipv4.tcp_sack", 0]) == 0
        assert right.net.sysctl["net.ipv4.tcp_sack"] == 0
        with pytest.raises(ControlError, match="outside 0"):
            await ask("sysctl_set", ["net.ipv4.tcp_sack", 7])
        with pytest.raises(ControlError, match="ping, status"):
            await ask("no_such_method")
        with pytest.raises(ControlError, match="it has not started"):
            await trio.to_thread.run_sync(ctl_call, run, "nobody", "ping", None, 0.05)

    run_with(tmp_path, body)


def test_calls_for_a_process_that_is_not_there_yet_wait_for_it(tmp_path: Path) -> None:
    async def body(run: RunDir, left: Service, right: Service, nursery: trio.Nursery) -> None:
        left.net.call("late", InetTransport.rt_cache_flush, RtCacheFlush(1))
        left.pass_once()
        late = Service(Sink("late"), run)
        await nursery.start(late.run)
        await until(lambda: late.core.got == [RtCacheFlush(1)])  # type: ignore[attr-defined]

    run_with(tmp_path, body)


def test_an_epoch_is_one_more_than_in_the_last_life(tmp_path: Path) -> None:
    assert [boot_epoch(tmp_path, "tcp") for _ in range(3)] == [1, 2, 3]
    (tmp_path / "tcp.epoch").write_text("rubbish")
    assert boot_epoch(tmp_path, "tcp") == 1
