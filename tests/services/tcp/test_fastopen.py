# SPDX-License-Identifier: MIT
"""Fast Open where a script does not reach (RFC 7413): the listener's limit, keys, the host cache,
the suspicion of a black hole. Its conversations are in tests/packetdrill/fastopen."""

import errno

from skbus.core.abi import Connected, ReqskQueueAdd, SkErrorReport, TcpSendmsgFastopenCb
from skbus.core.interfaces import Tcp
from skbus.core.skbuff import SkBuff
from skbus.inet.headers.tcp import TcpOptions
from skbusd.tcp.const import TCP_CLOSE, TCP_FASTOPEN, TCP_FASTOPEN_KEY, TCP_SYN_RECV, TCP_SYN_SENT
from skbusd.tcp.tcp_fastopen import (
    parse_key,
    tcp_fastopen_active_disable,
    tcp_fastopen_cookie_gen,
)
from skbusd.tcp.tcp_metrics import (
    TCP_METRICS_MAX,
    tcp_fastopen_cache_get,
    tcp_fastopen_cache_set,
)
from skbustest.tcphost import ACK, PEER, RST, SYN, US, Seg, TcpHost

SOL_TCP = 6
DATA = b"GET / HTTP/1.0\r\n\r\n"
SEC = 1_000_000_000


def listener(host: TcpHost, limit: int, bits: int = 0x202) -> None:
    host.net.sysctl.set("net.ipv4.tcp_fastopen", bits)
    host.listen()
    assert host.setsockopt(2, SOL_TCP, TCP_FASTOPEN, limit) == 0


def syn(host: TcpHost, sport: int, cookie: bytes | None = None) -> Seg:
    host.arrive(SYN, 1000, data=DATA, sport=sport, opt=TcpOptions(mss=1460, fastopen=cookie))
    return host.one()


def fastopen(host: TcpHost, sk: int, data: bytes, *, wait: bool = False) -> int:
    """sendto(MSG_FASTOPEN): how much the SYN took."""
    host.req += 1
    cb = TcpSendmsgFastopenCb(sk, host.req, PEER, 80, len(data), wait)
    frags = (data,) if data else ()
    host.rcv(Tcp.tcp_sendmsg_fastopen, SkBuff(b"", frags, id=1, cb=cb, lent=True))
    host.answer_route()
    ret = host.answer(host.req)
    assert ret.err == 0
    assert isinstance(ret.val, Connected)
    return ret.val.copied


def test_the_cookie_is_linux_s() -> None:
    key = parse_key("a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4")
    assert key is not None
    host = TcpHost()
    cookie = tcp_fastopen_cookie_gen(host.net, key, bytes((192, 0, 2, 1)), bytes((192, 168, 0, 1)))
    assert cookie.hex() == "3021b9d889017eeb"


def test_a_key_that_is_none() -> None:
    assert parse_key("01020304-05060708-090a0b0c-0d0e0f10") == bytes.fromhex(
        "04030201080706050c0b0a09100f0e0d"
    )
    for text in ("", "1-2-3", "1-2-3-g", "1-2-3-123456789"):
        assert parse_key(text) is None


def test_beyond_the_limit_data_in_a_syn_is_not_taken(host: TcpHost) -> None:
    listener(host, 1)
    assert syn(host, 5000).th.ack_seq == 1001 + len(DATA)
    assert syn(host, 5001).th.ack_seq == 1001
    assert host.net.mib["TcpExtTCPFastOpenListenOverflow"] == 1
    assert host.net.mib["TcpExtTCPFastOpenPassive"] == 1
    assert host.delivered() == DATA


def test_the_end_of_the_handshake_makes_room(host: TcpHost) -> None:
    listener(host, 1)
    synack = syn(host, 5000)
    host.arrive(ACK, synack.th.ack_seq, synack.th.seq + 1, sport=5000)
    assert syn(host, 5001).th.ack_seq == 1001 + len(DATA)


def test_an_accepted_child_that_is_reset_counts_for_a_minute(host: TcpHost) -> None:
    listener(host, 1)
    synack = syn(host, 5000)
    (added,) = [e for e in host.events() if isinstance(e, ReqskQueueAdd)]
    host.accept(2, added.child)
    assert host.net.socks[added.child].state == TCP_SYN_RECV
    host.arrive(RST, synack.th.ack_seq, sport=5000)
    assert host.net.socks[added.child].state == TCP_CLOSE
    assert SkErrorReport(added.child, errno.ECONNRESET, True) in host.events()
    assert syn(host, 5001).th.ack_seq == 1001
    host.run_for(61)
    host.sent()
    assert syn(host, 5002).th.ack_seq == 1001 + len(DATA)


def test_a_cookie_of_the_second_key_is_taken_and_renewed(host: TcpHost) -> None:
    listener(host, 8, 2)
    first, second = bytes(range(16)), bytes(range(16, 32))
    assert host.setsockopt(2, SOL_TCP, TCP_FASTOPEN_KEY, first + second) == 0
    assert host.setsockopt(2, SOL_TCP, TCP_FASTOPEN_KEY, b"short") == errno.EINVAL
    assert host.getsockopt(2, SOL_TCP, TCP_FASTOPEN_KEY) == first + second
    synack = syn(host, 5000, tcp_fastopen_cookie_gen(host.net, second, PEER, US))
    assert synack.th.ack_seq == 1001 + len(DATA)
    assert synack.opt.fastopen == tcp_fastopen_cookie_gen(host.net, first, PEER, US)
    assert host.net.mib["TcpExtTCPFastOpenPassiveAltKey"] == 1
    synack = syn(host, 5001, b"12345678")
    assert synack.th.ack_seq == 1001
    assert host.net.mib["TcpExtTCPFastOpenPassiveFail"] == 1


def test_a_server_that_has_it_switched_off_gives_no_cookie(host: TcpHost) -> None:
    listener(host, 8, 1)
    synack = syn(host, 5000, b"")
    assert synack.opt.fastopen is None
    assert host.net.mib["TcpExtTCPFastOpenCookieReqd"] == 1


def test_the_synack_is_repeated_until_the_child_gives_up(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_synack_retries", 1)
    listener(host, 8)
    syn(host, 5000)
    (added,) = [e for e in host.events() if isinstance(e, ReqskQueueAdd)]
    host.run_for(30)
    again = host.sent()
    assert [s.th.flags for s in again] == [SYN | ACK] * 2
    assert {s.th.ack_seq for s in again} == {1001 + len(DATA)}
    assert SkErrorReport(added.child, errno.ETIMEDOUT, True) in host.events()
    assert host.net.socks[2].fastopenq_qlen == 0


def test_the_cache_forgets_the_host_that_was_met_least_recently(host: TcpHost) -> None:
    for i in range(TCP_METRICS_MAX + 1):
        peer = i.to_bytes(4, "big")
        tcp_fastopen_cache_set(host.net, US, peer, 1000, b"abcd", False, False, 0)
    assert len(host.net.tcp_metrics) == TCP_METRICS_MAX
    assert tcp_fastopen_cache_get(host.net, US, bytes(4)) == (0, b"", False)
    assert tcp_fastopen_cache_get(host.net, US, peer) == (1000, b"abcd", False)


def test_a_suspected_black_hole_pauses_the_client(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_fastopen_blackhole_timeout_sec", 10)
    tcp_fastopen_cache_set(host.net, US, PEER, 1460, b"abcd", False, False, 0)
    host.socket(4)
    assert fastopen(host, 4, DATA) == len(DATA)
    assert host.one().opt.fastopen == b"abcd"
    tcp_fastopen_active_disable(host.net)
    assert host.net.mib["TcpExtTCPFastOpenBlackhole"] == 1
    host.socket(6)
    assert fastopen(host, 6, DATA) == 0
    assert host.one().opt.fastopen is None
    host.net.now += 11 * SEC
    host.socket(8)
    assert fastopen(host, 8, DATA) == len(DATA)


def test_three_syns_in_vain_are_suspicious(host: TcpHost) -> None:
    host.net.sysctl.set("net.ipv4.tcp_fastopen_blackhole_timeout_sec", 10)
    tcp_fastopen_cache_set(host.net, US, PEER, 1460, b"abcd", False, False, 0)
    host.socket(4)
    fastopen(host, 4, DATA)
    host.run_for(3.5)
    assert host.net.socks[4].state == TCP_SYN_SENT
    assert host.net.mib["TcpExtTCPFastOpenBlackhole"] == 1
    assert host.net.mib["TcpExtTCPFastOpenActiveFail"] == 1
    assert [s.data for s in host.sent()] == [DATA, b"", b"", b""]


def test_a_second_sendmsg_while_the_route_is_asked_for_is_refused(host: TcpHost) -> None:
    host.socket(4)
    for req in (70, 71):
        cb = TcpSendmsgFastopenCb(4, req, PEER, 80, len(DATA), False)
        host.rcv(Tcp.tcp_sendmsg_fastopen, SkBuff(b"", (DATA,), id=1, cb=cb, lent=True))
    assert host.answer(71).err == errno.EALREADY
    host.answer_route()
    assert host.answer(70).err == 0


def test_a_sendmsg_for_nobody_or_of_nonsense(host: TcpHost) -> None:
    cb = TcpSendmsgFastopenCb(99, 5, PEER, 80, 0, False)
    host.rcv(Tcp.tcp_sendmsg_fastopen, SkBuff(b"", (), id=1, cb=cb, lent=True))
    assert host.answer(5).err == errno.EBADF
    host.rcv(Tcp.tcp_sendmsg_fastopen, SkBuff(b"", (), id=1, lent=True))
    assert host.dropped("SKBUS_BAD_MESSAGE") == 1
