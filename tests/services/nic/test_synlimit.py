# SPDX-License-Identifier: MIT
"""What counts against the limit of SYNs is the place in the pipe; marks tell when it is free."""

import pytest

from skbus.core.abi import BacklogMark
from skbus.core.checksum import csum_fold, csum_partial
from skbus.core.interfaces import SynBacklog
from skbus.core.net import MSEC, SEC
from skbus.core.skbuff import SkBuff
from skbus.inet.headers import ethernet
from skbusd.nic.synlimit import (
    FORGET,
    MARK_EVERY,
    REFUSED,
    RESERVE,
    SYN_BACKLOG,
    SYN_LEAST,
)
from skbustest.nicrig import OUR_MAC, PEER_MAC, NicRig, segment

SYN, RST, ACK = 2, 4, 16


def syn(sport: int = 1, flags: int = SYN) -> bytes:
    return segment(sport=sport, flags=flags)


def receive(rig: NicRig, *frames: bytes) -> tuple[int, list[int]]:
    """How many went up, and the marks behind them."""
    rig.device.deliver(frames, bytes(10))
    while rig.core.poll_rx(64):
        pass
    box = rig.net.outbox.pop("ip", [])
    marks = [item.mark for _, item in box if isinstance(item, BacklogMark)]
    return sum(isinstance(item, SkBuff) for _, item in box), marks


def back(rig: NicRig, mark: int) -> None:
    rig.core.entries[SynBacklog.backlog_mark_ret](rig.net, BacklogMark("nic.eth0", 6, mark))


def full() -> NicRig:
    rig = NicRig(now=100 * SEC)
    up, marks = receive(rig, *(syn(port) for port in range(1000, 1000 + SYN_BACKLOG)))
    assert up == SYN_BACKLOG
    assert marks == list(range(MARK_EVERY, SYN_BACKLOG + 1, MARK_EVERY))
    assert rig.drops() == {}
    return rig


def test_more_syns_than_are_dealt_with_do_not_go_up() -> None:
    rig = full()
    assert receive(rig, syn(10), syn(11)) == (0, [])
    assert rig.drops() == {"CPU_BACKLOG": 2}
    assert rig.conserved()
    back(rig, MARK_EVERY)
    up, marks = receive(rig, *(syn(port) for port in range(10, 11 + MARK_EVERY)))
    assert up == MARK_EVERY
    assert marks == [SYN_BACKLOG + MARK_EVERY]
    assert rig.drops() == {"CPU_BACKLOG": 3}
    assert rig.conserved()


def test_a_mark_stands_for_those_before_it_and_an_old_one_for_nothing() -> None:
    rig = full()
    back(rig, SYN_BACKLOG)
    back(rig, MARK_EVERY)
    back(rig, 7 * SYN_BACKLOG)  # of an earlier life
    assert rig.net.syn_backlog.done == SYN_BACKLOG
    assert receive(rig, *(syn(port) for port in range(10, 11 + SYN_BACKLOG)))[0] == SYN_BACKLOG
    assert rig.drops() == {"CPU_BACKLOG": 1}


def test_a_few_syns_cost_no_mark() -> None:
    rig = NicRig()
    assert receive(rig, *(syn(port) for port in range(10, 9 + MARK_EVERY))) == (MARK_EVERY - 1, [])


def test_what_is_no_syn_goes_up_all_the_time() -> None:
    rig = full()
    assert receive(rig, syn(5, ACK), syn(6, RST), syn(7, SYN | ACK))[0] == 3
    assert rig.drops() == {}


def test_who_repeats_one_syn_holds_no_place() -> None:
    """Whatever an attacker repeats: when the marks are back, all places are free."""
    rig = full()
    for _ in range(5):
        receive(rig, *(syn(1000 + port) for port in range(3)))
        rig.advance(SEC // 10)
    for mark in range(MARK_EVERY, SYN_BACKLOG + 1, MARK_EVERY):
        back(rig, mark)
    assert receive(rig, *(syn(port) for port in range(10, 30)))[0] == 20


def test_marks_that_are_lost_are_forgotten() -> None:
    """Also while SYNs go on coming."""
    rig = full()
    for _ in range(10):
        rig.advance(FORGET // 10)
        up = receive(rig, syn(1000), syn(1001))[0]
    assert up == 2
    assert receive(rig, *(syn(port) for port in range(10, 30)))[0] == 20


def test_who_comes_again_gets_up() -> None:
    """A client repeats its SYN, a flood from made-up addresses does not."""
    rig = full()
    assert receive(rig, syn(10), syn(11))[0] == 0
    rig.advance(400 * MSEC)
    assert receive(rig, syn(10))[0] == 0  # too soon
    rig.advance(600 * MSEC)
    assert receive(rig, syn(12), syn(10), syn(13), syn(11))[0] == 2


def test_of_those_there_may_not_be_many() -> None:
    rig = full()
    again = [syn(port) for port in range(10, 11 + RESERVE)]
    assert receive(rig, *again)[0] == 0
    rig.advance(SEC)
    assert receive(rig, *again)[0] == RESERVE
    assert rig.net.syn_backlog.sent - rig.net.syn_backlog.done == SYN_BACKLOG + RESERVE


def test_what_was_refused_is_forgotten_by_generations() -> None:
    rig = full()
    receive(rig, syn(10))
    for n in range(2):
        rig.advance(MSEC)
        ports = range(20000 + n * REFUSED, 20000 + (n + 1) * REFUSED)
        receive(rig, *(syn(port) for port in ports))
    backlog = rig.net.syn_backlog
    assert len(backlog.refused) + len(backlog.refused_before) <= 2 * REFUSED
    rig.advance(SEC)
    assert receive(rig, syn(10))[0] == 0  # forgotten
    assert receive(rig, syn(20000 + 2 * REFUSED - 1))[0] == 1


@pytest.mark.parametrize(("ms", "left"), [(100, SYN_BACKLOG), (125, 1638), (900, 1024)])
def test_slow_layers_get_fewer(ms: int, left: int) -> None:
    """What takes longer than 100 ms makes everybody wait."""
    rig = full()
    rig.advance(ms * MSEC)
    for mark in range(MARK_EVERY, SYN_BACKLOG + 1, MARK_EVERY):
        back(rig, mark)  # all of one round shrink it once
    assert rig.net.syn_backlog.limit == left
    up, _ = receive(rig, *(syn(port) for port in range(10, 11 + SYN_BACKLOG)))
    assert up == left


def test_it_shrinks_by_rounds_to_a_least_and_grows_again() -> None:
    rig = full()
    limits = []
    for _ in range(8):
        rig.advance(800 * MSEC)
        back(rig, rig.net.syn_backlog.marked)
        receive(rig, *(syn(port) for port in range(10, 11 + SYN_BACKLOG)))
        limits.append(rig.net.syn_backlog.limit)
    assert limits[:4] == [1024, 512, 256, SYN_LEAST]
    assert limits[-1] == SYN_LEAST
    for _ in range(SYN_BACKLOG // MARK_EVERY):
        receive(rig, *(syn(port) for port in range(10, 10 + MARK_EVERY)))
        back(rig, rig.net.syn_backlog.marked)
    assert rig.net.syn_backlog.limit == SYN_BACKLOG


def test_with_another_life_of_ip_all_are_forgotten() -> None:
    rig = full()
    rig.core.peer_up("ip")
    rig.net.outbox.clear()
    assert receive(rig, *(syn(port) for port in range(10, 30)))[0] == 20


def options(frame: bytes, words: int) -> bytes:
    """The same packet with IP options that say nothing."""
    ip = bytearray(frame[14:34] + b"\x01" * 4 * words + frame[34:])
    ip[0] = 0x45 + words
    ip[2:4] = (len(ip)).to_bytes(2, "big")
    ip[10:12] = bytes(2)
    ip[10:12] = csum_fold(csum_partial(bytes(ip[: 20 + 4 * words]), 0)).to_bytes(2, "big")
    return frame[:14] + bytes(ip)


@pytest.mark.parametrize(
    ("frame", "counted"),
    [
        (syn(), 1),
        (syn(flags=SYN | 0xC0), 1),  # ECN
        (options(syn(), 1), 1),
        (options(syn(), 10), 1),
        (syn()[:12] + b"\x81\x00\x00\x00" + syn()[12:], 1),  # priority tag
        (syn() + bytes(200), 1),  # data, padding: as long as it likes to be
        (ethernet.build(b"\x02\0\0\0\0\x77", PEER_MAC, 0x0800) + syn()[14:], 0),
        (syn()[:20] + b"\x20\x08" + syn()[22:], 0),  # a later fragment: no TCP header
        (ethernet.build(OUR_MAC, PEER_MAC, 0x86DD) + syn()[14:], 0),
        (syn()[:23] + b"\x11" + syn()[24:], 0),
        (syn()[:40], 0),
        (syn(flags=SYN | ACK), 0),
    ],
)
def test_what_counts(frame: bytes, counted: int) -> None:
    rig = NicRig()
    receive(rig, frame)
    assert rig.net.syn_backlog.sent == counted
