# SPDX-License-Identifier: MIT
"""Raw, ping, UDP-Lite and multicast sockets, and IGMP: ours and Linux's at the two ends of a
cable, and Linux's at both."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Cable, End, Lab

pytestmark = [pytest.mark.lab, pytest.mark.ends("endpoints_inet")]

Poll = Callable[[Callable[[], bool], float, str], None]

NONE = "10.77.0.99"
ALERT = {"tos": 0xC0, "ttl": 1, "df": True, "options": "94040000", "check": 0, "sound": 0}


@pytest.fixture(params=["ours", "linux"])
def pair(request: pytest.FixtureRequest, cable: Cable) -> Any:
    """(this end, its address, the other end, its address), both ways round."""
    ours, linux = cable.ours, cable.linux
    here = (ours, cable.address, linux, cable.peer_address)
    there = (linux, cable.peer_address, ours, cable.address)
    return here if request.param == "ours" else there


# ---- raw -------------------------------------------------------------------------------------


def test_a_raw_socket_gets_the_reply_with_its_ip_header(pair: Any) -> None:
    here, own, _, host = pair
    found = here("raw_ping", host=host).result()
    payload = bytes.fromhex(found.pop("payload"))
    assert payload[:2] + payload[4:] == b"\0\0\x12\x34\0\x05raw and bare"
    assert found == {
        "name": ["0.0.0.0", 1], "filter": "feffffff", "sender": [host, 0], "ihl": 20, "tos": 0,
        "len": True, "df": False, "ttl": 64, "protocol": 1, "check": 0, "saddr": host,
        "daddr": own, "options": "",
    }  # fmt: skip


def test_a_raw_packet_has_the_sockets_ttl_and_tos(pair: Any) -> None:
    here, own, there, host = pair
    receiver = there("raw_receive", protocol=253, count=2)
    receiver.heard("ready")
    sender = here("raw_send", protocol=253, host=host, payloads=["00", "ab" * 1480])
    assert sender.result() == [1, 1480]
    small, large = receiver.result()
    assert (small["payload"], large["payload"]) == ("00", "ab" * 1480)
    for fields in (small, large):
        assert fields["ttl"] == 17
        assert fields["tos"] == 0x48
        assert (fields["saddr"], fields["daddr"]) == (own, host)
        assert (fields["df"], fields["len"], fields["check"]) == (True, True, 0)


def test_with_hdrincl_what_is_left_out_is_filled_in(pair: Any) -> None:
    here, own, there, host = pair
    receiver = there("raw_receive", protocol=253, count=2)
    receiver.heard("ready")
    sent = here("raw_send_hdrincl", host=host).result()
    assert sent == {
        "hdrincl": 1, "sent": 30, "spoofed": 31, "short": "EINVAL", "long": "EMSGSIZE",
        "ihl": "EINVAL",
    }  # fmt: skip
    first, second = receiver.result()
    assert first["payload"] == b"own header".hex()
    assert (first["saddr"], first["ttl"], first["tos"]) == (own, 33, 8)
    assert (first["id"], first["len"], first["check"]) == (True, True, 0)
    assert (second["saddr"], second["ttl"], second["options"]) == (NONE, 5, "94040000")
    assert (second["payload"], second["len"]) == (b"spoofed".hex(), True)


def test_every_raw_socket_that_matches_gets_a_copy(pair: Any) -> None:
    here, own, there, host = pair
    receiver = here("raw_copies", host=host, other=NONE, own=own)
    receiver.heard("ready")
    there("raw_send", protocol=253, host=own, payloads=[b"all ears".hex()]).result()
    text = b"all ears".hex()
    assert receiver.result() == {"all": text, "peer": text, "other": "timed out", "bound": text}


def test_a_connected_raw_socket_hears_that_nobody_takes_its_protocol(pair: Any) -> None:
    here, _, _, host = pair
    found = here("raw_refused", host=host).result()
    assert found == {"connected": "ENOPROTOOPT", "free": "timed out"}


# ---- ping ------------------------------------------------------------------------------------


def test_ping_sockets(pair: Any) -> None:
    here, _, _, host = pair
    assert here("ping", host=host).result() == {
        "before": ["0.0.0.0", 0],
        "sent": 20,
        "reply": [0, 0, True, 7, "without root"],
        "sound": 0,
        "sender": [host, 0],
        "taken": "EADDRINUSE",
        "nowhere": "EADDRNOTAVAIL",
        "name": 4242,
        "peer": [host, 9],
        "large": [3008, 4242],
        "other type": "EINVAL",
        "short": "EINVAL",
        "hdrincl": "ENOPROTOOPT",
        "no peer": "EDESTADDRREQ",
    }


# ---- UDP-Lite --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cscov", "heard"),
    [(-1, [1, 1, 1, 1]), (16, [1, 0, 1, 1]), (0, [1, 0, 0, 1])],
    ids=["any", "at least 16", "all"],
)
def test_udplite_coverage_that_is_asked_for(
    pair: Any, port: int, cscov: int, heard: list[int]
) -> None:
    here, _, there, host = pair
    server = there("lite_serve", port=port, cscov=cscov, count=sum(heard))
    server.heard("ready")
    sends: list[tuple[int, int, str]] = [
        (-1, 30, "whole"),
        (8, 30, "header"),
        (16, 9000, "sixteen"),
        (2000, 30, "beyond"),
    ]
    texts = [text.ljust(size, ".") for _, size, text in sends]
    silent = [n for n, h in enumerate(heard) if not h]
    answers = here("lite_send", host=host, port=port, sends=sends, silent=silent).result()
    assert answers == [
        text[:10].encode().hex() if h else "timed out" for text, h in zip(texts, heard, strict=True)
    ]
    told = server.result()
    assert told["cscov"] == max(cscov, 0)
    assert [n for n, _ in told["found"]] == [
        len(text) for text, h in zip(texts, heard, strict=True) if h
    ]


def test_udplite_takes_damage_behind_the_coverage_alone(pair: Any, port: int) -> None:
    here, own, there, host = pair
    server = there("lite_serve", port=port, cscov=-1, count=2)
    server.heard("ready")
    here("lite_forge", saddr=own, daddr=host, port=port).result()
    found = [bytes.fromhex(text) for _, text in server.result()["found"]]
    assert found == [b"cov1DAMAGE", b"all of it."]


def test_udplite_to_a_closed_port_is_refused(pair: Any, port: int) -> None:
    here, _, _, host = pair
    end = here("lite_send", host=host, port=port, sends=[[-1, 9, "x"]], silent=[])
    assert end.result() == ["ECONNREFUSED"]


# ---- multicast -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "every", "heard"),
    [
        ([["35", "239.1.1.1"]], 1, ["one"]),
        ([["35", "239.1.1.1"], ["35", "239.1.1.2"]], 1, ["one", "two"]),
        ([["35", "239.1.1.1"], ["36", "239.1.1.1"], ["35", "239.1.1.2"]], 1, ["two"]),
        ([["35", "239.1.1.1"], ["38", "239.1.1.1", "PEER"]], 0, []),
        ([["35", "239.1.1.1"], ["38", "239.1.1.1", NONE]], 0, ["one"]),
        ([["39", "239.1.1.2", "PEER"]], 0, ["two"]),
        ([["39", "239.1.1.2", NONE]], 0, []),
        (
            [["35", "239.1.1.1"], ["38", "239.1.1.1", "PEER"], ["37", "239.1.1.1", "PEER"]],
            0,
            ["one"],
        ),
    ],
    ids=["one", "two", "left", "blocked", "another blocked", "from", "from another", "unblocked"],
)  # fmt: skip
def test_multicast_and_its_source_filters(
    pair: Any, port: int, steps: list[list[str]], every: int, heard: list[str]
) -> None:
    here, own, there, host = pair
    steps = [[s.replace("PEER", own) for s in step] for step in (*steps, ["35", "239.1.1.9"])]
    receiver = there("multicast_receive", own=host, port=port, steps=steps, all=every)
    assert receiver.heard("ready") == [None] * len(steps)
    sends = [["239.1.1.1", "one"], ["239.1.1.2", "two"], ["239.1.1.3", "three"]]
    sender = here("multicast_send", own=own, port=port, sends=sends, end="239.1.1.9")
    assert receiver.result() == heard
    packed = "".join(f"{int(part):02x}" for part in own.split("."))
    assert sender.result() == {"if": packed, "ttl": 1, "loop": 1}


def test_without_multicast_all_a_socket_hears_its_own_groups(pair: Any, port: int) -> None:
    here, own, there, host = pair
    one = there("multicast_receive", own=host, port=port, steps=[["35", "239.1.1.1"],
                                                                 ["35", "239.1.1.9"]])  # fmt: skip
    one.heard("ready")
    both = [
        there("multicast_receive", own=host, port=port, steps=[["35", "239.1.1.9"]], all=every)
        for every in (0, 1)
    ]
    for end in both:
        end.heard("ready")
    here("multicast_send", own=own, port=port, sends=[["239.1.1.1", "one"]], end="239.1.1.9")
    assert one.result() == ["one"]
    assert [end.result() for end in both] == [[], ["one"]]


def test_ones_own_multicast_comes_back(pair: Any, port: int) -> None:
    here, own, _, _ = pair
    assert here("multicast_to_self", own=own, port=port, group="239.1.1.5").result() == {
        "default": 1, "on": b"on".hex(), "ttl 0": b"ttl 0".hex(), "off": "timed out",
    }  # fmt: skip


def test_every_multicast_option_ends_as_in_linux(lab: Lab) -> None:
    ours = lab.ours("options", own=lab.address).result()
    linux = lab.linux("options", own=lab.peer_address).result()
    assert ours == linux
    assert {outcome for _, outcome in linux} >= {
        None, "EADDRINUSE", "EADDRNOTAVAIL", "EINVAL", "ENODEV", "ENOBUFS",
    }  # fmt: skip


# ---- IGMP ------------------------------------------------------------------------------------


def _go(end: End, step: list[Any]) -> None:
    end.go_on()
    option, group, *source = step
    end.heard(f"step {option} {group} {''.join(source)}")


def test_igmpv3_reports_what_changes(cable: Cable) -> None:
    here, own, there, host = cable.ours, cable.address, cable.linux, cable.peer_address
    group, source = "239.2.3.4", "10.1.1.1"
    steps: list[list[Any]] = [[35, group], [38, group, source], [36, group]]
    host_end = here("member", own=own, steps=steps)
    host_end.heard("ready")
    router = there("igmp_router", own=host, group=group, queries=[])
    router.heard("ready")
    for n, step in enumerate(steps, 1):
        _go(host_end, step)
        router.heard(f"report {2 * n}")  # each is reported twice within 1 s
    time.sleep(1.2)  # and not a third time
    host_end.go_on()
    router.go_on()
    told = router.result()
    for report in told:
        # the groups of earlier tests may still be on their way out
        report["says"] = [record for record in report["says"] if record[1] == group]
    says = [report["says"] for report in told]
    assert says == [
        [[4, group, []]], [[4, group, []]],  # CHANGE_TO_EXCLUDE
        [[6, group, [source]]], [[6, group, [source]]],  # BLOCK_OLD_SOURCES
        [[3, group, []]], [[3, group, []]],  # CHANGE_TO_INCLUDE
    ]  # fmt: skip
    for report in told:
        del report["says"]
        assert report == {**ALERT, "daddr": "224.0.0.22", "type": 0x22}


def test_igmpv3_answers_general_group_and_source_queries(cable: Cable) -> None:
    here, own, there, host = cable.ours, cable.address, cable.linux, cable.peer_address
    group = "239.2.3.5"
    steps: list[list[Any]] = [[39, group, "10.1.1.1"], [39, group, "10.1.1.2"]]
    host_end = here("member", own=own, steps=steps)
    host_end.heard("ready")
    router = there("igmp_router", own=host, group=group, queries=[])
    router.heard("ready")
    for n, step in enumerate(steps, 1):
        _go(host_end, step)
        router.heard(f"report {2 * n}")
    router.go_on()  # all changes are reported
    query = struct.pack("!BBH4sBBH", 0x11, 5, 0, bytes(4), 2, 125, 0).hex()
    groups = b"\xef\2\3\5"
    of_group = struct.pack("!BBH4sBBH", 0x11, 5, 0, groups, 2, 125, 0).hex()
    of_source = struct.pack("!BBH4sBBH4s4s", 0x11, 5, 0, groups, 2, 125, 2,
                            b"\x0a\1\1\2", b"\x0a\1\1\7").hex()  # fmt: skip
    sources = ["10.1.1.1", "10.1.1.2"]
    for message, daddr, said in (
        (query, "224.0.0.1", [1, group, sources]),
        (of_group, group, [1, group, sources]),
        (of_source, group, [1, group, ["10.1.1.2"]]),
    ):
        router = there("igmp_router", own=host, group=group, queries=[[message, daddr]])
        router.heard("report 1")
        time.sleep(0.7)  # all answers come within 0.5 s
        router.go_on()
        told = router.result()
        assert [said] == [r for report in told for r in report["says"] if r[1] == group]
    host_end.go_on()


def test_igmpv2_for_a_router_that_speaks_it(lab: Lab, poll: Poll) -> None:
    """Linux's namespaces would have to wait minutes for version 3 to come back."""
    group = "239.2.3.6"
    host_end = lab.ours("member", own=lab.address, steps=[[35, group], [36, group]])
    host_end.heard("ready")
    query = struct.pack("!BBH4s", 0x11, 3, 0, bytes(4)).hex()
    asking = lab.linux("igmp_router", own=lab.peer_address, group=group,
                       queries=[[query, "224.0.0.1"]])  # fmt: skip

    def knows() -> bool:
        groups = lab.layer_status("ip")["core"]["igmp"]
        return {g["version"] for g in groups if g["dev"] == lab.dev} == {2}

    poll(knows, 60.0, "a router of version 2 is known")
    asking.go_on()
    assert asking.result() == []
    router = lab.linux("igmp_router", own=lab.peer_address, group=group, queries=[])
    router.heard("ready")
    _go(host_end, [35, group])
    router.heard("report 1")
    _go(host_end, [36, group])
    router.heard("left")
    router.go_on()
    told = router.result()
    joined, left = (0x16, group, group), (0x17, "224.0.0.2", group)
    says = [(r["type"], r["daddr"], r["says"]) for r in told]
    # The report is repeated after up to 10 s (RFC 2236 8.10), unless we have left by then.
    assert says in ([joined, left], [joined, joined, left])
    for report in told:
        assert {k: report[k] for k in ALERT} == ALERT
    host_end.go_on()
