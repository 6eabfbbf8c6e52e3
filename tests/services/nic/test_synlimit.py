# SPDX-License-Identifier: MIT
from skbus.headers import ethernet, ipv4
from skbus.headers.tcp import build
from skbus.net import SEC
from skbus.skbuff import SkBuff
from skbus.testing.nicrig import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, NicRig, segment
from skbusd.nic.synlimit import FORGET, SYN_BACKLOG

SYN, RST, ACK = 2, 4, 16


def syn(sport: int, flags: int = SYN) -> bytes:
    return segment(sport=sport, flags=flags)


def answer(rig: NicRig, dport: int, flags: int = SYN | ACK) -> None:
    header = build(80, dport, 1, 8, flags, 65535)
    frame = ethernet.build(PEER_MAC, OUR_MAC, 0x0800)
    frame += ipv4.build(OUR_IP, PEER_IP, 6, 20 + len(header)) + header
    skb = SkBuff(frame, (), id=1)
    assert len(rig.xmit(skb)) == 1


def full() -> NicRig:
    rig = NicRig(now=100 * SEC)
    assert len(rig.receive(*(syn(port) for port in range(1000, 1000 + SYN_BACKLOG)))) == SYN_BACKLOG
    assert rig.drops() == {}
    return rig


def test_more_syns_than_are_answered_do_not_go_up() -> None:
    rig = full()
    assert rig.receive(syn(10), syn(11)) == []
    assert rig.drops() == {"CPU_BACKLOG": 2}
    assert rig.conserved()
    answer(rig, 1000)
    answer(rig, 1001, RST | ACK)
    answer(rig, 1002, ACK)  # no answer to a SYN
    assert len(rig.receive(syn(10), syn(11), syn(12))) == 2
    assert rig.drops() == {"CPU_BACKLOG": 3}
    assert rig.conserved()


def test_what_is_no_syn_goes_up_all_the_time() -> None:
    rig = full()
    assert len(rig.receive(syn(5, ACK), syn(6, RST), syn(7, SYN | ACK))) == 3
    assert rig.drops() == {}


def test_a_syn_that_is_repeated_takes_no_second_place() -> None:
    rig = full()
    assert len(rig.receive(syn(1000))) == 1
    assert rig.drops() == {}


def test_syns_that_nobody_answers_are_forgotten() -> None:
    rig = full()
    rig.advance(FORGET)
    assert len(rig.receive(*(syn(port) for port in range(10, 30)))) == 20
    assert rig.drops() == {}
    assert len(rig.net.syn_backlog) == SYN_BACKLOG
