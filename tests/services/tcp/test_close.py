# SPDX-License-Identifier: MIT
"""Closing: every order of FINs, half close, abort, TIME_WAIT, FIN_WAIT2, orphans
(RFC 9293 3.6, 3.10.4, 3.10.7.4)."""

import errno
from functools import partial

import pytest

from skbus.core import uapi
from skbus.core.abi import ReqskQueueAdd, SkErrorReport, TcpDone, TcpFin
from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp.const import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_LINGER2,
    TCP_TIME_WAIT,
)
from skbusd.tcp.request_sock import TcpTimewaitSock
from skbustest.tcphost import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Conn,
    SimApp,
    TcpHost,
    TcpPair,
    payload,
)

MASK = 0xFFFFFFFF


def timewait(host: TcpHost) -> TcpTimewaitSock:
    """The only TIME_WAIT there is."""
    (tw,) = host.net.ehash.values()
    assert isinstance(tw, TcpTimewaitSock)
    return tw


def test_active_close(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    assert conn.sent() == [("FA", 0, 0, 0)]
    assert conn.tp.state == TCP_FIN_WAIT1
    conn.rcv(ACK, 0, 1)
    # nobody is left: the small one waits for the FIN
    assert conn.sk not in host.net.socks
    assert timewait(host).substate == TCP_FIN_WAIT2
    # all was acknowledged when it was closed: the socket layer has forgotten it by then
    assert TcpDone(conn.sk) not in host.events()
    conn.rcv(FIN | ACK, 0, 1)
    assert conn.sent() == [("A", 1, 0, 1)]
    assert timewait(host).substate == TCP_TIME_WAIT
    host.run_for(59)
    assert host.net.tw_count == 1
    host.run_for(3)
    assert host.net.tw_count == 0
    assert host.net.mib["TcpExtTW"] == 1
    assert host.net.mib["TcpCurrEstab"] == 0
    assert host.net.orphan_count == 0


def test_active_close_with_fin_and_ack_together(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    conn.sent()
    conn.rcv(FIN | ACK, 0, 1)
    assert conn.sent() == [("A", 1, 0, 1)]
    assert timewait(host).substate == TCP_TIME_WAIT


def test_passive_close(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(FIN | ACK)
    assert host.events()[0] == TcpFin(conn.sk)
    assert conn.tp.state == TCP_CLOSE_WAIT
    host.run_for(0.3)
    assert conn.sent() == [("A", 0, 0, 1)]
    conn.send(10)
    assert conn.sent() == [("PA", 0, 10, 1)]
    host.close(conn.sk)
    assert conn.sent() == [("FA", 10, 0, 1)]
    assert conn.tp.state == TCP_LAST_ACK
    conn.rcv(ACK, 1, 10)
    assert conn.tp.state == TCP_LAST_ACK
    conn.rcv(ACK, 1, 11)
    assert conn.sk not in host.net.socks
    assert not host.net.ehash
    assert host.net.tw_count == 0
    assert host.events()[-1] == TcpDone(conn.sk)


def test_simultaneous_close(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    conn.sent()
    conn.rcv(FIN | ACK, 0, 0)
    assert conn.tp.state == TCP_CLOSING
    assert conn.sent() == [("A", 1, 0, 1)]
    conn.rcv(ACK, 1, 1)
    assert timewait(host).substate == TCP_TIME_WAIT
    assert conn.sk not in host.net.socks


def test_half_close_still_receives(host: TcpHost) -> None:
    conn = Conn(host)
    host.shutdown(conn.sk, 2)
    assert conn.sent() == [("FA", 0, 0, 0)]
    conn.rcv(ACK, 0, 1)
    assert conn.tp.state == TCP_FIN_WAIT2
    host.run_for(300)
    assert conn.tp.state == TCP_FIN_WAIT2
    conn.rcv(ACK | PSH, 0, 1, b"late")
    assert host.delivered() == b"late"
    conn.rcv(FIN | ACK, 4, 1)
    assert TcpFin(conn.sk) in host.events()
    assert timewait(host).substate == TCP_TIME_WAIT
    assert conn.tp.state == TCP_CLOSE
    host.close(conn.sk)
    assert conn.sk not in host.net.socks
    assert host.net.tw_count == 1


def test_fin_waits_behind_data_and_goes_with_it(host: TcpHost) -> None:
    conn = Conn(host, win=0)
    conn.rcv(ACK, win=0)
    conn.send(100)
    host.close(conn.sk)
    assert conn.sent() == []
    conn.rcv(ACK, 0, 0, win=1000)
    assert conn.sent() == [("FPA", 0, 100, 0)]


def test_data_after_close_is_answered_with_rst(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    conn.sent()
    conn.rcv(ACK | PSH, 0, 0, b"data")
    ((flags, seq, _, _),) = conn.sent()
    assert flags == "R"
    assert seq == 0
    assert conn.sk not in host.net.socks
    assert host.net.mib["TcpExtTCPAbortOnData"] == 1


def test_data_for_a_fin_wait2_that_is_small_is_answered_with_rst(host: TcpHost) -> None:
    conn = Conn(host)
    host.close(conn.sk)
    conn.rcv(ACK, 0, 1)
    conn.sent()
    conn.rcv(ACK | PSH, 0, 1, b"data")
    assert conn.sent() == [("R", 1, 0, 0)]
    assert host.net.tw_count == 0


def test_closing_with_unread_data_resets(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(ACK | PSH, 0, 0, b"unread")
    conn.sent()
    host.close(conn.sk, unread=6)
    assert conn.sent() == [("RA", 0, 0, 6)]
    assert host.net.mib["TcpExtTCPAbortOnClose"] == 1
    assert conn.sk not in host.net.socks
    assert host.events()[-1] == TcpDone(conn.sk)


def test_linger_zero_resets(host: TcpHost) -> None:
    conn = Conn(host)
    conn.send(5000)
    conn.sent()
    host.close(conn.sk, linger=0)
    assert [f for f, *_ in conn.sent()] == ["RA"]
    assert host.net.mib["TcpExtTCPAbortOnData"] == 1
    assert not host.net.socks.get(conn.sk)


def test_closing_a_socket_that_was_never_connected(host: TcpHost) -> None:
    host.socket(2)
    assert host.bind(2, 80) == 0
    host.close(2)
    assert host.events() == [TcpDone(2)]
    assert not host.net.socks
    assert not host.net.bhash


def test_closing_in_syn_sent_sends_nothing(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    host.sent()
    host.close(2)
    assert host.sent() == []
    assert not host.net.socks
    assert not host.net.ehash
    assert not host.net.bhash


@pytest.mark.parametrize(("before", "err"), [(0, errno.ECONNRESET), (FIN, errno.EPIPE)])
def test_rst_ends_the_connection(host: TcpHost, before: int, err: int) -> None:
    conn = Conn(host)
    if before:
        conn.rcv(FIN | ACK)
    conn.send(10)
    conn.sent()
    host.events()
    conn.rcv(RST, 1 if before else 0)
    events = host.events()
    assert events[0] == SkErrorReport(conn.sk, err, True)
    assert events[-1] == TcpDone(conn.sk)
    assert conn.tp.state == TCP_CLOSE
    assert conn.sent() == []
    assert host.net.mib["TcpEstabResets"] == 1
    host.close(conn.sk)
    assert host.events() == []
    assert conn.sk not in host.net.socks


def test_an_orphan_in_fin_wait1_gives_up(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.send(1000)
    host.close(conn.sk)
    conn.sent()
    host.run_for(3000)
    assert conn.sk not in host.net.socks
    assert host.net.orphan_count == 0
    assert host.net.mib["TcpExtTCPAbortOnTimeout"] == 1


def test_linger2_is_how_long_fin_wait2_lasts(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_LINGER2, 10)
    host.close(conn.sk)
    conn.rcv(ACK, 0, 1)
    host.run_for(9)
    assert host.net.tw_count == 1
    host.run_for(2)
    assert host.net.tw_count == 0


def test_linger2_below_zero_skips_fin_wait2(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, uapi.SOL_TCP, TCP_LINGER2, -1)
    host.close(conn.sk)
    conn.sent()
    conn.rcv(ACK, 0, 1)
    assert host.net.tw_count == 0
    assert conn.sk not in host.net.socks


def test_shutdown_of_reading_tells_nobody(host: TcpHost) -> None:
    conn = Conn(host)
    host.shutdown(conn.sk, 1)
    assert conn.sent() == []
    conn.rcv(ACK | PSH, 0, 0, b"x")
    assert host.delivered() == b"x"


def test_fin_twice_is_acknowledged_twice(host: TcpHost) -> None:
    conn = Conn(host)
    conn.rcv(FIN | ACK)
    host.run_for(0.3)
    conn.sent()
    conn.rcv(FIN | ACK)
    assert conn.sent() == [("A", 0, 0, 1)]


# ---- TIME_WAIT ---------------------------------------------------------------------------------


def in_timewait(host: TcpHost, ts: bool = False) -> Conn:
    """A connection in TIME_WAIT; their next number is 1, ours is 1."""
    conn = Conn(host, ts=ts)
    host.close(conn.sk)
    conn.rcv(FIN | ACK, 0, 1)
    conn.sent()
    host.events()
    return conn


def test_timewait_acknowledges_the_fin_again_and_starts_anew(host: TcpHost) -> None:
    conn = in_timewait(host)
    host.run_for(50)
    conn.rcv(FIN | ACK, 0, 1)
    assert conn.sent() == [("A", 1, 0, 1)]
    host.run_for(50)
    assert host.net.tw_count == 1


def test_rst_assassinates_timewait_unless_rfc1337(host: TcpHost) -> None:
    conn = in_timewait(host)
    conn.rcv(RST, 1)
    assert host.net.tw_count == 0
    conn = in_timewait(host)
    host.net.sysctl.set("net.ipv4.tcp_rfc1337", 1)
    conn.rcv(RST, 1)
    assert host.net.tw_count == 1


def test_a_syn_beyond_the_old_numbers_makes_a_new_connection(host: TcpHost) -> None:
    conn = in_timewait(host)
    host.arrive(SYN, conn.irs + 500, sport=conn.rport)
    synack = host.one()
    assert synack.th.flags == SYN | ACK
    assert synack.th.seq == (conn.iss + 2 + 65537) & MASK
    assert host.net.tw_count == 0
    host.arrive(ACK, conn.irs + 501, synack.th.seq + 1, sport=conn.rport)
    assert [e for e in host.events() if isinstance(e, ReqskQueueAdd)]


def test_an_old_syn_is_challenged(host: TcpHost) -> None:
    conn = in_timewait(host)
    host.arrive(SYN, conn.irs - 500, sport=conn.rport)
    assert conn.sent() == [("A", 1, 0, 1)]
    assert host.net.tw_count == 1


def test_a_younger_clock_is_as_good_as_a_higher_number(host: TcpHost) -> None:
    conn = in_timewait(host, ts=True)
    opt = TcpOptions(saw_tstamp=True, tsval=conn.tsval + 5)
    host.arrive(SYN, conn.irs - 500, sport=conn.rport, opt=opt)
    assert host.one().th.flags == SYN | ACK


def test_paws_guards_timewait(host: TcpHost) -> None:
    conn = in_timewait(host, ts=True)
    opt = TcpOptions(saw_tstamp=True, tsval=conn.tsval - 500)
    host.arrive(SYN, conn.irs + 500, sport=conn.rport, opt=opt)
    assert conn.sent() == [("A", 1, 0, 1)]
    assert host.net.mib["TcpExtPAWSTimewait"] == 1


def test_timewaits_are_bounded(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_max_tw_buckets", 2)
    for port in (1, 2, 3):
        conn = Conn(host, rport=port)
        host.close(conn.sk)
        conn.rcv(FIN | ACK, 0, 1)
        conn.sent()
    assert host.net.tw_count == 2
    assert host.net.mib["TcpExtTCPTimeWaitOverflow"] == 1


def test_too_many_orphans_are_reset(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_max_orphans", 1)
    one, two = Conn(host, rport=1), Conn(host, rport=2)
    host.close(one.sk)
    host.sent()
    host.close(two.sk)
    assert [f for f, *_ in two.sent()] == ["FA", "RA"]
    assert host.net.mib["TcpExtTCPAbortOnMemory"] == 1


def test_socket_layer_reborn_resets_what_it_knew(host: TcpHost) -> None:
    conn = Conn(host)
    waiting = Conn(host, rport=7, accept=False)
    host.socket(8)
    host.sent()
    host.core.peer_up("socket")
    host.core.idle()
    host.check()
    assert sorted(s.th.dest for s in host.sent()) == [waiting.rport, conn.rport]
    assert not host.net.socks
    assert not host.net.ehash
    assert not host.net.lhash
    assert not host.net.bhash
    assert host.net.orphan_count == 0


# ---- both ends ---------------------------------------------------------------------------------

ORDERS = [
    ("a",),
    ("b",),
    ("a", "b"),
    ("b", "a"),
    ("a/", "b/", "a", "b"),
    ("b/", "a"),
    ("a/", "b"),
    ("a/", "b/", "b", "a"),
]


def finished(app: SimApp) -> bool:
    """The peer has closed."""
    return app.fin or app.done


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gap", [0, 0.0007, 0.01])
@pytest.mark.parametrize("loss", [0, 0.3])
def test_every_order_of_closing_ends_at_both_ends(
    order: tuple[str, ...], gap: float, loss: float
) -> None:
    pair = TcpPair(seed=len(order))
    children: list[SimApp] = []
    pair.b.listen(80)
    pair.b.on_accept = children.append
    app = pair.a.connect(80)
    pair.run(lambda: bool(children) and app.state == 1)
    app.send(payload(1, 3000))
    children[0].send(payload(2, 2000))
    pair.run(lambda: children[0].received == 3000 and app.received == 2000)
    pair.impair(loss=loss)
    ends = {"a": app, "b": children[0]}
    closed = set()
    for step in order:
        end = ends[step[0]]
        if step.endswith("/"):
            end.host.tcp.shutdown(end.sk, 2)
        else:
            end.close()
            closed.add(step)
        if gap:
            pair.run(seconds=gap)
        pair.flush()
    for name in {"a", "b"} - closed:
        end = ends[name]
        pair.run(partial(finished, end), seconds=200)
        end.close()
    pair.run(lambda: app.done and children[0].done, seconds=1000)
    for name, end in ends.items():
        assert end.errors == []
        assert end.sk not in end.host.tcp.net.socks, name
    pair.run(seconds=130)
    assert not pair.a.tcp.net.ehash
    assert not pair.b.tcp.net.ehash
    assert pair.a.tcp.net.orphan_count == pair.b.tcp.net.orphan_count == 0
    pair.check()
