# SPDX-License-Identifier: MIT
"""Which shard a flow belongs to, what a configuration makes of `tcp_shards`, and how the answers of
several tcp processes become one."""

from pathlib import Path

import pytest

from skbus.bus.rundir import RunDir
from skbus.inet.proc import TcpLine, merge_tcp
from skbus.inet.rps import (
    MAX_SHARDS,
    flow_hash,
    reciprocal_scale,
    tcp_processes,
    tcp_shard,
)
from skbus.stack.config import Config, ConfigError

KEY = bytes(range(16))


def flow(port: int) -> bytes:
    return bytes((10, 77, 0, 1, 10, 77, 0, 2)) + port.to_bytes(2, "big") + b"\x00\x50"


@pytest.mark.parametrize("shards", [1, 2, 3, 8, MAX_SHARDS])
def test_flows_are_spread_evenly(shards: int) -> None:
    counts = [0] * shards
    for port in range(20000, 20000 + 100 * shards):
        counts[reciprocal_scale(flow_hash(flow(port), KEY), shards)] += 1
    assert sum(counts) == 100 * shards
    assert 55 < min(counts) <= max(counts) < 145


def test_the_hash_is_keyed() -> None:
    """SipHash-2-4, the lower half; who does not know the key cannot choose the shard."""
    assert flow_hash(bytes(range(12)), KEY) == 0x860EE5FB
    same = 0
    for port in range(1000, 1400):
        a, b = (reciprocal_scale(flow_hash(flow(port), key), 2) for key in (KEY, KEY[::-1]))
        same += a == b
    assert 140 < same < 260


def test_names_and_numbers() -> None:
    assert tcp_processes(1) == ("tcp",)
    assert tcp_processes(3) == ("tcp.0", "tcp.1", "tcp.2")
    assert [tcp_shard(name) for name in ("tcp", "tcp.0", "tcp.12")] == [0, 0, 12]


def test_the_configuration_names_the_processes() -> None:
    config = Config.load(overrides={"tcp_shards": 2, "devices": [{"name": "eth1"}]}, environ={})
    assert config.processes() == ["nic.eth1", "ip", "tcp.0", "tcp.1", "udp", "socket"]
    assert config.neighbours("ip", "tcp") == ("ip", "tcp.0", "tcp.1")
    one = Config.load(environ={"SKBUS_TCP_SHARDS": "1"})
    assert one.processes() == ["ip", "tcp", "udp", "socket"]


@pytest.mark.parametrize("wrong", [{"tcp_shards": 0}, {"tcp_shards": 65}, {"rss_key": "12"}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config.load(overrides=wrong, environ={})


def test_a_key_is_chosen_when_the_stack_begins(tmp_path: Path) -> None:
    """Once for all its processes, and for those that are restarted; none where none is needed."""
    run = RunDir(tmp_path)
    config = Config(tcp_shards=2)
    config.write(run)
    written = Config.read(run)
    assert len(bytes.fromhex(written.rss_key)) == 16
    written.write(run)
    assert Config.read(run).rss_key == written.rss_key
    Config().write(run)
    assert Config.read(run).rss_key == ""


def line(sk: int, state: int, waiting: int) -> TcpLine:
    return TcpLine(sk, state, (bytes(4), 80), (bytes(4), 0), 0, waiting, 0, 0, 0, 0, ())


def test_one_file_of_several_processes() -> None:
    """A listener is there once, with all who wait; connections are those of all; sums of counts."""
    assert merge_tcp([[line(4, 10, 1)]]) == [line(4, 10, 1)]
    parts = [[line(4, 10, 1), line(9, 1, 5)], [line(4, 10, 2), line(11, 1, 0), line(0, 6, 0)]]
    assert merge_tcp(parts) == [line(4, 10, 3), line(9, 1, 5), line(11, 1, 0), line(0, 6, 0)]
    assert merge_tcp([{"inuse": 2, "tw": 0}, {"inuse": 3, "tw": 1}]) == {"inuse": 5, "tw": 1}
    assert merge_tcp([{"TCP": (2, False)}, {"TCP": (3, True)}]) == {"TCP": (5, True)}
