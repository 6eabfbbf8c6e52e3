# SPDX-License-Identifier: MIT
"""A control block can be written down, and another process goes on with it
(docs/architecture.md, "Who owns what")."""

import msgpack
import pytest

from skbusd.tcp.dump import BadDumpError, tcp_sock_dump, tcp_sock_load
from skbustest.tcphost import ACK, Conn, SimApp, TcpHost, TcpPair, digest, payload


def through_msgpack(dump: tuple[object, ...]) -> tuple[object, ...]:
    """As it comes back from where it was written."""
    return tuple(msgpack.unpackb(msgpack.packb(dump), strict_map_key=False))


def test_round_trip_of_a_busy_socket(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    conn.send(40000)
    conn.sent()
    conn.rcv(ACK, 0, 1448, sacks=((4 * 1448, 6 * 1448),))
    conn.rcv(ACK, 5000, 1448, b"later")
    host.setsockopt(conn.sk, 1, 9, 1)
    tp = conn.tp
    dump = tcp_sock_dump(tp)
    again, deadlines = tcp_sock_load(through_msgpack(dump))
    timers = [t.expires if t else -1 for t in (tp.write_timer, tp.delack_timer, tp.sk_timer)]
    assert list(deadlines) == timers
    assert max(timers) > 0
    assert tcp_sock_dump(again)[:-3] == dump[:-3]
    assert [s.seq for s in again.tsorted] == [s.seq for s in tp.tsorted]
    assert again.ofo[0].skb.frags == (b"later",)


def test_a_listener_and_its_queue(host: TcpHost) -> None:
    tp = host.listen()
    conn = Conn(host, accept=False)
    again, _ = tcp_sock_load(through_msgpack(tcp_sock_dump(tp)))
    assert again.accept_queue == {conn.sk: None}


@pytest.mark.parametrize("bad", [(), (1, 2), (99,) * 190])
def test_what_is_no_dump_is_refused(bad: tuple[object, ...]) -> None:
    with pytest.raises(BadDumpError):
        tcp_sock_load(bad)


def test_it_is_small(host: TcpHost) -> None:
    conn = Conn(host, ts=True)
    assert len(msgpack.packb(tcp_sock_dump(conn.tp))) < 700


@pytest.mark.interpreted
def test_an_idle_connection_has_nothing_of_its_own_that_is_rare(host: TcpHost) -> None:
    host.listen()
    conns = [Conn(host, rport=5000 + i, ts=True) for i in range(2)]
    for conn in conns:
        conn.rcv(ACK, 0, 0, b"ask")
        conn.send(3000)
        conn.sent()
        conn.rcv(ACK, 3, 3000)
        assert conn.tp.__dict__ == {}
    one, other = (conn.tp for conn in conns)
    assert one is not other
    for name in ("saddr", "daddr", "xmit_cb", "mss_cache", "mss_clamp", "window_clamp", "pmtu"):
        assert getattr(one, name) is getattr(other, name), name


@pytest.mark.interpreted
def test_what_is_rare_is_written_down_too(host: TcpHost) -> None:
    conn = Conn(host)
    host.setsockopt(conn.sk, 6, 4, 77)  # TCP_KEEPIDLE
    again, _ = tcp_sock_load(through_msgpack(tcp_sock_dump(conn.tp)))
    assert again.__dict__ == {"keepalive_time": 77}
    again.reset()
    assert again.keepalive_time == 77


def test_a_transfer_goes_on_in_another_process() -> None:
    """tcp of the sender dies in mid-transfer; its heir adopts what was written down."""
    pair = TcpPair(loss=0.02, reorder=0.05)
    data = payload(9, 400_000)
    children: list[SimApp] = []
    pair.b.listen(80)
    pair.b.on_accept = children.append
    pair.b.on_fin = lambda app: app.close()
    app = pair.a.connect(80)
    app.send(data, then_close=True)
    for _ in range(20):
        pair.run(seconds=0.004)
        old = pair.a.tcp
        if not old.net.socks:
            break
        heir = TcpHost(addr=old.addr, seed=99)
        heir.net.now = pair.now
        for tp in list(old.net.socks.values()):
            heir.core.adopt(through_msgpack(tcp_sock_dump(tp)))  # type: ignore[attr-defined]
        heir.net.skb_received = heir.core.held()
        pair.a.tcp = heir
    pair.run(lambda: bool(children) and children[0].fin and app.done, seconds=100)
    assert children[0].hash.hexdigest() == digest(data)
