# SPDX-License-Identifier: MIT
"""Hellos, epochs and barriers between processes, with trivial cores in a line."""

from tests.common.bus.cores import StillCore

from skbus.bus.codec import decode, encode
from skbus.bus.dispatch import Dispatcher
from skbus.core.abi import Hello
from skbus.core.interfaces import Neighbour, NetifReceive
from skbus.core.net import Net
from skbus.core.skbuff import SkBuff

ORDER = ("nic.a", "ip", "tcp", "socket")


class Relay(StillCore):
    """Passes skbs up, and remembers what it saw."""

    def __init__(self, name: str, above: list[str], below: list[str], epoch: int = 1) -> None:
        super().__init__(name, epoch)
        self.above, self.below = above, below
        self.seen: list[int] = []
        self.entries = {NetifReceive.ip_rcv: self.ip_rcv}

    def ip_rcv(self, net: Net, skb: SkBuff) -> None:
        self.seen.append(skb.id)
        if self.above:
            net.call_skb(self.above[0], NetifReceive.ip_rcv, skb, None)
        else:
            net.consume_skb(skb)

    def barrier_edges(self) -> tuple[list[str], list[str]]:
        return self.above, self.below


class Line:
    """Processes and the pipes between them; `turn` lets one of them work once."""

    def __init__(self, edges: dict[str, tuple[list[str], list[str]]]) -> None:
        self.cores = {n: Relay(n, above, below) for n, (above, below) in edges.items()}
        self.drained: list[str] = []
        self.shells = {n: self.shell(core) for n, core in self.cores.items()}
        self.pipes: dict[str, list[tuple[bytes, bytes]]] = {n: [] for n in edges}
        for shell in self.shells.values():
            shell.start()
            self.flush(shell)

    def shell(self, core: Relay) -> Dispatcher:
        return Dispatcher(
            core,
            tuple(core.above + core.below),
            None if core.below else lambda: self.drained.append(core.net.name),
        )

    def flush(self, shell: Dispatcher) -> None:
        outbox, shell.net.outbox = shell.net.outbox, {}
        for process, batch in outbox.items():
            self.pipes[process].append(encode(shell.net.name, shell.net.epoch, batch))

    def turn(self, name: str) -> bool:
        shell, messages = self.shells[name], self.pipes[name]
        self.pipes[name] = []
        for frames in messages:
            shell.deliver(decode(*frames))
        shell.finish()
        self.flush(shell)
        return bool(messages)

    def settle(self) -> None:
        busy = True
        while busy:
            busy = False
            for name in self.cores:
                busy = self.turn(name) or busy


def line() -> Line:
    return Line(
        {
            "nic.a": (["ip"], []),
            "ip": (["tcp"], ["nic.a"]),
            "tcp": (["socket"], ["ip"]),
            "socket": ([], ["tcp"]),
        }
    )


def test_neighbours_learn_of_each_other_once() -> None:
    made = line()
    made.settle()
    assert sorted(made.cores["ip"].up) == ["nic.a", "tcp"]
    assert made.cores["socket"].up == ["tcp"]


def test_a_barrier_comes_back_behind_all_that_was_in_the_pipes() -> None:
    made = line()
    made.settle()
    done: list[str] = []
    nic = made.cores["nic.a"]
    made.shells["socket"].barriers.begin(lambda: done.append("done"))
    for _ in range(5):
        skb = nic.net.alloc_skb(b"packet")
        nic.net.call_skb("ip", NetifReceive.ip_rcv, skb, None)
    made.flush(made.shells["nic.a"])
    made.flush(made.shells["socket"])
    for _ in range(20):
        for name in ORDER:
            made.turn(name)
    assert done == ["done"]
    assert len(made.cores["socket"].seen) == 5
    assert made.drained == ["nic.a", "nic.a"], "once on the way in, once after its effects"


def test_a_barrier_waits_for_every_branch() -> None:
    made = Line(
        {
            "nic.a": (["ip"], []),
            "nic.b": (["ip"], []),
            "ip": (["tcp", "udp"], ["nic.a", "nic.b"]),
            "tcp": (["socket"], ["ip"]),
            "udp": (["socket"], ["ip"]),
            "socket": ([], ["tcp", "udp"]),
        }
    )
    made.settle()
    done: list[int] = []
    made.shells["socket"].barriers.begin(lambda: done.append(1))
    made.flush(made.shells["socket"])
    for _ in range(50):
        for name in ("nic.a", "ip", "tcp", "socket", "udp"):
            made.turn(name)
    assert done == [], "nic.b has not run"
    made.settle()
    assert done == [1]
    assert sorted(made.drained) == ["nic.a", "nic.a", "nic.b", "nic.b"]


def test_a_process_reborn_is_noticed_and_its_old_messages_are_dropped_with_a_reason() -> None:
    made = line()
    made.settle()
    old = encode("nic.a", 1, [(NetifReceive.ip_rcv, made.cores["nic.a"].net.alloc_skb(b"late"))])
    reborn = Relay("nic.a", ["ip"], [], epoch=2)
    made.cores["nic.a"], made.shells["nic.a"] = reborn, made.shell(reborn)
    made.shells["nic.a"].start()
    made.flush(made.shells["nic.a"])
    made.pipes["ip"].append(old)
    made.settle()
    ip = made.cores["ip"]
    assert ip.up.count("nic.a") == 2
    assert reborn.up == ["ip"], "the answer tells the reborn process who is there"
    assert ip.seen == []
    assert ip.net.drops == {"SKB_DROP_REASON_SKBUS_STALE_EPOCH": 1}
    assert ip.net.skb_received == ip.net.skb_dropped == 1


def test_an_entry_that_a_layer_does_not_take_is_counted() -> None:
    made = line()
    made.settle()
    made.pipes["tcp"].append(encode("ip", 1, [(NetifReceive.arp_rcv, SkBuff(b"x"))]))
    made.settle()
    tcp = made.cores["tcp"]
    assert tcp.net.drops["SKB_DROP_REASON_SKBUS_BAD_MESSAGE"] == 2
    assert tcp.net.skb_received == tcp.net.skb_dropped


def test_hello_is_answered_even_if_the_asker_was_known() -> None:
    made = line()
    made.settle()
    made.pipes["tcp"].append(encode("ip", 7, [(Neighbour.hello, Hello("ip", 7, False))]))
    made.turn("tcp")
    (frames,) = [f for f in made.pipes["ip"] if decode(*f).batch[0][0] == Neighbour.hello]
    assert decode(*frames).batch == [(Neighbour.hello, Hello("tcp", 1, True))]
