# SPDX-License-Identifier: MIT
"""What a simulation lets be seen: `sock.info`, `world.record`, and links in the lab's words."""

import csv
import errno
from pathlib import Path
from typing import NamedTuple

import pytest

from skbus.core.net import MSEC, SEC
from skbus.core.uapi import IPPROTO_TCP, TCP_INFO
from skbus.inet.impair import Impairment
from skbus.inet.tcp_info import SIZE, TcpInfo
from skbus.testing import Future, Host, LinkInfo, SimSocket, World, WorldError


def connected(world: World, **impairment: float | str) -> tuple[Host, SimSocket]:
    """Host a, and a connection of its to b, where 200,000 bytes go through and are read."""
    a, b = world.host("a", "10.0.0.1/24"), world.host("b", "10.0.0.2/24")
    world.link(a, b, **impairment)

    listener = world.run(world.start(b.listen(7)))

    async def serve() -> None:
        sock, _ = await listener.accept()
        while await sock.recv(1 << 20):
            pass

    world.start(serve())
    return a, world.run(world.start(a.connect("10.0.0.2", 7)))


# ---- links in the lab's words ----------------------------------------------------------------


def run_of(**impairment: float | str) -> str:
    with World(11) as world:
        _, sock = connected(world, **impairment)
        world.start(sock.sendall(bytes(200_000)))
        world.advance("2s")
        return world.digest()


def test_texts_mean_what_the_numbers_mean() -> None:
    texts = run_of(loss="5%", delay="20ms", jitter="1ms", rate="10mbit", dup="1%", limit="50")
    numbers = run_of(loss=0.05, delay=20 * MSEC, jitter=MSEC, rate=10_000_000, dup=0.01, limit=50)
    assert texts == numbers
    assert texts != run_of(loss="5%", delay="21ms", jitter="1ms", rate="10mbit", dup="1%")


@pytest.mark.parametrize(
    ("impairment", "message"),
    [
        ({"los": "5%"}, "there is no 'los'; there are: loss, delay, jitter,"),
        ({"loss": "5ms"}, "loss '5ms': takes a percentage such as 5%"),
        ({"delay": "20"}, "delay '20': takes a time with its unit"),
        ({"rate": "10"}, "rate '10': takes a rate with its unit"),
        ({"loss": 5}, "loss is a share from 0 to 1, not 5"),
    ],
)
def test_a_mistaken_impairment_is_named(impairment: dict[str, float | str], message: str) -> None:
    with World() as world:
        x, y = world.port("x"), world.port("y")
        with pytest.raises(ValueError, match=message):
            world.link(x, y, **impairment)
        link = world.link(x, y)
        with pytest.raises(ValueError, match=message):
            link.impair(**impairment)


def test_one_word_for_an_impairment_everywhere() -> None:
    """`Impairment.of` knows each argument that there is."""
    every = {
        "loss": "1%", "delay": "1ms", "jitter": "1us", "reorder": "2%", "dup": "3%",
        "corrupt": "4%", "rate": "1mbit", "limit": "5", "mark": "2", "size": "900", "seed": "6",
    }  # fmt: skip
    one = Impairment.of(every)
    other = Impairment.parse(" ".join(f"{name} {value}" for name, value in every.items()))
    for name in ("loss", "delay", "jitter", "reorder", "dup", "corrupt", "rate", "limit"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.delay, one.rate, one.mark, one.size) == (MSEC, 1_000_000, 2, 900)


def test_times_are_texts_or_nanoseconds() -> None:
    with World() as world:
        begin = world.now
        world.advance("1.5s")
        world.advance(500 * MSEC)
        world.run(world.start(world.sleep("20ms")), limit="1s")
        assert world.now - begin == 2 * SEC + 20 * MSEC
        with pytest.raises(ValueError, match="takes a time with its unit"):
            world.advance("20")


# ---- sock.info -------------------------------------------------------------------------------


def test_info_is_what_the_system_call_gives() -> None:
    with World(3) as world:
        _, sock = connected(world, delay="10ms")
        world.start(sock.sendall(bytes(200_000)))
        world.advance("500ms")
        raw = world.run(world.start(sock.getsockopt(IPPROTO_TCP, TCP_INFO, SIZE)))
        assert sock.info() == TcpInfo.unpack(raw)
        assert sock.info().bytes_acked == 200_001  # and the SYN
        assert sock.info().state == 1
        assert 20_000 <= sock.info().rtt < 70_000
        assert sock.info().snd_cwnd > 10


def test_info_of_what_has_none_is_an_error() -> None:
    with World() as world:
        a, sock = connected(world)
        udp = world.run(world.start(a.socket(2)))
        with pytest.raises(OSError, match="not supported") as caught:
            udp.info()
        assert caught.value.errno == errno.EOPNOTSUPP
        world.run(world.start(sock.close()))
        with pytest.raises(OSError, match="Bad file") as caught:
            sock.info()
        assert caught.value.errno == errno.EBADF


def test_info_of_each_shard_is_its_own() -> None:
    with World() as world:
        a, b = world.host("a", "10.0.0.1/24", tcp_shards=2), world.host("b", "10.0.0.2/24")
        world.link(a, b)
        world.run(world.start(b.listen(7)))
        for size in (100, 200, 300):
            sock = world.run(world.start(a.connect("10.0.0.2", 7)))
            world.run(world.start(sock.sendall(bytes(size))))
            world.advance("1s")
            assert sock.info().bytes_acked == size + 1


# ---- world.record ----------------------------------------------------------------------------


class Milliseconds(NamedTuple):
    ms: int


class Clock:
    """A source of a user's own."""

    def __init__(self, world: World) -> None:
        self.world = world

    def info(self) -> Milliseconds:
        return Milliseconds(self.world.now // MSEC - 1_000_000)


def test_a_series_has_a_value_for_each_moment() -> None:
    with World(5) as world:
        a, sock = connected(world, delay="10ms", rate="5mbit", limit=20)
        since = world.now
        window = world.record(sock, "snd_cwnd", "bytes_acked", every="50ms", name="window")
        link = world.record(a.ports["eth0"], every="50ms")
        world.start(sock.sendall(bytes(2_000_000)))
        world.advance("1s")
        assert len(window) == len(link) == 21
        first = (since - 1000 * SEC) / SEC
        assert window.time == pytest.approx([first + i * 0.05 for i in range(21)])
        assert window.columns == ("snd_cwnd", "bytes_acked")
        assert (window["snd_cwnd"][0], window["bytes_acked"][0]) == (10, 1)
        assert window["bytes_acked"] == sorted(window["bytes_acked"])
        # what the link has let through, and what TCP knows of it
        assert link.columns == LinkInfo._fields
        assert 450_000 < window["bytes_acked"][-1] <= link["bytes"][-1] <= 5_000_000 / 8 * 1.3
        assert 15 <= max(link["queued"]) <= 20  # limit; a sample may miss the fullest moment
        assert link["overflowed"][-1] > 0
        assert link["lost"] == [0] * 21
        info = a.ports["eth0"].info()
        assert link["frames"][-1] <= info.frames


def test_recording_changes_nothing() -> None:
    def digest(record: bool) -> str:
        with World(9) as world:
            a, sock = connected(world, loss="2%", delay="5ms")
            if record:
                world.record(sock, every="1ms")
                world.record(a.ports["eth0"], every="3ms")
            world.start(sock.sendall(bytes(300_000)))
            world.run(world.start(world.sleep("3s")))
            return world.digest()

    assert digest(False) == digest(True)


def test_recording_keeps_no_world_alive() -> None:
    """A series is no event: what waits for ever is still found at once."""
    with World(1) as world:
        never: Future[None] = Future()
        series = world.record(Clock(world), every="1ms")

        async def patient() -> None:
            await never

        with pytest.raises(WorldError, match="nothing can happen any more"):
            world.run(world.start(patient()))
        assert len(series) == 0


def test_a_series_ends_with_its_socket_and_says_so() -> None:
    with World() as world:
        _, sock = connected(world)
        series = world.record(sock, "snd_cwnd", every="10ms")
        world.advance("100ms")
        world.run(world.start(sock.close()))
        world.advance("1s")
        assert len(series) == 11
        assert "Bad file descriptor" in series.ended


def test_stop_ends_a_series() -> None:
    with World() as world:
        _, sock = connected(world)
        series = world.record(sock, "snd_cwnd", every="10ms")
        world.advance("100ms")
        series.stop()
        world.advance("100ms")
        assert (len(series), series.ended) == (11, "stopped")


def test_whatever_has_info_can_be_recorded(tmp_path: Path) -> None:
    with World() as world:
        series = world.record(Clock(world), every="4ms")
        world.advance("10ms")
        assert series["ms"] == [0, 4, 8]
        series.write_csv(tmp_path / "clock.csv")
    with open(tmp_path / "clock.csv") as file:
        assert list(csv.reader(file)) == [
            ["time", "ms"], ["0.0", "0"], ["0.004", "4"], ["0.008", "8"],
        ]  # fmt: skip


def test_a_mistaken_column_is_named() -> None:
    with World() as world:
        a, sock = connected(world)
        with pytest.raises(ValueError, match="there is no 'cwnd'; there are: state, ca_state"):
            world.record(sock, "cwnd")
        series = world.record(a.ports["eth0"], "lost")
        with pytest.raises(KeyError, match="'queued' is not recorded; recorded are: lost"):
            series["queued"]
        with pytest.raises(ValueError, match="a time between two samples"):
            world.record(sock, every=0)
        with pytest.raises(OSError, match=r"c\.eth0 has no link"):
            world.record(world.host("c").ports["eth0"])


def test_what_a_link_did_stays_counted_when_it_changes() -> None:
    with World(2) as world:
        a, sock = connected(world)
        link = a.ports["eth0"].link
        assert link is not None
        link.impair(loss="50%")
        world.start(sock.sendall(bytes(50_000)))
        world.advance("2s")
        lost = a.ports["eth0"].info().lost
        assert lost > 0
        link.impair()
        world.advance("60s")
        assert a.ports["eth0"].info().lost == lost
        assert sock.info().bytes_acked == 50_001
