# SPDX-License-Identifier: MIT
"""Accurate ECN over paths that bleach, mangle and drop (RFC 9768 3.1.4, 3.2.2.3, 3.2.2.4, 3.2.3.2):
two whole stacks, and a box in the middle of their link."""

from collections.abc import Callable
from typing import Any

import pytest

from skbus.core.net import MSEC, SEC
from skbus.inet.headers.tcp import TcpHdr
from skbus.testing import Future, World
from skbusd.tcp.sock import TcpSock
from skbusd.tcp.tcp_accecn_option import (
    TCP_ACCECN_ACE_FAIL_RECV,
    TCP_ACCECN_ACE_FAIL_SEND,
    TCP_ACCECN_OPT_COUNTER_SEEN,
    TCP_ACCECN_OPT_FAIL_RECV,
    TCP_ACCECN_OPT_FAIL_SEEN,
    TCP_ACCECN_OPT_FAIL_SEND,
    TCP_ACCECN_OPT_NOT_SEEN,
)
from skbustest.middlebox import (
    ACCECN_OPTIONS,
    ACE,
    CE,
    ECT_0,
    ECT_1,
    NOT_ECT,
    Middlebox,
    is_syn,
    is_synack,
)

PORT = 5001
SIZE = 400_000


class Ends:
    """What a transfer of SIZE bytes from client to server left."""

    client: TcpSock
    server: TcpSock
    seconds: float
    """until the connection was there"""
    mib: dict[str, int]


def transfer(
    up: Middlebox | None = None,
    down: Middlebox | None = None,
    *,
    option: int = 2,
    mark: int = 8,
    loss: float = 0,
    sysctl: dict[str, object] | None = None,
    look: Callable[[TcpSock, TcpSock], None] | None = None,
    size: int = SIZE,
    rate: int = 4_000_000,
    delay: int = 5 * MSEC,
) -> Ends:
    """up: what the client's frames pass; down: what the server's do. look: at both ends, after a
    part of the transfer."""
    ends = Ends()
    with World(11) as world:
        settings: dict[str, object] = {
            "net.ipv4.tcp_ecn": 3,
            "net.ipv4.tcp_ecn_option": option,
            **(sysctl or {}),
        }
        a = world.host("a", "10.0.0.1/24", sysctl=dict(settings))
        b = world.host("b", "10.0.0.2/24", sysctl=dict(settings))
        link = world.link(a, b, rate=rate, delay=delay, mark=mark, limit=200, loss=loss)
        link.tamper(a, up)
        link.tamper(b, down)
        ready: Future[None] = Future()

        async def server() -> int:
            listener = await b.listen(PORT)
            ready.set(None)
            peer, _ = await listener.accept()
            got = 0
            while got < size and (data := await peer.recv(1 << 20)):
                got += len(data)
                if look is not None and got > size // 2:
                    ends.server, ends.client = of(b), of(a)
                    look(ends.client, ends.server)
            ends.server, ends.client = of(b), of(a)
            await peer.send(b"thanks")
            return got

        def of(host: Any) -> TcpSock:
            (tp,) = (
                tp
                for tp in host.net("tcp").socks.values()
                if PORT in (tp.sport, tp.dport) and tp.dport
            )
            found: TcpSock = tp
            return found

        async def client() -> None:
            await ready
            start = world.now
            sock = await a.connect("10.0.0.2", PORT)
            ends.seconds = (world.now - start) / SEC
            sent = 0
            while sent < size:
                sent += await sock.send(bytes(size - sent))
            assert await sock.recv(100) == b"thanks"
            await world.sleep(SEC)

        serving = world.start(server())
        asking = world.start(client())
        world.run(asking, limit=600 * SEC)
        assert serving.result() == size
        ends.mib = {**a.net("tcp").mib}
        world.check_conservation()
    return ends


def settled(ends: Ends) -> None:
    """Sender and receiver have counted alike, packets and bytes."""
    client, server = ends.client, ends.server
    assert client.accecn is not None
    assert server.accecn is not None
    assert server.accecn.received_ce > 5
    assert 0 <= server.accecn.received_ce - client.delivered_ce <= 8, "but for what is on its way"
    assert client.accecn.opt_seen == server.accecn.opt_seen == TCP_ACCECN_OPT_COUNTER_SEEN
    for ours, theirs in zip(
        client.accecn.delivered_bytes, server.accecn.received_bytes, strict=True
    ):
        assert 0 <= theirs - ours <= 100_000
    assert client.accecn.fail_mode == server.accecn.fail_mode == 0


@pytest.mark.parametrize("option", [1, 2])
def test_both_ends_count_the_same_bytes(option: int) -> None:
    ends = transfer(option=option)
    settled(ends)
    server = ends.server.accecn
    assert server is not None
    e1, e0, ce = server.received_bytes
    assert e1 == 0
    assert e0 + ce == SIZE, "each byte came once"
    assert ce > 0


def test_the_bytes_are_right_when_all_is_there() -> None:
    """The last ACK has the last word."""
    ends = transfer()
    assert ends.client.accecn is not None
    assert ends.server.accecn is not None
    assert sum(ends.client.accecn.delivered_bytes) <= SIZE
    assert sum(ends.server.accecn.received_bytes) == SIZE


def test_with_loss_no_mark_is_forgotten() -> None:
    ends = transfer(loss=0.02)
    client, server = ends.client, ends.server
    assert client.accecn is not None
    assert server.accecn is not None
    assert abs(server.accecn.received_ce - client.delivered_ce) <= 8


def test_acks_that_are_filtered_out_are_made_good_by_the_option() -> None:
    """One ACK of five to nine gets through: the counter in the header goes round in between."""
    wrong = {0: 0, 2: 0}
    for keep in (5, 7, 9):
        for option in wrong:
            seen = [0]

            def thin(
                th: TcpHdr, _kinds: set[int], seen: list[int] = seen, keep: int = keep
            ) -> bool:
                seen[0] += 1
                return not th.flags & 0xF and seen[0] % keep > 0

            box = Middlebox(drop=thin)
            ends = transfer(
                down=box, mark=20, option=option, size=SIZE * 3, rate=20_000_000, delay=20 * MSEC
            )
            assert box.dropped > 50
            assert ends.server.accecn is not None
            wrong[option] += abs(ends.client.delivered_ce - ends.server.accecn.received_ce)
    assert wrong[2] <= 6, "the bytes tell how often it has"
    assert wrong[0] > 8, "without them it is a guess"


# ---- the option ------------------------------------------------------------------------------


def test_a_stripped_option_leaves_the_counter() -> None:
    """3.2.3.2.3: both ends go on with ACE alone, and go on sending the option."""
    box = Middlebox(strip=ACCECN_OPTIONS)
    ends = transfer(box, Middlebox(strip=ACCECN_OPTIONS))
    assert box.changed > 10
    for tp in (ends.client, ends.server):
        assert tp.accecn is not None
        assert tp.accecn.opt_seen == TCP_ACCECN_OPT_NOT_SEEN
        assert tp.accecn.fail_mode == 0
    assert ends.server.accecn is not None
    assert 0 <= ends.server.accecn.received_ce - ends.client.delivered_ce <= 8
    assert ends.client.delivered_ce > 5


def test_a_cleared_option_is_not_read() -> None:
    """3.2.3.2.4"""
    ends = transfer(down=Middlebox(zero=ACCECN_OPTIONS))
    assert ends.client.accecn is not None
    assert ends.server.accecn is not None
    assert ends.client.accecn.opt_seen == TCP_ACCECN_OPT_FAIL_SEEN
    assert ends.client.accecn.fail_mode == TCP_ACCECN_OPT_FAIL_RECV
    assert ends.client.accecn.delivered_bytes == [0, 0, 0]
    assert ends.server.accecn.opt_seen == TCP_ACCECN_OPT_COUNTER_SEEN
    assert 0 <= ends.server.accecn.received_ce - ends.client.delivered_ce <= 8


def has_option(th: TcpHdr, kinds: set[int]) -> bool:
    return bool(kinds.intersection(ACCECN_OPTIONS))


def test_dropped_for_its_option_a_syn_ack_goes_without() -> None:
    """3.2.3.2.2: the second SYN-ACK has no option; Accurate ECN it is all the same."""
    box = Middlebox(drop=has_option)
    ends = transfer(down=box)
    assert box.dropped == 1, "the server has given it up"
    assert ends.seconds == pytest.approx(1, abs=0.1)
    assert ends.server.accecn is not None
    assert ends.client.accecn is not None
    assert ends.server.accecn.fail_mode == TCP_ACCECN_OPT_FAIL_SEND
    assert ends.client.accecn.fail_mode == 0
    assert 0 <= ends.server.accecn.received_ce - ends.client.delivered_ce <= 8


def test_dropped_for_its_option_data_goes_without() -> None:
    """3.2.3.2.2: the first data that was lost, and what follows."""
    box = Middlebox(drop=has_option)
    ends = transfer(up=box)
    assert ends.client.accecn is not None
    assert ends.client.accecn.fail_mode == TCP_ACCECN_OPT_FAIL_SEND
    assert ends.client.delivered_ce > 5


def test_dropped_for_their_option_acks_go_without() -> None:
    """3.2.3.2.2: data that is acknowledged comes again and again."""

    def ack_has(th: TcpHdr, kinds: set[int]) -> bool:
        return has_option(th, kinds) and not is_synack(th)

    ends = transfer(down=Middlebox(drop=ack_has))
    assert ends.server.accecn is not None
    assert ends.server.accecn.fail_mode == TCP_ACCECN_OPT_FAIL_SEND


# ---- the handshake ---------------------------------------------------------------------------


def once(test: Callable[[TcpHdr], bool], times: int = 1) -> Middlebox:
    """Drops the first segments of a kind."""
    left = [times]

    def drop(th: TcpHdr, _kinds: set[int]) -> bool:
        if test(th) and left[0]:
            left[0] -= 1
            return True
        return False

    return Middlebox(drop=drop)


def test_a_lost_syn_is_no_reason_to_give_it_up() -> None:
    """3.1.4.1: it is asked for once more."""
    ends = transfer(up=once(is_syn))
    assert ends.seconds == pytest.approx(1, abs=0.1)
    settled(ends)


def test_a_path_that_drops_syns_that_ask() -> None:
    """3.1.4.1: the third SYN asks for nothing."""
    box = Middlebox(drop=lambda th, _: is_syn(th) and th.flags & ACE > 0)
    ends = transfer(up=box)
    assert box.dropped == 2
    assert ends.seconds == pytest.approx(2, abs=0.1)
    assert (ends.client.accecn, ends.server.accecn) == (None, None)
    assert ends.client.ecn_flags == ends.server.ecn_flags == 0


def test_a_lost_syn_ack_keeps_it() -> None:
    ends = transfer(down=once(is_synack))
    assert ends.client.accecn is not None
    assert ends.server.accecn is not None
    assert ends.server.accecn.fail_mode == TCP_ACCECN_OPT_FAIL_SEND
    assert 0 <= ends.server.accecn.received_ce - ends.client.delivered_ce <= 8


def test_a_path_that_drops_syn_acks_that_agree() -> None:
    """3.2.3.2.2, 3.1.5: the third SYN-ACK has no flags: the client has no ECN, and the server,
    which goes on to feed back, sends nothing that is ECN-capable."""
    box = Middlebox(drop=lambda th, _: is_synack(th) and th.flags & ACE > 0)
    ends = transfer(down=box)
    assert ends.client.accecn is None
    assert ends.client.ecn_flags == 0
    server = ends.server.accecn
    assert server is not None
    assert server.fail_mode & TCP_ACCECN_ACE_FAIL_SEND
    assert server.received_bytes == [0, 0, 0]


@pytest.mark.parametrize("fallback", [0, 1])
def test_the_fallback_is_a_sysctl(fallback: int) -> None:
    """`net.ipv4.tcp_ecn_fallback`"""
    box = once(is_syn, 3)
    ends = transfer(up=box, sysctl={"net.ipv4.tcp_ecn_fallback": fallback})
    assert (ends.client.accecn is None) == bool(fallback)


# ---- the ECN field of IP ---------------------------------------------------------------------


def test_a_bleached_path_is_one_without_marks() -> None:
    box = Middlebox(ecn={ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: NOT_ECT})
    ends = transfer(up=box)
    assert box.changed > 10
    assert ends.client.accecn is not None
    assert ends.server.accecn is not None
    assert ends.server.accecn.received_bytes == [0, 0, 0]
    assert ends.client.delivered_ce == 0
    assert ends.client.accecn.delivered_bytes == [0, 0, 0]


@pytest.mark.parametrize("field", [ECT_0, ECT_1, CE])
def test_a_syn_that_is_mangled_stops_ect_and_no_feedback(field: int) -> None:
    """3.2.2.3: not-ECT became something: nothing ECN-capable is sent any more, but marks that the
    path makes of it all the same are told, and believed."""
    ends = transfer(up=Middlebox(ecn={NOT_ECT: field}, when=is_syn))
    client, server = ends.client.accecn, ends.server.accecn
    assert client is not None
    assert server is not None
    assert client.fail_mode == TCP_ACCECN_ACE_FAIL_RECV
    assert not client.deaf
    assert server.received_bytes == [0, 0, 0]
    assert server.fail_mode == 0


def test_a_syn_ack_that_is_mangled_stops_the_server_s_ect() -> None:
    ends = transfer(down=Middlebox(ecn={NOT_ECT: ECT_0}, when=is_synack))
    assert ends.server.accecn is not None
    assert ends.client.accecn is not None
    assert ends.server.accecn.fail_mode == TCP_ACCECN_ACE_FAIL_RECV
    assert ends.client.accecn.fail_mode == 0
    assert ends.client.delivered_ce > 5, "the other half goes on"


def test_all_marked_not_ect_becomes_ce() -> None:
    """A path that makes CE of everything is told by each ACK, and the sender slows down."""
    ends = transfer(up=Middlebox(ecn=dict.fromkeys(range(4), CE)), size=60_000)
    server = ends.server.accecn
    assert server is not None
    assert server.received_bytes == [0, 0, 60_000]
    assert ends.client.accecn is not None
    assert ends.client.accecn.fail_mode == TCP_ACCECN_ACE_FAIL_RECV
    assert ends.client.delivered_ce > 0, "believed all the same (3.2.2.3)"


# ---- the counter in the header ---------------------------------------------------------------


def test_a_cleared_counter_is_not_believed() -> None:
    """3.2.2.4, after the handshake: no ECT, and no answer to marks."""
    box = Middlebox(flags=lambda _: 0, when=lambda th: not th.flags & 2)
    ends = transfer(down=box)
    client = ends.client.accecn
    assert client is not None
    assert client.fail_mode == TCP_ACCECN_ACE_FAIL_RECV
    assert client.deaf
    assert ends.client.delivered_ce == 0
    assert ends.server.accecn is not None
    assert ends.server.accecn.fail_mode == 0


def test_a_handshake_s_ack_that_is_cleared_makes_the_server_deaf() -> None:
    """3.2.2.1, note 1"""
    ends = transfer(up=Middlebox(flags=lambda _: 0, when=lambda th: not th.flags & 2))
    server = ends.server.accecn
    assert server is not None
    assert server.fail_mode == TCP_ACCECN_ACE_FAIL_RECV
    assert server.deaf
    assert server.received_ce > 5, "as a receiver it goes on"
    assert 0 <= server.received_ce - ends.client.delivered_ce <= 8


def test_marked_bytes_without_marked_packets_are_a_contradiction() -> None:
    """3.2.3.2.5: the counter in the header stands still while the option's grows."""
    box = Middlebox(flags=lambda _: 5 << 6, when=lambda th: not th.flags & 2)
    ends = transfer(down=box)
    client = ends.client.accecn
    assert client is not None
    assert client.fail_mode & TCP_ACCECN_ACE_FAIL_RECV
