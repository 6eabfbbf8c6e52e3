# SPDX-License-Identifier: MIT
"""Arbitrary segments, options and calls in every state: nothing raises, no skb is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from skbus.core import uapi
from skbustest.tcpcheck import check_tcp
from skbustest.tcphost import ACK, FIN, RST, SYN, Conn, TcpHost

near = st.one_of(
    st.integers(-5, 5), st.integers(-70000, 70000), st.sampled_from([0, 1, 1460, 2**31, -(2**31)])
)
options = st.one_of(
    st.just(b""),
    st.binary(max_size=40).map(lambda b: b[: len(b) & ~3]),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(
        lambda t: b"\1\1\x08\x0a" + t[0].to_bytes(4, "big") + t[1].to_bytes(4, "big")
    ),
)
flags = st.one_of(
    st.sampled_from([ACK, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK, ACK | 8, 0]),
    st.integers(0, 0x1FF),
)
segment = st.tuples(
    st.just("segment"), flags, near, near, st.integers(0, 3000), st.integers(0, 65535), options
)
sack = st.tuples(st.just("sack"), near, st.lists(st.tuples(near, near), min_size=1, max_size=3))
call = st.sampled_from(
    ["send", "sendmore", "bulk", "recv", "shut", "close", "abort", "keep", "wait", "long", "frag"]
)
steps = st.lists(st.one_of(segment, segment, sack, call), max_size=12)


def act(host: TcpHost, conn: Conn, step: object) -> None:
    """One step."""
    tp = host.net.socks.get(conn.sk)
    una = (tp.snd_nxt - conn.iss - 1) if tp else 0
    nxt = (tp.rcv_nxt - conn.irs - 1) if tp else 0
    if isinstance(step, tuple) and step[0] == "segment":
        _, bits, seq, ack, size, win, opt = step
        host.arrive(
            bits,
            conn.irs + 1 + nxt + seq,
            conn.iss + 1 + una + ack,
            bytes(size),
            win=win,
            opt=opt,
            sport=conn.rport,
            dport=conn.port,
            urg=size & 7,
        )
    elif isinstance(step, tuple):
        blocks = tuple((una + a, una + b) for a, b in step[2])
        conn.rcv(ACK, nxt, una + step[1], sacks=blocks)
    elif step == "send":
        conn.send(700)
    elif step == "sendmore":
        conn.send(100, 0x8000)
    elif step == "bulk":
        conn.send(65536)
    elif step == "recv":
        host.recvmsg(conn.sk, 1000)
    elif step == "shut":
        host.shutdown(conn.sk, 2)
    elif step == "close":
        host.close(conn.sk)
    elif step == "abort":
        host.close(conn.sk, linger=0)
    elif step == "keep":
        host.setsockopt(conn.sk, uapi.SOL_SOCKET, uapi.SO_KEEPALIVE, 1)
    elif step == "wait":
        host.run_for(0.3)
    elif step == "long":
        host.run_for(70)
    elif step == "frag":
        host.icmp(3, 4, conn.iss + 1 + una - 1, info=600, sport=conn.port, dport=conn.rport)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans(), st.booleans(), st.booleans())
def test_anything_may_arrive(trail: list[object], active: bool, ts: bool, sack: bool) -> None:
    host = TcpHost()
    conn = Conn(host, active=active, ts=ts, sack=sack)
    for step in trail:
        act(host, conn, step)
        check_tcp(host.net)
        host.sent()
    host.close(conn.sk)
    host.run_for(3000)
    host.close(2)
    host.run_for(200)
    host.sent()
    assert conn.sk not in host.net.socks
    host.run_for(200)
    host.sent()
    assert host.net.tw_count == 0
    assert not host.net.ehash
    assert host.net.orphan_count == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(segment, max_size=12))
def test_anything_may_come_to_a_listener(trail: list[tuple[object, ...]]) -> None:
    host = TcpHost()
    tp = host.listen()
    for _, bits, seq, ack, size, win, opt in trail:
        assert isinstance(bits, int)
        assert isinstance(seq, int)
        assert isinstance(ack, int)
        assert isinstance(size, int)
        assert isinstance(win, int)
        assert isinstance(opt, bytes)
        host.arrive(bits, 77 + seq, 0xFFFFFF01 + ack, bytes(size), win=win, opt=opt)
        host.sent()
    host.run_for(2000)
    assert tp.qlen == 0 or any(True for _ in host.net.socks)
    host.close(2)
    host.run_for(3000)
    host.sent()
    assert not host.net.ehash
    assert not host.net.lhash
    assert not host.net.bhash
