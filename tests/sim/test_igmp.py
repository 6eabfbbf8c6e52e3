# SPDX-License-Identifier: MIT
"""IGMP in virtual time: a host in groups, and a router that is the test, at the other end."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from skbus.core import uapi
from skbus.core.net import SEC
from skbus.core.skbuff import ETH_P_IP
from skbus.inet import mcast
from skbus.inet.headers import ethernet, igmp, ipv4
from skbus.testing import Host, SimSocket, World
from skbustest.link import Port

OWN = b"\x0a\0\0\1"
ROUTER = b"\x0a\0\0\xfe"
OTHER = b"\x0a\0\0\x09"
GROUP = b"\xef\1\2\3"
SOURCE = b"\xc0\0\2\1"
SOURCE2 = b"\xc0\0\2\2"
ALL_HOSTS = igmp.IGMP_ALL_HOSTS
EXCLUDE, INCLUDE, TO_IN, TO_EX, ALLOW, BLOCK = 2, 1, 3, 4, 5, 6
DGRAM = 2

Report = tuple[float, bytes, bytes]
"""(seconds, destination, message)"""


class Router:
    """The other end of the host's link: what it hears, and what it asks."""

    def __init__(self, world: World, host: Host) -> None:
        self.world = world
        self.host = host
        self.begin = world.now
        self.heard: list[Report] = []
        self.port: Port = world.port("router")
        self.port.receive = self._receive
        world.link(host, self.port)

    def _receive(self, frames: list[bytes]) -> None:
        for frame in frames:
            if ethernet.parse(frame).h_proto != ETH_P_IP:
                continue
            iph = ipv4.parse(frame, 14)
            if iph.protocol != 2:
                continue
            assert (iph.ttl, iph.tos, iph.options) == (1, 0xC0, b"\x94\x04\0\0")
            assert frame[:6] == b"\x01\x00\x5e" + bytes((iph.daddr[1] & 0x7F,)) + iph.daddr[2:]
            message = frame[14 + iph.ihl : 14 + iph.tot_len]
            seconds = (self.world.now - self.begin) / SEC
            self.heard.append((seconds, iph.daddr, message))

    def ask(self, message: bytes, daddr: bytes = ALL_HOSTS, saddr: bytes = ROUTER) -> None:
        """Send an IGMP message to the host."""
        length = 24 + len(message)
        header = ipv4.build(saddr, daddr, 2, length, ttl=1, options=b"\x94\x04\0\0")
        dest = b"\x01\x00\x5e" + bytes((daddr[1] & 0x7F,)) + daddr[2:]
        self.port.send(ethernet.build(dest, b"\x02\0\0\0\0\xfe", ETH_P_IP) + header + message)

    def listen(self, seconds: float) -> list[Report]:
        """What is heard within a time, and what has been since the last time."""
        self.begin = self.world.now
        self.world.advance(round(seconds * SEC))
        heard, self.heard = self.heard, []
        return heard

    def records(self, seconds: float) -> list[Any]:
        """The same where all of it are reports of version 3: (kind, group, sources) of each."""
        out = []
        for _, daddr, message in self.listen(seconds):
            assert daddr == igmp.IGMPV3_ALL_MCR
            out += [tuple(r) for r in igmp.parse_v3_report(message)]
        return out


Do = Callable[[Coroutine[Any, Any, Any]], Any]


class Rig:
    """A host with one socket, and its router."""

    def __init__(self, world: World, **sysctl: object) -> None:
        self.world = world
        self.host = world.host("h", "10.0.0.1/24", sysctl=sysctl)
        self.router = Router(world, self.host)
        self.sock: SimSocket = self.run(self.host.socket(DGRAM))

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return self.world.run(self.world.start(coro))

    def set(self, option: int, *addresses: bytes) -> None:
        """A membership option of the socket."""
        self.run(self.sock.setsockopt(0, option, b"".join(addresses)))

    def join(self, group: bytes = GROUP) -> None:
        self.set(mcast.IP_ADD_MEMBERSHIP, group, OWN)

    def leave(self, group: bytes = GROUP) -> None:
        self.set(mcast.IP_DROP_MEMBERSHIP, group, OWN)


def query2(code: int, group: bytes = bytes(4)) -> bytes:
    return igmp.build(igmp.IGMP_HOST_MEMBERSHIP_QUERY, code, group)


# ---- version 3 -------------------------------------------------------------------------------


def test_a_change_is_reported_at_once_and_again_within_a_second() -> None:
    with World(1) as world:
        rig = Rig(world)
        rig.join()
        first, second = rig.router.listen(5)
        assert first[0] < 0.01
        assert first[0] < second[0] < 1.1
        assert igmp.parse_v3_report(first[2]) == ((TO_EX, GROUP, ()),)
        assert first[2] == second[2]
        world.check_conservation()


def test_the_queriers_robustness_says_how_often() -> None:
    with World(1) as world:
        rig = Rig(world)
        rig.router.ask(igmp.build_v3_query(1, bytes(4), qrv=5))
        rig.router.listen(1)
        rig.join()
        assert rig.router.records(10) == [(TO_EX, GROUP, ())] * 5
        rig.router.ask(igmp.build_v3_query(1, bytes(4), qrv=0))
        rig.router.listen(1)
        rig.leave()
        assert rig.router.records(10) == [(TO_IN, GROUP, ())] * 2


def test_sources_come_and_go() -> None:
    with World(1) as world:
        rig = Rig(world)
        rig.set(mcast.IP_ADD_SOURCE_MEMBERSHIP, GROUP, OWN, SOURCE)
        assert rig.router.records(3) == [(ALLOW, GROUP, (SOURCE,))] * 2
        rig.set(mcast.IP_ADD_SOURCE_MEMBERSHIP, GROUP, OWN, SOURCE2)
        rig.set(mcast.IP_DROP_SOURCE_MEMBERSHIP, GROUP, OWN, SOURCE)
        both = [(ALLOW, GROUP, (SOURCE2,)), (BLOCK, GROUP, (SOURCE,))]
        assert rig.router.records(3) == both * 2
        rig.set(mcast.IP_DROP_SOURCE_MEMBERSHIP, GROUP, OWN, SOURCE2)
        assert rig.router.records(3) == [(BLOCK, GROUP, (SOURCE2,))] * 2


def test_the_filters_of_two_sockets_are_one_to_the_router() -> None:
    """RFC 3376 3.2: what one excludes and another does not is wanted."""
    with World(1) as world:
        rig = Rig(world)
        rig.join()
        rig.set(mcast.IP_BLOCK_SOURCE, GROUP, OWN, SOURCE)
        rig.router.listen(3)
        other = rig.run(rig.host.socket(DGRAM))
        value = GROUP + OWN + SOURCE
        rig.run(other.setsockopt(uapi.SOL_IP, mcast.IP_ADD_SOURCE_MEMBERSHIP, value))
        assert rig.router.records(3) == [(ALLOW, GROUP, (SOURCE,))] * 2
        rig.run(other.close())
        assert rig.router.records(3) == [(BLOCK, GROUP, (SOURCE,))] * 2
        rig.leave()
        assert rig.router.records(3) == [(TO_IN, GROUP, ())] * 2


def test_queries_are_answered_within_their_time() -> None:
    with World(2) as world:
        rig = Rig(world)
        rig.join()
        rig.set(mcast.IP_ADD_SOURCE_MEMBERSHIP, b"\xef\1\2\4", OWN, SOURCE)
        rig.router.listen(5)
        rig.router.ask(igmp.build_v3_query(100, bytes(4)))
        answers = rig.router.listen(30)
        assert len(answers) == 1
        assert 0 < answers[0][0] <= 10.2
        assert igmp.parse_v3_report(answers[0][2]) == (
            (EXCLUDE, GROUP, ()),
            (INCLUDE, b"\xef\1\2\4", (SOURCE,)),
        )
        rig.router.ask(igmp.build_v3_query(10, GROUP), GROUP)
        assert rig.router.records(5) == [(EXCLUDE, GROUP, ())]
        # RFC 3376 5.2: of the sources that are asked for, those that are wanted
        rig.router.ask(igmp.build_v3_query(10, b"\xef\1\2\4", (SOURCE2, SOURCE)), b"\xef\1\2\4")
        assert rig.router.records(5) == [(INCLUDE, b"\xef\1\2\4", (SOURCE,))]
        rig.router.ask(igmp.build_v3_query(10, b"\xef\1\2\4", (SOURCE2,)), b"\xef\1\2\4")
        assert rig.router.records(5) == []
        # a general query has no sources
        rig.router.ask(igmp.build_v3_query(10, bytes(4), (SOURCE,)))
        assert rig.router.records(5) == []
        world.check_conservation()


def test_a_membership_outlives_ip() -> None:
    with World(1) as world:
        rig = Rig(world)
        rig.join()
        rig.set(mcast.IP_BLOCK_SOURCE, GROUP, OWN, SOURCE)
        rig.router.listen(5)
        rig.host.start("ip")
        assert rig.router.records(5) == [(TO_EX, GROUP, (SOURCE,))] * 2
        rig.host.start("udp")
        assert rig.router.records(5)[-2:] == [(TO_EX, GROUP, (SOURCE,))] * 2
        rig.run(rig.sock.close())
        assert rig.router.records(5) == [(TO_IN, GROUP, ())] * 2


# ---- older versions --------------------------------------------------------------------------


def test_version_2_for_as_long_as_its_querier_may_be_there() -> None:
    with World(3) as world:
        rig = Rig(world)
        rig.router.ask(query2(100))
        rig.router.listen(1)
        rig.join()
        report = igmp.build(igmp.IGMPV2_HOST_MEMBERSHIP_REPORT, 0, GROUP)
        first, second = rig.router.listen(30)
        assert (first[0] < 0.02, first[1:]) == (True, (GROUP, report))
        assert (second[0] <= 10.2, second[1:]) == (True, (GROUP, report))
        rig.router.ask(query2(20, GROUP), GROUP)
        ((when, _, message),) = rig.router.listen(10)
        assert (0 < when <= 2.1, message) == (True, report)
        rig.leave()
        (leave,) = rig.router.listen(5)
        message = igmp.build(igmp.IGMP_HOST_LEAVE_MESSAGE, 0, GROUP)
        assert leave[1:] == (igmp.IGMP_ALL_ROUTER, message)
        # robustness (2) times the query interval (125 s), and the response interval (10 s)
        rig.router.listen(261)
        rig.join()
        assert rig.router.records(5) == [(TO_EX, GROUP, ())] * 2


def test_another_hosts_report_is_enough() -> None:
    with World(3) as world:
        rig = Rig(world)
        rig.router.ask(query2(100))
        rig.join()
        rig.router.listen(30)
        rig.router.ask(query2(100))
        report = igmp.build(igmp.IGMPV2_HOST_MEMBERSHIP_REPORT, 0, GROUP)
        rig.router.ask(report, GROUP, OTHER)
        assert rig.router.listen(30) == []
        rig.leave()
        assert rig.router.listen(5) == []  # who reported last leaves


def test_version_1_has_no_leave() -> None:
    with World(3) as world:
        rig = Rig(world)
        rig.router.ask(query2(0))
        rig.router.listen(1)
        rig.join()
        report = igmp.build(igmp.IGMP_HOST_MEMBERSHIP_REPORT, 0, GROUP)
        assert [r[1:] for r in rig.router.listen(30)] == [(GROUP, report)] * 2
        rig.leave()
        assert rig.router.listen(30) == []


def test_an_older_querier_ends_reports_of_version_3() -> None:
    with World(3) as world:
        rig = Rig(world)
        rig.join()
        world.advance(2_000_000)
        rig.router.ask(query2(10))
        told = [message[0] for _, _, message in rig.router.listen(30)]
        assert told == [igmp.IGMPV3_HOST_MEMBERSHIP_REPORT, igmp.IGMPV2_HOST_MEMBERSHIP_REPORT]


def test_a_version_can_be_forced() -> None:
    name = "net.ipv4.conf.all.force_igmp_version"
    with World(3) as world:
        rig = Rig(world, **{name: 2})
        rig.join()
        assert {message[0] for _, _, message in rig.router.listen(30)} == {0x16}


# ---- what is not reported --------------------------------------------------------------------


@pytest.mark.parametrize(("on", "count"), [(1, 2), (0, 0)])
def test_groups_of_the_link_are_reported_where_the_sysctl_says_so(on: int, count: int) -> None:
    with World(1) as world:
        rig = Rig(world, **{"net.ipv4.igmp_link_local_mcast_reports": on})
        rig.join(b"\xe0\0\0\xfb")
        assert len(rig.router.listen(5)) == count


def test_all_hosts_is_never_reported_and_bad_messages_do_nothing() -> None:
    with World(1) as world:
        rig = Rig(world)
        rig.join(ALL_HOSTS)
        assert rig.router.listen(5) == []
        rig.join()
        rig.router.listen(5)
        good = igmp.build_v3_query(10, bytes(4))
        rig.router.ask(good[:10])  # neither version 2 nor 3
        rig.router.ask(good[:2] + b"\0\0" + good[4:])
        rig.router.ask(good[:4])
        assert rig.router.listen(20) == []
        drops = rig.host.net("ip").drops
        assert drops["SKB_DROP_REASON_SKB_CSUM"] == 1
        assert drops["SKB_DROP_REASON_PKT_TOO_SMALL"] == 2
        world.check_conservation()


def test_many_sources_go_in_as_many_reports_as_the_mtu_asks_for() -> None:
    with World(1) as world:
        rig = Rig(world, **{"net.ipv4.igmp_max_msf": 1000})
        sources = [i.to_bytes(4, "big") for i in range(0x0A010000, 0x0A010000 + 800)]
        header = GROUP + OWN + (1).to_bytes(4, "little") + len(sources).to_bytes(4, "little")
        rig.join()
        rig.router.listen(5)
        rig.set(mcast.IP_MSFILTER, header + b"".join(sources))
        told = rig.router.records(0.1)
        assert [kind for kind, _, _ in told] == [TO_IN, TO_IN, TO_IN]
        assert [s for _, _, part in told for s in part] == sources
