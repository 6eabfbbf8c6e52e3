# SPDX-License-Identifier: MIT
"""What fused layers rely on: a core is done with what it has sent, and needs no codec in between.

With `World(codec=False)` messages are handed over as they are. The run must be the same, bit for
bit. Then each skb that is sent is taken from its sender: a core that still used it would fail.
"""

from random import Random

import pytest
from tests.sim.test_transfer import transfer, two_hosts

from skbus.bus.codec import decode, encode
from skbus.core.skbuff import SkBuff
from skbus.testing import Host, World
from skbustest.process import Process

CABLES = [
    {},
    {"loss": "3%", "reorder": "5%", "dup": "2%", "corrupt": "1%", "delay": "5ms"},
    {"rate": "50mbit", "delay": "10ms", "limit": 20},
]


def datagrams(world: World, a: Host, b: Host) -> list[bytes]:
    """Datagrams of many sizes there and back, one to a port that nobody has, and a ping."""

    async def server() -> None:
        sock = await b.socket(2)
        await sock.bind(("0.0.0.0", 7))
        while True:
            data, address = await sock.recvfrom(65535)
            assert address is not None
            await sock.sendto(data, address)

    async def client() -> list[bytes]:
        got = []
        sock = await a.socket(2)
        await sock.connect(("10.0.0.2", 7))
        for size in (0, 1, 1000, 1472, 1473, 9000, 65000):
            await sock.send(Random(size).randbytes(size))
            got.append(await sock.recv(65535))
        stranger = await a.socket(2)
        await stranger.connect(("10.0.0.2", 8))
        await stranger.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            await stranger.recv(1)
        return got

    world.start(server())
    return world.run(world.start(client()))


def run(codec: bool, cable: dict[str, str | int]) -> str:
    with World(11, codec=codec) as world:
        a, b = two_hosts(world, **cable)
        transfer(world, a, b, 300_000)
        if not cable:
            sizes = (0, 1, 1000, 1472, 1473, 9000, 65000)
            assert datagrams(world, a, b) == [Random(n).randbytes(n) for n in sizes]
            world.check_conservation()
        return world.digest()


@pytest.mark.parametrize("cable", CABLES)
def test_a_run_is_the_same_without_the_codec(cable: dict[str, str | int]) -> None:
    assert run(False, cable) == run(True, cable)


def plain(value: object) -> object:
    """A value with the types of its parts; a NamedTuple is as good as a tuple."""
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return type(value), value


def take_away(process: Process) -> None:
    """Before a flush: what goes out is what the codec would make of it, and the receivers get
    copies, so that the senders' own can be emptied."""
    net = process.net
    for name, batch in net.outbox.items():
        told = decode(*encode(net.name, net.epoch, batch))
        assert told.bad == 0, (net.name, name, batch)
        for at, ((entry, item), (_, decoded)) in enumerate(zip(batch, told.batch, strict=True)):
            if type(item) is not SkBuff:
                assert plain(item) == plain(decoded), entry
                continue
            copy = item.clone()
            copy.lent = item.lent
            if entry.kind is None:
                copy.cb = ()  # the codec leaves it out; who takes such an skb does not look at it
            for field in SkBuff.__slots__:
                assert plain(getattr(copy, field)) == plain(getattr(decoded, field)), (entry, field)
                delattr(item, field)
            batch[at] = (entry, copy)


@pytest.mark.interpreted
@pytest.mark.parametrize("cable", CABLES)
def test_a_core_is_done_with_what_it_has_sent(
    cable: dict[str, str | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Process.flush

    def poisoned(process: Process) -> None:
        take_away(process)
        flush(process)

    expected = run(True, cable)
    monkeypatch.setattr(Process, "flush", poisoned)
    assert run(False, cable) == expected
