# SPDX-License-Identifier: MIT
"""Opening: active, passive, simultaneous; the listener's queues; SYN cookies (RFC 9293 3.5)."""

import errno

import pytest

from skbus.core import uapi
from skbus.core.abi import (
    Connect,
    IpRouteOutputKey,
    ListenStart,
    ReqskQueueAdd,
    RouteRet,
    SkErrorReport,
    SkStateChange,
    SkWriteSpace,
    TcpDone,
)
from skbus.core.interfaces import InetTransport, Ip, TransportProto
from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp.const import (
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from skbustest.tcphost import ACK, FIN, PEER, PSH, RST, SYN, US, Conn, TcpHost

ISS = 0xFFFFFF00
MASK = 0xFFFFFFFF
MARGIN = 240_000_000


def test_connect_asks_ip_for_the_route_and_sends_a_syn_as_linux_does(host: TcpHost) -> None:
    host.socket(2)
    host.call(TransportProto.connect, Connect(2, 7, PEER, 80))
    (ask,) = host.out("ip", Ip.ip_route_output_key)
    assert IpRouteOutputKey._make(ask)[1:] == ("tcp", PEER, b"", 0, 0)
    assert host.sent() == []
    host.call(InetTransport.ip_route_output_ret, RouteRet(ask.req, 0, US, PEER, 2, 1500, 1, 1))
    ret = host.answer(7)
    assert ret.err == 0
    assert isinstance(ret.val, tuple)
    assert ret.val[0] == US
    assert 32768 <= ret.val[1] <= 60999
    syn = host.one()
    assert syn.th.flags == SYN
    assert syn.th.seq == ISS
    assert syn.th.ack_seq == 0
    assert syn.th.window == 64240
    raw = syn.skb.head[20:]
    assert [raw[i] for i in (0, 4, 6, 16, 17)] == [2, 4, 8, 1, 3]  # mss sackOK TS nop wscale
    assert len(raw) == 20
    assert syn.opt.mss == 1460
    assert syn.opt.wscale == 7
    assert syn.opt.tsecr == 0
    assert syn.cb[:3] == (US, PEER, 6)
    assert syn.cb.df
    assert host.events() == [SkStateChange(2, TCP_SYN_SENT, US, ret.val[1], PEER, 80)]
    assert host.net.mib["TcpActiveOpens"] == 1


def test_syn_ack_establishes_and_is_acknowledged_at_once(host: TcpHost) -> None:
    conn = Conn(host, active=True, ts=True)
    assert conn.ack.th.flags == ACK
    assert conn.ack.th.ack_seq == (conn.irs + 1) & MASK
    assert conn.ack.th.seq == (ISS + 1) & MASK
    assert conn.ack.th.window == 502  # 64240, rounded up to 128
    assert conn.ack.opt.tsecr == 1000
    tp = conn.tp
    assert tp.state == TCP_ESTABLISHED
    assert tp.mss_cache == 1448
    assert tp.snd_cwnd == 10
    assert host.net.mib["TcpCurrEstab"] == 1
    assert tp.write_timer is not None
    assert not tp.write_timer.pending()


def test_a_peer_without_options_gets_none(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    syn = host.one()
    port = syn.th.source
    host.arrive(SYN | ACK, 99, ISS + 1, sport=80, dport=port)
    tp = host.net.socks[2]
    assert (tp.sack_ok, tp.wscale_ok, tp.tstamp_ok) == (False, False, False)
    assert tp.mss_cache == 536
    assert tp.rcv_wscale == 0
    assert host.one().th.window == 64240
    host.send(2, b"x" * 600)
    (a, b) = host.sent() if len(host.net.outbox.get("ip", ())) == 2 else (host.one(), None)
    assert len(a.data) == 600 or (b is not None and len(a.data) == 536)


def test_syn_is_sent_again_linearly_then_with_back_off_then_given_up(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    host.sent()
    start = host.net.now
    times = []
    for _ in range(1000):
        host.run_for(0.25)
        times += [int((host.net.now - start - MARGIN) / 1e9) for _ in host.sent()]
        if host.net.socks[2].state == TCP_CLOSE:
            break
    # tcp_syn_linear_timeouts 4, then doubling: 1 2 3 4 5 7 11 19 35 67
    assert times == [1, 2, 3, 4, 5, 7, 11, 19, 35, 67]
    assert host.events()[1:] == [
        SkErrorReport(2, errno.ETIMEDOUT, True),
        SkStateChange(2, TCP_CLOSE, US, host.net.socks[2].sport, PEER, 80),
        TcpDone(2),
    ]
    assert host.net.mib["TcpExtTCPSynRetrans"] == 10
    assert host.net.mib["TcpExtTCPTimeouts"] == 11
    assert host.net.mib["TcpAttemptFails"] == 1
    assert host.net.mib["TcpExtTCPAbortOnTimeout"] == 1


def test_rst_to_a_syn_is_connection_refused(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    port = host.one().th.source
    host.events()
    host.arrive(RST | ACK, 0, ISS + 1, sport=80, dport=port)
    assert host.events()[0] == SkErrorReport(2, errno.ECONNREFUSED, True)
    assert host.dropped("TCP_RESET") == 1
    # and the socket may try again
    assert host.connect(2, 81).err == 0
    assert host.one().th.dest == 81


@pytest.mark.parametrize(("flags", "ack"), [(ACK, 0), (SYN | ACK, 2), (ACK, -1)])
def test_a_wrong_ack_to_a_syn_is_answered_with_rst(host: TcpHost, flags: int, ack: int) -> None:
    host.socket(2)
    host.connect(2, 80)
    port = host.one().th.source
    host.arrive(flags, 99, ISS + ack, sport=80, dport=port)
    rst = host.one()
    assert rst.th.flags == RST
    assert rst.th.seq == (ISS + ack) & MASK
    assert host.net.socks[2].state == TCP_SYN_SENT
    assert host.dropped("TCP_INVALID_ACK_SEQUENCE") == 1


def test_rst_with_a_wrong_ack_does_nothing(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    port = host.one().th.source
    host.arrive(RST | ACK, 0, ISS + 5, sport=80, dport=port)
    assert host.sent() == []
    assert host.net.socks[2].state == TCP_SYN_SENT


def test_no_route(host: TcpHost) -> None:
    host.socket(2)
    host.call(TransportProto.connect, Connect(2, 9, PEER, 80))
    host.answer_route(err=errno.ENETUNREACH)
    assert host.answer(9).err == errno.ENETUNREACH
    assert host.net.socks[2].state == TCP_CLOSE
    assert host.sent() == []
    assert not host.net.ehash


def test_ip_reborn_is_asked_again(host: TcpHost) -> None:
    host.socket(2)
    host.call(TransportProto.connect, Connect(2, 9, PEER, 80))
    host.out("ip")
    host.core.peer_up("ip")
    assert [entry for entry, _ in host.net.outbox["ip"]] == [
        Ip.inet_add_protocol,
        Ip.ip_route_output_key,
    ]
    host.answer_route()
    assert host.answer(9).err == 0
    assert [s.th.flags for s in host.sent()] == [SYN]


def test_simultaneous_open(host: TcpHost) -> None:
    host.socket(2)
    host.connect(2, 80)
    port = host.one().th.source
    opt = TcpOptions(mss=1400, sack_ok=True, wscale=3)
    host.arrive(SYN, 500, sport=80, dport=port, opt=opt)
    synack = host.one()
    assert synack.th.flags == SYN | ACK
    assert synack.th.seq == ISS
    assert synack.th.ack_seq == 501
    assert synack.opt.wscale == 7
    assert host.net.socks[2].state == TCP_SYN_RECV
    host.arrive(SYN | ACK, 500, ISS + 1, sport=80, dport=port, opt=opt)
    tp = host.net.socks[2]
    assert tp.state == TCP_ESTABLISHED
    assert tp.mss_cache == 1400
    host.sent()
    host.arrive(ACK | PSH, 501, ISS + 1, b"hello", sport=80, dport=port)
    assert host.delivered() == b"hello"
    host.send(2, b"there")
    assert [s.data for s in host.sent() if s.data] == [b"there"]


# ---- passive ---------------------------------------------------------------------------------


def test_an_echo_of_a_timestamp_that_was_not_sent_opens_nothing(host: TcpHost) -> None:
    """SYN-RECEIVED, RFC 7323 3.2: a blind ACK does not know what the SYN-ACK carried."""
    tp = host.listen(2, 80)
    host.arrive(SYN, 0, opt=TcpOptions(mss=1460, saw_tstamp=True, tsval=7))
    first = host.one().opt.tsval
    host.run_for(1.5)
    last = host.one().opt.tsval
    assert last > first
    for tsecr in (first - 1, first + 2**30, first + 2**31):
        ts = TcpOptions(saw_tstamp=True, tsval=8, tsecr=tsecr & MASK)
        host.arrive(ACK, 1, ISS + 1, opt=ts)
        assert tp.qlen == 1
        assert host.one().th.flags == ACK, "what is wrong is answered"
        host.run_for(0.6)  # an answer in half a second
        host.sent()
    assert host.net.mib["TcpExtTSEcrRejected"] == 3
    host.arrive(ACK, 1, ISS + 1, opt=TcpOptions(saw_tstamp=True, tsval=9, tsecr=first))
    assert tp.qlen == 0
    assert host.net.mib["TcpPassiveOpens"] == 1


def test_passive_open(host: TcpHost) -> None:
    tp = host.listen(2, 80)
    assert tp.state == TCP_LISTEN
    opt = TcpOptions(mss=1460, sack_ok=True, saw_tstamp=True, tsval=7, wscale=10)
    host.events()
    host.arrive(SYN, MASK, opt=opt)
    synack = host.one()
    assert synack.th.flags == SYN | ACK
    assert synack.th.ack_seq == 0
    assert synack.th.window == 65160
    assert (synack.opt.mss, synack.opt.wscale, synack.opt.sack_ok) == (1460, 7, True)
    assert synack.opt.tsecr == 7
    assert tp.qlen == 1
    assert len(host.net.socks) == 1
    assert host.events() == []
    ts = TcpOptions(saw_tstamp=True, tsval=8, tsecr=synack.opt.tsval)
    host.run_for(0.02)
    host.arrive(ACK | PSH, 0, ISS + 1, b"GET", opt=ts, win=500)
    added, space = host.events()  # that it is established goes without saying
    assert isinstance(added, ReqskQueueAdd)
    assert space == SkWriteSpace(added.child, 0, host.net.socks[added.child].sndbuf)
    assert added == ReqskQueueAdd(2, added.child, US, 80, PEER, 5000)
    assert added.child & 1
    assert host.delivered() == b"GET"
    child = host.net.socks[added.child]
    assert child.state == TCP_ESTABLISHED
    assert child.snd_wnd == 500 << 10
    assert child.srtt_us >> 3 == 20_000
    assert tp.qlen == 0
    assert list(tp.accept_queue or ()) == [added.child]
    host.accept(2, added.child)
    assert not tp.accept_queue
    assert host.net.mib["TcpPassiveOpens"] == 1


def test_a_syn_twice_gets_the_same_syn_ack(host: TcpHost) -> None:
    host.listen()
    host.arrive(SYN, 5)
    first = host.one()
    host.run_for(0.6)
    host.arrive(SYN, 5)
    again = host.one()
    assert again.th.seq == first.th.seq
    assert host.net.socks[2].qlen == 1


def test_syn_ack_is_sent_again_and_given_up(host: TcpHost) -> None:
    tp = host.listen()
    host.arrive(SYN, 5)
    host.sent()
    start = host.net.now
    times = []
    for _ in range(400):
        host.run_for(0.25)
        times += [int((host.net.now - start - MARGIN) / 1e9) for _ in host.sent()]
    assert times == [1, 3, 7, 15, 31]
    assert tp.qlen == 0
    assert not host.net.ehash


def test_rst_ends_a_request(host: TcpHost) -> None:
    tp = host.listen()
    host.arrive(SYN, 5)
    host.sent()
    host.arrive(RST, 6)
    assert tp.qlen == 0
    assert host.net.mib["TcpExtEmbryonicRsts"] == 1
    assert host.net.mib["TcpAttemptFails"] == 1
    assert host.sent() == []


def test_a_wrong_ack_in_syn_recv_is_answered_with_rst_and_the_request_stays(host: TcpHost) -> None:
    tp = host.listen()
    host.arrive(SYN, 5)
    host.sent()
    host.arrive(ACK, 6, ISS + 2)
    rst = host.one()
    assert rst.th.flags == RST
    assert rst.th.seq == (ISS + 2) & MASK
    assert tp.qlen == 1


@pytest.mark.parametrize(
    ("flags", "answer"), [(ACK, RST), (RST, 0), (FIN, 0), (0, 0), (SYN | FIN, 0), (SYN | ACK, RST)]
)
def test_odd_segments_to_a_listener(host: TcpHost, flags: int, answer: int) -> None:
    tp = host.listen()
    host.arrive(flags, 5, 77)
    sent = host.sent()
    assert [s.th.flags for s in sent] == ([answer] if answer else [])
    assert tp.qlen == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (SYN, (RST | ACK, 0, 6)),
        (SYN | ACK, (RST, 77, 0)),
        (ACK, (RST, 77, 0)),
        (FIN, (RST | ACK, 0, 6)),
        (RST, None),
        (RST | ACK, None),
    ],
)
def test_a_closed_port(host: TcpHost, flags: int, expected: tuple[int, int, int] | None) -> None:
    host.arrive(flags, 5, 77, dport=81)
    got = [(s.th.flags, s.th.seq, s.th.ack_seq) for s in host.sent()]
    assert got == ([expected] if expected else [])
    assert host.dropped("NO_SOCKET") == 1
    assert host.net.mib["TcpOutRsts"] == len(got)


# ---- the queues --------------------------------------------------------------------------------


def test_a_full_accept_queue_drops_the_ack_and_takes_it_later(host: TcpHost) -> None:
    tp = host.listen(2, 80, backlog=1)
    for port in (1, 2):
        Conn(host, rport=port, wscale=None, accept=False)
    assert len(tp.accept_queue or ()) == 2
    host.arrive(SYN, 5, sport=3)
    assert host.sent() == []
    assert host.net.mib["TcpExtListenOverflows"] == 1
    assert host.net.mib["TcpExtListenDrops"] == 1
    host.accept(2, next(iter(tp.accept_queue or ())))
    host.run_for(1)
    host.sent()
    Conn(host, rport=3, accept=False)
    assert len(tp.accept_queue or ()) == 2


def test_an_ack_to_a_full_accept_queue(host: TcpHost) -> None:
    tp = host.listen(2, 80, backlog=1)
    host.arrive(SYN, 5, sport=9)
    synack = host.one()
    host.net.sysctl.set("net.ipv4.tcp_syncookies", 0)
    tp.qlen = 0  # room for the others' SYNs
    for port in (1, 2):
        Conn(host, rport=port, accept=False)
    host.arrive(ACK, 6, synack.th.seq + 1, sport=9)
    assert host.sent() == []
    assert host.net.mib["TcpExtListenOverflows"] == 1
    host.net.sysctl.set("net.ipv4.tcp_abort_on_overflow", 1)
    host.arrive(ACK, 6, synack.th.seq + 1, sport=9)
    assert host.one().th.flags == RST


def test_syn_cookies_open_connections_when_the_queue_is_full(host: TcpHost) -> None:
    tp = host.listen(2, 80, backlog=1)
    host.arrive(SYN, 5, sport=1)
    assert tp.qlen == 1
    host.sent()
    opt = TcpOptions(mss=1450, sack_ok=True, saw_tstamp=True, tsval=70, wscale=9)
    host.arrive(SYN, 1000, sport=2, opt=opt)
    synack = host.one()
    assert tp.qlen == 1
    assert host.net.mib["TcpExtSyncookiesSent"] == 1
    ts = TcpOptions(saw_tstamp=True, tsval=71, tsecr=synack.opt.tsval)
    host.run_for(30)
    host.sent()
    host.events()
    host.arrive(ACK | PSH, 1001, synack.th.seq + 1, b"hi", sport=2, opt=ts)
    added = host.events()[0]
    assert isinstance(added, ReqskQueueAdd)
    child = host.net.socks[added.child]
    assert (child.sack_ok, child.tstamp_ok, child.snd_wscale) == (True, True, 9)
    assert child.mss_clamp == 1440
    assert host.delivered() == b"hi"
    assert host.net.mib["TcpExtSyncookiesRecv"] == 1
    # a number that is no cookie
    host.sent()
    host.arrive(ACK, 1001, synack.th.seq + 2, sport=4, opt=ts)
    assert host.one().th.flags == RST
    assert host.net.mib["TcpExtSyncookiesFailed"] == 1


def test_a_cookie_counts_when_a_later_syn_found_room(host: TcpHost) -> None:
    # In a flood the answer to a SYN may be late, and the SYN repeated: the peer takes the first.
    isn = iter(range(100, 200))
    host.net.isn = lambda *_: next(isn)
    tp = host.listen(2, 80, backlog=1)
    host.arrive(SYN, 5, sport=1)
    host.arrive(SYN, 1000, sport=2)
    cookie = host.sent()[-1]
    assert host.net.mib["TcpExtSyncookiesSent"] == 1
    host.arrive(RST, 6, sport=1)
    assert tp.qlen == 0
    host.arrive(SYN, 1000, sport=2)
    assert host.one().th.seq != cookie.th.seq
    assert tp.qlen == 1
    host.arrive(ACK | PSH, 1001, cookie.th.seq + 1, b"hi", sport=2)
    assert host.delivered() == b"hi"
    assert tp.qlen == tp.qlen_young == 0
    assert host.net.mib["TcpExtSyncookiesRecv"] == 1
    # and what is neither is reset
    host.sent()
    host.arrive(SYN, 1000, sport=3)
    host.sent()
    host.arrive(ACK, 1001, cookie.th.seq + 1, sport=3)
    assert host.one().th.flags == RST
    assert tp.qlen == 1


def test_without_cookies_a_full_queue_drops(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_syncookies", 0)
    host.listen(2, 80, backlog=1)
    host.arrive(SYN, 5, sport=1)
    host.sent()
    host.arrive(SYN, 5, sport=2)
    assert host.sent() == []
    assert host.net.mib["TcpExtTCPReqQFullDrop"] == 1


def test_closing_a_listener_resets_who_was_not_accepted(host: TcpHost) -> None:
    host.listen(2, 80)
    waiting = Conn(host, rport=1, accept=False)
    taken = Conn(host, rport=2)
    host.arrive(SYN, 5, sport=3)
    host.sent()
    host.close(2)
    rst = host.one()
    assert rst.th.dest == 1
    assert rst.th.flags == RST | ACK
    done = [e for e in host.events() if isinstance(e, TcpDone)]
    assert TcpDone(waiting.sk) in done
    assert TcpDone(2) in done
    assert waiting.sk not in host.net.socks
    assert taken.tp.state == TCP_ESTABLISHED
    host.run_for(60)
    host.sent()
    assert len(host.net.ehash) == 1


def test_two_listeners_with_reuseport_share_the_flows(host: TcpHost) -> None:
    for sk in (2, 4):
        host.socket(sk)
        assert host.bind(sk, 80, reuse=2) == 0
        host.call(TransportProto.listen, ListenStart(sk, 50 + sk, 100))
        assert host.answer(50 + sk).err == 0
    for port in range(1000, 1040):
        host.arrive(SYN, 5, sport=port)
    a, b = host.net.socks[2].qlen, host.net.socks[4].qlen
    assert a + b == 40
    assert min(a, b) > 5


def test_a_bad_checksum_is_counted_and_dropped(host: TcpHost) -> None:
    host.listen()
    host.arrive(SYN, 5, csum=False)
    assert host.sent() == []
    assert host.net.mib["TcpInCsumErrors"] == 1
    assert host.dropped("TCP_CSUM") == 1
    host.arrive(SYN, 5, csum=True)
    assert host.one().th.flags == SYN | ACK


def test_unknown_sockets_get_an_errno(host: TcpHost) -> None:
    assert host.bind(98, 80) == errno.EBADF
    assert host.disconnect(98) == errno.EBADF
    assert host.setsockopt(98, uapi.SOL_TCP, uapi.TCP_NODELAY, 1) == errno.EBADF
    assert host.getsockopt(98, uapi.SOL_TCP, uapi.TCP_NODELAY) == -errno.EBADF
    host.close(98)
    host.shutdown(98)
    host.recvmsg(98, 1)
    host.accept(98, 99)
    host.send(98, b"x")
    assert host.dropped("TCP_CLOSE") == 1
